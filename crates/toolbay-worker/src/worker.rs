//! One worker process as the host holds it: its calls, what goes out to it, what it needs to be driven.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io::{self, Write as _},
    mem::{self, Discriminant},
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;
use toolbay_api::{ErrorKind, Host, Limits, ToolContext, ToolError};

use crate::{
    death::Death,
    frame::{self, CallParts, Situation, Target},
    mail::{Letter, Mail},
    pool::{Owner, Slot},
    process::Process,
    scale::Scale,
    sys,
    wire::Writer,
};

/// Plugins that a worker keeps compiled; the one loaded first is forgotten.
const KEPT_PLUGINS: usize = 64;

/// Bytes that a frame may have beside the values in it.
const ENVELOPE_BYTES: usize = 64 << 10;

/// A plugin as it is sent to workers.
pub(crate) struct PluginSpec {
    /// Unique within the process.
    pub(crate) id: u64,
    pub(crate) package: Vec<u8>,
}

/// What a call brings along for its time in the worker.
pub(crate) struct CallSpec<'a> {
    pub(crate) plugin: &'a PluginSpec,
    pub(crate) limits: &'a Arc<Limits>,
    pub(crate) host: Option<Arc<dyn Host>>,
    pub(crate) context: Option<ToolContext>,
    pub(crate) work: Work<'a>,
    pub(crate) deadline: Instant,
}

/// What a worker is to do.
pub(crate) enum Work<'a> {
    Load,
    Call { target: Target<'a>, situation: Situation<'a>, input: &'a serde_json::Value },
}

/// One call as the driver sees it.
pub(crate) struct Entry {
    pub(crate) mail: Arc<Mail>,
    pub(crate) host: Option<Arc<dyn Host>>,
    pub(crate) context: Option<ToolContext>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) host_calls: u64,
    /// Bytes of log lines.
    pub(crate) logged: usize,
    /// The kinds of errors that the host answered with; each stands there once.
    pub(crate) refusals: Vec<Discriminant<ErrorKind>>,
    /// Whether the script waits for the host.
    pub(crate) is_asking: bool,
    /// Set when nobody waits for the call any more: it has until then to end.
    pub(crate) ends_by: Option<Instant>,
    /// The call's place in the pool; given back when the worker is done with it.
    slot: Slot,
}

impl Entry {
    /// Gives the place in the pool back and then tells the call, which may want it for its next.
    pub(crate) fn close(self, letter: Letter) {
        drop(self.slot);
        self.mail.put(letter);
    }
}

/// What is under the worker's lock.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) calls: HashMap<u64, Entry>,
    out: Vec<u8>,
    loaded: HashSet<u64>,
    loaded_in_order: VecDeque<u64>,
    last_call: u64,
    is_dead: bool,
}

/// One worker process.
pub(crate) struct Worker {
    pub(crate) id: u64,
    pub(crate) process: Process,
    pub(crate) scale: Scale,
    /// Written to by whoever has something to send; read by the driver alone.
    pub(crate) socket: UnixStream,
    /// Wakes the driver: something is left to write, or a call must end by some time.
    pub(crate) control: Notify,
    // std's Mutex: held for queueing and for a write that does not block.
    state: Mutex<State>,
    pub(crate) owner: OnceLock<Owner>,
    pub(crate) top: AtomicUsize,
    pub(crate) nested: AtomicUsize,
    /// Calls that wait for the host.
    pub(crate) asking: AtomicUsize,
    /// Calls that nobody waits for any more and that have not ended.
    pub(crate) doubtful: AtomicUsize,
    pub(crate) served: AtomicU64,
    pub(crate) is_retiring: AtomicBool,
    pub(crate) is_gone: AtomicBool,
    pub(crate) last_used: AtomicU64,
    /// Bytes of the heap after the first call.
    baseline: AtomicU64,
    /// The longest frame that the worker may send.
    pub(crate) longest_frame: AtomicUsize,
    grace: Duration,
}

/// What a driver has to look after.
pub(crate) struct Duties {
    pub(crate) has_output: bool,
    pub(crate) has_calls: bool,
    /// When a call that nobody waits for must have ended.
    pub(crate) ends_by: Option<Instant>,
}

/// The worker is gone; nothing of the call was begun.
pub(crate) struct Gone(pub(crate) Slot);

