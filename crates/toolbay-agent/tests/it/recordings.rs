//! Requests and replies of three protocols by their meaning: a reader of its own beside the adapter's, for what was recorded and
//! for what we send alike.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use toolbay_api::{
    Message, ModelRequest, ModelResponse, ToolCall, ToolDefinition,
    message::{FinishReason, Tokens},
};

/// The three protocols of the recordings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Wire {
    Messages,
    Chat,
    Responses,
}

impl Wire {
    pub(crate) fn of(path: &str) -> Self {
        match path {
            "/v1/messages" => Self::Messages,
            "/v1/chat/completions" => Self::Chat,
            "/v1/responses" => Self::Responses,
            other => panic!("no recording has the path {other}"),
        }
    }

    pub(crate) fn provider(self) -> &'static str {
        match self {
            Self::Messages => "anthropic",
            Self::Chat => "openai",
            Self::Responses => "openai_resp",
        }
    }
}

/// A text that may be written in short, as a list of parts, or as nothing.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect::<Vec<_>>().join("\n\n"),
        _ => String::new(),
    }
}

/// A request by its meaning, whichever protocol it is in; read in the same way from what we send and what was recorded.
pub(crate) fn meaning(wire: Wire, body: &Value) -> ModelRequest {
    let mut messages = Vec::new();
    let system = match wire {
        Wire::Messages => &body["system"],
        Wire::Chat => &Value::Null,
        Wire::Responses => &body["instructions"],
    };
    if !system.is_null() {
        messages.push(Message::system(text_of(system)));
    }
    let list = if wire == Wire::Responses { &body["input"] } else { &body["messages"] };
    for message in list.as_array().unwrap() {
        read_message(wire, message, &mut messages);
    }
    let tools = body["tools"].as_array().cloned().unwrap_or_default();
    let tools = tools.iter().map(|tool| {
        let tool = tool.get("function").unwrap_or(tool);
        let schema = tool.get("parameters").or(tool.get("input_schema")).unwrap();
        ToolDefinition::new(tool["name"].as_str().unwrap(), tool["description"].as_str().unwrap(), in_order(schema))
            .unwrap()
    });
    let most = ["max_tokens", "max_completion_tokens", "max_output_tokens"].iter().find_map(|key| body[*key].as_u64());
    ModelRequest {
        messages,
        tools: tools.collect(),
        max_output_tokens: most.map(|most| u32::try_from(most).unwrap()),
        temperature: body["temperature"].as_f64(),
    }
}

/// The order of keys means nothing, nor does it which version of JSON Schema it was.
fn in_order(schema: &Value) -> Value {
    match schema {
        Value::Object(node) => {
            let keys = node.iter().filter(|(key, _)| *key != "$schema");
            let sorted: BTreeMap<_, _> = keys.map(|(key, value)| (key.clone(), in_order(value))).collect();
            json!(sorted)
        }
        other => other.clone(),
    }
}

fn read_message(wire: Wire, message: &Value, messages: &mut Vec<Message>) {
    let of_tool = |id: &Value, content: &Value| Message::Tool {
        call_id: id.as_str().unwrap().to_owned(),
        text: text_of(content),
        is_error: false,
    };
    match (wire, message["type"].as_str(), message["role"].as_str()) {
        (Wire::Responses, Some("function_call"), _) => {
            let call = call(&message["call_id"], &message["name"], &message["arguments"]);
            // Calls of one step are items of their own.
            match messages.last_mut() {
                Some(Message::Assistant { tool_calls, .. }) => tool_calls.push(call),
                _ => messages.push(said(String::new(), vec![call])),
            }
        }
        (Wire::Responses, Some("function_call_output"), _) => {
            messages.push(of_tool(&message["call_id"], &message["output"]));
        }
        (Wire::Chat, _, Some("tool")) => messages.push(of_tool(&message["tool_call_id"], &message["content"])),
        (_, _, Some("system" | "developer")) => messages.push(Message::system(text_of(&message["content"]))),
        (_, _, Some("assistant")) => {
            let mut calls = Vec::new();
            for part in message["content"].as_array().into_iter().flatten().filter(|part| part["type"] == "tool_use") {
                calls.push(call(&part["id"], &part["name"], &part["input"]));
            }
            for each in message["tool_calls"].as_array().into_iter().flatten() {
                calls.push(call(&each["id"], &each["function"]["name"], &each["function"]["arguments"]));
            }
            messages.push(said(text_of(&message["content"]), calls));
        }
        (_, _, Some("user")) => {
            let parts = message["content"].as_array().cloned().unwrap_or_default();
            let results = parts.iter().filter(|part| part["type"] == "tool_result");
            messages.extend(results.map(|part| of_tool(&part["tool_use_id"], &part["content"])));
            let text = text_of(&message["content"]);
            if !text.is_empty() {
                messages.push(Message::user(text));
            }
        }
        other => panic!("{other:?}: {message}"),
    }
}

fn said(text: String, tool_calls: Vec<ToolCall>) -> Message {
    Message::Assistant { text, reasoning: None, tool_calls }
}

pub(crate) fn call(id: &Value, name: &Value, arguments: &Value) -> ToolCall {
    let arguments = match arguments {
        Value::String(text) => serde_json::from_str(text).unwrap_or_else(|_| arguments.clone()),
        other => other.clone(),
    };
    ToolCall { id: id.as_str().unwrap().to_owned(), name: name.as_str().unwrap().to_owned(), arguments }
}

