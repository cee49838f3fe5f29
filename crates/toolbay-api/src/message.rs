//! The conversation between agent and model, as hooks, models and recordings see it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::tool::ToolDefinition;

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Message {
    /// Instructions of the developer.
    System {
        /// The text.
        text: String,
    },
    /// What the user said.
    User {
        /// The text.
        text: String,
    },
    /// What the model said.
    Assistant {
        /// Its text, possibly empty.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        text: String,
        /// Its reasoning, where the provider shows it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reasoning: Option<String>,
        /// The tools that it wants called.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tool_calls: Vec<ToolCall>,
    },
    /// The reply to one tool call.
    Tool {
        /// The call that this answers.
        call_id: String,
        /// The reply as the model reads it.
        text: String,
        /// Whether the tool failed.
        #[serde(default)]
        is_error: bool,
    },
}

impl Message {
    /// A user's message.
    pub fn user(text: impl Into<String>) -> Self {
        Self::User { text: text.into() }
    }

    /// A developer's message.
    pub fn system(text: impl Into<String>) -> Self {
        Self::System { text: text.into() }
    }
}

/// A tool call that a model asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    /// The model's id of the call; the reply carries it.
    pub id: String,
    /// The tool, by its qualified name or by the name that the provider was given.
    pub name: String,
    /// The arguments. Text that was no JSON is a JSON string here, so that the schema refuses it with a message.
    pub arguments: Value,
}

/// What a model is asked.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelRequest {
    /// The conversation so far.
    pub messages: Vec<Message>,
    /// The tools that it may call, under the names that the provider accepts.
    pub tools: Vec<ToolDefinition>,
    /// The most tokens of its reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u32>,
    /// The sampling temperature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
}

/// What a model answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelResponse {
    /// Its text, possibly empty.
    #[serde(default)]
    pub text: String,
    /// Its reasoning, where the provider shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<String>,
    /// The tools that it wants called, in its order.
    #[serde(default)]
    pub tool_calls: Vec<ToolCall>,
    /// Why it stopped.
    #[serde(default)]
    pub finish: FinishReason,
    /// What it used.
    #[serde(default)]
    pub tokens: Tokens,
}

/// Why a model stopped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FinishReason {
    /// It was done.
    #[default]
    Stop,
    /// It wants tools called.
    ToolCalls,
    /// It ran into its token limit: text and arguments may be cut.
    Length,
    /// The provider withheld the reply.
    ContentFilter,
    /// A reason that this version does not know.
    Other,
}

/// Tokens used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// Tokens of the request.
    pub input: u64,
    /// Tokens of the reply, reasoning included.
    pub output: u64,
}
