//! Asking the hooks: order, time limits, failure policy and the record of who decided what.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt, future::BoxFuture};
use toolbay_api::Hook;
use toolbay_api::{
    CallId, ErrorKind, HookContext, HookPoint, Host, Message, ModelRequest, ModelResponse, ToolError,
    hook::{
        AfterAgentRun, AfterAgentRunOutcome, AfterModelCall, AfterModelCallOutcome, BeforeAgentRun,
        BeforeAgentRunOutcome, BeforeModelCall, BeforeModelCallOutcome, FailurePolicy, HookHosts, HookResult, OnError,
        OnErrorOutcome, ReasoningStep, ReasoningStepOutcome,
    },
};

use crate::{
    audit::Decision,
    call_host::CallHost,
    catalog::{HookEntry, Owner},
    events::Origin,
    guarded::{Failure, guarded, now},
    observe::RunEvent,
    redact::Redactor,
    road::Trip,
    run::Run,
};

/// The longest time that a hook may have, whatever its registration says.
const MAX_HOOK_TIME: Duration = Duration::from_secs(30);
/// Bytes of a decision that are recorded.
const MAX_DECISION: usize = 300;

/// What the hooks at a point agreed on: to go on with this value, or that one of them ends the run.
#[derive(Debug, Clone, PartialEq)]
pub enum Gate<T> {
    /// Go on, with the value as the hooks left it.
    Go(T),
    /// End the run.
    Stop(Stop),
}

/// Who ended a run and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// The hook.
    pub by: Arc<str>,
    /// Its reason.
    pub reason: String,
}

/// Where and when hooks are asked.
pub(crate) struct Asking<'a> {
    pub(crate) run: &'a Run,
    pub(crate) step: u32,
    pub(crate) point: HookPoint,
    pub(crate) call: Option<&'a CallId>,
    pub(crate) depth: u32,
    /// Whether an error hook made the call that is asked about.
    pub(crate) of_error_hook: bool,
    /// Secrets that the hooks, and the call that they are asked about, have read.
    pub(crate) redactor: Redactor,
    /// The events that the call follows from.
    pub(crate) origin: Origin,
}

/// A hook that did not decide, and what its policy makes of that.
pub(crate) enum Undecided {
    /// As if the hook were not there.
    PassedOver,
    /// A no. The error has the sentence for the model and the cause for the operator.
    Refused(ToolError),
}

/// What one hook is asked with.
pub(crate) struct Sitting<'a> {
    step: u32,
    hosts: LazyHost<'a>,
}

impl Sitting<'_> {
    /// The hook's context.
    pub(crate) fn context(&self) -> HookContext<'_> {
        let LazyHost { asking, deadline, .. } = &self.hosts;
        HookContext {
            caller: asking.run.caller(),
            step: self.step,
            deadline: *deadline,
            hosts: &self.hosts,
            interception: None,
        }
    }

    /// When the hook must have answered.
    pub(crate) fn deadline(&self) -> Instant {
        self.hosts.deadline
    }
}

/// Makes a hook's host when the hook asks for it.
struct LazyHost<'a> {
    asking: &'a Asking<'a>,
    owner: &'a Arc<Owner>,
    deadline: Instant,
}

impl HookHosts for LazyHost<'_> {
    fn host(&self) -> Arc<dyn Host> {
        let call = self.asking.call.cloned().unwrap_or_else(|| CallId::new("hook"));
        let Asking { run, point, depth, of_error_hook, origin, .. } = *self.asking;
        let redactor = self.asking.redactor.clone();
        let host = CallHost::new(run, Arc::clone(self.owner), call, depth, self.deadline, redactor)
            .within(tracing::Span::current());
        let host = host.of_error_hook(of_error_hook || point == HookPoint::OnError);
        Arc::new(host.telling_from(origin))
    }
}

