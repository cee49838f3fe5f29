//! Quarantine: a plugin that keeps running into its limits for a tenant is not called for it for a while.
//!
//! Each breach costs the host what the limit allows, so a plugin that breaches at every call would use up the tenant's
//! share on nothing. Other tenants' calls of the same plugin go on.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use dashmap::DashMap;
use serde_json::json;
use toolbay_api::{ErrorKind, Limit, PluginName, TenantId, ToolError};

use crate::guarded;

/// Entries below which nothing is swept.
const SWEEP_AT: usize = 1_024;

/// When a plugin goes into quarantine and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quarantine {
    /// So many breaches of limits
    pub breaches: usize,
    /// within this time
    pub window: Duration,
    /// put the plugin away for so long, for the tenant whose calls they were.
    pub duration: Duration,
}

impl Default for Quarantine {
    fn default() -> Self {
        Self { breaches: 50, window: Duration::from_secs(60), duration: Duration::from_secs(60) }
    }
}

/// A plugin in quarantine, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// For whom.
    pub tenant: TenantId,
    /// Which.
    pub plugin: PluginName,
    /// For how long yet.
    pub left: Duration,
    /// The last breach, as its caller was told.
    pub cause: String,
}

/// The breaches of all tenants' plugins. An entry is made by the first breach and goes with the last that counts.
pub(crate) struct Ward {
    rule: Quarantine,
    // Tenant and plugin are two fields of the key, never one joined string.
    entries: DashMap<(TenantId, PluginName), Entry>,
    /// The number of entries at which those of the past are looked for: what tenants come and go leaves no trace.
    sweep_at: AtomicUsize,
}

#[derive(Default)]
struct Entry {
    /// When the breaches were, the oldest first; never more than the rule's number.
    breaches: VecDeque<Instant>,
    until: Option<Instant>,
    cause: String,
}

impl Ward {
    pub(crate) fn new(rule: Quarantine) -> Self {
        Self { rule, entries: DashMap::new(), sweep_at: AtomicUsize::new(SWEEP_AT) }
    }

    /// `Ok` where the plugin may be called for the tenant at `now`.
    ///
    /// # Errors
    /// `Unavailable`, with the cause and when to come back.
    pub(crate) fn check(&self, tenant: &TenantId, plugin: &PluginName, now: Instant) -> Result<(), ToolError> {
        // Nearly always there is no entry at all, and this is all that a call pays.
        if self.entries.is_empty() {
            return Ok(());
        }
        let key = (tenant.clone(), plugin.clone());
        let Some(entry) = self.entries.get(&key) else { return Ok(()) };
        let Some(left) = entry.until.and_then(|until| until.checked_duration_since(now)).filter(|left| !left.is_zero())
        else {
            return Ok(());
        };
        let seconds = left.as_secs() + 1;
        Err(ToolError::new(
            ErrorKind::Unavailable,
            format!(
                "the plugin {plugin} is in quarantine for this tenant, since it ran into its limits {} times within {:?} \
                 (last: {}); it is called again in {seconds} s, or when an operator releases it",
                self.rule.breaches, self.rule.window, entry.cause
            ),
        )
        .with_details(json!({ "quarantine": true, "retry_after_s": seconds })))
    }

    /// Notes how a call ended. Gives the time of the quarantine where this breach brings the plugin into it.
    pub(crate) fn note(
        &self,
        tenant: &TenantId,
        plugin: &PluginName,
        error: &ToolError,
        now: Instant,
    ) -> Option<Duration> {
        if !is_breach(error.kind) || self.rule.breaches == 0 {
            return None;
        }
        if self.entries.len() >= self.sweep_at.load(Ordering::Relaxed) {
            self.sweep(now);
            self.sweep_at.store((self.entries.len() * 2).max(SWEEP_AT), Ordering::Relaxed);
        }
        let mut entry = self.entries.entry((tenant.clone(), plugin.clone())).or_default();
        let window = self.rule.window;
        while entry.breaches.front().is_some_and(|first| now.saturating_duration_since(*first) > window) {
            entry.breaches.pop_front();
        }
        entry.breaches.push_back(now);
        if entry.breaches.len() < self.rule.breaches {
            return None;
        }
        entry.breaches.clear();
        entry.until = Some(now + self.rule.duration);
        entry.cause = error.to_string();
        Some(self.rule.duration)
    }

    /// Lets the plugin be called again; says whether it was in quarantine.
    pub(crate) fn release(&self, tenant: &TenantId, plugin: &PluginName) -> bool {
        let removed = self.entries.remove(&(tenant.clone(), plugin.clone()));
        removed.is_some_and(|(_, entry)| entry.until.is_some_and(|until| until > guarded::now()))
    }

    /// Forgets what is long past.
    fn sweep(&self, now: Instant) {
        let recent = |at: &Instant| now.saturating_duration_since(*at) <= self.rule.window;
        self.entries
            .retain(|_, entry| entry.until.is_some_and(|until| until > now) || entry.breaches.iter().any(recent));
    }

    /// Everything in quarantine now, by tenant and plugin. Forgets what is long past.
    pub(crate) fn list(&self) -> Vec<Quarantined> {
        let now = guarded::now();
        self.sweep(now);
        let mut list: Vec<_> = self
            .entries
            .iter()
            .filter_map(|entry| {
                let left = entry.until?.checked_duration_since(now).filter(|left| !left.is_zero())?;
                let (tenant, plugin) = entry.key().clone();
                Some(Quarantined { tenant, plugin, left, cause: entry.cause.clone() })
            })
            .collect();
        list.sort_by(|a, b| (&a.tenant, &a.plugin).cmp(&(&b.tenant, &b.plugin)));
        list
    }
}

/// Whether an error says that the plugin used more than it may, rather than that its caller or a store did.
fn is_breach(kind: ErrorKind) -> bool {
    match kind {
        ErrorKind::TimedOut | ErrorKind::Panic => true,
        ErrorKind::LimitExceeded { limit, .. } => !matches!(
            limit,
            Limit::Arguments
                | Limit::Storage
                | Limit::CallChain
                | Limit::EventDepth
                | Limit::Concurrency
                | Limit::Rate
                | Limit::SourceSize
        ),
        _ => false,
    }
}
