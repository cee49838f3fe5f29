//! A run: one tenant's tools as they were when it began, until it ends.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use serde_json::Value;
use toolbay_api::{
    CallId, Caller, ErrorKind, HookPoint, HttpSend, Limits, LoadError, Peer, PermissionSet, Plugin, RunId, Scope,
    SecretProvider, TenantId, ToolCall, ToolContext, ToolError, ToolFunction,
};

use crate::{
    approval::{Approval, ApprovalPolicy, Desk},
    audit::AuditSink,
    catalog::{Owner, ToolInfo},
    clock::Clock,
    contract::Composition,
    generation::Generation,
    guarded::now,
    kv::{KvQuota, KvStore},
    meter::Meter,
    observe::{Observer, RunEvent},
    outcomes::{CallKey, Once, Outcomes},
    quarantine::Ward,
    recorded::{Seen, StandIn},
    reply::Reply,
    road::{self, Trip},
    toolbay::Toolbay,
    view::View,
};

/// One run of an agent, or one direct call. It sees one generation of the catalog from start to end. Cheap to clone.
#[derive(Clone)]
pub struct Run {
    inner: Arc<Inner>,
    /// Held until the run ends: what it may see is not stopped before that.
    generation: Arc<Generation>,
}

/// A run as what is called in it knows it: it keeps nothing from being stopped. A script that is left where it stands and
/// a thread that never comes back hold one for ever.
pub(crate) struct WeakRun {
    inner: Arc<Inner>,
    generation: Weak<Generation>,
}

impl WeakRun {
    /// The run, while it goes on.
    ///
    /// # Errors
    /// `Cancelled`.
    pub(crate) fn upgrade(&self) -> Result<Run, ToolError> {
        match self.generation.upgrade() {
            Some(generation) => Ok(Run { inner: Arc::clone(&self.inner), generation }),
            None => Err(ToolError::new(ErrorKind::Cancelled, "the run that this belongs to has ended")),
        }
    }

    pub(crate) fn tenant(&self) -> &TenantId {
        &self.inner.caller.tenant
    }

    pub(crate) fn view(&self) -> &View {
        &self.inner.view
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }
}

pub(crate) struct Inner {
    pub(crate) view: Arc<View>,
    pub(crate) caller: Arc<Caller>,
    pub(crate) rights: Arc<PermissionSet>,
    pub(crate) tenant_grants: Arc<PermissionSet>,
    pub(crate) tenant_limits: Option<Arc<toolbay_api::LimitsRequest>>,
    pub(crate) approval: Vec<Arc<ApprovalPolicy>>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) ward: Arc<Ward>,
    pub(crate) kv: Arc<dyn KvStore>,
    pub(crate) kv_quota: KvQuota,
    pub(crate) outcomes: Option<Outcomes>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) http: Option<Arc<dyn HttpSend>>,
    /// The tenant's own, else those for everybody.
    pub(crate) secrets: Option<Arc<dyn SecretProvider>>,
    pub(crate) deterministic: bool,
    pub(crate) audit: Option<Arc<dyn AuditSink>>,
    pub(crate) observer: Option<Arc<dyn Observer>>,
    /// What recordings of the run must not have.
    pub(crate) seen: Seen,
    pub(crate) stand_in: Option<Arc<dyn StandIn>>,
    /// The hook contract that the run is under.
    pub(crate) composition: Option<Arc<dyn Composition>>,
    pub(crate) model: std::sync::OnceLock<String>,
    pub(crate) tools: std::sync::OnceLock<Vec<ToolInfo>>,
    pub(crate) calls: AtomicU64,
    pub(crate) bay: Toolbay,
}

impl Run {
    pub(crate) fn new(generation: Arc<Generation>, inner: Inner) -> Self {
        Self { inner: Arc::new(inner), generation }
    }

    /// For what is called in the run.
    pub(crate) fn downgrade(&self) -> WeakRun {
        WeakRun { inner: Arc::clone(&self.inner), generation: Arc::downgrade(&self.generation) }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> RunId {
        self.inner.caller.run
    }

    /// The tenant.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        &self.inner.caller.tenant
    }

    /// Says which model the run is with, for records. The first word counts.
    pub fn name_model(&self, model: &str) {
        let _ = self.inner.model.set(model.to_owned());
    }

    /// The tools that the user may see and call from outside of plugins, in alphabetical order.
    #[must_use]
    pub fn tools(&self) -> &[ToolInfo] {
        self.inner.tools.get_or_init(|| self.inner.view.tools(&self.inner.rights, None))
    }

