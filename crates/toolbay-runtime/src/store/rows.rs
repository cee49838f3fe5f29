//! What a store keeps, a type for each kind of row.

use std::{collections::BTreeMap, fmt};

use semver::Version;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use toolbay_api::{PluginName, Scope, TenantId};
use uuid::Uuid;

/// How often a row was written. Whoever changes a row names the one that they saw.
pub type Revision = i64;

/// A point in the order of all changes of a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position(pub i64);

/// A tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantRow {
    /// Its number, for ever: a tenant of the same name that is made after this one was removed has another.
    pub id: Uuid,
    /// Its name.
    pub name: TenantId,
    /// Whether its keys are refused for now.
    pub suspended: bool,
    /// When it was made, in milliseconds since 1970, UTC.
    pub created_at: i64,
    /// How often it was written.
    pub revision: Revision,
}

/// What is decided about one plugin in one scope: which version is installed there, whether it is on, its configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Registration {
    /// Its number.
    pub id: Uuid,
    /// For whom.
    pub scope: Scope,
    /// The plugin.
    pub plugin: PluginName,
    /// The version that is installed; for a plugin that was not uploaded, the one that was there when it was decided.
    pub version: Version,
    /// The uploaded package that is installed; `None` where the plugin comes from elsewhere (a folder, native code, the
    /// global scope) and only something about it is decided.
    pub package: Option<PackageDigest>,
    /// The version that was installed before this one, to which a rollback goes.
    pub previous: Option<Version>,
    /// Whether it is on. In the global scope: whether tenants have it before they decide.
    pub enabled: bool,
    /// What is said of its configuration, an object; `None`: nothing.
    pub config: Option<Value>,
    /// Its place where several plugins could serve.
    pub priority: Option<i32>,
    /// When it was installed or first decided about, in milliseconds since 1970, UTC.
    pub installed_at: i64,
    /// When it was last written.
    pub updated_at: i64,
    /// How often it was written.
    pub revision: Revision,
}

impl Registration {
    /// A plugin that is on, of which nothing else is decided and no package installed, as it is written first at `now_ms`.
    pub(crate) fn new(scope: &Scope, plugin: &PluginName, version: &Version, now_ms: i64) -> Self {
        Self {
            id: Uuid::now_v7(),
            scope: scope.clone(),
            plugin: plugin.clone(),
            version: version.clone(),
            package: None,
            previous: None,
            enabled: true,
            config: None,
            priority: None,
            installed_at: now_ms,
            updated_at: now_ms,
            revision: 1,
        }
    }
}

/// A version of a plugin that was uploaded. Never changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PackageVersion {
    /// For whom it was uploaded.
    pub scope: Scope,
    /// The plugin.
    pub plugin: PluginName,
    /// The version.
    pub version: Version,
    /// The package.
    pub digest: PackageDigest,
    /// Its length in bytes.
    pub bytes: i64,
    /// The name of its file, where it is a one-file plugin.
    pub file_name: Option<String>,
    /// The plugin's manifest.
    pub manifest: Value,
    /// When it was uploaded, in milliseconds since 1970, UTC.
    pub uploaded_at: i64,
    /// Who uploaded it, as the audit calls them.
    pub uploaded_by: String,
}

/// SHA-256 of a package's bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PackageDigest(pub [u8; 32]);

impl PackageDigest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for PackageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PackageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<PackageDigest> for String {
    fn from(digest: PackageDigest) -> Self {
        digest.to_string()
    }
}

impl TryFrom<String> for PackageDigest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let pair = |at: usize| text.get(at * 2..at * 2 + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = pair(at).ok_or("a digest is 64 hexadecimal digits")?;
        }
        if text.len() == 64 { Ok(Self(bytes)) } else { Err("a digest is 64 hexadecimal digits".to_owned()) }
    }
}

/// What the holder of a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Calls the tools of its tenant and decides about the tenant's plugins.
    Tenant,
    /// Decides about all tenants and their plugins.
    Operator,
    /// That, and about keys and what is global.
    Admin,
}

impl Role {
    /// Its name, as it is written in JSON and in the database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tenant => "tenant",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// A key to the host's interfaces. The key itself is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRow {
    /// Its number.
    pub id: Uuid,
    /// Its first part, by which it is found and shown in lists; not secret.
    pub prefix: String,
    /// SHA-256 of the whole key.
    #[serde(skip)]
    pub hash: [u8; 32],
    /// What it allows.
    pub role: Role,
    /// The tenant whose key it is: given for the role tenant, and for that one only.
    pub tenant: Option<TenantId>,
    /// What it is for, in its maker's words.
    pub label: String,
    /// Calls a minute that it allows; `None`: as many as the host allows every key.
    pub rate: Option<u32>,
    /// When it was made, in milliseconds since 1970, UTC.
    pub created_at: i64,
    /// From when on it is refused.
    pub expires_at: Option<i64>,
    /// When it was revoked.
    pub revoked_at: Option<i64>,
}

/// Where a tenant's secret is found: what plugins ask for by `name` is what the host's keeper of secrets has as
/// `reference`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretReference {
    /// Whose; global: every tenant's that has none of its own by this name.
    pub scope: Scope,
    /// As plugins call it.
    pub name: String,
    /// As the host's keeper calls it; `None` in a [`Snapshot`]: it is gone.
    pub reference: Option<String>,
}

/// A run as it is kept: what it was, how it ended, or where it waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRow {
    /// Its id.
    pub id: Uuid,
    /// Whose.
    pub tenant: TenantId,
    /// How it stands: `running`, `suspended`, `finished`, `failed`, `cancelled`.
    pub status: String,
    /// When it began, in milliseconds since 1970, UTC.
    pub started_at: i64,
    /// When it was last written.
    pub updated_at: i64,
    /// What is needed to go on or to show it; `null` in lists.
    pub state: Value,
    /// How often it was written.
    pub revision: Revision,
}

/// What changed in a store since a [`Position`], or all of it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// The position that this is as of.
    pub position: Position,
    /// Whether this is everything there is, and what is not in it is not there. Also where it was asked for by a position
    /// that the store cannot go on from, such as one of before a backup was put back.
    pub complete: bool,
    /// Tenants that are new or different.
    pub tenants: Vec<TenantRow>,
    /// Tenants that were removed, by the numbers that they had.
    pub removed_tenants: Vec<(Uuid, TenantId)>,
    /// For each scope in which anything is different, all its registrations, also where those are none.
    pub registrations: BTreeMap<Scope, Vec<Registration>>,
    /// Keys that are new or different.
    pub keys: Vec<KeyRow>,
    /// References that are new, different or gone.
    pub secrets: Vec<SecretReference>,
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Where the part before ended, as [`Listed::next`] said; `None`: at the beginning.
    pub after: Option<String>,
    /// How many at most.
    pub limit: u32,
}

/// A part of a list, and where the next one begins.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Listed<T> {
    /// The part.
    pub items: Vec<T>,
    /// What to give as [`Page::after`] for the next part; `None` where this is the end.
    pub next: Option<String>,
}
