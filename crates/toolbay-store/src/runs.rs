//! Runs as they are kept, the newest of each tenant.

use serde_json::Value;
use toolbay_api::{Scope, TenantId, ToolError};
use toolbay_runtime::store::{Expected, Listed, Page, RunRow};
use uuid::Uuid;

use crate::{
    db::{Db, read, transact},
    fault::{Fault, conflict},
    page::{after_moment, listed, moment, rows_of},
    store::known_scope_id,
    values::{Json, Row, params},
};

/// Runs too many that one write takes away. There is one more at a time, unless the bound was lowered.
const PRUNED_AT_ONCE: i64 = 100;

pub(crate) async fn put(db: &Db, run: &RunRow, expected: Expected) -> Result<(), ToolError> {
    let state = Json::new(&run.state, db.options.bounds.document_bytes)?;
    let scope = Scope::Tenant(run.tenant.clone());
    transact!(db, db.options.timeout, |link| {
        let tenant = known_scope_id(&mut link, &scope).await?;
        let written = match expected {
            Expected::Absent => {
                link.execute(
                    "INSERT INTO runs (tenant_id, id, status, started_at, updated_at, state, revision)
                     VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (tenant_id, id) DO NOTHING",
                    params![tenant, run.id, &run.status, run.started_at, run.updated_at, state.clone(), run.revision],
                )
                .await?
            }
            Expected::Revision(seen) => {
                link.execute(
                    "UPDATE runs SET status = $3, updated_at = $4, state = $5, revision = $6
                     WHERE tenant_id = $1 AND id = $2 AND revision = $7",
                    params![tenant, run.id, &run.status, run.updated_at, state.clone(), run.revision, seen],
                )
                .await?
            }
        };
        if written != 1 {
            return Err(conflict("the run was changed since; look at it again").into());
        }
        if expected == Expected::Absent {
            link.execute(
                "DELETE FROM runs WHERE tenant_id = $1 AND id IN (
                     SELECT id FROM runs WHERE tenant_id = $1 ORDER BY started_at DESC, id DESC LIMIT $2 OFFSET $3)",
                params![tenant, PRUNED_AT_ONCE, db.options.bounds.runs],
            )
            .await?;
        }
        Ok(())
    })
}

pub(crate) async fn one(db: &Db, tenant: &TenantId, id: Uuid) -> Result<Option<RunRow>, ToolError> {
    read!(db, |link| {
        let found = link
            .row(
                "SELECT r.id, r.status, r.started_at, r.updated_at, r.revision, r.state
                 FROM runs r JOIN tenants t ON t.id = r.tenant_id WHERE t.name = $1 AND r.id = $2",
                params![tenant.as_str(), id],
            )
            .await?;
        found.map(|found| Ok(RunRow { state: found.json(5)?, ..row(&found, tenant)? })).transpose()
    })
}

pub(crate) async fn list(db: &Db, tenant: &TenantId, page: &Page) -> Result<Listed<RunRow>, ToolError> {
    let (at, id) = after_moment(page, (i64::MAX, Uuid::max()))?;
    read!(db, |link| {
        let rows = link
            .rows(
                "SELECT r.id, r.status, r.started_at, r.updated_at, r.revision
                 FROM runs r JOIN tenants t ON t.id = r.tenant_id
                 WHERE t.name = $1 AND (r.started_at < $2 OR (r.started_at = $2 AND r.id < $3))
                 ORDER BY r.started_at DESC, r.id DESC LIMIT $4",
                params![tenant.as_str(), at, id, rows_of(page)],
            )
            .await?;
        let runs = rows.iter().map(|found| row(found, tenant)).collect::<Result<Vec<_>, _>>()?;
        Ok(listed(runs, page, |run| moment(run.started_at, run.id)))
    })
}

fn row(row: &Row, tenant: &TenantId) -> Result<RunRow, Fault> {
    Ok(RunRow {
        id: row.get(0)?,
        tenant: tenant.clone(),
        status: row.get(1)?,
        started_at: row.get(2)?,
        updated_at: row.get(3)?,
        revision: row.get(4)?,
        state: Value::Null,
    })
}
