//! Requests and replies of rig as Toolbay's hooks see them, and what the hooks changed back into rig's.

use std::collections::HashSet;

use rig_core::{
    completion::{CompletionRequest, CompletionResponse},
    message::{
        AssistantContent, Message as RigMessage, Text, ToolCall as RigCall, ToolFunction, ToolResultContent,
        UserContent,
    },
};
use serde_json::Value;
use toolbay_api::{
    Message, ModelRequest, ModelResponse, ToolCall, ToolDefinition,
    message::{FinishReason, Tokens},
};

/// What rig has no place for.
pub(crate) struct NoPlace(pub(crate) &'static str);

pub(crate) fn messages<'a>(of: impl IntoIterator<Item = &'a RigMessage>) -> Vec<Message> {
    of.into_iter().flat_map(message).collect()
}

/// Rig has the replies to tool calls in a user's message; ours are messages of their own, and go first.
fn message(message: &RigMessage) -> Vec<Message> {
    match message {
        RigMessage::System { content } => vec![Message::system(content)],
        RigMessage::User { content } => {
            let (mut replies, mut texts) = (Vec::new(), Vec::new());
            for part in content {
                match part {
                    UserContent::Text(text) => texts.push(text.text.clone()),
                    UserContent::ToolResult(result) => replies.push(Message::Tool {
                        call_id: result.call.wire().into_owned(),
                        text: result.content.iter().map(shown).collect::<Vec<_>>().join("\n"),
                        is_error: result.is_error,
                    }),
                    _ => texts.push("(an attachment)".to_owned()),
                }
            }
            if !texts.is_empty() {
                replies.push(Message::user(texts.join("\n\n")));
            }
            replies
        }
        RigMessage::Assistant(said) => {
            let Said { text, reasoning, tool_calls } = said_in(&said.content);
            vec![Message::Assistant { text, reasoning, tool_calls }]
        }
    }
}

fn shown(content: &ToolResultContent) -> String {
    match content {
        ToolResultContent::Text(text) => text.text.clone(),
        ToolResultContent::Json { value } => value.to_string(),
        ToolResultContent::Image(_) => "(an image)".to_owned(),
    }
}

struct Said {
    text: String,
    reasoning: Option<String>,
    tool_calls: Vec<ToolCall>,
}

fn said_in(content: &[AssistantContent]) -> Said {
    let (mut texts, mut thoughts, mut tool_calls) = (Vec::new(), Vec::new(), Vec::new());
    for part in content {
        match part {
            AssistantContent::Text(text) => texts.push(text.text.as_str()),
            AssistantContent::Reasoning(reasoning) => thoughts.push(reasoning.text.as_str()),
            AssistantContent::ToolCall(call) => tool_calls.push(our_call(call)),
            _ => {}
        }
    }
    let reasoning = thoughts.join("\n");
    Said { text: texts.join("\n\n"), reasoning: (!reasoning.is_empty()).then_some(reasoning), tool_calls }
}

fn our_call(call: &RigCall) -> ToolCall {
    let arguments = match &call.function.invalid_arguments {
        Some(text) => Value::String(text.clone()),
        None => Value::Object(call.function.arguments.clone()),
    };
    ToolCall { id: call.id.wire().into_owned(), name: call.function.name.to_string(), arguments }
}

pub(crate) fn request(request: &CompletionRequest) -> ModelRequest {
    let tools = request.tools.iter();
    let tools = tools
        .filter_map(|tool| ToolDefinition::new(tool.name.as_str(), &tool.description, tool.parameters.clone()).ok());
    ModelRequest {
        messages: messages(&request.chat_history),
        tools: tools.collect(),
        max_output_tokens: request.max_tokens.and_then(|most| u32::try_from(most).ok()),
        temperature: request.temperature,
    }
}

