//! What is registered in one scope: immutable, swapped whole, shared by everybody who reads it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    sync::Arc,
};

use semver::Version;
use serde_json::Value;
use toolbay_api::{
    AbilityName, Assets, CodeState, ErrorKind, EventPattern, HookRegistration, Limits, LoadError, PermissionSet,
    Plugin, PluginName, Scope, ServiceName, ServiceRegistration, Subscription, Tool, ToolDefinition, ToolName,
};

use crate::{
    abilities::{Abilities, Provided},
    digest::Digest,
    events::mailbox::Mailbox,
    health::Vitals,
    lifecycle::Lifecycle,
    routes::{self, RouteEntry},
    schema::Schema,
    services, settings, shown,
};

/// Subscriptions of one plugin: each event is compared with all of them.
const MAX_SUBSCRIPTIONS: usize = 64;

/// The longest name that the APIs of the large providers take for a function.
const MAX_PROVIDER_NAME: usize = 64;

/// How a plugin is registered.
#[derive(Debug, Clone, Default)]
pub struct RegisterOptions {
    /// Whether tenants are kept from shadowing the plugin with one of their own of the same name. `None`: a global
    /// plugin is protected where it has hooks, since a tenant could switch off a guard by shadowing it, and where the
    /// host gave it configuration, grants or assets by its name, since the tenant's would come into them.
    pub protected: Option<bool>,
    /// Whether tenants have a plugin for everybody before they switch it on or off. `None`: as the host says for it, else
    /// they have it. A protected plugin is always on.
    pub enabled_by_default: Option<bool>,
    /// Whether tenants may set a configuration of their own. `None`: as the host says for it; else they may, unless the
    /// plugin is protected for more than that the host speaks of it by its name: a tenant that cannot switch off a guard
    /// must not configure it away.
    pub tenants_configure: Option<bool>,
    /// Where the plugin was found, for reports.
    pub origin: Option<PathBuf>,
    /// The registry index that named it, where one did.
    pub index: Option<PathBuf>,
}

/// A tool as a session sees it.
#[derive(Debug, Clone)]
pub struct ToolInfo {
    /// Its definition, under its qualified name.
    pub definition: Arc<ToolDefinition>,
    /// Its name in the form that every provider's API accepts: `[A-Za-z0-9_-]{1,64}`.
    pub provider_name: Arc<str>,
    /// Its plugin.
    pub plugin: PluginName,
    /// The plugin's version.
    pub version: Version,
    /// Where the plugin is registered.
    pub scope: Scope,
    /// Where it is an operation of an ability: the plugin's own tool that serves it for this tenant.
    pub served_by: Option<ToolName>,
}

/// A registered plugin, for listings.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the fields are named by the vocabulary's own types")]
pub struct PluginInfo {
    pub metadata: toolbay_api::PluginMetadata,
    pub scope: Scope,
    pub protected: bool,
    pub tools: Vec<ToolInfo>,
    pub hooks: Vec<HookRegistration>,
    pub subscriptions: Vec<EventPattern>,
    pub services: Vec<ServiceName>,
    /// The abilities that it provides.
    pub abilities: Vec<AbilityName>,
    pub origin: Option<PathBuf>,
    /// How often the plugin was replaced in its place, and one.
    pub generation: u64,
    /// Whether tenants have it before they switch it on or off.
    pub enabled_by_default: bool,
    /// Its configuration where the tenant says nothing.
    pub config: Value,
    /// What its calls may use at most.
    pub limits: Arc<Limits>,
    /// What the host gives of what it asks for; a tenant may give less.
    pub host_grants: Arc<PermissionSet>,
    /// Whether its code is there.
    pub code: CodeState,
}

