//! A script's call as a future.
//!
//! The interpreter is a deep native recursion that cannot be suspended from outside. Here it runs on a stack of its
//! own: polling the [`Fiber`] switches to that stack and goes on where the script stopped. The script's thread-side
//! hooks switch back: the progress callback when its slice of time is over, so that an endless loop never holds a
//! thread; a host function that must wait, with the future to wait for, so that waiting holds no thread either. The
//! future is polled by the poller, on the poller's stack. Dropping the fiber cancels the script.
//!
//! This module with [`stack`], and the allocator in [`meter`], are the only ones of the crate with `unsafe`.
#![allow(unsafe_code, reason = "stack switching has no safe interface; the reasons stand at each block")]

use std::{
    cell::Cell,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    ptr,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use corosensei::{Coroutine, CoroutineResult, Yielder};
use serde_json::Value;
use toolbay_api::{ErrorKind, ToolError};

use crate::{
    call::{Call, Stopped},
    meter,
};

use lane::Away;
pub(crate) use lane::Lanes;
use stack::Stack;
pub(crate) use stack::{StackPool, needed_bytes};

mod lane;
pub(crate) mod stack;

/// How long a script runs on the thread that polls it before it lets others run.
const SLICE: Duration = Duration::from_micros(200);

/// Slices after which a script takes long. Going to a lane and coming back can take as long as one of them.
const SHORT: u32 = 5;

/// What a script and a host function answer.
pub(crate) type Answer = Result<Value, ToolError>;

/// What a host function waits for.
pub(crate) type Wait = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// What the script's side tells the poller.
enum Suspend {
    /// Its slice of time is over.
    Slice,
    /// It needs this answer.
    Wait(Wait),
    /// It cannot go on and is never resumed.
    Abandoned,
}

/// What the poller tells the script's side.
enum Resume {
    /// Go on.
    Go,
    /// Go on with this answer.
    Answer(Answer),
    /// End.
    Cancel,
}

type Routine = Coroutine<Resume, Suspend, Answer, Stack>;

/// The script's way back to its poller: a pointer to the yielder on its own stack, null while it does not run.
#[derive(Default)]
pub(crate) struct WayBack(Cell<Option<ptr::NonNull<Yielder<Resume, Suspend>>>>);

// SAFETY: the pointer is used by `suspend` only, on the stack that it points into; wherever that stack is resumed, the
// pointer is as good as before.
unsafe impl Send for WayBack {}

thread_local! {
    /// The call that runs on this thread at this instant.
    static CURRENT: Cell<*const Call> = const { Cell::new(ptr::null()) };
}

/// Runs `body` with the call that runs on this thread; `None` outside of calls.
///
/// Never inlined: a caller that suspends may go on on another thread, and the compiler may keep the address of a
/// thread-local that it saw once.
#[inline(never)]
pub(crate) fn with_current<R>(body: impl FnOnce(&Call) -> R) -> Option<R> {
    let current = CURRENT.get();
    // SAFETY: the pointer is null or was set by `Fiber::resume` to the call that it holds in an `Rc` for as long as
    // the coroutine runs, and is reset when the coroutine is left. The reference cannot outlive `body`, and `body`
    // ends before the fiber does, since it runs on the fiber's stack.
    unsafe { current.as_ref() }.map(body)
}

/// The progress callback's usual case: true where the call on this thread may go on and nothing else is to be done.
///
/// May be inlined, unlike [`with_current`], into a function that does nothing after it but return or call another: so no
/// address of a thread-local is used after a suspension.
#[inline]
pub(crate) fn step_quickly() -> bool {
    let current = CURRENT.get();
    // SAFETY: as in `with_current`.
    unsafe { current.as_ref() }.is_some_and(|call| call.step_quickly(meter::held_before_suspension()))
}

/// Lets others run. Called on the script's side.
pub(crate) fn pause(call: &Call) {
    let _ = suspend(call, Suspend::Slice);
}

/// Waits for a host function's answer. Called on the script's side. `None`: the call was cancelled.
pub(crate) fn wait(call: &Call, future: Wait) -> Option<Answer> {
    if call.is_over() {
        return None;
    }
    match suspend(call, Suspend::Wait(future)) {
        Resume::Answer(answer) => Some(answer),
        Resume::Go | Resume::Cancel => None,
    }
}

/// Leaves the script where it stands, for good. Called by the allocator, in the middle of whatever asked for memory.
///
/// Comes back where there is no script to leave, or where it unwinds: the thread would go on counting a panic.
pub(crate) fn abandon(held: isize) {
    if std::thread::panicking() {
        return;
    }
    let _ = with_current(|call| {
        if call.way_back().0.get().is_some() {
            call.give_up(held);
            let _ = suspend(call, Suspend::Abandoned);
        }
    });
}

#[inline(never)]
fn suspend(call: &Call, with: Suspend) -> Resume {
    let Some(yielder) = call.way_back().0.get() else { return Resume::Cancel };
    // SAFETY: the pointer is set by the coroutine's own body to the yielder that the coroutine was given, which lives
    // at the bottom of the coroutine's stack until the body returns, and is cleared there. `call` can only be reached
    // through `with_current` and the body's argument, so this runs on that very coroutine.
    unsafe { yielder.as_ref() }.suspend(with)
}

/// What came of one stretch of running.
enum Stretch {
    /// Its slice of time is over.
    Slice,
    /// It needs this answer to go on.
    Wait(Wait),
    /// It ended.
    Done(Answer),
}

/// A script's stack with what it needs to run on it.
struct Body {
    call: Rc<Call>,
    routine: Option<Routine>,
    pool: Arc<StackPool>,
}

// SAFETY: a body may be run by one thread and then by another, so all that it owns, the values on its suspended stack
// included, must be fit to move between threads.
// - `call` is an `Rc` whose only clones are this one and the one on the coroutine's stack: they move together, and the
//   cells in it are touched by whoever runs the body only. A `Call` is `Send`, which the assertion below holds.
// - `pool` is an `Arc` of a `Sync` type.
// - On the stack lie frames of Rhai, of this crate and of the standard library. Rhai is built with its `sync` feature:
//   its values, modules and errors are `Send + Sync`. The body's captures are `Send` by the bound of `Fiber::new`. A
//   suspension happens in three places only, the progress callback, `wait` and `abandon`, none of which holds a guard of
//   ours; after the last the stack is never run again.
//   Rhai may hold a guard of a std `RwLock` there (the value that a method call on a captured variable works on). The
//   guard is not `Send` for the sake of systems whose locks belong to threads; std's lock on the systems that this
//   crate builds for is a futex or a queue, and has no owner.
// - Thread-locals are read anew after each suspension: ours only inside functions that are never inlined; Rhai and the
//   standard library's pieces used by it keep none across a callback. The panic count is the one that matters: the
//   script never suspends while it unwinds, since a drop runs no script code.
unsafe impl Send for Body {}

const _: fn() = || {
    fn is_send<T: Send>() {}
    is_send::<Call>();
};

impl Body {
    /// Lets the script run for a slice of this length, or until it ends or waits.
    fn stretch(&mut self, input: Resume, slice: Duration) -> Stretch {
        self.call.begin_slice(slice);
        match self.resume(input) {
            Some(CoroutineResult::Yield(Suspend::Slice)) => Stretch::Slice,
            Some(CoroutineResult::Yield(Suspend::Wait(wait))) => Stretch::Wait(wait),
            Some(CoroutineResult::Yield(Suspend::Abandoned)) => Stretch::Done(Err(self.leave_behind())),
            Some(CoroutineResult::Return(answer)) => {
                self.retire();
                Stretch::Done(answer)
            }
            None => Stretch::Done(Err(cancelled())),
        }
    }

    /// Switches to the script until it suspends or ends.
    fn resume(&mut self, input: Resume) -> Option<CoroutineResult<Suspend, Answer>> {
        /// Puts the former call and account back, also if the coroutine should unwind into us.
        struct Former<'a> {
            current: *const Call,
            account: meter::Account,
            ceiling: isize,
            call: &'a Call,
        }
        impl Drop for Former<'_> {
            fn drop(&mut self) {
                CURRENT.set(self.current);
                meter::exchange_ceiling(self.ceiling);
                self.call.set_account(meter::exchange(self.account));
            }
        }
        let routine = self.routine.as_mut()?;
        let call = &self.call;
        let _former = Former {
            current: CURRENT.replace(Rc::as_ptr(call)),
            account: meter::exchange(call.account()),
            ceiling: meter::exchange_ceiling(call.ceiling()),
            call,
        };
        Some(routine.resume(input))
    }

    /// Leaves a script for good that stands in the middle of an operation.
    ///
    /// Its stack is neither used again nor unwound: what stands on it stays as it is, and what it holds is never freed.
    /// That is what forgetting a value does, and as safe: whatever lies on the stack was made by code that may be
    /// forgotten at any point where it calls out, since all of it is owned there and none of it is lent to other threads.
    /// The plugin that did this is not called again.
    fn leave_behind(&mut self) -> ToolError {
        std::mem::forget(self.routine.take());
        // The stack holds a reference that is never given back.
        self.call.settle();
        meter::outside(|| self.call.take_trip()).unwrap_or_else(cancelled)
    }

    /// Gives the stack back after the script's end.
    fn retire(&mut self) {
        if let Some(routine) = self.routine.take_if(|routine| routine.done()) {
            self.pool.give(routine.into_stack());
            self.call.settle();
        }
    }

    /// Whether the script stands in the middle.
    fn is_suspended(&self) -> bool {
        self.routine.as_ref().is_some_and(|routine| routine.started() && !routine.done())
    }
}

