//! Keys to the host's interfaces: how they are made, found and refused.
//!
//! A key is `tbk_`, a prefix of 12 hexadecimal digits by which it is found and called, `_`, and 256 random bits. Its SHA-256
//! is kept: nobody guesses 256 bits, so a slow hash would only cost the host.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use toolbay_api::{ErrorKind, Scope, TenantId, ToolError};
use uuid::Uuid;

use super::{Actor, Control, Need, OnceKey};
use crate::store::{KeyRow, Listed, Page, Role, Step};

const KIND: &str = "tbk_";
const PREFIX_BYTES: usize = 6;
const SECRET_BYTES: usize = 32;
/// A key is shorter. What is longer is not looked at.
const MAX_PRESENTED: usize = 128;
const MAX_LABEL: usize = 200;
/// What no key has, to be compared with where there is none: that takes as long.
const NO_HASH: [u8; 32] = [0; 32];

/// Who a presented key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The key.
    pub key: Uuid,
    /// Its part that is not secret.
    pub prefix: String,
    /// What it allows.
    pub role: Role,
    /// Its tenant, where the role is that of a tenant.
    pub tenant: Option<TenantId>,
    /// Calls a minute that it allows, where it has a rate of its own.
    pub rate: Option<u32>,
}

impl Principal {
    /// They as the actor of a change.
    #[must_use]
    pub fn actor(&self, once: Option<OnceKey>) -> Actor {
        Actor { name: format!("key:{}", self.prefix), role: self.role, tenant: self.tenant.clone(), once }
    }
}

/// What a key is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyWanted {
    /// What it allows.
    pub role: Role,
    /// For whom: said for the role tenant, and for that one only.
    pub tenant: Option<TenantId>,
    /// What it is for.
    pub label: String,
    /// From when on it is refused, in milliseconds since 1970, UTC.
    pub expires_at: Option<i64>,
    /// Calls a minute that it allows; `None`: as many as the host allows every key.
    pub rate: Option<u32>,
}

/// A key that was just made. The only time that its secret is there.
#[derive(Clone)]
pub struct NewKey {
    /// What is kept of it.
    pub row: KeyRow,
    /// The key, to be handed over.
    pub secret: String,
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewKey").field("prefix", &self.row.prefix).finish_non_exhaustive()
    }
}

impl Control {
    /// Who a presented key is; `None` where it is none, is over, is revoked, or its tenant is suspended.
    ///
    /// Goes by what the store had when it was read last, so it works while the store is away. Takes equally long for keys
    /// that are known and those that are not.
    #[must_use]
    pub fn authenticate(&self, presented: &str) -> Option<Principal> {
        let row = prefix_of(presented).and_then(|prefix| self.0.seen.keys.get(prefix).map(|row| row.clone()));
        let hash: [u8; 32] = match presented.len() {
            ..=MAX_PRESENTED => Sha256::digest(presented.as_bytes()).into(),
            _ => NO_HASH,
        };
        let kept = row.as_ref().map_or(NO_HASH, |row| row.hash);
        let is_it = bool::from(hash.ct_eq(&kept));
        let row = row.filter(|_| is_it)?;
        let now = self.now_ms().ok()?;
        let is_over = |end: Option<i64>| end.is_some_and(|end| end <= now);
        if is_over(row.expires_at) || is_over(row.revoked_at) {
            return None;
        }
        if row.tenant.as_ref().is_some_and(|tenant| !self.is_active(tenant)) {
            return None;
        }
        let KeyRow { id: key, prefix, role, tenant, rate, .. } = row;
        Some(Principal { key, prefix, role, tenant, rate })
    }

