//! What a worker costs: a warm call, the same call in process, a worker's start, and how long after its deadline a call
//! that cannot end by itself is over.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark, which ends at the first surprise and prints what criterion does not"
)]

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group, criterion_main};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use toolbay_api::{
    Assets, CallId, Caller, CancelFlag, ErrorKind, Host, Limits, LogLevel, Package, PermissionSet, PluginContext,
    RunId, Runner, Scope, TenantId, Tool, ToolContext, ToolContextParts, ToolError, ToolOutput, async_trait,
};
use toolbay_rhai::RhaiRunner;
use toolbay_worker::{WorkerConfig, WorkerProgram, WorkerRunner};

#[global_allocator]
static ALLOCATOR: toolbay_worker::CappedAlloc = toolbay_worker::CappedAlloc;

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
    add: #{ description: "d" }, kv: #{ description: "d" } } };
fn add(args) { args.a + args.b }
fn kv(args) { kv_get("k") }
"#;

fn config() -> WorkerConfig {
    WorkerConfig {
        program: WorkerProgram::Path(PathBuf::from(env!("CARGO_BIN_EXE_toolbay-worker"))),
        spare_workers: 0,
        recycle_after: u64::MAX,
        ..WorkerConfig::default()
    }
}

struct Bench {
    limits: Arc<Limits>,
    host: Arc<dyn Host>,
    caller: Arc<Caller>,
}

impl Bench {
    fn new() -> Self {
        let caller =
            Caller { tenant: TenantId::default(), user: None, conversation: None, run: RunId::random(), trace: None };
        Self { limits: Arc::new(Limits::default()), host: Arc::new(Nothing::default()), caller: Arc::new(caller) }
    }

    fn context(&self, time: Duration) -> ToolContext {
        ToolContext::new(ToolContextParts {
            caller: Arc::clone(&self.caller),
            call: CallId::new("1"),
            depth: 0,
            deadline: Instant::now() + time,
            limits: Arc::clone(&self.limits),
            idempotency_key: None,
            host: Arc::clone(&self.host),
            cancelled: CancelFlag::default(),
        })
    }

    async fn load(&self, runner: &dyn Runner) -> Vec<Arc<dyn Tool>> {
        let cx = PluginContext {
            scope: Scope::Tenant(TenantId::default()),
            limits: Limits::default(),
            grants: Arc::new(PermissionSet::all()),
        };
        runner.load(&Package::one_file("b.rhai", SOURCE), &cx).await.expect("the plugin").tools()
    }

    async fn call(&self, tool: &dyn Tool) -> Value {
        let output = tool.call(json!({ "a": 1, "b": 2 }), &self.context(Duration::from_secs(5))).await;
        output.expect("a result").data
    }
}

fn warm(criterion: &mut Criterion) {
    let bench = Arc::new(Bench::new());
    for (name, runtime) in [
        ("current_thread", tokio::runtime::Builder::new_current_thread().enable_all().build()),
        ("multi_thread", tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()),
    ] {
        let runtime = runtime.expect("a runtime");
        let runner = runtime.block_on(async { WorkerRunner::new(config()).expect("workers") });
        let far = runtime.block_on(bench.load(&runner));
        for (tool, what) in far.iter().zip(["warm call", "warm call with kv_get"]) {
            criterion.bench_function(&format!("{what} in a worker ({name})"), |b| {
                b.iter_custom(|times| runtime.block_on(timed(&bench, tool, times)));
            });
        }
        spread(&runtime, &bench, &far[0], name);
    }
    let runtime = Runtime::new().expect("a runtime");
    let near = runtime.block_on(bench.load(&RhaiRunner::default()));
    criterion.bench_function("warm call in process", |b| b.to_async(&runtime).iter(|| bench.call(&*near[0])));
}

/// The time of so many calls in a row, made from a task of the runtime as agents make them.
async fn timed(bench: &Arc<Bench>, tool: &Arc<dyn Tool>, times: u64) -> Duration {
    let (bench, tool) = (Arc::clone(bench), Arc::clone(tool));
    let task = tokio::spawn(async move {
        let began = Instant::now();
        for _ in 0..times {
            bench.call(&*tool).await;
        }
        began.elapsed()
    });
    task.await.expect("the calls")
}

/// Median and p99, which criterion does not give.
fn spread(runtime: &Runtime, bench: &Arc<Bench>, tool: &Arc<dyn Tool>, name: &str) {
    let mut times: Vec<Duration> = runtime.block_on(async {
        let mut times = Vec::new();
        for _ in 0..20_000 {
            times.push(timed(bench, tool, 1).await);
        }
        times
    });
    times.sort_unstable();
    println!("{name}: median {:?}, p99 {:?}", times[times.len() / 2], times[times.len() * 99 / 100]);
}

fn start(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let bench = Bench::new();
    let mut group = criterion.benchmark_group("start");
    group.sample_size(20);
    group.bench_function("first load of a runner, its worker's start included", |b| {
        b.to_async(&runtime).iter_custom(|times| {
            let bench = &bench;
            async move {
                let mut total = Duration::ZERO;
                for _ in 0..times {
                    let runner = WorkerRunner::new(config()).expect("workers");
                    let began = Instant::now();
                    bench.load(&runner).await;
                    total += began.elapsed();
                }
                total
            }
        });
    });
    group.finish();
}

/// The worker is stopped by a signal, so that nothing but a kill can end the call.
fn kill(_: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let bench = Bench::new();
    let time = Duration::from_millis(50);
    let mut overruns: Vec<Duration> = runtime.block_on(async {
        let mut overruns = Vec::new();
        for _ in 0..40 {
            let runner = WorkerRunner::new(config()).expect("workers");
            let tools = bench.load(&runner).await;
            let pid = runner.workers()[0].pid;
            std::process::Command::new("kill").args(["-STOP", &pid.to_string()]).status().expect("kill");
            let began = Instant::now();
            let result = tools[0].call(json!({ "a": 1, "b": 2 }), &bench.context(time)).await;
            assert_eq!(result.expect_err("stopped").kind, ErrorKind::TimedOut);
            overruns.push(began.elapsed().saturating_sub(time));
        }
        overruns
    });
    overruns.sort_unstable();
    let (median, worst) = (overruns[overruns.len() / 2], overruns[overruns.len() - 1]);
    println!("overrun of a call whose worker is stuck: median {median:?}, worst {worst:?}");
}

criterion_group!(benches, warm, start, kill);
criterion_main!(benches);
