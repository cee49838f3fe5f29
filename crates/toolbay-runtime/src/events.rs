//! Events: what happens is told to every plugin that listens, and to the host's own code. It stands apart from the road
//! since nobody waits for an event and nothing hangs on its outcome.
//!
//! # Layout
//!
//! - here: what is told, by whom it may be, and to whom it goes.
//! - `mailbox`: events that wait for a plugin, a lane for each tenant; `handle`: one event and one handler.
//! - `relay`: events that take the way over other processes.
//! - `stream`: listening from outside; `announce`: the lives of plugins as events.
//!
//! Who listens stands in the catalogs, so that a change of a catalog changes tools, hooks and handlers together.

pub(crate) mod announce;
mod handle;
pub(crate) mod mailbox;
mod relay;
pub(crate) mod stream;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::Value;
use tokio::sync::oneshot;
use toolbay_api::{
    ErrorKind, Event, EventId, EventName, EventSource, Grants, Limit, Limits, PluginName, Scope, ToolError,
};

pub use relay::EventRelay;
pub use stream::{EventStream, Heard};

use crate::{
    catalog::{Owner, SubscriptionEntry},
    clock,
    redact::Redactor,
    session::Session,
    shape,
    toolbay::Toolbay,
};
use mailbox::{Letter, Put};

/// What events may take up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventBounds {
    /// Events of one tenant that may wait for one subscription; more are dropped. A subscription may ask for fewer.
    pub waiting_per_tenant: usize,
    /// Events of all tenants together that one plugin may have before it, those in its hands included.
    pub waiting_per_plugin: usize,
    /// How many events may follow from one another: what a handler tells while it handles an event is one deeper.
    pub max_depth: u32,
    /// Bytes of a payload as compact JSON.
    pub max_payload_bytes: usize,
}

impl Default for EventBounds {
    fn default() -> Self {
        Self { waiting_per_tenant: 64, waiting_per_plugin: 4_096, max_depth: 8, max_payload_bytes: 64 << 10 }
    }
}

/// What became of the events that one plugin listens to, since it was registered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventCounters {
    /// Handled.
    pub delivered: u64,
    /// Not handled since the handler failed, was late or was not allowed to hear of it.
    pub failed: u64,
    /// Not handled since too many waited or the plugin was stopping.
    pub dropped: u64,
    /// Waiting now, or being handled.
    pub waiting: usize,
}

/// What became of one event with one handler.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The plugin that listens.
    pub plugin: PluginName,
    /// Where it is registered.
    pub scope: Scope,
    /// How it went.
    pub outcome: DeliveryOutcome,
}

/// How the delivery of an event went.
#[derive(Debug, Clone)]
pub enum DeliveryOutcome {
    /// The handler's result.
    Handled(Value),
    /// The handler failed, or was not called, for this reason.
    Failed(ToolError),
    /// Too many events waited, or the plugin was stopping.
    Dropped,
    /// It was not done when the waiting ended. It goes on.
    Late,
}

/// Where in a chain of events something is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    /// The depth of what is told here.
    depth: u32,
    cause: Option<EventId>,
    /// Whether a call in flight tells it, which is heard while the host closes.
    nested: bool,
}

impl Origin {
    /// No call is behind it.
    pub(crate) const OUTSIDE: Self = Self { depth: 0, cause: None, nested: false };
    /// A call that follows from no event.
    pub(crate) const CALL: Self = Self { depth: 0, cause: None, nested: true };

    /// A handler of `event`.
    fn handler_of(event: &Event) -> Self {
        Self { depth: event.depth + 1, cause: Some(event.id), nested: true }
    }
}

/// What is told, before it is an event.
pub(crate) struct Told {
    pub(crate) name: EventName,
    pub(crate) payload: Value,
    pub(crate) scope: Scope,
    pub(crate) source: EventSource,
    pub(crate) origin: Origin,
}

