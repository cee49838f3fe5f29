//! What is decided about plugins.

use toolbay_api::{PluginName, Scope, ToolError};
use toolbay_runtime::store::{Expected, PackageDigest, Registration};
use uuid::Uuid;

use crate::{
    db::{Db, read},
    fault::{Fault, conflict, invalid, not_found, within},
    link::Link,
    store::{known_scope_id, scope_name, scope_of},
    values::{Json, Row, params},
};

pub(crate) async fn one(db: &Db, scope: &Scope, plugin: &PluginName) -> Result<Option<Registration>, ToolError> {
    read!(db, |link| {
        let found = link
            .row(
                "SELECT t.name, r.id, r.plugin_name, r.plugin_version, r.package_digest, r.previous_version, r.enabled,
                     r.config, r.priority, r.installed_at, r.updated_at, r.revision
                 FROM plugin_registrations r JOIN tenants t ON t.id = r.tenant_id
                 WHERE t.name = $1 AND r.plugin_name = $2",
                params![scope_name(scope), plugin.as_str()],
            )
            .await?;
        found.as_ref().map(row).transpose()
    })
}

/// A row of the columns above.
pub(crate) fn row(row: &Row) -> Result<Registration, Fault> {
    let package: Option<Vec<u8>> = row.get(4)?;
    let package = package.map(|bytes| bytes.try_into().map(PackageDigest)).transpose();
    let priority: Option<i64> = row.get(8)?;
    let priority = priority.map(i32::try_from).transpose();
    Ok(Registration {
        scope: scope_of(row.get(0)?)?,
        id: row.get(1)?,
        plugin: row.parsed(2, "a plugin's name")?,
        version: row.parsed(3, "a version")?,
        package: package.map_err(|_| crate::fault::damaged("a digest"))?,
        previous: row.parsed_option(5, "a version")?,
        enabled: row.get(6)?,
        config: row.json_option(7)?,
        priority: priority.map_err(|_| crate::fault::damaged("a priority"))?,
        installed_at: row.get(9)?,
        updated_at: row.get(10)?,
        revision: row.get(11)?,
    })
}

pub(crate) async fn put(
    link: &mut Link,
    db: &Db,
    new: &Registration,
    expected: Expected,
    position: i64,
) -> Result<(), Fault> {
    let bounds = &db.options.bounds;
    let tenant = known_scope_id(link, &new.scope).await?;
    if new.config.as_ref().is_some_and(|config| !config.is_object()) {
        return Err(invalid("a configuration is an object").into());
    }
    let config = new.config.as_ref().map(|config| Json::new(config, bounds.document_bytes)).transpose()?;
    let (version, previous) = (new.version.to_string(), new.previous.as_ref().map(ToString::to_string));
    let (digest, priority) = (new.package.map(|digest| digest.0.to_vec()), new.priority.map(i64::from));
    let written = match expected {
        Expected::Absent => {
            let count = "SELECT COUNT(*) FROM plugin_registrations WHERE tenant_id = $1";
            let count = link.number(count, params![tenant]).await?;
            within(bounds.registrations.into(), count.unsigned_abs() + 1, "registrations of a scope")?;
            link.execute(
                "INSERT INTO plugin_registrations (id, tenant_id, plugin_name, plugin_version, enabled, config,
                     installed_at, updated_at, package_digest, previous_version, priority, revision)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
                 ON CONFLICT (tenant_id, plugin_name) DO NOTHING",
                params![
                    new.id,
                    tenant,
                    new.plugin.as_str(),
                    version,
                    new.enabled,
                    config,
                    new.installed_at,
                    new.updated_at,
                    digest,
                    previous,
                    priority,
                    new.revision
                ],
            )
            .await?
        }
        // With its number, too: one that was taken away and made anew may have come to the same revision.
        Expected::Revision(seen) => {
            link.execute(
                "UPDATE plugin_registrations SET plugin_version = $4, enabled = $5, config = $6, updated_at = $7,
                     package_digest = $8, previous_version = $9, priority = $10, revision = $11
                 WHERE tenant_id = $1 AND plugin_name = $2 AND id = $3 AND revision = $12",
                params![
                    tenant,
                    new.plugin.as_str(),
                    new.id,
                    version,
                    new.enabled,
                    config,
                    new.updated_at,
                    digest,
                    previous,
                    priority,
                    new.revision,
                    seen
                ],
            )
            .await?
        }
    };
    changed(link, tenant, written, &new.plugin, position).await
}

pub(crate) async fn remove(
    link: &mut Link,
    scope: &Scope,
    plugin: &PluginName,
    expected: Expected,
    position: i64,
) -> Result<(), Fault> {
    let tenant = known_scope_id(link, scope).await?;
    let written = match expected {
        Expected::Absent => 0,
        Expected::Revision(seen) => {
            link.execute(
                "DELETE FROM plugin_registrations WHERE tenant_id = $1 AND plugin_name = $2 AND revision = $3",
                params![tenant, plugin.as_str(), seen],
            )
            .await?
        }
    };
    changed(link, tenant, written, plugin, position).await
}

async fn changed(link: &mut Link, tenant: Uuid, written: u64, plugin: &PluginName, position: i64) -> Result<(), Fault> {
    if written != 1 {
        return Err(conflict(format!("what is decided about {plugin} was changed since; look at it again")).into());
    }
    let stamp = "UPDATE tenants SET registrations_changed = $1 WHERE id = $2";
    link.execute(stamp, params![position, tenant]).await.map(drop)
}

/// Whether what `new` has installed is there, after all steps of a change.
pub(crate) async fn check_package(link: &mut Link, new: &Registration) -> Result<(), Fault> {
    let Some(digest) = &new.package else { return Ok(()) };
    let found = link
        .row(
            "SELECT 1 FROM package_versions v JOIN tenants t ON t.id = v.tenant_id
             WHERE t.name = $1 AND v.plugin_name = $2 AND v.plugin_version = $3 AND v.digest = $4",
            params![scope_name(&new.scope), new.plugin.as_str(), new.version.to_string(), &digest.0],
        )
        .await?;
    if found.is_some() {
        return Ok(());
    }
    Err(not_found(format!("the version {} of {} is not there with this package", new.version, new.plugin)).into())
}
