//! Goes through recorded runs again: [`strict`] drives the loop with what was recorded and compares what it decides,
//! [`with_hooks`] asks present hooks about recorded runs, [`with_tools`] calls present tools with recorded arguments.

mod hooks;
mod read;
mod strict;
mod tools;

use std::fmt;

use serde::Serialize;

pub use hooks::with_hooks;
pub use read::{ReadBounds, Recording};
pub use strict::{Replayed, strict};
pub use tools::with_tools;

/// A recording that cannot be read, or a loop that does something else than was recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ReplayError {
    /// The line of the recording, from 1.
    pub line: usize,
    /// What is wrong there.
    pub message: String,
}

impl ReplayError {
    fn new(line: usize, message: impl Into<String>) -> Self {
        Self { line, message: message.into() }
    }
}

/// Something that is other now than it was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The line of the recording that it is about.
    pub line: usize,
    /// What is looked at: a hook point with its step or call, or a call of a tool.
    pub what: String,
    /// What was recorded.
    pub recorded: String,
    /// What is so now.
    pub now: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, what, recorded, now } = self;
        write!(f, "line {line}: {what}: recorded {recorded}, now {now}")
    }
}

/// `text` up to a length that is worth reading.
fn shortened(text: &str) -> String {
    const MOST: usize = 300;
    let mut shown: String = text.chars().take(MOST).collect();
    if shown.len() < text.len() {
        shown.push_str("...");
    }
    shown
}
