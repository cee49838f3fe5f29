//! `toolbay mcp`: a tenant's tools over MCP on standard input and output, for programs that start their servers
//! themselves. Nothing but the protocol may go to standard output here.

use clap::Args;

use crate::{
    exit::{CliError, Status},
    host::Host,
    options::SessionOptions,
    output,
};

/// Options of `toolbay mcp`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    session: SessionOptions,
}

pub(crate) async fn run(options: Options) -> Result<Status, CliError> {
    let host = Host::open(&options.session.host, &options.session.plugins).await?;
    output::load_report(&host.report);
    let session = host.session_of(&options.session.tenant)?;
    toolbay::mcp::serve_stdio(session).await.map_err(CliError::usage)?;
    Ok(Status::Success)
}
