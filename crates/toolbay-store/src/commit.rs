//! A change: its steps, its audit and its answer in one transaction.

use toolbay_api::ToolError;
use toolbay_runtime::store::{Change, Position, Step};

use crate::{
    answers, audit,
    db::{Db, transact},
    fault::Fault,
    keys,
    link::Link,
    migrations::allow_long,
    packages, registrations, secrets, tenants,
    values::params,
};

/// The channel on which PostgreSQL tells of changes.
pub(crate) const CHANNEL: &str = "toolbay_changes";

pub(crate) async fn commit(db: &Db, change: &Change) -> Result<Position, ToolError> {
    let is_long = change.steps.iter().any(|step| matches!(step, Step::RemoveTenant { .. }));
    let limit = if is_long { db.options.long_timeout } else { db.options.timeout };
    transact!(db, limit, |link| {
        if is_long {
            allow_long(&mut link, limit).await?;
        }
        let position = if change.steps.is_empty() {
            link.number("SELECT position FROM store_state", params![]).await?
        } else {
            // First of all, and locked until the end: changes wait for each other here, in one order, and nowhere else.
            let next = "UPDATE store_state SET position = position + 1 RETURNING position";
            link.number(next, params![]).await?
        };
        if let Some(once) = &change.once {
            answers::put(&mut link, db, once, change.at_ms).await?;
        }
        for step in &change.steps {
            apply(&mut link, db, step, change.at_ms, position).await?;
        }
        for step in &change.steps {
            check(&mut link, step).await?;
        }
        audit::append(&mut link, db, &change.audit).await?;
        if link.is_postgres() && !change.steps.is_empty() {
            link.rows("SELECT pg_notify($1, '')", params![CHANNEL]).await?;
        }
        Ok(Position(position))
    })
}

async fn apply(link: &mut Link, db: &Db, step: &Step, at_ms: i64, position: i64) -> Result<(), Fault> {
    match step {
        Step::AddTenant(tenant) => tenants::add(link, tenant, position).await,
        Step::SuspendTenant { tenant, suspended, expected } => {
            tenants::suspend(link, tenant, *suspended, *expected, position).await
        }
        Step::RemoveTenant { tenant, expected } => tenants::remove(link, tenant, *expected, position).await,
        Step::PutRegistration { row, expected } => registrations::put(link, db, row, *expected, position).await,
        Step::RemoveRegistration { scope, plugin, expected } => {
            registrations::remove(link, scope, plugin, *expected, position).await
        }
        Step::AddPackage { row, content } => packages::add(link, db, row, content).await,
        Step::RemovePackages { scope, plugin } => packages::remove(link, scope, plugin).await,
        Step::AddKey(key) => keys::add(link, db, key, at_ms, position).await,
        Step::RevokeKey { id, tenant } => keys::revoke(link, *id, tenant.as_ref(), at_ms, position).await,
        Step::ExpireKey { id, expires_at } => keys::expire(link, *id, *expires_at, position).await,
        Step::PutSecret(secret) => secrets::put(link, db, secret, position).await,
    }
}

/// What must hold after all steps, in whichever order they came.
async fn check(link: &mut Link, step: &Step) -> Result<(), Fault> {
    match step {
        Step::PutRegistration { row, .. } => registrations::check_package(link, row).await,
        Step::RemovePackages { scope, plugin } => packages::check_unused(link, scope, plugin).await,
        _ => Ok(()),
    }
}
