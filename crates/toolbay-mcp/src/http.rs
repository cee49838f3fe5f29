//! Many clients of many tenants over streamable HTTP.
//!
//! Only the server is meant to know HTTP (an invariant of ours). Until there is a server crate this module is the
//! exception: nothing else in this crate knows HTTP, and it will move out as it stands. Without an
//! [`Authenticate`] it serves on the loopback address only and refuses any other.
//!
//! # Layout
//!
//! - this file: routes, options, serving and shutting down.
//! - `guard`: which hosts and pages may talk to us at all. `door`: who it is. `admission`: how much one tenant may have.
//! - `sessions`: clients of older revisions. `accept`: connections.

mod accept;
mod admission;
mod door;
mod guard;
mod sessions;

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::{ConnectInfo, Path, Request, State},
    http::{
        Extensions, HeaderMap, Method, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER},
    },
    middleware,
    response::{IntoResponse, Response},
    routing::{any, get},
};
use futures::StreamExt;
use rmcp::{
    model::ProtocolVersion,
    transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService},
};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use toolbay_listen::Guesses;
use toolbay_runtime::Session;

use self::{
    admission::Admission,
    door::{Door, Shut, Visitor},
    sessions::BoundedSessions,
};
use crate::{
    McpError, McpServer, ResultOptions, ServerOptions, TaskOptions,
    auth::{Authenticate, Principal, Refused, WELL_KNOWN},
    options::Shared,
    state::Seal,
};

/// Bounds of the HTTP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpOptions {
    /// Bytes of one request; a larger one is refused with status 413.
    pub max_body_bytes: usize,
    /// How long a client may take for the head of a request, from the beginning of the connection on or from the request
    /// before.
    pub header_timeout: Duration,
    /// How long a client may take nothing of its answer; then the connection is closed.
    pub write_timeout: Duration,
    /// How long a client may take for a request's body; a slower one is refused with status 408.
    pub body_timeout: Duration,
    /// Connections at once, of all clients; further ones wait.
    pub max_connections: usize,
    /// Requests of one tenant in flight, counting the streams on which its clients wait; a further one is refused with
    /// status 429.
    pub max_in_flight: usize,
    /// Requests of one tenant in a minute; a further one is refused with status 429. `None`: any number, since tool calls
    /// are metered by the runtime's quotas.
    pub max_requests_per_minute: Option<u32>,
    /// Requests in a minute from one address with a credential that is none; a further one of that kind is refused with status
    /// 429. A valid credential passes in any case.
    pub failures_per_minute: u32,
    /// Clients of one tenant that may be connected at once, counting those that speak a revision with sessions; a
    /// further one is refused with status 503.
    pub max_sessions: usize,
    /// How long such a client may be silent before its session ends. It then has to begin a new one.
    pub session_idle: Duration,
    /// Calls that take long.
    pub tasks: TaskOptions,
    /// Results that are long.
    pub results: ResultOptions,
    /// How long requests and tasks that run when the server shuts down may go on.
    pub drain: Duration,
    /// Names by which clients may call this server besides those of the loopback address: `tools.example.com`.
    pub hosts: Vec<String>,
    /// Origins of web pages that may call it besides those of this machine: `https://console.example.com`.
    pub origins: Vec<String>,
    /// What the state of calls that wait for an answer is sealed with. `None`: a key of this process; where several
    /// processes serve the same clients they need a common one.
    pub state_key: Option<StateKey>,
}

impl Default for HttpOptions {
    /// 1 MiB, 10 seconds for heads and 30 for bodies and answers, 16,384 connections, 4,096 requests and sessions a tenant, 60
    /// failures a minute, 5 minutes, 10 seconds.
    fn default() -> Self {
        Self {
            max_body_bytes: 1024 * 1024,
            header_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(30),
            body_timeout: Duration::from_secs(30),
            max_connections: 16_384,
            max_in_flight: 4_096,
            max_requests_per_minute: None,
            failures_per_minute: 60,
            max_sessions: 4_096,
            session_idle: Duration::from_secs(300),
            tasks: TaskOptions::default(),
            results: ResultOptions::default(),
            drain: Duration::from_secs(10),
            hosts: Vec::new(),
            origins: Vec::new(),
            state_key: None,
        }
    }
}

