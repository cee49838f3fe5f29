//! The strict replay: the loop of this version, told what was recorded. No model and no tool is called.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::json;
use toolbay_api::{ModelRequest, ToolDefinition};

use super::{Recording, ReplayError, shortened};
use crate::{
    record::lines::{Line, digest_of},
    stepper::{Stepper, Tape, Told},
};

/// What a replay went through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    /// Requests to the model.
    pub steps: u32,
    /// Tool calls.
    pub tool_calls: u32,
    /// Decisions of the loop that were compared.
    pub decisions: usize,
}

/// Drives the loop with the recorded replies of model and tools, and compares each of its decisions with the recorded one: what
/// the model is asked, which tools are called, how and when the run ends.
///
/// # Errors
/// [`ReplayError`] with the first line at which the loop does something else, or that cannot follow on those before it.
pub fn strict(recording: &Recording) -> Result<Replayed, ReplayError> {
    let mut replay: Option<Replay> = None;
    let mut decisions = 0;
    for (number, line) in recording.lines() {
        if let Line::Cut { reason } = line {
            return Err(ReplayError::new(*number, format!("the recording ends here: {reason}")));
        }
        if let Line::Began { messages, tools } = line {
            if replay.is_some() {
                return Err(ReplayError::new(*number, "the loop begins a second time"));
            }
            replay = Some(Replay::begin(recording, messages.clone(), tools, *number)?);
        } else if let Some(replay) = &mut replay {
            decisions += usize::from(replay.follow(line, *number)?);
        }
    }
    let last = recording.lines().last().map_or(1, |(number, _)| *number);
    let replay = replay.ok_or_else(|| ReplayError::new(last, "the loop never began"))?;
    replay.ended(last)?;
    Ok(Replayed { steps: replay.stepper.steps(), tool_calls: replay.stepper.tool_calls(), decisions })
}

/// What the loop decided and nobody has looked at yet.
#[derive(Default)]
struct Decisions(Mutex<VecDeque<Told>>);

impl Tape for Decisions {
    fn told(&self, told: &Told) {
        if told.is_decision() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(told.clone());
        }
    }
}

impl Decisions {
    fn take(&self) -> Option<Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

struct Replay {
    stepper: Stepper,
    decided: Arc<Decisions>,
    /// Messages whose digests were compared.
    known: usize,
}

impl Replay {
    fn begin(
        recording: &Recording,
        messages: Vec<toolbay_api::Message>,
        tools: &[String],
        line: usize,
    ) -> Result<Self, ReplayError> {
        let head = recording.head();
        let tools = tools.iter().map(|tool| stand_in(tool, line)).collect::<Result<_, _>>()?;
        let names = head.tools.iter().map(|tool| (tool.provider_name.clone(), tool.name.clone())).collect();
        let decided = Arc::<Decisions>::default();
        let tape: Arc<Decisions> = Arc::clone(&decided);
        let stepper = Stepper::new(head.config.clone(), messages, tools).with_qualified_names(names).with_tape(tape);
        Ok(Self { stepper, decided, known: 0 })
    }

    /// Tells the loop what was recorded, or compares its decision with the recorded one, and says whether it was one.
    fn follow(&mut self, line: &Line, number: usize) -> Result<bool, ReplayError> {
        let out_of_turn = |error| ReplayError::new(number, format!("the loop does not take this here: {error}"));
        match line {
            Line::Asks { .. } | Line::Calls { .. } | Line::Ends { .. } => {
                self.compare(line, number)?;
                return Ok(true);
            }
            Line::Offered { tool } => self.told(number, |stepper| {
                stepper.offer(stand_in(tool, number)?);
                Ok(())
            })?,
            Line::ModelReplied { response } => {
                self.told(number, |stepper| stepper.model_replied(response.clone()).map(drop).map_err(out_of_turn))?
            }
            Line::ModelFailed { feedback } => {
                self.told(number, |stepper| stepper.model_failed(feedback.clone()).map_err(out_of_turn))?;
            }
            Line::ToolReplied { reply } => {
                self.told(number, |stepper| stepper.tool_replied(reply.clone()).map_err(out_of_turn))?;
            }
            Line::Stopped { outcome } => self.told(number, |stepper| {
                stepper.stop(outcome.clone());
                Ok(())
            })?,
            Line::RanOut { outcome, exhausted } => {
                self.told(number, |stepper| {
                    stepper.run_out(outcome.clone(), exhausted.clone());
                    Ok(())
                })?;
            }
            Line::CalledInside { tools, exhausted } => self.told(number, |stepper| {
                stepper.called_inside(tools, exhausted.clone());
                Ok(())
            })?,
            Line::Spent { tokens } => self.told(number, |stepper| {
                stepper.spend(*tokens);
                Ok(())
            })?,
            _ => {}
        }
        Ok(false)
    }

