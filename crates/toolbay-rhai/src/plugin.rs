//! A loaded Rhai plugin and its tools.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use rhai::{CallFnOptions, Dynamic, Engine, Map, Scope};
use serde_json::Value;
use toolbay_api::{
    Assets, Callback, CallbackContext, ErrorKind, HookRegistration, Host, Limit, Limits, Plugin, PluginMetadata,
    Subscription, Tool, ToolContext, ToolDefinition, ToolError, ToolOutput,
};

use crate::{
    bindings::Bindings,
    call::Call,
    callback::{self, Callbacks},
    check::EntryPoint,
    convert,
    engine::{self, Library, OwnModules},
    fault,
    fiber::{Answer, Fiber, Lanes, StackPool},
    meter, program,
    script::Script,
};

/// Sets of limits beside the usual one for which a plugin keeps an engine.
const KEPT_ENGINES: usize = 8;

/// What all tools and hooks of a plugin share.
pub(crate) struct Core {
    pub(crate) manifest: PluginMetadata,
    pub(crate) script: Arc<Script>,
    /// The host's ceiling lowered by the manifest.
    pub(crate) limits: Arc<Limits>,
    pub(crate) library: Arc<Library>,
    pub(crate) pool: Arc<StackPool>,
    pub(crate) lanes: Option<Arc<Lanes>>,
    /// The modules of the imported files; empty where there are none.
    pub(crate) modules: Vec<(String, rhai::Shared<rhai::Module>)>,
    /// A program's functions for tools, where its host made them.
    bindings: Option<Bindings>,
    /// Bytes that calls left behind, and how many may be.
    left_behind: Arc<AtomicU64>,
    max_left_behind: u64,
    usual: Arc<Engine>,
    // std's Mutex: held for a look-up only. Tenants with lower limits than their host's are few kinds.
    others: Mutex<Vec<(Arc<Limits>, Arc<Engine>)>>,
}

impl Core {
    #[allow(clippy::too_many_arguments, reason = "the parts come from six steps and are put together once")]
    pub(crate) fn new(
        manifest: PluginMetadata,
        script: Arc<Script>,
        limits: Limits,
        library: Arc<Library>,
        pool: Arc<StackPool>,
        lanes: Option<Arc<Lanes>>,
        modules: OwnModules,
        max_left_behind: u64,
        bindings: Option<Bindings>,
    ) -> Self {
        let mut core = Self {
            manifest,
            script,
            limits: Arc::new(limits),
            library,
            pool,
            lanes,
            modules: modules.0,
            bindings,
            left_behind: Arc::default(),
            max_left_behind,
            usual: Arc::new(Engine::RAW),
            others: Mutex::default(),
        };
        core.usual = Arc::new(core.build(&core.limits));
        core
    }

    fn build(&self, limits: &Limits) -> Engine {
        // The stacks are large enough for values within the plugin's own limits and no larger ones.
        let limits = Limits {
            max_array_len: limits.max_array_len.min(self.limits.max_array_len),
            max_map_len: limits.max_map_len.min(self.limits.max_map_len),
            ..limits.clone()
        };
        let mut engine = self.library.engine(&limits, &self.manifest.permissions, self.script.constants());
        if !self.modules.is_empty() {
            engine.set_module_resolver(OwnModules(self.modules.clone()));
        }
        engine
    }

    /// The engine that enforces `limits`.
    fn engine(&self, limits: &Arc<Limits>) -> Arc<Engine> {
        if Arc::ptr_eq(limits, &self.limits) || engine::fits(&self.limits, limits) {
            return Arc::clone(&self.usual);
        }
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, engine)) = others.iter().find(|(made_for, _)| engine::fits(made_for, limits)) {
            return Arc::clone(engine);
        }
        // It stays, so no call pays for it.
        meter::outside(|| {
            let engine = Arc::new(self.build(limits));
            if others.len() >= KEPT_ENGINES {
                others.remove(0);
            }
            others.push((Arc::clone(limits), Arc::clone(&engine)));
            engine
        })
    }

    /// Runs a function of the script on a fiber of its own.
    ///
    /// # Errors
    /// The script's own, and every limit by its kind.
    pub(crate) async fn run(self: &Arc<Self>, call: Call, entry: &Arc<EntryPoint>, job: Job) -> Answer {
        self.check_left_behind()?;
        let core = Arc::clone(self);
        let entry = Arc::clone(entry);
        let call = call.capturing(self.script.captures()).leaving_to(&self.left_behind);
        Fiber::new(call, Arc::clone(&self.pool), self.lanes.as_ref(), move |call| core.body(call, &entry, job))?.await
    }

    /// Refuses to go on with a plugin whose calls leave memory behind: a function that holds what holds it is never
    /// freed. Loading the plugin again begins anew.
    fn check_left_behind(&self) -> Result<(), ToolError> {
        let left = self.left_behind.load(Ordering::Relaxed);
        if left <= self.max_left_behind {
            return Ok(());
        }
        let message = format!(
            "the plugin {} is out of use: its calls left {left} bytes of memory behind, since a function of it captures a \
             variable that holds the function",
            self.manifest.name
        );
        Err(ToolError::new(ErrorKind::Unavailable, message).with_retryable(false))
    }

    /// What runs on the fiber. What comes from the host or goes to it is made and dropped outside of the call's account,
    /// so that a call which ends holds nothing.
    fn body(&self, call: &Call, entry: &EntryPoint, job: Job) -> Answer {
        let job = meter::Outside::of(job);
        let Job { input, context } = &*job;
        if convert::is_nested_deeper_than(input, call.limits().max_nesting) {
            let allowed = call.limits().max_nesting as u64;
            return meter::outside(|| Err(ToolError::limit(Limit::Nesting, allowed, allowed + 1)));
        }
        let engine = self.engine(call.limits());
        let options = CallFnOptions::new().eval_ast(self.script.has_prelude());
        let mut scope = Scope::new();
        let input = convert::to_dynamic(input);
        let (ast, function) = (self.script.ast(), entry.function.as_str());
        let result = if entry.is_program() {
            drop(input);
            let mut engine = self.build(call.limits());
            match &self.bindings {
                Some(bindings) => bindings.bind(&mut engine),
                None => {
                    program::declare_tools(call, &mut scope);
                    program::call_tools_by_name(&mut engine, &self.library, &self.manifest.permissions);
                }
            }
            engine.eval_ast_with_scope::<Dynamic>(&mut scope, ast)
        } else if entry.takes_context {
            let context = if entry.reads_context { context(call) } else { Dynamic::UNIT };
            engine.call_fn_with_options::<Dynamic>(options, &mut scope, ast, function, (input, context))
        } else {
            engine.call_fn_with_options::<Dynamic>(options, &mut scope, ast, function, (input,))
        };
        let result = match call.take_exit() {
            Some(value) => Ok(value.flatten()),
            None => result,
        };
        let answer = match result {
            Ok(value) => meter::outside(|| convert::to_value(&value, call.limits(), Limit::Output)),
            Err(error) => meter::outside(|| {
                let failed = fault::tool_error(&error, call, &self.script);
                // Its author is the model that reads the error.
                Err(if self.bindings.is_some() { fault::placed(failed, &error) } else { failed })
            }),
        };
        // A call that was stopped has no result, whatever the script made of it.
        meter::outside(|| call.take_trip().map_or(answer, Err).map_err(fault::outwards))
    }
}

