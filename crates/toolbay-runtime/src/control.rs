//! Control: what operators and tenants change while a host runs.
//!
//! Each change takes one road: who may, what it would do, a rehearsal, one transaction in the [`Store`], and then
//! [`Control::sync`], which takes over from the store whatever is different there. `sync` is the only one that changes the
//! registry for a store's sake, so own changes, those of other processes and the start of the process are one case.
//!
//! # Layout
//!
//! - here: what it is made of, and who may do what. `plugins`: switches and configurations; `packages`: what is uploaded
//!   and installed; `tenants`, `keys`: who there is; `records`: audit and runs.
//! - `sync`: taking over. `follow`: doing so when something changes. `relay`: events by way of the store. `secrets`, `calls`: what the host itself is given.

mod calls;
mod follow;
mod keys;
mod packages;
mod plugins;
mod records;
mod relay;
mod secrets;
mod sync;
mod tenants;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, RwLock},
};

use dashmap::DashMap;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use toolbay_api::{ErrorKind, LoadError, PluginName, Scope, TenantId, ToolError};
use uuid::Uuid;

pub use calls::StoreAudit;
pub use follow::Following;
pub use keys::{KeyWanted, NewKey, Principal};
pub use packages::{Install, Upload, Uploaded};
pub use plugins::redacted_config;
pub use records::AuditVerdict;
pub use relay::StoreRelay;
pub use secrets::StoredSecrets;
pub use sync::ControlStatus;

use crate::{
    clock,
    store::{AuditEntry, Change, Expected, KeyRow, Once, Registration, Revision, Role, Step, Store, TenantRow},
    toolbay::Toolbay,
};
use sync::Taking;

/// How long the answer to a request with a name of its own is kept.
const ANSWERS_KEPT_MS: i64 = 24 * 60 * 60 * 1_000;

/// Changes a host by its store. Cheap to clone.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    bay: Toolbay,
    store: Arc<dyn Store>,
    options: ControlOptions,
    taking: Taking,
    /// What was taken over, for those who look.
    seen: Seen,
}

/// What the store had when it was read last.
#[derive(Default)]
struct Seen {
    tenants: DashMap<TenantId, TenantRow>,
    /// By their prefixes.
    keys: DashMap<String, KeyRow>,
    rows: DashMap<Scope, BTreeMap<PluginName, Registration>>,
    status: RwLock<ControlStatus>,
}

/// What a host decides about its control.
#[derive(Debug, Clone)]
pub struct ControlOptions {
    /// How often the store is asked whether something changed, beside what it says of itself, in milliseconds.
    pub poll_ms: u64,
    /// Uploaded versions that one plugin may have in one scope.
    pub max_versions: usize,
    /// Plugins that one tenant may have uploaded.
    pub max_plugins: usize,
    /// Bytes of one uploaded package.
    pub max_package_bytes: usize,
    /// Whether tenants may upload plugins of their own.
    pub tenants_upload: bool,
    /// Whether plugins and what is decided about them are left out when the store is taken over: for whoever looks after
    /// tenants and keys and serves nobody.
    pub without_plugins: bool,
    /// The references to secrets that the host's keeper goes by, where it does.
    pub secrets: Option<StoredSecrets>,
}

impl Default for ControlOptions {
    fn default() -> Self {
        Self {
            poll_ms: 500,
            max_versions: 50,
            max_plugins: 100,
            max_package_bytes: 4 << 20,
            tenants_upload: true,
            without_plugins: false,
            secrets: None,
        }
    }
}

/// Who asks for a change, and by what name of its own the request goes.
#[derive(Debug, Clone)]
pub struct Actor {
    /// As the audit calls them: `key:PREFIX`, `cli`.
    pub name: String,
    /// What they may do.
    pub role: Role,
    /// For whom, where the role is that of a tenant.
    pub tenant: Option<TenantId>,
    /// The request's own name, where it has one: the change is made once, and its answer given again.
    pub once: Option<OnceKey>,
}

/// A request's own name.
#[derive(Debug, Clone)]
pub struct OnceKey {
    /// The number of the key with which it came.
    pub owner: Uuid,
    /// What its sender calls it.
    pub key: String,
    /// A digest of it.
    pub request: [u8; 32],
}

