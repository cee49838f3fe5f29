//! The registry: the catalogs of all scopes, each immutable and swapped whole.
//!
//! A read clones one or two `Arc`s and holds no guard over an `.await`. A tenant that has nothing of its own is not in
//! the map and costs nothing. What a change needs to be true, names that are free and requirements that are met, is
//! checked under the writer's lock, so that it stays true.

use std::{
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use dashmap::DashMap;
use tokio::sync::oneshot;
use toolbay_api::{ErrorKind, LoadError, PluginName, Scope, ServiceName, TenantId, ToolError, manifest::Requirement};

use crate::{
    catalog::{Catalog, Registered},
    generation::Generation,
    services::{self, Sight},
    view::View,
};

pub(crate) struct Registry {
    /// The view of a tenant that has nothing of its own, which holds the global catalog.
    global: RwLock<Arc<View>>,
    tenants: DashMap<TenantId, Arc<Catalog>>,
    /// Held by writers only, from the check of a change to its publication.
    writer: Mutex<()>,
    generation: RwLock<Arc<Generation>>,
    /// Set for good when the host closes.
    closing: Arc<AtomicBool>,
}

/// A plugin that was taken out.
pub(crate) struct Removed {
    pub(crate) registered: Arc<Registered>,
    /// Resolves, with an error, when the last run that may see it has ended.
    pub(crate) unseen: oneshot::Receiver<()>,
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
    pub(crate) fn new() -> Self {
        Self {
            global: RwLock::new(Arc::new(View::new(Arc::default(), None))),
            tenants: DashMap::new(),
            writer: Mutex::new(()),
            generation: RwLock::default(),
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
        let mut all: Vec<_> = self.catalog(&Scope::Global).plugins().cloned().collect();
        for own in &self.tenants {
            all.extend(own.plugins().cloned());
        }
        all
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

    /// What `tenant` sees now. `known` is what it saw before; it is given back where nothing changed.
    pub(crate) fn view(&self, tenant: &TenantId, known: Option<&Arc<View>>) -> Arc<View> {
        let global = self.global();
        let own = self.tenants.get(tenant).map(|own| Arc::clone(&own));
        let Some(own) = own else { return global };
        if let Some(known) = known
            && Arc::ptr_eq(&known.global, &global.global)
            && known.own.as_ref().is_some_and(|known| Arc::ptr_eq(known, &own))
        {
            return Arc::clone(known);
        }
        Arc::new(View::new(Arc::clone(&global.global), Some(own)))
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
        let global = self.catalog(&Scope::Global);
        let own = match scope {
            Scope::Global => None,
            Scope::Tenant(tenant) => self.tenants.get(tenant).map(|own| Arc::clone(&own)),
        };
        let sight = Sight { global: &global, own: own.as_deref() };
        let of_all = global.listening().filter(|plugin| sight.shows_global(&plugin.owner));
        let of_tenant = own.iter().flat_map(|own| own.listening()).filter(|plugin| sight.shows_own(&plugin.owner.name));
        of_all.chain(of_tenant).cloned().collect()
    }

    /// Why `registered` cannot have all services in `scope` that it requires, if it cannot.
    pub(crate) fn missing_services(&self, scope: &Scope, registered: &Registered) -> Option<LoadError> {
        let (global, own) = (self.catalog(&Scope::Global), self.catalog(scope));
        let own = (*scope != Scope::Global).then_some(&*own);
        services::missing(Sight { global: &global, own }, registered)
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
            if let Some((needed, found)) = self.unmet(scope, registered) {
                return Err(missing(needed, &found));
            }
            if let Some(error) = self.missing_services(scope, registered) {
                return Err(error);
            }
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
        registered.plugin.metadata().requires.iter().find_map(|needed| {
            let found = self.found(scope, &needed.name);
            let met = matches!(&found, Found::Version(version) if needed.version.matches(version));
            (!met).then_some((needed, found))
        })
    }

    /// The plugin of that name as `scope` sees it: the tenant's own first, then the global one.
    fn found(&self, scope: &Scope, name: &PluginName) -> Found {
        let version = |scope| self.catalog(scope).plugin(name).map(|there| there.owner.version.clone());
        version(scope).or_else(|| version(&Scope::Global)).map_or(Found::Nothing, Found::Version)
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
        let mut current = self.generation.write().unwrap_or_else(PoisonError::into_inner);
        let (generation, unseen) = current.succeed();
        *current = generation;
        Ok(Removed { registered, unseen })
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
                let view = Arc::new(View::new(Arc::new(next), None));
                *self.global.write().unwrap_or_else(PoisonError::into_inner) = view;
            }
            Scope::Tenant(tenant) if next.is_empty() => {
                self.tenants.remove(tenant);
            }
            Scope::Tenant(tenant) => {
                self.tenants.insert(tenant.clone(), Arc::new(next));
            }
        }
    }

    fn global(&self) -> Arc<View> {
        Arc::clone(&self.global.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What there is of a required plugin.
pub(crate) enum Found {
    Nothing,
    Version(semver::Version),
}

/// The error for a requirement that is not met.
pub(crate) fn missing(needed: &Requirement, found: &Found) -> LoadError {
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
