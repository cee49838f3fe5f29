//! The audit port: one record for each call, with the raw result and who decided what.

use std::{sync::Arc, time::Duration};

use toolbay_api::{CallId, Caller, Event, HookPoint, ToolError, ToolOutput};

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

/// Takes audit records. Called in place: an implementation queues the record and returns.
pub trait AuditSink: Send + Sync {
    /// One call has ended.
    fn record(&self, record: &AuditRecord<'_>);

    /// One handler is done with one event. Without an implementation it is a line in `tracing`, as [`TracingAudit`]
    /// writes it.
    fn event(&self, record: &EventRecord<'_>) {
        trace_event(record);
    }
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
