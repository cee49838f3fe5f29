//! A change: steps that happen together or not at all, with their audit entries.

use serde_json::Value;
use std::sync::Arc;
use toolbay_api::{PluginName, Scope, TenantId};
use uuid::Uuid;

use super::{
    audit::{AuditEntry, ChainHash},
    rows::{KeyRow, PackageVersion, Registration, Revision, SecretReference, TenantRow},
};

/// What happens in one transaction.
#[derive(Debug, Clone)]
pub struct Change {
    /// When, in milliseconds since 1970, UTC, by the host's clock.
    pub at_ms: i64,
    /// In this order. None: only what is in `audit`.
    pub steps: Vec<Step>,
    /// Written to the chains of their scopes.
    pub audit: Vec<AuditEntry>,
    /// The answer to give where the same request comes again.
    pub once: Option<Once>,
}

/// One step of a change.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "a change has a few steps and lives for one statement each")]
pub enum Step {
    /// Makes a tenant. `Conflict` where there is one of that name.
    AddTenant(TenantRow),
    /// Refuses a tenant's keys, or takes them again. `NotFound` where there is no such tenant.
    SuspendTenant {
        /// Which.
        tenant: TenantId,
        /// Whether its keys are refused.
        suspended: bool,
        /// As whom the caller saw it.
        expected: Expected,
    },
    /// Removes a tenant and everything of it but its audit: registrations, packages, keys, values, secrets, runs, events.
    RemoveTenant {
        /// Which.
        tenant: TenantId,
        /// As whom the caller saw it.
        expected: Expected,
    },
    /// Writes a registration, with the revision that it says. `NotFound` where its tenant is not there.
    PutRegistration {
        /// As it is to be.
        row: Registration,
        /// As the caller saw it.
        expected: Expected,
    },
    /// Takes a registration away.
    RemoveRegistration {
        /// Where.
        scope: Scope,
        /// Which.
        plugin: PluginName,
        /// As the caller saw it.
        expected: Expected,
    },
    /// Adds a version with its package. Nothing happens where that version is there with the same digest; `Conflict` where
    /// it has another.
    AddPackage {
        /// The version.
        row: PackageVersion,
        /// The package.
        content: Arc<[u8]>,
    },
    /// Takes all versions of a plugin away, and packages that nothing else uses.
    RemovePackages {
        /// Where.
        scope: Scope,
        /// Which.
        plugin: PluginName,
    },
    /// Adds a key. `Conflict` where its prefix is taken; `NotFound` where its tenant is not there.
    AddKey(KeyRow),
    /// Revokes a key, at the change's time. `NotFound` where there is none, or none of `tenant` where that is given.
    RevokeKey {
        /// Which.
        id: Uuid,
        /// Of whom.
        tenant: Option<TenantId>,
    },
    /// Sets from when on a key is refused. `NotFound` where there is none.
    ExpireKey {
        /// Which.
        id: Uuid,
        /// From when on, in milliseconds since 1970, UTC.
        expires_at: i64,
    },
    /// Says where a secret is found, or takes that away. `NotFound` where its tenant is not there.
    PutSecret(SecretReference),
}

impl Step {
    /// The scope whose plugins it changes, or takes away with their tenant.
    pub(crate) fn scope(&self) -> Option<Scope> {
        match self {
            Self::RemoveTenant { tenant, .. } => Some(Scope::Tenant(tenant.clone())),
            Self::PutRegistration { row, .. } => Some(row.scope.clone()),
            Self::RemoveRegistration { scope, .. } => Some(scope.clone()),
            _ => None,
        }
    }
}

/// As what the caller of a change saw a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// It was not there.
    Absent,
    /// It had this revision.
    Revision(Revision),
}

/// A request that is to be answered alike where it comes again.
#[derive(Debug, Clone, PartialEq)]
pub struct Once {
    /// Whose request: the number of a key.
    pub owner: Uuid,
    /// What they call it.
    pub key: String,
    /// A digest of it, to tell another request of the same name.
    pub request: ChainHash,
    /// The answer.
    pub answer: Value,
    /// Until when it is kept, in milliseconds since 1970, UTC.
    pub expires_ms: i64,
}
