//! `tools.lock.json`: the definitions of a server's tools as an operator approved them, and what differs from them.
//!
//! A description is an instruction to the model that reads it. Whoever writes it is trusted as far as somebody has read it,
//! so what was read is kept, and what the server says later is only ever compared with it.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use toolbay_api::{ToolDefinition, ToolName};

use crate::link::Offered;

/// The file's name among the plugin's assets.
pub const FILE: &str = "tools.lock.json";

/// The approved tools of a server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pins {
    /// In the order of their names.
    pub tools: Vec<Pin>,
}

/// An approved tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// What the plugin calls it.
    pub name: ToolName,
    /// What the server calls it.
    pub tool: String,
    /// `sha256:` and the digest of the server's name, description and schemas for it.
    pub digest: String,
    /// What it does, in the server's words.
    pub description: String,
    /// Its parameters.
    pub parameters: Value,
    /// Its result, where the server says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
}

/// How a server's tools differ from what was approved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Difference {
    /// It describes an approved tool in another way.
    Changed(String),
    /// It has an approved tool no more.
    Gone(String),
    /// It has a tool that nobody approved.
    New(String),
}

/// Why tools cannot be pinned, or pins cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PinsError(String);

impl Pins {
    /// Reads the file.
    ///
    /// # Errors
    /// [`PinsError`] where it is none, or where a digest is not that of what stands beside it.
    pub fn parse(bytes: &[u8]) -> Result<Self, PinsError> {
        let pins: Self = serde_json::from_slice(bytes).map_err(|error| PinsError(error.to_string()))?;
        let mut names = BTreeSet::new();
        for pin in &pins.tools {
            if pin.digest != digest(&pin.tool, &pin.description, &pin.parameters, pin.output.as_ref()) {
                let message =
                    format!("the digest of {} is not that of its definition: approve the tools again", pin.name);
                return Err(PinsError(message));
            }
            if !names.insert(&pin.name) {
                return Err(PinsError(format!("{} stands there twice", pin.name)));
            }
            check_schemas(pin)?;
        }
        Ok(pins)
    }

    /// Pins what a server offers, with the tools that cannot be taken and why.
    #[must_use]
    pub fn of(offered: &[Offered]) -> (Self, Vec<(String, PinsError)>) {
        let (mut tools, mut left_out): (Vec<Pin>, Vec<_>) = (Vec::new(), Vec::new());
        for tool in offered {
            let name = match own_name(&tool.name, &tools) {
                Ok(name) => name,
                Err(error) => {
                    left_out.push((tool.name.clone(), error));
                    continue;
                }
            };
            let pin = Pin {
                name,
                tool: tool.name.clone(),
                digest: digest(&tool.name, &tool.description, &tool.parameters, tool.output.as_ref()),
                description: tool.description.clone(),
                parameters: tool.parameters.clone(),
                output: tool.output.clone(),
            };
            match check_schemas(&pin) {
                Ok(()) => tools.push(pin),
                Err(error) => left_out.push((tool.name.clone(), error)),
            }
        }
        tools.sort_by(|one, other| one.name.cmp(&other.name));
        (Self { tools }, left_out)
    }

    /// The file's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

    /// How what the server offers now differs.
    #[must_use]
    pub fn differences(&self, offered: &[Offered]) -> Vec<Difference> {
        let mut all = Vec::new();
        for pin in &self.tools {
            match offered.iter().find(|tool| tool.name == pin.tool) {
                None => all.push(Difference::Gone(pin.tool.clone())),
                Some(tool) => {
                    let now = digest(&tool.name, &tool.description, &tool.parameters, tool.output.as_ref());
                    if now != pin.digest {
                        all.push(Difference::Changed(pin.tool.clone()));
                    }
                }
            }
        }
        let is_new = |tool: &&Offered| self.tools.iter().all(|pin| pin.tool != tool.name);
        all.extend(offered.iter().filter(is_new).map(|tool| Difference::New(tool.name.clone())));
        all
    }
}

impl Pin {
    /// The definition that models and callers see. What the server says of the tool's effects is not in it: it would be
    /// believed.
    #[must_use]
    pub fn definition(&self) -> ToolDefinition {
        ToolDefinition {
            name: self.name.clone(),
            description: if self.description.trim().is_empty() { self.tool.clone() } else { self.description.clone() },
            parameters: self.parameters.clone(),
            output: self.output.clone(),
            required_permissions: toolbay_api::PermissionSet::default(),
            allowed_callers: None,
            timeout: None,
            annotations: toolbay_api::Annotations::default(),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed(tool) => write!(f, "{tool} has another description or schema than the approved one"),
            Self::Gone(tool) => write!(f, "{tool} is not there any more"),
            Self::New(tool) => write!(f, "{tool} is new and not approved"),
        }
    }
}

/// The server's name in the form that a tool's name has; with a number behind it where that is taken.
fn own_name(theirs: &str, taken: &[Pin]) -> Result<ToolName, PinsError> {
    let fits = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '_' | '-') { c } else { '_' };
    let base: String = theirs.chars().map(fits).take(56).collect();
    let base = if base.is_empty() { "tool".to_owned() } else { base };
    let is_free = |name: &ToolName| taken.iter().all(|pin| pin.name != *name);
    let numbered = (2..=taken.len() + 2).map(|number| format!("{base}_{number}"));
    let free = std::iter::once(base.clone()).chain(numbered).filter_map(|name| ToolName::new(name).ok()).find(is_free);
    free.ok_or_else(|| PinsError(format!("{theirs:?} has no form that a tool's name can have")))
}

/// The digest of a definition: the parts as JSON with sorted keys, each with its length before it.
fn digest(name: &str, description: &str, parameters: &Value, output: Option<&Value>) -> String {
    let mut hash = Sha256::new();
    let output = output.map(sorted).unwrap_or_default();
    for part in [name, description, &sorted(parameters), &output] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// JSON with the keys of objects in order: a server that sends the same in another order has changed nothing.
fn sorted(value: &Value) -> String {
    fn sort(value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().collect();
                entries.sort_by(|one, other| one.0.cmp(other.0));
                Value::Object(entries.into_iter().map(|(key, value)| (key.clone(), sort(value))).collect::<Map<_, _>>())
            }
            Value::Array(items) => Value::Array(items.iter().map(sort).collect()),
            other => other.clone(),
        }
    }
    sort(value).to_string()
}

/// A schema may refer to its own parts only: another place is somebody else's to change, and nothing here goes there.
fn check_schemas(pin: &Pin) -> Result<(), PinsError> {
    for schema in std::iter::once(&pin.parameters).chain(&pin.output) {
        if let Some(reference) = foreign_reference(schema) {
            let reference: String = reference.chars().take(200).collect();
            let message = format!("its schema refers to {reference:?}, which lies outside of it");
            return Err(PinsError(message));
        }
    }
    Ok(())
}

fn foreign_reference(schema: &Value) -> Option<&str> {
    match schema {
        Value::Object(map) => {
            let is_reference = |key: &str| matches!(key, "$ref" | "$dynamicRef" | "$recursiveRef");
            let own = map
                .iter()
                .find_map(|(key, value)| value.as_str().filter(|text| is_reference(key) && !text.starts_with('#')));
            own.or_else(|| map.values().find_map(foreign_reference))
        }
        Value::Array(items) => items.iter().find_map(foreign_reference),
        _ => None,
    }
}
