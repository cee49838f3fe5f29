//! Logs, on standard error only: standard output belongs to results and to protocols.

use tracing_subscriber::{EnvFilter, Layer, filter::LevelFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{exit::CliError, telemetry::Telemetry};

/// Starts logging: `RUST_LOG` where it is set, else warnings, and more for each `-v`. Traces go beside it, whatever is logged.
pub(crate) fn start(verbose: u8, telemetry: Option<&Telemetry>) -> Result<(), CliError> {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let filter = EnvFilter::builder().with_default_directive(level.into()).from_env().map_err(|error| {
        CliError::usage(format!("RUST_LOG is not understood: {error}; an example is toolbay=debug"))
    })?;
    let shown = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        // It would report a closed standard error to standard error, and panic.
        .log_internal_errors(false)
        .with_filter(filter);
    let registry = tracing_subscriber::registry();
    #[cfg(feature = "otel")]
    let registry = registry.with(telemetry.map(Telemetry::layer));
    #[cfg(not(feature = "otel"))]
    let _ = telemetry;
    registry.with(shown).try_init().map_err(|error| CliError::usage(format!("logging cannot start: {error}")))
}
