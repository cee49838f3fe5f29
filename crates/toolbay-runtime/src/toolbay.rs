//! The host's handle on everything: what is registered, the runners that load plugins, and what the host decides about
//! them. `opening` takes plugins from their files.

mod opening;
mod program;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use toolbay_api::{
    Ability, AbilityName, ErrorKind, HookRegistration, HttpSend, Limits, LimitsRequest, LoadError, NameError, Package,
    PermissionSet, Plugin, PluginName, Runner, RuntimeKind, Scope, SecretProvider, TenantId, Tool, ToolError,
    plugin::NativePlugin,
};

pub(crate) use opening::{Opened, found_in, in_time};

use crate::{
    abilities::Abilities,
    activation::Activation,
    approval::{Approval, ApprovalPolicy, Spent},
    audit::{AuditSink, TracingAudit},
    catalog::{Owner, PluginInfo, RegisterOptions, Registered},
    clock::{Clock, SystemClock},
    events::{EventBounds, EventRelay, announce::Announcer, mailbox::Mailbox, stream::Outlets},
    health::{Breaker, Vitals},
    kv::{KvQuota, KvStore, MemoryKv},
    lazy::Loading,
    lifecycle::{Lifecycle, PluginState, Stage},
    lives::{CALLBACK_TIME, Lives},
    load::{self, Loaded},
    meter::{Meters, Quota},
    outcomes::Outcomes,
    quarantine::{Quarantine, Quarantined, Ward},
    refusals::Refusals,
    registry::Registry,
    session::Session,
    settings::{self, Environment},
    trace::TraceLink,
    waves::in_words,
};

/// The host's handle: registers plugins and opens sessions. Cheap to clone.
#[derive(Clone)]
pub struct Toolbay(Arc<Inner>);

struct Inner {
    registry: Registry,
    abilities: Abilities,
    runners: Vec<Arc<dyn Runner>>,
    policy: Policy,
    ports: Ports,
    meters: Meters,
    registrations: AtomicU64,
    lives: Lives,
    outlets: Outlets,
    refusals: Refusals,
    spent: Spent,
}

/// A host that may be gone, for what it holds itself.
#[derive(Default)]
pub(crate) struct WeakToolbay(Weak<Inner>);

impl WeakToolbay {
    pub(crate) fn upgrade(&self) -> Option<Toolbay> {
        self.0.upgrade().map(Toolbay)
    }
}

/// What the host decides.
pub(crate) struct Policy {
    pub(crate) limits: Limits,
    grants: Arc<PermissionSet>,
    plugin_grants: HashMap<PluginName, Arc<PermissionSet>>,
    pub(crate) tenant_grants: HashMap<TenantId, Arc<PermissionSet>>,
    pub(crate) any_tenant: Arc<PermissionSet>,
    pub(crate) approval: Arc<ApprovalPolicy>,
    pub(crate) tenant_limits: HashMap<TenantId, Arc<LimitsRequest>>,
    assets: HashMap<PluginName, PathBuf>,
    configs: HashMap<PluginName, Value>,
    environment: Environment,
    enabled_by_default: HashMap<PluginName, bool>,
    tenants_configure: HashMap<PluginName, bool>,
    breaker: Breaker,
    events: EventBounds,
    loading: Loading,
}

/// What the host plugs in.
pub(crate) struct Ports {
    pub(crate) kv: Arc<dyn KvStore>,
    pub(crate) kv_quota: KvQuota,
    pub(crate) outcomes: Option<Outcomes>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) http: Option<Arc<dyn HttpSend>>,
    pub(crate) secrets: Option<Arc<dyn SecretProvider>>,
    pub(crate) tenant_secrets: HashMap<TenantId, Arc<dyn SecretProvider>>,
    pub(crate) ward: Arc<Ward>,
    pub(crate) audit: Option<Arc<dyn AuditSink>>,
    pub(crate) relay: Option<Arc<dyn EventRelay>>,
    /// Whether clock and random numbers are kept from all plugins.
    pub(crate) deterministic: bool,
    /// Whether spans say what was said, asked and answered.
    pub(crate) trace_content: bool,
    pub(crate) trace_link: Option<Arc<dyn TraceLink>>,
}

