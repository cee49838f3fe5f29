//! A reply as it comes in: each piece is told at once, and the whole is what a request without streaming would have given.
//!
//! The client's stream says what text and reasoning are. What it passes over or cannot bound is read from the frames
//! themselves (`chunks`): refusals, failures with their kind, and in OpenAI's form the tool calls, for which the client
//! makes room by an index that a server is free to choose.

mod chunks;

use std::{collections::HashMap, sync::Arc};

use futures::StreamExt;
use genai::{
    Error,
    adapter::AdapterKind,
    chat::{ChatOptions, ChatStreamEvent, StreamEnd, ToolCall as ChatCall},
};
use serde_json::Value;
use toolbay_api::{ModelRequest, ModelResponse, async_trait};

use super::{Provider, config::Target, failure, response};
use crate::{
    model::{ModelError, ModelErrorKind},
    parts::Parts,
};
use chunks::Frames;

/// Bytes of one streamed reply, its framing included; no model writes as much.
const MAX_REPLY_BYTES: usize = 16 * 1024 * 1024;

/// A piece of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplyDelta {
    /// Text of the answer.
    Text(String),
    /// Reasoning, where the provider shows it.
    Reasoning(String),
    /// A part of a tool call.
    ToolCall {
        /// The call's place among those of the reply.
        index: usize,
        /// The provider's id of the call; empty where it gave none yet.
        id: String,
        /// The tool; empty where it was told before.
        name: String,
        /// What was added to the arguments' text.
        arguments: String,
    },
}

/// Hears the pieces of a reply, and may make the provider wait.
#[async_trait]
pub(super) trait Told: Send {
    async fn tell(&mut self, piece: ReplyDelta);
}

struct ByFunction<'a>(&'a mut (dyn FnMut(ReplyDelta) + Send));

#[async_trait]
impl Told for ByFunction<'_> {
    async fn tell(&mut self, piece: ReplyDelta) {
        (self.0)(piece);
    }
}

/// Puts the pieces into a run's stream.
pub(super) struct ToParts<'a>(pub(super) &'a Parts);

#[async_trait]
impl Told for ToParts<'_> {
    async fn tell(&mut self, piece: ReplyDelta) {
        match piece {
            ReplyDelta::Text(text) => self.0.text(&text).await,
            ReplyDelta::Reasoning(text) => self.0.reasoning(&text).await,
            ReplyDelta::ToolCall { index, id, name, arguments } => {
                // The name comes with a call's first piece, and the id is told with it.
                let first = !name.is_empty();
                let (id, name) = (first.then_some(id.as_str()), first.then_some(name.as_str()));
                self.0.tool_call(index, id, name, &arguments).await;
            }
        }
    }
}

impl Provider {
    /// Answers `request` as [`respond`](crate::model::Model::respond) does, and tells each piece of the reply when it comes in.
    ///
    /// Pieces of a reply that fails half-way were told and are no reply: whoever shows them must be able to take them back.
    ///
    /// # Errors
    /// As [`respond`](crate::model::Model::respond); `Network` where the reply broke off, `Protocol` where it has more bytes
    /// than any reply.
    ///
    /// # Cancel safety
    /// Dropping the future ends the request.
    pub async fn respond_streaming(
        &self,
        request: ModelRequest,
        told: &mut (dyn FnMut(ReplyDelta) + Send),
    ) -> Result<ModelResponse, ModelError> {
        self.streamed(request, &mut ByFunction(told)).await
    }

