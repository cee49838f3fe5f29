//! What a program was answered so far, so that it can be run again from the top to where it was without anything being
//! called twice.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use toolbay_api::{ErrorKind, ToolError};

/// How much of a program is kept for running it again. Beyond it the program goes on, and cannot be suspended any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalBounds {
    /// Bytes of the answers, about as they are stored.
    pub max_bytes: usize,
    /// Answers: of tools, of the clock and of chance.
    pub max_entries: usize,
}

impl Default for JournalBounds {
    /// 1 MiB and 1,000 answers.
    fn default() -> Self {
        Self { max_bytes: 1 << 20, max_entries: 1_000 }
    }
}

/// What a program was answered, by the number of the question.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Journal {
    entries: BTreeMap<u64, Entry>,
    bytes: usize,
    /// Something did not fit: from there on nothing is known.
    is_cut: bool,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Entry {
    /// The tool's qualified name, or what else was asked.
    what: String,
    /// The digest of what was asked.
    asked: String,
    answer: Answered,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answered {
    Ok(Value),
    Error { kind: ErrorKind, message: String, details: Value, retryable: bool },
}

impl Entry {
    pub(super) fn new(what: &str, asked: String, answer: &Result<Value, ToolError>) -> Self {
        let answer = match answer {
            Ok(value) => Answered::Ok(value.clone()),
            Err(error) => Answered::Error {
                kind: error.kind,
                message: error.message.clone().into_owned(),
                details: error.details.clone(),
                retryable: error.retryable,
            },
        };
        Self { what: what.to_owned(), asked, answer }
    }

    /// Whether this is the answer to this question.
    pub(super) fn answers(&self, what: &str, asked: &str) -> bool {
        self.what == what && self.asked == asked
    }

    pub(super) fn what(&self) -> &str {
        &self.what
    }

    /// What was answered.
    ///
    /// # Errors
    /// What was answered.
    pub(super) fn answer(&self) -> Result<Value, ToolError> {
        match &self.answer {
            Answered::Ok(value) => Ok(value.clone()),
            Answered::Error { kind, message, details, retryable } => {
                Err(ToolError::new(*kind, message.clone()).with_details(details.clone()).with_retryable(*retryable))
            }
        }
    }

    /// About the bytes that it takes where it is stored.
    fn bytes(&self) -> usize {
        let answer = match &self.answer {
            Answered::Ok(value) => value.to_string().len(),
            Answered::Error { message, details, .. } => message.len() + details.to_string().len() + 40,
        };
        self.what.len() + self.asked.len() + answer + 40
    }
}

impl Journal {
    pub(super) fn get(&self, number: u64) -> Option<&Entry> {
        self.entries.get(&number)
    }

    /// Writes an answer down, as long as there is room.
    pub(super) fn record(&mut self, number: u64, entry: Entry, bounds: JournalBounds) {
        let bytes = self.bytes.saturating_add(entry.bytes());
        if self.is_cut || bytes > bounds.max_bytes || self.entries.len() >= bounds.max_entries {
            self.is_cut = true;
            return;
        }
        self.bytes = bytes;
        self.entries.insert(number, entry);
    }

    /// The tools that were called, in the order of the calls.
    pub(crate) fn asked(&self) -> impl Iterator<Item = &str> {
        let is_tool = |what: &&str| !super::script::CHANCE.contains(what);
        self.entries.values().map(|entry| entry.what.as_str()).filter(is_tool)
    }

    /// Whether everything that was answered is in it.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.is_cut
    }

    /// Answers in it.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was answered yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// The digest of a question: of a tool's name and its arguments.
pub(super) fn digest(what: &str, arguments: &Value) -> String {
    let mut sum = Sha256::new();
    sum.update((what.len() as u64).to_le_bytes());
    sum.update(what.as_bytes());
    sum.update(arguments.to_string().as_bytes());
    sum.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
