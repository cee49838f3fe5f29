//! `toolbay tools`: a tenant's tools, as a table or as providers and clients want them.

use clap::{Args, ValueEnum};
use toolbay::{ToolInfo, formats};

use crate::{
    exit::{CliError, Status},
    host::Host,
    options::SessionOptions,
    output,
};

/// Options of `toolbay tools`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How to print them
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    session: SessionOptions,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// Names and descriptions, for readers
    Table,
    /// The `tools` of an OpenAI chat completion
    Openai,
    /// The `tools` of an Anthropic message
    Anthropic,
    /// The `tools` of an MCP tools/list result
    Mcp,
    /// All that Toolbay knows of them
    Json,
}

pub(crate) async fn run(options: Options) -> Result<Status, CliError> {
    let (host, session) = Host::session(&options.session).await?;
    let tools = session.tools();
    host.stop().await;
    match options.format {
        Format::Table => table(&tools, options.session.tenant.as_str())?,
        Format::Openai => output::json_pretty(&tools.iter().map(formats::openai).collect::<Vec<_>>())?,
        Format::Anthropic => output::json_pretty(&tools.iter().map(formats::anthropic).collect::<Vec<_>>())?,
        Format::Mcp => output::json_pretty(&tools.iter().map(formats::mcp).collect::<Vec<_>>())?,
        Format::Json => output::json_pretty(&tools.iter().map(formats::full).collect::<Vec<_>>())?,
    }
    Ok(Status::Success)
}

fn table(tools: &[ToolInfo], tenant: &str) -> Result<(), CliError> {
    if tools.is_empty() {
        output::note(&format!("tenant {tenant} has no tools: name a folder of plugins with --tools"));
        return Ok(());
    }
    let mut rows = vec![["TOOL".to_owned(), "PLUGIN".to_owned(), "SCOPE".to_owned(), "DESCRIPTION".to_owned()]];
    rows.extend(tools.iter().map(|tool| {
        let plugin = format!("{} {}", tool.plugin, tool.version);
        [tool.definition.name.to_string(), plugin, tool.scope.to_string(), tool.definition.description.clone()]
    }));
    for line in output::table(&rows) {
        output::line(&line)?;
    }
    Ok(())
}
