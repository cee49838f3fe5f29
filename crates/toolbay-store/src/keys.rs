//! Keys to the host's interfaces.

use toolbay_api::{Scope, TenantId, ToolError};
use toolbay_runtime::store::{KeyRow, Listed, Page, Role};
use uuid::Uuid;

use crate::{
    db::{Db, read},
    fault::{Fault, conflict, damaged, invalid, not_found, within},
    link::Link,
    page::{after_moment, listed, moment, rows_of},
    store::{known_scope_id, scope_of},
    values::{Row, params},
};

pub(crate) async fn list(db: &Db, tenant: Option<&TenantId>, page: &Page) -> Result<Listed<KeyRow>, ToolError> {
    let (at, id) = after_moment(page, (i64::MAX, Uuid::max()))?;
    read!(db, |link| {
        let rows = match tenant {
            Some(tenant) => {
                link.rows(
                    "SELECT k.id, k.prefix, k.hash, k.role, t.name, k.label, k.rate, k.created_at, k.expires_at, k.revoked_at
                     FROM api_keys k JOIN tenants t ON t.id = k.tenant_id
                     WHERE t.name = $1 AND (k.created_at < $2 OR (k.created_at = $2 AND k.id < $3))
                     ORDER BY k.created_at DESC, k.id DESC LIMIT $4",
                    params![tenant.as_str(), at, id, rows_of(page)],
                )
                .await?
            }
            None => {
                link.rows(
                    "SELECT k.id, k.prefix, k.hash, k.role, t.name, k.label, k.rate, k.created_at, k.expires_at, k.revoked_at
                     FROM api_keys k LEFT JOIN tenants t ON t.id = k.tenant_id
                     WHERE k.created_at < $1 OR (k.created_at = $1 AND k.id < $2)
                     ORDER BY k.created_at DESC, k.id DESC LIMIT $3",
                    params![at, id, rows_of(page)],
                )
                .await?
            }
        };
        let keys = rows.iter().map(row).collect::<Result<Vec<_>, _>>()?;
        Ok(listed(keys, page, |key| moment(key.created_at, key.id)))
    })
}

/// A row of the columns above.
pub(crate) fn row(row: &Row) -> Result<KeyRow, Fault> {
    let role = match row.get::<String>(3)?.as_str() {
        "tenant" => Role::Tenant,
        "operator" => Role::Operator,
        "admin" => Role::Admin,
        _ => return Err(damaged("a role").into()),
    };
    let tenant = match row.get::<Option<String>>(4)?.map(scope_of).transpose()? {
        None => None,
        Some(Scope::Tenant(tenant)) => Some(tenant),
        Some(Scope::Global) => return Err(damaged("a key's tenant").into()),
    };
    let rate: Option<i64> = row.get(6)?;
    let rate = rate.map(u32::try_from).transpose();
    Ok(KeyRow {
        id: row.get(0)?,
        prefix: row.get(1)?,
        hash: row.digest(2)?,
        role,
        tenant,
        label: row.get(5)?,
        rate: rate.map_err(|_| damaged("a rate"))?,
        created_at: row.get(7)?,
        expires_at: row.get(8)?,
        revoked_at: row.get(9)?,
    })
}

pub(crate) async fn add(link: &mut Link, db: &Db, key: &KeyRow, at_ms: i64, position: i64) -> Result<(), Fault> {
    // A tenant's key that says no tenant would be everybody's.
    if (key.role == Role::Tenant) != key.tenant.is_some() {
        return Err(invalid("a key of the role tenant says whose it is, and no other does").into());
    }
    let tenant = match &key.tenant {
        Some(tenant) => Some(known_scope_id(link, &Scope::Tenant(tenant.clone())).await?),
        None => None,
    };
    // A key that is over is refused everywhere without anybody being told, so it can go; one that was revoked cannot.
    let (sweep, count) = match tenant {
        Some(_) => (
            "DELETE FROM api_keys WHERE tenant_id = $1 AND expires_at <= $2",
            "SELECT COUNT(*) FROM api_keys WHERE tenant_id = $1",
        ),
        None => (
            "DELETE FROM api_keys WHERE tenant_id IS NULL AND $1 IS NULL AND expires_at <= $2",
            "SELECT COUNT(*) FROM api_keys WHERE tenant_id IS NULL AND $1 IS NULL",
        ),
    };
    let allowed = u64::from(db.options.bounds.keys);
    if link.number(count, params![tenant]).await?.unsigned_abs() >= allowed {
        link.execute(sweep, params![tenant, at_ms]).await?;
        let left = link.number(count, params![tenant]).await?.unsigned_abs();
        within(allowed, left + 1, "keys of a tenant")?;
    }
    let added = link
        .execute(
            "INSERT INTO api_keys (id, prefix, hash, role, tenant_id, label, rate, created_at, expires_at, revoked_at, changed)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING",
            params![
                key.id,
                &key.prefix,
                &key.hash,
                key.role.name(),
                tenant,
                &key.label,
                key.rate.map(i64::from),
                key.created_at,
                key.expires_at,
                key.revoked_at,
                position
            ],
        )
        .await?;
    if added == 1 { Ok(()) } else { Err(conflict("there is a key with this prefix or number already").into()) }
}

pub(crate) async fn revoke(
    link: &mut Link,
    id: Uuid,
    tenant: Option<&TenantId>,
    at_ms: i64,
    position: i64,
) -> Result<(), Fault> {
    let missing = || Fault::from(not_found("there is no such key"));
    let owner = match tenant {
        Some(tenant) => {
            let owner = crate::store::scope_id(link, &Scope::Tenant(tenant.clone())).await?;
            Some(owner.ok_or_else(missing)?)
        }
        None => None,
    };
    // Of the first revocation the time stays.
    let (params, sql) = match owner {
        Some(owner) => (
            params![at_ms, position, id, owner],
            "UPDATE api_keys SET revoked_at = COALESCE(revoked_at, $1), changed = $2 WHERE id = $3 AND tenant_id = $4",
        ),
        None => (
            params![at_ms, position, id],
            "UPDATE api_keys SET revoked_at = COALESCE(revoked_at, $1), changed = $2 WHERE id = $3",
        ),
    };
    if link.execute(sql, params).await? == 1 { Ok(()) } else { Err(missing()) }
}

pub(crate) async fn expire(link: &mut Link, id: Uuid, expires_at: i64, position: i64) -> Result<(), Fault> {
    let sql = "UPDATE api_keys SET expires_at = $1, changed = $2 WHERE id = $3";
    if link.execute(sql, params![expires_at, position, id]).await? == 1 {
        return Ok(());
    }
    Err(not_found("there is no such key").into())
}
