//! Secrets by reference: which of the host's secrets a tenant's plugins read under which name is the operator's to say.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use toolbay_api::{ErrorKind, Scope, Secret, SecretName, SecretProvider, TenantId, ToolError, async_trait};

use crate::store::SecretReference;

/// A keeper of secrets that asks another one by the names that the store's references say.
///
/// A tenant's own reference goes before the one for all tenants; without either there is no such secret, whatever the other
/// keeper has. Clones share their references.
#[derive(Clone)]
pub struct StoredSecrets(Arc<Inner>);

struct Inner {
    keeper: Arc<dyn SecretProvider>,
    references: RwLock<HashMap<Scope, HashMap<String, SecretName>>>,
}

impl StoredSecrets {
    /// Asks `keeper`. Knows no references until a [`Control`](super::Control) that was given it is opened.
    pub fn new(keeper: impl SecretProvider + 'static) -> Self {
        Self(Arc::new(Inner { keeper: Arc::new(keeper), references: RwLock::default() }))
    }

    /// Takes over what the store has.
    pub(super) fn take_over(&self, references: Vec<SecretReference>) {
        let mut all = self.0.references.write().unwrap_or_else(PoisonError::into_inner);
        for SecretReference { scope, name, reference } in references {
            match reference.as_deref().map(SecretName::new) {
                Some(Ok(reference)) => _ = all.entry(scope).or_default().insert(name, reference),
                // What cannot be asked for is as good as not there.
                Some(Err(_)) | None => {
                    if let Some(own) = all.get_mut(&scope) {
                        own.remove(&name);
                    }
                }
            }
        }
        all.retain(|_, own| !own.is_empty());
    }

    /// Forgets all of it.
    pub(super) fn clear(&self) {
        self.0.references.write().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Forgets what is of a tenant.
    pub(super) fn forget(&self, tenant: &TenantId) {
        let mut all = self.0.references.write().unwrap_or_else(PoisonError::into_inner);
        all.remove(&Scope::Tenant(tenant.clone()));
    }

    fn reference(&self, tenant: &TenantId, name: &SecretName) -> Option<SecretName> {
        let all = self.0.references.read().unwrap_or_else(PoisonError::into_inner);
        let of = |scope: &Scope| all.get(scope)?.get(name.as_str()).cloned();
        of(&Scope::Tenant(tenant.clone())).or_else(|| of(&Scope::Global))
    }
}

impl fmt::Debug for StoredSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredSecrets").finish_non_exhaustive()
    }
}

#[async_trait]
impl SecretProvider for StoredSecrets {
    async fn secret(&self, tenant: &TenantId, name: &SecretName) -> Result<Option<Secret>, ToolError> {
        match self.reference(tenant, name) {
            Some(reference) => self.0.keeper.secret(tenant, &reference).await,
            None => Ok(None),
        }
    }
}

/// `Ok` where plugins could ask for a secret of this name.
pub(super) fn check_name(name: &str) -> Result<(), ToolError> {
    SecretName::new(name).map(|_| ()).map_err(|error| ToolError::new(ErrorKind::InvalidArguments, error.to_string()))
}
