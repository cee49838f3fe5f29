//! The moments of a run that a contract is asked about: what the road and the agent's gates call when there is one.

use std::sync::{Arc, Mutex, PoisonError, atomic::AtomicUsize, atomic::Ordering};

use serde_json::{Value, json};
use toolbay_api::{
    HookPoint, Message, ModelRequest, ModelResponse, ToolError, ToolName, ToolOutput,
    hook::{AfterAgentRun, AgentShutdown, AgentStartup},
};

use super::{
    Denial, Moment, Settled, Voter,
    voter::{
        Question, Sheet, last_input, messages_of, refusal, response_of, response_target, result_of, result_target,
        text_of, with_input,
    },
};
use crate::{
    audit::Decision,
    catalog::{HookEntry, ToolEntry},
    events::Origin,
    gates::{Gate, Stop},
    redact::Redactor,
    road::Trip,
    run::Run,
};

/// What became of a moment.
struct Outcome {
    settled: Settled,
    /// The name of the hook that denied.
    by: Option<Arc<str>>,
    /// Whether the hook that denied wants the whole run to end.
    ends_the_run: bool,
    decisions: Vec<Decision>,
}

/// What becomes of a tool call before it is made.
pub(crate) enum Passed {
    Go(Value),
    Refused(ToolError),
    Stopped(Stop),
}

impl Run {
    /// Leads the beginning of an agent's run past the contract, if there is one.
    pub async fn agent_startup(&self) -> Gate<()> {
        if self.composition().is_none() {
            return Gate::Go(());
        }
        let tools: Vec<ToolName> = self.tools().iter().map(|tool| tool.definition.name.clone()).collect();
        let moment = Moment::AgentStartup { tools: tools.iter().map(ToString::to_string).collect() };
        let sheet = self.sheet(0, HookPoint::BeforeAgentRun, Question::Startup(AgentStartup { tools }));
        self.settle(sheet, moment).await.gate(|_| Some(()))
    }

    /// Tells the contract, if there is one, that an agent's run has ended.
    pub async fn agent_shutdown(&self, completed: bool) {
        if self.composition().is_none() {
            return;
        }
        let reason = if completed { "completed" } else { "error" };
        let question = Question::Shutdown(AgentShutdown { reason: reason.to_owned() });
        self.settle(self.sheet(0, HookPoint::AfterAgentRun, question), Moment::AgentShutdown { reason }).await;
    }

    pub(crate) async fn contract_input(&self, messages: Vec<Message>) -> Gate<Vec<Message>> {
        let moment = Moment::Input { content: json!(last_input(&messages).unwrap_or_default()), role: "user" };
        let sheet = self.sheet(0, HookPoint::BeforeAgentRun, Question::Input(messages.clone()));
        self.settle(sheet, moment).await.gate(|target| Some(with_input(messages, &target)))
    }

    pub(crate) async fn contract_output(&self, end: AfterAgentRun) -> Gate<String> {
        // There is no answer to give out: the contract is told of the end alone.
        if end.text.is_empty() {
            return Gate::Go(String::new());
        }
        let moment = Moment::Output { content: json!(end.text) };
        let sheet = self.sheet(end.steps, HookPoint::AfterAgentRun, Question::Output(end));
        self.settle(sheet, moment).await.gate(|target| Some(text_of(target.get("content"))))
    }

    pub(crate) async fn contract_pre_model_call(&self, step: u32, request: ModelRequest) -> Gate<ModelRequest> {
        let messages = request.messages.iter().map(|message| json!(message)).collect();
        let moment = Moment::PreModelCall { model: self.model().to_owned(), messages };
        let sheet = self.sheet(step, HookPoint::BeforeModelCall, Question::PreModel(request.clone()));
        let outcome = self.settle(sheet, moment).await;
        outcome.gate(|target| Some(ModelRequest { messages: messages_of(&target)?, ..request }))
    }

    pub(crate) async fn contract_post_model_call(&self, step: u32, response: ModelResponse) -> Gate<ModelResponse> {
        let moment = Moment::PostModelCall { model: self.model().to_owned(), response: response_target(&response) };
        let sheet = self.sheet(step, HookPoint::AfterModelCall, Question::PostModel(response.clone()));
        self.settle(sheet, moment).await.gate(|target| response_of(&response, &target))
    }

    /// Step 2 of the road under a contract.
    pub(crate) async fn contract_pre_tool_call(
        &self,
        entry: &ToolEntry,
        trip: &Trip,
        arguments: Value,
        decisions: &mut Vec<Decision>,
    ) -> Passed {
        let definition = Arc::clone(&entry.info.definition);
        let (tool, served_by) = (definition.name.clone(), entry.info.served_by.clone());
        let moment = Moment::PreToolCall { call: trip.call.to_string(), tool: tool.to_string(), arguments };
        let question = Question::PreTool { tool, definition, served_by };
        let outcome = self.settle(self.sheet_of(trip, HookPoint::BeforeToolCall, question), moment).await;
        decisions.extend(outcome.decisions);
        match outcome.settled.denied {
            None => Passed::Go(outcome.settled.target),
            Some(denial) if outcome.ends_the_run => {
                Passed::Stopped(Stop { by: name_of(outcome.by), reason: denial.reason })
            }
            Some(denial) => Passed::Refused(refusal(&denial, outcome.by.as_deref())),
        }
    }