    /// Makes the first admin key, once for a store: `None` where that was done.
    ///
    /// # Errors
    /// What [`Store`](crate::store::Store) says.
    pub async fn first_key(&self) -> Result<Option<NewKey>, ToolError> {
        // Several processes may start at once: the name of the request lets one of them do it.
        let once = OnceKey { owner: Uuid::nil(), key: "first-key".to_owned(), request: [0; 32] };
        if self.0.store.answered(once.owner, &once.key, self.now_ms()?).await?.is_some() {
            return Ok(None);
        }
        let label = "made at the first start".to_owned();
        let wanted = KeyWanted { role: Role::Admin, tenant: None, label, expires_at: None, rate: None };
        let new = self.new_key(wanted)?;
        let by = Actor::host("host");
        let audit = self.entry(&by, &Scope::Global, "key.create", &new.row.prefix, json!({ "role": Role::Admin }))?;
        let once = crate::store::Once {
            owner: once.owner,
            key: once.key,
            request: once.request,
            answer: Value::Null,
            expires_ms: i64::MAX,
        };
        let steps = vec![Step::AddKey(new.row.clone())];
        let change = crate::store::Change { at_ms: self.now_ms()?, steps, audit: vec![audit], once: Some(once) };
        match self.0.store.commit(change).await {
            Ok(_) => {}
            Err(error) if error.kind == ErrorKind::Conflict => return Ok(None),
            Err(error) => return Err(error),
        }
        self.sync().await?;
        Ok(Some(new))
    }

    /// Makes a key. Operators make those of tenants, admins all.
    ///
    /// # Errors
    /// `InvalidArguments` where a tenant is said for another role, or none for this one, or the label is too long;
    /// `NotFound` where there is no such tenant.
    pub async fn create_key(&self, by: &Actor, wanted: KeyWanted) -> Result<NewKey, ToolError> {
        let need = if wanted.role == Role::Tenant { Need::Operator } else { Need::Admin };
        self.allow(by, &Scope::Global, need, "key.create").await?;
        self.answered::<Uuid>(by).await?.map_or(Ok(()), |_| Err(shown_once()))?;
        let fits = match (wanted.role, &wanted.tenant) {
            (Role::Tenant, Some(tenant)) => {
                self.0.store.tenant(tenant).await?.map(|_| ()).ok_or_else(|| super::no_tenant(tenant))
            }
            (Role::Tenant, None) => Err(bad("a key of the role tenant is of one tenant: say which")),
            (_, Some(_)) => {
                Err(bad("a key of this role is of no tenant: leave the tenant out, or take the role tenant"))
            }
            (_, None) => Ok(()),
        };
        fits?;
        if wanted.label.chars().count() > MAX_LABEL || wanted.label.chars().any(char::is_control) {
            return Err(bad("a label has at most 200 characters, on one line"));
        }
        if wanted.rate == Some(0) {
            return Err(bad("a rate is 1 or more"));
        }
        let new = self.new_key(wanted)?;
        let detail = json!({ "role": new.row.role, "tenant": new.row.tenant, "label": new.row.label });
        let audit = self.entry(by, &scope_of(&new.row), "key.create", &new.row.prefix, detail)?;
        self.commit(by, vec![Step::AddKey(new.row.clone())], audit, &new.row.id).await?;
        Ok(new)
    }

    /// Makes a key like `id`, which goes on beside it for `grace_ms`.
    ///
    /// # Errors
    /// As [`create_key`](Self::create_key); `NotFound` where there is no such key.
    pub async fn rotate_key(&self, by: &Actor, id: Uuid, grace_ms: i64) -> Result<NewKey, ToolError> {
        let old = self.key_for(by, id, "key.rotate").await?;
        self.answered::<Uuid>(by).await?.map_or(Ok(()), |_| Err(shown_once()))?;
        let now = self.now_ms()?;
        let ends = now.saturating_add(grace_ms.max(0));
        let ends = old.expires_at.map_or(ends, |before| before.min(ends));
        let KeyRow { role, tenant, label, rate, expires_at, .. } = old.clone();
        let new = self.new_key(KeyWanted { role, tenant, label, expires_at, rate })?;
        let steps = vec![Step::AddKey(new.row.clone()), Step::ExpireKey { id, expires_at: ends }];
        let detail = json!({ "old": old.prefix, "old_expires_at": ends });
        let audit = self.entry(by, &scope_of(&old), "key.rotate", &new.row.prefix, detail)?;
        self.commit(by, steps, audit, &new.row.id).await?;
        Ok(new)
    }

