//! Asks a session's hooks about a recorded run: each at the points that were recorded, with what was recorded there. The model
//! is not asked, and no tool of the model is called.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::Value;
use toolbay_api::{
    CallId, ErrorKind, HookPoint, Message, ModelRequest, RunId, ToolCall, ToolError, ToolOutput, WireResult,
    hook::AfterAgentRun,
};
use toolbay_runtime::{Gate, Observer, Run, RunEvent, Session, StandIn};

use super::{Difference, Recording, ReplayError};
use crate::record::lines::Line;

/// A decision: at a point, of a call where it is about one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Decision {
    call: Option<String>,
    hook: String,
    decision: String,
}

/// Has the hooks of `session` decide about the recorded run and gives the points at which they decide otherwise than was
/// recorded. Plain consent counts as no decision, so that a new hook that lets all pass makes no difference.
///
/// Hooks are the session's own code, with their effects. Each point is looked at for itself: what is recorded after a call that
/// a hook would deny now is looked at all the same.
///
/// # Errors
/// [`ReplayError`] where the recording is cut.
///
/// # Cancel safety
/// Dropping the future ends it; what hooks did is done.
pub async fn with_hooks(recording: &Recording, session: &Session) -> Result<Vec<Difference>, ReplayError> {
    let lines = recording.lines();
    if let Some((number, Line::Cut { reason })) = lines.last() {
        return Err(ReplayError::new(*number, format!("the recording ends here: {reason}")));
    }
    let seen = Arc::<Seen>::default();
    let (observer, answers): (Arc<Seen>, _) = (Arc::clone(&seen), Arc::new(Answers::of(recording)));
    let run = session.clone().with_observer(observer).with_stand_in(answers).run();
    run.name_model(&recording.head().model);
    let mut trial = Trial { run, seen, recording, differences: Vec::new(), conversation: Conversation::default() };
    for (index, (number, line)) in lines.iter().enumerate() {
        trial.look(index, *number, line).await;
    }
    Ok(trial.differences)
}

struct Trial<'a> {
    run: Run,
    seen: Arc<Seen>,
    recording: &'a Recording,
    differences: Vec<Difference>,
    conversation: Conversation,
}

/// The conversation as the loop had it, for the requests that hooks saw.
#[derive(Default)]
struct Conversation {
    messages: Vec<Message>,
    /// Replies of the present step by call, and the calls in their order.
    replies: BTreeMap<String, Message>,
    calls: Vec<ToolCall>,
}

impl Trial<'_> {
    async fn look(&mut self, index: usize, number: usize, line: &Line) {
        match line {
            Line::Input { messages } => {
                drop(self.run.before_agent_run(messages.clone()).await);
                self.compare(index, number, HookPoint::BeforeAgentRun, "before_agent_run".to_owned());
            }
            Line::Began { messages, .. } => self.conversation.messages.clone_from(messages),
            Line::Asks { step, .. } => {
                let request = self.request();
                drop(self.run.before_model_call(*step, request).await);
                self.compare(index, number, HookPoint::BeforeModelCall, format!("before_model_call in step {step}"));
            }
            Line::ModelAnswered { step, response } => {
                let after = self.run.after_model_call(*step, response.clone()).await;
                self.compare(index, number, HookPoint::AfterModelCall, format!("after_model_call in step {step}"));
                if let (Gate::Go(_), Some(text)) = (after, &response.reasoning) {
                    drop(self.run.on_reasoning_step(*step, text).await);
                    let what = format!("on_reasoning_step in step {step}");
                    self.compare(index, number, HookPoint::OnReasoningStep, what);
                }
            }
            Line::ModelReplied { response } => self.conversation.messages.push(Message::Assistant {
                text: response.text.clone(),
                reasoning: response.reasoning.clone(),
                tool_calls: response.tool_calls.clone(),
            }),
            Line::ModelFailed { feedback: Some(text) } => self.conversation.messages.push(Message::system(text)),
            Line::Calls { step, calls } => {
                self.conversation.calls.clone_from(calls);
                let made: BTreeSet<_> =
                    self.recording.lines().iter().filter_map(|(_, line)| ended_call(line)).collect();
                for call in calls.iter().filter(|call| made.contains(call.id.as_str())) {
                    drop(self.run.call(*step, call.clone()).await);
                    self.compare_call(number, call);
                }
            }
            Line::ToolReplied { reply } => self.conversation.reply(reply),
            // A run that was stopped before it began has no end that hooks saw.
            Line::Ends { .. } if !self.recording.lines().iter().any(|(_, line)| matches!(line, Line::Asks { .. })) => {}
            Line::Ends { end } => {
                let totals = self.recording.lines().iter().rev().find_map(|(_, line)| match line {
                    Line::Finished { steps, tool_calls, .. } => Some((*steps, *tool_calls)),
                    _ => None,
                });
                let (steps, tool_calls) = totals.unwrap_or_default();
                let (text, outcome) = (end.text.clone(), end.outcome.to_string());
                drop(self.run.after_agent_run(AfterAgentRun { text, outcome, steps, tool_calls }).await);
                self.compare(index, number, HookPoint::AfterAgentRun, "after_agent_run".to_owned());
            }
            _ => {}
        }
    }

    fn request(&self) -> ModelRequest {
        let config = &self.recording.head().config;
        let system = config.system.iter().map(Message::system);
        ModelRequest {
            messages: system.chain(self.conversation.messages.iter().cloned()).collect(),
            tools: self.run.tools().iter().map(|tool| toolbay_api::ToolDefinition::clone(&tool.definition)).collect(),
            max_output_tokens: config.max_output_tokens,
            temperature: config.temperature,
        }
    }

    /// Compares what was decided at a point just now with what was recorded there, which stands behind the line at `index`
    /// and before the point comes again.
    fn compare(&mut self, index: usize, number: usize, point: HookPoint, what: String) {
        let comes_again = |line: &Line| match point {
            HookPoint::BeforeModelCall => matches!(line, Line::Asks { .. }),
            HookPoint::AfterModelCall | HookPoint::OnReasoningStep => matches!(line, Line::ModelAnswered { .. }),
            _ => false,
        };
        let behind = self.recording.lines().iter().skip(index + 1).map(|(_, line)| line);
        let recorded = behind.take_while(|line| !comes_again(line)).filter_map(|line| match line {
            Line::Hook { point: at, call: None, hook, decision } if *at == point => decided(None, hook, decision),
            _ => None,
        });
        let recorded = recorded.collect();
        let now = self.seen.take().remove(&point.to_string()).unwrap_or_default();
        self.note(number, what, recorded, now);
    }

    fn compare_call(&mut self, number: usize, call: &ToolCall) {
        let mut now = self.seen.take();
        for point in [HookPoint::BeforeToolCall, HookPoint::AfterToolCall, HookPoint::OnError] {
            let recorded = self.recording.lines().iter().filter_map(|(_, line)| match line {
                Line::Hook { point: at, call: Some(of), hook, decision } if *at == point && *of == call.id => {
                    decided(Some(of), hook, decision)
                }
                _ => None,
            });
            let recorded = recorded.collect();
            let mut now = now.remove(&point.to_string()).unwrap_or_default();
            // Calls that a hook made in turn are its own affair.
            now.retain(|decision| decision.call.as_ref() == Some(&call.id));
            self.note(number, format!("{point} of {} ({})", call.name, call.id), recorded, now);
        }
    }

    /// Notes a difference. A call that was made several times has each decision several times.
    fn note(&mut self, line: usize, what: String, recorded: Vec<Decision>, now: Vec<Decision>) {
        let once = |decisions: Vec<Decision>| {
            let mut seen = BTreeSet::new();
            decisions.into_iter().filter(|decision| seen.insert(decision.clone())).collect::<Vec<_>>()
        };
        let (recorded, now) = (once(recorded), once(now));
        if recorded != now {
            self.differences.push(Difference { line, what, recorded: worded(&recorded), now: worded(&now) });
        }
    }
}

