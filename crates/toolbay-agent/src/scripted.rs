//! A model that says what it was told to say, for tests, demonstrations and rehearsals.

mod lines;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use serde_json::Value;
use toolbay_api::{
    ModelRequest, ModelResponse, ToolCall,
    message::{FinishReason, Tokens},
};

pub use lines::ScriptError;

use crate::{
    model::{Model, ModelError, ModelErrorKind},
    parts::Parts,
};

/// Bytes of a piece of arguments.
const PIECE: usize = 12;

/// A model whose replies are written beforehand.
///
/// Replies are given out in order; a request after the last one fails with [`ModelErrorKind::ScriptEnded`]. Clones
/// share replies and records, so a test keeps one to look at what was asked.
///
/// ```
/// use serde_json::json;
/// use toolbay_agent::ScriptedModel;
///
/// let model = ScriptedModel::new().calls("fx", json!({"amount": 5, "to": "EUR"})).says("5 dollars are 4.6 euros.");
/// let for_the_test = model.clone();
/// assert!(for_the_test.requests().is_empty());
/// ```
#[derive(Clone, Default)]
pub struct ScriptedModel(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    replies: VecDeque<Result<ModelResponse, ModelError>>,
    requests: Vec<ModelRequest>,
    written: usize,
    made_ids: usize,
}

impl ScriptedModel {
    /// A model without replies yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads replies from JSON Lines, one reply a line; blank lines and lines that begin with `#` are passed over.
    ///
    /// A line is an object with these keys, all optional but for one of `text`, `tool_calls` and `error`:
    ///
    /// - `text`: what the model says;
    /// - `tool_calls`: `[{"name": ..., "arguments": ..., "id": ...}]`; an absent `id` is made up; `arguments` that are
    ///   a string stand for text that the model wrote instead of an object;
    /// - `reasoning`: its reasoning;
    /// - `finish`: `stop`, `tool_calls`, `length` or `content_filter`;
    /// - `tokens`: `{"input": ..., "output": ...}`;
    /// - `error`: the request fails with this text, and nothing else stands in the line.
    ///
    /// ```
    /// let script = r#"
    ///     {"tool_calls": [{"name": "fx.convert", "arguments": {"amount": 5, "to": "EUR"}}]}
    ///     {"text": "5 dollars are 4.6 euros."}
    /// "#;
    /// let model = toolbay_agent::ScriptedModel::from_json_lines(script)?;
    /// # Ok::<(), toolbay_agent::ScriptError>(())
    /// ```
    ///
    /// # Errors
    /// [`ScriptError`] with the line's number.
    pub fn from_json_lines(text: &str) -> Result<Self, ScriptError> {
        let mut model = Self::new();
        for reply in lines::parse(text)? {
            model = match reply {
                lines::Reply::Answer(response) => model.replies(response),
                lines::Reply::Error(message) => {
                    model.fails(ModelError::new(ModelErrorKind::Overloaded, message).with_retryable(false))
                }
            };
        }
        Ok(model)
    }

    /// Adds a reply. Tool calls without an id get one; a [`FinishReason::Stop`] beside tool calls becomes
    /// [`FinishReason::ToolCalls`].
    #[must_use]
    pub fn replies(self, mut response: ModelResponse) -> Self {
        let mut script = self.lock();
        for call in response.tool_calls.iter_mut().filter(|call| call.id.is_empty()) {
            script.made_ids += 1;
            call.id = format!("call_{}", script.made_ids);
        }
        if response.finish == FinishReason::Stop && !response.tool_calls.is_empty() {
            response.finish = FinishReason::ToolCalls;
        }
        script.push(Ok(response));
        drop(script);
        self
    }

    /// Adds a reply of text.
    #[must_use]
    pub fn says(self, text: impl Into<String>) -> Self {
        self.replies(ModelResponse { text: text.into(), ..ModelResponse::default() })
    }

    /// Adds a reply that calls one tool.
    #[must_use]
    pub fn calls(self, tool: impl Into<String>, arguments: Value) -> Self {
        self.calls_all([(tool, arguments)])
    }

    /// Adds a reply that calls several tools at once.
    #[must_use]
    pub fn calls_all<N: Into<String>>(self, calls: impl IntoIterator<Item = (N, Value)>) -> Self {
        let tool_calls = calls
            .into_iter()
            .map(|(name, arguments)| ToolCall { id: String::new(), name: name.into(), arguments })
            .collect();
        self.replies(ModelResponse { tool_calls, ..ModelResponse::default() })
    }

    /// Adds a reply that calls one tool with text in the place of its arguments, as a model does that writes bad JSON.
    #[must_use]
    pub fn raw_calls(self, tool: impl Into<String>, arguments: impl Into<String>) -> Self {
        self.calls(tool, Value::String(arguments.into()))
    }

    /// Adds a failure.
    #[must_use]
    pub fn fails(self, error: ModelError) -> Self {
        self.lock().push(Err(error));
        self
    }

    /// Sets what the last added reply says of its tokens.
    #[must_use]
    pub fn using(self, input: u64, output: u64) -> Self {
        if let Some(Ok(reply)) = self.lock().replies.back_mut() {
            reply.tokens = Tokens { input, output };
        }
        self
    }

    /// Gives the last added reply some reasoning.
    #[must_use]
    pub fn thinking(self, reasoning: impl Into<String>) -> Self {
        if let Some(Ok(reply)) = self.lock().replies.back_mut() {
            reply.reasoning = Some(reasoning.into());
        }
        self
    }

    /// The requests seen so far, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<ModelRequest> {
        self.lock().requests.clone()
    }

    /// How many replies were not asked for yet.
    #[must_use]
    pub fn replies_left(&self) -> usize {
        self.lock().replies.len()
    }

    fn lock(&self) -> MutexGuard<'_, Script> {
        // A panic elsewhere cannot leave the script half changed, so a poisoned lock is as good as another.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Script {
    fn push(&mut self, reply: Result<ModelResponse, ModelError>) {
        self.written += 1;
        self.replies.push_back(reply);
    }
}

#[async_trait]
impl Model for ScriptedModel {
    fn id(&self) -> &str {
        "scripted"
    }

    async fn respond(&self, request: ModelRequest) -> Result<ModelResponse, ModelError> {
        let mut script = self.lock();
        script.requests.push(request);
        let (written, asked) = (script.written, script.requests.len());
        script.replies.pop_front().unwrap_or_else(|| {
            Err(ModelError::new(
                ModelErrorKind::ScriptEnded,
                format!("the scripted model has {written} replies and was asked {asked} times: add a reply"),
            ))
        })
    }

    /// Word by word, and arguments by pieces of a few characters, as real models do it.
    async fn respond_in_parts(&self, request: ModelRequest, parts: &Parts) -> Result<ModelResponse, ModelError> {
        let response = self.respond(request).await?;
        for word in response.reasoning.as_deref().unwrap_or_default().split_inclusive(' ') {
            parts.reasoning(word).await;
        }
        for word in response.text.split_inclusive(' ') {
            parts.text(word).await;
        }
        for (index, call) in response.tool_calls.iter().enumerate() {
            parts.tool_call(index, Some(&call.id), Some(&call.name), "").await;
            let arguments = match &call.arguments {
                Value::String(text) => text.clone(),
                arguments => arguments.to_string(),
            };
            let mut rest = arguments.as_str();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(rest.ceil_char_boundary(PIECE));
                parts.tool_call(index, None, None, piece).await;
                rest = after;
            }
        }
        Ok(response)
    }
}
