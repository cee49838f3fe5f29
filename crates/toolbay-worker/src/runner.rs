//! The runner: loads plugins in workers, and keeps the pool.

use std::{
    fmt, io,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use serde_json::Value;
use toolbay_api::{
    Callback, Declared, ErrorKind, EventPattern, HookPoint, HookRegistration, LoadError, Manifest, Package, Plugin,
    PluginContext, Runner, RuntimeKind, Subscription, TenantId, Tool,
    hook::ToolMatcher,
    manifest::{EventDeclaration, HookDeclaration},
};

use crate::{
    call,
    child::Start,
    config::WorkerConfig,
    frame::{Loaded, Outcome},
    hook_wire::HookGrants,
    isolation::Isolation,
    package::{Form, PackageFrame},
    plugin::{Core, WorkerEventHandler, WorkerHook, WorkerPlugin, WorkerTool},
    pool::{Class, Owner, Pool},
    process::Spawner,
    worker::{CallSpec, PluginSpec, Work},
};

/// How long loading waits at least for a worker, which may have to be started.
const PLACE_TIME: Duration = Duration::from_secs(5);

/// Loads Rhai plugins and runs them in locked-down worker processes: the same plugins as
/// [`RhaiRunner`](toolbay_rhai::RhaiRunner), with the same results, behind a wall that holds whatever a script does.
///
/// A worker serves one tenant and carries several of its calls. A call that goes over its deadline, its memory or the
/// stack costs its worker; the calls beside it get [`ErrorKind::Unavailable`], which is worth a retry, and never a wrong
/// answer. Everything that a script reaches beyond its own values it asks the host for, which checks each grant itself.
///
/// Clones share the pool. Needs a tokio runtime with time and I/O, whose end is the end of the workers.
///
/// ```no_run
/// use toolbay_worker::{WorkerConfig, WorkerRunner};
///
/// # fn main() -> Result<(), toolbay_api::LoadError> {
/// toolbay_worker::run_if_worker();
/// let runner = WorkerRunner::new(WorkerConfig::default())?;
/// # let _ = runner; Ok(()) }
/// ```
#[derive(Clone)]
pub struct WorkerRunner {
    pool: Arc<Pool>,
}

/// One worker process, for operators.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerInfo {
    /// Its process id.
    pub pid: u32,
    /// The tenant that it serves; `None` for a spare one and for the host's own, which loads global plugins and runs what
    /// they do for no tenant.
    pub tenant: Option<TenantId>,
    /// Calls in it.
    pub calls: usize,
    /// Calls that it was given so far.
    pub served: u64,
}

impl fmt::Debug for WorkerRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerRunner").field("config", &self.pool.config).finish_non_exhaustive()
    }
}

impl WorkerRunner {
    /// A runner without workers yet: they are started when they are needed.
    ///
    /// # Errors
    /// `Unavailable` where the policy requires full isolation and this system lacks a part of it, which the message
    /// names; also where no thread can be started.
    pub fn new(config: WorkerConfig) -> Result<Self, LoadError> {
        let probed = Isolation::probe();
        let isolation = Isolation {
            landlock: probed.landlock && config.layers.landlock,
            seccomp: probed.seccomp && config.layers.seccomp,
            ..probed
        };
        if config.require_full_isolation && !isolation.is_full() {
            return Err(LoadError::new(
                ErrorKind::Unavailable,
                format!(
                    "worker processes cannot be isolated fully here; missing: {}. Set require_full_isolation to false \
                     to do without, or run the plugins in process",
                    isolation.missing().join("; ")
                ),
            ));
        }
        let start = Start { layers: config.layers, asset_bytes: config.parsed_asset_bytes() };
        let problem = |error: io::Error| {
            LoadError::new(ErrorKind::Unavailable, format!("the thread that starts workers: {error}"))
        };
        let spawner = Spawner::new(config.program.clone(), start).map_err(problem)?;
        Ok(Self { pool: Pool::new(config, spawner) })
    }

    /// What isolates the workers: as the first of them reported it, or as this system offers it while there is none.
    #[must_use]
    pub fn isolation(&self) -> Isolation {
        self.pool.isolation().unwrap_or_else(Isolation::probe)
    }

    /// The worker processes that are there now.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerInfo> {
        let info = |worker: &Arc<crate::worker::Worker>| WorkerInfo {
            pid: worker.process.id(),
            tenant: match worker.owner.get() {
                Some(Owner::Tenant(tenant)) => Some(tenant.clone()),
                Some(Owner::Host) | None => None,
            },
            calls: worker.load(),
            served: worker.served.load(Relaxed),
        };
        self.pool.workers().iter().map(info).collect()
    }
}

#[async_trait]
impl Runner for WorkerRunner {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Rhai
    }

    fn one_file_extension(&self) -> Option<&'static str> {
        Some("rhai")
    }

    async fn load(&self, package: &Package, cx: &PluginContext) -> Result<Arc<dyn Plugin>, LoadError> {
        self.load_as(package, cx, Form::Plugin).await
    }

    async fn declare(&self, package: &Package, cx: &PluginContext) -> Result<Option<Declared>, LoadError> {
        self.admit_assets(package)?;
        // What needs no look into the code needs no worker either.
        if let Some(declared) = toolbay_rhai::declared_in_manifest(package, &cx.limits)? {
            return Ok(Some(declared));
        }
        let (_, Loaded { manifest, callbacks }) = self.ask(package, cx, Form::Declaration).await?;
        Ok(Some(Declared { manifest: checked_manifest(manifest, package)?, callbacks }))
    }

    async fn load_program(&self, package: &Package, cx: &PluginContext) -> Result<Arc<dyn Plugin>, LoadError> {
        self.load_as(package, cx, Form::Program).await
    }
}

