//! Calls a session's tools with recorded arguments and compares what they give with what was recorded.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use toolbay_api::{ToolCall, WireResult};
use toolbay_runtime::Session;

use super::{Difference, Recording, ReplayError, shortened};
use crate::record::lines::Line;

/// What stands in the place of what a recording must not have.
const HIDDEN: &str = "***";

/// Calls the tools of `session` whose names `is_meant` takes, with the arguments that were recorded, in their order, and gives
/// the calls whose results differ. Tools are really called, with their effects; a call that was made several times is made
/// once. One whose arguments were not recorded whole is not made, which is a difference too.
///
/// # Errors
/// [`ReplayError`] where the recording is cut.
///
/// # Cancel safety
/// Dropping the future ends the call that is made; what tools did is done.
pub async fn with_tools(
    recording: &Recording,
    session: &Session,
    is_meant: impl Fn(&str) -> bool,
) -> Result<Vec<Difference>, ReplayError> {
    let lines = recording.lines();
    if let Some((number, Line::Cut { reason })) = lines.last() {
        return Err(ReplayError::new(*number, format!("the recording ends here: {reason}")));
    }
    let answers: BTreeMap<_, _> = lines.iter().filter_map(answer).collect();
    let mut calls: BTreeMap<&str, (usize, &str, &Value)> = BTreeMap::new();
    for (number, line) in lines {
        if let Line::ToolStarted { call, tool, arguments } = line
            && is_meant(tool)
        {
            calls.insert(call, (*number, tool, arguments));
        }
    }
    let mut calls: Vec<_> = calls.into_iter().collect();
    calls.sort_by_key(|(_, (number, ..))| *number);
    let run = session.run();
    let mut differences = Vec::new();
    for (id, (line, tool, arguments)) in calls {
        let recorded = answers.get(id).map_or_else(|| "no result".to_owned(), |result| worded(result));
        let now = if holds_hidden(arguments) {
            "not called, since its arguments were not recorded whole".to_owned()
        } else {
            let call = ToolCall { id: id.to_owned(), name: tool.to_owned(), arguments: arguments.clone() };
            worded(&run.call(0, call).await.to_wire())
        };
        if now != recorded {
            let what = format!("{tool} ({id})");
            differences.push(Difference { line, what, recorded: shortened(&recorded), now: shortened(&now) });
        }
    }
    Ok(differences)
}

fn answer((_, line): &(usize, Line)) -> Option<(&str, &WireResult)> {
    if let Line::ToolAnswered { call, result, .. } = line { Some((call, result)) } else { None }
}

fn holds_hidden(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains(HIDDEN),
        Value::Array(items) => items.iter().any(holds_hidden),
        Value::Object(fields) => fields.iter().any(|(key, value)| key.contains(HIDDEN) || holds_hidden(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// A result without what differs from call to call.
fn worded(result: &WireResult) -> String {
    match &result.error {
        None => result.data.to_string(),
        Some(error) => {
            json!({ "error": { "kind": error.kind, "message": error.message, "details": error.details } }).to_string()
        }
    }
}
