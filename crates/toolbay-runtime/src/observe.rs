//! What happens in a run, as it happens: for a terminal, a console or a test's transcript. Changes nothing.

use crate::approval::PendingApproval;
use serde::Serialize;
use serde_json::Value;
use toolbay_api::{CallId, HookPoint, PluginName, RunId, Scope, TenantId, ToolCall, WireResult, message::Tokens};
use uuid::Uuid;

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