/// What the host decided about a plugin when it was registered; shared by its tools, hooks and handlers.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) name: PluginName,
    pub(crate) version: Version,
    pub(crate) scope: Scope,
    pub(crate) protected: bool,
    pub(crate) enabled_by_default: bool,
    /// Whether tenants may set a configuration of their own.
    pub(crate) tenants_configure: bool,
    pub(crate) vitals: Arc<Vitals>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) asked: Arc<PermissionSet>,
    pub(crate) host_grants: Arc<PermissionSet>,
    pub(crate) config: Value,
    pub(crate) config_schema: Option<Value>,
    pub(crate) assets: Assets,
    pub(crate) origin: Option<PathBuf>,
    /// The registry index that named it.
    pub(crate) index: Option<PathBuf>,
    pub(crate) life: Arc<Lifecycle>,
    /// What its files are, where it came from files: two packages with one digest are the same.
    pub(crate) digest: Option<Digest>,
    /// How often the plugin was put in its own place, and one.
    pub(crate) generation: u64,
    /// When the plugin was first registered, among all of this host: its hooks keep their place when it is replaced.
    pub(crate) sequence: u64,
    /// The plugins that it requires, by name.
    pub(crate) requires: Box<[PluginName]>,
    /// The events that it may tell of, where its manifest has a list of what it provides.
    pub(crate) emits: Option<Box<[String]>>,
    /// Whether it is code of the host, trusted.
    pub(crate) is_native: bool,
    pub(crate) services: Vec<ServiceRegistration>,
    pub(crate) mailbox: Mailbox,
}

impl Owner {
    /// The configuration with what is decided about it laid over it, later layers over earlier ones, checked.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence.
    pub(crate) fn config_with(&self, layers: &[&Value]) -> Result<Value, String> {
        settings::layered(self.config_schema.as_ref(), &self.config, layers)
    }

    /// Whether the manifest asks for `action` and the host gives it.
    pub(crate) fn may(&self, action: &str) -> bool {
        self.asked.covers(action) && self.host_grants.covers(action)
    }
}

/// A tool, compiled and ready.
pub(crate) struct ToolEntry {
    pub(crate) info: ToolInfo,
    pub(crate) tool: Arc<dyn Tool>,
    pub(crate) parameters: Arc<Schema>,
    pub(crate) output: Option<Arc<Schema>>,
    pub(crate) owner: Arc<Owner>,
    /// The plugin's own tool, where this is it in the clothes of an ability's operation.
    pub(crate) serving: Option<Arc<ToolEntry>>,
}

/// A hook in its place.
pub(crate) struct HookEntry {
    pub(crate) registration: HookRegistration,
    pub(crate) owner: Arc<Owner>,
}

/// Events that a plugin listens to.
pub(crate) struct SubscriptionEntry {
    pub(crate) subscription: Subscription,
    pub(crate) owner: Arc<Owner>,
}

/// A plugin with its tools, hooks and handlers.
pub(crate) struct Registered {
    pub(crate) owner: Arc<Owner>,
    pub(crate) plugin: Arc<dyn Plugin>,
    pub(crate) tools: Vec<Arc<ToolEntry>>,
    pub(crate) provided: Vec<Provided>,
    pub(crate) hooks: Vec<Arc<HookEntry>>,
    pub(crate) subscriptions: Vec<Arc<SubscriptionEntry>>,
    pub(crate) routes: Vec<Arc<RouteEntry>>,
}

