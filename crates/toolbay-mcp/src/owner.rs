//! Whom something belongs to that outlives a request: a task, or a result that is kept.

use std::sync::Arc;

use toolbay_api::{PermissionSet, TenantId};
use toolbay_runtime::Session;

/// A tenant's user with his rights, as a credential had them. To any other, what it owns is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) tenant: TenantId,
    user: Option<Arc<str>>,
    rights: PermissionSet,
}

impl Owner {
    pub(crate) fn of(session: &Session) -> Self {
        Self { tenant: session.tenant().clone(), user: session.user().map(Arc::from), rights: session.rights().clone() }
    }
}
