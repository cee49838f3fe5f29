//! What a run under the contract is told: mode, profile, identity, approvals, records.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use agent_hooks::{
    AgentContext, AgentContextBuilder, ApprovalResolver, CompositionConfig, EnforcementMode, InterceptionRecord,
};
use toolbay_api::Caller;
use toolbay_runtime::contract::{Composition, Contract};

use crate::emission::Emissions;

/// Takes each record as it is made. Called in place: an implementation queues and returns.
pub type RecordSink = Arc<dyn Fn(&InterceptionRecord) + Send + Sync>;
/// Makes of a moment what an approver may see.
pub type Redactor = Arc<dyn Fn(&AgentContext) -> AgentContext + Send + Sync>;
/// Names a moment.
pub type IdentityFn = Arc<dyn Fn(&AgentContext) -> String + Send + Sync>;

/// How records and approvals are bound to what was shown.
#[derive(Clone, Default)]
pub enum Identity {
    /// SHA-256 over the canonical JSON of the moment (`jcs-sha256`).
    #[default]
    JcsSha256,
    /// Not at all: records have no identities, and an approval is bound by its order alone.
    Unbound,
    /// By the host's own function.
    Custom {
        /// Its name in records: `[a-z][a-z0-9_-]*`, not beginning with `jcs`.
        name: String,
        /// The function. Where it panics, the moment is denied.
        function: IdentityFn,
    },
}

/// The contract with its settings: `session.with_contract(Arc::new(AgentHooks::default()))`.
///
/// Under it every hook that fails, is late or says what the contract does not know counts as a no, whatever its
/// registration says, and so does a moment at which no hook stands.
#[derive(Clone)]
pub struct AgentHooks {
    /// Whether what is settled is acted on, or only recorded.
    pub mode: EnforcementMode,
    /// How what the hooks say becomes one verdict.
    pub composition: CompositionConfig,
    /// How records and approvals are bound to what was shown.
    pub identity: Identity,
    /// Who approves what a hook [asks](toolbay_api::hook::BeforeToolCallOutcome::Ask) for; without one it stays denied.
    pub resolver: Option<Arc<dyn ApprovalResolver>>,
    /// How long the resolver may take; what is not approved by then is denied.
    pub approval_timeout: Option<Duration>,
    /// What the resolver is shown instead of the moment itself.
    pub redactor: Option<Redactor>,
    /// Where records go.
    pub records: Option<RecordSink>,
    /// The agent's id in records.
    pub agent: String,
    /// The version of the declaration document that these settings came from.
    pub declaration: Option<String>,
}

impl Default for AgentHooks {
    /// Enforced, `sequential/first_deny` that stops at an approval, `jcs-sha256`, nobody to approve, no records.
    fn default() -> Self {
        Self {
            mode: EnforcementMode::Enforce,
            composition: CompositionConfig::default(),
            identity: Identity::default(),
            resolver: None,
            approval_timeout: Some(Duration::from_secs(300)),
            redactor: None,
            records: None,
            agent: "toolbay-agent".to_owned(),
            declaration: None,
        }
    }
}

impl Contract for AgentHooks {
    fn begin(&self, caller: &Caller) -> Arc<dyn Composition> {
        let mut moments = AgentContextBuilder::new(&self.agent, "toolbay", &caller.run.to_string());
        moments.with_optional("tenant", serde_json::json!({ "id": caller.tenant.as_str() }));
        Arc::new(Emissions::new(self.clone(), moments))
    }
}

impl fmt::Debug for AgentHooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentHooks")
            .field("mode", &self.mode)
            .field("composition", &self.composition)
            .field("has_resolver", &self.resolver.is_some())
            .finish_non_exhaustive()
    }
}

/// The newest records, up to a number; a sink for tests and for hosts that look at runs one by one.
#[derive(Debug, Clone)]
pub struct Records(Arc<Buffer>);

#[derive(Debug)]
struct Buffer {
    most: usize,
    kept: Mutex<VecDeque<InterceptionRecord>>,
}

impl Records {
    /// Keeps the newest `most` records.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Buffer { most: most.max(1), kept: Mutex::default() }))
    }

    /// Where to put records.
    #[must_use]
    pub fn sink(&self) -> RecordSink {
        let buffer = Arc::clone(&self.0);
        Arc::new(move |record| {
            let mut kept = buffer.lock();
            if kept.len() >= buffer.most {
                kept.pop_front();
            }
            kept.push_back(record.clone());
        })
    }

    /// Takes what is there, the oldest first.
    #[must_use]
    pub fn take(&self) -> Vec<InterceptionRecord> {
        std::mem::take(&mut *self.0.lock()).into()
    }
}

impl Buffer {
    fn lock(&self) -> MutexGuard<'_, VecDeque<InterceptionRecord>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
