//! Toolbay's traces for OpenTelemetry: the spans of agent runs (`invoke_agent`), requests to models (`chat`) and tool calls
//! (`execute_tool`), sent to a collector over OTLP (HTTP, protobuf).
//!
//! The spans themselves are made by [`toolbay_runtime::trace`] and the agent, by OpenTelemetry's semantic conventions for
//! generative AI. This crate takes those and nothing else out of a program's `tracing`: no log line ever goes to the
//! collector, and no attribute that the conventions and Toolbay do not know.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use toolbay_otel::{Telemetry, TelemetryOptions};
//! use tracing_subscriber::prelude::*;
//!
//! let options = TelemetryOptions { endpoint: "http://127.0.0.1:4318".into(), ..TelemetryOptions::default() };
//! let telemetry = Telemetry::start(options)?;
//! tracing_subscriber::registry().with(telemetry.layer()).try_init()?;
//! // What connects traces with those of callers, for `Toolbay::builder().trace_link(...)`.
//! let link = telemetry.link();
//! # drop(link);
//! // At the end, so that what was not sent yet is.
//! telemetry.stop().await;
//! # Ok(()) }
//! ```
//!
//! # Layout
//!
//! `telemetry`: what is started and stopped. `send`: OTLP over the host's own HTTP client. `shape`: what of a span leaves the
//! process. `link`: W3C Trace Context of callers.

mod link;
mod send;
mod shape;
mod telemetry;

pub use link::OtelLink;
pub use telemetry::{Telemetry, TelemetryError, TelemetryOptions};
