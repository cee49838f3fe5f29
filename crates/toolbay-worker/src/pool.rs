//! Who gets which worker: one tenant in a process at a time, a bounded number of processes, replaced when they are worn
//! out.

use std::{
    collections::HashMap,
    fmt,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::sync::{Notify, oneshot};
use toolbay_api::{ErrorKind, Scope, TenantId, ToolError};

use crate::{
    config::WorkerConfig, driver::Bounds, isolation::Isolation, process::Spawner, storm::Storm, worker::Worker,
};

mod idle;
mod start;

/// Whose a worker is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Owner {
    /// A tenant's, for all its calls.
    Tenant(TenantId),
    /// The host's own: for loading plugins that every tenant sees, and for what they do on behalf of none, in callbacks and
    /// handlers of the whole host's events. No tenant's call enters it.
    Host,
}

impl From<&Scope> for Owner {
    fn from(scope: &Scope) -> Self {
        match scope {
            Scope::Global => Self::Host,
            Scope::Tenant(tenant) => Self::Tenant(tenant.clone()),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tenant(tenant) => write!(f, "tenant {tenant}"),
            Self::Host => f.write_str("host"),
        }
    }
}

/// What kind of place a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// A call by a model or a client.
    Top,
    /// A call from inside another, a hook or a callback of the host's: refusing it a place until others end could be waiting for ever, since
    /// those others may wait for it.
    Nested,
}

/// The pool.
pub(crate) struct Pool {
    pub(crate) config: WorkerConfig,
    spawner: Spawner,
    began: Instant,
    last_id: AtomicU64,
    last_plugin: AtomicU64,
    /// What the first worker reported of its isolation.
    isolation: OnceLock<Isolation>,
    changed: Notify,
    // std's Mutex: nothing is awaited while it is held. Taken before no other lock.
    state: Mutex<State>,
    me: Weak<Pool>,
}

#[derive(Default)]
struct State {
    owned: HashMap<Owner, Owned>,
    spares: Vec<Arc<Worker>>,
    starting_spares: usize,
    /// Processes in all.
    alive: usize,
    /// Of these, the one that was told to go to make room.
    leaving: Option<u64>,
    /// Whether a task looks after idle workers.
    is_watched: bool,
    storms: HashMap<Owner, Storm>,
}

/// The workers of one owner.
#[derive(Default)]
struct Owned {
    workers: Vec<Arc<Worker>>,
    starting: usize,
}

/// What to do about a call that wants a place.
enum Next {
    Take(Arc<Worker>),
    Started(oneshot::Receiver<Result<(), ToolError>>),
    WaitUntil(Instant, u32),
    Full(Bound),
}

/// Which bound is reached.
#[derive(Clone, Copy)]
enum Bound {
    Tenant,
    Pool,
}

impl Pool {
    pub(crate) fn new(config: WorkerConfig, spawner: Spawner) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            config,
            spawner,
            began: Instant::now(),
            last_id: AtomicU64::new(0),
            last_plugin: AtomicU64::new(0),
            isolation: OnceLock::new(),
            changed: Notify::new(),
            state: Mutex::default(),
            me: Weak::clone(me),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bounds(&self) -> Bounds {
        Bounds { max_residue_bytes: self.config.max_residue_bytes, max_asset_bytes: self.config.max_asset_bytes }
    }

    /// What the first worker reported of its isolation, if one was started.
    pub(crate) fn isolation(&self) -> Option<Isolation> {
        self.isolation.get().copied()
    }

    /// A number for a plugin that no other has.
    pub(crate) fn next_plugin(&self) -> u64 {
        self.last_plugin.fetch_add(1, Relaxed) + 1
    }

    /// Every worker that belongs to somebody, and the spare ones.
    pub(crate) fn workers(&self) -> Vec<Arc<Worker>> {
        let state = self.lock();
        state.owned.values().flat_map(|owned| &owned.workers).chain(&state.spares).map(Arc::clone).collect()
    }

