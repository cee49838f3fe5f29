//! What a script must keep to before anything of it runs: its functions are there, and it calls no host function that
//! its manifest does not ask for.

use std::{collections::BTreeMap, sync::Arc};

use rhai::Position;
use toolbay_api::{Callback, ErrorKind, EventPattern, HookPoint, LoadError, Manifest, PermissionSet, ToolName};

use crate::{
    callback::Callbacks,
    script::{DECLARATION, FunctionCall, Script},
};

/// A script function that the plugin calls.
#[derive(Debug, Clone)]
pub(crate) struct EntryPoint {
    /// Its name.
    pub(crate) function: String,
    /// Whether it has a second parameter, for the context.
    pub(crate) takes_context: bool,
    /// Whether anything reads that parameter. Where nothing does, the context need not be built.
    pub(crate) reads_context: bool,
}

impl EntryPoint {
    /// The whole script, from top to bottom.
    pub(crate) fn program() -> Self {
        Self { function: String::new(), takes_context: false, reads_context: false }
    }

    /// Whether this is the whole script.
    pub(crate) fn is_program(&self) -> bool {
        self.function.is_empty()
    }
}

/// The functions behind a manifest's tools, hooks and handlers.
#[derive(Debug, Default)]
pub(crate) struct EntryPoints {
    pub(crate) tools: BTreeMap<ToolName, EntryPoint>,
    pub(crate) hooks: BTreeMap<HookPoint, EntryPoint>,
    pub(crate) events: BTreeMap<EventPattern, EntryPoint>,
    pub(crate) callbacks: Callbacks,
}

/// Finds the function of every declared tool, hook and handler.
///
/// # Errors
/// `Config`, which names the missing function and what to write.
pub(crate) fn entry_points(script: &Script, manifest: &Manifest) -> Result<EntryPoints, LoadError> {
    let mut found = EntryPoints::default();
    let mut taken: BTreeMap<String, &ToolName> = BTreeMap::new();
    declares_something(manifest).map_err(|message| declared_at(script, ErrorKind::Config, message))?;
    for name in manifest.tools.keys() {
        let function = function_name(name.as_str());
        let is_identifier = function.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && function.bytes().any(|byte| byte.is_ascii_alphanumeric());
        if !is_identifier {
            let message = format!("the tool {name:?} has no function of its name: begin the name with a letter");
            return Err(declared_at(script, ErrorKind::Config, message));
        }
        if let Some(other) = taken.insert(function.clone(), name) {
            let message = format!("the tools {other:?} and {name:?} would both be the function `{function}`");
            return Err(declared_at(script, ErrorKind::Conflict, message));
        }
        found.tools.insert(name.clone(), entry_point(script, function, "args", &format!("the tool {name:?}"))?);
    }
    for point in manifest.hooks.keys() {
        let what = format!("the hook {point}");
        found.hooks.insert(*point, entry_point(script, point.name().to_owned(), "input", &what)?);
    }
    for (pattern, declaration) in &manifest.events {
        let function = &declaration.function;
        let what = format!("the handler of {pattern:?}");
        let other = taken.get(function).map(|tool| format!("the tool {tool:?}"));
        let other = other.or_else(|| HookPoint::parse(function).map(|point| format!("the hook {point}")));
        let callback = Callback::ALL.into_iter().find(|callback| callback.name() == function);
        if let Some(other) = other.or_else(|| callback.map(|callback| format!("the callback {callback}"))) {
            let message = format!("the function `{function}` of {what} would also be {other}: give it another name");
            return Err(declared_at(script, ErrorKind::Conflict, message));
        }
        found.events.insert(pattern.clone(), entry_point(script, function.clone(), "event", &what)?);
    }
    for callback in Callback::ALL {
        if let Some(entry) = callback_entry(script, callback, &taken)? {
            found.callbacks.insert(callback, Arc::new(entry));
        }
    }
    Ok(found)
}

/// `Ok` where the plugin does anything at all.
///
/// # Errors
/// What to add.
pub(crate) fn declares_something(manifest: &Manifest) -> Result<(), String> {
    if manifest.tools.is_empty() && manifest.hooks.is_empty() && manifest.events.is_empty() {
        return Err(format!(
            "the plugin declares no tool and no hook: add `tools`, `hooks` or `events` to {DECLARATION}"
        ));
    }
    Ok(())
}

