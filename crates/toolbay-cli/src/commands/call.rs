//! `toolbay call`: one tool call down the whole road, or a batch of them.

mod batch;

use std::{
    error::Error,
    fs,
    io::{self, Read},
    path::PathBuf,
};

use clap::{ArgGroup, Args};
use serde_json::Value;
use toolbay::{ErrorKind, Reply, ToolError};

use crate::{
    exit::{CliError, Status},
    host::Host,
    options::SessionOptions,
    output,
};

/// Arguments longer than this are refused before they are read; the tenant's own limit is far lower.
const MAX_INPUT_BYTES: u64 = 16 << 20;

/// Options of `toolbay call`.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("what").args(["tool", "batch"]).required(true)))]
#[command(override_usage = "toolbay call [OPTIONS] <TOOL>\n       toolbay call [OPTIONS] --batch <FILE|->")]
#[command(after_long_help = "Exit status: 0 the tool succeeded, or the whole batch was worked off whatever its calls \
                             came to; 1 the tool failed; 2 usage or load error.")]
pub(crate) struct Options {
    /// The tool, as `toolbay tools` names it
    tool: Option<String>,
    /// The arguments: JSON, @FILE to read them from a file, or - for standard input
    #[arg(long, value_name = "JSON|@FILE|-", default_value = "{}", allow_hyphen_values = true)]
    args: String,
    /// Make the calls of a file of JSON Lines, or of standard input for -, in order.
    ///
    /// A line is {"tool": ..., "args": {...}, "tenant": ...}; without "args" there are none, without "tenant" it is
    /// that of --tenant. For each line, blank ones apart, one line with the call's wire result is printed as soon as
    /// it is done; a line that is not understood gives a result with the kind InvalidArguments.
    #[arg(long, value_name = "FILE|-", conflicts_with = "args")]
    batch: Option<PathBuf>,
    /// Print the wire result, as every interface gives it, on one line; a batch always does
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    session: SessionOptions,
}

pub(crate) async fn run(options: Options) -> Result<Status, CliError> {
    let Some(tool) = &options.tool else {
        let file = options.batch.unwrap_or_default();
        let input = batch::open(&file)?;
        let (host, _) = Host::session(&options.session).await?;
        let done = batch::run(&host, &options.session.tenant, input).await;
        host.stop().await;
        return done;
    };
    let arguments = arguments(&options.args)?;
    let (host, session) = Host::session(&options.session).await?;
    let reply = session.call(tool, arguments).await;
    let printed = if options.json { output::json_line(&reply.to_wire()) } else { print(&reply) };
    if let Err(error) = &reply.result
        && error.kind == ErrorKind::NotFound
        && let Some(failed) = host.failed_plugin_of(tool)
    {
        output::note(&format!("hint: {} did not load, see above: `toolbay check` tells why", failed.origin.display()));
    }
    host.stop().await;
    // The call was made whether or not anybody reads of it.
    printed.or_else(output::unless_closed)?;
    Ok(if reply.is_error() { Status::Failed } else { Status::Success })
}

/// The arguments as the user gave them.
fn arguments(given: &str) -> Result<Value, CliError> {
    let (text, place) = if given == "-" {
        (read("standard input", io::stdin().lock())?, "standard input")
    } else if let Some(path) = given.strip_prefix('@') {
        let file = fs::File::open(path).map_err(|error| CliError::usage(format!("--args: {path}: {error}")))?;
        (read(path, file)?, path)
    } else {
        (given.to_owned(), "the text given")
    };
    serde_json::from_str(&text).map_err(|error| {
        CliError::usage(format!(
            "--args: {place} is not JSON: {error}; write an object such as '{{\"name\": \"Ada\"}}'"
        ))
    })
}

fn read(place: &str, input: impl Read) -> Result<String, CliError> {
    let mut text = String::new();
    let read = input.take(MAX_INPUT_BYTES + 1).read_to_string(&mut text);
    read.map_err(|error| CliError::usage(format!("--args: {place} cannot be read: {error}")))?;
    if text.len() as u64 > MAX_INPUT_BYTES {
        return Err(CliError::usage(format!("--args: {place} has more than {MAX_INPUT_BYTES} bytes")));
    }
    Ok(text)
}

/// Prints a reply for readers: data on standard output, an error with all that its author wants to know on standard
/// error.
fn print(reply: &Reply) -> Result<(), CliError> {
    match &reply.result {
        Ok(output) => match &output.data {
            Value::String(text) => output::line(text)?,
            data => output::json_pretty(data)?,
        },
        Err(error) => print_error(error),
    }
    if let Some(feedback) = &reply.feedback {
        output::note(&format!("feedback: {feedback}"));
    }
    if let Some(stop) = &reply.stop {
        output::note(&format!("stopped by {}: {}", stop.by, stop.reason));
    }
    Ok(())
}

fn print_error(error: &ToolError) {
    output::note(&format!("error: {error}"));
    if !error.details.is_null() {
        output::note(&format!("details: {:#}", error.details));
    }
    let mut cause = error.operator_detail().map(|cause| cause as &dyn Error);
    while let Some(error) = cause {
        output::note(&format!("cause: {error}"));
        cause = error.source();
    }
}
