//! Gemini's function declarations: a part of OpenAPI 3.0's schemas. No references, one type for each value, `nullable`,
//! enumerations of strings.

use serde_json::{Map, Value, json};

use super::{ChangeKind, Report, SAYING_ONLY, describe, hint, step};

/// Keywords that are kept as they are.
const KEPT: [&str; 13] = [
    "description",
    "title",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "minLength",
    "maxLength",
    "pattern",
    "minimum",
    "maximum",
    "required",
    "nullable",
];
/// The formats that are known, by type.
const FORMATS: [(&str, &[&str]); 3] =
    [("string", &["enum", "date-time"]), ("integer", &["int32", "int64"]), ("number", &["float", "double"])];

/// The schema of `root` in Gemini's words.
pub(super) fn lower(root: &Value, report: &mut Report) -> Value {
    let mut gemini = Gemini { root, report, open: Vec::new() };
    gemini.node(root, "", 0)
}

struct Gemini<'a> {
    root: &'a Value,
    report: &'a mut Report,
    /// References that are being written out.
    open: Vec<String>,
}

impl Gemini<'_> {
    fn node(&mut self, schema: &Value, pointer: &str, depth: usize) -> Value {
        let Some(node) = schema.as_object() else {
            self.narrowed(pointer, "any value is taken here, and the provider knows none of these");
            return json!({ "type": "string" });
        };
        if !self.report.has_room(depth) {
            self.narrowed(pointer, "cut: nested too deep, or too large");
            return json!({ "type": "object" });
        }
        if let Some(reference) = node.get("$ref").and_then(Value::as_str) {
            return self.reference(node, reference, pointer, depth);
        }
        let mut lowered = Map::new();
        let mut hints = Vec::new();
        self.types(node, &mut lowered, pointer, &mut hints);
        for (key, value) in node {
            let place = step(pointer, key);
            match key.as_str() {
                "type" | "properties" | "items" | "anyOf" | "oneOf" | "allOf" | "enum" | "const" | "format"
                | "$defs" | "definitions" => {}
                key if KEPT.contains(&key) => {
                    lowered.insert(key.to_owned(), value.clone());
                }
                "exclusiveMinimum" | "exclusiveMaximum" => self.exclusive(key, value, node, &mut lowered, place),
                "default" => hints.extend(hint(key, value)),
                key if SAYING_ONLY.contains(&key) || key.starts_with("x-") => {}
                _ => {
                    self.report.weakened(place, "not known to the provider");
                    hints.extend(hint(key, value));
                }
            }
        }
        self.formats(node, &mut lowered, pointer, &mut hints);
        if let Some(properties) = node.get("properties").and_then(Value::as_object) {
            let place = step(pointer, "properties");
            let children =
                properties.iter().map(|(key, child)| (key.clone(), self.node(child, &step(&place, key), depth + 1)));
            let children: Map<_, _> = children.collect();
            // An empty list of keys is refused.
            if !children.is_empty() {
                lowered.insert("properties".to_owned(), Value::Object(children));
            }
        }
        if lowered.get("type").and_then(Value::as_str) == Some("array") {
            let items = match node.get("items") {
                Some(items) => self.node(items, &step(pointer, "items"), depth + 1),
                None => {
                    self.narrowed(pointer, "a list of any values, and the provider knows none");
                    json!({ "type": "string" })
                }
            };
            lowered.insert("items".to_owned(), items);
        }
        self.alternatives(node, &mut lowered, pointer, depth);
        // Required keys that are not listed are refused.
        let listed = lowered.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
        if let Some(Value::Array(required)) = lowered.get_mut("required") {
            required.retain(|key| key.as_str().is_some_and(|key| listed.contains_key(key)));
            if required.is_empty() {
                lowered.shift_remove("required");
            }
        }
        describe(&mut lowered, &hints);
        Value::Object(lowered)
    }

    fn narrowed(&mut self, pointer: &str, what: &str) {
        self.report.note(ChangeKind::Narrowed, pointer, what);
    }

    fn reference(&mut self, node: &Map<String, Value>, reference: &str, pointer: &str, depth: usize) -> Value {
        let target = self.root.pointer(reference.trim_start_matches('#')).cloned();
        let is_open = self.open.iter().any(|open| open == reference);
        let Some(target) = target.filter(|_| !is_open && depth < 16) else {
            self.report
                .weakened(step(pointer, "$ref"), "cut: it leads to itself, and the provider knows no references");
            return json!({ "type": "object" });
        };
        self.open.push(reference.to_owned());
        let mut lowered = self.node(&target, pointer, depth + 1);
        self.open.pop();
        if let (Some(lowered), Some(said)) = (lowered.as_object_mut(), node.get("description")) {
            lowered.insert("description".to_owned(), said.clone());
        }
        lowered
    }

    /// One type, `nullable` beside it; several become alternatives.
    fn types(
        &mut self,
        node: &Map<String, Value>,
        lowered: &mut Map<String, Value>,
        pointer: &str,
        hints: &mut Vec<String>,
    ) {
        let said = match node.get("type") {
            Some(Value::String(one)) => vec![one.as_str()],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let (nulls, types): (Vec<_>, Vec<_>) = said.into_iter().partition(|name| *name == "null");
        if !nulls.is_empty() {
            lowered.insert("nullable".to_owned(), true.into());
        }
        match types.as_slice() {
            [one] => {
                lowered.insert("type".to_owned(), json!(one));
            }
            [] => {
                if let Some(found) = implied_type(node) {
                    lowered.insert("type".to_owned(), json!(found));
                }
            }
            several => {
                let kinds: Vec<_> = several.iter().map(|kind| json!({ "type": kind })).collect();
                lowered.insert("anyOf".to_owned(), Value::Array(kinds));
            }
        }
        let listed = node.get("enum").and_then(Value::as_array).cloned();
        let Some(values) = listed.or_else(|| node.get("const").map(|value| vec![value.clone()])) else { return };
        let is_nullable = values.iter().any(Value::is_null);
        let words: Vec<_> = values.iter().filter(|value| !value.is_null()).cloned().collect();
        if is_nullable {
            lowered.insert("nullable".to_owned(), true.into());
        }
        if words.iter().all(Value::is_string) && !words.is_empty() {
            lowered.insert("type".to_owned(), "string".into());
            lowered.insert("enum".to_owned(), Value::Array(words));
        } else {
            self.report.weakened(step(pointer, "enum"), "the provider takes lists of strings only");
            hints.extend(hint("one of", &Value::Array(values)));
        }
    }

    fn formats(
        &mut self,
        node: &Map<String, Value>,
        lowered: &mut Map<String, Value>,
        pointer: &str,
        hints: &mut Vec<String>,
    ) {
        let Some(format) = node.get("format").and_then(Value::as_str) else { return };
        let own = lowered.get("type").and_then(Value::as_str).unwrap_or_default();
        if FORMATS.iter().any(|(kind, formats)| *kind == own && formats.contains(&format)) {
            lowered.insert("format".to_owned(), format.into());
        } else {
            self.report.weakened(step(pointer, "format"), "not known to the provider");
            hints.extend(hint("format", &json!(format)));
        }
    }

    fn exclusive(
        &mut self,
        key: &str,
        value: &Value,
        node: &Map<String, Value>,
        lowered: &mut Map<String, Value>,
        place: String,
    ) {
        let (bound, by) = if key == "exclusiveMinimum" { ("minimum", 1) } else { ("maximum", -1) };
        // Beside a bound of its own the weaker of the two would win or lose by the order of keys.
        if node.contains_key(bound) {
            return self.report.weakened(place, "not known to the provider");
        }
        let whole = super::strict::has_type(node, "integer").then(|| value.as_i64()?.checked_add(by)).flatten();
        match whole {
            Some(whole) => {
                lowered.insert(bound.to_owned(), json!(whole));
            }
            None => {
                self.report.weakened(place, "the bound itself is taken too");
                lowered.insert(bound.to_owned(), value.clone());
            }
        }
    }

    fn alternatives(
        &mut self,
        node: &Map<String, Value>,
        lowered: &mut Map<String, Value>,
        pointer: &str,
        depth: usize,
    ) {
        for key in ["anyOf", "oneOf", "allOf"] {
            let Some(branches) = node.get(key).and_then(Value::as_array) else { continue };
            let place = step(pointer, key);
            if key == "allOf" || lowered.contains_key("anyOf") {
                // A part of what must all hold says less than the whole, never more.
                self.report.weakened(place, "not known to the provider");
                if !lowered.contains_key("type") && !lowered.contains_key("anyOf") {
                    self.narrowed(pointer, "taken for an object");
                    lowered.insert("type".to_owned(), "object".into());
                }
                continue;
            }
            if key == "oneOf" {
                self.report.weakened(place.clone(), "more than one of the alternatives may fit");
            }
            let mut kinds = Vec::new();
            for (index, branch) in branches.iter().enumerate() {
                if branch.get("type").and_then(Value::as_str) == Some("null") {
                    lowered.insert("nullable".to_owned(), true.into());
                } else {
                    kinds.push(self.node(branch, &format!("{place}/{index}"), depth + 1));
                }
            }
            lowered.insert("anyOf".to_owned(), Value::Array(kinds));
        }
        if !lowered.contains_key("type") && !lowered.contains_key("anyOf") {
            self.narrowed(pointer, "any value is taken here, and the provider knows none of these");
            lowered.insert("type".to_owned(), "string".into());
        }
    }
}

/// The type that a schema's other keywords speak of.
fn implied_type(node: &Map<String, Value>) -> Option<&'static str> {
    [
        ("properties", "object"),
        ("items", "array"),
        ("pattern", "string"),
        ("minLength", "string"),
        ("minimum", "number"),
    ]
    .into_iter()
    .find_map(|(key, kind)| node.contains_key(key).then_some(kind))
}
