//! `toolbay mcp`: a tenant's tools over MCP on standard input and output, for programs that start their servers
//! themselves. Nothing but the protocol may go to standard output here. What makes plugins of MCP servers is in `servers`.

mod servers;

use clap::Args;

use crate::{
    exit::{CliError, Status},
    host::Host,
    options::{SessionOptions, WatchOptions},
    output, signals,
};

/// Options of `toolbay mcp`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    servers: Option<servers::Servers>,
    #[command(flatten)]
    watch: WatchOptions,
    #[command(flatten)]
    session: SessionOptions,
}

pub(crate) async fn run(options: Options) -> Result<Status, CliError> {
    if let Some(servers) = options.servers {
        return Box::pin(servers::run(servers)).await;
    }
    let host = Host::open(&options.session).await?;
    output::load_report(&host.report);
    let session = host.session_of(&options.session.tenant)?;
    let kept_up = host.keep_up(options.watch, output::sync_report)?;
    let asked_to_end = signals::end()?;
    // Calls in flight are answered while the host stops, so the server goes on until it has.
    let served = tokio::select! {
        served = toolbay::mcp::serve_stdio(session) => served.map_err(CliError::usage),
        () = async {
            asked_to_end.await;
            // First, so that no plugin is waited for since it is asked whether it is well.
            drop(kept_up);
            host.stop().await;
        } => Ok(()),
    };
    host.stop().await;
    served.map(|()| Status::Success)
}
