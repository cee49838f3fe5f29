//! Calls that go on after they were answered: the extension `io.modelcontextprotocol/tasks` (SEP-2663).
//!
//! `rmcp` has a manager of tasks too. This one stands in its place since tasks here have owners, to whom alone they exist,
//! bounds for each tenant, and a call underneath that is ended by being dropped, as everywhere in Toolbay.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use chrono::{DateTime, SecondsFormat, Utc};
use rmcp::{
    ErrorData,
    model::{DetailedTask, InputResponses, JsonObject, Task, TaskPayload, TaskStatus},
};
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use toolbay_api::TenantId;
use uuid::Uuid;

use crate::{exchange::Exchange, options::TaskOptions, owner::Owner};

/// Characters of what a task says of itself.
const MAX_MESSAGE: usize = 500;

/// The tasks of a server.
pub(crate) struct Tasks {
    options: TaskOptions,
    // std's Mutex, not tokio's: nothing is awaited while it is held.
    known: Mutex<Known>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

#[derive(Default)]
struct Known {
    tasks: HashMap<String, One>,
    tenants: HashMap<TenantId, Count>,
    /// Those that have ended, the first first.
    ended: VecDeque<(Instant, String)>,
}

#[derive(Default)]
struct Count {
    tasks: usize,
    bytes: usize,
}

struct One {
    owner: Owner,
    exchange: Arc<Exchange>,
    cancel: CancellationToken,
    since: Instant,
    created_at: SystemTime,
    updated_at: SystemTime,
    message: Option<String>,
    end: Option<End>,
}

struct End {
    at: Instant,
    payload: TaskPayload,
    bytes: usize,
}

/// What a task that is over came to.
pub(crate) enum Outcome<T> {
    Result(T),
    Error(ErrorData),
    Cancelled,
}

/// A task that runs. Where it is dropped without an end it has failed.
pub(crate) struct Running {
    tasks: Arc<Tasks>,
    id: String,
    cancel: CancellationToken,
    has_ended: bool,
}

impl Tasks {
    /// `stop` cancels all of them.
    pub(crate) fn new(options: TaskOptions, stop: CancellationToken) -> Self {
        Self { options, known: Mutex::default(), tracker: TaskTracker::new(), stop }
    }

    /// How long a call may take before it becomes one.
    pub(crate) fn after(&self) -> Duration {
        self.options.after
    }

    /// Whether no tool is for clients that know tasks only.
    pub(crate) fn require_nothing(&self) -> bool {
        self.options.required.is_empty()
    }

    /// Whether the tool is for clients that know tasks only.
    pub(crate) fn are_required_for(&self, tool: &str) -> bool {
        self.options.required.contains(tool)
    }

    /// Makes a running call a task, which can be asked for from now on. `None` where there is no room, or the call has just
    /// come to an end that is none for a task.
    pub(crate) fn begin(self: &Arc<Self>, owner: &Owner, exchange: &Arc<Exchange>) -> Option<(Task, Running)> {
        let mut known = self.known();
        known.forget(self.options.keep);
        let count = known.tenants.get(&owner.tenant).map_or(0, |count| count.tasks);
        let is_full = count >= self.options.max_per_tenant || known.tasks.len() >= self.options.max_total;
        if is_full || self.stop.is_cancelled() || !exchange.goes_on_in_task() {
            return None;
        }
        let (id, cancel, now) = (Uuid::new_v4().simple().to_string(), self.stop.child_token(), SystemTime::now());
        let one = One {
            owner: owner.clone(),
            exchange: Arc::clone(exchange),
            cancel: cancel.clone(),
            since: Instant::now(),
            created_at: now,
            updated_at: now,
            message: None,
            end: None,
        };
        let task = self.described(&id, &one).task;
        known.tasks.insert(id.clone(), one);
        known.tenants.entry(owner.tenant.clone()).or_default().tasks += 1;
        Some((task, Running { tasks: Arc::clone(self), id, cancel, has_ended: false }))
    }

    /// Runs what is left of a call. It is waited for when the server ends.
    pub(crate) fn spawn(&self, rest: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(rest);
    }

    /// How the task is.
    ///
    /// # Errors
    /// Invalid parameters where the owner has no such task.
    pub(crate) fn get(&self, owner: &Owner, id: &str) -> Result<DetailedTask, ErrorData> {
        let mut known = self.known();
        Ok(self.described(id, known.own(owner, id, self.options.keep)?))
    }

    /// Answers questions of the task. What is none of its open questions is passed over.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(crate) fn update(&self, owner: &Owner, id: &str, responses: InputResponses) -> Result<(), ErrorData> {
        let mut known = self.known();
        let one = known.own(owner, id, self.options.keep)?;
        one.updated_at = SystemTime::now();
        let exchange = Arc::clone(&one.exchange);
        drop(known);
        for (key, response) in responses {
            exchange.answer(&key, response);
        }
        Ok(())
    }

