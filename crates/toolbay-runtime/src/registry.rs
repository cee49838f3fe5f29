//! The registry: the catalogs of all scopes, each immutable and swapped whole.
//!
//! A read clones one or two `Arc`s and holds no guard over an `.await`. A tenant that has nothing of its own is not in
//! the map and costs nothing. What a change needs to be true, names that are free and requirements that are met, is
//! checked under the writer's lock, so that it stays true.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use dashmap::DashMap;
use serde_json::Value;
use tokio::sync::{oneshot, watch};
use toolbay_api::{ErrorKind, LoadError, PluginName, Scope, ServiceName, TenantId, ToolError, manifest::Requirement};

use crate::{
    activation::{Activation, Activations},
    catalog::{Catalog, Owner, Registered},
    generation::Generation,
    services::{self, Sight},
    view::View,
};

pub(crate) struct Registry {
    /// The view of a tenant that has nothing of its own, which holds the global catalog.
    global: RwLock<Arc<View>>,
    tenants: DashMap<TenantId, Arc<Catalog>>,
    /// What tenants decided about their plugins; a tenant that decided nothing is not in it.
    activations: DashMap<TenantId, Arc<Activations>>,
    /// What is decided about global plugins for all tenants.
    for_all: RwLock<Option<Arc<Activations>>>,
    /// What tenants that are in one of the above saw last: each run and each event asks for it, and to work it out costs as
    /// much as the tenant has plugins and configurations. One that is out of date is not given any more.
    views: DashMap<TenantId, Arc<View>>,
    /// Held by writers only, from the check of a change to its publication.
    writer: Mutex<()>,
    generation: RwLock<Arc<Generation>>,
    /// Counts publications, for those who wait for one.
    changes: watch::Sender<u64>,
    /// Set for good when the host closes.
    closing: Arc<AtomicBool>,
}

/// Plugins that were taken out together.
pub(crate) struct Removed {
    pub(crate) all: Vec<Arc<Registered>>,
    /// Resolves, with an error, when the last run that may see one of them has ended.
    pub(crate) unseen: oneshot::Receiver<()>,
}

/// A plugin that is to take another's place.
#[derive(Clone)]
pub(crate) struct Exchange {
    pub(crate) old: Arc<Registered>,
    pub(crate) new: Arc<Registered>,
}

/// Why a plugin was not taken out.
pub(crate) enum Kept {
    /// It is not there.
    NotFound,
    /// These require it.
    Required(Vec<(Scope, PluginName)>),
    /// The host is closing, which stops it anyway.
    Closing,
}

impl Registry {
    pub(crate) fn new(activations: HashMap<TenantId, BTreeMap<PluginName, Activation>>) -> Self {
        let decided = |(tenant, all): (TenantId, BTreeMap<_, _>)| (tenant, Arc::new(all.into_iter().collect()));
        Self {
            global: RwLock::new(Arc::new(View::new(Arc::default(), None, None, None))),
            tenants: DashMap::new(),
            activations: activations.into_iter().map(decided).collect(),
            for_all: RwLock::default(),
            views: DashMap::new(),
            writer: Mutex::new(()),
            generation: RwLock::default(),
            changes: watch::Sender::default(),
            closing: Arc::default(),
        }
    }

