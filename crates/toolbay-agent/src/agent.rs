//! The agent: a model, a tenant's session and what a run may use. A run is a thin driver over the
//! [`Stepper`].

mod ask;
mod code;
mod drive;
mod retry;
mod stream;
mod suspend;

use std::{sync::Arc, time::Duration};

use futures::FutureExt;
use serde::Serialize;
use toolbay_api::{
    Message, RunId,
    hook::{AfterAgentRun, ToolMatcher},
    message::Tokens,
};
use toolbay_runtime::{ApprovalPolicy, Gate, Run, RunEvent, Session, Stop};
use tracing::Instrument;

use stream::Outlet;
pub use stream::{RunStream, StreamOptions};
pub use suspend::{Decisions, ResumeError, SuspendedRun};

use crate::{
    bounds::{Bounds, RunOutcome},
    budget::{DayLimits, Exhausted, Price, Prices},
    code::CodeMode,
    model::{Model, ModelError},
    record,
    results::Results,
    search::ToolSearch,
    stepper::{RunEnd, Stepper, StepperConfig, StepperError},
    trace,
};

pub use retry::ToolRetries;

/// What an agent's runs have in common.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// The agent's name, for telemetry.
    pub name: Option<String>,
    /// The system text, the bounds and what the model is told beside the conversation.
    pub stepper: StepperConfig,
    /// Tools that run alone: no other call of the step runs beside one of them. Tools that are annotated as
    /// `destructive` always do.
    pub exclusive: Option<ToolMatcher>,
    /// How often a request is made again after a failure that can pass, such as a rate limit.
    pub model_retries: u32,
    /// The longest wait before such a request; a provider that asks for more ends the attempts.
    pub max_retry_wait: Duration,
    /// Whether tool calls that failed are made again, and how; `None`: they are not.
    pub tool_retries: Option<ToolRetries>,
    /// Makes the waits the same each time, for tests. Without it they differ, so that those who failed together do not come
    /// back together.
    pub retry_seed: Option<u64>,
    /// Cuts results that are too long for the model; its [tool](crate::results::results) reads the whole.
    pub results: Option<Results>,
    /// Where a tenant has many tools: a search in their place. Without the [tools](crate::search::tools) that it takes the
    /// model is given all.
    pub search: Option<ToolSearch>,
    /// Has the model write programs that call tools, in the place of calling them one by one. Without its
    /// [tool](crate::code::code_mode) the model is given the tools themselves.
    pub code: Option<CodeMode>,
    /// What models cost.
    pub prices: Prices,
    /// What a tenant may spend in a day, over all runs that know the same ledger.
    pub day: Option<DayLimits>,
    /// Which calls need approval, beside what the session and hooks say. Without it: those of destructive tools.
    pub approval: ApprovalPolicy,
    /// The longest JSON form of a run that is suspended. A longer one goes on without the calls that need approval.
    pub max_suspended_bytes: usize,
}

impl Default for AgentConfig {
    fn default() -> Self {
        Self {
            name: None,
            stepper: StepperConfig::default(),
            exclusive: None,
            model_retries: 2,
            max_retry_wait: Duration::from_secs(30),
            tool_retries: None,
            retry_seed: None,
            results: None,
            search: None,
            code: None,
            prices: Prices::default(),
            day: None,
            approval: ApprovalPolicy::destructive(),
            max_suspended_bytes: 4_000_000,
        }
    }
}

/// A model that works with a tenant's tools.
///
/// Each run sees the tools as they are when it begins. Agents are cheap to clone, and runs do not disturb each other.
///
/// ```
/// # #[derive(serde::Deserialize, schemars::JsonSchema)] struct Add { a: i64, b: i64 }
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use toolbay_agent::{Agent, ScriptedModel};
/// use toolbay_api::{ToolContext, tool};
/// use toolbay_runtime::Toolbay;
///
/// let add = tool("add", "Adds two numbers", async |args: Add, _: ToolContext| Ok(args.a + args.b));
/// let session = Toolbay::builder().tool(add).build()?.session("acme")?;
/// let model = ScriptedModel::new().calls("add", serde_json::json!({"a": 1, "b": 2})).says("It is 3.");
/// let reply = Agent::new(model, session).system("Use your tools.").run("What is 1 + 2?").await?;
/// assert_eq!(reply.text, "It is 3.");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Agent {
    model: Arc<dyn Model>,
    session: Session,
    config: AgentConfig,
}

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AgentReply {
    /// The run, as logs and events know it.
    pub run: RunId,
    /// The answer, as hooks let it through.
    pub text: String,
    /// How the run ended.
    pub outcome: RunOutcome,
    /// Requests to the model.
    pub steps: u32,
    /// Tool calls made.
    pub tool_calls: u32,
    /// Tokens used.
    pub tokens: Tokens,
    /// What they cost, in millionths of the price table's currency, where it knows the model.
    pub cost_micros: Option<u64>,
    /// What ran out, if something did; the run may have gone on without it.
    pub exhausted: Option<Exhausted>,
    /// The whole conversation, to go on from with [`Agent::run_messages`]. Every tool call in it has its reply; where the run
    /// is suspended, those that wait have one that says that they were not finished.
    pub messages: Vec<Message>,
    /// Where the outcome is [`RunOutcome::Suspended`]: the run as it waits, to go on with by [`Agent::resume`].
    pub suspended: Option<Box<SuspendedRun>>,
}

