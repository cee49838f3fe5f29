//! Services: values that native plugins lend each other inside the process, by name and Rust type. They stand apart from
//! tools since they are code, not calls: no limit, schema or audit comes between. Only native plugins, which are trusted,
//! have them.

use std::{
    any::{Any, TypeId, type_name},
    fmt,
    sync::Arc,
};

use crate::{
    error::{ErrorKind, ToolError},
    host::Host,
    names::{NameError, ServiceName},
};

/// Who may have a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServiceScope {
    /// Every native plugin with the permission `service:NAME`.
    Public,
    /// Plugins that require the one that provides it.
    Protected,
    /// The plugin itself.
    Private,
}

/// A value that a plugin lends, with the name and the type under which it is asked for.
#[derive(Clone)]
pub struct ServiceRegistration {
    /// Its name.
    pub name: ServiceName,
    /// Who may have it.
    pub scope: ServiceScope,
    type_id: TypeId,
    type_name: &'static str,
    value: Arc<dyn Any + Send + Sync>,
}

/// A service of the type `T` for the plugin itself; [`public`](ServiceRegistration::public) and
/// [`protected`](ServiceRegistration::protected) give it to others.
///
/// For an interface instead of one type, take an `Arc<dyn Interface>` as the value.
///
/// ```
/// use toolbay_api::service;
/// struct Database(String);
/// let db = service("db", Database("orders".into()))?.public();
/// assert!(db.type_name().ends_with("Database"));
/// # Ok::<(), toolbay_api::NameError>(())
/// ```
///
/// # Errors
/// [`NameError`] where `name` is no service name.
pub fn service<T: Any + Send + Sync>(name: &str, value: T) -> Result<ServiceRegistration, NameError> {
    Ok(ServiceRegistration {
        name: ServiceName::new(name)?,
        scope: ServiceScope::Private,
        type_id: TypeId::of::<T>(),
        type_name: type_name::<T>(),
        value: Arc::new(value),
    })
}

impl ServiceRegistration {
    /// Gives it to every native plugin with the permission `service:NAME`.
    #[must_use]
    pub fn public(mut self) -> Self {
        self.scope = ServiceScope::Public;
        self
    }

    /// Gives it to plugins that require the one that provides it.
    #[must_use]
    pub fn protected(mut self) -> Self {
        self.scope = ServiceScope::Protected;
        self
    }

    /// The type's name, for messages.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        self.type_name
    }

    /// Whether it is of the type that `query` asks for.
    #[must_use]
    pub fn fits(&self, query: &ServiceQuery<'_>) -> bool {
        self.type_id == query.type_id
    }

    /// The value, for hosts.
    #[must_use]
    pub fn value(&self) -> Arc<dyn Any + Send + Sync> {
        Arc::clone(&self.value)
    }
}

impl fmt::Debug for ServiceRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceRegistration")
            .field("name", &self.name)
            .field("scope", &self.scope)
            .field("type", &self.type_name)
            .finish_non_exhaustive()
    }
}

/// What is asked for: by name and type, or by type alone.
#[derive(Debug, Clone, Copy)]
pub struct ServiceQuery<'a> {
    /// The name; `None`: the only service of the type.
    pub name: Option<&'a str>,
    /// The type's name, for messages.
    pub type_name: &'static str,
    type_id: TypeId,
}

impl<'a> ServiceQuery<'a> {
    /// The service of the type `T`, by this name if there is one.
    #[must_use]
    pub fn of<T: Any>(name: Option<&'a str>) -> Self {
        Self { name, type_name: type_name::<T>(), type_id: TypeId::of::<T>() }
    }
}

/// The typed look-up of services on every [`Host`], which itself must do without type parameters.
///
/// ```
/// use toolbay_api::{HostServices, ToolContext, ToolError};
/// # struct Database;
/// async fn count(cx: ToolContext) -> Result<(), ToolError> {
///     let db = cx.host().service::<Database>("db")?;
///     # let _ = db;
///     Ok(())
/// }
/// ```
pub trait HostServices {
    /// The service called `name`.
    ///
    /// # Errors
    /// `NotFound` where there is none; `PermissionDenied` where it is not for this plugin; `Config` where it is of another
    /// type, which is named.
    fn service<T: Any + Send + Sync>(&self, name: &str) -> Result<Arc<T>, ToolError>;

    /// The one service of the type `T` that this plugin may have.
    ///
    /// # Errors
    /// `NotFound` where there is none; `Conflict` where there are several, which are named.
    fn service_of<T: Any + Send + Sync>(&self) -> Result<Arc<T>, ToolError>;
}

impl<H: Host + ?Sized> HostServices for H {
    fn service<T: Any + Send + Sync>(&self, name: &str) -> Result<Arc<T>, ToolError> {
        typed(self.find_service(&ServiceQuery::of::<T>(Some(name)))?)
    }

    fn service_of<T: Any + Send + Sync>(&self) -> Result<Arc<T>, ToolError> {
        typed(self.find_service(&ServiceQuery::of::<T>(None))?)
    }
}

/// A host has compared the types already; one that has not is told here.
fn typed<T: Any + Send + Sync>(value: Arc<dyn Any + Send + Sync>) -> Result<Arc<T>, ToolError> {
    value.downcast().map_err(|_| {
        let message = format!("the host gave a service that is no {}; tell the operator", type_name::<T>());
        ToolError::new(ErrorKind::Internal, message)
    })
}