    /// Tells the loop something. What it had decided before must have been recorded before.
    fn told(
        &mut self,
        line: usize,
        tell: impl FnOnce(&mut Stepper) -> Result<(), ReplayError>,
    ) -> Result<(), ReplayError> {
        match self.decided.take() {
            Some(decided) => Err(ReplayError::new(line, format!("before this the loop now {}", worded(&decided)))),
            None => tell(&mut self.stepper),
        }
    }

    fn compare(&mut self, recorded: &Line, number: usize) -> Result<(), ReplayError> {
        let decided = self.decided.take().or_else(|| {
            // It decides when it is asked what comes next.
            self.stepper.next();
            self.decided.take()
        });
        let differs = |now: String| {
            Err(ReplayError::new(
                number,
                format!("the loop does something else: recorded is that it {}, and now it {now}", told(recorded)),
            ))
        };
        let Some(decided) = decided else { return differs("waits".to_owned()) };
        match (recorded, &decided) {
            (Line::Asks { step, messages, new, tools }, Told::Asks { step: now, request }) => {
                if step != now || *tools != request.tools.len() || *messages != request.messages.len() {
                    return differs(worded(&decided));
                }
                self.compare_messages(new, request, number)
            }
            (Line::Calls { step, calls }, Told::Calls { step: now, calls: called })
                if step == now && calls == called =>
            {
                Ok(())
            }
            (Line::Ends { end }, Told::Ends(now)) if end == now => Ok(()),
            _ => differs(worded(&decided)),
        }
    }

    /// Compares the messages that were new with a request.
    fn compare_messages(
        &mut self,
        recorded: &[String],
        request: &ModelRequest,
        line: usize,
    ) -> Result<(), ReplayError> {
        // A run that waited and went on says all of them once more.
        let known = if recorded.len() == request.messages.len() { 0 } else { self.known };
        let new = request.messages.get(known..).unwrap_or_default();
        self.known = request.messages.len();
        if new.len() != recorded.len() {
            let message = format!("the loop asks with {} new messages, and recorded are {}", new.len(), recorded.len());
            return Err(ReplayError::new(line, message));
        }
        for (index, (message, recorded)) in new.iter().zip(recorded).enumerate() {
            let message = json!(message);
            if digest_of(&message) != *recorded {
                let (at, message) = (self.known - new.len() + index + 1, shortened(&message.to_string()));
                let message = format!("the loop asks with another message {at} than was recorded; now it is {message}");
                return Err(ReplayError::new(line, message));
            }
        }
        Ok(())
    }

    fn ended(&self, line: usize) -> Result<(), ReplayError> {
        match self.decided.take() {
            Some(decided) => Err(ReplayError::new(line, format!("before this the loop now {}", worded(&decided)))),
            None if self.stepper.end().is_none() => {
                Err(ReplayError::new(line, "the loop has not come to its end by this"))
            }
            None => Ok(()),
        }
    }
}

/// A tool of the model, of which the loop knows the name alone.
fn stand_in(name: &str, line: usize) -> Result<ToolDefinition, ReplayError> {
    ToolDefinition::new(name, "", json!({})).map_err(|error| ReplayError::new(line, error.to_string()))
}

/// A decision in words that follow on "it".
fn worded(decided: &Told) -> String {
    match decided {
        Told::Asks { step, request } => asks(*step, request.messages.len(), request.tools.len()),
        Told::Calls { step, calls } => format!("calls in step {step}: {}", shortened(&json!(calls).to_string())),
        Told::Ends(end) => format!("ends: {}", shortened(&json!(end).to_string())),
        _ => "goes on".to_owned(),
    }
}

fn told(recorded: &Line) -> String {
    match recorded {
        Line::Asks { step, messages, tools, .. } => asks(*step, *messages, *tools),
        Line::Calls { step, calls } => format!("calls in step {step}: {}", shortened(&json!(calls).to_string())),
        Line::Ends { end } => format!("ends: {}", shortened(&json!(end).to_string())),
        line => line.name().to_owned(),
    }
}

fn asks(step: u32, messages: usize, tools: usize) -> String {
    format!("asks the model in step {step} with {messages} messages and {tools} tools")
}