impl Policy {
    /// Whether the operator gave `plugin` something by its name. A tenant's plugin of that name must not come into it.
    fn speaks_of(&self, plugin: &PluginName) -> bool {
        self.plugin_grants.contains_key(plugin)
            || self.configs.contains_key(plugin)
            || self.assets.contains_key(plugin)
            || self.environment.speaks_to(plugin)
    }
}

impl Toolbay {
    /// Begins to put a Toolbay together.
    #[must_use]
    pub fn builder() -> ToolbayBuilder {
        ToolbayBuilder::default()
    }

    /// Opens a session for a tenant.
    ///
    /// # Errors
    /// [`NameError`] where `tenant` is no tenant id.
    pub fn session<T>(&self, tenant: T) -> Result<Session, NameError>
    where
        TenantId: TryFrom<T, Error = NameError>,
    {
        Ok(Session::new(self.clone(), TenantId::try_from(tenant)?))
    }

    /// Registers a native plugin.
    ///
    /// # Errors
    /// As [`register_with`](Self::register_with).
    pub async fn register(&self, scope: Scope, plugin: impl Plugin + 'static) -> Result<PluginName, LoadError> {
        self.register_with(scope, Arc::new(plugin), RegisterOptions::default()).await
    }

    /// Registers a plugin, after its schemas are compiled, its names checked, and its `on_load` and `on_start` done.
    ///
    /// # Errors
    /// `Config`: manifest, schema or configuration do not fit. `Conflict`: a name is taken or protected.
    /// `Dependency`: a plugin that it requires is not registered. `Unavailable`: the host is shutting down. Else what
    /// `on_load` or `on_start` say. What was begun is undone.
    ///
    /// # Cancel safety
    /// Dropping the future registers nothing, and calls no further callback of the plugin.
    pub async fn register_with(
        &self,
        scope: Scope,
        plugin: Arc<dyn Plugin>,
        options: RegisterOptions,
    ) -> Result<PluginName, LoadError> {
        let registered = self.prepare(&scope, Opened { plugin, options, digest: None })?;
        self.bring_in(&scope, registered).await
    }

    async fn bring_in(&self, scope: &Scope, registered: Arc<Registered>) -> Result<PluginName, LoadError> {
        let registry = &self.0.registry;
        registry.check_open()?;
        registry.clashes(scope, std::slice::from_ref(&registered)).into_iter().flatten().next().map_or(Ok(()), Err)?;
        registry.lacking(scope, &registered).map_or(Ok(()), Err)?;
        self.bring_up(&registered).await.map_err(|error| in_words(&error))?;
        self.start_up(&registered).await.map_err(|error| in_words(&error))?;
        // Somebody may have been quicker in the meantime.
        if let Err(error) = registry.add(scope, std::slice::from_ref(&registered)) {
            let reason = ToolError::new(error.kind, error.message.clone());
            self.undo_start(&registered, Stage::Register, &reason).await;
            return Err(error);
        }
        self.0.lives.unshelve(scope, &registered.owner.name);
        Ok(registered.owner.name.clone())
    }

    /// Loads one plugin, a folder with a manifest or a file, and registers it. Its code may be compiled later, as
    /// [`ToolbayBuilder::loading`] says.
    ///
    /// # Errors
    /// As [`register_with`](Self::register_with); `NotFound` where there is no such file, `Compile` where a script is
    /// broken, with file and line.
    pub async fn load(&self, scope: Scope, path: impl AsRef<Path>) -> Result<PluginName, LoadError> {
        let path = path.as_ref();
        let opened = self.open_to_use(&scope, path, self.read(&scope, path)?).await?;
        let registered = self.prepare(&scope, opened).map_err(|error| found_in(error, path))?;
        self.bring_in(&scope, registered).await.map_err(|error| found_in(error, path))
    }