    /// What a run that begins now holds until it ends. To be taken before its view is.
    pub(crate) fn generation(&self) -> Arc<Generation> {
        Arc::clone(&self.generation.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What tells whether the host is closing.
    pub(crate) fn closing(&self) -> &Arc<AtomicBool> {
        &self.closing
    }

    /// Lets no plugin in or out any more, and gives all that are there.
    pub(crate) fn close(&self) -> Vec<Arc<Registered>> {
        let _writing = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.closing.store(true, Ordering::SeqCst);
        self.all()
    }

    /// `Ok` while the host is not closing.
    ///
    /// # Errors
    /// `Unavailable`.
    pub(crate) fn check_open(&self) -> Result<(), LoadError> {
        if self.closing.load(Ordering::SeqCst) {
            return Err(LoadError::new(ErrorKind::Unavailable, "the host is shutting down and takes no more plugins"));
        }
        Ok(())
    }

    /// What `tenant` sees now.
    pub(crate) fn view(&self, tenant: &TenantId) -> Arc<View> {
        let global = self.global();
        let own = self.tenants.get(tenant).map(|own| Arc::clone(&own));
        let decided = self.activations.get(tenant).map(|decided| Arc::clone(&decided));
        if own.is_none() && decided.is_none() {
            return global;
        }
        let is_so = |last: &Arc<View>| {
            Arc::ptr_eq(&last.global, &global.global)
                && is_same(last.for_all.as_ref(), global.for_all.as_ref())
                && is_same(last.own.as_ref(), own.as_ref())
                && is_same(last.decided.as_ref(), decided.as_ref())
        };
        let last = self.views.get(tenant).map(|last| Arc::clone(&last));
        if let Some(last) = last.filter(is_so) {
            return last;
        }
        let view = Arc::new(View::new(Arc::clone(&global.global), own, decided, global.for_all.clone()));
        self.views.insert(tenant.clone(), Arc::clone(&view));
        // A change that came in between has taken away what was there before, and not this.
        if !self.tenants.contains_key(tenant) && !self.activations.contains_key(tenant) {
            self.views.remove(tenant);
        }
        view
    }

    /// What `tenant` decided about `plugin`.
    pub(crate) fn activation(&self, tenant: &TenantId, plugin: &PluginName) -> Option<Activation> {
        self.activations.get(tenant)?.of(plugin).cloned()
    }

    /// What is decided about all plugins in `scope`.
    pub(crate) fn activations(&self, scope: &Scope) -> Option<Arc<Activations>> {
        match scope {
            Scope::Global => self.for_all(),
            Scope::Tenant(tenant) => self.activations.get(tenant).map(|decided| Arc::clone(&decided)),
        }
    }

    /// Puts `next` in the place of all that is decided in `scope`.
    pub(crate) fn decide(&self, scope: &Scope, next: Activations) {
        let _writing = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let next = (!next.is_empty()).then(|| Arc::new(next));
        match (scope, next) {
            (Scope::Global, next) => {
                *self.for_all.write().unwrap_or_else(PoisonError::into_inner) = next.clone();
                let global = Arc::clone(&self.global().global);
                *self.global.write().unwrap_or_else(PoisonError::into_inner) =
                    Arc::new(View::new(global, None, None, next));
                self.views.clear();
            }
            (Scope::Tenant(tenant), Some(next)) => {
                self.activations.insert(tenant.clone(), next);
                self.views.remove(tenant);
            }
            (Scope::Tenant(tenant), None) => {
                self.activations.remove(tenant);
                self.views.remove(tenant);
            }
        }
    }

    fn for_all(&self) -> Option<Arc<Activations>> {
        self.for_all.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is said of a global plugin's configuration for all tenants.
    pub(crate) fn config_for_all(&self, scope: &Scope, plugin: &PluginName) -> Option<Value> {
        self.for_all().filter(|_| *scope == Scope::Global)?.of(plugin)?.config.clone()
    }

    /// The configurations that tenants have of a plugin, by tenant.
    pub(crate) fn configs_of(&self, owner: &Owner) -> Vec<(TenantId, Value)> {
        let is_theirs = |tenant: &TenantId| match &owner.scope {
            Scope::Global => self.tenants.get(tenant).is_none_or(|own| own.plugin(&owner.name).is_none()),
            Scope::Tenant(own) => own == tenant,
        };
        let config = |decided: &Activations| decided.of(&owner.name)?.config.clone();
        let decided: Vec<_> =
            self.activations.iter().filter_map(|of| Some((of.key().clone(), config(of.value())?))).collect();
        let mut theirs: Vec<_> = decided.into_iter().filter(|(tenant, _)| is_theirs(tenant)).collect();
        theirs.sort_by(|a, b| a.0.cmp(&b.0));
        theirs
    }

    /// Changes what `tenant` decided about `plugin`.
    ///
    /// # Errors
    /// `LimitExceeded` where it has decided about too many.
    pub(crate) fn activate(
        &self,
        tenant: &TenantId,
        plugin: &PluginName,
        change: impl FnOnce(&mut Activation),
    ) -> Result<(), ToolError> {
        let _writing = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = self.activations.get(tenant).map(|decided| Activations::clone(&decided)).unwrap_or_default();
        next.change(plugin, change)?;
        if next.is_empty() {
            self.activations.remove(tenant);
        } else {
            self.activations.insert(tenant.clone(), Arc::new(next));
        }
        self.views.remove(tenant);
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Wakes after each publication.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// All plugins, of whatever scope.
    pub(crate) fn all(&self) -> Vec<Arc<Registered>> {
        let mut all: Vec<_> = self.catalog(&Scope::Global).plugins().cloned().collect();
        for own in &self.tenants {
            all.extend(own.plugins().cloned());
        }
        all
    }

    /// The catalog of `scope`.
    pub(crate) fn catalog(&self, scope: &Scope) -> Arc<Catalog> {
        match scope {
            Scope::Global => Arc::clone(&self.global().global),
            Scope::Tenant(tenant) => self.tenants.get(tenant).map(|own| Arc::clone(&own)).unwrap_or_default(),
        }
    }

    /// The plugins that hear events of `scope`: global ones, then the tenant's own.
    pub(crate) fn listening(&self, scope: &Scope) -> Vec<Arc<Registered>> {
        let Scope::Tenant(tenant) = scope else {
            return self.catalog(&Scope::Global).listening().cloned().collect();
        };
        let view = self.view(tenant);
        let own = view.own.iter().flat_map(|own| own.listening());
        view.global.listening().chain(own).filter(|plugin| view.sees(&plugin.owner)).cloned().collect()
    }

    /// Why `registered` cannot have all services in `scope` that it requires, if it cannot.
    pub(crate) fn missing_services(&self, scope: &Scope, registered: &Registered) -> Option<LoadError> {
        let (own, global) = (self.catalog(scope), self.catalog(&Scope::Global));
        services::missing(Sight::of(&own, (*scope != Scope::Global).then_some(&*global)), registered)
    }

    /// What `registered` requires and does not have in `scope`, if there is such a thing.
    pub(crate) fn lacking(&self, scope: &Scope, registered: &Registered) -> Option<LoadError> {
        let (own, global) = (self.catalog(scope), self.catalog(&Scope::Global));
        lacking_among(&own, (*scope != Scope::Global).then_some(&*global), registered)
    }

    /// Adds plugins to `scope`: all of them or none.
    ///
    /// # Errors
    /// `Conflict`: a plugin of that name is there, the global one of that name is protected, or two tools would share
    /// a name. `Dependency`: what one requires is not there. `Unavailable`: the host is closing.
    pub(crate) fn add(&self, scope: &Scope, added: &[Arc<Registered>]) -> Result<(), LoadError> {
        let _writing = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_open()?;
        let next = self.catalog(scope).with(added)?;
        let beside = self.beside(scope);
        for registered in added {
            self.check_place(scope, registered, &beside)?;
            self.lacking(scope, registered).map_or(Ok(()), Err)?;
        }
        self.publish(scope, next);
        Ok(())
    }

    /// For each of `candidates` why it could not be added to `scope` with those before it, names taken alone.
    pub(crate) fn clashes(&self, scope: &Scope, candidates: &[Arc<Registered>]) -> Vec<Option<LoadError>> {
        let mut draft = self.catalog(scope).draft();
        let beside = self.beside(scope);
        let mut clash =
            |registered| self.check_place(scope, registered, &beside).and_then(|()| draft.admit(registered));
        candidates.iter().map(|registered| clash(registered).err()).collect()
    }

    /// The first requirement of `registered` that is not met in `scope`, and what is there of that name.
    pub(crate) fn unmet<'a>(&self, scope: &Scope, registered: &'a Registered) -> Option<(&'a Requirement, Found)> {
        unmet_among(&self.catalog(scope), Some(&self.global().global), registered)
    }

    /// `Ok` where a plugin could be taken out of `scope`, or is not there.
    ///
    /// # Errors
    /// `Dependency` where others require it, which are named.
    pub(crate) fn check_removable(&self, scope: &Scope, name: &PluginName) -> Result<(), ToolError> {
        let dependants = self.dependants(scope, name);
        if dependants.is_empty() { Ok(()) } else { Err(required(name, &dependants)) }
    }

    /// Takes a plugin out of `scope` and gives it back. It stays where another requires it.
    pub(crate) fn remove(&self, scope: &Scope, name: &PluginName) -> Result<Removed, Kept> {
        let _writing = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if self.closing.load(Ordering::SeqCst) {
            return Err(Kept::Closing);
        }
        let (next, registered) = self.catalog(scope).without(name).ok_or(Kept::NotFound)?;
        let dependants = self.dependants(scope, name);
        if !dependants.is_empty() {
            return Err(Kept::Required(dependants));
        }
        self.publish(scope, next);
        Ok(Removed { all: vec![registered], unseen: self.succeed() })
    }

    /// Puts new plugins in the places of old ones, in one swap: tools, hooks and all. All of them or none.
    ///
    /// # Errors
    /// As [`misfit`](Self::misfit), without the place; `Unavailable`: the host is closing.
    pub(crate) fn exchange(&self, scope: &Scope, exchanges: &[Exchange]) -> Result<Removed, LoadError> {
        let _writing = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        self.check_open()?;
        let next = self.exchanged(scope, exchanges).map_err(|(_, error)| error)?;
        self.publish(scope, next);
        let all = exchanges.iter().map(|exchange| Arc::clone(&exchange.old)).collect();
        Ok(Removed { all, unseen: self.succeed() })
    }

    /// The first of `exchanges` that cannot be made together with the others, and why.
    ///
    /// `Conflict`: what it is to replace is not there any more, or a name is taken. `Dependency`: what it requires is not
    /// there, or a plugin requires another version of it.
    pub(crate) fn misfit(&self, scope: &Scope, exchanges: &[Exchange]) -> Option<(usize, LoadError)> {
        self.exchanged(scope, exchanges).err()
    }

    fn exchanged(&self, scope: &Scope, exchanges: &[Exchange]) -> Result<Catalog, (usize, LoadError)> {
        let mut next = self.catalog(scope).draft();
        for (at, Exchange { old, .. }) in exchanges.iter().enumerate() {
            if !next.take(&old.owner.name).is_some_and(|there| Arc::ptr_eq(&there, old)) {
                let message = format!("the plugin {} was changed by somebody else at the same time", old.owner.name);
                return Err((at, LoadError::new(ErrorKind::Conflict, message)));
            }
        }
        let beside = self.beside(scope);
        for (at, Exchange { new, .. }) in exchanges.iter().enumerate() {
            let placed = self.check_place(scope, new, &beside).and_then(|()| next.admit(new));
            placed.map_err(|error| (at, error))?;
        }
        let global = self.global();
        let behind = match scope {
            Scope::Global => None,
            Scope::Tenant(_) => Some(&*global.global),
        };
        for (at, Exchange { new, .. }) in exchanges.iter().enumerate() {
            lacking_among(&next, behind, new).map_or(Ok(()), |error| Err((at, error)))?;
        }
        // There was none before, so one that is put in its place now is at fault.
        let circles = next.in_circles();
        if let Some(at) = exchanges.iter().position(|exchange| circles.contains(&&exchange.new.owner.name)) {
            let message = format!(
                "plugins would require each other: {}; take one of the requirements away",
                circles.iter().take(5).map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
            );
            return Err((at, LoadError::new(ErrorKind::Dependency, message)));
        }
        let tenants: Vec<_> = match scope {
            Scope::Global => self.tenants.iter().map(|own| Arc::clone(&own)).collect(),
            Scope::Tenant(_) => Vec::new(),
        };
        let now = self.catalog(scope);
        let left_alone = next.plugins().map(|plugin| (plugin, None));
        let of_tenants = tenants.iter().flat_map(|own| own.plugins().map(move |plugin| (plugin, Some(&**own))));
        for (plugin, own) in left_alone.chain(of_tenants) {
            let sight = |catalog| own.map_or_else(|| Sight::of(catalog, behind), |own| Sight::of(own, Some(catalog)));
            if let Some((at, reason)) = lost_by(exchanges, plugin, own, sight(&now), sight(&next)) {
                let (name, scope) = (&plugin.owner.name, &plugin.owner.scope);
                let message = format!("the plugin {name} ({scope}) {reason}");
                return Err((at, LoadError::new(ErrorKind::Dependency, message)));
            }
        }
        Ok(next)
    }

    /// Begins a generation; gives what resolves when all from before it are gone.
    fn succeed(&self) -> oneshot::Receiver<()> {
        let mut current = self.generation.write().unwrap_or_else(PoisonError::into_inner);
        let (generation, unseen) = current.succeed();
        *current = generation;
        unseen
    }

    /// The plugins that require `name` of `scope` and would have none without it.
    fn dependants(&self, scope: &Scope, name: &PluginName) -> Vec<(Scope, PluginName)> {
        let lent = self.catalog(scope).plugin(name).map(|plugin| Arc::clone(&plugin.owner));
        let is_lent =
            |service: &ServiceName| lent.iter().any(|owner| owner.services.iter().any(|lent| lent.name == *service));
        let requires = |plugin: &&Arc<Registered>| {
            let metadata = plugin.plugin.metadata();
            metadata.requires.iter().any(|r| r.name == *name) || metadata.requires_services.iter().any(is_lent)
        };
        let named = |plugin: &Arc<Registered>| (plugin.owner.scope.clone(), plugin.owner.name.clone());
        let others = |plugin: &&Arc<Registered>| plugin.owner.name != *name;
        let mut dependants: Vec<_> = self.catalog(scope).plugins().filter(others).filter(requires).map(named).collect();
        if *scope == Scope::Global {
            for own in self.tenants.iter().filter(|own| own.plugin(name).is_none()) {
                dependants.extend(own.plugins().filter(requires).map(named));
            }
        }
        dependants.sort();
        dependants
    }

    /// The catalogs that plugins of `scope` stand beside.
    fn beside(&self, scope: &Scope) -> Vec<Arc<Catalog>> {
        match scope {
            Scope::Global => self.tenants.iter().map(|own| Arc::clone(&own)).collect(),
            Scope::Tenant(_) => vec![self.catalog(&Scope::Global)],
        }
    }

    fn check_place(
        &self,
        scope: &Scope,
        registered: &Arc<Registered>,
        beside: &[Arc<Catalog>],
    ) -> Result<(), LoadError> {
        let name = &registered.owner.name;
        for other in beside {
            if *scope != Scope::Global && other.plugin(name).is_some_and(|plugin| plugin.owner.protected) {
                return Err(LoadError::new(
                    ErrorKind::Conflict,
                    format!(
                        "the global plugin {name} is protected: a tenant cannot put one of its own in its place; rename this one"
                    ),
                ));
            }
            other.check_beside(std::slice::from_ref(registered))?;
        }
        Ok(())
    }

    fn publish(&self, scope: &Scope, next: Catalog) {
        match scope {
            Scope::Global => {
                let view = Arc::new(View::new(Arc::new(next), None, None, self.for_all()));
                *self.global.write().unwrap_or_else(PoisonError::into_inner) = view;
                self.views.clear();
            }
            Scope::Tenant(tenant) => {
                if next.is_empty() {
                    self.tenants.remove(tenant);
                } else {
                    self.tenants.insert(tenant.clone(), Arc::new(next));
                }
                self.views.remove(tenant);
            }
        }
        self.changes.send_modify(|count| *count += 1);
    }

    fn global(&self) -> Arc<View> {
        Arc::clone(&self.global.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn is_same<T>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        _ => false,
    }
}

/// What `plugin` requires and has, and would have no more after `exchanges`; the first of those that is at fault. `own` is
/// the tenant's catalog that it stands in, where it stands behind the one that is changed.
fn lost_by(
    exchanges: &[Exchange],
    plugin: &Registered,
    own: Option<&Catalog>,
    before: Sight<'_>,
    after: Sight<'_>,
) -> Option<(usize, String)> {
    let metadata = plugin.plugin.metadata();
    let by_version = |needed: &Requirement| {
        // Where the tenant has one of its own in its place, it is not the one that is exchanged.
        let is_it = |one: &Exchange| {
            one.new.owner.name == needed.name && own.is_none_or(|own| own.plugin(&needed.name).is_none())
        };
        let at = exchanges.iter().position(is_it)?;
        let Exchange { old, new } = exchanges.get(at)?;
        let (had, has) = (&old.owner.version, &new.owner.version);
        let is_lost = needed.version.matches(had) && !needed.version.matches(has);
        is_lost.then(|| (at, format!("needs {} of it, and this is {has}", needed.version)))
    };
    if let Some(lost) = metadata.requires.iter().find_map(by_version) {
        return Some(lost);
    }
    // One that calls itself otherwise leaves nothing behind under its old name.
    let by_name = |needed: &Requirement| {
        let goes = |one: &Exchange| one.old.owner.name == needed.name && one.new.owner.name != needed.name;
        let at = exchanges.iter().position(goes)?;
        let is_lost = before.has(&needed.name) && !after.has(&needed.name);
        is_lost.then(|| (at, format!("needs {}, and this one is called otherwise", needed.name)))
    };
    if let Some(lost) = metadata.requires.iter().find_map(by_name) {
        return Some(lost);
    }
    let needs = &metadata.requires_services;
    let lent = |exchange: &Exchange| exchange.old.owner.services.iter().any(|lent| needs.contains(&lent.name));
    let at = exchanges.iter().position(lent)?;
    services::missing(before, plugin).is_none().then_some(())?;
    services::missing(after, plugin).map(|error| (at, error.message.to_string()))
}

/// What there is of a required plugin.
pub(crate) enum Found {
    Nothing,
    Version(semver::Version),
}

/// The first requirement of `registered` that neither `own` meets nor, where nothing of that name is there, `behind`.
fn unmet_among<'a>(
    own: &Catalog,
    behind: Option<&Catalog>,
    registered: &'a Registered,
) -> Option<(&'a Requirement, Found)> {
    registered.plugin.metadata().requires.iter().find_map(|needed| {
        let there = own.plugin(&needed.name).or_else(|| behind?.plugin(&needed.name));
        let found = there.map_or(Found::Nothing, |there| Found::Version(there.owner.version.clone()));
        let met = matches!(&found, Found::Version(version) if needed.version.matches(version));
        (!met).then_some((needed, found))
    })
}

/// What `registered` requires of plugins and services and neither `own` nor `behind` has.
fn lacking_among(own: &Catalog, behind: Option<&Catalog>, registered: &Registered) -> Option<LoadError> {
    let unmet = unmet_among(own, behind, registered).map(|(needed, found)| missing(needed, &found));
    unmet.or_else(|| services::missing(Sight::of(own, behind), registered))
}

/// The error for a requirement that is not met.
fn missing(needed: &Requirement, found: &Found) -> LoadError {
    let mut message = format!("needs the plugin {} {}, and ", needed.name, needed.version);
    match found {
        Found::Nothing => message.push_str("it is not registered"),
        Found::Version(version) => {
            let _ = write!(message, "version {version} is there");
        }
    }
    LoadError::new(ErrorKind::Dependency, message)
}

/// The error for a plugin that stays since others require it.
pub(crate) fn required(name: &PluginName, by: &[(Scope, PluginName)]) -> ToolError {
    let by = by.iter().map(|(scope, name)| format!("{name} ({scope})")).collect::<Vec<_>>().join(", ");
    let message = format!("the plugin {name} is required by {by}: unregister those first, or all together");
    ToolError::new(ErrorKind::Dependency, message)
}
