//! Recordings of runs: JSON Lines with all that the loop was told and decided, what hooks decided, and what tools were given and
//! gave, so that the run can be gone through again by [`replay`](crate::replay).
//!
//! [`Recorder`] is an observer of a session. What a line may not hold is taken out where it is made, by the run, which knows
//! the secrets that were read.

pub mod lines;
mod tape;

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::Instant,
};
use toolbay_api::{RunId, TenantId};
use toolbay_runtime::{Observer, RunEvent};

pub(crate) use tape::{begin, finish, model_answered, tape_of};

/// How much is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordBounds {
    /// Bytes of one run's recording. One that would be longer ends with a line that says so, and cannot be replayed to its end.
    pub max_bytes: u64,
    /// Runs that are recorded at the same time; of one more the oldest is no longer recorded.
    pub max_runs: usize,
}

impl Default for RecordBounds {
    fn default() -> Self {
        Self { max_bytes: 16 << 20, max_runs: 64 }
    }
}

/// A line of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedLine {
    /// The run that it is of.
    pub run: RunId,
    /// Whose.
    pub tenant: TenantId,
    /// The line, with its end.
    pub text: String,
    /// Whether it is the run's last.
    pub is_last: bool,
}

/// Records the agent runs of a session. Lines are handed on and never waited for; whoever takes them writes them where they
/// are to be. What waits is bounded by the bounds of the runs.
///
/// ```
/// # use toolbay_agent::{Agent, ScriptedModel};
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use toolbay_agent::{RecordBounds, Recorder, replay};
///
/// let (recorder, mut lines) = Recorder::new(RecordBounds::default());
/// let session = toolbay_runtime::Toolbay::builder().build()?.session("acme")?.with_observer(recorder);
/// Agent::new(ScriptedModel::new().says("Hello."), session).run("Hi").await?;
///
/// let mut text = String::new();
/// while let Ok(line) = lines.try_recv() {
///     text.push_str(&line.text);
/// }
/// let recording = replay::Recording::read(text.as_bytes(), &replay::ReadBounds::default())?;
/// assert_eq!(replay::strict(&recording)?.steps, 1);
/// # Ok(()) }
/// ```
pub struct Recorder {
    bounds: RecordBounds,
    lines: UnboundedSender<RecordedLine>,
    // std's Mutex, not tokio's: nothing is awaited while it is held.
    runs: Mutex<Runs>,
}

#[derive(Default)]
struct Runs {
    open: HashMap<RunId, Open>,
    /// By age. A run that was dropped says nothing of its end.
    order: VecDeque<RunId>,
}

struct Open {
    tenant: TenantId,
    began: Instant,
    bytes: u64,
}

impl Recorder {
    /// A recorder, and its lines. Those of one run come in their order.
    #[must_use]
    pub fn new(bounds: RecordBounds) -> (Arc<Self>, UnboundedReceiver<RecordedLine>) {
        let (lines, receiver) = unbounded_channel();
        (Arc::new(Self { bounds, lines, runs: Mutex::default() }), receiver)
    }

    fn begin(&self, run: RunId, head: &Value) {
        let tenant = head.get("tenant").cloned().and_then(|tenant| serde_json::from_value(tenant).ok());
        let Some(tenant) = tenant else { return };
        {
            let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
            while runs.order.len() >= self.bounds.max_runs.max(1) {
                let oldest = runs.order.pop_front();
                oldest.map(|oldest| runs.open.remove(&oldest));
            }
            runs.order.push_back(run);
            runs.open.insert(run, Open { tenant, began: Instant::now(), bytes: 0 });
        }
        self.write(run, head, None);
    }

    /// Writes a line with the time since the run began, where the run is recorded.
    fn line(&self, run: RunId, line: Value) {
        let Value::Object(fields) = line else { return };
        let Some(at) = self.age(run) else { return };
        let mut stamped = serde_json::Map::with_capacity(fields.len() + 1);
        stamped.insert("at_ms".to_owned(), u64::try_from(at.as_millis()).unwrap_or(u64::MAX).into());
        let is_last = fields.get("kind").is_some_and(|kind| kind == "finished" || kind == "cut");
        stamped.extend(fields);
        self.write(run, &Value::Object(stamped), Some(is_last));
    }

    fn age(&self, run: RunId) -> Option<Duration> {
        let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.open.get(&run).map(|open| open.began.elapsed())
    }

    fn write(&self, run: RunId, line: &Value, is_last: Option<bool>) {
        let mut text = line.to_string();
        text.push('\n');
        let mut is_last = is_last.unwrap_or(false);
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = runs.open.get_mut(&run) else { return };
        open.bytes = open.bytes.saturating_add(text.len() as u64);
        if open.bytes > self.bounds.max_bytes {
            let at_ms = u64::try_from(open.began.elapsed().as_millis()).unwrap_or(u64::MAX);
            let reason = format!("a recording has at most {} bytes", self.bounds.max_bytes);
            text = format!("{}\n", json!({ "at_ms": at_ms, "kind": "cut", "reason": reason }));
            is_last = true;
        }
        let tenant = open.tenant.clone();
        if is_last {
            runs.open.remove(&run);
            runs.order.retain(|other| *other != run);
        }
        // Sent under the lock, so that lines of calls beside each other keep their order. Nobody reads any more: fine.
        let _ = self.lines.send(RecordedLine { run, tenant, text, is_last });
    }
}

impl Observer for Recorder {
    fn observe(&self, run: RunId, event: &RunEvent) {
        let line = match event {
            RunEvent::LoopTold { line } if line.get(lines::VERSION_KEY).is_some() => return self.begin(run, line),
            RunEvent::LoopTold { line } => line.clone(),
            RunEvent::HookDecided { point, hook, call, decision } => {
                json!({ "kind": "hook", "point": point, "hook": hook, "call": call, "decision": decision })
            }
            RunEvent::ToolCallStarted { call, tool, arguments } => {
                json!({ "kind": "tool_started", "call": call, "tool": tool, "arguments": arguments })
            }
            RunEvent::ToolAnswered { call, tool, result } => {
                json!({ "kind": "tool_answered", "call": call, "tool": tool, "result": result })
            }
            RunEvent::ToolCallFinished { call, tool, result } => {
                let error = result.error.as_ref().map(|error| error.kind.as_str());
                let duration = result.metadata.get("duration_ms");
                json!({ "kind": "tool_finished", "call": call, "tool": tool, "error": error, "duration_ms": duration })
            }
            _ => return,
        };
        self.line(run, line);
    }

    fn is_recording(&self) -> bool {
        true
    }
}
