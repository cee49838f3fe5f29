//! `toolbay tools`: a tenant's tools, as a table or as providers and clients want them.

mod formats;

use clap::{Args, ValueEnum};
use toolbay::ToolInfo;
use unicode_width::UnicodeWidthStr;

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
    let (_, session) = Host::session(&options.session).await?;
    let tools = session.tools();
    match options.format {
        Format::Table => table(&tools, options.session.tenant.as_str())?,
        Format::Openai => output::json_pretty(&tools.iter().map(formats::openai).collect::<Vec<_>>())?,
        Format::Anthropic => output::json_pretty(&tools.iter().map(formats::anthropic).collect::<Vec<_>>())?,
        Format::Mcp => output::json_pretty(&tools.iter().map(formats::mcp).collect::<Vec<_>>())?,
        Format::Json => output::json_pretty(&tools.iter().map(formats::json).collect::<Vec<_>>())?,
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
    let widest = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max();
    let widths = [0, 1, 2].map(|column| widest(column).unwrap_or_default());
    let before: usize = widths.iter().map(|width| width + 2).sum();
    // Into a pipe goes the whole description; a terminal too narrow for any shows a little of it all the same.
    let left = output::terminal_width().map_or(usize::MAX, |width| width.saturating_sub(before).max(20));
    for [name, plugin, scope, description] in &rows {
        let cells = [name, plugin, scope].into_iter().zip(widths);
        let cells: String = cells.map(|(cell, width)| padded(cell, width)).collect();
        output::line(format!("{cells}{}", output::one_line(description, left)).trim_end())?;
    }
    Ok(())
}

fn padded(cell: &str, width: usize) -> String {
    format!("{cell}{}", " ".repeat((width + 2).saturating_sub(cell.width())))
}
