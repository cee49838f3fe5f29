//! Calls a plugin's callbacks, each under its time limit, and takes the plugin from state to state by what they say.

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::Value;
use toolbay_api::{
    Assets, CallId, Callback, CallbackContext, ErrorKind, Host, LogLevel, Scope, ServiceQuery, TenantId, ToolError,
    ToolOutput, async_trait,
};

use crate::{
    call_host::CallHost,
    catalog::{Owner, Registered},
    chance, clock,
    denials::{Denials, Denied},
    events::{Emission, Origin},
    guarded::{Failure, guarded, now},
    lifecycle::{PluginState, Stage},
    redact::Redactor,
    run::Run,
    services::{self, Asker, Sight},
    toolbay::Toolbay,
};

impl Toolbay {
    /// Unloaded → Loading → Loaded, or Failed.
    ///
    /// # Errors
    /// What `on_load` says.
    pub(crate) async fn bring_up(&self, registered: &Registered) -> Result<(), ToolError> {
        let life = &registered.owner.life;
        life.go(PluginState::Loading).map_err(|error| ToolError::new(ErrorKind::Internal, error.to_string()))?;
        match self.call_back(registered, Callback::Load, None, self.callback_timeout()).await {
            Ok(()) => go_on(registered, PluginState::Loaded),
            Err(error) => {
                self.give_up(registered, Stage::Load, &error).await;
                Err(error)
            }
        }
    }

    /// Loaded → Active, or Failed. What is not registered yet is not called, so it may be active before it is.
    ///
    /// # Errors
    /// What `on_start` says; the plugin is unloaded.
    pub(crate) async fn start_up(&self, registered: &Registered) -> Result<(), ToolError> {
        match self.call_back(registered, Callback::Start, None, self.callback_timeout()).await {
            Ok(()) => {
                registered.owner.life.set_started(self.lives().next_start());
                go_on(registered, PluginState::Active)
            }
            Err(error) => {
                self.give_up(registered, Stage::Start, &error).await;
                Err(error)
            }
        }
    }

    /// Takes back a start that came to nothing for a reason outside of the plugin.
    pub(crate) async fn undo_start(&self, registered: &Registered, stage: Stage, error: &ToolError) {
        if let Err(stop) = self.call_back(registered, Callback::Stop, None, self.callback_timeout()).await {
            registered.owner.life.note(&stop);
        }
        self.give_up(registered, stage, error).await;
    }

    /// Writes down that the plugin failed, and unloads what of it was loaded.
    pub(crate) async fn give_up(&self, registered: &Registered, stage: Stage, error: &ToolError) {
        let failed = PluginState::Failed { stage, error: error.clone() };
        // It is in a state that may fail; where somebody else was first, there is nothing left to write down.
        if registered.owner.life.go(failed).is_ok() {
            self.lives().shelve(Arc::clone(&registered.owner.life));
        }
        // What goes wrong here stands beside the reason for the failure already.
        let _ = self.take_down(registered, self.callback_timeout()).await;
    }

    /// Active → Stopping → Stopped → Unloaded, or Failed; waits `drain` for calls in flight, then goes on without them.
    /// Does nothing where it was done or is being done.
    ///
    /// # Errors
    /// What `on_stop` or `on_unload` says.
    pub(crate) async fn wind_down(
        &self,
        registered: &Registered,
        drain: Duration,
        left: impl Fn() -> Duration,
    ) -> Result<(), ToolError> {
        let life = &registered.owner.life;
        if life.go(PluginState::Stopping).is_err() {
            return Ok(());
        }
        let busy = life.drained(tokio::time::Instant::now() + drain).await;
        if busy > 0 {
            tracing::warn!(target: "toolbay::lifecycle", plugin = %life.name(), busy, "stopped with calls in flight");
        }
        registered.owner.mailbox.discard();
        let stopped = self.call_back(registered, Callback::Stop, None, left()).await;
        match &stopped {
            Ok(()) => go_on(registered, PluginState::Stopped)?,
            Err(error) => {
                let _ = life.go(PluginState::Failed { stage: Stage::Stop, error: error.clone() });
                self.lives().shelve(Arc::clone(life));
            }
        }
        let unloaded = self.take_down(registered, left()).await;
        if stopped.is_ok() {
            go_on(registered, PluginState::Unloaded)?;
        }
        stopped.and(unloaded)
    }

    /// Calls `on_unload` where `on_load` succeeded.
    ///
    /// # Errors
    /// What it says.
    async fn take_down(&self, registered: &Registered, within: Duration) -> Result<(), ToolError> {
        if !registered.owner.life.take_unload() {
            return Ok(());
        }
        let unloaded = self.call_back(registered, Callback::Unload, None, within).await;
        if let Err(error) = &unloaded {
            registered.owner.life.note(error);
        }
        unloaded
    }

