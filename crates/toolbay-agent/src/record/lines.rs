//! The lines of a recording, as they are written and read. They stand apart since they are a promise: what this version writes
//! later ones read.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use toolbay_api::{
    HookPoint, Message, ModelResponse, RunId, TenantId, ToolCall, ToolDefinition, WireResult, message::Tokens,
};

use crate::{
    bounds::RunOutcome,
    budget::Exhausted,
    stepper::{RunEnd, StepperConfig, ToolReply},
};

/// The version of the format that this program writes.
pub const VERSION: u32 = 1;
/// The key of the first line that has the version, by which a recording is told from other files.
pub const VERSION_KEY: &str = "toolbay_recording";

/// The first line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The version of the format.
    pub toolbay_recording: u32,
    /// The run.
    pub run: RunId,
    /// Whose.
    pub tenant: TenantId,
    /// The model's name.
    pub model: String,
    /// When the run began, in milliseconds since 1970, UTC.
    pub started_at_ms: i64,
    /// What the loop was set to.
    pub config: StepperConfig,
    /// The tools that the user could see.
    pub tools: Vec<ToolMark>,
}

/// A tool, as a recording knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ToolMark {
    /// Its qualified name.
    pub name: String,
    /// The name that the model knows it by.
    pub provider_name: String,
    /// The plugin's version.
    pub version: String,
    /// A digest of its definition.
    pub digest: String,
}

/// Any other line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
#[allow(missing_docs, reason = "the fields are named by the vocabulary's own types")]
#[allow(clippy::large_enum_variant, reason = "most lines of a run are of the large kinds")]
pub enum Line {
    /// The conversation that was given to the run, before hooks saw it.
    Input { messages: Vec<Message> },
    /// The loop began, with this conversation and these tools by the names that the model knows them by.
    Began { messages: Vec<Message>, tools: Vec<String> },
    /// The model got one tool more.
    Offered { tool: String },
    /// The loop decided to ask the model: so many messages, of which those are new whose digests stand here.
    Asks { step: u32, messages: usize, new: Vec<String>, tools: usize },
    /// The model's reply before hooks saw it.
    ModelAnswered { step: u32, response: ModelResponse },
    /// The reply as hooks left it, which the loop was told.
    ModelReplied { response: ModelResponse },
    /// The model failed, and hooks had this feedback for it.
    ModelFailed { feedback: Option<String> },
    /// The loop decided to have these tools called.
    Calls { step: u32, calls: Vec<ToolCall> },
    /// A hook decided.
    Hook { point: HookPoint, hook: String, call: Option<String>, decision: String },
    /// A tool was called, with the arguments as hooks left them.
    ToolStarted { call: String, tool: String, arguments: Value },
    /// What it gave, before hooks saw it.
    ToolAnswered { call: String, tool: String, result: WireResult },
    /// The call's end, whether it reached the tool or not.
    ToolFinished { call: String, tool: String, error: Option<String>, duration_ms: Option<f64> },
    /// What the loop was told of the call.
    ToolReplied { reply: ToolReply },
    /// Somebody ended the run.
    Stopped { outcome: RunOutcome },
    /// Something ran out.
    RanOut { outcome: RunOutcome, exhausted: Exhausted },
    /// Tokens were used by a reply that does not count.
    Spent { tokens: Tokens },
    /// Calls were made inside a call of the model, by the tools' qualified names.
    CalledInside { tools: Vec<String>, exhausted: Option<Exhausted> },
    /// The loop decided that the run is over.
    Ends { end: RunEnd },
    /// The run is over: what its caller got. The last line.
    Finished { outcome: String, text: String, steps: u32, tool_calls: u32 },
    /// Nothing more was recorded, for this reason. The last line.
    Cut { reason: String },
}

impl Line {
    /// What it is about, for messages.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Input { .. } => "input",
            Self::Began { .. } => "began",
            Self::Offered { .. } => "offered",
            Self::Asks { .. } => "asks",
            Self::ModelAnswered { .. } => "model_answered",
            Self::ModelReplied { .. } => "model_replied",
            Self::ModelFailed { .. } => "model_failed",
            Self::Calls { .. } => "calls",
            Self::Hook { .. } => "hook",
            Self::ToolStarted { .. } => "tool_started",
            Self::ToolAnswered { .. } => "tool_answered",
            Self::ToolFinished { .. } => "tool_finished",
            Self::ToolReplied { .. } => "tool_replied",
            Self::Stopped { .. } => "stopped",
            Self::RanOut { .. } => "ran_out",
            Self::Spent { .. } => "spent",
            Self::CalledInside { .. } => "called_inside",
            Self::Ends { .. } => "ends",
            Self::Finished { .. } => "finished",
            Self::Cut { .. } => "cut",
        }
    }
}

/// A digest of a message. Sixteen digits: it is to tell messages apart, and keeps nothing secret.
#[must_use]
pub fn digest_of(message: &Value) -> String {
    short(&Sha256::digest(message.to_string()))
}

/// A digest of a tool's definition.
#[must_use]
pub fn digest_of_tool(definition: &ToolDefinition) -> String {
    // A definition was JSON when it was registered, so it has a JSON form.
    short(&Sha256::digest(serde_json::to_vec(definition).unwrap_or_default()))
}

fn short(digest: &[u8]) -> String {
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