    /// A place for a call, at latest at `until`.
    ///
    /// # Errors
    /// `RateLimited` where the tenant's workers are busy until then; `Unavailable` where all are, where none can be
    /// started, and during the back-off after a storm.
    pub(crate) async fn place(&self, owner: &Owner, class: Class, until: Instant) -> Result<Slot, ToolError> {
        // Nearly always there is a place, and nothing to wait for.
        let mut first = Some(self.lock().next(self, owner, class));
        if let Some(Next::Take(worker)) = first {
            return Ok(self.slot(worker, class));
        }
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            // One that began to start a worker is not asked twice.
            let next = match first.take() {
                Some(next @ Next::Started(_)) => next,
                _ => self.lock().next(self, owner, class),
            };
            match next {
                Next::Take(worker) => return Ok(self.slot(worker, class)),
                Next::Started(started) => match tokio::time::timeout_at(until.into(), started).await {
                    Ok(Ok(Ok(()))) => {}
                    Ok(Ok(Err(error))) => return Err(error),
                    Ok(Err(_)) => return Err(unavailable("the worker process was lost while it started; try again")),
                    Err(_) => return Err(unavailable("the worker process did not start in time; try again")),
                },
                Next::WaitUntil(again, ends) => {
                    if again >= until {
                        return Err(unavailable(format!(
                            "the tools of this tenant broke their worker process {ends} times in a row; try again in {} s",
                            again.saturating_duration_since(Instant::now()).as_secs() + 1
                        )));
                    }
                    let _ = tokio::time::timeout_at(again.into(), changed).await;
                }
                Next::Full(bound) => {
                    if tokio::time::timeout_at(until.into(), changed).await.is_err() {
                        return Err(bound.error());
                    }
                }
            }
        }
    }

    fn slot(&self, worker: Arc<Worker>, class: Class) -> Slot {
        worker.last_used.store(self.now(), Relaxed);
        Slot { worker, class, pool: Weak::clone(&self.me) }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Gives a place back.
    fn give_back(&self, worker: &Arc<Worker>, class: Class) {
        worker.last_used.store(self.now(), Relaxed);
        match class {
            Class::Top => worker.top.fetch_sub(1, Relaxed),
            Class::Nested => worker.nested.fetch_sub(1, Relaxed),
        };
        if worker.is_retiring.load(Relaxed) {
            let mut state = self.lock();
            // Asked again under the lock, under which places are given.
            if worker.load() == 0 {
                state.dismiss(worker);
            }
        }
        self.changed.notify_waiters();
    }

    /// A worker's process is no more.
    fn bury(&self, worker: &Arc<Worker>, is_abnormal: bool) {
        let now = Instant::now();
        let mut state = self.lock();
        state.remove(worker);
        state.alive = state.alive.saturating_sub(1);
        if state.leaving == Some(worker.id) {
            state.leaving = None;
        }
        if is_abnormal && let Some(owner) = worker.owner.get() {
            if state.storms.len() >= 1_024 {
                state.storms.retain(|_, storm| !storm.is_over(now));
            }
            state.storms.entry(owner.clone()).or_default().count(now);
        }
        drop(state);
        self.changed.notify_waiters();
    }
}

impl Drop for Pool {
    /// Nobody can call into the workers any more.
    fn drop(&mut self) {
        for worker in self.workers() {
            worker.is_retiring.store(true, Relaxed);
            worker.process.kill();
        }
    }
}

impl State {
    /// Under the pool's lock: finds a worker, or begins to start one, or says why not.
    fn next(&mut self, pool: &Pool, owner: &Owner, class: Class) -> Next {
        let config = &pool.config;
        let owned = self.owned.get(owner);
        let fits = |worker: &&Arc<Worker>| {
            let full = match class {
                Class::Top => worker.is_retiring.load(Relaxed) || worker.top.load(Relaxed) >= config.calls_per_worker,
                Class::Nested => worker.nested.load(Relaxed) >= config.nested_per_worker(),
            };
            !full && !worker.is_gone.load(Relaxed) && worker.doubtful.load(Relaxed) == 0
        };
        let best = owned.and_then(|owned| owned.workers.iter().filter(fits).min_by_key(|worker| worker.running()));
        let best = best.map(Arc::clone);
        // A worker whose calls all wait for the host is as good as an idle one.
        if let Some(worker) = &best
            && worker.running() == 0
        {
            return take(worker, class, config);
        }
        let ours = owned.map_or(0, |owned| {
            owned.starting + owned.workers.iter().filter(|worker| !worker.is_retiring.load(Relaxed)).count()
        });
        let may_grow = ours < config.max_workers_per_tenant;
        if may_grow && let Some(spare) = self.take_spare(owner) {
            pool.top_up(self);
            pool.watch_idle(self);
            return take(&spare, class, config);
        }
        let (now, storm) = (Instant::now(), self.storms.get(owner));
        let pause = storm.filter(|storm| !storm.is_over(now)).and_then(|storm| Some((storm.until()?, storm.ends())));
        if may_grow && self.alive < config.max_workers && pause.is_none_or(|(until, _)| until <= now) {
            return Next::Started(pool.start(self, Some(owner.clone())));
        }
        if let Some(worker) = &best {
            return take(worker, class, config);
        }
        match pause {
            Some((until, ends)) if may_grow && until > now => Next::WaitUntil(until, ends),
            _ if may_grow => {
                self.make_room();
                Next::Full(Bound::Pool)
            }
            _ => Next::Full(Bound::Tenant),
        }
    }

