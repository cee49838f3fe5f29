//! Settings and hooks from a host declaration document (`agent-hooks-declaration/1.0`).
//!
//! The document names kinds, resolvers, redactors and identities that the host has registered here in code; what it says is
//! checked by the contract's own loader before anything is made of it.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use agent_hooks::{
    AgentContext, ApprovalRequest, ApprovalResolution, ApprovalResolver, DeclarationError, DeclarationErrorClass,
    HostDeclaration, HostRegistry, HostSurface, InterceptionPoint, JCS_SHA256, KindResolver,
    declaration::{RegistryError, ResolvedBinding, ResolvedDeclaration, ToolSeamPosture, resolve},
};
use serde_json::Value;
use toolbay_api::{
    HookPoint, HookRegistration, async_trait,
    hook::{Hook, Lifecycle, ToolMatcher},
};

use crate::settings::{AgentHooks, Identity, IdentityFn, Records, Redactor};

/// What Toolbay can do, in the contract's words.
pub const CAPABILITIES: [&str; 4] = ["host_declaration", "int64_json", "model_calls", "tool_calls"];

/// The longest buffer of records that a declaration gets, whatever it asks for.
const MAX_RECORDS: usize = 100_000;

/// Makes a hook of a binding's configuration, or says what is wrong with it. The text must not repeat the configuration.
pub type Kind = Box<dyn Fn(&Value, &Binding<'_>) -> Result<Arc<dyn Hook>, String> + Send + Sync>;

/// What a kind is told of the binding that it makes a hook for.
#[derive(Debug, Clone, Copy)]
pub struct Binding<'a> {
    /// Its id, which becomes the hook's name.
    pub id: &'a str,
    /// Its place in the document, from 0.
    pub index: usize,
}

/// What a host has registered for documents to name.
pub struct Host {
    names: HostRegistry,
    kinds: BTreeMap<String, Kind>,
    identities: BTreeMap<String, IdentityFn>,
    resolvers: BTreeMap<String, Arc<dyn ApprovalResolver>>,
    redactors: BTreeMap<String, Redactor>,
}