    /// Loads a one-file plugin from text. `file_name` picks the runner by its extension and stands in messages.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub async fn load_source(&self, scope: Scope, file_name: &str, source: &str) -> Result<PluginName, LoadError> {
        let plugin = self.run_loader(&scope, Package::one_file(file_name, source)).await?;
        let options = RegisterOptions { origin: Some(file_name.into()), ..RegisterOptions::default() };
        self.register_with(scope, plugin, options).await.map_err(|error| found_in(error, Path::new(file_name)))
    }

    /// Loads and checks one plugin exactly as [`load`](Self::load) does, and does not register it.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub async fn check(&self, scope: Scope, path: impl AsRef<Path>) -> Result<Loaded, LoadError> {
        let path = path.as_ref();
        let opened = self.open(&scope, path).await?;
        let registered = self.prepare(&scope, opened).map_err(|error| found_in(error, path))?;
        Ok(self.loaded(&registered, path))
    }

    /// The plugins that are in quarantine now, and why.
    #[must_use]
    pub fn quarantined(&self) -> Vec<Quarantined> {
        self.0.ports.ward.list()
    }

    /// Lets a plugin in quarantine be called again; says whether it was there.
    #[must_use = "false says that there was nothing to release"]
    pub fn release(&self, tenant: &TenantId, plugin: &PluginName) -> bool {
        self.0.ports.ward.release(tenant, plugin)
    }

    /// The plugins registered in `scope`, in alphabetical order.
    #[must_use]
    pub fn plugins(&self, scope: &Scope) -> Vec<PluginInfo> {
        self.0.registry.catalog(scope).plugins().map(|registered| registered.info()).collect()
    }

    /// The abilities that the host declared, in alphabetical order.
    #[must_use]
    pub fn abilities(&self) -> Vec<Arc<Ability>> {
        self.0.abilities.iter().cloned().collect()
    }

    /// The plugins that provide an ability for a tenant, in the order of preference: the first one serves.
    #[must_use]
    pub fn providers(&self, tenant: &TenantId, ability: &AbilityName) -> Vec<PluginName> {
        let view = self.0.registry.view(tenant);
        view.providers(ability).into_iter().map(|provider| provider.owner.name.clone()).collect()
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// Uses an approval; says whether it was there to use.
    pub(crate) fn spend(&self, approval: &Approval, now_ms: i64) -> bool {
        self.0.spent.spend(approval.id, approval.expires_at, now_ms)
    }

    pub(crate) fn outlets(&self) -> &Outlets {
        &self.0.outlets
    }

    pub(crate) fn event_bounds(&self) -> &EventBounds {
        &self.0.policy.events
    }

    pub(crate) fn downgrade(&self) -> WeakToolbay {
        WeakToolbay(Arc::downgrade(&self.0))
    }

    pub(crate) fn lives(&self) -> &Lives {
        &self.0.lives
    }

    pub(crate) fn policy(&self) -> &Policy {
        &self.0.policy
    }

    /// What connects spans with the traces of callers, where the host has something that does.
    #[must_use]
    pub fn trace_link(&self) -> Option<&dyn TraceLink> {
        self.0.ports.trace_link.as_deref()
    }

    pub(crate) fn ports(&self) -> &Ports {
        &self.0.ports
    }

    pub(crate) fn meters(&self) -> &Meters {
        &self.0.meters
    }

    /// Checks everything that can be checked before a plugin is started.
    pub(crate) fn prepare(
        &self,
        scope: &Scope,
        Opened { plugin, options, digest }: Opened,
    ) -> Result<Arc<Registered>, LoadError> {
        let metadata = plugin.metadata();
        metadata.validate().map_err(|error| LoadError::new(ErrorKind::Config, error.to_string()))?;
        let policy = &self.0.policy;
        let schema = metadata.config_schema.as_ref();
        // What the operator says of a plugin by its name is said of the one for everybody: a tenant could come into it by
        // calling one of its own so, where that one is not there, not protected, or written alike in a variable.
        let (config, folder) = match scope {
            Scope::Global => {
                let (name, environment) = (&metadata.name, &policy.environment);
                let for_all = self.0.registry.config_for_all(scope, name);
                let config = settings::of_host(name, schema, policy.configs.get(name), environment, for_all.as_ref())?;
                (config, self.assets_instead(scope, name))
            }
            Scope::Tenant(tenant) => {
                let decided = self.0.registry.activation(tenant, &metadata.name).and_then(|decided| decided.config);
                (settings::of_tenants_own(schema, decided.as_ref())?, None)
            }
        };
        let enabled_by_default = options
            .enabled_by_default
            .or_else(|| policy.enabled_by_default.get(&metadata.name).copied())
            .unwrap_or(true);
        let (assets, digest) = match folder {
            Some(folder) => {
                let assets = load::read_assets(folder)?;
                // What the operator puts in their place is a part of the plugin as it is here.
                let digest = digest.map(|digest| digest.with_assets(&assets));
                (assets, digest)
            }
            None => (plugin.assets(), digest),
        };
        // One that is put in its own place goes on where it was.
        let before = self.0.registry.catalog(scope).plugin(&metadata.name).map(|before| Arc::clone(&before.owner));
        let next_sequence = || self.0.registrations.fetch_add(1, Ordering::Relaxed);
        let (subscriptions, services) = (plugin.subscriptions(), plugin.services());
        // By shadowing it a tenant could switch off a guard, keep a listener from hearing, or put a service of its own in
        // the place of the host's.
        let stands_for_all = !plugin.hooks().is_empty() || !subscriptions.is_empty() || !services.is_empty();
        let is_guard = *scope == Scope::Global && options.protected.unwrap_or(stands_for_all);
        let tenants_configure =
            options.tenants_configure.or_else(|| policy.tenants_configure.get(&metadata.name).copied());
        let owner = Owner {
            tenants_configure: *scope != Scope::Global || tenants_configure.unwrap_or(!is_guard),
            enabled_by_default: enabled_by_default || *scope != Scope::Global,
            vitals: Arc::new(Vitals::new(policy.breaker)),
            digest,
            generation: before.as_ref().map_or(1, |before| before.generation + 1),
            sequence: before.map_or_else(next_sequence, |before| before.sequence),
            name: metadata.name.clone(),
            version: metadata.version.clone(),
            scope: scope.clone(),
            protected: *scope == Scope::Global
                && options.protected.unwrap_or_else(|| stands_for_all || policy.speaks_of(&metadata.name)),
            limits: Arc::new(policy.limits.lowered_by(&metadata.limits)),
            asked: Arc::new(metadata.permissions.clone()),
            host_grants: self.grants_for(scope, &metadata.name),
            config,
            config_schema: metadata.config_schema.clone(),
            assets,
            origin: options.origin.clone(),
            index: options.index.clone(),
            life: Arc::new(Lifecycle::new(
                metadata.name.clone(),
                metadata.version.clone(),
                scope.clone(),
                Arc::clone(self.0.registry.closing()),
                Announcer::new(self),
            )),
            requires: metadata.requires.iter().map(|needed| needed.name.clone()).collect(),
            emits: metadata.provides.as_ref().map(|provides| provides.events.iter().cloned().collect()),
            is_native: metadata.runtime == RuntimeKind::Native,
            services,
            mailbox: Mailbox::default(),
        };
        Registered::new(plugin, owner, subscriptions, &self.0.abilities).map(Arc::new)
    }

    pub(crate) fn loaded(&self, registered: &Registered, origin: &Path) -> Loaded {
        let Registered { owner, tools, hooks, .. } = registered;
        let not_granted = |permission: &&toolbay_api::Permission| !owner.host_grants.covers(permission.as_str());
        let warnings = owner
            .asked
            .iter()
            .filter(not_granted)
            .map(|permission| {
                format!("asks for {permission}, which this host does not grant: what needs it is refused")
            })
            .collect();
        Loaded {
            name: owner.name.clone(),
            version: owner.version.clone(),
            scope: owner.scope.clone(),
            origin: origin.to_owned(),
            tools: tools.len(),
            hooks: hooks.len(),
            code: registered.plugin.code(),
            warnings,
        }
    }
}

