//! One client over standard input and output, for programs that start their MCP servers themselves.

use rmcp::{
    RoleServer,
    service::{QuitReason, ServerInitializeError, serve_server},
    transport::{async_rw::AsyncRwTransport, io::stdio_pipes},
};
use toolbay_runtime::Session;

use crate::{McpError, McpServer, ServerOptions};

/// How long tasks may go on when their client is gone. Nobody can ask for their results any more.
const PATIENCE: std::time::Duration = std::time::Duration::ZERO;

/// Serves `session` on standard input and output until standard input is closed.
///
/// Standard output carries the protocol and nothing else: whoever calls this keeps logs on standard error. Calls that
/// run when the input closes get five seconds to answer and are cancelled then. A line of more than 16 MiB is dropped
/// and logged; smaller ones that break a limit of the tenant are answered with that limit.
///
/// # Errors
/// [`McpError::Handshake`] where the client's first message is none that MCP allows there, [`McpError::Io`] where the
/// pipe breaks. A client that goes away before its first message is no error.
///
/// # Cancel safety
/// Dropping the future ends the conversation and cancels its calls.
pub async fn serve_stdio(session: Session) -> Result<(), McpError> {
    serve_stdio_with(session, ServerOptions::default()).await
}

/// As [`serve_stdio`], within other bounds.
///
/// # Errors
/// As [`serve_stdio`].
///
/// # Cancel safety
/// As [`serve_stdio`].
pub async fn serve_stdio_with(session: Session, options: ServerOptions) -> Result<(), McpError> {
    let server = McpServer::with_options(session, options);
    let tasks = server.tasks();
    let served = serve(server).await;
    // Calls that are cancelled are put on record before the program ends.
    tasks.end(tokio::time::sleep(PATIENCE)).await;
    served
}

async fn serve(server: McpServer) -> Result<(), McpError> {
    let (input, output) = stdio_pipes();
    let transport = AsyncRwTransport::<RoleServer, _, _>::new(input, output);
    let running = match serve_server(server, transport).await {
        Ok(running) => running,
        Err(ServerInitializeError::ConnectionClosed(_)) => return Ok(()),
        Err(ServerInitializeError::TransportError { error, .. }) => {
            return Err(McpError::Io(std::io::Error::other(error.to_string())));
        }
        Err(error) => return Err(McpError::Handshake(error.to_string())),
    };
    match running.waiting().await {
        Ok(QuitReason::JoinError(error)) | Err(error) => Err(McpError::Task(error.to_string())),
        Ok(_) => Ok(()),
    }
}
