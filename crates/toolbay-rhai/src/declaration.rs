//! From the `PLUGIN` constant of a script to a manifest.

use serde::{Deserialize, de::DeserializeOwned};
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
    let manifest: Manifest = read(script, declaration, entries)?;
    manifest.validate().map_err(|problem| invalid(script, declaration, &problem))?;
    Ok(manifest)
}

/// What the script of a folder plugin may declare: what it does, never who it is.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    #[serde(default)]
    tools: Option<Value>,
    #[serde(default)]
    hooks: Option<Value>,
    #[serde(default)]
    events: Option<Value>,
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
    let parts: Parts = read(script, declaration, object(script, declaration)?).map_err(|mut error| {
        error
            .message
            .push_str("; in a plugin with a manifest the script can declare `tools`, `hooks` and `events` only");
        error
    })?;
    let mut whole = manifest.clone();
    for (field, part, declared) in [
        ("tools", parts.tools, !manifest.tools.is_empty()),
        ("hooks", parts.hooks, !manifest.hooks.is_empty()),
        ("events", parts.events, !manifest.events.is_empty()),
    ] {
        let Some(part) = part else { continue };
        if declared {
            let message = format!("the manifest declares {field} too: keep them in one of the two places");
            return Err(script.error_at(ErrorKind::Conflict, script.entry(), declaration.position, message));
        }
        let entries = Map::from_iter([(field.to_owned(), part)]);
        let declared: Declared = read(script, declaration, entries)?;
        match field {
            "tools" => whole.tools = declared.tools,
            "events" => whole.events = declared.events,
            _ => whole.hooks = declared.hooks,
        }
    }
    whole.validate().map_err(|problem| invalid(script, declaration, &problem))?;
    Ok(whole)
}

/// The typed form of [`Parts`].
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Declared {
    tools: std::collections::BTreeMap<toolbay_api::ToolName, toolbay_api::manifest::ToolDeclaration>,
    hooks: std::collections::BTreeMap<toolbay_api::HookPoint, toolbay_api::manifest::HookDeclaration>,
    events: std::collections::BTreeMap<toolbay_api::EventPattern, toolbay_api::manifest::EventDeclaration>,
}

fn object(script: &Script, declaration: &Declaration) -> Result<Map<String, Value>, LoadError> {
    match &declaration.value {
        Value::Object(entries) => Ok(entries.clone()),
        _ => Err(error(script, declaration, format!("{DECLARATION} must be a map: #{{ name: \"...\", ... }}"))),
    }
}

fn read<T: DeserializeOwned>(
    script: &Script,
    declaration: &Declaration,
    entries: Map<String, Value>,
) -> Result<T, LoadError> {
    serde_path_to_error::deserialize(Value::Object(entries)).map_err(|problem| {
        // A key that is no such name has the path `?`.
        let path = problem.path().to_string();
        let path = path.strip_suffix(".?").unwrap_or(&path);
        let field = if matches!(path, "." | "?") { DECLARATION.to_owned() } else { format!("{DECLARATION}.{path}") };
        error(script, declaration, format!("{field}: {}", problem.inner()))
    })
}

fn invalid(script: &Script, declaration: &Declaration, problem: &ManifestError) -> LoadError {
    error(script, declaration, format!("{DECLARATION}.{problem}"))
}

fn error(script: &Script, declaration: &Declaration, message: String) -> LoadError {
    script.error_at(ErrorKind::Config, script.entry(), declaration.position, message)
}
