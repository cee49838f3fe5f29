//! How many workers there are, for whom, and what they must be isolated from.

use std::{path::PathBuf, thread, time::Duration};

use crate::isolation::Layers;

/// The program that is started as a worker.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum WorkerProgram {
    /// This program again. Its `main` begins with [`run_if_worker`](crate::run_if_worker).
    #[default]
    CurrentExe,
    /// Another one, such as the `toolbay-worker` that comes with this crate.
    Path(PathBuf),
}

/// The pool's shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerConfig {
    /// What is started.
    pub program: WorkerProgram,
    /// Worker processes in all, those that are just starting or ending included. A tenant who needs one past this
    /// number gets the place of the idle worker that was used longest ago.
    pub max_workers: usize,
    /// Worker processes of one tenant.
    pub max_workers_per_tenant: usize,
    /// Calls of its tenant that one worker carries at a time. Calls made from inside calls, and hooks, come on top,
    /// since those around them wait for them: seven more for each of these.
    pub calls_per_worker: usize,
    /// Calls after which a worker is replaced.
    pub recycle_after: u64,
    /// Workers that are started ahead and belong to nobody yet.
    pub spare_workers: usize,
    /// How long a tenant's worker may be without calls before it is ended. Spare workers stay.
    pub idle_timeout: Duration,
    /// Bytes that calls may leave behind in a worker, counted from its first call on and without its loaded plugins,
    /// before it is replaced.
    pub max_residue_bytes: u64,
    /// Bytes of packaged files that a plugin may have, and eight times as many when parsed.
    pub max_asset_bytes: u64,
    /// How long after its deadline, or after nobody waits for it any more, a call may take to end by itself before its
    /// worker is killed.
    pub grace: Duration,
    /// Refuse to work where a layer of the isolation is missing. Without it the layers that are there are used.
    pub require_full_isolation: bool,
    /// The layers to ask for.
    pub layers: Layers,
}

impl Default for WorkerConfig {
    /// Two workers a processor and at least four, two a tenant, eight calls in each, ended after an idle minute, all
    /// layers required.
    fn default() -> Self {
        let processors = thread::available_parallelism().map_or(2, usize::from);
        Self {
            program: WorkerProgram::default(),
            max_workers: (processors * 2).max(4),
            max_workers_per_tenant: 2,
            calls_per_worker: 8,
            recycle_after: 10_000,
            spare_workers: 1,
            idle_timeout: Duration::from_secs(60),
            max_residue_bytes: 512 << 10,
            max_asset_bytes: 32 << 20,
            grace: Duration::from_millis(3),
            require_full_isolation: true,
            layers: Layers::default(),
        }
    }
}

impl WorkerConfig {
    /// Nested calls and hooks that one worker may carry beside its calls.
    pub(crate) fn nested_per_worker(&self) -> usize {
        self.calls_per_worker.saturating_mul(7)
    }

    /// What a worker may hold for packaged files, parsed.
    pub(crate) fn parsed_asset_bytes(&self) -> u64 {
        self.max_asset_bytes.saturating_mul(8)
    }
}
