//! Where tenants' secrets are found. The secrets themselves are with the host's keeper.

use toolbay_api::{Scope, ToolError};
use toolbay_runtime::store::{Listed, Page, SecretReference};

use crate::{
    db::{Db, read},
    fault::{Fault, within},
    link::Link,
    page::{listed, rows_of},
    store::{known_scope_id, scope_of},
    values::{Row, params},
};

/// A row of `tenants.name, name, reference`.
pub(crate) fn row(row: &Row) -> Result<SecretReference, Fault> {
    Ok(SecretReference { scope: scope_of(row.get(0)?)?, name: row.get(1)?, reference: row.get(2)? })
}

pub(crate) async fn list(db: &Db, scope: &Scope, page: &Page) -> Result<Listed<SecretReference>, ToolError> {
    let after = page.after.as_deref().unwrap_or_default();
    read!(db, |link| {
        let tenant = known_scope_id(&mut link, scope).await?;
        let rows = link
            .rows(
                "SELECT t.name, s.name, s.reference FROM secret_references s JOIN tenants t ON t.id = s.tenant_id
                 WHERE s.tenant_id = $1 AND s.reference IS NOT NULL AND s.name > $2 ORDER BY s.name LIMIT $3",
                params![tenant, after, rows_of(page)],
            )
            .await?;
        let secrets = rows.iter().map(row).collect::<Result<Vec<_>, _>>()?;
        Ok(listed(secrets, page, |secret| secret.name.clone()))
    })
}

pub(crate) async fn put(link: &mut Link, db: &Db, secret: &SecretReference, position: i64) -> Result<(), Fault> {
    let tenant = known_scope_id(link, &secret.scope).await?;
    let written = link
        .execute(
            "UPDATE secret_references SET reference = $1, changed = $2 WHERE tenant_id = $3 AND name = $4",
            params![secret.reference.clone(), position, tenant, &secret.name],
        )
        .await?;
    if written == 1 || secret.reference.is_none() {
        return Ok(());
    }
    bounded(link, db, tenant).await?;
    link.execute(
        "INSERT INTO secret_references (tenant_id, name, reference, changed) VALUES ($1, $2, $3, $4)",
        params![tenant, &secret.name, secret.reference.clone(), position],
    )
    .await
    .map(drop)
}

async fn bounded(link: &mut Link, db: &Db, tenant: uuid::Uuid) -> Result<(), Fault> {
    let count = "SELECT COUNT(*) FROM secret_references WHERE tenant_id = $1";
    let count = link.number(count, params![tenant]).await?.unsigned_abs();
    let checked: Result<(), ToolError> = within(db.options.bounds.secrets.into(), count + 1, "secrets of a scope");
    Ok(checked?)
}
