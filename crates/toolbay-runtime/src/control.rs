//! Control: what operators and tenants change while a host runs.
//!
//! Each change takes one road: who may, what it would do, a rehearsal, one transaction in the [`Store`], and then
//! [`Control::sync`], which takes over from the store whatever is different there. `sync` is the only one that changes the
//! registry for a store's sake, so own changes, those of other processes and the start of the process are one case.

use std::sync::Arc;

use semver::Version;
use serde_json::Value;
use toolbay_api::{PluginName, Scope, TenantId, ToolError};
use uuid::Uuid;

use crate::{
    store::{
        AuditLine, AuditQuery, KeyRow, Listed, PackageVersion, Page, Position, Registration, Revision, Role, RunRow,
        Store, TenantRow,
    },
    toolbay::Toolbay,
};

/// Changes a host by its store.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    bay: Toolbay,
    store: Arc<dyn Store>,
}

/// What a host decides about its control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlOptions {
    /// How often the store is asked whether something changed, beside what it says of itself, in milliseconds.
    pub poll_ms: u64,
    /// Uploaded versions that one plugin may have in one scope.
    pub max_versions: usize,
    /// Plugins that one tenant may have uploaded.
    pub max_plugins: usize,
    /// Bytes of one uploaded package.
    pub max_package_bytes: usize,
}

/// Who asks for a change, and how often the same request may come.
#[derive(Debug, Clone)]
pub struct Actor {
    /// As the audit calls them: `key:PREFIX`, `cli`.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// For whom, where the role is that of a tenant.
    pub tenant: Option<TenantId>,
    /// The request's own name, where it has one: the change is made once, and its answer given again.
    pub once: Option<OnceKey>,
}

/// A request's own name.
#[derive(Debug, Clone)]
pub struct OnceKey {
    /// The number of the key with which it came.
    pub owner: Uuid,
    /// What its sender calls it.
    pub key: String,
    /// A digest of it.
    pub request: [u8; 32],
}

/// Who a presented key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The key.
    pub key: Uuid,
    /// Its part that is not secret.
    pub prefix: String,
    /// What it allows.
    pub role: Role,
    /// Its tenant, where the role is that of a tenant.
    pub tenant: Option<TenantId>,
    /// Calls a minute that it allows, where it has a rate of its own.
    pub rate: Option<u32>,
}

/// A key that was just made. The only time that its secret is there.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// What is kept of it.
    pub row: KeyRow,
    /// The key, to be handed over.
    pub secret: String,
}

/// A package that was uploaded.
#[derive(Debug, Clone)]
pub struct Uploaded {
    /// Its version.
    pub version: PackageVersion,
    /// Whether it was there before.
    pub known: bool,
}

#[allow(missing_docs, clippy::missing_errors_doc, reason = "signatures first")]
impl Control {
    /// Opens the control of `bay` over `store`, and takes over what is there.
    pub async fn open(bay: Toolbay, store: Arc<dyn Store>, options: ControlOptions) -> Result<Self, ToolError> {
        Err(ToolError::new(toolbay_api::ErrorKind::Internal, "not written yet"))
    }

    /// Takes over from the store what is different there.
    pub async fn sync(&self) -> Result<(), ToolError> {
        Err(ToolError::new(toolbay_api::ErrorKind::Internal, "not written yet"))
    }

    /// Makes the first admin key, where there is none.
    pub async fn first_key(&self) -> Result<Option<NewKey>, ToolError> {
        Err(ToolError::new(toolbay_api::ErrorKind::Internal, "not written yet"))
    }

    /// Makes a key.
    pub async fn create_key(&self, by: &Actor, wanted: KeyWanted) -> Result<NewKey, ToolError> {
        Err(ToolError::new(toolbay_api::ErrorKind::Internal, "not written yet"))
    }

    /// Makes a key like `id`, which goes on for `grace_ms` beside it.
    pub async fn rotate_key(&self, by: &Actor, id: Uuid, grace_ms: i64) -> Result<NewKey, ToolError> {
        Err(ToolError::new(toolbay_api::ErrorKind::Internal, "not written yet"))
    }

    /// Revokes a key.
    pub async fn revoke_key(&self, by: &Actor, id: Uuid) -> Result<(), ToolError> {
        Err(ToolError::new(toolbay_api::ErrorKind::Internal, "not written yet"))
    }

    /// Lists keys.
    pub async fn keys(&self, by: &Actor, tenant: Option<&TenantId>, page: Page) -> Result<Listed<KeyRow>, ToolError> {
        Err(ToolError::new(toolbay_api::ErrorKind::Internal, "not written yet"))
    }

