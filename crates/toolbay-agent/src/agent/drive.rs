//! One run of an agent: asks the stepper what to do, does it on the session's run, and tells the stepper what came of
//! it. Nothing is spawned, so dropping the future drops all of it.

use std::time::Duration;

use futures::{StreamExt, stream};
use toolbay_api::{ErrorKind, Message, ModelRequest, ModelResponse, ToolCall, ToolDefinition, ToolError, ToolName};
use toolbay_runtime::{Gate, Reply, Run, RunEvent, Stop, ToolInfo};

use crate::{
    agent::Agent,
    bounds::RunOutcome,
    model::{Model, ModelError},
    stepper::{Next, Stepper, StepperError, ToolReply},
};

/// The wait before the first repeated request; it doubles with each.
const FIRST_RETRY_WAIT: Duration = Duration::from_millis(500);

pub(super) struct Drive<'a> {
    agent: &'a Agent,
    run: Run,
    stepper: Stepper,
    model_error: Option<ModelError>,
}

/// Why a run came to nothing.
pub(super) enum Failure {
    Model(ModelError),
    Loop(StepperError),
}

/// Calls of one step that may run at the same time: one that must run alone, or any number of others.
struct Batch {
    calls: Vec<ToolCall>,
    alone: bool,
}

impl<'a> Drive<'a> {
    pub(super) fn new(agent: &'a Agent, run: Run, messages: Vec<Message>) -> Self {
        let tools = run.tools().iter().map(for_the_model).collect();
        let stepper = Stepper::new(agent.config.stepper.clone(), messages, tools);
        Self { agent, run, stepper, model_error: None }
    }

