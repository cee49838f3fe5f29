//! `toolbay code`: runs a program in the sandbox that plugins run in, with the tenant's tools as functions.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::{Map, Value};
use toolbay::{LoadError, Scope, ToolError, WireResult};

use crate::{
    exit::{CliError, Status},
    host::Host,
    options::SessionOptions,
    output,
};

/// Programs longer than this are not read; the host's own limit is far lower.
const MAX_INPUT_BYTES: u64 = 16 << 20;

/// Options of `toolbay code`.
#[derive(Debug, Args)]
#[command(
    after_long_help = "A tool is called by its name, with a map of its arguments: calculator.add(#{ a: 2, b: 3 }). \
                             The program's last value is the result; the wire result is printed on one line.\n\n\
                             Exit status: 0 the program succeeded; 1 it failed or does not compile; 2 usage or load error."
)]
pub(crate) struct Options {
    /// The program, a Rhai script, or - for standard input
    file: PathBuf,
    /// As it is: the wire result is always printed as JSON
    #[arg(long, hide = true)]
    json: bool,
    #[command(flatten)]
    session: SessionOptions,
}

pub(crate) async fn run(options: Options) -> Result<Status, CliError> {
    let source = source(&options.file)?;
    let (host, session) = Host::session(&options.session).await?;
    let scope = Scope::Tenant(options.session.tenant.clone());
    let wire = match source {
        Err(broken) => failed(&broken),
        Ok(source) => match host.toolbay.load_program(scope, "program.rhai", &source).await {
            Err(error) => failed(&error),
            Ok(_) => {
                let reply = session.call("code", Value::Object(Map::new())).await;
                if let Some(cause) = reply.result.as_ref().err().and_then(ToolError::operator_detail) {
                    output::note(&format!("cause: {cause}"));
                }
                reply.to_wire()
            }
        },
    };
    host.stop().await;
    let success = wire.success;
    output::json_line(&wire).or_else(output::unless_closed)?;
    Ok(if success { Status::Success } else { Status::Failed })
}

/// The wire result of a program that was never begun.
fn failed(error: &LoadError) -> WireResult {
    let message = error.to_string();
    let kind = format!("{}: ", error.kind);
    let message = message.strip_prefix(&kind).unwrap_or(&message).to_owned();
    WireResult::new(Err(ToolError::new(error.kind, message)), Map::new())
}

/// The program's text; the inner error is the program's own fault.
fn source(path: &Path) -> Result<Result<String, LoadError>, CliError> {
    let unreadable = |error: io::Error| CliError::usage(format!("{}: {error}", path.display()));
    let mut bytes = Vec::new();
    if path.as_os_str() == "-" {
        io::stdin().lock().take(MAX_INPUT_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    } else {
        fs::File::open(path).and_then(|file| file.take(MAX_INPUT_BYTES).read_to_end(&mut bytes)).map_err(unreadable)?;
    }
    Ok(String::from_utf8(bytes)
        .map_err(|_| LoadError::new(toolbay::ErrorKind::Compile, "is not UTF-8 text").in_file("program.rhai")))
}
