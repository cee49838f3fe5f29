//! Signatures of tools as a model reads them: JSON Schemas in the few words that types of values need.
//!
//! A signature says what to write, not all that is checked: patterns, bounds and conditions are the schema's, which the road
//! checks on every call. It is bounded in length, however large or recursive the schema is.

use std::fmt::Write as _;

use serde_json::Value;
use toolbay_api::ToolFunction;

use super::names::is_plain_key;

/// Types within types that are written out.
const MAX_DEPTH: usize = 4;
/// Bytes after which no more is written out.
const MAX_BYTES: usize = 900;
/// Choices of one place, and keys of one map.
const MAX_CHOICES: usize = 12;
const MAX_KEYS: usize = 40;

/// The function with the types of what it takes and gives: `todo::add(#{title: string, due?: string}) -> any`.
pub(super) fn signature(function: &ToolFunction, parameters: &Value, output: Option<&Value>) -> String {
    let ToolFunction { space, name, .. } = function;
    let mut text = format!("{space}::{name}(");
    let writer = Writer { root: parameters };
    let has_parameters = parameters.get("properties").and_then(Value::as_object).is_some_and(|keys| !keys.is_empty());
    let is_open = parameters.get("additionalProperties").is_some_and(|more| *more != Value::Bool(false));
    if has_parameters || is_open || !function.without_arguments {
        writer.write(&mut text, parameters, 0);
    }
    text.push(')');
    if let Some(output) = output {
        text.push_str(" -> ");
        Writer { root: output }.write(&mut text, output, 0);
    }
    text
}

struct Writer<'a> {
    root: &'a Value,
}

impl Writer<'_> {
    fn write(&self, text: &mut String, schema: &Value, depth: usize) {
        if depth > MAX_DEPTH || text.len() > MAX_BYTES {
            text.push_str("any");
            return;
        }
        if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            let local = target.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
            return match local {
                Some(found) => self.write(text, found, depth + 1),
                None => text.push_str("any"),
            };
        }
        if let Some(only) = schema.get("const") {
            literal(text, only);
            return;
        }
        if let Some(choices) = schema.get("enum").and_then(Value::as_array) {
            return alternatives(text, choices, literal);
        }
        for word in ["anyOf", "oneOf"] {
            if let Some(choices) = schema.get(word).and_then(Value::as_array)
                && schema.get("properties").is_none()
            {
                return alternatives(text, choices, |text, choice| self.write(text, choice, depth + 1));
            }
        }
        match schema.get("type") {
            Some(Value::String(kind)) => self.write_type(text, kind, schema, depth),
            Some(Value::Array(kinds)) => alternatives(text, kinds, |text, kind| {
                self.write_type(text, kind.as_str().unwrap_or("any"), schema, depth);
            }),
            _ if schema.get("properties").is_some() => self.map(text, schema, depth),
            _ if schema.get("items").is_some() => self.list(text, schema, depth),
            _ => match schema.get("allOf").and_then(Value::as_array).map(Vec::as_slice) {
                Some([only]) => self.write(text, only, depth + 1),
                _ => text.push_str("any"),
            },
        }
    }

    fn write_type(&self, text: &mut String, kind: &str, schema: &Value, depth: usize) {
        match kind {
            "object" => self.map(text, schema, depth),
            "array" => self.list(text, schema, depth),
            "integer" => text.push_str("int"),
            "number" => text.push_str("float"),
            "boolean" => text.push_str("bool"),
            "string" => text.push_str("string"),
            "null" => text.push_str("()"),
            _ => text.push_str("any"),
        }
    }

    fn list(&self, text: &mut String, schema: &Value, depth: usize) {
        text.push('[');
        match schema.get("items") {
            Some(items) => self.write(text, items, depth + 1),
            None => text.push_str("any"),
        }
        text.push(']');
    }

    fn map(&self, text: &mut String, schema: &Value, depth: usize) {
        let keys = schema.get("properties").and_then(Value::as_object);
        let required = required(schema);
        let is_required = |key: &str| required.iter().any(|name| name == key);
        text.push_str("#{");
        let mut first = true;
        let mut separate = |text: &mut String| {
            if !std::mem::take(&mut first) {
                text.push_str(", ");
            }
        };
        let named = |key: &str| keys.and_then(|keys| keys.get(key)).map(|value| (key.to_owned(), value));
        let needed = required.iter().filter_map(|key| named(key));
        let others = keys.into_iter().flatten().filter(|(key, _)| !is_required(key));
        let entries: Vec<_> = needed.chain(others.map(|(key, value)| (key.clone(), value))).collect();
        for (key, value) in entries.iter().take(MAX_KEYS) {
            if text.len() > MAX_BYTES {
                break;
            }
            separate(text);
            key_into(text, key);
            text.push_str(if is_required(key) { ": " } else { "?: " });
            self.write(text, value, depth + 1);
        }
        let is_cut = entries.len() > MAX_KEYS || text.len() > MAX_BYTES;
        match schema.get("additionalProperties") {
            Some(Value::Object(more)) if !more.is_empty() && !is_cut => {
                separate(text);
                text.push_str("...: ");
                self.write(text, &Value::Object(more.clone()), depth + 1);
            }
            _ if is_cut || entries.is_empty() => {
                separate(text);
                text.push_str("...");
            }
            _ => {}
        }
        text.push('}');
    }
}

/// The names of the parameters that are required, in the schema's order.
pub(super) fn required(schema: &Value) -> Vec<String> {
    let names = schema.get("required").and_then(Value::as_array);
    names.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn alternatives(text: &mut String, choices: &[Value], mut write: impl FnMut(&mut String, &Value)) {
    for (index, choice) in choices.iter().take(MAX_CHOICES).enumerate() {
        if index > 0 {
            text.push_str(" | ");
        }
        if text.len() > MAX_BYTES {
            text.push_str("any");
            return;
        }
        write(text, choice);
    }
    if choices.len() > MAX_CHOICES {
        text.push_str(" | ...");
    }
    if choices.is_empty() {
        text.push_str("any");
    }
}

fn key_into(text: &mut String, key: &str) {
    if is_plain_key(key) {
        text.push_str(key);
    } else {
        literal(text, &Value::String(key.chars().take(80).collect()));
    }
}

/// A value as Rhai has it, where it is a simple one.
fn literal(text: &mut String, value: &Value) {
    match value {
        Value::Null => text.push_str("()"),
        Value::String(long) if long.len() > 80 => text.push_str("string"),
        Value::Array(_) => text.push_str("[any]"),
        Value::Object(_) => text.push_str("#{...}"),
        simple => {
            let _ = write!(text, "{simple}");
        }
    }
}