impl Registered {
    /// Compiles the tools' schemas and checks every name.
    ///
    /// # Errors
    /// `Config` with the tool and the place in its schema, for too many subscriptions, for services of a plugin that is
    /// not native, and for an ability that is not kept; `Conflict` where two tools or two services would have one name, or
    /// one of them and an ability.
    pub(crate) fn new(
        plugin: Arc<dyn Plugin>,
        owner: Owner,
        subscriptions: Vec<Subscription>,
        abilities: &Abilities,
    ) -> Result<Self, LoadError> {
        if subscriptions.len() > MAX_SUBSCRIPTIONS {
            let message = format!(
                "the plugin has {} subscriptions, and {MAX_SUBSCRIPTIONS} are allowed: listen by fewer, wider patterns",
                subscriptions.len()
            );
            return Err(LoadError::new(ErrorKind::Config, message));
        }
        if !owner.is_native && !owner.services.is_empty() {
            return Err(LoadError::new(ErrorKind::Config, "only native plugins lend services"));
        }
        let mut names: Vec<_> = owner.services.iter().map(|service| &service.name).collect();
        names.sort();
        if let Some([name, _]) = names.array_windows().find(|[one, other]| one == other) {
            return Err(services::clash(name, &owner, &owner));
        }
        let owner = Arc::new(owner);
        let mut tools: Vec<Arc<ToolEntry>> = Vec::new();
        for tool in plugin.tools() {
            let entry = tool_entry(tool, &owner)?;
            let clash = tools.iter().find(|other| other.info.provider_name == entry.info.provider_name);
            if let Some(other) = clash {
                return Err(name_clash(&entry.info, &other.info));
            }
            tools.push(Arc::new(entry));
        }
        abilities.check_names(&owner, &tools)?;
        let names = plugin.metadata().provides.as_ref().map_or(&[][..], |provides| &provides.abilities);
        let provided = abilities.provided(names, &owner, &tools)?;
        let hooks = plugin
            .hooks()
            .into_iter()
            .map(|registration| Arc::new(HookEntry { registration, owner: Arc::clone(&owner) }))
            .collect();
        let entry = |subscription| Arc::new(SubscriptionEntry { subscription, owner: Arc::clone(&owner) });
        let subscriptions = subscriptions.into_iter().map(entry).collect();
        let routes = routes::entries(plugin.routes(), &owner)?;
        let registered = Self { owner, plugin, tools, provided, hooks, subscriptions, routes };
        shown::check(&registered)?;
        Ok(registered)
    }

    pub(crate) fn info(&self) -> PluginInfo {
        PluginInfo {
            metadata: self.plugin.metadata().clone(),
            scope: self.owner.scope.clone(),
            protected: self.owner.protected,
            tools: self.tools.iter().map(|entry| entry.info.clone()).collect(),
            hooks: self.hooks.iter().map(|entry| entry.registration.clone()).collect(),
            subscriptions: self.subscriptions.iter().map(|entry| entry.subscription.pattern.clone()).collect(),
            services: self.owner.services.iter().map(|service| service.name.clone()).collect(),
            abilities: self.provided.iter().map(|provided| provided.ability.clone()).collect(),
            origin: self.owner.origin.clone(),
            generation: self.owner.generation,
            enabled_by_default: self.owner.enabled_by_default,
            config: self.owner.config.clone(),
            limits: Arc::clone(&self.owner.limits),
            host_grants: Arc::clone(&self.owner.host_grants),
            code: self.plugin.code(),
        }
    }
}

fn tool_entry(tool: Arc<dyn Tool>, owner: &Arc<Owner>) -> Result<ToolEntry, LoadError> {
    let mut definition = tool.definition().clone();
    let local = definition.name.clone();
    let config = |message: String| LoadError::new(ErrorKind::Config, message);
    definition.name =
        ToolName::qualified(&owner.name, &local).map_err(|error| config(format!("tools.{local}: {error}")))?;
    if definition.description.trim().is_empty() {
        return Err(config(format!("tools.{local}.description: must not be empty: a model chooses by it")));
    }
    let parameters = Schema::compile_parameters(&definition.parameters)
        .map_err(|problem| config(format!("tools.{local}.parameters: {problem}")))?;
    let output = definition
        .output
        .as_ref()
        .map(Schema::compile)
        .transpose()
        .map_err(|problem| config(format!("tools.{local}.output: {problem}")))?;
    let info = ToolInfo {
        provider_name: provider_name(definition.name.as_str()).into(),
        definition: Arc::new(definition),
        plugin: owner.name.clone(),
        version: owner.version.clone(),
        scope: owner.scope.clone(),
        served_by: None,
    };
    let (parameters, output) = (Arc::new(parameters), output.map(Arc::new));
    Ok(ToolEntry { info, tool, parameters, output, owner: Arc::clone(owner), serving: None })
}

/// `qualified` in the form that every provider accepts: dots become `__`; what is too long ends in a digest of the
/// whole, so that it stays distinct. The way back is by look-up, and two tools with one name are refused.
pub(crate) fn provider_name(qualified: &str) -> String {
    let name = qualified.replace('.', "__");
    if name.len() <= MAX_PROVIDER_NAME {
        return name;
    }
    // FNV-1a: stable over versions and machines, as the name is written into conversations; no secrecy is asked of it.
    let digest = qualified
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let kept: String = name.chars().take(MAX_PROVIDER_NAME - 17).collect();
    format!("{kept}_{digest:016x}")
}

