//! Handlers of events whose code is a script function.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use rhai::{Dynamic, Map};
use serde_json::{Value, json};
use toolbay_api::{
    Event, EventContext, EventHandler, EventPattern, EventSource, Scope, Subscription, TenantId, ToolError,
    manifest::EventDeclaration,
};

use crate::{
    call::Call,
    check::EntryPoint,
    plugin::{Core, Job, deadline_ms},
};

/// The subscription that the plugin declares by `pattern`.
pub(crate) fn subscription(
    core: &Arc<Core>,
    pattern: EventPattern,
    declaration: &EventDeclaration,
    entry: EntryPoint,
) -> Subscription {
    Subscription {
        pattern,
        handler: Arc::new(RhaiEventHandler { core: Arc::clone(core), entry: Arc::new(entry) }),
        timeout: declaration.timeout_ms.map(Duration::from_millis),
        queue: declaration.queue.map(|events| events as usize),
    }
}

struct RhaiEventHandler {
    core: Arc<Core>,
    entry: Arc<EntryPoint>,
}

#[async_trait]
impl EventHandler for RhaiEventHandler {
    async fn handle(&self, event: &Arc<Event>, cx: &EventContext) -> Result<Value, ToolError> {
        let call = Call::new(Arc::clone(&cx.limits), cx.deadline, Arc::clone(&cx.host), None);
        let tenant = event.tenant().cloned();
        let context = Box::new(move |call: &Call| context(tenant.as_ref(), call));
        self.core.run(call, &self.entry, Job { input: shown(event), context }).await
    }
}

/// An event as scripts see it.
fn shown(event: &Event) -> Value {
    let source = match &event.source {
        EventSource::Host => json!("host"),
        EventSource::Plugin { name, scope } => {
            let tenant = match scope {
                Scope::Global => None,
                Scope::Tenant(tenant) => Some(tenant),
            };
            json!({ "plugin": name, "tenant": tenant })
        }
    };
    json!({
        "id": event.id, "name": event.name, "tenant": event.tenant(), "source": source, "payload": event.payload,
        "depth": event.depth, "at_ms": event.at_ms, "cause": event.cause,
    })
}

/// The map that a handler gets as its second argument.
fn context(tenant: Option<&TenantId>, call: &Call) -> Dynamic {
    let mut map = Map::new();
    map.insert("tenant".into(), tenant.map_or(Dynamic::UNIT, |tenant| tenant.as_str().into()));
    map.insert("deadline_ms".into(), deadline_ms(call));
    Dynamic::from_map(map)
}