    /// Runs until the stepper is done or the time is up.
    pub(super) async fn finish(&mut self) -> Result<(), Failure> {
        let time = self.stepper.bounds().max_wall_time;
        // Replies that came in before the time was up are in the stepper already and stay.
        match tokio::time::timeout(time, self.steps()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                self.stepper.stop(RunOutcome::ModelFailed);
                return Err(Failure::Loop(error));
            }
            Err(_elapsed) => self.stepper.stop(RunOutcome::TimeLimit),
        }
        self.model_error.take().map_or(Ok(()), |error| Err(Failure::Model(error)))
    }

    pub(super) fn into_stepper(self) -> Stepper {
        self.stepper
    }

    async fn steps(&mut self) -> Result<(), StepperError> {
        loop {
            match self.stepper.next() {
                Next::CallModel { step, request } => self.ask(step, request).await?,
                Next::RunTools { step, calls } => self.call(step, calls).await?,
                Next::Done(_) => return Ok(()),
            }
        }
    }

    async fn ask(&mut self, step: u32, request: ModelRequest) -> Result<(), StepperError> {
        self.run.observe(RunEvent::StepStarted { step });
        let request = match self.run.before_model_call(step, request).await {
            Gate::Go(request) => request,
            Gate::Stop(stop) => {
                self.stepper.stop(stopped(stop));
                return Ok(());
            }
        };
        let response = match self.respond(request).await {
            Ok(response) => response,
            Err(error) => return self.failed(step, error).await,
        };
        // What the provider counted, whatever hooks make of the reply.
        let tokens = response.tokens;
        let response = match self.run.after_model_call(step, response).await {
            Gate::Go(response) => ModelResponse { tokens, ..response },
            Gate::Stop(stop) => {
                self.stepper.spend(tokens);
                self.stepper.stop(stopped(stop));
                return Ok(());
            }
        };
        if let Some(text) = response.reasoning.as_deref().filter(|text| !text.is_empty()) {
            self.run.observe(RunEvent::Reasoning { step, text: text.to_owned() });
            if let Gate::Stop(stop) = self.run.on_reasoning_step(step, text).await {
                self.stepper.spend(tokens);
                self.stepper.stop(stopped(stop));
                return Ok(());
            }
        }
        let ModelResponse { text, tool_calls, tokens, .. } = self.stepper.model_replied(response)?;
        self.run.observe(RunEvent::ModelReplied { step, text, tool_calls, tokens });
        Ok(())
    }

    async fn failed(&mut self, step: u32, error: ModelError) -> Result<(), StepperError> {
        {
            // A block of its own: the reference must not live on over an await.
            let source = std::error::Error::source(&error);
            tracing::warn!(step, kind = ?error.kind, message = error.message, source, "the model could not be asked");
        }
        let feedback = self.run.on_model_error(step, &ToolError::from(&error)).await;
        if feedback.is_none() {
            self.model_error = Some(error);
        }
        self.stepper.model_failed(feedback)
    }

    /// Asks the model, again after failures that can pass.
    async fn respond(&self, request: ModelRequest) -> Result<ModelResponse, ModelError> {
        let config = &self.agent.config;
        let mut wait = FIRST_RETRY_WAIT;
        for _ in 0..config.model_retries {
            match self.agent.model.respond(request.clone()).await {
                Err(error) if error.retryable => {
                    let asked = error.retry_after().unwrap_or(wait);
                    if asked > config.max_retry_wait {
                        return Err(error);
                    }
                    tokio::time::sleep(asked).await;
                    wait = wait.saturating_mul(2).min(config.max_retry_wait);
                }
                other => return other,
            }
        }
        self.agent.model.respond(request).await
    }

    async fn call(&mut self, step: u32, calls: Vec<ToolCall>) -> Result<(), StepperError> {
        let most = self.stepper.bounds().max_parallel_tool_calls.max(1);
        for Batch { calls, .. } in self.batches(calls) {
            let run = self.run.clone();
            let mut replies = stream::iter(calls.into_iter().map(|call| {
                let (run, id) = (run.clone(), call.id.clone());
                async move { (id, run.call(step, call).await) }
            }))
            .buffer_unordered(most);
            while let Some((call_id, mut reply)) = replies.next().await {
                let stop = reply.stop.take();
                self.stepper.tool_replied(ToolReply {
                    call_id,
                    text: reply.model_text(),
                    is_error: reply.is_error(),
                    needs_repair: self.needs_repair(&reply),
                })?;
                if let Some(stop) = stop {
                    // Calls in flight are dropped: the hook said that the run ends, not that it ends later.
                    self.stepper.stop(stopped(stop));
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The calls in their order, cut where one must run alone.
    fn batches(&self, calls: Vec<ToolCall>) -> Vec<Batch> {
        let mut batches: Vec<Batch> = Vec::new();
        for call in calls {
            let alone = self.tool(&call.name).is_some_and(|tool| self.runs_alone(tool));
            match batches.last_mut() {
                Some(batch) if !alone && !batch.alone => batch.calls.push(call),
                _ => batches.push(Batch { calls: vec![call], alone }),
            }
        }
        batches
    }

    fn runs_alone(&self, tool: &ToolInfo) -> bool {
        tool.definition.annotations.destructive == Some(true)
            || self.agent.config.exclusive.as_ref().is_some_and(|tools| tools.matches(tool.definition.name.as_str()))
    }

    /// Whether the model wrote the call wrongly. A tool's own `NotFound` is no such thing, so an unknown tool is told
    /// by the list of tools.
    fn needs_repair(&self, reply: &Reply) -> bool {
        reply.result.as_ref().is_err_and(|error| {
            error.kind == ErrorKind::InvalidArguments
                || (error.kind == ErrorKind::NotFound && self.tool(&reply.tool).is_none())
        })
    }

    fn tool(&self, name: &str) -> Option<&ToolInfo> {
        self.run.tools().iter().find(|tool| tool.definition.name == *name || &*tool.provider_name == name)
    }
}

/// A hook's stop as an outcome.
pub(super) fn stopped(stop: Stop) -> RunOutcome {
    RunOutcome::Stopped { by: stop.by.to_string(), reason: stop.reason }
}

/// The definition under the name that providers accept.
fn for_the_model(tool: &ToolInfo) -> ToolDefinition {
    let mut definition = ToolDefinition::clone(&tool.definition);
    if let Ok(name) = ToolName::new(&tool.provider_name) {
        definition.name = name;
    }
    definition
}