fn name_clash(new: &ToolInfo, old: &ToolInfo) -> LoadError {
    LoadError::new(
        ErrorKind::Conflict,
        format!(
            "the tools {} and {} would both be called {} where dots are not allowed: rename one",
            new.definition.name, old.definition.name, new.provider_name
        ),
    )
}

/// Everything registered in one scope.
#[derive(Default)]
pub(crate) struct Catalog {
    plugins: BTreeMap<PluginName, Arc<Registered>>,
    tools: HashMap<Arc<str>, Arc<ToolEntry>>,
    by_provider_name: HashMap<Arc<str>, Arc<ToolEntry>>,
    /// Those of the plugins that listen to events: few of many, and each event asks for them.
    listening: BTreeMap<PluginName, Arc<Registered>>,
    /// Who lends which service.
    lenders: BTreeMap<ServiceName, Arc<Owner>>,
}

impl Catalog {
    /// This catalog with more plugins in it.
    ///
    /// # Errors
    /// `Conflict` where a plugin or a tool of that name is there already; the plugins before it are not taken either.
    pub(crate) fn with(&self, added: &[Arc<Registered>]) -> Result<Self, LoadError> {
        let mut next = self.draft();
        for registered in added {
            next.admit(registered)?;
        }
        Ok(next)
    }

    /// A copy to change.
    pub(crate) fn draft(&self) -> Self {
        Self {
            plugins: self.plugins.clone(),
            tools: self.tools.clone(),
            by_provider_name: self.by_provider_name.clone(),
            listening: self.listening.clone(),
            lenders: self.lenders.clone(),
        }
    }

    /// Takes in one plugin, or leaves all as it is.
    ///
    /// # Errors
    /// `Conflict` where a plugin, a tool or a service of that name is there already.
    pub(crate) fn admit(&mut self, registered: &Arc<Registered>) -> Result<(), LoadError> {
        if let Some(old) = self.plugins.get(&registered.owner.name) {
            return Err(LoadError::new(
                ErrorKind::Conflict,
                format!(
                    "a plugin called {} (version {}) is registered there already: unregister it first or rename this one",
                    old.owner.name, old.owner.version
                ),
            ));
        }
        for entry in &registered.tools {
            if let Some(old) = self.by_provider_name.get(&entry.info.provider_name) {
                return Err(name_clash(&entry.info, &old.info));
            }
        }
        for service in &registered.owner.services {
            if let Some(old) = self.lenders.get(&service.name) {
                return Err(services::clash(&service.name, &registered.owner, old));
            }
        }
        for service in &registered.owner.services {
            self.lenders.insert(service.name.clone(), Arc::clone(&registered.owner));
        }
        if !registered.subscriptions.is_empty() {
            self.listening.insert(registered.owner.name.clone(), Arc::clone(registered));
        }
        for entry in &registered.tools {
            self.tools.insert(entry.info.definition.name.shared(), Arc::clone(entry));
            self.by_provider_name.insert(Arc::clone(&entry.info.provider_name), Arc::clone(entry));
        }
        self.plugins.insert(registered.owner.name.clone(), Arc::clone(registered));
        Ok(())
    }

    /// This catalog without one plugin, and that plugin.
    pub(crate) fn without(&self, name: &PluginName) -> Option<(Self, Arc<Registered>)> {
        let mut next = self.draft();
        let removed = next.take(name)?;
        Some((next, removed))
    }

    /// Takes out one plugin.
    pub(crate) fn take(&mut self, name: &PluginName) -> Option<Arc<Registered>> {
        let removed = self.plugins.remove(name)?;
        for entry in &removed.tools {
            self.tools.remove(entry.info.definition.name.as_str());
            self.by_provider_name.remove(&entry.info.provider_name);
        }
        self.listening.remove(name);
        for service in &removed.owner.services {
            self.lenders.remove(&service.name);
        }
        Some(removed)
    }

