//! The outcome ledger: what became of the calls of runs, so that a run that is taken up again after a crash makes none of them
//! twice that must not be. It is a port of its own rather than a part of [`store`](crate::store), since a host without a
//! database has it in memory.

mod key;
mod memory;
mod once;

use std::{fmt, sync::Arc, time::Duration};

use serde_json::Value;
use toolbay_api::{RunId, TenantId, ToolError, async_trait};

pub use key::CallKey;
pub use memory::MemoryOutcomes;
pub(crate) use once::{Entrance, Once, enter};

/// A call, as ledgers know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerCall {
    /// Whose.
    pub tenant: TenantId,
    /// The run that it is of.
    pub run: RunId,
    /// The call, within all calls there are.
    pub key: CallKey,
    /// The tool's qualified name, for operators.
    pub tool: String,
    /// A digest of the arguments, by which another call under the same id is told.
    pub arguments: [u8; 32],
    /// From when on it may be forgotten, in milliseconds since 1970, UTC.
    pub expires_ms: i64,
}

/// What a ledger knew of a call that is to begin.
#[derive(Debug, Clone, PartialEq)]
pub enum Begun {
    /// Nothing. Now it has the call as started, for the first time.
    First,
    /// This; nothing was changed.
    Known(KnownCall),
}

/// A call that a ledger knows.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownCall {
    /// How often it was started.
    pub attempts: u32,
    /// The digest of the arguments that it was made with.
    pub arguments: [u8; 32],
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It was started, and nobody has said how it ended: it goes on, or its process is no more.
    Started,
    /// It succeeded.
    Committed(KeptReply),
    /// The tool answered with an error, which this is the form of on the wire.
    Failed(Value),
    /// The tool was called and did not answer: it may have had an effect or none.
    Unknown,
}

/// The reply of a call that succeeded.
#[derive(Debug, Clone, PartialEq)]
pub enum KeptReply {
    /// The reply itself.
    Whole(Value),
    /// A digest of a reply that is too long to be kept.
    Digest {
        /// SHA-256 of its compact JSON.
        sha256: [u8; 32],
        /// Its length.
        bytes: u64,
    },
}

/// Keeps what became of calls.
///
/// # Errors
/// All methods: `Unavailable` where the ledger cannot be reached; [`begin`](Self::begin) also `LimitExceeded` where a tenant
/// has as many calls in it as it may. A call that changes something is not made then.
///
/// # Cancel safety
/// A dropped future has done so wholly or not at all.
#[async_trait]
#[allow(clippy::missing_errors_doc, reason = "the errors are the same for all and stand at the trait")]
pub trait OutcomeLedger: fmt::Debug + Send + Sync {
    /// Writes a call down as started, unless it is known: of several that begin the same call one is told [`Begun::First`].
    async fn begin(&self, call: &LedgerCall, now_ms: i64) -> Result<Begun, ToolError>;

    /// Writes a known call that is not committed down as started once more. `attempts` is what the caller saw; false where
    /// it was started or ended by somebody else since.
    async fn again(&self, call: &LedgerCall, attempts: u32, now_ms: i64) -> Result<bool, ToolError>;

    /// Writes down what became of the start number `attempts` of a call. Nothing happens where it was started again since.
    async fn settle(&self, call: &LedgerCall, attempts: u32, outcome: &Outcome, now_ms: i64) -> Result<(), ToolError>;

    /// Forgets the calls of a run that is over and will not be taken up again.
    async fn forget(&self, tenant: &TenantId, run: RunId) -> Result<(), ToolError>;
}

/// A ledger and what is kept in it.
#[derive(Debug, Clone)]
pub struct Outcomes {
    /// Where.
    pub ledger: Arc<dyn OutcomeLedger>,
    /// How long a call is kept whose run did not come to its end.
    pub keep: Duration,
    /// Bytes of a reply as JSON; of a longer one a digest is kept.
    pub max_reply_bytes: usize,
}

impl Outcomes {
    /// Calls are kept for a day, with replies of up to 64 KiB.
    #[must_use]
    pub fn new(ledger: Arc<dyn OutcomeLedger>) -> Self {
        Self { ledger, keep: Duration::from_secs(24 * 60 * 60), max_reply_bytes: 64 << 10 }
    }
}
