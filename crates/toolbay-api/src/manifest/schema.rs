//! The JSON Schema of manifests, for editors. It is made from the type; what it refuses the parser refuses too, and a test
//! holds both together.

use std::sync::LazyLock;

use schemars::Schema;
use serde_json::{Value, json};

use super::{MAX_URL, Manifest};

/// The key by which a manifest names its schema to an editor.
pub const KEY: &str = "$schema";

/// A semantic version: the pattern of semver.org without its names.
pub(super) const VERSION: &str =
    r"^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$";
/// A range of versions.
pub(super) const RANGE: &str = r"^[0-9A-Za-z.+*<>=^~, -]+$";
/// An SPDX expression.
pub(super) const LICENSE: &str =
    r"^\(*[A-Za-z0-9][A-Za-z0-9.:-]*\+?\)*( (AND|OR|WITH) \(*[A-Za-z0-9][A-Za-z0-9.:-]*\+?\)*)*$";
/// An http or https address.
pub(super) const URL: &str = r"^https?://[A-Za-z0-9\[][!#-;=?-\[\]_a-z~]*$";
/// A file within the plugin's folder.
pub(super) const ENTRY: &str = r"^[^/\\]([^\\]*[^/\\])?$";

/// The JSON Schema (2020-12) of `plugin.toml`, `plugin.yaml` and `plugin.json`, as `schemas/plugin.schema.json` has it.
#[must_use]
pub fn json_schema() -> Value {
    own().clone()
}

/// The same, made once: reading a manifest looks keys up in it.
pub(super) fn own() -> &'static Value {
    static SCHEMA: LazyLock<Value> = LazyLock::new(|| schemars::schema_for!(Manifest).to_value());
    &SCHEMA
}

/// Puts in what no field of the type stands for.
pub(super) fn finish(schema: &mut Schema) {
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        let description = "The address of this schema, for editors; Toolbay does not look at it.";
        properties
            .insert(KEY.to_owned(), json!({ "type": "string", "maxLength": MAX_URL, "description": description }));
    }
}
