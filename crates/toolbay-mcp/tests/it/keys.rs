//! Who is let in, as whom, and how much of the server one tenant may have.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rmcp::{
    ServiceExt,
    service::ClientServiceExt,
    transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use toolbay_api::{
    ErrorKind, HttpSend, HttpSendContext, PermissionSet, Scope, TenantId, ToolContext, ToolError, async_trait,
    plugin::NativePlugin, tool,
};
use toolbay_mcp::{
    Authenticate, Bearer, FetchedKeys, HttpOptions, JwtIssuer, JwtOptions, Principal, Refused, StaticKeys,
    keyed_http_router, serve_http,
};
use toolbay_runtime::Toolbay;

use crate::support::{Client, Nothing, Slow, discover, give_secret, names, toolbay, with_cryptography};

const ACME: &str = "acme-key-0123456789";
const GLOBEX: &str = "globex-key-0123456789";

fn principal(tenant: &str) -> Principal {
    Principal::new(TenantId::new(tenant).unwrap())
}

fn two_keys() -> StaticKeys {
    StaticKeys::default().with(ACME, principal("acme")).unwrap().with(GLOBEX, principal("globex")).unwrap()
}

struct Keyed {
    address: String,
}

impl Keyed {
    async fn start(toolbay: &Toolbay, authenticate: Arc<dyn Authenticate>, options: HttpOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let known = toolbay.clone();
        let sessions = move |principal: &Principal| known.session(principal.tenant.as_str()).ok();
        let router = keyed_http_router(authenticate, sessions, options);
        tokio::spawn(serve_http(listener, router, std::future::pending()));
        Self { address }
    }

    async fn client(&self, key: &str, newer: bool) -> Client {
        with_cryptography();
        let mut config = StreamableHttpClientTransportConfig::with_uri(format!("http://{}/mcp", self.address));
        config.auth_header = Some(key.to_owned());
        let transport = StreamableHttpClientTransport::from_config(config);
        if newer {
            ().serve_with_lifecycle(transport, discover()).await.unwrap()
        } else {
            ().serve(transport).await.unwrap()
        }
    }

    /// Sends one request by hand and gives the whole answer.
    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\naccept: application/json, text/event-stream\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n",
            self.address,
            body.len()
        );
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        stream.write_all(format!("{request}\r\n{body}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn list(&self, headers: &[(&str, &str)]) -> String {
        let newer = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/list")];
        self.send("POST", "/mcp", &[&newer, headers].concat(), &list_message()).await
    }

    async fn list_with(&self, token: &str) -> String {
        self.list(&[("authorization", &format!("Bearer {token}"))]).await
    }
}

fn list_message() -> String {
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {}});
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}).to_string()
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no status in {answer:?}"))
}

fn challenge(answer: &str) -> &str {
    answer.lines().find_map(|line| line.strip_prefix("www-authenticate: ")).unwrap_or_else(|| panic!("{answer}"))
}

#[tokio::test]
async fn a_tenants_key_never_shows_anothers_tools_in_either_revision() {
    let bay = toolbay().await;
    give_secret(&bay, "acme").await;
    let server = Keyed::start(&bay, Arc::new(two_keys()), HttpOptions::default()).await;
    for newer in [false, true] {
        let own = server.client(ACME, newer).await.list_all_tools().await.unwrap();
        assert!(names(&own).contains(&"secret.tell"), "{newer}");
        let others = server.client(GLOBEX, newer).await.list_all_tools().await.unwrap();
        assert!(!names(&others).contains(&"secret.tell"), "{newer}");
        assert!(names(&others).contains(&"calculator.add"), "{newer}");
    }
}

#[tokio::test]
async fn without_a_good_key_there_is_a_challenge_and_nothing_else() {
    let server = Keyed::start(&toolbay().await, Arc::new(two_keys()), HttpOptions::default()).await;
    let missing = server.list(&[]).await;
    assert_eq!((status(&missing), challenge(&missing)), (401, "Bearer"));
    for wrong in ["Bearer acme-key-012345678", "Basic YTpi", "Bearer", "Bearer a b", &format!("Bearer {ACME}x")] {
        let answer = server.list(&[("authorization", wrong)]).await;
        assert_eq!((status(&answer), challenge(&answer)), (401, "Bearer error=\"invalid_token\""), "{wrong}");
    }
    let twice = [("authorization", format!("Bearer {ACME}")), ("authorization", format!("Bearer {GLOBEX}"))];
    let twice: Vec<_> = twice.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(status(&server.list(&twice).await), 401, "two credentials are none");
    assert_eq!(status(&server.list(&[("authorization", &format!("bearer {ACME}"))]).await), 200, "any case will do");
}

