//! What the server counts, in the text that Prometheus reads. Labels are routes' templates, methods, statuses and kinds
//! of error: nothing that a caller chooses.

use axum::http::Method;
use prometheus_client::{
    encoding::text::encode,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use crate::app::App;

type Labels = Vec<(&'static str, String)>;

/// What the server counts.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Labels, Counter>,
    durations: Family<Labels, Histogram>,
    calls: Family<Labels, Counter>,
    pub(crate) refused_keys: Counter,
    in_flight: Gauge,
    streams: Gauge,
    store_ready: Gauge,
    store_position: Gauge,
    failed: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("toolbay");
        let durations =
            Family::<Labels, Histogram>::new_with_constructor(|| Histogram::new(exponential_buckets(0.0005, 2.0, 17)));
        let metrics = Self {
            requests: Family::default(),
            durations,
            calls: Family::default(),
            refused_keys: Counter::default(),
            in_flight: Gauge::default(),
            streams: Gauge::default(),
            store_ready: Gauge::default(),
            store_position: Gauge::default(),
            failed: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register("http_requests", "Requests by route, method and status", metrics.requests.clone());
        registry.register_with_unit(
            "http_request_duration",
            "Time from a request's head to its answer, by route",
            Unit::Seconds,
            metrics.durations.clone(),
        );
        registry.register("http_requests_in_flight", "Requests that are being answered", metrics.in_flight.clone());
        registry.register("http_streams", "Streams that are open", metrics.streams.clone());
        registry.register("http_refused_keys", "Requests without a valid key", metrics.refused_keys.clone());
        registry.register(
            "tool_calls",
            "Tool calls over HTTP by outcome: ok or the error's kind",
            metrics.calls.clone(),
        );
        registry.register("store_ready", "1 where the store could be read the last time", metrics.store_ready.clone());
        registry.register("store_position", "As of which change the registry is", metrics.store_position.clone());
        registry.register(
            "registrations_failed",
            "Registrations of the store that could not be taken over",
            metrics.failed.clone(),
        );
        Self { registry, ..metrics }
    }

    /// A request was answered.
    pub(crate) fn answered(&self, method: &Method, route: &str, status: u16, seconds: f64) {
        // A method is whatever a caller writes; those that no route has are one.
        let known = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD];
        let method = known.iter().find(|known| *known == method).map_or("other", Method::as_str);
        let route = ("route", route.to_owned());
        let labels = vec![("method", method.to_owned()), route.clone(), ("status", status.to_string())];
        self.requests.get_or_create(&labels).inc();
        self.durations.get_or_create(&vec![route]).observe(seconds);
    }

    /// A tool was called.
    pub(crate) fn called(&self, outcome: &'static str) {
        self.calls.get_or_create(&vec![("outcome", outcome.to_owned())]).inc();
    }

    /// All of it as text.
    pub(crate) fn text(&self, app: &App) -> String {
        let gauge = |gauge: &Gauge, value: usize| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        gauge(&self.in_flight, app.options.max_requests.saturating_sub(app.requests.available_permits()));
        gauge(&self.streams, app.usage.streams(app.options.max_streams));
        let status = app.control.status();
        self.store_ready.set(i64::from(status.problem.is_none()));
        self.store_position.set(status.position.0);
        gauge(&self.failed, status.failed.len());
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            tracing::error!(target: "toolbay::server", "the metrics could not be written down");
        }
        text
    }
}
