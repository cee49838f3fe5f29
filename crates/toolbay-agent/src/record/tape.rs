//! Makes lines of what a run's loop is told and decides, without what a recording must not have.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::UNIX_EPOCH,
};

use serde::Serialize;
use serde_json::{Value, json};
use toolbay_api::{Message, ModelResponse, ToolCall};
use toolbay_runtime::{Run, RunEvent};

use super::lines::{self, Head, Line, ToolMark};
use crate::{
    agent::AgentReply,
    stepper::{StepperConfig, Tape, Told},
};

/// Shows the head of a recording, where the run is recorded.
pub(crate) fn begin(run: &Run, model: &str, config: &StepperConfig, messages: &[Message]) {
    if !run.is_recorded() {
        return;
    }
    let mark = |tool: &toolbay_runtime::ToolInfo| ToolMark {
        name: tool.definition.name.to_string(),
        provider_name: tool.provider_name.to_string(),
        version: tool.version.to_string(),
        digest: lines::digest_of_tool(&tool.definition),
    };
    let since = run.clock().now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let head = Head {
        toolbay_recording: lines::VERSION,
        run: run.id(),
        tenant: run.tenant().clone(),
        model: model.to_owned(),
        started_at_ms: i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        config: config.clone(),
        tools: run.tools().iter().map(mark).collect(),
    };
    show(run, &head);
    show(run, &Line::Input { messages: shown_messages(run, messages) });
}

/// Shows the last line.
pub(crate) fn finish(run: &Run, reply: &AgentReply) {
    if run.is_recorded() {
        let (outcome, text) = (reply.outcome.to_string(), reply.text.clone());
        show(run, &Line::Finished { outcome, text, steps: reply.steps, tool_calls: reply.tool_calls });
    }
}

/// Shows a reply before hooks see it.
pub(crate) fn model_answered(run: &Run, step: u32, response: &ModelResponse) {
    if run.is_recorded() {
        show(run, &Line::ModelAnswered { step, response: shown_response(run, response) });
    }
}

/// What hears the loop of a run that is recorded.
pub(crate) fn tape_of(run: &Run) -> Option<Arc<dyn Tape>> {
    run.is_recorded().then(|| Arc::new(RunTape { run: run.clone(), known: AtomicUsize::new(0) }) as Arc<dyn Tape>)
}

struct RunTape {
    run: Run,
    /// Messages whose digests were written.
    known: AtomicUsize,
}

impl Tape for RunTape {
    fn told(&self, told: &Told) {
        let run = &self.run;
        let line = match told.clone() {
            Told::Began { messages, tools, .. } => {
                let tools = tools.into_iter().map(|tool| tool.name.to_string()).collect();
                Line::Began { messages: shown_messages(run, &messages), tools }
            }
            Told::Offered(tool) => Line::Offered { tool: tool.name.to_string() },
            Told::ModelReplied(response) => Line::ModelReplied { response: shown_response(run, &response) },
            Told::ModelFailed(feedback) => Line::ModelFailed { feedback },
            Told::ToolReplied(reply) => Line::ToolReplied { reply },
            Told::Stopped(outcome) => Line::Stopped { outcome },
            Told::RanOut(outcome, exhausted) => Line::RanOut { outcome, exhausted },
            Told::CalledInside(tools, exhausted) => Line::CalledInside { tools, exhausted },
            Told::Spent(tokens) => Line::Spent { tokens },
            Told::Asks { step, request } => {
                let all = request.messages.len();
                let new = request.messages.get(self.known.swap(all, Ordering::Relaxed)..).unwrap_or_default();
                let digest = |message| {
                    run.for_the_record(json!(message)).map(|message| lines::digest_of(&message)).unwrap_or_default()
                };
                let new = shown_messages(run, new).iter().map(digest).collect();
                Line::Asks { step, messages: all, new, tools: request.tools.len() }
            }
            Told::Calls { step, calls } => Line::Calls { step, calls: shown_calls(run, calls) },
            Told::Ends(end) => Line::Ends { end },
        };
        show(run, &line);
    }
}

fn show(run: &Run, line: &impl Serialize) {
    let line = run.for_the_record(json!(line)).unwrap_or_else(
        || json!({ "kind": "cut", "reason": "the run has read more secrets than can be kept out of a recording" }),
    );
    run.observe(RunEvent::LoopTold { line });
}

fn shown_response(run: &Run, response: &ModelResponse) -> ModelResponse {
    ModelResponse { tool_calls: shown_calls(run, response.tool_calls.clone()), ..response.clone() }
}

fn shown_messages(run: &Run, messages: &[Message]) -> Vec<Message> {
    let shown = |message: &Message| {
        let mut message = message.clone();
        if let Message::Assistant { tool_calls, .. } = &mut message {
            *tool_calls = shown_calls(run, std::mem::take(tool_calls));
        }
        message
    };
    messages.iter().map(shown).collect()
}

fn shown_calls(run: &Run, calls: Vec<ToolCall>) -> Vec<ToolCall> {
    let shown = |call: ToolCall| {
        // Arguments that are an object within a text are read as one by the loop too.
        let read = match &call.arguments {
            Value::String(text) => serde_json::from_str::<Value>(text).ok().filter(Value::is_object),
            _ => None,
        };
        let arguments = run.arguments_for_the_record(&call.name, read.as_ref().unwrap_or(&call.arguments));
        // Text that nothing was hidden in stays as the model wrote it.
        let arguments = if read.as_ref() == Some(&arguments) { call.arguments } else { arguments };
        ToolCall { arguments, ..call }
    };
    calls.into_iter().map(shown).collect()
}
