//! Plugins whose code is compiled when it is needed first. Until then a host shows what they declare.
//!
//! What waits has no hooks, no `on_load` and no `on_start`: a guard whose code might turn out not to compile would be a
//! guard that nobody can rely on, so [`Declared::can_wait`] says no to those, and they are loaded at once. What the code
//! declares once it is compiled must be what was shown, or it is not taken.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use serde_json::Value;
use toolbay_api::{
    Assets, Callback, CallbackContext, CodeState, Declared, ErrorKind, Event, EventContext, EventHandler, EventPattern,
    LoadError, Manifest, Package, Plugin, PluginContext, PluginMetadata, PluginName, Runner, Scope, Subscription, Tool,
    ToolContext, ToolDefinition, ToolError, ToolOutput, async_trait, manifest::EventDeclaration,
};

use crate::{
    guarded::now,
    refusals::{Refusal, is_of_the_text},
    toolbay::in_time,
};

/// When the code of plugins is compiled that can wait for it. Those with hooks, `on_load` or `on_start` cannot.
#[derive(Debug, Clone, Default)]
pub struct Loading {
    /// For plugins that are not named below.
    pub code: CodeLoading,
    /// Plugins for everybody, by name: whether their code is compiled when they are loaded. A tenant's own plugin of such a
    /// name is as the others.
    pub plugins: HashMap<PluginName, bool>,
}

/// When code is compiled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CodeLoading {
    /// As each plugin's manifest has it by `auto_load`: when it is loaded, unless that is `false`.
    #[default]
    AsDeclared,
    /// When it is loaded, whatever manifests say.
    AtOnce,
    /// When it is needed first, whatever manifests say.
    AtFirstUse,
}

impl Loading {
    /// Whether the code of this plugin may wait. `auto_load` is its manifest's word.
    pub(crate) fn is_lazy(&self, scope: &Scope, plugin: &PluginName, auto_load: bool) -> bool {
        let named = self.plugins.get(plugin).filter(|_| *scope == Scope::Global);
        let at_once = named.copied().unwrap_or(match self.code {
            CodeLoading::AsDeclared => auto_load,
            CodeLoading::AtOnce => true,
            CodeLoading::AtFirstUse => false,
        });
        !at_once
    }

    /// Whether the code of this package may wait, as far as that can be told before anything of it was read in the sandbox:
    /// `false` is certain.
    pub(crate) fn may_be_lazy(&self, scope: &Scope, package: &Package) -> bool {
        if let Some(manifest) = &package.manifest {
            return self.is_lazy(scope, &manifest.name, manifest.auto_load);
        }
        let is_named = *scope == Scope::Global && self.plugins.values().any(|at_once| !at_once);
        let says_so = || package.files.values().any(|source| source.contains("auto_load"));
        match self.code {
            CodeLoading::AtFirstUse => true,
            CodeLoading::AtOnce => is_named,
            CodeLoading::AsDeclared => is_named || says_so(),
        }
    }
}

/// The shortest and the longest time after which code is tried again that could not be compiled for a reason that passes.
const RETRY_AFTER: Duration = Duration::from_secs(1);
const RETRY_AT_MOST: Duration = Duration::from_secs(60);

/// What the code is made of, and what has become of it.
pub(crate) struct Code {
    runner: Arc<dyn Runner>,
    package: Package,
    cx: PluginContext,
    manifest: Manifest,
    /// What others found out about the same text.
    refusal: Arc<Refusal>,
    ready: OnceLock<Ready>,
    // std's Mutex: held for a look or a change only, never while something is compiled.
    attempt: Mutex<Attempt>,
}

/// A plugin whose code is there.
struct Ready {
    plugin: Arc<dyn Plugin>,
    tools: HashMap<String, Arc<dyn Tool>>,
    handlers: BTreeMap<EventPattern, Arc<dyn EventHandler>>,
}

impl Ready {
    fn new(plugin: Arc<dyn Plugin>) -> Self {
        let tools = plugin.tools().into_iter().map(|tool| (tool.definition().name.to_string(), tool)).collect();
        let handlers = plugin.subscriptions().into_iter().map(|one| (one.pattern, one.handler)).collect();
        Self { plugin, tools, handlers }
    }
}

#[derive(Default)]
struct Attempt {
    /// One that is going on, for all who want the code now.
    running: Option<Shared<BoxFuture<'static, ()>>>,
    failed: Option<Failed>,
}

struct Failed {
    error: LoadError,
    /// How often in a row.
    times: u32,
    /// When it may be tried again; `None`: not before the plugin is another.
    retry_at: Option<Instant>,
}