impl Worker {
    pub(crate) fn new(id: u64, process: Process, socket: UnixStream, scale: Scale, grace: Duration) -> Self {
        Self {
            id,
            process,
            scale,
            socket,
            control: Notify::new(),
            state: Mutex::default(),
            owner: OnceLock::new(),
            top: AtomicUsize::new(0),
            nested: AtomicUsize::new(0),
            asking: AtomicUsize::new(0),
            doubtful: AtomicUsize::new(0),
            served: AtomicU64::new(0),
            is_retiring: AtomicBool::new(false),
            is_gone: AtomicBool::new(false),
            last_used: AtomicU64::new(0),
            baseline: AtomicU64::new(u64::MAX),
            longest_frame: AtomicUsize::new(2 << 20),
            grace,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls of all kinds.
    pub(crate) fn load(&self) -> usize {
        self.top.load(Relaxed) + self.nested.load(Relaxed)
    }

    /// Calls that do not wait for the host.
    pub(crate) fn running(&self) -> usize {
        self.load().saturating_sub(self.asking.load(Relaxed))
    }

    /// Begins a call.
    ///
    /// # Errors
    /// [`Gone`] with the place in the pool.
    pub(crate) fn submit(self: &Arc<Self>, spec: CallSpec<'_>, slot: Slot) -> Result<InFlight, Gone> {
        let mail = Arc::new(Mail::default());
        let largest = spec.limits.max_output_bytes.max(spec.limits.max_argument_bytes);
        self.longest_frame.fetch_max(largest.saturating_add(ENVELOPE_BYTES), Relaxed);
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.is_dead {
            return Err(Gone(slot));
        }
        state.last_call += 1;
        let call = state.last_call;
        let was_empty = state.out.is_empty();
        self.write_load(state, call, &spec);
        if let Work::Call { target, situation, input } = &spec.work {
            let parts = CallParts {
                call,
                plugin: spec.plugin.id,
                target,
                deadline: sys::monotonic().saturating_add(spec.deadline.saturating_duration_since(Instant::now())),
                limits: spec.limits,
                situation,
                input,
            };
            frame::write_call(&mut state.out, &parts);
        }
        let entry = Entry {
            mail: Arc::clone(&mail),
            host: spec.host,
            context: spec.context,
            limits: Arc::clone(spec.limits),
            host_calls: 0,
            logged: 0,
            refusals: Vec::new(),
            is_asking: false,
            ends_by: None,
            slot,
        };
        state.calls.insert(call, entry);
        if was_empty {
            self.flush(state);
        }
        drop(guard);
        Ok(InFlight { worker: Arc::clone(self), call, mail, deadline: spec.deadline, is_over: false })
    }

    /// Sends the plugin along where the worker lacks it, or where it is what the call is about.
    fn write_load(&self, state: &mut State, call: u64, spec: &CallSpec<'_>) {
        let (plugin, answer) = (spec.plugin.id, matches!(spec.work, Work::Load));
        if !state.loaded.insert(plugin) && !answer {
            return;
        }
        frame::write_load(&mut state.out, call, plugin, answer, &spec.plugin.package);
        state.loaded_in_order.push_back(plugin);
        if state.loaded_in_order.len() > KEPT_PLUGINS
            && let Some(oldest) = state.loaded_in_order.pop_front()
        {
            state.loaded.remove(&oldest);
            frame::write_unload(&mut state.out, oldest);
        }
    }

    /// Answers a request of a call, with `refusal` where that is an error. The answer of a call that is over is dropped.
    pub(crate) fn reply(&self, call: u64, refusal: Option<&ToolError>, answer: impl FnOnce(&mut Writer<'_>)) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(entry) = state.calls.get_mut(&call) else { return };
        if mem::take(&mut entry.is_asking) {
            self.asking.fetch_sub(1, Relaxed);
        }
        if let Some(kind) = refusal.map(|error| mem::discriminant(&error.kind))
            && !entry.refusals.contains(&kind)
        {
            entry.refusals.push(kind);
        }
        let was_empty = state.out.is_empty();
        frame::write_reply(&mut state.out, call, answer);
        if was_empty {
            self.flush(state);
        }
    }

    /// Writes what the socket takes now; the driver does the rest.
    fn flush(&self, state: &mut State) {
        match (&self.socket).write(&state.out) {
            Ok(written) if written == state.out.len() => {
                state.out.clear();
                state.out.shrink_to(256 << 10);
            }
            Ok(written) => {
                state.out.drain(..written);
                self.control.notify_one();
            }
            // A socket that is closed is the driver's to see.
            Err(_) => self.control.notify_one(),
        }
    }

    /// Writes what is left. Called by the driver when the socket is ready.
    pub(crate) fn flush_rest(&self) -> io::Result<()> {
        let mut state = self.lock();
        match (&self.socket).write(&state.out) {
            Ok(written) => {
                state.out.drain(..written);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What the driver has to look after now.
    pub(crate) fn duties(&self) -> Duties {
        let state = self.lock();
        let is_doubtful = self.doubtful.load(Relaxed) > 0;
        let ends = is_doubtful.then(|| state.calls.values().filter_map(|entry| entry.ends_by).min());
        Duties { has_output: !state.out.is_empty(), has_calls: !state.calls.is_empty(), ends_by: ends.flatten() }
    }

    /// What the process weighs, if that is too much for the calls in it.
    pub(crate) fn excess(&self) -> Option<u64> {
        let calls = {
            let state = self.lock();
            let limits = state.calls.values().map(|entry| entry.limits.max_memory_bytes);
            limits.fold(0_u64, u64::saturating_add)
        };
        self.scale.excess(calls)
    }

    /// The call that had to end by now.
    pub(crate) fn overrun(&self, now: Instant) -> Option<u64> {
        let state = self.lock();
        state.calls.iter().find(|(_, entry)| entry.ends_by.is_some_and(|by| by <= now)).map(|(call, _)| *call)
    }

    /// Bytes of the frame that ends `call`, if there is such a call. A tool's answer has a limit, which the sandbox keeps
    /// to the byte; this is for a worker that is no sandbox any more.
    pub(crate) fn longest_answer(&self, call: u64) -> Option<usize> {
        let state = self.lock();
        let entry = state.calls.get(&call)?;
        Some(match entry.context {
            Some(_) => entry.limits.max_output_bytes.saturating_add(ENVELOPE_BYTES),
            None => self.longest_frame.load(Relaxed),
        })
    }

    /// Takes a call out when the worker is done with it.
    pub(crate) fn take(&self, call: u64) -> Option<Entry> {
        let entry = self.lock().calls.remove(&call)?;
        if entry.is_asking {
            self.asking.fetch_sub(1, Relaxed);
        }
        if entry.ends_by.is_some() {
            self.doubtful.fetch_sub(1, Relaxed);
        }
        Some(entry)
    }

    /// Notes what the heap holds, and tells whether it is too much more than after the first call.
    pub(crate) fn has_residue(&self, heap_bytes: u64, allowed: u64) -> bool {
        self.scale.note_own(heap_bytes);
        let baseline = self.baseline.fetch_min(heap_bytes, Relaxed).min(heap_bytes);
        heap_bytes - baseline > allowed
    }

    /// Tells every call that the worker is no more.
    pub(crate) fn die(&self, death: Death) {
        self.is_gone.store(true, Relaxed);
        let calls = {
            let mut state = self.lock();
            state.is_dead = true;
            state.out = Vec::new();
            mem::take(&mut state.calls)
        };
        let running = calls.values().filter(|entry| !entry.is_asking).count();
        for (call, entry) in calls {
            let sole = !entry.is_asking && running == 1;
            let error = death.error(call, entry.limits.max_memory_bytes, sole);
            entry.close(Letter::Lost(error));
        }
    }
}

/// A call in a worker. Dropping it cancels the call.
pub(crate) struct InFlight {
    pub(crate) worker: Arc<Worker>,
    pub(crate) call: u64,
    pub(crate) mail: Arc<Mail>,
    pub(crate) deadline: Instant,
    /// Whether the driver has said that it is over.
    pub(crate) is_over: bool,
}

impl InFlight {
    /// Gives the call up: it is told to end, and its worker is killed if it has not within `time`.
    pub(crate) fn give_up(&mut self, time: Duration) {
        if mem::replace(&mut self.is_over, true) {
            return;
        }
        let (worker, now) = (&self.worker, Instant::now());
        // Its caller keeps the deadline as well as its worker does, and may be the first.
        if self.deadline <= now {
            worker.is_retiring.store(true, Relaxed);
        }
        let mut guard = worker.lock();
        let state = &mut *guard;
        let Some(entry) = state.calls.get_mut(&self.call) else { return };
        entry.ends_by = Some(now + time);
        worker.doubtful.fetch_add(1, Relaxed);
        let was_empty = state.out.is_empty();
        frame::write_cancel(&mut state.out, self.call);
        if was_empty {
            worker.flush(state);
        }
        worker.control.notify_one();
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.give_up(self.worker.grace);
    }
}