/// What a document came to: put the session under the contract and register the hooks, in their order.
#[derive(Debug)]
pub struct Declared {
    /// The settings.
    pub contract: AgentHooks,
    /// One hook for each binding, the first first.
    pub hooks: Vec<HookRegistration>,
    /// The newest records, as many as the document wants kept.
    pub records: Records,
    /// The document with every default filled in.
    pub resolved: ResolvedDeclaration,
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// A host that has registered nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::with_names(HostRegistry::new(Self::surface()))
    }

    /// The same for the contract's conformance kit, whose kinds have a name that is reserved for it.
    #[must_use]
    pub fn for_conformance() -> Self {
        Self::with_names(HostRegistry::for_conformance(Self::surface()))
    }

    /// What Toolbay can do: all eight points, all profiles; tool failures go to the model and the run goes on; answers are
    /// held until they are whole.
    #[must_use]
    pub fn surface() -> HostSurface {
        HostSurface::from_capabilities(CAPABILITIES.map(str::to_owned), ToolSeamPosture::Continue)
    }

    fn with_names(names: HostRegistry) -> Self {
        let (kinds, identities) = (BTreeMap::new(), BTreeMap::new());
        Self { names, kinds, identities, resolvers: BTreeMap::new(), redactors: BTreeMap::new() }
    }

    /// Registers a kind of binding.
    ///
    /// # Errors
    /// A name that the contract's grammar does not allow, or that is taken.
    pub fn kind(mut self, name: &str, kind: Kind) -> Result<Self, RegistryError> {
        // The registry holds the names; the hooks are made here, since they are Toolbay's and not its own.
        let never: KindResolver = Box::new(|_, _| Err("made by Toolbay".to_owned()));
        self.names = self.names.kind(name, never)?;
        self.kinds.insert(name.to_owned(), kind);
        Ok(self)
    }

    /// Registers a function that names moments.
    ///
    /// # Errors
    /// As [`kind`](Self::kind).
    pub fn identity(
        mut self,
        name: &str,
        function: impl Fn(&AgentContext) -> String + Send + Sync + 'static,
    ) -> Result<Self, RegistryError> {
        let function: IdentityFn = Arc::new(function);
        let registered = Arc::clone(&function);
        self.names = self.names.identity_provider(name, move |context| registered(context))?;
        self.identities.insert(name.to_owned(), function);
        Ok(self)
    }

    /// Registers who approves.
    ///
    /// # Errors
    /// As [`kind`](Self::kind).
    pub fn resolver(mut self, name: &str, resolver: Arc<dyn ApprovalResolver>) -> Result<Self, RegistryError> {
        self.names = self.names.approval_resolver(name, Box::new(Shared(Arc::clone(&resolver))))?;
        self.resolvers.insert(name.to_owned(), resolver);
        Ok(self)
    }

    /// Registers what approvers are shown.
    ///
    /// # Errors
    /// As [`kind`](Self::kind).
    pub fn redactor(
        mut self,
        name: &str,
        redactor: impl Fn(&AgentContext) -> AgentContext + Send + Sync + 'static,
    ) -> Result<Self, RegistryError> {
        let redactor: Redactor = Arc::new(redactor);
        let registered = Arc::clone(&redactor);
        self.names = self.names.approval_redactor(name, move |context| registered(context))?;
        self.redactors.insert(name.to_owned(), redactor);
        Ok(self)
    }

    /// The names that a document can use, for those who check documents themselves.
    #[must_use]
    pub fn names(&self) -> &HostRegistry {
        &self.names
    }

    /// Makes settings and hooks of a document: `HostDeclaration::from_path`, `from_json` and `from_value` read one.
    ///
    /// # Errors
    /// What the contract's loader refuses; a kind that refuses its configuration.
    pub fn load(&self, document: &HostDeclaration) -> Result<Declared, DeclarationError> {
        let resolved = resolve(document, self.names.surface(), &self.names.names())?;
        let hooks = resolved.bindings.iter().enumerate().map(|(index, binding)| self.hook(index, binding));
        let hooks = hooks.collect::<Result<Vec<_>, _>>()?;
        let configuration = &resolved.configuration;
        let unresolved = |pointer: &str, name: &str| {
            DeclarationError::new(
                DeclarationErrorClass::ReferenceUnresolved,
                pointer,
                format!("{name:?} is not registered"),
            )
        };
        let identity = match configuration.identity_provider.as_deref() {
            None => Identity::Unbound,
            Some(JCS_SHA256) => Identity::JcsSha256,
            Some(name) => {
                let function = self.identities.get(name).map(Arc::clone);
                let function = function.ok_or_else(|| unresolved("/configuration/identity_provider", name))?;
                Identity::Custom { name: name.to_owned(), function }
            }
        };
        let resolver = configuration.approval.resolver.as_deref().map(|name| {
            let resolver = self.resolvers.get(name).map(Arc::clone);
            resolver.ok_or_else(|| unresolved("/configuration/approval/resolver", name))
        });
        let redactor = configuration.approval.redactor.as_deref().map(|name| {
            let redactor = self.redactors.get(name).map(Arc::clone);
            redactor.ok_or_else(|| unresolved("/configuration/approval/redactor", name))
        });
        let most = configuration
            .records
            .max_buffered
            .map_or(MAX_RECORDS, |most| usize::try_from(most).unwrap_or(MAX_RECORDS).min(MAX_RECORDS));
        let records = Records::new(most);
        let contract = AgentHooks {
            mode: configuration.mode,
            composition: configuration.composition,
            identity,
            resolver: resolver.transpose()?,
            approval_timeout: configuration.timeouts.approval_resolver_ms.map(Duration::from_millis),
            redactor: redactor.transpose()?,
            records: Some(records.sink()),
            declaration: Some(resolved.declaration.clone()),
            ..AgentHooks::default()
        };
        Ok(Declared { contract, hooks, records, resolved })
    }

    fn hook(&self, index: usize, binding: &ResolvedBinding) -> Result<HookRegistration, DeclarationError> {
        let ResolvedBinding { id, kind, config, at, timeout_ms } = binding;
        let refuse = |class, detail: String| DeclarationError::new(class, format!("/bindings/{index}"), detail);
        let make = self.kinds.get(kind);
        let make =
            make.ok_or_else(|| refuse(DeclarationErrorClass::KindUnknown, format!("{kind:?} is not registered")))?;
        let hook = make(config, &Binding { id, index })
            .map_err(|problem| refuse(DeclarationErrorClass::BindingRejected, format!("{id}: {problem}")))?;
        Ok(HookRegistration {
            name: id.as_str().into(),
            points: at.iter().copied().filter_map(point_of).collect(),
            // The order of the document, whatever is registered in what order.
            priority: i32::try_from(index).unwrap_or(i32::MAX),
            timeout: timeout_ms.map_or(Duration::MAX, Duration::from_millis),
            on_failure: None,
            tools: ToolMatcher::default(),
            lifecycle: Lifecycle {
                startup: at.contains(&InterceptionPoint::AgentStartup),
                shutdown: at.contains(&InterceptionPoint::AgentShutdown),
            },
            hook,
        })
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("names", &self.names).finish_non_exhaustive()
    }
}

/// A resolver that the registry of names holds beside us.
struct Shared(Arc<dyn ApprovalResolver>);

#[async_trait]
impl ApprovalResolver for Shared {
    async fn resolve(&self, request: ApprovalRequest<'_>) -> ApprovalResolution {
        self.0.resolve(request).await
    }
}

/// The hook point that a point of the contract is; the two ends of a run are none.
#[must_use]
pub fn point_of(point: InterceptionPoint) -> Option<HookPoint> {
    match point {
        InterceptionPoint::Input => Some(HookPoint::BeforeAgentRun),
        InterceptionPoint::PreModelCall => Some(HookPoint::BeforeModelCall),
        InterceptionPoint::PostModelCall => Some(HookPoint::AfterModelCall),
        InterceptionPoint::PreToolCall => Some(HookPoint::BeforeToolCall),
        InterceptionPoint::PostToolCall => Some(HookPoint::AfterToolCall),
        InterceptionPoint::Output => Some(HookPoint::AfterAgentRun),
        InterceptionPoint::AgentStartup | InterceptionPoint::AgentShutdown => None,
    }
}
