//! A plugin whose code runs in workers: its tools, hooks, handlers and callbacks as the host calls them.

use std::sync::Arc;

use async_trait::async_trait;
use serde_json::Value;
use toolbay_api::{
    Assets, Callback, CallbackContext, Event, EventContext, EventHandler, EventPattern, Hook, HookContext, HookError,
    HookPoint, HookRegistration, Limits, Plugin, PluginMetadata, Scope, Subscription, Tool, ToolContext,
    ToolDefinition, ToolError, ToolOutput,
    hook::{
        AfterAgentRun, AfterAgentRunOutcome, AfterModelCall, AfterModelCallOutcome, AfterToolCall,
        AfterToolCallOutcome, BeforeAgentRun, BeforeAgentRunOutcome, BeforeModelCall, BeforeModelCallOutcome,
        BeforeToolCall, BeforeToolCallOutcome, HookResult, OnError, OnErrorOutcome, ReasoningStep,
        ReasoningStepOutcome,
    },
};

use crate::{
    call,
    frame::{Outcome, Situation, Target},
    hook_wire::{self, Answered, FromAnswer, HookGrants},
    pool::{Class, Owner, Pool, patience},
    wire::{MAX_NESTING, is_nested_deeper_than},
    worker::{CallSpec, PluginSpec, Work},
};

/// What all tools, hooks, handlers and callbacks of a plugin share.
pub(crate) struct Core {
    pub(crate) pool: Arc<Pool>,
    pub(crate) spec: PluginSpec,
    pub(crate) manifest: PluginMetadata,
    /// The host's ceiling lowered by the manifest; for hooks.
    pub(crate) limits: Arc<Limits>,
}

/// A plugin made by [`WorkerRunner`](crate::WorkerRunner).
pub(crate) struct WorkerPlugin {
    pub(crate) core: Arc<Core>,
    pub(crate) tools: Vec<Arc<dyn Tool>>,
    pub(crate) hooks: Vec<HookRegistration>,
    pub(crate) subscriptions: Vec<Subscription>,
    /// Those that the script has.
    pub(crate) callbacks: Vec<Callback>,
    pub(crate) assets: Assets,
}

impl WorkerPlugin {
    /// Calls the script's function for `callback`, if there is one: in a worker of the tenant that it is about, or, where
    /// it is about none, in one of the host's own, which no tenant's call ever enters.
    async fn call_back(&self, callback: Callback, cx: &CallbackContext) -> Result<(), ToolError> {
        if !self.callbacks.contains(&callback) {
            return Ok(());
        }
        let tenant = match &cx.scope {
            Scope::Global => "",
            Scope::Tenant(tenant) => tenant.as_str(),
        };
        let make = || CallSpec {
            plugin: &self.core.spec,
            limits: &cx.limits,
            host: Some(Arc::clone(&cx.host)),
            context: None,
            work: Work::Call {
                target: Target::Callback(callback),
                situation: Situation { tenant, call: callback.name(), ..Situation::default() },
                input: &Value::Null,
            },
            deadline: cx.deadline,
        };
        // Beside the tenant's calls, not in line with them: whoever keeps all workers busy would have the plugin's health
        // checks fail, and its end.
        let place_by = patience(cx.deadline);
        match call::run(&self.core.pool, &Owner::from(&cx.scope), Class::Nested, place_by, make).await? {
            Outcome::Value(_) => Ok(()),
            Outcome::Error(error) | Outcome::Passed(error) => Err(error),
            Outcome::Loaded(_) | Outcome::LoadError(_) => Err(call::out_of_place()),
        }
    }
}

#[async_trait]
impl Plugin for WorkerPlugin {
    fn metadata(&self) -> &PluginMetadata {
        &self.core.manifest
    }

    fn tools(&self) -> Vec<Arc<dyn Tool>> {
        self.tools.clone()
    }

    fn hooks(&self) -> Vec<HookRegistration> {
        self.hooks.clone()
    }

    fn subscriptions(&self) -> Vec<Subscription> {
        self.subscriptions.clone()
    }

    fn assets(&self) -> Assets {
        self.assets.clone()
    }

