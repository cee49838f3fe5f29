//! A session: one tenant's user at the tools.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
};

use serde_json::Value;
use tokio::sync::watch;
use toolbay_api::{Caller, ErrorKind, Peer, PermissionSet, RunId, TenantId, ToolError};

use crate::{
    approval::{Approval, ApprovalPolicy, Decision, PendingApproval},
    audit::{ApprovalRecord, ApprovalStage},
    catalog::ToolInfo,
    clock::Clock,
    contract::Contract,
    meter::Meter,
    observe::{Both, Observer},
    reply::Reply,
    run::{self, Run},
    shown::{PromptInfo, ResourceInfo},
    toolbay::Toolbay,
    view::View,
};

/// What a tenant saw at some time. It is equal to another where nothing changed in between.
#[derive(Clone)]
pub struct Glimpse(Arc<View>);

impl PartialEq for Glimpse {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for Glimpse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Glimpse").finish_non_exhaustive()
    }
}

/// One tenant's user at the tools. It sees the catalog as it is at each call; a [`Run`] keeps what it began with.
#[derive(Clone)]
pub struct Session {
    toolbay: Toolbay,
    tenant: TenantId,
    user: Option<Arc<str>>,
    conversation: Option<Arc<str>>,
    rights: Arc<PermissionSet>,
    tenant_grants: Arc<PermissionSet>,
    tenant_limits: Option<Arc<toolbay_api::LimitsRequest>>,
    observer: Option<Arc<dyn Observer>>,
    contract: Option<Arc<dyn Contract>>,
    approval: Vec<Arc<ApprovalPolicy>>,
    meter: Arc<Meter>,
}

impl Session {
    pub(crate) fn new(toolbay: Toolbay, tenant: TenantId) -> Self {
        let policy = toolbay.policy();
        let meter = toolbay.meters().of(&tenant);
        Self {
            tenant_grants: policy.tenant_grants.get(&tenant).map_or_else(|| Arc::clone(&policy.any_tenant), Arc::clone),
            tenant_limits: policy.tenant_limits.get(&tenant).cloned(),
            approval: vec![Arc::clone(&policy.approval)],
            toolbay,
            tenant,
            user: None,
            conversation: None,
            rights: Arc::default(),
            observer: None,
            contract: None,
            meter,
        }
    }

