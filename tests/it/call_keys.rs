//! The idempotency key of a call: the same in each tier, over attempts and over taking a run up again; nobody else's.

use serde_json::{Value, json};
use toolbay::{
    CallId, RhaiRunner, RunId, Runner, Scope, ToolCall, Toolbay,
    outcomes::CallKey,
    worker::{WorkerConfig, WorkerProgram, WorkerRunner},
};

use crate::support::toolbay_command;

const SCRIPT: &str = r#"
const PLUGIN = #{ name: "keyed", version: "1.0.0", description: "d", author: "a", permissions: ["tool:call:*"],
    tools: #{ key: #{ description: "d" }, inner: #{ description: "d" } } };
fn key(args, cx) { cx.idempotency_key }
fn inner(args, cx) { call_tool("keyed.key", #{}) }
"#;

async fn bay(runner: impl Runner + 'static) -> Toolbay {
    let grants = toolbay::PermissionSet::all();
    let bay = Toolbay::builder().runner(runner).grants(grants).without_audit().build().unwrap();
    bay.load_source(Scope::Global, "keyed.rhai", SCRIPT).await.unwrap();
    bay
}

async fn key(bay: &Toolbay, tenant: &str, run: RunId, id: &str, tool: &str) -> Value {
    let call = ToolCall { id: id.to_owned(), name: tool.to_owned(), arguments: json!({}) };
    let run = bay.session(tenant).unwrap().run_as(run);
    let first = run.call(1, call.clone()).await.result.unwrap().data;
    assert_eq!(run.call_again(1, call, None).await.result.unwrap().data, first, "another attempt");
    first
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_has_the_key_of_its_call_in_both_tiers_and_no_call_from_inside_has_one() {
    let worker = WorkerConfig { program: WorkerProgram::Path(toolbay_command()), ..WorkerConfig::default() };
    let bays = [bay(RhaiRunner::default()).await, bay(WorkerRunner::new(worker).expect("workers")).await];
    let run = RunId::random();
    for bay in &bays {
        let of = |tenant: &str, id: &str| CallKey::of(&tenant.try_into().unwrap(), run, &CallId::new(id)).to_string();
        assert_eq!(key(bay, "acme", run, "call_1", "keyed.key").await, of("acme", "call_1"));
        assert_eq!(key(bay, "globex", run, "call_1", "keyed.key").await, of("globex", "call_1"));
        assert_ne!(of("acme", "call_1"), of("globex", "call_1"));
        assert_ne!(key(bay, "acme", RunId::random(), "call_1", "keyed.key").await, of("acme", "call_1"));
        assert_eq!(key(bay, "acme", run, "call_1", "keyed.inner").await, Value::Null);
        let direct = bay.session("acme").unwrap().call("keyed.key", json!({})).await;
        assert_eq!(direct.result.unwrap().data, Value::Null, "a call of no run cannot come again");
    }
}
