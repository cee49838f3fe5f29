//! How a worker ended, and what that means for each of its calls.
//!
//! The call that was to blame gets its own kind of error. Those beside it did nothing wrong: they get an error that is
//! worth a retry, never an answer.

use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus};

use serde_json::{Value, json};
use toolbay_api::{ErrorKind, Limit, ToolError};

use crate::{frame::LastWord, wire::Malformed};

/// Why a worker is no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    /// It was no longer needed.
    Retired,
    /// It said what it died of, in which call.
    Said(u64, LastWord),
    /// It sent what no worker sends.
    Violation(Malformed),
    /// A call did not end when it had to.
    Overrun(u64),
    /// It grew over what its calls may hold, to this many bytes.
    Overweight(u64),
    /// It ended without a word.
    Silent(Option<ExitStatus>),
}

impl Death {
    /// Whether a worker that ends like this counts towards a restart storm.
    pub(crate) fn is_abnormal(&self) -> bool {
        !matches!(self, Self::Retired)
    }

    /// The error of one call. `sole` says that no other call was running.
    pub(crate) fn error(&self, call: u64, memory_limit: u64, sole: bool) -> ToolError {
        match *self {
            Self::Said(guilty, LastWord::Memory { used, .. }) if guilty == call => {
                ToolError::limit(Limit::Memory, memory_limit, used.max(memory_limit.saturating_add(1)))
            }
            Self::Said(guilty, LastWord::Signal(signal)) if guilty == call => broken(json!({ "signal": signal })),
            Self::Overrun(guilty) if guilty == call => timed_out(),
            Self::Overweight(used) if sole => {
                ToolError::limit(Limit::Memory, memory_limit, used.max(memory_limit.saturating_add(1)))
            }
            Self::Silent(status) if sole => broken(described(status)),
            Self::Violation(what) => ToolError::new(
                ErrorKind::Unavailable,
                "the tool's worker process was stopped because of a fault; try again",
            )
            .with_source(format!("a worker sent what no worker sends: {what}")),
            Self::Retired | Self::Said(..) | Self::Overrun(_) | Self::Overweight(_) | Self::Silent(_) => {
                ToolError::new(
                    ErrorKind::Unavailable,
                    "the tool's worker process was stopped because of another call; try again",
                )
            }
        }
    }
}

/// The tool's process broke down, as a panic would within the host.
fn broken(details: Value) -> ToolError {
    let text = "the tool's process broke down; this is a fault of the tool, not of the arguments: tell the operator";
    ToolError::new(ErrorKind::Panic, text).with_details(details)
}

pub(crate) fn timed_out() -> ToolError {
    ToolError::new(
        ErrorKind::TimedOut,
        "the tool did not finish within its time and was stopped; ask for less at once or try again",
    )
}

fn described(status: Option<ExitStatus>) -> Value {
    match status.map(|status| (status.code(), status.signal())) {
        Some((Some(code), _)) => json!({ "exit": code }),
        Some((None, Some(signal))) => json!({ "signal": signal }),
        _ => json!({ "exit": Value::Null }),
    }
}
