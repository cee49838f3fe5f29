//! Hooks over the wire: each point's input and outcome as JSON, in both directions.
//!
//! The host reads an outcome as hostile: it must be one that is legal at its point, and what does more than tighten
//! needs the grant here too, whatever the worker let through.

use std::sync::Arc;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use toolbay_api::{
    CallId, Hook, HookContext, HookError, HookPoint, Message, ModelRequest, ModelResponse, ToolDefinition, ToolError,
    ToolName, ToolOutput,
    hook::{
        AfterAgentRun, AfterAgentRunOutcome, AfterModelCall, AfterModelCallOutcome, AfterToolCall,
        AfterToolCallOutcome, BeforeAgentRun, BeforeAgentRunOutcome, BeforeModelCall, BeforeModelCallOutcome,
        BeforeToolCall, BeforeToolCallOutcome, ErrorOrigin, HookResult, OnError, OnErrorOutcome, ReasoningStep,
        ReasoningStepOutcome,
    },
};

use crate::fault::Fault;

/// The grants that answers need which do more than tighten.
const LOOSENING: [(&str, &str); 4] =
    [("rewrite", "hook:rewrite"), ("answer", "hook:answer"), ("replace", "hook:replace"), ("feedback", "hook:rewrite")];

/// The grants of a hook, as the host knows them.
#[derive(Debug, Clone, Default)]
pub(crate) struct HookGrants(Vec<&'static str>);

impl HookGrants {
    /// Those of the loosening grants that `allows` says yes to.
    pub(crate) fn new(allows: impl Fn(&str) -> bool) -> Self {
        Self(LOOSENING.iter().map(|(_, grant)| *grant).filter(|grant| allows(grant)).collect())
    }

    fn check(&self, key: &str) -> HookResult<()> {
        match LOOSENING.iter().find(|(loosening, _)| *loosening == key) {
            Some((_, grant)) if !self.0.contains(grant) => Err(HookError::new(format!(
                "a hook answered `{key}` without the grant {grant:?}: its manifest must ask for it and the host must \
                 give it"
            ))),
            _ => Ok(()),
        }
    }
}

/// The input of [`HookPoint::BeforeToolCall`].
pub(crate) fn before_tool_call(input: &BeforeToolCall) -> Value {
    json!({ "call": input.call, "tool": input.tool, "arguments": input.arguments })
}

/// The input of [`HookPoint::AfterToolCall`].
pub(crate) fn after_tool_call(input: &AfterToolCall) -> Value {
    match &input.result {
        Ok(output) => json!({ "call": input.call, "tool": input.tool, "data": output.data }),
        Err(error) => json!({ "call": input.call, "tool": input.tool, "error": Fault::from(error) }),
    }
}

/// The input of [`HookPoint::OnError`].
pub(crate) fn on_error(input: &OnError) -> Value {
    let origin = match &input.origin {
        ErrorOrigin::Tool { call, tool } => json!({ "call": call, "tool": tool }),
        ErrorOrigin::Model => Value::Null,
    };
    json!({ "origin": origin, "error": Fault::from(&input.error) })
}

/// The input of a point whose type can be serialised as it is.
pub(crate) fn plain(input: &impl Serialize) -> Value {
    serde_json::to_value(input).unwrap_or_default()
}

/// Asks `hook`, in the worker, and gives its outcome as JSON: `null`, or an object with one key.
pub(crate) async fn ask(hook: &dyn Hook, point: HookPoint, input: Value, cx: &HookContext<'_>) -> HookResult<Value> {
    let mut fields = Fields::new(input)?;
    Ok(match point {
        HookPoint::BeforeAgentRun => {
            let messages: Vec<Message> = fields.take("messages")?;
            match hook.before_agent_run(&BeforeAgentRun { messages }, cx).await? {
                BeforeAgentRunOutcome::Continue => Value::Null,
                BeforeAgentRunOutcome::Rewrite(messages) => json!({ "rewrite": messages }),
                BeforeAgentRunOutcome::Stop(reason) => json!({ "stop": reason }),
            }
        }
        HookPoint::AfterAgentRun => {
            let input = AfterAgentRun {
                text: fields.take("text")?,
                outcome: fields.take("outcome")?,
                steps: fields.take("steps")?,
                tool_calls: fields.take("tool_calls")?,
            };
            match hook.after_agent_run(&input, cx).await? {
                AfterAgentRunOutcome::Continue => Value::Null,
                AfterAgentRunOutcome::Rewrite(text) => json!({ "rewrite": text }),
                AfterAgentRunOutcome::Stop(reason) => json!({ "stop": reason }),
            }
        }
        HookPoint::BeforeModelCall => {
            let request: ModelRequest = fields.take("request")?;
            match hook.before_model_call(&BeforeModelCall { request }, cx).await? {
                BeforeModelCallOutcome::Continue => Value::Null,
                BeforeModelCallOutcome::Rewrite(request) => json!({ "rewrite": request }),
                BeforeModelCallOutcome::Stop(reason) => json!({ "stop": reason }),
            }
        }
        HookPoint::AfterModelCall => {
            let response: ModelResponse = fields.take("response")?;
            match hook.after_model_call(&AfterModelCall { response }, cx).await? {
                AfterModelCallOutcome::Continue => Value::Null,
                AfterModelCallOutcome::Rewrite(response) => json!({ "rewrite": response }),
                AfterModelCallOutcome::Stop(reason) => json!({ "stop": reason }),
            }
        }
        HookPoint::BeforeToolCall => {
            let (call, tool): (CallId, ToolName) = (fields.take("call")?, fields.take("tool")?);
            let definition = ToolDefinition::new(tool.as_str(), "", Value::Null);
            let definition = Arc::new(definition.map_err(|error| HookError::new(error.to_string()))?);
            let input = BeforeToolCall { call, tool, arguments: fields.take("arguments")?, definition };
            match hook.before_tool_call(&input, cx).await? {
                BeforeToolCallOutcome::Continue => Value::Null,
                BeforeToolCallOutcome::Rewrite(arguments) => json!({ "rewrite": arguments }),
                BeforeToolCallOutcome::Answer(output) => json!({ "answer": output.data }),
                BeforeToolCallOutcome::Deny(reason) => json!({ "deny": reason }),
                BeforeToolCallOutcome::Ask(what) => json!({ "ask": what }),
                BeforeToolCallOutcome::Stop(reason) => json!({ "stop": reason }),
            }
        }
        HookPoint::AfterToolCall => {
            let (call, tool) = (fields.take("call")?, fields.take("tool")?);
            let result = match fields.has("error") {
                true => Err(ToolError::from(fields.take::<Fault>("error")?)),
                false => Ok(ToolOutput::new(fields.take("data")?)),
            };
            match hook.after_tool_call(&AfterToolCall { call, tool, result }, cx).await? {
                AfterToolCallOutcome::Keep => Value::Null,
                AfterToolCallOutcome::Replace(Ok(output)) => json!({ "replace": output.data }),
                AfterToolCallOutcome::Replace(Err(error)) => json!({ "fail": Fault::from(&error) }),
                AfterToolCallOutcome::Stop(reason) => json!({ "stop": reason }),
            }
        }
        HookPoint::OnReasoningStep => {
            let input = ReasoningStep { step: fields.take("step")?, text: fields.take("text")? };
            match hook.on_reasoning_step(&input, cx).await? {
                ReasoningStepOutcome::Continue => Value::Null,
                ReasoningStepOutcome::Stop(reason) => json!({ "stop": reason }),
            }
        }
        HookPoint::OnError => {
            let origin = match fields.take::<Value>("origin")? {
                Value::Null => ErrorOrigin::Model,
                origin => {
                    let mut origin = Fields::new(origin)?;
                    ErrorOrigin::Tool { call: origin.take("call")?, tool: origin.take("tool")? }
                }
            };
            let error = ToolError::from(fields.take::<Fault>("error")?);
            match hook.on_error(&OnError { origin, error }, cx).await? {
                OnErrorOutcome::Observe => Value::Null,
                OnErrorOutcome::RetryWithFeedback(text) => json!({ "feedback": text }),
            }
        }
    })
}

/// An object that is taken apart.
struct Fields(Map<String, Value>);

impl Fields {
    fn new(value: Value) -> HookResult<Self> {
        match value {
            Value::Object(fields) => Ok(Self(fields)),
            _ => Err(HookError::new("a hook's input is no object")),
        }
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    fn take<T: DeserializeOwned>(&mut self, name: &str) -> HookResult<T> {
        let value = self.0.remove(name).unwrap_or_default();
        serde_json::from_value(value).map_err(|error| HookError::new(format!("a hook's input, {name}: {error}")))
    }
}

/// What a worker says that a hook answered.
pub(crate) struct Answered {
    key: String,
    value: Value,
}

impl Answered {
    /// `None`: go on.
    ///
    /// # Errors
    /// What is no outcome, and what is one without its grant.
    pub(crate) fn read(outcome: Value, grants: &HookGrants) -> HookResult<Option<Self>> {
        let entry = match outcome {
            Value::Null => return Ok(None),
            Value::Object(fields) if fields.len() == 1 => fields.into_iter().next(),
            _ => None,
        };
        let Some((key, value)) = entry else { return Err(illegal()) };
        // A replaced failure is a replacement like any other.
        grants.check(if key == "fail" { "replace" } else { &key })?;
        Ok(Some(Self { key, value }))
    }

    fn typed<T: DeserializeOwned>(self) -> HookResult<T> {
        serde_json::from_value(self.value).map_err(|_| illegal())
    }
}

fn illegal() -> HookError {
    HookError::new("the worker gave an answer that is not legal at this point")
}

/// From what a worker says to the outcome of a point.
pub(crate) trait FromAnswer: Sized {
    /// # Errors
    /// Where the answer is none of this point's.
    fn from_answer(answered: Option<Answered>) -> HookResult<Self>;
}

macro_rules! from_answer {
    ($outcome:ident { $otherwise:ident $(, $key:literal => $make:expr)* $(,)? }) => {
        impl FromAnswer for $outcome {
            fn from_answer(answered: Option<Answered>) -> HookResult<Self> {
                let Some(answered) = answered else { return Ok(Self::$otherwise) };
                match answered.key.as_str() {
                    $($key => answered.typed().map($make),)*
                    _ => Err(illegal()),
                }
            }
        }
    };
}

from_answer!(BeforeAgentRunOutcome { Continue, "rewrite" => Self::Rewrite, "stop" => Self::Stop });
from_answer!(AfterAgentRunOutcome { Continue, "rewrite" => Self::Rewrite, "stop" => Self::Stop });
from_answer!(BeforeModelCallOutcome { Continue, "rewrite" => Self::Rewrite, "stop" => Self::Stop });
from_answer!(AfterModelCallOutcome { Continue, "rewrite" => Self::Rewrite, "stop" => Self::Stop });
from_answer!(BeforeToolCallOutcome {
    Continue,
    "rewrite" => Self::Rewrite,
    "answer" => |data: Value| Self::Answer(ToolOutput::new(data)),
    "deny" => Self::Deny,
    "ask" => Self::Ask,
    "stop" => Self::Stop,
});
from_answer!(AfterToolCallOutcome {
    Keep,
    "replace" => |data: Value| Self::Replace(Ok(ToolOutput::new(data))),
    "fail" => |fault: Fault| Self::Replace(Err(fault.into())),
    "stop" => Self::Stop,
});
from_answer!(ReasoningStepOutcome { Continue, "stop" => Self::Stop });
from_answer!(OnErrorOutcome { Observe, "feedback" => Self::RetryWithFeedback });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_loosens_needs_its_grant_in_the_host_too() {
        let rewrite = || json!({ "rewrite": { "amount": 1 } });
        assert!(Answered::read(rewrite(), &HookGrants::default()).is_err());
        let granted = HookGrants::new(|grant| grant == "hook:rewrite");
        let answered = Answered::read(rewrite(), &granted).unwrap();
        let outcome = BeforeToolCallOutcome::from_answer(answered).unwrap();
        assert_eq!(outcome, BeforeToolCallOutcome::Rewrite(json!({ "amount": 1 })));
    }

    #[test]
    fn an_answer_of_another_point_is_refused() {
        let answered = Answered::read(json!({ "deny": "no" }), &HookGrants::default()).unwrap();
        assert!(ReasoningStepOutcome::from_answer(answered).is_err());
        assert!(Answered::read(json!({ "deny": "no", "stop": "no" }), &HookGrants::default()).is_err());
        assert!(Answered::read(json!(7), &HookGrants::default()).is_err());
    }
}
