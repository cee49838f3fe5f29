//! The meter: how many calls of a tenant may run at once and how many may begin in a minute.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use dashmap::DashMap;
use serde_json::json;
use toolbay_api::{ErrorKind, Limit, TenantId, ToolError};

use crate::guarded;

/// What one tenant may use together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Calls in flight at any instant, nested ones included.
    pub max_concurrent_calls: usize,
    /// Calls that may begin in a minute, counted from the start of the host.
    pub max_calls_per_minute: u32,
}

impl Default for Quota {
    fn default() -> Self {
        Self { max_concurrent_calls: 256, max_calls_per_minute: 60_000 }
    }
}

/// Meters below which nothing is swept.
const SWEEP_AT: usize = 4_096;

/// The meters of all tenants. A tenant's is made at its first session and is 100 bytes or so; it goes when no session
/// holds it and its minute is over.
pub(crate) struct Meters {
    start: Instant,
    default: Quota,
    own: std::collections::HashMap<TenantId, Quota>,
    tenants: DashMap<TenantId, Arc<Meter>>,
    /// The number of meters at which those that nobody needs are looked for.
    sweep_at: AtomicUsize,
}

impl Meters {
    pub(crate) fn new(default: Quota, own: std::collections::HashMap<TenantId, Quota>) -> Self {
        Self { start: guarded::now(), default, own, tenants: DashMap::new(), sweep_at: AtomicUsize::new(SWEEP_AT) }
    }

    /// The meter of `tenant`.
    pub(crate) fn of(&self, tenant: &TenantId) -> Arc<Meter> {
        if let Some(meter) = self.tenants.get(tenant) {
            return Arc::clone(&meter);
        }
        if self.tenants.len() >= self.sweep_at.load(Ordering::Relaxed) {
            let minute = guarded::now().saturating_duration_since(self.start).as_secs() / 60;
            // A meter is cloned only out of the map, so one that nobody else holds stays so while the map's part is locked.
            self.tenants.retain(|_, meter| {
                Arc::strong_count(meter) > 1 || meter.window.load(Ordering::Acquire) >> 32 >= minute
            });
            self.sweep_at.store((self.tenants.len() * 2).max(SWEEP_AT), Ordering::Relaxed);
        }
        let quota = self.own.get(tenant).copied().unwrap_or(self.default);
        let meter = Meter { start: self.start, quota, in_flight: AtomicUsize::new(0), window: AtomicU64::new(0) };
        Arc::clone(&self.tenants.entry(tenant.clone()).or_insert_with(|| Arc::new(meter)))
    }
}

/// One tenant's meter.
#[derive(Debug)]
pub(crate) struct Meter {
    start: Instant,
    quota: Quota,
    in_flight: AtomicUsize,
    /// The minute since the start in the upper half, the calls begun in it in the lower: one word, so one swap.
    window: AtomicU64,
}

impl Meter {
    /// Reserves one call that begins at `now`. The permit gives its place back when it is dropped, however the call
    /// ended.
    ///
    /// # Errors
    /// `RateLimited` with the limit and the present use.
    pub(crate) fn reserve(self: &Arc<Self>, now: Instant) -> Result<Permit, ToolError> {
        let in_flight = self.in_flight.fetch_add(1, Ordering::AcqRel);
        let permit = Permit(Arc::clone(self));
        if in_flight >= self.quota.max_concurrent_calls {
            return Err(limited(Limit::Concurrency, self.quota.max_concurrent_calls as u64, in_flight as u64, 0));
        }
        let elapsed = now.saturating_duration_since(self.start).as_secs();
        let minute = elapsed / 60;
        let counted = self.window.fetch_update(Ordering::AcqRel, Ordering::Acquire, |window| {
            let begun = if window >> 32 == minute { window & u64::from(u32::MAX) } else { 0 };
            (begun < u64::from(self.quota.max_calls_per_minute)).then(|| (minute << 32) | (begun + 1))
        });
        match counted {
            Ok(_) => Ok(permit),
            Err(window) => Err(limited(
                Limit::Rate,
                u64::from(self.quota.max_calls_per_minute),
                window & u64::from(u32::MAX),
                60 - elapsed % 60,
            )),
        }
    }

    /// Calls in flight.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }
}

/// One reserved call.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Meter>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

fn limited(limit: Limit, allowed: u64, used: u64, retry_after_s: u64) -> ToolError {
    ToolError::new(
        ErrorKind::RateLimited,
        format!(
            "the tenant is at its limit of {allowed} {limit} (now {used}); try again in {} s",
            retry_after_s.max(1)
        ),
    )
    .with_details(json!({ "limit": limit, "allowed": allowed, "used": used, "retry_after_s": retry_after_s.max(1) }))
}
