//! An audit sink that keeps its records in memory.

use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use toolbay_api::{RunId, Scope};
use toolbay_runtime::{ApprovalRecord, ApprovalStage, AuditRecord, AuditSink, DenialRecord, EventRecord};

/// One record, in owned form.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the fields are those of the record")]
pub struct Audited {
    pub tenant: String,
    pub tool: String,
    /// The plugin's name, where the look-up found one.
    pub plugin: Option<String>,
    /// The plugin's own tool that served, where `tool` is an ability's operation.
    pub served_by: Option<String>,
    /// `ok` or the error's kind.
    pub outcome: String,
    /// What the tool gave before hooks changed it.
    pub raw: Option<Value>,
    /// What the caller got.
    pub reply: Option<Value>,
    /// `point hook: decision` of each decision.
    pub decisions: Vec<String>,
    pub depth: u32,
    /// The call's id.
    pub call: String,
    /// The id of the call that it was made inside of.
    pub parent: Option<String>,
}

/// One event that was given to one handler, in owned form.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of the record")]
pub struct AuditedEvent {
    pub scope: Scope,
    pub event: String,
    pub plugin: String,
    pub depth: u32,
    /// `ok` or the error's kind.
    pub outcome: String,
}

/// An effect that was denied, in owned form.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of the record")]
pub struct AuditedDenial {
    /// `None` where the plugin acted for no tenant.
    pub tenant: Option<String>,
    pub user: Option<String>,
    pub run: Option<RunId>,
    pub plugin: String,
    pub version: String,
    pub scope: Scope,
    pub call: String,
    pub depth: u32,
    pub permission: String,
    pub reason: String,
    pub is_last: bool,
}

/// Keeps audit records in memory, in the order in which they came.
#[derive(Debug, Default)]
pub struct RecordingAudit(Mutex<Vec<Audited>>, Mutex<Vec<AuditedEvent>>, Mutex<Vec<AuditedDenial>>, Mutex<Vec<String>>);

impl RecordingAudit {
    /// The records so far.
    #[must_use]
    pub fn records(&self) -> Vec<Audited> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What was denied so far.
    #[must_use]
    pub fn denials(&self) -> Vec<AuditedDenial> {
        self.2.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Approvals that were asked for and decided about so far, as `ask TOOL` and `approve TOOL by WHOM`.
    #[must_use]
    pub fn approvals(&self) -> Vec<String> {
        self.3.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The events that were handled so far.
    #[must_use]
    pub fn events(&self) -> Vec<AuditedEvent> {
        self.1.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl AuditSink for RecordingAudit {
    fn record(&self, record: &AuditRecord<'_>) {
        let audited = Audited {
            tenant: record.caller.tenant.to_string(),
            tool: record.tool.to_owned(),
            plugin: record.plugin.as_ref().map(|(name, _)| (*name).to_owned()),
            served_by: record.served_by.map(str::to_owned),
            outcome: record.reply.as_ref().map_or_else(|error| error.kind.name(), |_| "ok").to_owned(),
            raw: record.raw.and_then(|raw| raw.as_ref().ok()).map(|output| output.data.clone()),
            reply: record.reply.as_ref().ok().map(|output| output.data.clone()),
            decisions: record.decisions.iter().map(|d| format!("{} {}: {}", d.point, d.hook, d.decision)).collect(),
            depth: record.depth,
            call: record.call.to_string(),
            parent: record.parent.map(ToString::to_string),
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(audited);
    }

    fn event(&self, record: &EventRecord<'_>) {
        let audited = AuditedEvent {
            scope: record.event.scope.clone(),
            event: record.event.name.to_string(),
            plugin: record.plugin.to_owned(),
            depth: record.event.depth,
            outcome: record.result.as_ref().map_or_else(|error| error.kind.name(), |_| "ok").to_owned(),
        };
        self.1.lock().unwrap_or_else(PoisonError::into_inner).push(audited);
    }

    fn denied(&self, record: &DenialRecord<'_>) {
        let DenialRecord { caller, plugin, version, scope, call, depth, permission, reason, is_last } = *record;
        let audited = AuditedDenial {
            tenant: caller.map(|caller| caller.tenant.to_string()),
            user: caller.and_then(|caller| caller.user.as_deref()).map(str::to_owned),
            run: caller.map(|caller| caller.run),
            plugin: plugin.to_string(),
            version: version.to_string(),
            scope: scope.clone(),
            call: call.to_owned(),
            depth,
            permission: permission.to_owned(),
            reason: reason.to_owned(),
            is_last,
        };
        self.2.lock().unwrap_or_else(PoisonError::into_inner).push(audited);
    }

    fn approval(&self, record: &ApprovalRecord<'_>) {
        let ApprovalRecord { pending, stage, .. } = record;
        let by = if let ApprovalStage::Decided { by, .. } = stage { format!(" by {by}") } else { String::new() };
        let audited = format!("{} {}{by}", stage.name(), pending.tool);
        self.3.lock().unwrap_or_else(PoisonError::into_inner).push(audited);
    }
}
