//! What a call on the road has of approvals, and what step 5 makes of it.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::{Value, json};
use toolbay_api::{CallId, ErrorKind, ToolError};
use uuid::Uuid;

use super::{Approval, AskedBy, Binds, CalledPlugin, PendingApproval, identity, subject};
use crate::{catalog::ToolEntry, clock::now_ms, road::Trip, run::Run};

/// Bytes of all reasons of one call that are shown.
const MAX_REASON: usize = 2_000;
/// Those who ask for one call that are named.
const MAX_ASKERS: usize = 16;
/// Calls inside one call that can wait at once.
const MAX_WAITING: usize = 64;

/// Somebody's wish to have a call approved.
pub(crate) struct Ask {
    pub(crate) by: AskedBy,
    pub(crate) reason: String,
}

/// A caller that can wait, with the decisions that it has; shared with the calls inside the call. Without one, what needs
/// approval is refused.
#[derive(Clone)]
pub struct Desk(Arc<Inner>);

struct Inner {
    /// The call that comes back where something waits.
    call: CallId,
    given: Mutex<Vec<Approval>>,
    waiting: Mutex<Vec<PendingApproval>>,
}

impl Desk {
    /// A desk for `call`, with what was decided about it and about calls inside it.
    #[must_use]
    pub fn new(call: CallId, given: Vec<Approval>) -> Self {
        Self(Arc::new(Inner { call, given: Mutex::new(given), waiting: Mutex::default() }))
    }

    /// The decision that counts for this, which is thereby gone.
    fn take(&self, digest: &str, subject: &str) -> Option<Approval> {
        let mut given = lock(&self.0.given);
        let counts = |approval: &Approval| match &approval.binds {
            Binds::Shown(shown) => shown == digest,
            Binds::Subject(bound) => bound == subject,
        };
        let at = given.iter().position(counts)?;
        Some(given.swap_remove(at))
    }

    /// Leaves a call that waits inside the call; says whether there was room for it.
    pub fn leave(&self, pending: PendingApproval) -> bool {
        let mut waiting = lock(&self.0.waiting);
        let has_room = waiting.len() < MAX_WAITING;
        if has_room {
            waiting.push(pending);
        }
        has_room
    }

    /// What waits inside the call.
    pub(crate) fn waiting(&self) -> Vec<PendingApproval> {
        std::mem::take(&mut lock(&self.0.waiting))
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("call", &self.0.call).finish_non_exhaustive()
    }
}

fn lock<T>(part: &Mutex<T>) -> MutexGuard<'_, T> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What becomes of a call at step 5.
pub(crate) enum Verdict {
    Go,
    Refused(ToolError),
    /// The caller is to wait.
    Waits(Box<PendingApproval>),
}

/// Step 5: `asks` are what hooks want approved, `arguments` what the tool would get.
pub(crate) fn settle(run: &Run, entry: &ToolEntry, trip: &Trip, arguments: &Value, mut asks: Vec<Ask>) -> Verdict {
    let policies = run.policies().iter();
    asks.extend(policies.clone().filter_map(|policy| policy.asks(entry, trip.is_inside())));
    if asks.is_empty() {
        return Verdict::Go;
    }
    let (reason, asked_by) = in_words(trip, &asks);
    let Some(desk) = &trip.desk else { return Verdict::Refused(needed(&reason, trip.is_inside())) };
    let now = match now_ms(run.clock()) {
        Ok(now) => now,
        Err(error) => return Verdict::Refused(error),
    };

    let (tenant, tool, plugin) = (run.tenant(), &entry.info.definition.name, called(entry));
    let mut subject = subject(tenant, tool, &plugin, arguments);
    let subject_name = identity(&subject);
    let mut arguments = arguments.clone();
    trip.redactor.value(&mut arguments);
    if let Some(fields) = subject.as_object_mut() {
        let shown = json!({ "arguments": arguments, "reason": reason, "asked_by": asked_by });
        fields.insert("shown".to_owned(), shown);
    }
    let digest = identity(&subject);

    if let Some(approval) = desk.take(&digest, &subject_name).filter(|approval| now < approval.expires_at) {
        if !run.inner().bay.spend(&approval, now) {
            let text = "this approval was used before and counts once; the call was not made";
            return Verdict::Refused(ToolError::new(ErrorKind::ApprovalRequired, text));
        }
        return match approval.rejected {
            None => Verdict::Go,
            Some(reason) => Verdict::Refused(rejected(&reason)),
        };
    }

    let time = policies.map(|policy| policy.expires_after).min().unwrap_or_default();
    let pending = PendingApproval {
        id: Uuid::new_v4(),
        tenant: tenant.clone(),
        run: run.id(),
        call: desk.0.call.clone(),
        tool: tool.clone(),
        plugin,
        arguments,
        reason,
        asked_by,
        digest,
        created_at: now,
        expires_at: now.saturating_add(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)),
    };
    if !trip.is_inside() {
        return Verdict::Waits(Box::new(pending));
    }
    let error = needed(&pending.reason, true);
    desk.leave(pending);
    Verdict::Refused(error)
}

/// The error of a call that somebody decided against.
pub(crate) fn rejected(reason: &str) -> ToolError {
    let text = format!("this call was not approved: {reason}");
    ToolError::new(ErrorKind::DeniedByHook, text)
}

fn needed(reason: &str, inside: bool) -> ToolError {
    let what = match inside {
        true => "it cannot wait for one inside another tool; call the tool by itself",
        false => "it was not made; have an operator approve it, or call it where approvals can be given",
    };
    ToolError::new(ErrorKind::ApprovalRequired, format!("this call needs approval ({reason}): {what}"))
}

/// Reasons and askers as they are shown, without secrets.
fn in_words(trip: &Trip, asks: &[Ask]) -> (String, Vec<AskedBy>) {
    let mut reason = String::new();
    for ask in asks.iter().take(MAX_ASKERS) {
        if !reason.is_empty() {
            reason.push_str("; ");
        }
        reason.push_str(&format!("{}: {}", ask.by, ask.reason));
    }
    let mut reason = trip.redactor.text(&reason).into_owned();
    if reason.len() > MAX_REASON {
        reason.truncate(reason.floor_char_boundary(MAX_REASON));
        reason.push('…');
    }
    (reason, asks.iter().take(MAX_ASKERS).map(|ask| ask.by.clone()).collect())
}

fn called(entry: &ToolEntry) -> CalledPlugin {
    let owner = &entry.owner;
    CalledPlugin {
        name: owner.name.clone(),
        version: owner.version.clone(),
        scope: owner.scope.clone(),
        content: owner.digest.as_ref().map(ToString::to_string),
    }
}
