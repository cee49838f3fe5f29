//! What a worker costs: a warm call, beside a bare round trip between two processes and beside the same call in process; a
//! worker's start; and how long after its deadline a call that cannot end by itself is over.
//!
//! `-- warm` leaves the deadlines out, `-- overrun` measures nothing else.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark, which ends at the first surprise and prints what criterion does not"
)]

use std::{
    io::{Read as _, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{Criterion, criterion_group};
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
    add: #{ description: "d" }, kv: #{ description: "d" }, spin: #{ description: "d" } } };
fn add(args) { args.a + args.b }
fn spin(args) { loop {} }
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
        Self {
            limits: Arc::new(Limits { max_operations: u64::MAX, ..Limits::default() }),
            host: Arc::new(Nothing::default()),
            caller: Arc::new(caller),
        }
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
            peer: None,
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
        beside_a_round_trip(&runtime, &bench, &far[0], name);
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

/// The middle, the hundredth from the end of ten thousand, and the last.
fn spread(times: &mut [Duration]) -> [Duration; 3] {
    times.sort_unstable();
    [times[times.len() / 2], times[(times.len() * 99 / 100).min(times.len() - 1)], times[times.len() - 1]]
}

/// A call beside what the system takes for the same bytes: a round trip between two processes over a socket pair, both
/// waiting in the kernel. In turns, so that what else goes on here falls on both.
fn beside_a_round_trip(runtime: &Runtime, bench: &Arc<Bench>, tool: &Arc<dyn Tool>, name: &str) {
    let (mut here, there) = UnixStream::pair().expect("a socket pair");
    let mut echo = Command::new(std::env::current_exe().expect("this program"))
        .arg(ECHO)
        .stdin(Stdio::from(OwnedFd::from(there)))
        .spawn()
        .expect("the other side");
    let (mut trips, mut calls) = (Vec::new(), Vec::new());
    for _ in 0..40 {
        for _ in 0..500 {
            let began = Instant::now();
            here.write_all(&[1; CALL_BYTES]).expect("the other side");
            here.read_exact(&mut [0; ANSWER_BYTES]).expect("the other side");
            trips.push(began.elapsed());
        }
        // One task for many calls, as an agent's run is.
        let (bench, tool) = (Arc::clone(bench), Arc::clone(tool));
        let task = async move {
            let mut times = Vec::new();
            for _ in 0..500 {
                let began = Instant::now();
                bench.call(&*tool).await;
                times.push(began.elapsed());
            }
            times
        };
        calls.extend(runtime.block_on(async { tokio::spawn(task).await.expect("the calls") }));
    }
    drop(here);
    echo.wait().expect("its end");
    let ([trip, late_trip, _], [call, late_call, _]) = (spread(&mut trips), spread(&mut calls));
    println!(
        "{name}: call median {call:?} p99 {late_call:?}, bare round trip median {trip:?} p99 {late_trip:?}, ratio {:.2}",
        call.as_secs_f64() / trip.as_secs_f64()
    );
}

const ECHO: &str = "--echo";
/// What a small call takes on the wire, there and back.
const CALL_BYTES: usize = 257;
const ANSWER_BYTES: usize = 51;

/// The other side of the bare round trip: standard input is its socket.
fn be_echo() {
    let mut socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned().expect("a socket"));
    let mut call = [0; CALL_BYTES];
    while socket.read_exact(&mut call).is_ok() {
        let _ = socket.write_all(&call[..ANSWER_BYTES]);
    }
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

/// How long after its deadline a call is over that never ends by itself: a script that spins, which the sandbox in the
/// worker ends, and a worker that is stopped by a signal, so that nothing but a kill can.
fn overrun(_: &mut Criterion) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let bench = Bench::new();
    for (what, is_stuck, calls) in [("spinning", false, 200), ("stuck", true, 200)] {
        for time in [10, 50, 250].map(Duration::from_millis) {
            let mut overruns = runtime.block_on(async {
                let mut overruns = Vec::new();
                for _ in 0..calls {
                    overruns.push(bench.overrun(time, is_stuck).await);
                }
                overruns
            });
            let [median, late, worst] = spread(&mut overruns);
            println!("overrun, {what}, {calls} calls of {time:?}: median {median:?}, p99 {late:?}, worst {worst:?}");
        }
    }
}

impl Bench {
    async fn overrun(&self, time: Duration, is_stuck: bool) -> Duration {
        // A pool of its own: a storm of broken workers would be slowed down.
        let runner = WorkerRunner::new(config()).expect("workers");
        let tools = self.load(&runner).await;
        self.call(&*tools[0]).await;
        if is_stuck {
            let pid = runner.workers()[0].pid.to_string();
            Command::new("kill").args(["-STOP", &pid]).status().expect("kill");
        }
        let began = Instant::now();
        let result = tools[2].call(json!({}), &self.context(time)).await;
        let took = began.elapsed();
        assert_eq!(result.expect_err("it never ends").kind, ErrorKind::TimedOut);
        took.saturating_sub(time)
    }
}

criterion_group!(benches, warm, start);
criterion_group!(deadlines, overrun);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.iter().any(|argument| argument == ECHO) {
        return be_echo();
    }
    // Criterion's own filter knows nothing of what is printed beside it.
    let only = |what: &str| arguments.iter().any(|argument| argument == what);
    if !only("overrun") {
        benches();
    }
    if !only("warm") {
        deadlines();
    }
}
