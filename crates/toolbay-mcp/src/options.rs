//! What a server does with calls that take long and with results that are long; alike on stdio and HTTP.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{kept::Kept, state::Seal, tasks::Tasks};

/// What a server does with calls that take long and with results that are long.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerOptions {
    /// Calls that take long.
    pub tasks: TaskOptions,
    /// Results that are long.
    pub results: ResultOptions,
}

/// When a call becomes a task, and how many there may be. Only clients that declare the extension
/// `io.modelcontextprotocol/tasks` are answered with tasks; for others a call takes as long as it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskOptions {
    /// A call that takes longer than this is answered with a task. Its time limit is that of its tool in any case.
    pub after: Duration,
    /// How long a task can be asked for after its end.
    pub keep: Duration,
    /// How often clients are told to ask.
    pub poll_interval: Duration,
    /// Tasks of one tenant, running and kept. Beyond it, calls are answered when they end.
    pub max_per_tenant: usize,
    /// Tasks of all tenants.
    pub max_total: usize,
    /// Bytes of one tenant's results that are kept. One that finds no room is lost, and its task says so.
    pub max_kept_bytes: usize,
    /// Tools that take so long that clients without the extension are refused, by their qualified names.
    pub required: BTreeSet<String>,
}

impl Default for TaskOptions {
    /// 2 seconds, 5 minutes, every second, 256 tasks a tenant, 4,096 in all, 16 MiB a tenant, no tool.
    fn default() -> Self {
        Self {
            after: Duration::from_secs(2),
            keep: Duration::from_secs(5 * 60),
            poll_interval: Duration::from_secs(1),
            max_per_tenant: 256,
            max_total: 4_096,
            max_kept_bytes: 16 << 20,
            required: BTreeSet::new(),
        }
    }
}

/// How much of a result a client gets at once, and how much is kept for it to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultOptions {
    /// Bytes of a result as text, or of one page of it. A longer one is cut with its structure kept, and the whole is a
    /// resource. At least 1,000 count.
    pub max_shown_bytes: usize,
    /// Results of one tenant that are kept; the oldest goes first.
    pub max_kept: usize,
    /// Bytes of one tenant's results that are kept; the oldest goes first.
    pub max_kept_bytes: usize,
    /// Bytes of all tenants' results. One that finds no room is not kept, and its text says so.
    pub max_total_bytes: usize,
    /// How long one is kept.
    pub keep: Duration,
}

impl Default for ResultOptions {
    /// 64 KiB shown; 100 results and 16 MiB a tenant, 256 MiB in all, 15 minutes.
    fn default() -> Self {
        Self {
            max_shown_bytes: 64 << 10,
            max_kept: 100,
            max_kept_bytes: 16 << 20,
            max_total_bytes: 256 << 20,
            keep: Duration::from_secs(15 * 60),
        }
    }
}

/// What all clients of one server share.
pub(crate) struct Shared {
    pub(crate) seal: Seal,
    pub(crate) tasks: Arc<Tasks>,
    pub(crate) results: Kept,
}

impl Shared {
    /// `stop` ends all tasks.
    pub(crate) fn new(options: ServerOptions, seal: Seal, stop: CancellationToken) -> Self {
        let ServerOptions { tasks, results } = options;
        Self { seal, tasks: Arc::new(Tasks::new(tasks, stop)), results: Kept::new(results) }
    }
}
