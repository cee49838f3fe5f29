//! `toolbay completions`: the shell's own knowledge of the command line.

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use crate::{
    commands::Cli,
    exit::{CliError, Status},
    output,
};

/// Options of `toolbay completions`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The shell
    shell: Shell,
}

pub(crate) fn run(options: &Options) -> Result<Status, CliError> {
    // Into memory first: the generator panics where it cannot write.
    let mut script = Vec::new();
    generate(options.shell, &mut Cli::command(), "toolbay", &mut script);
    output::raw(&script)?;
    Ok(Status::Success)
}