    fn callbacks(&self) -> Vec<Callback> {
        self.callbacks.clone()
    }

    async fn on_load(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        self.call_back(Callback::Load, cx).await
    }

    async fn on_start(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        self.call_back(Callback::Start, cx).await
    }

    async fn on_tenant_enabled(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        self.call_back(Callback::TenantEnabled, cx).await
    }

    async fn on_tenant_disabled(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        self.call_back(Callback::TenantDisabled, cx).await
    }

    async fn on_health_check(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        self.call_back(Callback::HealthCheck, cx).await
    }

    async fn on_stop(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        self.call_back(Callback::Stop, cx).await
    }

    async fn on_unload(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        self.call_back(Callback::Unload, cx).await
    }
}

/// A tool whose code is a script function, run in a worker of the caller's tenant.
pub(crate) struct WorkerTool {
    pub(crate) definition: ToolDefinition,
    pub(crate) core: Arc<Core>,
}

#[async_trait]
impl Tool for WorkerTool {
    fn definition(&self) -> &ToolDefinition {
        &self.definition
    }

    async fn call(&self, arguments: Value, cx: &ToolContext) -> Result<ToolOutput, ToolError> {
        cx.usage().set_isolation(toolbay_api::Isolation::Process);
        let owner = Owner::Tenant(cx.tenant().clone());
        let class = if cx.depth() == 0 { Class::Top } else { Class::Nested };
        let run = cx.run().to_string();
        let make = || CallSpec {
            plugin: &self.core.spec,
            limits: cx.limits(),
            host: Some(Arc::clone(cx.host())),
            context: Some(cx.clone()),
            work: Work::Call {
                target: Target::Tool(self.definition.name.as_str()),
                situation: Situation {
                    tenant: cx.tenant().as_str(),
                    user: cx.user(),
                    conversation: cx.conversation(),
                    run: &run,
                    call: cx.call().as_str(),
                    idempotency_key: cx.idempotency_key(),
                    number: cx.depth(),
                },
                input: &arguments,
            },
            deadline: cx.deadline(),
        };
        match call::run(&self.core.pool, &owner, class, patience(cx.deadline()), make).await? {
            Outcome::Value(data) => Ok(ToolOutput::new(data)),
            Outcome::Error(error) | Outcome::Passed(error) => Err(error),
            Outcome::Loaded(_) | Outcome::LoadError(_) => Err(call::out_of_place()),
        }
    }
}

/// A handler whose code is a script function, run in a worker of the event's tenant.
pub(crate) struct WorkerEventHandler {
    pub(crate) core: Arc<Core>,
    pub(crate) pattern: EventPattern,
}

#[async_trait]
impl EventHandler for WorkerEventHandler {
    async fn handle(&self, event: &Arc<Event>, cx: &EventContext) -> Result<Value, ToolError> {
        let input = serde_json::to_value(&**event).unwrap_or_default();
        // The worker would take it for a fault of the wire.
        if is_nested_deeper_than(input.to_string().as_bytes(), MAX_NESTING) {
            let allowed = self.core.limits.max_nesting as u64;
            return Err(ToolError::limit(toolbay_api::Limit::Nesting, allowed, allowed + 1));
        }
        let make = || CallSpec {
            plugin: &self.core.spec,
            limits: &cx.limits,
            host: Some(Arc::clone(&cx.host)),
            context: None,
            // Everything that a handler may know is in the event.
            work: Work::Call {
                target: Target::Event(self.pattern.as_str()),
                situation: Situation { call: "event", ..Situation::default() },
                input: &input,
            },
            deadline: cx.deadline,
        };
        let owner = Owner::from(&event.scope);
        match call::run(&self.core.pool, &owner, Class::Top, patience(cx.deadline), make).await? {
            Outcome::Value(result) => Ok(result),
            Outcome::Error(error) | Outcome::Passed(error) => Err(error),
            Outcome::Loaded(_) | Outcome::LoadError(_) => Err(call::out_of_place()),
        }
    }
}

/// A hook whose code is a script function, run in a worker of the run's tenant.
pub(crate) struct WorkerHook {
    pub(crate) core: Arc<Core>,
    pub(crate) grants: HookGrants,
}