    /// The same, with whoever may make it wait.
    pub(super) async fn streamed(
        &self,
        request: ModelRequest,
        told: &mut dyn Told,
    ) -> Result<ModelResponse, ModelError> {
        let target = &self.target;
        let reads_calls = has_openais_form(target.adapter);
        let frames = Arc::new(Frames::new(MAX_REPLY_BYTES));
        let options = ChatOptions::default()
            .with_capture_usage(true)
            .with_capture_content(true)
            .with_capture_reasoning_content(true)
            .with_capture_tool_calls(!reads_calls)
            .with_normalize_reasoning_content(true)
            .with_raw_frame_sink_arc(Arc::clone(&frames) as _);
        let prepared = self.prepare(request, options);
        let opened = self.client.exec_chat_stream(prepared.model, prepared.chat, Some(&prepared.options)).await;
        let mut stream = opened.map_err(|error| failure::model_error(&error, target))?.stream;
        let mut lengths = HashMap::new();
        let mut end = None;
        while let Some(event) = stream.next().await {
            if frames.is_too_much() {
                return Err(failure::not_understood(target, "the reply has more bytes than any reply"));
            }
            match event {
                Ok(ChatStreamEvent::Chunk(chunk)) => told.tell(ReplyDelta::Text(chunk.content)).await,
                Ok(ChatStreamEvent::ReasoningChunk(chunk)) => told.tell(ReplyDelta::Reasoning(chunk.content)).await,
                Ok(ChatStreamEvent::ToolCallChunk(chunk)) if !reads_calls => {
                    told.tell(added(&mut lengths, &chunk.tool_call)).await;
                }
                Ok(ChatStreamEvent::End(stream_end)) => end = Some(stream_end),
                Ok(_) => {}
                Err(error) => return Err(broken(&error, &frames, target)),
            }
            for piece in frames.take_told() {
                told.tell(piece).await;
            }
        }
        for piece in frames.take_told() {
            told.tell(piece).await;
        }
        let whole = self.whole(end, &frames, reads_calls, prepared.place);
        whole.map(|response| prepared.schemas.restored(response))
    }

    /// The reply that the stream came to.
    fn whole(
        &self,
        end: Option<StreamEnd>,
        frames: &Frames,
        reads_calls: bool,
        place: u64,
    ) -> Result<ModelResponse, ModelError> {
        let read = frames.take_read();
        let end = match end {
            Some(end) => end,
            // Some servers say why they stopped and leave out that they did.
            None if read.finish.is_some() => StreamEnd::default(),
            None => {
                let message = format!("the reply of the model {} broke off: try again", self.target.id);
                return Err(ModelError::new(ModelErrorKind::Network, message));
            }
        };
        let content = end.captured_content.unwrap_or_default();
        self.continuity.keep(place, &content);
        let texts = content.texts().join("\n\n");
        let parts = response::Parts {
            text: if texts.is_empty() { read.text } else { texts },
            reasoning: end.captured_reasoning_content,
            calls: if reads_calls { read.calls } else { response::tool_calls(content) },
            finish: response::finish(end.captured_stop_reason.as_ref()).or(read.finish),
            refusal: read.refusal,
            tokens: end.captured_usage.map(|usage| response::tokens(&usage)).unwrap_or(read.tokens),
        };
        response::put_together(parts, &self.target)
    }
}

/// Providers whose streams the client reads as OpenAI's chat completions, and nothing else.
fn has_openais_form(adapter: AdapterKind) -> bool {
    matches!(
        adapter,
        AdapterKind::OpenAI
            | AdapterKind::Groq
            | AdapterKind::DeepSeek
            | AdapterKind::Xai
            | AdapterKind::Together
            | AdapterKind::Fireworks
            | AdapterKind::Mistral
            | AdapterKind::Moonshot
            | AdapterKind::Kimi
            | AdapterKind::Nebius
            | AdapterKind::OpenRouter
    )
}

/// What a piece added to a call, of which the client gives the whole so far.
fn added(lengths: &mut HashMap<String, (usize, usize)>, call: &ChatCall) -> ReplyDelta {
    let arguments = match &call.fn_arguments {
        Value::String(text) => text.as_str().to_owned(),
        other => other.to_string(),
    };
    let known = lengths.get(&call.call_id).copied();
    let (index, done) = known.unwrap_or((lengths.len(), 0));
    let name = if known.is_none() { call.fn_name.clone() } else { String::new() };
    let new = arguments.get(done..).unwrap_or_default().to_owned();
    lengths.insert(call.call_id.clone(), (index, arguments.len()));
    ReplyDelta::ToolCall { index, id: call.call_id.clone(), name, arguments: new }
}

/// An error in the middle of a stream, or at its beginning.
fn broken(error: &Error, frames: &Frames, target: &Target) -> ModelError {
    match frames.failure() {
        Some(said) => failure::reported(&said, target),
        None => failure::model_error(error, target),
    }
}
