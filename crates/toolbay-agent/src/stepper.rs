//! The agent loop as a value: no I/O, no clock, no async.
//!
//! A driver asks [`Stepper::next`] what to do, does it, and tells the stepper what came of it. [`Agent`](crate::Agent)
//! is one driver; a host with a loop of its own is another. The value serialises, so that a run can be put away
//! between two steps and taken up again elsewhere.

mod calls;
mod history;
mod inside;
mod tape;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use toolbay_api::{
    Message, ModelRequest, ModelResponse, ToolCall, ToolDefinition,
    message::{FinishReason, Tokens},
};

use crate::{
    bounds::{Bounds, RunOutcome},
    budget::{self, Exhausted, Price},
};

pub use tape::{Tape, Told};

/// What a call is answered with that the run did not wait for.
const UNFINISHED: &str = "the run ended before this call was finished; it may have had an effect or none";

/// What stays the same over a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StepperConfig {
    /// Instructions that go before every request and are not part of the conversation.
    pub system: Option<String>,
    /// What the run may use.
    pub bounds: Bounds,
    /// The most tokens of one reply of the model.
    pub max_output_tokens: Option<u32>,
    /// The sampling temperature.
    pub temperature: Option<f64>,
    /// What the model's tokens cost, where it is known.
    pub price: Option<Price>,
}

/// What a driver does next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// Ask the model, then call [`Stepper::model_replied`] or [`Stepper::model_failed`].
    CallModel {
        /// The step, from 1.
        step: u32,
        /// What to ask.
        request: ModelRequest,
    },
    /// Call these tools, in any order and at most [`Bounds::max_parallel_tool_calls`] at a time, and tell of each by
    /// [`Stepper::tool_replied`].
    RunTools {
        /// The step, from 1.
        step: u32,
        /// The calls that were not answered yet, in the model's order.
        calls: Vec<ToolCall>,
    },
    /// The run is over.
    Done(RunEnd),
}

/// How a run ended and with what answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEnd {
    /// How it ended.
    pub outcome: RunOutcome,
    /// The model's last text. Empty where the run was stopped: what a hook stopped is not given out.
    pub text: String,
}

/// What came of one tool call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolReply {
    /// The call's id as [`Next::RunTools`] gave it.
    pub call_id: String,
    /// The reply as the model reads it.
    pub text: String,
    /// Whether the call failed.
    pub is_error: bool,
    /// Whether the model wrote the call wrongly, so that it counts against the repair budget.
    pub needs_repair: bool,
}

/// A driver's mistake.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StepperError {
    /// The stepper waits for something else.
    #[error("the stepper does not wait for {0} now: ask `next` what it waits for")]
    OutOfTurn(&'static str),
    /// No call with this id is open.
    #[error("no tool call {0:?} is waiting for a reply: it is unknown or was answered before")]
    UnknownCall(String),
}

/// The agent loop as a value.
///
/// It holds to this, whatever model and tools do:
///
/// - every tool call in the conversation is answered exactly once, in the model's order, also when the run is cut;
///   empty, overlong and repeated call ids are replaced before anybody sees them;
/// - it ends after at most [`Bounds::max_steps`] requests and [`Bounds::max_tool_calls`] calls.
///
/// ```
/// use serde_json::json;
/// use toolbay_agent::{Next, Stepper, StepperConfig};
/// use toolbay_api::{Message, ModelResponse};
///
/// let mut stepper = Stepper::new(StepperConfig::default(), vec![Message::user("Hello")], vec![]);
/// assert!(matches!(stepper.next(), Next::CallModel { step: 1, .. }));
/// stepper.model_replied(ModelResponse { text: "Hi!".into(), ..Default::default() })?;
/// let Next::Done(end) = stepper.next() else { unreachable!() };
/// assert_eq!(end.text, "Hi!");
/// # Ok::<(), toolbay_agent::StepperError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stepper {
    config: StepperConfig,
    tools: Vec<ToolDefinition>,
    messages: Vec<Message>,
    /// Messages that were there before the run.
    given: usize,
    ids: calls::Ids,
    phase: Phase,
    steps: u32,
    tool_calls: u32,
    repairs: u32,
    repair_steps: u32,
    tokens: Tokens,
    /// The tool-call bound was reached: the model's next reply is its last.
    last_words: bool,
    /// Qualified names of tools by the names that the model uses.
    #[serde(default)]
    names: BTreeMap<String, String>,
    /// Calls made, by the globs of [`Bounds::max_calls_per_tool`].
    #[serde(default)]
    per_tool: BTreeMap<String, u32>,
    #[serde(default)]
    exhausted: Option<Exhausted>,
    #[serde(skip)]
    tell: tape::Tell,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    Ready,
    Asked,
    Calling(Vec<Slot>),
    Done(RunEnd),
}

