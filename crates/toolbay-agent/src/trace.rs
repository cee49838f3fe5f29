//! The spans of a run and of its requests to the model, by OpenTelemetry's conventions for generative AI; those of tool
//! calls are the runtime's. What was said is in them only where the host wants it ([`ToolbayBuilder::trace_content`]).
//!
//! [`ToolbayBuilder::trace_content`]: toolbay_runtime::ToolbayBuilder::trace_content

use serde_json::{Value, json};
use toolbay_api::{Message, ModelRequest, ModelResponse, ToolCall, message::FinishReason};
use toolbay_runtime::{
    Run,
    trace::{MAX_CONTENT_BYTES, MAX_NAME_BYTES, TARGET, cut},
};
use tracing::{Level, Span, field::Empty};

use crate::{
    agent::{Agent, AgentError, AgentReply},
    model::{ModelError, ServedBy},
};

/// Bytes of a conversation in a span; of one that is longer the end is there.
const MAX_CONVERSATION_BYTES: usize = 8 * MAX_CONTENT_BYTES;

/// The span of a whole run.
pub(crate) fn invoke_agent(agent: &Agent, run: &Run, messages: &[Message]) -> Span {
    if !tracing::span_enabled!(target: TARGET, Level::INFO) {
        return Span::none();
    }
    let ServedBy { provider, model } = agent.model().served_by();
    let name = agent.name().map(|name| cut(name, MAX_NAME_BYTES));
    let span = tracing::info_span!(
        target: TARGET, "invoke_agent",
        otel.name = name.map_or_else(|| "invoke_agent".to_owned(), |name| format!("invoke_agent {name}")),
        otel.kind = "internal", otel.status_code = Empty, "error.type" = Empty,
        "gen_ai.operation.name" = "invoke_agent", "gen_ai.agent.name" = name,
        "gen_ai.provider.name" = provider, "gen_ai.request.model" = cut(model, MAX_NAME_BYTES),
        "gen_ai.conversation.id" = run.conversation().map(|id| cut(id, MAX_NAME_BYTES)),
        "gen_ai.usage.input_tokens" = Empty, "gen_ai.usage.output_tokens" = Empty,
        "gen_ai.system_instructions" = Empty, "gen_ai.input.messages" = Empty, "gen_ai.output.messages" = Empty,
        "toolbay.tenant" = %run.tenant(), "toolbay.run" = %run.id(),
        "toolbay.outcome" = Empty, "toolbay.steps" = Empty, "toolbay.tool_calls" = Empty,
    );
    if run.traces_content() {
        if let Some(system) = agent.system_text() {
            span.record("gen_ai.system_instructions", instructions(system));
        }
        span.record("gen_ai.input.messages", conversation(messages));
    }
    span
}

/// Writes into a run's span what the run came to.
pub(crate) fn run_ended(span: &Span, run: &Run, ended: Result<&AgentReply, &AgentError>) {
    if span.is_disabled() {
        return;
    }
    let (reply, error) = match ended {
        Ok(reply) => (Some(reply), None),
        Err(AgentError::Model { error, partial }) => (Some(&**partial), Some(error.kind.name())),
        Err(_) => (None, Some("_OTHER")),
    };
    if let Some(reply) = reply {
        span.record("gen_ai.usage.input_tokens", reply.tokens.input);
        span.record("gen_ai.usage.output_tokens", reply.tokens.output);
        span.record("toolbay.outcome", reply.outcome.name());
        span.record("toolbay.steps", reply.steps);
        span.record("toolbay.tool_calls", reply.tool_calls);
        if run.traces_content() {
            let said = json!([{ "role": "assistant", "parts": [text_part(&reply.text)], "finish_reason": "stop" }]);
            span.record("gen_ai.output.messages", said.to_string());
        }
    }
    if let Some(error) = error {
        failed(span, error);
    }
}

