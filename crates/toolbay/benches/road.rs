//! What the road costs around a tool that does nothing, native and in Rhai: look-up, four hooks, validation, metering;
//! audit off.
//!
//! Hosts with fewer hooks are measured too, so that one can see where the time goes.

#![allow(clippy::expect_used, missing_docs, reason = "a benchmark that cannot begin has nothing to measure")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use toolbay::{
    Hook, HookContext, HookPoint, HookRegistration, Quota, Scope, ToolCall, ToolContext, Toolbay, ToolbayBuilder,
    async_trait,
    hook::{BeforeToolCall, BeforeToolCallOutcome, HookResult},
    tool,
};

/// A Rhai tool that does nothing, with the schema of the native one.
const SCRIPT: &str = r#"
    const PLUGIN = #{ name: "script", version: "1.0.0", description: "Does nothing", author: "Toolbay",
        tools: #{ script: #{ description: "Does nothing", parameters: #{
            type: "object", properties: #{ amount: #{ type: "number" } }, required: ["amount"] } } } };
    fn script(args) { () }
"#;

#[derive(Deserialize, JsonSchema)]
struct Amount {
    #[allow(dead_code, reason = "the tool does nothing with it")]
    amount: f64,
}

struct Nothing;

#[async_trait]
impl Hook for Nothing {
    async fn before_tool_call(&self, _: &BeforeToolCall, _: &HookContext<'_>) -> HookResult<BeforeToolCallOutcome> {
        Ok(BeforeToolCallOutcome::Continue)
    }
}

/// A host with a tool that does nothing and this many hooks.
fn toolbay(hooks: usize) -> Toolbay {
    let noop = tool("noop", "Does nothing", async |_: Amount, _: ToolContext| Ok(Value::Null));
    let builder = toolbay::builder()
        .without_audit()
        .tool(noop)
        .quota(Quota { max_concurrent_calls: 64, max_calls_per_minute: u32::MAX });
    let with_hook = |builder: ToolbayBuilder, n| {
        builder.hook(HookRegistration::new(format!("h{n}"), [HookPoint::BeforeToolCall], Nothing))
    };
    (0..hooks).fold(builder, with_hook).build().expect("the host is sound")
}

fn road(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let call_of =
        |name: &str| ToolCall { id: "call-1".to_owned(), name: name.to_owned(), arguments: json!({ "amount": 5.0 }) };
    let call = || call_of("noop");
    let mut group = criterion.benchmark_group("road");
    group.bench_function("making the call's value alone", |bencher| bencher.iter(|| black_box(call())));
    for hooks in [0, 1, 4] {
        let run = toolbay(hooks).session("acme").expect("a tenant").run();
        group.bench_function(format!("a native no-op tool, {hooks} hooks"), |bencher| {
            bencher.to_async(&runtime).iter(|| async { black_box(run.call(1, call()).await) });
        });
    }
    for hooks in [0, 4] {
        let bay = toolbay(hooks);
        runtime.block_on(bay.load_source(Scope::Global, "script.rhai", SCRIPT)).expect("the script is sound");
        let run = bay.session("acme").expect("a tenant").run();
        group.bench_function(format!("a Rhai tool that does nothing, {hooks} hooks"), |bencher| {
            bencher.to_async(&runtime).iter(|| async { black_box(run.call(1, call_of("script")).await) });
        });
    }
    let session = toolbay(4).session("acme").expect("a tenant");
    group.bench_function("a native no-op tool, 4 hooks, through Session::call", |bencher| {
        bencher.to_async(&runtime).iter(|| async { black_box(session.call("noop", json!({ "amount": 5.0 })).await) });
    });
    group.finish();
}

criterion_group!(benches, road);
criterion_main!(benches);
