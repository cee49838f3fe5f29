//! Listening from outside: a stream of events for the host's own code. It is filtered where events are told, so that
//! what nobody asked for cannot push out what somebody did.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use futures::Stream;
use toolbay_api::{Event, EventPattern, Scope};

/// Events that wait for a reader.
const MAX_WAITING: usize = 1_024;

/// What a reader of an [`EventStream`] gets.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// An event.
    Event(Arc<Event>),
    /// The reader was too slow: so many events went before those that follow.
    Lost(u64),
}

/// Events, for the host's own code: those from its making on, the oldest first. A reader that lags 1,024 events behind
/// loses the oldest and is told how many. It ends with the host.
///
/// ```
/// use serde_json::json;
/// use toolbay_api::{EventPattern, Scope};
/// use toolbay_runtime::{Heard, Toolbay};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let bay = Toolbay::builder().build()?;
/// let mut orders = bay.events().matching(EventPattern::new("order.*")?).of(Scope::tenant("acme")?);
/// bay.session("acme")?.publish("order.placed", json!({ "id": 7 }))?;
/// let Some(Heard::Event(event)) = orders.next().await else { panic!("nothing was heard") };
/// assert_eq!(event.payload["id"], 7);
/// # Ok(()) }
/// ```
pub struct EventStream(Arc<Outlet>);

struct Outlet(Mutex<State>);

#[derive(Default)]
struct State {
    /// `None`: every name.
    pattern: Option<EventPattern>,
    /// `None`: every tenant's and the whole host's.
    scope: Option<Scope>,
    waiting: VecDeque<Arc<Event>>,
    lost: u64,
    waker: Option<Waker>,
    is_closed: bool,
}

impl State {
    fn wants(&self, event: &Event) -> bool {
        self.scope.as_ref().is_none_or(|scope| *scope == event.scope)
            && self.pattern.as_ref().is_none_or(|pattern| pattern.matches(event.name.as_str()))
    }
}

impl EventStream {
    /// Hears events of these names only.
    #[must_use]
    pub fn matching(self, pattern: EventPattern) -> Self {
        self.narrow(|state| state.pattern = Some(pattern))
    }

    /// Hears events of one tenant only, or those of the whole host.
    #[must_use]
    pub fn of(self, scope: Scope) -> Self {
        self.narrow(|state| state.scope = Some(scope))
    }

    fn narrow(self, change: impl FnOnce(&mut State)) -> Self {
        let mut state = self.0.lock();
        change(&mut state);
        let mut waiting = std::mem::take(&mut state.waiting);
        waiting.retain(|event| state.wants(event));
        state.waiting = waiting;
        drop(state);
        self
    }

    /// The next event; `None` when the host is gone.
    ///
    /// # Cancel safety
    /// Dropped before it resolves, it has taken nothing.
    pub async fn next(&mut self) -> Option<Heard> {
        poll_fn(|cx| self.0.poll(cx)).await
    }
}

impl Stream for EventStream {
    type Item = Heard;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Heard>> {
        self.0.poll(cx)
    }
}

impl fmt::Debug for EventStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStream").field("waiting", &self.0.lock().waiting.len()).finish_non_exhaustive()
    }
}

impl Outlet {
    fn poll(&self, cx: &Context<'_>) -> Poll<Option<Heard>> {
        let mut state = self.lock();
        if state.lost > 0 {
            return Poll::Ready(Some(Heard::Lost(std::mem::take(&mut state.lost))));
        }
        if let Some(event) = state.waiting.pop_front() {
            return Poll::Ready(Some(Heard::Event(event)));
        }
        if state.is_closed {
            return Poll::Ready(None);
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn offer(&self, event: &Arc<Event>) {
        let mut state = self.lock();
        if !state.wants(event) {
            return;
        }
        if state.waiting.len() >= MAX_WAITING {
            state.waiting.pop_front();
            state.lost += 1;
        }
        state.waiting.push_back(Arc::clone(event));
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        let waker = state.waker.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The streams that are open.
#[derive(Default)]
pub(crate) struct Outlets {
    all: Mutex<Vec<Weak<Outlet>>>,
    /// How many are in the list: nearly always none, and this is all that an event pays then.
    count: AtomicUsize,
}

impl Outlets {
    pub(super) fn open(&self) -> EventStream {
        let outlet = Arc::new(Outlet(Mutex::default()));
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|outlet| outlet.strong_count() > 0);
        all.push(Arc::downgrade(&outlet));
        self.count.store(all.len(), Ordering::Release);
        EventStream(outlet)
    }

    /// Whether somebody listens.
    pub(super) fn is_heard(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    pub(super) fn show(&self, event: &Arc<Event>) {
        if !self.is_heard() {
            return;
        }
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|outlet| match outlet.upgrade() {
            // Offered under the lock, so that all readers see one order.
            Some(outlet) => {
                outlet.offer(event);
                true
            }
            None => false,
        });
        self.count.store(all.len(), Ordering::Release);
    }
}

impl Drop for Outlets {
    fn drop(&mut self) {
        let all = self.all.get_mut().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(Weak::upgrade).for_each(|outlet| outlet.close());
    }
}
