//! Options, configuration file and folders, put together to a Toolbay with its plugins loaded.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use toolbay::{
    CodeLoading, Control, Failed, FileKv, HealthWatch, Isolation, LoadReport, Loading, PluginName, ReloadOptions,
    Scope, Session, SyncReport, TenantId, TierPolicy, TieredRunner, Toolbay, ToolbayBuilder,
    control::Following,
    mcp_client::McpRunner,
    store::SuspendedRuns,
    watch,
    worker::{WorkerConfig, WorkerRunner},
};

use crate::{
    config::Config,
    exit::CliError,
    options::{HostOptions, PluginOptions, SessionOptions, WatchOptions},
    output,
    stored::{self, Stored},
};

/// A Toolbay with its plugins, and what became of each.
pub(crate) struct Host {
    pub(crate) toolbay: Toolbay,
    pub(crate) report: LoadReport,
    sources: Vec<(Scope, PathBuf)>,
    health_interval: Option<Duration>,
    /// The store, where the command works at one.
    stored: Option<(Stored, Control)>,
    /// Whether it was said what did not stop.
    told: AtomicBool,
}

/// What a command that goes on keeps up with, as long as this lives.
pub(crate) struct KeptUp {
    _watched: Vec<watch::Watch>,
    _health: Option<HealthWatch>,
    _store: Option<Following>,
}

/// How long plugins and the last calls have when a server is asked to end.
const STOP_TIME: Duration = Duration::from_secs(10);

/// Makes a Toolbay without plugins, which compiles each at once that it loads: for commands that look for mistakes.
pub(crate) fn empty(options: &HostOptions) -> Result<Toolbay, CliError> {
    builder(options, &Config::load(options.config.as_deref())?)?.build().map_err(CliError::usage)
}

impl Host {
    /// Makes a Toolbay and loads its plugins. One that does not load is in the report and stops no other.
    pub(crate) async fn open(options: &SessionOptions) -> Result<Self, CliError> {
        Self::open_at(options, options.store.url()?).await
    }

    /// The same, at the database at `url`, with its control.
    pub(crate) async fn open_stored(options: &SessionOptions, url: String) -> Result<(Self, Control), CliError> {
        let host = Self::open_at(options, Some(url)).await?;
        let control = host.control().cloned();
        let control = control.ok_or_else(|| CliError::usage("the database was not opened"))?;
        Ok((host, control))
    }

    /// The same, at the database at `url` if there is one.
    pub(crate) async fn open_at(options: &SessionOptions, url: Option<String>) -> Result<Self, CliError> {
        let config = Config::load(options.host.config.as_deref())?;
        let host = Self::load(options, &config, config.loading(options.plugins.lazy), url).await?;
        refuse_without(config.plugins(), &host.report)?;
        let named = config.plugins().chain(options.host.assets.iter().map(|pair| &pair.key));
        warn_of_strangers(named.collect(), &host);
        Ok(host)
    }

    /// Makes a Toolbay and loads its plugins, whatever becomes of those that the file speaks of.
    pub(crate) async fn load(
        options: &SessionOptions,
        config: &Config,
        loading: Loading,
        url: Option<String>,
    ) -> Result<Self, CliError> {
        let sources = sources(&options.plugins)?;
        let mut builder = builder(&options.host, config)?.loading(loading);
        let stored = match url {
            Some(url) => Some(Stored::open(&url, config.secrets()?).await?),
            None => None,
        };
        if let Some(stored) = &stored {
            builder = stored.apply_to(builder, options.host.state.is_none());
        }
        let toolbay = builder.build().map_err(CliError::usage)?;
        let mut report = LoadReport::default();
        for (scope, path) in &sources {
            report.merge(load(&toolbay, scope, path).await);
        }
        // After those from disk, on which uploaded ones may build.
        let stored = match stored {
            Some(stored) => {
                let control = stored.control(toolbay.clone()).await?;
                Some((stored, control))
            }
            None => None,
        };
        let health_interval = config.health_interval();
        Ok(Self { toolbay, report, sources, health_interval, stored, told: AtomicBool::new(false) })
    }

    /// Keeps up with what changes while a command goes on: files, where that is asked for, and the plugins' health. `told`
    /// hears what became of files that changed.
    pub(crate) fn keep_up(
        &self,
        options: WatchOptions,
        told: impl Fn(&SyncReport) + Clone + Send + 'static,
    ) -> Result<KeptUp, CliError> {
        let reload = ReloadOptions { allow_breaking: options.allow_breaking };
        let how = watch::WatchOptions { reload, ..watch::WatchOptions::default() };
        let begin = |(scope, path): &(Scope, PathBuf)| {
            let (told, scope) = (told.clone(), scope.clone());
            let report = move |report: SyncReport| told(&report);
            watch::Watch::begin(self.toolbay.clone(), scope, path, how, report).map_err(CliError::usage)
        };
        let watched: Result<_, _> = self.sources.iter().filter(|_| options.watch).map(begin).collect();
        let health = self.health_interval.map(|interval| self.toolbay.watch_health(interval));
        let store = self.control().map(Control::follow);
        Ok(KeptUp { _watched: watched?, _health: health, _store: store })
    }

