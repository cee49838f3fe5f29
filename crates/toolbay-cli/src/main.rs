//! The `toolbay` command: a thin shell around the library, for authors of tools and for operators.
//!
//! # Layout
//!
//! - `commands`: the command line, and one file for each command.
//! - `options`: what several commands take; `values`: how durations, sizes and pairs are written.
//! - `config`: the configuration file, `outside`: its ways out; `host`: options, file and folders put together to a running Toolbay.
//! - `telemetry`: traces to a collector.
//! - `signals`: how a server is asked to end.
//! - `output`: everything that goes to the terminal; `logging`: what goes to standard error by way of `tracing`.
//! - `exit`: why a command ends, as a status.

mod approval;
mod code_mode;
mod commands;
mod config;
mod exit;
mod host;
mod logging;
mod oauth;
mod options;
mod output;
mod outside;
mod signals;
mod spending;
mod stored;
mod telemetry;
mod values;

use std::{process::ExitCode, time::Duration};

use clap::{ArgMatches, CommandFactory, FromArgMatches};

use crate::exit::{CliError, Status};

/// Without it the memory of scripts could not be bounded.
#[global_allocator]
static ALLOCATOR: toolbay::worker::CappedAlloc = toolbay::worker::CappedAlloc;

/// How long work that cannot be cancelled, such as a file that is being written, may go on after the command's end.
const LAST_WORK: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    // This program is its own worker: started as one, it never comes further than this line.
    toolbay::worker::run_if_worker();
    let matches = commands::Cli::command().get_matches();
    let cli = commands::Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let status = run(cli, &matches).unwrap_or_else(|error| match error {
        // Whoever read the output has seen enough.
        CliError::Closed => Status::Success,
        CliError::Usage(message) => {
            output::note(&format!("error: {message}"));
            Status::Usage
        }
    });
    status.into()
}

fn run(cli: commands::Cli, matches: &ArgMatches) -> Result<Status, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::usage(format!("the async runtime cannot start: {error}")))?;
    let telemetry = {
        let _within = runtime.enter();
        telemetry::start(matches)?
    };
    logging::start(cli.verbose, telemetry.as_ref())?;
    let status = runtime.block_on(commands::run(cli.command));
    if let Some(telemetry) = telemetry {
        runtime.block_on(telemetry.stop());
    }
    // A plain drop would wait for ever for a read of standard input that nobody answers.
    runtime.shutdown_timeout(LAST_WORK);
    status
}