/// What a script function is given.
pub(crate) struct Job {
    pub(crate) input: Value,
    /// Makes its second argument, if it is read.
    pub(crate) context: Box<dyn Fn(&Call) -> Dynamic + Send>,
}

/// A plugin made by [`RhaiRunner`](crate::RhaiRunner).
pub(crate) struct RhaiPlugin {
    pub(crate) core: Arc<Core>,
    pub(crate) tools: Vec<Arc<dyn Tool>>,
    pub(crate) hooks: Vec<HookRegistration>,
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) callbacks: Callbacks,
    pub(crate) assets: Assets,
}

#[async_trait]
impl Plugin for RhaiPlugin {
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
        self.callbacks.keys().copied().collect()
    }

    async fn on_load(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        callback::run(&self.core, &self.callbacks, Callback::Load, cx).await
    }

    async fn on_start(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        callback::run(&self.core, &self.callbacks, Callback::Start, cx).await
    }

    async fn on_tenant_enabled(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        callback::run(&self.core, &self.callbacks, Callback::TenantEnabled, cx).await
    }

    async fn on_tenant_disabled(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        callback::run(&self.core, &self.callbacks, Callback::TenantDisabled, cx).await
    }

    async fn on_health_check(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        callback::run(&self.core, &self.callbacks, Callback::HealthCheck, cx).await
    }

    async fn on_stop(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        callback::run(&self.core, &self.callbacks, Callback::Stop, cx).await
    }

    async fn on_unload(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        callback::run(&self.core, &self.callbacks, Callback::Unload, cx).await
    }
}

/// A tool whose code is a script function.
pub(crate) struct RhaiTool {
    pub(crate) definition: ToolDefinition,
    pub(crate) core: Arc<Core>,
    pub(crate) entry: Arc<EntryPoint>,
}

#[async_trait]
impl Tool for RhaiTool {
    fn definition(&self) -> &ToolDefinition {
        &self.definition
    }

    async fn call(&self, arguments: Value, cx: &ToolContext) -> Result<ToolOutput, ToolError> {
        let deadline = cx.deadline();
        let host: Arc<dyn Host> = Arc::clone(cx.host());
        let call = Call::new(Arc::clone(cx.limits()), deadline, host, Some(cx.clone()));
        let context = cx.clone();
        // Without arguments a client may send none at all.
        let input = if arguments.is_null() { Value::Object(serde_json::Map::new()) } else { arguments };
        let job = Job { input, context: Box::new(move |call| tool_context(&context, call)) };
        self.core.run(call, &self.entry, job).await.map(ToolOutput::new)
    }
}

/// The map that a tool gets as its second argument.
fn tool_context(cx: &ToolContext, call: &Call) -> Dynamic {
    let text = |text: Option<&str>| text.map_or(Dynamic::UNIT, Into::into);
    let mut map = Map::new();
    map.insert("tenant".into(), cx.tenant().as_str().into());
    map.insert("user".into(), text(cx.user()));
    map.insert("conversation".into(), text(cx.conversation()));
    map.insert("run".into(), cx.run().to_string().into());
    // `call` is a word of Rhai's own: a script can write cx["call"], or `cx.call_id`.
    map.insert("call".into(), cx.call().as_str().into());
    map.insert("call_id".into(), cx.call().as_str().into());
    map.insert("depth".into(), i64::from(cx.depth()).into());
    map.insert("deadline_ms".into(), deadline_ms(call));
    map.insert("idempotency_key".into(), text(cx.idempotency_key()));
    Dynamic::from_map(map)
}

/// The time that a call has left.
pub(crate) fn deadline_ms(call: &Call) -> Dynamic {
    i64::try_from(call.time_left().as_millis()).unwrap_or(i64::MAX).into()
}
