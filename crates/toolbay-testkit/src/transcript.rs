//! Transcripts: what happened in runs, one short line an event, without ids and times, fit for snapshots.

use std::{
    fmt,
    sync::{Mutex, PoisonError},
};

use toolbay_api::{RunId, Scope};
use toolbay_runtime::{Observer, RunEvent};

/// An observer that writes a line for each event. `to_string()` gives them all.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use toolbay_api::Scope;
/// use toolbay_testkit::{Transcript, scripted_tools};
///
/// let bay = toolbay_runtime::Toolbay::builder().build()?;
/// bay.register(Scope::Global, scripted_tools()?).await?;
/// let transcript = Arc::new(Transcript::default());
/// let session = bay.session("acme")?.with_observer(transcript.clone());
/// session.call("test.fail", serde_json::json!({})).await;
/// assert_eq!(transcript.to_string(), "lookup  global/test.fail\ncall    test.fail {}\nreply   Script: told to fail\n");
/// # Ok(()) }
/// ```
#[derive(Debug, Default)]
pub struct Transcript(Mutex<Vec<String>>);

impl Transcript {
    /// Adds a line of the test's own.
    pub fn note(&self, line: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line.into());
    }
}

impl fmt::Display for Transcript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

impl Observer for Transcript {
    fn observe(&self, _: RunId, event: &RunEvent) {
        let line = match event {
            RunEvent::RunStarted { tenant } => format!("run     {tenant}"),
            RunEvent::StepStarted { step } => format!("step    {step}"),
            RunEvent::ModelReplied { text, tool_calls, .. } => {
                let calls: Vec<_> = tool_calls.iter().map(|call| format!("{} {}", call.name, call.arguments)).collect();
                let text = if text.is_empty() { String::new() } else { format!("{text:?} ") };
                format!("model   {text}{}", calls.join(", ")).trim_end().to_owned()
            }
            RunEvent::Reasoning { text, .. } => format!("reason  {text:?}"),
            RunEvent::ToolLookedUp { tool, scope, served_by, .. } => {
                let by = served_by.as_ref().map(|own| format!(" by {own}")).unwrap_or_default();
                match scope {
                    Scope::Global => format!("lookup  global/{tool}{by}"),
                    Scope::Tenant(tenant) => format!("lookup  {tenant}/{tool}{by}"),
                }
            }
            RunEvent::HookDecided { point, hook, decision, .. } => format!("hook    {hook} {point} -> {decision}"),
            RunEvent::ToolCallStarted { tool, arguments, .. } => format!("call    {tool} {arguments}"),
            RunEvent::ToolCallFinished { result, .. } => match &result.error {
                None => format!("reply   {}", result.data),
                Some(error) => format!("reply   {}: {}", error.kind, error.message),
            },
            RunEvent::ApprovalAsked { pending } => {
                format!("ask     {} {} ({})", pending.tool, pending.arguments, pending.reason)
            }
            RunEvent::RunSuspended { approvals, .. } => format!("waits   {}", approvals.len()),
            RunEvent::RunResumed { tenant } => format!("resume  {tenant}"),
            RunEvent::RunFinished { outcome, text, .. } => format!("end     {outcome} {text:?}"),
            other => format!("{other:?}"),
        };
        self.note(line);
    }
}