impl fmt::Debug for Toolbay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Toolbay").finish_non_exhaustive()
    }
}

/// Puts a [`Toolbay`] together. Everything is closed until it is opened here: no grants, no runners.
pub struct ToolbayBuilder {
    runners: Vec<Arc<dyn Runner>>,
    limits: Limits,
    quota: Quota,
    tenant_quotas: HashMap<TenantId, Quota>,
    grants: PermissionSet,
    plugin_grants: HashMap<PluginName, Arc<PermissionSet>>,
    tenant_grants: HashMap<TenantId, Arc<PermissionSet>>,
    tenant_limits: HashMap<TenantId, Arc<LimitsRequest>>,
    assets: HashMap<PluginName, PathBuf>,
    configs: HashMap<PluginName, Value>,
    environment: Environment,
    enabled_by_default: HashMap<PluginName, bool>,
    tenants_configure: HashMap<PluginName, bool>,
    activations: HashMap<TenantId, BTreeMap<PluginName, Activation>>,
    breaker: Breaker,
    kv: Arc<dyn KvStore>,
    kv_quota: KvQuota,
    outcomes: Option<Outcomes>,
    clock: Arc<dyn Clock>,
    http: Option<Arc<dyn HttpSend>>,
    secrets: Option<Arc<dyn SecretProvider>>,
    tenant_secrets: HashMap<TenantId, Arc<dyn SecretProvider>>,
    quarantine: Quarantine,
    audit: Option<Arc<dyn AuditSink>>,
    natives: BTreeMap<usize, Native>,
    callback_timeout: Duration,
    deterministic: bool,
    trace_content: bool,
    trace_link: Option<Arc<dyn TraceLink>>,
    events: EventBounds,
    relay: Option<Arc<dyn EventRelay>>,
    loading: Loading,
    abilities: Vec<Ability>,
    approval: ApprovalPolicy,
}

