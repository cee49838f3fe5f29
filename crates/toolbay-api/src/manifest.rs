//! What a plugin says of itself: the one type behind `plugin.toml`, `plugin.yaml`, `plugin.json` and the `PLUGIN` constant
//! of a one-file plugin. Its parts: [`check`] holds the rules that types cannot say, [`read`] takes a manifest from JSON,
//! [`schema`] makes its JSON Schema, [`shown`] has prompts and resources. Bounds and patterns that a rule and the schema share are constants here.

pub mod check;
pub mod read;
pub mod schema;
pub mod shown;

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    callers::AllowedCallers,
    event::EventPattern,
    hook::{FailurePolicy, HookPoint},
    limits::LimitsRequest,
    names::{AbilityName, PluginName, ServiceName, ToolName},
    permission::PermissionSet,
    tool::{Annotations, ToolDefinition},
};

pub use check::{FieldPart, ManifestError};
pub use shown::{PromptArgument, PromptDeclaration, PromptMessage, ResourceDeclaration};

/// Characters of a plugin's description.
pub const MAX_DESCRIPTION: usize = 4_000;
/// Characters of a tool's description.
pub const MAX_TOOL_DESCRIPTION: usize = 10_000;
/// Characters of an author, a licence, a version or the path of an entry file.
pub const MAX_LINE: usize = 200;
/// Characters of an address.
pub const MAX_URL: usize = 2_000;
/// Keywords of a plugin.
pub const MAX_KEYWORDS: usize = 20;
/// Characters of a keyword.
pub const MAX_KEYWORD: usize = 50;
/// Permissions in one list.
pub const MAX_PERMISSIONS: usize = 200;
/// Plugins that one plugin requires.
pub const MAX_REQUIREMENTS: usize = 100;
/// Tools that a plugin declares, and names in each list of `provides`.
pub const MAX_TOOLS: usize = 1_000;
/// Abilities that a plugin provides.
pub const MAX_ABILITIES: usize = 100;
/// Globs of a hook's `tools`.
pub const MAX_GLOBS: usize = 100;
/// Characters of a glob, or of a name in `provides`.
pub const MAX_NAME: usize = 200;

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
#[schemars(title = "A Toolbay plugin's manifest", transform = schema::finish)]
pub struct Manifest {
    /// The plugin's name: 1 to 64 of a-z 0-9 _ - beginning with a letter. A plugin in a folder is called like its folder.
    pub name: PluginName,
    /// Its version, as Semantic Versioning has it: 1.2.3.
    #[schemars(with = "String", length(max = MAX_LINE), regex(pattern = schema::VERSION))]
    pub version: Version,
    /// What it is for, in a sentence.
    #[schemars(length(min = 1, max = MAX_DESCRIPTION))]
    pub description: String,
    /// Who answers for it.
    #[schemars(length(min = 1, max = MAX_LINE))]
    pub author: String,
    /// Its licence as an SPDX expression: MIT OR Apache-2.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_LINE), regex(pattern = schema::LICENSE))]
    pub license: Option<String>,
    /// Its home page: an http or https address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_URL), regex(pattern = schema::URL))]
    pub homepage: Option<String>,
    /// Where its source is: an http or https address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_URL), regex(pattern = schema::URL))]
    pub repository: Option<String>,
    /// Words to find it by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_KEYWORDS), inner(length(min = 1, max = MAX_KEYWORD)), extend("uniqueItems" = true))]
    pub keywords: Vec<String>,
    /// How its code runs.
    #[serde(default = "rhai_runtime")]
    pub runtime: RuntimeKind,
    /// The file to start from, within the plugin's folder; main.rhai where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_LINE), regex(pattern = schema::ENTRY))]
    pub entry: Option<String>,
    /// What it provides, by name. Optional: where a list is present it must agree with what is declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provides: Option<Provides>,
    /// Plugins that it needs, each once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_REQUIREMENTS))]
    pub requires: Vec<Requirement>,
    /// Services of other native plugins that it needs; for native plugins only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires_services: Vec<ServiceName>,
    /// The range of Toolbay versions that it works with: ^0.1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(min = 1), regex(pattern = schema::RANGE))]
    pub framework: Option<VersionReq>,
    /// Whether its code is compiled when it is loaded. Otherwise it is compiled when it is needed first, unless it has
    /// hooks, on_load or on_start; the operator has the last word.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub auto_load: bool,
    /// What it asks to be allowed: kv:read, http:GET:api.example.com. It gets what the host and the tenant both grant.
    #[serde(default, skip_serializing_if = "PermissionSet::is_empty")]
    #[schemars(length(max = MAX_PERMISSIONS))]
    pub permissions: PermissionSet,
    /// Lower limits than the host's; a higher one changes nothing.
    #[serde(default, skip_serializing_if = "is_default")]
    pub limits: LimitsRequest,
    /// The JSON Schema of its configuration, which an operator sets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Map<String, Value>>")]
    pub config_schema: Option<Value>,
    /// Its tools by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = MAX_TOOLS))]
    pub tools: BTreeMap<ToolName, ToolDeclaration>,
    /// Its hooks by the point at which they stand.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub hooks: BTreeMap<HookPoint, HookDeclaration>,
    /// Its handlers by the events that they are for: names or globs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, EventDeclaration>")]
    pub events: BTreeMap<EventPattern, EventDeclaration>,
    /// Its prompts by name: what a user can begin a conversation with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = shown::MAX_PROMPTS))]
    pub prompts: BTreeMap<ToolName, PromptDeclaration>,
    /// Its resources by name: what a user or a model can read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = shown::MAX_RESOURCES))]
    pub resources: BTreeMap<ToolName, ResourceDeclaration>,
}