/// What somebody wants to do, as far as roles are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// To look at what is of the scope, or to decide about its plugins.
    Scope,
    /// What is of all tenants.
    Operator,
    /// What is of the whole host.
    Admin,
}

impl Actor {
    /// The host itself, from its command line: an admin.
    #[must_use]
    pub fn host(name: impl Into<String>) -> Self {
        Self { name: name.into(), role: Role::Admin, tenant: None, once: None }
    }

    /// Whether they may: a tenant within its own scope, an operator within every tenant's, an admin everywhere.
    fn may(&self, scope: &Scope, need: Need) -> bool {
        let lowest = match (need, scope) {
            (Need::Scope, Scope::Tenant(tenant)) if self.tenant.as_ref() == Some(tenant) => Role::Tenant,
            (Need::Scope, Scope::Tenant(_)) | (Need::Operator, _) => Role::Operator,
            (Need::Scope, Scope::Global) | (Need::Admin, _) => Role::Admin,
        };
        self.role >= lowest
    }
}

impl Control {
    /// Opens the control of `bay` over `store`, and takes over what is there. What of it does not load is in
    /// [`status`](Self::status).
    ///
    /// # Errors
    /// `Unavailable` where the store cannot be read.
    pub async fn open(bay: Toolbay, store: Arc<dyn Store>, options: ControlOptions) -> Result<Self, ToolError> {
        let control = Self(Arc::new(Inner { bay, store, options, taking: Taking::default(), seen: Seen::default() }));
        control.sync().await?;
        Ok(control)
    }

    /// The host.
    #[must_use]
    pub fn toolbay(&self) -> &Toolbay {
        &self.0.bay
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.0.store
    }

    /// Whether there is a tenant of this name, as it was read from the store last.
    #[must_use]
    pub fn has_tenant(&self, name: &TenantId) -> bool {
        self.0.seen.tenants.contains_key(name)
    }

    /// Whether there is a tenant of this name and it is not suspended, as it was read from the store last. For hosts that
    /// know callers by other means than keys.
    #[must_use]
    pub fn is_active(&self, name: &TenantId) -> bool {
        self.0.seen.tenants.get(name).is_some_and(|tenant| !tenant.suspended)
    }

    /// What it was opened with.
    #[must_use]
    pub fn options(&self) -> &ControlOptions {
        &self.0.options
    }

    /// `Ok` where `by` may do what is needed in `scope`.
    ///
    /// # Errors
    /// `NotFound` where it is another tenant's, which is not told apart from one that is not there; `PermissionDenied`
    /// else. The latter is in the audit.
    async fn allow(&self, by: &Actor, scope: &Scope, need: Need, action: &str) -> Result<(), ToolError> {
        let may = by.may(scope, need);
        match scope {
            Scope::Tenant(tenant) if by.role == Role::Tenant && by.tenant.as_ref() != Some(tenant) => {
                Err(no_tenant(tenant))
            }
            Scope::Tenant(tenant) if may && need == Need::Scope && !self.0.seen.tenants.contains_key(tenant) => {
                Err(no_tenant(tenant))
            }
            _ if may => Ok(()),
            _ => {
                let kind = ErrorKind::PermissionDenied;
                let mut entry = self.entry(by, scope, action, "", Value::Null)?;
                kind.name().clone_into(&mut entry.outcome);
                // Where the store is away the refusal stands all the same.
                let _ = self.0.store.record(vec![entry]).await;
                let message = format!("a key of the role {} may not do this", by.role.name());
                Err(ToolError::new(kind, message))
            }
        }
    }

    /// Begins a change: who may, and what the same request was answered, where it came before.
    ///
    /// # Errors
    /// As [`allow`](Self::allow) and [`answered`](Self::answered).
    async fn enter<T: DeserializeOwned>(
        &self,
        by: &Actor,
        scope: &Scope,
        need: Need,
        action: &str,
    ) -> Result<Option<T>, ToolError> {
        self.allow(by, scope, need, action).await?;
        self.answered(by).await
    }