    /// The control of the store, where the command works at one.
    pub(crate) fn control(&self) -> Option<&Control> {
        self.stored.as_ref().map(|(_, control)| control)
    }

    /// Where runs are kept that wait, where the command works at a store.
    pub(crate) fn suspended(&self) -> Option<Arc<dyn SuspendedRuns>> {
        self.stored.as_ref().map(|(stored, _)| stored.suspended())
    }

    /// Opens the host that a command works at, says what did not load, and gives the tenant's session.
    pub(crate) async fn session(options: &SessionOptions) -> Result<(Self, Session), CliError> {
        let host = Self::open(options).await?;
        output::load_failures(&host.report);
        if let Some(control) = host.control() {
            output::store_failures(&control.status());
            // Nobody comes to have values in a database by a slip of the keyboard.
            control.tenant(&stored::operator(), &options.tenant).await.map_err(stored::failed)?;
        }
        let session = host.session_of(&options.tenant)?;
        Ok((host, session))
    }

    /// A session of `tenant`.
    pub(crate) fn session_of(&self, tenant: &TenantId) -> Result<Session, CliError> {
        self.toolbay.session(tenant).map_err(CliError::usage)
    }

    /// Stops the plugins, and says which did not stop as they should have, once.
    pub(crate) async fn stop(&self) {
        let report = self.toolbay.shutdown(STOP_TIME).await.to_string();
        if !report.is_empty() && !self.told.swap(true, Ordering::Relaxed) {
            output::note(report.trim_end());
        }
        if let Some((stored, _)) = &self.stored {
            stored.finish(STOP_TIME).await;
        }
    }

    /// The plugin that did not load and that `tool` seems to be of.
    pub(crate) fn failed_plugin_of(&self, tool: &str) -> Option<&Failed> {
        self.report.failed.iter().find(|failed| {
            let rest = tool.strip_prefix(plugin_stem(&failed.origin).as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '_']))
        })
    }
}

/// Loads the plugin at `path`, or the plugins in it.
pub(crate) async fn load(toolbay: &Toolbay, scope: &Scope, path: &Path) -> LoadReport {
    let mut report = toolbay.load_from(scope.clone(), path).await;
    // Cases lie beside the plugins that they test.
    report.skipped.retain(|skipped| skipped.origin.file_name().is_none_or(|name| name != "cases"));
    for failed in &mut report.failed {
        show_whole_path(failed);
    }
    report
}

