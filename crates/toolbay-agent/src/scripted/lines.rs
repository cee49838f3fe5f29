//! The file form of a scripted model: JSON Lines. It stands apart because its keys are a promise to users of the
//! command line, while the model itself may change.

use serde::Deserialize;
use serde_json::Value;
use toolbay_api::{
    ModelResponse, ToolCall,
    message::{FinishReason, Tokens},
};

/// A script that is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the script: {message}")]
pub struct ScriptError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it and what to do.
    pub message: String,
}

/// One line of a script.
pub(super) enum Reply {
    Answer(ModelResponse),
    Error(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    text: Option<String>,
    reasoning: Option<String>,
    tool_calls: Option<Vec<Call>>,
    #[serde(default)]
    finish: FinishReason,
    #[serde(default)]
    tokens: Tokens,
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    #[serde(default)]
    id: String,
    name: String,
    #[serde(default = "no_arguments")]
    arguments: Value,
}

fn no_arguments() -> Value {
    Value::Object(serde_json::Map::new())
}

pub(super) fn parse(text: &str) -> Result<Vec<Reply>, ScriptError> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(line, text)| parse_line(text).map_err(|message| ScriptError { line, message }))
        .collect()
}

fn parse_line(text: &str) -> Result<Reply, String> {
    let line: Line = serde_json::from_str(text).map_err(|error| {
        // serde counts lines within the text, which is always one; only the column tells something here.
        let said = error.to_string();
        let said = said.split(" at line ").next().unwrap_or_default();
        format!("{said} at column {}; write one JSON object with \"text\", \"tool_calls\" or \"error\"", error.column())
    })?;
    match line {
        Line { error: Some(error), text: None, reasoning: None, tool_calls: None, .. } => Ok(Reply::Error(error)),
        Line { error: Some(_), .. } => Err("\"error\" stands alone: put the reply on a line of its own".into()),
        Line { text: None, tool_calls: None, .. } => Err("give \"text\", \"tool_calls\" or \"error\"".into()),
        Line { text, reasoning, tool_calls, finish, tokens, .. } => {
            let tool_calls = tool_calls.unwrap_or_default().into_iter();
            let tool_calls = tool_calls.map(|Call { id, name, arguments }| ToolCall { id, name, arguments }).collect();
            Ok(Reply::Answer(ModelResponse { text: text.unwrap_or_default(), reasoning, tool_calls, finish, tokens }))
        }
    }
}
