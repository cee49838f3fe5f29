//! Reads what a worker sends, until its end. Everything that comes is hostile.

use std::{
    io,
    mem::{self, Discriminant},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::UnixStream,
    },
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::MissedTickBehavior,
};
use toolbay_api::{ErrorKind, Host, Limit, ToolError};

use crate::{
    death::Death,
    fault,
    frame::{self, FromWorker, LastWord, Outcome, Request, Spent},
    mail::Letter,
    sys::{self, Wait},
    wire::{Inbox, Malformed, Writer},
    worker::{Duties, Worker},
};

/// How often a worker with calls is weighed, and how long a call lasts before that begins: a short one costs no timer
/// of the driver's.
pub(crate) const WATCH: Duration = Duration::from_millis(5);

/// What the driver needs to know of the pool's shape.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) max_residue_bytes: u64,
    pub(crate) max_asset_bytes: u64,
}

/// A worker's socket, to be read from.
pub(crate) type Reader = AsyncFd<OwnedFd>;

/// Has the runtime tell when there is something to read, and that only: a socket that is watched for writing, too, wakes
/// its reader each time that the other side has taken something out, once more for each call.
///
/// # Errors
/// The system's own.
pub(crate) fn reader(socket: &UnixStream) -> io::Result<Reader> {
    sys::watch(socket.as_fd(), Interest::READABLE)
}

