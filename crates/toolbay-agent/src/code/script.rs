//! One program under way: the calls that it makes, what it may still make, what it was answered, and what ended it.
//!
//! What must not be caught by a script, such as a budget that is used up, is no error that it is given: the question is never
//! answered, and whoever waits for the program drops it where it stands.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::{StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::Notify;
use toolbay_api::{ErrorKind, Limit, ToolCall, ToolContext, ToolDefinition, ToolError};
use toolbay_runtime::{Desk, PendingApproval, Run, Stop};

use super::{
    Allowance, CodeSettings, RUN_CODE,
    bindings::Bindings,
    journal::{Entry, Journal, digest},
};
use crate::budget::{DayLimits, Exhausted};

/// What a host is asked that is no tool. They are marked, since a tool may have any name.
pub(super) const CHANCE: [&str; 3] = ["$now", "$uuid", "$random"];

/// One program under way.
pub(super) struct Script {
    pub(super) settings: Arc<CodeSettings>,
    pub(super) bindings: Bindings,
    run: Run,
    step: u32,
    /// The call of `run_code`.
    outer: ToolContext,
    desk: Desk,
    day: Option<DayLimits>,
    // std's Mutex, not tokio's: nothing is awaited while it is held.
    inner: Mutex<Inner>,
    ended: Notify,
}

struct Inner {
    allowance: Allowance,
    /// Questions so far: calls of tools, looks at the clock, draws.
    asked: u64,
    calls: u32,
    made: BTreeMap<u64, Made>,
    /// Answers from before, where the program runs again, and all that there are now.
    known: Journal,
    journal: Journal,
    end: Option<End>,
    printed: String,
    is_print_cut: bool,
    notes: Vec<String>,
}

/// A call that was made.
struct Made {
    tool: String,
    /// `None` while it goes on.
    outcome: Option<&'static str>,
    /// Whether it was made in this run of the program rather than answered from before.
    is_new: bool,
}

/// What ended a program that had not come to its end.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// An error that no script can catch.
    Failed(ToolError),
    /// Something of the run or of the tenant's day is used up.
    Exhausted(Exhausted),
    /// A hook ended the run.
    Stopped(Stop),
    /// Calls wait for approval, at the desk.
    Suspended,
}

/// A call that may be made.
enum Planned {
    Known(u64, Entry),
    New { number: u64, tool: Arc<ToolDefinition>, asked: String, arguments: Value },
}

/// What came of a call that could be made.
enum Outcome {
    Answer(Result<Value, ToolError>),
    /// Somebody has to approve it first.
    Waits(Box<PendingApproval>),
    /// It has ended the program.
    Over,
}

/// Why a call is not made.
enum Refused {
    /// For the script to know.
    Error(ToolError),
    /// The program is over.
    Over,
}

impl Script {
    pub(super) fn new(
        settings: Arc<CodeSettings>,
        run: Run,
        step: u32,
        outer: ToolContext,
        desk: Desk,
        allowance: Allowance,
        known: Journal,
    ) -> Self {
        let tools = run.tools().iter();
        let tools = tools.map(|tool| (Arc::clone(&tool.provider_name), Arc::clone(&tool.definition)));
        let bindings = Bindings::new(tools);
        let day = allowance.day.clone();
        let inner = Inner {
            allowance,
            asked: 0,
            calls: 0,
            made: BTreeMap::new(),
            known,
            journal: Journal::default(),
            end: None,
            printed: String::new(),
            is_print_cut: false,
            notes: Vec::new(),
        };
        Self { settings, bindings, run, step, outer, desk, day, inner: Mutex::new(inner), ended: Notify::new() }
    }

    pub(super) fn run(&self) -> &Run {
        &self.run
    }

    /// Resolves when the program must not go on.
    pub(super) async fn ended(&self) {
        loop {
            let told = self.ended.notified();
            if self.lock().end.is_some() {
                return;
            }
            told.await;
        }
    }

