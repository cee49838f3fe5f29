//! A clock that stands still until a test sets it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use toolbay_runtime::Clock;

/// 1 January 2026, 0 o'clock UTC.
const BEGINNING_MS: i64 = 1_767_225_600_000;

/// A clock that stands still until a test sets it, to begin with at 1 January 2026, 0 o'clock UTC. Clones are the same
/// clock.
///
/// Given to a host by [`ToolbayBuilder::clock`](toolbay_runtime::ToolbayBuilder::clock) it says what `now()` gives plugins
/// and when what they keep for a time is over. Deadlines go by tokio's time, which `tokio::time::pause` and `advance` rule.
///
/// ```
/// use std::time::Duration;
/// use toolbay_testkit::VirtualClock;
///
/// let clock = VirtualClock::default();
/// let before = clock.now_ms();
/// clock.advance(Duration::from_secs(90));
/// assert_eq!(clock.now_ms() - before, 90_000);
/// ```
#[derive(Debug, Clone)]
pub struct VirtualClock(Arc<AtomicI64>);

impl Default for VirtualClock {
    fn default() -> Self {
        Self::at_ms(BEGINNING_MS)
    }
}

impl VirtualClock {
    /// A clock that stands at `ms` milliseconds since 1970, UTC.
    #[must_use]
    pub fn at_ms(ms: i64) -> Self {
        Self(Arc::new(AtomicI64::new(ms)))
    }

    /// What it shows, in milliseconds since 1970, UTC.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    /// Puts it forward by whole milliseconds.
    pub fn advance(&self, by: Duration) {
        let by = i64::try_from(by.as_millis()).unwrap_or(i64::MAX);
        // The closure always gives a value, so there is no error to look at.
        let _ = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| Some(now.saturating_add(by)));
    }

    /// Sets it, forward or back.
    pub fn set_ms(&self, ms: i64) {
        self.0.store(ms, Ordering::SeqCst);
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> SystemTime {
        let ms = self.now_ms();
        let away = Duration::from_millis(ms.unsigned_abs());
        let shown = if ms < 0 { UNIX_EPOCH.checked_sub(away) } else { UNIX_EPOCH.checked_add(away) };
        shown.unwrap_or(UNIX_EPOCH)
    }
}
