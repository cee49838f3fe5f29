//! A run as a stream of its events. There is one driver: [`Agent::run`] is this stream without events, read to its end.
//!
//! The stream polls the run itself, so a run goes on while somebody reads, and nothing is spawned that could be left behind.
//! Events wait in a queue with a bound; the run waits for room in it before each request to the model, before each piece of
//! a reply and before each tool call.

use std::{
    collections::VecDeque,
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures::{FutureExt, Stream, StreamExt, future::BoxFuture};
use serde_json::Value;
use tokio::sync::Notify;
use toolbay_api::{
    Answers, CallId, ErrorKind, HookPoint, LogLevel, Message, ModelRequest, ModelResponse, Peer, Progress,
    QuestionKind, Questions, RunId, ToolError, async_trait,
};
use toolbay_runtime::{Observer, RunEvent, Session};

use super::{Agent, AgentError, AgentReply, Decisions, SuspendedRun, drive::Drive};
use crate::{
    model::ModelError,
    parts::{Parts, Sink},
};

/// Events that wait, unless it is said otherwise.
const CAPACITY: usize = 64;

/// How a run is streamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamOptions {
    /// Whether the model's replies come piece by piece. Without it they come whole, by [`RunEvent::ModelReplied`].
    pub deltas: bool,
    /// Events that wait to be read before the run waits. Calls that are under way then add what they have to tell.
    pub capacity: usize,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self { deltas: true, capacity: CAPACITY }
    }
}

impl Agent {
    /// Answers `prompt` as a stream of events, with the model's reply piece by piece.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use futures::StreamExt;
    /// use toolbay_agent::{Agent, ScriptedModel};
    /// use toolbay_runtime::{RunEvent, Toolbay};
    ///
    /// let agent = Agent::new(ScriptedModel::new().says("Good morning."), Toolbay::builder().build()?.session("acme")?);
    /// let (mut stream, mut said) = (agent.stream("Hello"), String::new());
    /// while let Some(event) = stream.next().await {
    ///     if let RunEvent::TextDelta { text, .. } = event {
    ///         said.push_str(&text);
    ///     }
    /// }
    /// assert_eq!(said, stream.reply().await?.text);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn stream(&self, prompt: impl Into<String>) -> RunStream {
        self.stream_messages(vec![Message::user(prompt)], StreamOptions::default())
    }

    /// Goes on with a conversation, as [`run_messages`](Self::run_messages) does, as a stream of events.
    ///
    /// Hooks see whole messages before anything of them is given out that they could deny: where hooks stand after model
    /// calls, at reasoning steps or after the run, or a hook contract is in force, a reply comes in one piece when they let it
    /// pass, as they left it; the last one after those that stand after the run. Where there are none it comes as the model
    /// writes it.
    #[must_use]
    pub fn stream_messages(&self, messages: Vec<Message>, options: StreamOptions) -> RunStream {
        let (agent, outlet) = (self.clone(), Outlet::new(options));
        let there = Arc::clone(&outlet);
        RunStream::of(outlet, async move { agent.run_from(messages, there).await }.boxed())
    }

    /// Goes on with a run that was suspended, as [`resume`](Self::resume) does, as a stream of events.
    #[must_use]
    pub fn resume_stream(&self, suspended: SuspendedRun, decisions: Decisions, options: StreamOptions) -> RunStream {
        let (agent, outlet) = (self.clone(), Outlet::new(options));
        let there = Arc::clone(&outlet);
        RunStream::of(outlet, async move { agent.resume_from(suspended, decisions, there).await }.boxed())
    }

    /// The same stream without events.
    pub(super) fn silent(&self, messages: Vec<Message>) -> RunStream {
        let (agent, outlet) = (self.clone(), Outlet::silent());
        let there = Arc::clone(&outlet);
        RunStream::of(outlet, async move { agent.run_from(messages, there).await }.boxed())
    }

    pub(super) fn silent_resume(&self, suspended: SuspendedRun, decisions: Decisions) -> RunStream {
        let (agent, outlet) = (self.clone(), Outlet::silent());
        let there = Arc::clone(&outlet);
        RunStream::of(outlet, async move { agent.resume_from(suspended, decisions, there).await }.boxed())
    }
}

