//! Traces to a collector, where the configuration file names one: started before the command, since logging and traces share
//! what the program says of itself, and stopped after it.

use std::path::PathBuf;

use clap::ArgMatches;

use crate::{config::Config, exit::CliError};

/// The configuration file of whatever command is in `matches`. One that cannot be read is the command's to complain about.
fn config(matches: &ArgMatches) -> Option<Config> {
    let mut innermost = matches;
    while let Some((_, inner)) = innermost.subcommand() {
        innermost = inner;
    }
    let path = innermost.try_get_one::<PathBuf>("config").ok().flatten()?;
    Config::load(Some(path)).ok()
}

#[cfg(feature = "otel")]
pub(crate) use toolbay::otel::Telemetry;

/// Starts to send, if the file says where. Must be within the runtime.
#[cfg(feature = "otel")]
pub(crate) fn start(matches: &ArgMatches) -> Result<Option<Telemetry>, CliError> {
    use std::time::Duration;

    use toolbay::otel::TelemetryOptions;

    let Some(config) = config(matches) else { return Ok(None) };
    let section = config.telemetry();
    let Some(endpoint) = section.endpoint.clone() else { return Ok(None) };
    let usual = TelemetryOptions::default();
    let options = TelemetryOptions {
        endpoint,
        service_name: section.service_name.clone().unwrap_or(usual.service_name),
        sampled: section.sampled.unwrap_or(usual.sampled),
        timeout: section.timeout_ms.map_or(usual.timeout, Duration::from_millis),
        // A key of the collector stands in OTEL_EXPORTER_OTLP_HEADERS, not in a file.
        headers: usual.headers,
    };
    Telemetry::start(options).map(Some).map_err(|error| CliError::usage(format!("--config: telemetry: {error}")))
}

/// What stands for telemetry in a program without it.
#[cfg(not(feature = "otel"))]
pub(crate) struct Telemetry;

#[cfg(not(feature = "otel"))]
impl Telemetry {
    #[allow(clippy::unused_async, reason = "it stands for one that waits")]
    pub(crate) async fn stop(self) {}
}

/// Refuses a file that wants traces: they would be missed when they are needed.
#[cfg(not(feature = "otel"))]
pub(crate) fn start(matches: &ArgMatches) -> Result<Option<Telemetry>, CliError> {
    match config(matches).and_then(|config| config.telemetry().endpoint.clone()) {
        Some(_) => Err(CliError::usage("--config: telemetry: this toolbay was built without the feature otel")),
        None => Ok(None),
    }
}