/// A key of the operator's. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct StateKey(Arc<[u8]>);

impl StateKey {
    /// Takes over a key; it should have 32 random bytes.
    pub fn new(key: impl Into<Arc<[u8]>>) -> Self {
        Self(key.into())
    }
}

impl fmt::Debug for StateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StateKey(***)")
    }
}

/// The routes with what is needed to shut them down; made by [`http_router`] or [`keyed_http_router`], used up by
/// [`serve_http`].
pub struct McpRouter {
    router: Router,
    endpoint: Arc<Endpoint>,
}

/// Routes `/mcp` to `chosen` and `/tenants/{tenant}/mcp` to what `tenants` knows by that name. Nobody is asked who he is.
///
/// `tenants` is asked at every request, so a tenant that it no longer knows is gone at once; a client that speaks a
/// revision with sessions keeps the rights of the session that it began with. A name that it does not know is answered
/// like any other path that leads nowhere.
pub fn http_router(
    chosen: Session,
    tenants: impl Fn(&str) -> Option<Session> + Send + Sync + 'static,
    options: HttpOptions,
) -> McpRouter {
    router_behind(Door::Open { chosen, tenants: Box::new(tenants) }, options)
}

/// Routes `/mcp` to the tenant of whoever presents a credential that `authenticate` knows.
///
/// `sessions` opens the session of a principal; it gets the principal's user and rights here. `None`, or a session of
/// another tenant, is a refusal. Both are asked at every request, so what is revoked is gone with the next one, sessions of
/// older revisions included: those are bound to the principal that began them.
pub fn keyed_http_router(
    authenticate: Arc<dyn Authenticate>,
    sessions: impl Fn(&Principal) -> Option<Session> + Send + Sync + 'static,
    options: HttpOptions,
) -> McpRouter {
    router_behind(Door::Keyed { authenticate, sessions: Box::new(sessions) }, options)
}

fn router_behind(door: Door, options: HttpOptions) -> McpRouter {
    let stop = CancellationToken::new();
    let sessions = Arc::new(BoundedSessions::new(options.max_sessions, options.session_idle));
    let seal = options.state_key.as_ref().map_or_else(Seal::of_this_process, |key| Seal::with_key(&key.0));
    let server = ServerOptions { tasks: options.tasks.clone(), results: options.results.clone() };
    let shared = Arc::new(Shared::new(server, seal, stop.child_token()));
    let making = Arc::clone(&shared);
    let make = move || {
        let session = door::visitor(|visitor| visitor.session.clone());
        let session = session.ok_or_else(|| io::Error::from(io::ErrorKind::PermissionDenied))?;
        Ok(McpServer::sharing(session, Arc::clone(&making)))
    };
    let config = StreamableHttpServerConfig::default()
        // Hosts and origins are checked before anything else, in `guard`.
        .disable_allowed_hosts()
        .disable_allowed_origins()
        .with_max_request_body_bytes(options.max_body_bytes)
        // A stateless result is one message, and plain JSON costs less than a stream of one event.
        .with_json_response(true)
        .with_cancellation_token(stop.clone());
    let allowed = Arc::new(guard::Allowed::new(&options.hosts, &options.origins));
    let endpoint = Arc::new(Endpoint {
        door,
        service: StreamableHttpService::new(make, Arc::clone(&sessions), config),
        sessions,
        shared,
        admission: Admission::new(options.max_in_flight, options.max_requests_per_minute),
        guesses: Guesses::new(options.failures_per_minute),
        options,
        requests: TaskTracker::new(),
        stop,
    });
    let router = Router::new()
        .route("/mcp", any(at_the_door))
        .route("/tenants/{tenant}/mcp", any(at_a_tenants_door))
        .route(WELL_KNOWN, get(protected_resource))
        .route(&format!("{WELL_KNOWN}/mcp"), get(protected_resource))
        .layer(middleware::from_fn_with_state(allowed, guard::guard))
        .with_state(Arc::clone(&endpoint));
    McpRouter { router, endpoint }
}