/// A run as it happens. It goes on while it is read; dropping it drops the model's request and all tool calls in flight.
///
/// [`reply`](Self::reply) gives what the run came to.
pub struct RunStream {
    outlet: Arc<Outlet>,
    run: Option<BoxFuture<'static, Result<AgentReply, AgentError>>>,
    ended: Option<Result<AgentReply, AgentError>>,
}

impl RunStream {
    fn of(outlet: Arc<Outlet>, run: BoxFuture<'static, Result<AgentReply, AgentError>>) -> Self {
        Self { outlet, run: Some(run), ended: None }
    }

    /// What the run came to. Events that were not read are passed over.
    ///
    /// # Errors
    /// As [`Agent::run_messages`] or [`Agent::resume`].
    ///
    /// # Cancel safety
    /// Dropping the future drops the run.
    pub async fn reply(mut self) -> Result<AgentReply, AgentError> {
        loop {
            if let Some(ended) = self.ended.take() {
                return ended;
            }
            // The end of the stream leaves the reply, so this ends.
            self.next().await;
        }
    }

    /// Events that wait to be read.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.outlet.lock().queue.len()
    }
}

impl Stream for RunStream {
    type Item = RunEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<RunEvent>> {
        loop {
            if let Some(event) = self.outlet.pop() {
                return Poll::Ready(Some(event));
            }
            let Some(run) = &mut self.run else { return Poll::Ready(None) };
            match run.poll_unpin(cx) {
                Poll::Ready(ended) => (self.run, self.ended) = (None, Some(ended)),
                // What it told before it had to wait.
                Poll::Pending if self.outlet.is_empty() => return Poll::Pending,
                Poll::Pending => {}
            }
        }
    }
}

impl fmt::Debug for RunStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunStream").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

/// Where a run's events wait.
pub(crate) struct Outlet {
    /// Whether anybody reads.
    open: bool,
    deltas: bool,
    capacity: usize,
    // std's Mutex, not tokio's: nothing is awaited while it is held.
    state: Mutex<State>,
    read: Notify,
}

#[derive(Default)]
struct State {
    queue: VecDeque<RunEvent>,
    /// The last reply, until the hooks after the run have seen it.
    held: Option<(ModelResponse, u32)>,
}

impl Outlet {
    pub(crate) fn new(options: StreamOptions) -> Arc<Self> {
        let StreamOptions { deltas, capacity } = options;
        let (state, read) = (Mutex::default(), Notify::new());
        Arc::new(Self { open: true, deltas, capacity: capacity.max(1), state, read })
    }

    pub(crate) fn silent() -> Arc<Self> {
        let (state, read) = (Mutex::default(), Notify::new());
        Arc::new(Self { open: false, deltas: false, capacity: 1, state, read })
    }

    /// `session` with what happens in its runs told here.
    pub(super) fn watching(self: &Arc<Self>, session: Session) -> Session {
        if self.open { session.also_observed_by(Arc::clone(self) as Arc<dyn Observer>) } else { session }
    }

    /// What a tool call tells of its progress.
    pub(super) fn peer(self: &Arc<Self>, call: &str) -> Option<Arc<dyn Peer>> {
        let peer = || Caller { outlet: Arc::clone(self), call: CallId::new(call) };
        self.open.then(|| Arc::new(peer()) as Arc<dyn Peer>)
    }

    /// Waits until there is room for one event more.
    ///
    /// # Cancel safety
    /// Dropped, it takes nothing.
    pub(super) async fn has_room(&self) {
        if !self.open {
            return;
        }
        loop {
            let read = self.read.notified();
            if self.lock().queue.len() < self.capacity {
                return;
            }
            read.await;
        }
    }

    fn tell(&self, event: RunEvent) {
        if self.open {
            self.lock().queue.push_back(event);
        }
    }

    fn pop(&self) -> Option<RunEvent> {
        let event = self.lock().queue.pop_front();
        if event.is_some() {
            self.read.notify_waiters();
        }
        event
    }

