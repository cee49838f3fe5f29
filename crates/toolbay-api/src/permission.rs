//! Permissions: what a manifest asks for, what host and tenant grant, and what is left of both.

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use globset::{Glob, GlobMatcher};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A permission: words with colons between them, of which each may hold `*`, as in `kv:read`, `tool:call:todo.*` or
/// `http:GET:api.example.com`.
///
/// The last `*` of a permission also covers what follows behind further colons: `kv:*` covers `kv:read`, and `*`
/// covers everything.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Permission {
    text: Arc<str>,
    matcher: Arc<GlobMatcher>,
}

impl Permission {
    /// Checks and takes over a permission.
    ///
    /// # Errors
    /// [`PermissionError`] where the text is empty, longer than 256 bytes, or holds another character than
    /// `A-Z a-z 0-9 _ . - : * /`.
    pub fn new(text: impl AsRef<str>) -> Result<Self, PermissionError> {
        let text = text.as_ref();
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b':' | b'*' | b'/');
        if text.is_empty() || text.len() > 256 || !text.bytes().all(allowed) {
            return Err(PermissionError { given: text.chars().take(80).collect() });
        }
        let glob = Glob::new(text).map_err(|_| PermissionError { given: text.to_owned() })?;
        Ok(Self { text: text.into(), matcher: Arc::new(glob.compile_matcher()) })
    }

    /// The permission as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether this permission covers the concrete action `action`.
    #[must_use]
    pub fn covers(&self, action: &str) -> bool {
        &*self.text == action || self.matcher.is_match(action)
    }
}

/// A text that is no permission.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the permission {given:?} is not allowed: use words of A-Z a-z 0-9 _ . - * / with colons between them, as in kv:read"
)]
pub struct PermissionError {
    given: String,
}

impl JsonSchema for Permission {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Permission".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "maxLength": 256, "pattern": "^[A-Za-z0-9_.:*/-]+$" })
    }
}

impl PartialEq for Permission {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Permission {}

impl fmt::Debug for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Permission {
    type Err = PermissionError;
    fn from_str(text: &str) -> Result<Self, PermissionError> {
        Self::new(text)
    }
}

impl TryFrom<String> for Permission {
    type Error = PermissionError;
    fn try_from(text: String) -> Result<Self, PermissionError> {
        Self::new(text)
    }
}

impl From<Permission> for String {
    fn from(permission: Permission) -> String {
        permission.text.as_ref().to_owned()
    }
}

/// A set of permissions; it covers an action where one of them does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(inline)]
pub struct PermissionSet(Vec<Permission>);

impl PermissionSet {
    /// The set that covers every action.
    #[must_use]
    pub fn all() -> Self {
        Self(Permission::new("*").into_iter().collect())
    }

    /// What a host can give without reaching beyond the plugin itself: its own key-value store, the clock, random
    /// numbers, and calling tools that the same tenant could call.
    #[must_use]
    pub fn standard() -> Self {
        let texts = ["kv:*", "clock", "random", "tool:call:*", "hook:*"];
        Self(texts.into_iter().filter_map(|text| Permission::new(text).ok()).collect())
    }

    /// Parses each text.
    ///
    /// # Errors
    /// [`PermissionError`] for the first text that is none.
    pub fn parse<T: AsRef<str>>(texts: impl IntoIterator<Item = T>) -> Result<Self, PermissionError> {
        texts.into_iter().map(Permission::new).collect::<Result<_, _>>().map(Self)
    }

    /// Whether one of the permissions covers `action`.
    #[must_use]
    pub fn covers(&self, action: &str) -> bool {
        self.0.iter().any(|permission| permission.covers(action))
    }

    /// Adds a permission.
    pub fn insert(&mut self, permission: Permission) {
        if !self.0.contains(&permission) {
            self.0.push(permission);
        }
    }

    /// The permissions in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = &Permission> {
        self.0.iter()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Permission> for PermissionSet {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        let mut set = Self::default();
        permissions.into_iter().for_each(|permission| set.insert(permission));
        set
    }
}

/// What a plugin may do for a tenant: what its manifest asks for, as far as host and tenant both give it.
#[derive(Debug, Clone, Default)]
pub struct Grants {
    /// What the manifest asks for.
    pub asked: Arc<PermissionSet>,
    /// What the host gives this plugin.
    pub host: Arc<PermissionSet>,
    /// What the tenant gives its plugins.
    pub tenant: Arc<PermissionSet>,
}

impl Grants {
    /// Whether the concrete action `action` is asked for and given by both.
    #[must_use]
    pub fn allow(&self, action: &str) -> bool {
        self.asked.covers(action) && self.host.covers(action) && self.tenant.covers(action)
    }

    /// `Ok` where [`allow`](Self::allow) says yes.
    ///
    /// # Errors
    /// `PermissionDenied`, which says whose yes is missing.
    pub fn require(&self, action: &str) -> Result<(), crate::ToolError> {
        let missing = if !self.asked.covers(action) {
            "the plugin's manifest does not ask for it: add it to `permissions`"
        } else if !self.host.covers(action) {
            "the host does not grant it to this plugin: an operator can"
        } else if !self.tenant.covers(action) {
            "the tenant does not grant it to its plugins: the tenant's administrator can"
        } else {
            return Ok(());
        };
        Err(crate::ToolError::new(
            crate::ErrorKind::PermissionDenied,
            format!("the permission `{action}` is needed and {missing}"),
        ))
    }
}
