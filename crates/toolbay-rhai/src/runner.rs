//! The runner: from a package to a plugin.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use async_trait::async_trait;
use serde_json::Value;
use toolbay_api::{
    Declared, ErrorKind, EventPattern, Limits, LoadError, Package, Plugin, PluginContext, PluginMetadata, Runner,
    RuntimeKind, Tool, ToolError, ToolFunction, program::FUNCTIONS_FILE,
};

use crate::{
    bindings::Bindings,
    call::Call,
    check, declaration,
    engine::{self, Library, OwnModules},
    event, fault,
    fiber::{Fiber, Lanes, StackPool, needed_bytes, on_large_stack},
    hook, meter,
    no_host::NoHost,
    outline::callbacks_in,
    plugin::{Core, RhaiPlugin, RhaiTool},
    script::{Script, ScriptCache},
};

/// Stacks that wait for their next call. Each may keep 256 KiB committed; an ordinary call's keeps about 12.
const IDLE_STACKS: usize = 1_024;

/// Bytes that the calls of a plugin may leave behind before it is not called any more.
const MAX_LEFT_BEHIND: u64 = 1 << 20;

/// The file that a folder plugin starts from where its manifest names none.
const DEFAULT_ENTRY: &str = "main.rhai";

/// Loads plugins that are written in Rhai, and keeps what their calls share: engines' parts, compiled scripts, stacks.
///
/// One runner serves any number of tenants and threads.
///
/// ```
/// use toolbay_api::{Limits, Package, PermissionSet, PluginContext, Runner, Scope};
/// use toolbay_rhai::RhaiRunner;
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), toolbay_api::LoadError> {
/// let source = r#"
///     const PLUGIN = #{ name: "greet", version: "1.0.0", description: "Greets", tools: #{
///         greet: #{ description: "Greets somebody", parameters: #{ type: "object", properties: #{ name: #{ type: "string" } } } } } };
///     fn greet(args, cx) { "Hello, " + args.name + "!" }
/// "#;
/// let cx = PluginContext { scope: Scope::Global, limits: Limits::default(), grants: PermissionSet::default().into() };
/// let plugin = RhaiRunner::default().load(&Package::one_file("greet.rhai", source), &cx).await?;
/// assert_eq!(plugin.tools().len(), 1);
/// # Ok(()) }
/// ```
pub struct RhaiRunner {
    library: Arc<Library>,
    /// Stacks by their size; nearly always there is one.
    pools: Mutex<BTreeMap<usize, Arc<StackPool>>>,
    scripts: ScriptCache,
    max_left_behind: u64,
    lanes: Option<Arc<Lanes>>,
}

impl Default for RhaiRunner {
    fn default() -> Self {
        Self {
            library: Arc::new(Library::new()),
            pools: Mutex::default(),
            scripts: ScriptCache::default(),
            max_left_behind: MAX_LEFT_BEHIND,
            lanes: Some(Lanes::new()),
        }
    }
}

impl std::fmt::Debug for RhaiRunner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RhaiRunner")
    }
}

impl RhaiRunner {
    /// Takes plugins out of use whose calls left more than `bytes` of memory behind; 1 MiB unless this is said.
    ///
    /// A call that ended holds nothing, but for one case: a function that captures a variable which holds the function is
    /// never freed. Where the program does not [meter memory](Self::meters_memory), nothing is noticed.
    #[must_use]
    pub fn with_max_left_behind(mut self, bytes: u64) -> Self {
        self.max_left_behind = bytes;
        self
    }

    /// Runs scripts on the threads that poll them and on no other.
    ///
    /// Otherwise a script that takes longer than a millisecond, or whose functions capture variables, runs on threads of the
    /// runner's own, since a single operation of the interpreter can take longer than a host can wait.
    #[must_use]
    pub fn without_threads(mut self) -> Self {
        self.lanes = None;
        self
    }

    /// How many different scripts plugins hold compiled now. Plugins with the same text share one, whosever they are.
    #[must_use]
    pub fn scripts(&self) -> usize {
        self.scripts.count().0
    }

    /// How many calls of scripts are under way, those included that were given up and have not yet come to their end. A call that
    /// had to be left where it stood, for good, counts for ever.
    #[must_use]
    pub fn fibers(&self) -> usize {
        let pools = self.pools.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        pools.values().map(|pool| pool.out()).sum()
    }

    /// How many scripts were compiled so far.
    #[must_use]
    pub fn compilations(&self) -> u64 {
        self.scripts.count().1
    }

    /// Whether [`Limits::max_memory_bytes`](toolbay_api::Limits::max_memory_bytes) is enforced: it is where the program
    /// runs on the [`MeteredAllocator`](crate::MeteredAllocator).
    #[must_use]
    pub fn meters_memory(&self) -> bool {
        meter::is_installed()
    }
}

#[async_trait]
impl Runner for RhaiRunner {
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
        self.outline(package, cx).map(Some)
    }

    async fn load_program(&self, package: &Package, cx: &PluginContext) -> Result<Arc<dyn Plugin>, LoadError> {
        self.load_as(package, cx, Form::Program).await
    }
}