    /// Makes one call.
    ///
    /// # Errors
    /// The tool's own, and what is wrong with the call.
    ///
    /// # Cancel safety
    /// Dropping the future drops the call.
    pub(super) async fn call(&self, name: &str, arguments: Value) -> Result<Value, ToolError> {
        match self.plan(name, arguments) {
            Ok(planned) => match self.make(planned).await {
                Outcome::Answer(answer) => answer,
                Outcome::Waits(pending) => self.suspend([*pending]).await,
                Outcome::Over => std::future::pending().await,
            },
            Err(Refused::Error(error)) => Err(error),
            Err(Refused::Over) => std::future::pending().await,
        }
    }

    /// Makes several calls at once, and gives what came of each in their order. What must run alone does.
    ///
    /// # Errors
    /// Where they are not written as they must be; then none is made.
    ///
    /// # Cancel safety
    /// Dropping the future drops the calls.
    pub(super) async fn call_several(&self, arguments: &Value) -> Result<Value, ToolError> {
        let calls = written(arguments)?;
        let (mut plans, mut is_over) = (Vec::with_capacity(calls.len()), false);
        for (name, arguments) in calls {
            let alone = self.bindings.tool(&name).is_some_and(|tool| self.runs_alone(tool));
            match self.plan(&name, arguments) {
                Err(Refused::Over) => {
                    is_over = true;
                    break;
                }
                planned => plans.push((alone, planned)),
            }
        }
        // Nothing of a batch that is too large is called.
        if is_over {
            return std::future::pending().await;
        }
        let most = self.settings.max_parallel.max(1);
        let mut answers: Vec<Value> = Vec::with_capacity(plans.len());
        let mut plans = plans.into_iter().peekable();
        while let Some((alone, first)) = plans.next() {
            let mut batch = vec![first];
            while !alone && let Some((_, next)) = plans.next_if(|(alone, _)| !alone) {
                batch.push(next);
            }
            let answered = stream::iter(batch.into_iter().map(|planned| async {
                match planned {
                    Ok(planned) => self.make(planned).await,
                    Err(Refused::Error(error)) => Outcome::Answer(Err(error)),
                    Err(Refused::Over) => Outcome::Over,
                }
            }));
            let answered: Vec<_> = answered.buffered(most).collect().await;
            let (mut waiting, mut is_over) = (Vec::new(), false);
            for outcome in answered {
                match outcome {
                    Outcome::Answer(Ok(value)) => answers.push(json!({ "ok": value })),
                    Outcome::Answer(Err(error)) => answers.push(json!({ "error": {
                        "kind": error.kind.name(), "message": error.message, "details": error.details,
                        "retryable": error.retryable,
                    } })),
                    Outcome::Waits(pending) => waiting.push(*pending),
                    Outcome::Over => is_over = true,
                }
            }
            if is_over {
                return std::future::pending().await;
            }
            // The others have finished, and are in the journal.
            if !waiting.is_empty() {
                return self.suspend(waiting).await;
            }
        }
        Ok(Value::Array(answers))
    }

    /// What the host says that is no tool: the time, or a draw. It is asked once, however often the program runs.
    ///
    /// # Errors
    /// The host's own; `Cancelled` where the program is over.
    pub(super) fn ask(
        &self,
        what: &str,
        ask: impl FnOnce(&ToolContext) -> Result<Value, ToolError>,
    ) -> Result<Value, ToolError> {
        let mut inner = self.lock();
        if inner.end.is_some() {
            return Err(ToolError::new(ErrorKind::Cancelled, "the program is over"));
        }
        let (number, asked) = (inner.next_number(), digest(what, &Value::Null));
        let entry = match inner.known.get(number) {
            Some(entry) if entry.answers(what, &asked) => entry.clone(),
            Some(entry) => {
                let error = diverged(number, entry, what);
                drop(inner);
                self.end(End::Failed(error.clone()));
                return Err(ToolError::new(ErrorKind::Cancelled, error.message));
            }
            None => Entry::new(what, asked, &ask(&self.outer)),
        };
        let answer = entry.answer();
        inner.journal.record(number, entry, self.settings.journal);
        answer
    }

    /// Takes a line that the program prints.
    pub(super) fn print(&self, line: &str) {
        let mut inner = self.lock();
        let left = self.settings.max_printed_bytes.saturating_sub(inner.printed.len());
        let cut = line.get(..line.floor_char_boundary(left)).unwrap_or_default();
        inner.is_print_cut |= cut.len() < line.len();
        if left > 0 {
            inner.printed.push_str(cut);
            inner.printed.push('\n');
        }
    }

