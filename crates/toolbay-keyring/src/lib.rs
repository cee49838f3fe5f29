//! Secrets from a keyring. Which one is the host's choice: any store of the `keyring-core` family, such as the kernel's on
//! Linux, the Secret Service, macOS's keychain or Windows' credential manager.
//!
//! It is a crate of its own, behind the feature `keyring` of `toolbay`, since few hosts have a keyring.
//!
//! ```
//! # use std::sync::Arc; use toolbay_keyring::KeyringSecrets;
//! # fn store() -> keyring_core::Result<Arc<keyring_core::CredentialStore>> { Ok(keyring_core::mock::Store::new()?) }
//! // The password of the user STRIPE_KEY of the service "toolbay" is the secret STRIPE_KEY.
//! let secrets = KeyringSecrets::new(store()?, "toolbay");
//! # Ok::<(), keyring_core::Error>(())
//! ```

use std::{fmt, sync::Arc};

use keyring_core::{CredentialStore, Error};
use toolbay_api::{Secret, SecretName, SecretProvider, TenantId, ToolError, async_trait};

pub use keyring_core;

/// Secrets in a keyring, under one service's name: the users of that service are the secrets' names.
#[derive(Clone)]
pub struct KeyringSecrets {
    store: Arc<CredentialStore>,
    service: Arc<str>,
}

impl KeyringSecrets {
    /// Takes the entries of `service` in `store`. Nothing else in the keyring can be read.
    pub fn new(store: Arc<CredentialStore>, service: impl Into<Arc<str>>) -> Self {
        Self { store, service: service.into() }
    }

    fn read(&self, name: &SecretName) -> Result<Option<Secret>, ToolError> {
        let entry = self.store.build(&self.service, name.as_str(), None);
        match entry.and_then(|entry| entry.get_password()) {
            Ok(value) => Secret::bounded(name, value).map(Some),
            Err(Error::NoEntry) => Ok(None),
            Err(error) => Err(name.unreadable(error)),
        }
    }
}

impl fmt::Debug for KeyringSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyringSecrets").field("service", &self.service).finish_non_exhaustive()
    }
}

#[async_trait]
impl SecretProvider for KeyringSecrets {
    async fn secret(&self, _: &TenantId, name: &SecretName) -> Result<Option<Secret>, ToolError> {
        // A keyring may ask another process, or its user.
        let (this, asked) = (self.clone(), name.clone());
        let read = tokio::task::spawn_blocking(move || this.read(&asked)).await;
        read.unwrap_or_else(|lost| Err(name.unreadable(lost)))
    }
}
