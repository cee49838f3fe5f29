//! Plugins of an older framework as Toolbay's: each had one function `handle(action, payload)`. Copy this file and change
//! it to what yours had.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use serde_json::Value;
use toolbay::{
    ErrorKind, Tool, ToolContext, ToolDefinition, ToolError, ToolOutput, async_trait, plugin::NativePlugin,
    tool::Execution,
};

/// What a plugin of the older framework is. It may block, and it says what went wrong as a text.
pub trait LegacyPlugin: Send + Sync {
    /// Does `action` with `payload`.
    ///
    /// # Errors
    /// A text that begins with a code: `not_found: ...`, `invalid: ...`, `denied: ...`, `busy: ...`; or anything else.
    fn handle(&self, action: &str, payload: Value) -> Result<Value, String>;
}

/// An action of a plugin, as the tool that it becomes.
#[derive(Debug, Clone)]
pub struct Action {
    /// What `handle` knows it by, and the tool's name.
    pub name: &'static str,
    /// What it does, for the model.
    pub description: &'static str,
    /// The JSON Schema of its payload. The older framework had none: what does not fit no longer reaches the plugin.
    pub parameters: Value,
    /// Where it is not to be used any more: what to use instead.
    pub use_instead: Option<&'static str>,
}

/// Wraps a plugin: each of `actions` becomes a tool.
///
/// # Errors
/// `Config` where a name or the version is none.
///
/// ```
/// use std::sync::Arc;
/// use serde_json::{Value, json};
/// use toolbay_examples::legacy::{Action, LegacyPlugin, adapt};
///
/// struct Greeter;
///
/// impl LegacyPlugin for Greeter {
///     fn handle(&self, action: &str, payload: Value) -> Result<Value, String> {
///         match (action, payload["name"].as_str()) {
///             ("greet", Some(name)) => Ok(json!(format!("Hello, {name}!"))),
///             _ => Err("not_found: there is no such action".to_owned()),
///         }
///     }
/// }
///
/// let greet = Action {
///     name: "greet",
///     description: "Greets somebody",
///     parameters: json!({ "type": "object", "properties": { "name": { "type": "string" } }, "required": ["name"] }),
///     use_instead: None,
/// };
/// let plugin = adapt("greeter", "1.0.0", "Greets", Arc::new(Greeter), vec![greet])?;
/// # Ok::<(), toolbay::ToolError>(())
/// ```
pub fn adapt(
    name: &str,
    version: &str,
    description: &str,
    plugin: Arc<dyn LegacyPlugin>,
    actions: Vec<Action>,
) -> Result<NativePlugin, ToolError> {
    let mut adapted = NativePlugin::new(name, version, description)?;
    for action in actions {
        let description = match action.use_instead {
            None => action.description.to_owned(),
            Some(instead) => format!("{} Deprecated: use {instead} instead.", action.description),
        };
        let definition = ToolDefinition::new(action.name, description, action.parameters)
            .map_err(|error| ToolError::new(ErrorKind::Config, error.to_string()))?;
        adapted = adapted.tool(LegacyTool {
            definition,
            plugin: Arc::clone(&plugin),
            of: name.to_owned(),
            action: action.name,
            use_instead: action.use_instead,
            has_warned: AtomicBool::new(false),
        });
    }
    Ok(adapted)
}

struct LegacyTool {
    definition: ToolDefinition,
    plugin: Arc<dyn LegacyPlugin>,
    /// The plugin's name.
    of: String,
    action: &'static str,
    use_instead: Option<&'static str>,
    has_warned: AtomicBool,
}

impl LegacyTool {
    /// Warns the operator at the first call, and at no other: a line for each call would hide what else the log has.
    fn warn_once(&self, tenant: &str) {
        let Some(instead) = self.use_instead else { return };
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                plugin = self.of,
                action = self.action,
                instead,
                tenant,
                "a deprecated action is still called"
            );
        }
    }
}

#[async_trait]
impl Tool for LegacyTool {
    fn definition(&self) -> &ToolDefinition {
        &self.definition
    }

    fn execution(&self) -> Execution {
        Execution::Blocking
    }

    async fn call(&self, arguments: Value, cx: &ToolContext) -> Result<ToolOutput, ToolError> {
        self.call_blocking(arguments, cx)
    }

    fn call_blocking(&self, arguments: Value, cx: &ToolContext) -> Result<ToolOutput, ToolError> {
        self.warn_once(cx.tenant().as_str());
        self.plugin.handle(self.action, arguments).map(ToolOutput::new).map_err(|text| error_of(&text))
    }
}

/// The kind that a text's code stands for.
///
/// Text behind a code was written for users and is shown. Any other may hold what is nobody's business, such as a path or a
/// statement in SQL, so it goes to the operator, and the model learns that it failed.
fn error_of(text: &str) -> ToolError {
    let coded = text.split_once(':').and_then(|(code, message)| {
        let kind = match code {
            "not_found" => ErrorKind::NotFound,
            "invalid" => ErrorKind::InvalidArguments,
            "denied" => ErrorKind::PermissionDenied,
            "busy" => ErrorKind::Unavailable,
            _ => return None,
        };
        Some(ToolError::new(kind, message.trim().to_owned()))
    });
    coded.unwrap_or_else(|| ToolError::failed("the action failed; tell the operator").with_source(text.to_owned()))
}