impl<'a> Asking<'a> {
    fn new(run: &'a Run, step: u32, point: HookPoint) -> Self {
        let redactor = Redactor::default();
        Self { run, step, point, call: None, depth: 0, of_error_hook: false, redactor, origin: Origin::CALL }
    }

    pub(crate) fn of_trip(run: &'a Run, trip: &'a Trip, point: HookPoint) -> Self {
        let Trip { step, call, depth, of_error_hook, redactor, origin, .. } = trip;
        Self {
            run,
            step: *step,
            point,
            call: Some(call),
            depth: *depth,
            of_error_hook: *of_error_hook,
            redactor: redactor.clone(),
            origin: *origin,
        }
    }

    /// Makes ready what `entry` is asked with.
    pub(crate) fn sit<'b>(&'b self, entry: &'b HookEntry) -> Sitting<'b> {
        let deadline = now() + entry.registration.timeout.min(MAX_HOOK_TIME);
        Sitting { step: self.step, hosts: LazyHost { asking: self, owner: &entry.owner, deadline } }
    }

    /// What became of asking `entry`.
    ///
    /// # Errors
    /// [`Undecided`], recorded already.
    pub(crate) fn settle<T>(
        &self,
        entry: &HookEntry,
        decisions: &mut Vec<Decision>,
        answer: Result<HookResult<T>, Failure>,
    ) -> Result<T, Undecided> {
        let cause = match answer {
            Ok(Ok(outcome)) => return Ok(outcome),
            Ok(Err(error)) => error.message,
            Err(Failure::TimedOut) => format!("no answer within {:?}", entry.registration.timeout.min(MAX_HOOK_TIME)),
            Err(Failure::Panicked(message)) => format!("panicked: {message}"),
        };
        Err(self.undecided(entry, decisions, self.redactor.text(&cause).into_owned()))
    }

    /// What the failure of a hook means here.
    fn undecided(&self, entry: &HookEntry, decisions: &mut Vec<Decision>, cause: String) -> Undecided {
        let name = &entry.registration.name;
        tracing::warn!(target: "toolbay::hooks", hook = %name, point = %self.point, cause, "a hook failed");
        self.record(entry, decisions, &format!("failed: {cause}"));
        match entry.registration.failure_policy(self.point) {
            FailurePolicy::Open => Undecided::PassedOver,
            FailurePolicy::Closed => Undecided::Refused(
                ToolError::new(
                    ErrorKind::HookFailed,
                    format!("the hook {name} could not decide, which counts as a no; tell the operator"),
                )
                .with_source(cause),
            ),
        }
    }

    /// Keeps a decision. Plain consent goes to an observer only: an audit lists what changed the course of things.
    pub(crate) fn record(&self, entry: &HookEntry, decisions: &mut Vec<Decision>, decision: &str) {
        let decision = &*self.redactor.text(decision);
        let end = decision.floor_char_boundary(MAX_DECISION);
        let decision = decision.get(..end).unwrap_or_default();
        if self.run.is_observed() {
            self.run.observe(RunEvent::HookDecided {
                point: self.point,
                hook: entry.registration.name.to_string(),
                call: self.call.cloned(),
                decision: self.run.text_for_the_record(decision),
            });
        }
        if !matches!(decision, "continue" | "keep" | "observe") {
            decisions.push(Decision {
                point: self.point,
                hook: Arc::clone(&entry.registration.name),
                decision: decision.to_owned(),
            });
        }
    }
}

/// What one hook's outcome does to the value that passes a gate.
enum Passage<T> {
    Unchanged,
    Changed(T),
    Stopped(String),
}

/// Calls a point's method with the value as it is now. Boxed: these points lie beside model calls, not tool calls.
type Ask<T> = for<'a> fn(&'a dyn Hook, &'a T, &'a HookContext<'a>) -> BoxFuture<'a, HookResult<Passage<T>>>;

