//! Runs that wait: what is kept of one while somebody decides about its calls, and how it goes on.
//!
//! Nothing of a run is left in the process that suspended it. What is kept is a value: any process with an equal registry
//! goes on with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::FutureExt;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use toolbay_api::{CallId, RunId, TenantId, ToolCall};
use toolbay_runtime::{Approval, Decision, PendingApproval, Run, RunEvent, clock::Clock, store::SuspendedRow};
use tracing::Instrument;
use uuid::Uuid;

use super::{Agent, AgentError, AgentReply, drive::Drive, stream::Outlet};
use crate::{
    code::Journal,
    record,
    stepper::{Stepper, StepperError, ToolReply},
    trace,
};

/// How often in a row the calls of one step can be asked about: a hook that makes other arguments of them each time would
/// have it go on for ever.
const MAX_ROUNDS: u32 = 8;

/// A run that waits for decisions about some of its calls.
///
/// It holds the conversation, what programs that wait were answered, and nothing that is more secret. The calls of its step that needed no approval are made, and
/// their replies are in it. Its JSON form is kept over restarts and versions: another [`FORMAT`](Self::FORMAT) is refused.
///
/// A run goes on once. Whoever keeps it sees to that by taking it out of where it is kept before going on with it, as
/// [`take_suspended`](toolbay_runtime::store::SuspendedRuns::take_suspended) does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SuspendedRun {
    format: u32,
    /// The run. It keeps its id.
    pub run: RunId,
    /// The tenant.
    pub tenant: TenantId,
    /// The tenant's user, where the host named one.
    pub user: Option<String>,
    /// What waits. Every one of them has to be decided.
    pub pending: Vec<PendingApproval>,
    /// Since when it waits, in milliseconds since 1970, UTC.
    pub suspended_at: i64,
    /// When the last of what waits is over.
    pub expires_at: i64,
    /// How long it ran until then.
    ran_ms: u64,
    /// How often the present step was suspended.
    rounds: u32,
    /// The step that they are counted for.
    step: u32,
    /// What somebody made of the arguments of calls that wait once more.
    edited: BTreeMap<String, Value>,
    /// What programs that wait were answered so far, by their calls.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    journals: BTreeMap<String, Journal>,
    stepper: Stepper,
}

impl SuspendedRun {
    /// The form in which runs are kept by this version.
    pub const FORMAT: u32 = 1;

    /// Reads a run as it was kept.
    ///
    /// # Errors
    /// [`ResumeError::Format`] where another version kept it; [`ResumeError::Damaged`].
    pub fn from_json(value: Value) -> Result<Self, ResumeError> {
        match value.get("format").and_then(Value::as_u64) {
            Some(format) if format == u64::from(Self::FORMAT) => {}
            found => return Err(ResumeError::Format { found }),
        }
        serde_json::from_value(value).map_err(|error| ResumeError::Damaged(error.to_string()))
    }

    /// The run as it is kept.
    #[must_use]
    pub fn to_json(&self) -> Value {
        // Everything in it has a JSON form, so there is none without.
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Whether what waits is a call of the model's itself, not one inside it.
    fn is_of_a_call(&self, pending: &PendingApproval) -> bool {
        let open = self.stepper.open_calls();
        let call = open.iter().find(|call| call.id == pending.call.as_str());
        call.is_some_and(|call| self.stepper.qualified(&call.name) == pending.tool.as_str())
    }

    /// The run as a store keeps it.
    #[must_use]
    pub fn to_row(&self) -> SuspendedRow {
        SuspendedRow {
            id: self.run.into(),
            tenant: self.tenant.clone(),
            user: self.user.clone(),
            suspended_at: self.suspended_at,
            expires_at: self.expires_at,
            pending: serde_json::to_value(&self.pending).unwrap_or_default(),
            state: self.to_json(),
        }
    }
}

/// What somebody decides about the calls of a [`SuspendedRun`].
///
/// ```
/// # use toolbay_agent::{Decisions, SuspendedRun};
/// # fn ask(_: &toolbay_runtime::PendingApproval) -> bool { true }
/// # fn decide(suspended: &SuspendedRun) -> Decisions {
/// suspended.pending.iter().fold(Decisions::by("ada"), |decisions, pending| match ask(pending) {
///     true => decisions.approve(pending.id),
///     false => decisions.reject(pending.id, "not today"),
/// })
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Decisions {
    /// Who decides, as the audit is to have it.
    pub by: String,
    /// By what waits.
    pub each: BTreeMap<Uuid, Decision>,
}

impl Decisions {
    /// No decisions yet.
    #[must_use]
    pub fn by(who: impl Into<String>) -> Self {
        Self { by: who.into(), each: BTreeMap::new() }
    }

