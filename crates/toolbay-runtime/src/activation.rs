//! What a tenant decides about the plugins that it sees: which are on, with what configuration, in which order of
//! preference. Held per tenant; a tenant that decided nothing costs nothing.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use semver::Version;
use serde_json::Value;
use toolbay_api::{Callback, ErrorKind, Limit, PluginName, Scope, TenantId, ToolError};

use crate::{catalog::Registered, shape, toolbay::Toolbay};

/// Plugins about which one tenant may have decided something.
pub(crate) const MAX_DECISIONS: usize = 1_000;
/// Bytes and levels of a tenant's configuration of one plugin.
const MAX_CONFIG_BYTES: usize = 64 << 10;
const MAX_CONFIG_DEPTH: usize = 16;

/// What a tenant decided about one plugin. What it did not decide is as the host has it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Activation {
    /// Whether it is on.
    pub enabled: Option<bool>,
    /// Its configuration, which goes before the host's field by field.
    pub config: Option<Value>,
    /// Its place where several plugins could serve: lower goes first.
    pub priority: Option<i32>,
}

/// What one tenant decided about its plugins. Copied for each change, so what is large in it is shared.
#[derive(Debug, Clone, Default)]
pub(crate) struct Activations(BTreeMap<PluginName, Arc<Activation>>);

impl Activations {
    pub(crate) fn of(&self, plugin: &PluginName) -> Option<&Activation> {
        self.0.get(plugin).map(|activation| &**activation)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sets what is decided about `plugin`, whatever was before. Who calls it has counted.
    pub(crate) fn put(&mut self, plugin: &PluginName, activation: Activation) {
        self.0.insert(plugin.clone(), Arc::new(activation));
    }

    /// Changes what was decided about `plugin`.
    ///
    /// # Errors
    /// `LimitExceeded` where that would be too many decisions.
    pub(crate) fn change(
        &mut self,
        plugin: &PluginName,
        change: impl FnOnce(&mut Activation),
    ) -> Result<(), ToolError> {
        if self.0.len() >= MAX_DECISIONS && !self.0.contains_key(plugin) {
            let mut error = ToolError::limit(Limit::Storage, MAX_DECISIONS as u64, self.0.len() as u64 + 1);
            let message = format!(
                "the tenant has decided about {MAX_DECISIONS} plugins, which is as many as it may: take back configurations \
                 and priorities of others first"
            );
            error.message = message.into();
            return Err(error);
        }
        let activation = Arc::make_mut(self.0.entry(plugin.clone()).or_default());
        change(activation);
        if *activation == Activation::default() {
            self.0.remove(plugin);
        }
        Ok(())
    }
}

impl FromIterator<(PluginName, Activation)> for Activations {
    fn from_iter<I: IntoIterator<Item = (PluginName, Activation)>>(all: I) -> Self {
        Self(all.into_iter().map(|(plugin, activation)| (plugin, Arc::new(activation))).collect())
    }
}

/// A plugin as one tenant has it.
#[derive(Debug, Clone)]
pub struct TenantPlugin {
    /// The plugin.
    pub plugin: PluginName,
    /// Its version.
    pub version: Version,
    /// Where it is registered.
    pub scope: Scope,
    /// Whether the tenant may not switch it off or put one of its own in its place.
    pub protected: bool,
    /// Whether its tools and hooks are the tenant's now.
    pub enabled: bool,
    /// Its configuration, all layers together.
    pub config: Value,
    /// Its place where several plugins could serve.
    pub priority: i32,
    /// Why it is off though it should be on.
    pub problem: Option<String>,
}

/// The switches that are being thrown: callbacks of one switch are called once though several throw it.
#[derive(Default)]
pub(crate) struct Switching(Mutex<HashSet<(TenantId, PluginName)>>);

pub(crate) struct Switch<'a> {
    all: &'a Switching,
    key: (TenantId, PluginName),
}

impl Switching {
    fn begin(&self, tenant: &TenantId, plugin: &PluginName) -> Result<Switch<'_>, ToolError> {
        let key = (tenant.clone(), plugin.clone());
        if !self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone()) {
            let message = format!("the plugin {plugin} is being switched on or off by somebody else; try again");
            return Err(ToolError::new(ErrorKind::Conflict, message).with_retryable(true));
        }
        Ok(Switch { all: self, key })
    }
}

impl Drop for Switch<'_> {
    fn drop(&mut self) {
        self.all.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// A plugin that is about to be switched off for a tenant.
pub(crate) struct Disabling<'a> {
    pub(crate) registered: Arc<Registered>,
    pub(crate) was_on: bool,
    pub(crate) _switch: Switch<'a>,
}