/// An answer that somebody waits for, and whose it will be.
type Awaited = (Arc<Owner>, oneshot::Receiver<DeliveryOutcome>);

impl Toolbay {
    /// Tells of an event: `Scope::Tenant` to this tenant's plugins and to global ones on its behalf, `Scope::Global`
    /// to global plugins only. Waits for no handler; what does not fit into a plugin's queue is dropped and counted.
    ///
    /// Handlers run on the Tokio runtime in which this is called. Outside of one only [`events`](Self::events) hears.
    ///
    /// # Errors
    /// `InvalidArguments` where `name` is no event name or begins with `plugin.`, which is for the lives of plugins;
    /// `LimitExceeded` for a payload over [`EventBounds::max_payload_bytes`]; `Unavailable` while the host shuts down.
    pub fn publish(&self, scope: &Scope, name: &str, payload: Value) -> Result<EventId, ToolError> {
        let told = self.told_outside(scope, name, payload)?;
        self.tell(told)
    }

    /// As [`publish`](Self::publish), and gives what became of it with each handler, waiting at most `within`. What is not
    /// done by then goes on, and is [`DeliveryOutcome::Late`].
    ///
    /// # Errors
    /// As [`publish`](Self::publish); a handler's failure is in its [`Delivery`].
    ///
    /// # Cancel safety
    /// Dropped, it only waits no more.
    pub async fn publish_and_wait(
        &self,
        scope: &Scope,
        name: &str,
        payload: Value,
        within: Duration,
    ) -> Result<Vec<Delivery>, ToolError> {
        let event = self.event_of(self.told_outside(scope, name, payload)?)?;
        Ok(self.hand_out_and_wait(event, false, within).await)
    }

    async fn hand_out_and_wait(&self, event: Event, nested: bool, within: Duration) -> Vec<Delivery> {
        let deadline = tokio::time::Instant::now() + within;
        let mut awaited = Vec::new();
        self.hand_out(event, nested, Some(&mut awaited));
        let mut deliveries = Vec::with_capacity(awaited.len());
        for (owner, answer) in awaited {
            let outcome = match tokio::time::timeout_at(deadline, answer).await {
                Ok(answer) => answer.unwrap_or(DeliveryOutcome::Dropped),
                Err(_) => DeliveryOutcome::Late,
            };
            deliveries.push(Delivery { plugin: owner.name.clone(), scope: owner.scope.clone(), outcome });
        }
        deliveries
    }

    /// Listens from outside: every event from now on, which [`EventStream::matching`] and [`EventStream::of`] narrow.
    #[must_use]
    pub fn events(&self) -> EventStream {
        self.outlets().open()
    }

    /// What became of the events that the plugins of `scope` listen to, by plugin.
    #[must_use]
    pub fn event_counters(&self, scope: &Scope) -> BTreeMap<PluginName, EventCounters> {
        let catalog = self.registry().catalog(scope);
        catalog.listening().map(|plugin| (plugin.owner.name.clone(), plugin.owner.mailbox.counters())).collect()
    }

    fn told_outside(&self, scope: &Scope, name: &str, payload: Value) -> Result<Told, ToolError> {
        let name = event_name(name)?;
        if name.as_str().starts_with("plugin.") {
            let message =
                format!("{name} is an event of a plugin's life, which the host tells itself; use another name");
            return Err(ToolError::new(ErrorKind::InvalidArguments, message));
        }
        self.registry().check_open().map_err(|error| ToolError::new(error.kind, error.message))?;
        self.check_payload(&payload, &self.policy().limits)?;
        Ok(Told { name, payload, scope: scope.clone(), source: EventSource::Host, origin: Origin::OUTSIDE })
    }

