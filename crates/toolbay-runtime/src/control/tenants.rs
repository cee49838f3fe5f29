//! Tenants: who there is.

use serde_json::{Value, json};
use toolbay_api::{Scope, TenantId, ToolError};
use uuid::Uuid;

use super::{Actor, Control, Need, expected, no_tenant};
use crate::store::{Listed, Page, Revision, SecretReference, Step, TenantRow};

impl Control {
    /// Makes a tenant. For operators.
    ///
    /// # Errors
    /// `Conflict` where there is one of that name; what [`Store`](crate::store::Store) says.
    pub async fn create_tenant(&self, by: &Actor, name: &TenantId) -> Result<TenantRow, ToolError> {
        if let Some(done) = self.enter(by, &Scope::Global, Need::Operator, "tenant.create").await? {
            return Ok(done);
        }
        let created_at = self.now_ms()?;
        let row = TenantRow { id: Uuid::now_v7(), name: name.clone(), suspended: false, created_at, revision: 1 };
        let entry = self.entry(by, &Scope::Global, "tenant.create", name.as_str(), json!({ "id": row.id }))?;
        self.commit(by, vec![Step::AddTenant(row.clone())], entry, &row).await?;
        Ok(row)
    }

    /// Refuses a tenant's keys, or takes them again. For operators.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` where it is not as `seen`.
    pub async fn suspend_tenant(
        &self,
        by: &Actor,
        name: &TenantId,
        suspended: bool,
        seen: Option<Revision>,
    ) -> Result<TenantRow, ToolError> {
        let action = if suspended { "tenant.suspend" } else { "tenant.resume" };
        if let Some(done) = self.enter(by, &Scope::Global, Need::Operator, action).await? {
            return Ok(done);
        }
        let before = self.0.store.tenant(name).await?.ok_or_else(|| no_tenant(name))?;
        let expected = expected(Some(before.revision), seen)?;
        let row = TenantRow { suspended, revision: before.revision + 1, ..before };
        let step = Step::SuspendTenant { tenant: name.clone(), suspended, expected };
        let entry = self.entry(by, &Scope::Global, action, name.as_str(), Value::Null)?;
        self.commit(by, vec![step], entry, &row).await?;
        Ok(row)
    }

    /// Removes a tenant and everything of it but its audit. For admins.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` where it is not as `seen`.
    pub async fn remove_tenant(&self, by: &Actor, name: &TenantId, seen: Option<Revision>) -> Result<(), ToolError> {
        if self.enter::<()>(by, &Scope::Global, Need::Admin, "tenant.remove").await?.is_some() {
            return Ok(());
        }
        let before = self.0.store.tenant(name).await?.ok_or_else(|| no_tenant(name))?;
        let expected = expected(Some(before.revision), seen)?;
        let step = Step::RemoveTenant { tenant: name.clone(), expected };
        let entry = self.entry(by, &Scope::Global, "tenant.remove", name.as_str(), json!({ "id": before.id }))?;
        self.commit(by, vec![step], entry, &()).await
    }

    /// Tenants by name. For operators.
    ///
    /// # Errors
    /// `PermissionDenied`; what [`Store`](crate::store::Store) says.
    pub async fn tenants(&self, by: &Actor, page: Page) -> Result<Listed<TenantRow>, ToolError> {
        self.allow(by, &Scope::Global, Need::Operator, "tenant.list").await?;
        self.0.store.tenants(page).await
    }

    /// One tenant. For operators and for itself.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn tenant(&self, by: &Actor, name: &TenantId) -> Result<TenantRow, ToolError> {
        self.allow(by, &Scope::Tenant(name.clone()), Need::Scope, "tenant.get").await?;
        self.0.store.tenant(name).await?.ok_or_else(|| no_tenant(name))
    }

    /// Says under which name the host's keeper has a secret that plugins call `name`; `None` takes that away. In the global
    /// scope for every tenant that has none of its own. For operators.
    ///
    /// # Errors
    /// `InvalidArguments` where either is no secret's name; `NotFound` where there is no such tenant.
    pub async fn put_secret(
        &self,
        by: &Actor,
        scope: &Scope,
        name: &str,
        reference: Option<String>,
    ) -> Result<(), ToolError> {
        if self.enter::<()>(by, scope, Need::Operator, "secret.put").await?.is_some() {
            return Ok(());
        }
        super::secrets::check_name(name)?;
        reference.as_deref().map_or(Ok(()), super::secrets::check_name)?;
        let entry = self.entry(by, scope, "secret.put", name, json!({ "set": reference.is_some() }))?;
        let row = SecretReference { scope: scope.clone(), name: name.to_owned(), reference };
        self.commit(by, vec![Step::PutSecret(row)], entry, &()).await
    }

    /// Where the secrets of a scope are found, by their names. For operators.
    ///
    /// # Errors
    /// `PermissionDenied`; `NotFound` where there is no such tenant; what [`Store`](crate::store::Store) says.
    pub async fn secrets(&self, by: &Actor, scope: &Scope, page: Page) -> Result<Listed<SecretReference>, ToolError> {
        self.allow(by, scope, Need::Operator, "secret.list").await?;
        self.0.store.secrets(scope, page).await
    }
}
