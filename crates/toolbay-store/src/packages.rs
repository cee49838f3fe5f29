//! Uploaded packages: versions of plugins by scope, and their content once for each digest.

use std::sync::Arc;

use toolbay_api::{PluginName, Scope, ToolError};
use toolbay_runtime::store::{PackageDigest, PackageVersion};

use crate::{
    db::{Db, read},
    fault::{Fault, conflict, damaged, invalid, within},
    link::Link,
    store::{known_scope_id, scope_id, scope_name, scope_of},
    values::{Json, Row, int, params},
};

pub(crate) async fn versions(db: &Db, scope: &Scope, plugin: &PluginName) -> Result<Vec<PackageVersion>, ToolError> {
    let mut versions: Vec<PackageVersion> = read!(db, |link| {
        let rows = link
            .rows(
                "SELECT t.name, v.plugin_name, v.plugin_version, v.digest, v.bytes, v.file_name, v.manifest,
                     v.uploaded_at, v.uploaded_by
                 FROM package_versions v JOIN tenants t ON t.id = v.tenant_id
                 WHERE t.name = $1 AND v.plugin_name = $2",
                params![scope_name(scope), plugin.as_str()],
            )
            .await?;
        rows.iter().map(row).collect()
    })?;
    // No database knows the order of versions; there are few of one plugin.
    versions.sort_by(|one, other| other.version.cmp(&one.version));
    Ok(versions)
}

fn row(row: &Row) -> Result<PackageVersion, Fault> {
    Ok(PackageVersion {
        scope: scope_of(row.get(0)?)?,
        plugin: row.parsed(1, "a plugin's name")?,
        version: row.parsed(2, "a version")?,
        digest: PackageDigest(row.digest(3)?),
        bytes: row.get(4)?,
        file_name: row.get(5)?,
        manifest: row.json(6)?,
        uploaded_at: row.get(7)?,
        uploaded_by: row.get(8)?,
    })
}

pub(crate) async fn content(db: &Db, digest: &PackageDigest) -> Result<Option<Arc<[u8]>>, ToolError> {
    let content: Option<Vec<u8>> = read!(db, |link| {
        let found = link.row("SELECT content FROM packages WHERE digest = $1", params![&digest.0]).await?;
        found.map(|row| row.get(0)).transpose()
    })?;
    let Some(content) = content else { return Ok(None) };
    // What runs with a plugin's rights must be what was uploaded.
    if PackageDigest::of(&content) == *digest { Ok(Some(content.into())) } else { Err(damaged("a package")) }
}

pub(crate) async fn add(link: &mut Link, db: &Db, new: &PackageVersion, content: &[u8]) -> Result<(), Fault> {
    let bounds = &db.options.bounds;
    if PackageDigest::of(content) != new.digest || int(content.len()) != new.bytes {
        return Err(invalid("the package is not what its digest and length say").into());
    }
    let tenant = known_scope_id(link, &new.scope).await?;
    let version = new.version.to_string();
    let there = link
        .row(
            "SELECT digest FROM package_versions WHERE tenant_id = $1 AND plugin_name = $2 AND plugin_version = $3",
            params![tenant, new.plugin.as_str(), &version],
        )
        .await?;
    if let Some(there) = there {
        return if there.digest(0)? == new.digest.0 {
            Ok(())
        } else {
            let message = format!("there is another {} {version} already; a version never changes", new.plugin);
            Err(conflict(message).into())
        };
    }
    let sizes = link
        .row(
            "SELECT COUNT(CASE WHEN plugin_name = $2 THEN 1 END), CAST(COALESCE(SUM(bytes), 0) AS BIGINT)
             FROM package_versions WHERE tenant_id = $1",
            params![tenant, new.plugin.as_str()],
        )
        .await?;
    if let Some(sizes) = sizes {
        let (versions, bytes) = (sizes.get::<i64>(0)?.unsigned_abs(), sizes.get::<i64>(1)?.unsigned_abs());
        within(bounds.versions.into(), versions + 1, "versions of a plugin")?;
        within(bounds.package_bytes, bytes + content.len() as u64, "bytes of a scope's packages")?;
    }
    link.execute(
        "INSERT INTO packages (digest, content) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING",
        params![&new.digest.0, content],
    )
    .await?;
    link.execute(
        "INSERT INTO package_versions (tenant_id, plugin_name, plugin_version, digest, bytes, file_name, manifest,
             uploaded_at, uploaded_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        params![
            tenant,
            new.plugin.as_str(),
            version,
            &new.digest.0,
            new.bytes,
            new.file_name.clone(),
            Json::new(&new.manifest, bounds.document_bytes)?,
            new.uploaded_at,
            &new.uploaded_by
        ],
    )
    .await
    .map(drop)
}

pub(crate) async fn remove(link: &mut Link, scope: &Scope, plugin: &PluginName) -> Result<(), Fault> {
    let Some(tenant) = scope_id(link, scope).await? else { return Ok(()) };
    let gone = link
        .rows(
            "DELETE FROM package_versions WHERE tenant_id = $1 AND plugin_name = $2 RETURNING digest",
            params![tenant, plugin.as_str()],
        )
        .await?;
    for version in &gone {
        forget_unused(link, &version.digest(0)?).await?;
    }
    Ok(())
}

/// Whether a plugin whose versions were taken away is still installed from one, after all steps of a change.
pub(crate) async fn check_unused(link: &mut Link, scope: &Scope, plugin: &PluginName) -> Result<(), Fault> {
    let used = link
        .row(
            "SELECT 1 FROM plugin_registrations r JOIN tenants t ON t.id = r.tenant_id
             WHERE t.name = $1 AND r.plugin_name = $2 AND r.package_digest IS NOT NULL AND NOT EXISTS (
                 SELECT 1 FROM package_versions v WHERE v.tenant_id = r.tenant_id AND v.plugin_name = r.plugin_name
                     AND v.plugin_version = r.plugin_version)",
            params![scope_name(scope), plugin.as_str()],
        )
        .await?;
    if used.is_none() { Ok(()) } else { Err(conflict(format!("{plugin} is still installed from a package")).into()) }
}

/// Takes a package's content away where no version has it.
pub(crate) async fn forget_unused(link: &mut Link, digest: &[u8; 32]) -> Result<(), Fault> {
    link.execute(
        "DELETE FROM packages WHERE digest = $1 AND NOT EXISTS (SELECT 1 FROM package_versions WHERE digest = $1)",
        params![digest],
    )
    .await
    .map(drop)
}