    /// What the same request was answered, where it came before.
    ///
    /// # Errors
    /// `InvalidArguments` where another request came by that name; `Conflict` where the answer cannot be given twice.
    async fn answered<T: DeserializeOwned>(&self, by: &Actor) -> Result<Option<T>, ToolError> {
        let Some(once) = &by.once else { return Ok(None) };
        let Some((request, answer)) = self.0.store.answered(once.owner, &once.key, self.now_ms()?).await? else {
            return Ok(None);
        };
        if request != once.request {
            let message = "the idempotency key was used for another request: take a new one for each";
            return Err(ToolError::new(ErrorKind::InvalidArguments, message));
        }
        let again = |_| {
            let message = "this was done already by a request with the same idempotency key; its answer held a secret and was \
                           given once";
            ToolError::new(ErrorKind::Conflict, message)
        };
        serde_json::from_value(answer).map(Some).map_err(again)
    }

    /// Writes a change, and takes it over. `answer` is what the same request is answered from now on.
    ///
    /// # Errors
    /// As [`Store::commit`].
    async fn commit(
        &self,
        by: &Actor,
        steps: Vec<Step>,
        audit: AuditEntry,
        answer: &(impl Serialize + Sync),
    ) -> Result<(), ToolError> {
        let at_ms = self.now_ms()?;
        let once = by.once.as_ref().map(|once| {
            let answer = serde_json::to_value(answer).map_err(|error| broken("the answer", &error))?;
            let OnceKey { owner, key, request } = once.clone();
            Ok::<_, ToolError>(Once { owner, key, request, answer, expires_ms: at_ms.saturating_add(ANSWERS_KEPT_MS) })
        });
        let once = once.transpose()?;
        tracing::info!(
            target: "toolbay::audit", actor = audit.actor, action = audit.action, target = audit.target, scope = %audit.scope,
            "change"
        );
        let scope = steps.iter().find_map(Step::scope).unwrap_or_else(|| audit.scope.clone());
        self.0.store.commit(Change { at_ms, steps, audit: vec![audit], once }).await?;
        // It is written: where the store is away by now, it is taken over when the store is back.
        if let Err(error) = self.sync_for(&scope).await {
            tracing::warn!(target: "toolbay::control", %error, "a change is written and not taken over yet");
        }
        Ok(())
    }

    fn entry(
        &self,
        by: &Actor,
        scope: &Scope,
        action: &str,
        target: &str,
        detail: Value,
    ) -> Result<AuditEntry, ToolError> {
        Ok(AuditEntry {
            scope: scope.clone(),
            at_ms: self.now_ms()?,
            actor: by.name.clone(),
            action: action.to_owned(),
            target: target.to_owned(),
            outcome: "ok".to_owned(),
            detail,
        })
    }

    fn now_ms(&self) -> Result<i64, ToolError> {
        clock::now_ms(&*self.0.bay.ports().clock)
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

/// What a row must be for a change that was asked for by someone who saw it as `seen`, or did not say.
///
/// # Errors
/// `Conflict` where it was changed since.
fn expected(now: Option<Revision>, seen: Option<Revision>) -> Result<Expected, ToolError> {
    match (now, seen) {
        (now, Some(seen)) if now != Some(seen) => {
            let now = now.map_or_else(|| "is not there".to_owned(), |now| format!("has the revision {now}"));
            let message = format!("it was changed by somebody else: it {now}, and you saw {seen}; look again");
            Err(ToolError::new(ErrorKind::Conflict, message))
        }
        (Some(now), _) => Ok(Expected::Revision(now)),
        (None, _) => Ok(Expected::Absent),
    }
}

fn no_tenant(tenant: &TenantId) -> ToolError {
    ToolError::new(ErrorKind::NotFound, format!("there is no tenant called {tenant}"))
}

fn broken(what: &str, error: &serde_json::Error) -> ToolError {
    ToolError::new(ErrorKind::Internal, format!("{what} cannot be written")).with_source(error.to_string())
}

/// What keeps a plugin from loading, for whoever uploaded it: file, line and text are theirs.
fn told(error: LoadError) -> ToolError {
    let mut details = serde_json::Map::new();
    details.extend(error.file.clone().map(|file| ("file".to_owned(), file.into())));
    if let Some((line, column)) = error.position {
        details.insert("line".to_owned(), line.into());
        details.insert("column".to_owned(), column.into());
    }
    details.extend(error.excerpt.clone().map(|excerpt| ("excerpt".to_owned(), excerpt.into())));
    let told = ToolError::new(error.kind, error.message);
    if details.is_empty() { told } else { told.with_details(Value::Object(details)) }
}