impl Drop for Body {
    /// Cancels: the script is resumed with the cancel flag set, on which its next operation and its host functions end
    /// it with an error that it cannot catch. That runs its destructors in the usual way; unwinding it by force would
    /// meet the `catch_unwind` in Rhai's sort.
    fn drop(&mut self) {
        if self.is_suspended() {
            self.call.cancel();
            let _ = self.resume(Resume::Cancel);
        }
        if let Some(routine) = &mut self.routine
            && !routine.done()
        {
            // Never started, or it suspended although it was cancelled, which nothing of ours does.
            let _ = catch_unwind(AssertUnwindSafe(|| routine.force_unwind()));
        }
        self.retire();
    }
}

/// One call of a script, ready to be polled.
pub(crate) struct Fiber {
    /// The script, unless it is away.
    body: Option<Body>,
    away: Option<Arc<Away>>,
    wait: Option<Wait>,
    /// Where the script goes on when it takes long.
    lanes: Option<Arc<Lanes>>,
    /// Slices that it had on the thread that polls it since it last waited.
    slices: u32,
}

impl Fiber {
    /// A call that will run `body` on a stack of `pool`: on the thread that polls it while it is short, in `lanes` when it
    /// takes long, and from the beginning where it captures variables.
    ///
    /// # Errors
    /// `Unavailable` where the system has no room for another stack.
    pub(crate) fn new(
        call: Call,
        pool: Arc<StackPool>,
        lanes: Option<&Arc<Lanes>>,
        body: impl FnOnce(&Call) -> Answer + Send + 'static,
    ) -> Result<Self, ToolError> {
        let stack = pool.take().map_err(|error| {
            ToolError::new(ErrorKind::Unavailable, "the host has no room for another call now; try again later")
                .with_source(error)
        })?;
        let call = Rc::new(call);
        let inner = Rc::clone(&call);
        let routine = Coroutine::with_stack(stack, move |yielder, input| {
            if matches!(input, Resume::Cancel) {
                return Err(cancelled());
            }
            inner.way_back().0.set(Some(ptr::NonNull::from(yielder)));
            let answer = catch_unwind(AssertUnwindSafe(|| body(&inner)));
            inner.way_back().0.set(None);
            answer.unwrap_or_else(|panic| {
                let stopped = panic.is::<Stopped>();
                let error = || {
                    if stopped { inner.take_trip().unwrap_or_else(cancelled) } else { panicked(&*panic) }
                };
                Err(meter::outside(error))
            })
        });
        let body = Body { call, routine: Some(routine), pool };
        Ok(Self { body: Some(body), away: None, wait: None, lanes: lanes.map(Arc::clone), slices: 0 })
    }

