//! Tool calls in the store's audit: queued where they end, written in batches.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::{
    sync::{
        mpsc::{Receiver, Sender, channel},
        watch,
    },
    task::JoinHandle,
};
use toolbay_api::Scope;

use crate::{
    approval::{Decision, identity},
    audit::{ApprovalRecord, ApprovalStage, AuditRecord, AuditSink, DenialRecord, EventRecord, TracingAudit},
    clock::{Clock, SystemClock, now_ms},
    store::{AuditEntry, Store},
};

/// Entries that wait to be written; more are counted and left out.
const WAITING: usize = 8_192;
/// Entries that are written at once.
const BATCH: usize = 512;
/// How long is waited between tries while the store is away.
const RETRY: Duration = Duration::from_secs(1);
/// How long a user's name in an entry may be, in characters.
const MAX_USER: usize = 100;

/// An audit of tool calls that a [`Store`] keeps, each tenant's in its chain. Arguments and results are not in it.
///
/// A call does not wait for it. Where the store is away or slower than the calls, entries wait, and those that have no room
/// are counted: the chain of each tenant then says how many are missing from the whole host's audit. Calls are also told to
/// `tracing`, as [`TracingAudit`] does.
pub struct StoreAudit {
    queue: Sender<AuditEntry>,
    /// Entries that were put into the queue.
    queued: AtomicU64,
    /// Those of them that are written, or given up.
    done: watch::Receiver<u64>,
    missing: Arc<AtomicU64>,
    writer: JoinHandle<()>,
}