    /// The tenant.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// The tenant's user, where the host named one.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The host's clock.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.toolbay.ports().clock)
    }

    /// Names the tenant's user, as the host knows it.
    #[must_use]
    pub fn with_user(mut self, user: &str) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Names the conversation.
    #[must_use]
    pub fn with_conversation(mut self, conversation: &str) -> Self {
        self.conversation = Some(conversation.into());
        self
    }

    /// Gives the user rights, which tools may require. Without any, such tools are neither seen nor called.
    #[must_use]
    pub fn with_rights(mut self, rights: PermissionSet) -> Self {
        self.rights = Arc::new(rights);
        self
    }

    /// Shows the events of the session's runs to `observer`.
    #[must_use]
    pub fn with_observer(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Shows the events to `observer` too.
    #[must_use]
    pub fn also_observed_by(mut self, observer: Arc<dyn Observer>) -> Self {
        self.observer = Some(match self.observer.take() {
            None => observer,
            Some(other) => Arc::new(Both(other, observer)),
        });
        self
    }

    /// Puts the session's runs under a public hook contract, which composes what the hooks say in place of the order that
    /// they have otherwise. Handlers of events are not under it: they belong to no run.
    #[must_use]
    pub fn with_contract(mut self, contract: Arc<dyn Contract>) -> Self {
        self.contract = Some(contract);
        self
    }

    /// Says which calls need approval, beside what the host's policy says.
    #[must_use]
    pub fn with_approval(mut self, policy: ApprovalPolicy) -> Self {
        self.approval.push(Arc::new(policy));
        self
    }

    /// Takes down what somebody decided about a call that waits, and gives what the call is presented with. `by` is who
    /// decided, as the audit is to have it.
    ///
    /// # Errors
    /// `NotFound` where the call is another tenant's.
    pub fn decide(&self, by: &str, pending: &PendingApproval, decision: &Decision) -> Result<Approval, ToolError> {
        if pending.tenant != self.tenant {
            return Err(ToolError::new(ErrorKind::NotFound, "there is no such call that waits for approval"));
        }
        if let Some(audit) = &self.toolbay.ports().audit {
            let stage = ApprovalStage::Decided { by, decision };
            audit.approval(&ApprovalRecord { user: self.user(), pending, stage });
        }
        Ok(pending.approval(decision))
    }

    /// The tools that the user may see now, in alphabetical order.
    #[must_use]
    pub fn tools(&self) -> Vec<ToolInfo> {
        self.view().tools(&self.rights, None)
    }

    /// The tool called `name`, by its qualified name or the one that providers know it by, if the user may see it.
    #[must_use]
    pub fn tool(&self, name: &str) -> Option<ToolInfo> {
        self.view().tool_info(name, &self.rights)
    }

    /// Calls one tool down the whole road. `tool` is its qualified name or the one that providers know it by.
    ///
    /// # Cancel safety
    /// Dropping the future ends the call.
    pub async fn call(&self, tool: &str, arguments: Value) -> Reply {
        self.run().call_directly(tool, arguments, None).await
    }

    /// As [`call`](Self::call), for a program that can be told of progress and asked questions. Calls that the tool makes
    /// in turn have no such program.
    ///
    /// # Cancel safety
    /// Dropping the future ends the call.
    pub async fn call_for(&self, peer: Arc<dyn Peer>, tool: &str, arguments: Value) -> Reply {
        self.run().call_directly(tool, arguments, Some(peer)).await
    }

    /// As [`call_for`](Self::call_for), by a caller that can wait for approvals: a call that needs one is not made, and comes
    /// back with [`Reply::waits`] set. It is made by calling again with what was [decided](Self::decide).
    ///
    /// # Cancel safety
    /// Dropping the future ends the call. A decision that was used by then is used.
    pub async fn call_waiting(
        &self,
        peer: Option<Arc<dyn Peer>>,
        tool: &str,
        arguments: Value,
        given: Vec<Approval>,
    ) -> Reply {
        self.run().call_waiting_directly(tool, arguments, peer, given).await
    }

    /// The prompts that the user may see now, in alphabetical order.
    #[must_use]
    pub fn prompts(&self) -> Vec<PromptInfo> {
        self.view().prompts(&self.rights)
    }

    /// The resources that the user may see now, in alphabetical order of their names.
    #[must_use]
    pub fn resources(&self) -> Vec<ResourceInfo> {
        self.view().resources(&self.rights)
    }

    /// Wakes after each change of what anybody sees; [`glimpse`](Self::glimpse) says whether it was this tenant.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.toolbay.registry().changes()
    }

    /// What the tenant sees now, to be compared with what it saw before. Two that are equal are of one catalog.
    #[must_use]
    pub fn glimpse(&self) -> Glimpse {
        Glimpse(self.view())
    }

    /// Begins a run, which sees the tools as they are now until it ends.
    #[must_use]
    pub fn run(&self) -> Run {
        self.run_as(RunId::random())
    }

    /// Goes on with a run under the id that it had, with the tools as they are now.
    #[must_use]
    pub fn run_as(&self, id: RunId) -> Run {
        let shared = self.toolbay.ports();
        // Before the view: an older generation only waits longer.
        let generation = self.toolbay.registry().generation();
        let caller = Arc::new(Caller {
            tenant: self.tenant.clone(),
            user: self.user.clone(),
            conversation: self.conversation.clone(),
            run: id,
            trace: None,
        });
        let composition = self.contract.as_ref().map(|contract| contract.begin(&caller));
        Run::new(
            generation,
            run::Inner {
                view: self.view(),
                caller,
                rights: Arc::clone(&self.rights),
                tenant_grants: Arc::clone(&self.tenant_grants),
                tenant_limits: self.tenant_limits.clone(),
                approval: self.approval.clone(),
                meter: Arc::clone(&self.meter),
                ward: Arc::clone(&shared.ward),
                kv: Arc::clone(&shared.kv),
                kv_quota: shared.kv_quota,
                clock: Arc::clone(&shared.clock),
                http: shared.http.clone(),
                deterministic: shared.deterministic,
                secrets: shared.tenant_secrets.get(&self.tenant).or(shared.secrets.as_ref()).cloned(),
                audit: shared.audit.clone(),
                observer: self.observer.clone(),
                composition,
                model: std::sync::OnceLock::new(),
                tools: std::sync::OnceLock::new(),
                calls: AtomicU64::new(0),
                bay: self.toolbay.clone(),
            },
        )
    }

    /// Calls of the tenant in flight, in all its sessions.
    #[must_use]
    pub fn calls_in_flight(&self) -> usize {
        self.meter.in_flight()
    }

    pub(crate) fn toolbay(&self) -> &Toolbay {
        &self.toolbay
    }

    fn view(&self) -> Arc<View> {
        self.toolbay.registry().view(&self.tenant)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("tenant", &self.tenant).field("user", &self.user).finish_non_exhaustive()
    }
}
