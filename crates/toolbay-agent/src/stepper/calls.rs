//! Makes what a model wrote as a tool call into one that can be answered: a unique id, and arguments that are JSON
//! wherever they can be read as such.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use toolbay_api::Message;

/// Providers make ids of up to 64 characters; a longer one is a fault, and every request would carry it again.
const MAX_ID_BYTES: usize = 128;
/// Some models encode the arguments' text once more as a JSON string, none was seen to do so more than twice.
const MAX_ENCODINGS: usize = 3;

/// The call ids of a conversation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Ids(BTreeSet<String>);

impl Ids {
    /// The ids that are taken in `messages`.
    pub(super) fn of(messages: &[Message]) -> Self {
        let calls = messages.iter().filter_map(|message| match message {
            Message::Assistant { tool_calls, .. } => Some(tool_calls),
            _ => None,
        });
        Self(calls.flatten().map(|call| call.id.clone()).collect())
    }

    /// `wanted`, or a new id where it is empty, too long or taken.
    pub(super) fn unique(&mut self, wanted: String) -> String {
        let usable = !wanted.is_empty() && wanted.len() <= MAX_ID_BYTES && !self.0.contains(&wanted);
        let id = if usable { wanted } else { self.made_up() };
        self.0.insert(id.clone());
        id
    }

    fn made_up(&self) -> String {
        // Ends: the set is finite, and its size is a first guess that is nearly always free.
        let mut number = self.0.len() + 1;
        loop {
            let id = format!("call_{number}");
            if !self.0.contains(&id) {
                return id;
            }
            number += 1;
        }
    }
}

/// Reads arguments that came as text: `{}` for nothing at all, the object where the text is one, also if it was
/// encoded more than once. Other text stays, so that the tool's schema refuses it with a message to the model.
pub(super) fn read_arguments(arguments: &mut Value) {
    for _ in 0..MAX_ENCODINGS {
        let read = match arguments {
            Value::Null => Some(Value::Object(Map::new())),
            Value::String(text) if text.trim().is_empty() => Some(Value::Object(Map::new())),
            Value::String(text) => {
                serde_json::from_str::<Value>(text).ok().filter(|read| read.is_object() || read.is_string())
            }
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => None,
        };
        match read {
            Some(read) => *arguments = read,
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn arguments_are_read_as_an_object_wherever_they_are_one() {
        let read = |mut arguments: Value| {
            read_arguments(&mut arguments);
            arguments
        };
        assert_eq!(read(json!({"a": 1})), json!({"a": 1}));
        assert_eq!(read(json!("{\"a\": 1}")), json!({"a": 1}));
        assert_eq!(read(json!("\"{\\\"a\\\": 1}\"")), json!({"a": 1}));
        assert_eq!(read(json!("  ")), json!({}));
        assert_eq!(read(Value::Null), json!({}));
        assert_eq!(read(json!("{\"a\": ")), json!("{\"a\": "));
        assert_eq!(read(json!("[1]")), json!("[1]"));
        assert_eq!(read(json!([1])), json!([1]));
    }

    #[test]
    fn ids_are_kept_where_they_can_be_and_made_up_where_not() {
        let mut ids = Ids::default();
        assert_eq!(ids.unique("call_3".into()), "call_3");
        assert_eq!(ids.unique("x".into()), "x");
        assert_eq!(ids.unique("x".into()), "call_4");
        assert_eq!(ids.unique(String::new()), "call_5");
        assert_eq!(ids.unique("long".repeat(100)), "call_6");
    }
}
