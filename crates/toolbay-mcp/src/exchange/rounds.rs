//! Questions between two rounds of a call, and questions of a call that became a task.
//!
//! In rounds the call ends with its questions and is made again with the answers. A task cannot end so: from its beginning
//! on, whoever asks waits, and the client answers by `tasks/update`.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rmcp::model::{ClientCapabilities, InputRequest};
use serde_json::Value;
use tokio::sync::oneshot;
use toolbay_api::{Answers, ErrorKind, Question, Questions, ToolError};
use toolbay_runtime::PendingApproval;

use super::words::{answer, bad_question, input_required, request};

/// Questions of one call, over all rounds.
const MAX_QUESTIONS: usize = 32;

/// What was asked and answered in a call, over all its rounds.
#[derive(Default)]
pub(super) struct Rounds {
    /// What the client sent with this round.
    responses: BTreeMap<String, Value>,
    /// What was answered, in this round and in those before.
    pub(super) given: BTreeMap<String, Value>,
    /// What is left to be answered.
    pub(super) open: BTreeMap<String, InputRequest>,
    /// What the client would have to be able to.
    pub(super) missing: Option<ClientCapabilities>,
    /// What has to be approved first.
    pub(super) waits: Vec<PendingApproval>,
    task: Option<InTask>,
}

#[derive(Default)]
struct InTask {
    waiting: BTreeMap<String, (InputRequest, oneshot::Sender<Value>)>,
    /// Questions so far, for the bound and for names that are used once.
    asked: usize,
}

/// A question that a task waits for. Dropped, it is no longer open.
struct Asked<'a> {
    rounds: &'a Mutex<Rounds>,
    key: String,
    answer: oneshot::Receiver<Value>,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if let Some(task) = &mut lock(self.rounds).task {
            task.waiting.remove(&self.key);
        }
    }
}

impl Rounds {
    /// A round that brings `responses`, after others that brought `given`.
    pub(super) fn new(responses: BTreeMap<String, Value>, given: BTreeMap<String, Value>) -> Self {
        Self { responses, given, ..Self::default() }
    }

    /// From now on whoever asks waits. Says no where the call is about to end with questions.
    pub(super) fn go_on_in_task(&mut self) -> bool {
        let ends = !self.open.is_empty() || self.missing.is_some() || !self.waits.is_empty();
        if !ends {
            self.task = Some(InTask::default());
        }
        !ends
    }

    pub(super) fn is_in_task(&self) -> bool {
        self.task.is_some()
    }

    /// What the task waits for.
    pub(super) fn waiting(&self) -> BTreeMap<String, InputRequest> {
        let waiting = self.task.iter().flat_map(|task| &task.waiting);
        waiting.map(|(key, (request, _))| (key.clone(), request.clone())).collect()
    }

    /// Answers a question that the task waits for; there may be none of that name.
    pub(super) fn answer(&mut self, key: &str, response: Value) {
        if let Some((_, answered)) = self.task.as_mut().and_then(|task| task.waiting.remove(key)) {
            // Whoever asked may have gone.
            let _ = answered.send(response);
        }
    }

    /// What is known of the answer to a question called `name`.
    fn known(&self, name: &str, question: &Question) -> Option<(Value, toolbay_api::Answer)> {
        // What came with this round counts first: a client may correct itself.
        let raw = self.responses.get(name).or_else(|| self.given.get(name))?;
        Some((raw.clone(), answer(question, raw)?))
    }

    /// Finds the answers among those that came, or leaves the questions open.
    fn look_up(&mut self, questions: Questions) -> Result<Answers, ToolError> {
        let mut answers = Answers::new();
        for (name, question) in questions {
            match self.known(&name, &question) {
                Some((raw, answer)) => {
                    self.given.insert(name.clone(), raw);
                    answers.insert(name, answer);
                }
                None => {
                    self.open.insert(name, request(&question)?);
                }
            }
        }
        if self.open.len() + self.given.len() > MAX_QUESTIONS {
            self.open.clear();
            return Err(bad_question("there are too many of them in one call"));
        }
        if self.open.is_empty() {
            Ok(answers)
        } else {
            Err(input_required("the tool has questions to be answered first"))
        }
    }
}

/// Asks in this round, or within the task that the call has become.
///
/// # Cancel safety
/// Dropped, the questions of a task are no longer open.
pub(super) async fn ask(rounds: &Mutex<Rounds>, questions: Questions) -> Result<Answers, ToolError> {
    let mut answers = Answers::new();
    let mut left = Vec::new();
    {
        let mut all = lock(rounds);
        if !all.is_in_task() {
            return all.look_up(questions);
        }
        for (name, question) in questions {
            match all.known(&name, &question) {
                Some((_, answer)) => {
                    answers.insert(name, answer);
                }
                None => left.push((name, question)),
            }
        }
    }
    // All are open at once, and a client may answer them in any order.
    let asked: Vec<_> = left.iter().map(|(name, question)| put(rounds, name, question)).collect::<Result<_, _>>()?;
    for ((name, question), mut asked) in left.iter().zip(asked) {
        loop {
            let gone = |_| ToolError::new(ErrorKind::Cancelled, "the task ended before it was answered");
            let raw = (&mut asked.answer).await.map_err(gone)?;
            if let Some(found) = answer(question, &raw) {
                lock(rounds).given.insert(name.clone(), raw);
                answers.insert(name.clone(), found);
                break;
            }
            // No answer to this question: it is asked again, under another name, since each counts once.
            asked = put(rounds, name, question)?;
        }
    }
    Ok(answers)
}

fn put<'a>(rounds: &'a Mutex<Rounds>, name: &str, question: &Question) -> Result<Asked<'a>, ToolError> {
    let request = request(question)?;
    let (answered, answer) = oneshot::channel();
    let mut all = lock(rounds);
    let task = all.task.get_or_insert_default();
    if task.asked >= MAX_QUESTIONS {
        return Err(bad_question("there are too many of them in one call"));
    }
    task.asked += 1;
    let key = format!("{name}-{}", task.asked);
    task.waiting.insert(key.clone(), (request, answered));
    drop(all);
    Ok(Asked { rounds, key, answer })
}

pub(super) fn lock(rounds: &Mutex<Rounds>) -> MutexGuard<'_, Rounds> {
    rounds.lock().unwrap_or_else(PoisonError::into_inner)
}
