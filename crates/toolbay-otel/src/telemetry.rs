//! Telemetry as a whole: started with the program, a layer of its `tracing`, stopped before its end.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracerProvider},
};
use tokio::runtime::Handle;
use toolbay_runtime::{TraceLink, trace::TARGET};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::{Layer, filter::filter_fn, registry::LookupSpan};
use url::Url;

use crate::{link::OtelLink, send::Courier, shape::Shaped};

/// The path of traces at a collector.
const TRACES: &str = "v1/traces";

/// Where traces go, and how many of them.
#[derive(Clone)]
pub struct TelemetryOptions {
    /// The collector's address for OTLP over HTTP, without the path of a signal: `http://127.0.0.1:4318`.
    pub endpoint: String,
    /// The program's name, as `service.name`.
    pub service_name: String,
    /// Headers of each request to the collector, such as a key. They are shown nowhere.
    pub headers: HashMap<String, String>,
    /// The longest time for one request to the collector.
    pub timeout: Duration,
    /// The share of traces that is sent, from 0 to 1; a caller's own decision goes before it.
    pub sampled: f64,
}

impl Default for TelemetryOptions {
    fn default() -> Self {
        Self {
            endpoint: "http://127.0.0.1:4318".into(),
            service_name: "toolbay".into(),
            headers: HashMap::new(),
            timeout: Duration::from_secs(10),
            sampled: 1.0,
        }
    }
}

impl fmt::Debug for TelemetryOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TelemetryOptions")
            .field("endpoint", &self.endpoint)
            .field("service_name", &self.service_name)
            .field("headers", &self.headers.keys())
            .field("timeout", &self.timeout)
            .field("sampled", &self.sampled)
            .finish()
    }
}

/// Why telemetry does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// The address is none.
    #[error("the collector's address {endpoint:?} is none: write it as in http://127.0.0.1:4318")]
    Endpoint {
        /// What was given.
        endpoint: String,
    },
    /// The share is none.
    #[error("the share of traces that is sent must be from 0 to 1")]
    Sampled,
    /// There is no tokio runtime to send with.
    #[error("telemetry must be started within a tokio runtime")]
    NoRuntime,
    /// The client or the exporter cannot be made.
    #[error("the exporter cannot be made: {0}")]
    Exporter(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Telemetry that runs. What is not sent within its bounds is dropped, and a collector that is away holds up nothing.
pub struct Telemetry {
    provider: SdkTracerProvider,
}

impl Telemetry {
    /// Starts to send. Nothing is sent before the first span has ended.
    ///
    /// # Errors
    /// [`TelemetryError`].
    pub fn start(options: TelemetryOptions) -> Result<Self, TelemetryError> {
        let TelemetryOptions { endpoint, service_name, headers, timeout, sampled } = options;
        let address = traces_at(&endpoint).ok_or(TelemetryError::Endpoint { endpoint })?;
        if !(0.0..=1.0).contains(&sampled) {
            return Err(TelemetryError::Sampled);
        }
        let runtime = Handle::try_current().map_err(|_| TelemetryError::NoRuntime)?;
        let client = Courier::new(timeout, runtime).map_err(TelemetryError::Exporter)?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(address)
            .with_headers(headers)
            .with_timeout(timeout)
            .build()
            .map_err(|error| TelemetryError::Exporter(error.into()))?;
        let resource = Resource::builder()
            .with_service_name(service_name)
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(sampled))))
            .with_resource(resource)
            // It keeps a bounded number of spans and drops what comes beyond.
            .with_batch_exporter(Shaped(exporter))
            .build();
        Ok(Self { provider })
    }

    /// The layer that takes Toolbay's spans; for a subscriber of `tracing-subscriber`.
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + 'static
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.provider.tracer("toolbay"))
            .with_location(false)
            .with_tracked_inactivity(false)
            .with_threads(false)
            .with_target(false)
            .with_context_activation(false)
            .with_filter(filter_fn(is_ours))
    }

    /// What connects spans with the traces of callers.
    #[must_use]
    pub fn link(&self) -> Arc<dyn TraceLink> {
        Arc::new(OtelLink)
    }

    /// Sends what is left, for as long as one request may take, and ends.
    pub async fn stop(self) {
        // It waits for the exporter's thread, which in turn needs this runtime.
        let ended = tokio::task::spawn_blocking(move || self.provider.shutdown()).await;
        if let Ok(Err(error)) = ended {
            tracing::warn!(target: "toolbay::otel", %error, "not all traces were sent");
        }
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

/// Spans that are made for telemetry, and those of requests to the server around them. No log line.
fn is_ours(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.target() == TARGET
}

/// Where a collector at `endpoint` takes traces.
fn traces_at(endpoint: &str) -> Option<String> {
    let mut url = Url::parse(endpoint.trim()).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
    if !url.path().ends_with(TRACES) {
        url.path_segments_mut().ok()?.pop_if_empty().extend(TRACES.split('/'));
    }
    Some(url.into())
}
