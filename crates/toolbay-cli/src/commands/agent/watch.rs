//! A run as it happens: for readers on standard error, or for programs as JSON Lines on standard output. The observer
//! only hands events on, so that a slow terminal does not slow the run.

use std::{fmt::Write, sync::Arc};

use serde_json::Value;
use tokio::sync::{
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    oneshot,
};
use toolbay::{Observer, RunEvent, RunId, WireResult};

use crate::{exit::CliError, output};

/// Columns of arguments, results and texts within a line for readers.
const SHOWN: usize = 200;

/// Gives an observer, a way to wait for what was shown, and the work of showing it, which ends when both are dropped.
pub(super) fn watch(json: bool) -> (Arc<dyn Observer>, Shown, impl Future<Output = Result<(), CliError>>) {
    // Unbounded, since an observer must not wait; the bounds of the run bound its events.
    let (sender, receiver) = unbounded_channel();
    (Arc::new(Watch(sender.clone())), Shown(sender), show(receiver, json))
}

/// What is to be shown, or who waits for it.
enum Told {
    Event(Box<RunEvent>),
    Waiting(oneshot::Sender<()>),
}

struct Watch(UnboundedSender<Told>);

impl Observer for Watch {
    fn observe(&self, _: RunId, event: &RunEvent) {
        let _ = self.0.send(Told::Event(Box::new(event.clone())));
    }
}

/// Waits for what is to be shown.
pub(super) struct Shown(UnboundedSender<Told>);

impl Shown {
    /// Waits until everything is shown that happened before.
    pub(super) async fn flush(&self) {
        let (done, shown) = oneshot::channel();
        if self.0.send(Told::Waiting(done)).is_ok() {
            let _ = shown.await;
        }
    }
}

async fn show(mut events: UnboundedReceiver<Told>, json: bool) -> Result<(), CliError> {
    while let Some(told) = events.recv().await {
        let event = match told {
            Told::Event(event) => *event,
            Told::Waiting(done) => {
                let _ = done.send(());
                continue;
            }
        };
        if json {
            output::json_line(&event)?;
        } else if let Some(text) = for_readers(&event) {
            output::note(&text);
        }
    }
    Ok(())
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
