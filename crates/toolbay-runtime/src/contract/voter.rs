//! One hook as a contract asks it: from the contract's JSON to the hook's own input, and from its outcome to a vote.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Map, Value, json};
use toolbay_api::{
    CallId, ErrorKind, HookPoint, Message, ModelRequest, ModelResponse, ToolCall, ToolDefinition, ToolError, ToolName,
    ToolOutput,
    hook::{
        AfterAgentRun, AfterAgentRunOutcome, AfterModelCall, AfterModelCallOutcome, AfterToolCall,
        AfterToolCallOutcome, AgentShutdown, AgentStartup, AgentStartupOutcome, BeforeAgentRun, BeforeAgentRunOutcome,
        BeforeModelCall, BeforeModelCallOutcome, BeforeToolCall, BeforeToolCallOutcome, HookContext, HookResult,
    },
    interception::{Interception, Remarks},
    message::FinishReason,
};

use crate::{
    audit::Decision,
    catalog::HookEntry,
    events::Origin,
    gates::Asking,
    guarded::{Failure, guarded},
    redact::Redactor,
    run::Run,
};

/// What a hook says to a contract.
#[derive(Debug, Clone, PartialEq)]
pub enum Vote {
    /// Go on.
    Allow(Remarks),
    /// Do not.
    Deny {
        /// Why.
        reason: String,
        /// Whether an approval can lift it.
        liftable: bool,
        /// What it said beside.
        remarks: Remarks,
    },
    /// Go on with this target instead.
    Rewrite {
        /// The whole target.
        target: Value,
        /// What it said beside.
        remarks: Remarks,
    },
    /// An outcome that the contract does not know.
    Illegal,
    /// It could not decide.
    Failed,
    /// It did not decide in its time.
    Late,
}

/// One hook at one moment.
pub struct Voter {
    pub(super) entry: Arc<HookEntry>,
    pub(super) place: usize,
    pub(super) sheet: Arc<Sheet>,
}

/// What the voters of a moment share.
pub(super) struct Sheet {
    pub(super) run: Run,
    pub(super) step: u32,
    pub(super) point: HookPoint,
    pub(super) call: Option<CallId>,
    pub(super) depth: u32,
    pub(super) of_error_hook: bool,
    pub(super) redactor: Redactor,
    pub(super) origin: Origin,
    pub(super) question: Question,
    pub(super) decisions: Mutex<Vec<Decision>>,
    /// The place of the hook that wanted the whole run to end, plus one; 0 where none did.
    pub(super) stopped: AtomicUsize,
}

/// What is asked, in the hooks' own types. The contract's target is laid over it.
pub(super) enum Question {
    Startup(AgentStartup),
    Input(Vec<Message>),
    PreModel(ModelRequest),
    PostModel(ModelResponse),
    PreTool { tool: ToolName, definition: Arc<ToolDefinition>, served_by: Option<ToolName> },
    PostTool { tool: ToolName, served_by: Option<ToolName>, result: Result<ToolOutput, ToolError> },
    Output(AfterAgentRun),
    Shutdown(AgentShutdown),
}

/// A hook's outcome, whatever its point.
enum Said {
    Continue,
    Deny(String),
    Ask(String),
    Stop(String),
    Target(Value),
    Illegal,
}

