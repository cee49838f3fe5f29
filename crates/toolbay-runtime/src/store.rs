//! The store port: what a host keeps about tenants, their plugins and their keys beyond the life of a process.
//!
//! A store is the truth; the registry in memory follows it. It changes by [`Change`]s only: a few steps and their audit
//! entries, which happen together or not at all. Who may make which is not the store's to say, but
//! [`Control`](crate::control::Control)'s.

mod audit;
mod change;
mod outbox;
mod rows;
mod suspended;

use std::sync::Arc;

use futures::stream::BoxStream;
use serde_json::Value;
use toolbay_api::{PluginName, Scope, TenantId, ToolError, async_trait};
use uuid::Uuid;

pub use audit::{AuditEntry, AuditLine, AuditQuery, ChainHash};
pub use change::{Change, Expected, Once, Step};
pub use outbox::{DeadEvent, OutboxEvent};
pub use rows::{
    KeyRow, Listed, PackageDigest, PackageVersion, Page, Position, Registration, Revision, Role, RunRow,
    SecretReference, Snapshot, TenantRow,
};
pub use suspended::{MemorySuspended, SuspendedRow, SuspendedRuns};

/// Keeps what a host must not forget. [`KvStore`](crate::kv::KvStore) is a port of its own.
///
/// # Errors
/// All methods: `Unavailable`, which a retry can help, where the database cannot be reached or does not answer in time;
/// `Internal` where it answers with what cannot be. A message never holds an address or a statement.
///
/// # Cancel safety
/// A dropped future that changes something has done so wholly or not at all.
#[async_trait]
#[allow(clippy::missing_errors_doc, reason = "the errors are the same for all and stand at the trait")]
pub trait Store: Send + Sync {
    /// What is different since `seen`, or everything there is where that is `None`.
    async fn snapshot(&self, seen: Option<Position>) -> Result<Snapshot, ToolError>;

    /// Makes a change. Gives the position after it.
    ///
    /// `Conflict` where a row is not as [`Expected`], or is there already; `NotFound` where a tenant or version is not
    /// there; `LimitExceeded` where it would break a bound of the store.
    async fn commit(&self, change: Change) -> Result<Position, ToolError>;

    /// Says that something may have changed, made by this process or by another. An item is only a reason to ask for a
    /// [`snapshot`](Self::snapshot): several changes may be one item, and one may come for nothing.
    fn changes(&self) -> BoxStream<'static, ()>;

    /// Whether the database answers.
    async fn ping(&self) -> Result<(), ToolError>;

    /// Tenants by name.
    async fn tenants(&self, page: Page) -> Result<Listed<TenantRow>, ToolError>;

    /// One tenant.
    async fn tenant(&self, name: &TenantId) -> Result<Option<TenantRow>, ToolError>;

    /// What is decided about a plugin in a scope.
    async fn registration(&self, scope: &Scope, plugin: &PluginName) -> Result<Option<Registration>, ToolError>;

    /// The uploaded versions of a plugin, newest version first.
    async fn versions(&self, scope: &Scope, plugin: &PluginName) -> Result<Vec<PackageVersion>, ToolError>;

    /// The bytes of an uploaded package, as they were uploaded.
    async fn package(&self, digest: &PackageDigest) -> Result<Option<Arc<[u8]>>, ToolError>;

    /// Keys, newest first: of one tenant, or all of them.
    async fn keys(&self, tenant: Option<&TenantId>, page: Page) -> Result<Listed<KeyRow>, ToolError>;

    /// The answer that was given to a request with this key, and the digest of that request.
    async fn answered(&self, owner: Uuid, key: &str, now_ms: i64) -> Result<Option<(ChainHash, Value)>, ToolError>;

    /// Adds entries to the audit that belong to no change, each to its scope's chain.
    async fn record(&self, entries: Vec<AuditEntry>) -> Result<(), ToolError>;

    /// Lines of a scope's audit in the order in which they were written.
    async fn audit(&self, scope: &Scope, query: &AuditQuery) -> Result<Listed<AuditLine>, ToolError>;

    /// Keeps a run, new or as `expected`; of one tenant at most as many as the store is told to keep, the oldest go.
    async fn put_run(&self, run: RunRow, expected: Expected) -> Result<(), ToolError>;

    /// A tenant's run.
    async fn run(&self, tenant: &TenantId, id: Uuid) -> Result<Option<RunRow>, ToolError>;

    /// A tenant's runs, newest first, without their states.
    async fn runs(&self, tenant: &TenantId, page: Page) -> Result<Listed<RunRow>, ToolError>;

    /// Puts events up for delivery, in this order.
    async fn post(&self, events: Vec<OutboxEvent>) -> Result<(), ToolError>;

    /// Takes at most `limit` events that are due, for `lease_ms`: of each scope and key only the oldest that is not
    /// delivered, so that events of one key are handled one after another whoever takes them.
    async fn claim(&self, limit: u32, lease_ms: i64, now_ms: i64) -> Result<Vec<OutboxEvent>, ToolError>;

    /// Says that a claimed event is delivered, and takes it away. `attempts` is what the claim gave: where the lease was
    /// over and somebody else has claimed the event since, nothing happens, since it is theirs now.
    async fn delivered(&self, id: Uuid, attempts: u32) -> Result<(), ToolError>;

    /// Says that delivering a claimed event failed: it is due again at `retry_ms`, or where that is `None`, is put with
    /// the dead ones and the next of its key goes on. `attempts` is as for [`delivered`](Self::delivered).
    async fn undelivered(
        &self,
        id: Uuid,
        attempts: u32,
        problem: &str,
        retry_ms: Option<i64>,
        now_ms: i64,
    ) -> Result<(), ToolError>;

    /// Events that were given up, oldest first.
    async fn dead_events(&self, page: Page) -> Result<Listed<DeadEvent>, ToolError>;

    /// Puts a dead event up for delivery again; says whether it was there.
    async fn revive(&self, id: Uuid, now_ms: i64) -> Result<bool, ToolError>;
}
