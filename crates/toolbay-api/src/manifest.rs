//! What a plugin says of itself.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    callers::AllowedCallers,
    event::EventPattern,
    hook::{FailurePolicy, HookPoint},
    limits::LimitsRequest,
    names::{EventName, PluginName, ServiceName, ToolName},
    permission::PermissionSet,
    tool::{Annotations, ToolDefinition},
};

/// How a plugin's code runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum RuntimeKind {
    /// Rust code in the host, trusted.
    Native,
    /// A Rhai script in the sandbox.
    Rhai,
    /// A WebAssembly module.
    Wasm,
    /// A process that speaks gRPC.
    Grpc,
    /// An MCP server.
    Mcp,
}

impl fmt::Display for RuntimeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Native => "native",
            Self::Rhai => "rhai",
            Self::Wasm => "wasm",
            Self::Grpc => "grpc",
            Self::Mcp => "mcp",
        })
    }
}

/// What a plugin says of itself: `plugin.toml`, or the `PLUGIN` constant of a one-file plugin.
///
/// It asks; it never decides. Trust, grants and the ceiling of limits are the host's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The plugin's name; a plugin in a folder is called like its folder.
    pub name: PluginName,
    /// Its version.
    #[schemars(with = "String")]
    pub version: Version,
    /// What it is for, in a sentence.
    pub description: String,
    /// Who answers for it.
    pub author: String,
    /// Its licence as an SPDX expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<String>,
    /// Its home page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub homepage: Option<String>,
    /// Where its source is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Words to find it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keywords: Vec<String>,
    /// How its code runs.
    #[serde(default = "rhai_runtime")]
    pub runtime: RuntimeKind,
    /// The file to start from, within the plugin's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// What it provides, by name. Optional: where present it must agree with what is declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provides: Option<Provides>,
    /// Plugins that it needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<Requirement>,
    /// Services of other native plugins that it needs; for native plugins only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires_services: Vec<ServiceName>,
    /// The Toolbay versions that it works with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub framework: Option<VersionReq>,
    /// What it asks to be allowed.
    #[serde(default, skip_serializing_if = "PermissionSet::is_empty")]
    pub permissions: PermissionSet,
    /// Lower limits than the host's.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: LimitsRequest,
    /// The JSON Schema of its configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_schema: Option<Value>,
    /// Its tools by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, ToolDeclaration>")]
    pub tools: BTreeMap<ToolName, ToolDeclaration>,
    /// Its hooks by point.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, HookDeclaration>")]
    pub hooks: BTreeMap<HookPoint, HookDeclaration>,
    /// Its handlers by the events that they are for: names or globs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, EventDeclaration>")]
    pub events: BTreeMap<EventPattern, EventDeclaration>,
}

fn rhai_runtime() -> RuntimeKind {
    RuntimeKind::Rhai
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Another plugin that a plugin needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// Its name.
    pub name: PluginName,
    /// The versions that will do.
    #[schemars(with = "String")]
    pub version: VersionReq,
}

/// The names of what a plugin provides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[allow(missing_docs, reason = "the fields are the four words themselves")]
pub struct Provides {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub abilities: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<String>,
}

/// A tool as a manifest declares it, under its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ToolDeclaration {
    /// What it does, for the model.
    pub description: String,
    /// The JSON Schema of its arguments; without it the tool takes none.
    #[serde(default = "no_parameters")]
    pub parameters: Value,
    /// The JSON Schema of its result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Rights that the user must have.
    #[serde(default, skip_serializing_if = "PermissionSet::is_empty")]
    pub required_permissions: PermissionSet,
    /// Who may call it: `agent`, and plugins by name; everybody where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_callers: Option<AllowedCallers>,
    /// A shorter time limit than the plugin's, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// What it does to the world.
    #[serde(default, skip_serializing_if = "is_default")]
    pub annotations: Annotations,
}

fn no_parameters() -> Value {
    serde_json::json!({ "type": "object", "properties": {}, "additionalProperties": false })
}

/// A script's hook as a manifest declares it, under its point. The script's function is called like the point.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HookDeclaration {
    /// Lower goes first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Globs of the qualified names of the tools that it is asked about; all where absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<String>>,
    /// How long it may think, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// What its failure means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<FailurePolicy>,
}

/// A script's handler of events as a manifest declares it, under the events' name or glob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EventDeclaration {
    /// How long it may take for one event, in milliseconds, where that is shorter than the plugin's limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// How many events of one tenant may wait, where that is fewer than the host allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<u32>,
    /// The script's function.
    pub function: String,
}