impl Voter {
    /// The hook's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.entry.registration.name
    }

    /// Asks the hook. `context` is what the contract tells of the moment; its `target` is what the hook is asked about.
    ///
    /// A hook that a call does not concern consents without being asked.
    ///
    /// # Cancel safety
    /// Dropping the future drops the hook's.
    pub async fn vote(&self, context: &Map<String, Value>) -> Vote {
        let sheet = &*self.sheet;
        if !self.is_concerned() {
            return Vote::Allow(Remarks::default());
        }
        let target = context.get("target").cloned().unwrap_or_default();
        let interception = Interception::new(context.clone());
        let asking = sheet.asking();
        let answer = {
            let sitting = asking.sit(&self.entry);
            let cx = HookContext { interception: Some(&interception), ..sitting.context() };
            guarded(sitting.deadline(), self.ask(target, &cx)).await
        };
        let mut decisions = Vec::new();
        let vote = match answer {
            Err(Failure::TimedOut) => {
                asking.record(&self.entry, &mut decisions, "failed: no answer in time");
                Vote::Late
            }
            Err(Failure::Panicked(cause)) => self.failed(&asking, &mut decisions, &format!("panicked: {cause}")),
            Ok(Err(error)) => self.failed(&asking, &mut decisions, &error.message),
            Ok(Ok(said)) => {
                let remarks = interception.take();
                if remarks.overfull { Vote::Illegal } else { self.cast(&asking, &mut decisions, said, remarks) }
            }
        };
        sheet.decisions.lock().unwrap_or_else(PoisonError::into_inner).append(&mut decisions);
        vote
    }

    fn is_concerned(&self) -> bool {
        let tools = &self.entry.registration.tools;
        match &self.sheet.question {
            Question::PreTool { tool, served_by, .. } | Question::PostTool { tool, served_by, .. } => {
                tools.matches(tool.as_str()) || served_by.as_ref().is_some_and(|own| tools.matches(own.as_str()))
            }
            _ => true,
        }
    }

    fn failed(&self, asking: &Asking<'_>, decisions: &mut Vec<Decision>, cause: &str) -> Vote {
        tracing::warn!(target: "toolbay::hooks", hook = self.name(), point = %asking.point, cause, "a hook failed");
        asking.record(&self.entry, decisions, &format!("failed: {cause}"));
        Vote::Failed
    }

    fn cast(&self, asking: &Asking<'_>, decisions: &mut Vec<Decision>, said: Said, remarks: Remarks) -> Vote {
        let mut note = |text: &str| asking.record(&self.entry, decisions, text);
        let clean = |reason: String| asking.redactor.text(&reason).into_owned();
        match said {
            Said::Continue => {
                note("continue");
                Vote::Allow(remarks)
            }
            Said::Deny(reason) => {
                note(&format!("deny: {reason}"));
                Vote::Deny { reason: clean(reason), liftable: false, remarks }
            }
            Said::Ask(reason) => {
                note(&format!("ask: {reason}"));
                Vote::Deny { reason: clean(reason), liftable: true, remarks }
            }
            Said::Stop(reason) => {
                note(&format!("stop: {reason}"));
                self.sheet.stopped.store(self.place + 1, Ordering::Relaxed);
                Vote::Deny { reason: clean(reason), liftable: false, remarks }
            }
            Said::Target(target) => {
                note("rewrite");
                Vote::Rewrite { target, remarks }
            }
            Said::Illegal => {
                note("failed: an outcome that the contract does not know");
                Vote::Illegal
            }
        }
    }

    async fn ask(&self, target: Value, cx: &HookContext<'_>) -> HookResult<Said> {
        let hook = &*self.entry.registration.hook;
        Ok(match &self.sheet.question {
            Question::Startup(input) => match hook.agent_startup(input, cx).await? {
                AgentStartupOutcome::Continue => Said::Continue,
                AgentStartupOutcome::Stop(reason) => Said::Stop(reason),
            },
            Question::Shutdown(input) => {
                hook.agent_shutdown(input, cx).await?;
                Said::Continue
            }
            Question::Input(base) => {
                let messages = with_input(base.clone(), &target);
                let input = BeforeAgentRun { messages };
                match hook.before_agent_run(&input, cx).await? {
                    BeforeAgentRunOutcome::Continue => Said::Continue,
                    BeforeAgentRunOutcome::Stop(reason) => Said::Stop(reason),
                    BeforeAgentRunOutcome::Rewrite(messages) => input_of_rewrite(&input.messages, &messages),
                }
            }
            Question::PreModel(base) => {
                let Some(messages) = messages_of(&target) else { return Ok(Said::Illegal) };
                let input = BeforeModelCall { request: ModelRequest { messages, ..base.clone() } };
                match hook.before_model_call(&input, cx).await? {
                    BeforeModelCallOutcome::Continue => Said::Continue,
                    BeforeModelCallOutcome::Stop(reason) => Said::Stop(reason),
                    BeforeModelCallOutcome::Rewrite(request) => {
                        let rest_is_kept =
                            ModelRequest { messages: base.messages.clone(), ..*request.clone() } == *base;
                        if rest_is_kept { Said::Target(json!(request.messages)) } else { Said::Illegal }
                    }
                }
            }
            Question::PostModel(base) => {
                let Some(response) = response_of(base, &target) else { return Ok(Said::Illegal) };
                match hook.after_model_call(&AfterModelCall { response }, cx).await? {
                    AfterModelCallOutcome::Continue => Said::Continue,
                    AfterModelCallOutcome::Stop(reason) => Said::Stop(reason),
                    AfterModelCallOutcome::Rewrite(response) if response.reasoning == base.reasoning => {
                        Said::Target(response_target(&response))
                    }
                    AfterModelCallOutcome::Rewrite(_) => Said::Illegal,
                }
            }
            Question::PreTool { tool, definition, .. } => {
                let (call, tool, definition) = (self.call(), tool.clone(), Arc::clone(definition));
                let input = BeforeToolCall { call, tool, arguments: target, definition };
                match hook.before_tool_call(&input, cx).await? {
                    BeforeToolCallOutcome::Continue => Said::Continue,
                    BeforeToolCallOutcome::Rewrite(arguments) => Said::Target(arguments),
                    BeforeToolCallOutcome::Deny(reason) => Said::Deny(reason),
                    BeforeToolCallOutcome::Ask(what) => Said::Ask(what),
                    BeforeToolCallOutcome::Stop(reason) => Said::Stop(reason),
                    BeforeToolCallOutcome::Answer(_) => Said::Illegal,
                }
            }
            Question::PostTool { tool, result, .. } => {
                let result = result_of(result, target);
                let failed = result.is_err();
                let input = AfterToolCall { call: self.call(), tool: tool.clone(), result };
                match hook.after_tool_call(&input, cx).await? {
                    AfterToolCallOutcome::Keep => Said::Continue,
                    AfterToolCallOutcome::Stop(reason) => Said::Stop(reason),
                    AfterToolCallOutcome::Replace(Ok(output)) if !failed => Said::Target(output.data),
                    // A failure stays one under the contract, and a result that becomes one is denied.
                    AfterToolCallOutcome::Replace(Ok(_)) => Said::Illegal,
                    AfterToolCallOutcome::Replace(Err(error)) => Said::Deny(error.message.into_owned()),
                }
            }
            Question::Output(base) => {
                let input = AfterAgentRun { text: text_of(target.get("content")), ..base.clone() };
                match hook.after_agent_run(&input, cx).await? {
                    AfterAgentRunOutcome::Continue => Said::Continue,
                    AfterAgentRunOutcome::Stop(reason) => Said::Stop(reason),
                    AfterAgentRunOutcome::Rewrite(text) => Said::Target(json!({ "content": text })),
                }
            }
        })
    }

    fn call(&self) -> CallId {
        self.sheet.call.clone().unwrap_or_else(|| CallId::new("hook"))
    }
}

