//! The state of one call: what it may use, what it used, and how it was stopped.
//!
//! Rhai's own counter of operations forgets what is counted inside callbacks, and its limit errors carry no figures.
//! So budget, deadline, cancellation and the first limit that tripped live here, and Rhai only learns that it must
//! stop: by [`terminated`], an error that no script can catch.

use std::{
    cell::{Cell, RefCell},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use rhai::{Dynamic, EvalAltResult, Position};
use serde_json::Value;
use toolbay_api::{ErrorKind, Host, Limit, Limits, LogLevel, ToolContext, ToolError};

use crate::{
    fiber::{self, Answer, WayBack},
    meter::{self, Account},
};

/// Operations between two looks at the clock where operations are quick.
const LONGEST_WINDOW: u64 = 32;

/// Bytes that one operation can go through times operations between two looks at the clock. An operation of Rhai's own,
/// such as writing one character of a long text, can take as long as it takes to go through all that the call holds.
const WINDOW_BYTES: u64 = 2 << 20;

/// Above this, operations are slow and the clock is read more often.
const SLOW_WINDOW: Duration = Duration::from_micros(50);

/// How the names of functions without a name begin.
const ANONYMOUS: &str = "anon$";

/// Bytes beyond the limit that one operation may take before it is left where it stands. Past the limit the call ends at
/// its next operation; this is for the operation that would take all memory there is.
const LEAST_SLACK: u64 = 32 << 20;

/// The result of a function that scripts call.
pub(crate) type HostResult<T> = Result<T, Box<EvalAltResult>>;

/// The state of one call. Reached by host functions through [`with`].
pub(crate) struct Call {
    limits: Arc<Limits>,
    deadline: Instant,
    /// When it first ran.
    started: Cell<Option<Instant>>,
    host: Arc<dyn Host>,
    /// Where the usage is written down; hooks have none.
    context: Option<ToolContext>,
    way_back: WayBack,
    /// Operations of the present window, and how many of them are left.
    window: Cell<u64>,
    fuel: Cell<u64>,
    /// Operations of the windows before.
    spent: Cell<u64>,
    window_began: Cell<Instant>,
    slice_began: Cell<Instant>,
    slice: Cell<Duration>,
    cancelled: Cell<bool>,
    /// Whether functions of the script capture variables.
    captures: bool,
    /// Bytes held while the call does not run, and the most that were seen.
    account: Cell<Account>,
    peak: Cell<isize>,
    /// Where bytes are added up that calls leave behind.
    left_behind: Option<Arc<AtomicU64>>,
    host_calls: Cell<u64>,
    logged: Cell<usize>,
    /// What stopped the call. Set once.
    trip: RefCell<Option<ToolError>>,
    /// What the script ended with on its own.
    exited: RefCell<Option<Dynamic>>,
    /// Errors that host functions threw into the script, the newest last; their maps carry the index as tag.
    thrown: RefCell<Vec<ToolError>>,
}

impl Call {
    /// A call that begins now.
    pub(crate) fn new(
        limits: Arc<Limits>,
        deadline: Instant,
        host: Arc<dyn Host>,
        context: Option<ToolContext>,
    ) -> Self {
        Self {
            limits,
            deadline,
            started: Cell::new(None),
            host,
            context,
            way_back: WayBack::default(),
            window: Cell::new(LONGEST_WINDOW),
            fuel: Cell::new(LONGEST_WINDOW),
            spent: Cell::new(0),
            // Both are set when the first slice begins.
            window_began: Cell::new(deadline),
            slice_began: Cell::new(deadline),
            slice: Cell::default(),
            cancelled: Cell::new(false),
            captures: false,
            account: Cell::default(),
            peak: Cell::new(0),
            left_behind: None,
            host_calls: Cell::new(0),
            logged: Cell::new(0),
            trip: RefCell::new(None),
            exited: RefCell::new(None),
            thrown: RefCell::new(Vec::new()),
        }
    }

    /// Says whether functions of the script capture variables: then it begins in a lane, and its chains of values are
    /// counted.
    pub(crate) fn capturing(mut self, captures: bool) -> Self {
        self.captures = captures;
        self
    }

    /// Has the bytes that the call leaves behind at its end added to `sum`.
    pub(crate) fn leaving_to(mut self, sum: &Arc<AtomicU64>) -> Self {
        self.left_behind = Some(Arc::clone(sum));
        self
    }

    /// What the call may hold at the very most: twice its limit.
    pub(crate) fn ceiling(&self) -> isize {
        let limit = self.limits.max_memory_bytes;
        isize::try_from(limit.saturating_add(LEAST_SLACK.max(limit))).unwrap_or(isize::MAX)
    }

    /// Ends the call in the middle of an operation that took too much memory.
    pub(crate) fn give_up(&self, held: isize) {
        let used = u64::try_from(held).unwrap_or(0);
        self.peak.set(self.peak.get().max(held));
        self.trip(&ToolError::limit(Limit::Memory, self.limits.max_memory_bytes, used));
    }

    /// What the call holds while it does not run.
    pub(crate) fn account(&self) -> Account {
        self.account.get()
    }

    /// Sets what the call holds when it stops running for a while.
    pub(crate) fn set_account(&self, account: Account) {
        self.account.set(account);
    }

    /// What the call may use.
    pub(crate) fn limits(&self) -> &Arc<Limits> {
        &self.limits
    }

    /// Time left.
    pub(crate) fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// The plugin's way out.
    pub(crate) fn host(&self) -> &Arc<dyn Host> {
        &self.host
    }

    pub(crate) fn way_back(&self) -> &WayBack {
        &self.way_back
    }

    /// One step of the interpreter where neither memory nor the window asks for a closer look.
    #[inline]
    pub(crate) fn step_quickly(&self, held: isize) -> bool {
        let fuel = self.fuel.get();
        let quick = fuel > 1 && held <= self.peak.get();
        if quick {
            self.fuel.set(fuel - 1);
        }
        quick
    }

    /// One step of the interpreter, with the bytes held at this instant.
    #[inline]
    fn step(&self, held: isize) -> bool {
        if held > self.peak.get() {
            self.rise(held);
        }
        self.spend(1)
    }

    /// Notes a new peak, and trips where it is too high.
    fn rise(&self, held: isize) {
        self.peak.set(held);
        let (held, allowed) = (u64::try_from(held).unwrap_or(0), self.limits.max_memory_bytes);
        if held > allowed {
            self.trip(&ToolError::limit(Limit::Memory, allowed, held));
        }
    }

    /// Counts `operations`; false where the call must end. The progress callback's whole work nearly always ends at
    /// the first comparison.
    #[inline]
    pub(crate) fn spend(&self, operations: u64) -> bool {
        let fuel = self.fuel.get();
        if operations < fuel {
            self.fuel.set(fuel - operations);
            return true;
        }
        self.end_window(operations)
    }

    /// Looks at everything that can end the call, lets others run where the slice is over, and begins a new window.
    #[cold]
    fn end_window(&self, operations: u64) -> bool {
        let used = self.window.get() - self.fuel.get();
        let total = self.spent.get().saturating_add(used).saturating_add(operations);
        self.spent.set(total);
        if self.is_over() {
            self.window.set(0);
            self.fuel.set(0);
            return false;
        }
        let allowed = self.limits.max_operations;
        if total > allowed {
            self.trip(&ToolError::limit(Limit::Operations, allowed, total));
            return false;
        }
        // Captured values are in no limit of sizes, so a chain of them could be as long as memory allows.
        if self.captures {
            let (stack, allowed) = (meter::account().stack_bytes(), self.limits.max_memory_bytes);
            if stack > allowed {
                self.trip(&ToolError::limit(Limit::Memory, allowed, stack));
                return false;
            }
        }
        let now = Instant::now();
        if now >= self.deadline {
            self.trip(&self.timed_out());
            return false;
        }
        // Looked at before others run: what comes back from them begins a new slice, and the window's beginning with it.
        let is_slow = now.duration_since(self.window_began.get()) > SLOW_WINDOW;
        if now.duration_since(self.slice_began.get()) >= self.slice.get() {
            fiber::pause(self);
            if self.cancelled.get() {
                return false;
            }
        }
        let window = if is_slow { 1 } else { (self.window.get().max(1) * 2).min(longest_window(meter::held())) };
        let window = window.min(allowed - total + 1);
        self.window.set(window);
        self.fuel.set(window);
        self.window_began.set(Instant::now());
        true
    }

    /// Whether functions of the script capture variables.
    pub(crate) fn captures(&self) -> bool {
        self.captures
    }

    /// Begins a slice of time. Called by whoever lets the script run, before.
    pub(crate) fn begin_slice(&self, slice: Duration) {
        self.slice.set(slice);
        let now = Instant::now();
        if self.started.get().is_none() {
            self.started.set(Some(now));
        }
        self.slice_began.set(now);
        self.window_began.set(now);
    }

    /// Ends the call at its next operation.
    pub(crate) fn cancel(&self) {
        self.cancelled.set(true);
        self.close_window();
    }

    /// Whether the call was cancelled or stopped: nothing may be waited for any more.
    pub(crate) fn is_over(&self) -> bool {
        self.cancelled.get() || self.trip.borrow().is_some() || self.exited.borrow().is_some()
    }

    /// Operations so far.
    pub(crate) fn operations(&self) -> u64 {
        self.spent.get() + (self.window.get() - self.fuel.get())
    }

    /// Writes down what was used.
    pub(crate) fn settle(&self) {
        if let Some(context) = &self.context {
            context.usage().set_operations(self.operations());
            context.usage().set_peak_bytes(u64::try_from(self.peak.get()).unwrap_or(0));
        }
        // What crosses the border is made and dropped outside of the account, so a call that ended holds nothing.
        if let (Some(sum), Ok(left @ 1..)) = (&self.left_behind, u64::try_from(self.account.get().bytes)) {
            sum.fetch_add(left, Ordering::Relaxed);
        }
    }

    /// Records what stops the call; the first one counts.
    pub(crate) fn trip(&self, error: &ToolError) {
        let mut trip = self.trip.borrow_mut();
        if trip.is_none() {
            // It outlives the call.
            *trip = Some(meter::outside(|| error.clone()));
        }
        drop(trip);
        self.close_window();
    }

    /// Has the next operation look at everything.
    fn close_window(&self) {
        let used = self.window.get() - self.fuel.get();
        self.spent.set(self.spent.get().saturating_add(used));
        self.window.set(0);
        self.fuel.set(0);
    }

    /// What stopped the call, if anything did.
    pub(crate) fn take_trip(&self) -> Option<ToolError> {
        if self.cancelled.get() {
            return Some(ToolError::new(ErrorKind::Cancelled, "the call was cancelled"));
        }
        self.trip.borrow_mut().take()
    }

    fn timed_out(&self) -> ToolError {
        let started = self.started.get().unwrap_or(self.deadline);
        let allowed = self.deadline.saturating_duration_since(started).as_millis();
        ToolError::new(
            ErrorKind::TimedOut,
            format!("the tool did not finish within the {allowed} ms that it had; ask for less at once or try again"),
        )
    }

    /// Counts one host function call.
    ///
    /// # Errors
    /// The error that ends the script, past [`Limits::max_host_calls`].
    pub(crate) fn count_host_call(&self) -> HostResult<()> {
        let calls = self.host_calls.get() + 1;
        self.host_calls.set(calls);
        if let Some(context) = &self.context {
            context.usage().count_host_call();
        }
        let allowed = self.limits.max_host_calls;
        if calls > allowed {
            return Err(self.stop(ToolError::limit(Limit::HostCalls, allowed, calls)));
        }
        Ok(())
    }

    /// Stops the call with `error` without the script's taking part any more, where the program can unwind.
    pub(crate) fn leave(&self, error: &ToolError) -> Box<EvalAltResult> {
        self.trip(error);
        if cfg!(panic = "unwind") {
            std::panic::resume_unwind(Box::new(Stopped));
        }
        terminated()
    }

    /// Ends the script well, with this result, wherever in it this is.
    pub(crate) fn exit(&self, value: Dynamic) -> Box<EvalAltResult> {
        if !self.is_over() {
            *self.exited.borrow_mut() = Some(value);
            self.close_window();
        }
        terminated()
    }

    /// What the script ended with by [`exit`](Self::exit).
    pub(crate) fn take_exit(&self) -> Option<Dynamic> {
        self.exited.borrow_mut().take()
    }

    /// Stops the call with `error`.
    pub(crate) fn stop(&self, error: ToolError) -> Box<EvalAltResult> {
        self.trip(&error);
        terminated()
    }

    /// Counts operations for work that grows with the size of its input: one for each 64 bytes or each element.
    ///
    /// # Errors
    /// The error that ends the script.
    pub(crate) fn charge(&self, operations: usize) -> HostResult<()> {
        if self.spend(operations as u64) { Ok(()) } else { Err(terminated()) }
    }

    /// Refuses a string of `bytes` before it is built.
    ///
    /// # Errors
    /// The error that ends the script, past [`Limits::max_string_bytes`].
    pub(crate) fn admit_string(&self, bytes: usize) -> HostResult<()> {
        self.admit(Limit::StringSize, self.limits.max_string_bytes, bytes)
    }

    /// Refuses an array of `len` elements before it is built.
    ///
    /// # Errors
    /// The error that ends the script, past [`Limits::max_array_len`].
    pub(crate) fn admit_array(&self, len: usize) -> HostResult<()> {
        self.admit(Limit::ArraySize, self.limits.max_array_len, len)
    }

    fn admit(&self, limit: Limit, allowed: usize, used: usize) -> HostResult<()> {
        if used > allowed {
            return Err(self.stop(ToolError::limit(limit, allowed as u64, used as u64)));
        }
        Ok(())
    }

    /// Waits for the answer of the host to what `ask` asks, and gives what `read` makes of it.
    ///
    /// # Errors
    /// The host's own, thrown into the script as a map that it can catch; limits, time-outs and cancellation end it.
    pub(crate) fn wait<F, R>(
        &self,
        ask: impl FnOnce() -> F,
        read: impl FnOnce(&Value) -> HostResult<R>,
    ) -> HostResult<R>
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let answer = self.answer(ask)?;
        self.read(answer, false, read)
    }

    /// Waits for another tool. Its failure, a limit of its own included, is an answer that the script can catch.
    ///
    /// # Errors
    /// The other tool's own; cancellation ends the script.
    pub(crate) fn wait_for_tool<F, R>(
        &self,
        ask: impl FnOnce() -> F,
        read: impl FnOnce(&Value) -> HostResult<R>,
    ) -> HostResult<R>
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let answer = self.answer(ask)?;
        self.read(answer, true, read)
    }

    /// Asks the host what it answers at once, and gives what `read` makes of it.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub(crate) fn ask<T, R>(
        &self,
        ask: impl FnOnce(&Arc<dyn Host>) -> Result<T, ToolError>,
        read: impl FnOnce(&T) -> HostResult<R>,
    ) -> HostResult<R> {
        self.read(meter::outside(|| ask(&self.host)), false, read)
    }

    /// Makes a value that the host takes over.
    ///
    /// # Errors
    /// As [`throw`](Self::throw).
    pub(crate) fn give<T>(&self, make: impl FnOnce() -> Result<T, ToolError>) -> HostResult<T> {
        meter::outside(make).map_err(|error| self.refuse(error, false))
    }

    fn answer<F: Future<Output = Answer> + Send + 'static>(&self, ask: impl FnOnce() -> F) -> HostResult<Answer> {
        let question = meter::outside(|| Box::pin(ask()));
        fiber::wait(self, question).ok_or_else(terminated)
    }

    /// What the host made is the host's: it is read, copied and dropped, so that the script pays for what it keeps.
    fn read<T, R>(
        &self,
        answer: Result<T, ToolError>,
        catchable: bool,
        read: impl FnOnce(&T) -> HostResult<R>,
    ) -> HostResult<R> {
        match answer {
            Ok(value) => read(&meter::Outside::of(value)),
            Err(error) => Err(self.refuse(error, catchable)),
        }
    }

    /// The script error for an error that was made outside.
    fn refuse(&self, error: ToolError, catchable: bool) -> Box<EvalAltResult> {
        if is_final(&error) && !catchable {
            self.trip(&meter::Outside::of(error));
            return terminated();
        }
        let thrown = thrown_map(&error);
        self.remember(error, thrown)
    }

    /// The value, or an error of ours thrown into the script.
    ///
    /// # Errors
    /// As [`throw`](Self::throw).
    pub(crate) fn unwrap<T>(&self, answer: Result<T, ToolError>) -> HostResult<T> {
        answer.map_err(|error| self.throw(error))
    }

    /// The script error for `error`: a map `#{kind, message, details, retryable}`. Limits, time-outs and cancellation
    /// end the script instead.
    pub(crate) fn throw(&self, error: ToolError) -> Box<EvalAltResult> {
        if is_final(&error) {
            return self.stop(error);
        }
        let thrown = thrown_map(&error);
        self.remember(meter::outside(|| error.clone()), thrown)
    }

    /// The script error with the map `thrown`, which stands for `error`, made outside.
    fn remember(&self, error: ToolError, thrown: rhai::Map) -> Box<EvalAltResult> {
        let mut map = Dynamic::from_map(thrown);
        let mut thrown = self.thrown.borrow_mut();
        let tag = meter::outside(|| {
            // Tags are small integers; a script that throws and catches in a loop goes round.
            if thrown.len() >= 32 {
                thrown.clear();
            }
            thrown.push(error);
            thrown.len()
        });
        map.set_tag(i32::try_from(tag).unwrap_or_default());
        EvalAltResult::ErrorRuntime(map, Position::NONE).into()
    }

    /// The host's error that `value` was made from, if the script threw it on or never caught it.
    pub(crate) fn thrown(&self, value: &Dynamic) -> Option<ToolError> {
        let index = usize::try_from(value.tag()).ok()?.checked_sub(1)?;
        let map = value.as_map_ref().ok()?;
        let message = map.get("message")?.as_immutable_string_ref().ok()?;
        let thrown = self.thrown.borrow();
        // A script can forge the tag. It gains an error that it met before, and only by quoting it.
        thrown.get(index).filter(|error| *error.message == **message).cloned()
    }

    /// Writes a line to the plugin's log, as long as the call's share of it lasts.
    pub(crate) fn log(&self, level: LogLevel, text: &str) {
        let allowed = self.limits.max_log_bytes;
        let logged = self.logged.get();
        if logged > allowed {
            return;
        }
        self.logged.set(logged.saturating_add(text.len()).max(logged + 1));
        // The line that goes over the limit is given on, so that the host can say once that lines were dropped.
        let text = cut(text, allowed);
        meter::outside(|| self.host.log(level, text));
    }
}