impl Default for EventDeclaration {
    fn default() -> Self {
        Self { timeout_ms: None, queue: None, function: "on_event".to_owned() }
    }
}

/// A manifest that cannot be taken: which field and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct ManifestError {
    /// The field as a dotted path.
    pub field: String,
    /// What is wrong with it and what to write instead.
    pub problem: String,
}

impl ManifestError {
    /// A problem with a field.
    pub fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}

impl Manifest {
    /// A manifest with these and nothing else, for native plugins.
    #[must_use]
    pub fn new(name: PluginName, version: Version, description: impl Into<String>) -> Self {
        Self {
            name,
            version,
            description: description.into(),
            author: "the host".into(),
            license: None,
            homepage: None,
            repository: None,
            keywords: Vec::new(),
            runtime: RuntimeKind::Native,
            entry: None,
            provides: None,
            requires: Vec::new(),
            requires_services: Vec::new(),
            framework: None,
            permissions: PermissionSet::default(),
            limits: LimitsRequest::default(),
            config_schema: None,
            tools: BTreeMap::new(),
            hooks: BTreeMap::new(),
            events: BTreeMap::new(),
        }
    }

    /// Checks what the types cannot say: no required field empty, `provides` in agreement, `entry` inside the folder,
    /// this Toolbay within `framework`.
    ///
    /// # Errors
    /// The first [`ManifestError`].
    pub fn validate(&self) -> Result<(), ManifestError> {
        for (field, text) in [("description", &self.description), ("author", &self.author)] {
            if text.trim().is_empty() {
                return Err(ManifestError::new(field, "must not be empty"));
            }
        }
        for (name, tool) in &self.tools {
            if tool.description.trim().is_empty() {
                return Err(ManifestError::new(format!("tools.{name}.description"), "must not be empty"));
            }
        }
        if let Some(entry) = &self.entry {
            let inside = !entry.is_empty()
                && !entry.contains('\\')
                && entry.split('/').all(|step| !matches!(step, "" | "." | ".."));
            if !inside {
                return Err(ManifestError::new(
                    "entry",
                    format!("{entry:?} must be a file within the plugin's folder, such as \"main.rhai\""),
                ));
            }
        }
        if let Some(range) = &self.framework {
            let version = env!("CARGO_PKG_VERSION");
            if !Version::parse(version).is_ok_and(|version| range.matches(&version)) {
                return Err(ManifestError::new(
                    "framework",
                    format!("asks for {range}, and this is Toolbay {version}"),
                ));
            }
        }
        if self.runtime != RuntimeKind::Native && !self.requires_services.is_empty() {
            let problem = format!("services are for native plugins, and this one's runtime is {}", self.runtime);
            return Err(ManifestError::new("requires_services", problem));
        }
        if let Some(provides) = &self.provides {
            for name in &provides.events {
                let name = EventName::new(name);
                let name = name.map_err(|error| ManifestError::new("provides.events", error.to_string()))?;
                if name.is_reserved() {
                    let problem = format!("{name:?} is an event of the host: plugins use other first words");
                    return Err(ManifestError::new("provides.events", problem));
                }
            }
            agree("provides.tools", &provides.tools, self.tools.keys().map(ToolName::as_str))?;
            agree("provides.hooks", &provides.hooks, self.hooks.keys().map(|point| point.name()))?;
        }
        Ok(())
    }

    /// The definitions of the declared tools, in alphabetical order.
    #[must_use]
    pub fn tool_definitions(&self) -> Vec<ToolDefinition> {
        let definition = |(name, tool): (&ToolName, &ToolDeclaration)| ToolDefinition {
            name: name.clone(),
            description: tool.description.clone(),
            parameters: tool.parameters.clone(),
            output: tool.output.clone(),
            required_permissions: tool.required_permissions.clone(),
            allowed_callers: tool.allowed_callers.clone(),
            timeout: tool.timeout_ms.map(std::time::Duration::from_millis),
            annotations: tool.annotations,
        };
        self.tools.iter().map(definition).collect()
    }
}

/// Checks that the list `provided` has just the names `declared`.
fn agree<'a>(
    field: &str,
    provided: &[String],
    declared: impl Iterator<Item = &'a str> + Clone,
) -> Result<(), ManifestError> {
    if let Some(name) = provided.iter().find(|name| !declared.clone().any(|declared| declared == name.as_str())) {
        return Err(ManifestError::new(field, format!("names {name:?}, which is not declared")));
    }
    if let Some(name) = declared.clone().find(|name| !provided.iter().any(|provided| provided == name)) {
        return Err(ManifestError::new(
            field,
            format!("lacks {name:?}, which is declared: add it or leave the list out"),
        ));
    }
    Ok(())
}
