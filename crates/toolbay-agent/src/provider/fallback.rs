//! Reads OpenAI's two reply formats where the client refuses them: arguments that are no JSON, an empty text for a call
//! without arguments, a missing field. Models write such things, and the loop can have them repaired, so they must not
//! end the run as a fault of the protocol. The other providers send arguments as JSON, not as text.

use serde_json::{Map, Value};
use toolbay_api::{
    ModelResponse, ToolCall,
    message::{FinishReason, Tokens},
};

use super::response::settled;

/// The reply in `body`, or `None` where it is none of either format.
pub(super) fn read(body: &Value) -> Option<ModelResponse> {
    chat_completion(body).or_else(|| response_object(body))
}

fn chat_completion(body: &Value) -> Option<ModelResponse> {
    let choice = body.pointer("/choices/0")?;
    let message = choice.get("message")?.as_object()?;
    let text_of = |key: &str| message.get(key).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty());
    let calls = array(message.get("tool_calls")).iter().map(|call| {
        let function = call.get("function")?;
        tool_call(call.get("id"), function.get("name"), function.get("arguments"))
    });
    let tool_calls = calls.collect::<Option<Vec<_>>>()?;
    let finish = choice.get("finish_reason").and_then(Value::as_str).map(finish_of);
    Some(ModelResponse {
        text: text_of("content").unwrap_or_default().to_owned(),
        reasoning: text_of("reasoning_content").or_else(|| text_of("reasoning")).map(str::to_owned),
        finish: settled(finish, !tool_calls.is_empty()),
        tool_calls,
        tokens: tokens(body, "/usage/prompt_tokens", "/usage/completion_tokens"),
    })
}

fn response_object(body: &Value) -> Option<ModelResponse> {
    let output = body.get("output")?.as_array()?;
    let items = |kind: &'static str| output.iter().filter(move |item| item.get("type").is_some_and(|of| of == kind));
    let joined = |kind: &'static str, field: &str| -> Vec<&str> {
        items(kind).flat_map(|item| array(item.get(field))).filter_map(|part| part.get("text")?.as_str()).collect()
    };
    let calls = items("function_call")
        .map(|item| tool_call(item.get("call_id"), item.get("name"), item.get("arguments")))
        .collect::<Option<Vec<_>>>()?;
    let reasoning = joined("reasoning", "summary").join("\n");
    let finish = match body.get("status").and_then(Value::as_str) {
        Some("completed") => FinishReason::Stop,
        Some("incomplete") => FinishReason::Length,
        _ => FinishReason::Other,
    };
    Some(ModelResponse {
        text: joined("message", "content").join("\n\n"),
        reasoning: (!reasoning.is_empty()).then_some(reasoning),
        finish: settled(Some(finish), !calls.is_empty()),
        tool_calls: calls,
        tokens: tokens(body, "/usage/input_tokens", "/usage/output_tokens"),
    })
}

/// The end of a chat completion by its own word.
pub(super) fn finish_of(reason: &str) -> FinishReason {
    match reason {
        "stop" => FinishReason::Stop,
        "tool_calls" | "function_call" => FinishReason::ToolCalls,
        "length" => FinishReason::Length,
        "content_filter" => FinishReason::ContentFilter,
        _ => FinishReason::Other,
    }
}

/// Arguments that came as text: read as JSON here, as the client would have; the stepper reads what is encoded once more.
pub(super) fn arguments_of(text: String) -> Value {
    match serde_json::from_str::<Value>(&text) {
        Ok(read @ Value::Object(_)) => read,
        _ => Value::String(text),
    }
}

/// A call; its id may be empty, the stepper makes one up.
fn tool_call(id: Option<&Value>, name: Option<&Value>, arguments: Option<&Value>) -> Option<ToolCall> {
    let arguments = match arguments {
        Some(Value::String(text)) => arguments_of(text.clone()),
        Some(other) => other.clone(),
        None => Value::Object(Map::new()),
    };
    let id = id.and_then(Value::as_str).unwrap_or_default().to_owned();
    Some(ToolCall { id, name: name?.as_str()?.to_owned(), arguments })
}

fn tokens(body: &Value, input: &str, output: &str) -> Tokens {
    let count = |pointer: &str| body.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    Tokens { input: count(input), output: count(output) }
}

fn array(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}
