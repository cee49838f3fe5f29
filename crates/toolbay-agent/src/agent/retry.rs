//! Calls that are made again. It stands apart from the driver, since whether and when is a decision of its own.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;
use toolbay_api::{Peer, ToolCall};
use toolbay_runtime::{Approval, Reply, Run};

/// How tool calls are made again that failed: only those of tools that are annotated as `idempotent`, and only after errors
/// that can pass. Each is a call of its own to hooks, limits and audit, under the same idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolRetries {
    /// How often one call is made again.
    pub max_retries: u32,
    /// The wait before the first time, of which up to a half is taken off by chance; it doubles with each.
    pub first_wait: Duration,
    /// The longest wait.
    pub max_wait: Duration,
}

impl Default for ToolRetries {
    fn default() -> Self {
        Self { max_retries: 2, first_wait: Duration::from_millis(200), max_wait: Duration::from_secs(5) }
    }
}

impl ToolRetries {
    /// The wait before the call is made for the `number`th time again, from 1.
    fn wait(&self, run: &Run, call: &ToolCall, number: u32) -> Duration {
        let doubled = self.first_wait.saturating_mul(2_u32.saturating_pow(number - 1)).min(self.max_wait);
        // A digest in the place of chance: calls that failed together part, and a run that is made again waits as before.
        let mut hasher = DefaultHasher::new();
        (run.id(), &call.id, number).hash(&mut hasher);
        let part = u32::try_from(hasher.finish() % 1_000).unwrap_or(0);
        // Divided first, which no length of a wait can overflow.
        doubled / 2 + (doubled / 2 / 1_000) * part
    }
}

/// A call of a step, with what was decided about it and where its progress is told.
pub(super) struct Attempt {
    pub(super) step: u32,
    pub(super) call: ToolCall,
    pub(super) given: Vec<Approval>,
    pub(super) peer: Option<Arc<dyn Peer>>,
}

/// Makes a call, and again where it may be and the time until `ends` allows it. What somebody approved is made once: an
/// approval is for one call.
pub(super) async fn call(run: &Run, attempt: Attempt, retries: Option<&ToolRetries>, ends: Option<Instant>) -> Reply {
    let Attempt { step, call, given, peer } = attempt;
    let retries = retries.filter(|_| given.is_empty() && is_idempotent(run, &call));
    let Some(retries) = retries else { return run.call_waiting(step, call, given, peer).await };
    let mut reply = run.call_waiting(step, call.clone(), given, peer.clone()).await;
    for number in 1..=retries.max_retries {
        let is_over = reply.stop.is_some() || !reply.waits.is_empty();
        let may_pass = !is_over && reply.result.as_ref().is_err_and(|error| error.retryable);
        let wait = retries.wait(run, &call, number);
        // What could not be waited for is the model's to read now, rather than cut at the run's end.
        let is_too_late = |ends| Instant::now().checked_add(wait).is_none_or(|then| then >= ends);
        if !may_pass || ends.is_some_and(is_too_late) {
            return reply;
        }
        tokio::time::sleep(wait).await;
        reply = run.call_again(step, call.clone(), peer.clone()).await;
    }
    reply
}

fn is_idempotent(run: &Run, call: &ToolCall) -> bool {
    let mut tools = run.tools().iter();
    let tool = tools.find(|tool| tool.definition.name == *call.name || *tool.provider_name == *call.name);
    tool.is_some_and(|tool| tool.definition.annotations.idempotent == Some(true))
}
