//! Callbacks of scripts, the same in process and in workers: by grant, bounded, apart from other tenants, and without
//! secrets in what comes of them.

use std::{
    collections::HashSet,
    io,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use toolbay_api::{
    ErrorKind, Limit, Limits, PermissionSet, PluginName, Scope, Secret, SecretName, SecretProvider, TenantId,
    ToolError, async_trait,
};
use toolbay_rhai::RhaiRunner;
use toolbay_runtime::{Heard, Toolbay, ToolbayBuilder};
use toolbay_worker::{WorkerConfig, WorkerRunner};

use crate::support::{config, limits};

/// A script called `p` with the tool `p.t`.
fn script(asked: &[&str], code: &str) -> String {
    format!(
        "const PLUGIN = #{{ name: \"p\", version: \"1.0.0\", description: \"d\", permissions: {}, \
         tools: #{{ t: #{{ description: \"d\", parameters: #{{ type: \"object\" }} }} }} }};\n{code}",
        json!(asked)
    )
}

/// A host for each tier.
fn tiers(build: impl Fn(ToolbayBuilder) -> ToolbayBuilder) -> [(Toolbay, Option<WorkerRunner>); 2] {
    let base = || build(Toolbay::builder().limits(limits()).grants(PermissionSet::all()));
    let workers = WorkerRunner::new(config()).unwrap();
    [
        (base().runner(RhaiRunner::default()).build().unwrap(), None),
        (base().runner(workers.clone()).build().unwrap(), Some(workers)),
    ]
}

/// The same for both tiers.
fn both(outcomes: Vec<Value>) -> Value {
    let [near, far] = <[Value; 2]>::try_from(outcomes).expect("two tiers");
    assert_eq!(near, far);
    near
}

fn p() -> PluginName {
    PluginName::new("p").unwrap()
}

fn acme() -> TenantId {
    TenantId::new("acme").unwrap()
}

fn acmes() -> Scope {
    Scope::Tenant(acme())
}

async fn call(bay: &Toolbay, tenant: &str, tool: &str) -> Value {
    let reply = bay.session(tenant).unwrap().call(tool, json!({})).await;
    reply.result.unwrap_or_else(|error| panic!("{error} {:?}", error.operator_detail())).data
}

fn in_short(error: &ToolError) -> Value {
    let limit = match error.kind {
        // How far over it a call was found is a matter of the tier.
        ErrorKind::LimitExceeded { limit, .. } => return json!({ "limit": limit }),
        kind => kind.name(),
    };
    json!({ "kind": limit, "message": error.message, "operator": error.operator_detail().map(ToString::to_string) })
}

const LIFE: &str = r#"
    fn note(what, cx) { kv_set("seen", (kv_get("seen") ?? []) + [[what, cx.plugin, cx.version, cx.tenant, cx.deadline_ms > 0]]); }
    fn t(args) { kv_get("seen") }
    fn on_load(cx) { note("load", cx); }
    fn on_start(cx) { note("start", cx); emit("p.started", kv_get("seen").len()); }
    fn on_health_check(cx) { note("health", cx); }
    fn on_stop(cx) { note("stop", cx); }
    fn on_unload(cx) { note("unload", cx); }
"#;

#[tokio::test]
async fn a_tenants_plugin_is_called_at_each_point_of_its_life() {
    let mut outcomes = Vec::new();
    let source = script(&["kv:*", "event:emit:*"], LIFE);
    for (bay, _) in tiers(|bay| bay) {
        let mut stream = bay.events();
        bay.load_source(acmes(), "p.rhai", &source).await.unwrap();
        bay.check_health().await;
        bay.unregister(&acmes(), &p()).await.unwrap();
        bay.load_source(acmes(), "p.rhai", &source).await.unwrap();
        let seen = call(&bay, "acme", "p.t").await;
        let emitted = loop {
            match stream.next().await {
                Some(Heard::Event(event)) if event.name.as_str() == "p.started" => break event,
                Some(_) => {}
                None => panic!("nothing was told"),
            }
        };
        let report = bay.shutdown(Duration::from_secs(20)).await;
        assert!(report.unstopped.is_empty(), "{report:?}");
        outcomes.push(json!([seen, emitted.payload, emitted.tenant(), report.stopped]));
    }
    let point = |what: &str| json!([what, "p", "1.0.0", "acme", true]);
    let seen = ["load", "start", "health", "stop", "unload", "load", "start"].map(point);
    assert_eq!(both(outcomes), json!([seen, 2, "acme", [[acmes(), "p"]]]));
}

#[tokio::test]
async fn a_plugin_for_everybody_is_told_who_switches_it_on_and_off() {
    let mut outcomes = Vec::new();
    let code = r#"fn t(args) { kv_get("seen") }
        fn on_tenant_enabled(cx) { if cx.tenant == "banned" { throw "not for " + cx.tenant; } kv_set("seen", ["on", cx.tenant]); }
        fn on_tenant_disabled(cx) { kv_set("seen", ["off", cx.tenant]); }"#;
    for (bay, _) in tiers(|bay| bay.enabled_by_default(p(), false)) {
        bay.load_source(Scope::Global, "p.rhai", &script(&["kv:*"], code)).await.unwrap();
        bay.enable(&acme(), &p()).await.unwrap();
        let on = call(&bay, "acme", "p.t").await;
        bay.disable(&acme(), &p()).await.unwrap();
        // Switching it on again would overwrite what it wrote, so another of its name is asked, which has the same keys.
        bay.unregister(&Scope::Global, &p()).await.unwrap();
        let other = script(&["kv:*"], "fn t(args) { kv_get(\"seen\") }");
        bay.load_source(Scope::Global, "p.rhai", &other).await.unwrap();
        bay.enable(&acme(), &p()).await.unwrap();
        let off = call(&bay, "acme", "p.t").await;
        bay.unregister(&Scope::Global, &p()).await.unwrap();
        bay.load_source(Scope::Global, "p.rhai", &script(&["kv:*"], code)).await.unwrap();
        let banned = bay.enable(&TenantId::new("banned").unwrap(), &p()).await.unwrap_err();
        outcomes.push(json!([on, off, in_short(&banned)["kind"], banned.message]));
    }
    let banned = json!(["Script", "on_tenant_enabled: not for banned"]);
    assert_eq!(both(outcomes), json!([["on", "acme"], ["off", "acme"], banned[0], banned[1]]));
}

/// The error of a plugin of `scope` that is loaded with this `on_load`, in both tiers.
async fn refused(scope: Scope, asked: &[&str], body: &str, build: impl Fn(ToolbayBuilder) -> ToolbayBuilder) -> Value {
    let mut outcomes = Vec::new();
    for (bay, workers) in tiers(build) {
        let source = script(asked, &format!("fn t(args) {{}}\nfn on_load(cx) {{ {body} }}"));
        let error = bay.load_source(scope.clone(), "p.rhai", &source).await.expect_err(body);
        let status = bay.statuses(&scope).pop().expect("it failed");
        let kind = match error.kind {
            ErrorKind::LimitExceeded { limit, .. } => json!({ "limit": limit, "state": status.state.name() }),
            kind => json!({ "kind": kind.name(), "text": error.to_string(), "state": status.state.name() }),
        };
        outcomes.push(kind);
        // Whatever it did, the next plugin of the same owner is loaded.
        if workers.is_some() {
            bay.load_source(scope.clone(), "q.rhai", &script(&[], "fn t(args) {}").replace("\"p\"", "\"q\""))
                .await
                .unwrap();
        }
    }
    both(outcomes)
}

#[tokio::test]
async fn a_callback_is_held_by_the_limits_of_a_tool() {
    let low = Limits { max_operations: 100_000, max_memory_bytes: 1 << 20, max_host_calls: 10, ..limits() };
    for (body, limit) in [
        ("loop {}", Limit::Operations),
        ("let a = []; loop { let b = []; b.pad(200, 1); a.push(b) }", Limit::Memory),
        ("loop { log(\"x\") }", Limit::HostCalls),
        ("let s = \"x\"; loop { s += s }", Limit::StringSize),
    ] {
        let build = |bay: ToolbayBuilder| bay.limits(Limits { max_string_bytes: 64 << 10, ..low.clone() });
        let said = refused(acmes(), &[], body, build).await;
        assert_eq!(said, json!({ "limit": limit, "state": "Failed" }), "{body}");
    }
}

#[tokio::test]
async fn a_callback_fails_with_the_same_words_and_may_do_what_it_is_granted_only() {
    let plain = |bay: ToolbayBuilder| bay;
    let throws = refused(acmes(), &[], "throw \"not today\"", plain).await;
    assert_eq!(throws["kind"], "Script");
    assert!(throws["text"].as_str().unwrap().contains("p.rhai: on_load: not today: p.rhai:3:18: threw"), "{throws}");
    assert_eq!(refused(acmes(), &[], "let x = 1 / 0;", plain).await["kind"], "Script");
    // The manifest asks, so the function is there in the worker; tenant or host do not give, and the host says no.
    let mean = |bay: ToolbayBuilder| bay.tenant_grants(acme(), PermissionSet::parse(["kv:read"]).unwrap());
    for body in ["kv_set(\"a\", 1)", "kv_delete(\"a\")", "call_tool(\"p.t\", #{})", "emit(\"a\", 1)", "secret(\"KEY\")"]
    {
        let asked = ["kv:*", "tool:call:*", "event:emit:*", "secret:read:*"];
        assert_eq!(refused(acmes(), &asked, body, mean).await["kind"], "PermissionDenied", "{body}");
    }
    let standard = |bay: ToolbayBuilder| bay.grants(PermissionSet::standard());
    assert_eq!(
        refused(acmes(), &["http:*"], "http_get(\"https://example.com\")", standard).await["kind"],
        "Unavailable"
    );
    // A plugin for everybody acts for nobody here.
    let vault = |bay: ToolbayBuilder| bay.secrets(Vault);
    for body in ["kv_get(\"a\")", "kv_set(\"a\", 1)", "call_tool(\"p.t\", #{})", "secret(\"KEY\")"] {
        let asked = ["kv:*", "tool:call:*", "secret:read:*"];
        assert_eq!(refused(Scope::Global, &asked, body, vault).await["kind"], "PermissionDenied", "{body}");
    }
}

#[tokio::test]
async fn a_callback_that_does_not_end_is_stopped_in_its_time() {
    let endless = Limits { max_operations: u64::MAX, ..limits() };
    let build = |bay: ToolbayBuilder| bay.limits(endless.clone()).callback_timeout(Duration::from_millis(300));
    for (bay, _) in tiers(build) {
        let source = script(&[], "fn t(args) { 1 } fn on_health_check(cx) { loop {} }");
        bay.load_source(acmes(), "p.rhai", &source).await.unwrap();
        let began = Instant::now();
        bay.check_health().await;
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        let (_, outcome) = bay.health(&acmes()).pop().unwrap().last_check.unwrap();
        assert_eq!(outcome.unwrap_err().kind, ErrorKind::TimedOut);
        assert_eq!(call(&bay, "acme", "p.t").await, 1);
    }
}

#[tokio::test]
async fn a_worker_that_is_stuck_in_a_callback_is_killed_at_the_deadline() {
    let workers = WorkerRunner::new(WorkerConfig { max_workers_per_tenant: 1, ..config() }).unwrap();
    let builder = Toolbay::builder().limits(limits()).runner(workers.clone());
    let bay = builder.callback_timeout(Duration::from_millis(300)).build().unwrap();
    bay.load_source(acmes(), "p.rhai", &script(&[], "fn t(args) { 1 } fn on_health_check(cx) {}")).await.unwrap();
    let stuck = workers.workers()[0].pid;
    assert!(Command::new("kill").args(["-STOP", &stuck.to_string()]).status().unwrap().success());
    bay.check_health().await;
    let (_, outcome) = bay.health(&acmes()).pop().unwrap().last_check.unwrap();
    assert_eq!(outcome.unwrap_err().kind, ErrorKind::TimedOut);
    while workers.workers().iter().any(|worker| worker.pid == stuck) {
        tokio::task::yield_now().await;
    }
    assert_eq!(call(&bay, "acme", "p.t").await, 1);
}

/// Whose workers have a call, looked at until one has.
async fn busy_owners(workers: &WorkerRunner) -> HashSet<Option<String>> {
    loop {
        let all = workers.workers();
        let busy = all.iter().filter(|worker| worker.calls > 0);
        let owners: HashSet<_> = busy.map(|worker| worker.tenant.as_ref().map(ToString::to_string)).collect();
        if !owners.is_empty() {
            return owners;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_callback_runs_in_a_worker_of_its_tenant_and_one_for_no_tenant_in_none_of_theirs() {
    let workers = WorkerRunner::new(config()).unwrap();
    let endless = Limits { max_operations: u64::MAX, ..limits() };
    let builder = Toolbay::builder().limits(endless).grants(PermissionSet::all()).runner(workers.clone());
    let bay = builder.enabled_by_default(p(), false).callback_timeout(Duration::from_millis(500)).build().unwrap();
    let code = "fn t(args) {} fn on_health_check(cx) { loop {} } fn on_tenant_enabled(cx) { loop {} }";
    bay.load_source(Scope::Global, "p.rhai", &script(&[], code)).await.unwrap();
    // Two tenants have workers at hand that are as good as any.
    for tenant in ["acme", "globex"] {
        let idle = script(&[], "fn t(args) { 1 }").replace("\"p\"", "\"idle\"");
        bay.load_source(Scope::tenant(tenant).unwrap(), "idle.rhai", &idle).await.unwrap();
        assert_eq!(call(&bay, tenant, "idle.t").await, 1);
    }
    let (_, owners) = tokio::join!(bay.check_health(), busy_owners(&workers));
    assert_eq!(owners, HashSet::from([None]));
    while workers.workers().iter().any(|worker| worker.calls > 0) {
        tokio::task::yield_now().await;
    }
    let (acme, p) = (acme(), p());
    let enabled = bay.enable(&acme, &p);
    let (_, owners) = tokio::join!(enabled, busy_owners(&workers));
    assert_eq!(owners, HashSet::from([Some("acme".to_owned())]));
}

#[tokio::test]
async fn only_callbacks_that_are_there_cost_a_way_to_a_worker() {
    let served = |workers: &WorkerRunner| workers.workers().iter().map(|worker| worker.served).sum::<u64>();
    for (code, calls) in [("", 0), ("fn on_health_check(cx) {}", 2), ("fn on_start(cx) {} fn on_stop(cx) {}", 1)] {
        let workers = WorkerRunner::new(config()).unwrap();
        let bay = Toolbay::builder().limits(limits()).runner(workers.clone()).build().unwrap();
        bay.load_source(acmes(), "p.rhai", &script(&[], &format!("fn t(args) {{}} {code}"))).await.unwrap();
        bay.check_health().await;
        bay.check_health().await;
        // Loading is one.
        assert_eq!(served(&workers), 1 + calls, "{code}");
    }
}

#[tokio::test]
async fn a_tenant_that_keeps_its_workers_busy_does_not_keep_its_plugin_from_being_checked() {
    let one = WorkerConfig { max_workers_per_tenant: 1, calls_per_worker: 1, ..config() };
    let workers = WorkerRunner::new(one).unwrap();
    let endless = Limits { max_operations: u64::MAX, timeout: Duration::from_secs(5), ..limits() };
    let bay = Toolbay::builder().limits(endless).runner(workers.clone()).build().unwrap();
    let source = script(&[], "fn t(args) { loop {} } fn on_health_check(cx) {}");
    bay.load_source(acmes(), "p.rhai", &source).await.unwrap();
    let session = bay.session("acme").unwrap();
    let check = async {
        busy_owners(&workers).await;
        bay.check_health().await;
        bay.health(&acmes()).pop().unwrap().last_check.unwrap().1
    };
    let spinning = session.call("p.t", json!({}));
    tokio::pin!(spinning);
    tokio::select! {
        checked = check => checked.unwrap_or_else(|error| panic!("{error}")),
        _ = &mut spinning => panic!("the check waited for the tenant's call"),
    }
}

const VALUE: &str = "s3cret/pass phrase";

/// Has one secret, `KEY`.
struct Vault;

#[async_trait]
impl SecretProvider for Vault {
    async fn secret(&self, _: &TenantId, name: &SecretName) -> Result<Option<Secret>, ToolError> {
        Ok((name.as_str() == "KEY").then(|| Secret::new(VALUE)))
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
async fn a_tenants_callback_reads_a_secret_that_comes_out_of_it_nowhere() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone());
    let _guard = tracing::subscriber::set_default(subscriber.with_ansi(false).finish());
    let leak = r#"let s = secret("KEY"); log("it is " + s + " or " + s.to_blob().base64_encode());
        emit("p.told", #{ s: s }); throw #{ message: "no " + s + " and " + url_encode(s), details: #{ s: s } };"#;
    let mut told = String::new();
    for (bay, _) in tiers(|bay| bay.secrets(Vault)) {
        let mut stream = bay.events();
        let fits = format!("if secret(\"KEY\").len != {} {{ throw \"another secret\"; }}", VALUE.len());
        let of = |callback: &str, body: &str| {
            script(&["secret:read:KEY", "event:emit:*"], &format!("fn t(args) {{}} fn {callback}(cx) {{ {body} }}"))
        };
        bay.load_source(acmes(), "p.rhai", &of("on_load", &fits)).await.unwrap_or_else(|error| panic!("{error}"));
        bay.unregister(&acmes(), &p()).await.unwrap();
        for callback in ["on_load", "on_start"] {
            let error = bay.load_source(acmes(), "p.rhai", &of(callback, leak)).await.unwrap_err();
            assert_eq!(error.kind, ErrorKind::Script, "{error}");
            assert!(error.to_string().contains("no *** and ***"), "{error}");
            told += &format!("{error:?} {error}\n{:?}\n", bay.statuses(&acmes()));
        }
        bay.load_source(acmes(), "p.rhai", &of("on_health_check", leak)).await.unwrap();
        bay.check_health().await;
        told += &format!("{:?}\n", bay.health(&acmes()));
        bay.unregister(&acmes(), &p()).await.unwrap();
        bay.load_source(acmes(), "p.rhai", &of("on_stop", leak)).await.unwrap();
        let report = bay.shutdown(Duration::from_secs(20)).await;
        assert_eq!(report.unstopped.len(), 1);
        told += &format!("{report:?} {:?}\n", bay.statuses(&acmes()));
        let mut heard = 0;
        while heard < 4 {
            match stream.next().await {
                Some(Heard::Event(event)) => {
                    heard += usize::from(event.name.as_str() == "p.told");
                    told += &format!("{event:?}\n");
                }
                other => panic!("{other:?}"),
            }
        }
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("it is *** or ***") && log.contains("on_stop: no *** and ***"), "{log}");
    for (what, text) in [("log", log), ("told", told)] {
        assert!(text.contains("***"), "{what}");
        for form in [VALUE, "s3cret%2Fpass%20phrase", "czNjcmV0L3Bhc3MgcGhyYXNl"] {
            assert!(!text.contains(form), "{what} has {form}: {text}");
        }
    }
}