    /// What a plugin tells, checked: its name, what the manifest provides, the grant, the size.
    ///
    /// # Errors
    /// As [`Host::emit`](toolbay_api::Host::emit).
    pub(crate) fn told_by_plugin(&self, owner: &Owner, emission: Emission<'_>) -> Result<Told, ToolError> {
        let Emission { name, mut payload, scope, origin, limits, redactor, require } = emission;
        let name = event_name(name)?;
        // Names are compared, granted and logged as they are, so nothing can be hidden in them.
        if redactor.is_some_and(|redactor| *redactor.text(name.as_str()) != *name.as_str()) {
            let message = "the event's name holds a secret that this call has read: name what happened instead";
            return Err(ToolError::new(ErrorKind::InvalidArguments, message));
        }
        if name.is_reserved() {
            let message =
                format!("{name} is an event of the host: use a name that begins with neither plugin. nor host.");
            return Err(ToolError::new(ErrorKind::InvalidArguments, message));
        }
        if owner.emits.as_ref().is_some_and(|emits| !emits.iter().any(|emitted| *emitted == *name.as_str())) {
            let message = format!("the event {name} is not in `provides.events` of the manifest: add it there");
            return Err(ToolError::new(ErrorKind::PermissionDenied, message));
        }
        require(&format!("event:emit:{name}"))?;
        self.check_payload(&payload, limits)?;
        if let Some(redactor) = redactor {
            redactor.value(&mut payload);
        }
        let source = EventSource::Plugin { name: owner.name.clone(), scope: owner.scope.clone() };
        Ok(Told { name, payload, scope, source, origin })
    }

    fn check_payload(&self, payload: &Value, limits: &Limits) -> Result<(), ToolError> {
        let allowed = self.event_bounds().max_payload_bytes.min(limits.max_argument_bytes);
        // A script gets the payload within a map, so what may be told can be heard.
        shape::check(payload, Limit::Arguments, allowed, limits.max_nesting.saturating_sub(1))
    }

    /// Makes an event of it and tells everybody.
    ///
    /// # Errors
    /// `LimitExceeded` where it follows from too many others.
    pub(crate) fn tell(&self, told: Told) -> Result<EventId, ToolError> {
        let nested = told.origin.nested;
        Ok(self.hand_out(self.event_of(told)?, nested, None))
    }

    /// Makes an event of what is told.
    ///
    /// # Errors
    /// `LimitExceeded` where it follows from too many others.
    fn event_of(&self, told: Told) -> Result<Event, ToolError> {
        let Told { name, payload, scope, source, origin } = told;
        let allowed = self.event_bounds().max_depth;
        if origin.depth > allowed {
            let message = format!(
                "the event {name} follows from {} others, and {allowed} are allowed: handlers seem to answer each other \
                 without end",
                origin.depth
            );
            let (allowed, used) = (u64::from(allowed), u64::from(origin.depth));
            let kind = ErrorKind::LimitExceeded { limit: Limit::EventDepth, allowed, used };
            return Err(ToolError::new(kind, message));
        }
        let id = EventId::random();
        let (depth, cause, at_ms) = (origin.depth, origin.cause, clock::now_ms(&*self.ports().clock)?);
        Ok(Event { id, name, scope, source, payload, depth, at_ms, cause })
    }

    /// Puts an event before everybody who hears it here.
    fn hand_out(&self, event: Event, nested: bool, mut awaited: Option<&mut Vec<Awaited>>) -> EventId {
        let (id, depth) = (event.id, event.depth);
        let event = Arc::new(event);
        tracing::debug!(target: "toolbay::events", event = %event.name, %id, scope = %event.scope, depth, "told");
        self.outlets().show(&event);
        for listener in self.registry().listening(&event.scope) {
            for entry in &listener.subscriptions {
                if entry.subscription.pattern.matches(event.name.as_str()) {
                    let reply = awaited.as_mut().map(|awaited| {
                        let (sender, receiver) = oneshot::channel();
                        awaited.push((Arc::clone(&entry.owner), receiver));
                        sender
                    });
                    self.deliver(&event, entry, nested, reply);
                }
            }
        }
        id
    }

