//! A host on a store: where tenants, keys, uploaded plugins and what plugins keep outlive the process.

use std::sync::Arc;

use toolbay::{
    Actor, Control, ControlOptions, ErrorKind, KeyWanted, NewKey, SecretChain, SqlStore, Store, StoreAudit,
    StoreOptions, StoreRelay, StoredSecrets, TenantId, ToolError, Toolbay, ToolbayBuilder,
    store::{Page, Role, SuspendedRuns},
};

use crate::exit::CliError;

/// A store that was opened, and what of the host goes by it.
pub(crate) struct Stored {
    store: Arc<SqlStore>,
    audit: Arc<StoreAudit>,
    references: StoredSecrets,
    /// The references, and then what is in the host's file: a secret without a reference is looked for as it was.
    secrets: SecretChain,
}

/// Keys that were made since there were none.
pub(crate) struct FirstKeys {
    pub(crate) admin: NewKey,
    pub(crate) tenant: Option<NewKey>,
}

impl Stored {
    /// Opens the database at `url`. `keeper` has the host's secrets, which references name.
    pub(crate) async fn open(url: &str, keeper: Option<SecretChain>) -> Result<Self, CliError> {
        let store = SqlStore::open(url, StoreOptions::default()).await.map_err(failed)?;
        let store = Arc::new(store);
        let audit = Arc::new(StoreAudit::new(Arc::clone(&store) as Arc<dyn Store>));
        let keeper = keeper.unwrap_or_default();
        let references = StoredSecrets::new(keeper.clone());
        let secrets = SecretChain::default().then(references.clone()).then(keeper);
        Ok(Self { store, audit, references, secrets })
    }

    /// Has a host go by the store; `keeps` says whether what plugins keep is there too.
    pub(crate) fn apply_to(&self, builder: ToolbayBuilder, keeps: bool) -> ToolbayBuilder {
        let builder = builder
            .audit(Arc::clone(&self.audit) as _)
            .event_relay(Arc::new(StoreRelay::new(Arc::clone(&self.store) as Arc<dyn Store>)))
            .secrets(self.secrets.clone());
        if keeps { builder.kv(Arc::clone(&self.store) as _) } else { builder }
    }

    /// Where runs are kept that wait.
    pub(crate) fn suspended(&self) -> Arc<dyn SuspendedRuns> {
        Arc::clone(&self.store) as _
    }

    /// Takes over what is in the store.
    pub(crate) async fn control(&self, bay: Toolbay) -> Result<Control, CliError> {
        let options = ControlOptions { secrets: Some(self.references.clone()), ..ControlOptions::default() };
        Control::open(bay, Arc::clone(&self.store) as Arc<dyn Store>, options).await.map_err(failed)
    }

    /// Writes down what is still to be written.
    pub(crate) async fn finish(&self, within: std::time::Duration) {
        self.audit.flush(within).await;
        self.store.close().await;
    }
}

/// Opens the control of a server's database for looking after tenants and keys. No plugin is loaded, and a database that is
/// not there is not made: its name may be a slip.
pub(crate) async fn office(url: &str) -> Result<Control, CliError> {
    let store = SqlStore::existing(url, StoreOptions::default()).map_err(failed)?;
    let bay = Toolbay::builder().build().map_err(CliError::usage)?;
    let options = ControlOptions { without_plugins: true, ..ControlOptions::default() };
    Control::open(bay, Arc::new(store), options).await.map_err(failed)
}

/// Whoever sits at the command line.
pub(crate) fn operator() -> Actor {
    Actor::host("cli")
}

/// Makes the tenants that a server is told of, as far as they are not there.
pub(crate) async fn ensure_tenants<'a>(
    control: &Control,
    tenants: impl Iterator<Item = &'a TenantId>,
) -> Result<(), CliError> {
    for tenant in tenants {
        match control.tenant(&operator(), tenant).await {
            Ok(_) => {}
            Err(error) if error.kind == ErrorKind::NotFound => {
                match control.create_tenant(&operator(), tenant).await {
                    // Another process was quicker.
                    Err(error) if error.kind == ErrorKind::Conflict => control.sync().await.map_err(failed)?,
                    other => _ = other.map_err(failed)?,
                }
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(())
}

/// The first admin key, and with it one of `tenant` that has none: made once for a store.
pub(crate) async fn first_keys(control: &Control, tenant: &TenantId) -> Result<Option<FirstKeys>, CliError> {
    let Some(admin) = control.first_key().await.map_err(failed)? else { return Ok(None) };
    let page = Page { after: None, limit: 1 };
    let there = control.keys(&operator(), Some(tenant), page).await.map_err(failed)?;
    let wanted = KeyWanted {
        role: Role::Tenant,
        tenant: Some(tenant.clone()),
        label: "made at the first start".to_owned(),
        expires_at: None,
        rate: None,
    };
    let tenant = match there.items.is_empty() {
        true => Some(control.create_key(&operator(), wanted).await.map_err(failed)?),
        false => None,
    };
    Ok(Some(FirstKeys { admin, tenant }))
}

/// What keeps a command from working at its store.
pub(crate) fn failed(error: ToolError) -> CliError {
    CliError::usage(error.message)
}
