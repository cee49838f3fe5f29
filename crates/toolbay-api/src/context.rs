//! What a call knows of itself.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    error::ToolError,
    host::{Host, LogLevel},
    limits::Limits,
    names::{CallId, RunId, TenantId},
    peer::{Answer, Answers, FormAnswer, Peer, Progress, Question, QuestionKind, Questions, nobody_to_ask},
};

/// On whose behalf a run acts; the same for all its calls. Built from credentials by the host, never from arguments.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The tenant.
    pub tenant: TenantId,
    /// The tenant's user, where the host knows one.
    pub user: Option<Arc<str>>,
    /// The conversation that the run belongs to.
    pub conversation: Option<Arc<str>>,
    /// The run, or the one direct call.
    pub run: RunId,
    /// The trace that the host's telemetry knows it by (W3C Trace Context, 32 hex digits).
    pub trace: Option<Arc<str>>,
}

/// Everything that a [`ToolContext`] is made of.
pub struct ToolContextParts {
    /// On whose behalf.
    pub caller: Arc<Caller>,
    /// This call.
    pub call: CallId,
    /// Tool calls that this one is nested in: 0 for a call by the model.
    pub depth: u32,
    /// When the call ends, whatever it is doing.
    pub deadline: Instant,
    /// What it may use.
    pub limits: Arc<Limits>,
    /// Stable over retries of the same call; for the tool, not for the model.
    pub idempotency_key: Option<Arc<str>>,
    /// The plugin's way out.
    pub host: Arc<dyn Host>,
    /// Set when the caller gives up.
    pub cancelled: CancelFlag,
    /// The program that made the call, where it can be told and asked.
    pub peer: Option<Arc<dyn Peer>>,
}

/// What a call knows of itself. Cheap to clone.
#[derive(Clone)]
pub struct ToolContext(Arc<Inner>);

struct Inner {
    parts: ToolContextParts,
    usage: Usage,
}

impl ToolContext {
    /// For hosts: makes the context of one call.
    #[must_use]
    pub fn new(parts: ToolContextParts) -> Self {
        Self(Arc::new(Inner { parts, usage: Usage::default() }))
    }

    /// On whose behalf the call is made.
    #[must_use]
    pub fn caller(&self) -> &Arc<Caller> {
        &self.0.parts.caller
    }

    /// The tenant.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        &self.0.parts.caller.tenant
    }

    /// The tenant's user, where the host knows one.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.0.parts.caller.user.as_deref()
    }

    /// The conversation, where there is one.
    #[must_use]
    pub fn conversation(&self) -> Option<&str> {
        self.0.parts.caller.conversation.as_deref()
    }

    /// The run.
    #[must_use]
    pub fn run(&self) -> RunId {
        self.0.parts.caller.run
    }

    /// The trace, where the host has one.
    #[must_use]
    pub fn trace(&self) -> Option<&str> {
        self.0.parts.caller.trace.as_deref()
    }

    /// This call.
    #[must_use]
    pub fn call(&self) -> &CallId {
        &self.0.parts.call
    }

    /// Tool calls that this one is nested in.
    #[must_use]
    pub fn depth(&self) -> u32 {
        self.0.parts.depth
    }

    /// When the call ends, whatever it is doing.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.0.parts.deadline
    }

    /// Time left until the deadline.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.0.parts.deadline.saturating_duration_since(Instant::now())
    }

    /// What the call may use.
    #[must_use]
    pub fn limits(&self) -> &Arc<Limits> {
        &self.0.parts.limits
    }

    /// Stable over retries of the same call, where the tool is marked idempotent.
    #[must_use]
    pub fn idempotency_key(&self) -> Option<&str> {
        self.0.parts.idempotency_key.as_deref()
    }

    /// The plugin's way out.
    #[must_use]
    pub fn host(&self) -> &Arc<dyn Host> {
        &self.0.parts.host
    }

    /// Whether the caller gave up. An async tool need not ask, since its future is dropped; one that blocks a thread
    /// should.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.parts.cancelled.is_set() || Instant::now() >= self.0.parts.deadline
    }

    /// Tells whoever made the call how far it is. Dropped where nobody wants to know.
    pub fn progress(&self, done: f64, total: Option<f64>, message: Option<&str>) {
        if let Some(peer) = &self.0.parts.peer {
            peer.progress(Progress { done, total, message: message.map(str::to_owned) });
        }
    }

    /// Tells whoever made the call something for its log. What the operator is to read goes to [`Host::log`].
    pub fn tell(&self, level: LogLevel, logger: Option<&str>, data: Value) {
        if let Some(peer) = &self.0.parts.peer {
            peer.message(level, logger, data);
        }
    }

    /// Whether whoever made the call answers questions of this kind.
    #[must_use]
    pub fn can_ask(&self, kind: QuestionKind) -> bool {
        self.0.parts.peer.as_ref().is_some_and(|peer| peer.answers(kind))
    }

    /// Asks whoever made the call, as [`Peer::ask`] has it: before anything is changed, and the same each time. The
    /// errors are for the caller and to be handed on.
    ///
    /// # Errors
    /// `InputRequired` where the answers come with the next call, which begins the tool anew, and where nobody can be asked.
    ///
    /// # Cancel safety
    /// Dropping the future takes the questions back.
    pub async fn ask(&self, questions: Questions) -> Result<Answers, ToolError> {
        match &self.0.parts.peer {
            Some(peer) => peer.ask(questions).await,
            None => Err(nobody_to_ask()),
        }
    }

    /// Asks the user one form, by the flat JSON Schema of an object.
    ///
    /// ```
    /// # use serde_json::json;
    /// # use toolbay_api::{FormAnswer, ToolContext, ToolError};
    /// # async fn pay(cx: ToolContext) -> Result<String, ToolError> {
    /// let schema = json!({ "type": "object", "properties": { "sure": { "type": "boolean" } }, "required": ["sure"] });
    /// match cx.ask_form("sure", "Pay 5 €?", schema).await? {
    ///     FormAnswer::Accepted(fields) if fields["sure"] == true => Ok("paid".to_owned()),
    ///     _ => Ok("not paid".to_owned()),
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    ///
    /// # Cancel safety
    /// As [`ask`](Self::ask).
    pub async fn ask_form(&self, name: &str, message: &str, schema: Value) -> Result<FormAnswer, ToolError> {
        let question = Question::Form { message: message.to_owned(), schema };
        let mut answers = self.ask(Questions::from([(name.to_owned(), question)])).await?;
        match answers.remove(name) {
            Some(Answer::Form(answer)) => Ok(answer),
            _ => Err(nobody_to_ask()),
        }
    }

    /// Where the runner writes down what the call used.
    #[must_use]
    pub fn usage(&self) -> &Usage {
        &self.0.usage
    }
}

