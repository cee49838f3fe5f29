//! What several commands take: where plugins come from, what the host gives them, and for which tenant it is.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, ValueEnum};
use toolbay::{Isolation, Limits, PluginName, TenantId};

use crate::{
    exit::CliError,
    values::{self, Pair},
};

/// What the host gives and allows; for every command that loads plugins.
#[derive(Debug, Args)]
pub(crate) struct HostOptions {
    /// Take limits, grants and plugins' configuration from this TOML file.
    ///
    /// Its tables are limits, quota, breaker, callbacks, loading, grants (with host), http, secrets, isolation, abilities.NAME (with
    /// description and operations), plugins.NAME (with config, grants, enabled, auto_load and isolation) and tenants.NAME (with grants, limits, secrets and plugins).
    /// Variables TOOLBAY_PLUGIN_NAME__FIELD go before a plugin's config. Without grants in it, plugins are given what stays within
    /// Toolbay where they ask for it: kv:*, clock, random, tool:call:* and hook:*.
    #[arg(long, value_name = "FILE", help_heading = "Host")]
    pub(crate) config: Option<PathBuf>,
    /// Take this folder in the place of a plugin's own assets; may be repeated
    #[arg(long, value_name = "PLUGIN=DIR", help_heading = "Host")]
    pub(crate) assets: Vec<Pair<PluginName, PathBuf>>,
    /// Keep what plugins store in this folder; without it, it is gone at the end of the command
    #[arg(long, value_name = "DIR", help_heading = "Host")]
    pub(crate) state: Option<PathBuf>,
    /// Run all scripts in worker processes, or all in this process.
    ///
    /// Without it, scripts of --tenant-tools and programs run in worker processes, and those of --tools in this one,
    /// unless the configuration file says otherwise.
    #[arg(long, value_name = "WHERE", value_enum, help_heading = "Host")]
    pub(crate) isolation: Option<Where>,
    /// Keep clock and random numbers from all plugins, so that the same call gives the same result again
    #[arg(long, help_heading = "Host")]
    pub(crate) deterministic: bool,
    #[command(flatten)]
    pub(crate) limits: LimitOptions,
}

/// Where scripts run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Where {
    /// In worker processes of their own, locked down
    Process,
    /// In this process, in the sandbox alone
    InProcess,
}

impl From<Where> for Isolation {
    fn from(place: Where) -> Self {
        match place {
            Where::Process => Self::Process,
            Where::InProcess => Self::InProcess,
        }
    }
}

/// The ceiling of what one call may use; up or down from the default or the file's.
#[derive(Debug, Default, Args)]
pub(crate) struct LimitOptions {
    /// The most time for one call, such as 50ms or 2s [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = values::duration, help_heading = "Limits")]
    pub(crate) timeout: Option<Duration>,
    /// The most steps of the interpreter for one call [default: 5000000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Limits")]
    pub(crate) max_operations: Option<u64>,
    /// The most memory that one call may hold, such as 32MiB [default: 64MiB]
    #[arg(long, value_name = "BYTES", value_parser = values::bytes, help_heading = "Limits")]
    pub(crate) memory: Option<u64>,
    /// The longest result of one call, such as 64KiB [default: 256KiB]
    #[arg(long, value_name = "BYTES", value_parser = values::size, help_heading = "Limits")]
    pub(crate) max_output: Option<usize>,
}

impl LimitOptions {
    /// `limits` with what the flags say.
    pub(crate) fn apply_to(&self, mut limits: Limits) -> Limits {
        limits.timeout = self.timeout.unwrap_or(limits.timeout);
        limits.max_operations = self.max_operations.unwrap_or(limits.max_operations);
        limits.max_memory_bytes = self.memory.unwrap_or(limits.max_memory_bytes);
        limits.max_output_bytes = self.max_output.unwrap_or(limits.max_output_bytes);
        limits
    }
}

