//! `toolbay enable`, `disable`, `config` and `install`: what a tenant of a server, or all of them, have of a plugin. The
//! plugins are loaded as a server would, since each change is tried before it is written.

use std::{fs, path::PathBuf};

use clap::Args;
use serde_json::{Value, json};
use toolbay::{
    Control, PluginName, Scope, TenantId,
    control::{Install, Upload, redacted_config},
    store::Registration,
};

use crate::{
    exit::{CliError, Status},
    host::Host,
    options::SessionOptions,
    output,
    stored::{failed, operator},
};

/// For whom it is decided.
#[derive(Debug, Args)]
struct For {
    /// Decide for all tenants that decide nothing else, rather than for --tenant
    #[arg(long)]
    global: bool,
    #[command(flatten)]
    session: SessionOptions,
}

/// Options of `toolbay enable` and `toolbay disable`.
#[derive(Debug, Args)]
pub(crate) struct SwitchOptions {
    /// The plugin
    plugin: PluginName,
    #[command(flatten)]
    whom: For,
}

/// Options of `toolbay config`.
#[derive(Debug, Args)]
pub(crate) struct ConfigOptions {
    /// The plugin
    plugin: PluginName,
    /// The configuration to set, a JSON object; without it, the present one is printed
    #[arg(long, value_name = "JSON", value_parser = json_object, conflicts_with = "clear")]
    set: Option<Value>,
    /// Take the configuration away
    #[arg(long)]
    clear: bool,
    #[command(flatten)]
    whom: For,
}

/// Options of `toolbay install`.
#[derive(Debug, Args)]
pub(crate) struct InstallOptions {
    /// The plugin: a file such as pay.rhai, or a folder's .tar.gz
    file: PathBuf,
    /// Install it though that breaks those who call the tools of the version that is there
    #[arg(long)]
    allow_breaking: bool,
    #[command(flatten)]
    whom: For,
}

/// A host with its plugins, at the server's database.
struct Office {
    host: Host,
    control: Control,
    scope: Scope,
}

impl Office {
    async fn open(whom: &For) -> Result<Self, CliError> {
        let url = whom.session.store.url_or_usual()?;
        // A name that is a slip must not become a database.
        toolbay::sql::SqlStore::existing(&url, toolbay::StoreOptions::default()).map_err(failed)?;
        let (host, control) = Host::open_stored(&whom.session, url).await?;
        output::load_failures(&host.report);
        let tenant: &TenantId = &whom.session.tenant;
        let scope = if whom.global { Scope::Global } else { Scope::Tenant(tenant.clone()) };
        Ok(Self { host, control, scope })
    }

    async fn end(self, said: Result<String, CliError>) -> Result<Status, CliError> {
        self.host.stop().await;
        output::line(&said?)?;
        Ok(Status::Success)
    }
}

pub(crate) async fn switch(options: SwitchOptions, on: bool) -> Result<Status, CliError> {
    let SwitchOptions { plugin, whom } = options;
    let office = Office::open(&whom).await?;
    let (control, scope, me) = (&office.control, &office.scope, operator());
    let switched = match on {
        true => control.enable(&me, scope, &plugin, None).await,
        false => control.disable(&me, scope, &plugin, None).await,
    };
    let word = if on { "on" } else { "off" };
    let said = switched.map(|_| format!("{plugin} is {word} ({scope})")).map_err(failed);
    office.end(said).await
}

pub(crate) async fn config(options: ConfigOptions) -> Result<Status, CliError> {
    let ConfigOptions { plugin, set, clear, whom } = options;
    let office = Office::open(&whom).await?;
    let (control, scope, me) = (&office.control, &office.scope, operator());
    let row = if set.is_some() || clear {
        control.put_config(&me, scope, &plugin, set, None).await.map(Some)
    } else {
        control.registration(&me, scope, &plugin).await
    };
    let said = row.map(|row| shown(&office, &plugin, row.as_ref())).map_err(failed);
    office.end(said).await
}

/// What is said of the configuration, without what its schema calls secret.
fn shown(office: &Office, plugin: &PluginName, row: Option<&Registration>) -> String {
    let bay = &office.host.toolbay;
    let all = bay.plugins(&office.scope).into_iter().chain(bay.plugins(&Scope::Global));
    let schema = all.filter(|info| info.metadata.name == *plugin).find_map(|info| info.metadata.config_schema);
    let config = row.and_then(|row| row.config.as_ref());
    config.map_or_else(|| json!({}), |config| redacted_config(schema.as_ref(), config)).to_string()
}

pub(crate) async fn install(options: InstallOptions) -> Result<Status, CliError> {
    let InstallOptions { file, allow_breaking, whom } = options;
    let content = fs::read(&file).map_err(|error| CliError::usage(format!("{}: {error}", file.display())))?;
    let file_name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let office = Office::open(&whom).await?;
    let (control, scope, me) = (&office.control, &office.scope, operator());
    let installed = async {
        let uploaded = control.upload(&me, scope, Upload { file_name, content: content.into() }).await?;
        for warning in &uploaded.warnings {
            output::note(&format!("warning: {warning}"));
        }
        let (plugin, version) = (uploaded.version.plugin, uploaded.version.version);
        let install = Install { version: Some(version), allow_breaking, seen: None };
        control.install(&me, scope, &plugin, install).await
    };
    let said = installed.await.map(|row| format!("installed {} {} ({scope})", row.plugin, row.version)).map_err(failed);
    office.end(said).await
}

fn json_object(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err("write a JSON object, such as {\"currency\": \"EUR\"}".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