    fn is_empty(&self) -> bool {
        self.lock().queue.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a whole reply out: its pieces, where they were not given out as they came, and that it came.
    fn give_out(&self, step: u32, response: ModelResponse, in_pieces: bool) {
        if in_pieces && self.deltas {
            let ModelResponse { text, reasoning, tool_calls, .. } = &response;
            if let Some(text) = reasoning.clone().filter(|text| !text.is_empty()) {
                self.tell(RunEvent::ReasoningDelta { step, text });
            }
            if !text.is_empty() {
                self.tell(RunEvent::TextDelta { step, text: text.clone() });
            }
            for (index, call) in tool_calls.iter().enumerate() {
                let (id, name) = (Some(call.id.clone()), Some(call.name.clone()));
                self.tell(RunEvent::ToolCallDelta { step, index, id, name, arguments: call.arguments.to_string() });
            }
        }
        let ModelResponse { text, tool_calls, tokens, reasoning, .. } = response;
        if let Some(text) = reasoning.filter(|text| !self.deltas && !text.is_empty()) {
            self.tell(RunEvent::Reasoning { step, text });
        }
        self.tell(RunEvent::ModelReplied { step, text, tool_calls, tokens });
    }

    /// Gives out what was held back, with the text that the hooks after the run left; nothing where they left none.
    pub(super) fn release(&self, text: Option<&str>) {
        let held = self.lock().held.take();
        if let (Some((response, step)), Some(text)) = (held, text) {
            self.give_out(step, ModelResponse { text: text.to_owned(), ..response }, true);
        }
    }
}

#[async_trait]
impl Sink for Outlet {
    async fn put(&self, event: RunEvent) {
        self.has_room().await;
        self.tell(event);
    }
}

impl Observer for Outlet {
    fn observe(&self, _: RunId, event: &RunEvent) {
        match event {
            // The driver gives these out itself, when the hooks have seen them.
            RunEvent::ModelReplied { .. } | RunEvent::Reasoning { .. } => {}
            event => self.tell(event.clone()),
        }
    }

    fn room(&self) -> Option<BoxFuture<'_, ()>> {
        let is_full = self.lock().queue.len() >= self.capacity;
        is_full.then(|| self.has_room().boxed())
    }
}

/// A tool call's caller, as far as it can be told of progress.
struct Caller {
    outlet: Arc<Outlet>,
    call: CallId,
}

#[async_trait]
impl Peer for Caller {
    fn progress(&self, progress: Progress) {
        let Progress { done, total, message } = progress;
        let mut state = self.outlet.lock();
        let told = RunEvent::ToolProgress { call: self.call.clone(), done, total, message };
        // A tool decides how often it tells: only the newest is kept.
        let is_old = |event: &&mut RunEvent| matches!(event, RunEvent::ToolProgress { call, .. } if *call == self.call);
        match state.queue.iter_mut().find(is_old) {
            Some(old) => *old = told,
            None => state.queue.push_back(told),
        }
    }

    fn message(&self, _: LogLevel, _: Option<&str>, _: Value) {}

    fn answers(&self, _: QuestionKind) -> bool {
        false
    }

    async fn ask(&self, _: Questions) -> Result<Answers, ToolError> {
        let message = "this tool has to ask something, and nobody can be asked in this run";
        Err(ToolError::new(ErrorKind::InputRequired, message))
    }
}

impl Drive<'_> {
    /// The pieces of the next reply, as they may be given out: none before the hooks that could deny it have seen it whole.
    pub(super) fn parts(&self, step: u32) -> Parts {
        let points = [HookPoint::AfterModelCall, HookPoint::OnReasoningStep, HookPoint::AfterAgentRun];
        let is_live = self.outlet.deltas && !points.iter().any(|point| self.run.has_hooks_at(*point));
        if is_live { Parts::to(Arc::clone(&self.outlet) as Arc<dyn Sink>, step) } else { Parts::none() }
    }

    /// Asks the model once.
    pub(super) async fn ask_once(&self, request: ModelRequest) -> Result<ModelResponse, ModelError> {
        match self.parts.are_wanted() {
            true => self.agent.model.respond_in_parts(request, &self.parts).await,
            false => self.agent.model.respond(request).await,
        }
    }

    /// Gives a reply out that the hooks after the model call have let pass.
    pub(super) fn replied(&self, step: u32, response: &ModelResponse) {
        if !self.outlet.open {
            return;
        }
        let is_last = response.tool_calls.is_empty();
        if is_last && self.run.has_hooks_at(HookPoint::AfterAgentRun) {
            self.outlet.lock().held = Some((response.clone(), step));
        } else {
            self.outlet.give_out(step, response.clone(), !self.parts.are_wanted());
        }
    }
}
