//! A keyring as a place of secrets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, reason = "tests")]

use std::sync::Arc;

use toolbay_api::{ErrorKind, SecretName, SecretProvider, TenantId};
use toolbay_keyring::{
    KeyringSecrets,
    keyring_core::{CredentialStore, mock},
};

fn put(store: &Arc<CredentialStore>, service: &str, name: &str, value: &str) {
    store.build(service, name, None).unwrap().set_password(value).unwrap();
}

async fn read(secrets: &KeyringSecrets, name: &str) -> Result<Option<String>, ErrorKind> {
    let (tenant, name) = (TenantId::new("acme").unwrap(), SecretName::new(name).unwrap());
    let secret = secrets.secret(&tenant, &name).await.map_err(|error| error.kind)?;
    Ok(secret.map(|secret| secret.expose().to_owned()))
}

#[tokio::test]
async fn a_secret_is_the_password_of_its_name_in_the_hosts_service_and_in_no_other() {
    let store: Arc<CredentialStore> = mock::Store::new().unwrap();
    put(&store, "toolbay", "STRIPE_KEY", "sk_test");
    put(&store, "mail", "PASSWORD", "hunter2");
    let secrets = KeyringSecrets::new(store, "toolbay");
    assert_eq!(read(&secrets, "STRIPE_KEY").await, Ok(Some("sk_test".to_owned())));
    assert_eq!(read(&secrets, "PASSWORD").await, Ok(None));
    assert!(!format!("{secrets:?}").contains("sk_test"));
}

#[tokio::test]
async fn a_secret_that_is_too_long_is_refused_without_a_word_of_it() {
    let store: Arc<CredentialStore> = mock::Store::new().unwrap();
    put(&store, "toolbay", "LONG", &"s".repeat(70_000));
    let (tenant, name) = (TenantId::new("acme").unwrap(), SecretName::new("LONG").unwrap());
    let error = KeyringSecrets::new(store, "toolbay").secret(&tenant, &name).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(!error.message.contains("sss"));
}

/// The kernel's own keyring, where it lets us have one.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_kernels_keyring_will_do() {
    let store: Arc<CredentialStore> = match linux_keyutils_keyring_store::Store::new() {
        Ok(store) => store,
        Err(error) => return eprintln!("skipped: the kernel has no keyring for us: {error}"),
    };
    let entry = store.build("toolbay-tests", "KERNEL_KEY", None).unwrap();
    if let Err(error) = entry.set_password("from the kernel") {
        return eprintln!("skipped: the kernel keeps no key for us: {error}");
    }
    let found = read(&KeyringSecrets::new(store, "toolbay-tests"), "KERNEL_KEY").await;
    entry.delete_credential().unwrap();
    assert_eq!(found, Ok(Some("from the kernel".to_owned())));
}
