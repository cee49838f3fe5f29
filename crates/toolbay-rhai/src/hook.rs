//! Hooks whose code is a script function.
//!
//! A script hook can only tighten: go on, deny, stop, ask. What loosens or changes needs a grant that the manifest asks
//! for and the host gives; without it the hook fails, and a gate that fails is a no.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use rhai::{Dynamic, Map as ScriptMap};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use toolbay_api::{
    ErrorKind, Hook, HookContext, HookError, HookPoint, HookRegistration, LoadError, PermissionSet, ToolError,
    ToolOutput,
    hook::{
        AfterAgentRun, AfterAgentRunOutcome, AfterModelCall, AfterModelCallOutcome, AfterToolCall,
        AfterToolCallOutcome, BeforeAgentRun, BeforeAgentRunOutcome, BeforeModelCall, BeforeModelCallOutcome,
        BeforeToolCall, BeforeToolCallOutcome, ErrorOrigin, HookResult, OnError, OnErrorOutcome, ReasoningStep,
        ReasoningStepOutcome, ToolMatcher,
    },
    manifest::HookDeclaration,
};

use crate::{
    call::Call,
    check::EntryPoint,
    plugin::{Core, Job, deadline_ms},
};

/// The registration of the hook that the plugin declares at `point`.
///
/// # Errors
/// `Config` for a glob that is none.
pub(crate) fn registration(
    core: &Arc<Core>,
    point: HookPoint,
    declaration: &HookDeclaration,
    entry: EntryPoint,
    host_grants: &PermissionSet,
) -> Result<HookRegistration, LoadError> {
    let asked = &core.manifest.permissions;
    let granted = |action: &str| asked.covers(action) && host_grants.covers(action);
    let hook = RhaiHook {
        core: Arc::clone(core),
        point,
        entry: Arc::new(entry),
        grants: LOOSENING.iter().map(|(_, grant)| *grant).filter(|grant| granted(grant)).collect(),
    };
    let mut registration = HookRegistration::new(core.manifest.name.as_str(), [point], hook);
    if let Some(priority) = declaration.priority {
        registration.priority = priority;
    }
    if let Some(timeout) = declaration.timeout_ms {
        registration.timeout = Duration::from_millis(timeout);
    }
    registration.on_failure = declaration.on_failure;
    if let Some(globs) = &declaration.tools {
        registration.tools = ToolMatcher::new(globs).map_err(|problem| {
            LoadError::new(ErrorKind::Config, format!("hooks.{point}.tools: {problem}")).in_file(core.script.entry())
        })?;
    }
    Ok(registration)
}

/// The answers that do more than tighten, and the grant that each needs.
const LOOSENING: &[(&str, &str)] = &[
    ("rewrite", "hook:rewrite"),
    ("answer", "hook:answer"),
    ("replace", "hook:replace"),
    ("feedback", "hook:rewrite"),
];

struct RhaiHook {
    core: Arc<Core>,
    point: HookPoint,
    entry: Arc<EntryPoint>,
    grants: Vec<&'static str>,
}

