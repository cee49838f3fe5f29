//! Logs, on standard error only: standard output belongs to results and to protocols.

use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::exit::CliError;

/// Starts logging: `RUST_LOG` where it is set, else warnings, and more for each `-v`.
pub(crate) fn start(verbose: u8) -> Result<(), CliError> {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let filter = EnvFilter::builder().with_default_directive(level.into()).from_env().map_err(|error| {
        CliError::usage(format!("RUST_LOG is not understood: {error}; an example is toolbay=debug"))
    })?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        // It would report a closed standard error to standard error, and panic.
        .log_internal_errors(false)
        .try_init()
        .map_err(|error| CliError::usage(format!("logging cannot start: {error}")))
}
