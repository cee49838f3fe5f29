//! What is different since a position. Everything that replicas follow has the position of its last change, and positions
//! are in the order of commits (see `commit`), so nothing can come in behind one that was seen.

use toolbay_api::ToolError;
use toolbay_runtime::store::{Position, Snapshot};

use crate::{
    db::Db,
    fault::{Fault, damaged},
    keys,
    link::Link,
    migrations::allow_long,
    registrations, secrets,
    store::scope_of,
    tenants,
    values::params,
};

pub(crate) async fn snapshot(db: &Db, seen: Option<Position>) -> Result<Snapshot, ToolError> {
    let limit = if seen.is_some() { db.options.timeout } else { db.options.long_timeout };
    let work = async {
        let mut link = db.moment().await?;
        if seen.is_none() {
            allow_long(&mut link, limit).await?;
        }
        let snapshot = take(&mut link, seen).await?;
        link.finish().await?;
        Ok(snapshot)
    };
    db.within(limit, Box::pin(work)).await
}

/// What has changed since a position, so that nothing is asked for in vain: each question is a way to the database and back.
struct Changed {
    tenants: bool,
    removed_tenants: bool,
    registrations: bool,
    keys: bool,
    secrets: bool,
}

async fn take(link: &mut Link, seen: Option<Position>) -> Result<Snapshot, Fault> {
    let (position, changed) = changed(link, seen).await?;
    // A database that is behind what was seen of it is another one: a backup was put in its place.
    let since = seen.map(|Position(seen)| seen).filter(|seen| *seen <= position);
    let mut snapshot = Snapshot { position: Position(position), complete: since.is_none(), ..Snapshot::default() };
    let (is_all, after) = (since.is_none(), since.unwrap_or(-1));
    if is_all || changed.tenants {
        let rows = link
            .rows(
                "SELECT id, name, suspended, created_at, revision FROM tenants WHERE changed > $1 AND name <> ''
                 ORDER BY changed, name",
                params![after],
            )
            .await?;
        snapshot.tenants = rows.iter().map(tenants::row).collect::<Result<_, _>>()?;
    }
    if !is_all && changed.removed_tenants {
        let removed = "SELECT id, name FROM removed_tenants WHERE changed > $1 ORDER BY changed";
        for row in &link.rows(removed, params![after]).await? {
            snapshot.removed_tenants.push((row.get(0)?, tenants::name(row, 1)?));
        }
    }
    if is_all || changed.registrations {
        registrations_of(link, &mut snapshot, after).await?;
    }
    if is_all || changed.keys {
        let rows = link
            .rows(
                "SELECT k.id, k.prefix, k.hash, k.role, t.name, k.label, k.rate, k.created_at, k.expires_at, k.revoked_at
                 FROM api_keys k LEFT JOIN tenants t ON t.id = k.tenant_id
                 WHERE k.changed > $1 ORDER BY k.changed, k.id",
                params![after],
            )
            .await?;
        snapshot.keys = rows.iter().map(keys::row).collect::<Result<_, _>>()?;
    }
    if is_all || changed.secrets {
        let rows = link
            .rows(
                "SELECT t.name, s.name, s.reference FROM secret_references s JOIN tenants t ON t.id = s.tenant_id
                 WHERE s.changed > $1 ORDER BY s.changed, s.name",
                params![after],
            )
            .await?;
        snapshot.secrets = rows.iter().map(secrets::row).collect::<Result<_, _>>()?;
        snapshot.secrets.retain(|secret| !is_all || secret.reference.is_some());
    }
    Ok(snapshot)
}

/// Where the store is, and what of it is newer than `seen`.
async fn changed(link: &mut Link, seen: Option<Position>) -> Result<(i64, Changed), Fault> {
    let row = link
        .row(
            "SELECT position,
                 EXISTS (SELECT 1 FROM tenants WHERE changed > $1),
                 EXISTS (SELECT 1 FROM removed_tenants WHERE changed > $1),
                 EXISTS (SELECT 1 FROM tenants WHERE registrations_changed > $1),
                 EXISTS (SELECT 1 FROM api_keys WHERE changed > $1),
                 EXISTS (SELECT 1 FROM secret_references WHERE changed > $1)
             FROM store_state",
            params![seen.map_or(-1, |Position(seen)| seen)],
        )
        .await?
        .ok_or_else(|| damaged("the store's position"))?;
    let changed = Changed {
        tenants: row.get(1)?,
        removed_tenants: row.get(2)?,
        registrations: row.get(3)?,
        keys: row.get(4)?,
        secrets: row.get(5)?,
    };
    Ok((row.get(0)?, changed))
}

/// All registrations of the scopes that have changed; of one that has none left, that.
async fn registrations_of(link: &mut Link, snapshot: &mut Snapshot, after: i64) -> Result<(), Fault> {
    if !snapshot.complete {
        let scopes = "SELECT name FROM tenants WHERE registrations_changed > $1";
        for row in &link.rows(scopes, params![after]).await? {
            snapshot.registrations.insert(scope_of(row.get(0)?)?, Vec::new());
        }
    }
    let rows = link
        .rows(
            "SELECT t.name, r.id, r.plugin_name, r.plugin_version, r.package_digest, r.previous_version, r.enabled,
                 r.config, r.priority, r.installed_at, r.updated_at, r.revision
             FROM plugin_registrations r JOIN tenants t ON t.id = r.tenant_id
             WHERE t.registrations_changed > $1 ORDER BY r.plugin_name",
            params![after],
        )
        .await?;
    for row in &rows {
        let registration = registrations::row(row)?;
        snapshot.registrations.entry(registration.scope.clone()).or_default().push(registration);
    }
    Ok(())
}
