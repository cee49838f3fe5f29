//! Serving a lane: one event after the other to the plugin's handlers, each by the limits and grants that a tool call
//! of the plugin would have.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use toolbay_api::{CallId, ErrorKind, Event, EventContext, Host, Limit, Limits, Scope, ToolError, ToolOutput};

use super::{
    DeliveryOutcome, Origin,
    mailbox::{Letter, Mailbox},
};
use crate::{
    audit::EventRecord,
    call_host::CallHost,
    callbacks::TenantlessHost,
    catalog::{Owner, SubscriptionEntry},
    guarded::{Failure, guarded, now},
    redact::Redactor,
    session::Session,
    shape,
    toolbay::Toolbay,
};

/// Has a lane served until it is empty.
pub(super) fn begin(bay: &Toolbay, owner: &Arc<Owner>, scope: Scope) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return owner.mailbox.abandon(&scope);
    };
    runtime.spawn(serve(bay.clone(), Serving { owner: Arc::clone(owner), scope, in_hand: false, is_done: false }));
}

async fn serve(bay: Toolbay, mut serving: Serving) {
    let session = match &serving.scope {
        Scope::Global => None,
        Scope::Tenant(tenant) => Some(bay.session_of(tenant.clone())),
    };
    while let Some(letter) = serving.take() {
        hand_over(&bay, session.as_ref(), letter).await;
    }
}

/// A lane that is being served. Where its task is lost, with its runtime, the lane ends too.
struct Serving {
    owner: Arc<Owner>,
    scope: Scope,
    in_hand: bool,
    is_done: bool,
}

impl Serving {
    fn mailbox(&self) -> &Mailbox {
        &self.owner.mailbox
    }

    /// The next letter, after the one before is done.
    fn take(&mut self) -> Option<Letter> {
        if std::mem::take(&mut self.in_hand) {
            self.mailbox().settle();
        }
        let letter = self.mailbox().take(&self.scope);
        (self.in_hand, self.is_done) = (letter.is_some(), letter.is_none());
        letter
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if self.in_hand {
            self.mailbox().settle();
            self.mailbox().count_dropped(1);
        }
        // A lane that has ended may have begun anew under somebody else.
        if !self.is_done {
            self.mailbox().abandon(&self.scope);
        }
    }
}

/// Gives one event to one handler, and tells everybody who wants to know how it went.
async fn hand_over(bay: &Toolbay, session: Option<&Session>, letter: Letter) {
    let Letter { event, entry, reply, _busy } = letter;
    let begun = tokio::time::Instant::now();
    let result = match session {
        Some(session) => for_tenant(session, &event, &entry).await,
        None => for_all(bay, &event, &entry).await,
    };
    let owner = &entry.owner;
    match &result {
        Ok(_) => owner.mailbox.count_delivered(),
        Err(error) => {
            owner.mailbox.count_failed();
            let detail = error.operator_detail().map(ToString::to_string).unwrap_or_default();
            let (plugin, scope) = (&owner.name, &event.scope);
            // Whoever tells of events can bring the tenant to its limits as often as it likes.
            if matches!(error.kind, ErrorKind::RateLimited | ErrorKind::Unavailable | ErrorKind::NotEnabled) {
                tracing::debug!(target: "toolbay::events", event = %event.name, %plugin, %scope, %error, detail, "failed");
            } else {
                tracing::warn!(target: "toolbay::events", event = %event.name, %plugin, %scope, %error, detail, "failed");
            }
        }
    }
    if let Some(audit) = &bay.ports().audit {
        let (plugin, version) = (owner.name.as_str(), owner.version.to_string());
        audit.event(&EventRecord { event: &event, plugin, version, result: &result, duration: begun.elapsed() });
    }
    if let Some(reply) = reply {
        // Whoever waited may have given up.
        let _ = reply.send(match result {
            Ok(output) => DeliveryOutcome::Handled(output.data),
            Err(error) => DeliveryOutcome::Failed(error),
        });
    }
}

/// For a tenant, in its name: by its grants and limits, on its meter.
async fn for_tenant(session: &Session, event: &Arc<Event>, entry: &SubscriptionEntry) -> Result<ToolOutput, ToolError> {
    let (run, owner) = (session.run(), &entry.owner);
    let shared = run.inner();
    let limits = match &shared.tenant_limits {
        None => Arc::clone(&owner.limits),
        Some(tenant) => Arc::new(owner.limits.lowered_by(tenant)),
    };
    // It was when the event was told, and the tenant may have thought better of it since.
    if !run.view().sees(owner) {
        let message = format!("the plugin {} is switched off for this tenant", owner.name);
        return Err(ToolError::new(ErrorKind::NotEnabled, message));
    }
    let now = now();
    shared.ward.check(run.tenant(), &owner.name, now)?;
    let _permit = shared.meter.reserve(now)?;
    let (deadline, timeout) = deadline(entry, &limits);
    let redactor = Redactor::default();
    let call = CallId::new(format!("event-{}", event.id));
    let host = CallHost::new(&run, Arc::clone(owner), call, 0, deadline, redactor.clone())
        .telling_from(Origin::handler_of(event));
    let result = ask(event, entry, Arc::new(host), Arc::clone(&limits), deadline, timeout).await;
    let result = redactor.result(result).and_then(|output| shaped(output, &limits));
    if let Err(error) = &result {
        run.note_breach(owner, error);
    }
    result
}

/// For the whole host, in nobody's name.
async fn for_all(bay: &Toolbay, event: &Arc<Event>, entry: &SubscriptionEntry) -> Result<ToolOutput, ToolError> {
    let owner = &entry.owner;
    let limits = Arc::clone(&owner.limits);
    let (deadline, timeout) = deadline(entry, &limits);
    let host = TenantlessHost::new(bay.clone(), Arc::clone(owner), "a handler of the whole host's events")
        .telling_from(Origin::handler_of(event));
    let output = ask(event, entry, Arc::new(host), Arc::clone(&limits), deadline, timeout).await?;
    shaped(output, &limits)
}

/// By tokio's clock, which tests can set.
fn deadline(entry: &SubscriptionEntry, limits: &Limits) -> (Instant, Duration) {
    let timeout = entry.subscription.timeout.map_or(limits.timeout, |own| own.min(limits.timeout));
    (now() + timeout, timeout)
}

async fn ask(
    event: &Arc<Event>,
    entry: &SubscriptionEntry,
    host: Arc<dyn Host>,
    limits: Arc<Limits>,
    deadline: Instant,
    timeout: Duration,
) -> Result<ToolOutput, ToolError> {
    let cx = EventContext { deadline, limits, host };
    match guarded(deadline, entry.subscription.handler.handle(event, &cx)).await {
        Ok(result) => result.map(ToolOutput::new),
        Err(Failure::TimedOut) => Err(ToolError::new(
            ErrorKind::TimedOut,
            format!("the handler took longer than the {timeout:?} that it had for an event; do less in it"),
        )),
        Err(Failure::Panicked(message)) => {
            Err(ToolError::new(ErrorKind::Panic, "the handler broke down; tell the operator").with_source(message))
        }
    }
}

fn shaped(output: ToolOutput, limits: &Limits) -> Result<ToolOutput, ToolError> {
    shape::check(&output.data, Limit::Output, limits.max_output_bytes, limits.max_nesting)?;
    Ok(output)
}
