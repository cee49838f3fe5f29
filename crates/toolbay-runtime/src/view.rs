//! What one tenant sees: its own catalog over the global one, with the hooks of both in order. Immutable; a run keeps
//! the one that it began with.

use std::sync::Arc;

use toolbay_api::{HookPoint, PermissionSet};

use crate::{
    catalog::{Catalog, HookEntry, Registered, ToolEntry, ToolInfo},
    services::Sight,
};

/// Names that a "not found" suggests at most.
const MAX_SUGGESTIONS: usize = 3;

/// What one tenant sees.
pub(crate) struct View {
    pub(crate) global: Arc<Catalog>,
    pub(crate) own: Option<Arc<Catalog>>,
    by_point: [Vec<Arc<HookEntry>>; HookPoint::ALL.len()],
    around_tools: Vec<Arc<HookEntry>>,
}

impl View {
    pub(crate) fn new(global: Arc<Catalog>, own: Option<Arc<Catalog>>) -> Self {
        let mut view = Self { global, own, by_point: Default::default(), around_tools: Vec::new() };
        let mut hooks: Vec<_> = view.plugins().flat_map(|plugin| plugin.hooks.iter().cloned()).collect();
        hooks.sort_by_key(|hook| {
            let tenants_own = matches!(hook.owner.scope, toolbay_api::Scope::Tenant(_));
            (hook.registration.priority, tenants_own, hook.sequence)
        });
        for hook in hooks {
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

    /// The two catalogs.
    pub(crate) fn sight(&self) -> Sight<'_> {
        Sight { global: &self.global, own: self.own.as_deref() }
    }

    /// The tool called `name`: the tenant's own first, then the global one, under its qualified name or else the name
    /// that providers know it by.
    pub(crate) fn tool(&self, name: &str) -> Option<&Arc<ToolEntry>> {
        self.find(|catalog| catalog.tool(name)).or_else(|| self.find(|catalog| catalog.tool_by_provider_name(name)))
    }

    fn find<'a>(&'a self, look_up: impl Fn(&'a Catalog) -> Option<&'a Arc<ToolEntry>>) -> Option<&'a Arc<ToolEntry>> {
        if let Some(own) = &self.own
            && let Some(entry) = look_up(own)
            && !self.is_protected(&entry.owner.name)
        {
            return Some(entry);
        }
        look_up(&self.global).filter(|entry| entry.owner.protected || !self.is_shadowed(&entry.owner.name))
    }

    /// The tool called `name`, if a user with `rights` may see it.
    pub(crate) fn tool_info(&self, name: &str, rights: &PermissionSet) -> Option<ToolInfo> {
        self.tool(name).filter(|entry| may_see(entry, rights)).map(|entry| entry.info.clone())
    }

    /// The tools that a user with `rights` may see, in alphabetical order.
    pub(crate) fn tools(&self, rights: &PermissionSet) -> Vec<ToolInfo> {
        let mut tools: Vec<_> = self
            .plugins()
            .flat_map(|plugin| plugin.tools.iter())
            .filter(|entry| may_see(entry, rights))
            .map(|entry| entry.info.clone())
            .collect();
        tools.sort_by(|a, b| a.definition.name.cmp(&b.definition.name));
        tools
    }

    /// The plugins that the tenant sees: shadowed ones are not among them.
    pub(crate) fn plugins(&self) -> impl Iterator<Item = &Arc<Registered>> {
        let own = self.own.iter().flat_map(|own| own.plugins()).filter(|p| !self.is_protected(&p.owner.name));
        let global = self.global.plugins().filter(|p| p.owner.protected || !self.is_shadowed(&p.owner.name));
        own.chain(global)
    }

    fn is_shadowed(&self, plugin: &toolbay_api::PluginName) -> bool {
        self.own.as_ref().is_some_and(|own| own.plugin(plugin).is_some())
    }

    fn is_protected(&self, plugin: &toolbay_api::PluginName) -> bool {
        self.global.plugin(plugin).is_some_and(|plugin| plugin.owner.protected)
    }

    /// Tools that the tenant may see whose names are like `name`, the likest first.
    pub(crate) fn suggestions(&self, name: &str, rights: &PermissionSet) -> Vec<String> {
        // The name is the caller's: a long one is not compared, since the comparison's cost grows with it.
        if name.len() > 128 {
            return Vec::new();
        }
        let likeness = |other: &str| {
            let local = other.split_once('.').map_or(other, |(_, local)| local);
            strsim::jaro_winkler(name, other).max(strsim::jaro_winkler(name, local))
        };
        let mut near: Vec<_> = self
            .tools(rights)
            .into_iter()
            .map(|tool| (likeness(tool.definition.name.as_str()), String::from(tool.definition.name.clone())))
            .filter(|(likeness, _)| *likeness > 0.8)
            .collect();
        near.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        near.into_iter().take(MAX_SUGGESTIONS).map(|(_, name)| name).collect()
    }
}

fn may_see(entry: &ToolEntry, rights: &PermissionSet) -> bool {
    entry.info.definition.required_permissions.iter().all(|right| rights.covers(right.as_str()))
}
