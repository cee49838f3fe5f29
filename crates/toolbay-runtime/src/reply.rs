//! What a call comes back with.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value};
use toolbay_api::{CallId, ErrorKind, Isolation, ToolError, ToolOutput, WireResult};

use crate::{approval::PendingApproval, gates::Stop};

/// What a call comes back with, whatever became of it.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The call.
    pub call: CallId,
    /// The tool's qualified name, or what the caller wrote where there is no such tool.
    pub tool: Arc<str>,
    /// The result as the caller sees it.
    pub result: Result<ToolOutput, ToolError>,
    /// What the call used.
    pub metadata: CallMetadata,
    /// Set where a hook ended the run.
    pub stop: Option<Stop>,
    /// What error hooks want the model to read beside the error.
    pub feedback: Option<String>,
    /// Where the call was not made since somebody has to approve it first: what they are to be shown. Several where the tool
    /// made calls that wait.
    pub waits: Vec<PendingApproval>,
}

/// What a call used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CallMetadata {
    /// Wall-clock time from look-up to reply.
    pub duration: Duration,
    /// Steps of the interpreter.
    pub operations: u64,
    /// The most bytes held at any instant; 0 where it is not known.
    pub peak_bytes: u64,
    /// Host functions called.
    pub host_calls: u64,
    /// Where the code ran.
    pub isolation: Isolation,
}

impl CallMetadata {
    /// The `metadata` of the wire form.
    #[must_use]
    pub fn to_json(&self) -> Map<String, Value> {
        let milliseconds = (self.duration.as_secs_f64() * 1e6).round() / 1e3;
        let mut map = Map::new();
        map.insert("duration_ms".to_owned(), milliseconds.into());
        map.insert("operations".to_owned(), self.operations.into());
        map.insert("peak_bytes".to_owned(), self.peak_bytes.into());
        map.insert("host_calls".to_owned(), self.host_calls.into());
        map.insert("isolation".to_owned(), self.isolation.name().into());
        map
    }
}

impl Reply {
    /// The wire form.
    #[must_use]
    pub fn to_wire(&self) -> WireResult {
        WireResult::new(self.result.clone(), self.metadata.to_json())
    }

    /// Whether the call failed.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.result.is_err()
    }

    /// The result as a model reads it; after a failure its kind, message and details, and what hooks have to add.
    #[must_use]
    pub fn model_text(&self) -> String {
        let mut text = match &self.result {
            Ok(output) => return output.to_text(),
            Err(error) => format!("{}: {}", error.kind, error.message),
        };
        // The problems of arguments stand in the message already, in words.
        if let Err(error) = &self.result
            && !error.details.is_null()
            && error.kind != ErrorKind::InvalidArguments
        {
            text.push_str("\ndetails: ");
            text.push_str(&error.details.to_string());
        }
        if let Some(feedback) = &self.feedback {
            text.push('\n');
            text.push_str(feedback);
        }
        text
    }
}
