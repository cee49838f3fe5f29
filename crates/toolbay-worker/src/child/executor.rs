//! The worker's loop: reads frames, lets calls run in turn, writes what they answer.
//!
//! Written for this one purpose instead of taking an async runtime along: the fewer system calls it makes, the fewer
//! must be allowed, and a call costs one read and one write.

use std::{
    collections::HashMap,
    pin::pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, Waker},
    time::Instant,
};

use serde::{Deserialize, de::IntoDeserializer};
use serde_json::Value;
use toolbay_api::{
    Assets, CallId, Callback, CallbackContext, Caller, CancelFlag, Declared, ErrorKind, Event, EventContext,
    EventHandler, Hook, HookContext, HookPoint, Limit, LoadError, Manifest, Plugin, RunId, Runner, Scope, Subscription,
    TenantId, Tool, ToolContext, ToolContextParts, ToolError,
};
use toolbay_rhai::RhaiRunner;

use super::{
    host::{FarHost, FarHosts},
    link::Link,
    task::{Task, Work},
};
use crate::{
    alloc,
    frame::{self, CallFrame, Loaded, Outcome, Spent, Target, ToWorker},
    hook_wire,
    package::{Form, PackageFrame},
    sys::{self, Wait},
    wire::read_json,
};

/// A plugin as a worker holds it.
struct Held {
    plugin: Arc<dyn Plugin>,
    tools: HashMap<String, Arc<dyn Tool>>,
    hooks: HashMap<HookPoint, Arc<dyn Hook>>,
    handlers: HashMap<String, Arc<dyn EventHandler>>,
    assets: Arc<OnceLock<Assets>>,
}

/// All of a worker's state.
#[derive(Default)]
pub(crate) struct Executor {
    link: Link,
    runner: RhaiRunner,
    /// One that could not be loaded is kept with the call that it was loaded for.
    plugins: HashMap<u64, Result<Arc<Held>, (u64, LoadError)>>,
    tasks: Vec<Task>,
    /// Bytes that loaded plugins hold.
    kept: isize,
    /// Whether a large call has ended since memory was last given back.
    was_large: bool,
}

/// Bytes from which on a call counts as large.
const LARGE: u64 = 4 << 20;

impl Executor {
    /// A locked-down process may start no thread, and is killed where a script holds it.
    pub(crate) fn on_one_thread(mut self) -> Self {
        self.runner = std::mem::take(&mut self.runner).without_threads();
        self
    }

    /// Serves until the host is gone.
    pub(crate) fn run(&mut self) -> ! {
        loop {
            let wait = if self.tasks.iter().any(Task::is_awake) { Wait::No } else { Wait::UntilThere };
            let mut next = self.link.next(wait);
            while let Some(frame) = next {
                self.take(&frame);
                next = self.link.next_at_hand();
            }
            self.round();
            self.link.flush();
            // After the answer is out, and when nobody waits.
            if self.was_large && self.tasks.is_empty() {
                self.was_large = false;
                sys::trim();
            }
        }
    }

    /// Lets each call that can go on do so for a slice of time.
    fn round(&mut self) {
        let mut index = 0;
        while let Some(task) = self.tasks.get_mut(index) {
            if !task.is_awake() {
                index += 1;
                continue;
            }
            match task.poll() {
                Poll::Pending => index += 1,
                Poll::Ready(outcome) => {
                    let task = self.tasks.swap_remove(index);
                    let (call, spent) = (task.call, task.spent(self.residue()));
                    self.was_large |= spent.peak_bytes >= LARGE;
                    self.link.write(|out| frame::write_done(out, call, spent, &outcome));
                }
            }
        }
    }

    /// Bytes of the heap that belong to no call and no plugin.
    fn residue(&self) -> u64 {
        let calls: isize = self.tasks.iter().map(Task::account).sum();
        u64::try_from(alloc::held() - calls - self.kept).unwrap_or(0)
    }

    fn take(&mut self, frame: &[u8]) {
        // The host is trusted; a frame that cannot be read means that it is not our host, or not our version.
        let Ok(frame) = ToWorker::read(frame) else { sys::exit(sys::EXIT_PROTOCOL) };
        match frame {
            ToWorker::Load { call, plugin, answer, package } => self.load(call, plugin, answer, package),
            ToWorker::Unload { plugin } => {
                let Some(plugin) = self.plugins.remove(&plugin) else { return };
                // Its assets are counted outside, where they came from.
                if let Ok(Held { assets, .. }) = plugin.as_deref() {
                    let assets = Arc::clone(assets);
                    let before = alloc::held();
                    drop(plugin);
                    self.kept += alloc::held() - before;
                    alloc::outside(|| drop(assets));
                }
            }
            ToWorker::Call(call) => self.call(*call),
            ToWorker::Cancel { call } => self.cancel(call),
            ToWorker::Reply { call, answer } => {
                // A call that was cancelled meanwhile has no use for it.
                if let Some(task) = self.tasks.iter_mut().find(|task| task.call == call) {
                    task.receive(|| self.link.answer(call, answer));
                }
            }
        }
    }