/// A call of the present step and, once there is one, its reply. Replies wait here until all have come, since they go
/// into the conversation in the calls' order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Slot {
    call: ToolCall,
    reply: Option<ToolReply>,
    /// The call is beyond a bound and is not made.
    refused: bool,
}

impl Stepper {
    /// A run over `messages` with `tools`, whose names are those that the model is to use.
    ///
    /// Tool calls in `messages` that have no reply get one that says so, and replies without a call are left out.
    #[must_use]
    pub fn new(config: StepperConfig, messages: Vec<Message>, tools: Vec<ToolDefinition>) -> Self {
        let messages = history::mended(messages);
        let ids = calls::Ids::of(&messages);
        let given = messages.len();
        Self {
            config,
            tools,
            messages,
            given,
            ids,
            phase: Phase::Ready,
            steps: 0,
            tool_calls: 0,
            repairs: 0,
            repair_steps: 0,
            tokens: Tokens::default(),
            last_words: false,
            names: BTreeMap::new(),
            per_tool: BTreeMap::new(),
            exhausted: None,
            tell: tape::Tell::default(),
        }
    }

    /// Has `tape` hear all that the stepper is told and decides from now on, beginning with what it is made of. To be said
    /// before the first [`next`](Self::next).
    #[must_use]
    pub fn with_tape(mut self, tape: std::sync::Arc<dyn Tape>) -> Self {
        self.tell = tape::Tell::to(tape);
        self.tell.tell(|| Told::Began {
            config: self.config.clone(),
            messages: self.messages.clone(),
            tools: self.tools.clone(),
            names: self.names.clone(),
        });
        self
    }

    /// The same for a stepper that was written down in the middle of its run: the tape knows what it is made of.
    #[must_use]
    pub fn with_tape_again(mut self, tape: std::sync::Arc<dyn Tape>) -> Self {
        self.tell = tape::Tell::to(tape);
        self
    }

    /// Has nobody hear any more: what is done with this one is not what the run does.
    pub(crate) fn unheard(mut self) -> Self {
        self.tell = tape::Tell::default();
        self
    }

    /// Says what the tools are called that the model knows by other names: bounds on single tools go by these.
    #[must_use]
    pub fn with_qualified_names(mut self, names: BTreeMap<String, String>) -> Self {
        self.names = names;
        self
    }

    /// Gives the model one tool more from its next request on. What it has already stays as it is.
    pub fn offer(&mut self, tool: ToolDefinition) {
        if self.tools.iter().all(|known| known.name != tool.name) {
            self.tell.tell(|| Told::Offered(tool.clone()));
            self.tools.push(tool);
        }
    }

    /// What to do next. Asking again before telling anything gives the same answer.
    #[allow(clippy::should_implement_trait, reason = "an iterator would end; this waits for what it is told")]
    pub fn next(&mut self) -> Next {
        if self.phase == Phase::Ready {
            if self.steps >= self.config.bounds.max_steps {
                let (reached, what, allowed) = match self.config.bounds {
                    Bounds { max_tool_calls, .. } if self.last_words => {
                        (RunOutcome::ToolCallLimit, "tool calls", max_tool_calls)
                    }
                    Bounds { max_steps, .. } => (RunOutcome::StepLimit, "steps", max_steps),
                };
                self.end_since(reached, Exhausted::of_run(what, allowed.into(), allowed.into()));
            } else {
                self.steps += 1;
                self.phase = Phase::Asked;
                self.tell.tell(|| Told::Asks { step: self.steps, request: Box::new(self.request()) });
            }
        }
        match &self.phase {
            Phase::Ready | Phase::Asked => Next::CallModel { step: self.steps, request: self.request() },
            Phase::Calling(slots) => {
                let open = slots.iter().filter(|slot| slot.reply.is_none());
                Next::RunTools { step: self.steps, calls: open.map(|slot| slot.call.clone()).collect() }
            }
            Phase::Done(end) => Next::Done(end.clone()),
        }
    }