    /// Takes one tool call down the road. `call.name` is the tool's qualified name or the one that providers know it by.
    ///
    /// A failed tool is a reply: its error is in it, and so is a hook's wish to end the run.
    ///
    /// # Cancel safety
    /// Dropping the future ends the call: its permit is given back, the plugin's future is dropped.
    pub async fn call(&self, step: u32, call: ToolCall) -> Reply {
        road::travel(self, self.trip(step, call, false)).await
    }

    fn trip(&self, step: u32, call: ToolCall, is_retry: bool) -> Trip {
        let ToolCall { id, name, arguments } = call;
        let id = CallId::new(id);
        let once = Once { key: CallKey::of(self.tenant(), self.id(), &id), is_retry };
        Trip::from_outside(step, id, name, arguments).once(once)
    }

    /// Forgets in the host's ledger of outcomes what became of the run's calls, since the run is over. Without this they are
    /// kept for as long as the ledger keeps calls.
    pub async fn forget_outcomes(&self) {
        let Some(outcomes) = &self.inner.outcomes else { return };
        if let Err(error) = outcomes.ledger.forget(self.tenant(), self.id()).await {
            let (tenant, run) = (self.tenant(), self.id());
            tracing::debug!(target: "toolbay::outcomes", %tenant, %run, %error, "a run's outcomes are kept until they expire");
        }
    }

    /// Takes a call down the road that is made inside of another, on behalf of whoever made that one: as the run's own call,
    /// one level deeper, and over when `outer` is. For the tools of a host that make calls in the model's place.
    ///
    /// Decisions are taken from the outer call's `desk`. A call that needs one comes back with [`Reply::waits`] set, as the run's
    /// own does; whoever made it leaves that at the desk, for the outer call to come back with.
    ///
    /// A failed tool is a reply, as with [`call`](Self::call). How deep calls may lie within one another is for the caller to
    /// keep, by [`Limits::max_call_chain`].
    ///
    /// # Cancel safety
    /// As [`call`](Self::call).
    pub async fn call_within(&self, outer: &ToolContext, desk: &Desk, step: u32, call: ToolCall) -> Reply {
        let ToolCall { id, name, arguments } = call;
        let depth = outer.depth().saturating_add(1);
        let trip = Trip {
            depth,
            deadline: Some(outer.deadline()),
            parent: Some(outer.call().clone()),
            desk: Some(desk.clone()),
            ..Trip::from_outside(step, CallId::new(id), name, arguments)
        };
        road::travel(self, trip).await
    }

    /// Compiles a program for the run's tenant: a script that is run from top to bottom, with `functions` for tools. It runs
    /// where the tenant's own plugins do, within `limits`, as the tool `code` without parameters of the plugin that is given.
    /// That is registered nowhere, and its tool is called with whatever host the caller makes for it.
    ///
    /// # Errors
    /// `Compile` with line and column; else as loading a plugin.
    ///
    /// # Cancel safety
    /// Dropping the future compiles nothing.
    pub async fn program(
        &self,
        file_name: &str,
        source: &str,
        functions: &[ToolFunction],
        limits: &Limits,
    ) -> Result<Arc<dyn Plugin>, LoadError> {
        self.inner.bay.program(Scope::Tenant(self.tenant().clone()), file_name, source, functions, limits).await
    }

    /// As [`call`](Self::call), by a caller that can wait for approvals: a call that needs one is not made, and comes back
    /// with [`Reply::waits`] set. It is made by calling again with what was decided. `peer` is told of the call's progress.
    ///
    /// # Cancel safety
    /// As [`call`](Self::call). A decision that was used by then is used.
    pub async fn call_waiting(
        &self,
        step: u32,
        call: ToolCall,
        given: Vec<Approval>,
        peer: Option<Arc<dyn Peer>>,
    ) -> Reply {
        let desk = Desk::new(CallId::new(call.id.as_str()), given);
        self.call_at(&desk, step, call, peer).await
    }

    /// As [`call_waiting`](Self::call_waiting), with the decisions at a desk that [`call_within`](Self::call_within) is given
    /// too.
    ///
    /// # Cancel safety
    /// As [`call_waiting`](Self::call_waiting).
    pub async fn call_at(&self, desk: &Desk, step: u32, call: ToolCall, peer: Option<Arc<dyn Peer>>) -> Reply {
        road::travel(self, self.trip(step, call, false).for_peer(peer).at(desk.clone())).await
    }

