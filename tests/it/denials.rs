//! What the audit is told of what did not happen: effects that were denied, and calls that were given up.

use std::{sync::Arc, time::Duration};

use expect_test::{Expect, expect};
use serde_json::{Value, json};
use toolbay::{
    AuditSink, CallbackContext, ErrorKind, Host, HostServices, PermissionSet, Plugin, PluginMetadata, Scope, Tool,
    ToolCall, ToolContext, ToolError, Toolbay, ToolbayBuilder, async_trait, plugin::NativePlugin, tool,
};
use toolbay_testkit::{AuditedDenial, FakeHttp, FakeSecrets, RecordingAudit};

use crate::support::{folder, outcome, says, tenant};

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Effect {
    effect: String,
}

/// Does what `effect` says, whatever becomes of it.
async fn attempt(host: &dyn Host, effect: &str) -> Result<Value, ToolError> {
    match effect {
        "get" => host.kv_get("k").await.map(|_| Value::Null),
        "set" => host.kv_set("k", json!(1)).await.map(|()| Value::Null),
        "set for" => host.kv_set_for("k", json!(1), Duration::from_secs(1)).await.map(|()| Value::Null),
        "compare" => host.kv_compare_and_set("k", None, Some(json!(1)), None).await.map(|_| Value::Null),
        "delete" => host.kv_delete("k").await.map(|_| Value::Null),
        "list" => host.kv_list("", 1).await.map(|_| Value::Null),
        "list after" => host.kv_list_after("", "a", 1).await.map(|_| Value::Null),
        "http" => host.http(json!({ "method": "GET", "url": "https://api.example.com/x?key=1" })).await,
        "secret" => host.secret("KEY").await.map(Value::from),
        "tool" => host.call_tool("do.effect", json!({ "effect": "none" })).await.map(|output| output.data),
        "emit" => host.emit("order.paid", json!({})).await.map(|()| Value::Null),
        "service" => host.service::<String>("db").map(|_| Value::Null),
        "clock" => host.now_ms().map(Value::from),
        "uuid" => host.uuid().map(Value::from),
        "random" => host.random().map(Value::from),
        _ => Ok(Value::Null),
    }
}

const EFFECTS: [&str; 15] = [
    "get",
    "set",
    "set for",
    "compare",
    "delete",
    "list",
    "list after",
    "http",
    "secret",
    "tool",
    "emit",
    "service",
    "clock",
    "uuid",
    "random",
];

fn effects() -> impl Tool + 'static {
    tool("effect", "Has an effect", async |given: Effect, cx: ToolContext| {
        let _ = attempt(&**cx.host(), &given.effect).await;
        // A plugin that lets nothing be known of it.
        Ok(())
    })
}

fn plugin(asks: &[&str]) -> NativePlugin {
    let asked = PermissionSet::parse(asks.iter().copied()).unwrap();
    NativePlugin::new("do", "1.2.3", "Does things")
        .unwrap()
        .tool(effects())
        .with(|metadata| metadata.permissions = asked)
}

fn audited(builder: ToolbayBuilder) -> (Toolbay, Arc<RecordingAudit>) {
    let audit = Arc::new(RecordingAudit::default());
    let sink: Arc<dyn AuditSink> = audit.clone();
    (builder.http(FakeHttp::new()).secrets(FakeSecrets::new([])).audit(sink).build().unwrap(), audit)
}

/// A plugin that lends a service to those who may have it.
fn lender() -> NativePlugin {
    let db = toolbay::service("db", String::new()).unwrap().public();
    NativePlugin::new("lender", "1.0.0", "Lends").unwrap().tool(says("ask", "")).service(db)
}

fn shown(denials: &[AuditedDenial]) -> String {
    denials.iter().map(|denial| format!("{}: {}\n", denial.permission, denial.reason)).collect()
}

#[tokio::test]
async fn each_effect_that_is_denied_leaves_a_record_of_who_asked_for_what() {
    let (bay, audit) = audited(Toolbay::builder().grants(PermissionSet::all()));
    bay.register(Scope::Global, lender()).await.unwrap();
    bay.register(Scope::Global, plugin(&[])).await.unwrap();
    let session = bay.session("acme").unwrap().with_user("ada");
    for effect in EFFECTS {
        let before = audit.denials().len();
        let run = session.run();
        run.call(0, ToolCall { id: "c1".into(), name: "do.effect".into(), arguments: json!({ "effect": effect }) })
            .await
            .result
            .unwrap();
        let denials = audit.denials().split_off(before);
        assert_eq!(denials.len(), 1, "{effect}: {denials:?}");
        let denial = &denials[0];
        let who = (denial.tenant.as_deref(), denial.user.as_deref(), denial.run, denial.call.as_str());
        assert_eq!(who, (Some("acme"), Some("ada"), Some(run.id()), "c1"), "{effect}");
        let what = (denial.plugin.as_str(), denial.version.as_str(), &denial.scope, denial.depth, denial.is_last);
        assert_eq!(what, ("do", "1.2.3", &Scope::Global, 0, false), "{effect}");
    }
    let permissions: Vec<_> = audit.denials().into_iter().map(|denial| denial.permission).collect();
    expect!["kv:read kv:write kv:write kv:read kv:write kv:read kv:read http:GET:api.example.com secret:read:KEY tool:call:do.effect event:emit:order.paid service:db clock random random"]
        .assert_eq(&permissions.join(" "));
}