    fn take_spare(&mut self, owner: &Owner) -> Option<Arc<Worker>> {
        // A tenant in a storm gets no short cut around its pause.
        if self.storms.get(owner).is_some_and(|storm| storm.until().is_some_and(|until| until > Instant::now())) {
            return None;
        }
        let spare = self.spares.pop()?;
        let _ = spare.owner.set(owner.clone());
        self.owned.entry(owner.clone()).or_default().workers.push(Arc::clone(&spare));
        Some(spare)
    }

    /// Sends away the idle worker that was used longest ago, whosever it is, unless one is leaving already.
    fn make_room(&mut self) {
        if self.leaving.is_some() {
            return;
        }
        let idle = |worker: &&Arc<Worker>| worker.load() == 0 && !worker.is_gone.load(Relaxed);
        let workers = self.owned.values().flat_map(|owned| &owned.workers);
        let oldest = workers.filter(idle).min_by_key(|worker| worker.last_used.load(Relaxed)).map(Arc::clone);
        if let Some(worker) = oldest {
            self.leaving = Some(worker.id);
            self.dismiss(&worker);
        }
    }

    /// Ends a worker without calls.
    fn dismiss(&mut self, worker: &Arc<Worker>) {
        self.remove(worker);
        worker.is_retiring.store(true, Relaxed);
        worker.is_gone.store(true, Relaxed);
        worker.process.kill();
    }

    /// Takes a worker out of the lists; it may still be alive.
    fn remove(&mut self, worker: &Arc<Worker>) {
        self.spares.retain(|spare| spare.id != worker.id);
        if let Some(owner) = worker.owner.get()
            && let Some(owned) = self.owned.get_mut(owner)
        {
            owned.workers.retain(|other| other.id != worker.id);
            self.forget_if_empty(owner);
        }
    }

    /// Keeps no entry for owners without workers.
    fn forget_if_empty(&mut self, owner: &Owner) {
        if self.owned.get(owner).is_some_and(|owned| owned.workers.is_empty() && owned.starting == 0) {
            self.owned.remove(owner);
        }
    }
}

fn take(worker: &Arc<Worker>, class: Class, config: &WorkerConfig) -> Next {
    match class {
        Class::Top => worker.top.fetch_add(1, Relaxed),
        Class::Nested => worker.nested.fetch_add(1, Relaxed),
    };
    if worker.served.fetch_add(1, Relaxed) + 1 >= config.recycle_after {
        worker.is_retiring.store(true, Relaxed);
    }
    Next::Take(Arc::clone(worker))
}

impl Bound {
    fn error(self) -> ToolError {
        match self {
            Self::Tenant => ToolError::new(
                ErrorKind::RateLimited,
                "all worker processes of this tenant are busy; make fewer calls at once or try again later",
            ),
            Self::Pool => unavailable("all worker processes of the host are busy; try again later"),
        }
    }
}

pub(crate) fn unavailable(message: impl Into<std::borrow::Cow<'static, str>>) -> ToolError {
    ToolError::new(ErrorKind::Unavailable, message)
}

/// A call's place in a worker. Dropping it gives it back.
pub(crate) struct Slot {
    pub(crate) worker: Arc<Worker>,
    class: Class,
    pool: Weak<Pool>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.upgrade() {
            pool.give_back(&self.worker, self.class);
        }
    }
}

/// How long before its deadline a call stops waiting for a place, so that its caller reads why and not only that it was
/// late.
pub(crate) fn patience(deadline: Instant) -> Instant {
    let left = deadline.saturating_duration_since(Instant::now());
    deadline.checked_sub((left / 10).min(Duration::from_millis(50))).unwrap_or(deadline)
}