#[tokio::test]
async fn the_address_names_no_tenant_where_there_are_keys() {
    let server = Keyed::start(&toolbay().await, Arc::new(two_keys()), HttpOptions::default()).await;
    let answer = server
        .send("POST", "/tenants/acme/mcp", &[("authorization", &format!("Bearer {GLOBEX}"))], &list_message())
        .await;
    assert_eq!(status(&answer), 404);
}

#[tokio::test]
async fn a_session_is_worth_nothing_with_another_key() {
    let server = Keyed::start(&toolbay().await, Arc::new(two_keys()), HttpOptions::default()).await;
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}});
    let (acme, globex) = (format!("Bearer {ACME}"), format!("Bearer {GLOBEX}"));
    let begun = server.send("POST", "/mcp", &[("authorization", &acme)], &initialize.to_string()).await;
    let id = begun.lines().find_map(|line| line.strip_prefix("mcp-session-id: ")).unwrap().to_owned();
    let ping = json!({"jsonrpc": "2.0", "id": 2, "method": "ping"}).to_string();
    let with =
        async |key: &str| server.send("POST", "/mcp", &[("authorization", key), ("mcp-session-id", &id)], &ping).await;
    assert_eq!(status(&with(&globex).await), 404);
    assert_eq!(status(&with(&acme).await), 200);
    let end = server.send("DELETE", "/mcp", &[("authorization", &globex), ("mcp-session-id", &id)], "").await;
    assert_eq!(status(&end), 404);
    assert_eq!(status(&with(&acme).await), 200, "nobody else can end it");
}

/// A key whose rights change, or that is revoked.
struct Changing(Mutex<Option<Principal>>);

#[async_trait]
impl Authenticate for Changing {
    async fn authenticate(&self, _: &Bearer) -> Result<Principal, Refused> {
        self.0.lock().unwrap().clone().ok_or(Refused::Invalid)
    }
}

#[tokio::test]
async fn what_is_revoked_is_gone_with_the_next_request() {
    let mut with_rights = principal("acme");
    with_rights.rights = PermissionSet::parse(["billing:write"]).unwrap();
    let keys = Arc::new(Changing(Mutex::new(Some(with_rights))));
    let server = Keyed::start(&toolbay().await, Arc::clone(&keys) as _, HttpOptions::default()).await;
    let older = server.client("any", false).await;
    assert!(older.list_all_tools().await.is_ok());
    *keys.0.lock().unwrap() = Some(principal("acme"));
    // The session was begun with rights that the key has no more: it is not there any more, and the client begins anew.
    assert!(older.list_all_tools().await.is_ok());
    *keys.0.lock().unwrap() = None;
    assert_eq!(status(&server.list_with("any").await), 401);
}

const ISSUER: &str = "https://login.example.com";
const RESOURCE: &str = "https://tools.example.com/mcp";
/// A key pair of these tests and of nobody else.
const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgQZAak5Bti970lkx+
I9ih0LWyO64wHYi4hM6T2gZ1kamhRANCAASZZ3VYgoKLiw6k//6C2MGwrSgWxZtu
iPCS+W2Mkb5zrUO04fYR+mR0m6o+QMEBzIue1BT6FE/Ufdm6umQ+meqo
-----END PRIVATE KEY-----
";
const PUBLIC_X: &str = "mWd1WIKCi4sOpP_-gtjBsK0oFsWbbojwkvltjJG-c60";
const PUBLIC_Y: &str = "Q7Th9hH6ZHSbqj5AwQHMi57UFPoUT9R92bq6ZD6Z6qg";

fn issuer(required_scope: Option<&str>) -> Arc<JwtIssuer> {
    let options = JwtOptions {
        issuer: ISSUER.into(),
        resource: RESOURCE.into(),
        tenant_claim: "tenant".into(),
        required_scope: required_scope.map(str::to_owned),
    };
    let key = json!({ "kty": "EC", "crv": "P-256", "kid": "one", "use": "sig", "x": PUBLIC_X, "y": PUBLIC_Y });
    Arc::new(JwtIssuer::new(options, json!({ "keys": [key] })))
}

fn claims() -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    json!({ "iss": ISSUER, "aud": RESOURCE, "sub": "ada", "tenant": "acme", "iat": now, "exp": now + 300 })
}