/// What a package's code is.
#[derive(Clone, Copy)]
enum Form {
    /// Functions for tools and hooks.
    Plugin,
    /// Statements to run from top to bottom.
    Program,
}

impl RhaiRunner {
    async fn load_as(&self, package: &Package, cx: &PluginContext, form: Form) -> Result<Arc<dyn Plugin>, LoadError> {
        let files = scripts(package);
        let entry = entry_file(package, &files)?;
        let ceiling = ceiling(package, cx);
        let pool = self.pool(&cx.limits);
        let script = parsed(&pool, &ceiling, &entry, |deadline| self.script(&entry, &files, &ceiling, deadline))?;
        let (manifest, entry_points) = match (form, &package.manifest) {
            (Form::Program, Some(manifest)) => {
                // The list of names is made here, since within a call it would count as the call's memory.
                let _ = self.library.has_function("");
                let tools = manifest.tools.keys().map(|tool| (tool.clone(), check::EntryPoint::program())).collect();
                (manifest.clone(), check::EntryPoints { tools, ..check::EntryPoints::default() })
            }
            (Form::Program, None) => {
                return Err(LoadError::new(ErrorKind::Config, "a program is loaded with a manifest of the host's"));
            }
            (Form::Plugin, manifest) => {
                let manifest = match manifest {
                    Some(manifest) => declaration::folder_manifest(&script, manifest)?,
                    None => declaration::one_file_manifest(&script)?,
                };
                let entry_points = check::entry_points(&script, &manifest)?;
                (manifest, entry_points)
            }
        };
        check::permissions(&script, &manifest)?;
        let limits = cx.limits.lowered_by(&manifest.limits);
        let modules = self.modules(&script, &limits, Arc::clone(&pool)).await?;
        let bindings = match (form, package.files.get(FUNCTIONS_FILE)) {
            (Form::Program, Some(functions)) => Some(Bindings::new(&ToolFunction::read_all(functions)?)),
            _ => None,
        };
        self.assemble(package, manifest, script, limits, modules, entry_points, cx, pool, bindings)
    }

    /// Stacks that are large enough for any value within `limits`.
    fn pool(&self, limits: &Limits) -> Arc<StackPool> {
        let bytes = needed_bytes(limits);
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(pools.entry(bytes).or_insert_with(|| StackPool::new(IDLE_STACKS, bytes)))
    }

    /// Compiles, or finds the same text compiled before.
    fn script(
        &self,
        entry: &str,
        files: &BTreeMap<String, Arc<str>>,
        limits: &Limits,
        deadline: Instant,
    ) -> Result<Arc<Script>, LoadError> {
        let key = ScriptCache::key(entry, files, limits);
        if let Some(script) = self.scripts.get(&key) {
            return Ok(script);
        }
        let script = Arc::new(Script::compile(entry, files, &self.library.compiler(limits, deadline), limits)?);
        Ok(self.scripts.insert(key, script))
    }

    /// What a package says of itself, with no more of its code read than that takes.
    fn outline(&self, package: &Package, cx: &PluginContext) -> Result<Declared, LoadError> {
        let files = scripts(package);
        let entry = entry_file(package, &files)?;
        let ceiling = ceiling(package, cx);
        let read = |deadline| Script::outline(&entry, &files, &self.library.outliner(&ceiling, deadline), &ceiling);
        let outline = parsed(&self.pool(&cx.limits), &ceiling, &entry, read)?;
        let manifest = match &package.manifest {
            Some(manifest) => declaration::folder_manifest(&outline, manifest)?,
            None => declaration::one_file_manifest(&outline)?,
        };
        check::declares_something(&manifest)
            .map_err(|message| check::declared_at(&outline, ErrorKind::Config, message))?;
        let callbacks = files.get(&entry).map(|source| callbacks_in(source)).unwrap_or_default();
        Ok(Declared { manifest, callbacks })
    }

    /// Runs the top level of the imported files, in the sandbox that calls run in.
    async fn modules(
        &self,
        script: &Arc<Script>,
        limits: &Limits,
        pool: Arc<StackPool>,
    ) -> Result<OwnModules, LoadError> {
        if script.imported().is_empty() {
            return Ok(OwnModules(Vec::new()));
        }
        let limits = Arc::new(limits.clone());
        let deadline = Instant::now() + limits.timeout;
        let call =
            Call::new(Arc::clone(&limits), deadline, Arc::new(NoHost::default()), None).capturing(script.captures());
        let made = Arc::new(Mutex::new(None));
        let (inner, library, slot) = (Arc::clone(script), Arc::clone(&self.library), Arc::clone(&made));
        let body = move |call: &Call| match engine::own_modules(&inner, &library, &limits) {
            Ok(modules) => {
                *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(modules);
                Ok(Value::Null)
            }
            Err(error) => meter::outside(|| Err(fault::outwards(fault::tool_error(&error, call, &inner)))),
        };
        let run = async { Fiber::new(call, pool, self.lanes.as_ref(), body)?.await };
        run.await.map_err(|error| in_words(&error, script.entry()))?;
        let modules = made.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(modules.unwrap_or_else(|| OwnModules(Vec::new())))
    }

