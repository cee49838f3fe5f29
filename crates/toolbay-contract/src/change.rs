//! The place that a rewrite changed.
//!
//! A hook gives the whole value that it wants; the contract's records name the place that was changed and leave the value
//! out. The smallest such place says most.

use serde_json::Value;

/// Where `after` differs from `before`, as the contract writes places, and what stands there. `None` where they are equal.
pub(crate) fn change(before: &Value, after: &Value) -> Option<(String, Value)> {
    (before != after).then(|| {
        let mut path = "$target".to_owned();
        let changed = narrow(before, after, &mut path);
        (path, changed.clone())
    })
}

fn narrow<'a>(before: &Value, after: &'a Value, path: &mut String) -> &'a Value {
    match (before, after) {
        (Value::Object(old), Value::Object(new)) if old.len() == new.len() => {
            let mut changed = new.iter().filter(|(key, value)| old.get(*key) != Some(value));
            if let (Some((key, value)), None) = (changed.next(), changed.next())
                && let Some(previous) = old.get(key)
                && is_member(key)
            {
                path.push('.');
                path.push_str(key);
                return narrow(previous, value, path);
            }
            after
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            let mut changed = old.iter().zip(new).enumerate().filter(|(_, (old, new))| old != new);
            if let (Some((index, (old, new))), None) = (changed.next(), changed.next()) {
                path.push_str(&format!("[{index}]"));
                return narrow(old, new, path);
            }
            after
        }
        _ => after,
    }
}

/// The names that the contract's paths can say.
fn is_member(key: &str) -> bool {
    !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_smallest_place_is_named() {
        let place =
            |before: Value, after: Value| change(&before, &after).map(|(path, value)| format!("{path} {value}"));
        assert_eq!(place(json!({"a": 1}), json!({"a": 1})), None);
        assert_eq!(place(json!({"a": 1, "b": 2}), json!({"a": 1, "b": 3})).unwrap(), "$target.b 3");
        assert_eq!(place(json!({"a": [1, {"b": 2}]}), json!({"a": [1, {"b": 3}]})).unwrap(), "$target.a[1].b 3");
        assert_eq!(place(json!({"a": 1}), json!({"b": 1})).unwrap(), "$target {\"b\":1}");
        assert_eq!(place(json!({"ä": 1}), json!({"ä": 2})).unwrap(), "$target {\"ä\":2}");
        assert_eq!(place(json!([1, 2]), json!([2, 1])).unwrap(), "$target [2,1]");
    }
}