fn token(change: impl FnOnce(&mut Value)) -> String {
    let mut claims = claims();
    change(&mut claims);
    let header = Header { kid: Some("one".into()), ..Header::new(Algorithm::ES256) };
    encode(&header, &claims, &EncodingKey::from_ec_pem(PRIVATE.as_bytes()).unwrap()).unwrap()
}

#[tokio::test]
async fn a_token_of_the_issuer_for_this_server_lets_its_tenant_in() {
    let bay = toolbay().await;
    give_secret(&bay, "acme").await;
    let server = Keyed::start(&bay, issuer(None), HttpOptions::default()).await;
    let answer = server.list_with(&token(|_| {})).await;
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(answer.contains("secret.tell"));
    let other = server.list_with(&token(|claims| claims["tenant"] = json!("globex"))).await;
    assert!(status(&other) == 200 && !other.contains("secret.tell"));
}

#[tokio::test]
async fn a_token_for_another_server_of_another_issuer_or_another_time_is_refused() {
    let server = Keyed::start(&toolbay().await, issuer(None), HttpOptions::default()).await;
    let now = claims()["iat"].as_u64().unwrap();
    type Change = Box<dyn Fn(&mut Value)>;
    let cases: [(&str, Change); 8] = [
        ("another audience", Box::new(|claims| claims["aud"] = json!("https://other.example.com/mcp"))),
        ("no audience", Box::new(|claims| drop(claims.as_object_mut().unwrap().remove("aud")))),
        ("another issuer", Box::new(|claims| claims["iss"] = json!("https://evil.example.com"))),
        ("over", Box::new(move |claims| claims["exp"] = json!(now - 600))),
        ("without an end", Box::new(|claims| drop(claims.as_object_mut().unwrap().remove("exp")))),
        ("not yet", Box::new(move |claims| claims["nbf"] = json!(now + 600))),
        ("no tenant", Box::new(|claims| drop(claims.as_object_mut().unwrap().remove("tenant")))),
        ("a tenant that none can be", Box::new(|claims| claims["tenant"] = json!("../acme"))),
    ];
    for (what, change) in cases {
        let answer = server.list_with(&token(change)).await;
        assert_eq!(status(&answer), 401, "{what}: {answer}");
        assert!(challenge(&answer).contains("invalid_token"), "{what}");
    }
}

#[tokio::test]
async fn the_algorithm_is_the_keys_and_not_the_tokens_choice() {
    let server = Keyed::start(&toolbay().await, issuer(None), HttpOptions::default()).await;
    let header = Header { kid: Some("one".into()), ..Header::new(Algorithm::HS256) };
    let with_public_key = encode(&header, &claims(), &EncodingKey::from_secret(PUBLIC_X.as_bytes())).unwrap();
    let good = token(|_| {});
    let (_, rest) = good.split_once('.').unwrap();
    // {"alg":"none","kid":"one"}
    let unsigned = format!("eyJhbGciOiJub25lIiwia2lkIjoib25lIn0.{rest}");
    let stripped = format!("{}.", unsigned.rsplit_once('.').unwrap().0);
    let altered = good.replace('.', ".e30");
    for wrong in [with_public_key, unsigned, stripped, altered, "a.b.c".into(), "nonsense".into()] {
        assert_eq!(status(&server.list_with(&wrong).await), 401, "{wrong}");
    }
}

/// The issuer's keys at their address: what is answered there, and how it was asked for.
#[derive(Clone, Default)]
struct AtAddress {
    answer: Arc<Mutex<Value>>,
    asked: Arc<Mutex<Vec<(Value, usize)>>>,
}

#[async_trait]
impl HttpSend for AtAddress {
    async fn send(&self, request: Value, cx: HttpSendContext<'_>) -> Result<Value, ToolError> {
        self.asked.lock().unwrap().push((request, cx.max_response_bytes));
        let left = cx.deadline.saturating_duration_since(std::time::Instant::now());
        assert!(left <= Duration::from_secs(10), "it has an end: {left:?}");
        let answer = self.answer.lock().unwrap().clone();
        if answer.is_null() { Err(ToolError::new(ErrorKind::Unavailable, "the network is away")) } else { Ok(answer) }
    }
}

fn fetching(from: &AtAddress) -> Arc<JwtIssuer> {
    let options = JwtOptions {
        issuer: ISSUER.into(),
        resource: RESOURCE.into(),
        tenant_claim: "tenant".into(),
        required_scope: None,
    };
    let url = format!("{ISSUER}/jwks.json");
    Arc::new(JwtIssuer::new(options, FetchedKeys { url, http: Arc::new(from.clone()) }))
}