    #[allow(clippy::too_many_arguments, reason = "the parts come from six steps and are put together once")]
    fn assemble(
        &self,
        package: &Package,
        manifest: PluginMetadata,
        script: Arc<Script>,
        limits: Limits,
        modules: OwnModules,
        entry_points: check::EntryPoints,
        cx: &PluginContext,
        pool: Arc<StackPool>,
        bindings: Option<Bindings>,
    ) -> Result<Arc<dyn Plugin>, LoadError> {
        let library = Arc::clone(&self.library);
        let core = Arc::new(Core::new(
            manifest,
            script,
            limits,
            library,
            pool,
            self.lanes.clone(),
            modules,
            self.max_left_behind,
            bindings,
        ));
        let check::EntryPoints { mut tools, hooks, events, callbacks } = entry_points;
        let mut made: Vec<Arc<dyn Tool>> = Vec::new();
        for definition in core.manifest.tool_definitions() {
            if let Some(entry) = tools.remove(&definition.name) {
                made.push(Arc::new(RhaiTool { definition, core: Arc::clone(&core), entry: Arc::new(entry) }));
            }
        }
        let mut registrations = Vec::new();
        for (point, entry) in hooks {
            if let Some(declaration) = core.manifest.hooks.get(&point) {
                registrations.push(hook::registration(&core, point, declaration, entry, &cx.grants)?);
            }
        }
        let subscription = |(pattern, entry): (EventPattern, _)| {
            let declaration = core.manifest.events.get(&pattern)?;
            Some(event::subscription(&core, pattern, declaration, entry))
        };
        let subscriptions = events.into_iter().filter_map(subscription).collect();
        let assets = package.assets.clone();
        Ok(Arc::new(RhaiPlugin { core, tools: made, hooks: registrations, subscriptions, callbacks, assets }))
    }
}

/// The files of a package that are scripts.
pub(crate) fn scripts(package: &Package) -> BTreeMap<String, Arc<str>> {
    let is_script = |(file, _): &(&String, &Arc<str>)| file.ends_with(".rhai");
    package.files.iter().filter(is_script).map(|(file, source)| (file.clone(), Arc::clone(source))).collect()
}

/// The limits of a package's code, as far as they are known before it was read.
fn ceiling(package: &Package, cx: &PluginContext) -> Limits {
    match &package.manifest {
        Some(manifest) => cx.limits.lowered_by(&manifest.limits),
        None => cx.limits.clone(),
    }
}

/// Parses on a stack that is large enough, until a deadline.
fn parsed<T>(
    pool: &StackPool,
    limits: &Limits,
    entry: &str,
    parse: impl FnOnce(Instant) -> Result<T, LoadError>,
) -> Result<T, LoadError> {
    let deadline = Instant::now() + limits.timeout;
    let parsed = on_large_stack(pool, || parse(deadline)).map_err(|error| in_words(&error, entry)).flatten();
    // Whatever the parser made of being stopped, it was stopped for this.
    parsed.map_err(|error| if Instant::now() >= deadline { too_slow(limits, entry) } else { error })
}

/// The file to start from.
pub(crate) fn entry_file(package: &Package, files: &BTreeMap<String, Arc<str>>) -> Result<String, LoadError> {
    if let Some(manifest) = &package.manifest {
        if manifest.runtime != RuntimeKind::Rhai {
            let message = format!("runtime: {} plugins are not loaded by the Rhai runner", manifest.runtime);
            return Err(LoadError::new(ErrorKind::Config, message));
        }
        let entry = manifest.entry.clone().unwrap_or_else(|| DEFAULT_ENTRY.to_owned());
        if !files.contains_key(&entry) {
            let known = files.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let message = format!("entry: the plugin has no file {entry:?}; its .rhai files are: [{known}]");
            return Err(LoadError::new(ErrorKind::Config, message));
        }
        return Ok(entry);
    }
    match files.keys().next() {
        Some(file) if files.len() == 1 => Ok(file.clone()),
        _ => Err(LoadError::new(
            ErrorKind::Config,
            "a plugin without a manifest is one .rhai file: add a plugin.toml to a folder of several",
        )),
    }
}

fn too_slow(limits: &Limits, file: &str) -> LoadError {
    let message =
        format!("compiling took longer than the {:?} that a call may take: write less, or simpler", limits.timeout);
    LoadError::new(ErrorKind::TimedOut, message).in_file(file)
}

/// A failure of the sandbox itself while loading, or of a top level that ran.
fn in_words(error: &ToolError, file: &str) -> LoadError {
    let message = match error.operator_detail() {
        Some(detail) => format!("{}: {detail}", error.message),
        None => error.message.clone().into_owned(),
    };
    LoadError::new(error.kind, message).in_file(file)
}
