//! What happens in a run, as it happens: for a terminal, a console or a test's transcript. Changes nothing.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde::Serialize;
use serde_json::Value;
use toolbay_api::{CallId, HookPoint, PluginName, RunId, Scope, TenantId, ToolCall, WireResult, message::Tokens};
use uuid::Uuid;

use crate::approval::PendingApproval;

/// Sees the events of the runs of a session.
///
/// Called in place, on the run's own task: an implementation hands the event on and returns.
pub trait Observer: Send + Sync {
    /// One event of `run`.
    fn observe(&self, run: RunId, event: &RunEvent);

    /// Whether it would do anything with an event now: making one costs something.
    fn is_watching(&self) -> bool {
        true
    }

    /// Where it cannot take more for now: what to wait for. Each tool call waits for it before it begins, within its caller's
    /// time, so that a slow reader slows the run down in the place of filling the memory. It is dropped with the call.
    fn room(&self) -> Option<BoxFuture<'_, ()>> {
        None
    }
}

/// Two that see the same.
pub(crate) struct Both(pub(crate) Arc<dyn Observer>, pub(crate) Arc<dyn Observer>);

impl Observer for Both {
    fn observe(&self, run: RunId, event: &RunEvent) {
        self.0.observe(run, event);
        self.1.observe(run, event);
    }

    fn is_watching(&self) -> bool {
        self.0.is_watching() || self.1.is_watching()
    }

    fn room(&self) -> Option<BoxFuture<'_, ()>> {
        match (self.0.room(), self.1.room()) {
            (Some(one), Some(other)) => Some(Box::pin(async move {
                one.await;
                other.await;
            })),
            (one, other) => one.or(other),
        }
    }
}

/// One thing that happened in a run.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are named by the vocabulary's own types")]
pub enum RunEvent {
    /// An agent run began.
    RunStarted { tenant: TenantId },
    /// An agent run that was suspended goes on.
    RunResumed { tenant: TenantId },
    /// A step began: a model call and what follows from it.
    StepStarted { step: u32 },
    /// The model answered.
    ModelReplied { step: u32, text: String, tool_calls: Vec<ToolCall>, tokens: Tokens },
    /// The model showed reasoning.
    Reasoning { step: u32, text: String },
    /// More of the model's text.
    TextDelta { step: u32, text: String },
    /// More of the model's reasoning.
    ReasoningDelta { step: u32, text: String },
    /// More of a tool call that the model writes: its place among those of the reply, and more of its arguments' text. Id and
    /// name come with the first piece.
    ToolCallDelta {
        step: u32,
        index: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        arguments: String,
    },
    /// The look-up found a tool; where that is an ability's operation, `served_by` is the plugin's own tool.
    ToolLookedUp {
        call: CallId,
        tool: String,
        plugin: PluginName,
        scope: Scope,
        #[serde(skip_serializing_if = "Option::is_none")]
        served_by: Option<String>,
    },
    /// A hook decided.
    HookDecided { point: HookPoint, hook: String, call: Option<CallId>, decision: String },
    /// The plugin is about to be called with these arguments.
    ToolCallStarted { call: CallId, tool: String, arguments: Value },
    /// How far a call is, in its tool's own words.
    ToolProgress {
        call: CallId,
        done: f64,
        #[serde(skip_serializing_if = "Option::is_none")]
        total: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    /// The call ended, however it went.
    ToolCallFinished { call: CallId, tool: String, result: Box<WireResult> },
    /// The call is not made before somebody approves it.
    ApprovalAsked { pending: Box<PendingApproval> },
    /// A plugin ran into its limits too often and is not called for the tenant for a while.
    PluginQuarantined { plugin: PluginName, seconds: u64, cause: String },
    /// The agent run waits for decisions about these calls.
    RunSuspended { approvals: Vec<Uuid>, expires_at: i64 },
    /// The agent run ended.
    RunFinished { outcome: String, text: String, steps: u32, tool_calls: u32 },
}
