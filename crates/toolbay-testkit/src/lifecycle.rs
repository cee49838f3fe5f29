//! Checks of the life of a native plugin, for its author: [`check_lifecycle!`](crate::check_lifecycle).

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use toolbay_api::{
    Assets, CallbackContext, HookRegistration, Plugin, PluginMetadata, PluginName, Scope, ServiceRegistration,
    Subscription, TenantId, Tool, ToolError,
};
use toolbay_runtime::{PluginState, RegisterOptions, Toolbay, ToolbayBuilder};

/// How long a shutdown has.
const WITHIN: Duration = Duration::from_secs(30);

/// Checks a native plugin's life: `check_lifecycle!(PLUGIN)` or `check_lifecycle!(PLUGIN, BUILDER)`.
///
/// `PLUGIN` is an expression that makes the plugin; it is evaluated for each check anew. `BUILDER` makes the
/// [`ToolbayBuilder`](toolbay_runtime::ToolbayBuilder) of the host, for grants, configuration and what the plugin requires;
/// without it the host grants all that the plugin asks for. Checked are, globally and for a tenant:
///
/// - it loads, starts, stops and unloads without an error, within the host's time limit, and leaves no call behind;
/// - a second one of its name is refused, and the first is none the worse for it;
/// - unregistered and registered again it is there again, so `on_unload` gives back what `on_load` took;
/// - each callback is called once, though the host is shut down twice.
///
/// The expression is a future that resolves to a `Result` whose error says what was expected.
///
/// ```
/// use toolbay_api::{CallbackContext, Plugin, PluginMetadata, Tool, ToolError, async_trait, plugin::NativePlugin};
/// use toolbay_testkit::check_lifecycle;
///
/// struct Clock(NativePlugin);
///
/// #[async_trait]
/// impl Plugin for Clock {
///     fn metadata(&self) -> &PluginMetadata {
///         self.0.metadata()
///     }
///     fn tools(&self) -> Vec<std::sync::Arc<dyn Tool>> {
///         self.0.tools()
///     }
///     async fn on_load(&self, cx: &CallbackContext) -> Result<(), ToolError> {
///         cx.host.now_ms().map(|_| ())
///     }
/// }
///
/// fn clock(permissions: &[&str]) -> Clock {
///     let permissions = toolbay_api::PermissionSet::parse(permissions).unwrap();
///     let plugin = NativePlugin::new("clock", "1.0.0", "Tells the time").unwrap();
///     Clock(plugin.with(|metadata| metadata.permissions = permissions))
/// }
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// check_lifecycle!(clock(&["clock"])).await.unwrap();
/// let problem = check_lifecycle!(clock(&[])).await.unwrap_err();
/// assert!(problem.starts_with("global: it does not load: PermissionDenied: on_load:"), "{problem}");
/// # }
/// ```
#[macro_export]
macro_rules! check_lifecycle {
    ($plugin:expr $(,)?) => {
        $crate::check_lifecycle!($plugin, $crate::granting_host())
    };
    ($plugin:expr, $builder:expr $(,)?) => {
        $crate::check_life_of(|| ::std::boxed::Box::new($plugin), || $builder)
    };
}

/// A host that grants whatever is asked.
#[must_use]
pub fn granting_host() -> ToolbayBuilder {
    Toolbay::builder().grants(toolbay_api::PermissionSet::all())
}

/// What [`check_lifecycle!`](crate::check_lifecycle) does.
///
/// # Errors
/// What was expected and did not come, in a sentence.
pub async fn check_life_of(
    plugin: impl Fn() -> Box<dyn Plugin>,
    builder: impl Fn() -> ToolbayBuilder,
) -> Result<(), String> {
    for scope in [Scope::Global, Scope::Tenant(TenantId::default())] {
        let checked = check_in(&scope, &plugin, &builder).await;
        checked.map_err(|problem| format!("{scope}: {problem}"))?;
    }
    Ok(())
}