    /// Takes the model's reply and gives it back as it stands in the conversation: with call ids that are unique, and
    /// arguments that were text read as JSON where they are.
    ///
    /// # Errors
    /// [`StepperError::OutOfTurn`] where no model was to be asked.
    pub fn model_replied(&mut self, mut response: ModelResponse) -> Result<ModelResponse, StepperError> {
        if self.phase != Phase::Asked {
            return Err(StepperError::OutOfTurn("a model's reply"));
        }
        self.tell.tell(|| Told::ModelReplied(response.clone()));
        for call in &mut response.tool_calls {
            call.id = self.ids.unique(std::mem::take(&mut call.id));
            calls::read_arguments(&mut call.arguments);
        }
        self.count_tokens(response.tokens);
        self.messages.push(Message::Assistant {
            text: response.text.clone(),
            reasoning: response.reasoning.clone(),
            tool_calls: response.tool_calls.clone(),
        });
        if response.tool_calls.is_empty() {
            self.finish(match response.finish {
                _ if self.last_words => RunOutcome::ToolCallLimit,
                FinishReason::Length => RunOutcome::CutOff,
                FinishReason::ContentFilter => RunOutcome::Withheld,
                _ => RunOutcome::Completed,
            });
        } else {
            self.open(&response.tool_calls);
        }
        Ok(response)
    }

    /// Takes a failure of the model. With `feedback` the text goes into the conversation and the model is asked again,
    /// in a new step; without it the run ends.
    ///
    /// # Errors
    /// [`StepperError::OutOfTurn`] where no model was to be asked.
    pub fn model_failed(&mut self, feedback: Option<String>) -> Result<(), StepperError> {
        if self.phase != Phase::Asked {
            return Err(StepperError::OutOfTurn("a model's failure"));
        }
        self.tell.tell(|| Told::ModelFailed(feedback.clone()));
        match feedback {
            Some(text) => {
                self.messages.push(Message::system(text));
                self.phase = Phase::Ready;
            }
            None => self.finish(RunOutcome::ModelFailed),
        }
        Ok(())
    }

    /// Takes the reply to one open call.
    ///
    /// # Errors
    /// [`StepperError::UnknownCall`] where no such call is open.
    pub fn tool_replied(&mut self, reply: ToolReply) -> Result<(), StepperError> {
        let Phase::Calling(slots) = &mut self.phase else {
            return Err(StepperError::UnknownCall(reply.call_id));
        };
        match slots.iter_mut().find(|slot| slot.reply.is_none() && slot.call.id == reply.call_id) {
            Some(slot) => {
                self.tell.tell(|| Told::ToolReplied(reply.clone()));
                slot.reply = Some(reply);
            }
            None => return Err(StepperError::UnknownCall(reply.call_id)),
        }
        if slots.iter().all(|slot| slot.reply.is_some()) {
            self.close_step();
        }
        Ok(())
    }

    /// The calls that wait for their replies, in the model's order.
    #[must_use]
    pub fn open_calls(&self) -> Vec<ToolCall> {
        match &self.phase {
            Phase::Calling(slots) => {
                slots.iter().filter(|slot| slot.reply.is_none()).map(|slot| slot.call.clone()).collect()
            }
            Phase::Ready | Phase::Asked | Phase::Done(_) => Vec::new(),
        }
    }

    /// Ends the run, whatever it is doing. Calls that are open are answered by an error that says so.
    ///
    /// A run that is over stays as it is, but for one case: a hook's stop outweighs a bound that was reached by the
    /// same reply.
    pub fn stop(&mut self, outcome: RunOutcome) {
        let outweighs = matches!(outcome, RunOutcome::Stopped { .. })
            && self.end().is_some_and(|end| matches!(end.outcome, RunOutcome::RepairLimit | RunOutcome::ToolCallLimit));
        if outweighs || self.end().is_none() {
            self.tell.tell(|| Told::Stopped(outcome.clone()));
        }
        self.answer_open_calls(UNFINISHED);
        if outweighs {
            self.phase = Phase::Ready;
        }
        self.finish(outcome);
    }

    /// Ends the run since something ran out, and says so in the conversation, for whoever takes it up again.
    pub fn run_out(&mut self, outcome: RunOutcome, exhausted: Exhausted) {
        if matches!(self.phase, Phase::Done(_)) {
            return;
        }
        self.tell.tell(|| Told::RanOut(outcome.clone(), exhausted.clone()));
        self.end_since(outcome, exhausted);
    }

    /// Ends the run by a bound.
    fn end_since(&mut self, outcome: RunOutcome, exhausted: Exhausted) {
        let said = exhausted.to_string();
        self.answer_open_calls(&format!("{UNFINISHED} ({said})"));
        // Beside a reply of a tool, since providers take other messages only in some places.
        let replies = self.messages.iter().rev().map_while(|message| match message {
            Message::Tool { text, .. } => Some(text),
            _ => None,
        });
        let is_told = replies.into_iter().any(|text| text.contains(&said));
        if let Some(Message::Tool { text, .. }) = self.messages.last_mut()
            && !is_told
        {
            text.push_str("\nthe run ends here: ");
            text.push_str(&said);
        }
        self.exhausted.get_or_insert(exhausted);
        self.finish(outcome);
    }