async fn denied_by(builder: ToolbayBuilder, asks: &[&str], effect: &str, expected: Expect) {
    let (bay, audit) = audited(builder);
    bay.register(Scope::Global, plugin(asks)).await.unwrap();
    outcome(&bay.session("acme").unwrap(), "do.effect", json!({ "effect": effect })).await;
    expected.assert_eq(&shown(&audit.denials()));
}

#[tokio::test]
async fn the_record_says_whose_yes_is_missing() {
    let all = || Toolbay::builder().grants(PermissionSet::all());
    denied_by(all(), &[], "get", expect![[r#"
        kv:read: the permission `kv:read` is needed and the plugin's manifest does not ask for it: add it to `permissions`
    "#]]).await;
    denied_by(
        Toolbay::builder(),
        &["kv:*"],
        "get",
        expect![[r#"
        kv:read: the permission `kv:read` is needed and the host does not grant it to this plugin: an operator can
    "#]],
    )
    .await;
    let acme = toolbay::TenantId::new("acme").unwrap();
    denied_by(all().tenant_grants(acme, PermissionSet::default()), &["kv:*"], "get", expect![[r#"
        kv:read: the permission `kv:read` is needed and the tenant does not grant it to its plugins: the tenant's administrator can
    "#]]).await;
    denied_by(
        all().deterministic(),
        &["clock"],
        "clock",
        expect![[r#"
        clock: `clock` is not given to any plugin here: the host is to give the same results again
    "#]],
    )
    .await;
    denied_by(all(), &["*"], "get", expect![[""]]).await;
}

#[tokio::test]
async fn a_script_that_lets_a_denial_pass_is_on_record() {
    let (bay, audit) = audited(toolbay::builder());
    let source = r#"const PLUGIN = #{ name: "sly", version: "1.0.0", description: "A test's", permissions: ["kv:read"],
        tools: #{ sly: #{ description: "Tries" } } };
        fn sly(args) { for n in 0..50 { try { kv_get("k" + n); } catch { } } "nothing happened" }"#;
    bay.load_source(tenant("acme"), "sly.rhai", source).await.unwrap();
    assert_eq!(outcome(&bay.session("acme").unwrap(), "sly", json!({})).await, json!("nothing happened"));
    let denials = audit.denials();
    assert_eq!((denials.len(), denials[0].permission.as_str()), (1, "kv:read"), "fifty times the same is told once");
    assert_eq!(denials[0].scope, tenant("acme"));
}

#[tokio::test]
async fn one_call_leaves_no_more_than_sixteen_denials_of_bounded_length_without_secrets() {
    let secrets = FakeSecrets::new([("KEY", "hunter2-hunter2")]);
    let audit = Arc::new(RecordingAudit::default());
    let sink: Arc<dyn AuditSink> = audit.clone();
    let builder = Toolbay::builder().grants(PermissionSet::parse(["secret:read:*"]).unwrap()).secrets(secrets);
    let bay = builder.audit(sink).build().unwrap();
    let flood = tool("flood", "Asks and asks", async |_: crate::support::Nothing, cx: ToolContext| {
        let secret = cx.host().secret("KEY").await?;
        let _ = cx.host().call_tool(&format!("tell.{secret}"), json!({})).await;
        let _ = cx.host().call_tool(&format!("tell.{}\n{secret}", "x".repeat(250)), json!({})).await;
        for number in 0..100 {
            let _ = cx.host().emit(&format!("order.n{number}"), json!({})).await;
        }
        Ok(())
    });
    let plugin = NativePlugin::new("flood", "1.0.0", "Floods").unwrap().tool(flood);
    let all = PermissionSet::all();
    bay.register(Scope::Global, plugin.with(|metadata| metadata.permissions = all)).await.unwrap();
    outcome(&bay.session("acme").unwrap(), "flood", json!({})).await;
    let denials = audit.denials();
    assert_eq!((denials.len(), denials.iter().filter(|denial| denial.is_last).count()), (16, 1));
    assert!(denials[15].is_last);
    assert_eq!(denials[0].permission, "tool:call:tell.***");
    for denial in &denials {
        assert!(denial.permission.len() <= 256 && denial.reason.len() <= 512, "{denial:?}");
        let text = format!("{denial:?}");
        assert!(!text.contains("hunter2") && !denial.permission.contains('\n'), "{text}");
    }
}

/// A plugin that tries everything when it starts.
struct Eager(NativePlugin);

#[async_trait]
impl Plugin for Eager {
    fn metadata(&self) -> &PluginMetadata {
        self.0.metadata()
    }

    fn tools(&self) -> Vec<Arc<dyn Tool>> {
        self.0.tools()
    }

    async fn on_start(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        for effect in EFFECTS {
            let _ = attempt(&*cx.host, effect).await;
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_callback_that_acts_for_no_tenant_leaves_records_too() {
    let (bay, audit) = audited(Toolbay::builder());
    bay.register(Scope::Global, lender()).await.unwrap();
    bay.register(Scope::Global, Eager(plugin(&["*"]))).await.unwrap();
    let denials = audit.denials();
    let permissions: Vec<_> = denials.iter().map(|denial| denial.permission.as_str()).collect();
    expect!["kv:read kv:write secret:read:KEY tool:call:do.effect event:emit:order.paid service:db clock random"]
        .assert_eq(&permissions.join(" "));
    assert!(denials.iter().all(|denial| denial.tenant.is_none() && denial.run.is_none() && denial.call == "on_start"));
}

#[tokio::test]
async fn in_a_callback_of_a_tenants_plugin_the_record_names_the_tenant() {
    let (bay, audit) = audited(toolbay::builder());
    let source = r#"const PLUGIN = #{ name: "own", version: "1.0.0", description: "A test's", permissions: ["kv:read"],
        tools: #{ own: #{ description: "Says" } } };
        fn own(args) { 1 }
        fn on_start(cx) { try { kv_get("k"); } catch { } }"#;
    let folder = folder(&[("own.rhai", source)]);
    bay.load(tenant("acme"), folder.path().join("own.rhai")).await.unwrap();
    let denials = audit.denials();
    assert_eq!((denials.len(), denials[0].tenant.as_deref(), denials[0].call.as_str()), (1, Some("acme"), "on_start"));
}

/// A tool that never ends, and one that calls it.
fn endless() -> NativePlugin {
    let hang = tool("hang", "Hangs", async |_: crate::support::Nothing, _: ToolContext| {
        std::future::pending::<()>().await;
        Ok(())
    });
    let outer = tool("outer", "Calls what hangs", async |_: crate::support::Nothing, cx: ToolContext| {
        cx.host().call_tool("slow.hang", json!({})).await.map(|output| output.data)
    });
    let all = PermissionSet::all();
    NativePlugin::new("slow", "1.0.0", "Waits")
        .unwrap()
        .tool(hang)
        .tool(outer)
        .with(|metadata| metadata.permissions = all)
}

fn told(audit: &RecordingAudit) -> String {
    let line = |record: &toolbay_testkit::Audited| {
        format!("{} {} depth {} {:?}\n", record.tool, record.outcome, record.depth, record.plugin)
    };
    audit.records().iter().map(line).collect()
}

#[tokio::test(start_paused = true)]
async fn a_call_that_its_caller_gives_up_leaves_a_record_as_do_those_inside_of_it() {
    let (bay, audit) = audited(Toolbay::builder().grants(PermissionSet::all()));
    bay.register(Scope::Global, endless()).await.unwrap();
    let session = bay.session("acme").unwrap();
    let given_up = tokio::time::timeout(Duration::from_millis(10), session.call("slow.outer", json!({}))).await;
    assert!(given_up.is_err());
    expect![[r#"
        slow.hang Cancelled depth 1 Some("slow")
        slow.outer Cancelled depth 0 Some("slow")
    "#]]
    .assert_eq(&told(&audit));
    assert_eq!(audit.records()[1].tenant, "acme");
    // What was given up is not in flight any more, and the next call is one record, as ever.
    let reply = session.call("slow.outer", json!({})).await;
    assert_eq!(reply.result.unwrap_err().kind, ErrorKind::TimedOut);
    expect![[r#"
        slow.hang TimedOut depth 1 Some("slow")
        slow.outer TimedOut depth 0 Some("slow")
    "#]]
    .assert_eq(told(&audit).split_inclusive('\n').skip(2).collect::<String>().as_str());
    // One that never began leaves none.
    drop(session.call("slow.outer", json!({})));
    assert_eq!(audit.records().len(), 4);
}