/// The function of a callback, if the script has one.
fn callback_entry(
    script: &Script,
    callback: Callback,
    tools: &BTreeMap<String, &ToolName>,
) -> Result<Option<EntryPoint>, LoadError> {
    let name = callback.name();
    let definitions: Vec<Vec<&str>> = script.functions(name).collect();
    if definitions.is_empty() {
        return Ok(None);
    }
    if let Some(tool) = tools.get(name) {
        let message =
            format!("the tool {tool:?} would also be called when the plugin's life comes to {name}: rename it");
        return Err(declared_at(script, ErrorKind::Conflict, message));
    }
    if !definitions.iter().any(|parameters| parameters.len() == 1) {
        let message = format!("the callback {name} takes one parameter: write `fn {name}(cx) {{ ... }}`");
        return Err(declared_at(script, ErrorKind::Config, message));
    }
    Ok(Some(EntryPoint { function: name.to_owned(), takes_context: false, reads_context: false }))
}

/// The function of a tool: its name with `_` for what a function's name cannot have.
fn function_name(tool: &str) -> String {
    tool.replace(['-', '.'], "_")
}

fn entry_point(script: &Script, function: String, argument: &str, what: &str) -> Result<EntryPoint, LoadError> {
    let definitions: Vec<Vec<&str>> = script.functions(&function).collect();
    let best =
        definitions.iter().filter(|parameters| matches!(parameters.len(), 1 | 2)).max_by_key(|found| found.len());
    let Some(parameters) = best else {
        let message = match definitions.first() {
            None => format!("{what} has no function: write `fn {function}({argument}, cx) {{ ... }}`"),
            Some(parameters) => format!(
                "the function of {what} has {} parameters: write `fn {function}({argument}, cx)` or `fn \
                 {function}({argument})`",
                parameters.len()
            ),
        };
        return Err(declared_at(script, ErrorKind::Config, message));
    };
    let context = parameters.get(1);
    Ok(EntryPoint {
        takes_context: context.is_some(),
        reads_context: context.is_some_and(|context| script.reads_variable(context)),
        function,
    })
}

pub(crate) fn declared_at(script: &Script, kind: ErrorKind, message: String) -> LoadError {
    match script.declaration() {
        Some(declaration) => script.error_at(kind, script.entry(), declaration.position, message),
        None => script.error_at(kind, script.entry(), Position::NONE, message),
    }
}

/// A host function that needs a permission.
pub(crate) struct Guarded {
    pub(crate) function: &'static str,
    pub(crate) parameters: &'static [usize],
    pub(crate) permission: &'static str,
}

/// The host functions that need a permission. `call_tool` needs one for each tool, `emit` for each event, `http` for each
/// method and host, `secret` for each name.
pub(crate) const GUARDED: &[Guarded] = &[
    Guarded { function: "kv_get", parameters: &[1], permission: "kv:read" },
    Guarded { function: "kv_list", parameters: &[1, 2, 3], permission: "kv:read" },
    Guarded { function: "kv_set", parameters: &[2, 3], permission: "kv:write" },
    // It needs both, and exists with the second.
    Guarded { function: "kv_compare_and_set", parameters: &[3, 4], permission: "kv:read" },
    Guarded { function: "kv_compare_and_set", parameters: &[3, 4], permission: "kv:write" },
    Guarded { function: "kv_delete", parameters: &[1], permission: "kv:write" },
    Guarded { function: "now", parameters: &[0], permission: "clock" },
    Guarded { function: "uuid", parameters: &[0], permission: "random" },
    Guarded { function: "random", parameters: &[0], permission: "random" },
    Guarded { function: "random_int", parameters: &[2], permission: "random" },
    Guarded { function: "call_tool", parameters: &[2], permission: CALL_TOOL },
    Guarded { function: "emit", parameters: &[1, 2], permission: EMIT },
    Guarded { function: "http", parameters: &[1], permission: HTTP },
    Guarded { function: "http_get", parameters: &[1], permission: HTTP },
    Guarded { function: "http_post", parameters: &[2], permission: HTTP },
    Guarded { function: "secret", parameters: &[1], permission: SECRET },
];

