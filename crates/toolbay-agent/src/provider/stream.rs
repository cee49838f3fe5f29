//! A provider's reply piece by piece.

use futures::StreamExt;
use genai::ModelIden;
use genai::chat::{ChatOptions, ChatRequest, ChatResponse, ChatStreamEvent, StreamEnd, ToolCall};
use serde_json::Value;

use super::{Provider, failure};
use crate::{
    model::{ModelError, ModelErrorKind},
    parts::Parts,
};

/// The calls that a reply has so far: of each its id, and how much of its arguments' text was put out.
#[derive(Default)]
struct Calls(Vec<(String, usize)>);

impl Provider {
    /// Asks, and puts pieces out as they come. The whole is as one that came at once, but for its raw body, which is not kept.
    pub(super) async fn streamed(
        &self,
        model: ModelIden,
        chat: ChatRequest,
        options: ChatOptions,
        parts: &Parts,
    ) -> Result<ChatResponse, ModelError> {
        let options = options
            .with_capture_content(true)
            .with_capture_reasoning_content(true)
            .with_capture_tool_calls(true)
            .with_capture_usage(true);
        let failed = |error: &genai::Error| failure::of_stream(error, &self.target);
        let mut stream = self.client.exec_chat_stream(model.clone(), chat, Some(&options)).await;
        let stream = &mut stream.as_mut().map_err(|error| failed(error))?.stream;
        let mut calls = Calls::default();
        while let Some(event) = stream.next().await {
            match event.map_err(|error| failed(&error))? {
                ChatStreamEvent::Chunk(piece) => parts.text(&piece.content).await,
                ChatStreamEvent::ReasoningChunk(piece) => parts.reasoning(&piece.content).await,
                ChatStreamEvent::ToolCallChunk(piece) => calls.put(&piece.tool_call, parts).await,
                ChatStreamEvent::End(end) => return Ok(whole(end, model)),
                ChatStreamEvent::Start | ChatStreamEvent::ThoughtSignatureChunk(_) | ChatStreamEvent::Heartbeat => {}
            }
        }
        let message = format!("the model {} broke its reply off: try again", self.target.id);
        Err(ModelError::new(ModelErrorKind::Network, message))
    }
}

impl Calls {
    /// The client gives what there is of a call so far; what is new of it goes out.
    async fn put(&mut self, call: &ToolCall, parts: &Parts) {
        let text = match &call.fn_arguments {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            arguments => arguments.to_string(),
        };
        let known = self.0.iter_mut().enumerate().find(|(_, (id, _))| *id == call.call_id);
        let (index, done, first) = match known {
            Some((index, (_, done))) => (index, std::mem::replace(done, text.len()), false),
            None => {
                self.0.push((call.call_id.clone(), text.len()));
                (self.0.len() - 1, 0, true)
            }
        };
        let (id, name) = (first.then_some(call.call_id.as_str()), first.then_some(call.fn_name.as_str()));
        parts.tool_call(index, id, name, text.get(done..).unwrap_or_default()).await;
    }
}

fn whole(end: StreamEnd, model: ModelIden) -> ChatResponse {
    ChatResponse {
        content: end.captured_content.unwrap_or_default(),
        reasoning_content: end.captured_reasoning_content,
        model_iden: model.clone(),
        provider_model_iden: model,
        stop_reason: end.captured_stop_reason,
        usage: end.captured_usage.unwrap_or_default(),
        captured_raw_body: None,
        response_id: end.captured_response_id,
    }
}