    /// Revokes a key: it is refused from now on, by every process as soon as that has taken it over. Nothing happens where it
    /// was revoked.
    ///
    /// # Errors
    /// `NotFound` where there is no such key; `PermissionDenied` where the role does not reach to it.
    pub async fn revoke_key(&self, by: &Actor, id: Uuid) -> Result<(), ToolError> {
        let row = self.key_for(by, id, "key.revoke").await?;
        if self.answered::<()>(by).await?.is_some() || row.revoked_at.is_some() {
            return Ok(());
        }
        let audit = self.entry(by, &scope_of(&row), "key.revoke", &row.prefix, Value::Null)?;
        self.commit(by, vec![Step::RevokeKey { id, tenant: None }], audit, &()).await
    }

    /// Keys, newest first: of one tenant, or all of them. Operators see those of tenants by tenant, admins all.
    ///
    /// # Errors
    /// `PermissionDenied`; what [`Store`](crate::store::Store) says.
    pub async fn keys(&self, by: &Actor, tenant: Option<&TenantId>, page: Page) -> Result<Listed<KeyRow>, ToolError> {
        let need = if tenant.is_some() { Need::Operator } else { Need::Admin };
        self.allow(by, &Scope::Global, need, "key.list").await?;
        self.0.store.keys(tenant, page).await
    }

    async fn key_for(&self, by: &Actor, id: Uuid, action: &str) -> Result<KeyRow, ToolError> {
        self.allow(by, &Scope::Global, Need::Operator, action).await?;
        let row = self.0.seen.keys.iter().find(|row| row.id == id).map(|row| row.clone());
        let row = row.ok_or_else(|| ToolError::new(ErrorKind::NotFound, "there is no such key"))?;
        if row.role != Role::Tenant {
            self.allow(by, &Scope::Global, Need::Admin, action).await?;
        }
        Ok(row)
    }

    fn new_key(&self, wanted: KeyWanted) -> Result<NewKey, ToolError> {
        let prefix: String = random::<PREFIX_BYTES>()?.iter().map(|byte| format!("{byte:02x}")).collect();
        let secret = format!("{KIND}{prefix}_{}", URL_SAFE_NO_PAD.encode(random::<SECRET_BYTES>()?));
        let KeyWanted { role, tenant, label, expires_at, rate } = wanted;
        let row = KeyRow {
            id: Uuid::now_v7(),
            prefix,
            hash: Sha256::digest(secret.as_bytes()).into(),
            role,
            tenant,
            label,
            rate,
            created_at: self.now_ms()?,
            expires_at,
            revoked_at: None,
        };
        Ok(NewKey { row, secret })
    }
}

/// By what a key would be found, if it is one.
fn prefix_of(presented: &str) -> Option<&str> {
    let (prefix, _) = presented.strip_prefix(KIND)?.split_once('_')?;
    (prefix.len() == PREFIX_BYTES * 2).then_some(prefix)
}

fn scope_of(row: &KeyRow) -> Scope {
    row.tenant.clone().map_or(Scope::Global, Scope::Tenant)
}

fn random<const N: usize>() -> Result<[u8; N], ToolError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        ToolError::new(ErrorKind::Internal, "the system gives no random numbers").with_source(error.to_string())
    })?;
    Ok(bytes)
}

fn bad(message: &'static str) -> ToolError {
    ToolError::new(ErrorKind::InvalidArguments, message)
}

fn shown_once() -> ToolError {
    let message = "this key was made already by a request with the same idempotency key, and its secret was shown once: \
                   revoke it and make another";
    ToolError::new(ErrorKind::Conflict, message)
}
