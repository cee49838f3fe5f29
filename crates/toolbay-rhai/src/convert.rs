//! Values across the sandbox's border: JSON on the host's side, `Dynamic` on the script's.
//!
//! By hand rather than through serde: half again as fast, and every bound is checked while walking. What comes out of
//! a script is hostile: nesting, size, kinds of value that JSON has not.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rhai::{Dynamic, INT};
use serde_json::{Map, Number, Value};
use toolbay_api::{Limit, Limits, ToolError};

use crate::call;

/// A JSON value as the script sees it. Integers beyond 64 signed bits become floats, as in JSON's own model.
///
/// For values whose nesting was bounded where they were parsed: the host's own and checked arguments.
pub(crate) fn to_dynamic(value: &Value) -> Dynamic {
    match value {
        Value::Null => Dynamic::UNIT,
        Value::Bool(value) => (*value).into(),
        Value::Number(number) => number_to_dynamic(number),
        Value::String(text) => text.into(),
        Value::Array(items) => Dynamic::from_array(items.iter().map(to_dynamic).collect()),
        Value::Object(entries) => {
            Dynamic::from_map(entries.iter().map(|(key, value)| (key.as_str().into(), to_dynamic(value))).collect())
        }
    }
}

fn number_to_dynamic(number: &Number) -> Dynamic {
    match number.as_i64() {
        Some(number) => Dynamic::from_int(number),
        None => Dynamic::from_float(number.as_f64().unwrap_or_default()),
    }
}

/// How deeply `value` is nested, counted up to `limit + 1`.
pub(crate) fn is_nested_deeper_than(value: &Value, limit: usize) -> bool {
    match value {
        Value::Array(items) => limit == 0 || items.iter().any(|item| is_nested_deeper_than(item, limit - 1)),
        Value::Object(entries) => limit == 0 || entries.values().any(|entry| is_nested_deeper_than(entry, limit - 1)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// About how many values and 64-byte pieces of text `value` has: what it costs to convert it.
pub(crate) fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 1,
        Value::String(text) => 1 + text.len() / 64,
        Value::Array(items) => 1 + items.iter().map(weight).sum::<usize>(),
        Value::Object(entries) => 1 + entries.values().map(|entry| 1 + weight(entry)).sum::<usize>(),
    }
}

/// A script's value as JSON.
///
/// # Errors
/// `LimitExceeded` with `Nesting` or with `size_limit` past the limits; `Script` for a value that JSON has not.
pub(crate) fn to_value(value: &Dynamic, limits: &Limits, size_limit: Limit) -> Result<Value, ToolError> {
    let allowed = match size_limit {
        Limit::StringSize => limits.max_string_bytes,
        Limit::Arguments => limits.max_argument_bytes,
        _ => limits.max_output_bytes,
    };
    Border { used: 0, allowed, size_limit, max_nesting: limits.max_nesting }.cross(value, 0)
}

/// What crosses outwards, counted as the compact JSON text that it will be.
struct Border {
    used: usize,
    allowed: usize,
    size_limit: Limit,
    max_nesting: usize,
}

impl Border {
    fn cross(&mut self, value: &Dynamic, depth: usize) -> Result<Value, ToolError> {
        if let Ok(text) = value.as_immutable_string_ref() {
            return self.text(&text).map(Value::String);
        }
        if let Ok(number) = value.as_int() {
            self.count(if (0..10).contains(&number) { 1 } else { decimal_width(number) })?;
            return Ok(Value::from(number));
        }
        if let Ok(map) = value.as_map_ref() {
            let depth = self.deeper(depth)?;
            self.count(2 + map.len().saturating_sub(1))?;
            let mut entries = Map::with_capacity(map.len());
            for (key, value) in map.iter() {
                let key = self.text(key)?;
                self.count(1)?;
                entries.insert(key, self.cross(value, depth)?);
            }
            return Ok(Value::Object(entries));
        }
        if let Ok(array) = value.as_array_ref() {
            let depth = self.deeper(depth)?;
            self.count(2 + array.len().saturating_sub(1))?;
            return array.iter().map(|item| self.cross(item, depth)).collect::<Result<_, _>>().map(Value::Array);
        }
        self.rest(value)
    }

    fn rest(&mut self, value: &Dynamic) -> Result<Value, ToolError> {
        if value.is_unit() {
            self.count(4)?;
            return Ok(Value::Null);
        }
        if let Ok(value) = value.as_bool() {
            self.count(if value { 4 } else { 5 })?;
            return Ok(Value::Bool(value));
        }
        if let Ok(number) = value.as_float() {
            self.count(8)?;
            return Number::from_f64(number).map(Value::Number).ok_or_else(|| {
                ToolError::failed(format!("the tool's result contains the number {number}, which JSON does not have"))
            });
        }
        if let Ok(character) = value.as_char() {
            return self.text(character.encode_utf8(&mut [0; 4])).map(Value::String);
        }
        if let Ok(number) = value.as_decimal() {
            return self.text(&number.to_string()).map(Value::String);
        }
        if let Ok(blob) = value.as_blob_ref() {
            self.count(blob.len().div_ceil(3) * 4 + 2)?;
            return Ok(Value::String(STANDARD.encode(&*blob)));
        }
        Err(ToolError::failed(format!(
            "the tool's result contains a {}, which JSON does not have",
            if value.is_fnptr() { "function" } else { call::short_type(value.type_name()) }
        )))
    }

    fn deeper(&self, depth: usize) -> Result<usize, ToolError> {
        let depth = depth + 1;
        if depth > self.max_nesting {
            return Err(ToolError::limit(Limit::Nesting, self.max_nesting as u64, depth as u64));
        }
        Ok(depth)
    }

    fn text(&mut self, text: &str) -> Result<String, ToolError> {
        let escapes = text.bytes().filter(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)).count();
        self.count(text.len() + escapes + 2)?;
        Ok(text.to_owned())
    }

    fn count(&mut self, bytes: usize) -> Result<(), ToolError> {
        self.used = self.used.saturating_add(bytes);
        if self.used > self.allowed {
            return Err(ToolError::limit(self.size_limit, self.allowed as u64, self.used as u64));
        }
        Ok(())
    }
}

fn decimal_width(number: INT) -> usize {
    let digits = number.unsigned_abs().checked_ilog10().unwrap_or(0) as usize + 1;
    digits + usize::from(number < 0)
}
