//! What a tool gives back: inside as a [`ToolOutput`], on the wire as a [`WireResult`], the same in every interface.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{content::Content, error::ToolError};

/// What a tool that succeeded gives back.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ToolOutput {
    /// The result as data.
    pub data: Value,
    /// What it shows beside the data, to programs that can show it. Empty for most tools.
    pub content: Vec<Content>,
}

impl ToolOutput {
    /// Takes over data.
    #[must_use]
    pub fn new(data: Value) -> Self {
        Self { data, content: Vec::new() }
    }

    /// Shows pictures, sounds and documents. Programs that read data alone get a text that stands for them.
    #[must_use]
    pub fn showing(content: Vec<Content>) -> Self {
        let text: Vec<_> = content.iter().map(Content::to_text).collect();
        Self { data: Value::String(text.join("\n")), content }
    }

    /// Converts anything that serde can.
    ///
    /// # Errors
    /// `Internal` where the value has no JSON form, such as a map whose keys are not strings.
    pub fn json(value: impl Serialize) -> Result<Self, ToolError> {
        serde_json::to_value(value).map(Self::new).map_err(|error| {
            ToolError::new(crate::ErrorKind::Internal, "the tool's result has no JSON form").with_source(error)
        })
    }

    /// The result as a model reads it: a string as it is, other data as compact JSON.
    #[must_use]
    pub fn to_text(&self) -> String {
        match &self.data {
            Value::String(text) => text.clone(),
            data => data.to_string(),
        }
    }
}

impl From<Value> for ToolOutput {
    fn from(data: Value) -> Self {
        Self::new(data)
    }
}

/// The result of a call in every interface: `{success, data, error, metadata}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WireResult {
    /// Whether the tool succeeded.
    pub success: bool,
    /// Its result, `null` after a failure.
    pub data: Value,
    /// Its error, `null` after success.
    pub error: Option<WireError>,
    /// `duration_ms`, `operations`, `peak_bytes`, `host_calls` and what later versions add.
    pub metadata: Map<String, Value>,
}

impl WireResult {
    /// The wire form of `result`.
    #[must_use]
    pub fn new(result: Result<ToolOutput, ToolError>, metadata: Map<String, Value>) -> Self {
        match result {
            Ok(output) => Self { success: true, data: output.data, error: None, metadata },
            Err(error) => Self { success: false, data: Value::Null, error: Some(WireError::from(&error)), metadata },
        }
    }
}

/// An error as callers see it. It has no field for the operator's details.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WireError {
    /// The name of the [`ErrorKind`](crate::ErrorKind).
    pub kind: String,
    /// What went wrong and what to do.
    pub message: String,
    /// Data beside the message, `null` where there is none.
    pub details: Value,
    /// Whether the same call can succeed later.
    pub retryable: bool,
}

impl From<&ToolError> for WireError {
    fn from(error: &ToolError) -> Self {
        Self {
            kind: error.kind.name().to_owned(),
            message: error.message.clone().into_owned(),
            details: error.details.clone(),
            retryable: error.retryable,
        }
    }
}