/// The state of the call that runs on this thread.
///
/// # Errors
/// Outside of a call: a host function is never run there, and nothing of a script may be.
pub(crate) fn with<R>(body: impl FnOnce(&Call) -> HostResult<R>) -> HostResult<R> {
    fiber::with_current(body).unwrap_or_else(|| Err(terminated()))
}

/// The progress callback: `Some` ends the script.
#[inline(never)]
pub(crate) fn progress() -> Option<Dynamic> {
    if fiber::step_quickly() { None } else { look_closer() }
}

/// The progress callback where something may be up.
#[cold]
#[inline(never)]
fn look_closer() -> Option<Dynamic> {
    let held = meter::held();
    let may_go_on = fiber::with_current(|call| call.step(held)).unwrap_or(false);
    (!may_go_on).then_some(Dynamic::UNIT)
}

/// What a stopped script is unwound with. Not a panic: no hook sees it.
pub(crate) struct Stopped;

/// The error that no script can catch. What it stands for is in [`Call::take_trip`].
pub(crate) fn terminated() -> Box<EvalAltResult> {
    EvalAltResult::ErrorTerminated(Dynamic::UNIT, Position::NONE).into()
}

/// What a script that catches `error` gets.
fn thrown_map(error: &ToolError) -> rhai::Map {
    let mut map = rhai::Map::new();
    map.insert("kind".into(), error.kind.name().into());
    map.insert("message".into(), error.message.as_ref().into());
    map.insert("details".into(), crate::convert::to_dynamic(&error.details));
    map.insert("retryable".into(), error.retryable.into());
    map
}

