//! A run as it happens: for readers on standard error, and with --stream the model's text on standard output; or for programs
//! as JSON Lines on standard output. The run waits for whoever reads.

use std::fmt::Write;

use futures::StreamExt;
use serde_json::Value;
use toolbay::{AgentError, AgentReply, RunEvent, RunStream, StreamOptions, WireResult};

use crate::{exit::CliError, output};

/// Columns of arguments, results and texts within a line for readers.
const SHOWN: usize = 200;

/// How runs are shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Show {
    /// As JSON Lines.
    pub(super) json: bool,
    /// With the model's replies piece by piece.
    pub(super) pieces: bool,
}

impl Show {
    pub(super) fn options(self) -> StreamOptions {
        StreamOptions { deltas: self.pieces, ..StreamOptions::default() }
    }

    /// Shows a run to its end. Where nobody reads standard output any more the run is dropped, and with it its calls.
    pub(super) async fn run(self, mut run: RunStream) -> Result<Result<AgentReply, AgentError>, CliError> {
        let mut in_a_line = false;
        while let Some(event) = run.next().await {
            match &event {
                _ if self.json => output::json_line(&event)?,
                RunEvent::TextDelta { text, .. } => {
                    in_a_line = true;
                    output::piece(text)?;
                }
                RunEvent::ReasoningDelta { .. } | RunEvent::ToolCallDelta { .. } => {}
                event => {
                    if std::mem::take(&mut in_a_line) {
                        output::piece("\n")?;
                    }
                    if let Some(text) = self.for_readers(event) {
                        output::note(&text);
                    }
                }
            }
        }
        Ok(run.reply().await)
    }

    fn for_readers(self, event: &RunEvent) -> Option<String> {
        match event {
            // It stands there already.
            RunEvent::ModelReplied { step, tool_calls, tokens, .. } if self.pieces => {
                let (step, tool_calls, tokens) = (*step, tool_calls.clone(), *tokens);
                for_readers(&RunEvent::ModelReplied { step, text: String::new(), tool_calls, tokens })
            }
            event => for_readers(event),
        }
    }
}

/// The event in words; `None` where there is nothing to say.
fn for_readers(event: &RunEvent) -> Option<String> {
    let short = |text: &str| output::one_line(text, SHOWN);
    let text = match event {
        RunEvent::RunStarted { tenant } => format!("run for tenant {tenant}"),
        RunEvent::StepStarted { step } => format!("step {step}"),
        RunEvent::ModelReplied { text, tool_calls, tokens, .. } => {
            let mut line = format!("  model  {}", short(text));
            if !tool_calls.is_empty() {
                let names: Vec<_> = tool_calls.iter().map(|call| call.name.as_str()).collect();
                let _ = write!(line, "{}wants {}", if text.is_empty() { "" } else { " " }, short(&names.join(", ")));
            }
            if tokens.input + tokens.output > 0 {
                let _ = write!(line, " ({} tokens in, {} out)", tokens.input, tokens.output);
            }
            line
        }
        RunEvent::Reasoning { text, .. } => format!("  reason {}", short(text)),
        RunEvent::HookDecided { decision, .. } if decision == "continue" => return None,
        RunEvent::HookDecided { point, hook, decision, .. } => format!("  hook   {hook} {point}: {}", short(decision)),
        RunEvent::ToolCallStarted { tool, arguments, .. } => {
            format!("  call   {tool} {}", short(&arguments.to_string()))
        }
        RunEvent::ToolCallFinished { tool, result, .. } => format!("  reply  {tool} {}", outcome(result)),
        RunEvent::ApprovalAsked { pending } => format!("  ask    {} ({})", pending.tool, short(&pending.reason)),
        RunEvent::RunResumed { tenant } => format!("run for tenant {tenant} goes on"),
        RunEvent::ToolProgress { done, total, message, .. } => {
            let of = total.map(|total| format!(" of {total}")).unwrap_or_default();
            format!("  at     {done}{of} {}", short(message.as_deref().unwrap_or_default())).trim_end().to_owned()
        }
        RunEvent::RunFinished { outcome, steps, tool_calls, .. } => {
            format!("{outcome} after {steps} steps and {tool_calls} tool calls")
        }
        // A look-up says nothing that the call does not; later versions' events are theirs to word.
        _ => return None,
    };
    Some(text)
}

fn outcome(result: &WireResult) -> String {
    let took = result.metadata.get("duration_ms").and_then(Value::as_f64).map(|ms| format!(" in {ms} ms"));
    let took = took.unwrap_or_default();
    match &result.error {
        None => format!("ok{took}: {}", output::one_line(&result.data.to_string(), SHOWN)),
        Some(error) => format!("{}{took}: {}", error.kind, output::one_line(&error.message, SHOWN)),
    }
}
