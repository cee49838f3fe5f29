//! The whole corpus in one process: after each program the host must still answer, and must hold no more than before.

use std::{
    alloc::{GlobalAlloc, Layout},
    panic::PanicHookInfo,
    process::ExitCode,
    sync::atomic::{AtomicIsize, Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use toolbay::{ErrorKind, Limits, Scope, Toolbay, rhai::MeteredAllocator};

use super::corpus::{Program, corpus_of};

/// Bytes by which a host may grow with a call: its books, not what the script held.
const BOOKS: isize = 16 << 10;

/// The cap of a call and what one operation may take beyond it.
const MOST_BYTES: isize = (64 + 64) << 20;

/// How much later than its deadline a call may return on a busy machine.
const OVERRUN: Duration = Duration::from_millis(250);

/// A program that takes longer than this is run once only.
const TOO_SLOW: Duration = Duration::from_secs(1);

/// Runs after which a program that took too long, or left something behind, every time is believed to do so. The host's
/// tables grow now and then, and what else the machine does is in the time of any single run.
const ENOUGH: u64 = 6;

/// The allocator that meters calls, with a count for the whole process.
pub struct Counting;

static LIVE: AtomicIsize = AtomicIsize::new(0);
static PEAK: AtomicIsize = AtomicIsize::new(0);

fn count(bytes: usize, sign: isize) {
    let change = isize::try_from(bytes).unwrap_or(isize::MAX) * sign;
    let live = LIVE.fetch_add(change, Ordering::Relaxed) + change;
    PEAK.fetch_max(live, Ordering::Relaxed);
}

/// What the whole process holds.
#[must_use]
pub fn live_bytes() -> isize {
    LIVE.load(Ordering::Relaxed)
}

#[allow(unsafe_code, reason = "the allocator trait is unsafe; every method hands on to the metered allocator")]
mod allocator {
    use super::{Counting, GlobalAlloc, Layout, MeteredAllocator, count};

    // SAFETY: every method hands its arguments on unchanged and returns what that returned; counting allocates nothing.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            count(layout.size(), 1);
            // SAFETY: the caller's promises are those that the inner allocator asks for.
            unsafe { MeteredAllocator.alloc(layout) }
        }

        unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
            count(layout.size(), -1);
            // SAFETY: as above.
            unsafe { MeteredAllocator.dealloc(pointer, layout) }
        }

        unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
            count(layout.size(), 1);
            // SAFETY: as above.
            unsafe { MeteredAllocator.alloc_zeroed(layout) }
        }

        unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
            count(layout.size(), -1);
            count(new_size, 1);
            // SAFETY: as above.
            unsafe { MeteredAllocator.realloc(pointer, layout, new_size) }
        }
    }
}

/// The most that the process held since this was asked last, beyond what it holds now.
#[must_use]
pub fn peak_bytes() -> isize {
    let live = live_bytes();
    PEAK.swap(live, Ordering::Relaxed) - live
}

/// A host that runs programs, each as a tenant of its own, so that no quarantine keeps one from running.
pub struct Alone {
    bay: Toolbay,
    runtime: tokio::runtime::Runtime,
    tenants: usize,
}

/// What became of one program.
pub struct Ended {
    /// `ok`, the error's kind, or `LimitExceeded:LIMIT`.
    pub kind: String,
    /// The error's message.
    pub text: String,
    /// Loading, the call and its end.
    pub wall: Duration,
    /// The call alone, by the host's clock.
    pub call: Duration,
    /// The data, or null.
    pub data: Value,
}

impl Alone {
    /// A host with this deadline and the default of every other limit.
    #[must_use]
    pub fn new(timeout: Duration) -> Self {
        let limits = Limits { timeout, ..Limits::default() };
        let bay = toolbay::builder().limits(limits).without_audit().build().expect("a sound host");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { bay, runtime, tenants: 0 }
    }

    /// Loads and runs one program and forgets it.
    pub fn run(&mut self, source: &str) -> Ended {
        self.tenants += 1;
        let tenant = format!("tenant-{}", self.tenants);
        let scope = Scope::tenant(&tenant).expect("a tenant's name");
        let session = self.bay.session(&*tenant).expect("a session");
        let bay = &self.bay;
        let began = Instant::now();
        let ended = self.runtime.block_on(async {
            let plugin = match bay.load_program(scope.clone(), "program.rhai", source).await {
                Ok(plugin) => plugin,
                Err(error) => return (kind_of(error.kind), error.to_string(), Duration::ZERO, Value::Null),
            };
            let called = Instant::now();
            let reply = session.call("code", json!({})).await;
            let call = called.elapsed();
            bay.unregister(&scope, &plugin).await.expect("a plugin that is there");
            match reply.result {
                Ok(output) => ("ok".to_owned(), String::new(), call, output.data),
                Err(error) => (kind_of(error.kind), error.message.into_owned(), call, Value::Null),
            }
        });
        let (kind, text, call, data) = ended;
        Ended { kind, text, wall: began.elapsed(), call, data }
    }

