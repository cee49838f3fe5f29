//! From the `PLUGIN` constant of a script to a manifest.

use serde_json::{Map, Value};
use toolbay_api::{ErrorKind, LoadError, Manifest, manifest::ManifestError};

use crate::script::{DECLARATION, Declaration, Script};

/// The manifest of a one-file plugin.
///
/// The description may stand in the `//!` comment at the top instead, and an author may be missing: a script that a
/// tenant or a model writes has none to name.
///
/// # Errors
/// `Config`, which names the field and what to write.
pub(crate) fn one_file_manifest(script: &Script) -> Result<Manifest, LoadError> {
    let Some(declaration) = script.declaration() else {
        return Err(LoadError::new(
            ErrorKind::Config,
            format!(
                "the script does not declare its plugin: write `const {DECLARATION} = #{{ name: \"...\", version: \
                 \"1.0.0\", description: \"...\", tools: #{{ ... }} }};`"
            ),
        )
        .in_file(script.entry()));
    };
    let mut entries = object(script, declaration)?;
    if !entries.contains_key("description") {
        entries.insert("description".into(), Value::String(script.doc()));
    }
    entries.entry("author").or_insert_with(|| Value::String("unknown".into()));
    for (field, why) in [("runtime", "the file's ending says it"), ("entry", "this file is it")] {
        if entries.contains_key(field) {
            let message = format!("{DECLARATION}.{field}: leave it out of a one-file plugin: {why}");
            return Err(error(script, declaration, message));
        }
    }
    Manifest::from_json(Value::Object(entries)).map_err(|problem| invalid(script, declaration, &problem))
}

/// The manifest of a folder plugin, with the tools, hooks and handlers that its script declares where it declares none
/// itself.
///
/// # Errors
/// `Conflict` where both declare tools, or both hooks, or both handlers; `Config` for everything else, with the field.
pub(crate) fn folder_manifest(script: &Script, manifest: &Manifest) -> Result<Manifest, LoadError> {
    let Some(declaration) = script.declaration() else {
        return Ok(manifest.clone());
    };
    let unknown = "in a plugin with a manifest the script can declare `tools`, `hooks` and `events` only";
    let parts = object(script, declaration)?;
    if let Some(key) = parts.keys().find(|key| !matches!(key.as_str(), "tools" | "hooks" | "events")) {
        return Err(error(script, declaration, format!("{DECLARATION}.{key}: {unknown}")));
    }
    let mut whole = match serde_json::to_value(manifest) {
        Ok(Value::Object(whole)) => whole,
        // A manifest is a map of plain values.
        _ => return Err(error(script, declaration, format!("{DECLARATION}: the manifest has no JSON form"))),
    };
    for (field, part) in parts {
        if whole.contains_key(&field) {
            let message = format!("the manifest declares {field} too: keep them in one of the two places");
            return Err(script.error_at(ErrorKind::Conflict, script.entry(), declaration.position, message));
        }
        whole.insert(field, part);
    }
    Manifest::from_json(Value::Object(whole)).map_err(|problem| invalid(script, declaration, &problem))
}

fn object(script: &Script, declaration: &Declaration) -> Result<Map<String, Value>, LoadError> {
    match &declaration.value {
        Value::Object(entries) => Ok(entries.clone()),
        _ => Err(error(script, declaration, format!("{DECLARATION} must be a map: #{{ name: \"...\", ... }}"))),
    }
}

fn invalid(script: &Script, declaration: &Declaration, problem: &ManifestError) -> LoadError {
    error(script, declaration, format!("{DECLARATION}.{problem}"))
}

fn error(script: &Script, declaration: &Declaration, message: String) -> LoadError {
    script.error_at(ErrorKind::Config, script.entry(), declaration.position, message)
}