    /// Ends the program where it stands. The first end counts.
    pub(super) fn end(&self, end: End) {
        self.lock().end.get_or_insert(end);
        // One that waits, or the next that will.
        self.ended.notify_one();
    }

    /// What ended it, if anything but itself did.
    pub(super) fn end_so_far(&self) -> Option<End> {
        self.lock().end.clone()
    }

    /// What it printed, with a word about what was left out, and what hooks want the model to read.
    pub(super) fn printed(&self) -> (String, Vec<String>) {
        let inner = self.lock();
        let mut text = inner.printed.trim_end().to_owned();
        if inner.is_print_cut {
            text.push_str("\n[the rest of what was printed is left out]");
        }
        (text, inner.notes.clone())
    }

    /// The tools that were called, by qualified names, in the order of the calls; those from before are not among them.
    pub(super) fn new_calls(&self) -> Vec<String> {
        self.lock().made.values().filter(|made| made.is_new).map(|made| made.tool.clone()).collect()
    }

    /// Each call with what came of it, for the model to know what has had its effect.
    pub(super) fn calls_so_far(&self) -> Vec<String> {
        let inner = self.lock();
        let told = inner.made.values().map(|made| {
            let outcome = made.outcome.unwrap_or("not finished, it may have had an effect");
            format!("{}: {outcome}", made.tool)
        });
        told.collect()
    }

    /// What it was answered so far.
    pub(super) fn journal(&self) -> Journal {
        self.lock().journal.clone()
    }

    fn runs_alone(&self, tool: &ToolDefinition) -> bool {
        tool.annotations.destructive == Some(true) || self.settings.exclusive.matches(tool.name.as_str())
    }

    /// Decides about a call before anything of it is done.
    fn plan(&self, name: &str, arguments: Value) -> Result<Planned, Refused> {
        let mut inner = self.lock();
        if inner.end.is_some() {
            return Err(Refused::Over);
        }
        if name == RUN_CODE {
            let text = format!("{RUN_CODE} cannot be called from code: write what it is to do here");
            return Err(Refused::Error(ToolError::new(ErrorKind::PermissionDenied, text)));
        }
        // One answer for tools that there are not and for those that are not this user's.
        let Some(tool) = self.bindings.tool(name).map(Arc::clone) else {
            let shown: String = name.chars().take(80).collect();
            let text = format!("there is no tool called {shown:?}: {}", self.bindings.near(name));
            return Err(Refused::Error(ToolError::new(ErrorKind::NotFound, text)));
        };
        let (depth, most) = (self.outer.depth().saturating_add(1), self.outer.limits().max_call_chain);
        if depth > most {
            let error = ToolError::limit(Limit::CallChain, most.into(), depth.into());
            return Err(Refused::Error(error));
        }
        let number = inner.next_number();
        let allowed = self.settings.max_calls;
        if inner.calls >= allowed {
            drop(inner);
            let used = u64::from(allowed) + 1;
            let kind = ErrorKind::LimitExceeded { limit: Limit::HostCalls, allowed: allowed.into(), used };
            let text = format!(
                "a program may call {allowed} tools, and this one goes on: do less in one, or ask for more at once"
            );
            self.end(End::Failed(ToolError::new(kind, text)));
            return Err(Refused::Over);
        }
        inner.calls += 1;
        let qualified = tool.name.as_str();
        let asked = digest(qualified, &arguments);
        match inner.known.get(number) {
            Some(entry) if entry.answers(qualified, &asked) => return Ok(Planned::Known(number, entry.clone())),
            Some(entry) => {
                let error = diverged(number, entry, qualified);
                drop(inner);
                self.end(End::Failed(error));
                return Err(Refused::Over);
            }
            None => {}
        }
        if let Err(exhausted) = inner.allowance.take(qualified) {
            drop(inner);
            self.end(End::Exhausted(exhausted));
            return Err(Refused::Over);
        }
        Ok(Planned::New { number, tool, asked, arguments })
    }

