//! The digest that names a JSON value: SHA-256 over its canonical form, as `sha256:` and hexadecimal digits.
//!
//! The form is RFC 8785, as in the identity `jcs-sha256` of AGENT-HOOKS-0.1, so that an approval here and one under the
//! contract are bound in the same way. That identity refuses whole numbers beyond 2⁵³, since they have no exact form there;
//! here they have one, with an `n` behind it, since tools have such numbers as ids.

use std::fmt::Write as _;

use serde_json::{Number, Value};
use sha2::{Digest as _, Sha256};

/// The largest whole number that a float tells from its neighbours.
const EXACT: u64 = (1 << 53) - 1;

/// Names `value`. Two values have one name where they are equal as JSON, whatever the order of their keys.
///
/// ```
/// use serde_json::json;
/// use toolbay_runtime::approval::identity;
///
/// assert_eq!(identity(&json!({"a": 1, "b": 2.0})), identity(&json!({"b": 2, "a": 1})));
/// ```
#[must_use]
pub fn identity(value: &Value) -> String {
    let mut canonical = String::new();
    write(value, &mut canonical);
    let mut name = "sha256:".to_owned();
    for byte in Sha256::digest(canonical.as_bytes()) {
        let _ = write!(name, "{byte:02x}");
    }
    name
}

fn write(value: &Value, to: &mut String) {
    match value {
        Value::Null => to.push_str("null"),
        Value::Bool(truth) => to.push_str(if *truth { "true" } else { "false" }),
        Value::Number(number) => write_number(number, to),
        Value::String(text) => write_text(text, to),
        Value::Array(items) => {
            to.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    to.push(',');
                }
                write(item, to);
            }
            to.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by(|(one, _), (other, _)| one.encode_utf16().cmp(other.encode_utf16()));
            to.push('{');
            for (index, (key, value)) in fields.into_iter().enumerate() {
                if index > 0 {
                    to.push(',');
                }
                write_text(key, to);
                to.push(':');
                write(value, to);
            }
            to.push('}');
        }
    }
}

fn write_number(number: &Number, to: &mut String) {
    let beyond = number.as_i64().map(i64::unsigned_abs).or_else(|| number.as_u64()).map(|whole| whole > EXACT);
    match (beyond, number.as_f64()) {
        (Some(false), _) | (None, None) => _ = write!(to, "{number}"),
        (Some(true), _) => _ = write!(to, "{number}n"),
        (None, Some(float)) => to.push_str(ryu_js::Buffer::new().format(float)),
    }
}

/// JSON's escapes as `serde_json` writes them are those of the RFC.
fn write_text(text: &str, to: &mut String) {
    to.push_str(&Value::from(text).to_string());
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn canonical(value: &Value) -> String {
        let mut text = String::new();
        write(value, &mut text);
        text
    }

    #[allow(clippy::excessive_precision, reason = "the RFC's own example")]
    #[test]
    fn the_form_is_that_of_the_rfc() {
        // The example of RFC 8785, section 3.2.2, and its order of keys, section 3.2.3.
        let value = json!({
            "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
            "string": "\u{20ac}$\u{f}\u{a}A'\u{42}\u{22}\u{5c}\\\"/",
            "literals": [null, true, false]
        });
        assert_eq!(
            canonical(&value),
            "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
             \"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}"
        );
        let keys = json!({ "\u{20ac}": 1, "\r": 2, "\u{fb33}": 3, "1": 4, "\u{1f600}": 5, "\u{80}": 6, "\u{f6}": 7 });
        assert_eq!(
            canonical(&keys),
            "{\"\\r\":2,\"1\":4,\"\u{80}\":6,\"\u{f6}\":7,\"\u{20ac}\":1,\"\u{1f600}\":5,\"\u{fb33}\":3}"
        );
        assert_eq!(canonical(&json!([-0.0, 1.0, 10])), "[0,1,10]");
    }

    #[test]
    fn whole_numbers_that_floats_confuse_are_told_apart() {
        let names: Vec<_> = [9_007_199_254_740_992_i64, 9_007_199_254_740_993].map(|id| identity(&json!(id))).into();
        assert_ne!(names[0], names[1]);
        assert_ne!(identity(&json!(9_223_372_036_854_776_000_u64)), identity(&json!(9_223_372_036_854_775_808.0)));
    }
}
