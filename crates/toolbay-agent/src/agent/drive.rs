//! One run of an agent: asks the stepper what to do, does it on the session's run, and tells the stepper what came of
//! it. Nothing is spawned, so dropping the future drops all of it.

use std::sync::Arc;

use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use tokio::time::Instant;
use toolbay_api::{
    ErrorKind, Message, ModelRequest, ModelResponse, RunId, ToolCall, ToolDefinition, ToolError, ToolName,
    message::Tokens,
};
use toolbay_runtime::{Gate, PendingApproval, Reply, Run, RunEvent, Stop, ToolInfo};

use super::{
    code::{definition, tools_for_code},
    stream::Outlet,
    suspend::{Before, Decided},
};
use crate::{
    agent::{Agent, ask::Waits},
    bounds::RunOutcome,
    budget::{Exhausted, Spending, day_of},
    code::{CodeReply, is_run_code},
    model::ModelError,
    parts::Parts,
    record,
    results::{READ_RESULT, Results},
    search::{DESCRIBE_TOOL, SEARCH_TOOLS, is_search},
    stepper::{Next, Stepper, StepperError, ToolReply},
};

pub(super) struct Drive<'a> {
    pub(super) agent: &'a Agent,
    pub(super) run: Run,
    /// The waits between requests that are made again.
    pub(super) waits: Waits,
    pub(super) stepper: Stepper,
    model_error: Option<ModelError>,
    /// Tokens that the day's ledger knows of.
    counted: Tokens,
    /// Since when time is not counted there.
    began: Instant,
    /// Since when the run goes on, here.
    pub(super) started: Instant,
    pub(super) before: Before,
    /// Calls of the present step that wait for somebody.
    pub(super) waiting: Vec<PendingApproval>,
    pub(super) decided: Decided,
    /// Where what happens is told.
    pub(super) outlet: Arc<Outlet>,
    /// Where the pieces of the present reply go.
    pub(super) parts: Parts,
    /// When the run's time is up, if it ever is.
    pub(super) ends: Option<Instant>,
    _forget: Option<Forget>,
}

/// Results that were kept for the run go with it, however it ends.
struct Forget {
    results: Results,
    run: RunId,
}

impl Drop for Forget {
    fn drop(&mut self) {
        self.results.forget(self.run);
    }
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
    pub(super) fn new(agent: &'a Agent, run: Run, messages: Vec<Message>, outlet: Arc<Outlet>) -> Self {
        let told = |tool| definition(agent, &run, tool).unwrap_or_else(|| for_the_model(tool));
        let tools = given(agent, &run).into_iter().map(told).collect();
        let names = run.tools().iter().map(|tool| (tool.provider_name.to_string(), tool.definition.name.to_string()));
        let names = names.collect();
        let mut stepper = Stepper::new(agent.stepper_config(), messages, tools).with_qualified_names(names);
        if let Some(tape) = record::tape_of(&run) {
            stepper = stepper.with_tape(tape);
        }
        Self::resumed(agent, run, stepper, Before::default(), Decided::default(), outlet)
    }

    /// Goes on from where a stepper is.
    pub(super) fn resumed(
        agent: &'a Agent,
        run: Run,
        stepper: Stepper,
        before: Before,
        decided: Decided,
        outlet: Arc<Outlet>,
    ) -> Self {
        let forget = agent.config.results.clone().map(|results| Forget { results, run: run.id() });
        let (counted, began) = (stepper.tokens(), Instant::now());
        let ends = began.checked_add(stepper.bounds().max_wall_time.saturating_sub(before.ran));
        let (model_error, waiting, started) = (None, Vec::new(), began);
        let waits = Waits::new(agent.config.retry_seed);
        Self {
            agent,
            run,
            waits,
            stepper,
            model_error,
            counted,
            began,
            started,
            before,
            waiting,
            decided,
            outlet,
            parts: Parts::none(),
            ends,
            _forget: forget,
        }
    }

