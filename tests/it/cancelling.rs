//! A run that is dropped, at whatever moment, leaves nothing behind: no task, permit, fiber, worker's call or future. The
//! moments are drawn from a seed, and are told by how often the run was polled, not by time.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use futures::StreamExt;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use toolbay::{
    Agent, AgentConfig, Bounds, Execution, Message, Model, ModelError, ModelRequest, ModelResponse, Parts,
    PermissionSet, RhaiRunner, RunStream, Runner, ScriptedModel, Session, StepperConfig, StreamOptions, Tool,
    ToolContext, ToolDefinition, ToolError, ToolOutput, Toolbay, async_trait, tool,
    worker::{WorkerConfig, WorkerProgram, WorkerRunner},
};

use crate::support::{Nothing, tenant, toolbay_command};

const MOMENTS: usize = 200;

/// Scripts that compute for longer than a slice, that call a tool, and that write.
const SCRIPTS: &str = r#"const PLUGIN = #{ name: "calc", version: "1.0.0", description: "d", author: "A", permissions: ["tool:call:*", "kv:*"],
    tools: #{ spin: #{ description: "d", parameters: #{ type: "object" } }, relay: #{ description: "d", parameters: #{ type: "object" } },
        keep: #{ description: "d", parameters: #{ type: "object" } } } };