impl Code {
    /// The code, compiled now if it was not yet: once, however many want it at the same time, on a thread that may block, and
    /// to its end, whoever of them gives up meanwhile.
    ///
    /// # Errors
    /// `Unavailable` where it does not compile, without the reason, which the operator finds in the source of the error, in
    /// the log and in the plugin's [`CodeState`]. What cannot succeed is not tried again, what may is tried later each time.
    async fn ready(self: &Arc<Self>) -> Result<&Ready, ToolError> {
        if let Some(ready) = self.ready.get() {
            return Ok(ready);
        }
        let running = self.running()?;
        running.await;
        let lost = || ToolError::new(ErrorKind::Internal, "the plugin's code was neither compiled nor refused");
        self.ready.get().ok_or_else(|| self.refused().unwrap_or_else(lost))
    }

    /// What compiles the code; begins it where nobody has.
    ///
    /// # Errors
    /// `Unavailable` where it failed and may not be tried again now.
    fn running(self: &Arc<Self>) -> Result<Shared<BoxFuture<'static, ()>>, ToolError> {
        let mut attempt = self.attempt.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = &attempt.running {
            return Ok(running.clone());
        }
        if attempt.failed.is_none()
            && let Some(error) = self.refusal.known()
        {
            attempt.failed = Some(Failed { error, times: 1, retry_at: None });
        }
        if let Some(failed) = &attempt.failed
            && failed.retry_at.is_none_or(|at| now() < at)
        {
            return Err(self.to_caller(failed));
        }
        let code = Arc::clone(self);
        let runtime = tokio::runtime::Handle::current();
        // Compiling takes a thread for as long as it takes, so it takes none of those that run calls; and it is the code
        // that is compiled for, not the call, so it goes on where the call is given up. What came of it is written down
        // there and not by who waits: nobody may.
        let thread = tokio::task::spawn_blocking(move || code.note(runtime.block_on(code.compile())));
        let running = thread.map(drop).boxed().shared();
        attempt.running = Some(running.clone());
        Ok(running)
    }

    async fn compile(&self) -> Result<Ready, LoadError> {
        let plugin = in_time(self.runner.load(&self.package, &self.cx)).await?;
        if *plugin.metadata() != self.manifest {
            return Err(LoadError::new(
                ErrorKind::Config,
                "the plugin declares something else than what was read of it when it was found: declare it once, at the \
                 beginning of its entry file",
            ));
        }
        Ok(Ready::new(plugin))
    }

    /// Writes down what came of an attempt, for those who wait and those who come.
    fn note(&self, outcome: Result<Ready, LoadError>) {
        let (plugin, scope) = (&self.manifest.name, &self.cx.scope);
        let mut attempt = self.attempt.lock().unwrap_or_else(PoisonError::into_inner);
        attempt.running = None;
        match outcome {
            Ok(ready) => {
                attempt.failed = None;
                let _ = self.ready.set(ready);
                tracing::debug!(target: "toolbay::lifecycle", %plugin, %scope, "compiled at first use");
            }
            Err(error) => {
                let times = attempt.failed.as_ref().map_or(0, |failed| failed.times).saturating_add(1);
                let wait = RETRY_AFTER.saturating_mul(1 << (times - 1).min(16)).min(RETRY_AT_MOST);
                let retry_at = passes(error.kind).then(|| now() + wait);
                tracing::error!(target: "toolbay::lifecycle", %plugin, %scope, %error, "not compiled at first use");
                if is_of_the_text(error.kind) {
                    self.refusal.learn(&error);
                }
                attempt.failed = Some(Failed { error, times, retry_at });
            }
        }
    }

    fn refused(&self) -> Option<ToolError> {
        let attempt = self.attempt.lock().unwrap_or_else(PoisonError::into_inner);
        attempt.failed.as_ref().map(|failed| self.to_caller(failed))
    }

    /// What a caller is told: nothing of the code, which may be none of its business.
    fn to_caller(&self, failed: &Failed) -> ToolError {
        let (name, passes) = (&self.manifest.name, failed.retry_at.is_some());
        let next = if passes { "try again later" } else { "tell the operator, who can see why" };
        let message = format!("the plugin {name} could not be made ready for its first use; {next}");
        ToolError::new(ErrorKind::Unavailable, message).with_retryable(passes).with_source(failed.error.to_string())
    }

    fn state(&self) -> CodeState {
        if let Some(ready) = self.ready.get() {
            return ready.plugin.code();
        }
        let attempt = self.attempt.lock().unwrap_or_else(PoisonError::into_inner);
        attempt.failed.as_ref().map_or(CodeState::AtFirstUse, |failed| CodeState::Failed(failed.error.clone()))
    }
}

/// Whether a reason not to load says more of the moment than of the plugin.
fn passes(kind: ErrorKind) -> bool {
    kind.is_retryable() || matches!(kind, ErrorKind::Internal | ErrorKind::Panic | ErrorKind::Cancelled)
}

