//! Threads for scripts that take long.
//!
//! Between two of its operations a script can be suspended; within one it cannot, and an operation of the interpreter can
//! take long: it drops a large value, or waits for a captured variable that is in use. On a thread of the host's that
//! would hold the host. So a script runs its first slices where it is polled, which is all that most calls need, and goes
//! on in a lane: a thread of this module's own. Whoever waits for it is told by a waker, and may stop waiting at any
//! time. A script that captures variables begins in a lane.
//!
//! A lane that is stuck in one operation is replaced, up to a bound; it serves on when it comes back. Lanes have a lower
//! priority than the host's threads.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
    thread,
    time::{Duration, Instant},
};

use super::{Body, Resume, Stretch};

/// How long a script runs in a lane before another has its turn.
const TURN: Duration = Duration::from_millis(2);

/// A lane that is in one operation for so long is stuck, and another takes its place.
const STUCK: Duration = Duration::from_millis(10);

/// How often somebody looks whether lanes are stuck while scripts wait for one.
const LOOK: Duration = Duration::from_millis(4);

/// Lanes, the stuck ones with them.
const MAX_LANES: usize = 32;

/// A lane without work ends after this time.
const IDLE: Duration = Duration::from_secs(10);

/// Scripts in line. Beyond it they run where they are polled: slower for the host, and never lost.
const MAX_WAITING: usize = 65_536;

/// A script on its way through a lane, seen from outside.
pub(super) struct Away(Mutex<Whereabouts>);

enum Whereabouts {
    /// It runs or stands in line; who is told when it is back.
    Out(Option<Waker>),
    /// It is back, with what came of it.
    Back(Box<(Body, Stretch)>),
    /// Nobody waits for it.
    Forgotten,
}

