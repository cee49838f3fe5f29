//! Plugins and the runners that load them.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use semver::Version;

use crate::{
    asset::Assets,
    callback::{Callback, CallbackContext},
    declared::{CodeState, Declared},
    error::{ErrorKind, ToolError},
    event::Subscription,
    hook::HookRegistration,
    limits::Limits,
    manifest::{Manifest, RuntimeKind},
    names::{AbilityName, PluginName, Scope},
    permission::PermissionSet,
    route::Route,
    service::ServiceRegistration,
    tool::Tool,
};

/// A plugin's manifest, under the name by which plugins' authors know it.
pub type PluginMetadata = Manifest;

/// A loaded plugin: what it says of itself, its tools, its hooks, the events that it listens to and its services.
///
/// The lists are read once, at registration. The callbacks have the defaults of a plugin that needs none.
#[async_trait]
pub trait Plugin: Send + Sync {
    /// What it says of itself.
    fn metadata(&self) -> &PluginMetadata;

    /// Its tools.
    fn tools(&self) -> Vec<Arc<dyn Tool>>;

    /// Its hooks.
    fn hooks(&self) -> Vec<HookRegistration> {
        Vec::new()
    }

    /// The events that it listens to.
    fn subscriptions(&self) -> Vec<Subscription> {
        Vec::new()
    }

    /// What it lends to other native plugins; a plugin of another kind has none.
    fn services(&self) -> Vec<ServiceRegistration> {
        Vec::new()
    }

    /// Its HTTP routes, where the host serves any; a plugin of another kind than native has none.
    fn routes(&self) -> Vec<Route> {
        Vec::new()
    }

    /// Its packaged files.
    fn assets(&self) -> Assets {
        Assets::default()
    }

    /// The callbacks that do something here. One that is not among them may be left out, which spares a plugin whose code
    /// is elsewhere the way there; all of them where a plugin does not say.
    fn callbacks(&self) -> Vec<Callback> {
        Callback::ALL.to_vec()
    }

    /// Whether its code is there already.
    fn code(&self) -> CodeState {
        CodeState::Ready
    }

    /// Called once, before anything else of it: to check and to prepare. What it requires is active by then.
    ///
    /// # Errors
    /// Any error keeps the plugin from being registered; nothing more of it is called.
    async fn on_load(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        let _ = cx;
        Ok(())
    }

    /// Called once, when it and every plugin of its wave is loaded and those that it requires are active; its tools can be
    /// called after that.
    ///
    /// # Errors
    /// Any error keeps the plugin from being registered; `on_unload` follows.
    async fn on_start(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        let _ = cx;
        Ok(())
    }

    /// Called where a plugin for everybody is switched on for a tenant, before the tenant sees it. `cx.scope` is the
    /// tenant, and the host is narrowed to it.
    ///
    /// # Errors
    /// Any error keeps it switched off for the tenant.
    async fn on_tenant_enabled(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        let _ = cx;
        Ok(())
    }

    /// Called where a plugin for everybody is switched off for a tenant, after no new run of the tenant sees it.
    ///
    /// # Errors
    /// An error is reported and changes nothing.
    async fn on_tenant_disabled(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        let _ = cx;
        Ok(())
    }

    /// Called every now and then where the host checks the health of its plugins, while it is active.
    ///
    /// # Errors
    /// Any error says that it is not well; after a few in a row it is not called until it is well again.
    async fn on_health_check(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        let _ = cx;
        Ok(())
    }

    /// Called once where `on_start` succeeded, after its last call.
    ///
    /// # Errors
    /// An error is reported and keeps nothing from going on; `on_unload` follows.
    async fn on_stop(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        let _ = cx;
        Ok(())
    }

    /// Called once where `on_load` succeeded, at the very end.
    ///
    /// # Errors
    /// An error is reported and changes nothing.
    async fn on_unload(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        let _ = cx;
        Ok(())
    }
}

/// A plugin written in Rust, made of tools, hooks, subscriptions, services and routes.
///
/// ```
/// use toolbay_api::{plugin::NativePlugin, tool, ToolContext};
/// # use schemars::JsonSchema; use serde::Deserialize;
/// # #[derive(Deserialize, JsonSchema)] struct Empty {}
/// let plugin = NativePlugin::new("clock", "0.1.0", "Tells the time")?
///     .tool(tool("now", "The time", async |_: Empty, cx: ToolContext| cx.host().now_ms()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct NativePlugin {
    metadata: PluginMetadata,
    tools: Vec<Arc<dyn Tool>>,
    hooks: Vec<HookRegistration>,
    subscriptions: Vec<Subscription>,
    services: Vec<ServiceRegistration>,
    routes: Vec<Route>,
    assets: Assets,
}