/// Where plugins come from.
#[derive(Debug, Args)]
pub(crate) struct PluginOptions {
    /// Load the plugins in this folder for everybody, this one plugin, or those of this registry index; may be repeated.
    ///
    /// Without it: tools/ in the current folder and ~/.toolbay/plugins, as far as they exist.
    #[arg(long, value_name = "DIR", help_heading = "Plugins")]
    pub(crate) tools: Vec<PathBuf>,
    /// Load the plugins in this folder, this one plugin, or those of this registry index, for one tenant only; may be repeated
    #[arg(long, value_name = "TENANT=DIR", help_heading = "Plugins")]
    pub(crate) tenant_tools: Vec<Pair<TenantId, PathBuf>>,
    /// Compile plugins' code when it is needed first.
    ///
    /// For thousands of plugins of which few are used. Those with hooks, on_load or on_start are compiled at once all the
    /// same, and so are those of which the configuration file says auto_load = true.
    #[arg(long, help_heading = "Plugins")]
    pub(crate) lazy: bool,
}

/// Whether plugins are reloaded when their files change.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct WatchOptions {
    /// Reload plugins when their files change
    #[arg(long, help_heading = "Plugins")]
    pub(crate) watch: bool,
    /// Take a changed plugin though that breaks those who call its tools
    #[arg(long, requires = "watch", help_heading = "Plugins")]
    pub(crate) allow_breaking: bool,
}

/// A command that works at a tenant's tools.
#[derive(Debug, Args)]
pub(crate) struct SessionOptions {
    /// Work as this tenant; one that was never named before is as good as any other
    #[arg(long, value_name = "TENANT", default_value = "default")]
    pub(crate) tenant: TenantId,
    #[command(flatten)]
    pub(crate) plugins: PluginOptions,
    #[command(flatten)]
    pub(crate) host: HostOptions,
    #[command(flatten)]
    pub(crate) store: StoreOptions,
}

/// Which database, for commands that need one.
#[derive(Debug, Clone, Args)]
pub(crate) struct DatabaseOptions {
    /// The database: `sqlite:FILE` or `postgres://USER@HOST:PORT/NAME`. Where its URL holds a password, the environment is the
    /// better place for it
    #[arg(long, value_name = "URL", env = "TOOLBAY_DATABASE", hide_env_values = true)]
    database: Option<String>,
    /// The folder of the server's data, whose file toolbay.db is the database where --database names no other
    #[arg(long, value_name = "DIR", default_value = DATA)]
    data: PathBuf,
}

/// Where a server keeps its data unless it is told.
const DATA: &str = "toolbay-data";

/// The database that a command works at where it is told of one.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct StoreOptions {
    /// Work at this database of a server: `sqlite:FILE` or `postgres://USER@HOST:PORT/NAME`. Where its URL holds a password, the
    /// environment is the better place for it
    #[arg(long, value_name = "URL", env = "TOOLBAY_DATABASE", hide_env_values = true, help_heading = "Host")]
    database: Option<String>,
    /// Work at the database in this folder of a server's data
    #[arg(long, value_name = "DIR", conflicts_with = "database", help_heading = "Host")]
    data: Option<PathBuf>,
}

impl StoreOptions {
    /// Where the database is, if the command was told.
    pub(crate) fn url(&self) -> Result<Option<String>, CliError> {
        match (&self.database, &self.data) {
            (Some(url), _) => Ok(Some(url.clone())),
            (None, Some(folder)) => in_folder(folder).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// Where a server's database is: where the command was told, or where servers have it.
    pub(crate) fn url_or_usual(&self) -> Result<String, CliError> {
        self.url()?.map_or_else(|| in_folder(Path::new(DATA)), Ok)
    }
}

/// The database in a folder of data.
fn in_folder(folder: &Path) -> Result<String, CliError> {
    let file = folder.join("toolbay.db");
    let file = file.to_str().ok_or_else(|| CliError::usage("--data: the path is not Unicode"))?;
    Ok(format!("sqlite:{file}"))
}

impl DatabaseOptions {
    /// Where the database is.
    pub(crate) fn url(&self) -> Result<String, CliError> {
        if let Some(url) = &self.database {
            return Ok(url.clone());
        }
        in_folder(&self.data)
    }
}
