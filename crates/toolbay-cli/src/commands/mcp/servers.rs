//! `toolbay mcp add|list|inspect|remove`: MCP servers as plugins. Each is a folder that these commands write, compare and
//! take away; what is approved is a file in it, so that a difference can be read like any other.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use toolbay::{
    Permission, PluginName, SecretProvider, TenantId,
    mcp_client::{
        Auth, Difference, Link, LinkOptions, Offered, Pins, Place, ServerFile, ServerValue, pins, server_file,
    },
    parse_manifest,
};

use crate::{
    config::Config,
    exit::{CliError, Status},
    output,
    values::Pair,
};

/// What to do with MCP servers.
#[derive(Debug, Subcommand)]
pub(crate) enum Servers {
    /// Make a plugin of an MCP server: connect to it, show its tools and approve them as they are
    Add(Box<Add>),
    /// List the plugins that are MCP servers
    List(Where),
    /// Connect to a plugin's server, and show what differs from what was approved
    Inspect(Inspect),
    /// Take the plugin of an MCP server away
    Remove(Named),
}

/// Where the plugins are.
#[derive(Debug, Args)]
pub(crate) struct Where {
    /// The folder of plugins
    #[arg(long, value_name = "DIR", default_value = "tools")]
    dir: PathBuf,
}

/// One of the plugins.
#[derive(Debug, Args)]
pub(crate) struct Named {
    /// The plugin's name
    name: PluginName,
    #[command(flatten)]
    place: Where,
}

/// Options of `toolbay mcp inspect`.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    named: Named,
    /// Approve the tools as they are now
    #[arg(long)]
    accept: bool,
    /// Take networks and secrets from this TOML file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Options of `toolbay mcp add`.