/// Drives `worker` until it ends, and says how. The caller buries it.
pub(crate) async fn drive(worker: &Arc<Worker>, mut reader: Reader, mut inbox: Inbox, bounds: Bounds) -> Death {
    let mut last_word = None;
    let mut watch = tokio::time::interval(WATCH);
    watch.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Watched for writing while something is left to write.
    let mut outlet = None;
    let end = |last_word: Option<(u64, LastWord)>| {
        last_word.map_or(Death::Silent(None), |(call, word)| Death::Said(call, word))
    };
    loop {
        let Duties { has_output, has_calls, ends_by } = worker.duties();
        if has_output && outlet.is_none() {
            match sys::watch(worker.socket.as_fd(), Interest::WRITABLE) {
                Ok(writer) => outlet = Some(writer),
                Err(_) => return end(last_word),
            }
        } else if !has_output {
            outlet = None;
        }
        let deadline = async {
            match ends_by {
                Some(by) => tokio::time::sleep_until(by.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            received = read(&mut reader, &mut inbox) => {
                if !matches!(received, Ok(1..)) {
                    return end(last_word);
                }
                if let Err(malformed) = take_frames(worker, &mut inbox, bounds, &mut last_word) {
                    return Death::Violation(malformed);
                }
                // A worker that never stops sending must not keep a thread of the host for itself.
                tokio::task::coop::consume_budget().await;
            }
            () = worker.control.notified() => {}
            ready = writable(outlet.as_ref()), if has_output => {
                if ready.is_err() || worker.flush_rest().is_err() {
                    return end(last_word);
                }
            }
            _ = watch.tick(), if has_calls => {
                if let Some(used) = worker.excess() {
                    return Death::Overweight(used);
                }
            }
            () = deadline => {
                if let Some(call) = worker.overrun(Instant::now()) {
                    return Death::Overrun(call);
                }
            }
        }
    }
}

/// Reads what has come, or waits for it; 0 at the end.
///
/// # Errors
/// The system's own.
///
/// # Cancel safety
/// Dropped before it resolves, it has read nothing.
pub(crate) async fn read(reader: &mut Reader, inbox: &mut Inbox) -> io::Result<usize> {
    loop {
        let mut ready = reader.readable_mut().await?;
        match sys::receive(ready.get_inner().as_fd(), inbox.space(), Wait::No) {
            Ok(received) => {
                // Less than there was room for is all that there was; what comes next is announced anew.
                if received < sys::AT_ONCE {
                    ready.clear_ready();
                }
                return Ok(received);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Waits until something can be written.
async fn writable(outlet: Option<&AsyncFd<OwnedFd>>) -> io::Result<()> {
    let Some(outlet) = outlet else { return std::future::pending().await };
    // Cleared before writing: room that is made from then on is announced anew.
    outlet.writable().await?.clear_ready();
    Ok(())
}

/// Handles every whole frame.
pub(crate) fn take_frames(
    worker: &Arc<Worker>,
    inbox: &mut Inbox,
    bounds: Bounds,
    last_word: &mut Option<(u64, LastWord)>,
) -> Result<(), Malformed> {
    while let Some(content) = inbox.next(worker.longest_frame.load(Relaxed))? {
        // Before it is read, since values take many times their bytes.
        if let Some(call) = frame::end_of(content)
            && worker.longest_answer(call).is_none_or(|longest| content.len() > longest)
        {
            return Err(Malformed("an answer that its call may not give"));
        }
        match FromWorker::read(content)? {
            FromWorker::Done { call, spent, outcome } => done(worker, call, spent, outcome, bounds)?,
            FromWorker::Request { call, request } => requested(worker, call, request, bounds)?,
            FromWorker::Dying { call, last_word: word } => *last_word = Some((call, word)),
            FromWorker::Ready(_) => return Err(Malformed("a worker is ready once")),
        }
    }
    Ok(())
}

fn done(worker: &Arc<Worker>, call: u64, spent: Spent, outcome: Outcome, bounds: Bounds) -> Result<(), Malformed> {
    let mut entry = worker.take(call).ok_or(Malformed("the end of a call that there is not"))?;
    if let Some(context) = &entry.context {
        let usage = context.usage();
        usage.set_operations(spent.operations);
        usage.set_peak_bytes(spent.peak_bytes);
        // Functions that the worker answers itself, such as the second look at a packaged file.
        let unseen =
            spent.host_calls.min(entry.limits.max_host_calls.saturating_add(1)).saturating_sub(entry.host_calls);
        for _ in 0..unseen {
            usage.count_host_call();
        }
    }
    let is_trip = is_trip(&outcome, &mem::take(&mut entry.refusals));
    if worker.has_residue(spent.heap_bytes, bounds.max_residue_bytes) || is_trip {
        worker.is_retiring.store(true, Relaxed);
    }
    let outcome = match outcome {
        Outcome::Passed(error) => Outcome::Error(error),
        other => other,
    };
    entry.close(Letter::Done(outcome));
    Ok(())
}

/// Whether a call ended at a limit of what it runs on, after which its worker is not used again. Limits of single
/// values leave nothing behind; the residue shows it if they do. `refusals` are the kinds of errors that the host
/// answered it with: that an error is one of these is believed only where there was such an answer.
fn is_trip(outcome: &Outcome, refusals: &[Discriminant<ErrorKind>]) -> bool {
    let kind = match outcome {
        Outcome::Value(_) | Outcome::Loaded(_) => return false,
        Outcome::Passed(error) if refusals.contains(&mem::discriminant(&error.kind)) => return false,
        Outcome::Error(error) | Outcome::Passed(error) => error.kind,
        Outcome::LoadError(error) => error.kind,
    };
    match kind {
        // The last two are a worker's words for a plugin that it cannot load, or that left too much behind.
        ErrorKind::TimedOut | ErrorKind::Panic | ErrorKind::Internal | ErrorKind::Unavailable => true,
        ErrorKind::LimitExceeded { limit, .. } => {
            matches!(limit, Limit::Memory | Limit::Operations | Limit::CallDepth)
        }
        _ => false,
    }
}

fn requested(worker: &Arc<Worker>, call: u64, request: Request, bounds: Bounds) -> Result<(), Malformed> {
    let mut state = worker.lock();
    let entry = state.calls.get_mut(&call).ok_or(Malformed("a request of a call that there is not"))?;
    let host = entry.host.clone().ok_or(Malformed("a request while loading"))?;
    if entry.is_asking {
        return Err(Malformed("a second request before the answer to the first"));
    }
    // Packaged files and configuration are fetched on the worker's own account, once; the script's look is counted there.
    if !matches!(request, Request::Assets | Request::Config | Request::Tools) {
        entry.host_calls += 1;
        if let Some(context) = &entry.context {
            context.usage().count_host_call();
        }
        if entry.host_calls > entry.limits.max_host_calls {
            return Err(Malformed("more host calls than the limit, past the sandbox's own count"));
        }
    }
    if let Request::Log(_, text) = &request {
        // The line that goes over the limit is cut to it and given on; the sandbox drops those after it.
        entry.logged = entry.logged.saturating_add(text.len());
        if entry.logged > entry.limits.max_log_bytes.saturating_mul(2) {
            return Err(Malformed("more to log than the limit, past the sandbox's own count"));
        }
    }
    if is_answered_at_once(&request) {
        drop(state);
        answer_at_once(worker, call, &*host, request, bounds);
        return Ok(());
    }
    if entry.ends_by.is_some() {
        // Nobody waits for the call any more, and it was told so.
        return Ok(());
    }
    entry.is_asking = true;
    worker.asking.fetch_add(1, Relaxed);
    let mail = Arc::clone(&entry.mail);
    drop(state);
    mail.put(Letter::Request(request));
    Ok(())
}

fn is_answered_at_once(request: &Request) -> bool {
    match request {
        Request::Log(..)
        | Request::Config
        | Request::Assets
        | Request::NowMs
        | Request::Uuid
        | Request::Random
        | Request::Tools => true,
        Request::KvGet(_)
        | Request::KvSet(..)
        | Request::KvDelete(_)
        | Request::KvList(..)
        | Request::KvSetFor(..)
        | Request::KvCompareAndSet(_)
        | Request::KvListAfter(..)
        | Request::CallTool(..)
        | Request::Http(_)
        | Request::Secret(_)
        | Request::Emit(..) => false,
    }
}

/// Answers what the host says without waiting.
fn answer_at_once(worker: &Worker, call: u64, host: &dyn Host, request: Request, bounds: Bounds) {
    let answered = catch_unwind(AssertUnwindSafe(|| match request {
        Request::Log(level, text) => host.log(level, &text),
        Request::Config => answer(worker, call, Ok(host.config()), |frame, config| frame.json(config)),
        Request::Assets => {
            let files = files(host, bounds.max_asset_bytes);
            worker.scale.note_files(files.iter().map(|(name, bytes)| (name.len() + bytes.len()) as u64).sum());
            answer(worker, call, Ok(files), |frame, files| write_files(frame, files));
        }
        Request::NowMs => answer(worker, call, host.now_ms(), |frame, now| frame.u64(now.cast_unsigned())),
        Request::Uuid => answer(worker, call, host.uuid(), |frame, uuid| frame.text(uuid)),
        Request::Random => answer(worker, call, host.random(), |frame, bits| frame.u64(*bits)),
        Request::Tools => answer(worker, call, Ok(host.tools()), |frame, tools| frame.json(tools)),
        // These wait; `is_answered_at_once` says so.
        Request::KvGet(_)
        | Request::KvSet(..)
        | Request::KvDelete(_)
        | Request::KvList(..)
        | Request::KvSetFor(..)
        | Request::KvCompareAndSet(_)
        | Request::KvListAfter(..)
        | Request::CallTool(..)
        | Request::Http(_)
        | Request::Secret(_)
        | Request::Emit(..) => {}
    }));
    if answered.is_err() {
        let error = ToolError::new(ErrorKind::Panic, "the host failed to answer; tell the operator");
        answer::<Value>(worker, call, Err(error), |_, _| {});
    }
}

/// Sends the host's answer, or its error.
pub(crate) fn answer<T>(
    worker: &Worker,
    call: u64,
    result: Result<T, ToolError>,
    write: impl FnOnce(&mut Writer<'_>, &T),
) {
    worker.reply(call, result.as_ref().err(), |frame| match &result {
        Ok(value) => {
            frame.u8(0);
            write(frame, value);
        }
        Err(error) => {
            frame.u8(1);
            fault::write_error(frame, error);
        }
    });
}

/// The plugin's packaged files; none where they are too large for a worker, which loading has refused already.
fn files(host: &dyn Host, allowed: u64) -> Vec<(&str, &[u8])> {
    let assets = host.assets();
    let files: Vec<_> = assets.names().filter_map(|name| Some((name, assets.get(name).ok()?.bytes()))).collect();
    let bytes: u64 = files.iter().map(|(name, bytes)| (name.len() + bytes.len()) as u64).sum();
    if bytes > allowed {
        tracing::warn!(target: "toolbay::worker", bytes, allowed, "a plugin's packaged files are too large for workers");
        return Vec::new();
    }
    files
}

fn write_files(frame: &mut Writer<'_>, files: &[(&str, &[u8])]) {
    frame.u32(u32::try_from(files.len()).unwrap_or(u32::MAX));
    for (name, bytes) in files {
        frame.text(name);
        frame.bytes(bytes);
    }
}
