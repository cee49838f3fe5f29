//! The lives of plugins as events: `plugin.loaded`, `plugin.active`, `plugin.stopped` and so on, one for each change of
//! state, and `plugin.quarantined`.

use semver::Version;
use serde_json::json;
use toolbay_api::{EventName, EventSource, PluginName, Scope, TenantId};

use super::{Origin, Told};
use crate::{
    catalog::Owner,
    toolbay::{Toolbay, WeakToolbay},
};

/// Tells of changes in the life of a plugin. It holds no host, since hosts hold the plugins.
#[derive(Default)]
pub(crate) struct Announcer(WeakToolbay);

impl Announcer {
    pub(crate) fn new(bay: &Toolbay) -> Self {
        Self(bay.downgrade())
    }

    /// Tells that a plugin came into `state`, whose owner its scope is.
    pub(crate) fn changed(
        &self,
        plugin: &PluginName,
        version: &Version,
        scope: &Scope,
        state: &'static str,
        error: Option<&str>,
    ) {
        if let Some(bay) = self.0.upgrade() {
            bay.announce(scope.clone(), plugin, version, scope, state, error);
        }
    }
}

impl Toolbay {
    /// Tells that a plugin went into quarantine for a tenant.
    pub(crate) fn announce_quarantine(&self, tenant: &TenantId, owner: &Owner, cause: &str) {
        let to = Scope::Tenant(tenant.clone());
        self.announce(to, &owner.name, &owner.version, &owner.scope, "Quarantined", Some(cause));
    }

    fn announce(
        &self,
        to: Scope,
        plugin: &PluginName,
        version: &Version,
        scope: &Scope,
        state: &'static str,
        error: Option<&str>,
    ) {
        if !self.outlets().is_heard() && self.registry().listening(&to).is_empty() {
            return;
        }
        let Ok(name) = EventName::new(format!("plugin.{}", state.to_ascii_lowercase())) else { return };
        let payload = json!({
            "name": plugin, "version": version, "scope": scope, "state": state, "error": error,
        });
        let told = Told { name, payload, scope: to, source: EventSource::Host, origin: Origin::OUTSIDE };
        // Nothing follows from a life that would be too deep, and a clock that fails leaves the log line.
        let _ = self.tell(told);
    }
}