    /// Step 9 of the road under a contract. `arguments` are those that the tool got.
    pub(crate) async fn contract_post_tool_call(
        &self,
        entry: &ToolEntry,
        trip: &Trip,
        arguments: Value,
        result: Result<ToolOutput, ToolError>,
        decisions: &mut Vec<Decision>,
    ) -> (Result<ToolOutput, ToolError>, Option<Stop>) {
        let (tool, served_by) = (entry.info.definition.name.clone(), entry.info.served_by.clone());
        let moment = Moment::PostToolCall {
            call: trip.call.to_string(),
            tool: tool.to_string(),
            arguments,
            value: result_target(&result),
            is_error: result.is_err(),
        };
        let question = Question::PostTool { tool, served_by, result: result.clone() };
        let outcome = self.settle(self.sheet_of(trip, HookPoint::AfterToolCall, question), moment).await;
        decisions.extend(outcome.decisions);
        let Some(denial) = outcome.settled.denied else {
            return (result_of(&result, outcome.settled.target), None);
        };
        let error = refusal(&denial, outcome.by.as_deref());
        let stop = outcome.ends_the_run.then(|| Stop { by: name_of(outcome.by), reason: denial.reason });
        (Err(error), stop)
    }

    async fn settle(&self, sheet: Sheet, moment: Moment) -> Outcome {
        let sheet = Arc::new(sheet);
        let hooks = self.hooks_at(&moment);
        let seat = |(place, entry): (usize, &Arc<HookEntry>)| Voter {
            entry: Arc::clone(entry),
            place,
            sheet: Arc::clone(&sheet),
        };
        let voters = hooks.iter().enumerate().map(seat).collect();
        let settled = match self.composition() {
            Some(composition) => composition.compose(moment, voters).await,
            None => no_contract(),
        };
        let deciding = settled.denied.as_ref().and_then(|denial| denial.by);
        let stopped = sheet.stopped.load(Ordering::Relaxed);
        Outcome {
            by: deciding.and_then(|place| hooks.get(place)).map(|entry| Arc::clone(&entry.registration.name)),
            ends_the_run: deciding.is_some_and(|place| place + 1 == stopped),
            decisions: std::mem::take(&mut *sheet.decisions.lock().unwrap_or_else(PoisonError::into_inner)),
            settled,
        }
    }

    /// The hooks that stand at a moment, in their order; a contract has no reverse.
    fn hooks_at(&self, moment: &Moment) -> Vec<Arc<HookEntry>> {
        let view = self.view();
        let at = |point| view.hooks(point).to_vec();
        let ends =
            |stands: fn(&HookEntry) -> bool| view.all_hooks().iter().filter(|hook| stands(hook)).cloned().collect();
        match moment {
            Moment::AgentStartup { .. } => ends(|hook| hook.registration.lifecycle.startup),
            Moment::AgentShutdown { .. } => ends(|hook| hook.registration.lifecycle.shutdown),
            Moment::Input { .. } => at(HookPoint::BeforeAgentRun),
            Moment::PreModelCall { .. } => at(HookPoint::BeforeModelCall),
            Moment::PostModelCall { .. } => at(HookPoint::AfterModelCall),
            Moment::PreToolCall { .. } => at(HookPoint::BeforeToolCall),
            Moment::PostToolCall { .. } => at(HookPoint::AfterToolCall),
            Moment::Output { .. } => at(HookPoint::AfterAgentRun),
        }
    }

    fn sheet(&self, step: u32, point: HookPoint, question: Question) -> Sheet {
        Sheet {
            run: self.clone(),
            step,
            point,
            call: None,
            depth: 0,
            of_error_hook: false,
            redactor: Redactor::default(),
            origin: Origin::CALL,
            question,
            decisions: Mutex::default(),
            stopped: AtomicUsize::new(0),
        }
    }

    fn sheet_of(&self, trip: &Trip, point: HookPoint, question: Question) -> Sheet {
        Sheet {
            call: Some(trip.call.clone()),
            depth: trip.depth,
            of_error_hook: trip.of_error_hook,
            redactor: trip.redactor.clone(),
            origin: trip.origin,
            ..self.sheet(trip.step, point, question)
        }
    }
}

impl Outcome {
    /// The moment as a gate: what the target stands for, or a stop.
    fn gate<T>(self, read: impl FnOnce(Value) -> Option<T>) -> Gate<T> {
        match self.settled.denied {
            Some(denial) => Gate::Stop(Stop { by: name_of(self.by), reason: denial.reason }),
            None => match read(self.settled.target) {
                Some(value) => Gate::Go(value),
                // An approval can rewrite what it is shown into something that stands for nothing.
                None => Gate::Stop(Stop { by: name_of(None), reason: "host_error:transform_invalid".to_owned() }),
            },
        }
    }
}

fn name_of(hook: Option<Arc<str>>) -> Arc<str> {
    hook.unwrap_or_else(|| "hook-contract".into())
}

/// Nothing asks without a contract; if it did, it would get a no.
fn no_contract() -> Settled {
    let denial = Denial { reason: "host_error:no_interceptor".into(), message: None, by: None, is_failure: true };
    Settled { target: Value::Null, denied: Some(denial) }
}