/// Operations between two looks at the clock where the call holds so many bytes.
fn longest_window(held: isize) -> u64 {
    let held = u64::try_from(held).unwrap_or(0);
    WINDOW_BYTES.checked_div(held).unwrap_or(LONGEST_WINDOW).clamp(1, LONGEST_WINDOW)
}

/// Whether a script must not be able to catch `error`.
fn is_final(error: &ToolError) -> bool {
    // A quota of the store or the depth of tool calls is an answer to this one request: the script may do with less.
    match error.kind {
        ErrorKind::TimedOut | ErrorKind::Cancelled => true,
        ErrorKind::LimitExceeded { limit, .. } => {
            !matches!(limit, Limit::Storage | Limit::CallChain | Limit::EventDepth | Limit::Concurrency | Limit::Rate)
        }
        _ => false,
    }
}

/// A function's name, without what Rhai makes of it for one that has none: a hash that differs from process to process.
pub(crate) fn without_seed(name: &str) -> &str {
    if name.starts_with(ANONYMOUS) { "anon" } else { name }
}

/// The name of a type without the modules that it lies in.
pub(crate) fn short_type(name: &str) -> &str {
    let path = name.split('<').next().unwrap_or(name);
    path.rsplit("::").next().unwrap_or(path)
}

/// The beginning of `text`, at most `bytes` long.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    let end = text.floor_char_boundary(bytes);
    text.get(..end).unwrap_or(text)
}
