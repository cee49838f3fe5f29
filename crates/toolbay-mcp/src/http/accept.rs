//! Taking connections: bounded in number, and none held by a client that never finishes its request's head or takes nothing
//! of its answer.

use std::{io, sync::Arc, time::Duration};

use axum::http;
use axum::{Router, extract::ConnectInfo};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto::Builder, graceful::GracefulShutdown},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;
use toolbay_listen::Hurried;
use tower::ServiceExt;

/// How long to wait where no connection can be taken, for want of file handles say.
const PAUSE: Duration = Duration::from_millis(100);

/// Bounds of connections.
pub(super) struct Bounds {
    pub(super) max_connections: usize,
    pub(super) header_timeout: Duration,
    pub(super) write_timeout: Duration,
}

/// Serves `router` until `closing`, then lets the connections end by themselves.
///
/// # Cancel safety
/// Dropping the future closes the listener and all connections.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    bounds: Bounds,
    closing: CancellationToken,
) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(bounds.max_connections.min(Semaphore::MAX_PERMITS)));
    let connections = tokio_util::task::TaskTracker::new();
    let all = CancellationToken::new();
    let _none_outlives_us = all.clone().drop_guard();
    let graceful = GracefulShutdown::new();
    loop {
        // A place first: a connection that waits for one waits in the system's queue and costs us nothing.
        let place = tokio::select! {
            place = Arc::clone(&places).acquire_owned() => place.map_err(io::Error::other)?,
            () = closing.cancelled() => break,
        };
        let (stream, peer) = tokio::select! {
            taken = listener.accept() => match taken {
                Ok(taken) => taken,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
            () = closing.cancelled() => break,
        };
        // Requests are answered in one piece; to wait for more to send with it only makes them late.
        let _ = stream.set_nodelay(true);
        let mut builder = Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(bounds.header_timeout);
        builder.http2().timer(TokioTimer::new()).keep_alive_interval(Some(Duration::from_secs(30)));
        let service = router.clone().map_request(move |mut request: http::Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            request.map(axum::body::Body::new)
        });
        let stream = TokioIo::new(Hurried::new(stream, bounds.write_timeout));
        let connection = builder.serve_connection(stream, TowerToHyperService::new(service)).into_owned();
        let connection = graceful.watch(connection);
        let end = all.clone();
        connections.spawn(async move {
            let _place = place;
            tokio::select! {
                // A client that breaks off is no news.
                _ = connection => {}
                () = end.cancelled() => {}
            }
        });
    }
    drop(listener);
    graceful.shutdown().await;
    connections.close();
    connections.wait().await;
    Ok(())
}
