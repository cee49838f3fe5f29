//! The worker process: from its start to its loop.
//!
//! A worker is this program started again. It locks itself down before it reads a byte, has one thread, and ends when
//! its host does.

use std::{env, io::Write as _};

use crate::{
    alloc,
    frame::{self, Ready},
    isolation::{self, Layers},
    sys,
};

use executor::Executor;

mod executor;
mod host;
mod link;
mod task;

/// The first argument of a worker, by which it knows that it is one.
pub(crate) const WORKER_ARGUMENT: &str = "--toolbay-worker-process";

/// Becomes a worker if this process was started as one, and returns at once if not.
///
/// The one line that a program needs whose own executable serves as worker, first in `main`:
///
/// ```no_run
/// #[global_allocator]
/// static ALLOCATOR: toolbay_worker::CappedAlloc = toolbay_worker::CappedAlloc;
///
/// fn main() {
///     toolbay_worker::run_if_worker();
///     // the program itself
/// }
/// ```
pub fn run_if_worker() {
    if env::args_os().nth(1).is_some_and(|argument| argument == WORKER_ARGUMENT) {
        worker_main();
    }
}

/// What a host tells a worker at its start, as arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) layers: Layers,
    /// Bytes that packaged files may take, parsed.
    pub(crate) asset_bytes: u64,
}

impl Start {
    /// The arguments after [`WORKER_ARGUMENT`].
    pub(crate) fn to_arguments(self) -> [String; 3] {
        let flag = |on: bool| u8::from(on).to_string();
        [flag(self.layers.landlock), flag(self.layers.seccomp), self.asset_bytes.to_string()]
    }

    fn from_arguments(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut number = || arguments.next()?.parse::<u64>().ok();
        Some(Self { layers: Layers { landlock: number()? == 1, seccomp: number()? == 1 }, asset_bytes: number()? })
    }
}

/// Runs a worker: on standard input it expects its host's socket. For programs that are workers and nothing else; see
/// [`run_if_worker`] for others.
pub fn worker_main() -> ! {
    let Some(start) = Start::from_arguments(env::args().skip(2)) else {
        let _ = writeln!(std::io::stderr(), "a worker is started by its host, not by hand");
        sys::exit(sys::EXIT_PROTOCOL)
    };
    // Before the lock, behind which no handler can be changed any more.
    sys::catch_signals();
    let isolation = isolation::lock_down(start.layers);
    let mut executor = Executor::default().on_one_thread();
    let memory_cap = alloc::arm(start.asset_bytes);
    let ready = Ready {
        landlock: isolation.landlock,
        seccomp: isolation.seccomp,
        limits: isolation.process_limits,
        memory_cap,
    };
    let mut out = Vec::new();
    frame::write_ready(&mut out, ready);
    if sys::send(&out).is_err() {
        sys::exit(sys::EXIT_PROTOCOL)
    }
    executor.run()
}
