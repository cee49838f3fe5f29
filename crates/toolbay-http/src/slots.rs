//! Requests in flight, counted for the process and for each tenant. A request over either count is refused at once
//! rather than queued, since a queue would hold the bodies of requests that nobody bounded.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::json;
use toolbay_api::{ErrorKind, TenantId, ToolError};

use crate::limits::HttpLimits;

/// The places for requests in flight.
#[derive(Debug)]
pub(crate) struct Slots {
    max: usize,
    max_per_tenant: usize,
    // std's Mutex, not tokio's: nothing is awaited while it is held.
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Only tenants with a request in flight, so it never has more entries than `all`.
    by_tenant: HashMap<TenantId, usize>,
}

/// One place, given back on drop.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    tenant: TenantId,
}

impl Slots {
    pub(crate) fn new(limits: &HttpLimits) -> Arc<Self> {
        Arc::new(Self {
            max: limits.max_in_flight,
            max_per_tenant: limits.max_in_flight_per_tenant,
            taken: Mutex::default(),
        })
    }

    /// Takes a place for `tenant`.
    ///
    /// # Errors
    /// `RateLimited` where the tenant has as many as it may, `Unavailable` where the process has; both pass.
    pub(crate) fn take(self: &Arc<Self>, tenant: &TenantId) -> Result<Slot, ToolError> {
        let mut taken = self.lock();
        let of_tenant = taken.by_tenant.get(tenant).copied().unwrap_or_default();
        if of_tenant >= self.max_per_tenant {
            return Err(full(ErrorKind::RateLimited, "requests at once of one tenant", self.max_per_tenant));
        }
        if taken.all >= self.max {
            return Err(full(ErrorKind::Unavailable, "requests at once of all tenants", self.max));
        }
        taken.all += 1;
        taken.by_tenant.insert(tenant.clone(), of_tenant + 1);
        Ok(Slot { slots: Arc::clone(self), tenant: tenant.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // The counts are changed in single steps that cannot panic, so they are right even where another thread did.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.lock();
        taken.all = taken.all.saturating_sub(1);
        if let Some(of_tenant) = taken.by_tenant.get_mut(&self.tenant) {
            *of_tenant = of_tenant.saturating_sub(1);
            if *of_tenant == 0 {
                taken.by_tenant.remove(&self.tenant);
            }
        }
    }
}

fn full(kind: ErrorKind, what: &str, allowed: usize) -> ToolError {
    ToolError::new(kind, format!("there are already {allowed} {what}, which is the limit; try again in a moment"))
        .with_details(json!({ "limit": "http_in_flight", "allowed": allowed }))
}