fn jwk(id: &str) -> Value {
    json!({ "kty": "EC", "crv": "P-256", "kid": id, "use": "sig", "x": PUBLIC_X, "y": PUBLIC_Y })
}

fn found(keys: &[Value]) -> Value {
    json!({ "status": 200, "body": json!({ "keys": keys }).to_string() })
}

/// A token signed with the key of that name.
fn token_by(key: &str) -> String {
    let header = Header { kid: Some(key.into()), ..Header::new(Algorithm::ES256) };
    encode(&header, &claims(), &EncodingKey::from_ec_pem(PRIVATE.as_bytes()).unwrap()).unwrap()
}

#[tokio::test]
async fn keys_are_fetched_once_with_bounds_and_a_token_by_an_unknown_key_asks_for_no_more() {
    let address = AtAddress::default();
    *address.answer.lock().unwrap() = found(&[jwk("one"), json!({ "kty": "odd" })]);
    let server = Keyed::start(&toolbay().await, fetching(&address), HttpOptions::default()).await;
    assert_eq!(status(&server.list_with(&token_by("one")).await), 200);
    for _ in 0..3 {
        assert_eq!(status(&server.list_with(&token_by("two")).await), 401);
        assert_eq!(status(&server.list_with(&token_by("one")).await), 200);
    }
    let asked = address.asked.lock().unwrap().clone();
    assert_eq!(asked, [(json!({ "url": "https://login.example.com/jwks.json" }), 256 * 1024)]);
}

#[tokio::test]
async fn without_the_issuers_keys_nobody_is_let_in_and_it_is_said_that_this_will_pass() {
    let broken = [
        Value::Null,
        json!({ "status": 500, "body": found(&[jwk("one")])["body"] }),
        json!({ "status": 200, "body": "not JSON" }),
    ];
    for answer in broken {
        let address = AtAddress::default();
        *address.answer.lock().unwrap() = answer.clone();
        let server = Keyed::start(&toolbay().await, fetching(&address), HttpOptions::default()).await;
        for _ in 0..3 {
            let refused = server.list_with(&token_by("one")).await;
            assert_eq!(status(&refused), 503, "{answer}: {refused}");
            assert!(refused.contains("retry-after: "));
        }
        assert_eq!(address.asked.lock().unwrap().len(), 1, "an issuer that is away is not asked by each request");
    }
}

#[tokio::test]
async fn of_a_key_set_so_many_keys_are_read_and_no_more() {
    let many: Vec<_> = (0..101).map(|number| jwk(&number.to_string())).collect();
    let address = AtAddress::default();
    *address.answer.lock().unwrap() = found(&many);
    let server = Keyed::start(&toolbay().await, fetching(&address), HttpOptions::default()).await;
    assert_eq!(status(&server.list_with(&token_by("99")).await), 200);
    assert_eq!(status(&server.list_with(&token_by("100")).await), 401);
}

#[tokio::test]
async fn wrong_credentials_from_one_address_are_counted_and_a_good_one_passes_in_any_case() {
    let options = HttpOptions { failures_per_minute: 2, ..HttpOptions::default() };
    let server = Keyed::start(&toolbay().await, Arc::new(two_keys()), options).await;
    let mut seen = Vec::new();
    for key in ["wrong", "wrong", "wrong", ACME, "other"] {
        seen.push(status(&server.list_with(key).await));
    }
    assert_eq!(seen, [401, 401, 429, 200, 429]);
    assert_eq!(status(&server.list(&[]).await), 401, "to come without one is how a client learns where to get one");
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answers_is_let_go() {
    let bay = toolbay().await;
    let long = tool("tell", "Tells a lot", async |_: Nothing, _: ToolContext| Ok("a".repeat(60_000)));
    let plugin = NativePlugin::new("long", "1.0.0", "Tells a lot").unwrap().tool(long);
    bay.register(Scope::Global, plugin).await.unwrap();
    let options = HttpOptions { write_timeout: Duration::from_millis(200), ..HttpOptions::default() };
    let server = Keyed::start(&bay, Arc::new(two_keys()), options).await;
    let meta: Value = serde_json::from_str::<Value>(&list_message()).unwrap()["params"]["_meta"].clone();
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "long.tell", "arguments": {}, "_meta": meta}})
    .to_string();
    let request = format!(
        "POST /mcp HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {ACME}\r\naccept: application/json, text/event-stream\r\n\
         content-type: application/json\r\nmcp-protocol-version: 2026-07-28\r\nmcp-method: tools/call\r\n\
         mcp-name: long.tell\r\ncontent-length: {}\r\n\r\n{body}",
        server.address,
        body.len()
    );
    let mut stream = TcpStream::connect(&server.address).await.unwrap();
    // Requests for ever, and not a byte of an answer is taken: once the way back is full the server has to let go.
    let asking = async { while stream.write_all(request.as_bytes()).await.is_ok() {} };
    tokio::time::timeout(Duration::from_secs(60), asking).await.expect("the connection goes on");
}

