//! Services: who may have which, and what of them must be there when a plugin is registered. They stand in the catalogs
//! like tools, so a run sees the services of the generation that it began with.

use std::{any::Any, sync::Arc};

use toolbay_api::{
    ErrorKind, LoadError, PluginName, ServiceName, ServiceQuery, ServiceRegistration, ServiceScope, ToolError,
};

use crate::catalog::{Catalog, Owner, Registered};

/// The catalogs that somebody sees: the global one and, for a tenant, the tenant's own.
#[derive(Clone, Copy)]
pub(crate) struct Sight<'a> {
    pub(crate) global: &'a Catalog,
    pub(crate) own: Option<&'a Catalog>,
}

impl<'a> Sight<'a> {
    /// What plugins of a catalog see that stands before another, or before none.
    pub(crate) fn of(catalog: &'a Catalog, behind: Option<&'a Catalog>) -> Self {
        behind.map_or(Self { global: catalog, own: None }, |global| Self { global, own: Some(catalog) })
    }

    /// Whether there is a plugin of this name.
    pub(crate) fn has(&self, plugin: &PluginName) -> bool {
        self.is_shadowed(plugin) || self.global.plugin(plugin).is_some()
    }

    fn is_shadowed(&self, plugin: &PluginName) -> bool {
        self.own.is_some_and(|own| own.plugin(plugin).is_some())
    }

    /// Whether a plugin of the tenant's is seen: a protected global one of its name hides it.
    pub(crate) fn shows_own(&self, plugin: &PluginName) -> bool {
        self.global.plugin(plugin).is_none_or(|global| !global.owner.protected)
    }

    /// Whether a global plugin is seen: the tenant's own of its name hides it.
    pub(crate) fn shows_global(&self, owner: &Owner) -> bool {
        owner.protected || !self.is_shadowed(&owner.name)
    }

    /// The service called `name` and who lends it.
    fn service(&self, name: &str) -> Option<(&'a Arc<Owner>, &'a ServiceRegistration)> {
        let own = self.own.and_then(|own| own.service(name)).filter(|(owner, _)| self.shows_own(&owner.name));
        own.or_else(|| self.global.service(name).filter(|(owner, _)| self.shows_global(owner)))
    }

    fn services(&self) -> impl Iterator<Item = (&'a Arc<Owner>, &'a ServiceRegistration)> {
        let (this, again) = (*self, *self);
        let own = self.own.into_iter().flat_map(Catalog::services);
        let global = self.global.services();
        own.filter(move |(owner, _)| this.shows_own(&owner.name))
            .chain(global.filter(move |(owner, _)| again.shows_global(owner)))
    }
}

/// Who asks for a service, and what it is allowed where it asks.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    pub(crate) owner: &'a Owner,
    /// Whether a plugin is switched on where it asks: one that is not lends nothing.
    pub(crate) is_on: &'a dyn Fn(&Owner) -> bool,
    /// Whether it has a permission.
    pub(crate) allows: &'a dyn Fn(&str) -> bool,
    /// The same with the reason, for the record.
    pub(crate) require: &'a dyn Fn(&str) -> Result<(), ToolError>,
}

/// Finds what `query` asks for, as `asker` may have it.
///
/// # Errors
/// As [`Host::find_service`](toolbay_api::Host::find_service).
pub(crate) fn find(
    sight: Sight<'_>,
    asker: Asker<'_>,
    query: &ServiceQuery<'_>,
) -> Result<Arc<dyn Any + Send + Sync>, ToolError> {
    if !asker.owner.is_native {
        return Err(ToolError::new(ErrorKind::PermissionDenied, "services are lent to native plugins only"));
    }
    let found = match query.name {
        Some(name) => by_name(sight, asker, name)?,
        None => by_type(sight, asker, query)?,
    };
    if !found.fits(query) {
        let (name, given, asked) = (&found.name, found.type_name(), query.type_name);
        let message = format!("the service {name} is a {given}, and was asked for as a {asked}: ask for the former");
        return Err(ToolError::new(ErrorKind::Config, message));
    }
    Ok(found.value())
}

