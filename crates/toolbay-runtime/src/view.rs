//! What one tenant sees: its own catalog over the global one, with the hooks of both in order. Immutable; a run keeps
//! the one that it began with.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, OnceLock},
};

use serde_json::Value;
use toolbay_api::{AbilityName, HookPoint, PermissionSet, PluginName, Scope};

use crate::{
    abilities::Provided,
    activation::{Activation, Activations},
    callers,
    catalog::{Catalog, HookEntry, Owner, Registered, ToolEntry, ToolInfo},
    services::Sight,
};

/// Names that a "not found" suggests at most.
const MAX_SUGGESTIONS: usize = 3;

/// A plugin and an ability that it provides.
type Offer<'a> = (&'a Arc<Registered>, &'a Provided);

/// What one tenant sees.
pub(crate) struct View {
    pub(crate) global: Arc<Catalog>,
    pub(crate) own: Option<Arc<Catalog>>,
    pub(crate) decided: Option<Arc<Activations>>,
    /// What is decided about global plugins for every tenant that decides nothing else.
    pub(crate) for_all: Option<Arc<Activations>>,
    /// The configurations of those plugins about whose something is decided. A plugin whose configuration does not fit is off.
    configs: HashMap<PluginName, (Arc<Owner>, Option<Value>)>,
    by_point: [Vec<Arc<HookEntry>>; HookPoint::ALL.len()],
    around_tools: Vec<Arc<HookEntry>>,
    all_hooks: Vec<Arc<HookEntry>>,
    /// The operations of the abilities that the tenant has a provider of, as that one serves them.
    operations: Vec<Arc<ToolEntry>>,
    /// The same by name, and by the name that providers know them by. No tool has either.
    by_operation: HashMap<Arc<str>, Arc<ToolEntry>>,
}

impl View {
    pub(crate) fn new(
        global: Arc<Catalog>,
        own: Option<Arc<Catalog>>,
        decided: Option<Arc<Activations>>,
        for_all: Option<Arc<Activations>>,
    ) -> Self {
        let mut view = Self {
            global,
            own,
            decided,
            for_all,
            configs: HashMap::new(),
            by_point: Default::default(),
            around_tools: Vec::new(),
            all_hooks: Vec::new(),
            operations: Vec::new(),
            by_operation: HashMap::new(),
        };
        view.configs = view.tenant_configs();
        view.operations = view.served_operations();
        for entry in &view.operations {
            for name in [entry.info.definition.name.shared(), Arc::clone(&entry.info.provider_name)] {
                view.by_operation.insert(name, Arc::clone(entry));
            }
        }
        let mut hooks: Vec<_> = view.plugins().flat_map(|plugin| plugin.hooks.iter().cloned()).collect();
        hooks.sort_by_key(|hook| {
            let tenants_own = matches!(hook.owner.scope, toolbay_api::Scope::Tenant(_));
            (hook.registration.priority, tenants_own, hook.owner.sequence)
        });
        for hook in hooks {
            view.all_hooks.push(Arc::clone(&hook));
            let takes = |point| hook.registration.points.contains(&point);
            if takes(HookPoint::BeforeToolCall) || takes(HookPoint::AfterToolCall) {
                view.around_tools.push(Arc::clone(&hook));
            }
            for (point, list) in HookPoint::ALL.into_iter().zip(&mut view.by_point) {
                if takes(point) {
                    list.push(Arc::clone(&hook));
                }
            }
        }
        view
    }

    /// The hooks at `point`, in the order in which they are asked on the way in.
    pub(crate) fn hooks(&self, point: HookPoint) -> &[Arc<HookEntry>] {
        let index = HookPoint::ALL.iter().position(|other| *other == point);
        index.and_then(|index| self.by_point.get(index)).map_or(&[], Vec::as_slice)
    }

    /// The hooks that stand before or after tool calls, as one list: what was entered on the way in is what is left on
    /// the way out.
    pub(crate) fn hooks_around_tools(&self) -> &[Arc<HookEntry>] {
        &self.around_tools
    }

    /// All hooks, in their order.
    pub(crate) fn all_hooks(&self) -> &[Arc<HookEntry>] {
        &self.all_hooks
    }