    /// What ran out, if something did.
    #[must_use]
    pub fn exhausted(&self) -> Option<&Exhausted> {
        self.exhausted.as_ref()
    }

    /// What the tokens cost so far, in millionths of the currency, where the price is known.
    #[must_use]
    pub fn cost_micros(&self) -> Option<u64> {
        self.config.price.map(|price| price.of(self.tokens))
    }

    /// Counts tokens of a reply that does not go into the conversation.
    pub fn spend(&mut self, tokens: Tokens) {
        self.tell.tell(|| Told::Spent(tokens));
        self.count_tokens(tokens);
    }

    fn count_tokens(&mut self, tokens: Tokens) {
        self.tokens.input = self.tokens.input.saturating_add(tokens.input);
        self.tokens.output = self.tokens.output.saturating_add(tokens.output);
    }

    /// How the run ended, once it has.
    #[must_use]
    pub fn end(&self) -> Option<&RunEnd> {
        if let Phase::Done(end) = &self.phase { Some(end) } else { None }
    }

    /// The bounds.
    #[must_use]
    pub fn bounds(&self) -> &Bounds {
        &self.config.bounds
    }

    /// Steps begun.
    #[must_use]
    pub fn steps(&self) -> u32 {
        self.steps
    }

    /// Tool calls given out to be made.
    #[must_use]
    pub fn tool_calls(&self) -> u32 {
        self.tool_calls
    }

    /// Tokens used.
    #[must_use]
    pub fn tokens(&self) -> Tokens {
        self.tokens
    }

    /// The conversation so far, without the system text. While calls are open their replies are missing.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The conversation. Where the run is not over it is [stopped](Self::stop) first, so that no call is left without
    /// a reply.
    #[must_use]
    pub fn into_messages(mut self) -> Vec<Message> {
        self.stop(RunOutcome::Stopped { by: "host".into(), reason: "the run was given up".into() });
        self.messages
    }

    fn request(&self) -> ModelRequest {
        let system = self.config.system.iter().map(Message::system);
        ModelRequest {
            messages: system.chain(self.messages.iter().cloned()).collect(),
            tools: self.tools.clone(),
            max_output_tokens: self.config.max_output_tokens,
            temperature: self.config.temperature,
        }
    }

    /// Opens the calls of a reply as far as the bounds allow them; the others are answered at once.
    fn open(&mut self, calls: &[ToolCall]) {
        if let Some((outcome, exhausted)) = self.spent_too_much() {
            let refusal = format!("not called: {exhausted}");
            let refused = |call: &ToolCall| Slot {
                reply: Some(error_reply(call, refusal.clone())),
                call: call.clone(),
                refused: true,
            };
            self.phase = Phase::Calling(calls.iter().map(refused).collect());
            // None is open; this only puts the refusals into the conversation.
            self.answer_open_calls("");
            self.exhausted = Some(exhausted);
            return self.finish(outcome);
        }
        let max = self.config.bounds.max_tool_calls;
        let mut slots = Vec::with_capacity(calls.len());
        for call in calls {
            let mut slot = Slot { call: call.clone(), reply: None, refused: false };
            if let Some(exhausted) = self.tool_is_used_up(&call.name) {
                slot.reply = Some(error_reply(call, format!("not called: {exhausted}. Go on without it.")));
                self.exhausted = Some(exhausted);
            } else if self.tool_calls >= max {
                let exhausted = Exhausted::of_run("tool calls", max.into(), u64::from(max) + 1);
                let text = format!("not called: {exhausted}. Answer now with what you have.");
                slot.reply = Some(error_reply(call, text));
                slot.refused = true;
                self.exhausted = Some(exhausted);
            } else {
                self.tool_calls += 1;
                self.count(&call.name);
            }
            slots.push(slot);
        }
        let none_is_open = slots.iter().all(|slot| slot.reply.is_some());
        self.tell.tell(|| {
            let open = slots.iter().filter(|slot| slot.reply.is_none());
            Told::Calls { step: self.steps, calls: open.map(|slot| slot.call.clone()).collect() }
        });
        self.phase = Phase::Calling(slots);
        if none_is_open {
            self.close_step();
        }
    }

