//! HTTP and secrets, the same for scripts in process and in workers: by grant, bounded, and without secrets in what comes
//! out of a call.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use toolbay_api::{
    ErrorKind, Limit, Limits, PermissionSet, Scope, Secret, SecretName, SecretProvider, TenantId, ToolError,
    async_trait,
};
use toolbay_http::HttpClient;
use toolbay_rhai::RhaiRunner;
use toolbay_runtime::{AuditRecord, AuditSink, EnvSecrets, FileSecrets, SecretChain, Toolbay, ToolbayBuilder};
use toolbay_worker::WorkerRunner;

use crate::support::{config, limits};

/// A server on loopback that answers by path and counts its requests.
struct Server {
    port: u16,
    requests: Arc<AtomicUsize>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                count.fetch_add(1, Relaxed);
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    while !request.windows(4).any(|end| end == b"\r\n\r\n") && socket.read_buf(&mut request).await? > 0
                    {
                    }
                    let text = String::from_utf8_lossy(&request).into_owned();
                    let (status, more, body) = match text.split([' ', '?']).nth(1).unwrap_or_default() {
                        "/redirect" => ("302 Found", format!("location: http://localhost:{port}/hello\r\n"), vec![]),
                        "/big" => ("200 OK", String::new(), vec![b'x'; 5_000]),
                        "/bytes" => ("200 OK", String::new(), vec![0xff; 3_500]),
                        "/slow" => std::future::pending().await,
                        "/echo" => ("200 OK", String::new(), text.into_bytes()),
                        _ => ("200 OK", String::new(), b"hello".to_vec()),
                    };
                    let head = format!("HTTP/1.1 {status}\r\n{more}content-length: {}\r\n\r\n", body.len());
                    socket.write_all(&[head.as_bytes(), &body].concat()).await
                });
            }
        });
        Self { port, requests }
    }
}

fn open_client() -> HttpClient {
    HttpClient::builder().allow_plain_http().allow_network("127.0.0.0/8".parse().unwrap()).build().unwrap()
}

const TOOL: &str = "tools: #{ t: #{ description: \"d\", parameters: #{ type: \"object\" } }, \
                    u: #{ description: \"d\", parameters: #{ type: \"object\" } } } };\n";

/// The plugin `p` with the tool `p.t`, loaded in both tiers, each with a host of its own.
async fn tiers(asked: &[&str], code: &str, build: impl Fn(ToolbayBuilder) -> ToolbayBuilder) -> [Toolbay; 2] {
    let source = format!(
        "const PLUGIN = #{{ name: \"p\", version: \"1.0.0\", description: \"d\", permissions: {}, {TOOL}fn u(args) {{ args }}\n{code}",
        json!(asked)
    );
    let base = || build(Toolbay::builder().limits(limits()).grants(PermissionSet::all()));
    let bays = [
        base().runner(RhaiRunner::default()).build().unwrap(),
        base().runner(WorkerRunner::new(config()).unwrap()).build().unwrap(),
    ];
    for bay in &bays {
        bay.load_source(Scope::Global, "p.rhai", &source).await.unwrap_or_else(|error| panic!("{error}"));
    }
    bays
}

async fn call(bay: &Toolbay, tenant: &str, arguments: Value) -> Result<Value, ToolError> {
    bay.session(tenant).unwrap().call("p.t", arguments).await.result.map(|output| output.data)
}

fn kind(result: &Result<Value, ToolError>) -> &'static str {
    result.as_ref().map_or_else(|error| error.kind.name(), |_| "ok")
}

