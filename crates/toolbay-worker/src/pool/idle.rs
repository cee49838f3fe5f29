//! Ending workers that nobody has used for a while, so that tenants who went away hold no processes.
//!
//! One task for the pool looks at the times that calls leave behind. A timer for each worker would have to be set anew
//! with every call.

use std::{
    sync::{Arc, Weak, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use super::{Pool, State};

impl Pool {
    /// Makes sure that somebody looks after idle workers. Called under the pool's lock, which `state` stands for.
    pub(super) fn watch_idle(&self, state: &mut State) {
        if !std::mem::replace(&mut state.is_watched, true) {
            tokio::spawn(end_idle(Weak::clone(&self.me)));
        }
    }

    /// Ends the workers whose time is over, and says when to look again; `None` when nobody owns a worker.
    fn end_idle(&self) -> Option<Instant> {
        let mut state = self.lock();
        let idle_micros = u64::try_from(self.config.idle_timeout.as_micros()).unwrap_or(u64::MAX);
        let expiry = |last_used: u64| last_used.saturating_add(idle_micros);
        let (now, mut next) = (self.now(), u64::MAX);
        let mut expired = Vec::new();
        for worker in state.owned.values().flat_map(|owned| &owned.workers) {
            let is_idle = worker.load() == 0;
            let expiry = expiry(worker.last_used.load(Relaxed));
            if is_idle && expiry <= now {
                expired.push(Arc::clone(worker));
            } else if is_idle {
                next = next.min(expiry);
            }
        }
        for worker in &expired {
            state.dismiss(worker);
        }
        if state.owned.is_empty() {
            state.is_watched = false;
            return None;
        }
        // One that is busy now, or only just starting, cannot be due before this.
        let wait = next.min(expiry(now)).saturating_sub(now);
        Some(Instant::now() + Duration::from_micros(wait).clamp(SHORTEST, LONGEST))
    }
}

/// Between two looks at least, so that a timeout of nothing does not keep a thread busy.
const SHORTEST: Duration = Duration::from_millis(1);
/// And at most, so that any timeout can be added to the present time.
const LONGEST: Duration = Duration::from_secs(3_600);

/// Looks after the idle workers of `pool` as long as somebody owns one.
async fn end_idle(pool: Weak<Pool>) {
    loop {
        // Not held while waiting: the pool goes when its last user does.
        let next = pool.upgrade().and_then(|pool| pool.end_idle());
        let Some(next) = next else { return };
        tokio::time::sleep_until(next.into()).await;
    }
}