fn spin(args) { let n = 0; while n < 30_000 { n += 1; } n }
fn relay(args) { call_tool("wait", #{}); call_tool("wait", #{}) }
fn keep(args) { for i in 0..20 { kv_set("k" + i, i); } kv_list("").len() }"#;

/// Counts those that are alive.
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A tool on a thread of its own, which looks whether anybody waits for it.
struct Blocks(ToolDefinition, Arc<AtomicUsize>);

#[async_trait]
impl Tool for Blocks {
    fn definition(&self) -> &ToolDefinition {
        &self.0
    }

    fn execution(&self) -> Execution {
        Execution::Blocking
    }

    async fn call(&self, _: Value, _: &ToolContext) -> Result<ToolOutput, ToolError> {
        unreachable!("it runs on a blocking thread")
    }

    fn call_blocking(&self, _: Value, cx: &ToolContext) -> Result<ToolOutput, ToolError> {
        let _alive = Alive::new(&self.1);
        for _ in 0..2_000 {
            if cx.is_cancelled() {
                break;
            }
            std::thread::yield_now();
        }
        Ok(ToolOutput::new(json!("done")))
    }
}

/// A model whose future and whose value are counted.
struct Counted(ScriptedModel, Arc<AtomicUsize>, #[allow(dead_code, reason = "it is there to be dropped")] Alive);

#[async_trait]
impl Model for Counted {
    fn id(&self) -> &str {
        "counted"
    }

    async fn respond(&self, request: ModelRequest) -> Result<ModelResponse, ModelError> {
        self.0.respond(request).await
    }

    async fn respond_in_parts(&self, request: ModelRequest, parts: &Parts) -> Result<ModelResponse, ModelError> {
        let _alive = Alive::new(&self.1);
        tokio::task::yield_now().await;
        self.0.respond_in_parts(request, parts).await
    }
}

/// What must be nothing when a run is gone.
struct Bench {
    session: Session,
    bay: Toolbay,
    alive: Arc<AtomicUsize>,
    under_way: Box<dyn Fn() -> usize>,
}

impl Bench {
    async fn new(runner: impl Runner + 'static, under_way: impl Fn() -> usize + 'static) -> Self {
        let alive = Arc::<AtomicUsize>::default();
        let there = Arc::clone(&alive);
        let wait = tool("wait", "Waits", move |_: Nothing, _: ToolContext| {
            let alive = Alive::new(&there);
            async move {
                let _alive = alive;
                for _ in 0..5 {
                    tokio::task::yield_now().await;
                }
                Ok("waited")
            }
        });
        let definition = ToolDefinition::new("block", "Blocks", json!({ "type": "object" })).unwrap();
        let block = Blocks(definition, Arc::clone(&alive));
        let builder = Toolbay::builder().without_audit().grants(PermissionSet::standard());
        let bay = builder.runner(runner).tool(wait).tool(block).build().unwrap();
        bay.load_source(tenant("acme"), "calc.rhai", SCRIPTS).await.unwrap();
        let session = bay.session("acme").unwrap();
        Self { session, bay, alive, under_way: Box::new(under_way) }
    }

    /// A run of three steps with six calls beside each other, of which four run at a time.
    fn stream(&self) -> RunStream {
        let calls = ["wait", "calc.spin", "block", "calc.relay", "calc.keep", "wait"].map(|name| (name, json!({})));
        let script = (0..3).fold(ScriptedModel::new(), |model, _| model.calls_all(calls.clone()));
        let model = Counted(script.says("All is done by now."), Arc::clone(&self.alive), Alive::new(&self.alive));
        let bounds = Bounds { max_parallel_tool_calls: 4, ..Bounds::default() };
        let stepper = StepperConfig { bounds, ..StepperConfig::default() };
        let agent = Agent::new(model, self.session.clone()).config(AgentConfig { stepper, ..AgentConfig::default() });
        let options = StreamOptions { capacity: 4, ..StreamOptions::default() };
        agent.stream_messages(vec![Message::user("go")], options)
    }

    fn left(&self) -> [usize; 3] {
        [self.alive.load(Ordering::SeqCst), self.session.calls_in_flight(), (self.under_way)()]
    }

    /// Waits until nothing is left; threads and processes take a moment to hear of it.
    async fn settles(&self, tasks: usize, what: &str) {
        let began = Instant::now();
        loop {
            let (left, now) = (self.left(), Handle::current().metrics().num_alive_tasks());
            if left == [0; 3] && now <= tasks {
                return;
            }
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{what}: futures, permits and calls under way: {left:?}; {now} tasks, {tasks} before"
            );
            tokio::task::yield_now().await;
        }
    }

    async fn leaves_all_as_it_was(self, seed: u64) {
        // One whole run: how many polls it takes, and how many tasks there are in peace.
        let mut whole = self.stream();
        let polls = poll(&mut whole, usize::MAX).await;
        assert_eq!(whole.reply().await.unwrap().text, "All is done by now.");
        self.settles(usize::MAX, "a whole run").await;
        let tasks = Handle::current().metrics().num_alive_tasks();

        let (mut random, mut cut, mut busy) = (seed, 0, 0);
        for moment in 0..MOMENTS {
            // A generator by Marsaglia; any would do.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let mut stream = self.stream();
            let wanted = (random % polls as u64) as usize;
            cut += usize::from(poll(&mut stream, wanted).await == wanted);
            busy += usize::from(self.session.calls_in_flight() > 0);
            drop(stream);
            self.settles(tasks, &format!("seed {seed}, moment {moment}, after {wanted} of {polls} polls")).await;
        }
        // The first run was the longest: what is made once was made in it.
        assert!(cut > MOMENTS / 2 && busy > MOMENTS / 5, "only {cut} runs were cut, {busy} of them with calls");
        // What was left is not merely forgotten: nothing keeps the plugins from stopping, and all of it works still.
        assert_eq!(self.stream().reply().await.unwrap().text, "All is done by now.");
        let report = self.bay.shutdown(Duration::from_secs(5)).await.to_string();
        assert_eq!(report, "");
    }
}

/// Polls at most so often; gives how often it did.
async fn poll(stream: &mut RunStream, most: usize) -> usize {
    let mut polls = 0;
    poll_fn(|cx| {
        if polls == most {
            return Poll::Ready(());
        }
        polls += 1;
        match stream.poll_next_unpin(cx) {
            Poll::Ready(None) => Poll::Ready(()),
            Poll::Ready(Some(_)) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    polls
}

#[tokio::test]
async fn a_run_that_is_dropped_at_any_moment_leaves_no_task_permit_future_or_fiber_behind() {
    let runner = Arc::new(RhaiRunner::default());
    let there = Arc::clone(&runner);
    Bench::new(runner, move || there.fibers()).await.leaves_all_as_it_was(0x5eed_0001).await;
}

#[tokio::test]
async fn nor_does_one_whose_scripts_run_in_worker_processes() {
    let program = WorkerProgram::Path(toolbay_command());
    let config = WorkerConfig { program, spare_workers: 0, max_workers: 2, ..WorkerConfig::default() };
    let runner = WorkerRunner::new(config).expect("a system that isolates workers");
    let there = runner.clone();
    let calls = move || there.workers().iter().map(|worker| worker.calls).sum();
    Bench::new(runner, calls).await.leaves_all_as_it_was(0x5eed_0002).await;
}