enum Native {
    Tool(Arc<dyn Tool>),
    Hook(HookRegistration),
}

impl Default for ToolbayBuilder {
    fn default() -> Self {
        Self {
            runners: Vec::new(),
            limits: Limits::default(),
            quota: Quota::default(),
            tenant_quotas: HashMap::new(),
            grants: PermissionSet::default(),
            plugin_grants: HashMap::new(),
            tenant_grants: HashMap::new(),
            tenant_limits: HashMap::new(),
            assets: HashMap::new(),
            configs: HashMap::new(),
            environment: Environment::default(),
            enabled_by_default: HashMap::new(),
            tenants_configure: HashMap::new(),
            activations: HashMap::new(),
            breaker: Breaker::default(),
            kv: Arc::new(MemoryKv::default()),
            kv_quota: KvQuota::default(),
            outcomes: None,
            clock: Arc::new(SystemClock),
            http: None,
            secrets: None,
            tenant_secrets: HashMap::new(),
            quarantine: Quarantine::default(),
            audit: Some(Arc::new(TracingAudit)),
            natives: BTreeMap::new(),
            callback_timeout: CALLBACK_TIME,
            deterministic: false,
            trace_content: false,
            trace_link: None,
            events: EventBounds::default(),
            relay: None,
            loading: Loading::default(),
            abilities: Vec::new(),
            approval: ApprovalPolicy::default(),
        }
    }
}

impl ToolbayBuilder {
    /// Adds a runner; without one only native plugins can be registered.
    #[must_use]
    pub fn runner(mut self, runner: impl Runner + 'static) -> Self {
        self.runners.push(Arc::new(runner));
        self
    }

    /// The ceiling of every plugin's limits.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Lower limits for the calls of one tenant.
    #[must_use]
    pub fn tenant_limits(mut self, tenant: TenantId, limits: LimitsRequest) -> Self {
        self.tenant_limits.insert(tenant, Arc::new(limits));
        self
    }

    /// What each tenant may use together.
    #[must_use]
    pub fn quota(mut self, quota: Quota) -> Self {
        self.quota = quota;
        self
    }

    /// What one tenant may use together, in the place of the general quota.
    #[must_use]
    pub fn tenant_quota(mut self, tenant: TenantId, quota: Quota) -> Self {
        self.tenant_quotas.insert(tenant, quota);
        self
    }