/// What a script hook answered, legal at its point and granted.
enum Answered {
    Continue,
    Key(&'static str, Value),
}

impl RhaiHook {
    /// Asks the script, and takes `()` or one of the keys `legal` here.
    async fn ask(&self, input: Value, legal: &[&'static str], cx: &HookContext<'_>) -> HookResult<Answered> {
        let call = Call::new(Arc::clone(&self.core.limits), cx.deadline, cx.host(), None);
        let context = context(cx);
        let job = Job { input, context: Box::new(move |call| context.map(call)) };
        let answer = self.core.run(call, &self.entry, job).await.map_err(|error| self.failed(&error))?;
        self.read(answer, legal)
    }

    fn read(&self, answer: Value, legal: &[&'static str]) -> HookResult<Answered> {
        let (key, value) = match answer {
            Value::Null => return Ok(Answered::Continue),
            Value::String(word) if word == "continue" => return Ok(Answered::Continue),
            Value::Object(entries) if entries.len() == 1 => match entries.into_iter().next() {
                Some(entry) => entry,
                None => return Ok(Answered::Continue),
            },
            _ => return Err(self.illegal(legal)),
        };
        let Some(key) = legal.iter().find(|legal| **legal == key) else { return Err(self.illegal(legal)) };
        let grant = LOOSENING.iter().find(|(loosening, _)| loosening == key).map(|(_, grant)| *grant);
        if let Some(grant) = grant
            && !self.grants.contains(&grant)
        {
            return Err(HookError::new(format!(
                "the hook {} of {} answered `{key}` without the grant {grant:?}: its manifest must ask for it and the \
                 host must give it",
                self.point, self.core.manifest.name
            )));
        }
        Ok(Answered::Key(key, value))
    }

    fn illegal(&self, legal: &[&'static str]) -> HookError {
        let keys = legal.iter().map(|key| format!("#{{{key}: ...}}")).collect::<Vec<_>>().join(", ");
        HookError::new(format!(
            "the hook {} of {} gave no legal answer: return () or \"continue\", or one of {keys}",
            self.point, self.core.manifest.name
        ))
    }

    fn failed(&self, error: &ToolError) -> HookError {
        let detail = error.operator_detail().map(|detail| format!(": {detail}")).unwrap_or_default();
        HookError::new(format!("the hook {} of {}: {error}{detail}", self.point, self.core.manifest.name))
    }

    /// The text that goes with `key`.
    fn text(&self, key: &str, value: Value) -> HookResult<String> {
        match value {
            Value::String(text) => Ok(text),
            _ => Err(HookError::new(format!(
                "the hook {} of {} answered `{key}` without a text: write #{{{key}: \"...\"}}",
                self.point, self.core.manifest.name
            ))),
        }
    }

    /// The value that goes with `key`, in the form that the point asks for.
    fn typed<T: DeserializeOwned>(&self, key: &str, value: Value) -> HookResult<T> {
        serde_json::from_value(value).map_err(|error| {
            HookError::new(format!(
                "the hook {} of {} answered `{key}` with a value that does not fit there: {error}",
                self.point, self.core.manifest.name
            ))
        })
    }
}

/// Continue or stop, and one more key that [`RhaiHook::ask`] let through.
macro_rules! outcome {
    ($hook:expr, $answered:expr, $outcome:ident { $otherwise:ident $(, $key:literal => $make:expr)* $(,)? }) => {
        match $answered {
            Answered::Continue => Ok($outcome::$otherwise),
            Answered::Key("stop", value) => Ok($outcome::Stop($hook.text("stop", value)?)),
            $(Answered::Key($key, value) => $make(value),)*
            Answered::Key(_, _) => Err($hook.illegal(&["stop"])),
        }
    };
}

#[async_trait]
impl Hook for RhaiHook {
    async fn before_agent_run(
        &self,
        input: &BeforeAgentRun,
        cx: &HookContext<'_>,
    ) -> HookResult<BeforeAgentRunOutcome> {
        let answered = self.ask(json!({ "messages": input.messages }), &["stop", "rewrite"], cx).await?;
        outcome!(self, answered, BeforeAgentRunOutcome { Continue,
            "rewrite" => |value| Ok(BeforeAgentRunOutcome::Rewrite(self.typed("rewrite", value)?)),
        })
    }

    async fn after_agent_run(&self, input: &AfterAgentRun, cx: &HookContext<'_>) -> HookResult<AfterAgentRunOutcome> {
        let input = json!({
            "text": input.text, "outcome": input.outcome, "steps": input.steps, "tool_calls": input.tool_calls,
        });
        let answered = self.ask(input, &["stop", "rewrite"], cx).await?;
        outcome!(self, answered, AfterAgentRunOutcome { Continue,
            "rewrite" => |value| Ok(AfterAgentRunOutcome::Rewrite(self.text("rewrite", value)?)),
        })
    }

    async fn before_model_call(
        &self,
        input: &BeforeModelCall,
        cx: &HookContext<'_>,
    ) -> HookResult<BeforeModelCallOutcome> {
        let answered = self.ask(json!({ "request": input.request }), &["stop", "rewrite"], cx).await?;
        outcome!(self, answered, BeforeModelCallOutcome { Continue,
            "rewrite" => |value| Ok(BeforeModelCallOutcome::Rewrite(Box::new(self.typed("rewrite", value)?))),
        })
    }

    async fn after_model_call(
        &self,
        input: &AfterModelCall,
        cx: &HookContext<'_>,
    ) -> HookResult<AfterModelCallOutcome> {
        let answered = self.ask(json!({ "response": input.response }), &["stop", "rewrite"], cx).await?;
        outcome!(self, answered, AfterModelCallOutcome { Continue,
            "rewrite" => |value| Ok(AfterModelCallOutcome::Rewrite(Box::new(self.typed("rewrite", value)?))),
        })
    }

    async fn before_tool_call(
        &self,
        input: &BeforeToolCall,
        cx: &HookContext<'_>,
    ) -> HookResult<BeforeToolCallOutcome> {
        let shown =
            json!({ "call": input.call, "call_id": input.call, "tool": input.tool, "arguments": input.arguments });
        let answered = self.ask(shown, &["deny", "stop", "ask", "rewrite", "answer"], cx).await?;
        outcome!(self, answered, BeforeToolCallOutcome { Continue,
            "deny" => |value| Ok(BeforeToolCallOutcome::Deny(self.text("deny", value)?)),
            "ask" => |value| Ok(BeforeToolCallOutcome::Ask(self.text("ask", value)?)),
            "rewrite" => |value| Ok(BeforeToolCallOutcome::Rewrite(value)),
            "answer" => |value| Ok(BeforeToolCallOutcome::Answer(ToolOutput::new(value))),
        })
    }

    async fn after_tool_call(&self, input: &AfterToolCall, cx: &HookContext<'_>) -> HookResult<AfterToolCallOutcome> {
        let mut shown = Map::new();
        shown.insert("call".into(), json!(input.call));
        shown.insert("call_id".into(), json!(input.call));
        shown.insert("tool".into(), json!(input.tool));
        shown.insert("success".into(), Value::Bool(input.result.is_ok()));
        let (data, error) = match &input.result {
            Ok(output) => (output.data.clone(), Value::Null),
            Err(error) => (Value::Null, shown_error(error)),
        };
        shown.insert("data".into(), data);
        shown.insert("error".into(), error);
        let answered = self.ask(Value::Object(shown), &["stop", "replace"], cx).await?;
        outcome!(self, answered, AfterToolCallOutcome { Keep,
            "replace" => |value| Ok(AfterToolCallOutcome::Replace(Ok(ToolOutput::new(value)))),
        })
    }

    async fn on_reasoning_step(&self, input: &ReasoningStep, cx: &HookContext<'_>) -> HookResult<ReasoningStepOutcome> {
        let answered = self.ask(json!({ "step": input.step, "text": input.text }), &["stop"], cx).await?;
        outcome!(self, answered, ReasoningStepOutcome { Continue })
    }

    async fn on_error(&self, input: &OnError, cx: &HookContext<'_>) -> HookResult<OnErrorOutcome> {
        let (origin, tool) = match &input.origin {
            ErrorOrigin::Tool { tool, .. } => ("tool", Value::from(tool.as_str())),
            ErrorOrigin::Model => ("model", Value::Null),
        };
        let shown = json!({ "origin": origin, "tool": tool, "error": shown_error(&input.error) });
        match self.ask(shown, &["feedback"], cx).await? {
            Answered::Continue => Ok(OnErrorOutcome::Observe),
            Answered::Key(key, value) => Ok(OnErrorOutcome::RetryWithFeedback(self.text(key, value)?)),
        }
    }
}

fn shown_error(error: &ToolError) -> Value {
    json!({ "kind": error.kind.name(), "message": error.message, "details": error.details, "retryable": error.retryable })
}

/// What a hook's second argument is made of.
struct Context {
    tenant: String,
    user: Option<Arc<str>>,
    conversation: Option<Arc<str>>,
    run: String,
    step: u32,
}

fn context(cx: &HookContext<'_>) -> Context {
    Context {
        tenant: cx.caller.tenant.as_str().to_owned(),
        user: cx.caller.user.clone(),
        conversation: cx.caller.conversation.clone(),
        run: cx.caller.run.to_string(),
        step: cx.step,
    }
}

impl Context {
    fn map(&self, call: &Call) -> Dynamic {
        let text = |text: Option<&Arc<str>>| text.map_or(Dynamic::UNIT, |text| (&**text).into());
        let mut map = ScriptMap::new();
        map.insert("tenant".into(), self.tenant.as_str().into());
        map.insert("user".into(), text(self.user.as_ref()));
        map.insert("conversation".into(), text(self.conversation.as_ref()));
        map.insert("run".into(), self.run.as_str().into());
        map.insert("step".into(), i64::from(self.step).into());
        map.insert("deadline_ms".into(), deadline_ms(call));
        Dynamic::from_map(map)
    }
}
