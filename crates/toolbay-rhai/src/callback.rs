//! Callbacks whose code is a script function: `fn on_load(cx)` and its sisters, each called if it is there.

use std::{collections::BTreeMap, sync::Arc};

use rhai::Dynamic;
use serde_json::json;
use toolbay_api::{Callback, CallbackContext, Scope, ToolError};

use crate::{
    call::Call,
    check::EntryPoint,
    plugin::{Core, Job},
};

/// The callbacks that a script has.
pub(crate) type Callbacks = BTreeMap<Callback, Arc<EntryPoint>>;

/// Calls the script's function for `callback`, if there is one, in the sandbox that its tools run in.
///
/// # Errors
/// The script's own, and every limit by its kind.
pub(crate) async fn run(
    core: &Arc<Core>,
    callbacks: &Callbacks,
    callback: Callback,
    cx: &CallbackContext,
) -> Result<(), ToolError> {
    let Some(entry) = callbacks.get(&callback) else { return Ok(()) };
    let tenant = match &cx.scope {
        Scope::Global => None,
        Scope::Tenant(tenant) => Some(tenant),
    };
    let input = json!({
        "plugin": core.manifest.name, "version": core.manifest.version, "tenant": tenant,
        "deadline_ms": u64::try_from(cx.time_left().as_millis()).unwrap_or(u64::MAX),
    });
    let call = Call::new(Arc::clone(&cx.limits), cx.deadline, Arc::clone(&cx.host), None);
    let job = Job { input, context: Box::new(|_| Dynamic::UNIT) };
    core.run(call, entry, job).await.map(|_| ())
}
