//! A provider's reply in our form.

use genai::chat::{ChatResponse, MessageContent, StopReason, Usage};
use serde_json::Value;
use toolbay_api::{
    ModelResponse, ToolCall,
    message::{FinishReason, Tokens},
};

use super::{config::Target, failure};
use crate::model::ModelError;

pub(super) fn model_response(reply: ChatResponse, target: &Target) -> Result<ModelResponse, ModelError> {
    let body = reply.captured_raw_body.unwrap_or_default();
    if let Some(error) = body.get("error").filter(|error| !error.is_null()) {
        // Some gateways report the failure of the provider behind them with status 200.
        return Err(failure::reported(error, target));
    }
    let refusal = refusal(&body).map(str::to_owned);
    let finish = finish(reply.stop_reason.as_ref());
    let tokens = tokens(&reply.usage);
    let reasoning = reply.reasoning_content.or_else(|| reply.content.joined_reasoning_content());
    let text = reply.content.texts().join("\n\n");
    let calls = tool_calls(reply.content);
    put_together(Parts { text, reasoning, calls, finish, refusal, tokens }, target)
}

/// A reply in its parts, whether it came at once or bit by bit.
pub(super) struct Parts {
    pub(super) text: String,
    pub(super) reasoning: Option<String>,
    pub(super) calls: Vec<ToolCall>,
    pub(super) finish: Option<FinishReason>,
    pub(super) refusal: Option<String>,
    pub(super) tokens: Tokens,
}

pub(super) fn put_together(parts: Parts, target: &Target) -> Result<ModelResponse, ModelError> {
    let Parts { text, reasoning, calls: tool_calls, finish, refusal, tokens } = parts;
    if text.is_empty() && tool_calls.is_empty() && finish.is_none() && refusal.is_none() {
        return Err(failure::not_understood(target, "the reply has neither text nor tool calls nor an end"));
    }
    Ok(match refusal {
        Some(text) => {
            let (tool_calls, finish) = (Vec::new(), FinishReason::ContentFilter);
            ModelResponse { text, reasoning, tool_calls, finish, tokens }
        }
        None => ModelResponse {
            text,
            reasoning: reasoning.filter(|reasoning| !reasoning.is_empty()),
            finish: settled(finish, !tool_calls.is_empty()),
            tool_calls,
            tokens,
        },
    })
}

pub(super) fn tool_calls(content: MessageContent) -> Vec<ToolCall> {
    let calls = content.into_tool_calls().into_iter();
    calls.map(|call| ToolCall { id: call.call_id, name: call.fn_name, arguments: call.fn_arguments }).collect()
}

pub(super) fn tokens(usage: &Usage) -> Tokens {
    Tokens { input: count(usage.prompt_tokens), output: count(usage.completion_tokens) }
}

/// What OpenAI's models say in the place of an answer, which the client passes over.
fn refusal(body: &Value) -> Option<&str> {
    let items = body.get("output").and_then(Value::as_array).into_iter().flatten();
    let parts = items.filter_map(|item| item.get("content")?.as_array()).flatten();
    let mut refusals =
        body.pointer("/choices/0/message/refusal").into_iter().chain(parts.filter_map(|part| part.get("refusal")));
    refusals.find_map(Value::as_str)
}

pub(super) fn finish(reason: Option<&StopReason>) -> Option<FinishReason> {
    reason.map(|reason| match reason {
        StopReason::Completed(_) | StopReason::StopSequence(_) => FinishReason::Stop,
        StopReason::ToolCall(_) => FinishReason::ToolCalls,
        StopReason::MaxTokens(_) => FinishReason::Length,
        StopReason::ContentFilter(_) => FinishReason::ContentFilter,
        StopReason::Other(_) => FinishReason::Other,
    })
}

/// Some providers say `stop`, or nothing, beside tool calls.
pub(super) fn settled(finish: Option<FinishReason>, has_calls: bool) -> FinishReason {
    match finish.unwrap_or_default() {
        FinishReason::Stop if has_calls => FinishReason::ToolCalls,
        finish => finish,
    }
}

fn count(tokens: Option<i32>) -> u64 {
    tokens.and_then(|tokens| u64::try_from(tokens).ok()).unwrap_or(0)
}