impl fmt::Debug for ToolContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolContext")
            .field("caller", self.caller())
            .field("call", self.call())
            .field("depth", &self.depth())
            .finish_non_exhaustive()
    }
}

/// Set once, when the caller gives up. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct CancelFlag(Option<Arc<AtomicBool>>);

impl CancelFlag {
    /// A flag that can be set. The default one cannot, and costs nothing.
    #[must_use]
    pub fn armed() -> Self {
        Self(Some(Arc::default()))
    }

    /// Sets it.
    pub fn set(&self) {
        if let Some(flag) = &self.0 {
            flag.store(true, Ordering::Release);
        }
    }

    /// Whether it was set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.as_ref().is_some_and(|flag| flag.load(Ordering::Acquire))
    }
}

/// What stands between a call's code and the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Isolation {
    /// The runner's own sandbox, or nothing for native code.
    #[default]
    InProcess,
    /// A process of its own beside that.
    Process,
}

impl Isolation {
    /// The name in results and settings: `in-process` or `process`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::InProcess => "in-process",
            Self::Process => "process",
        }
    }
}

/// What a call used, written by the runner and read when the reply is made, after failures too.
#[derive(Debug, Default)]
pub struct Usage {
    in_own_process: AtomicBool,
    operations: AtomicU64,
    peak_bytes: AtomicU64,
    host_calls: AtomicU64,
}

impl Usage {
    /// Sets the interpreter steps made so far.
    pub fn set_operations(&self, operations: u64) {
        self.operations.store(operations, Ordering::Relaxed);
    }

    /// Sets the most bytes held at any instant so far.
    pub fn set_peak_bytes(&self, bytes: u64) {
        self.peak_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Says where the code runs.
    pub fn set_isolation(&self, isolation: Isolation) {
        self.in_own_process.store(isolation == Isolation::Process, Ordering::Relaxed);
    }

    /// Where the code runs.
    #[must_use]
    pub fn isolation(&self) -> Isolation {
        if self.in_own_process.load(Ordering::Relaxed) { Isolation::Process } else { Isolation::InProcess }
    }

    /// Counts one host function call and gives the number so far.
    pub fn count_host_call(&self) -> u64 {
        self.host_calls.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Interpreter steps.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }

    /// The most bytes held at any instant; 0 where the runner cannot tell.
    #[must_use]
    pub fn peak_bytes(&self) -> u64 {
        self.peak_bytes.load(Ordering::Relaxed)
    }

    /// Host functions called.
    #[must_use]
    pub fn host_calls(&self) -> u64 {
        self.host_calls.load(Ordering::Relaxed)
    }
}