/// A plugin whose code is compiled when it is needed first.
pub(crate) struct LazyPlugin {
    code: Arc<Code>,
    callbacks: Vec<Callback>,
}

impl LazyPlugin {
    /// The plugin that `declared` tells of, where it can wait for its code.
    pub(crate) fn new(
        runner: Arc<dyn Runner>,
        package: Package,
        cx: PluginContext,
        declared: Declared,
        refusal: Arc<Refusal>,
    ) -> Self {
        let Declared { manifest, callbacks } = declared;
        let (ready, attempt) = (OnceLock::new(), Mutex::default());
        Self { code: Arc::new(Code { runner, package, cx, manifest, refusal, ready, attempt }), callbacks }
    }

    /// The plugin for a callback. `None` where it has none such.
    async fn behind(&self, callback: Callback) -> Result<Option<&Arc<dyn Plugin>>, ToolError> {
        if !self.callbacks.contains(&callback) {
            return Ok(None);
        }
        self.code.ready().await.map(|ready| Some(&ready.plugin))
    }

    /// The plugin for a callback that ends something: `None` also where its code was never needed, since then nothing of it
    /// ever ran, and there is nothing to end. To compile the code of thousands in order to stop them would be the end of
    /// any shutdown's time.
    fn behind_end(&self, callback: Callback) -> Option<&Arc<dyn Plugin>> {
        self.code.ready.get().filter(|_| self.callbacks.contains(&callback)).map(|ready| &ready.plugin)
    }
}

#[async_trait]
impl Plugin for LazyPlugin {
    fn metadata(&self) -> &PluginMetadata {
        &self.code.manifest
    }

    fn tools(&self) -> Vec<Arc<dyn Tool>> {
        let tool = |definition| Arc::new(LazyTool { definition, code: Arc::clone(&self.code) }) as Arc<dyn Tool>;
        self.code.manifest.tool_definitions().into_iter().map(tool).collect()
    }

    fn subscriptions(&self) -> Vec<Subscription> {
        let events = self.code.manifest.events.iter();
        let subscription = |(pattern, declared): (&EventPattern, &EventDeclaration)| Subscription {
            pattern: pattern.clone(),
            handler: Arc::new(LazyHandler { pattern: pattern.clone(), code: Arc::clone(&self.code) }),
            timeout: declared.timeout_ms.map(Duration::from_millis),
            queue: declared.queue.map(|events| events as usize),
        };
        events.map(subscription).collect()
    }

    fn assets(&self) -> Assets {
        self.code.package.assets.clone()
    }

    fn callbacks(&self) -> Vec<Callback> {
        self.callbacks.clone()
    }

    fn code(&self) -> CodeState {
        self.code.state()
    }

    async fn on_tenant_enabled(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        match self.behind(Callback::TenantEnabled).await? {
            Some(plugin) => plugin.on_tenant_enabled(cx).await,
            None => Ok(()),
        }
    }

    async fn on_tenant_disabled(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        match self.behind(Callback::TenantDisabled).await? {
            Some(plugin) => plugin.on_tenant_disabled(cx).await,
            None => Ok(()),
        }
    }

    async fn on_health_check(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        match self.behind(Callback::HealthCheck).await? {
            Some(plugin) => plugin.on_health_check(cx).await,
            None => Ok(()),
        }
    }

    async fn on_stop(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        match self.behind_end(Callback::Stop) {
            Some(plugin) => plugin.on_stop(cx).await,
            None => Ok(()),
        }
    }

    async fn on_unload(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        match self.behind_end(Callback::Unload) {
            Some(plugin) => plugin.on_unload(cx).await,
            None => Ok(()),
        }
    }
}

/// A tool whose code comes with its first call.
struct LazyTool {
    definition: ToolDefinition,
    code: Arc<Code>,
}

#[async_trait]
impl Tool for LazyTool {
    fn definition(&self) -> &ToolDefinition {
        &self.definition
    }

    async fn call(&self, arguments: Value, cx: &ToolContext) -> Result<ToolOutput, ToolError> {
        let tool = self.code.ready().await?.tools.get(self.definition.name.as_str());
        tool.ok_or_else(|| not_there("tool"))?.call(arguments, cx).await
    }
}

/// A handler whose code comes with its first event.
struct LazyHandler {
    pattern: EventPattern,
    code: Arc<Code>,
}

#[async_trait]
impl EventHandler for LazyHandler {
    async fn handle(&self, event: &Arc<Event>, cx: &EventContext) -> Result<Value, ToolError> {
        let handler = self.code.ready().await?.handlers.get(&self.pattern);
        handler.ok_or_else(|| not_there("handler"))?.handle(event, cx).await
    }
}

/// A runner gave a plugin that has not all that its own manifest declares.
fn not_there(what: &str) -> ToolError {
    ToolError::new(ErrorKind::Internal, format!("the plugin's code has no such {what}, though it declares it"))
}
