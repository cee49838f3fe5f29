//! The outcome ledger of one process, in memory: for runs that are suspended and taken up again in it, and as the model of
//! what a store does.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use toolbay_api::{Limit, RunId, TenantId, ToolError, async_trait};

use super::{Begun, CallKey, KnownCall, LedgerCall, Outcome, OutcomeLedger};

/// Keeps outcomes until the process ends.
#[derive(Debug)]
pub struct MemoryOutcomes {
    max_calls: usize,
    // std's Mutex, not tokio's: nothing is awaited while it is held.
    tenants: Mutex<BTreeMap<TenantId, BTreeMap<CallKey, Row>>>,
}

#[derive(Debug)]
struct Row {
    run: RunId,
    expires_ms: i64,
    known: KnownCall,
}

impl MemoryOutcomes {
    /// A ledger that keeps `max_calls` of each tenant.
    #[must_use]
    pub fn new(max_calls: usize) -> Arc<Self> {
        Arc::new(Self { max_calls, tenants: Mutex::default() })
    }

    /// Looks at the rows of `tenant`, without those that are over.
    fn with<T>(&self, tenant: &TenantId, now_ms: i64, look: impl FnOnce(&mut BTreeMap<CallKey, Row>) -> T) -> T {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = tenants.entry(tenant.clone()).or_default();
        rows.retain(|_, row| now_ms < row.expires_ms);
        let seen = look(rows);
        if rows.is_empty() {
            tenants.remove(tenant);
        }
        seen
    }
}

#[async_trait]
impl OutcomeLedger for MemoryOutcomes {
    async fn begin(&self, call: &LedgerCall, now_ms: i64) -> Result<Begun, ToolError> {
        self.with(&call.tenant, now_ms, |rows| {
            if let Some(row) = rows.get(&call.key) {
                return Ok(Begun::Known(row.known.clone()));
            }
            if rows.len() >= self.max_calls {
                return Err(full(self.max_calls as u64));
            }
            let known = KnownCall { attempts: 1, arguments: call.arguments, outcome: Outcome::Started };
            rows.insert(call.key, Row { run: call.run, expires_ms: call.expires_ms, known });
            Ok(Begun::First)
        })
    }

    async fn again(&self, call: &LedgerCall, attempts: u32, now_ms: i64) -> Result<bool, ToolError> {
        Ok(self.with(&call.tenant, now_ms, |rows| {
            let Some(row) = rows.get_mut(&call.key) else { return false };
            if row.known.attempts != attempts || matches!(row.known.outcome, Outcome::Committed(_)) {
                return false;
            }
            row.known.attempts = attempts.saturating_add(1);
            row.known.outcome = Outcome::Started;
            row.expires_ms = call.expires_ms;
            true
        }))
    }

    async fn settle(&self, call: &LedgerCall, attempts: u32, outcome: &Outcome, now_ms: i64) -> Result<(), ToolError> {
        self.with(&call.tenant, now_ms, |rows| {
            let row = rows.get_mut(&call.key).filter(|row| row.known.attempts == attempts);
            if let Some(row) = row.filter(|row| row.known.outcome == Outcome::Started) {
                row.known.outcome = outcome.clone();
            }
        });
        Ok(())
    }

    async fn forget(&self, tenant: &TenantId, run: RunId) -> Result<(), ToolError> {
        self.with(tenant, i64::MIN, |rows| rows.retain(|_, row| row.run != run));
        Ok(())
    }
}

/// A tenant has as many calls in a ledger as it may.
fn full(allowed: u64) -> ToolError {
    let mut error = ToolError::limit(Limit::Storage, allowed, allowed.saturating_add(1));
    error.message = format!(
        "the tenant has {allowed} calls in the ledger of outcomes, which are all that it may have: not called; tell the operator"
    )
    .into();
    error
}
