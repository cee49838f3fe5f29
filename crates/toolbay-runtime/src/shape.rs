//! Bounds on values that cross the road: bytes as compact JSON, and nesting.

use serde_json::Value;
use toolbay_api::{Limit, ToolError};

/// `Ok` where `value` takes at most `max_bytes` as compact JSON and nests at most `max_nesting` deep.
///
/// The walk stops at the first excess, so that its cost is bounded by the limits, not by the value.
///
/// # Errors
/// `LimitExceeded` with `bytes` or [`Limit::Nesting`].
pub(crate) fn check(value: &Value, bytes: Limit, max_bytes: usize, max_nesting: usize) -> Result<(), ToolError> {
    let mut left = Some(max_bytes);
    match walk(value, &mut left, max_nesting) {
        Walk::Fits => Ok(()),
        Walk::TooDeep => Err(ToolError::limit(Limit::Nesting, max_nesting as u64, max_nesting as u64 + 1)),
        Walk::TooLong => Err(ToolError::limit(bytes, max_bytes as u64, json_bytes(value) as u64)),
    }
}

/// `Ok` where `value` nests at most `max_nesting` deep.
///
/// # Errors
/// `LimitExceeded` with [`Limit::Nesting`].
pub(crate) fn check_nesting(value: &Value, max_nesting: usize) -> Result<(), ToolError> {
    check(value, Limit::Nesting, usize::MAX, max_nesting)
}

enum Walk {
    Fits,
    TooLong,
    TooDeep,
}

/// The bytes of `value` as compact JSON, exactly, without writing them anywhere.
pub(crate) fn json_bytes(value: &Value) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // A counting writer never fails; were it to, the count so far would still be over the limit.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

fn walk(value: &Value, left: &mut Option<usize>, depth_left: usize) -> Walk {
    let own = match value {
        Value::Null => 4,
        Value::Bool(yes) => 5 - usize::from(*yes),
        Value::Number(number) => number_bytes(number),
        Value::String(text) => string_bytes(text),
        Value::Array(items) => items.len().max(1) + 1,
        Value::Object(map) => map.len().max(1) + 1,
    };
    *left = left.and_then(|left| left.checked_sub(own));
    if left.is_none() {
        return Walk::TooLong;
    }
    let Some(depth_left) = depth_left.checked_sub(1) else {
        return if value.is_array() || value.is_object() { Walk::TooDeep } else { Walk::Fits };
    };
    match value {
        Value::Array(items) => {
            for item in items {
                match walk(item, left, depth_left) {
                    Walk::Fits => {}
                    broken => return broken,
                }
            }
        }
        Value::Object(map) => {
            for (key, item) in map {
                *left = left.and_then(|left| left.checked_sub(string_bytes(key) + 1));
                match walk(item, left, depth_left) {
                    Walk::Fits => {}
                    broken => return broken,
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    Walk::Fits
}

fn number_bytes(number: &serde_json::Number) -> usize {
    if let Some(integer) = number.as_u64() {
        return integer.checked_ilog10().map_or(1, |digits| digits as usize + 1);
    }
    if let Some(integer) = number.as_i64() {
        return integer.unsigned_abs().checked_ilog10().map_or(1, |digits| digits as usize + 1) + 1;
    }
    number.to_string().len()
}

/// Bytes of the JSON string, escapes included.
fn string_bytes(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 1,
        0..0x20 => 5,
        _ => 0,
    };
    text.len() + 2 + text.bytes().map(escaped).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_count_agrees_with_the_text_that_serde_writes() {
        for value in [
            json!(null),
            json!([]),
            json!({}),
            json!([1, -20, 3.5, true, false, 0, u64::MAX, i64::MIN]),
            json!({"a\"\n\u{1}": {"b": ["ü", "\\"]}, "c": {}}),
        ] {
            let exact = value.to_string().len();
            assert!(check(&value, Limit::Output, exact, 64).is_ok(), "{value}");
            assert!(check(&value, Limit::Output, exact - 1, 64).is_err(), "{value}");
        }
    }

    #[test]
    fn nesting_is_counted_in_levels_of_arrays_and_objects() {
        assert!(check(&json!([[1]]), Limit::Output, 100, 2).is_ok());
        assert!(check(&json!([[[]]]), Limit::Output, 100, 2).is_err());
    }
}