    /// One more.
    #[must_use]
    pub fn decide(mut self, id: Uuid, decision: Decision) -> Self {
        self.each.insert(id, decision);
        self
    }

    /// The call is to be made as it was shown.
    #[must_use]
    pub fn approve(self, id: Uuid) -> Self {
        self.decide(id, Decision::Approve)
    }

    /// The call is not to be made; the model reads why.
    #[must_use]
    pub fn reject(self, id: Uuid, reason: impl Into<String>) -> Self {
        self.decide(id, Decision::Reject { reason: reason.into() })
    }

    /// The call is to be made with these arguments.
    #[must_use]
    pub fn edit(self, id: Uuid, arguments: Value) -> Self {
        self.decide(id, Decision::Edit { arguments })
    }
}

/// Why a run cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeError {
    /// Another version kept it.
    #[error("the run was suspended by another version of toolbay (its format is {found:?}); go on with it there")]
    Format {
        /// The format that it says it has.
        found: Option<u64>,
    },
    /// It is not what was kept.
    #[error("what is kept of the run cannot be read: {0}")]
    Damaged(String),
    /// It is another tenant's, or another user's.
    #[error("there is no such run")]
    NotFound,
    /// Nobody decided about a call.
    #[error("nothing is decided about {tool} ({id}): approve, reject or edit it")]
    Undecided {
        /// What waits.
        id: Uuid,
        /// The tool.
        tool: String,
    },
    /// A decision is about nothing that waits.
    #[error("nothing called {0} waits in this run")]
    Unknown(Uuid),
    /// The time to approve it is over.
    #[error("the time to approve {tool} ({id}) is over: it can only be rejected")]
    Expired {
        /// What waits.
        id: Uuid,
        /// The tool.
        tool: String,
    },
    /// A call inside another cannot be made with other arguments than its maker wrote.
    #[error("{tool} ({id}) is called inside another tool and cannot be edited: approve or reject it")]
    NotEditable {
        /// What waits.
        id: Uuid,
        /// The tool.
        tool: String,
    },
    /// The clock of the host.
    #[error("the host's clock is before 1970")]
    Clock,
}

/// What was decided about the open calls of a step, by their ids.
#[derive(Default)]
pub(super) struct Decided {
    given: BTreeMap<String, Vec<Approval>>,
    edited: BTreeMap<String, Value>,
    rejected: BTreeMap<String, String>,
    /// What programs that go on were answered before, and those that wait so far.
    pub(super) journals: BTreeMap<String, Journal>,
    /// All of them: they were counted when they were made first.
    pub(super) counted: BTreeSet<String>,
}

/// What a run brings along from before it was suspended.
#[derive(Clone, Copy, Default)]
pub(super) struct Before {
    pub(super) ran: Duration,
    rounds: u32,
    step: u32,
}