    /// The two catalogs.
    pub(crate) fn sight(&self) -> Sight<'_> {
        Sight { global: &self.global, own: self.own.as_deref() }
    }

    /// The tool called `name`: the tenant's own first, then the global one, under its qualified name or else the name
    /// that providers know it by; and the operations of abilities, which no tool is called like.
    pub(crate) fn tool(&self, name: &str) -> Option<&Arc<ToolEntry>> {
        self.find(|catalog| catalog.tool(name))
            .or_else(|| self.by_operation.get(name))
            .or_else(|| self.find(|catalog| catalog.tool_by_provider_name(name)))
    }

    /// The plugins that provide `ability` for the tenant, the preferred one first.
    pub(crate) fn providers(&self, ability: &AbilityName) -> Vec<&Arc<Registered>> {
        let offers = self.offers().remove(ability).unwrap_or_default();
        offers.into_iter().map(|(plugin, _)| plugin).collect()
    }

    /// The operations of each ability as its preferred provider serves them.
    fn served_operations(&self) -> Vec<Arc<ToolEntry>> {
        let served = self.offers().into_values().filter_map(|offers| offers.into_iter().next());
        served.flat_map(|(_, provided)| provided.operations.iter().cloned()).collect()
    }

    /// Who provides each ability for the tenant, in the order of preference: by the tenant's priority, its own before those
    /// for everybody, then in the order of registration.
    ///
    /// Where a protected plugin provides it the tenant's own do not: to put one in its place is what it is protected from.
    fn offers(&self) -> BTreeMap<&AbilityName, Vec<Offer<'_>>> {
        let mut all: BTreeMap<_, Vec<Offer<'_>>> = BTreeMap::new();
        for plugin in self.plugins() {
            for provided in &plugin.provided {
                all.entry(&provided.ability).or_default().push((plugin, provided));
            }
        }
        for offers in all.values_mut() {
            if offers.iter().any(|(plugin, _)| plugin.owner.protected) {
                offers.retain(|(plugin, _)| plugin.owner.scope == Scope::Global);
            }
            offers.sort_by_key(|(plugin, _)| self.preference(&plugin.owner));
        }
        all
    }

    fn preference(&self, owner: &Owner) -> (i32, bool, u64) {
        let priority = self.decisions(owner).find_map(|activation| activation.priority).unwrap_or_default();
        (priority, owner.scope == Scope::Global, owner.sequence)
    }

    fn find<'a>(&'a self, look_up: impl Fn(&'a Catalog) -> Option<&'a Arc<ToolEntry>>) -> Option<&'a Arc<ToolEntry>> {
        let own = self.own.as_ref().and_then(|own| look_up(own)).filter(|entry| self.sees(&entry.owner));
        own.or_else(|| look_up(&self.global).filter(|entry| self.sees(&entry.owner)))
    }

    /// Whether the tenant has a plugin switched on.
    pub(crate) fn is_on(&self, owner: &Owner) -> bool {
        let fits = !matches!(self.configs.get(&owner.name), Some((_, None)));
        owner.protected || (fits && self.is_said_on(owner))
    }

    /// Whether a plugin is to be on, which it is where its configuration fits.
    pub(crate) fn is_said_on(&self, owner: &Owner) -> bool {
        self.said_of(owner).unwrap_or(owner.enabled_by_default)
    }

    /// Whether it is decided that a plugin is on or off.
    fn said_of(&self, owner: &Owner) -> Option<bool> {
        self.decisions(owner).find_map(|activation| activation.enabled)
    }

    /// What is decided about a plugin: by the tenant, and then for all of them.
    fn decisions(&self, owner: &Owner) -> impl Iterator<Item = &Activation> {
        let for_all = self.for_all.as_ref().filter(|_| owner.scope == Scope::Global);
        [self.decided.as_ref(), for_all].into_iter().flatten().filter_map(|decided| decided.of(&owner.name))
    }

    /// Whether a plugin of the tenant or for everybody is one of those that the tenant sees.
    pub(crate) fn sees(&self, owner: &Owner) -> bool {
        let shown = match owner.scope {
            Scope::Global => self.sight().shows_global(owner),
            Scope::Tenant(_) => self.sight().shows_own(&owner.name),
        };
        shown && self.is_on(owner)
    }

    /// The plugin of a tool that is not there since it is switched off for the tenant by a decision.
    pub(crate) fn switched_off(&self, tool: &str) -> Option<PluginName> {
        let of = |catalog: &'_ Arc<Catalog>| {
            let owner = &catalog.tool(tool).or_else(|| catalog.tool_by_provider_name(tool))?.owner;
            (self.said_of(owner) == Some(false)).then(|| owner.name.clone())
        };
        self.own.as_ref().and_then(of).or_else(|| of(&self.global))
    }

    /// The configuration that a plugin has here. That of one that is not in its place here, since it is on its way in or
    /// out, is worked out in `made`.
    pub(crate) fn config<'a>(&'a self, owner: &'a Arc<Owner>, made: &'a OnceLock<Option<Value>>) -> &'a Value {
        let of_tenant = match self.configs.get(&owner.name) {
            Some((it, config)) if Arc::ptr_eq(it, owner) => config.as_ref(),
            _ => made.get_or_init(|| self.tenant_config(owner)?.ok()).as_ref(),
        };
        of_tenant.unwrap_or(&owner.config)
    }

    fn tenant_config(&self, owner: &Owner) -> Option<Result<Value, String>> {
        let mut layers: Vec<_> = self.decisions(owner).filter_map(|activation| activation.config.as_ref()).collect();
        layers.reverse();
        (!layers.is_empty()).then(|| owner.config_with(&layers))
    }

    fn tenant_configs(&self) -> HashMap<PluginName, (Arc<Owner>, Option<Value>)> {
        if self.decided.is_none() && self.for_all.is_none() {
            return HashMap::new();
        }
        let own = |plugin: &Arc<Registered>| {
            let settled = self.tenant_config(&plugin.owner)?.inspect_err(|problem| {
                let plugin = &plugin.owner.name;
                tracing::warn!(target: "toolbay::lifecycle", %plugin, problem, "off for a tenant");
            });
            Some((plugin.owner.name.clone(), (Arc::clone(&plugin.owner), settled.ok())))
        };
        self.plugins_on_or_off().filter_map(own).collect()
    }

    /// The tool called `name`, if a user with `rights` may see it and it may be called from outside of plugins.
    pub(crate) fn tool_info(&self, name: &str, rights: &PermissionSet) -> Option<ToolInfo> {
        self.tool(name).filter(|entry| may_see(entry, rights, None)).map(|entry| entry.info.clone())
    }

    /// The tools that a user with `rights` may see and that `by` may call, in alphabetical order.
    pub(crate) fn tools(&self, rights: &PermissionSet, by: Option<&Owner>) -> Vec<ToolInfo> {
        let mut tools: Vec<_> = self
            .plugins()
            .flat_map(|plugin| plugin.tools.iter())
            .chain(&self.operations)
            .filter(|entry| may_see(entry, rights, by))
            .map(|entry| entry.info.clone())
            .collect();
        tools.sort_by(|a, b| a.definition.name.cmp(&b.definition.name));
        tools
    }

    /// The plugins that the tenant sees: neither shadowed ones nor those that are switched off.
    pub(crate) fn plugins(&self) -> impl Iterator<Item = &Arc<Registered>> {
        self.plugins_on_or_off().filter(|plugin| self.is_on(&plugin.owner))
    }

    /// The plugins that are the tenant's: shadowed ones are not among them.
    pub(crate) fn plugins_on_or_off(&self) -> impl Iterator<Item = &Arc<Registered>> {
        let sight = self.sight();
        let own =
            self.own.iter().flat_map(|own| own.plugins()).filter(move |plugin| sight.shows_own(&plugin.owner.name));
        own.chain(self.global.plugins().filter(move |plugin| sight.shows_global(&plugin.owner)))
    }

    /// Tools that the tenant may see and `by` may call whose names are like `name`, the likest first.
    pub(crate) fn suggestions(&self, name: &str, rights: &PermissionSet, by: Option<&Owner>) -> Vec<String> {
        // The name is the caller's: a long one is not compared, since the comparison's cost grows with it.
        if name.len() > 128 {
            return Vec::new();
        }
        let likeness = |other: &str| {
            let local = other.split_once('.').map_or(other, |(_, local)| local);
            strsim::jaro_winkler(name, other).max(strsim::jaro_winkler(name, local))
        };
        let mut near: Vec<_> = self
            .tools(rights, by)
            .into_iter()
            .map(|tool| (likeness(tool.definition.name.as_str()), String::from(tool.definition.name.clone())))
            .filter(|(likeness, _)| *likeness > 0.8)
            .collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        near.into_iter().take(MAX_SUGGESTIONS).map(|(_, name)| name).collect()
    }
}

fn may_see(entry: &ToolEntry, rights: &PermissionSet, by: Option<&Owner>) -> bool {
    callers::may_call(entry, by)
        && entry.info.definition.required_permissions.iter().all(|right| rights.covers(right.as_str()))
}
