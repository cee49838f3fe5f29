//! `toolbay replay`: goes through a recorded run again, without model and, unless it is told to, without tools.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::json;
use toolbay::{
    PluginName,
    replay::{self, Difference, ReadBounds, Recording, ReplayError},
};

use crate::{
    exit::{CliError, Status},
    host::Host,
    options::{HostOptions, PluginOptions, SessionOptions, StoreOptions},
    output,
};

/// Options of `toolbay replay`.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Without --with-hooks and --with-plugin the agent loop of this version is told what was recorded of model and \
                             tools, and must decide as it did then: what to ask, which tools to call, how to end. No model is \
                             asked in any case.\n\n\
                             Exit status: 0 nothing differs; 1 something does; 2 usage or load error, such as a file that is no \
                             recording."
)]
pub(crate) struct Options {
    /// The recording, as `toolbay agent --record` writes it
    file: PathBuf,
    /// Ask the hooks of the plugins about the recorded run, and list what they decide otherwise than was recorded.
    ///
    /// The hooks' code runs, with its effects; tools of the model are not called.
    #[arg(long)]
    with_hooks: bool,
    /// Call the tools of this plugin with the recorded arguments, and list the results that are others than was recorded.
    ///
    /// The tools are really called, with their effects. --tools is for --with-hooks alone.
    #[arg(long, value_name = "PATH")]
    with_plugin: Option<PathBuf>,
    /// Print what differs as JSON Lines to standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    plugins: PluginOptions,
    #[command(flatten)]
    host: HostOptions,
}

pub(crate) async fn run(options: Options) -> Result<Status, CliError> {
    let Options { file, with_hooks, with_plugin, json, plugins, host } = options;
    let shown = file.display().to_string();
    let failed = |error: ReplayError| CliError::usage(format!("{shown}: {error}"));
    let recording = read(&file, &shown)?;
    if !with_hooks && with_plugin.is_none() {
        return strict(&recording, &shown, json);
    }
    let tenant = recording.head().tenant.clone();
    let session = |plugins| SessionOptions { tenant, plugins, host, store: StoreOptions::default() };
    let mut differences = Vec::new();
    match with_plugin {
        None => differences.extend(hooks(&recording, session(plugins)).await?.map_err(failed)?),
        Some(path) if !with_hooks => {
            differences.extend(plugin(&recording, path, session(plugins)).await?.map_err(failed)?)
        }
        Some(_) => {
            return Err(CliError::usage("--with-hooks and --with-plugin look at different things: give one of them"));
        }
    }
    for difference in &differences {
        if json { output::json_line(difference) } else { output::line(&difference.to_string()) }
            .or_else(output::unless_closed)?;
    }
    if differences.is_empty() {
        output::note("nothing differs");
        return Ok(Status::Success);
    }
    output::note(&format!("{} differ", differences.len()));
    Ok(Status::Failed)
}

fn read(file: &Path, shown: &str) -> Result<Recording, CliError> {
    let reader = File::open(file).map_err(|error| CliError::usage(format!("{shown}: {error}")))?;
    let recording = Recording::read(BufReader::new(reader), &ReadBounds::default());
    recording.map_err(|error| CliError::usage(format!("{shown}: {error}")))
}

/// Has the loop do again what it did.
fn strict(recording: &Recording, shown: &str, json: bool) -> Result<Status, CliError> {
    match replay::strict(recording) {
        Ok(replayed) => {
            let (steps, calls, decisions) = (replayed.steps, replayed.tool_calls, replayed.decisions);
            let told = if json {
                output::json_line(&json!({ "steps": steps, "tool_calls": calls, "decisions": decisions }))
            } else {
                output::line(&format!(
                    "the loop decides as recorded: {steps} steps, {calls} tool calls, {decisions} decisions"
                ))
            };
            told.or_else(output::unless_closed)?;
            Ok(Status::Success)
        }
        Err(error) => {
            if json {
                let line = json!({ "line": error.line, "message": error.message });
                output::json_line(&line).or_else(output::unless_closed)?;
            }
            output::note(&format!("error: {shown}: {error}"));
            Ok(Status::Failed)
        }
    }
}

type Found = Result<Vec<Difference>, ReplayError>;

/// Asks the hooks that there are now.
async fn hooks(recording: &Recording, options: SessionOptions) -> Result<Found, CliError> {
    let (host, session) = Host::session(&options).await?;
    let found = replay::with_hooks(recording, &session).await;
    host.stop().await;
    Ok(found)
}

/// Calls the tools of the plugin at `path`.
async fn plugin(recording: &Recording, path: PathBuf, mut options: SessionOptions) -> Result<Found, CliError> {
    options.plugins.tools = vec![path];
    let (host, session) = Host::session(&options).await?;
    if let Some(broken) = host.report.failed.first() {
        let message = format!("--with-plugin: {}: {}", broken.origin.display(), broken.error);
        host.stop().await;
        return Err(CliError::usage(message));
    }
    let names: Vec<PluginName> = host.report.loaded.iter().map(|loaded| loaded.name.clone()).collect();
    let is_of = |name: &PluginName, tool: &str| {
        let rest = tool.strip_prefix(name.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let found = replay::with_tools(recording, &session, |tool| names.iter().any(|name| is_of(name, tool))).await;
    host.stop().await;
    Ok(found)
}