    fn load(&mut self, call: u64, plugin: u64, answer: bool, package: &[u8]) {
        let before = alloc::held();
        let Ok(package) = PackageFrame::read(package) else { sys::exit(sys::EXIT_PROTOCOL) };
        let allowed = package.context.limits.max_memory_bytes;
        let outcome = if package.form == Form::Declaration {
            let declare = || finish(self.runner.declare(&package.package, &package.context));
            match alloc::under_cap(call, 0, allowed, declare).0 {
                Ok(Some(Declared { manifest, callbacks })) => told(&manifest, callbacks),
                Ok(None) => Outcome::LoadError(LoadError::new(ErrorKind::Internal, "the runner told nothing")),
                Err(error) => Outcome::LoadError(error),
            }
        } else {
            let (loaded, _) = alloc::under_cap(call, 0, allowed, || match package.form {
                Form::Program => finish(self.runner.load_program(&package.package, &package.context)),
                Form::Plugin | Form::Declaration => finish(self.runner.load(&package.package, &package.context)),
            });
            let outcome = match &loaded {
                Ok(plugin) => told(plugin.metadata(), plugin.callbacks()),
                Err(error) => Outcome::LoadError(error.clone()),
            };
            self.plugins.insert(plugin, loaded.map(|plugin| Arc::new(held(plugin))).map_err(|error| (call, error)));
            outcome
        };
        drop(package);
        self.kept += alloc::held() - before;
        if answer {
            let spent = Spent { heap_bytes: self.residue(), ..Spent::default() };
            self.link.write(|out| frame::write_done(out, call, spent, &outcome));
        }
    }

    fn call(&mut self, frame: CallFrame<'_>) {
        let (call, allowed) = (frame.call, frame.limits.max_memory_bytes);
        let (made, account) = alloc::under_cap(call, 0, allowed, || self.work(frame));
        match made {
            Ok((context, work)) => self.tasks.push(Task::new(call, allowed, account, context, work)),
            Err(error) => {
                self.link.write(|out| frame::write_done(out, call, Spent::default(), &Outcome::Error(error)));
            }
        }
    }

    /// What a call runs.
    fn work(&self, frame: CallFrame<'_>) -> Result<(Option<ToolContext>, Work), ToolError> {
        let internal = |what: String| ToolError::new(ErrorKind::Internal, what);
        let plugin = match self.plugins.get(&frame.plugin) {
            Some(Ok(plugin)) => Arc::clone(plugin),
            Some(Err((call, error))) if *call == frame.call => return Err(not_loaded_again(error)),
            // The worker is not given any more calls; this one was on its way already.
            Some(Err(_)) => {
                let text = "the tool's worker process could not load it for another call; try again";
                return Err(ToolError::new(ErrorKind::Unavailable, text));
            }
            None => return Err(internal("the plugin is not in the worker".to_owned())),
        };
        let input: Value = read_json(frame.input).map_err(|malformed| internal(malformed.to_string()))?;
        let deadline = Instant::now() + frame.deadline.saturating_sub(sys::monotonic());
        let host = Arc::new(FarHost::new(self.link.clone(), frame.call, Arc::clone(&plugin.assets)));
        let own = Arc::clone(&host);
        match frame.target {
            Target::Tool(name) => {
                let caller = caller(&frame)?;
                let tool = plugin.tools.get(name).map(Arc::clone);
                let tool = tool.ok_or_else(|| internal(format!("the plugin has no tool {name:?}")))?;
                let cx = ToolContext::new(ToolContextParts {
                    caller,
                    call: CallId::new(frame.situation.call),
                    depth: frame.situation.number,
                    deadline,
                    limits: Arc::new(frame.limits),
                    idempotency_key: frame.situation.idempotency_key.map(Arc::from),
                    host,
                    cancelled: CancelFlag::default(),
                    peer: None,
                });
                let context = cx.clone();
                let work = async move {
                    match tool.call(input, &cx).await {
                        Ok(output) => Outcome::Value(output.data),
                        Err(error) => own.end(error, deadline),
                    }
                };
                Ok((Some(context), Box::pin(work)))
            }
            Target::Hook(point) => {
                let caller = caller(&frame)?;
                let hook = plugin.hooks.get(&point).map(Arc::clone);
                let hook = hook.ok_or_else(|| internal(format!("the plugin has no hook {point}")))?;
                let step = frame.situation.number;
                let work = async move {
                    let hosts = FarHosts(host);
                    let cx = HookContext { caller: &caller, step, deadline, hosts: &hosts, interception: None };
                    match hook_wire::ask(&*hook, point, input, &cx).await {
                        Ok(outcome) => Outcome::Value(outcome),
                        Err(error) => Outcome::Error(ToolError::new(ErrorKind::HookFailed, error.message)),
                    }
                };
                Ok((None, Box::pin(work)))
            }
            Target::Event(pattern) => {
                let handler = plugin.handlers.get(pattern).map(Arc::clone);
                let handler = handler.ok_or_else(|| internal(format!("the plugin has no handler of {pattern:?}")))?;
                let event: Event = serde_json::from_value(input).map_err(|error| internal(error.to_string()))?;
                let cx = EventContext { deadline, limits: Arc::new(frame.limits), host };
                let work = async move {
                    match handler.handle(&Arc::new(event), &cx).await {
                        Ok(result) => Outcome::Value(result),
                        Err(error) => own.end(error, deadline),
                    }
                };
                Ok((None, Box::pin(work)))
            }
            Target::Callback(callback) => {
                let scope = match frame.situation.tenant {
                    "" => Scope::Global,
                    tenant => Scope::Tenant(TenantId::new(tenant).map_err(|error| internal(error.to_string()))?),
                };
                let cx = CallbackContext { scope, deadline, limits: Arc::new(frame.limits), host };
                let work = async move {
                    match call_back(&*plugin.plugin, callback, &cx).await {
                        Ok(()) => Outcome::Value(Value::Null),
                        Err(error) => own.end(error, deadline),
                    }
                };
                Ok((None, Box::pin(work)))
            }
        }
    }

