//! Moments of rig's run as Toolbay's hook points. What a hook decides and rig cannot do ends the run.

use rig_agent::agent::{
    AgentHook, DispatchAction, DispatchEvent, HookContext, OutcomeAction, OutcomeEvent, RunStart, RunStartAction,
    StepEventKind,
};
use rig_core::{
    completion::{CompletionRequest, CompletionResponse},
    effect::{EffectKind, Outcome},
    error::{ErrorKind as RigKind, ErrorReport},
};
use toolbay_api::{ErrorKind, ToolError, hook::AfterAgentRun};
use toolbay_runtime::{Gate, Stop};

use crate::{Bridge, convert, convert::NoPlace};

/// Toolbay's hooks around a run of a rig agent and its requests to the model:
///
/// | rig | Toolbay |
/// | --- | --- |
/// | `on_run_start` | `before_agent_run` |
/// | `on_dispatch` of a completion | `before_model_call` |
/// | `on_outcome` of a completion | `after_model_call`, `on_reasoning_step`, `on_error`; of one without tool calls also `after_agent_run` |
/// | `on_outcome` of a tool call | a tool hook's stop |
#[derive(Debug, Clone)]
pub struct ToolbayHooks(pub(crate) Bridge);

impl AgentHook for ToolbayHooks {
    fn name(&self) -> Option<String> {
        Some("toolbay".to_owned())
    }

    fn observes(&self, kind: StepEventKind) -> bool {
        matches!(kind, StepEventKind::RunStart | StepEventKind::CompletionDispatch | StepEventKind::ToolDispatch)
    }

    async fn on_run_start(&self, context: &HookContext, event: RunStart<'_>) -> RunStartAction {
        if context.is_streaming() {
            return RunStartAction::Stop(
                "Toolbay's hooks judge whole answers, and this run streams: await the prompt instead".to_owned(),
            );
        }
        let before = convert::messages(event.history.iter().chain([event.prompt]));
        match self.0.run().before_agent_run(before.clone()).await {
            Gate::Stop(stop) => RunStartAction::Stop(in_words(&stop)),
            Gate::Go(after) => match convert::changed_prompt(&before, &after) {
                Ok(None) => RunStartAction::Continue,
                Ok(Some(prompt)) => RunStartAction::Rewrite(prompt),
                Err(no_place) => RunStartAction::Stop(refused(&no_place)),
            },
        }
    }

    async fn on_dispatch(&self, _: &HookContext, event: DispatchEvent<'_>) -> DispatchAction {
        let EffectKind::Completion { request, stream } = event.kind else { return DispatchAction::Proceed };
        match self.ask(step(event.turn), request).await {
            Ok(None) => DispatchAction::Proceed,
            Ok(Some(request)) => DispatchAction::Patch(EffectKind::Completion { request, stream: *stream }),
            Err(reason) => DispatchAction::stop(reason),
        }
    }

    async fn on_outcome(&self, _: &HookContext, event: OutcomeEvent<'_>) -> OutcomeAction {
        match (event.kind, event.outcome) {
            (EffectKind::Completion { .. }, Ok(Outcome::Completion(response))) => {
                match self.judge(step(event.turn), response).await {
                    Ok(None) => OutcomeAction::Proceed,
                    Ok(Some(response)) => OutcomeAction::Replace(Ok(Outcome::Completion(response))),
                    Err(reason) => OutcomeAction::stop(reason),
                }
            }
            (EffectKind::Completion { .. }, Err(report)) => {
                let _ = self.0.run().on_model_error(step(event.turn), &error(report)).await;
                OutcomeAction::Proceed
            }
            (EffectKind::ToolCall { .. }, _) => match self.0.take_stop() {
                Some(stop) => OutcomeAction::stop(in_words(&stop)),
                None => OutcomeAction::Proceed,
            },
            _ => OutcomeAction::Proceed,
        }
    }
}

impl ToolbayHooks {
    /// `before_model_call`.
    async fn ask(&self, step: u32, request: &CompletionRequest) -> Result<Option<CompletionRequest>, String> {
        let before = convert::request(request);
        match self.0.run().before_model_call(step, before.clone()).await {
            Gate::Stop(stop) => Err(in_words(&stop)),
            Gate::Go(after) => {
                convert::changed_request(request, &before, &after).map_err(|no_place| refused(&no_place))
            }
        }
    }

    /// `after_model_call`, `on_reasoning_step` and, for the run's answer, `after_agent_run`.
    async fn judge(&self, step: u32, response: &CompletionResponse) -> Result<Option<CompletionResponse>, String> {
        let run = self.0.run();
        let before = convert::response(response);
        let mut after = match run.after_model_call(step, before.clone()).await {
            Gate::Stop(stop) => return Err(in_words(&stop)),
            Gate::Go(after) => after,
        };
        if let Some(text) = after.reasoning.as_deref().filter(|text| !text.is_empty())
            && let Gate::Stop(stop) = run.on_reasoning_step(step, text).await
        {
            return Err(in_words(&stop));
        }
        if after.tool_calls.is_empty() {
            let (steps, tool_calls) = (step, self.0.calls());
            let end = AfterAgentRun { text: after.text, outcome: "completed".to_owned(), steps, tool_calls };
            after.text = match run.after_agent_run(end).await {
                Gate::Stop(stop) => return Err(in_words(&stop)),
                Gate::Go(text) => text,
            };
        }
        convert::changed_response(response, &before, &after).map_err(|no_place| refused(&no_place))
    }
}

fn step(turn: usize) -> u32 {
    u32::try_from(turn).unwrap_or(u32::MAX)
}

fn in_words(stop: &Stop) -> String {
    format!("stopped by {}: {}", stop.by, stop.reason)
}

fn refused(no_place: &NoPlace) -> String {
    format!("{}, for which rig's run has no place; the run ends", no_place.0)
}

/// A model's error as error hooks see it.
fn error(report: &ErrorReport) -> ToolError {
    let kind = match report.kind {
        RigKind::Http => ErrorKind::Unavailable,
        RigKind::Timeout => ErrorKind::TimedOut,
        RigKind::Cancelled => ErrorKind::Cancelled,
        _ => ErrorKind::Dependency,
    };
    ToolError::new(kind, "the model could not be asked").with_retryable(report.retryable)
}
