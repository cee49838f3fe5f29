//! The events that wait for one plugin: a lane for each tenant, and one for events of the whole host.
//!
//! A lane is there while somebody serves it, and goes when it is empty, so an idle plugin has neither lanes nor tasks.
//! Each lane is bounded and so are all together: a noisy tenant fills its own lane and leaves the rest to the others.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::oneshot;
use toolbay_api::{Event, Scope};

use super::{DeliveryOutcome, EventBounds, EventCounters};
use crate::{catalog::SubscriptionEntry, lifecycle::Busy};

/// One event on its way to one handler.
pub(crate) struct Letter {
    pub(crate) event: Arc<Event>,
    pub(crate) entry: Arc<SubscriptionEntry>,
    /// Dropped unused it says that the event was dropped.
    pub(crate) reply: Option<oneshot::Sender<DeliveryOutcome>>,
    pub(super) _busy: Busy,
}

/// What became of a letter.
pub(super) enum Put {
    /// It is the first of its lane, which needs somebody to serve it.
    First,
    /// Somebody serves its lane.
    Behind,
    /// It did not fit, and is counted.
    Refused,
}

/// The letters of one plugin.
#[derive(Default)]
pub(crate) struct Mailbox {
    // std's Mutex: held for a look or a change only.
    lanes: Mutex<Lanes>,
    delivered: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Lanes {
    /// Letters in all lanes and in the hands of those who serve them.
    total: usize,
    lanes: HashMap<Scope, VecDeque<Letter>>,
}

impl Mailbox {
    /// Takes a letter in, or counts it as dropped.
    pub(super) fn put(&self, letter: Letter, bounds: &EventBounds) -> Put {
        let mut state = self.lock();
        // At least one, or nothing would ever be heard.
        let own = letter.entry.subscription.queue.map(|own| own.max(1));
        let allowed = own.map_or(bounds.waiting_per_tenant, |own| own.min(bounds.waiting_per_tenant));
        let lane = state.lanes.get(&letter.event.scope);
        let of_subscription = |other: &&Letter| Arc::ptr_eq(&other.entry, &letter.entry);
        let waiting = lane.map_or(0, |lane| lane.iter().filter(of_subscription).count());
        if waiting >= allowed || state.total >= bounds.waiting_per_plugin {
            drop(state);
            self.count_dropped(1);
            return Put::Refused;
        }
        state.total += 1;
        match state.lanes.get_mut(&letter.event.scope) {
            Some(lane) => {
                lane.push_back(letter);
                Put::Behind
            }
            None => {
                state.lanes.insert(letter.event.scope.clone(), VecDeque::from([letter]));
                Put::First
            }
        }
    }

    /// The next letter of a lane; the lane ends with its last.
    pub(super) fn take(&self, scope: &Scope) -> Option<Letter> {
        let mut state = self.lock();
        let letter = state.lanes.get_mut(scope)?.pop_front();
        if letter.is_none() {
            state.lanes.remove(scope);
        }
        letter
    }

    /// A letter that was taken has been dealt with.
    pub(super) fn settle(&self) {
        self.lock().total -= 1;
    }

    /// Drops what waits in a lane that nobody serves any more.
    pub(super) fn abandon(&self, scope: &Scope) {
        let lane = {
            let mut state = self.lock();
            let lane = state.lanes.remove(scope).unwrap_or_default();
            state.total -= lane.len();
            lane
        };
        self.count_dropped(lane.len());
    }

    /// Drops all that waits: the plugin has ended, and whoever stopped it has waited long enough.
    pub(crate) fn discard(&self) {
        let mut gone = Vec::new();
        let mut state = self.lock();
        // The lanes stay: who serves them finds them empty and ends them.
        for lane in state.lanes.values_mut() {
            gone.extend(lane.drain(..));
        }
        state.total -= gone.len();
        drop(state);
        self.count_dropped(gone.len());
    }

    pub(super) fn count_delivered(&self) {
        self.delivered.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_dropped(&self, letters: usize) {
        self.dropped.fetch_add(letters as u64, Ordering::Relaxed);
    }

    pub(super) fn counters(&self) -> EventCounters {
        EventCounters {
            delivered: self.delivered.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
            waiting: self.lock().total,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mailbox").field("counters", &self.counters()).finish()
    }
}