impl fmt::Debug for Voter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Voter").field("name", &self.name()).field("point", &self.sheet.point).finish_non_exhaustive()
    }
}

impl Sheet {
    fn asking(&self) -> Asking<'_> {
        Asking {
            run: &self.run,
            step: self.step,
            point: self.point,
            call: self.call.as_ref(),
            depth: self.depth,
            of_error_hook: self.of_error_hook,
            redactor: self.redactor.clone(),
            origin: self.origin,
        }
    }
}

/// The user's last text, if the conversation ends with it.
pub(super) fn last_input(messages: &[Message]) -> Option<&str> {
    match messages.last() {
        Some(Message::User { text }) => Some(text),
        _ => None,
    }
}

/// The conversation with the input as the contract has it.
pub(super) fn with_input(mut messages: Vec<Message>, target: &Value) -> Vec<Message> {
    if let (Some(Message::User { text }), Some(content)) = (messages.last_mut(), target.get("content")) {
        *text = text_of(Some(content));
    }
    messages
}

/// A rewrite of the conversation is one of the input, or the contract has no words for it.
fn input_of_rewrite(before: &[Message], after: &[Message]) -> Said {
    match (before.split_last(), after.split_last()) {
        (Some((_, before)), Some((Message::User { text }, after))) if before == after => {
            Said::Target(json!({ "content": text, "role": "user" }))
        }
        _ => Said::Illegal,
    }
}

/// The conversation that a target stands for.
pub(super) fn messages_of(target: &Value) -> Option<Vec<Message>> {
    serde_json::from_value(target.clone()).ok()
}

/// A model's reply in the contract's words.
pub(super) fn response_target(response: &ModelResponse) -> Value {
    let calls = response.tool_calls.iter();
    let calls: Vec<_> = calls.map(|call| json!({ "id": call.id, "name": call.name, "args": call.arguments })).collect();
    let content = if response.text.is_empty() { Value::Null } else { json!(response.text) };
    json!({ "content": content, "tool_calls": calls, "finish_reason": response.finish })
}

/// The reply that a target stands for; what the contract does not know of is `base`'s.
pub(super) fn response_of(base: &ModelResponse, target: &Value) -> Option<ModelResponse> {
    let calls = target.get("tool_calls")?.as_array()?.iter().map(|call| {
        let text = |key: &str| call.get(key).and_then(Value::as_str).map(str::to_owned);
        Some(ToolCall { id: text("id")?, name: text("name")?, arguments: call.get("args")?.clone() })
    });
    let finish = serde_json::from_value(target.get("finish_reason")?.clone()).unwrap_or(FinishReason::Other);
    let text = text_of(target.get("content"));
    Some(ModelResponse { text, tool_calls: calls.collect::<Option<_>>()?, finish, ..base.clone() })
}

/// A tool's result in the contract's words.
pub(super) fn result_target(result: &Result<ToolOutput, ToolError>) -> Value {
    match result {
        Ok(output) => output.data.clone(),
        Err(error) => json!(error.message),
    }
}

/// The result that a target stands for.
pub(super) fn result_of(base: &Result<ToolOutput, ToolError>, target: Value) -> Result<ToolOutput, ToolError> {
    match base {
        Ok(_) => Ok(ToolOutput::new(target)),
        Err(error) if target == error.message.as_ref() => Err(error.clone()),
        Err(error) => {
            // Details and source would give away what the new sentence leaves out.
            Err(ToolError::new(error.kind, text_of(Some(&target))))
        }
    }
}

/// A refusal as the caller reads it.
pub(super) fn refusal(denial: &super::Denial, by: Option<&str>) -> ToolError {
    let said = denial.message.as_deref().unwrap_or(&denial.reason);
    let (kind, by) = if denial.is_failure { (ErrorKind::HookFailed, by) } else { (ErrorKind::DeniedByHook, by) };
    let by = by.unwrap_or("the run's hook contract");
    let reason = &denial.reason;
    let text = if said == reason { format!("{by}: {reason}") } else { format!("{by}: {said} ({reason})") };
    ToolError::new(kind, text)
}

pub(super) fn text_of(content: Option<&Value>) -> String {
    match content {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}
