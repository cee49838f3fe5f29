//! OpenAI's strict mode: every object closed, every key required, what may be absent may be null instead.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{Change, ChangeKind, Report, SAYING_ONLY, describe, hint, step};

/// Keywords that are kept as they are.
const KEPT: [&str; 14] = [
    "type",
    "description",
    "title",
    "enum",
    "const",
    "pattern",
    "multipleOf",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minItems",
    "maxItems",
    "$ref",
];
/// The formats that the mode knows.
const FORMATS: [&str; 9] = ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"];
/// Keywords that refuse values, and that the mode does not know. Without them the schema takes more.
const UNCHECKED: [&str; 13] = [
    "minLength",
    "maxLength",
    "uniqueItems",
    "contains",
    "minContains",
    "maxContains",
    "minProperties",
    "maxProperties",
    "propertyNames",
    "dependentRequired",
    "not",
    "contentEncoding",
    "contentMediaType",
];
/// The levels of nesting that the mode takes, and the keys of all objects together.
const MAX_LEVELS: usize = 10;
const MAX_KEYS: usize = 5_000;

struct Strict<'a> {
    report: &'a mut Report,
    optional: BTreeMap<String, bool>,
    keys: usize,
}

/// The schema in strict mode and the places that may be null because they may be absent.
///
/// # Errors
/// What the mode has no words for.
pub(super) fn lower(root: &Value, report: &mut Report) -> Result<(Value, BTreeMap<String, bool>), Change> {
    let mut strict = Strict { report, optional: BTreeMap::new(), keys: 0 };
    let mut schema = strict.node(root, "", "", 0)?;
    for name in ["$defs", "definitions"] {
        let Some(definitions) = root.get(name).and_then(Value::as_object) else { continue };
        let mut lowered = Map::new();
        for (key, definition) in definitions {
            let place = step(&step("", name), key);
            lowered.insert(key.clone(), strict.node(definition, &place, &place, 1)?);
        }
        if let Some(schema) = schema.as_object_mut() {
            schema.insert(name.to_owned(), Value::Object(lowered));
        }
    }
    Ok((schema, strict.optional))
}

fn no_words(pointer: &str, what: &str) -> Change {
    Change { pointer: pointer.to_owned(), kind: ChangeKind::NotStrict, what: what.to_owned() }
}