    /// Whether a plugin that leaves memory behind is taken out of use before it does so for ever.
    #[must_use]
    pub fn finds_out(&mut self, source: &str) -> bool {
        self.tenants += 1;
        let tenant = format!("tenant-{}", self.tenants);
        let scope = Scope::tenant(&tenant).expect("a tenant's name");
        let session = self.bay.session(&*tenant).expect("a session");
        let bay = &self.bay;
        self.runtime.block_on(async {
            let Ok(plugin) = bay.load_program(scope.clone(), "program.rhai", source).await else { return false };
            let mut found = false;
            for _ in 0..64 {
                let error = session.call("code", json!({})).await.result.err();
                found = error.is_some_and(|error| error.message.contains("memory behind"));
                if found {
                    break;
                }
            }
            bay.unregister(&scope, &plugin).await.expect("a plugin that is there");
            found
        })
    }

    /// Whether the host still answers an ordinary call.
    pub fn is_well(&mut self) -> bool {
        // Whatever else the machine does, one of these is given the time that it needs.
        (0..5).any(|_| self.run("let a = [40]; a.push(2); a.reduce(|s, x| s + x, 0)").data == json!(42))
    }
}

fn kind_of(kind: ErrorKind) -> String {
    match kind {
        ErrorKind::LimitExceeded { limit, .. } => {
            let limit = serde_json::to_value(limit).expect("a name");
            format!("LimitExceeded:{}", limit.as_str().unwrap_or_default())
        }
        kind => kind.name().to_owned(),
    }
}

/// Runs the corpus, or the programs whose title contains one of `only`, `rounds` times and prints each fault on a line,
/// beginning with its program's title, and at last `done`. Whoever watches from outside learns from the last `begin`
/// which program took the process along.
#[must_use]
pub fn run(timeout: Duration, rounds: u64, only: &[String]) -> ExitCode {
    std::panic::set_hook(Box::new(|panic: &PanicHookInfo<'_>| println!("PANIC {panic}")));
    let mut host = Alone::new(timeout);
    let mut faults = 0;
    let programs: Vec<Program> = corpus_of(only).into_iter().filter(|program| program.args.is_empty()).collect();
    let first = live_bytes();
    for program in &programs {
        let Ok(source) = std::str::from_utf8(&program.source) else { continue };
        println!("begin {}", program.title());
        for fault in attack(&mut host, program, source, timeout, rounds) {
            faults += 1;
            println!("FAULT {}: {fault}", program.title());
        }
    }
    println!("held at the end: {} KiB more than at the beginning", (live_bytes() - first) >> 10);
    println!("done {faults}");
    if faults == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What the process holds when what the last call left running has ended: a call comes back before its script does where
/// that is stuck in one operation.
#[must_use]
pub fn settled(before: isize) -> isize {
    for _ in 0..1_000 {
        if live_bytes() - before <= BOOKS {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    live_bytes()
}

fn attack(host: &mut Alone, program: &Program, source: &str, timeout: Duration, rounds: u64) -> Vec<String> {
    let mut faults = Vec::new();
    let _ = peak_bytes();
    let ended = host.run(source);
    let peak = peak_bytes();
    // The deadline is another one than the command line's test has, so a call may also just be too slow.
    if !program.expected.contains(&ended.kind) && ended.kind != "TimedOut" {
        faults.push(format!("ended with {}: {}", ended.kind, ended.text));
    }
    if ended.text.len() > 4 << 10 {
        faults.push(format!("a message of {} bytes", ended.text.len()));
    }
    if peak > MOST_BYTES {
        faults.push(format!("held {} MiB", peak >> 20));
    }
    let mut fastest = ended.wall;
    let mut grown = Vec::new();
    // Caches fill once; what grows with every call leaks.
    let leaks = |grown: &[isize]| !grown.is_empty() && grown.iter().all(|bytes| *bytes > BOOKS);
    let is_late = |fastest: Duration| fastest > timeout + OVERRUN;
    // What takes seconds to compile is a fault of its own and not tried again.
    let rounds = if ended.wall > timeout + TOO_SLOW { 1 } else { rounds };
    let mut round = 1;
    while round < rounds || (round < ENOUGH && rounds > 1 && (leaks(&grown) || is_late(fastest))) {
        let before = live_bytes();
        fastest = fastest.min(host.run(source).wall);
        grown.push(settled(before) - before);
        round += 1;
    }
    if is_late(fastest) {
        faults.push(format!("took {fastest:?}"));
    }
    if leaks(&grown) && !host.finds_out(source) {
        faults.push(format!("every further call leaves {grown:?} bytes behind"));
    }
    if !host.is_well() {
        faults.push("the next call fails".to_owned());
    }
    faults
}
