//! The registry: the catalogs of all scopes, each immutable and swapped whole.
//!
//! A read clones one or two `Arc`s and holds no guard over an `.await`. A tenant that has nothing of its own is not in
//! the map and costs nothing.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use dashmap::DashMap;
use toolbay_api::{ErrorKind, LoadError, PluginName, Scope, TenantId};

use crate::{
    catalog::{Catalog, Registered},
    view::View,
};

pub(crate) struct Registry {
    /// The view of a tenant that has nothing of its own, which holds the global catalog.
    global: RwLock<Arc<View>>,
    tenants: DashMap<TenantId, Arc<Catalog>>,
    /// Held by writers only, from the check of a change to its publication.
    writer: Mutex<()>,
}

impl Registry {
    pub(crate) fn new() -> Self {
        Self {
            global: RwLock::new(Arc::new(View::new(Arc::default(), None))),
            tenants: DashMap::new(),
            writer: Mutex::new(()),
        }
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

    /// Adds plugins to `scope`: all of them or none.
    ///
    /// # Errors
    /// `Conflict`: a plugin of that name is there, the global one of that name is protected, or two tools would share
    /// a name.
    pub(crate) fn add(&self, scope: &Scope, added: &[Arc<Registered>]) -> Result<(), LoadError> {
        let _writing = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let next = self.catalog(scope).with(added)?;
        match scope {
            Scope::Global => {
                for own in &self.tenants {
                    own.check_beside(added)?;
                }
            }
            Scope::Tenant(_) => {
                let global = self.catalog(&Scope::Global);
                for registered in added {
                    if global.plugin(&registered.owner.name).is_some_and(|plugin| plugin.owner.protected) {
                        return Err(LoadError::new(
                            ErrorKind::Conflict,
                            format!(
                                "the global plugin {} is protected: a tenant cannot put one of its own in its place; rename this one",
                                registered.owner.name
                            ),
                        ));
                    }
                }
                global.check_beside(added)?;
            }
        }
        self.publish(scope, next);
        Ok(())
    }

    /// Takes a plugin out of `scope` and gives it back.
    pub(crate) fn remove(&self, scope: &Scope, name: &PluginName) -> Option<Arc<Registered>> {
        let _writing = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, removed) = self.catalog(scope).without(name)?;
        self.publish(scope, next);
        Some(removed)
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
