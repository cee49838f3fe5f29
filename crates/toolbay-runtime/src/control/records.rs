//! What is kept of what was done: the audit and the runs.

use serde::Serialize;
use toolbay_api::{ErrorKind, Scope, TenantId, ToolError};
use uuid::Uuid;

use super::{Actor, Control, Need};
use crate::store::{AuditLine, AuditQuery, Listed, Page, RunRow};

/// Lines that are read at a time.
const PAGE: u32 = 1_000;

/// What came of reading a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditVerdict {
    /// Lines that were read and follow on each other.
    pub lines: i64,
    /// The first line that does not follow on the one before it: this one, or the one before, was changed, added or taken
    /// out. `None`: the chain is whole.
    pub broken_at: Option<i64>,
}

impl Control {
    /// Lines of a scope's audit.
    ///
    /// # Errors
    /// `NotFound` where the scope is another tenant's; `PermissionDenied`.
    pub async fn audit(&self, by: &Actor, scope: &Scope, query: &AuditQuery) -> Result<Listed<AuditLine>, ToolError> {
        self.allow_audit(by, scope).await?;
        self.0.store.audit(scope, query).await
    }

    /// Reads a scope's whole audit and says where its chain is broken, if it is. Lines that were cut off at the end are
    /// found by comparing [`AuditVerdict::lines`] with what was there before.
    ///
    /// # Errors
    /// As [`audit`](Self::audit).
    pub async fn verify_audit(&self, by: &Actor, scope: &Scope) -> Result<AuditVerdict, ToolError> {
        self.allow_audit(by, scope).await?;
        let (mut lines, mut previous, mut after) = (0, [0; 32], None);
        loop {
            let page = Page { after, limit: PAGE };
            let query = AuditQuery { action: None, since_ms: None, newest_first: false, page };
            let Listed { items, next } = self.0.store.audit(scope, &query).await?;
            for line in items {
                if line.entry.scope != *scope || !line.follows(lines + 1, &previous) {
                    return Ok(AuditVerdict { lines, broken_at: Some(line.sequence) });
                }
                (lines, previous) = (line.sequence, line.hash);
            }
            match next {
                Some(next) => after = Some(next),
                None => return Ok(AuditVerdict { lines, broken_at: None }),
            }
        }
    }

    /// The audit of a tenant that was removed stays, for operators.
    async fn allow_audit(&self, by: &Actor, scope: &Scope) -> Result<(), ToolError> {
        let need = match scope {
            Scope::Tenant(tenant) if by.tenant.as_ref() != Some(tenant) => Need::Operator,
            _ => Need::Scope,
        };
        self.allow(by, scope, need, "audit.read").await
    }

    /// A tenant's run.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn run(&self, by: &Actor, tenant: &TenantId, id: Uuid) -> Result<RunRow, ToolError> {
        self.allow(by, &Scope::Tenant(tenant.clone()), Need::Scope, "run.get").await?;
        let run = self.0.store.run(tenant, id).await?;
        run.ok_or_else(|| ToolError::new(ErrorKind::NotFound, "there is no such run"))
    }

    /// A tenant's runs, newest first.
    ///
    /// # Errors
    /// `NotFound` where it is another tenant.
    pub async fn runs(&self, by: &Actor, tenant: &TenantId, page: Page) -> Result<Listed<RunRow>, ToolError> {
        self.allow(by, &Scope::Tenant(tenant.clone()), Need::Scope, "run.list").await?;
        self.0.store.runs(tenant, page).await
    }
}