/// What the plugin at `path` is probably called: its file or folder without the ending.
fn plugin_stem(path: &Path) -> String {
    let name = if path.is_dir() { path.file_name() } else { path.file_stem() };
    name.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Puts the file's whole path into an error that names it within its plugin, so that an editor can open it.
pub(crate) fn show_whole_path(failed: &mut Failed) {
    if let Some(file) = failed.error.file.take() {
        // An error that is of no one file names the plugin's folder.
        let within = failed.origin.is_dir() && !failed.origin.ends_with(&file);
        let whole = if within { failed.origin.join(file) } else { failed.origin.clone() };
        failed.error.file = Some(whole.display().to_string());
    }
}

/// Every plugin is compiled when it is loaded, whoever says otherwise.
pub(crate) fn at_once() -> Loading {
    Loading { code: CodeLoading::AtOnce, ..Loading::default() }
}

/// A Toolbay as options and file say, before it is put together; when code is compiled is up to the command.
pub(crate) fn builder(options: &HostOptions, config: &Config) -> Result<ToolbayBuilder, CliError> {
    let limits = options.limits.apply_to(config.limits());
    let servers = McpRunner::default().with_http(config.mcp_http()?);
    let runners = Toolbay::builder().limits(limits).runner(runner(options, config)?).runner(servers);
    let mut builder = config.apply_to(runners)?.loading(at_once());
    if options.deterministic {
        builder = builder.deterministic();
    }
    // What is no text can be no value of a configuration.
    let variables =
        env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    builder = builder.plugin_environment("TOOLBAY_PLUGIN_", variables);
    for assets in &options.assets {
        readable_folder("--assets", &assets.value)?;
        builder = builder.assets(assets.key.clone(), &assets.value);
    }
    if let Some(folder) = &options.state {
        let kv = FileKv::open(folder).map_err(|error| CliError::usage(format!("--state: {}", error.message)))?;
        builder = builder.kv(Arc::new(kv));
    }
    Ok(builder)
}

/// The runner of scripts: in this process, in workers, or some here and some there.
fn runner(options: &HostOptions, config: &Config) -> Result<TieredRunner, CliError> {
    let policy = options.isolation.map_or_else(|| config.tiers(), |place| TierPolicy::all(place.into()));
    if !policy.uses_processes() {
        return Ok(TieredRunner::new(policy, None));
    }
    match WorkerRunner::new(WorkerConfig::default()) {
        Ok(workers) => Ok(TieredRunner::new(policy, Some(workers))),
        Err(error) if config.allows_in_process() => {
            output::note(&format!("warning: scripts of tenants run in this process: {}", error.message));
            Ok(TieredRunner::new(TierPolicy::all(Isolation::InProcess), None))
        }
        Err(error) if options.isolation.is_some() => Err(CliError::usage(format!("--isolation: {}", error.message))),
        // Plugins that are to run there do not load, each with a reason; the others do.
        Err(_) => Ok(TieredRunner::new(policy, None)),
    }
}

/// The folders and plugins to load, in order. What the user named must be there; what is taken by default may be.
fn sources(options: &PluginOptions) -> Result<Vec<(Scope, PathBuf)>, CliError> {
    let mut sources = Vec::new();
    for path in &options.tools {
        readable_source("--tools", path)?;
        sources.push((Scope::Global, path.clone()));
    }
    if options.tools.is_empty() {
        sources.extend(default_folders().into_iter().map(|path| (Scope::Global, path)));
    }
    for pair in &options.tenant_tools {
        readable_source("--tenant-tools", &pair.value)?;
        sources.push((Scope::Tenant(pair.key.clone()), pair.value.clone()));
    }
    Ok(sources)
}

/// `tools/` here, else that of the project which cargo runs this from, and the user's own plugins.
fn default_folders() -> Vec<PathBuf> {
    let here = PathBuf::from("tools");
    // `cargo run` leaves the current folder as it is, which may be any within the project.
    let of_project = || {
        let ours = env::var("CARGO_PKG_NAME").is_ok_and(|name| name == env!("CARGO_PKG_NAME"));
        env::var_os("CARGO_MANIFEST_DIR").filter(|_| ours).map(|folder| Path::new(&folder).join("../../tools"))
    };
    let of_user = env::home_dir().map(|home| home.join(".toolbay").join("plugins"));
    let tools = if here.is_dir() { Some(here) } else { of_project() };
    tools.into_iter().chain(of_user).filter(|folder| folder.is_dir()).collect()
}

fn readable_source(flag: &str, path: &Path) -> Result<(), CliError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => readable_folder(flag, path),
        Ok(_) => Ok(()),
        Err(error) => Err(unreadable(flag, path, &error, "a folder of plugins, a plugin's folder or a plugin's file")),
    }
}

fn readable_folder(flag: &str, path: &Path) -> Result<(), CliError> {
    match fs::read_dir(path) {
        Ok(_) => Ok(()),
        Err(error) => Err(unreadable(flag, path, &error, "a folder")),
    }
}

fn unreadable(flag: &str, path: &Path, error: &std::io::Error, wanted: &str) -> CliError {
    let path = path.display();
    CliError::usage(match error.kind() {
        std::io::ErrorKind::NotFound => format!("{flag}: {path} does not exist: give {wanted}"),
        std::io::ErrorKind::NotADirectory => format!("{flag}: {path} is no folder: give {wanted}"),
        _ => format!("{flag}: {path} cannot be read: {error}"),
    })
}

/// A plugin that the operator configured and that does not load may be the one that keeps others in check: to go on
/// without it would be to fail open.
fn refuse_without<'a>(
    mut configured: impl Iterator<Item = &'a PluginName>,
    report: &LoadReport,
) -> Result<(), CliError> {
    // A tenant chooses the names of its files, and must not keep the host from starting by one of them.
    let is_it = |failed: &Failed, name: &PluginName| {
        failed.scope == Scope::Global && plugin_stem(&failed.origin) == name.as_str()
    };
    let failed_of = |name: &&PluginName| report.failed.iter().any(|failed| is_it(failed, name));
    match configured.find(failed_of) {
        None => Ok(()),
        Some(name) => {
            output::load_failures(report);
            Err(CliError::usage(format!(
                "the configuration file speaks of the plugin {name}, and it did not load, see above: mend it, or take it \
                 out of the file"
            )))
        }
    }
}

/// A plugin that is only named, by mistake, would be configured in vain.
fn warn_of_strangers(named: BTreeSet<&PluginName>, host: &Host) {
    let there = host.toolbay.plugins(&Scope::Global);
    for name in named {
        let loaded = there.iter().any(|info| info.metadata.name == *name);
        let failed = host.report.failed.iter().any(|failed| plugin_stem(&failed.origin) == name.as_str());
        if !loaded && !failed {
            let text = "is loaded for everybody, though the options name it";
            output::note(&format!("warning: no plugin called {name} {text}"));
        }
    }
}
