//! What is different since a position. Everything that replicas follow has the position of its last change, and positions
//! are in the order of commits (see `commit`), so nothing can come in behind one that was seen.

use toolbay_api::ToolError;
use toolbay_runtime::store::{Position, Snapshot};

use crate::{
    db::Db, fault::Fault, keys, link::Link, migrations::allow_long, registrations, secrets, store::scope_of, tenants,
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

async fn take(link: &mut Link, seen: Option<Position>) -> Result<Snapshot, Fault> {
    let position = link.number("SELECT position FROM store_state", params![]).await?;
    // A database that is behind what was seen of it is another one: a backup was put in its place.
    let since = seen.map(|Position(seen)| seen).filter(|seen| *seen <= position);
    let mut snapshot = Snapshot { position: Position(position), complete: since.is_none(), ..Snapshot::default() };
    if since == Some(position) {
        return Ok(snapshot);
    }
    let after = since.unwrap_or(-1);
    let rows = link
        .rows(
            "SELECT id, name, suspended, created_at, revision FROM tenants WHERE changed > $1 AND name <> ''
             ORDER BY changed, name",
            params![after],
        )
        .await?;
    snapshot.tenants = rows.iter().map(tenants::row).collect::<Result<_, _>>()?;
    if since.is_some() {
        let removed = "SELECT id, name FROM removed_tenants WHERE changed > $1 ORDER BY changed";
        for row in &link.rows(removed, params![after]).await? {
            snapshot.removed_tenants.push((row.get(0)?, tenants::name(row, 1)?));
        }
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
    let rows = link
        .rows(
            "SELECT k.id, k.prefix, k.hash, k.role, t.name, k.label, k.rate, k.created_at, k.expires_at, k.revoked_at
             FROM api_keys k LEFT JOIN tenants t ON t.id = k.tenant_id
             WHERE k.changed > $1 ORDER BY k.changed, k.id",
            params![after],
        )
        .await?;
    snapshot.keys = rows.iter().map(keys::row).collect::<Result<_, _>>()?;
    let rows = link
        .rows(
            "SELECT t.name, s.name, s.reference FROM secret_references s JOIN tenants t ON t.id = s.tenant_id
             WHERE s.changed > $1 ORDER BY s.changed, s.name",
            params![after],
        )
        .await?;
    snapshot.secrets = rows.iter().map(secrets::row).collect::<Result<_, _>>()?;
    if since.is_none() {
        snapshot.secrets.retain(|secret| secret.reference.is_some());
    }
    Ok(snapshot)
}
