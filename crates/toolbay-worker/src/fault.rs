//! Errors over the wire: all their fields, each text within a bound.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use toolbay_api::{ErrorKind, LoadError, ToolError};

use crate::wire::{Malformed, Reader, Writer};

/// Bytes of an error's text that are taken from a worker.
const MAX_ERROR_TEXT: usize = 4 << 10;

/// A [`ToolError`] with its operator's text, which stays within the host and its workers.
#[derive(Serialize, Deserialize)]
pub(crate) struct Fault {
    kind: ErrorKind,
    message: String,
    details: Value,
    retryable: bool,
    source: Option<String>,
}

impl From<&ToolError> for Fault {
    fn from(error: &ToolError) -> Self {
        Self {
            kind: error.kind,
            message: cut(&error.message).to_owned(),
            details: error.details.clone(),
            retryable: error.retryable,
            source: error.operator_detail().map(|source| cut(&source.to_string()).to_owned()),
        }
    }
}

impl From<Fault> for ToolError {
    fn from(fault: Fault) -> Self {
        let error = Self::new(fault.kind, cut(&fault.message).to_owned())
            .with_details(fault.details)
            .with_retryable(fault.retryable);
        match fault.source {
            Some(source) => error.with_source(cut(&source)),
            None => error,
        }
    }
}

pub(crate) fn write_error(frame: &mut Writer<'_>, error: &ToolError) {
    frame.json(&Fault::from(error));
}

pub(crate) fn read_error(reader: &mut Reader<'_>) -> Result<ToolError, Malformed> {
    reader.json::<Fault>().map(ToolError::from)
}

/// A [`LoadError`] with all its fields.
#[derive(Serialize, Deserialize)]
pub(crate) struct LoadFault {
    kind: ErrorKind,
    file: Option<String>,
    position: Option<(usize, usize)>,
    excerpt: Option<String>,
    message: String,
}

impl From<&LoadError> for LoadFault {
    fn from(error: &LoadError) -> Self {
        Self {
            kind: error.kind,
            file: error.file.clone(),
            position: error.position,
            excerpt: error.excerpt.clone(),
            message: cut(&error.message).to_owned(),
        }
    }
}

impl From<LoadFault> for LoadError {
    fn from(fault: LoadFault) -> Self {
        Self {
            kind: fault.kind,
            file: fault.file.map(|file| cut(&file).to_owned()),
            position: fault.position,
            excerpt: fault.excerpt.map(|excerpt| cut(&excerpt).to_owned()),
            message: cut(&fault.message).to_owned(),
        }
    }
}

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_ERROR_TEXT)).unwrap_or(text)
}