/// `request` with what hooks changed in `after`; `None` where they changed nothing.
pub(crate) fn changed_request(
    request: &CompletionRequest,
    before: &ModelRequest,
    after: &ModelRequest,
) -> Result<Option<CompletionRequest>, NoPlace> {
    if before == after {
        return Ok(None);
    }
    if before.messages != after.messages {
        return Err(NoPlace("a hook rewrote the conversation of a request"));
    }
    if after.tools.iter().any(|tool| !before.tools.contains(tool)) {
        return Err(NoPlace("a hook added or rewrote a tool of a request"));
    }
    let left: HashSet<&str> = after.tools.iter().map(|tool| tool.name.as_str()).collect();
    let taken: HashSet<&str> =
        before.tools.iter().map(|tool| tool.name.as_str()).filter(|name| !left.contains(name)).collect();
    let mut changed = request.clone();
    changed.tools.retain(|tool| !taken.contains(tool.name.as_str()));
    changed.max_tokens = after.max_output_tokens.map(u64::from);
    changed.temperature = after.temperature;
    Ok(Some(changed))
}

pub(crate) fn response(response: &CompletionResponse) -> ModelResponse {
    let Said { text, reasoning, tool_calls } = said_in(&response.choice);
    let count = |tokens: Option<u64>| tokens.unwrap_or(0);
    let tokens = Tokens { input: count(response.usage.input_tokens), output: count(response.usage.output_tokens) };
    let finish = if tool_calls.is_empty() { FinishReason::Stop } else { FinishReason::ToolCalls };
    ModelResponse { text, reasoning, tool_calls, finish, tokens }
}

/// `response` with what hooks changed in `after`; `None` where they changed nothing.
pub(crate) fn changed_response(
    response: &CompletionResponse,
    before: &ModelResponse,
    after: &ModelResponse,
) -> Result<Option<CompletionResponse>, NoPlace> {
    if before == after {
        return Ok(None);
    }
    if after
        .tool_calls
        .iter()
        .any(|call| !before.tool_calls.iter().any(|known| known.id == call.id && known.name == call.name))
    {
        return Err(NoPlace("a hook added a call to a reply"));
    }
    let mut changed = response.clone();
    let mut text = (before.text != after.text).then(|| after.text.clone());
    let replaces_text = text.is_some();
    changed.choice = Vec::new();
    for part in &response.choice {
        match part {
            AssistantContent::Text(_) if replaces_text => {
                changed.choice.extend(text.take().filter(|text| !text.is_empty()).map(AssistantContent::text));
            }
            AssistantContent::Reasoning(_) if before.reasoning != after.reasoning => {}
            AssistantContent::ToolCall(call) => {
                let id = call.id.wire();
                let Some(kept) = after.tool_calls.iter().find(|kept| kept.id == *id) else { continue };
                changed.choice.push(AssistantContent::ToolCall(if kept.arguments == our_call(call).arguments {
                    call.clone()
                } else {
                    let function = ToolFunction::new(call.function.name.clone(), kept.arguments.clone());
                    RigCall::new(call.id.clone(), function)
                }));
            }
            other => changed.choice.push(other.clone()),
        }
    }
    // A hook gave a text to a reply that had none.
    changed.choice.extend(text.filter(|text| !text.is_empty()).map(AssistantContent::text));
    // The provider's document says what the hooks took out.
    changed.raw = Value::Null;
    Ok(Some(changed))
}

/// The prompt with the text that hooks left, where that is all that they changed.
pub(crate) fn changed_prompt(before: &[Message], after: &[Message]) -> Result<Option<RigMessage>, NoPlace> {
    if before == after {
        return Ok(None);
    }
    match (before.split_last(), after.split_last()) {
        (Some((Message::User { .. }, earlier)), Some((Message::User { text }, left))) if earlier == left => {
            Ok(Some(RigMessage::User { content: vec![UserContent::Text(Text::new(text))] }))
        }
        _ => Err(NoPlace("a hook rewrote the conversation")),
    }
}