    fn cancel(&mut self, call: u64) {
        let Some(index) = self.tasks.iter().position(|task| task.call == call) else { return };
        let mut task = self.tasks.swap_remove(index);
        task.end();
        let spent = task.spent(self.residue());
        let cancelled = ToolError::new(ErrorKind::Cancelled, "the call was cancelled");
        self.link.write(|out| frame::write_done(out, call, spent, &Outcome::Error(cancelled)));
    }
}

/// The error of the call for which a plugin that was loaded once before was to be loaded again. The host takes each of
/// these kinds as a reason to replace the worker.
fn not_loaded_again(error: &LoadError) -> ToolError {
    let text = format!("the plugin could not be loaded again: {error}");
    match error.kind {
        kind @ (ErrorKind::TimedOut | ErrorKind::LimitExceeded { limit: Limit::Memory, .. }) => {
            ToolError::new(kind, "loading the tool's code took all that the call had; try again")
                .with_source(text)
                .with_retryable(true)
        }
        _ => ToolError::new(ErrorKind::Internal, text),
    }
}

/// The answer to a load: what the plugin says of itself.
fn told(manifest: &Manifest, callbacks: Vec<Callback>) -> Outcome {
    match serde_json::to_value(manifest) {
        Ok(manifest) => Outcome::Loaded(Loaded { manifest, callbacks }),
        Err(_) => Outcome::LoadError(LoadError::new(ErrorKind::Config, "the manifest has no JSON form")),
    }
}

fn held(plugin: Arc<dyn Plugin>) -> Held {
    let tools = plugin.tools().into_iter().map(|tool| (tool.definition().name.to_string(), tool)).collect();
    let mut hooks = HashMap::new();
    for registration in plugin.hooks() {
        for point in registration.points {
            hooks.insert(point, Arc::clone(&registration.hook));
        }
    }
    let handler = |one: Subscription| (one.pattern.as_str().to_owned(), one.handler);
    let handlers = plugin.subscriptions().into_iter().map(handler).collect();
    Held { plugin, tools, hooks, handlers, assets: Arc::default() }
}

async fn call_back(plugin: &dyn Plugin, callback: Callback, cx: &CallbackContext) -> Result<(), ToolError> {
    match callback {
        Callback::Load => plugin.on_load(cx).await,
        Callback::Start => plugin.on_start(cx).await,
        Callback::TenantEnabled => plugin.on_tenant_enabled(cx).await,
        Callback::TenantDisabled => plugin.on_tenant_disabled(cx).await,
        Callback::HealthCheck => plugin.on_health_check(cx).await,
        Callback::Stop => plugin.on_stop(cx).await,
        Callback::Unload => plugin.on_unload(cx).await,
    }
}

fn caller(frame: &CallFrame<'_>) -> Result<Arc<Caller>, ToolError> {
    let problem =
        |error: String| ToolError::new(ErrorKind::Internal, "the call's caller is malformed").with_source(error);
    let situation = &frame.situation;
    let run: Result<RunId, serde::de::value::Error> = RunId::deserialize(situation.run.into_deserializer());
    Ok(Arc::new(Caller {
        tenant: TenantId::new(situation.tenant).map_err(|error| problem(error.to_string()))?,
        user: situation.user.map(Arc::from),
        conversation: situation.conversation.map(Arc::from),
        run: run.map_err(|error| problem(error.to_string()))?,
        trace: None,
    }))
}

/// Drives a future that waits for nothing but its own turns.
fn finish<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
    }
}
