//! What a call costs: a trivial tool, through the `Tool` trait, with a host that does nothing.
#![allow(
    clippy::expect_used,
    missing_docs,
    reason = "a benchmark that cannot begin has nobody to tell but its terminal"
)]

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};
use toolbay_api::{
    Assets, CallId, Caller, CancelFlag, Host, Limits, LogLevel, Package, PermissionSet, Plugin, PluginContext, RunId,
    Runner, Scope, TenantId, Tool, ToolContext, ToolContextParts, ToolError, ToolOutput, async_trait,
};
use toolbay_rhai::RhaiRunner;

#[global_allocator]
static ALLOCATOR: toolbay_rhai::MeteredAllocator = toolbay_rhai::MeteredAllocator;

#[derive(Default)]
struct Nothing(Assets);

#[async_trait]
impl Host for Nothing {
    fn log(&self, _: LogLevel, _: &str) {}
    fn config(&self) -> &Value {
        &Value::Null
    }
    fn assets(&self) -> &Assets {
        &self.0
    }
    async fn kv_get(&self, _: &str) -> Result<Option<Value>, ToolError> {
        Ok(Some(json!(2)))
    }
    async fn kv_set(&self, _: &str, _: Value) -> Result<(), ToolError> {
        Ok(())
    }
    async fn kv_delete(&self, _: &str) -> Result<bool, ToolError> {
        Ok(false)
    }
    async fn kv_list(&self, _: &str, _: usize) -> Result<Vec<String>, ToolError> {
        Ok(Vec::new())
    }
    async fn call_tool(&self, _: &str, arguments: Value) -> Result<ToolOutput, ToolError> {
        Ok(ToolOutput::new(arguments))
    }
    fn now_ms(&self) -> Result<i64, ToolError> {
        Ok(0)
    }
    fn uuid(&self) -> Result<String, ToolError> {
        Ok(String::new())
    }
    fn random(&self) -> Result<u64, ToolError> {
        Ok(0)
    }
}

const SOURCE: &str = r#"
const PLUGIN = #{ name: "b", version: "1.0.0", description: "b", permissions: ["*"], tools: #{
    noop: #{ description: "d" }, add: #{ description: "d" }, cx: #{ description: "d" }, kv: #{ description: "d" },
    order: #{ description: "d" }, fib: #{ description: "d" } } };
fn noop(args) { 1 }
fn add(args) { args.a + args.b }
fn cx(args, cx) { cx.depth }
fn kv(args) { kv_get("a") }
fn order(args) {
    let total = 0.0;
    let lines = [];
    for item in args.items {
        let price = item.price * item.quantity;
        if item.quantity > 5 { price *= 0.9; }
        total += price;
        lines.push(#{ name: item.name, price: price });
    }
    #{ total: total, lines: lines }
}
fn f(n) { if n < 2 { n } else { f(n - 1) + f(n - 2) } }
fn fib(args) { f(args.n) }
"#;

fn context() -> ToolContext {
    let caller =
        Caller { tenant: TenantId::default(), user: None, conversation: None, run: RunId::random(), trace: None };
    ToolContext::new(ToolContextParts {
        caller: Arc::new(caller),
        call: CallId::new("1"),
        depth: 0,
        deadline: Instant::now() + Duration::from_secs(3_600),
        limits: Arc::new(Limits::default()),
        idempotency_key: None,
        host: Arc::new(Nothing::default()),
        cancelled: CancelFlag::default(),
        peer: None,
    })
}

fn calls(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let runner = RhaiRunner::default();
    let cx = PluginContext { scope: Scope::Global, limits: Limits::default(), grants: Arc::new(PermissionSet::all()) };
    let plugin: Arc<dyn Plugin> =
        runtime.block_on(runner.load(&Package::one_file("b.rhai", SOURCE), &cx)).expect("the plugin loads");
    let tool = |name: &str| -> Arc<dyn Tool> {
        plugin.tools().into_iter().find(|tool| tool.definition().name == name).expect("the tool")
    };
    let items: Vec<Value> =
        (0..50).map(|n| json!({ "name": format!("item {n}"), "price": 9.5, "quantity": n % 10 })).collect();
    let cases = [
        ("noop", json!({})),
        ("add", json!({ "a": 1, "b": 2 })),
        ("cx", json!({})),
        ("kv", json!({})),
        ("order", json!({ "items": items })),
        ("fib", json!({ "n": 22 })),
    ];
    let context = context();
    for (name, arguments) in cases {
        let tool = tool(name);
        c.bench_function(name, |b| {
            b.to_async(&runtime).iter(|| async { black_box(tool.call(arguments.clone(), &context).await) });
        });
    }
    c.bench_function("load", |b| {
        b.to_async(&runtime).iter(|| async {
            black_box(RhaiRunner::load(&runner, &Package::one_file("b.rhai", SOURCE), &cx).await.is_ok())
        });
    });
}

/// The same scripts on Rhai alone: the standard engine, its own limits, no fiber, no deadline.
fn bare(c: &mut Criterion) {
    let mut engine = rhai::Engine::new();
    let limits = Limits::default();
    engine
        .set_max_operations(u64::MAX)
        .set_max_call_levels(limits.max_call_depth)
        .set_max_string_size(limits.max_string_bytes)
        .set_max_array_size(limits.max_array_len)
        .set_max_map_size(limits.max_map_len)
        .set_max_variables(limits.max_variables);
    let ast = engine.compile(SOURCE.replace("kv_get", "kv_got")).expect("the script compiles");
    let options = || rhai::CallFnOptions::new().eval_ast(false);
    for (name, function, n) in [("bare noop", "noop", 0_i64), ("bare fib", "fib", 22)] {
        c.bench_function(name, |b| {
            b.iter(|| {
                let arguments = rhai::Map::from([("n".into(), n.into())]);
                let mut scope = rhai::Scope::new();
                black_box(engine.call_fn_with_options::<rhai::Dynamic>(
                    options(),
                    &mut scope,
                    &ast,
                    function,
                    (arguments,),
                ))
                .is_ok()
            });
        });
    }
}

criterion_group!(benches, calls, bare);
criterion_main!(benches);