/// A run that came to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// The conversation is empty.
    #[error("there is nothing to answer: give at least one message")]
    NoMessages,
    /// Cost is bounded, and the price table does not know the model.
    #[error("the price of the model {model:?} is not known, and the run's cost is bounded: add it to the price table")]
    NoPrice {
        /// The model.
        model: String,
    },
    /// The model could not be asked.
    #[error("{error}")]
    Model {
        /// Why.
        #[source]
        error: ModelError,
        /// What the run had come to by then.
        partial: Box<AgentReply>,
    },
    /// A run that was suspended cannot go on.
    #[error("{0}")]
    Resume(#[from] ResumeError),
    /// A fault of the loop itself.
    #[error("the agent loop failed: {0}")]
    Internal(#[from] StepperError),
}

impl Agent {
    /// An agent with the default bounds and no system text.
    pub fn new(model: impl Model + 'static, session: Session) -> Self {
        Self { model: Arc::new(model), session, config: AgentConfig::default() }
    }

    /// Sets the system text: instructions that go before every request.
    #[must_use]
    pub fn system(mut self, text: impl Into<String>) -> Self {
        self.config.stepper.system = Some(text.into());
        self
    }

    /// Sets what a run may use.
    #[must_use]
    pub fn bounds(mut self, bounds: Bounds) -> Self {
        self.config.stepper.bounds = bounds;
        self
    }

    /// Sets everything at once.
    #[must_use]
    pub fn config(mut self, config: AgentConfig) -> Self {
        self.config = config;
        self
    }

    /// Answers `prompt`. As [`run_messages`](Self::run_messages) with a conversation of this one message.
    ///
    /// # Errors
    /// [`AgentError::Model`] where the model could not be asked.
    ///
    /// # Cancel safety
    /// As [`run_messages`](Self::run_messages).
    pub async fn run(&self, prompt: impl Into<String>) -> Result<AgentReply, AgentError> {
        self.run_messages(vec![Message::user(prompt)]).await
    }

    /// Goes on with a conversation.
    ///
    /// The hook points of the run fire in this order: `before_agent_run`; for each step `before_model_call`,
    /// `after_model_call`, `on_reasoning_step` where the model showed reasoning, and for each tool call what the road
    /// of a call says; at the end `after_agent_run`, once, however the run ended, unless `before_agent_run` stopped it or it is
    /// suspended: then it fires at the end of what [`resume`](Self::resume) goes on with.
    ///
    /// A tool that fails is a reply to the model, and a bound or a hook's stop is an [`outcome`](AgentReply::outcome):
    /// neither is an error.
    ///
    /// # Errors
    /// [`AgentError::NoMessages`]; [`AgentError::NoPrice`]; [`AgentError::Model`] where the model could not be asked and no error hook had
    /// feedback for it.
    ///
    /// # Cancel safety
    /// Dropping the future drops the model's request and all tool calls in flight; nothing goes on in the background.
    /// `after_agent_run` does not fire then, since a dropped future cannot wait for it.
    pub async fn run_messages(&self, messages: Vec<Message>) -> Result<AgentReply, AgentError> {
        self.silent(messages).reply().await
    }

    /// The run from its beginning, whose events go to `outlet`.
    async fn run_from(&self, messages: Vec<Message>, outlet: Arc<Outlet>) -> Result<AgentReply, AgentError> {
        if messages.is_empty() {
            return Err(AgentError::NoMessages);
        }
        self.check_price()?;
        let run = outlet.watching(self.session()).run();
        let span = trace::invoke_agent(self, &run, &messages);
        // Boxed: the future holds a step, its hooks and its calls, and would weigh down whoever awaits it.
        let ended = self.run_in(run.clone(), messages, outlet).boxed().instrument(span.clone()).await;
        trace::run_ended(&span, &run, ended.as_ref());
        ended
    }

    /// The session with what the agent wants approved.
    fn session(&self) -> Session {
        self.session.clone().with_approval(self.config.approval.clone())
    }

    fn check_price(&self) -> Result<(), AgentError> {
        let day = self.config.day.as_ref().and_then(|day| day.budget.max_cost_micros);
        if self.config.stepper.bounds.max_cost_micros.or(day).is_some() && self.price().is_none() {
            return Err(AgentError::NoPrice { model: self.model.id().to_owned() });
        }
        Ok(())
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.config.name.as_deref()
    }

    pub(crate) fn model(&self) -> &dyn Model {
        &*self.model
    }

    pub(crate) fn system_text(&self) -> Option<&str> {
        self.config.stepper.system.as_deref()
    }

    /// What the model's tokens cost.
    fn price(&self) -> Option<Price> {
        self.config.stepper.price.or_else(|| self.config.prices.of(self.model.id()))
    }

    fn stepper_config(&self) -> StepperConfig {
        StepperConfig { price: self.price(), ..self.config.stepper.clone() }
    }

    async fn run_in(&self, run: Run, messages: Vec<Message>, outlet: Arc<Outlet>) -> Result<AgentReply, AgentError> {
        run.observe(RunEvent::RunStarted { tenant: run.tenant().clone() });
        record::begin(&run, self.model.id(), &self.stepper_config(), &messages);
        run.name_model(self.model.id());
        let begin = async {
            match run.agent_startup().await {
                Gate::Go(()) => run.before_agent_run(messages.clone()).await,
                Gate::Stop(stop) => Gate::Stop(stop),
            }
        };
        match begin.await {
            Gate::Go(messages) => self.finish(run.clone(), drive::Drive::new(self, run, messages, outlet)).await,
            Gate::Stop(stop) => {
                let mut stepper = Stepper::new(self.stepper_config(), messages, Vec::new());
                if let Some(tape) = record::tape_of(&run) {
                    stepper = stepper.with_tape(tape);
                }
                stepper.stop(drive::stopped(stop));
                self.end(run, stepper, false, None, &outlet).await
            }
        }
    }

    /// Drives a run to its end, or to where it waits.
    async fn finish(&self, run: Run, mut drive: drive::Drive<'_>) -> Result<AgentReply, AgentError> {
        let failure = drive.finish().await.err();
        let Some(suspended) = drive.suspended() else {
            let outlet = Arc::clone(&drive.outlet);
            return self.end(run, drive.into_stepper(), true, failure, &outlet).await;
        };
        let approvals = suspended.pending.iter().map(|pending| pending.id).collect();
        run.observe(RunEvent::RunSuspended { approvals, expires_at: suspended.expires_at });
        // The run is not over, though its conversation so far is shown as if it were.
        let mut reply = AgentReply::of(&run, drive.into_stepper().unheard());
        reply.text.clear();
        (reply.outcome, reply.suspended) = (RunOutcome::Suspended, Some(Box::new(suspended)));
        Ok(reply)
    }

    /// What is done at the end of a run.
    async fn end(
        &self,
        run: Run,
        stepper: Stepper,
        begun: bool,
        failure: Option<drive::Failure>,
        outlet: &Outlet,
    ) -> Result<AgentReply, AgentError> {
        let mut reply = AgentReply::of(&run, stepper);
        if begun {
            match run.after_agent_run(reply.as_hooks_see_it()).await {
                Gate::Go(text) => reply.give_out(text),
                Gate::Stop(stop) => reply.withhold(stop),
            }
        }
        outlet.release(reply.outcome.is_answer().then_some(reply.text.as_str()));
        run.agent_shutdown(reply.outcome.is_completed()).await;
        // Every call has its reply in the conversation now.
        run.forget_outcomes().await;
        record::finish(&run, &reply);
        run.observe(RunEvent::RunFinished {
            outcome: reply.outcome.to_string(),
            text: reply.text.clone(),
            steps: reply.steps,
            tool_calls: reply.tool_calls,
        });
        match failure {
            None => Ok(reply),
            Some(drive::Failure::Model(error)) => Err(AgentError::Model { error, partial: Box::new(reply) }),
            Some(drive::Failure::Loop(error)) => Err(AgentError::Internal(error)),
        }
    }
}

impl AgentReply {
    fn of(run: &Run, stepper: Stepper) -> Self {
        let end = stepper.end().cloned();
        let RunEnd { outcome, text } = end.unwrap_or(RunEnd { outcome: RunOutcome::ModelFailed, text: String::new() });
        Self {
            run: run.id(),
            text,
            outcome,
            steps: stepper.steps(),
            tool_calls: stepper.tool_calls(),
            tokens: stepper.tokens(),
            cost_micros: stepper.cost_micros(),
            exhausted: stepper.exhausted().cloned(),
            messages: stepper.into_messages(),
            suspended: None,
        }
    }

    fn as_hooks_see_it(&self) -> AfterAgentRun {
        AfterAgentRun {
            text: self.text.clone(),
            outcome: self.outcome.to_string(),
            steps: self.steps,
            tool_calls: self.tool_calls,
        }
    }

    /// Takes over the text that hooks left, also into the conversation, which would give the other one away.
    fn give_out(&mut self, text: String) {
        if text == self.text {
            return;
        }
        match self.messages.last_mut() {
            Some(Message::Assistant { text: said, tool_calls, .. }) if tool_calls.is_empty() => said.clone_from(&text),
            _ => self.messages.push(Message::Assistant { text: text.clone(), reasoning: None, tool_calls: Vec::new() }),
        }
        self.text = text;
    }

    fn withhold(&mut self, stop: Stop) {
        let last = self.messages.last();
        if matches!(last, Some(Message::Assistant { tool_calls, .. }) if tool_calls.is_empty()) {
            self.messages.pop();
        }
        self.text.clear();
        self.outcome = drive::stopped(stop);
    }
}
