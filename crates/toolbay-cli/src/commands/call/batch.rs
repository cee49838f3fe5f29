//! A batch of calls: JSON Lines in, one wire result a line out. It stands apart because its promise is about lines: as
//! many come out as went in, in their order, whatever is in them.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use toolbay::{CallMetadata, ErrorKind, Session, TenantId, ToolError, WireResult};

use crate::{
    exit::{CliError, Status},
    host::Host,
    output,
};

/// The longest line; the rest of a longer one is passed over.
const MAX_LINE_BYTES: usize = 16 << 20;

/// Sessions that are kept at hand; a batch may name any number of tenants.
const MAX_SESSIONS: usize = 1_024;

/// One line of a batch.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object")]
struct Line {
    tool: String,
    #[serde(default = "no_arguments")]
    args: Value,
    tenant: Option<TenantId>,
}

fn no_arguments() -> Value {
    Value::Object(Map::new())
}

/// Opens a batch: a file, or standard input for `-`.
pub(super) fn open(file: &Path) -> Result<Box<dyn BufRead>, CliError> {
    if file == Path::new("-") {
        return Ok(Box::new(BufReader::new(io::stdin())));
    }
    let opened = File::open(file);
    let opened = opened.map_err(|error| CliError::usage(format!("--batch: {}: {error}", file.display())))?;
    Ok(Box::new(BufReader::new(opened)))
}

/// Works off a batch. Reading blocks: the task runs on the main thread, and between two lines nothing else is to be done.
pub(super) async fn run(host: &Host, tenant: &TenantId, mut input: Box<dyn BufRead>) -> Result<Status, CliError> {
    let mut sessions: HashMap<TenantId, Session> = HashMap::new();
    let (mut line, mut number) = (Vec::new(), 0);
    loop {
        number += 1;
        let length = read_line(&mut input, &mut line)
            .map_err(|error| CliError::usage(format!("--batch: line {number} cannot be read: {error}")))?;
        let Some(length) = length else { return Ok(Status::Success) };
        if line.trim_ascii().is_empty() && length == line.len() {
            continue;
        }
        let result = match parse(&line, length) {
            Ok(Line { tool, args, tenant: named }) => {
                let tenant = named.as_ref().unwrap_or(tenant);
                if sessions.len() >= MAX_SESSIONS && !sessions.contains_key(tenant) {
                    sessions.clear();
                }
                let session = match sessions.get(tenant) {
                    Some(session) => session,
                    None => sessions.entry(tenant.clone()).or_insert(host.session_of(tenant)?),
                };
                session.call(&tool, args).await.to_wire()
            }
            Err(problem) => malformed(number, &problem),
        };
        match output::json_line(&result) {
            Ok(()) => {}
            // Lines are left over that nobody would read of: not the whole batch was worked off.
            Err(CliError::Closed) => return Ok(Status::Failed),
            Err(error) => return Err(error),
        }
    }
}

/// Reads the next line into `line`, at most [`MAX_LINE_BYTES`] of it, and gives its whole length; `None` at the end.
fn read_line(input: &mut dyn BufRead, line: &mut Vec<u8>) -> io::Result<Option<usize>> {
    line.clear();
    let mut length = 0;
    loop {
        let chunk = match input.fill_buf() {
            Ok(chunk) => chunk,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if chunk.is_empty() {
            return Ok((length > 0).then_some(length));
        }
        let end = chunk.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
        let room = MAX_LINE_BYTES - line.len();
        line.extend_from_slice(part.get(..room.min(part.len())).unwrap_or_default());
        length += part.len();
        let used = part.len();
        input.consume(used);
        if end.is_some() {
            return Ok(Some(length));
        }
    }
}

fn parse(line: &[u8], length: usize) -> Result<Line, String> {
    if length > line.len() {
        return Err(format!("it has {length} bytes, and {MAX_LINE_BYTES} are allowed: pass less data"));
    }
    serde_json::from_slice(line).map_err(|error| {
        // serde counts lines within the text, which is always one; only the column tells something here.
        let said = error.to_string();
        let said = said.split(" at line ").next().unwrap_or_default();
        format!("{said} at column {}; write {{\"tool\": ..., \"args\": {{...}}, \"tenant\": ...}}", error.column())
    })
}

/// The result of a line that is no call.
fn malformed(number: usize, problem: &str) -> WireResult {
    let error = ToolError::new(ErrorKind::InvalidArguments, format!("line {number} of the batch: {problem}"));
    let error = error.with_details(json!({ "line": number }));
    WireResult::new(Err(error), CallMetadata::default().to_json())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8]) -> Vec<(usize, usize)> {
        let mut input = BufReader::with_capacity(7, text);
        let mut line = Vec::new();
        std::iter::from_fn(|| read_line(&mut input, &mut line).unwrap().map(|length| (line.len(), length))).collect()
    }

    #[test]
    fn lines_are_read_across_buffers_and_without_a_last_line_end() {
        assert_eq!(lines(b"0123456789\n\nab"), [(11, 11), (1, 1), (2, 2)]);
        assert_eq!(lines(b""), []);
    }

    #[test]
    fn a_line_that_is_too_long_is_not_kept_in_memory_and_stops_no_other() {
        let mut text = vec![b'x'; MAX_LINE_BYTES + 5];
        text.extend_from_slice(b"\nab\n");
        assert_eq!(lines(&text), [(MAX_LINE_BYTES, MAX_LINE_BYTES + 6), (3, 3)]);
    }

    #[test]
    fn a_malformed_line_says_where() {
        let problem = |line: &str| parse(line.as_bytes(), line.len()).err().unwrap();
        assert!(problem("{").contains("at column 1"));
        assert!(problem(r#"{"tool": "x", "arg": {}}"#).contains("unknown field `arg`"));
        assert!(problem(r#"{"tool": "x", "tenant": "a/b"}"#).contains("tenant id \"a/b\" is not allowed"));
        assert!(problem("{}").contains("missing field `tool`"));
    }
}