/// A recorded reply by its meaning.
pub(crate) fn recorded_reply(wire: Wire, body: &str) -> ModelResponse {
    match (wire, serde_json::from_str::<Value>(body)) {
        (Wire::Messages, Ok(whole)) => whole_message(&whole),
        (Wire::Chat, Ok(whole)) => whole_completion(&whole),
        (Wire::Responses, Ok(whole)) => whole_response(&whole),
        (Wire::Messages, Err(_)) => streamed_message(body),
        (Wire::Chat, Err(_)) => streamed_completion(body),
        (Wire::Responses, Err(_)) => panic!("no recording streams over the Responses API to its end"),
    }
}

fn reply(text: String, tool_calls: Vec<ToolCall>, reason: &str, input: &Value, output: &Value) -> ModelResponse {
    let finish = match reason {
        "end_turn" | "stop" => FinishReason::Stop,
        "tool_use" | "tool_calls" => FinishReason::ToolCalls,
        "max_tokens" | "length" => FinishReason::Length,
        other => panic!("{other}"),
    };
    // A call whose arguments were cut is a call all the same.
    let tokens = Tokens { input: input.as_u64().unwrap(), output: output.as_u64().unwrap() };
    ModelResponse { text, reasoning: None, tool_calls, finish, tokens }
}

fn whole_message(body: &Value) -> ModelResponse {
    let parts = body["content"].as_array().unwrap();
    let calls = parts.iter().filter(|part| part["type"] == "tool_use");
    let calls = calls.map(|part| call(&part["id"], &part["name"], &part["input"])).collect();
    let usage = &body["usage"];
    let reason = body["stop_reason"].as_str().unwrap();
    reply(text_of(&body["content"]), calls, reason, &usage["input_tokens"], &usage["output_tokens"])
}

fn whole_completion(body: &Value) -> ModelResponse {
    let (choice, usage) = (&body["choices"][0], &body["usage"]);
    let message = &choice["message"];
    let calls = message["tool_calls"].as_array().cloned().unwrap_or_default();
    let calls = calls.iter().map(|each| call(&each["id"], &each["function"]["name"], &each["function"]["arguments"]));
    let (text, reason) = (text_of(&message["content"]), choice["finish_reason"].as_str().unwrap());
    reply(text, calls.collect(), reason, &usage["prompt_tokens"], &usage["completion_tokens"])
}

fn whole_response(body: &Value) -> ModelResponse {
    let (items, usage) = (body["output"].as_array().unwrap(), &body["usage"]);
    let calls = items.iter().filter(|item| item["type"] == "function_call");
    let calls: Vec<_> = calls.map(|item| call(&item["call_id"], &item["name"], &item["arguments"])).collect();
    let texts: Vec<_> =
        items.iter().filter(|item| item["type"] == "message").map(|item| text_of(&item["content"])).collect();
    let reason = if calls.is_empty() { "stop" } else { "tool_calls" };
    reply(texts.join("\n\n"), calls, reason, &usage["input_tokens"], &usage["output_tokens"])
}

/// The JSON of a stream's events.
fn frames(body: &str) -> Vec<Value> {
    let lines = body.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|data| *data != "[DONE]");
    lines.map(|data| serde_json::from_str(data).unwrap()).collect()
}

fn streamed_message(body: &str) -> ModelResponse {
    let (mut blocks, mut reason, mut input, mut output) = (BTreeMap::new(), String::new(), Value::Null, Value::Null);
    for frame in frames(body) {
        let index = frame["index"].as_u64();
        match frame["type"].as_str().unwrap() {
            "message_start" => input = frame["message"]["usage"]["input_tokens"].clone(),
            "content_block_start" => {
                drop(blocks.insert(index.unwrap(), (frame["content_block"].clone(), String::new())))
            }
            "content_block_delta" => {
                let (delta, block) = (&frame["delta"], blocks.get_mut(&index.unwrap()).unwrap());
                block.1.push_str(delta["text"].as_str().or(delta["partial_json"].as_str()).unwrap());
            }
            "message_delta" => {
                reason = frame["delta"]["stop_reason"].as_str().unwrap().to_owned();
                output = frame["usage"]["output_tokens"].clone();
            }
            _ => {}
        }
    }
    let texts: String =
        blocks.values().filter(|(block, _)| block["type"] == "text").map(|(_, text)| text.as_str()).collect();
    let calls = blocks.values().filter(|(block, _)| block["type"] == "tool_use").map(|(block, written)| {
        let arguments = if written.is_empty() { json!({}) } else { json!(written) };
        call(&block["id"], &block["name"], &arguments)
    });
    reply(texts, calls.collect(), &reason, &input, &output)
}

fn streamed_completion(body: &str) -> ModelResponse {
    let (mut text, mut calls, mut reason, mut usage) = (String::new(), BTreeMap::new(), String::new(), Value::Null);
    for frame in frames(body) {
        let choice = &frame["choices"][0];
        text.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        for each in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            let so_far = calls.entry(each["index"].as_u64().unwrap()).or_insert_with(|| (each.clone(), String::new()));
            so_far.1.push_str(each["function"]["arguments"].as_str().unwrap_or_default());
        }
        reason = choice["finish_reason"].as_str().map_or(reason, str::to_owned);
        usage = if frame["usage"].is_null() { usage } else { frame["usage"].clone() };
    }
    let calls = calls.values().map(|(first, written)| call(&first["id"], &first["function"]["name"], &json!(written)));
    reply(text, calls.collect(), &reason, &usage["prompt_tokens"], &usage["completion_tokens"])
}