impl Strict<'_> {
    /// `from` is the place in the tool's own schema, `to` the one in the lowered.
    fn node(&mut self, schema: &Value, from: &str, to: &str, level: usize) -> Result<Value, Change> {
        if !self.report.has_room(level) || level > MAX_LEVELS {
            return Err(no_words(from, "nested too deep, or too large"));
        }
        let Some(node) = schema.as_object() else { return Err(no_words(from, "any value is taken here")) };
        let mut lowered = Map::new();
        let mut hints = Vec::new();
        for (key, value) in node {
            let place = step(from, key);
            match key.as_str() {
                "properties"
                | "required"
                | "additionalProperties"
                | "items"
                | "anyOf"
                | "oneOf"
                | "$defs"
                | "definitions" => {}
                "format" if value.as_str().is_some_and(|format| FORMATS.contains(&format)) => {
                    lowered.insert(key.clone(), value.clone());
                }
                "format" => {
                    self.report.weakened(place, "not checked by the provider");
                    hints.extend(hint(key, value));
                }
                key if KEPT.contains(&key) => {
                    lowered.insert(key.to_owned(), value.clone());
                }
                "default" => hints.extend(hint(key, value)),
                key if SAYING_ONLY.contains(&key) => {}
                key if UNCHECKED.contains(&key) => {
                    self.report.weakened(place, "not checked by the provider");
                    hints.extend(hint(key, value));
                }
                // Extensions of other tools' makers say nothing to a validator.
                key if key.starts_with("x-") => {}
                key => return Err(no_words(&place, &format!("there is no {key:?} in strict mode"))),
            }
        }
        describe(&mut lowered, &hints);
        let says_what = ["type", "enum", "const", "$ref", "anyOf", "oneOf"].iter().any(|key| node.contains_key(*key));
        if !says_what {
            return Err(no_words(from, "any value is taken here"));
        }
        if has_type(node, "object") {
            self.object(node, &mut lowered, from, to, level)?;
        }
        if has_type(node, "array") {
            let items = node.get("items").ok_or_else(|| no_words(from, "a list of any values"))?;
            let (from, to) = (step(from, "items"), step(to, "items"));
            lowered.insert("items".to_owned(), self.node(items, &from, &to, level + 1)?);
        }
        self.alternatives(node, &mut lowered, from, to, level)?;
        Ok(Value::Object(lowered))
    }

    fn alternatives(
        &mut self,
        node: &Map<String, Value>,
        lowered: &mut Map<String, Value>,
        from: &str,
        to: &str,
        level: usize,
    ) -> Result<(), Change> {
        let (any, one) = (node.get("anyOf"), node.get("oneOf"));
        let (key, branches) = match (any, one) {
            (None, None) => return Ok(()),
            (Some(branches), None) => ("anyOf", branches),
            (None, Some(branches)) => {
                self.report.weakened(step(from, "oneOf"), "more than one of the alternatives may fit");
                ("oneOf", branches)
            }
            (Some(_), Some(_)) => return Err(no_words(from, "two lists of alternatives")),
        };
        // Together with alternatives an object would be closed against the keys that these add.
        if node.contains_key("properties") {
            return Err(no_words(from, "an object with keys and alternatives"));
        }
        let mut list = Vec::new();
        for (index, branch) in branches.as_array().into_iter().flatten().enumerate() {
            let (from, to) = (format!("{from}/{key}/{index}"), format!("{to}/anyOf/{index}"));
            list.push(self.node(branch, &from, &to, level + 1)?);
        }
        lowered.insert("anyOf".to_owned(), Value::Array(list));
        Ok(())
    }

    fn object(
        &mut self,
        node: &Map<String, Value>,
        lowered: &mut Map<String, Value>,
        from: &str,
        to: &str,
        level: usize,
    ) -> Result<(), Change> {
        let Some(properties) = node.get("properties").and_then(Value::as_object) else {
            return Err(no_words(from, "an object whose keys are not listed"));
        };
        match node.get("additionalProperties") {
            Some(Value::Bool(false)) => {}
            None => self.report.note(ChangeKind::Narrowed, from, "keys that it does not list are not taken"),
            Some(_) => return Err(no_words(from, "an object that takes keys which it does not list")),
        }
        self.keys += properties.len();
        if self.keys > MAX_KEYS {
            return Err(no_words(from, "more keys than the mode takes"));
        }
        let required: BTreeSet<&str> =
            node.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        if let Some(unlisted) = required.iter().find(|key| !properties.contains_key(**key)) {
            return Err(no_words(from, &format!("it requires {unlisted:?}, which it does not list")));
        }
        let mut inner = Map::new();
        for (key, child) in properties {
            let (from, to) = (step(&step(from, "properties"), key), step(&step(to, "properties"), key));
            let may_be_absent = !required.contains(key.as_str());
            let wrapped = may_be_absent && !takes_null_in_place(child);
            // A value that cannot say "or null" itself is put beside null.
            let inside = if wrapped { format!("{to}/anyOf/0") } else { to.clone() };
            let mut value = self.node(child, &from, &inside, level + 1)?;
            if may_be_absent && !may_be_null(child) {
                value = if wrapped { json!({ "anyOf": [value, { "type": "null" }] }) } else { or_null(value) };
                self.optional.insert(to, true);
            } else if may_be_absent {
                // The tool takes a null here, and gets it: what it stands for is not ours to say.
                if wrapped {
                    value = json!({ "anyOf": [value, { "type": "null" }] });
                }
                self.optional.insert(to, false);
            }
            inner.insert(key.clone(), value);
        }
        lowered.insert("required".to_owned(), inner.keys().cloned().collect());
        lowered.insert("properties".to_owned(), Value::Object(inner));
        lowered.insert("additionalProperties".to_owned(), false.into());
        Ok(())
    }
}

pub(super) fn has_type(node: &Map<String, Value>, wanted: &str) -> bool {
    match node.get("type") {
        Some(Value::String(own)) => own == wanted,
        Some(Value::Array(own)) => own.iter().any(|own| own == wanted),
        _ => false,
    }
}

/// Whether "or null" can be said in the schema itself, by its `type`.
fn takes_null_in_place(schema: &Value) -> bool {
    schema.as_object().is_some_and(|node| {
        node.contains_key("type")
            && !node.contains_key("const")
            && !node.contains_key("anyOf")
            && !node.contains_key("oneOf")
    })
}

/// Whether the tool itself takes null here, as far as the node says so.
fn may_be_null(schema: &Value) -> bool {
    let Some(node) = schema.as_object() else { return true };
    let listed = |key: &str, found: fn(&Value) -> bool| {
        node.get(key).and_then(Value::as_array).is_some_and(|list| list.iter().any(found))
    };
    if node.contains_key("enum") {
        return listed("enum", Value::is_null);
    }
    has_type(node, "null") || listed("anyOf", may_be_null) || listed("oneOf", may_be_null)
}

fn or_null(mut value: Value) -> Value {
    if let Some(node) = value.as_object_mut() {
        match node.get_mut("type") {
            Some(Value::Array(types)) => types.push("null".into()),
            Some(own) => *own = json!([own.clone(), "null"]),
            None => {}
        }
        if let Some(Value::Array(values)) = node.get_mut("enum") {
            values.push(Value::Null);
        }
    }
    value
}