impl NativePlugin {
    /// A plugin without tools yet.
    ///
    /// # Errors
    /// `Config` where the name is no plugin name or the version no semantic version.
    pub fn new(name: &str, version: &str, description: &str) -> Result<Self, ToolError> {
        let config = |error: String| ToolError::new(ErrorKind::Config, error);
        let name = PluginName::new(name).map_err(|error| config(error.to_string()))?;
        let version = Version::parse(version).map_err(|error| config(format!("the version {version:?}: {error}")))?;
        let metadata = Manifest::new(name, version, description);
        Ok(Self {
            metadata,
            tools: Vec::new(),
            hooks: Vec::new(),
            subscriptions: Vec::new(),
            services: Vec::new(),
            routes: Vec::new(),
            assets: Assets::default(),
        })
    }

    /// Adds a tool.
    #[must_use]
    pub fn tool(mut self, tool: impl Tool + 'static) -> Self {
        self.tools.push(Arc::new(tool));
        self
    }

    /// Adds a hook.
    #[must_use]
    pub fn hook(mut self, hook: HookRegistration) -> Self {
        self.hooks.push(hook);
        self
    }

    /// Listens to events.
    #[must_use]
    pub fn subscription(mut self, subscription: Subscription) -> Self {
        self.subscriptions.push(subscription);
        self
    }

    /// Lends a service.
    #[must_use]
    pub fn service(mut self, service: ServiceRegistration) -> Self {
        self.services.push(service);
        self
    }

    /// Serves an HTTP route, below `/plugins/NAME` where the host has a server.
    #[must_use]
    pub fn route(mut self, route: Route) -> Self {
        self.routes.push(route);
        self
    }

    /// Provides an ability of the host, by tools that are called like its operations.
    #[must_use]
    pub fn provides(mut self, ability: AbilityName) -> Self {
        self.metadata.provides.get_or_insert_default().abilities.push(ability);
        self
    }

    /// Adds packaged files.
    #[must_use]
    pub fn assets(mut self, assets: Assets) -> Self {
        self.assets = assets;
        self
    }

    /// Changes what the plugin says of itself: permissions, limits, author.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut PluginMetadata)) -> Self {
        change(&mut self.metadata);
        self
    }
}

#[async_trait]
impl Plugin for NativePlugin {
    fn metadata(&self) -> &PluginMetadata {
        &self.metadata
    }

    fn tools(&self) -> Vec<Arc<dyn Tool>> {
        self.tools.clone()
    }

    fn hooks(&self) -> Vec<HookRegistration> {
        self.hooks.clone()
    }

    fn subscriptions(&self) -> Vec<Subscription> {
        self.subscriptions.clone()
    }

    fn services(&self) -> Vec<ServiceRegistration> {
        self.services.clone()
    }

    fn routes(&self) -> Vec<Route> {
        self.routes.clone()
    }

    fn assets(&self) -> Assets {
        self.assets.clone()
    }
}

/// A plugin as it is found: its files, read into memory by the loader. A runner touches no file system.
#[derive(Debug, Clone)]
pub struct Package {
    /// Where it was found, for messages to the operator.
    pub origin: PathBuf,
    /// The manifest file's content, where there is one; `None` for a one-file plugin.
    pub manifest: Option<Manifest>,
    /// Code files by their path within the plugin, with `/` between the steps. A one-file plugin has one.
    pub files: BTreeMap<String, Arc<str>>,
    /// Files under `assets/`.
    pub assets: Assets,
}

impl Package {
    /// A one-file plugin from source text. `origin` is what messages call it.
    pub fn one_file(origin: impl Into<PathBuf>, source: impl Into<Arc<str>>) -> Self {
        let origin = origin.into();
        let name = origin.file_name().map_or_else(|| "main.rhai".into(), |name| name.to_string_lossy().into_owned());
        Self { origin, manifest: None, files: BTreeMap::from([(name, source.into())]), assets: Assets::default() }
    }
}

/// What a runner knows when it loads a plugin.
#[derive(Debug, Clone)]
pub struct PluginContext {
    /// Where it will be registered.
    pub scope: Scope,
    /// The host's ceiling for this plugin.
    pub limits: Limits,
    /// What the host would grant it, if it asks.
    pub grants: Arc<PermissionSet>,
}