    /// Runs until the stepper is done or the time is up.
    pub(super) async fn finish(&mut self) -> Result<(), Failure> {
        let time = self.stepper.bounds().max_wall_time;
        let left = time.saturating_sub(self.before.ran);
        // Replies that came in before the time was up are in the stepper already and stay.
        match tokio::time::timeout(left, self.steps()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                self.stepper.stop(RunOutcome::ModelFailed);
                return Err(Failure::Loop(error));
            }
            Err(_elapsed) => {
                let allowed = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
                self.stepper.run_out(RunOutcome::TimeLimit, Exhausted::of_run("milliseconds", allowed, allowed));
            }
        }
        self.tell_the_ledger().await;
        self.model_error.take().map_or(Ok(()), |error| Err(Failure::Model(error)))
    }

    pub(super) fn into_stepper(self) -> Stepper {
        self.stepper
    }

    async fn steps(&mut self) -> Result<(), StepperError> {
        loop {
            match self.stepper.next() {
                Next::CallModel { step, request } => {
                    self.tell_the_ledger().await;
                    self.ask(step, request).await?;
                    self.tell_the_ledger().await;
                }
                Next::RunTools { step, calls } => {
                    self.call(step, calls).await?;
                    if self.waits()? {
                        return Ok(());
                    }
                }
                Next::Done(_) => return Ok(()),
            }
        }
    }

    async fn ask(&mut self, step: u32, request: ModelRequest) -> Result<(), StepperError> {
        if let Err(exhausted) = self.spend(Spending { steps: 1, ..Spending::default() }).await {
            self.stepper.run_out(RunOutcome::DayLimit, exhausted);
            return Ok(());
        }
        self.outlet.has_room().await;
        self.run.observe(RunEvent::StepStarted { step });
        let request = match self.run.before_model_call(step, request).await {
            Gate::Go(request) => request,
            Gate::Stop(stop) => {
                self.stepper.stop(stopped(stop));
                return Ok(());
            }
        };
        self.parts = self.parts(step);
        let response = match self.respond(step, request).await {
            Ok(response) => response,
            Err(error) => return self.failed(step, error).await,
        };
        record::model_answered(&self.run, step, &response);
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
        let response = self.stepper.model_replied(response)?;
        self.replied(step, &response);
        let ModelResponse { text, tool_calls, tokens, .. } = response;
        self.run.observe(RunEvent::ModelReplied { step, text, tool_calls, tokens });
        Ok(())
    }

    /// Spends of the tenant's day, if it has a budget.
    async fn spend(&self, spending: Spending) -> Result<(), Exhausted> {
        let Some(day) = &self.agent.config.day else { return Ok(()) };
        let today = day_of(self.run.clock().now());
        day.ledger.spend(self.run.tenant(), today, &spending, Some(&day.budget)).await
    }

    /// Adds to the tenant's day what is known only afterwards: tokens, cost and time.
    async fn tell_the_ledger(&mut self) {
        let Some(day) = &self.agent.config.day else { return };
        let (known, now) = (self.stepper.tokens(), Instant::now());
        let tokens = Tokens {
            input: known.input.saturating_sub(self.counted.input),
            output: known.output.saturating_sub(self.counted.output),
        };
        let cost_micros = self.agent.price().map_or(0, |price| price.of(tokens));
        let wall_time = now.saturating_duration_since(self.began);
        let spending = Spending { tokens, cost_micros, wall_time, ..Spending::default() };
        let today = day_of(self.run.clock().now());
        // Without a budget nothing can run out; what a ledger could not take is told with the next step.
        if day.ledger.spend(self.run.tenant(), today, &spending, None).await.is_ok() {
            (self.counted, self.began) = (known, now);
        }
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

    async fn call(&mut self, step: u32, calls: Vec<ToolCall>) -> Result<(), StepperError> {
        let most = self.stepper.bounds().max_parallel_tool_calls.max(1);
        let calls = self.as_decided(calls)?;
        for Batch { calls, .. } in self.batches(calls) {
            let calls = self.affordable(calls).await?;
            let calls: Vec<_> = calls.into_iter().map(|call| self.made(step, call)).collect();
            let mut replies = stream::iter(calls).buffer_unordered(most);
            while let Some((call_id, mut made)) = replies.next().await {
                self.note_code(&call_id, &mut made);
                let mut reply = made.reply;
                let stop = reply.stop.take();
                if !reply.waits.is_empty() {
                    self.waiting.append(&mut reply.waits);
                    continue;
                }
                self.offer_what_was_described(&reply);
                let text = self.shown(&reply);
                let text = self.told_of_edit(&call_id, text);
                self.stepper.tool_replied(ToolReply {
                    call_id,
                    text,
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

    /// A call on its way, with what was decided about it.
    fn made(&mut self, step: u32, call: ToolCall) -> BoxFuture<'static, (String, CodeReply)> {
        let (run, id, turn) = (self.run.clone(), call.id.clone(), self.turn(&call));
        let peer = self.outlet.peer(&call.id);
        async move { (id, turn.make(&run, step, call, peer).await) }.boxed()
    }

    /// The calls that the tenant's day has room for; the others are answered.
    async fn affordable(&mut self, calls: Vec<ToolCall>) -> Result<Vec<ToolCall>, StepperError> {
        let mut affordable = Vec::with_capacity(calls.len());
        for call in calls {
            if self.decided.counted.remove(&call.id) {
                affordable.push(call);
                continue;
            }
            let name = self.tool(&call.name).map_or_else(|| call.name.clone(), |tool| tool.definition.name.to_string());
            match self.spend(Spending { tool: Some(name), ..Spending::default() }).await {
                Ok(()) => affordable.push(call),
                Err(exhausted) => self.stepper.tool_replied(ToolReply {
                    call_id: call.id,
                    text: format!("not called: {exhausted}. Go on without it."),
                    is_error: true,
                    needs_repair: false,
                })?,
            }
        }
        Ok(affordable)
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
        // A program's calls are counted when it is over, so nothing may be counted beside it.
        is_run_code(tool.definition.name.as_str())
            || tool.definition.annotations.destructive == Some(true)
            || self.agent.config.exclusive.as_ref().is_some_and(|tools| tools.matches(tool.definition.name.as_str()))
    }

    /// The reply as the model reads it: cut where it is too long and can be cut.
    fn shown(&mut self, reply: &Reply) -> String {
        let text = reply.model_text();
        let (Some(results), Ok(output)) = (&self.agent.config.results, &reply.result) else { return text };
        // Its pages fit by themselves.
        if *reply.tool == *READ_RESULT {
            return text;
        }
        let Some((cut, is_kept)) = results.shortened(self.run.id(), &output.data, &text) else { return text };
        if let Some(read) = self.tool(READ_RESULT).filter(|_| is_kept).map(for_the_model) {
            self.stepper.offer(read);
        }
        cut
    }

    /// A tool that was described can be called from the next request on.
    fn offer_what_was_described(&mut self, reply: &Reply) {
        // In code mode it is called from code.
        let is_offered = *reply.tool == *DESCRIBE_TOOL && self.agent.config.code.is_none();
        let described = reply.result.as_ref().ok().filter(|_| is_offered);
        let name = described.and_then(|output| output.data.get("name")?.as_str());
        if let Some(tool) = name.and_then(|name| self.tool(name)).map(for_the_model) {
            self.stepper.offer(tool);
        }
    }

    /// Whether the model wrote the call wrongly. A tool's own `NotFound` is no such thing, so an unknown tool is told
    /// by the list of tools.
    fn needs_repair(&self, reply: &Reply) -> bool {
        reply.result.as_ref().is_err_and(|error| {
            error.kind == ErrorKind::InvalidArguments
                || (is_run_code(&reply.tool) && matches!(error.kind, ErrorKind::Compile | ErrorKind::Script))
                || (error.kind == ErrorKind::NotFound && self.tool(&reply.tool).is_none())
        })
    }

    pub(super) fn tool(&self, name: &str) -> Option<&ToolInfo> {
        self.run.tools().iter().find(|tool| tool.definition.name == *name || &*tool.provider_name == name)
    }
}

/// The tools that the model gets at first: all, or where there are too many the search and those that are pinned.
fn given<'a>(agent: &Agent, run: &'a Run) -> Vec<&'a ToolInfo> {
    if let Some(tools) = tools_for_code(agent, run) {
        return tools;
    }
    let later = |tool: &&ToolInfo| {
        let name = tool.definition.name.as_str();
        (agent.config.results.is_some() && name == READ_RESULT) || is_run_code(name)
    };
    let tools: Vec<_> = run.tools().iter().filter(|tool| !later(tool)).collect();
    let can = |name: &str| tools.iter().any(|tool| tool.definition.name == *name);
    match &agent.config.search {
        Some(search) if tools.len() > search.over && can(SEARCH_TOOLS) && can(DESCRIBE_TOOL) => {
            let is_given = |name: &str| is_search(name) || search.pinned.matches(name);
            tools.into_iter().filter(|tool| is_given(tool.definition.name.as_str())).collect()
        }
        _ => tools,
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