    /// What the host gives every plugin that asks for it. Without it: nothing.
    #[must_use]
    pub fn grants(mut self, grants: PermissionSet) -> Self {
        self.grants = grants;
        self
    }

    /// Keeps clock and random numbers from all plugins, whatever their grants: the same call with the same arguments and
    /// the same stored values then gives the same result by the same number of operations.
    ///
    /// What a call tells of itself, such as the run's id and the time that is left, differs all the same.
    #[must_use]
    pub fn deterministic(mut self) -> Self {
        self.deterministic = true;
        self
    }

    /// Whether [spans](crate::trace) say what was said to the model, what it answered, and arguments and results of calls.
    /// Without it they say who did what, how long and how it ended. Secrets that plugins read are in neither.
    #[must_use]
    pub fn trace_content(mut self, yes: bool) -> Self {
        self.trace_content = yes;
        self
    }

    /// What connects spans with the traces of callers. Without it every request begins a trace.
    #[must_use]
    pub fn trace_link(mut self, link: Arc<dyn TraceLink>) -> Self {
        self.trace_link = Some(link);
        self
    }

    /// Which calls need approval, of whatever session. Without it: those that hooks want approved.
    #[must_use]
    pub fn approval(mut self, policy: ApprovalPolicy) -> Self {
        self.approval = policy;
        self
    }

    /// What the host gives one plugin that asks for it, in the place of the general grants. To a tenant's own plugin of
    /// that name it gives no more than those: of what stands here, it has what they cover.
    #[must_use]
    pub fn plugin_grants(mut self, plugin: PluginName, grants: PermissionSet) -> Self {
        self.plugin_grants.insert(plugin, Arc::new(grants));
        self
    }

    /// What a tenant gives plugins on its behalf. Without it: whatever the host gives.
    #[must_use]
    pub fn tenant_grants(mut self, tenant: TenantId, grants: PermissionSet) -> Self {
        self.tenant_grants.insert(tenant, Arc::new(grants));
        self
    }

    /// Where plugins keep values. Without it: in memory.
    #[must_use]
    pub fn kv(mut self, kv: Arc<dyn KvStore>) -> Self {
        self.kv = kv;
        self
    }

    /// What each plugin may keep for each tenant.
    #[must_use]
    pub fn kv_quota(mut self, quota: KvQuota) -> Self {
        self.kv_quota = quota;
        self
    }

    /// Who keeps what became of runs' calls, so that a run that is taken up again makes none of them twice that must not be.
    /// Without it: nobody. What calls of [`Session::call`] came to is not kept, since nobody can take them up.
    #[must_use]
    pub fn outcomes(mut self, outcomes: Outcomes) -> Self {
        self.outcomes = Some(outcomes);
        self
    }

    /// What time plugins are told, and by which what they keep for a time ends. Without it: the system's. Deadlines do
    /// not go by it.
    #[must_use]
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Who sends plugins' HTTP requests. Without it: nobody. What may be asked for, and of whom, is up to grants.
    #[must_use]
    pub fn http(mut self, sender: impl HttpSend + 'static) -> Self {
        self.http = Some(Arc::new(sender));
        self
    }

    /// Who keeps the secrets that plugins read by `secret()`, for each tenant without a keeper of its own. Without it:
    /// nobody. Which of them a plugin reads is up to grants.
    #[must_use]
    pub fn secrets(mut self, provider: impl SecretProvider + 'static) -> Self {
        self.secrets = Some(Arc::new(provider));
        self
    }

    /// Who keeps one tenant's secrets, in the place of the general keeper: what is not there is nowhere for this tenant.
    #[must_use]
    pub fn tenant_secrets(mut self, tenant: TenantId, provider: impl SecretProvider + 'static) -> Self {
        self.tenant_secrets.insert(tenant, Arc::new(provider));
        self
    }

    /// What events may take up.
    #[must_use]
    pub fn event_bounds(mut self, bounds: EventBounds) -> Self {
        self.events = bounds;
        self
    }