impl McpRouter {
    /// The routes for a server of the caller's own, and their end, which that server has to call. Bounds and times of
    /// connections are then that server's.
    #[must_use = "streams never end by themselves"]
    pub fn into_parts(self) -> (Router, McpEnd) {
        (self.router, McpEnd(self.endpoint))
    }
}

/// The end of routes that another server serves.
pub struct McpEnd(Arc<Endpoint>);

impl McpEnd {
    /// Lets requests that run end, within [`HttpOptions::drain`], and then ends the streams on which clients wait, which
    /// never end by themselves. To be called when the server begins to shut down.
    ///
    /// # Cancel safety
    /// Dropped, the streams go on.
    pub async fn end(self) {
        self.0.end().await;
    }
}

/// Serves until `shutdown` resolves; then takes no new connection, lets running requests end, and cancels what is left
/// after [`HttpOptions::drain`].
///
/// # Errors
/// [`McpError::NotLoopback`] where the listener can be reached from other machines and nobody is asked who he is,
/// [`McpError::Io`] where it fails.
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

    let McpRouter { router, endpoint } = router;
    if !endpoint.door.is_keyed() {
        check_loopback(listener.local_addr()?)?;
    }
    let _stop_in_any_case = endpoint.stop.clone().drop_guard();
    let closing = CancellationToken::new();
    let HttpOptions { max_connections, header_timeout, write_timeout, .. } = endpoint.options;
    let bounds = accept::Bounds { max_connections, header_timeout, write_timeout };
    let served = accept::serve(listener, router, bounds, closing.clone());
    let end = async {
        shutdown.await;
        closing.cancel();
        endpoint.end().await;
    };
    tokio::pin!(served, end);
    tokio::select! {
        result = &mut served => {
            result?;
            // All connections are gone, and tasks hold none: they are waited for all the same.
            end.await;
        }
        () = &mut end => {
            let _ = tokio::time::timeout(LAST_WORDS, served).await;
        }
    }
    Ok(())
}

/// Refuses an address that other machines can reach: for a server that asks nobody who they are.
///
/// # Errors
/// [`McpError::NotLoopback`].
pub fn check_loopback(address: SocketAddr) -> Result<(), McpError> {
    if address.ip().to_canonical().is_loopback() { Ok(()) } else { Err(McpError::NotLoopback(address)) }
}

struct Endpoint {
    door: Door,
    service: StreamableHttpService<McpServer, BoundedSessions>,
    sessions: Arc<BoundedSessions>,
    shared: Arc<Shared>,
    admission: Arc<Admission>,
    guesses: Guesses,
    options: HttpOptions,
    /// Requests that are being answered, streams of results included.
    requests: TaskTracker,
    /// Ends everything that is left.
    stop: CancellationToken,
}

async fn at_the_door(State(endpoint): State<Arc<Endpoint>>, request: Request) -> Response {
    endpoint.answer(None, request).await
}

async fn at_a_tenants_door(
    State(endpoint): State<Arc<Endpoint>>,
    Path(tenant): Path<String>,
    request: Request,
) -> Response {
    endpoint.answer(Some(&tenant), request).await
}

async fn protected_resource(State(endpoint): State<Arc<Endpoint>>) -> Response {
    endpoint.door.protected_resource().map_or_else(not_found, |resource| resource.document())
}

fn not_found() -> Response {
    StatusCode::NOT_FOUND.into_response()
}

impl Endpoint {
    async fn end(&self) {
        self.requests.close();
        let drained = tokio::time::sleep(self.options.drain);
        tokio::pin!(drained);
        tokio::select! {
            () = self.requests.wait() => {}
            () = &mut drained => tracing::warn!("cancelled the requests that were still running"),
        }
        self.shared.tasks.end(drained).await;
        // Streams on which a client waits for notifications never end by themselves.
        self.stop.cancel();
    }

