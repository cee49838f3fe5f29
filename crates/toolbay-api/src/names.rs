//! Names and ids, parsed once at the edge and trusted afterwards.

use std::{
    borrow::{Borrow, Cow},
    fmt,
    str::FromStr,
    sync::Arc,
};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A name that does not have the form that its kind asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {given:?} is not allowed: use {rule}")]
pub struct NameError {
    what: &'static str,
    given: String,
    rule: &'static str,
}

impl NameError {
    fn new(what: &'static str, given: &str, rule: &'static str) -> Self {
        // A hostile name may be megabytes long; the error keeps enough of it to be recognised.
        let given = given.chars().take(80).collect();
        Self { what, given, rule }
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $rule:literal, $pattern:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks `name` and takes it over.
            ///
            /// # Errors
            /// [`NameError`], which states the allowed form.
            pub fn new(name: impl AsRef<str>) -> Result<Self, NameError> {
                let name = name.as_ref();
                let valid: fn(&str) -> bool = $valid;
                if valid(name) { Ok(Self(name.into())) } else { Err(NameError::new($what, name, $rule)) }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The name as shared text, without a copy.
            #[must_use]
            pub fn shared(&self) -> Arc<str> {
                Arc::clone(&self.0)
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern })
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl FromStr for $type {
            type Err = NameError;
            fn from_str(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;
            fn try_from(name: String) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl TryFrom<&str> for $type {
            type Error = NameError;
            fn try_from(name: &str) -> Result<Self, NameError> {
                Self::new(name)
            }
        }

        impl TryFrom<&$type> for $type {
            type Error = NameError;
            fn try_from(name: &$type) -> Result<Self, NameError> {
                Ok(name.clone())
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $type {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }

        impl PartialEq<&str> for $type {
            fn eq(&self, other: &&str) -> bool {
                &*self.0 == *other
            }
        }
    };
}

/// True where every byte of `name` passes `inner`, its first byte passes `first` and it has 1 to `max` bytes.
fn has_form(name: &str, max: usize, first: fn(u8) -> bool, inner: fn(u8) -> bool) -> bool {
    name.len() <= max && name.bytes().next().is_some_and(first) && name.bytes().all(inner)
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-')
}

name!(
    /// A tenant: a customer whose agent has tools, state and limits of its own.
    ///
    /// The first character is a letter or a digit, so no tenant can be named like a path step (`..`).
    TenantId,
    "the tenant id",
    "1 to 64 of A-Z a-z 0-9 _ . - and begin with a letter or a digit",
    "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
    |name| has_form(name, 64, |b| b.is_ascii_alphanumeric(), is_name_byte)
);

name!(
    /// The name of a plugin, unique within its scope.
    PluginName,
    "the plugin name",
    "1 to 64 of a-z 0-9 _ - and begin with a letter",
    "^[a-z][a-z0-9_-]{0,63}$",
    |name| has_form(
        name,
        64,
        |b| b.is_ascii_lowercase(),
        |b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-')
    )
);

name!(
    /// The name of an ability. It stands in the names of tools where a plugin's does, so it has the form of one.
    AbilityName,
    "the ability name",
    "1 to 64 of a-z 0-9 _ - and begin with a letter",
    "^[a-z][a-z0-9_-]{0,63}$",
    |name| has_form(
        name,
        64,
        |b| b.is_ascii_lowercase(),
        |b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-')
    )
);

name!(
    /// The name of a tool: inside its plugin as declared, in a catalog [qualified](ToolName::qualified) by the plugin.
    ToolName,
    "the tool name",
    "1 to 128 of A-Z a-z 0-9 _ . -",
    "^[A-Za-z0-9_.-]{1,128}$",
    |name| has_form(name, 128, is_name_byte, is_name_byte)
);

name!(
    /// The name of an event: words with dots between them, the subject first, as in `order.placed`.
    EventName,
    "the event name",
    "1 to 128 of A-Z a-z 0-9 _ - in words with single dots between them",
    "^[A-Za-z0-9_-]+(\\.[A-Za-z0-9_-]+)*$",
    |name| has_form(name, 128, is_name_byte, is_name_byte) && name.split('.').all(|word| !word.is_empty())
);

name!(
    /// The name of a service that native plugins lend each other.
    ServiceName,
    "the service name",
    "1 to 64 of A-Z a-z 0-9 _ . - and begin with a letter",
    "^[A-Za-z][A-Za-z0-9_.-]{0,63}$",
    |name| has_form(name, 64, |b| b.is_ascii_alphabetic(), is_name_byte)
);

impl EventName {
    /// Whether only the host tells of events of this name: it begins with `plugin.` or `host.`.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with("plugin.") || self.0.starts_with("host.")
    }
}

impl Default for TenantId {
    /// `default`: the tenant of a program that has only one.
    fn default() -> Self {
        Self("default".into())
    }
}

impl ToolName {
    /// The name by which callers know the tool `local` of `plugin`: `plugin.local`, or the bare name where both are
    /// the same, so that a plugin with one tool need not be called `pay.pay`.
    ///
    /// No plugin name contains a dot, so two tools never share a qualified name.
    ///
    /// # Errors
    /// [`NameError`] where the whole is longer than 128 characters.
    pub fn qualified(plugin: &PluginName, local: &ToolName) -> Result<Self, NameError> {
        if plugin.as_str() == local.as_str() {
            return Ok(local.clone());
        }
        Self::new(format!("{plugin}.{local}"))
    }
}

impl AbilityName {
    /// The name by which callers know the operation `operation`: always `ability.operation`, also where both are the same.
    ///
    /// # Errors
    /// [`NameError`] where the whole is longer than 128 characters.
    pub fn tool(&self, operation: &ToolName) -> Result<ToolName, NameError> {
        ToolName::new(format!("{self}.{operation}"))
    }
}

/// Where a plugin is registered: for everybody or for one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Seen by every tenant.
    Global,
    /// Seen by this tenant only.
    Tenant(TenantId),
}

impl Scope {
    /// The scope of the tenant called `name`.
    ///
    /// # Errors
    /// [`NameError`] where `name` is no tenant id.
    pub fn tenant(name: impl AsRef<str>) -> Result<Self, NameError> {
        TenantId::new(name).map(Self::Tenant)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.write_str("global"),
            Self::Tenant(tenant) => write!(f, "tenant {tenant}"),
        }
    }
}

/// One run of an agent, or one direct call from outside a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(Uuid);

impl RunId {
    /// A new random id.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl From<Uuid> for RunId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

impl From<RunId> for Uuid {
    fn from(id: RunId) -> Self {
        id.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// One tool call: the model's own id of it where the model gave one, else a number within the run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallId(Arc<str>);

impl CallId {
    /// Takes over the id that the caller uses.
    #[must_use]
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
