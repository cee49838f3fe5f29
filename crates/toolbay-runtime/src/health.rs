//! Health: what a plugin's calls tell of it, and the breaker that spares everybody the calls of one that is down.
//!
//! The breaker has a circuit for each tenant: a tenant can make a plugin fail by what it asks of it, and other tenants'
//! calls must not suffer for that. Only the plugin's own word, its health check, closes it for everybody.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use semver::Version;
use serde_json::json;
use tokio::time::Instant;
use toolbay_api::{CodeState, ErrorKind, PluginName, Scope, TenantId, ToolError};

use crate::lifecycle::PluginState;

/// Tenants of one plugin whose failures are followed at once. Where all of these failed within the time that a circuit
/// stays open, those beyond are called as if there were no breaker.
const MAX_CIRCUITS: usize = 1_024;
/// Buckets of the histogram of durations: each is twice as long as the one before, from one microsecond on.
const BUCKETS: usize = 40;

/// When a plugin is not called any more since it fails, and when it is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Breaker {
    /// So many calls in a row that failed by no fault of their caller open a tenant's circuit. 0: never.
    pub failures: u32,
    /// How long it stays open before one call is let through to try.
    pub open_for: Duration,
    /// So many health checks in a row that failed keep the plugin from everybody until one succeeds. 0: never.
    pub failed_checks: u32,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { failures: 20, open_for: Duration::from_secs(30), failed_checks: 3 }
    }
}

/// How a plugin fares, by its calls.
#[derive(Debug, Clone)]
pub struct PluginHealth {
    /// Its name.
    pub name: PluginName,
    /// Its version.
    pub version: Version,
    /// Where it is registered.
    pub scope: Scope,
    /// Where in its life it is.
    pub state: PluginState,
    /// How often it was replaced in its place, and one.
    pub generation: u64,
    /// How long it has been in that state.
    pub uptime: Duration,
    /// Its calls in flight.
    pub calls_in_flight: usize,
    /// Calls of its tools that ran and ended, failed ones too.
    pub calls: u64,
    /// The failed ones by the name of the error's kind.
    pub errors: BTreeMap<&'static str, u64>,
    /// The last of its calls that failed in a row, whoever made them.
    pub consecutive_failures: u32,
    /// The last error of a call, as its caller was told.
    pub last_error: Option<ToolError>,
    /// How long its calls took, hooks included.
    pub latency: Latency,
    /// The tenants for which it is not called for now.
    pub open_circuits: Vec<OpenCircuit>,
    /// What its last health check said, and when. `None` before the first.
    pub last_check: Option<(SystemTime, Result<(), ToolError>)>,
    /// Whether it is kept from everybody since its health checks fail.
    pub is_down: bool,
    /// Whether its code is there.
    pub code: CodeState,
}

impl PluginHealth {
    /// Whether it is called without restriction, its last check, if there was one, succeeded, and its code compiled where it
    /// was needed.
    #[must_use]
    pub fn is_well(&self) -> bool {
        let checked = self.last_check.as_ref().is_none_or(|(_, outcome)| outcome.is_ok());
        let compiles = !matches!(self.code, CodeState::Failed(_));
        matches!(self.state, PluginState::Active)
            && checked
            && compiles
            && !self.is_down
            && self.open_circuits.is_empty()
    }
}

/// A tenant for which a plugin is not called for now.
#[derive(Debug, Clone)]
pub struct OpenCircuit {
    /// The tenant.
    pub tenant: TenantId,
    /// For how long yet; zero where a call is let through to try.
    pub left: Duration,
    /// The last failure, as its caller was told.
    pub cause: String,
}

/// How long calls took: figures of a histogram whose buckets double, so that each is at most twice the true value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latency {
    /// Half of the calls took no longer.
    pub p50: Duration,
    /// 99 of 100 calls took no longer.
    pub p99: Duration,
}

/// What one registered plugin's calls and checks tell of it.
pub(crate) struct Vitals {
    rule: Breaker,
    durations: [AtomicU64; BUCKETS],
    in_a_row: AtomicU32,
    // std's Mutexes: held for a look or a change only, and by calls only where something failed.
    failed: Mutex<Failed>,
    circuits: Mutex<HashMap<TenantId, Circuit>>,
    /// The number of circuits, so that a call pays for no lock while all is well.
    followed: AtomicUsize,
    is_down: AtomicBool,
    check: Mutex<Check>,
}