    /// Calls one callback, at most for `within`, its panics caught. `tenant` is whose the callback is about, where it is
    /// another than the plugin's own. What it read by `secret` does not come out of it in its error, wherever that goes.
    ///
    /// # Errors
    /// What it says.
    pub(crate) async fn call_back(
        &self,
        registered: &Registered,
        callback: Callback,
        tenant: Option<&TenantId>,
        within: Duration,
    ) -> Result<(), ToolError> {
        let (owner, plugin) = (&registered.owner, &registered.plugin);
        if !plugin.callbacks().contains(&callback) {
            return Ok(());
        }
        let scope = tenant.map_or_else(|| owner.scope.clone(), |tenant| Scope::Tenant(tenant.clone()));
        let (deadline, redactor) = (now() + within, Redactor::default());
        // Held until the callback has ended, since its host keeps no run alive.
        let run = match &scope {
            Scope::Global => None,
            Scope::Tenant(tenant) => Some(self.session_of(tenant.clone()).run()),
        };
        let cx = CallbackContext {
            deadline,
            limits: Arc::clone(&owner.limits),
            host: self.callback_host(owner, run.as_ref(), callback, deadline, &redactor),
            scope,
        };
        let called = match callback {
            Callback::Load => plugin.on_load(&cx),
            Callback::Start => plugin.on_start(&cx),
            Callback::TenantEnabled => plugin.on_tenant_enabled(&cx),
            Callback::TenantDisabled => plugin.on_tenant_disabled(&cx),
            Callback::HealthCheck => plugin.on_health_check(&cx),
            Callback::Stop => plugin.on_stop(&cx),
            Callback::Unload => plugin.on_unload(&cx),
        };
        match guarded(deadline, called).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                let error = redactor.error(error);
                let mut said = ToolError::new(error.kind, format!("{callback}: {}", error.message));
                if let Some(detail) = error.operator_detail() {
                    said = said.with_source(detail.to_string());
                }
                Err(said)
            }
            Err(Failure::TimedOut) => Err(ToolError::new(
                ErrorKind::TimedOut,
                format!("{callback}: took longer than the {within:?} that it had; do less in it, or give it more time"),
            )),
            Err(Failure::Panicked(message)) => {
                let message = redactor.text(&message);
                Err(ToolError::new(ErrorKind::Panic, format!("{callback}: the plugin broke down: {message}")))
            }
        }
    }

    /// Where a tenant is behind a callback, it has what the plugin's tools have for that tenant; else what needs none.
    fn callback_host(
        &self,
        owner: &Arc<Owner>,
        run: Option<&Run>,
        callback: Callback,
        deadline: Instant,
        redactor: &Redactor,
    ) -> Arc<dyn Host> {
        match run {
            None => Arc::new(TenantlessHost::new(self.clone(), Arc::clone(owner), callback.name())),
            Some(run) => {
                let host =
                    CallHost::new(run, Arc::clone(owner), CallId::new(callback.name()), 0, deadline, redactor.clone());
                Arc::new(host.telling_from(Origin::OUTSIDE))
            }
        }
    }
}

/// Goes on where nothing but a fault of Toolbay itself can stand in the way.
fn go_on(registered: &Registered, next: PluginState) -> Result<(), ToolError> {
    registered.owner.life.go(next).map_err(|error| ToolError::new(ErrorKind::Internal, error.to_string()))
}

/// What a plugin for everybody can reach where it acts for no tenant, in its callbacks and in handlers of the whole
/// host's events: nothing that belongs to a tenant.
pub(crate) struct TenantlessHost {
    bay: Toolbay,
    owner: Arc<Owner>,
    /// What it is in, for messages.
    place: &'static str,
    origin: Origin,
    config: Value,
    denials: Denials,
}

impl TenantlessHost {
    pub(crate) fn new(bay: Toolbay, owner: Arc<Owner>, place: &'static str) -> Self {
        let for_all = bay.registry().config_for_all(&owner.scope, &owner.name);
        let config = for_all.and_then(|over| owner.config_with(&[&over]).ok());
        let config = config.unwrap_or_else(|| owner.config.clone());
        Self { bay, owner, place, origin: Origin::OUTSIDE, config, denials: Denials::default() }
    }