    /// Who passes on what plugins tell and [`Toolbay::post`] is given, so that it is handled by one of several processes.
    /// Without it: this process handles it at once.
    #[must_use]
    pub fn event_relay(mut self, relay: Arc<dyn EventRelay>) -> Self {
        self.relay = Some(relay);
        self
    }

    /// When a plugin that keeps running into its limits is put away for a tenant. No breaches: never.
    #[must_use]
    pub fn quarantine(mut self, rule: Quarantine) -> Self {
        self.quarantine = rule;
        self
    }

    /// Who takes the audit records. Without it: [`TracingAudit`].
    #[must_use]
    pub fn audit(mut self, audit: Arc<dyn AuditSink>) -> Self {
        self.audit = Some(audit);
        self
    }

    /// Keeps no audit records.
    #[must_use]
    pub fn without_audit(mut self) -> Self {
        self.audit = None;
        self
    }

    /// How long each of a plugin's callbacks may take, and how long a plugin that is stopped waits for its last calls: 10 s
    /// unless this is said.
    #[must_use]
    pub fn callback_timeout(mut self, timeout: Duration) -> Self {
        self.callback_timeout = timeout;
        self
    }

    /// A folder to take in the place of the own assets of a plugin for everybody.
    #[must_use]
    pub fn assets(mut self, plugin: PluginName, folder: impl Into<PathBuf>) -> Self {
        self.assets.insert(plugin, folder.into());
        self
    }

    /// The configuration of a plugin for everybody, checked against its `config_schema` when it is registered.
    #[must_use]
    pub fn plugin_config(mut self, plugin: PluginName, config: Value) -> Self {
        self.configs.insert(plugin, config);
        self
    }

    /// The variables from which the configurations of plugins for everybody are taken, before those of [`plugin_config`](Self::plugin_config):
    /// `PREFIX` `PLUGIN` `__` `FIELD`, in capitals, with `_` for what a variable's name cannot have and `__` before each
    /// further field. A variable that names no field of its plugin's `config_schema` keeps the plugin from loading.
    #[must_use]
    pub fn plugin_environment(mut self, prefix: &str, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.environment = Environment::new(prefix, variables);
        self
    }

    /// Whether tenants have a plugin for everybody before they switch it on or off. Without it: they do.
    #[must_use]
    pub fn enabled_by_default(mut self, plugin: PluginName, enabled: bool) -> Self {
        self.enabled_by_default.insert(plugin, enabled);
        self
    }

    /// Whether tenants may set a configuration of their own of a plugin for everybody. Without it: they may, unless it is
    /// protected for more than that the host speaks of it by its name, as one with hooks is. What
    /// [`activation`](Self::activation) says is the host's word, and holds in any case.
    #[must_use]
    pub fn tenants_configure(mut self, plugin: PluginName, allowed: bool) -> Self {
        self.tenants_configure.insert(plugin, allowed);
        self
    }

    /// What a tenant has decided about a plugin already. A configuration that does not fit keeps the plugin off for it.
    #[must_use]
    pub fn activation(mut self, tenant: TenantId, plugin: PluginName, activation: Activation) -> Self {
        self.activations.entry(tenant).or_default().insert(plugin, activation);
        self
    }

    /// When a plugin is not called any more since it fails, and when it is tried again.
    #[must_use]
    pub fn breaker(mut self, rule: Breaker) -> Self {
        self.breaker = rule;
        self
    }

    /// When the code of plugins is compiled that are loaded from files. Without it: as their manifests say by `auto_load`, and
    /// when they are loaded where those say nothing.
    ///
    /// A plugin whose code is compiled when it is needed first shows its tools, permissions and everything else from the
    /// beginning. What it is checked for then is what can be told without its code; a problem in that comes up at the first
    /// use, as an `Unavailable` for the caller and in full for the operator. Plugins with hooks, `on_load` or `on_start`
    /// cannot wait; [`check`](Toolbay::check), [`reload`](Toolbay::reload) and [`sync`](Toolbay::sync) do not.
    #[must_use]
    pub fn loading(mut self, loading: Loading) -> Self {
        self.loading = loading;
        self
    }

