//! Why serving ended or never began. What goes wrong inside a call is a result for the client, not one of these.

use std::{io, net::SocketAddr};

/// Serving over MCP ended in an error, or never began.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum McpError {
    /// The address can be reached from other machines.
    #[error(
        "refusing to serve on {0}: it can be reached from other machines, and this server asks nobody who they are; \
         use a loopback address such as 127.0.0.1"
    )]
    NotLoopback(SocketAddr),
    /// The client did not get as far as its first tool request.
    #[error("the client did not begin the conversation as MCP asks for: {0}")]
    Handshake(String),
    /// The socket or the pipe failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
    /// The task that serves the client died.
    #[error("the server's own task failed: {0}")]
    Task(String),
}