    /// Makes a tenant.
    pub async fn create_tenant(&self, by: &Actor, name: &TenantId) -> Result<TenantRow, ToolError> {
        Err(ToolError::new(toolbay_api::ErrorKind::Internal, "not written yet"))
    }

    /// Refuses a tenant's keys and calls, or takes them again.
    pub async fn suspend_tenant(
        &self,
        by: &Actor,
        name: &TenantId,
        suspended: bool,
        expected: Option<Revision>,
    ) -> Result<TenantRow, ToolError> {
        Err(ToolError::new(toolbay_api::ErrorKind::Internal, "not written yet"))
    }

    /// Removes a tenant and everything of it but its audit.
    pub async fn remove_tenant(
        &self,
        by: &Actor,
        name: &TenantId,
        expected: Option<Revision>,
    ) -> Result<(), ToolError> {
        Err(ToolError::new(toolbay_api::ErrorKind::Internal, "not written yet"))
    }

    /// Lists tenants.
    pub async fn tenants(&self, by: &Actor, page: Page) -> Result<Listed<TenantRow>, ToolError> {
        Err(ToolError::new(toolbay_api::ErrorKind::Internal, "not written yet"))
    }

    /// One tenant.
    pub async fn tenant(&self, by: &Actor, name: &TenantId) -> Result<TenantRow, ToolError> {
        Err(ToolError::new(toolbay_api::ErrorKind::Internal, "not written yet"))
    }

    /// What is decided about a plugin in a scope, if anything is.
    pub async fn registration(
        &self,
        by: &Actor,
        scope: &Scope,
        plugin: &PluginName,
    ) -> Result<Option<Registration>, ToolError> {
        Err(ToolError::new(toolbay_api::ErrorKind::Internal, "not written yet"))
    }

    /// Switches a plugin on.
    pub async fn enable(
        &self,
        by: &Actor,
        scope: &Scope,
        plugin: &PluginName,
        expected: Option<Revision>,
    ) -> Result<Registration, ToolError> {
        Err(ToolError::new(toolbay_api::ErrorKind::Internal, "not written yet"))
    }

    /// Switches a plugin off.
    pub async fn disable(
        &self,
        by: &Actor,
        scope: &Scope,
        plugin: &PluginName,
        expected: Option<Revision>,
    ) -> Result<Registration, ToolError> {
        Err(ToolError::new(toolbay_api::ErrorKind::Internal, "not written yet"))
    }

    /// Sets what is said of a plugin's configuration; `None` takes it away.
    pub async fn put_config(
        &self,
        by: &Actor,
        scope: &Scope,
        plugin: &PluginName,
        config: Option<Value>,
        expected: Option<Revision>,
    ) -> Result<Registration, ToolError> {
        Err(ToolError::new(toolbay_api::ErrorKind::Internal, "not written yet"))
    }

    /// Sets a plugin's place where several could serve; `None` takes it away.
    pub async fn put_priority(
        &self,
        by: &Actor,
        scope: &Scope,
        plugin: &PluginName,
        priority: Option<i32>,
        expected: Option<Revision>,
    ) -> Result<Registration, ToolError> {
        Err(ToolError::new(toolbay_api::ErrorKind::Internal, "not written yet"))
    }

    /// Takes a package: checked as loading checks it, and kept, not installed.
    pub async fn upload(&self, by: &Actor, scope: &Scope, package: Upload) -> Result<Uploaded, ToolError> {
        Err(ToolError::new(toolbay_api::ErrorKind::Internal, "not written yet"))
    }

    /// Installs an uploaded version, the newest where none is said.
    pub async fn install(
        &self,
        by: &Actor,
        scope: &Scope,
        plugin: &PluginName,
        install: Install,
    ) -> Result<Registration, ToolError> {
        Err(ToolError::new(toolbay_api::ErrorKind::Internal, "not written yet"))
    }

    /// Installs the version that was there before.
    pub async fn rollback(
        &self,
        by: &Actor,
        scope: &Scope,
        plugin: &PluginName,
        install: Install,
    ) -> Result<Registration, ToolError> {
        Err(ToolError::new(toolbay_api::ErrorKind::Internal, "not written yet"))
    }

    /// Takes an uploaded plugin, or what was decided about another, away; its versions too where `purge` is set.
    pub async fn remove(
        &self,
        by: &Actor,
        scope: &Scope,
        plugin: &PluginName,
        expected: Option<Revision>,
        purge: bool,
    ) -> Result<(), ToolError> {
        Err(ToolError::new(toolbay_api::ErrorKind::Internal, "not written yet"))
    }

