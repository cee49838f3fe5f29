//! Who may call a tool. It stands apart from permissions: those say what a plugin may reach, this says who may reach it.

use std::{fmt, sync::Arc};

use globset::{Glob, GlobMatcher};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names::{PluginName, Scope};

/// The word for whoever calls from outside of plugins: the model, an MCP client, the command line.
const AGENT: &str = "agent";

/// The word for every plugin.
const EVERY_PLUGIN: &str = "*";

/// Entries that one list may have.
const MAX_ENTRIES: usize = 64;

/// Who may call a tool: `"agent"`, which is the model and whoever else calls from outside of plugins, and plugins by
/// name, in which `*` stands for any characters. `"*"` alone is every plugin, and not the agent.
///
/// A name in the list of a tool for everybody means a plugin for everybody: a tenant cannot give itself the right to call
/// by giving a plugin of its own that name.
///
/// ```
/// use toolbay_api::{AllowedCallers, PluginName, Scope};
///
/// let callers = AllowedCallers::new(["billing", "shop-*"])?;
/// assert!(!callers.allow_agent());
/// let (shop, global) = (PluginName::new("shop-eu")?, Scope::Global);
/// assert!(callers.allow_plugin(&shop, &global, &global));
/// assert!(!callers.allow_plugin(&shop, &Scope::tenant("acme")?, &global));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
#[schemars(with = "Vec<String>")]
pub struct AllowedCallers(Arc<[Entry]>);

#[derive(Clone)]
struct Entry {
    text: Box<str>,
    matcher: GlobMatcher,
}

/// A list of callers that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CallersError(String);

impl AllowedCallers {
    /// Checks and takes over a list.
    ///
    /// # Errors
    /// [`CallersError`] where the list names nobody or more than 64, or where an entry is neither `agent` nor the name of a
    /// plugin in lower-case letters, digits, `_`, `-` and `*`.
    pub fn new<T: AsRef<str>>(callers: impl IntoIterator<Item = T>) -> Result<Self, CallersError> {
        let mut entries = Vec::new();
        for caller in callers {
            let text = caller.as_ref();
            let fits =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'*');
            let glob = Glob::new(text).ok().filter(|_| !text.is_empty() && text.len() <= 64 && text.bytes().all(fits));
            let Some(glob) = glob else {
                let shown: String = text.chars().take(80).collect();
                return Err(CallersError(format!(
                    "{shown:?} is no caller: write \"agent\", or a plugin's name, in which * stands for any characters"
                )));
            };
            if entries.len() >= MAX_ENTRIES {
                return Err(CallersError(format!("more than {MAX_ENTRIES} callers: use * in their names")));
            }
            entries.push(Entry { text: text.into(), matcher: glob.compile_matcher() });
        }
        if entries.is_empty() {
            return Err(CallersError("names nobody: leave it out where everybody may call".to_owned()));
        }
        Ok(Self(entries.into()))
    }

    /// Whether the model may call, and whoever else calls from outside of plugins.
    #[must_use]
    pub fn allow_agent(&self) -> bool {
        self.0.iter().any(|entry| &*entry.text == AGENT)
    }

    /// Whether the plugin `caller`, registered in `of`, may call a tool that is registered in `tools`.
    #[must_use]
    pub fn allow_plugin(&self, caller: &PluginName, of: &Scope, tools: &Scope) -> bool {
        let is_named_safely = matches!((of, tools), (Scope::Global, _) | (Scope::Tenant(_), Scope::Tenant(_)));
        self.0.iter().any(|entry| match &*entry.text {
            AGENT => false,
            EVERY_PLUGIN => true,
            _ => is_named_safely && entry.matcher.is_match(caller.as_str()),
        })
    }

    /// The entries as they were written.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|entry| &*entry.text)
    }
}

impl PartialEq for AllowedCallers {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for AllowedCallers {}

impl fmt::Debug for AllowedCallers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl TryFrom<Vec<String>> for AllowedCallers {
    type Error = CallersError;
    fn try_from(callers: Vec<String>) -> Result<Self, CallersError> {
        Self::new(callers)
    }
}

impl From<AllowedCallers> for Vec<String> {
    fn from(callers: AllowedCallers) -> Self {
        callers.iter().map(str::to_owned).collect()
    }
}