impl Away {
    /// The script and what came of its stretch, when it is back.
    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<(Body, Stretch)> {
        let mut place = lock(&self.0);
        if let Whereabouts::Back(_) = &*place
            && let Whereabouts::Back(back) = std::mem::replace(&mut *place, Whereabouts::Forgotten)
        {
            return Poll::Ready(*back);
        }
        *place = Whereabouts::Out(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// Has the script cancelled at its next operation, in its lane.
    pub(super) fn forget(&self) {
        let former = std::mem::replace(&mut *lock(&self.0), Whereabouts::Forgotten);
        // Where it is back already, it is dropped here.
        drop(former);
    }

    fn is_forgotten(&self) -> bool {
        matches!(&*lock(&self.0), Whereabouts::Forgotten)
    }

    fn come_back(&self, body: Body, stretch: Stretch) {
        let mut place = lock(&self.0);
        if let Whereabouts::Out(waker) = &mut *place {
            let waker = waker.take();
            *place = Whereabouts::Back(Box::new((body, stretch)));
            drop(place);
            waker.into_iter().for_each(Waker::wake);
        }
    }
}

/// A script with what it goes on with.
struct Job {
    body: Body,
    input: Resume,
    away: Arc<Away>,
}

/// The lanes of one runner.
pub(crate) struct Lanes {
    state: Mutex<State>,
    work: Condvar,
    /// How many lanes may be at work that are not stuck.
    wanted: usize,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    idle: usize,
    /// When each lane that works began its present turn.
    busy: BTreeMap<u64, Instant>,
    lanes: u64,
    is_watched: bool,
}

impl State {
    fn lively(&self) -> usize {
        let now = Instant::now();
        self.busy.values().filter(|began| now.duration_since(**began) < STUCK).count()
    }
}

impl Lanes {
    /// No lane yet; they come when they are needed.
    pub(crate) fn new() -> Arc<Self> {
        let wanted = thread::available_parallelism().map_or(1, usize::from);
        Arc::new(Self { state: Mutex::default(), work: Condvar::new(), wanted })
    }

    /// Sends a script into a lane. Gives it back where there is none to be had.
    pub(super) fn send(self: &Arc<Self>, body: Body, input: Resume) -> Result<Arc<Away>, Box<(Body, Resume)>> {
        let away = Arc::new(Away(Mutex::new(Whereabouts::Out(None))));
        self.line_up(Job { body, input, away: Arc::clone(&away) }).map(|()| away)
    }

    /// Has a script dropped in a lane: cancelling it may take as long as any operation of its own.
    pub(super) fn bury(self: &Arc<Self>, body: Body) {
        let away = Arc::new(Away(Mutex::new(Whereabouts::Forgotten)));
        // Where there is no lane, it is dropped here and now.
        let _ = self.line_up(Job { body, input: Resume::Cancel, away });
    }

    fn line_up(self: &Arc<Self>, job: Job) -> Result<(), Box<(Body, Resume)>> {
        let mut state = lock(&self.state);
        let is_enough = state.idle > state.jobs.len() || self.add_lane(&mut state);
        if state.jobs.len() >= MAX_WAITING || (state.busy.is_empty() && state.idle == 0) {
            return Err(Box::new((job.body, job.input)));
        }
        state.jobs.push_back(job);
        if !is_enough {
            self.watch(&mut state);
        }
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    /// Starts one more lane where that helps; whether it did.
    fn add_lane(self: &Arc<Self>, state: &mut State) -> bool {
        if state.lively() >= self.wanted || state.busy.len() + state.idle >= MAX_LANES {
            return false;
        }
        let (id, lanes) = (state.lanes, Arc::downgrade(self));
        let started = thread::Builder::new().name(format!("toolbay-lane-{id}")).spawn(move || work(id, &lanes));
        if started.is_ok() {
            state.lanes += 1;
            // It counts as at work until it asks for its first job.
            state.busy.insert(id, Instant::now());
        }
        started.is_ok()
    }

    /// Has somebody look whether lanes are stuck, for as long as scripts stand in line.
    fn watch(self: &Arc<Self>, state: &mut State) {
        if state.is_watched {
            return;
        }
        let lanes = Arc::downgrade(self);
        let watch = move || {
            loop {
                thread::sleep(LOOK);
                let Some(lanes) = lanes.upgrade() else { return };
                let mut state = lock(&lanes.state);
                if state.jobs.is_empty() {
                    state.is_watched = false;
                    return;
                }
                if state.idle == 0 {
                    lanes.add_lane(&mut state);
                }
            }
        };
        state.is_watched = thread::Builder::new().name("toolbay-lanes".into()).spawn(watch).is_ok();
    }

    /// The next script of the lane `id`; `None` ends the lane.
    fn next(&self, id: u64) -> Option<Job> {
        let mut state = lock(&self.state);
        state.busy.remove(&id);
        if state.jobs.is_empty() {
            state.idle += 1;
            let is_empty = |state: &mut State| state.jobs.is_empty();
            state = self.work.wait_timeout_while(state, IDLE, is_empty).unwrap_or_else(PoisonError::into_inner).0;
            state.idle -= 1;
        }
        let job = state.jobs.pop_front()?;
        state.busy.insert(id, Instant::now());
        Some(job)
    }

    /// The lane `id` begins another turn; whether its script may have it, with none in line.
    fn again(&self, id: u64) -> bool {
        let mut state = lock(&self.state);
        state.busy.insert(id, Instant::now());
        state.jobs.is_empty()
    }

    fn back_in_line(&self, job: Job) {
        lock(&self.state).jobs.push_back(job);
    }
}

/// What a lane does all its life.
fn work(id: u64, lanes: &Weak<Lanes>) {
    super::stack::lower_priority();
    // The lanes go when their runner goes, after the last script that is under way.
    while let Some(lanes) = lanes.upgrade() {
        let Some(mut job) = lanes.next(id) else { return };
        loop {
            if job.away.is_forgotten() {
                drop(job);
                break;
            }
            match job.body.stretch(job.input, TURN) {
                Stretch::Slice => {
                    job.input = Resume::Go;
                    if !lanes.again(id) {
                        lanes.back_in_line(job);
                        break;
                    }
                }
                stretch => {
                    job.away.come_back(job.body, stretch);
                    break;
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
