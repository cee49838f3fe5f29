//! `toolbay agent`: a model at a tenant's tools, shown as it happens.

mod approve;
mod record;
mod show;

use std::{fs, path::PathBuf};

pub(super) use approve::{in_words, now_ms};

use clap::Args;
use toolbay::{
    Agent, AgentConfig, AgentError, AgentReply, Bounds, CodeMode, DayBudget, DayLimits, Message, Model, PermissionSet,
    Scope, ScriptedModel, StepperConfig, code::RUN_CODE, plugin::NativePlugin, provider::Provider,
};

use approve::{Approve, Desk, Given};
use show::Show;
use uuid::Uuid;

use crate::{
    config::Config,
    exit::{CliError, Status},
    host::Host,
    options::SessionOptions,
    output,
};

/// What is asked where the user names no model.
const DEFAULT_MODEL: &str = "gpt-4o-mini";

/// Options of `toolbay agent`.
#[derive(Debug, Args)]
#[command(
    after_long_help = "Exit status: 0 the run completed, 1 it ended otherwise, 2 usage or load error, such as a \
                             missing key, 3 it waits for approval."
)]
pub(crate) struct Options {
    /// What the model is to answer
    #[arg(required_unless_present = "resume")]
    prompt: Option<String>,
    /// The model: a name that tells its provider, such as gpt-4o-mini or claude-sonnet-4-5, or PROVIDER:NAME, such as
    /// ollama:llama3; a provider that there is not is answered with the list of those that there are.
    ///
    /// The key is taken from the provider's usual variable, such as OPENAI_API_KEY; another address from
    /// OPENAI_BASE_URL, ANTHROPIC_BASE_URL, GEMINI_BASE_URL or OLLAMA_BASE_URL.
    #[arg(long, value_name = "ID", env = "TOOLBAY_MODEL", hide_env_values = true, default_value = DEFAULT_MODEL)]
    model: String,
    /// Replay the model's replies from this file instead: JSON Lines of {"text": ...} or {"tool_calls": [{"name": ...,
    /// "arguments": {...}}]}
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// The most requests to the model [default: 32]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_steps: Option<u32>,
    /// The most tool calls [default: 128]
    #[arg(long, value_name = "N")]
    max_tool_calls: Option<u32>,
    /// Have the model write programs that call the tools, in the place of calling them one by one
    #[arg(long)]
    code_mode: bool,
    /// Who approves calls that need it: those of destructive tools, and what hooks and the configuration file ask for
    ///
    /// Without it: ask, where standard input is a terminal; else suspend, where the command works at a database; else never.
    #[arg(long, value_enum, value_name = "HOW")]
    approve: Option<Approve>,
    /// Go on with this run, which waits in the database
    #[arg(long, value_name = "RUN", conflicts_with = "prompt")]
    resume: Option<Uuid>,
    /// Decide about a call of the run that waits: ID=approve, ID=reject:WHY or ID=edit:JSON; may be repeated
    #[arg(long, value_name = "DECISION", requires = "resume")]
    decide: Vec<Given>,
    /// Print the model's text as it comes; with --json, its replies piece by piece
    #[arg(long)]
    stream: bool,
    /// Record the run in this new file, for `toolbay replay`.
    ///
    /// It holds the whole conversation, but no secret that a plugin has read and no argument that a tool's parameters call
    /// writeOnly.
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    record: Option<PathBuf>,
    /// Print the run's events as JSON Lines to standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    session: SessionOptions,
}