    async fn answer(&self, tenant: Option<&str>, request: Request) -> Response {
        let visitor = match self.door.visitor(tenant, request.headers()).await {
            Ok(visitor) => visitor,
            Err(Shut::NotFound) => return not_found(),
            Err(Shut::Refused(refused)) => {
                let too_many = self.counts_as_guess(&refused, request.extensions());
                return too_many.unwrap_or_else(|| refused.response(self.door.protected_resource().as_ref()));
            }
        };
        let admitted = match self.admission.admit(visitor.badge.tenant()) {
            Ok(admitted) => admitted,
            Err(too_many) => {
                let seconds = too_many.retry_after.as_secs().max(1).to_string();
                let text = "the tenant has too many requests at once or in this minute\n";
                return (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, seconds)], text).into_response();
            }
        };
        if let Some(refused) = self.refuses(&visitor, &request) {
            return refused;
        }
        // Streams that clients open by GET to wait for notifications are not waited for at the end.
        let running = (request.method() == Method::POST).then(|| self.requests.token());
        let ends_a_session = request.method() == Method::DELETE;
        let request = match self.whole(request).await {
            Ok(request) => request,
            Err(status) => return status.into_response(),
        };
        let handled = door::on_behalf_of(visitor, self.service.handle(request)).await;
        let mut response = handled.map(Body::new);
        if ends_a_session && response.status() == StatusCode::ACCEPTED {
            // The session is gone, not about to go; the Python client reports "accepted" as a failure.
            *response.status_mut() = StatusCode::NO_CONTENT;
        }
        if !is_event_stream(response.headers()) {
            return response;
        }
        response.map(|body| {
            Body::from_stream(body.into_data_stream().inspect(move |_| {
                // Held, for as long as the stream is, by this closure.
                let _ = (&running, &admitted);
            }))
        })
    }

    /// The answer to one failure too many of those that come from an address. Nobody is locked out by it, since a valid
    /// credential is looked at before.
    fn counts_as_guess(&self, refused: &Refused, extensions: &Extensions) -> Option<Response> {
        // To come without any is how a client learns where to get one.
        if *refused != Refused::Invalid {
            return None;
        }
        let peer = extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
        let seconds = self.guesses.note(peer, tokio::time::Instant::now().into_std())?;
        let text = "too many requests with a wrong credential came from this address\n";
        Some((StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, seconds.to_string())], text).into_response())
    }

    /// The answer to a request that uses another's session, or that begins one too many.
    fn refuses(&self, visitor: &Visitor, request: &Request) -> Option<Response> {
        let headers = request.headers();
        let mut ids = headers.get_all("mcp-session-id").iter();
        if let Some(id) = ids.next() {
            let is_own = id.to_str().is_ok_and(|id| self.sessions.is_of(id, &visitor.badge));
            // The same as for one that never was.
            let answer = (StatusCode::NOT_FOUND, "Not Found: Session not found").into_response();
            return (!is_own || ids.next().is_some()).then_some(answer);
        }
        let begins = request.method() == Method::POST && begins_a_session(headers);
        (begins && self.sessions.is_full(visitor.badge.tenant())).then(|| {
            let text = "too many clients are connected\n";
            (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "5")], text).into_response()
        })
    }

    /// The request with its whole body, read within the bounds.
    async fn whole(&self, request: Request) -> Result<Request<Body>, StatusCode> {
        let (parts, body) = request.into_parts();
        let read = to_bytes(body, self.options.max_body_bytes);
        let bytes: Bytes = match tokio::time::timeout(self.options.body_timeout, read).await {
            Err(_late) => return Err(StatusCode::REQUEST_TIMEOUT),
            Ok(Err(_too_long_or_broken)) => return Err(StatusCode::PAYLOAD_TOO_LARGE),
            Ok(Ok(bytes)) => bytes,
        };
        Ok(Request::from_parts(parts, Body::from(bytes)))
    }
}

/// Whether a POST can only be the `initialize` of a client that speaks a revision with sessions.
fn begins_a_session(headers: &HeaderMap) -> bool {
    headers
        .get("mcp-protocol-version")
        .is_none_or(|version| version.as_bytes() < ProtocolVersion::V_2026_07_28.as_str().as_bytes())
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}
