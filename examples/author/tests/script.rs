//! The script in a host of the test's own: the sandbox and the road are the real ones, network and clock are not.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails, and says where")]

use std::time::Duration;

use serde_json::{Value, json};
use toolbay::{ErrorKind, PermissionSet, Scope, ToolError, Toolbay};
use toolbay_testkit::{FakeAnswer, FakeHttp, FakeSecrets, VirtualClock};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/plugins/visits.rhai");

/// A script that is allowed to read the total.
const REPORTS: &str = r#"
const PLUGIN = #{ name: "reports", version: "1.0.0", description: "Reports", permissions: ["tool:call:visits.total"],
    tools: #{ today: #{ description: "How many visits there were" } } };
fn today(args) { call_tool("visits.total", #{}) }
"#;

/// A host with the native plugin and the script in it.
async fn host(clock: &VirtualClock) -> Toolbay {
    let http = FakeHttp::new();
    let customer = |id: u64, name: &str| FakeAnswer::json(json!({ "id": id, "name": name }));
    let http = http.on("GET", "https://api.example.com/customers", customer(107, "Ada Lovelace")).unwrap();
    let secrets = FakeSecrets::new([("CRM_KEY", "s3cret")]);
    let grants = ["kv:*", "tool:call:*", "secret:read:CRM_KEY", "http:GET:api.example.com"];
    let builder = toolbay::builder().clock(clock.clone()).http(http).secrets(secrets);
    let bay = builder.grants(PermissionSet::parse(grants).unwrap()).build().unwrap();
    bay.register(Scope::Global, toolbay_example_author::plugin().unwrap()).await.unwrap();
    bay.load(Scope::Global, SCRIPT).await.unwrap();
    bay.load_source(Scope::Global, "reports.rhai", REPORTS).await.unwrap();
    bay
}

async fn call(bay: &Toolbay, tenant: &str, tool: &str, arguments: Value) -> Result<Value, ToolError> {
    bay.session(tenant).unwrap().call(tool, arguments).await.result.map(|output| output.data)
}

#[tokio::test]
async fn a_visit_is_counted_once_a_minute_and_for_each_tenant_apart() {
    let clock = VirtualClock::default();
    let bay = host(&clock).await;
    let visit = async |tenant: &str| call(&bay, tenant, "visits.visit", json!({ "email": "ada@example.com" })).await;
    assert_eq!(visit("acme").await.unwrap(), json!({ "name": "Ada Lovelace", "visits": 1 }));
    clock.advance(Duration::from_secs(59));
    assert_eq!(visit("acme").await.unwrap()["visits"], 1);
    clock.advance(Duration::from_secs(1));
    assert_eq!(visit("acme").await.unwrap()["visits"], 2);
    assert_eq!(visit("globex").await.unwrap()["visits"], 1);
}

#[tokio::test]
async fn the_total_is_for_the_reports_only() {
    let bay = host(&VirtualClock::default()).await;
    call(&bay, "acme", "visits.visit", json!({ "email": "ada@example.com" })).await.unwrap();
    assert_eq!(call(&bay, "acme", "reports.today", json!({})).await.unwrap(), 1);
    let error = call(&bay, "acme", "visits.total", json!({})).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::PermissionDenied);
    let session = bay.session("acme").unwrap();
    assert!(session.tools().iter().all(|tool| tool.definition.name != "visits.total"));
}

#[tokio::test]
async fn arguments_that_do_not_fit_do_not_reach_the_script() {
    let bay = host(&VirtualClock::default()).await;
    let error = call(&bay, "acme", "visits.visit", json!({ "email": 7 })).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidArguments);
}