    /// Declares an ability. Plugins provide it, callers call `ability.operation` and get the tenant's provider.
    #[must_use]
    pub fn ability(mut self, ability: Ability) -> Self {
        self.abilities.push(ability);
        self
    }

    /// Registers a native tool for everybody, as a plugin of its own that is called like it.
    #[must_use]
    pub fn tool(mut self, tool: impl Tool + 'static) -> Self {
        self.natives.insert(self.natives.len(), Native::Tool(Arc::new(tool)));
        self
    }

    /// Registers a native hook for everybody, as a plugin of its own that is called like it.
    #[must_use]
    pub fn hook(mut self, hook: HookRegistration) -> Self {
        self.natives.insert(self.natives.len(), Native::Hook(hook));
        self
    }

    /// Puts it together.
    ///
    /// # Errors
    /// Whatever is wrong with an ability, a native tool or a hook: a name that is no plugin name, a bad schema, two of one
    /// name.
    pub fn build(self) -> Result<Toolbay, LoadError> {
        let toolbay = Toolbay(Arc::new(Inner {
            registry: Registry::new(self.activations),
            abilities: Abilities::new(self.abilities)?,
            runners: self.runners,
            policy: Policy {
                limits: self.limits,
                grants: Arc::new(self.grants),
                plugin_grants: self.plugin_grants,
                tenant_grants: self.tenant_grants,
                any_tenant: Arc::new(PermissionSet::all()),
                approval: Arc::new(self.approval),
                tenant_limits: self.tenant_limits,
                assets: self.assets,
                configs: self.configs,
                environment: self.environment,
                enabled_by_default: self.enabled_by_default,
                tenants_configure: self.tenants_configure,
                breaker: self.breaker,
                events: self.events,
                loading: self.loading,
            },
            ports: Ports {
                kv: self.kv,
                kv_quota: self.kv_quota,
                outcomes: self.outcomes,
                clock: self.clock,
                http: self.http,
                secrets: self.secrets,
                deterministic: self.deterministic,
                trace_content: self.trace_content,
                trace_link: self.trace_link,
                tenant_secrets: self.tenant_secrets,
                ward: Arc::new(Ward::new(self.quarantine)),
                audit: self.audit,
                relay: self.relay,
            },
            meters: Meters::new(self.quota, self.tenant_quotas),
            registrations: AtomicU64::new(0),
            lives: Lives::new(self.callback_timeout),
            outlets: Outlets::default(),
            refusals: Refusals::default(),
            spent: Spent::default(),
        }));
        for native in self.natives.into_values() {
            let plugin = native_plugin(native).map_err(|error| LoadError::new(error.kind, error.message))?;
            let plugin = Arc::new(plugin);
            let opened = Opened { plugin, options: RegisterOptions::default(), digest: None };
            let registered = toolbay.prepare(&Scope::Global, opened)?;
            // It has no callbacks, so there is nothing to wait for.
            for state in [PluginState::Loading, PluginState::Loaded, PluginState::Active] {
                let gone = registered.owner.life.go(state);
                gone.map_err(|error| LoadError::new(ErrorKind::Internal, error.to_string()))?;
            }
            registered.owner.life.set_started(toolbay.0.lives.next_start());
            toolbay.0.registry.add(&Scope::Global, &[registered])?;
        }
        Ok(toolbay)
    }
}

/// The plugin around a single native tool or hook.
fn native_plugin(native: Native) -> Result<NativePlugin, ToolError> {
    let version = env!("CARGO_PKG_VERSION");
    match native {
        Native::Tool(tool) => {
            let definition = tool.definition().clone();
            let all = PermissionSet::all();
            NativePlugin::new(definition.name.as_str(), version, &definition.description)
                .map(|plugin| plugin.with(|metadata| metadata.permissions = all).tool(tool))
        }
        Native::Hook(hook) => {
            let name = hook.name.to_string();
            NativePlugin::new(&name, version, "A hook of the host").map(|plugin| plugin.hook(hook))
        }
    }
}