#[derive(Default)]
struct Failed {
    by_kind: BTreeMap<&'static str, u64>,
    last: Option<ToolError>,
}

#[derive(Default)]
struct Check {
    last: Option<(SystemTime, Result<(), ToolError>)>,
    failed_in_a_row: u32,
}

/// One tenant's failures in a row, and what follows from them.
#[derive(Default)]
struct Circuit {
    failures: u32,
    open_until: Option<Instant>,
    /// Until when it is kept where there are too many.
    counts_until: Option<Instant>,
    is_tried: bool,
    cause: String,
}

/// What a health check changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The plugin is kept from everybody from now on.
    Down,
    /// It is called again.
    Up,
}

impl Vitals {
    pub(crate) fn new(rule: Breaker) -> Self {
        Self {
            rule,
            durations: [const { AtomicU64::new(0) }; BUCKETS],
            in_a_row: AtomicU32::new(0),
            failed: Mutex::default(),
            circuits: Mutex::default(),
            followed: AtomicUsize::new(0),
            is_down: AtomicBool::new(false),
            check: Mutex::default(),
        }
    }

    /// `Ok` where the plugin may be called for `tenant` now. The trial, where there is one, is the call that tells whether
    /// the plugin is back; if it is dropped untold, the next call is the trial.
    ///
    /// # Errors
    /// `Unavailable`, with the cause and when to come back.
    pub(crate) fn admit(self: &Arc<Self>, plugin: &PluginName, tenant: &TenantId) -> Result<Option<Trial>, ToolError> {
        if self.is_down.load(Ordering::Acquire) {
            let message = format!("the plugin {plugin} is down by its own word; try again later");
            return Err(ToolError::new(ErrorKind::Unavailable, message).with_details(json!({ "breaker": "down" })));
        }
        if self.followed.load(Ordering::Acquire) == 0 {
            return Ok(None);
        }
        let mut circuits = self.circuits.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(circuit) = circuits.get_mut(tenant) else { return Ok(None) };
        let Some(until) = circuit.open_until else { return Ok(None) };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() && !circuit.is_tried {
            circuit.is_tried = true;
            return Ok(Some(Trial { vitals: Arc::clone(self), tenant: tenant.clone() }));
        }
        let seconds = left.as_secs() + 1;
        let message = format!(
            "the plugin {plugin} failed {} times in a row (last: {}) and is not called for now; try again in {seconds} s",
            circuit.failures, circuit.cause
        );
        Err(ToolError::new(ErrorKind::Unavailable, message)
            .with_details(json!({ "breaker": "open", "retry_after_s": seconds })))
    }

    /// Notes how a call ended. Gives whether the tenant's circuit opened by it.
    pub(crate) fn note(&self, tenant: &TenantId, took: Duration, error: Option<&ToolError>) -> bool {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - micros.leading_zeros()) as usize;
        if let Some(count) = self.durations.get(bucket.min(BUCKETS - 1)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let Some(error) = error else {
            if self.in_a_row.load(Ordering::Relaxed) > 0 {
                self.in_a_row.store(0, Ordering::Relaxed);
            }
            self.close(tenant);
            return false;
        };
        {
            let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
            *failed.by_kind.entry(error.kind.name()).or_default() += 1;
            failed.last = Some(error.clone());
        }
        if !is_the_plugins(error.kind) {
            // It answered, and that is what a circuit is about.
            self.close(tenant);
            return false;
        }
        self.in_a_row.fetch_add(1, Ordering::Relaxed);
        self.follow(tenant, error)
    }