#[tokio::test]
async fn a_missing_scope_is_said_and_the_metadata_says_where_to_get_tokens() {
    let server = Keyed::start(&toolbay().await, issuer(Some("tools")), HttpOptions::default()).await;
    let answer = server.list_with(&token(|_| {})).await;
    assert_eq!(status(&answer), 403, "{answer}");
    let metadata = "resource_metadata=\"https://tools.example.com/.well-known/oauth-protected-resource/mcp\"";
    let said = challenge(&answer);
    assert!(
        said.contains("insufficient_scope") && said.contains("scope=\"tools\"") && said.contains(metadata),
        "{said}"
    );
    assert_eq!(status(&server.list_with(&token(|claims| claims["scope"] = json!("tools more"))).await), 200);
    let document = server.send("GET", "/.well-known/oauth-protected-resource/mcp", &[], "").await;
    let body: Value = serde_json::from_str(document.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert_eq!(body["resource"], RESOURCE);
    assert_eq!(body["authorization_servers"], json!([ISSUER]));
}

#[tokio::test]
async fn one_tenants_requests_in_flight_are_bounded_and_another_has_its_own() {
    let bay = toolbay().await;
    let slow = Slow::register(&bay).await;
    let options = HttpOptions { max_in_flight: 1, ..HttpOptions::default() };
    let server = Arc::new(Keyed::start(&bay, Arc::new(two_keys()), options).await);
    let meta: Value = serde_json::from_str::<Value>(&list_message()).unwrap()["params"]["_meta"].clone();
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": "slow.wait", "arguments": {}, "_meta": meta}})
    .to_string();
    let busy = Arc::clone(&server);
    let call = tokio::spawn(async move {
        let headers = [
            ("authorization", format!("Bearer {ACME}")),
            ("mcp-protocol-version", "2026-07-28".to_owned()),
            ("mcp-method", "tools/call".to_owned()),
            ("mcp-name", "slow.wait".to_owned()),
        ];
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        busy.send("POST", "/mcp", &headers, &body).await
    });
    slow.started.notified().await;
    let refused = server.list_with(ACME).await;
    assert_eq!(status(&refused), 429, "{refused}");
    assert!(refused.contains("retry-after: "));
    assert_eq!(status(&server.list_with(GLOBEX).await), 200);
    slow.release.notify_one();
    assert_eq!(status(&call.await.unwrap()), 200);
    assert_eq!(status(&server.list_with(ACME).await), 200);
}

#[tokio::test]
async fn one_tenants_requests_in_a_minute_are_bounded() {
    let options = HttpOptions { max_requests_per_minute: Some(2), ..HttpOptions::default() };
    let server = Keyed::start(&toolbay().await, Arc::new(two_keys()), options).await;
    let mut seen = Vec::new();
    for key in [ACME, ACME, ACME, GLOBEX] {
        seen.push(status(&server.list_with(key).await));
    }
    assert_eq!(seen, [200, 200, 429, 200]);
}

#[tokio::test]
async fn a_client_that_is_too_slow_with_its_request_is_let_go() {
    let options = HttpOptions {
        header_timeout: Duration::from_millis(200),
        body_timeout: Duration::from_millis(200),
        ..HttpOptions::default()
    };
    let server = Keyed::start(&toolbay().await, Arc::new(two_keys()), options).await;
    for (begun, expected) in [
        ("POST /mcp HTTP/1.1\r\nhost: localh".to_owned(), ""),
        (
            format!(
                "POST /mcp HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nauthorization: Bearer {ACME}\r\n\
                 content-length: 100\r\n\r\n{{"
            ),
            "HTTP/1.1 408",
        ),
    ] {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_string(&mut answer)).await;
        assert!(read.is_ok(), "the connection goes on: {answer}");
        assert!(answer.starts_with(expected), "{answer}");
    }
}
