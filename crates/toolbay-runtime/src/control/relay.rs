//! Events by way of the store: posted by one process, handled by one, at least once, in order for each name.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use toolbay_api::{ErrorKind, Event, ToolError, async_trait};
use uuid::Uuid;

use super::Control;
use crate::{
    events::{DeliveryOutcome, EventRelay},
    store::{OutboxEvent, Store},
};

/// Events that one process handles at a time.
const AT_ONCE: u32 = 32;
/// How long handlers have for one event, and the process for all that it took: another takes over what it did not finish.
const HANDLING: Duration = Duration::from_secs(60);
const LEASE_MS: i64 = 90_000;
/// How often an event is tried before it is put with the dead ones.
const TRIES: u32 = 5;
/// How long is waited where there is nothing to do, and the first time after a failure.
const IDLE: Duration = Duration::from_millis(250);
const RETRY_MS: i64 = 500;

/// Hands events to a [`Store`]: those of one tenant and name are handled in the order in which they were told.
#[derive(Clone)]
pub struct StoreRelay(Arc<dyn Store>);

impl StoreRelay {
    /// Hands them to `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self(store)
    }
}

#[async_trait]
impl EventRelay for StoreRelay {
    async fn post(&self, event: &Event) -> Result<(), ToolError> {
        let written = serde_json::to_value(event).map_err(|error| super::broken("the event", &error))?;
        let posted = OutboxEvent {
            id: event.id.as_uuid(),
            scope: event.scope.clone(),
            key: event.name.to_string(),
            event: written,
            posted_at: event.at_ms,
            attempts: 0,
        };
        self.0.post(vec![posted]).await
    }
}

/// Handles events that wait in the store, for ever.
pub(super) async fn deliver(control: Control) {
    loop {
        let claimed = match control.now_ms() {
            Ok(now) => control.0.store.claim(AT_ONCE, LEASE_MS, now).await,
            Err(error) => Err(error),
        };
        // Why the store is away is told by who follows it.
        let claimed = claimed.unwrap_or_default();
        if claimed.is_empty() {
            tokio::time::sleep(IDLE).await;
            continue;
        }
        join_all(claimed.into_iter().map(|posted| settle(&control, posted))).await;
    }
}

async fn settle(control: &Control, posted: OutboxEvent) {
    let (id, attempts) = (posted.id, posted.attempts);
    let settled = match handle(control, posted).await {
        Ok(()) => control.0.store.delivered(id, attempts).await,
        Err(problem) => give_back(control, id, attempts, &problem).await,
    };
    if let Err(error) = settled {
        // It is handled again when its time is over.
        tracing::warn!(target: "toolbay::control", event = %id, %error, "what became of an event is not written");
    }
}

async fn handle(control: &Control, posted: OutboxEvent) -> Result<(), String> {
    let event: Event = serde_json::from_value(posted.event).map_err(|error| format!("it cannot be read: {error}"))?;
    let received = control.0.bay.receive(event, HANDLING).await.map_err(|error| error.to_string())?;
    for delivery in received {
        match delivery.outcome {
            DeliveryOutcome::Handled(_) => {}
            // That would be no different the next time.
            DeliveryOutcome::Failed(error) if error.kind == ErrorKind::PermissionDenied => {}
            DeliveryOutcome::Failed(error) => return Err(format!("{} ({}): {error}", delivery.plugin, delivery.scope)),
            DeliveryOutcome::Dropped => {
                return Err(format!("{} ({}) had no room for it", delivery.plugin, delivery.scope));
            }
            DeliveryOutcome::Late => {
                return Err(format!("{} ({}) was not done in time", delivery.plugin, delivery.scope));
            }
        }
    }
    Ok(())
}

async fn give_back(control: &Control, id: Uuid, attempts: u32, problem: &str) -> Result<(), ToolError> {
    let tried = attempts.saturating_add(1);
    let wait = RETRY_MS.saturating_mul(1 << attempts.min(10));
    let now = control.now_ms()?;
    let retry_ms = (tried < TRIES).then(|| now.saturating_add(wait));
    if retry_ms.is_none() {
        tracing::warn!(target: "toolbay::control", event = %id, tried, problem, "an event is given up");
    }
    control.0.store.undelivered(id, attempts, problem, retry_ms, now).await
}