/// Checks the form of what is to be laid over a configuration.
///
/// # Errors
/// `Config` where it is no object; `LimitExceeded` where it is too large.
pub(crate) fn check_layer(config: Option<&Value>) -> Result<(), ToolError> {
    let Some(config) = config else { return Ok(()) };
    if !config.is_object() {
        return Err(ToolError::new(ErrorKind::Config, "a configuration is an object"));
    }
    shape::check(config, Limit::Arguments, MAX_CONFIG_BYTES, MAX_CONFIG_DEPTH)
}

/// `Ok` where tenants configure the plugin themselves.
///
/// # Errors
/// `PermissionDenied`.
pub(crate) fn may_configure(registered: &Registered) -> Result<(), ToolError> {
    if registered.owner.tenants_configure {
        return Ok(());
    }
    let name = &registered.owner.name;
    let message = format!("the plugin {name} is protected: tenants do not configure it, unless the operator lets them");
    Err(ToolError::new(ErrorKind::PermissionDenied, message))
}

/// The error for a plugin that is not to be switched off.
pub(crate) fn stays_on(plugin: &PluginName) -> ToolError {
    let message = format!("the plugin {plugin} is protected: it is on for every tenant");
    ToolError::new(ErrorKind::PermissionDenied, message)
}

impl Toolbay {
    /// Switches a plugin on for a tenant. Nothing happens where it is on.
    ///
    /// # Errors
    /// `NotFound` where the tenant has no such plugin; `Config` where its configuration for the tenant does not fit;
    /// `Conflict` where somebody switches it at the same time; `NotReady` where it is being stopped, `Unavailable` while the
    /// host shuts down; what `on_tenant_enabled` says. It then stays off.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the plugin on or off; where it is off, `on_tenant_enabled` may have been called.
    pub async fn enable(&self, tenant: &TenantId, plugin: &PluginName) -> Result<(), ToolError> {
        let Some(_switch) = self.begin_enabling(tenant, plugin).await? else { return Ok(()) };
        self.registry().activate(tenant, plugin, |activation| activation.enabled = Some(true))?;
        tracing::info!(target: "toolbay::lifecycle", %tenant, %plugin, "switched on");
        Ok(())
    }