    /// Ends the program where it waits for approval, if it can be run again from its beginning.
    async fn suspend<T>(&self, waiting: impl IntoIterator<Item = PendingApproval>) -> T {
        let is_whole = self.lock().journal.is_whole();
        let fits = is_whole && waiting.into_iter().all(|pending| self.desk.leave(pending));
        self.end(if fits {
            End::Suspended
        } else {
            let text = "a call needs approval, and the program has done too much to be kept until then: make that call earlier, or \
                        in a program of its own";
            End::Failed(ToolError::new(ErrorKind::DeniedByHook, text))
        });
        std::future::pending().await
    }

    /// Makes the call, or gives what was answered before.
    async fn make(&self, planned: Planned) -> Outcome {
        let (number, tool, asked, arguments) = match planned {
            Planned::Known(number, entry) => {
                let answer = entry.answer();
                let outcome = answer.as_ref().map_or_else(|error| error.kind.name(), |_| "ok");
                let made = Made { tool: entry.what().to_owned(), outcome: Some(outcome), is_new: false };
                let mut inner = self.lock();
                inner.made.insert(number, made);
                inner.journal.record(number, entry, self.settings.journal);
                return Outcome::Answer(answer);
            }
            Planned::New { number, tool, asked, arguments } => (number, tool, asked, arguments),
        };
        let qualified = tool.name.as_str();
        if let Err(exhausted) = Allowance::spend(self.day.as_ref(), &self.run, qualified).await {
            self.end(End::Exhausted(exhausted));
            return Outcome::Over;
        }
        self.lock().made.insert(number, Made { tool: qualified.to_owned(), outcome: None, is_new: true });
        // The same in each run of the program, and the outer call can be told from it.
        let id = format!("{}.{number}", self.outer.call());
        let call = ToolCall { id, name: qualified.to_owned(), arguments };
        let mut reply = self.run.call_within(&self.outer, &self.desk, self.step, call).await;
        if let Some(pending) = reply.waits.pop() {
            // It was not made: it will be, when it is approved, and counted then.
            self.lock().made.remove(&number);
            return Outcome::Waits(Box::new(pending));
        }
        let answer = reply.result.map(|output| output.data);
        {
            let mut inner = self.lock();
            if let Some(made) = inner.made.get_mut(&number) {
                made.outcome = Some(answer.as_ref().map_or_else(|error| error.kind.name(), |_| "ok"));
            }
            inner.notes.extend(reply.feedback);
            inner.journal.record(number, Entry::new(qualified, asked, &answer), self.settings.journal);
        }
        if let Some(stop) = reply.stop {
            self.end(End::Stopped(stop));
            return Outcome::Over;
        }
        Outcome::Answer(answer)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn next_number(&mut self) -> u64 {
        self.asked += 1;
        self.asked
    }
}

/// The calls of `parallel` as they are written: maps with `tool` and `args`.
fn written(arguments: &Value) -> Result<Vec<(String, Value)>, ToolError> {
    let wrong = |index: usize| {
        let text =
            format!("parallel: entry {index} is not #{{tool: \"space::name\", args: #{{...}}}}; nothing was called");
        ToolError::new(ErrorKind::InvalidArguments, text)
    };
    let calls = arguments.get("calls").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let read = |(index, call): (usize, &Value)| {
        let call = call.as_object().ok_or_else(|| wrong(index))?;
        let tool = call.get("tool").and_then(Value::as_str).ok_or_else(|| wrong(index))?;
        let arguments = match call.get("args") {
            None => json!({}),
            Some(arguments) if arguments.is_object() => arguments.clone(),
            Some(_) => return Err(wrong(index)),
        };
        if call.keys().any(|key| key != "tool" && key != "args") {
            return Err(wrong(index));
        }
        Ok((tool.to_owned(), arguments))
    };
    calls.iter().enumerate().map(read).collect()
}

fn diverged(number: u64, before: &Entry, now: &str) -> ToolError {
    let text = format!(
        "the program was run again to go on where it was, and did not ask the same: question {number} was {} and is {now} now, \
         or has other arguments. Nothing was called twice; write a new program that goes on from what is done",
        before.what()
    );
    ToolError::new(ErrorKind::Conflict, text)
}