#[derive(Debug, Args)]
pub(crate) struct Add {
    #[command(flatten)]
    named: Named,
    /// The address of a server that is called
    #[arg(long, value_name = "URL", conflicts_with = "command")]
    url: Option<String>,
    /// The name of the secret that is the server's token
    #[arg(long, value_name = "SECRET", requires = "url", conflicts_with = "client_id")]
    bearer: Option<String>,
    /// Who asks for tokens, by OAuth client credentials
    #[arg(long, value_name = "ID", requires = "client_secret")]
    client_id: Option<String>,
    /// The name of the secret that proves it
    #[arg(long, value_name = "SECRET", requires = "client_id")]
    client_secret: Option<String>,
    /// A scope to ask for; may be repeated
    #[arg(long, value_name = "SCOPE", requires = "client_id")]
    scope: Vec<String>,
    /// A variable for a server that is started; secret:NAME stands for a secret; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<Pair<String, String>>,
    /// A variable of this environment that the server gets too, such as PATH; may be repeated
    #[arg(long, value_name = "NAME")]
    inherit: Vec<String>,
    /// Take networks and secrets from this TOML file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The program to start and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

pub(crate) async fn run(servers: Servers) -> Result<Status, CliError> {
    match servers {
        Servers::Add(options) => add(*options).await,
        Servers::List(place) => list(&place.dir),
        Servers::Inspect(options) => inspect(options).await,
        Servers::Remove(named) => remove(&named),
    }
}

impl Named {
    fn folder(&self) -> PathBuf {
        self.place.dir.join(self.name.as_str())
    }
}

async fn add(options: Add) -> Result<Status, CliError> {
    let folder = options.named.folder();
    if folder.exists() {
        return Err(CliError::usage(format!("{} is there already: choose another name", folder.display())));
    }
    let file = options.file()?;
    let action = file.action();
    // A star would be granted as a pattern.
    if Permission::new(&action).is_err() || action.contains('*') {
        let message = "the program's path or the host cannot stand in a permission: give the program a plain path";
        return Err(CliError::usage(message));
    }
    let offered = offered(&options.named.name, &file, options.config.as_deref()).await?;
    let (pins, left_out) = Pins::of(&offered);
    show(&offered)?;
    for (tool, why) in left_out {
        output::note(&format!("left out {tool}: {why}"));
    }
    let name = &options.named.name;
    let mut permissions = vec![action];
    permissions.extend(file.secrets().into_iter().map(|secret| format!("secret:read:{secret}")));
    permissions.dedup();
    let permissions = format!("{permissions:?}");
    let manifest = format!(
        "name = \"{name}\"\nversion = \"1.0.0\"\ndescription = \"The tools of the MCP server {name}\"\nauthor = \"the operator\"\n\
         runtime = \"mcp\"\npermissions = {permissions}\n"
    );
    let assets = folder.join("assets");
    fs::create_dir_all(&assets).map_err(|error| cannot_write(&assets, &error))?;
    write(&folder.join("plugin.toml"), &manifest)?;
    let server = serde_json::to_string_pretty(&file).map_err(CliError::usage)?;
    write(&assets.join(server_file::FILE), &format!("{server}\n"))?;
    write(&assets.join(pins::FILE), &pins.to_json())?;
    output::note(&format!(
        "\nwrote {} with {} approved tools; grant it its way to the server in the configuration file:\n\n\
         [plugins.{name}]\ngrants = {permissions}",
        folder.display(),
        pins.tools.len()
    ));
    Ok(Status::Success)
}

impl Add {
    fn file(&self) -> Result<ServerFile, CliError> {
        let secret = |name: &String| ServerValue(format!("secret:{name}"));
        let auth = match (&self.bearer, &self.client_id, &self.client_secret) {
            (Some(token), ..) => Some(Auth::Bearer(secret(token))),
            (None, Some(id), Some(client_secret)) => Some(Auth::ClientCredentials {
                client_id: ServerValue(id.clone()),
                client_secret: secret(client_secret),
                scopes: self.scope.clone(),
            }),
            _ => None,
        };
        let mut command = self.command.iter().cloned();
        let file = ServerFile {
            command: command.next(),
            args: command.collect(),
            env: self.env.iter().map(|pair| (pair.key.clone(), ServerValue(pair.value.clone()))).collect(),
            inherit_env: self.inherit.clone(),
            url: self.url.clone(),
            auth,
        };
        // By the one way in, so that what is written can be read.
        let text = serde_json::to_vec(&file).map_err(CliError::usage)?;
        ServerFile::parse(&text).map_err(|error| CliError::usage(error.message))
    }
}

fn list(dir: &Path) -> Result<Status, CliError> {
    let entries = fs::read_dir(dir).map_err(|error| CliError::usage(format!("--dir: {}: {error}", dir.display())))?;
    let mut folders: Vec<_> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    folders.sort();
    let mut rows = vec![["PLUGIN", "TOOLS", "SERVER"].map(str::to_owned)];
    for folder in folders.iter().filter(|folder| is_mcp(folder)) {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let (file, pins) = read(folder)?;
        let server = file.url.clone().or_else(|| file.command.clone()).unwrap_or_default();
        rows.push([name, pins.tools.len().to_string(), server]);
    }
    for line in output::table(&rows) {
        output::line(&line)?;
    }
    Ok(Status::Success)
}

async fn inspect(options: Inspect) -> Result<Status, CliError> {
    let folder = existing(&options.named)?;
    let (file, approved) = read(&folder)?;
    let offered = offered(&options.named.name, &file, options.config.as_deref()).await?;
    let differences = approved.differences(&offered);
    if differences.is_empty() {
        output::line("the server's tools are as they were approved")?;
        return Ok(Status::Success);
    }
    for difference in &differences {
        output::line(&difference.to_string())?;
        if let Difference::Changed(tool) = difference {
            let old = approved.tools.iter().find(|pin| pin.tool == *tool);
            let new = offered.iter().find(|it| it.name == *tool);
            if let (Some(old), Some(new)) = (old, new) {
                changed("description", &old.description, &new.description)?;
                changed("parameters", &old.parameters.to_string(), &new.parameters.to_string())?;
                let text = |value: Option<&serde_json::Value>| value.map(ToString::to_string).unwrap_or_default();
                changed("output", &text(old.output.as_ref()), &text(new.output.as_ref()))?;
            }
        }
    }
    if !options.accept {
        output::note("approve the tools as they are now with --accept");
        return Ok(Status::Failed);
    }
    let (pins, left_out) = Pins::of(&offered);
    for (tool, why) in left_out {
        output::note(&format!("left out {tool}: {why}"));
    }
    write(&folder.join("assets").join(pins::FILE), &pins.to_json())?;
    output::note(&format!("approved {} tools", pins.tools.len()));
    Ok(Status::Success)
}

fn remove(named: &Named) -> Result<Status, CliError> {
    let folder = existing(named)?;
    fs::remove_dir_all(&folder).map_err(|error| cannot_write(&folder, &error))?;
    output::note(&format!("removed {}", folder.display()));
    Ok(Status::Success)
}

/// The folder of the plugin, which has to be an MCP server's: other folders are not these commands' to touch.
fn existing(named: &Named) -> Result<PathBuf, CliError> {
    let folder = named.folder();
    if is_mcp(&folder) {
        return Ok(folder);
    }
    Err(CliError::usage(format!("{} is no plugin of an MCP server: toolbay mcp list has those", folder.display())))
}

fn is_mcp(folder: &Path) -> bool {
    let manifest = folder.join("plugin.toml");
    let parsed = fs::read_to_string(&manifest).ok().and_then(|text| parse_manifest("plugin.toml", &text).ok());
    parsed.is_some_and(|manifest| manifest.runtime == toolbay::RuntimeKind::Mcp)
}

fn read(folder: &Path) -> Result<(ServerFile, Pins), CliError> {
    let asset = |name: &str| {
        let path = folder.join("assets").join(name);
        fs::read(&path).map_err(|error| CliError::usage(format!("{}: {error}", path.display())))
    };
    let file = ServerFile::parse(&asset(server_file::FILE)?).map_err(CliError::usage)?;
    let pins = Pins::parse(&asset(pins::FILE)?).map_err(CliError::usage)?;
    Ok((file, pins))
}

/// What the server has now.
async fn offered(name: &PluginName, file: &ServerFile, config: Option<&Path>) -> Result<Vec<Offered>, CliError> {
    let config = Config::load(config)?;
    let place = place(file, &config).await?;
    let options = LinkOptions { label: name.as_str().into(), http: config.mcp_http()?, ..LinkOptions::default() };
    let link = Link::open(&place, &options).await.map_err(CliError::usage)?;
    let tools = link.tools().await.map_err(CliError::usage);
    link.close().await;
    tools
}

/// The server's place, with the secrets that the operator keeps for everybody.
async fn place(file: &ServerFile, config: &Config) -> Result<Place, CliError> {
    let provider = config.secrets()?;
    let mut secrets = BTreeMap::new();
    for name in file.secrets() {
        let parsed = toolbay::SecretName::new(name).map_err(|error| CliError::usage(error.message))?;
        let found = match &provider {
            Some(provider) => provider.secret(&TenantId::default(), &parsed).await.map_err(CliError::usage)?,
            None => None,
        };
        let missing = || CliError::usage(format!("there is no secret {name}: --config says where secrets are"));
        secrets.insert(name, found.ok_or_else(missing)?);
    }
    file.place(|name| {
        let secret = secrets.get(name).map(|secret| secret.expose().to_owned());
        secret.ok_or_else(|| CliError::usage("a secret was not read"))
    })
}

fn show(offered: &[Offered]) -> Result<(), CliError> {
    for tool in offered {
        output::line(&tool.name)?;
        for line in tool.description.lines() {
            output::line(&format!("    {line}"))?;
        }
        output::line(&format!("    {}", tool.parameters))?;
    }
    Ok(())
}

fn changed(what: &str, old: &str, new: &str) -> Result<(), CliError> {
    if old == new {
        return Ok(());
    }
    for (sign, text) in [('-', old), ('+', new)] {
        for line in text.lines() {
            output::line(&format!("  {sign} {what}: {line}"))?;
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), CliError> {
    fs::write(path, text).map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &std::io::Error) -> CliError {
    CliError::usage(format!("{} cannot be changed: {error}", path.display()))
}