    /// Puts the event into the listener's mailbox, and has somebody empty it.
    fn deliver(
        &self,
        event: &Arc<Event>,
        entry: &Arc<SubscriptionEntry>,
        nested: bool,
        reply: Option<oneshot::Sender<DeliveryOutcome>>,
    ) {
        let owner = &entry.owner;
        if let Err(error) = self.check_listener(owner, event) {
            owner.mailbox.count_failed();
            if let Some(reply) = reply {
                let _ = reply.send(DeliveryOutcome::Failed(error));
            }
            return;
        }
        // In flight from now on, not only when its turn comes: who stops the plugin waits for the whole queue.
        let Ok(busy) = owner.life.enter(nested) else { return owner.mailbox.count_dropped(1) };
        let letter = Letter { event: Arc::clone(event), entry: Arc::clone(entry), reply, _busy: busy };
        match owner.mailbox.put(letter, self.event_bounds()) {
            Put::Behind => {}
            Put::First => handle::begin(self, owner, event.scope.clone()),
            Put::Refused => {
                let (plugin, scope) = (&owner.name, &event.scope);
                tracing::debug!(target: "toolbay::events", event = %event.name, %plugin, %scope, "dropped");
            }
        }
    }

    /// Whether the plugin may hear of the event: by what the event's tenant grants, where it has one.
    fn check_listener(&self, owner: &Owner, event: &Event) -> Result<(), ToolError> {
        let policy = self.policy();
        let tenant = event.tenant().and_then(|tenant| policy.tenant_grants.get(tenant)).unwrap_or(&policy.any_tenant);
        let grants = Grants {
            asked: Arc::clone(&owner.asked),
            host: Arc::clone(&owner.host_grants),
            tenant: Arc::clone(tenant),
        };
        let action = format!("event:listen:{}", event.name);
        grants.require(&action).inspect_err(|_| {
            tracing::info!(
                target: "toolbay::audit",
                scope = %event.scope, plugin = %owner.name, event = %event.id, action,
                "permission denied"
            );
        })
    }
}

/// What a plugin wants to tell, and what stands around it.
pub(crate) struct Emission<'a> {
    pub(crate) name: &'a str,
    pub(crate) payload: Value,
    pub(crate) scope: Scope,
    pub(crate) origin: Origin,
    pub(crate) limits: &'a Limits,
    pub(crate) redactor: Option<&'a Redactor>,
    pub(crate) require: &'a (dyn Fn(&str) -> Result<(), ToolError> + Sync),
}

fn event_name(name: &str) -> Result<EventName, ToolError> {
    EventName::new(name).map_err(|error| ToolError::new(ErrorKind::InvalidArguments, error.to_string()))
}

impl Session {
    /// Tells of an event of this tenant; see [`Toolbay::publish`].
    ///
    /// # Errors
    /// As [`Toolbay::publish`].
    pub fn publish(&self, name: &str, payload: Value) -> Result<EventId, ToolError> {
        self.toolbay().publish(&Scope::Tenant(self.tenant().clone()), name, payload)
    }

    /// Tells of an event of this tenant and waits for its handlers; see [`Toolbay::publish_and_wait`].
    ///
    /// # Errors
    /// As [`Toolbay::publish`].
    ///
    /// # Cancel safety
    /// Dropped, it only waits no more.
    pub async fn publish_and_wait(
        &self,
        name: &str,
        payload: Value,
        within: Duration,
    ) -> Result<Vec<Delivery>, ToolError> {
        self.toolbay().publish_and_wait(&Scope::Tenant(self.tenant().clone()), name, payload, within).await
    }

    /// Listens to this tenant's events from outside.
    #[must_use]
    pub fn events(&self) -> EventStream {
        self.toolbay().events().of(Scope::Tenant(self.tenant().clone()))
    }
}
