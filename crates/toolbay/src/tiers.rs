//! Which Rhai plugins run in the host's process and which in worker processes. It stands in the facade because it knows
//! both runners, which do not know each other.

use std::{collections::HashMap, fmt, sync::Arc};

use toolbay_api::{
    Declared, ErrorKind, Isolation, LoadError, Package, Plugin, PluginContext, PluginName, Runner, RuntimeKind, Scope,
    TenantId, async_trait,
};
use toolbay_rhai::RhaiRunner;
use toolbay_worker::WorkerRunner;

/// Which tier a plugin runs in. The host decides; a manifest has no say.
#[derive(Debug, Clone)]
pub struct TierPolicy {
    /// Plugins that are registered for everybody: they were chosen by the operator.
    pub global: Isolation,
    /// Plugins that are registered for a tenant: nobody here has looked at them.
    pub tenants: Isolation,
    /// Plugins by name, in the place of the above. A tenant's own plugin comes into no laxer tier by its name.
    pub plugins: HashMap<PluginName, Isolation>,
    /// All plugins of a tenant, in the place of the above.
    pub tenant: HashMap<TenantId, Isolation>,
}

impl Default for TierPolicy {
    fn default() -> Self {
        Self {
            global: Isolation::InProcess,
            tenants: Isolation::Process,
            plugins: HashMap::new(),
            tenant: HashMap::new(),
        }
    }
}

impl TierPolicy {
    /// Everything in one tier.
    #[must_use]
    pub fn all(isolation: Isolation) -> Self {
        Self { global: isolation, tenants: isolation, ..Self::default() }
    }

    /// Whether any plugin can come to run in a worker process.
    #[must_use]
    pub fn uses_processes(&self) -> bool {
        let own = self.plugins.values().chain(self.tenant.values());
        [&self.global, &self.tenants].into_iter().chain(own).any(|isolation| *isolation == Isolation::Process)
    }

    /// The tier of a plugin. Where plugin and tenant are both named, the stricter counts.
    fn of(&self, plugin: Option<&PluginName>, scope: &Scope) -> Isolation {
        let named = plugin.and_then(|plugin| self.plugins.get(plugin)).copied();
        match scope {
            Scope::Global => named.unwrap_or(self.global),
            // Tenants choose their plugins' names, so a name can only make it stricter.
            Scope::Tenant(_) if named == Some(Isolation::Process) => Isolation::Process,
            Scope::Tenant(tenant) => self.tenant.get(tenant).copied().unwrap_or(self.tenants),
        }
    }
}

/// Loads Rhai plugins into the tier that the host's policy gives them.
pub struct TieredRunner {
    policy: TierPolicy,
    in_process: RhaiRunner,
    process: Option<WorkerRunner>,
}

impl TieredRunner {
    /// A runner for `policy`. Without `process` it refuses what the policy puts there.
    #[must_use]
    pub fn new(policy: TierPolicy, process: Option<WorkerRunner>) -> Self {
        Self { policy, in_process: RhaiRunner::default(), process }
    }

    fn runner(&self, isolation: Isolation) -> Result<&dyn Runner, LoadError> {
        match (isolation, &self.process) {
            (Isolation::Process, Some(process)) => Ok(process),
            (Isolation::Process, None) => Err(LoadError::new(
                ErrorKind::Unavailable,
                "this plugin is to run in a worker process, and this host has none: allow it in process, or use a \
                 system with Landlock and seccomp",
            )),
            _ => Ok(&self.in_process),
        }
    }
}

/// The name that a package will most likely have: its manifest's, or that of its file. What a script says of itself is
/// known only once it was parsed, and parsing is what the tier is to keep out.
fn probable_name(package: &Package) -> Option<PluginName> {
    let stem = || package.origin.file_stem().and_then(|stem| PluginName::new(stem.to_string_lossy()).ok());
    package.manifest.as_ref().map(|manifest| manifest.name.clone()).or_else(stem)
}

#[async_trait]
impl Runner for TieredRunner {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Rhai
    }

    fn one_file_extension(&self) -> Option<&'static str> {
        self.in_process.one_file_extension()
    }

    async fn load(&self, package: &Package, cx: &PluginContext) -> Result<Arc<dyn Plugin>, LoadError> {
        let tier = self.policy.of(probable_name(package).as_ref(), &cx.scope);
        let plugin = self.runner(tier)?.load(package, cx).await?;
        // A plugin that is called otherwise than its file does not come into a laxer tier by that.
        let decided = self.policy.of(Some(&plugin.metadata().name), &cx.scope);
        if tier == Isolation::InProcess && decided == Isolation::Process {
            return self.runner(decided)?.load(package, cx).await;
        }
        Ok(plugin)
    }

    async fn declare(&self, package: &Package, cx: &PluginContext) -> Result<Option<Declared>, LoadError> {
        let tier = self.policy.of(probable_name(package).as_ref(), &cx.scope);
        let declared = self.runner(tier)?.declare(package, cx).await?;
        let name = declared.as_ref().map(|declared| &declared.manifest.name);
        // As in `load`: what its code says, and where, is for the stricter tier to read.
        if tier == Isolation::InProcess && name.is_some() && self.policy.of(name, &cx.scope) == Isolation::Process {
            return self.runner(Isolation::Process)?.declare(package, cx).await;
        }
        Ok(declared)
    }

    async fn load_program(&self, package: &Package, cx: &PluginContext) -> Result<Arc<dyn Plugin>, LoadError> {
        let tier = self.policy.of(None, &cx.scope);
        self.runner(tier)?.load_program(package, cx).await
    }
}

impl fmt::Debug for TieredRunner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TieredRunner").field("policy", &self.policy).finish_non_exhaustive()
    }
}
