//! How a long-running command is asked to end. It stands apart since both servers are.

use std::io;

use crate::exit::CliError;

/// Listens from now on; the future resolves when the command is asked to end.
pub(crate) fn end() -> Result<impl Future<Output = ()> + Send, CliError> {
    listen().map_err(|error| CliError::usage(format!("signals cannot be heard: {error}")))
}

/// Listens for Ctrl-C and for the request to end; the future resolves at the first.
#[cfg(unix)]
fn listen() -> io::Result<impl Future<Output = ()> + Send> {
    use tokio::signal::unix::{SignalKind, signal};

    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Listens for Ctrl-C; the future resolves at the first.
#[cfg(not(unix))]
fn listen() -> io::Result<impl Future<Output = ()> + Send> {
    Ok(async {
        if tokio::signal::ctrl_c().await.is_err() {
            // A server that cannot be asked to stop is better than one that stops at once.
            std::future::pending::<()>().await;
        }
    })
}