    /// Cancels the task's call; one that is over stays as it is.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub(crate) fn cancel(&self, owner: &Owner, id: &str) -> Result<(), ErrorData> {
        self.known().own(owner, id, self.options.keep)?.cancel.cancel();
        Ok(())
    }

    /// Waits for those that run, takes no more, and cancels what is left when `patience` ends.
    pub(crate) async fn end(&self, patience: impl Future<Output = ()>) {
        /// For calls that were cancelled to be put on record.
        const LAST_WORDS: Duration = Duration::from_secs(1);

        self.tracker.close();
        tokio::select! {
            () = self.tracker.wait() => {}
            () = patience => {}
        }
        self.stop.cancel();
        let _ = tokio::time::timeout(LAST_WORDS, self.tracker.wait()).await;
    }

    fn described(&self, id: &str, one: &One) -> DetailedTask {
        let requests = one.exchange.open_requests();
        let payload = match &one.end {
            Some(end) => end.payload.clone(),
            None if requests.is_empty() => TaskPayload::Working,
            None => TaskPayload::InputRequired { input_requests: requests },
        };
        let mut task = Task::new(id, TaskStatus::Working, rfc3339(one.created_at), rfc3339(one.updated_at));
        task.status_message.clone_from(&one.message);
        // From its making on, as the protocol has it: it grows for as long as the task runs.
        let lived = one.end.as_ref().map_or_else(|| one.since.elapsed(), |end| end.at - one.since);
        task.ttl_ms = Some(milliseconds(lived + self.options.keep));
        task.poll_interval_ms = Some(milliseconds(self.options.poll_interval).max(1));
        DetailedTask::new(task, payload)
    }

    fn settle(&self, id: &str, mut payload: TaskPayload, mut bytes: usize) {
        let mut known = self.known();
        let Known { tasks, tenants, ended } = &mut *known;
        let Some(one) = tasks.get_mut(id).filter(|one| one.end.is_none()) else { return };
        let count = tenants.entry(one.owner.tenant.clone()).or_default();
        if count.bytes.saturating_add(bytes) > self.options.max_kept_bytes {
            let message = "the call ended, and its result is too large to be kept beside those of other tasks; ask for less \
                           at once, or wait until they are forgotten";
            (payload, bytes) = (TaskPayload::Failed { error: object(&ErrorData::internal_error(message, None)) }, 0);
        }
        count.bytes += bytes;
        let now = Instant::now();
        one.updated_at = SystemTime::now();
        one.end = Some(End { at: now, payload, bytes });
        ended.push_back((now, id.to_owned()));
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn own(&mut self, owner: &Owner, id: &str, keep: Duration) -> Result<&mut One, ErrorData> {
        self.forget(keep);
        // Another's and one that never was look the same.
        let own = self.tasks.get_mut(id).filter(|one| one.owner == *owner);
        own.ok_or_else(|| ErrorData::invalid_params("there is no such task, or it ended too long ago", None))
    }

    /// Forgets what ended too long ago.
    fn forget(&mut self, keep: Duration) {
        while let Some((at, _)) = self.ended.front()
            && at.elapsed() >= keep
        {
            let Some(one) = self.ended.pop_front().and_then(|(_, id)| self.tasks.remove(&id)) else { continue };
            let Some(count) = self.tenants.get_mut(&one.owner.tenant) else { continue };
            count.tasks -= 1;
            count.bytes -= one.end.map_or(0, |end| end.bytes);
            if count.tasks == 0 {
                self.tenants.remove(&one.owner.tenant);
            }
        }
    }
}

impl Running {
    /// Resolves when the call is to end.
    pub(crate) async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }

    /// Takes down how far the call is.
    pub(crate) fn say(&self, message: &str) {
        if let Some(one) = self.tasks.known().tasks.get_mut(&self.id) {
            one.message = Some(message.chars().take(MAX_MESSAGE).collect());
            one.updated_at = SystemTime::now();
        }
    }

    /// The task's end.
    pub(crate) fn end(mut self, outcome: Outcome<impl Serialize>) {
        self.has_ended = true;
        let payload = match outcome {
            Outcome::Cancelled => TaskPayload::Cancelled,
            Outcome::Error(error) => TaskPayload::Failed { error: object(&error) },
            Outcome::Result(result) => TaskPayload::Completed { result: object(&result) },
        };
        let bytes = match &payload {
            TaskPayload::Completed { result } => serde_json::to_string(result).map_or(0, |text| text.len()),
            _ => 0,
        };
        self.tasks.settle(&self.id, payload, bytes);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.has_ended {
            let error = ErrorData::internal_error("the call ended without a result; tell the operator", None);
            self.tasks.settle(&self.id, TaskPayload::Failed { error: object(&error) }, 0);
        }
    }
}

fn object(value: &impl Serialize) -> JsonObject {
    match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => fields,
        _ => JsonObject::new(),
    }
}

fn rfc3339(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Millis, true)
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
