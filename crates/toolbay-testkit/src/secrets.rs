//! Secrets that a test makes up.

use std::collections::BTreeMap;

use async_trait::async_trait;
use toolbay_api::{Secret, SecretName, SecretProvider, TenantId, ToolError};

/// Keeps the secrets that a test gives it, the same for every tenant:
/// `Toolbay::builder().secrets(FakeSecrets::new([("CRM_KEY", "s3cret")]))`.
#[derive(Debug, Clone, Default)]
pub struct FakeSecrets(BTreeMap<String, Secret>);

impl FakeSecrets {
    /// Secrets by name.
    #[must_use]
    pub fn new<'a>(secrets: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(secrets.into_iter().map(|(name, value)| (name.to_owned(), Secret::new(value))).collect())
    }
}

#[async_trait]
impl SecretProvider for FakeSecrets {
    async fn secret(&self, _: &TenantId, name: &SecretName) -> Result<Option<Secret>, ToolError> {
        Ok(self.0.get(name.as_str()).cloned())
    }
}