    pub(crate) fn plugin(&self, name: &PluginName) -> Option<&Arc<Registered>> {
        self.plugins.get(name)
    }

    pub(crate) fn plugins(&self) -> impl Iterator<Item = &Arc<Registered>> {
        self.plugins.values()
    }

    /// The tool called `name`.
    pub(crate) fn tool(&self, name: &str) -> Option<&Arc<ToolEntry>> {
        self.tools.get(name)
    }

    /// The tool that providers know as `name`.
    pub(crate) fn tool_by_provider_name(&self, name: &str) -> Option<&Arc<ToolEntry>> {
        self.by_provider_name.get(name)
    }

    /// The plugins that listen to events, in alphabetical order.
    pub(crate) fn listening(&self) -> impl Iterator<Item = &Arc<Registered>> {
        self.listening.values()
    }

    /// The service called `name` and who lends it.
    pub(crate) fn service(&self, name: &str) -> Option<(&Arc<Owner>, &ServiceRegistration)> {
        let owner = self.lenders.get(name)?;
        owner.services.iter().find(|service| service.name == name).map(|service| (owner, service))
    }

    /// All services and who lends them.
    pub(crate) fn services(&self) -> impl Iterator<Item = (&Arc<Owner>, &ServiceRegistration)> {
        self.lenders.keys().filter_map(|name| self.service(name.as_str()))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.plugins.is_empty()
    }

    /// Plugins here that require themselves, by way of others here or at once, or that require such a one.
    pub(crate) fn in_circles(&self) -> Vec<&PluginName> {
        let needs = |plugin: &Registered| {
            let metadata = plugin.plugin.metadata();
            let lent = |name: &ServiceName| self.lenders.get(name).map(|lender| lender.name.clone());
            let lenders = metadata.requires_services.iter().filter_map(lent).filter(|name| *name != plugin.owner.name);
            let named = metadata.requires.iter().map(|needed| needed.name.clone());
            named.chain(lenders).filter(|name| self.plugins.contains_key(name)).collect::<BTreeSet<_>>()
        };
        let mut waiting: HashMap<_, _> = self.plugins.iter().map(|(name, plugin)| (name, needs(plugin))).collect();
        let mut needed_by: HashMap<PluginName, Vec<&PluginName>> = HashMap::new();
        for (name, needs) in &waiting {
            needs.iter().for_each(|needed| needed_by.entry(needed.clone()).or_default().push(name));
        }
        // What needs nothing that waits goes, and those that need it wait for one less.
        let mut free: Vec<_> = waiting.iter().filter(|(_, needs)| needs.is_empty()).map(|(name, _)| *name).collect();
        while let Some(gone) = free.pop() {
            waiting.remove(gone);
            for name in needed_by.get(gone).into_iter().flatten() {
                if let Some(needs) = waiting.get_mut(name)
                    && needs.remove(gone)
                    && needs.is_empty()
                {
                    free.push(name);
                }
            }
        }
        let mut left: Vec<_> = waiting.into_keys().collect();
        left.sort();
        left
    }

    /// `Ok` where no tool of `other` has the provider name of a tool here and no service the name of one here, plugins of
    /// one name left aside: there the tenant's simply shadows the global one.
    ///
    /// # Errors
    /// `Conflict` with both names.
    pub(crate) fn check_beside(&self, other: &[Arc<Registered>]) -> Result<(), LoadError> {
        for entry in other.iter().flat_map(|registered| &registered.tools) {
            if let Some(mine) = self.by_provider_name.get(&entry.info.provider_name)
                && mine.owner.name != entry.owner.name
            {
                return Err(name_clash(&entry.info, &mine.info));
            }
        }
        for (owner, service) in other.iter().flat_map(|new| new.owner.services.iter().map(move |one| (&new.owner, one)))
        {
            if let Some(mine) = self.lenders.get(&service.name)
                && mine.name != owner.name
            {
                return Err(services::clash(&service.name, owner, mine));
            }
        }
        Ok(())
    }
}
