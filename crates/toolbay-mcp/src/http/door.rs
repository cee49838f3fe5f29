//! Who comes in, and as whom: the only place where a request gets its tenant.

use std::sync::Arc;

use axum::http::HeaderMap;
use toolbay_api::TenantId;
use toolbay_runtime::Session;

use crate::auth::{Authenticate, Bearer, Principal, ProtectedResource, Refused};

/// A tenant's session by the name in an address.
pub(super) type ByName = dyn Fn(&str) -> Option<Session> + Send + Sync;
/// A principal's session.
pub(super) type ByPrincipal = dyn Fn(&Principal) -> Option<Session> + Send + Sync;

/// How the server knows whom it has before it.
pub(super) enum Door {
    /// By the address alone; for programs of this machine, whose user may do as he likes.
    Open { chosen: Session, tenants: Box<ByName> },
    /// By the credential alone.
    Keyed { authenticate: Arc<dyn Authenticate>, sessions: Box<ByPrincipal> },
}

/// Why there is no visitor.
pub(super) enum Shut {
    /// There is nothing at such an address.
    NotFound,
    Refused(Refused),
}

/// What tells one visitor from another: sessions are bound to it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Badge {
    /// Whoever comes by a tenant's address, or by the one without a name.
    Address { tenant: TenantId, by_name: bool },
    /// Whoever has such a credential. Rights count: a session that was begun with more of them is no use with less.
    Principal(Principal),
}

/// Somebody who was let in, for the time of one request.
#[derive(Clone)]
pub(super) struct Visitor {
    pub(super) session: Session,
    pub(super) badge: Badge,
}

tokio::task_local! {
    static VISITOR: Visitor;
}

/// Handles a request on behalf of `visitor`: `rmcp` makes the handler and the session without a way to hand it through.
pub(super) async fn on_behalf_of<T>(visitor: Visitor, handle: impl Future<Output = T>) -> T {
    VISITOR.scope(visitor, handle).await
}

/// Looks at the visitor of the request that is being handled. `None` outside of requests.
pub(super) fn visitor<T>(look: impl FnOnce(&Visitor) -> T) -> Option<T> {
    VISITOR.try_with(look).ok()
}

impl Badge {
    pub(super) fn tenant(&self) -> &TenantId {
        match self {
            Self::Address { tenant, .. } => tenant,
            Self::Principal(principal) => &principal.tenant,
        }
    }
}

impl Door {
    /// Whether everybody has to show who he is.
    pub(super) fn is_keyed(&self) -> bool {
        matches!(self, Self::Keyed { .. })
    }

    /// Who is there, by the name in the address and by the credential.
    pub(super) async fn visitor(&self, name: Option<&str>, headers: &HeaderMap) -> Result<Visitor, Shut> {
        match self {
            Self::Open { chosen, tenants } => {
                let session = match name {
                    None => Some(chosen.clone()),
                    Some(name) => tenants(name),
                };
                let session = session.ok_or(Shut::NotFound)?;
                let badge = Badge::Address { tenant: session.tenant().clone(), by_name: name.is_some() };
                Ok(Visitor { session, badge })
            }
            // With keys the address names nobody: the same one serves all.
            Self::Keyed { .. } if name.is_some() => Err(Shut::NotFound),
            Self::Keyed { authenticate, sessions } => {
                let credential = Bearer::of(headers).map_err(Shut::Refused)?;
                let credential = credential.ok_or(Shut::Refused(Refused::Missing))?;
                let principal = authenticate.authenticate(&credential).await.map_err(Shut::Refused)?;
                let session = sessions(&principal)
                    .filter(|session| *session.tenant() == principal.tenant)
                    .ok_or(Shut::Refused(Refused::Insufficient { scopes: Vec::new() }))?;
                let session = match &principal.user {
                    Some(user) => session.with_user(user),
                    None => session,
                };
                let session = session.with_rights(principal.rights.clone());
                Ok(Visitor { session, badge: Badge::Principal(principal) })
            }
        }
    }

    /// What OAuth clients have to know.
    pub(super) fn protected_resource(&self) -> Option<ProtectedResource> {
        match self {
            Self::Open { .. } => None,
            Self::Keyed { authenticate, .. } => authenticate.protected_resource(),
        }
    }
}
