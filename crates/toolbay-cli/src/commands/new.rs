//! `toolbay new`: a working plugin to begin from. The templates lie beside this file as what they become.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use clap::Args;
use toolbay::{PluginName, ToolName};

use crate::{
    exit::{CliError, Status},
    output,
};

const PLUGIN: &str = include_str!("new/plugin.rhai");
const CASES: &str = include_str!("new/cases.jsonl");

/// Options of `toolbay new`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The plugin's name: a-z 0-9 _ - and a letter to begin with
    name: PluginName,
    /// Write it to this folder, which is made where it is missing
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

pub(crate) fn run(options: &Options) -> Result<Status, CliError> {
    let name = &options.name;
    let greet = ToolName::new("greet").and_then(|local| ToolName::qualified(name, &local)).map_err(CliError::usage)?;
    let plugin = options.dir.join(format!("{name}.rhai"));
    let cases = options.dir.join("cases").join(format!("{name}.jsonl"));
    for path in [&plugin, &cases] {
        if path.symlink_metadata().is_ok() {
            let path = path.display();
            return Err(CliError::usage(format!("{path} is there already: choose another name, or remove it first")));
        }
    }
    write(&plugin, &PLUGIN.replace("PLUGIN_NAME", name.as_str()))?;
    write(&cases, &CASES.replace("TOOL_NAME", greet.as_str()))?;
    let (plugin, cases) = (plugin.display(), cases.display());
    output::line(&format!(
        "wrote {plugin} and its cases, {cases}\n\nnext:\n  \
         toolbay check {plugin}\n  \
         toolbay test {plugin}\n  \
         toolbay call {greet} --tools {plugin} --args '{{\"name\": \"Ada\"}}'"
    ))?;
    Ok(Status::Success)
}

/// Writes a file that is not there yet, and its folder.
fn write(path: &Path, text: &str) -> Result<(), CliError> {
    let problem = |error| CliError::usage(format!("{} cannot be written: {error}", path.display()));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(problem)?;
    }
    let mut file = fs::File::create_new(path).map_err(problem)?;
    file.write_all(text.as_bytes()).map_err(problem)
}
