//! `toolbay tools`: a tenant's tools, as a table or as providers and clients want them.

use clap::{Args, ValueEnum};
use serde_json::Value;
use toolbay::{
    ToolInfo, formats,
    lowering::{Dialect, Lowered, lower},
};

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
    /// With `--format openai`: in strict mode, for each tool that this mode has words for
    #[arg(long)]
    strict: bool,
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
    /// The `functionDeclarations` of a Gemini request
    Gemini,
    /// The `tools` of an MCP tools/list result
    Mcp,
    /// All that Toolbay knows of them
    Json,
}

pub(crate) async fn run(options: Options) -> Result<Status, CliError> {
    let (host, session) = Host::session(&options.session).await?;
    let tools = session.tools();
    host.stop().await;
    if options.strict && !matches!(options.format, Format::Openai) {
        return Err(CliError::usage("--strict is for --format openai: the other providers have no such mode"));
    }
    let lowered = |dialect, entry: fn(&ToolInfo, &Lowered) -> Value| {
        let entries = tools.iter().map(|tool| {
            let lowered = lower(&tool.definition.parameters, dialect);
            for change in &lowered.changes {
                output::note(&format!("{}: {change}", tool.definition.name));
            }
            entry(tool, &lowered)
        });
        output::json_pretty(&entries.collect::<Vec<_>>())
    };
    let openai = |tool: &ToolInfo, lowered: &Lowered| formats::openai_as(tool, lowered.schema.clone(), lowered.strict);
    match options.format {
        Format::Table => table(&tools, options.session.tenant.as_str())?,
        Format::Openai if options.strict => lowered(Dialect::OpenAiStrict, openai)?,
        Format::Openai => lowered(Dialect::OpenAi, openai)?,
        Format::Anthropic => {
            lowered(Dialect::Anthropic, |tool, lowered| formats::anthropic_as(tool, lowered.schema.clone()))?
        }
        Format::Gemini => lowered(Dialect::Gemini, |tool, lowered| formats::gemini_as(tool, lowered.schema.clone()))?,
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