    /// Does all of [`enable`](Self::enable) but the writing down; nobody else throws the switch until it is dropped. `None`
    /// where the plugin is on.
    pub(crate) async fn begin_enabling(
        &self,
        tenant: &TenantId,
        plugin: &PluginName,
    ) -> Result<Option<Switch<'_>>, ToolError> {
        let registered = self.visible(tenant, plugin)?;
        let switch = self.lives().switching.begin(tenant, plugin)?;
        if self.registry().view(tenant).is_said_on(&registered.owner) {
            return Ok(None);
        }
        let activation = self.registry().activation(tenant, plugin).unwrap_or_default();
        self.tenant_config(&registered, activation.config.as_ref())?;
        if registered.owner.scope == Scope::Global {
            // In flight, so that the plugin is not stopped meanwhile, nor called where it was.
            let _busy = registered.owner.life.enter(false)?;
            self.call_back(&registered, Callback::TenantEnabled, Some(tenant), self.callback_timeout()).await?;
        }
        Ok(Some(switch))
    }

    /// Switches a plugin off for a tenant: its tools and hooks are gone from the next run on. Its configuration stays.
    ///
    /// # Errors
    /// `NotFound` where the tenant has no such plugin; `PermissionDenied` where it is protected; `Conflict` where
    /// somebody switches it at the same time.
    ///
    /// # Cancel safety
    /// The plugin is off at once or not at all; where the future is dropped, `on_tenant_disabled` may not have been
    /// called to its end.
    pub async fn disable(&self, tenant: &TenantId, plugin: &PluginName) -> Result<(), ToolError> {
        let switch = self.begin_disabling(tenant, plugin)?;
        self.registry().activate(tenant, plugin, |activation| activation.enabled = Some(false))?;
        self.end_disabling(tenant, switch).await;
        Ok(())
    }

    /// Checks that a plugin may be switched off; nobody else throws the switch until it is dropped.
    pub(crate) fn begin_disabling(&self, tenant: &TenantId, plugin: &PluginName) -> Result<Disabling<'_>, ToolError> {
        let registered = self.visible(tenant, plugin)?;
        if registered.owner.protected {
            return Err(stays_on(plugin));
        }
        let switch = self.lives().switching.begin(tenant, plugin)?;
        let was_on = self.registry().view(tenant).is_said_on(&registered.owner);
        Ok(Disabling { registered, was_on, _switch: switch })
    }

    /// Tells a plugin that it was switched off, where it was on before.
    pub(crate) async fn end_disabling(&self, tenant: &TenantId, disabling: Disabling<'_>) {
        let Disabling { registered, was_on, _switch } = disabling;
        if !was_on || registered.owner.scope != Scope::Global {
            return;
        }
        tracing::info!(target: "toolbay::lifecycle", %tenant, plugin = %registered.owner.name, "switched off");
        // One that was stopped meanwhile has been told of its end already.
        let Ok(_busy) = registered.owner.life.enter(false) else { return };
        let time = self.callback_timeout();
        if let Err(error) = self.call_back(&registered, Callback::TenantDisabled, Some(tenant), time).await {
            registered.owner.life.note(&error);
        }
    }

    /// Sets a tenant's configuration of a plugin, which goes before the host's field by field; `None` takes it away, also
    /// where the plugin is gone. Runs that began before keep the old one.
    ///
    /// # Errors
    /// `NotFound` where the tenant has no such plugin; `PermissionDenied` where tenants may not configure it, as one that
    /// guards; `Config` where it is no object or does not fit the plugin's `config_schema`, and then nothing changes;
    /// `LimitExceeded` where it is too large.
    pub fn put_config(&self, tenant: &TenantId, plugin: &PluginName, config: Option<Value>) -> Result<(), ToolError> {
        match self.visible(tenant, plugin) {
            Ok(registered) => {
                if config.is_some() {
                    may_configure(&registered)?;
                }
                self.check_config(&registered, config.as_ref())?;
            }
            // What is gone needs no configuration any more.
            Err(_) if config.is_none() => {}
            Err(error) => return Err(error),
        }
        self.registry().activate(tenant, plugin, |activation| activation.config = config)
    }

    /// Checks what is to be laid over a plugin's configuration, or what is left without that.
    pub(crate) fn check_config(&self, registered: &Registered, config: Option<&Value>) -> Result<(), ToolError> {
        check_layer(config)?;
        // A tenant's own plugin may need what is taken away.
        let nothing = Value::Object(Default::default());
        self.tenant_config(registered, Some(config.unwrap_or(&nothing))).map(|_| ())
    }

    /// Sets a tenant's preference among plugins that could serve alike; `None` takes it away, also where the plugin is gone.
    ///
    /// # Errors
    /// `NotFound` where the tenant has no such plugin.
    pub fn put_priority(&self, tenant: &TenantId, plugin: &PluginName, priority: Option<i32>) -> Result<(), ToolError> {
        if priority.is_some() {
            self.visible(tenant, plugin)?;
        }
        self.registry().activate(tenant, plugin, |activation| activation.priority = priority)
    }

    /// The plugins that a tenant has, switched off ones too, in alphabetical order.
    #[must_use]
    pub fn tenant_plugins(&self, tenant: &TenantId) -> Vec<TenantPlugin> {
        let view = self.registry().view(tenant);
        let mut all: Vec<_> = view
            .plugins_on_or_off()
            .map(|registered| {
                let owner = &registered.owner;
                let activation = self.registry().activation(tenant, &owner.name).unwrap_or_default();
                let config = self.tenant_config(registered, activation.config.as_ref());
                TenantPlugin {
                    plugin: owner.name.clone(),
                    version: owner.version.clone(),
                    scope: owner.scope.clone(),
                    protected: owner.protected,
                    enabled: view.is_on(owner),
                    priority: activation.priority.unwrap_or_default(),
                    problem: config.as_ref().err().map(|error| error.message.to_string()),
                    config: config.unwrap_or_else(|_| owner.config.clone()),
                }
            })
            .collect();
        all.sort_by(|a, b| a.plugin.cmp(&b.plugin));
        all
    }

    pub(crate) fn visible(&self, tenant: &TenantId, plugin: &PluginName) -> Result<Arc<Registered>, ToolError> {
        let view = self.registry().view(tenant);
        let found = view.plugins_on_or_off().find(|registered| registered.owner.name == *plugin).cloned();
        found.ok_or_else(|| ToolError::new(ErrorKind::NotFound, format!("the tenant has no plugin called {plugin}")))
    }

    fn tenant_config(&self, registered: &Registered, config: Option<&Value>) -> Result<Value, ToolError> {
        let owner = &registered.owner;
        let for_all = self.registry().config_for_all(&owner.scope, &owner.name);
        let layers: Vec<_> = for_all.iter().chain(config).collect();
        if layers.is_empty() {
            return Ok(owner.config.clone());
        }
        owner.config_with(&layers).map_err(|problem| ToolError::new(ErrorKind::Config, problem))
    }
}
