//! JSON into the tree. `serde_json` says whether the text is JSON and reads the scalars; the places of things, which it
//! does not tell, are found by walking the text that it accepted.

use std::collections::HashSet;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use super::{Entry, Fault, Kind, MAX_DEPTH, Node, Place};

pub(super) fn read(text: &str) -> Result<Node, Fault> {
    serde_json::from_str::<IgnoredAny>(text)
        .map_err(|error| of_serde(&error, Place::Line(error.line(), error.column())))?;
    let mut walk = Walk { text, at: 0 };
    walk.value(1)
}

/// Its message without the place, which is told apart from it.
fn of_serde(error: &serde_json::Error, at: Place) -> Fault {
    let (message, suffix) = (error.to_string(), format!(" at line {} column {}", error.line(), error.column()));
    Fault::new(message.strip_suffix(&suffix).unwrap_or(&message), at)
}

/// A place in a text that is known to be JSON.
struct Walk<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Walk<'t> {
    fn value(&mut self, depth: usize) -> Result<Node, Fault> {
        let first = self.peek();
        let at = Place::Offset(self.at);
        if depth > MAX_DEPTH {
            return Err(Fault::too_deep(at));
        }
        let kind = match first {
            b'{' => Kind::Table(self.entries(depth)?),
            b'[' => Kind::List(self.items(depth)?),
            b'"' => Kind::Scalar(Value::String(self.text()?)),
            _ => Kind::Scalar(self.word()?),
        };
        Ok(Node { at, kind })
    }

    fn entries(&mut self, depth: usize) -> Result<Vec<Entry>, Fault> {
        let (mut entries, mut seen) = (Vec::new(), HashSet::new());
        self.at += 1;
        while self.peek() == b'"' {
            let at = Place::Offset(self.at);
            let key = self.text()?;
            if !seen.insert(key.clone()) {
                return Err(Fault::new(format!("the key {key:?} stands there twice: keep one"), at));
            }
            // The colon.
            self.peek();
            self.at += 1;
            entries.push(Entry { key, at, value: self.value(depth + 1)? });
            self.comma();
        }
        // The closing brace.
        self.at += 1;
        Ok(entries)
    }

    fn items(&mut self, depth: usize) -> Result<Vec<Node>, Fault> {
        let mut items = Vec::new();
        self.at += 1;
        while !matches!(self.peek(), b']' | 0) {
            items.push(self.value(depth + 1)?);
            self.comma();
        }
        self.at += 1;
        Ok(items)
    }

    fn comma(&mut self) {
        if self.peek() == b',' {
            self.at += 1;
        }
    }

    fn text(&mut self) -> Result<String, Fault> {
        let rest = self.rest().as_bytes();
        let mut escaped = false;
        let end = rest.iter().skip(1).position(|byte| {
            let closes = *byte == b'"' && !escaped;
            escaped = *byte == b'\\' && !escaped;
            closes
        });
        self.scalar(end.map_or(rest.len(), |end| end + 2))
    }

    /// A number, or one of the three words.
    fn word(&mut self) -> Result<Value, Fault> {
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')));
        self.scalar(end.unwrap_or(rest.len()).max(1))
    }

    fn scalar<T: DeserializeOwned>(&mut self, length: usize) -> Result<T, Fault> {
        let at = Place::Offset(self.at);
        let text = self.rest().get(..length).unwrap_or_default();
        self.at += length;
        serde_json::from_str(text).map_err(|error| of_serde(&error, at))
    }

    /// The next byte that is no blank; 0 at the end.
    fn peek(&mut self) -> u8 {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
        self.rest().bytes().next().unwrap_or_default()
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }
}