/// Loads packages of one kind into plugins.
///
/// A runner knows this crate only, never the runtime or another runner.
#[async_trait]
pub trait Runner: Send + Sync {
    /// The `runtime` of manifests that it loads.
    fn kind(&self) -> RuntimeKind;

    /// The file extension of one-file plugins that it loads, without the dot.
    fn one_file_extension(&self) -> Option<&'static str> {
        None
    }

    /// Compiles and checks the package and gives the plugin, ready to be called.
    ///
    /// # Errors
    /// [`LoadError`] with file and line where it can be told.
    async fn load(&self, package: &Package, cx: &PluginContext) -> Result<Arc<dyn Plugin>, LoadError>;

    /// Tells what the package says of itself without compiling its code, by the checks that need none of it: so that a host
    /// can have many plugins and compile those that are used. What has to be read of the code for that is read where the
    /// code itself would be, under the same limits. `None`: this runner cannot tell, and the package is loaded at once.
    ///
    /// The tools of a plugin that is loaded when it is needed are called by [`Tool::call`].
    ///
    /// # Errors
    /// [`LoadError`] as for [`load`](Self::load), of what was looked at.
    async fn declare(&self, package: &Package, cx: &PluginContext) -> Result<Option<Declared>, LoadError> {
        let _ = (package, cx);
        Ok(None)
    }

    /// Compiles a program: code without functions for its tools, which are the code itself, run from top to bottom. Its
    /// last value is the result, and the tenant's tools are functions in it. The manifest, which a host writes and not
    /// the program's author, is in the package.
    ///
    /// # Errors
    /// [`LoadError`] as for [`load`](Self::load); `Config` from a runner whose code has no top level to run.
    async fn load_program(&self, package: &Package, cx: &PluginContext) -> Result<Arc<dyn Plugin>, LoadError> {
        let _ = (package, cx);
        Err(LoadError::new(ErrorKind::Config, format!("programs are not run by the {} runner", self.kind())))
    }
}

#[async_trait]
impl<R: Runner + ?Sized> Runner for Arc<R> {
    fn kind(&self) -> RuntimeKind {
        (**self).kind()
    }

    fn one_file_extension(&self) -> Option<&'static str> {
        (**self).one_file_extension()
    }

    async fn load(&self, package: &Package, cx: &PluginContext) -> Result<Arc<dyn Plugin>, LoadError> {
        (**self).load(package, cx).await
    }

    async fn declare(&self, package: &Package, cx: &PluginContext) -> Result<Option<Declared>, LoadError> {
        (**self).declare(package, cx).await
    }

    async fn load_program(&self, package: &Package, cx: &PluginContext) -> Result<Arc<dyn Plugin>, LoadError> {
        (**self).load_program(package, cx).await
    }
}

/// Why a plugin could not be loaded, for its author and the operator.
#[derive(Debug, Clone, thiserror::Error)]
pub struct LoadError {
    /// What kind of problem: `Compile`, `Config`, `Conflict`, `Dependency`, `PermissionDenied`, `LimitExceeded`, ...
    pub kind: ErrorKind,
    /// The file in which it is, within the plugin.
    pub file: Option<String>,
    /// Its line and column there, from 1.
    pub position: Option<(usize, usize)>,
    /// The line's text.
    pub excerpt: Option<String>,
    /// What is wrong and what to do.
    pub message: String,
}

impl LoadError {
    /// A problem of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, file: None, position: None, excerpt: None, message: message.into() }
    }

    /// Names the file.
    #[must_use]
    pub fn in_file(mut self, file: impl Into<String>) -> Self {
        self.file = Some(file.into());
        self
    }

    /// Points at line and column of `source`, from 1, and shows the line.
    #[must_use]
    pub fn at(mut self, line: usize, column: usize, source: &str) -> Self {
        self.position = Some((line, column));
        self.excerpt = line
            .checked_sub(1)
            .and_then(|index| source.lines().nth(index))
            .map(|text| text.chars().take(200).collect());
        self
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.kind)?;
        if let Some(file) = &self.file {
            write!(f, "{file}")?;
            if let Some((line, column)) = self.position {
                write!(f, ":{line}:{column}")?;
            }
            write!(f, ": ")?;
        }
        write!(f, "{}", self.message)?;
        if let (Some(excerpt), Some((line, column))) = (&self.excerpt, self.position) {
            let gutter = line.to_string();
            let indent = " ".repeat(column.saturating_sub(1).min(200));
            write!(f, "\n  {gutter} | {excerpt}\n  {:width$} | {indent}^", "", width = gutter.len())?;
        }
        Ok(())
    }
}