impl Agent {
    /// Whether [`resume`](Self::resume) would take these decisions now.
    ///
    /// # Errors
    /// [`ResumeError`], of every kind but those of reading.
    pub fn can_resume(&self, suspended: &SuspendedRun, decisions: &Decisions) -> Result<(), ResumeError> {
        let session = &self.session;
        if suspended.tenant != *session.tenant() || suspended.user.as_deref() != session.user() {
            return Err(ResumeError::NotFound);
        }
        let waits = |id: &&Uuid| suspended.pending.iter().any(|pending| pending.id == **id);
        if let Some(stranger) = decisions.each.keys().find(|id| !waits(id)) {
            return Err(ResumeError::Unknown(*stranger));
        }
        let now = now_ms(&*session.clock()).ok_or(ResumeError::Clock)?;
        for pending in &suspended.pending {
            let (id, tool) = (pending.id, pending.tool.to_string());
            match decisions.each.get(&id) {
                None => return Err(ResumeError::Undecided { id, tool }),
                Some(Decision::Reject { .. }) => {}
                Some(_) if now >= pending.expires_at => return Err(ResumeError::Expired { id, tool }),
                Some(Decision::Edit { .. }) if !suspended.is_of_a_call(pending) => {
                    return Err(ResumeError::NotEditable { id, tool });
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Goes on with a run that was suspended, here or in another process with an equal registry.
    ///
    /// What was approved takes the whole road again: hooks, schema, rights and limits say what they have to say now. An
    /// approval counts for the tool, the version of its plugin and the arguments that were shown, once and until it expires;
    /// where something else would be called, the run is suspended again with what that is. Hooks before and after the run are
    /// not asked again about its beginning, and are about its end.
    ///
    /// # Errors
    /// [`AgentError::Resume`] where the decisions do not fit, before anything is done; else as
    /// [`run_messages`](Self::run_messages).
    ///
    /// # Cancel safety
    /// As [`run_messages`](Self::run_messages). Approvals that were used by then are used.
    pub async fn resume(&self, suspended: SuspendedRun, decisions: Decisions) -> Result<AgentReply, AgentError> {
        self.silent_resume(suspended, decisions).reply().await
    }

    pub(super) async fn resume_from(
        &self,
        suspended: SuspendedRun,
        decisions: Decisions,
        outlet: Arc<Outlet>,
    ) -> Result<AgentReply, AgentError> {
        self.check_price()?;
        self.can_resume(&suspended, &decisions)?;
        let decided = self.decided(&suspended, &decisions);
        let run = outlet.watching(self.session()).run_as(suspended.run);
        // A span of its own: what went before was told when it was put away.
        let span = trace::invoke_agent(self, &run, &[]);
        let ended = self.go_on(run.clone(), suspended, decided, outlet).boxed().instrument(span.clone()).await;
        trace::run_ended(&span, &run, ended.as_ref());
        ended
    }

    async fn go_on(
        &self,
        run: Run,
        suspended: SuspendedRun,
        decided: Decided,
        outlet: Arc<Outlet>,
    ) -> Result<AgentReply, AgentError> {
        run.observe(RunEvent::RunResumed { tenant: run.tenant().clone() });
        run.name_model(self.model.id());
        match run.agent_startup().await {
            toolbay_runtime::Gate::Go(()) => {
                let SuspendedRun { ran_ms, rounds, step, mut stepper, .. } = suspended;
                if let Some(tape) = record::tape_of(&run) {
                    stepper = stepper.with_tape_again(tape);
                }
                let before = Before { ran: Duration::from_millis(ran_ms), rounds, step };
                let drive = Drive::resumed(self, run.clone(), stepper, before, decided, outlet);
                self.finish(run, drive).await
            }
            toolbay_runtime::Gate::Stop(stop) => {
                let mut stepper = suspended.stepper;
                stepper.stop(super::drive::stopped(stop));
                self.end(run, stepper, true, None, &outlet).await
            }
        }
    }

    /// Takes the decisions down and sorts them by the calls that wait.
    fn decided(&self, suspended: &SuspendedRun, decisions: &Decisions) -> Decided {
        let (edited, journals) = (suspended.edited.clone(), suspended.journals.clone());
        let mut decided = Decided { edited, journals, ..Decided::default() };
        for pending in &suspended.pending {
            let Some(decision) = decisions.each.get(&pending.id) else { continue };
            let call = pending.call.to_string();
            // The tenant was compared before, so there is none that is not given.
            let Ok(approval) = self.session.decide(&decisions.by, pending, decision) else { continue };
            decided.counted.insert(call.clone());
            match decision {
                Decision::Reject { reason } if suspended.is_of_a_call(pending) => {
                    decided.rejected.insert(call, reason.clone());
                }
                Decision::Edit { arguments } => {
                    decided.edited.insert(call.clone(), arguments.clone());
                    decided.given.entry(call).or_default().push(approval);
                }
                Decision::Approve | Decision::Reject { .. } => {
                    decided.given.entry(call).or_default().push(approval);
                }
            }
        }
        decided
    }
}

impl Drive<'_> {
    /// Whether a step's calls wait for somebody. Where they cannot, they are answered.
    pub(super) fn waits(&mut self) -> Result<bool, StepperError> {
        if self.waiting.is_empty() || self.stepper.end().is_some() {
            return Ok(false);
        }
        let rounds = if self.before.step == self.stepper.steps() { self.before.rounds } else { 0 };
        let why = if rounds >= MAX_ROUNDS {
            "it was asked about too often"
        } else if self.is_too_large() {
            "the conversation is too long to be kept until then"
        } else {
            (self.before.rounds, self.before.step) = (rounds + 1, self.stepper.steps());
            return Ok(true);
        };
        let calls: BTreeSet<CallId> = self.waiting.drain(..).map(|pending| pending.call).collect();
        for call in calls {
            self.stepper.tool_replied(ToolReply {
                call_id: call.to_string(),
                text: self.given_up(call.as_str(), why),
                is_error: true,
                needs_repair: false,
            })?;
        }
        Ok(false)
    }

    fn is_too_large(&self) -> bool {
        let bytes = |value: Result<usize, serde_json::Error>| value.unwrap_or(usize::MAX);
        let stepper = bytes(serde_json::to_vec(&self.stepper).map(|text| text.len()));
        let pending = bytes(serde_json::to_vec(&self.waiting).map(|text| text.len()));
        let journals = bytes(serde_json::to_vec(&self.decided.journals).map(|text| text.len()));
        stepper.saturating_add(pending).saturating_add(journals).saturating_add(1_000)
            > self.agent.config.max_suspended_bytes
    }

    /// The run as it is kept, where it waits.
    pub(super) fn suspended(&mut self) -> Option<SuspendedRun> {
        if self.waiting.is_empty() || self.stepper.end().is_some() {
            return None;
        }
        let pending = std::mem::take(&mut self.waiting);
        let mut edited = std::mem::take(&mut self.decided.edited);
        let waits = |call: &String| pending.iter().any(|pending| pending.call.as_str() == call);
        edited.retain(|call, _| waits(call));
        let mut journals = std::mem::take(&mut self.decided.journals);
        journals.retain(|call, _| waits(call));
        let ran = self.before.ran.saturating_add(self.started.elapsed());
        Some(SuspendedRun {
            format: SuspendedRun::FORMAT,
            run: self.run.id(),
            tenant: self.run.tenant().clone(),
            user: self.agent.session.user().map(str::to_owned),
            suspended_at: pending.iter().map(|pending| pending.created_at).max().unwrap_or_default(),
            expires_at: pending.iter().map(|pending| pending.expires_at).max().unwrap_or_default(),
            pending,
            ran_ms: u64::try_from(ran.as_millis()).unwrap_or(u64::MAX),
            rounds: self.before.rounds,
            step: self.before.step,
            edited,
            journals,
            stepper: self.stepper.clone(),
        })
    }

    /// The calls that are to be made, as somebody decided; those that are not are answered.
    pub(super) fn as_decided(&mut self, calls: Vec<ToolCall>) -> Result<Vec<ToolCall>, StepperError> {
        let mut made = Vec::with_capacity(calls.len());
        for mut call in calls {
            if let Some(reason) = self.decided.rejected.remove(&call.id) {
                self.stepper.tool_replied(ToolReply {
                    call_id: call.id,
                    text: format!("not called: this call was not approved: {reason}"),
                    is_error: true,
                    needs_repair: false,
                })?;
                continue;
            }
            if let Some(arguments) = self.decided.edited.get(&call.id) {
                call.arguments.clone_from(arguments);
            }
            made.push(call);
        }
        Ok(made)
    }

    /// The approvals that a call has.
    pub(super) fn given(&mut self, call: &str) -> Vec<Approval> {
        self.decided.given.remove(call).unwrap_or_default()
    }

    /// A reply as the model reads it: where somebody edited the call, it is told so, or it would take the result for that
    /// of its own arguments.
    pub(super) fn told_of_edit(&mut self, call: &str, text: String) -> String {
        match self.decided.edited.remove(call) {
            None => text,
            Some(arguments) => format!("(whoever approved this call changed its arguments to {arguments})\n{text}"),
        }
    }
}

fn now_ms(clock: &dyn Clock) -> Option<i64> {
    let since = clock.now().duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}
