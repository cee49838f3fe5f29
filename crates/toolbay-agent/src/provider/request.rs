//! A request in the client's form, and with it in the provider's.

use std::collections::HashMap;

use genai::{
    adapter::AdapterKind,
    chat::{ChatMessage, ChatRequest, ContentPart, MessageContent, Tool, ToolCall as ChatCall, ToolName, ToolResponse},
};
use serde_json::{Map, Value, json};
use toolbay_api::{Message, ModelRequest, ModelResponse, ToolCall, ToolDefinition};

use super::continuity::{Continuity, Kept};
use crate::lowering::{Dialect, Lowered, lower};

/// The longest name of a tool that the strictest provider takes.
const MAX_NAME_CHARS: usize = 64;

/// The tools' schemas as the provider takes them, for the time of one request.
pub(super) struct Schemas(HashMap<String, Lowered>);

impl Schemas {
    pub(super) fn of(tools: &[ToolDefinition], adapter: AdapterKind, strict: bool) -> Self {
        let dialect = match adapter {
            AdapterKind::Anthropic => Dialect::Anthropic,
            AdapterKind::OpenAI | AdapterKind::OpenAIResp if strict => Dialect::OpenAiStrict,
            // The client hands Gemini JSON Schema, which it takes beside its own; the others are after OpenAI's form.
            _ => Dialect::OpenAi,
        };
        Self(tools.iter().map(|tool| (tool.name.to_string(), lower(&tool.parameters, dialect))).collect())
    }

    /// The reply with arguments as the tools take them.
    pub(super) fn restored(&self, mut response: ModelResponse) -> ModelResponse {
        for call in &mut response.tool_calls {
            if let Some(lowered) = self.0.get(&call.name) {
                call.arguments = lowered.restored(std::mem::take(&mut call.arguments));
            }
        }
        response
    }
}

pub(super) fn chat_request(
    request: ModelRequest,
    schemas: &Schemas,
    adapter: AdapterKind,
    continuity: &Continuity,
) -> ChatRequest {
    let tools: Vec<_> = request.tools.into_iter().map(|tool| chat_tool(tool, schemas)).collect();
    let mut messages: Vec<ChatMessage> = Vec::with_capacity(request.messages.len());
    let mut names = HashMap::new();
    let mut replies: Vec<ContentPart> = Vec::new();
    let mut trail = continuity.trail();
    for message in request.messages {
        let kept = continuity.kept(&trail);
        trail.pass(&message);
        match message {
            Message::Tool { call_id, text, is_error } => {
                let name = names.get(&call_id).cloned();
                replies.push(tool_reply(adapter, call_id, name, text, is_error));
            }
            other => {
                // Anthropic takes the replies to parallel calls only in one message; the others do not mind.
                flush(&mut messages, &mut replies);
                if let Message::Assistant { tool_calls, .. } = &other {
                    names.extend(tool_calls.iter().map(|call| (call.id.clone(), wire_name(&call.name))));
                }
                messages.extend(chat_message(other, adapter, kept.as_deref()));
            }
        }
    }
    flush(&mut messages, &mut replies);
    let chat = ChatRequest::new(messages);
    // Providers refuse an empty list.
    if tools.is_empty() { chat } else { chat.with_tools(tools) }
}

fn flush(messages: &mut Vec<ChatMessage>, replies: &mut Vec<ContentPart>) {
    if !replies.is_empty() {
        messages.push(ChatMessage::tool(MessageContent::from_parts(std::mem::take(replies))));
    }
}

fn chat_tool(tool: ToolDefinition, schemas: &Schemas) -> Tool {
    // `Custom` by hand: a tenant's tool must never become one of the provider's own by its name.
    let name = ToolName::Custom(tool.name.as_str().to_owned());
    let chat = Tool::new(name).with_description(tool.description);
    match schemas.0.get(tool.name.as_str()) {
        Some(lowered) if lowered.strict => chat.with_schema(lowered.schema.clone()).with_strict(true),
        Some(lowered) => chat.with_schema(lowered.schema.clone()),
        None => chat.with_schema(tool.parameters),
    }
}

/// `None` for what providers refuse: an assistant that said nothing and called nothing.
fn chat_message(message: Message, adapter: AdapterKind, kept: Option<&Kept>) -> Option<ChatMessage> {
    match message {
        Message::System { text } => Some(ChatMessage::system(text)),
        Message::User { text } => Some(ChatMessage::user(text)),
        Message::Assistant { text, reasoning, tool_calls } => {
            let mut parts: Vec<ContentPart> = kept.map(|kept| kept.leading.clone()).unwrap_or_default();
            let reasoning = reasoning.filter(|_| wants_reasoning_back(adapter) && !tool_calls.is_empty());
            parts.extend(reasoning.map(ContentPart::ReasoningContent));
            if !text.is_empty() {
                parts.push(ContentPart::Text(text));
            }
            // Signatures belong to calls by their place, and a hook may have taken some away.
            let signatures = kept.filter(|kept| kept.calls.len() == tool_calls.len()).map(|kept| &kept.calls);
            parts.extend(tool_calls.into_iter().enumerate().map(|(index, call)| {
                let signature = signatures.and_then(|calls| calls.get(index).cloned()).flatten();
                ContentPart::ToolCall(chat_call(call, signature))
            }));
            (!parts.is_empty()).then(|| ChatMessage::assistant(MessageContent::from_parts(parts)))
        }
        // A role of a later version has nothing that a provider could be told.
        _ => None,
    }
}

/// Providers that ask for the reasoning of a step in which the model called tools.
fn wants_reasoning_back(adapter: AdapterKind) -> bool {
    matches!(adapter, AdapterKind::DeepSeek | AdapterKind::Kimi | AdapterKind::Moonshot | AdapterKind::Mimo)
}

fn chat_call(call: ToolCall, thought_signatures: Option<Vec<String>>) -> ChatCall {
    let fn_arguments = match call.arguments {
        Value::Object(arguments) => Value::Object(arguments),
        Value::Null => Value::Object(Map::new()),
        // Providers refuse a conversation in which arguments are no object, though a model wrote it so.
        other => json!({ "malformed_arguments": other }),
    };
    ChatCall { call_id: call.id, fn_name: wire_name(&call.name), fn_arguments, thought_signatures }
}

fn tool_reply(adapter: AdapterKind, id: String, name: Option<String>, text: String, is_error: bool) -> ContentPart {
    if is_error && adapter == AdapterKind::Anthropic {
        // The client has no field for Anthropic's error flag.
        let block = json!({ "type": "tool_result", "tool_use_id": id, "content": text, "is_error": true });
        return ContentPart::from_custom(block, None);
    }
    let reply = ToolResponse::new(id, text);
    ContentPart::ToolResponse(match name {
        Some(name) => reply.with_fn_name(name),
        None => reply,
    })
}

/// `name` as every provider takes it. A model may write any name, and a conversation may come from elsewhere.
fn wire_name(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' };
    let name: String = name.chars().take(MAX_NAME_CHARS).map(allowed).collect();
    if name.is_empty() { "_".to_owned() } else { name }
}
