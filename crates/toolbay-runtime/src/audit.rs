//! The audit port: one record for each call, with the raw result and who decided what, for each event that was handled, and
//! for each effect that was denied.

use std::{sync::Arc, time::Duration};

use crate::approval::{Decision as Approved, PendingApproval};
use semver::Version;
use toolbay_api::{CallId, Caller, Event, HookPoint, PluginName, Scope, ToolError, ToolOutput};

/// A hook's decision that was not simply to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Where.
    pub point: HookPoint,
    /// Who.
    pub hook: Arc<str>,
    /// What, in a few words: `deny: closed`.
    pub decision: String,
}

/// One call, as the audit keeps it.
#[derive(Debug)]
pub struct AuditRecord<'a> {
    /// On whose behalf.
    pub caller: &'a Caller,
    /// The call.
    pub call: &'a CallId,
    /// The call that it was made inside of.
    pub parent: Option<&'a CallId>,
    /// The tool's qualified name, or what the caller wrote where there is no such tool.
    pub tool: &'a str,
    /// The plugin's name and version, where the look-up found one.
    pub plugin: Option<(&'a str, String)>,
    /// The plugin's own tool that served, where `tool` is an ability's operation.
    pub served_by: Option<&'a str>,
    /// Nested in how many tool calls.
    pub depth: u32,
    /// What the tool gave, before hooks changed it. `None` where the tool was not called.
    pub raw: Option<&'a Result<ToolOutput, ToolError>>,
    /// What the caller got.
    pub reply: &'a Result<ToolOutput, ToolError>,
    /// Who decided what on the way.
    pub decisions: &'a [Decision],
    /// From look-up to reply.
    pub duration: Duration,
}

/// One event that was given to one handler, as the audit keeps it.
#[derive(Debug)]
pub struct EventRecord<'a> {
    /// The event.
    pub event: &'a Event,
    /// The plugin that handled it.
    pub plugin: &'a str,
    /// Its version.
    pub version: String,
    /// The handler's result, or why it was not called.
    pub result: &'a Result<ToolOutput, ToolError>,
    /// From its turn to its end.
    pub duration: Duration,
}

/// An effect that was denied to a plugin where it would have happened: keys, HTTP, secrets, tools, events, services, the
/// clock and chance. Of one call each denial is recorded once, up to sixteen. No secret that the call has read is in it.
#[derive(Debug)]
pub struct DenialRecord<'a> {
    /// On whose behalf, in which run. `None` where the plugin acts for no tenant, in a callback or a handler of the whole
    /// host's events.
    pub caller: Option<&'a Caller>,
    /// The plugin.
    pub plugin: &'a PluginName,
    /// Its version.
    pub version: &'a Version,
    /// Where it is registered.
    pub scope: &'a Scope,
    /// The call in which it was; the callback's name, or what else it was in, where it was no call.
    pub call: &'a str,
    /// Nested in how many tool calls.
    pub depth: u32,
    /// What was asked for, up to 256 bytes: `kv:read`, `http:GET:api.example.com`.
    pub permission: &'a str,
    /// What the plugin was told, up to 512 bytes: whose yes is missing.
    pub reason: &'a str,
    /// Whether no more of this call are recorded, though there may be more.
    pub is_last: bool,
}

/// An approval that was asked for or decided about, as the audit keeps it.
#[derive(Debug)]
pub struct ApprovalRecord<'a> {
    /// The tenant's user whose run it is, where the host named one.
    pub user: Option<&'a str>,
    /// What waits.
    pub pending: &'a PendingApproval,
    /// What happened.
    pub stage: ApprovalStage<'a>,
}

/// What happened to an approval.
#[derive(Debug)]
pub enum ApprovalStage<'a> {
    /// It was asked for.
    Asked,
    /// Somebody decided.
    Decided {
        /// Who.
        by: &'a str,
        /// What.
        decision: &'a Approved,
    },
}

impl ApprovalStage<'_> {
    /// In one word: `ask`, `approve`, `reject`, `edit`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Asked => "ask",
            Self::Decided { decision, .. } => decision.name(),
        }
    }
}

/// Takes audit records. Called in place: an implementation queues the record and returns. It is called in destructors too,
/// where a caller gives a call up, and must not panic.
pub trait AuditSink: Send + Sync {
    /// One call has ended, or its caller has given it up, which is an error of the kind `Cancelled`.
    fn record(&self, record: &AuditRecord<'_>);

    /// One handler is done with one event. Without an implementation it is a line in `tracing`, as [`TracingAudit`]
    /// writes it.
    fn event(&self, record: &EventRecord<'_>) {
        trace_event(record);
    }

    /// An effect was denied. Without an implementation it is a line in `tracing`, as [`TracingAudit`] writes it.
    fn denied(&self, record: &DenialRecord<'_>) {
        trace_denial(record);
    }

    /// An approval was asked for or decided about. Without an implementation it is a line in `tracing`, as [`TracingAudit`]
    /// writes it.
    fn approval(&self, record: &ApprovalRecord<'_>) {
        trace_approval(record);
    }
}

pub(crate) fn trace_approval(record: &ApprovalRecord<'_>) {
    let ApprovalRecord { user, pending, stage } = record;
    let by = if let ApprovalStage::Decided { by, .. } = stage { Some(*by) } else { None };
    tracing::info!(
        target: "toolbay::audit",
        tenant = %pending.tenant, user, run = %pending.run, call = %pending.call, tool = %pending.tool,
        approval = %pending.id, digest = pending.digest, by, stage = stage.name(),
        "approval"
    );
}

pub(crate) fn trace_denial(record: &DenialRecord<'_>) {
    let DenialRecord { caller, plugin, version, scope, call, depth, permission, reason, is_last } = record;
    tracing::info!(
        target: "toolbay::audit",
        tenant = caller.map(|caller| tracing::field::display(&caller.tenant)),
        user = caller.and_then(|caller| caller.user.as_deref()),
        run = caller.map(|caller| tracing::field::display(caller.run)),
        call, %plugin, %version, %scope, depth, permission, reason, is_last,
        "permission denied"
    );
}

fn trace_event(record: &EventRecord<'_>) {
    let EventRecord { event, plugin, version, result, duration } = record;
    let outcome = result.as_ref().map_or_else(|error| error.kind.name(), |_| "ok");
    tracing::info!(
        target: "toolbay::audit",
        scope = %event.scope,
        event = %event.name,
        id = %event.id,
        depth = event.depth,
        plugin,
        version,
        outcome,
        duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
        "event handled"
    );
}

/// Writes a line for each call to `tracing`, target `toolbay::audit`, without arguments and results.
#[derive(Debug, Clone, Copy, Default)]
pub struct TracingAudit;

impl AuditSink for TracingAudit {
    fn record(&self, record: &AuditRecord<'_>) {
        if !tracing::enabled!(target: "toolbay::audit", tracing::Level::INFO) {
            return;
        }
        let outcome = record.reply.as_ref().map_or_else(|error| error.kind.name(), |_| "ok");
        let decisions: Vec<_> =
            record.decisions.iter().map(|d| format!("{} {}: {}", d.point, d.hook, d.decision)).collect();
        tracing::info!(
            target: "toolbay::audit",
            tenant = %record.caller.tenant,
            user = record.caller.user.as_deref(),
            run = %record.caller.run,
            call = %record.call,
            parent = record.parent.map(tracing::field::display),
            tool = record.tool,
            served_by = record.served_by,
            depth = record.depth,
            outcome,
            decisions = decisions.join("; "),
            duration_us = u64::try_from(record.duration.as_micros()).unwrap_or(u64::MAX),
            "tool call"
        );
    }
}