    /// Where events that it tells of come from.
    pub(crate) fn telling_from(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    fn require(&self, action: &str) -> Result<(), ToolError> {
        let granted = || {
            let message =
                format!("the permission {action} is not granted: the manifest must ask for it and the host give it");
            let denied = || ToolError::new(ErrorKind::PermissionDenied, message);
            if self.owner.may(action) { Ok(()) } else { Err(denied()) }
        };
        let allowed = chance::check(action, self.bay.ports().deterministic);
        allowed.and_then(|()| granted()).inspect_err(|error| self.denied(action, error))
    }

    /// Leaves an audit record where `error` is a denial.
    fn denied(&self, permission: &str, error: &ToolError) {
        let denied = Denied {
            audit: self.bay.ports().audit.as_deref(),
            caller: None,
            owner: &self.owner,
            call: self.place,
            depth: 0,
            redactor: None,
        };
        self.denials.note(&denied, permission, error);
    }

    /// Says no to what belongs to tenants.
    fn refuse<T>(&self, action: &str) -> Result<T, ToolError> {
        let message = format!(
            "{} of a plugin for everybody acts for no tenant, so it has no keys, calls no tools and reads no secrets; do it in a tool, or \
             register the plugin for a tenant",
            self.place
        );
        let error = ToolError::new(ErrorKind::PermissionDenied, message);
        self.denied(action, &error);
        Err(error)
    }
}

#[async_trait]
impl Host for TenantlessHost {
    fn log(&self, level: LogLevel, message: &str) {
        let end = message.floor_char_boundary(self.owner.limits.max_log_bytes);
        let shown = message.get(..end).unwrap_or_default();
        let shown: String = shown.chars().map(|c| if c.is_control() && c != '\t' { ' ' } else { c }).collect();
        let (plugin, place) = (&self.owner.name, self.place);
        match level {
            LogLevel::Trace | LogLevel::Debug => {
                tracing::debug!(target: "toolbay::plugin", %plugin, place, "{shown}");
            }
            LogLevel::Info => tracing::info!(target: "toolbay::plugin", %plugin, place, "{shown}"),
            LogLevel::Warn => tracing::warn!(target: "toolbay::plugin", %plugin, place, "{shown}"),
            LogLevel::Error => tracing::error!(target: "toolbay::plugin", %plugin, place, "{shown}"),
        }
    }

    fn config(&self) -> &Value {
        &self.config
    }

    fn assets(&self) -> &Assets {
        &self.owner.assets
    }

    async fn kv_get(&self, _: &str) -> Result<Option<Value>, ToolError> {
        self.refuse("kv:read")
    }

    async fn kv_set(&self, _: &str, _: Value) -> Result<(), ToolError> {
        self.refuse("kv:write")
    }

    async fn kv_delete(&self, _: &str) -> Result<bool, ToolError> {
        self.refuse("kv:write")
    }

    async fn kv_list(&self, _: &str, _: usize) -> Result<Vec<String>, ToolError> {
        self.refuse("kv:read")
    }

    async fn kv_set_for(&self, _: &str, _: Value, _: Duration) -> Result<(), ToolError> {
        self.refuse("kv:write")
    }

    async fn kv_compare_and_set(
        &self,
        _: &str,
        _: Option<Value>,
        _: Option<Value>,
        _: Option<Duration>,
    ) -> Result<bool, ToolError> {
        self.refuse("kv:write")
    }

    async fn kv_list_after(&self, _: &str, _: &str, _: usize) -> Result<Vec<String>, ToolError> {
        self.refuse("kv:read")
    }

    async fn call_tool(&self, tool: &str, _: Value) -> Result<ToolOutput, ToolError> {
        self.refuse(&format!("tool:call:{tool}"))
    }

    async fn secret(&self, name: &str) -> Result<String, ToolError> {
        self.refuse(&format!("secret:read:{name}"))
    }

    async fn emit(&self, name: &str, payload: Value) -> Result<(), ToolError> {
        let emission = Emission {
            name,
            payload,
            scope: Scope::Global,
            origin: self.origin,
            limits: &self.owner.limits,
            redactor: None,
            require: &|action| self.require(action),
        };
        let told = self.bay.told_by_plugin(&self.owner, emission);
        let told = told.inspect_err(|error| self.denied(&format!("event:emit:{name}"), error))?;
        self.bay.pass_on(told).await.map(|_| ())
    }

    fn find_service(&self, query: &ServiceQuery<'_>) -> Result<Arc<dyn Any + Send + Sync>, ToolError> {
        let global = self.bay.registry().catalog(&Scope::Global);
        let (allows, require) = (|action: &str| self.owner.may(action), |action: &str| self.require(action));
        let asker = Asker { owner: &self.owner, is_on: &|_| true, allows: &allows, require: &require };
        services::find(Sight { global: &global, own: None }, asker, query)
            .inspect_err(|error| self.denied(&format!("service:{}", query.name.unwrap_or_default()), error))
    }

    fn now_ms(&self) -> Result<i64, ToolError> {
        self.require("clock")?;
        clock::now_ms(&*self.bay.ports().clock)
    }

    fn uuid(&self) -> Result<String, ToolError> {
        self.require("random")?;
        Ok(chance::uuid())
    }

    fn random(&self) -> Result<u64, ToolError> {
        self.require("random")?;
        Ok(chance::random())
    }
}