fn by_name<'a>(sight: Sight<'a>, asker: Asker<'a>, name: &str) -> Result<&'a ServiceRegistration, ToolError> {
    // Its own first of all: in `on_load` they stand in no catalog yet.
    if let Some(own) = asker.owner.services.iter().find(|service| service.name == name) {
        return Ok(own);
    }
    let shown: String = name.chars().take(80).collect();
    let Some((owner, service)) = sight.service(name) else {
        let message = format!("there is no service called {shown:?}: require the plugin that lends it");
        return Err(ToolError::new(ErrorKind::NotFound, message));
    };
    if !(asker.is_on)(owner) {
        let message =
            format!("the service {shown:?} is of the plugin {}, which is switched off for this tenant", owner.name);
        return Err(ToolError::new(ErrorKind::NotEnabled, message));
    }
    match may_have(asker.owner, owner, service) {
        Ok(Need::Nothing) => Ok(service),
        Ok(Need::Permission) => (asker.require)(&format!("service:{name}")).map(|()| service),
        Err(refusal) => Err(ToolError::new(ErrorKind::PermissionDenied, refusal)),
    }
}

fn by_type<'a>(
    sight: Sight<'a>,
    asker: Asker<'a>,
    query: &ServiceQuery<'_>,
) -> Result<&'a ServiceRegistration, ToolError> {
    let own = asker.owner.services.iter();
    let others = sight.services().filter(|(owner, _)| !is_same(asker.owner, owner) && (asker.is_on)(owner));
    // What is not for the asker is as if it were not there: else a private service could make another ambiguous.
    let others = others.filter(|(owner, service)| match may_have(asker.owner, owner, service) {
        Ok(Need::Nothing) => true,
        Ok(Need::Permission) => (asker.allows)(&format!("service:{}", service.name)),
        Err(_) => false,
    });
    let mut fitting: Vec<_> = own.chain(others.map(|(_, service)| service)).filter(|one| one.fits(query)).collect();
    match (fitting.pop(), fitting.as_slice()) {
        (None, _) => {
            let message = format!("there is no service of the type {} that this plugin may have", query.type_name);
            Err(ToolError::new(ErrorKind::NotFound, message))
        }
        (Some(only), []) => Ok(only),
        (Some(last), others) => {
            let mut names: Vec<_> = others.iter().map(|one| one.name.as_str()).chain([last.name.as_str()]).collect();
            names.sort_unstable();
            let message =
                format!("several services are of the type {}: {}; ask by name", query.type_name, names.join(", "));
            Err(ToolError::new(ErrorKind::Conflict, message))
        }
    }
}

/// What a plugin needs beside being where it is, to have a service.
enum Need {
    Nothing,
    Permission,
}

/// # Errors
/// Why it may not have it, in a sentence.
fn may_have(asker: &Owner, lender: &Owner, service: &ServiceRegistration) -> Result<Need, String> {
    let (name, plugin) = (&service.name, &lender.name);
    if is_same(asker, lender) {
        return Ok(Need::Nothing);
    }
    match service.scope {
        ServiceScope::Public => Ok(Need::Permission),
        ServiceScope::Protected if asker.requires.contains(plugin) => Ok(Need::Nothing),
        ServiceScope::Protected => {
            Err(format!("the service {name} is for plugins that require {plugin}: add it to `requires`"))
        }
        ServiceScope::Private => Err(format!("the service {name} is for the plugin {plugin} alone")),
    }
}

fn is_same(one: &Owner, other: &Owner) -> bool {
    one.name == other.name && one.scope == other.scope
}

/// Why the services that `registered` requires are not all there, if they are not.
pub(crate) fn missing(sight: Sight<'_>, registered: &Registered) -> Option<LoadError> {
    let needed = &registered.plugin.metadata().requires_services;
    let problems: Vec<_> = needed.iter().filter_map(|name| problem(sight, &registered.owner, name)).collect();
    (!problems.is_empty()).then(|| LoadError::new(ErrorKind::Dependency, problems.join("; ")))
}

fn problem(sight: Sight<'_>, asker: &Owner, name: &ServiceName) -> Option<String> {
    if asker.services.iter().any(|own| own.name == *name) {
        return None;
    }
    match sight.service(name.as_str()) {
        None => Some(format!("needs the service {name}, and no plugin lends it")),
        Some((lender, service)) => may_have(asker, lender, service).err(),
    }
}

/// The error for two services of one name.
pub(crate) fn clash(name: &ServiceName, new: &Owner, old: &Owner) -> LoadError {
    let message = format!(
        "the plugins {} ({}) and {} ({}) both lend a service called {name}: rename one",
        new.name, new.scope, old.name, old.scope
    );
    LoadError::new(ErrorKind::Conflict, message)
}
