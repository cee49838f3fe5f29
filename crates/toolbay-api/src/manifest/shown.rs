//! What a plugin shows besides tools: prompts that a user can begin with, and resources that can be read. Both are data,
//! or the work of one of the plugin's own tools: so code that makes them goes down the road of tool calls like all other.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    MAX_LINE, MAX_NAME, MAX_TOOL_DESCRIPTION, MAX_URL,
    check::{Checked, at_most, ensure, path_within, text},
};
use crate::{names::ToolName, peer::Speaker};

/// Prompts of one plugin.
pub const MAX_PROMPTS: usize = 100;
/// Resources of one plugin.
pub const MAX_RESOURCES: usize = 1_000;
/// Arguments or messages of one prompt.
pub const MAX_PARTS: usize = 50;
/// Values that an argument suggests.
pub const MAX_VALUES: usize = 100;

/// A prompt as a manifest declares it, under its name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PromptDeclaration {
    /// What it is for.
    #[schemars(length(min = 1, max = MAX_TOOL_DESCRIPTION))]
    pub description: String,
    /// What the user fills in.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_PARTS))]
    pub arguments: Vec<PromptArgument>,
    /// What is said. {name} stands for the argument of that name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_PARTS))]
    pub messages: Vec<PromptMessage>,
    /// The plugin's tool that says it, in place of messages. It is called with the arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<ToolName>,
}

/// What a user fills in.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PromptArgument {
    /// Its name.
    #[schemars(length(min = 1, max = MAX_NAME))]
    pub name: String,
    /// What to write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_TOOL_DESCRIPTION))]
    pub description: Option<String>,
    /// Whether it has to be filled in.
    #[serde(default, skip_serializing_if = "super::is_default")]
    pub required: bool,
    /// What is suggested while the user writes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_VALUES), inner(length(min = 1, max = MAX_NAME)))]
    pub values: Vec<String>,
}

/// One message of a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PromptMessage {
    /// Who says it; the user where it is left out.
    #[serde(default = "the_user")]
    pub role: Speaker,
    /// What is said.
    #[schemars(length(min = 1, max = MAX_TOOL_DESCRIPTION))]
    pub text: String,
}

fn the_user() -> Speaker {
    Speaker::User
}

/// A resource as a manifest declares it, under its name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResourceDeclaration {
    /// Its address: docs://fx/rates. With {name} in it, many addresses, each with something in that place.
    #[schemars(length(min = 1, max = MAX_URL), regex(pattern = URI))]
    pub uri: String,
    /// What it is.
    #[schemars(length(min = 1, max = MAX_TOOL_DESCRIPTION))]
    pub description: String,
    /// Its media type: text/markdown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_LINE))]
    pub mime_type: Option<String>,
    /// The file in the plugin's assets that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_LINE), regex(pattern = super::schema::ENTRY))]
    pub asset: Option<String>,
    /// The plugin's tool that gives it, in place of a file. It is called with uri, and what stands in the place of each {name}.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<ToolName>,
}

/// An address with a scheme, or a template of such.
const URI: &str = r"^[a-zA-Z][a-zA-Z0-9+.-]*:[!#-;=?-\[\]_a-z{}~]+$";

impl PromptDeclaration {
    pub(super) fn validate(&self) -> Checked {
        text("description", &self.description, MAX_TOOL_DESCRIPTION)?;
        at_most("arguments", self.arguments.len(), MAX_PARTS, "entries")?;
        let mut seen = BTreeSet::new();
        for (index, argument) in self.arguments.iter().enumerate() {
            let field = |name: &str| format!("arguments[{index}].{name}");
            text(&field("name"), &argument.name, MAX_NAME)?;
            ensure(seen.insert(argument.name.as_str()), &field("name"), || {
                format!("{:?} stands there already", argument.name)
            })?;
            if let Some(description) = &argument.description {
                text(&field("description"), description, MAX_TOOL_DESCRIPTION)?;
            }
            at_most(&field("values"), argument.values.len(), MAX_VALUES, "entries")?;
            argument.values.iter().try_for_each(|value| text(&field("values"), value, MAX_NAME))?;
        }
        at_most("messages", self.messages.len(), MAX_PARTS, "entries")?;
        for (index, message) in self.messages.iter().enumerate() {
            text(&format!("messages[{index}].text"), &message.text, MAX_TOOL_DESCRIPTION)?;
        }
        ensure(self.messages.is_empty() != self.tool.is_none(), "messages", || {
            "write either messages or the tool that says them".to_owned()
        })
    }
}

impl ResourceDeclaration {
    pub(super) fn validate(&self) -> Checked {
        text("description", &self.description, MAX_TOOL_DESCRIPTION)?;
        if let Some(mime_type) = &self.mime_type {
            text("mime_type", mime_type, MAX_LINE)?;
        }
        at_most("uri", self.uri.chars().count(), MAX_URL, "characters")?;
        ensure(is_address(&self.uri), "uri", || {
            format!("{:?} must be an address with a scheme, such as \"docs://fx/rates\"", self.uri)
        })?;
        if let Some(asset) = &self.asset {
            path_within("asset", asset)?;
        }
        ensure(self.asset.is_some() != self.tool.is_some(), "asset", || {
            "write either the asset that it is or the tool that gives it".to_owned()
        })?;
        ensure(self.asset.is_none() || !self.is_template(), "uri", || {
            "one file has one address: take the {} out, or name a tool in place of the asset".to_owned()
        })
    }

    /// Whether its address stands for many.
    #[must_use]
    pub fn is_template(&self) -> bool {
        self.uri.contains('{')
    }

    /// What stands in the places of `{name}` where `uri` is one of its addresses. A place takes one step of a path: no
    /// slash.
    #[must_use]
    pub fn variables(&self, uri: &str) -> Option<Vec<(String, String)>> {
        let (mut pattern, mut rest, mut found) = (self.uri.as_str(), uri, Vec::new());
        while let Some((before, after)) = pattern.split_once('{') {
            rest = rest.strip_prefix(before)?;
            let (name, behind) = after.split_once('}')?;
            let next = behind.split('{').next().unwrap_or_default();
            let end = if next.is_empty() { rest.len() } else { rest.find(next)? };
            let (value, left) = rest.split_at_checked(end)?;
            if value.is_empty() || value.contains('/') {
                return None;
            }
            found.push((name.to_owned(), value.to_owned()));
            (pattern, rest) = (behind, left);
        }
        (pattern == rest).then_some(found)
    }
}

/// Whether `uri` has a scheme and something after it, and each `{` its name and `}`.
fn is_address(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once(':') else { return false };
    let is_scheme = scheme.bytes().next().is_some_and(|first| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'.' | b'-'));
    let is_text = !rest.is_empty()
        && rest
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'|'));
    let mut open = rest.split('{');
    let first = open.next().unwrap_or_default();
    let in_pairs = !first.contains('}')
        && open.all(|part| {
            part.split_once('}').is_some_and(|(name, behind)| {
                !name.is_empty()
                    && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                    && !behind.contains('}')
            })
        });
    is_scheme && is_text && in_pairs
}