pub(crate) async fn run(options: Options) -> Result<Status, CliError> {
    let model = model(&options)?;
    let (host, session) = Host::session(&options.session).await?;
    let approve = Approve::or_usual(options.approve, host.suspended().is_some())?;
    let file = Config::load(options.session.host.config.as_deref())?;
    let ((bounds, prices), approval) = (file.spending()?, file.approval(true)?);
    let (day, tool_retries) = file.over_runs()?;
    let day = day.map(|budget| of_the_day(budget, &host)).transpose()?;
    let stepper = StepperConfig { bounds: with_options(bounds, &options), ..StepperConfig::default() };
    let code = code_mode(&host, &file, options.code_mode).await?;
    let config = AgentConfig { stepper, prices, approval, code, day, tool_retries, ..AgentConfig::default() };
    // Last of all that can fail: the file would be there, and refused the next time.
    let (session, recording) = record::into(session, options.record.as_deref())?;
    let agent = Agent::new(model, session).config(config);
    let show = Show { json: options.json, pieces: options.stream };
    let desk = Desk { agent: &agent, host: &host, tenant: &options.session.tenant, approve, show };
    let ended = Box::pin(async {
        let reply = match (&options.prompt, options.resume) {
            (_, Some(run)) => desk.resume(run, &options.decide).await?,
            (prompt, None) => {
                let messages = vec![Message::user(prompt.as_deref().unwrap_or_default())];
                show.run(agent.stream_messages(messages, show.options())).await?
            }
        };
        finish(desk.settle(reply).await?, show)
    });
    let ended = match ended.await {
        // The run was dropped since nobody reads any more what it does.
        Err(CliError::Closed) => Ok(Status::Failed),
        ended => ended,
    };
    let recorded = recording.finish().await;
    host.stop().await;
    recorded.and(ended)
}

/// Prints the answer and says how the run ended.
fn finish(reply: Result<AgentReply, AgentError>, show: Show) -> Result<Status, CliError> {
    match reply {
        Ok(reply) => {
            if !show.json && !show.pieces && !reply.text.is_empty() {
                output::line(&reply.text).or_else(output::unless_closed)?;
            }
            if reply.outcome.is_completed() {
                return Ok(Status::Success);
            }
            if reply.suspended.is_some() {
                return Ok(Status::Waits);
            }
            let why = reply.exhausted.map(|exhausted| format!(": {exhausted}")).unwrap_or_default();
            output::note(&format!("error: the run did not complete: {}{why}", reply.outcome));
        }
        Err(error) => output::note(&format!("error: {error}")),
    }
    Ok(Status::Failed)
}

/// The budget of the tenant's day, which only a database remembers until the next command.
fn of_the_day(budget: DayBudget, host: &Host) -> Result<DayLimits, CliError> {
    let ledger = host.ledger();
    let missing = || CliError::usage("--config: budget.day needs a database that keeps it: give --database or --data");
    Ok(DayLimits { budget, ledger: ledger.ok_or_else(missing)? })
}

/// Code mode, where it is wanted: its tool is registered for this command alone.
async fn code_mode(host: &Host, file: &Config, wanted: bool) -> Result<Option<CodeMode>, CliError> {
    let Some(settings) = file.code_mode(wanted)? else { return Ok(None) };
    let (mode, run_code) = toolbay::code::code_mode(settings);
    let usage = |error: String| CliError::usage(format!("--code-mode: {error}"));
    let about = "Runs programs that a model writes";
    let plugin =
        NativePlugin::new(RUN_CODE, env!("CARGO_PKG_VERSION"), about).map_err(|error| usage(error.to_string()))?;
    // It asks for what its programs can have beside tools.
    let plugin = plugin.tool(run_code).with(|manifest| {
        manifest.permissions = PermissionSet::parse(["clock", "random"]).unwrap_or_default();
    });
    host.toolbay.register(Scope::Global, plugin).await.map_err(|error| usage(error.to_string()))?;
    Ok(Some(mode))
}

/// The bounds of the file, with what the options say in their place.
fn with_options(bounds: Bounds, options: &Options) -> Bounds {
    Bounds {
        max_steps: options.max_steps.unwrap_or(bounds.max_steps),
        max_tool_calls: options.max_tool_calls.unwrap_or(bounds.max_tool_calls),
        ..bounds
    }
}

fn model(options: &Options) -> Result<Box<dyn Model>, CliError> {
    if let Some(path) = &options.script {
        let shown = path.display();
        let text = fs::read_to_string(path).map_err(|error| CliError::usage(format!("--script: {shown}: {error}")))?;
        let model = ScriptedModel::from_json_lines(&text);
        let model = model.map_err(|error| CliError::usage(format!("--script: {shown}: {error}")))?;
        return Ok(Box::new(model));
    }
    match Provider::from_env(&options.model) {
        Ok(provider) => Ok(Box::new(provider)),
        Err(error) => Err(CliError::usage(format!(
            "{}; or name another model with --model, or replay one with --script",
            error.message
        ))),
    }
}
