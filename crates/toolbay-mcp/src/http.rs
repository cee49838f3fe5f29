//! Many clients of many tenants over streamable HTTP.
//!
//! Only the server is meant to know HTTP (an invariant of ours). Until there is a server crate this module is the
//! exception: nothing else in this crate knows HTTP, and it will move out as it stands. Until callers have to show who
//! they are, it serves on the loopback address only and refuses any other.
//!
//! # Layout
//!
//! - this file: routes, options, serving and shutting down.
//! - `guard`: who may talk to us at all. `sessions`: how many clients may stay connected.

mod guard;
mod sessions;

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Path, Request, State},
    http::{
        HeaderMap, Method, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER},
    },
    middleware,
    response::{IntoResponse, Response},
    routing::any,
};
use futures::StreamExt;
use rmcp::{
    model::ProtocolVersion,
    transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService},
};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use toolbay_runtime::Session;

use self::sessions::BoundedSessions;
use crate::{McpError, McpServer};

/// Bounds of the HTTP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpOptions {
    /// Bytes of one request; a larger one is refused with status 413.
    pub max_body_bytes: usize,
    /// Clients of one tenant that may be connected at once, counting those that speak a revision with sessions; a
    /// further one is refused with status 503.
    pub max_sessions: usize,
    /// How long such a client may be silent before its session ends. It then has to begin a new one.
    pub session_idle: Duration,
    /// How long requests that run when the server shuts down may go on.
    pub drain: Duration,
}

impl Default for HttpOptions {
    /// 1 MiB, 4,096 sessions a tenant, 5 minutes, 10 seconds.
    fn default() -> Self {
        Self {
            max_body_bytes: 1024 * 1024,
            max_sessions: 4096,
            session_idle: Duration::from_secs(300),
            drain: Duration::from_secs(10),
        }
    }
}

/// The routes with what is needed to shut them down; made by [`http_router`], used up by [`serve_http`].
pub struct McpRouter {
    router: Router,
    endpoint: Arc<Endpoint>,
}

/// Routes `/mcp` to `chosen` and `/tenants/{tenant}/mcp` to what `tenants` knows by that name.
///
/// `tenants` is asked at every request, so a tenant that it no longer knows is gone at once; a client that speaks a
/// revision with sessions keeps the rights of the session that it began with. It should know a bounded set: what is
/// kept for a tenant is kept as long as the router. A name that it does not know is answered like any other path that
/// leads nowhere.
pub fn http_router(
    chosen: Session,
    tenants: impl Fn(&str) -> Option<Session> + Send + Sync + 'static,
    options: HttpOptions,
) -> McpRouter {
    let stop = CancellationToken::new();
    let chosen = TenantService::new(&options, &stop, move || Some(chosen.clone()));
    let endpoint = Arc::new(Endpoint {
        chosen,
        tenants: Arc::new(tenants),
        options,
        services: Mutex::default(),
        requests: TaskTracker::new(),
        stop,
    });
    let router = Router::new()
        .route("/mcp", any(of_chosen))
        .route("/tenants/{tenant}/mcp", any(of_tenant))
        .layer(middleware::from_fn(guard::guard))
        .with_state(Arc::clone(&endpoint));
    McpRouter { router, endpoint }
}

/// Serves until `shutdown` resolves; then takes no new connection, lets running requests end, and cancels what is left
/// after [`HttpOptions::drain`].
///
/// # Errors
/// [`McpError::NotLoopback`] where the listener can be reached from other machines, [`McpError::Io`] where it fails.
///
/// # Cancel safety
/// Dropping the future closes the listener and cancels running calls.
pub async fn serve_http(
    listener: TcpListener,
    router: McpRouter,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), McpError> {
    /// For connections to notice that their streams have ended.
    const LAST_WORDS: Duration = Duration::from_secs(1);

    check_loopback(listener.local_addr()?)?;
    let McpRouter { router, endpoint } = router;
    let _stop_in_any_case = endpoint.stop.clone().drop_guard();
    let closing = CancellationToken::new();
    let served = axum::serve(listener, router).with_graceful_shutdown(closing.clone().cancelled_owned());
    let end = async {
        shutdown.await;
        closing.cancel();
        endpoint.requests.close();
        if tokio::time::timeout(endpoint.options.drain, endpoint.requests.wait()).await.is_err() {
            tracing::warn!("cancelled the requests that were still running");
        }
        // Streams on which a client waits for notifications never end by themselves.
        endpoint.stop.cancel();
        tokio::time::sleep(LAST_WORDS).await;
    };
    tokio::select! {
        served = served => Ok(served?),
        () = end => Ok(()),
    }
}

