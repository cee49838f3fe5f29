//! What a run keeps out of recordings: secrets that its calls and hooks have read, and what schemas say is not to be shown.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use serde_json::Value;
use toolbay_api::{CallId, Secret, ToolError, ToolOutput};

use crate::{
    control::redacted_config,
    observe::{Observer, RunEvent},
    redact::Redactor,
    run::Run,
};

/// Secrets of all calls of a run, where it is recorded.
#[derive(Default)]
pub(crate) struct Seen {
    redactor: Redactor,
    /// More than can be looked for.
    is_full: AtomicBool,
}

impl Seen {
    pub(crate) fn learn(&self, secret: &Secret) {
        if self.redactor.learn(secret).is_err() {
            self.is_full.store(true, Ordering::Release);
        }
    }
}

/// Answers calls of a session's runs in the place of their tools: what was recorded, where hooks are tried over old runs.
/// Calls from inside of tools and hooks are made as ever.
pub trait StandIn: Send + Sync {
    /// What the call comes to.
    ///
    /// # Errors
    /// As the tool's.
    fn answer(&self, call: &CallId, tool: &str, arguments: &Value) -> Result<ToolOutput, ToolError>;
}

impl Run {
    /// Whether somebody records the run.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.inner().observer.as_ref().is_some_and(|observer| observer.is_recording())
    }

    /// `value` as it may be recorded: without any secret that a call or a hook of the run has read so far, and without what
    /// [`arguments_for_the_record`](Self::arguments_for_the_record) hid before. `None` where those are more than can be
    /// looked for: then nothing may be recorded any more.
    #[must_use]
    pub fn for_the_record(&self, mut value: Value) -> Option<Value> {
        let seen = &self.inner().seen;
        seen.redactor.value(&mut value);
        (!seen.is_full.load(Ordering::Acquire)).then_some(value)
    }

    /// Arguments of a call as they may be recorded: `***` in the place of fields that the tool's parameters call `writeOnly`
    /// or of the format `password`. Their values are kept out of all that is recorded from now on.
    #[must_use]
    pub fn arguments_for_the_record(&self, tool: &str, arguments: &Value) -> Value {
        let Some(entry) = self.view().tool(tool) else { return arguments.clone() };
        let mut shown = redacted_config(Some(&entry.info.definition.parameters), arguments);
        self.learn_hidden(arguments, &shown);
        self.inner().seen.redactor.value(&mut shown);
        shown
    }

    /// A text as an observer may see it, who may be recording.
    pub(crate) fn text_for_the_record(&self, text: &str) -> String {
        self.inner().seen.redactor.text(text).into_owned()
    }

    /// The same for a tool's result, by its output schema.
    pub(crate) fn result_for_the_record(&self, schema: Option<&Value>, data: &Value) -> Value {
        let Some(schema) = schema else { return data.clone() };
        let shown = redacted_config(Some(schema), data);
        self.learn_hidden(data, &shown);
        shown
    }

    /// Learns what is in `whole` and not in `shown`.
    fn learn_hidden(&self, whole: &Value, shown: &Value) {
        match (whole, shown) {
            (Value::Object(whole), Value::Object(shown)) => {
                for (name, value) in whole {
                    shown.get(name).into_iter().for_each(|shown| self.learn_hidden(value, shown));
                }
            }
            (Value::Array(whole), Value::Array(shown)) => {
                whole.iter().zip(shown).for_each(|(value, shown)| self.learn_hidden(value, shown));
            }
            _ if whole == shown => {}
            _ => self.learn_leaves(whole),
        }
    }

    fn learn_leaves(&self, value: &Value) {
        match value {
            Value::String(text) => self.inner().seen.learn(&Secret::new(text.as_str())),
            Value::Number(number) => self.inner().seen.learn(&Secret::new(number.to_string())),
            Value::Array(items) => items.iter().for_each(|item| self.learn_leaves(item)),
            Value::Object(fields) => fields.values().for_each(|field| self.learn_leaves(field)),
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// Shows recorders what a tool gave.
    pub(crate) fn record_answer(
        &self,
        call: &CallId,
        tool: &str,
        schema: Option<&Value>,
        result: &Result<ToolOutput, ToolError>,
    ) {
        let Some(observer) = self.inner().observer.as_ref().filter(|observer| observer.is_recording()) else { return };
        let shown = result.clone().map(|output| {
            let data = self.result_for_the_record(schema, &output.data);
            ToolOutput::new(self.for_the_record(data).unwrap_or_default())
        });
        let mut result = Box::new(toolbay_api::WireResult::new(shown, serde_json::Map::new()));
        if let Some(error) = &mut result.error {
            let hidden = |text: &str| self.for_the_record(Value::from(text));
            error.message =
                hidden(&error.message).and_then(|text| text.as_str().map(str::to_owned)).unwrap_or_default();
            error.details = self.for_the_record(std::mem::take(&mut error.details)).unwrap_or_default();
        }
        let event = RunEvent::ToolAnswered { call: call.clone(), tool: tool.to_owned(), result };
        <dyn Observer>::observe(&**observer, self.id(), &event);
    }

    /// Who answers in the place of tools.
    pub(crate) fn stand_in(&self) -> Option<&Arc<dyn StandIn>> {
        self.inner().stand_in.as_ref()
    }
}
