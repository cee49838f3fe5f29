//! Runs that wait for somebody, as they are kept: a port of its own, since a host can have one without the rest of a store.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use toolbay_api::{ErrorKind, Limit, TenantId, ToolError, async_trait};
use uuid::Uuid;

use super::rows::{Listed, Page};

/// A run that waits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SuspendedRow {
    /// The run.
    pub id: Uuid,
    /// Whose.
    pub tenant: TenantId,
    /// The tenant's user, where the host named one.
    pub user: Option<String>,
    /// Since when, in milliseconds since 1970, UTC.
    pub suspended_at: i64,
    /// From when on nothing in it can be approved, and it is gone.
    pub expires_at: i64,
    /// What waits.
    pub pending: Value,
    /// What is needed to go on; `null` in lists.
    pub state: Value,
}

/// Keeps runs that wait, each tenant's apart, up to a number and until they expire.
///
/// # Errors
/// All methods: `Unavailable`, which a retry can help; `Internal` where what is kept cannot be read.
///
/// # Cancel safety
/// A dropped future that changes something has done so wholly or not at all.
#[async_trait]
#[allow(clippy::missing_errors_doc, reason = "the errors are the same for all and stand at the trait")]
pub trait SuspendedRuns: Send + Sync {
    /// Keeps a run. Runs of the tenant that expired before `now_ms` go.
    ///
    /// `Conflict` where the run is kept already; `LimitExceeded` where the tenant has as many as it may.
    async fn put_suspended(&self, row: SuspendedRow, now_ms: i64) -> Result<(), ToolError>;

    /// Looks at a tenant's run.
    async fn suspended(&self, tenant: &TenantId, id: Uuid, now_ms: i64) -> Result<Option<SuspendedRow>, ToolError>;

    /// Takes a tenant's run out, to go on with it. Of several that take the same one, one gets it.
    async fn take_suspended(&self, tenant: &TenantId, id: Uuid, now_ms: i64)
    -> Result<Option<SuspendedRow>, ToolError>;

    /// A tenant's runs, those that wait longest first, without their states.
    async fn list_suspended(
        &self,
        tenant: &TenantId,
        page: Page,
        now_ms: i64,
    ) -> Result<Listed<SuspendedRow>, ToolError>;
}

/// Keeps them in memory: for tests, and for hosts whose runs need not outlive them.
pub struct MemorySuspended {
    most: usize,
    // std's Mutex, not tokio's: nothing is awaited while it is held.
    rows: Mutex<BTreeMap<TenantId, BTreeMap<Uuid, SuspendedRow>>>,
}

impl MemorySuspended {
    /// Keeps at most `most` runs of each tenant.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { most, rows: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TenantId, BTreeMap<Uuid, SuspendedRow>>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl SuspendedRuns for MemorySuspended {
    async fn put_suspended(&self, row: SuspendedRow, now_ms: i64) -> Result<(), ToolError> {
        let mut tenants = self.lock();
        let rows = tenants.entry(row.tenant.clone()).or_default();
        rows.retain(|_, row| row.expires_at > now_ms);
        if rows.contains_key(&row.id) {
            return Err(ToolError::new(ErrorKind::Conflict, "the run waits already"));
        }
        if rows.len() >= self.most {
            return Err(ToolError::limit(Limit::Storage, self.most as u64, rows.len() as u64 + 1));
        }
        rows.insert(row.id, row);
        Ok(())
    }

    async fn suspended(&self, tenant: &TenantId, id: Uuid, now_ms: i64) -> Result<Option<SuspendedRow>, ToolError> {
        let tenants = self.lock();
        let row = tenants.get(tenant).and_then(|rows| rows.get(&id));
        Ok(row.filter(|row| row.expires_at > now_ms).cloned())
    }

    async fn take_suspended(
        &self,
        tenant: &TenantId,
        id: Uuid,
        now_ms: i64,
    ) -> Result<Option<SuspendedRow>, ToolError> {
        let mut tenants = self.lock();
        let Some(rows) = tenants.get_mut(tenant) else { return Ok(None) };
        let row = rows.remove(&id).filter(|row| row.expires_at > now_ms);
        if rows.is_empty() {
            tenants.remove(tenant);
        }
        Ok(row)
    }

    async fn list_suspended(
        &self,
        tenant: &TenantId,
        page: Page,
        now_ms: i64,
    ) -> Result<Listed<SuspendedRow>, ToolError> {
        let after = page.after.as_deref().and_then(|after| {
            let (at, id) = after.split_once('.')?;
            Some((at.parse::<i64>().ok()?, id.parse::<Uuid>().ok()?))
        });
        let tenants = self.lock();
        let mut rows: Vec<_> = tenants.get(tenant).into_iter().flat_map(BTreeMap::values).collect();
        rows.retain(|row| row.expires_at > now_ms && after.is_none_or(|after| (row.suspended_at, row.id) > after));
        rows.sort_by_key(|row| (row.suspended_at, row.id));
        let limit = page.limit.max(1) as usize;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|row| format!("{}.{}", row.suspended_at, row.id));
        let items = rows.into_iter().map(|row| SuspendedRow { state: Value::Null, ..row.clone() }).collect();
        Ok(Listed { items, next })
    }
}