    /// Which of the sums that a reply adds to is reached.
    fn spent_too_much(&self) -> Option<(RunOutcome, Exhausted)> {
        let Bounds { max_tokens, max_input_tokens, max_output_tokens, max_cost_micros, .. } = self.config.bounds;
        let Tokens { input, output } = self.tokens;
        let sums = [
            (max_tokens, input.saturating_add(output), "tokens", RunOutcome::TokenLimit),
            (max_input_tokens, input, "input tokens", RunOutcome::InputTokenLimit),
            (max_output_tokens, output, "output tokens", RunOutcome::OutputTokenLimit),
            (
                max_cost_micros,
                self.cost_micros().unwrap_or(u64::MAX),
                "millionths of the currency",
                RunOutcome::CostLimit,
            ),
        ];
        sums.into_iter().find_map(|(max, used, what, outcome)| {
            let max = max.filter(|max| used >= *max)?;
            Some((outcome, Exhausted::of_run(what, max, used)))
        })
    }

    pub(crate) fn qualified<'a>(&'a self, name: &'a str) -> &'a str {
        self.names.get(name).map_or(name, String::as_str)
    }

    fn tool_is_used_up(&self, name: &str) -> Option<Exhausted> {
        let name = self.qualified(name);
        let mut bounds = self.config.bounds.max_calls_per_tool.iter();
        bounds.find_map(|(glob, max)| {
            let used = self.per_tool.get(glob).copied().unwrap_or_default();
            let is_over = used >= *max && budget::matches(glob, name);
            is_over.then(|| Exhausted::of_run(format!("calls of {glob}"), (*max).into(), u64::from(used) + 1))
        })
    }

    fn count(&mut self, name: &str) {
        let name = self.qualified(name).to_owned();
        let globs = self.config.bounds.max_calls_per_tool.keys().filter(|glob| budget::matches(glob, &name)).cloned();
        for glob in globs.collect::<Vec<_>>() {
            *self.per_tool.entry(glob).or_default() += 1;
        }
    }

    /// Puts the replies into the conversation and decides how the run goes on.
    fn close_step(&mut self) {
        let Phase::Calling(slots) = std::mem::replace(&mut self.phase, Phase::Ready) else { return };
        let any_refused = slots.iter().any(|slot| slot.refused);
        let repairs = slots.iter().filter_map(|slot| slot.reply.as_ref()).filter(|reply| reply.needs_repair).count();
        self.messages.extend(slots.into_iter().filter_map(|slot| slot.reply).map(ToolReply::into_message));

        self.repairs = self.repairs.saturating_add(u32::try_from(repairs).unwrap_or(u32::MAX));
        self.repair_steps = if repairs == 0 { 0 } else { self.repair_steps + 1 };
        let bounds = &self.config.bounds;
        if self.repairs > bounds.max_repairs || self.repair_steps > bounds.max_repair_steps_in_a_row {
            let exhausted = if self.repairs > bounds.max_repairs {
                Exhausted::of_run("calls that had to be repaired", bounds.max_repairs.into(), self.repairs.into())
            } else {
                let (allowed, used) = (bounds.max_repair_steps_in_a_row.into(), self.repair_steps.into());
                Exhausted::of_run("steps in a row with calls that had to be repaired", allowed, used)
            };
            self.end_since(RunOutcome::RepairLimit, exhausted);
        } else if self.last_words {
            self.finish(RunOutcome::ToolCallLimit);
        } else {
            self.last_words = any_refused;
        }
    }

    fn answer_open_calls(&mut self, text: &str) {
        if let Phase::Calling(slots) = &mut self.phase {
            let replies = std::mem::take(slots).into_iter().map(|Slot { call, reply, .. }| {
                reply.unwrap_or_else(|| error_reply(&call, text.to_owned())).into_message()
            });
            self.messages.extend(replies);
        }
    }

    fn finish(&mut self, outcome: RunOutcome) {
        if matches!(self.phase, Phase::Done(_)) {
            return;
        }
        let text = match outcome {
            RunOutcome::Stopped { .. } => String::new(),
            _ => self.last_text().unwrap_or_default().to_owned(),
        };
        let end = RunEnd { outcome, text };
        self.tell.tell(|| Told::Ends(end.clone()));
        self.phase = Phase::Done(end);
    }

    fn last_text(&self) -> Option<&str> {
        self.messages.iter().skip(self.given).rev().find_map(|message| match message {
            Message::Assistant { text, .. } => Some(text.as_str()),
            _ => None,
        })
    }
}

impl ToolReply {
    fn into_message(self) -> Message {
        Message::Tool { call_id: self.call_id, text: self.text, is_error: self.is_error }
    }
}

fn error_reply(call: &ToolCall, text: String) -> ToolReply {
    ToolReply { call_id: call.id.clone(), text, is_error: true, needs_repair: false }
}
