//! Nulls that stand for what is absent: put in and taken out by the places that strict mode made them for.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::step;

/// Arguments are bounded in depth by the road; a reference that leads to itself is not.
const MAX_DEPTH: usize = 128;

/// `arguments` without the nulls at `optional` places of `schema`.
pub(super) fn without(mut arguments: Value, schema: &Value, optional: &BTreeMap<String, bool>) -> Value {
    if !optional.is_empty() {
        let drop = |object: &mut Map<String, Value>, key: &str, stands_for_nothing: bool| {
            if stands_for_nothing && object.get(key).is_some_and(Value::is_null) {
                // `shift_remove` keeps the order of the others, which the model chose.
                object.shift_remove(key);
            }
        };
        walk(&mut arguments, schema, "", optional, 0, &drop);
    }
    arguments
}

/// `arguments` with nulls at those places where nothing stands.
pub(super) fn with(mut arguments: Value, schema: &Value, optional: &BTreeMap<String, bool>) -> Value {
    if !optional.is_empty() {
        let put = |object: &mut Map<String, Value>, key: &str, _: bool| {
            object.entry(key).or_insert(Value::Null);
        };
        walk(&mut arguments, schema, "", optional, 0, &put);
    }
    arguments
}

/// What is done with an object at one of its optional keys; the flag says whether null stands for nothing else there.
type Act<'a> = dyn Fn(&mut Map<String, Value>, &str, bool) + 'a;

fn walk(
    value: &mut Value,
    root: &Value,
    pointer: &str,
    optional: &BTreeMap<String, bool>,
    depth: usize,
    act: &Act<'_>,
) {
    let Some(node) = root.pointer(pointer).filter(|_| depth < MAX_DEPTH) else { return };
    if let Some(reference) = node.get("$ref").and_then(Value::as_str) {
        walk(value, root, reference.trim_start_matches('#'), optional, depth + 1, act);
    }
    let branches = node.get("anyOf").and_then(Value::as_array).map_or(0, Vec::len);
    for index in 0..branches {
        if fits_roughly(value, root.pointer(&format!("{pointer}/anyOf/{index}"))) {
            walk(value, root, &format!("{pointer}/anyOf/{index}"), optional, depth + 1, act);
            // Two alternatives that both fit would each put in their own keys.
            break;
        }
    }
    match value {
        Value::Object(object) => {
            let Some(properties) = node.get("properties").and_then(Value::as_object) else { return };
            for key in properties.keys() {
                let place = step(&format!("{pointer}/properties"), key);
                if let Some(stands_for_nothing) = optional.get(&place) {
                    act(object, key, *stands_for_nothing);
                }
                if let Some(child) = object.get_mut(key) {
                    walk(child, root, &place, optional, depth + 1, act);
                }
            }
        }
        Value::Array(items) if node.get("items").is_some() => {
            for item in items {
                walk(item, root, &format!("{pointer}/items"), optional, depth + 1, act);
            }
        }
        _ => {}
    }
}

/// Whether a branch can be the one that a value was written after: by its kind and, for objects, by its keys.
fn fits_roughly(value: &Value, branch: Option<&Value>) -> bool {
    let Some(branch) = branch.and_then(Value::as_object) else { return false };
    if branch.contains_key("$ref") || branch.contains_key("anyOf") {
        return !value.is_null();
    }
    match value {
        Value::Object(object) => branch.get("properties").and_then(Value::as_object).is_some_and(|properties| {
            object.keys().all(|key| properties.contains_key(key))
                && properties.iter().all(|(key, schema)| match (object.get(key), schema.get("const")) {
                    (Some(value), Some(constant)) => value == constant,
                    _ => true,
                })
        }),
        Value::Array(_) => branch.contains_key("items"),
        _ => false,
    }
}