/// Refuses an address that other machines can reach: this server asks nobody who they are.
///
/// # Errors
/// [`McpError::NotLoopback`].
pub fn check_loopback(address: SocketAddr) -> Result<(), McpError> {
    if address.ip().to_canonical().is_loopback() { Ok(()) } else { Err(McpError::NotLoopback(address)) }
}

/// What `rmcp` serves at one address, and the sessions in it.
#[derive(Clone)]
struct TenantService {
    service: StreamableHttpService<McpServer, BoundedSessions>,
    sessions: Arc<BoundedSessions>,
}

type Tenants = dyn Fn(&str) -> Option<Session> + Send + Sync;

struct Endpoint {
    chosen: TenantService,
    tenants: Arc<Tenants>,
    options: HttpOptions,
    // std's Mutex, not tokio's: nothing is awaited while it is held.
    services: Mutex<HashMap<String, TenantService>>,
    /// Requests that are being answered, streams of results included.
    requests: TaskTracker,
    /// Ends everything that is left.
    stop: CancellationToken,
}

async fn of_chosen(State(endpoint): State<Arc<Endpoint>>, request: Request) -> Response {
    endpoint.answer(&endpoint.chosen, request).await
}

async fn of_tenant(State(endpoint): State<Arc<Endpoint>>, Path(tenant): Path<String>, request: Request) -> Response {
    if (endpoint.tenants)(&tenant).is_none() {
        return StatusCode::NOT_FOUND.into_response();
    }
    let service = endpoint.service_of(tenant);
    endpoint.answer(&service, request).await
}

impl TenantService {
    /// `session` is asked for every stateless request and for every client that connects.
    fn new(
        options: &HttpOptions,
        stop: &CancellationToken,
        session: impl Fn() -> Option<Session> + Send + Sync + 'static,
    ) -> Self {
        let config = StreamableHttpServerConfig::default()
            .with_allowed_hosts(guard::HOSTS)
            .with_allowed_origins(guard::ORIGINS)
            .with_max_request_body_bytes(options.max_body_bytes)
            // A stateless result is one message, and plain JSON costs less than a stream of one event.
            .with_json_response(true)
            .with_cancellation_token(stop.clone());
        let sessions = Arc::new(BoundedSessions::new(options.max_sessions, options.session_idle));
        let make = move || session().map(McpServer::new).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
        Self { service: StreamableHttpService::new(make, Arc::clone(&sessions), config), sessions }
    }
}

impl Endpoint {
    /// The service of a known tenant, made at its first request.
    fn service_of(&self, tenant: String) -> TenantService {
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        let new = |tenant: &String| {
            let (tenants, tenant) = (Arc::clone(&self.tenants), tenant.clone());
            TenantService::new(&self.options, &self.stop, move || tenants(&tenant))
        };
        services.entry(tenant).or_insert_with_key(new).clone()
    }

    async fn answer(&self, TenantService { service, sessions }: &TenantService, request: Request) -> Response {
        // Streams that clients open by GET to wait for notifications are not waited for at the end.
        let running = (request.method() == Method::POST).then(|| self.requests.token());
        if running.is_some() && sessions.is_full() && begins_a_session(request.headers()) {
            return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "5")], "too many clients are connected\n")
                .into_response();
        }
        let ends_a_session = request.method() == Method::DELETE;
        let mut response = service.handle(request).await.map(Body::new);
        if ends_a_session && response.status() == StatusCode::ACCEPTED {
            // The session is gone, not about to go; the Python client reports "accepted" as a failure.
            *response.status_mut() = StatusCode::NO_CONTENT;
        }
        let Some(running) = running.filter(|_| is_event_stream(response.headers())) else {
            return response;
        };
        response.map(|body| {
            Body::from_stream(body.into_data_stream().inspect(move |_| {
                // Held, for as long as the stream is, by this closure.
                let _ = &running;
            }))
        })
    }
}

/// Whether a POST can only be the `initialize` of a client that speaks a revision with sessions.
fn begins_a_session(headers: &HeaderMap) -> bool {
    let is_stateless = headers
        .get("mcp-protocol-version")
        .is_some_and(|version| version.as_bytes() >= ProtocolVersion::V_2026_07_28.as_str().as_bytes());
    !is_stateless && !headers.contains_key("mcp-session-id")
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}
