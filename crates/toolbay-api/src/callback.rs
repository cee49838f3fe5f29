//! What a plugin's callbacks are and what they know. It stands apart from calls since no tenant's user is behind a
//! callback.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{host::Host, limits::Limits, names::Scope};

/// A point in a plugin's life at which it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Callback {
    /// Before anything else of it is called.
    Load,
    /// When it and every plugin of its wave is loaded, and those that it requires are active.
    Start,
    /// A tenant may use it from now on; for plugins that are registered for everybody.
    TenantEnabled,
    /// A tenant may not use it any more.
    TenantDisabled,
    /// Every now and then, while it is active: whether it is well.
    HealthCheck,
    /// After its last call.
    Stop,
    /// At the very end.
    Unload,
}

impl Callback {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Load,
        Self::Start,
        Self::TenantEnabled,
        Self::TenantDisabled,
        Self::HealthCheck,
        Self::Stop,
        Self::Unload,
    ];

    /// Those that are called once each, in the order of a plugin's life.
    pub const ONCE: [Self; 4] = [Self::Load, Self::Start, Self::Stop, Self::Unload];

    /// The name of the method and of a script's function.
    ///
    /// ```
    /// use toolbay_api::Callback;
    /// assert_eq!(Callback::ONCE.map(Callback::name), ["on_load", "on_start", "on_stop", "on_unload"]);
    /// assert_eq!(Callback::HealthCheck.name(), "on_health_check");
    /// ```
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Load => "on_load",
            Self::Start => "on_start",
            Self::TenantEnabled => "on_tenant_enabled",
            Self::TenantDisabled => "on_tenant_disabled",
            Self::HealthCheck => "on_health_check",
            Self::Stop => "on_stop",
            Self::Unload => "on_unload",
        }
    }
}

impl fmt::Display for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a callback knows of itself. Cheap to clone.
#[derive(Clone)]
pub struct CallbackContext {
    /// Where the plugin is registered; in `on_tenant_enabled` and `on_tenant_disabled` the tenant.
    pub scope: Scope,
    /// When the callback ends, whatever it is doing.
    pub deadline: Instant,
    /// What it may use.
    pub limits: Arc<Limits>,
    /// The plugin's way out, by the grants that its tools have. A plugin for everybody acts for no tenant here, so its
    /// host has no keys, calls no tools and reads no secrets.
    pub host: Arc<dyn Host>,
}

impl CallbackContext {
    /// Time left until the deadline.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

impl fmt::Debug for CallbackContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallbackContext").field("scope", &self.scope).finish_non_exhaustive()
    }
}
