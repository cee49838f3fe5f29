//! `toolbay schema`: what an editor needs to know of the files that people write for Toolbay.

use clap::{Args, ValueEnum};

use crate::{
    config::Config,
    exit::{CliError, Status},
    output,
};

/// Options of `toolbay schema`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Which file's
    #[arg(value_name = "FILE", value_enum, default_value = "manifest")]
    file: File,
}

/// A file that has a schema.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum File {
    /// plugin.toml, plugin.yaml or plugin.json
    Manifest,
    /// What --config names
    Config,
    /// What `toolbay index` writes
    Index,
}

pub(crate) fn run(options: &Options) -> Result<Status, CliError> {
    let schema = match options.file {
        File::Manifest => toolbay::manifest::schema::json_schema(),
        File::Index => toolbay::Index::json_schema(),
        File::Config => schemars::schema_for!(Config).to_value(),
    };
    output::json_pretty(&schema).or_else(output::unless_closed)?;
    Ok(Status::Success)
}
