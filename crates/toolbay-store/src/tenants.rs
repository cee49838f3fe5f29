//! Tenants. Everything of one hangs on its number and goes with it, but the audit.

use toolbay_api::{TenantId, ToolError};
use toolbay_runtime::store::{Expected, Listed, Page, TenantRow};

use crate::{
    db::{Db, read},
    fault::{Fault, conflict, damaged, not_found},
    link::Link,
    page::{listed, rows_of},
    values::{Row, params},
};

pub(crate) async fn list(db: &Db, page: &Page) -> Result<Listed<TenantRow>, ToolError> {
    // No tenant's name is empty, so the row of the global scope is before all of them.
    let after = page.after.as_deref().unwrap_or_default();
    read!(db, |link| {
        let rows = link
            .rows(
                "SELECT id, name, suspended, created_at, revision FROM tenants WHERE name > $1 ORDER BY name LIMIT $2",
                params![after, rows_of(page)],
            )
            .await?;
        let tenants = rows.iter().map(row).collect::<Result<Vec<_>, _>>()?;
        Ok(listed(tenants, page, |tenant| tenant.name.to_string()))
    })
}

pub(crate) async fn one(db: &Db, name: &TenantId) -> Result<Option<TenantRow>, ToolError> {
    read!(db, |link| {
        let found = link
            .row(
                "SELECT id, name, suspended, created_at, revision FROM tenants WHERE name = $1",
                params![name.as_str()],
            )
            .await?;
        found.as_ref().map(row).transpose()
    })
}

/// A row of `id, name, suspended, created_at, revision`.
pub(crate) fn row(row: &Row) -> Result<TenantRow, Fault> {
    Ok(TenantRow {
        id: row.get(0)?,
        name: name(row, 1)?,
        suspended: row.get(2)?,
        created_at: row.get(3)?,
        revision: row.get(4)?,
    })
}

pub(crate) fn name(row: &Row, index: usize) -> Result<TenantId, Fault> {
    TenantId::new(row.get::<String>(index)?).map_err(|_| damaged("a tenant's name").into())
}

pub(crate) async fn add(link: &mut Link, tenant: &TenantRow, position: i64) -> Result<(), Fault> {
    let TenantRow { id, name, suspended, created_at, revision } = tenant;
    // What the removed tenant left in the audit must not become another's.
    let was_there = "SELECT 1 FROM removed_tenants WHERE id = $1";
    if id.is_nil() || link.row(was_there, params![*id]).await?.is_some() {
        return Err(conflict("a tenant's number is new").into());
    }
    let added = link
        .execute(
            "INSERT INTO tenants (id, name, suspended, created_at, revision, changed, registrations_changed)
             VALUES ($1, $2, $3, $4, $5, $6, 0) ON CONFLICT DO NOTHING",
            params![*id, name.as_str(), *suspended, *created_at, *revision, position],
        )
        .await?;
    if added == 1 { Ok(()) } else { Err(conflict(format!("there is a tenant {name} already")).into()) }
}

pub(crate) async fn suspend(
    link: &mut Link,
    tenant: &TenantId,
    suspended: bool,
    expected: Expected,
    position: i64,
) -> Result<(), Fault> {
    let seen = current(link, tenant, expected).await?;
    link.execute(
        "UPDATE tenants SET suspended = $1, revision = revision + 1, changed = $2 WHERE id = $3",
        params![suspended, position, seen.id],
    )
    .await
    .map(drop)
}

pub(crate) async fn remove(link: &mut Link, tenant: &TenantId, expected: Expected, position: i64) -> Result<(), Fault> {
    let id = current(link, tenant, expected).await?.id;
    let packages = link.rows("SELECT DISTINCT digest FROM package_versions WHERE tenant_id = $1", params![id]).await?;
    link.execute("DELETE FROM answers WHERE owner IN (SELECT id FROM api_keys WHERE tenant_id = $1)", params![id])
        .await?;
    // The rest goes with it by its foreign keys.
    link.execute("DELETE FROM tenants WHERE id = $1", params![id]).await?;
    for package in &packages {
        crate::packages::forget_unused(link, &package.digest(0)?).await?;
    }
    link.execute(
        "INSERT INTO removed_tenants (id, name, changed) VALUES ($1, $2, $3)",
        params![id, tenant.as_str(), position],
    )
    .await
    .map(drop)
}

/// The tenant, where it is as the caller of a change saw it.
async fn current(link: &mut Link, tenant: &TenantId, expected: Expected) -> Result<TenantRow, Fault> {
    let found = link
        .row("SELECT id, name, suspended, created_at, revision FROM tenants WHERE name = $1", params![tenant.as_str()])
        .await?;
    let found = found.as_ref().map(row).transpose()?;
    let found = found.ok_or_else(|| not_found(format!("there is no tenant {tenant}")))?;
    if expected == Expected::Revision(found.revision) {
        Ok(found)
    } else {
        Err(conflict(format!("the tenant {tenant} was changed since; look at it again")).into())
    }
}
