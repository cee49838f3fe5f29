//! Around every request: its id, its log line and count, a bound on how many run at once, panics caught, and the one shape
//! for whatever went wrong further in, axum's own answers among it.

use std::{panic::AssertUnwindSafe, sync::Arc};

use axum::{
    extract::{Request, State},
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
        header::{CACHE_CONTROL, X_CONTENT_TYPE_OPTIONS},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures::FutureExt;
use tokio::time::Instant;
use toolbay_runtime::trace::TARGET;
use tracing::{Instrument, Level, Span, field::Empty};
use uuid::Uuid;

use crate::{app::App, problem::Problem};

/// The header that carries a request's id.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The methods that endpoints have.
const METHODS: [Method; 6] = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// Bytes of an id that a caller gives.
const MAX_ID: usize = 64;

/// The template of the route that answered, for counting.
#[derive(Clone)]
pub(crate) struct RouteName(pub(crate) Arc<str>);

/// Answers a request.
pub(crate) async fn envelope(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let id = id_of(request.headers());
    let method = request.method().clone();
    let span = tracing::info_span!(target: "toolbay::server", "request", id = &*id, %method);
    let told = told(&app, &request);
    let answered = answer(&app, request, next).instrument(span.clone()).instrument(told.clone()).await;
    let route = answered.extensions().get::<RouteName>().map_or_else(|| "other".into(), |name| Arc::clone(&name.0));
    let response = complete(answered, &method, &id);
    let seconds = begun.elapsed().as_secs_f64();
    let status = response.status().as_u16();
    app.metrics.answered(&method, &route, status, seconds);
    if !told.is_disabled() {
        let known = if METHODS.contains(&method) { method.as_str() } else { "_OTHER" };
        told.record("otel.name", format!("{known} {route}"));
        told.record("http.route", &*route);
        told.record("http.response.status_code", status);
    }
    span.in_scope(|| tracing::debug!(target: "toolbay::server", route = &*route, status, seconds, "answered"));
    response
}

/// The span of a request for telemetry, in the trace of whoever asks. Probes have none.
fn told(app: &App, request: &Request) -> Span {
    let is_looked_at = matches!(request.uri().path(), "/healthz" | "/readyz" | "/metrics");
    if is_looked_at || !tracing::span_enabled!(target: TARGET, Level::INFO) {
        return Span::none();
    }
    // Whoever makes up a method is not to make up a name of spans.
    let method = if METHODS.contains(request.method()) { request.method().as_str() } else { "_OTHER" };
    let span = tracing::info_span!(
        target: TARGET, "request",
        otel.name = method, otel.kind = "server", "http.request.method" = method,
        "http.route" = Empty, "http.response.status_code" = Empty,
    );
    let header = |name: &str| request.headers().get(name).and_then(|value| value.to_str().ok());
    if let (Some(link), Some(parent)) = (app.control.toolbay().trace_link(), header("traceparent")) {
        link.follow(&span, parent, header("tracestate"));
    }
    span
}

async fn answer(app: &App, request: Request, next: Next) -> Response {
    // Probes are answered also where everything else is busy.
    let is_probe = matches!(request.uri().path(), "/healthz" | "/readyz");
    let slot = if is_probe { None } else { Some(Arc::clone(&app.requests).try_acquire_owned()) };
    if let Some(Err(_)) = slot {
        let message = "the server answers as many requests as it may at once; try again";
        return Problem::busy(StatusCode::SERVICE_UNAVAILABLE, "Unavailable", message, 1).into_response();
    }
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => {
            tracing::error!(target: "toolbay::server", "the code that answers a request panicked");
            Problem::internal().into_response()
        }
    }
}

/// Gives every answer its id, and every failure the one shape.
fn complete(mut response: Response, method: &Method, id: &str) -> Response {
    let status = response.status();
    let told = response.extensions_mut().remove::<Problem>();
    let problem = told.or_else(|| match status {
        StatusCode::NOT_FOUND => {
            Some(Problem::not_found("nothing is here: see /api/v1/openapi.json for what there is"))
        }
        _ if status.is_client_error() => Some(Problem::new(status, "InvalidArguments", "the request is malformed")),
        _ if status.is_server_error() && !is_json(response.headers()) => Some(Problem::internal()),
        _ => None,
    });
    if let Some(problem) = problem {
        response = problem.render(id);
    }
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, value);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if method == Method::HEAD {
        *response.body_mut() = axum::body::Body::empty();
    }
    response
}

fn is_json(headers: &HeaderMap) -> bool {
    headers.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"))
}

/// The caller's id where it is well-formed, so that it can stand in logs; else a new one.
fn id_of(headers: &HeaderMap) -> Arc<str> {
    let is_fine = |text: &&str| {
        (1..=MAX_ID).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).filter(is_fine);
    given.map_or_else(|| Uuid::now_v7().to_string().into(), Arc::from)
}