impl WorkerHook {
    async fn ask<T: FromAnswer>(&self, point: HookPoint, input: Value, cx: &HookContext<'_>) -> HookResult<T> {
        let name = &self.core.manifest.name;
        let failed = |error: ToolError| HookError::new(format!("the hook {point} of {name}: {error}"));
        // The worker would take it for a fault of the wire.
        if is_nested_deeper_than(input.to_string().as_bytes(), MAX_NESTING) {
            let allowed = self.core.limits.max_nesting as u64;
            return Err(failed(ToolError::limit(toolbay_api::Limit::Nesting, allowed, allowed + 1)));
        }
        let owner = Owner::Tenant(cx.caller.tenant.clone());
        let (run, host, deadline) = (cx.caller.run.to_string(), cx.host(), cx.deadline);
        let make = || CallSpec {
            plugin: &self.core.spec,
            limits: &self.core.limits,
            host: Some(Arc::clone(&host)),
            context: None,
            work: Work::Call {
                target: Target::Hook(point),
                situation: Situation {
                    tenant: cx.caller.tenant.as_str(),
                    user: cx.caller.user.as_deref(),
                    conversation: cx.caller.conversation.as_deref(),
                    run: &run,
                    call: "hook",
                    idempotency_key: None,
                    number: cx.step,
                },
                input: &input,
            },
            deadline,
        };
        let outcome =
            call::run(&self.core.pool, &owner, Class::Nested, patience(deadline), make).await.map_err(failed)?;
        match outcome {
            Outcome::Value(answer) => T::from_answer(Answered::read(answer, &self.grants)?),
            // The worker's runner has said which hook of which plugin already.
            Outcome::Error(error) | Outcome::Passed(error) => Err(HookError::new(error.message)),
            Outcome::Loaded(_) | Outcome::LoadError(_) => Err(failed(call::out_of_place())),
        }
    }
}

#[async_trait]
impl Hook for WorkerHook {
    async fn before_agent_run(
        &self,
        input: &BeforeAgentRun,
        cx: &HookContext<'_>,
    ) -> HookResult<BeforeAgentRunOutcome> {
        self.ask(HookPoint::BeforeAgentRun, hook_wire::plain(input), cx).await
    }

    async fn after_agent_run(&self, input: &AfterAgentRun, cx: &HookContext<'_>) -> HookResult<AfterAgentRunOutcome> {
        self.ask(HookPoint::AfterAgentRun, hook_wire::plain(input), cx).await
    }

    async fn before_model_call(
        &self,
        input: &BeforeModelCall,
        cx: &HookContext<'_>,
    ) -> HookResult<BeforeModelCallOutcome> {
        self.ask(HookPoint::BeforeModelCall, hook_wire::plain(input), cx).await
    }

    async fn after_model_call(
        &self,
        input: &AfterModelCall,
        cx: &HookContext<'_>,
    ) -> HookResult<AfterModelCallOutcome> {
        self.ask(HookPoint::AfterModelCall, hook_wire::plain(input), cx).await
    }

    async fn before_tool_call(
        &self,
        input: &BeforeToolCall,
        cx: &HookContext<'_>,
    ) -> HookResult<BeforeToolCallOutcome> {
        self.ask(HookPoint::BeforeToolCall, hook_wire::before_tool_call(input), cx).await
    }

    async fn after_tool_call(&self, input: &AfterToolCall, cx: &HookContext<'_>) -> HookResult<AfterToolCallOutcome> {
        self.ask(HookPoint::AfterToolCall, hook_wire::after_tool_call(input), cx).await
    }

    async fn on_reasoning_step(&self, input: &ReasoningStep, cx: &HookContext<'_>) -> HookResult<ReasoningStepOutcome> {
        self.ask(HookPoint::OnReasoningStep, hook_wire::plain(input), cx).await
    }

    async fn on_error(&self, input: &OnError, cx: &HookContext<'_>) -> HookResult<OnErrorOutcome> {
        self.ask(HookPoint::OnError, hook_wire::on_error(input), cx).await
    }
}
