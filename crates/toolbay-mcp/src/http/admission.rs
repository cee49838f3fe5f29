//! How much one tenant may have of the server at a time: requests in flight and requests a minute. Calls are metered again
//! by the runtime; this bounds what costs before a call begins, and the streams on which clients wait.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use toolbay_api::TenantId;

/// The window in which requests are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// Tenants that are remembered before those that have nothing in flight are forgotten.
const MAX_KNOWN: usize = 4_096;

/// Counts requests for each tenant.
pub(super) struct Admission {
    max_in_flight: usize,
    per_minute: Option<u32>,
    // std's Mutex, not tokio's: nothing is awaited while it is held.
    tenants: Mutex<HashMap<TenantId, Count>>,
}

struct Count {
    in_flight: usize,
    since: Instant,
    requests: u32,
}

/// A request that was let in; it gives its place back when it is dropped.
pub(super) struct Admitted {
    admission: Arc<Admission>,
    tenant: TenantId,
}

/// Why one was not.
pub(super) struct TooMany {
    pub(super) retry_after: Duration,
}

impl Admission {
    pub(super) fn new(max_in_flight: usize, per_minute: Option<u32>) -> Arc<Self> {
        Arc::new(Self { max_in_flight, per_minute, tenants: Mutex::default() })
    }

    /// Lets one request of the tenant in.
    pub(super) fn admit(self: &Arc<Self>, tenant: &TenantId) -> Result<Admitted, TooMany> {
        let now = Instant::now();
        let mut tenants = self.tenants();
        if tenants.len() >= MAX_KNOWN && !tenants.contains_key(tenant) {
            tenants.retain(|_, count| count.in_flight > 0 || count.since + WINDOW > now);
        }
        let count = tenants.entry(tenant.clone()).or_insert(Count { in_flight: 0, since: now, requests: 0 });
        if now >= count.since + WINDOW {
            (count.since, count.requests) = (now, 0);
        }
        if self.per_minute.is_some_and(|most| count.requests >= most) {
            return Err(TooMany { retry_after: (count.since + WINDOW).saturating_duration_since(now) });
        }
        if count.in_flight >= self.max_in_flight {
            return Err(TooMany { retry_after: Duration::from_secs(1) });
        }
        count.requests = count.requests.saturating_add(1);
        count.in_flight += 1;
        Ok(Admitted { admission: Arc::clone(self), tenant: tenant.clone() })
    }

    fn tenants(&self) -> MutexGuard<'_, HashMap<TenantId, Count>> {
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        if let Some(count) = self.admission.tenants().get_mut(&self.tenant) {
            count.in_flight = count.in_flight.saturating_sub(1);
        }
    }
}
