//! From JSON to a checked manifest: the one road for all three file formats, the `PLUGIN` constant and worker processes.
//! Unknown and missing keys are found by the schema, because serde's own errors for them name no path and no likely
//! slip of the pen.

use serde_json::{Map, Value};

use super::{Manifest, ManifestError, schema};
use crate::names::ToolName;

/// Longer keys are not looked up for a likely slip: that costs the product of both lengths.
const MAX_COMPARED: usize = 64;

impl Manifest {
    /// Takes a manifest from JSON and [checks](Self::validate) it. A `$schema` at the top is for editors and ignored.
    ///
    /// ```
    /// use toolbay_api::Manifest;
    /// let error = Manifest::from_json(serde_json::json!({
    ///     "name": "fx", "version": "1.0.0", "description": "Converts.", "author": "Acme", "licence": "MIT",
    /// }));
    /// assert_eq!(error.unwrap_err().to_string(), "licence: unknown key; did you mean license?");
    /// ```
    ///
    /// # Errors
    /// The first [`ManifestError`], which names the field.
    pub fn from_json(mut value: Value) -> Result<Self, ManifestError> {
        if let Some(tools) = value.get("tools").and_then(Value::as_object) {
            for name in tools.keys() {
                ToolName::new(name).map_err(|error| ManifestError::of_key(join("tools", name), error.to_string()))?;
            }
        }
        keys(schema::own(), &value, "")?;
        if let Some(address) = value.as_object_mut().and_then(|entries| entries.shift_remove(schema::KEY)) {
            let fits = address.as_str().is_some_and(|text| text.chars().count() <= super::MAX_URL);
            if !fits {
                return Err(ManifestError::new(schema::KEY, "must be the address of a JSON Schema, as text"));
            }
        }
        let manifest: Self = serde_path_to_error::deserialize(value).map_err(|error| {
            let path = error.path().to_string();
            // A key that is no such name has the path `?`; nothing at all has `.`.
            let path = path.strip_suffix(".?").unwrap_or(&path);
            let field = if matches!(path, "." | "?") { "the manifest" } else { path };
            ManifestError::new(field, error.inner().to_string())
        })?;
        manifest.validate()?;
        Ok(manifest)
    }
}

/// Checks that `value` has the keys that `schema` asks for and no other that it does not know.
fn keys(schema: &Value, value: &Value, path: &str) -> Result<(), ManifestError> {
    let schema = resolve(schema);
    match value {
        Value::Object(entries) if schema.get("additionalProperties") == Some(&Value::Bool(false)) => {
            let none = Map::new();
            let known = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
            let patterns = schema.get("patternProperties").and_then(Value::as_object);
            let by_pattern = patterns.and_then(|patterns| patterns.values().next());
            for (key, entry) in entries {
                match known.get(key).or(by_pattern) {
                    Some(schema) => keys(schema, entry, &join(path, key))?,
                    None => return Err(unknown(path, key, known)),
                }
            }
            let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
            match required.filter_map(Value::as_str).find(|key| !entries.contains_key(*key)) {
                Some(key) => Err(ManifestError::of_key(join(path, key), "is missing")),
                None => Ok(()),
            }
        }
        // serde would take a list for a table, by the order of the fields.
        Value::Array(_) if schema.get("properties").is_some() => {
            Err(ManifestError::new(if path.is_empty() { "the manifest" } else { path }, "must be a table, not a list"))
        }
        Value::Array(items) => match schema.get("items") {
            Some(schema) => {
                items.iter().enumerate().try_for_each(|(index, item)| keys(schema, item, &format!("{path}[{index}]")))
            }
            None => Ok(()),
        },
        _ => Ok(()),
    }
}

/// The schema behind a reference, or behind "this or null".
fn resolve(schema: &Value) -> &Value {
    let option = schema.get("anyOf").and_then(Value::as_array).and_then(|options| options.first());
    let schema = option.unwrap_or(schema);
    let reference = schema.get("$ref").and_then(Value::as_str).and_then(|text| text.strip_prefix('#'));
    reference.and_then(|pointer| schema::own().pointer(pointer)).unwrap_or(schema)
}

fn unknown(path: &str, key: &str, known: &Map<String, Value>) -> ManifestError {
    let shown: String = key.chars().take(80).collect();
    let distance = |name: &str| strsim::damerau_levenshtein(key, name);
    let near = known.keys().filter(|_| key.len() <= MAX_COMPARED).min_by_key(|name| distance(name));
    let problem = match near {
        Some(name) if distance(name) <= 1 + name.len() / 4 => format!("unknown key; did you mean {name}?"),
        _ => {
            let names = known.keys().filter(|name| *name != schema::KEY).map(String::as_str);
            format!("unknown key; known are {}", names.collect::<Vec<_>>().join(", "))
        }
    };
    ManifestError::of_key(join(path, &shown), problem)
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
