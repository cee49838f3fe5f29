//! Reads recordings. Whatever is in a file, it ends with a recording or with an error that names a line, within bounds.

use std::io::{BufRead, Read as _};

use serde_json::Value;

use super::ReplayError;
use crate::record::lines::{Head, Line, VERSION, VERSION_KEY};

/// How much is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadBounds {
    /// Bytes of a recording.
    pub max_bytes: u64,
    /// Bytes of a line.
    pub max_line_bytes: u64,
}

impl Default for ReadBounds {
    /// More than is [recorded](crate::RecordBounds) by default.
    fn default() -> Self {
        Self { max_bytes: 64 << 20, max_line_bytes: 16 << 20 }
    }
}

/// A recording as it was read: whole, and of a version that this program knows. What is in it is as its writer said.
#[derive(Debug, Clone, PartialEq)]
pub struct Recording {
    head: Head,
    lines: Vec<(usize, Line)>,
}

impl Recording {
    /// Reads a recording.
    ///
    /// # Errors
    /// [`ReplayError`] with the line: one that is no line of a recording or too long, a version that is newer than this
    /// program's, a recording that was cut or is too long.
    pub fn read(mut reader: impl BufRead, bounds: &ReadBounds) -> Result<Self, ReplayError> {
        let mut lines = Lines { number: 0, read: 0, bounds };
        let first =
            lines.next(&mut reader)?.ok_or_else(|| ReplayError::new(1, "the file is empty: it is no recording"))?;
        let head = head(&first)?;
        let mut all = Vec::new();
        let mut is_over = false;
        while let Some(text) = lines.next(&mut reader)? {
            let number = lines.number;
            if is_over {
                return Err(ReplayError::new(number, "something stands behind the last line of the run"));
            }
            let line = parsed(&text, number)?;
            is_over = matches!(line, Line::Finished { .. } | Line::Cut { .. });
            all.push((number, line));
        }
        if !is_over {
            let message = "the recording ends here, before its run does: it was cut off, or the run was given up";
            return Err(ReplayError::new(lines.number, message));
        }
        Ok(Self { head, lines: all })
    }

    /// The first line.
    #[must_use]
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The other lines, with their numbers.
    #[must_use]
    pub fn lines(&self) -> &[(usize, Line)] {
        &self.lines
    }
}

struct Lines<'a> {
    number: usize,
    read: u64,
    bounds: &'a ReadBounds,
}

impl Lines<'_> {
    fn next(&mut self, reader: &mut impl BufRead) -> Result<Option<String>, ReplayError> {
        self.number += 1;
        let error = |message: String| Err(ReplayError::new(self.number, message));
        let ReadBounds { max_bytes, max_line_bytes } = *self.bounds;
        let mut bytes = Vec::new();
        // One more than may be, by which too much is told.
        let most = max_line_bytes.min(max_bytes.saturating_sub(self.read)).saturating_add(1);
        if let Err(problem) = reader.by_ref().take(most).read_until(b'\n', &mut bytes) {
            return error(format!("the file cannot be read: {problem}"));
        }
        self.read = self.read.saturating_add(bytes.len() as u64);
        if bytes.len() as u64 > max_line_bytes {
            return error(format!("the line has more than {max_line_bytes} bytes"));
        }
        if self.read > max_bytes {
            return error(format!("the recording has more than {max_bytes} bytes"));
        }
        if bytes.is_empty() {
            self.number -= 1;
            return Ok(None);
        }
        if bytes.pop_if(|last| *last == b'\n').is_none() {
            return error("the recording was cut off within this line, which has no end".to_owned());
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(_) => error("the line is not UTF-8".to_owned()),
        }
    }
}

fn head(text: &str) -> Result<Head, ReplayError> {
    let error = |message: String| Err(ReplayError::new(1, message));
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(problem) => return error(format!("this is no recording: {}", worded(&problem))),
    };
    match value.get(VERSION_KEY).map(Value::as_u64) {
        None => return error(format!("this is no recording: its first line has no {VERSION_KEY:?}")),
        Some(version) if version == Some(VERSION.into()) => {}
        Some(Some(version)) if version > VERSION.into() => {
            return error(format!(
                "the recording is of version {version}, and this program reads version {VERSION}; use a newer one"
            ));
        }
        Some(_) => return error(format!("{VERSION_KEY:?} is to be {VERSION}")),
    }
    serde_json::from_value(value).or_else(|problem| error(format!("the first line does not fit: {}", worded(&problem))))
}

fn parsed(text: &str, number: usize) -> Result<Line, ReplayError> {
    let error = |problem: String| ReplayError::new(number, problem);
    let value: Value =
        serde_json::from_str(text).map_err(|problem| error(format!("this is no JSON: {}", worded(&problem))))?;
    let Value::Object(mut fields) = value else { return Err(error("a line is a JSON object".to_owned())) };
    if !fields.remove("at_ms").is_some_and(|at| at.is_u64()) {
        return Err(error("\"at_ms\" is missing: the milliseconds since the run began".to_owned()));
    }
    serde_json::from_value(Value::Object(fields))
        .map_err(|problem| error(format!("this is no line of a recording: {}", worded(&problem))))
}

/// serde counts lines within the text, which is always one; only the column tells something.
fn worded(problem: &serde_json::Error) -> String {
    let said = problem.to_string();
    match said.split_once(" at line ") {
        Some((what, _)) => format!("{what} at column {}", problem.column()),
        None => said,
    }
}