#[tokio::test]
async fn a_script_asks_a_server_that_it_was_granted() {
    let server = Server::start().await;
    let asked = format!("http-plain:*:127.0.0.1:{}", server.port);
    let code = "fn t(args) {
        let got = http_get(args.url + \"/hello\");
        let put = http(#{ method: \"PUT\", url: args.url + \"/echo\", query: #{ q: 1 }, headers: #{ a: \"b\" }, body: \"x\" });
        let posted = http_post(args.url + \"/hello\", #{ n: [1] });
        [got.status, got.body, put.body.contains(\"PUT /echo?q=1\"), posted.status]
    }";
    for bay in tiers(&[&asked], code, |bay| bay.http(open_client())).await {
        let url = format!("http://127.0.0.1:{}", server.port);
        let data = call(&bay, "acme", json!({ "url": url })).await.unwrap();
        assert_eq!(data, json!([200, "hello", true, 200]));
    }
    assert_eq!(server.requests.load(Relaxed), 6);
}

#[tokio::test]
async fn each_key_is_needed_and_without_one_nothing_is_sent() {
    let server = Server::start().await;
    let (host, url) = (format!("127.0.0.1:{}", server.port), format!("http://127.0.0.1:{}/hello", server.port));
    let get = format!("http-plain:GET:{host}");
    let code = "fn t(args) { http_get(args.url).status }";
    let grant = |text: &str| PermissionSet::parse([text]).unwrap();
    let acme = TenantId::new("acme").unwrap();
    type Build<'a> = Box<dyn Fn(ToolbayBuilder) -> ToolbayBuilder + 'a>;
    let cases: [(&str, String, Build<'_>, &str); 8] = [
        ("all keys", get.clone(), Box::new(|bay| bay.http(open_client())), "ok"),
        ("no sender", get.clone(), Box::new(|bay| bay), "Unavailable"),
        (
            "no plain http",
            get.clone(),
            Box::new(|bay| bay.http(HttpClient::builder().build().unwrap())),
            "PermissionDenied",
        ),
        (
            "no network",
            get.clone(),
            Box::new(|bay| bay.http(HttpClient::builder().allow_plain_http().build().unwrap())),
            "PermissionDenied",
        ),
        (
            "the host grants another method",
            get.clone(),
            Box::new(|bay| bay.http(open_client()).grants(grant(&format!("http-plain:POST:{host}")))),
            "PermissionDenied",
        ),
        (
            "the tenant grants nothing",
            get.clone(),
            Box::new(|bay| bay.http(open_client()).tenant_grants(acme.clone(), PermissionSet::default())),
            "PermissionDenied",
        ),
        (
            "the manifest asks for another host",
            "http-plain:GET:api.example.com".to_owned(),
            Box::new(|bay| bay.http(open_client())),
            "PermissionDenied",
        ),
        (
            "the grant is for TLS",
            format!("http:GET:{host}"),
            Box::new(|bay| bay.http(open_client())),
            "PermissionDenied",
        ),
    ];
    for (what, asked, build, wanted) in cases {
        let before = server.requests.load(Relaxed);
        for bay in tiers(&[&asked], code, build).await {
            let result = call(&bay, "acme", json!({ "url": url })).await;
            assert_eq!(kind(&result), wanted, "{what}: {result:?}");
        }
        let sent = server.requests.load(Relaxed) - before;
        assert_eq!(sent, if wanted == "ok" { 2 } else { 0 }, "{what}");
    }
}

#[tokio::test]
async fn a_redirect_to_a_host_without_a_grant_ends_there() {
    let server = Server::start().await;
    let asked = format!("http-plain:GET:127.0.0.1:{}", server.port);
    let code = "fn t(args) { http_get(args.url).status }";
    for bay in tiers(&[&asked], code, |bay| bay.http(open_client())).await {
        let url = format!("http://127.0.0.1:{}/redirect", server.port);
        let error = call(&bay, "acme", json!({ "url": url })).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::PermissionDenied);
        assert!(error.message.contains(&format!("http-plain:GET:localhost:{}", server.port)), "{error}");
    }
    assert_eq!(server.requests.load(Relaxed), 2);
}

#[tokio::test]
async fn requests_end_at_the_deadline_and_at_their_bounds() {
    let server = Server::start().await;
    let asked = format!("http-plain:GET:127.0.0.1:{}", server.port);
    let url = format!("http://127.0.0.1:{}", server.port);
    let code = "fn t(args) {
        if args.path == \"/slow\" && args.own {
            try { http(#{ url: args.url + args.path, timeout_ms: 50 }) } catch (e) { return e.kind; }
        }
        for i in 0..args.times { http_get(args.url + args.path); }
    }";
    let bounded =
        Limits { max_string_bytes: 4_000, timeout: Duration::from_millis(1_500), max_host_calls: 3, ..limits() };
    for bay in tiers(&[&asked], code, |bay| bay.http(open_client()).limits(bounded.clone())).await {
        let ask = |path: &str, own: bool, times: u32| json!({ "url": url, "path": path, "own": own, "times": times });
        assert_eq!(call(&bay, "acme", ask("/hello", false, 3)).await.unwrap(), Value::Null);
        let counted = call(&bay, "acme", ask("/hello", false, 4)).await.unwrap_err();
        assert!(
            matches!(counted.kind, ErrorKind::LimitExceeded { limit: Limit::HostCalls, allowed: 3, .. }),
            "{counted}"
        );
        for path in ["/big", "/bytes"] {
            let large = call(&bay, "acme", ask(path, false, 1)).await.unwrap_err();
            assert_eq!(large.details, json!({ "limit": "http_response_bytes", "allowed": 4_000 }), "{large}");
        }
        assert_eq!(call(&bay, "acme", ask("/slow", true, 1)).await.unwrap(), json!("TimedOut"));
        assert_eq!(kind(&call(&bay, "acme", ask("/slow", false, 1)).await), "TimedOut");
    }
}

/// Secrets from a map, which notes who was asked for what.
#[derive(Clone, Default)]
struct Vault(Arc<Mutex<Vec<String>>>, BTreeMap<&'static str, &'static str>);

#[async_trait]
impl SecretProvider for Vault {
    async fn secret(&self, tenant: &TenantId, name: &SecretName) -> Result<Option<Secret>, ToolError> {
        self.0.lock().unwrap().push(format!("{tenant} {name}"));
        Ok(self.1.get(name.as_str()).map(|value| Secret::new(*value)))
    }
}

fn vault(value: &'static str) -> Vault {
    Vault(Arc::default(), BTreeMap::from([("KEY", value)]))
}

#[tokio::test]
async fn a_secret_is_read_by_grant_and_by_its_plain_name_only() {
    let code = "fn t(args) { let value = secret(args.name); [value.len, value.sha256() == args.sum] }";
    let plain = vault("correct horse");
    for bay in tiers(&["secret:read:KEY", "secret:read:NONE"], code, |bay| bay.secrets(plain.clone())).await {
        for name in ["KEY", "secret:KEY"] {
            assert_eq!(call(&bay, "acme", json!({ "name": name, "sum": "" })).await.unwrap()[0], json!(13), "{name}");
        }
        for (name, wanted) in [
            ("OTHER", "PermissionDenied"),
            ("NONE", "NotFound"),
            ("", "InvalidArguments"),
            ("../KEY", "InvalidArguments"),
            ("key", "InvalidArguments"),
        ] {
            assert_eq!(kind(&call(&bay, "acme", json!({ "name": name })).await), wanted, "{name}");
        }
    }
    assert!(plain.0.lock().unwrap().iter().all(|asked| !asked.contains("OTHER")), "asked before the grant");
    for bay in tiers(&["secret:read:KEY"], code, |bay| bay).await {
        assert_eq!(kind(&call(&bay, "acme", json!({ "name": "KEY" })).await), "Unavailable");
    }
    let none = |bay: ToolbayBuilder| bay.secrets(vault("x")).grants(PermissionSet::standard());
    for bay in tiers(&["secret:read:KEY"], code, none).await {
        assert_eq!(kind(&call(&bay, "acme", json!({ "name": "KEY" })).await), "PermissionDenied");
    }
}

#[tokio::test]
async fn a_tenant_with_a_vault_of_its_own_reaches_no_other() {
    let (general, theirs) = (vault("general-secret"), Vault::default());
    let acme = TenantId::new("acme").unwrap();
    let build = |bay: ToolbayBuilder| bay.secrets(general.clone()).tenant_secrets(acme.clone(), theirs.clone());
    for bay in tiers(&["secret:read:KEY"], "fn t(args) { secret(\"KEY\").len }", build).await {
        assert_eq!(kind(&call(&bay, "acme", json!({})).await), "NotFound");
        assert_eq!(call(&bay, "globex", json!({})).await.unwrap(), json!(14));
    }
    assert_eq!(*theirs.0.lock().unwrap(), ["acme KEY"; 2]);
    assert_eq!(*general.0.lock().unwrap(), ["globex KEY"; 2]);
}

/// Keeps what the audit was given, sources included.
#[derive(Default)]
struct Whole(Mutex<String>);

impl AuditSink for Whole {
    fn record(&self, record: &AuditRecord<'_>) {
        self.0.lock().unwrap().push_str(&format!("{record:?}\n"));
    }
}

/// The log as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_secret_that_was_read_comes_out_of_the_call_nowhere() {
    const VALUE: &str = "s3cret/pass phrase";
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone());
    let _guard = tracing::subscriber::set_default(subscriber.with_ansi(false).finish());
    let audit = Arc::new(Whole::default());
    let code = r#"fn t(args) {
        let s = secret("KEY");
        log("it is " + s + " or " + s.to_blob().base64_encode() + " or " + url_encode(s));
        log(#{ key: s });
        if args.how == "throw" { throw #{ message: "no " + s, details: #{ s: s } }; }
        if args.how == "script" { let n = "x" * s; }
        if args.how == "number" { return parse_json(s); }
        if args.how == "nested" { return call_tool("p.u", #{ given: s }); }
        [s, #{ k: "<" + s + ">" }]
    }"#;
    let build = |bay: ToolbayBuilder| bay.secrets(vault(VALUE)).audit(Arc::clone(&audit) as Arc<dyn AuditSink>);
    let transcript = Arc::new(toolbay_testkit::Transcript::default());
    for bay in tiers(&["secret:read:KEY", "tool:call:*"], code, build).await {
        let session =
            bay.session("acme").unwrap().with_observer(Arc::clone(&transcript) as Arc<dyn toolbay_runtime::Observer>);
        let ask = async |how: &str| session.call("p.t", json!({ "how": how })).await;
        assert_eq!(ask("give").await.result.unwrap().data, json!(["***", { "k": "<***>" }]));
        assert_eq!(ask("nested").await.result.unwrap().data, json!({ "given": "***" }));
        let thrown = ask("throw").await.result.unwrap_err();
        assert_eq!((&*thrown.message, &thrown.details), ("no ***", &json!({ "s": "***" })));
        for how in ["script", "number"] {
            let reply = ask(how).await;
            assert!(!format!("{reply:?}").contains(VALUE), "{how}: {reply:?}");
            assert!(reply.is_error(), "{how}");
        }
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("it is *** or *** or ***") && log.contains(r#"{"key":"***"}"#), "{log}");
    for (what, text) in [("log", log), ("audit", audit.0.lock().unwrap().clone()), ("events", transcript.to_string())] {
        assert!(text.contains("***"), "{what}");
        for form in [VALUE, "s3cret%2Fpass%20phrase", "czNjcmV0L3Bhc3MgcGhyYXNl"] {
            assert!(!text.contains(form), "{what} has {form}: {text}");
        }
    }
}

#[tokio::test]
async fn providers_read_what_the_host_chose_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("KEY"), "of a file\n").unwrap();
    std::fs::write(folder.path().join("LONG"), "x".repeat(70_000)).unwrap();
    std::fs::create_dir(folder.path().join("FOLDER")).unwrap();
    let files = FileSecrets::open(folder.path()).unwrap();
    let acme = TenantId::new("acme").unwrap();
    let of = async |provider: &dyn SecretProvider, name: &str| {
        let read = provider.secret(&acme, &SecretName::new(name).unwrap()).await;
        read.map(|secret| secret.map(|secret| secret.expose().to_owned())).map_err(|error| error.kind)
    };
    assert_eq!(of(&files, "KEY").await, Ok(Some("of a file".into())));
    assert_eq!(of(&files, "NONE").await, Ok(None));
    assert_eq!(of(&files, "LONG").await, Err(ErrorKind::Unavailable));
    assert_eq!(of(&files, "FOLDER").await, Err(ErrorKind::Unavailable));
    // Cargo sets CARGO_PKG_NAME for tests.
    let environment = EnvSecrets::new("CARGO_").unwrap();
    assert_eq!(of(&environment, "PKG_NAME").await, Ok(Some("toolbay-worker".into())));
    assert_eq!(of(&environment, "PATH").await, Ok(None));
    assert!(EnvSecrets::new("").is_err() && EnvSecrets::new("A=").is_err());
    assert!(FileSecrets::open(folder.path().join("KEY")).is_err());
    let both = SecretChain::default().then(environment).then(files);
    assert_eq!(of(&both, "KEY").await, Ok(Some("of a file".into())));
    assert_eq!(format!("{:?}", Secret::new("x")), "***");
}