    /// Makes a call once more that failed, under the same idempotency key: all of the road, with its hooks and its record. A
    /// failure that the host's [ledger](crate::outcomes) knows is the answer to [`call`](Self::call), and here a reason to
    /// call the tool again, where that is idempotent and the error one that can pass. Where it needs approval, it needs it
    /// anew.
    ///
    /// # Cancel safety
    /// As [`call`](Self::call).
    pub async fn call_again(&self, step: u32, call: ToolCall, peer: Option<Arc<dyn Peer>>) -> Reply {
        let desk = Desk::new(CallId::new(call.id.as_str()), Vec::new());
        road::travel(self, self.trip(step, call, true).for_peer(peer).at(desk)).await
    }

    /// Takes a call that has no id yet down the road.
    pub(crate) async fn call_directly(&self, name: &str, arguments: Value, peer: Option<Arc<dyn Peer>>) -> Reply {
        let call = self.next_call_id();
        road::travel(self, Trip::from_outside(0, call, name.to_owned(), arguments).for_peer(peer)).await
    }

    /// The same, by a caller that can wait for approvals.
    pub(crate) async fn call_waiting_directly(
        &self,
        name: &str,
        arguments: Value,
        peer: Option<Arc<dyn Peer>>,
        given: Vec<Approval>,
    ) -> Reply {
        let call = self.next_call_id();
        let desk = Desk::new(call.clone(), given);
        let trip = Trip::from_outside(0, call, name.to_owned(), arguments).for_peer(peer).at(desk);
        road::travel(self, trip).await
    }

    /// An id for a call that its maker gave none: its number within the run.
    pub(crate) fn next_call_id(&self) -> CallId {
        let number = self.inner.calls.fetch_add(1, Ordering::Relaxed) + 1;
        CallId::new(format!("call-{number}"))
    }

    /// Whether somebody looks at the run's events, so that making one is worth its cost.
    #[must_use]
    pub fn is_observed(&self) -> bool {
        self.inner.observer.as_ref().is_some_and(|observer| observer.is_watching())
    }

    /// Whether hooks stand at `point`, or a hook contract does.
    #[must_use]
    pub fn has_hooks_at(&self, point: HookPoint) -> bool {
        self.inner.composition.is_some() || !self.inner.view.hooks(point).is_empty()
    }

    /// Waits until whoever looks can take more.
    pub(crate) async fn await_room(&self) {
        if let Some(room) = self.inner.observer.as_ref().and_then(|observer| observer.room()) {
            room.await;
        }
    }

    /// Shows an event to whoever looks.
    pub fn observe(&self, event: RunEvent) {
        if let Some(observer) = &self.inner.observer {
            observer.observe(self.id(), &event);
        }
    }

    /// Counts a call that used more than it may, and says so where the plugin goes into quarantine for it.
    pub(crate) fn note_breach(&self, owner: &Owner, error: &ToolError) {
        let (tenant, plugin) = (self.tenant(), &owner.name);
        let Some(duration) = self.inner.ward.note(tenant, plugin, error, now()) else { return };
        tracing::warn!(target: "toolbay::quarantine", %tenant, %plugin, cause = %error, "in quarantine");
        let cause = error.to_string();
        self.inner.bay.announce_quarantine(tenant, owner, &cause);
        self.observe(RunEvent::PluginQuarantined { plugin: plugin.clone(), seconds: duration.as_secs(), cause });
    }

    /// Whether spans say what was said, asked and answered.
    #[must_use]
    pub fn traces_content(&self) -> bool {
        self.inner.bay.ports().trace_content
    }

    /// The conversation that the run belongs to, where the host knows one.
    #[must_use]
    pub fn conversation(&self) -> Option<&str> {
        self.inner.caller.conversation.as_deref()
    }

    /// The host's clock.
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        &*self.inner.clock
    }

    pub(crate) fn model(&self) -> &str {
        self.inner.model.get().map_or("unknown", String::as_str)
    }

    /// The policies that say which calls need approval.
    pub(crate) fn policies(&self) -> &[Arc<ApprovalPolicy>] {
        &self.inner.approval
    }

    pub(crate) fn composition(&self) -> Option<&dyn Composition> {
        self.inner.composition.as_deref()
    }

    pub(crate) fn caller(&self) -> &Arc<Caller> {
        &self.inner.caller
    }

    pub(crate) fn view(&self) -> &View {
        &self.inner.view
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").field("caller", &self.inner.caller).finish_non_exhaustive()
    }
}