impl Conversation {
    /// Takes a reply; replies go into the conversation together, in the order of the calls.
    fn reply(&mut self, reply: &crate::stepper::ToolReply) {
        let message =
            Message::Tool { call_id: reply.call_id.clone(), text: reply.text.clone(), is_error: reply.is_error };
        self.replies.insert(reply.call_id.clone(), message);
        if self.calls.iter().all(|call| self.replies.contains_key(&call.id)) {
            let replies = self.calls.drain(..).filter_map(|call| self.replies.remove(&call.id));
            self.messages.extend(replies);
        }
    }
}

fn ended_call(line: &Line) -> Option<&str> {
    if let Line::ToolFinished { call, .. } = line { Some(call) } else { None }
}

fn decided(call: Option<&str>, hook: &str, decision: &str) -> Option<Decision> {
    let is_consent = matches!(decision, "continue" | "keep" | "observe");
    (!is_consent).then(|| Decision {
        call: call.map(str::to_owned),
        hook: hook.to_owned(),
        decision: decision.to_owned(),
    })
}

fn worded(decisions: &[Decision]) -> String {
    if decisions.is_empty() {
        return "no objection".to_owned();
    }
    let all: Vec<_> = decisions.iter().map(|one| format!("{} {:?}", one.hook, one.decision)).collect();
    all.join(", ")
}

/// What hooks decided since it was looked at last, by point.
#[derive(Default)]
struct Seen(Mutex<BTreeMap<String, Vec<Decision>>>);

impl Seen {
    fn take(&self) -> BTreeMap<String, Vec<Decision>> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Observer for Seen {
    fn observe(&self, _: RunId, event: &RunEvent) {
        if let RunEvent::HookDecided { point, hook, call, decision } = event
            && let Some(decision) = decided(call.as_ref().map(CallId::as_str), hook, decision)
        {
            let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            seen.entry(point.to_string()).or_default().push(decision);
        }
    }
}

/// The recorded answers of tools, by call: the last, where a call was made several times.
struct Answers(BTreeMap<String, WireResult>);

impl Answers {
    fn of(recording: &Recording) -> Self {
        let answers = recording.lines().iter().filter_map(|(_, line)| match line {
            Line::ToolAnswered { call, result, .. } => Some((call.clone(), result.clone())),
            _ => None,
        });
        Self(answers.collect())
    }
}

impl StandIn for Answers {
    fn answer(&self, call: &CallId, _: &str, _: &Value) -> Result<ToolOutput, ToolError> {
        match self.0.get(call.as_str()) {
            Some(WireResult { error: Some(error), .. }) => {
                // The figures of a limit are not in the name; hooks that want the kind have its name in the wire's form.
                let kind = serde_json::from_value(Value::from(error.kind.as_str())).unwrap_or(ErrorKind::Script);
                let told = ToolError::new(kind, error.message.clone()).with_details(error.details.clone());
                Err(told.with_retryable(error.retryable))
            }
            Some(result) => Ok(ToolOutput::new(result.data.clone())),
            None => {
                Err(ToolError::new(ErrorKind::Unavailable, "no result of this call is recorded").with_retryable(false))
            }
        }
    }
}