impl WorkerRunner {
    async fn load_as(&self, package: &Package, cx: &PluginContext, form: Form) -> Result<Arc<dyn Plugin>, LoadError> {
        self.admit_assets(package)?;
        let (spec, Loaded { manifest, callbacks }) = self.ask(package, cx, form).await?;
        let manifest = checked_manifest(manifest, package)?;
        let limits = Arc::new(cx.limits.lowered_by(&manifest.limits));
        let core = Arc::new(Core { pool: Arc::clone(&self.pool), spec, manifest, limits });
        assemble(core, callbacks, package, cx)
    }

    /// Has a worker make `form` of the package, and gives what it tells of it.
    async fn ask(&self, package: &Package, cx: &PluginContext, form: Form) -> Result<(PluginSpec, Loaded), LoadError> {
        let id = self.pool.next_plugin();
        let spec = PluginSpec { id, package: PackageFrame::write(package, cx, form) };
        let limits = Arc::new(cx.limits.clone());
        // Its time begins when a worker has it, so that a host that gives calls little still gives a process time to start.
        let make = || CallSpec {
            plugin: &spec,
            limits: &limits,
            host: None,
            context: None,
            work: Work::Load,
            deadline: Instant::now() + limits.timeout,
        };
        let place_by = Instant::now() + limits.timeout.max(PLACE_TIME);
        let outcome = call::run(&self.pool, &Owner::from(&cx.scope), Class::Top, place_by, make).await;
        match outcome {
            Ok(Outcome::Loaded(answer)) => Ok((spec, answer)),
            Ok(Outcome::LoadError(error)) => Err(error),
            Ok(Outcome::Error(error) | Outcome::Passed(error)) | Err(error) => Err(call::load_error(&error, &limits)),
            Ok(Outcome::Value(_)) => Err(call::load_error(&call::out_of_place(), &limits)),
        }
    }

    /// Packaged files are copied into each worker that looks at them, so they are bounded.
    fn admit_assets(&self, package: &Package) -> Result<(), LoadError> {
        let assets = &package.assets;
        let bytes: u64 = assets
            .names()
            .map(|name| name.len() as u64 + assets.get(name).map_or(0, |asset| asset.bytes().len() as u64))
            .sum();
        let allowed = self.pool.config.max_asset_bytes;
        if bytes > allowed {
            return Err(LoadError::new(
                ErrorKind::Config,
                format!(
                    "the packaged files have {bytes} bytes, and {allowed} are allowed in a worker process: leave some \
                     out, or raise max_asset_bytes"
                ),
            ));
        }
        Ok(())
    }
}

/// The manifest as the worker gave it, checked like one from anywhere else.
fn checked_manifest(answer: Value, package: &Package) -> Result<Manifest, LoadError> {
    let config = |message: String| LoadError::new(ErrorKind::Config, message);
    let manifest = Manifest::from_json(answer).map_err(|problem| config(problem.to_string()))?;
    // The script of a plugin with a manifest adds tools, hooks and handlers to it, and has no say in anything else.
    if let Some(given) = &package.manifest {
        let (tools, hooks, events) = (given.tools.clone(), given.hooks.clone(), given.events.clone());
        let rest = Manifest { tools, hooks, events, ..manifest.clone() };
        if rest != *given {
            return Err(config("the worker gave another manifest than the plugin's own".to_owned()));
        }
    }
    Ok(manifest)
}

fn assemble(
    core: Arc<Core>,
    callbacks: Vec<Callback>,
    package: &Package,
    cx: &PluginContext,
) -> Result<Arc<dyn Plugin>, LoadError> {
    let tool = |definition| Arc::new(WorkerTool { definition, core: Arc::clone(&core) }) as Arc<dyn Tool>;
    let tools = core.manifest.tool_definitions().into_iter().map(tool).collect();
    let hooks = core.manifest.hooks.iter();
    let hooks =
        hooks.map(|(point, declaration)| registration(&core, *point, declaration, cx)).collect::<Result<_, _>>()?;
    let subscriptions = core.manifest.events.iter();
    let subscriptions = subscriptions.map(|(pattern, declared)| subscription(&core, pattern, declared)).collect();
    Ok(Arc::new(WorkerPlugin { core, tools, hooks, subscriptions, callbacks, assets: package.assets.clone() }))
}

fn subscription(core: &Arc<Core>, pattern: &EventPattern, declared: &EventDeclaration) -> Subscription {
    Subscription {
        pattern: pattern.clone(),
        handler: Arc::new(WorkerEventHandler { core: Arc::clone(core), pattern: pattern.clone() }),
        timeout: declared.timeout_ms.map(Duration::from_millis),
        queue: declared.queue.map(|events| events as usize),
    }
}

fn registration(
    core: &Arc<Core>,
    point: HookPoint,
    declaration: &HookDeclaration,
    cx: &PluginContext,
) -> Result<HookRegistration, LoadError> {
    let asked = &core.manifest.permissions;
    let grants = HookGrants::new(|grant| asked.covers(grant) && cx.grants.covers(grant));
    let hook = WorkerHook { core: Arc::clone(core), grants };
    let mut registration = HookRegistration::new(core.manifest.name.as_str(), [point], hook);
    if let Some(priority) = declaration.priority {
        registration.priority = priority;
    }
    if let Some(timeout) = declaration.timeout_ms {
        registration.timeout = Duration::from_millis(timeout);
    }
    registration.on_failure = declaration.on_failure;
    if let Some(globs) = &declaration.tools {
        registration.tools = ToolMatcher::new(globs)
            .map_err(|problem| LoadError::new(ErrorKind::Config, format!("hooks.{point}.tools: {problem}")))?;
    }
    Ok(registration)
}