impl StoreAudit {
    /// Begins to write.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        let (queue, waiting) = channel(WAITING);
        let missing = Arc::new(AtomicU64::new(0));
        let (told, done) = watch::channel(0);
        let writer = tokio::spawn(write(store, waiting, Arc::clone(&missing), told));
        Self { queue, queued: AtomicU64::new(0), done, missing, writer }
    }

    /// Waits until what was told before is written, at most `within`; says whether it is.
    ///
    /// # Cancel safety
    /// Dropped, it only waits no more.
    pub async fn flush(&self, within: Duration) -> bool {
        let (queued, mut done) = (self.queued.load(Ordering::SeqCst), self.done.clone());
        let written = done.wait_for(|done| *done >= queued);
        tokio::time::timeout(within, written).await.is_ok_and(|written| written.is_ok())
    }

    fn put(&self, entry: AuditEntry) {
        // Counted before it can be written.
        self.queued.fetch_add(1, Ordering::SeqCst);
        if self.queue.try_send(entry).is_err() {
            self.queued.fetch_sub(1, Ordering::SeqCst);
            self.missing.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for StoreAudit {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

impl fmt::Debug for StoreAudit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreAudit").finish_non_exhaustive()
    }
}

impl AuditSink for StoreAudit {
    fn record(&self, record: &AuditRecord<'_>) {
        TracingAudit.record(record);
        let user = record.caller.user.as_deref().map(|user| user.chars().take(MAX_USER).collect::<String>());
        let outcome = record.reply.as_ref().map_or_else(|error| error.kind.name(), |_| "ok");
        let detail = json!({
            "run": record.caller.run, "call": record.call, "parent": record.parent, "plugin": record.plugin.as_ref().map(|(name, _)| name),
            "version": record.plugin.as_ref().map(|(_, version)| version), "served_by": record.served_by,
            "depth": record.depth, "duration_us": u64::try_from(record.duration.as_micros()).unwrap_or(u64::MAX),
        });
        let actor = user.map_or_else(|| "agent".to_owned(), |user| format!("user:{user}"));
        let scope = Scope::Tenant(record.caller.tenant.clone());
        // A name that no tool has is the caller's own words.
        let target: String = record.tool.chars().take(128).collect();
        self.put(entry(scope, actor, "tool.call", target, outcome, detail));
    }

    fn event(&self, record: &EventRecord<'_>) {
        TracingAudit.event(record);
        let EventRecord { event, plugin, version, result, duration } = record;
        let outcome = result.as_ref().map_or_else(|error| error.kind.name(), |_| "ok");
        let detail = json!({
            "event": event.id, "plugin": plugin, "version": version, "depth": event.depth,
            "duration_us": u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
        });
        let actor = "event".to_owned();
        self.put(entry(event.scope.clone(), actor, "event.handle", event.name.to_string(), outcome, detail));
    }

    fn denied(&self, record: &DenialRecord<'_>) {
        TracingAudit.denied(record);
        let DenialRecord { caller, plugin, version, scope, call, depth, permission, reason, is_last } = record;
        let detail = json!({
            "run": caller.map(|caller| caller.run), "call": call, "plugin": plugin, "version": version, "plugin_scope": scope.to_string(),
            "depth": depth, "reason": reason, "is_last": is_last,
        });
        let of = caller.map_or_else(|| (*scope).clone(), |caller| Scope::Tenant(caller.tenant.clone()));
        let kind = toolbay_api::ErrorKind::PermissionDenied.name();
        self.put(entry(of, format!("plugin:{plugin}"), "permission.use", (*permission).to_owned(), kind, detail));
    }

    fn approval(&self, record: &ApprovalRecord<'_>) {
        TracingAudit.approval(record);
        self.put(approval_entry(record));
    }
}

fn approval_entry(record: &ApprovalRecord<'_>) -> AuditEntry {
    let ApprovalRecord { user, pending, stage } = record;
    let edited = match stage {
        ApprovalStage::Decided { decision: Decision::Edit { arguments }, .. } => Some(identity(arguments)),
        _ => None,
    };
    let mut detail = json!({
        "run": pending.run, "call": pending.call, "approval": pending.id, "digest": pending.digest,
        "plugin": pending.plugin.name, "version": pending.plugin.version, "asked_by": pending.asked_by,
        "user": user.map(|user| user.chars().take(MAX_USER).collect::<String>()),
    });
    if let (Some(edited), Some(fields)) = (edited, detail.as_object_mut()) {
        fields.insert("edited".to_owned(), edited.into());
    }
    let actor = match stage {
        ApprovalStage::Asked => "agent".to_owned(),
        ApprovalStage::Decided { by, .. } => by.chars().take(MAX_USER).collect(),
    };
    let scope = Scope::Tenant(pending.tenant.clone());
    entry(scope, actor, &format!("approval.{}", stage.name()), pending.tool.to_string(), "ok", detail)
}

fn entry(scope: Scope, actor: String, action: &str, target: String, outcome: &str, detail: Value) -> AuditEntry {
    let at_ms = now_ms(&SystemClock as &dyn Clock).unwrap_or_default();
    AuditEntry { scope, at_ms, actor, action: action.to_owned(), target, outcome: outcome.to_owned(), detail }
}

async fn write(
    store: Arc<dyn Store>,
    mut waiting: Receiver<AuditEntry>,
    missing: Arc<AtomicU64>,
    told: watch::Sender<u64>,
) {
    let mut batch = Vec::with_capacity(BATCH);
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        let taken = batch.len() as u64;
        let gap = missing.swap(0, Ordering::Relaxed);
        if gap > 0 {
            let detail = json!({ "entries": gap });
            batch.push(entry(Scope::Global, "host".to_owned(), "audit.gap", "tool.call".to_owned(), "ok", detail));
        }
        while let Err(error) = store.record(batch.clone()).await {
            // What cannot be written at all must not keep the rest from being written.
            if !error.retryable {
                tracing::error!(target: "toolbay::control", %error, lines = batch.len(), "audit lines are lost");
                missing.fetch_add(batch.len() as u64, Ordering::Relaxed);
                break;
            }
            tokio::time::sleep(RETRY).await;
        }
        batch.clear();
        told.send_modify(|done| *done += taken);
    }
}
