//! `toolbay agent`: a model at a tenant's tools, shown as it happens.

mod watch;

use std::{fs, path::PathBuf, pin::pin};

use clap::Args;
use toolbay::{
    Agent, AgentConfig, AgentError, AgentReply, Bounds, Model, ScriptedModel, StepperConfig, provider::Provider,
};

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
                             missing key."
)]
pub(crate) struct Options {
    /// What the model is to answer
    prompt: String,
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
    /// Print the run's events as JSON Lines to standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    session: SessionOptions,
}

pub(crate) async fn run(options: Options) -> Result<Status, CliError> {
    let model = model(&options)?;
    let (host, session) = Host::session(&options.session).await?;
    let (watch, shown) = watch::watch(options.json);
    let (bounds, prices) = Config::load(options.session.host.config.as_deref())?.spending()?;
    let stepper = StepperConfig { bounds: with_options(bounds, &options), ..StepperConfig::default() };
    let config = AgentConfig { stepper, prices, ..AgentConfig::default() };
    let agent = Agent::new(model, session.with_observer(watch)).config(config);
    let run = async {
        let reply = agent.run(&options.prompt).await;
        // The last observer: the events end with it.
        drop(agent);
        reply
    };
    let mut shown = pin!(shown);
    let ended = tokio::select! {
        reply = run => match shown.await.or_else(output::unless_closed) {
            Ok(()) => finish(reply, options.json),
            Err(error) => Err(error),
        },
        // The run is dropped, and with it its calls, where nobody reads any more what it does.
        end = &mut shown => end.or_else(output::unless_closed).map(|()| Status::Failed),
    };
    host.stop().await;
    ended
}

/// Prints the answer and says how the run ended.
fn finish(reply: Result<AgentReply, AgentError>, json: bool) -> Result<Status, CliError> {
    match reply {
        Ok(reply) => {
            if !json && !reply.text.is_empty() {
                output::line(&reply.text).or_else(output::unless_closed)?;
            }
            if reply.outcome.is_completed() {
                return Ok(Status::Success);
            }
            let why = reply.exhausted.map(|exhausted| format!(": {exhausted}")).unwrap_or_default();
            output::note(&format!("error: the run did not complete: {}{why}", reply.outcome));
        }
        Err(error) => output::note(&format!("error: {error}")),
    }
    Ok(Status::Failed)
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