fn yes() -> bool {
    true
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde hands a field over by reference")]
fn is_yes(value: &bool) -> bool {
    *value
}

fn rhai_runtime() -> RuntimeKind {
    RuntimeKind::Rhai
}

pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Another plugin that a plugin needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// Its name.
    pub name: PluginName,
    /// The range of versions that will do: ^1.2.
    #[schemars(with = "String", length(min = 1), regex(pattern = schema::RANGE))]
    pub version: VersionReq,
}

/// The names of what a plugin provides.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Provides {
    /// The names of its tools.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_TOOLS), inner(length(min = 1, max = MAX_NAME)))]
    pub tools: Vec<String>,
    /// The points of its hooks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_TOOLS), inner(length(min = 1, max = MAX_NAME)))]
    pub hooks: Vec<String>,
    /// The abilities of the host that it provides, each by a tool of each operation's name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_ABILITIES), extend("uniqueItems" = true))]
    pub abilities: Vec<AbilityName>,
    /// The events that it emits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_TOOLS), inner(length(min = 1, max = MAX_NAME)))]
    pub events: Vec<String>,
}

/// A tool as a manifest declares it, under its name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ToolDeclaration {
    /// What it does, for the model.
    #[schemars(length(min = 1, max = MAX_TOOL_DESCRIPTION))]
    pub description: String,
    /// The JSON Schema of its arguments, an object; without it the tool takes none.
    #[serde(default = "no_parameters")]
    #[schemars(with = "Map<String, Value>")]
    pub parameters: Value,
    /// The JSON Schema of its result, which is checked where it is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Map<String, Value>>")]
    pub output: Option<Value>,
    /// Rights that the user must have for the tool to be seen and called.
    #[serde(default, skip_serializing_if = "PermissionSet::is_empty")]
    #[schemars(length(max = MAX_PERMISSIONS))]
    pub required_permissions: PermissionSet,
    /// Who may call it: `agent`, and plugins by name; everybody where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_callers: Option<AllowedCallers>,
    /// A shorter time limit than the plugin's, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub timeout_ms: Option<u64>,
    /// What it does to the world.
    #[serde(default, skip_serializing_if = "is_default")]
    pub annotations: Annotations,
}

pub(crate) fn no_parameters() -> Value {
    serde_json::json!({ "type": "object", "properties": {}, "additionalProperties": false })
}

/// A script's hook as a manifest declares it, under its point. The script's function is called like the point.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HookDeclaration {
    /// Lower goes first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Globs of the qualified names of the tools that it is asked about: pay, todo.*. All where it is left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MAX_GLOBS), inner(length(min = 1, max = MAX_NAME)))]
    pub tools: Option<Vec<String>>,
    /// How long it may think, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub timeout_ms: Option<u64>,
    /// What its failure or lateness means: closed, a no; open, nothing.
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
            auto_load: true,
            permissions: PermissionSet::default(),
            limits: LimitsRequest::default(),
            config_schema: None,
            tools: BTreeMap::new(),
            hooks: BTreeMap::new(),
            events: BTreeMap::new(),
            prompts: BTreeMap::new(),
            resources: BTreeMap::new(),
        }
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