    /// Loads an uploaded plugin anew, here, from what is installed.
    pub async fn reload(&self, by: &Actor, scope: &Scope, plugin: &PluginName) -> Result<Registration, ToolError> {
        Err(ToolError::new(toolbay_api::ErrorKind::Internal, "not written yet"))
    }

    /// The uploaded versions of a plugin, newest first.
    pub async fn versions(
        &self,
        by: &Actor,
        scope: &Scope,
        plugin: &PluginName,
    ) -> Result<Vec<PackageVersion>, ToolError> {
        Err(ToolError::new(toolbay_api::ErrorKind::Internal, "not written yet"))
    }

    /// Says where a secret is found.
    pub async fn put_secret(
        &self,
        by: &Actor,
        scope: &Scope,
        name: &str,
        reference: Option<String>,
    ) -> Result<(), ToolError> {
        Err(ToolError::new(toolbay_api::ErrorKind::Internal, "not written yet"))
    }

    /// Lines of a scope's audit.
    pub async fn audit(&self, by: &Actor, scope: &Scope, query: &AuditQuery) -> Result<Listed<AuditLine>, ToolError> {
        Err(ToolError::new(toolbay_api::ErrorKind::Internal, "not written yet"))
    }

    /// Reads a scope's whole audit and says where its chain is broken, if it is.
    pub async fn verify_audit(&self, by: &Actor, scope: &Scope) -> Result<AuditVerdict, ToolError> {
        Err(ToolError::new(toolbay_api::ErrorKind::Internal, "not written yet"))
    }

    /// A tenant's run.
    pub async fn run(&self, by: &Actor, tenant: &TenantId, id: Uuid) -> Result<RunRow, ToolError> {
        Err(ToolError::new(toolbay_api::ErrorKind::Internal, "not written yet"))
    }

    /// A tenant's runs.
    pub async fn runs(&self, by: &Actor, tenant: &TenantId, page: Page) -> Result<Listed<RunRow>, ToolError> {
        Err(ToolError::new(toolbay_api::ErrorKind::Internal, "not written yet"))
    }

    /// Who a presented key is; `None` where it is none, is over, is revoked, or its tenant is suspended.
    pub fn authenticate(&self, _presented: &str) -> Option<Principal> {
        None
    }

    /// The host.
    pub fn toolbay(&self) -> &Toolbay {
        &self.0.bay
    }

    /// The store.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    /// How it stands with the store.
    pub fn status(&self) -> ControlStatus {
        ControlStatus::default()
    }

    /// Follows the store until what this gives is dropped.
    pub fn follow(&self) -> Following {
        Following
    }
}

/// Follows the store while it lives.
pub struct Following;

/// How it stands with the store.
#[derive(Debug, Clone, Default)]
pub struct ControlStatus {
    /// As of which position the registry is.
    pub position: Position,
    /// Why the store could not be read the last time, where it could not; the registry is as it was before.
    pub problem: Option<String>,
    /// Registrations that could not be taken over, with the reasons.
    pub failed: Vec<(Scope, PluginName, String)>,
}

/// What a key is to be.
#[derive(Debug, Clone)]
pub struct KeyWanted {
    /// What it allows.
    pub role: Role,
    /// For whom, where that is a tenant.
    pub tenant: Option<TenantId>,
    /// What it is for.
    pub label: String,
    /// From when on it is refused, in milliseconds since 1970, UTC.
    pub expires_at: Option<i64>,
    /// Calls a minute that it allows.
    pub rate: Option<u32>,
}

/// A package on its way in: a one-file plugin's source, or a gzipped tar archive of a plugin's folder.
#[derive(Debug, Clone)]
pub struct Upload {
    /// The file's name, by whose extension a one-file plugin's runner is found.
    pub file_name: String,
    /// Its bytes.
    pub content: Arc<[u8]>,
}

/// How a version is installed.
#[derive(Debug, Clone, Default)]
pub struct Install {
    /// Which version.
    pub version: Option<Version>,
    /// Whether it may break those who call the tools of the one that is there.
    pub allow_breaking: bool,
    /// As the caller saw the registration.
    pub expected: Option<Revision>,
}

/// What came of reading a chain.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct AuditVerdict {
    /// Lines that were read.
    pub lines: i64,
    /// The first line that does not follow on the one before it: it, or one before it, was changed, added or taken out.
    pub broken_at: Option<i64>,
}
