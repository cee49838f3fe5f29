//! Listening: connections, their bounds and times, and the end.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{ConnectInfo, RawPathParams, Request, State, rejection::RawPathParamsRejection},
    http::Method,
    middleware,
    response::Response,
    routing::{MethodFilter, MethodRouter, any},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::CancellationToken;
use toolbay_listen::{Guesses, Hurried};
use toolbay_runtime::Control;
use tower::ServiceExt;

use crate::{
    app::App,
    envelope::envelope,
    live::LiveRuns,
    metrics::Metrics,
    options::ServerOptions,
    problem::Problem,
    road,
    routes::{self, Mounted},
    table::Endpoint,
    usage::Usage,
};

/// Bytes of the head of a request.
const MAX_HEAD: usize = 32 << 10;
/// Headers of a request.
const MAX_HEADERS: usize = 64;
/// How long nothing is accepted after accepting failed, as where the process has no more files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The API as a router for a server of the caller's own. [`Server`] is the whole thing: this has neither its times for
/// heads and slow readers nor its end, at which streams are told.
pub fn router(control: Control, options: ServerOptions) -> Router {
    Server::new(control, options).router
}

/// The API and whatever else is mounted beside it.
pub struct Server {
    app: Arc<App>,
    router: Router,
}

/// A server that listens.
pub struct BoundServer {
    app: Arc<App>,
    router: Router,
    listener: TcpListener,
}

impl Server {
    /// The API over `control`.
    #[must_use]
    pub fn new(control: Control, options: ServerOptions) -> Self {
        let table: Vec<_> = routes::all(options.open_metrics).into_iter().map(Arc::new).collect();
        let app = Arc::new(App {
            guesses: Guesses::new(options.failures_per_minute),
            usage: Usage::new(&options),
            requests: Arc::new(Semaphore::new(options.max_requests)),
            live: LiveRuns::default(),
            metrics: Metrics::new(),
            table,
            document: OnceLock::new(),
            is_closing: AtomicBool::new(false),
            stop: CancellationToken::new(),
            control,
            options,
        });
        let router = routes_of(&app);
        Self { app, router }
    }

    /// Serves other routes beside the API, which answer for themselves: they have neither its keys nor its shape of errors.
    #[must_use]
    pub fn merge(mut self, other: Router) -> Self {
        self.router = self.router.merge(other);
        self
    }

    /// The runs that its readers watch, for sessions that are opened elsewhere.
    #[must_use]
    pub fn live_runs(&self) -> LiveRuns {
        self.app.live.clone()
    }

    /// Listens at `address`.
    ///
    /// # Errors
    /// What the system says, as where the address is taken.
    pub async fn bind(self, address: SocketAddr) -> io::Result<BoundServer> {
        let listener = TcpListener::bind(address).await?;
        Ok(BoundServer { app: self.app, router: self.router, listener })
    }
}

impl BoundServer {
    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `shutdown` resolves; then says at `/readyz` that it goes, takes no new connection, ends the streams, and
    /// lets running requests end within [`ServerOptions::drain`].
    ///
    /// # Errors
    /// What the system says of the listener. A connection's trouble is its own.
    ///
    /// # Cancel safety
    /// Dropping the future closes the listener; connections end by themselves.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) -> io::Result<()> {
        let Self { app, router, listener } = self;
        let connections = Arc::new(Semaphore::new(app.options.max_connections));
        let graceful = GracefulShutdown::new();
        let hurry = CancellationToken::new();
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let next = async {
                let slot = Arc::clone(&connections).acquire_owned().await.map_err(io::Error::other)?;
                let (stream, peer) = listener.accept().await?;
                Ok::<_, io::Error>((slot, stream, peer))
            };
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                taken = next => match taken {
                    Ok((slot, stream, peer)) => {
                        let connection = Connection { stream, peer, _slot: slot, hurry: hurry.clone() };
                        connection.serve(&app.options, router.clone(), &graceful);
                    }
                    Err(error) => {
                        tracing::warn!(target: "toolbay::server", %error, "a connection was not taken");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
        app.is_closing.store(true, Ordering::Release);
        drop(listener);
        app.stop.cancel();
        if tokio::time::timeout(app.options.drain, graceful.shutdown()).await.is_err() {
            tracing::warn!(target: "toolbay::server", "cancelled the requests that were still running");
        }
        hurry.cancel();
        Ok(())
    }
}

/// A connection that was taken.
struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    _slot: OwnedSemaphorePermit,
    /// Ends it whatever it is doing.
    hurry: CancellationToken,
}