/// What stands for the permission to call some tool.
pub(crate) const CALL_TOOL: &str = "tool:call:*";

/// What stands for the permission to tell of some event.
pub(crate) const EMIT: &str = "event:emit:NAME";

/// What stands for the permission to send some request.
pub(crate) const HTTP: &str = "http:METHOD:HOST";

/// What stands for the permission to read some secret.
pub(crate) const SECRET: &str = "secret:read:NAME";

/// Whether `asked` covers a host function's permission, so that the function exists for the plugin.
pub(crate) fn is_asked(asked: &PermissionSet, permission: &str) -> bool {
    let some_of = |beginnings: &[&str]| {
        let begins = |text: &str| beginnings.iter().any(|beginning| text.starts_with(beginning));
        asked.iter().any(|asked| begins(asked.as_str()))
            || beginnings.iter().any(|one| asked.covers(&format!("{one}x")))
    };
    match permission {
        CALL_TOOL => some_of(&["tool:call:"]),
        EMIT => some_of(&["event:emit:"]),
        HTTP => some_of(&["http:", "http-plain:"]),
        SECRET => some_of(&["secret:read:"]),
        _ => asked.covers(permission),
    }
}

/// Functions that the Rhai book has and this sandbox has not.
const ABSENT: &[(&str, &str)] = &[
    ("sleep", "a call has a deadline and should end as soon as it can"),
    ("timestamp", "ask for the permission \"clock\" and use `now()`"),
];

/// Refuses a plugin whose code calls a host function that its manifest does not ask for, or one that is not there, or
/// tells of an event that its manifest does not provide.
///
/// # Errors
/// `PermissionDenied` with the line and what to add; `Compile` for a function that is not there.
pub(crate) fn permissions(script: &Script, manifest: &Manifest) -> Result<(), LoadError> {
    let asked = &manifest.permissions;
    for call in script.calls() {
        if let Some((_, why)) = ABSENT.iter().find(|(name, _)| *name == call.name)
            && !script.defines(&call.name, call.parameters)
        {
            let message = format!("`{}` does not exist here: {why}", call.name);
            return Err(script.error_at(ErrorKind::Compile, &call.file, call.position, message));
        }
        if let (Some(provides), Some(event), "emit") = (&manifest.provides, &call.first_text, call.name.as_str())
            && !provides.events.contains(event)
            && !script.defines(&call.name, call.parameters)
        {
            let message = format!("the event {event:?} is not in provides.events of the manifest: add it there");
            return Err(script.error_at(ErrorKind::PermissionDenied, &call.file, call.position, message));
        }
        let Some(permission) = missing_permission(call, asked) else { continue };
        if script.defines(&call.name, call.parameters) {
            continue;
        }
        let message = format!("`{}` needs a permission: add {permission:?} to permissions", call.name);
        return Err(script.error_at(ErrorKind::PermissionDenied, &call.file, call.position, message));
    }
    Ok(())
}

fn missing_permission(call: &FunctionCall, asked: &PermissionSet) -> Option<String> {
    let is_meant = |guarded: &&Guarded| guarded.function == call.name && guarded.parameters.contains(&call.parameters);
    GUARDED.iter().filter(is_meant).find_map(|guarded| missing(guarded, call, asked))
}

fn missing(guarded: &Guarded, call: &FunctionCall, asked: &PermissionSet) -> Option<String> {
    match &call.first_text {
        Some(tool) if guarded.permission == CALL_TOOL => {
            let permission = format!("tool:call:{tool}");
            (!asked.covers(&permission)).then_some(permission)
        }
        Some(event) if guarded.permission == EMIT => {
            let permission = format!("event:emit:{event}");
            (!asked.covers(&permission)).then_some(permission)
        }
        Some(name) if guarded.permission == SECRET => {
            let permission = format!("secret:read:{}", name.strip_prefix("secret:").unwrap_or(name));
            (!asked.covers(&permission)).then_some(permission)
        }
        _ => (!is_asked(asked, guarded.permission)).then(|| guarded.permission.to_owned()),
    }
}