    fn follow(&self, tenant: &TenantId, error: &ToolError) -> bool {
        if self.rule.failures == 0 {
            return false;
        }
        let mut circuits = self.circuits.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if circuits.len() >= MAX_CIRCUITS && !circuits.contains_key(tenant) {
            // Those that failed and never came back must not keep others out for good.
            circuits.retain(|_, circuit| circuit.is_tried || circuit.counts_until.is_some_and(|until| until > now));
            self.followed.store(circuits.len(), Ordering::Release);
            if circuits.len() >= MAX_CIRCUITS {
                return false;
            }
        }
        let circuit = circuits.entry(tenant.clone()).or_default();
        circuit.failures = circuit.failures.saturating_add(1);
        circuit.counts_until = Some(now + self.rule.open_for);
        let opens = circuit.failures >= self.rule.failures;
        if opens {
            circuit.open_until = circuit.counts_until;
            circuit.is_tried = false;
            circuit.cause = error.to_string().chars().take(300).collect();
        }
        self.followed.store(circuits.len(), Ordering::Release);
        opens
    }

    fn close(&self, tenant: &TenantId) {
        if self.followed.load(Ordering::Acquire) > 0 {
            let mut circuits = self.circuits.lock().unwrap_or_else(PoisonError::into_inner);
            circuits.remove(tenant);
            self.followed.store(circuits.len(), Ordering::Release);
        }
    }

    /// Notes what a health check said.
    pub(crate) fn note_check(&self, outcome: Result<(), ToolError>) -> Option<Turn> {
        let mut check = self.check.lock().unwrap_or_else(PoisonError::into_inner);
        check.failed_in_a_row = if outcome.is_ok() { 0 } else { check.failed_in_a_row.saturating_add(1) };
        check.last = Some((SystemTime::now(), outcome));
        let down = self.rule.failed_checks > 0 && check.failed_in_a_row >= self.rule.failed_checks;
        let was_down = self.is_down.swap(down, Ordering::AcqRel);
        (down != was_down).then_some(if down { Turn::Down } else { Turn::Up })
    }

    /// Fills in what the calls and checks tell.
    pub(crate) fn tell(&self, health: &mut PluginHealth) {
        let counts = self.durations.each_ref().map(|count| count.load(Ordering::Relaxed));
        health.calls = counts.iter().sum();
        health.latency = Latency { p50: percentile(&counts, 50), p99: percentile(&counts, 99) };
        health.consecutive_failures = self.in_a_row.load(Ordering::Relaxed);
        let failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        (health.errors, health.last_error) = (failed.by_kind.clone(), failed.last.clone());
        drop(failed);
        let now = Instant::now();
        let circuits = self.circuits.lock().unwrap_or_else(PoisonError::into_inner);
        let open = |(tenant, circuit): (&TenantId, &Circuit)| {
            let left = circuit.open_until?.saturating_duration_since(now);
            Some(OpenCircuit { tenant: tenant.clone(), left, cause: circuit.cause.clone() })
        };
        health.open_circuits = circuits.iter().filter_map(open).collect();
        drop(circuits);
        health.open_circuits.sort_by(|a, b| a.tenant.cmp(&b.tenant));
        health.last_check = self.check.lock().unwrap_or_else(PoisonError::into_inner).last.clone();
        health.is_down = self.is_down.load(Ordering::Acquire);
    }
}

impl fmt::Debug for Vitals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vitals").finish_non_exhaustive()
    }
}

/// The call that is let through an open circuit to see whether the plugin is back.
#[derive(Debug)]
pub(crate) struct Trial {
    vitals: Arc<Vitals>,
    tenant: TenantId,
}

impl Drop for Trial {
    fn drop(&mut self) {
        // Where the call was told of, the circuit is gone or open anew, and neither is tried.
        let mut circuits = self.vitals.circuits.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(circuit) = circuits.get_mut(&self.tenant) {
            circuit.is_tried = false;
        }
    }
}

/// Whether an error says that the plugin is not there, rather than that it said no.
fn is_the_plugins(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::TimedOut | ErrorKind::Panic | ErrorKind::Unavailable | ErrorKind::Internal)
}

/// The upper end of the bucket in which the call is that `percent` of all are no longer than.
fn percentile(counts: &[u64], percent: u64) -> Duration {
    let total: u64 = counts.iter().sum();
    let rank = (u128::from(total) * u128::from(percent)).div_ceil(100);
    let mut seen = 0_u128;
    for (bucket, count) in counts.iter().enumerate() {
        seen += u128::from(*count);
        if seen >= rank && total > 0 {
            return Duration::from_micros(1 << bucket);
        }
    }
    Duration::ZERO
}
