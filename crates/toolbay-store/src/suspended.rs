//! Runs that wait for somebody's decision: kept up to a number and a time, and taken out once.

use serde_json::Value;
use toolbay_api::{Scope, TenantId, ToolError, async_trait};
use toolbay_runtime::store::{Listed, Page, SuspendedRow, SuspendedRuns};
use uuid::Uuid;

use crate::{
    db::{Db, read, transact},
    fault::{Fault, conflict, within},
    page::{after_moment, listed, moment, rows_of},
    store::{SqlStore, known_scope_id},
    values::{Json, Row, params},
};

#[async_trait]
impl SuspendedRuns for SqlStore {
    async fn put_suspended(&self, row: SuspendedRow, now_ms: i64) -> Result<(), ToolError> {
        put(&self.0.db, &row, now_ms).await
    }

    async fn suspended(&self, tenant: &TenantId, id: Uuid, now_ms: i64) -> Result<Option<SuspendedRow>, ToolError> {
        let db: &Db = &self.0.db;
        read!(db, |link| {
            let found = link
                .row(
                    "SELECT s.id, s.user_name, s.suspended_at, s.expires_at, s.pending, s.state
                     FROM suspended_runs s JOIN tenants t ON t.id = s.tenant_id
                     WHERE t.name = $1 AND s.id = $2 AND s.expires_at > $3",
                    params![tenant.as_str(), id, now_ms],
                )
                .await?;
            found.map(|found| whole(&found, tenant)).transpose()
        })
    }

    async fn take_suspended(
        &self,
        tenant: &TenantId,
        id: Uuid,
        now_ms: i64,
    ) -> Result<Option<SuspendedRow>, ToolError> {
        let db: &Db = &self.0.db;
        transact!(db, db.options.timeout, |link| {
            // One statement: of several that delete the same row, one gets it back.
            let found = link
                .row(
                    "DELETE FROM suspended_runs
                     WHERE tenant_id = (SELECT id FROM tenants WHERE name = $1) AND id = $2 AND expires_at > $3
                     RETURNING id, user_name, suspended_at, expires_at, pending, state",
                    params![tenant.as_str(), id, now_ms],
                )
                .await?;
            found.map(|found| whole(&found, tenant)).transpose()
        })
    }

    async fn list_suspended(
        &self,
        tenant: &TenantId,
        page: Page,
        now_ms: i64,
    ) -> Result<Listed<SuspendedRow>, ToolError> {
        let db: &Db = &self.0.db;
        let (at, id) = after_moment(&page, (i64::MIN, Uuid::nil()))?;
        read!(db, |link| {
            let rows = link
                .rows(
                    "SELECT s.id, s.user_name, s.suspended_at, s.expires_at, s.pending
                     FROM suspended_runs s JOIN tenants t ON t.id = s.tenant_id
                     WHERE t.name = $1 AND s.expires_at > $2 AND (s.suspended_at > $3 OR (s.suspended_at = $3 AND s.id > $4))
                     ORDER BY s.suspended_at, s.id LIMIT $5",
                    params![tenant.as_str(), now_ms, at, id, rows_of(&page)],
                )
                .await?;
            let runs = rows.iter().map(|found| row(found, tenant)).collect::<Result<Vec<_>, _>>()?;
            Ok(listed(runs, &page, |run| moment(run.suspended_at, run.id)))
        })
    }
}

async fn put(db: &Db, run: &SuspendedRow, now_ms: i64) -> Result<(), ToolError> {
    let bytes = db.options.bounds.document_bytes;
    let (pending, state) = (Json::new(&run.pending, bytes)?, Json::new(&run.state, bytes)?);
    let scope = Scope::Tenant(run.tenant.clone());
    transact!(db, db.options.timeout, |link| {
        let tenant = known_scope_id(&mut link, &scope).await?;
        if link.is_postgres() {
            // Two that are put at once would each count without the other.
            link.row("SELECT 1 FROM tenants WHERE id = $1 FOR NO KEY UPDATE", params![tenant]).await?;
        }
        let gone = "DELETE FROM suspended_runs WHERE tenant_id = $1 AND expires_at <= $2";
        link.execute(gone, params![tenant, now_ms]).await?;
        let added = link
            .execute(
                "INSERT INTO suspended_runs (tenant_id, id, user_name, suspended_at, expires_at, pending, state)
                 VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (tenant_id, id) DO NOTHING",
                params![
                    tenant,
                    run.id,
                    run.user.clone(),
                    run.suspended_at,
                    run.expires_at,
                    pending.clone(),
                    state.clone()
                ],
            )
            .await?;
        if added != 1 {
            return Err(conflict("the run waits already").into());
        }
        let there = link.number("SELECT COUNT(*) FROM suspended_runs WHERE tenant_id = $1", params![tenant]).await?;
        within(db.options.bounds.suspended_runs.into(), there.unsigned_abs(), "runs of a tenant that wait")?;
        Ok(())
    })
}

/// A row of `id, user_name, suspended_at, expires_at, pending, state`.
fn whole(found: &Row, tenant: &TenantId) -> Result<SuspendedRow, Fault> {
    Ok(SuspendedRow { state: found.json(5)?, ..row(found, tenant)? })
}

fn row(found: &Row, tenant: &TenantId) -> Result<SuspendedRow, Fault> {
    Ok(SuspendedRow {
        id: found.get(0)?,
        tenant: tenant.clone(),
        user: found.get(1)?,
        suspended_at: found.get(2)?,
        expires_at: found.get(3)?,
        pending: found.json(4)?,
        state: Value::Null,
    })
}