impl Connection {
    fn serve(self, options: &ServerOptions, router: Router, graceful: &GracefulShutdown) {
        let Self { stream, peer, _slot: slot, hurry } = self;
        // Small answers go at once; that an old system refuses to is no reason to refuse the client.
        let _ = stream.set_nodelay(true);
        let service = router.map_request(move |mut request: hyper::Request<hyper::body::Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            request.map(axum::body::Body::new)
        });
        let served = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(options.header_timeout)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .serve_connection(
                TokioIo::new(Hurried::new(stream, options.write_timeout)),
                TowerToHyperService::new(service),
            );
        let served = graceful.watch(served);
        tokio::spawn(async move {
            let _slot = slot;
            tokio::select! {
                served = served => if let Err(error) = served {
                    tracing::debug!(target: "toolbay::server", %peer, %error, "a connection ended");
                },
                () = hurry.cancelled() => {}
            }
        });
    }
}

/// All routes, with what stands around them.
fn routes_of(app: &Arc<App>) -> Router {
    let mut by_path: BTreeMap<&str, (MethodRouter<Arc<App>>, Vec<&str>)> = BTreeMap::new();
    for endpoint in &app.table {
        let Some(filter) = filter_of(&endpoint.method) else { continue };
        let (methods, mut names) = by_path.remove(endpoint.path.as_str()).unwrap_or_default();
        names.push(endpoint.method.as_str());
        by_path.insert(&endpoint.path, (with_endpoint(methods, filter, Arc::clone(endpoint)), names));
    }
    let mut router: Router<Arc<App>> = Router::new();
    for (path, (methods, mut names)) in by_path {
        if names.contains(&"GET") {
            names.push("HEAD");
        }
        let names = names.join(", ");
        router = router.route(path, methods.fallback(async move || Problem::method_not_allowed(&names)));
    }
    for path in ["/plugins/{plugin}", "/plugins/{plugin}/", "/plugins/{plugin}/{*rest}"] {
        router = router.route(path, any(mounted));
    }
    router
        .fallback(|| async { Problem::not_found("nothing is here: see /api/v1/openapi.json for what there is") })
        .layer(middleware::from_fn_with_state(Arc::clone(app), envelope))
        .with_state(Arc::clone(app))
}

fn filter_of(method: &Method) -> Option<MethodFilter> {
    MethodFilter::try_from(method.clone()).ok()
}

/// The words of a path that the caller chose, without their percent signs.
type Params = Result<RawPathParams, RawPathParamsRejection>;

fn with_endpoint(
    methods: MethodRouter<Arc<App>>,
    filter: MethodFilter,
    endpoint: Arc<Endpoint>,
) -> MethodRouter<Arc<App>> {
    methods.on(filter, move |State(app): State<Arc<App>>, params: Params, request: Request| {
        let endpoint = Arc::clone(&endpoint);
        async move {
            let params = params.map_err(|_| Problem::invalid("the path is no UTF-8"));
            let params =
                params.map(|params| params.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect());
            road::travel(app, endpoint, params, request).await
        }
    })
}

async fn mounted(State(app): State<Arc<App>>, request: Request) -> Response {
    routes::serve(Mounted { app, request }).await
}