/// Leads `value` past the hooks of a point.
async fn pass<T: Sync>(asking: Asking<'_>, in_reverse: bool, mut value: T, ask: Ask<T>) -> Gate<T> {
    let hooks = asking.run.view().hooks(asking.point);
    let mut decisions = Vec::new();
    for index in 0..hooks.len() {
        let index = if in_reverse { hooks.len() - 1 - index } else { index };
        let Some(entry) = hooks.get(index) else { continue };
        let answer = {
            let sitting = asking.sit(entry);
            guarded(sitting.deadline(), ask(&*entry.registration.hook, &value, &sitting.context())).await
        };
        let answer = asking.settle(entry, &mut decisions, answer);
        let by = || Arc::clone(&entry.registration.name);
        match answer {
            Ok(Passage::Unchanged) => asking.record(entry, &mut decisions, "continue"),
            Ok(Passage::Changed(changed)) => {
                asking.record(entry, &mut decisions, "rewrite");
                value = changed;
            }
            Ok(Passage::Stopped(reason)) => {
                asking.record(entry, &mut decisions, &format!("stop: {reason}"));
                return Gate::Stop(Stop { by: by(), reason }.redacted(&asking.redactor));
            }
            Err(Undecided::PassedOver) => {}
            Err(Undecided::Refused(error)) => {
                return Gate::Stop(Stop { by: by(), reason: error.message.into_owned() });
            }
        }
    }
    Gate::Go(value)
}

/// The points of an agent run that lie outside of tool calls, for the agent loop.
impl Run {
    /// Leads the conversation past the hooks before the run.
    pub async fn before_agent_run(&self, messages: Vec<Message>) -> Gate<Vec<Message>> {
        if self.composition().is_some() {
            return self.contract_input(messages).await;
        }
        let asking = Asking::new(self, 0, HookPoint::BeforeAgentRun);
        let input = BeforeAgentRun { messages };
        let gate = pass(asking, false, input, |hook, input, cx| {
            async move {
                Ok(match hook.before_agent_run(input, cx).await? {
                    BeforeAgentRunOutcome::Continue => Passage::Unchanged,
                    BeforeAgentRunOutcome::Rewrite(messages) => Passage::Changed(BeforeAgentRun { messages }),
                    BeforeAgentRunOutcome::Stop(reason) => Passage::Stopped(reason),
                })
            }
            .boxed()
        });
        gate.await.map(|input| input.messages)
    }

    /// Leads the run's answer past the hooks after it, in reverse order.
    pub async fn after_agent_run(&self, end: AfterAgentRun) -> Gate<String> {
        if self.composition().is_some() {
            return self.contract_output(end).await;
        }
        let asking = Asking::new(self, end.steps, HookPoint::AfterAgentRun);
        let gate = pass(asking, true, end, |hook, end, cx| {
            async move {
                Ok(match hook.after_agent_run(end, cx).await? {
                    AfterAgentRunOutcome::Continue => Passage::Unchanged,
                    AfterAgentRunOutcome::Rewrite(text) => Passage::Changed(AfterAgentRun { text, ..end.clone() }),
                    AfterAgentRunOutcome::Stop(reason) => Passage::Stopped(reason),
                })
            }
            .boxed()
        });
        gate.await.map(|end| end.text)
    }

    /// Leads a request past the hooks before the model call.
    pub async fn before_model_call(&self, step: u32, request: ModelRequest) -> Gate<ModelRequest> {
        if self.composition().is_some() {
            return self.contract_pre_model_call(step, request).await;
        }
        let asking = Asking::new(self, step, HookPoint::BeforeModelCall);
        let gate = pass(asking, false, BeforeModelCall { request }, |hook, input, cx| {
            async move {
                Ok(match hook.before_model_call(input, cx).await? {
                    BeforeModelCallOutcome::Continue => Passage::Unchanged,
                    BeforeModelCallOutcome::Rewrite(request) => Passage::Changed(BeforeModelCall { request: *request }),
                    BeforeModelCallOutcome::Stop(reason) => Passage::Stopped(reason),
                })
            }
            .boxed()
        });
        gate.await.map(|input| input.request)
    }