async fn check_in(
    scope: &Scope,
    plugin: &impl Fn() -> Box<dyn Plugin>,
    builder: &impl Fn() -> ToolbayBuilder,
) -> Result<(), String> {
    let bay = builder().build().map_err(|error| format!("the host cannot be built: {error}"))?;
    let calls = Arc::new(Calls::default());
    let register = || {
        let counted = Arc::new(Counted { inner: plugin(), calls: Arc::clone(&calls) });
        bay.register_with(scope.clone(), counted, RegisterOptions::default())
    };
    let name = register().await.map_err(|error| format!("it does not load: {error}"))?;
    expect(&calls, [1, 1, 0, 0], "after it was registered")?;
    if register().await.is_ok() {
        return Err("a second one of its name was taken".to_owned());
    }
    expect(&calls, [1, 1, 0, 0], "after a second one of its name was refused")?;
    bay.unregister(scope, &name).await.map_err(|error| format!("it cannot be unregistered: {error}"))?;
    expect(&calls, [1, 1, 1, 1], "after it was unregistered")?;
    is_well(&bay, scope, &name)?;
    register().await.map_err(|error| format!("it does not load a second time: {error}"))?;
    let report = bay.shutdown(WITHIN).await;
    if !report.unstopped.is_empty() {
        return Err(format!("it does not stop: {}", report.to_string().trim_end()));
    }
    bay.shutdown(WITHIN).await;
    expect(&calls, [2, 2, 2, 2], "after the host was shut down twice")?;
    is_well(&bay, scope, &name)
}

/// Nothing went wrong that only its status tells.
fn is_well(bay: &Toolbay, scope: &Scope, name: &PluginName) -> Result<(), String> {
    let Some(status) = bay.statuses(scope).into_iter().find(|status| status.name == *name) else { return Ok(()) };
    match (&status.state, &status.last_error) {
        (PluginState::Failed { .. }, _) => Err(format!("it is {}", status.state)),
        (_, Some(error)) => Err(format!("it had an error: {error}")),
        _ if status.calls_in_flight > 0 => Err(format!("it left {} calls behind", status.calls_in_flight)),
        _ => Ok(()),
    }
}

fn expect(calls: &Calls, expected: [usize; 4], when: &str) -> Result<(), String> {
    let found = calls.0.each_ref().map(|count| count.load(Ordering::SeqCst));
    if found == expected {
        return Ok(());
    }
    Err(format!(
        "{when}, on_load, on_start, on_stop and on_unload were to have been called {expected:?} times, and were {found:?}"
    ))
}

/// How often each callback was called, in the order of a plugin's life.
#[derive(Default)]
struct Calls([AtomicUsize; 4]);

struct Counted {
    inner: Box<dyn Plugin>,
    calls: Arc<Calls>,
}

impl Counted {
    fn count(&self, callback: toolbay_api::Callback) {
        let at = toolbay_api::Callback::ONCE.into_iter().position(|other| other == callback);
        if let Some(count) = at.and_then(|at| self.calls.0.get(at)) {
            count.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[async_trait]
impl Plugin for Counted {
    fn metadata(&self) -> &PluginMetadata {
        self.inner.metadata()
    }

    fn tools(&self) -> Vec<Arc<dyn Tool>> {
        self.inner.tools()
    }

    fn hooks(&self) -> Vec<HookRegistration> {
        self.inner.hooks()
    }

    fn subscriptions(&self) -> Vec<Subscription> {
        self.inner.subscriptions()
    }

    fn services(&self) -> Vec<ServiceRegistration> {
        self.inner.services()
    }

    fn assets(&self) -> Assets {
        self.inner.assets()
    }

    async fn on_load(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        self.count(toolbay_api::Callback::Load);
        self.inner.on_load(cx).await
    }

    async fn on_start(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        self.count(toolbay_api::Callback::Start);
        self.inner.on_start(cx).await
    }

    async fn on_stop(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        self.count(toolbay_api::Callback::Stop);
        self.inner.on_stop(cx).await
    }

    async fn on_unload(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        self.count(toolbay_api::Callback::Unload);
        self.inner.on_unload(cx).await
    }
}