/// The span of a request to the model, all of its attempts.
pub(crate) fn chat(agent: &Agent, run: &Run, step: u32, request: &ModelRequest) -> Span {
    if !tracing::span_enabled!(target: TARGET, Level::INFO) {
        return Span::none();
    }
    let ServedBy { provider, model } = agent.model().served_by();
    let model = cut(model, MAX_NAME_BYTES);
    let span = tracing::info_span!(
        target: TARGET, "chat",
        otel.name = format!("chat {model}"), otel.kind = "client", otel.status_code = Empty, "error.type" = Empty,
        "gen_ai.operation.name" = "chat", "gen_ai.provider.name" = provider, "gen_ai.request.model" = model,
        "gen_ai.conversation.id" = run.conversation().map(|id| cut(id, MAX_NAME_BYTES)),
        "gen_ai.request.max_tokens" = request.max_output_tokens, "gen_ai.request.temperature" = request.temperature,
        "gen_ai.response.finish_reasons" = Empty,
        "gen_ai.usage.input_tokens" = Empty, "gen_ai.usage.output_tokens" = Empty,
        "gen_ai.input.messages" = Empty, "gen_ai.output.messages" = Empty,
        "toolbay.tenant" = %run.tenant(), "toolbay.step" = step, "toolbay.retries" = Empty,
    );
    if run.traces_content() {
        span.record("gen_ai.input.messages", conversation(&request.messages));
    }
    span
}

/// Writes into the current request's span how often it was made again.
pub(crate) fn repeated(times: u32) {
    let span = Span::current();
    if span.metadata().is_some_and(|metadata| metadata.target() == TARGET) {
        span.record("toolbay.retries", times);
    }
}

/// Writes into a request's span what came of it.
pub(crate) fn answered(span: &Span, run: &Run, answer: &Result<ModelResponse, ModelError>) {
    if span.is_disabled() {
        return;
    }
    match answer {
        Ok(response) => {
            let finish = finish_reason(response.finish);
            span.record("gen_ai.usage.input_tokens", response.tokens.input);
            span.record("gen_ai.usage.output_tokens", response.tokens.output);
            // A list, as JSON: fields of spans have none. The exporter makes a list of it.
            span.record("gen_ai.response.finish_reasons", json!([finish]).to_string());
            if run.traces_content() {
                let ModelResponse { text, tool_calls, .. } = response;
                let said = json!([{ "role": "assistant", "parts": said(text, tool_calls), "finish_reason": finish }]);
                span.record("gen_ai.output.messages", said.to_string());
            }
        }
        Err(error) => failed(span, error.kind.name()),
    }
}

fn failed(span: &Span, error: &str) {
    span.record("error.type", error);
    span.record("otel.status_code", "ERROR");
}

fn finish_reason(finish: FinishReason) -> &'static str {
    match finish {
        FinishReason::Stop => "stop",
        FinishReason::ToolCalls => "tool_call",
        FinishReason::Length => "length",
        FinishReason::ContentFilter => "content_filter",
        _ => "error",
    }
}

fn instructions(system: &str) -> String {
    json!([text_part(system)]).to_string()
}

/// Messages in the form of the conventions, from the end as far as there is room.
fn conversation(messages: &[Message]) -> String {
    let (mut room, mut kept) = (MAX_CONVERSATION_BYTES, Vec::new());
    for message in messages.iter().rev() {
        let message = message_of(message);
        let bytes = message.to_string().len();
        let Some(left) = room.checked_sub(bytes) else { break };
        room = left;
        kept.push(message);
    }
    kept.reverse();
    Value::Array(kept).to_string()
}

fn message_of(message: &Message) -> Value {
    match message {
        Message::System { text } => json!({ "role": "system", "parts": [text_part(text)] }),
        Message::User { text } => json!({ "role": "user", "parts": [text_part(text)] }),
        Message::Assistant { text, tool_calls, .. } => json!({ "role": "assistant", "parts": said(text, tool_calls) }),
        Message::Tool { call_id, text, .. } => json!({
            "role": "tool",
            "parts": [{ "type": "tool_call_response", "id": call_id, "response": cut(text, MAX_CONTENT_BYTES) }],
        }),
        _ => json!({ "role": "other", "parts": [] }),
    }
}

fn said(text: &str, calls: &[ToolCall]) -> Vec<Value> {
    let text = (!text.is_empty()).then(|| text_part(text));
    let calls = calls.iter().map(|call| {
        let arguments = &call.arguments;
        let is_short = arguments.to_string().len() <= MAX_CONTENT_BYTES;
        let arguments = if is_short { arguments.clone() } else { json!(toolbay_runtime::trace::content(arguments)) };
        json!({ "type": "tool_call", "id": call.id, "name": call.name, "arguments": arguments })
    });
    text.into_iter().chain(calls).collect()
}

fn text_part(text: &str) -> Value {
    json!({ "type": "text", "content": cut(text, MAX_CONTENT_BYTES) })
}