    /// Leads a model's answer past the hooks after the model call, in reverse order.
    pub async fn after_model_call(&self, step: u32, response: ModelResponse) -> Gate<ModelResponse> {
        if self.composition().is_some() {
            return self.contract_post_model_call(step, response).await;
        }
        let asking = Asking::new(self, step, HookPoint::AfterModelCall);
        let gate = pass(asking, true, AfterModelCall { response }, |hook, input, cx| {
            async move {
                Ok(match hook.after_model_call(input, cx).await? {
                    AfterModelCallOutcome::Continue => Passage::Unchanged,
                    AfterModelCallOutcome::Rewrite(response) => {
                        Passage::Changed(AfterModelCall { response: *response })
                    }
                    AfterModelCallOutcome::Stop(reason) => Passage::Stopped(reason),
                })
            }
            .boxed()
        });
        gate.await.map(|input| input.response)
    }

    /// Shows the model's reasoning to the hooks.
    pub async fn on_reasoning_step(&self, step: u32, text: &str) -> Gate<()> {
        let asking = Asking::new(self, step, HookPoint::OnReasoningStep);
        let input = ReasoningStep { step, text: text.to_owned() };
        let gate = pass(asking, false, input, |hook, input, cx| {
            async move {
                Ok(match hook.on_reasoning_step(input, cx).await? {
                    ReasoningStepOutcome::Continue => Passage::Unchanged,
                    ReasoningStepOutcome::Stop(reason) => Passage::Stopped(reason),
                })
            }
            .boxed()
        });
        gate.await.map(|_| ())
    }

    /// Shows a model's failure to the error hooks and gives what they want the model to be told.
    pub async fn on_model_error(&self, step: u32, error: &ToolError) -> Option<String> {
        let input = OnError { origin: toolbay_api::hook::ErrorOrigin::Model, error: error.clone() };
        let asking = Asking::new(self, step, HookPoint::OnError);
        let feedback = self.on_error(&asking, &input, &mut Vec::new()).await;
        feedback.map(|text| asking.redactor.text(&text).into_owned())
    }

    /// Shows a call's error to the error hooks.
    pub(crate) async fn on_error_in(
        &self,
        trip: &Trip,
        input: &OnError,
        decisions: &mut Vec<Decision>,
    ) -> Option<String> {
        self.on_error(&Asking::of_trip(self, trip, HookPoint::OnError), input, decisions).await
    }

    /// Shows an error to the error hooks. One that fails is passed over, and its failure is shown to none.
    async fn on_error(&self, asking: &Asking<'_>, input: &OnError, decisions: &mut Vec<Decision>) -> Option<String> {
        let mut feedback: Option<String> = None;
        for entry in self.view().hooks(HookPoint::OnError) {
            let sitting = asking.sit(entry);
            let answer = guarded(sitting.deadline(), entry.registration.hook.on_error(input, &sitting.context())).await;
            match asking.settle(entry, decisions, answer) {
                Ok(OnErrorOutcome::Observe) => asking.record(entry, decisions, "observe"),
                Ok(OnErrorOutcome::RetryWithFeedback(text)) => {
                    asking.record(entry, decisions, &format!("retry with feedback: {text}"));
                    feedback = Some(feedback.map_or_else(|| text.clone(), |before| format!("{before}\n{text}")));
                }
                Err(_) => {}
            }
        }
        feedback
    }
}

impl Stop {
    /// Without the secrets that `redactor` knows.
    pub(crate) fn redacted(self, redactor: &Redactor) -> Self {
        Self { reason: redactor.text(&self.reason).into_owned(), ..self }
    }
}

impl<T> Gate<T> {
    /// Converts the value of a gate that was passed.
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Gate<U> {
        match self {
            Self::Go(value) => Gate::Go(convert(value)),
            Self::Stop(stop) => Gate::Stop(stop),
        }
    }
}