    /// Lets the script run where it belongs. `None`: it is away.
    fn run(&mut self, input: Resume) -> Option<Stretch> {
        let mut body = self.body.take()?;
        let mut input = input;
        if let Some(lanes) = self.lanes.as_ref().filter(|_| body.call.captures() || self.slices >= SHORT) {
            match lanes.send(body, input) {
                Ok(away) => {
                    self.away = Some(away);
                    return None;
                }
                Err(back) => (body, input) = *back,
            }
        }
        let stretch = body.stretch(input, SLICE);
        self.body = Some(body);
        Some(stretch)
    }
}

impl Future for Fiber {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let this = &mut *self;
        loop {
            let stretch = if let Some(away) = &this.away {
                let Poll::Ready((body, stretch)) = away.poll(cx) else { return Poll::Pending };
                this.away = None;
                this.body = Some(body);
                stretch
            } else {
                let polled = this.wait.as_mut().map(|wait| catch_unwind(AssertUnwindSafe(|| wait.as_mut().poll(cx))));
                let input = match polled {
                    None => Resume::Go,
                    Some(Ok(Poll::Pending)) => return Poll::Pending,
                    Some(Ok(Poll::Ready(answer))) => Resume::Answer(answer),
                    Some(Err(panic)) => {
                        let call = this.body.as_ref().map(|body| &body.call);
                        call.into_iter().for_each(|call| call.trip(&panicked(&*panic)));
                        Resume::Cancel
                    }
                };
                this.wait = None;
                match this.run(input) {
                    Some(stretch) => stretch,
                    // Away, or polled after its end.
                    None if this.away.is_some() => continue,
                    None => return Poll::Ready(Err(cancelled())),
                }
            };
            match stretch {
                Stretch::Done(answer) => {
                    this.body = None;
                    return Poll::Ready(answer);
                }
                Stretch::Wait(wait) => {
                    this.slices = 0;
                    this.wait = Some(wait);
                }
                Stretch::Slice => {
                    this.slices = this.slices.saturating_add(1);
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
    }
}

impl Drop for Fiber {
    /// Cancels the script, in a lane if it has begun: its end may take as long as any operation.
    fn drop(&mut self) {
        self.wait = None;
        self.away.take().into_iter().for_each(|away| away.forget());
        if let Some(body) = self.body.take_if(|body| body.is_suspended())
            && let Some(lanes) = &self.lanes
        {
            lanes.bury(body);
        }
    }
}

/// Runs `body` to its end on a large stack: for parsing and what else recurses without being a call.
///
/// # Errors
/// `Unavailable` where the system has no room for another stack; `Panic` where `body` panicked.
pub(crate) fn on_large_stack<R>(pool: &StackPool, body: impl FnOnce() -> R) -> Result<R, ToolError> {
    let mut stack = pool.take().map_err(|error| {
        ToolError::new(ErrorKind::Unavailable, "the host has no room for another stack now").with_source(error)
    })?;
    let result = corosensei::on_stack(&mut stack, || catch_unwind(AssertUnwindSafe(body)));
    pool.give(stack);
    result.map_err(|panic| panicked(&*panic))
}

fn cancelled() -> ToolError {
    ToolError::new(ErrorKind::Cancelled, "the call was cancelled")
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> ToolError {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without text");
    ToolError::new(ErrorKind::Panic, "the tool failed because of a fault in the host; the operator can see why")
        .with_source(format!("panic inside a script call: {}", text.chars().take(1_000).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rhai::{Dynamic, Engine};

    /// Rhai's size limits count the elements of a value with all that is inside, so this is as deep as values get.
    #[test]
    fn the_deepest_value_within_the_limits_fits_on_the_stack() {
        let limits = toolbay_api::Limits::default();
        let pool = StackPool::new(1, needed_bytes(&limits));
        let levels = limits.max_array_len;
        let done = on_large_stack(&pool, || {
            let mut value = Dynamic::UNIT;
            for _ in 0..levels {
                value = Dynamic::from_map([("m".into(), Dynamic::from_array(vec![value]))].into());
            }
            let copy = value.clone();
            let mut engine = Engine::new_raw();
            engine.set_max_array_size(10).set_max_map_size(10);
            assert!(engine.ensure_data_size_within_limits(&copy).is_err());
            drop(copy);
            let text = format!("{value:?}");
            text.len()
        });
        assert!(done.is_ok_and(|text| text > limits.max_array_len));
    }
}
