//! A host for unit tests of native tools and hooks: everything in memory, everything written down.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use serde_json::{Map, Value};
use toolbay_api::{
    Asset, Assets, CallId, Caller, CancelFlag, ErrorKind, Execution, Host, HttpSend, HttpSendContext, Limit, Limits,
    LogLevel, PermissionSet, PluginName, RunId, Secret, SecretName, TenantId, Tool, ToolContext, ToolContextParts,
    ToolError, ToolOutput,
    hook::{HookContext, HookHosts},
};
use toolbay_runtime::{KvQuota, KvSpace, KvStore, KvValue, MemoryKv, schema::Schema};

use crate::clock::VirtualClock;

/// Something that a plugin asked its host for, whether it got it or not.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the variants are the methods of `Host`, the fields their parameters")]
pub enum HostCall {
    Log { level: LogLevel, message: String },
    KvGet { key: String },
    KvSet { key: String, value: Value, ttl: Option<Duration> },
    KvCompareAndSet { key: String, expected: Option<Value>, new: Option<Value>, ttl: Option<Duration> },
    KvDelete { key: String },
    KvList { prefix: String, after: String, limit: usize },
    CallTool { tool: String, arguments: Value },
    Http { request: Value },
    Secret { name: String },
    NowMs,
    Uuid,
    Random,
}

/// A [`Host`] for unit tests. Clones are the same host.
///
/// It grants all that is asked unless [`with_grants`](Self::with_grants) says less, keeps values as
/// [`MemoryKv`] does, tells the time of a [`VirtualClock`], gives UUIDs and random bits that are the same in every run, and
/// answers other tools' calls as told. What it does not do is the road: for hooks, limits and scopes test the plugin in a
/// [`Toolbay`](toolbay_runtime::Toolbay).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use schemars::JsonSchema;
/// use serde::Deserialize;
/// use serde_json::json;
/// use toolbay_api::{ErrorKind, PermissionSet, ToolContext, tool};
/// use toolbay_testkit::{HostCall, TestHost};
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Visit {
///     name: String,
/// }
///
/// let visit = tool("visit", "Counts visits", async |args: Visit, cx: ToolContext| {
///     let key = format!("visits:{}", args.name);
///     let visits = cx.host().kv_get(&key).await?.and_then(|value| value.as_u64()).unwrap_or(0) + 1;
///     cx.host().kv_set(&key, json!(visits)).await?;
///     Ok(visits)
/// });
///
/// let host = TestHost::new();
/// assert_eq!(host.call(&visit, json!({ "name": "Ada" })).await?, json!(1));
/// assert_eq!(host.call(&visit, json!({ "name": "Ada" })).await?, json!(2));
/// assert_eq!(host.kv("visits:Ada").await, Some(json!(2)));
/// assert_eq!(host.calls()[0], HostCall::KvGet { key: "visits:Ada".to_owned() });
///
/// // Arguments are checked as the road checks them.
/// assert_eq!(host.call(&visit, json!({ "nom": "Ada" })).await.unwrap_err().kind, ErrorKind::InvalidArguments);
/// let poor = TestHost::new().with_grants(PermissionSet::parse(["kv:read"])?);
/// assert_eq!(poor.call(&visit, json!({ "name": "Ada" })).await.unwrap_err().kind, ErrorKind::PermissionDenied);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct TestHost {
    grants: Arc<PermissionSet>,
    limits: Arc<Limits>,
    config: Arc<Value>,
    assets: Assets,
    caller: Arc<Caller>,
    secrets: BTreeMap<String, Secret>,
    http: Option<Arc<dyn HttpSend>>,
    tools: BTreeMap<String, ScriptedTool>,
    clock: VirtualClock,
    space: KvSpace,
    store: Arc<MemoryKv>,
    state: Arc<Mutex<State>>,
}

/// What answers calls by their arguments.
type Answering = dyn Fn(&Value) -> Result<Value, ToolError> + Send + Sync;

#[derive(Clone)]
enum ScriptedTool {
    /// One after the other; the last stays.
    Answers(Arc<Mutex<VecDeque<Result<Value, ToolError>>>>),
    Function(Arc<Answering>),
}

#[derive(Default)]
struct State {
    calls: Vec<HostCall>,
    /// Host calls of the present context.
    of_context: u64,
    /// UUIDs and random numbers given.
    given: u64,
}

impl Default for TestHost {
    fn default() -> Self {
        Self::new()
    }
}

impl TestHost {
    /// A host for the tenant `default` that grants everything and has nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let tenant = TenantId::default();
        let caller =
            Caller { tenant: tenant.clone(), user: None, conversation: None, run: RunId::random(), trace: None };
        Self {
            grants: Arc::new(PermissionSet::all()),
            limits: Arc::default(),
            config: Arc::new(Value::Object(Map::new())),
            assets: Assets::default(),
            caller: Arc::new(caller),
            secrets: BTreeMap::new(),
            http: None,
            tools: BTreeMap::new(),
            clock: VirtualClock::default(),
            space: KvSpace { tenant, plugin: plugin_name(), own: false },
            store: Arc::default(),
            state: Arc::default(),
        }
    }

    /// Grants just these: what asked ∩ host ∩ tenant would come to.
    #[must_use]
    pub fn with_grants(mut self, grants: PermissionSet) -> Self {
        self.grants = Arc::new(grants);
        self
    }

    /// Other limits than the usual ones.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = Arc::new(limits);
        self
    }

    /// The plugin's configuration. It is not checked against the plugin's `config_schema`.
    #[must_use]
    pub fn with_config(mut self, config: Value) -> Self {
        self.config = Arc::new(config);
        self
    }

    /// The plugin's packaged files.
    #[must_use]
    pub fn with_assets<'a>(mut self, files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let asset = |(name, text): (&str, &str)| (name.to_owned(), Asset::new(text.as_bytes()));
        self.assets = files.into_iter().map(asset).collect();
        self
    }

    /// On whose behalf calls are made; also the tenant whose values are kept.
    #[must_use]
    pub fn with_caller(mut self, tenant: TenantId, user: Option<&str>) -> Self {
        self.space.tenant = tenant.clone();
        let user = user.map(Into::into);
        self.caller = Arc::new(Caller { tenant, user, ..Caller::clone(&self.caller) });
        self
    }

    /// A secret that can be read.
    #[must_use]
    pub fn with_secret(mut self, name: &str, value: &str) -> Self {
        self.secrets.insert(name.to_owned(), Secret::new(value));
        self
    }

    /// Who answers HTTP requests, such as [`FakeHttp`](crate::FakeHttp). Without it: nobody, as in a host that sends none.
    #[must_use]
    pub fn with_http(mut self, http: impl HttpSend + 'static) -> Self {
        self.http = Some(Arc::new(http));
        self
    }

    /// The clock that it tells the time of.
    #[must_use]
    pub fn with_clock(mut self, clock: VirtualClock) -> Self {
        self.clock = clock;
        self
    }

    /// Answers calls of another tool, one after the other; the last answer stays.
    #[must_use]
    pub fn with_answers(mut self, tool: &str, answers: impl IntoIterator<Item = Result<Value, ToolError>>) -> Self {
        let answers = ScriptedTool::Answers(Arc::new(Mutex::new(answers.into_iter().collect())));
        self.tools.insert(tool.to_owned(), answers);
        self
    }

    /// Answers calls of another tool by a function of its arguments.
    #[must_use]
    pub fn with_tool(
        mut self,
        tool: &str,
        function: impl Fn(&Value) -> Result<Value, ToolError> + Send + Sync + 'static,
    ) -> Self {
        self.tools.insert(tool.to_owned(), ScriptedTool::Function(Arc::new(function)));
        self
    }

    /// What was asked of it so far, in order, refusals included.
    #[must_use]
    pub fn calls(&self) -> Vec<HostCall> {
        self.state().calls.clone()
    }

    /// The lines of the log so far.
    #[must_use]
    pub fn log_lines(&self) -> Vec<String> {
        let line = |call: HostCall| match call {
            HostCall::Log { message, .. } => Some(message),
            _ => None,
        };
        self.calls().into_iter().filter_map(line).collect()
    }

    /// The value that is kept under `key` now; not written down.
    pub async fn kv(&self, key: &str) -> Option<Value> {
        self.store.get(&self.space, key, self.clock.now_ms()).await.ok().flatten()
    }

    /// Puts a value there, as if the plugin had kept it before; not written down.
    ///
    /// # Errors
    /// As [`Host::kv_set`].
    pub async fn put_kv(&self, key: &str, value: Value) -> Result<(), ToolError> {
        self.store.set(&self.space, key, value.into(), KvQuota::default(), self.clock.now_ms()).await
    }

    /// The context of a new call.
    #[must_use]
    pub fn context(&self) -> ToolContext {
        let number = {
            let mut state = self.state();
            state.of_context = 0;
            state.calls.len()
        };
        ToolContext::new(ToolContextParts {
            caller: Arc::clone(&self.caller),
            call: CallId::new(format!("call-{number}")),
            depth: 0,
            // By tokio's clock, which tests can pause.
            deadline: tokio::time::Instant::now().into_std() + self.limits.timeout,
            limits: Arc::clone(&self.limits),
            idempotency_key: None,
            host: Arc::new(self.clone()),
            cancelled: CancelFlag::default(),
            peer: None,
        })
    }

    /// Calls a tool, as the road does at its step "plugin": arguments and result are checked against its schemas, and the
    /// time limit holds.
    ///
    /// # Errors
    /// The tool's own; `InvalidArguments` and `TimedOut` as from the road; `Config` where a schema is none.
    ///
    /// # Panics
    /// Where the tool does, so that the test shows its line.
    pub async fn call(&self, tool: &dyn Tool, arguments: Value) -> Result<Value, ToolError> {
        let config = |problem: String| ToolError::new(ErrorKind::Config, problem);
        let definition = tool.definition();
        Schema::compile_parameters(&definition.parameters).map_err(config)?.check_arguments(&arguments)?;
        let cx = self.context();
        let result = match tool.execution() {
            Execution::Blocking => tool.call_blocking(arguments, &cx),
            Execution::Async => {
                let timeout = definition.timeout.map_or(self.limits.timeout, |own| own.min(self.limits.timeout));
                let late =
                    |_| ToolError::new(ErrorKind::TimedOut, format!("the tool took longer than its {timeout:?}"));
                tokio::time::timeout(timeout, tool.call(arguments, &cx)).await.map_err(late)?
            }
        };
        let data = result?.data;
        if let Some(schema) = &definition.output {
            Schema::compile(schema).map_err(config)?.check_output(&data)?;
        }
        Ok(data)
    }

    /// What a hook is asked with: `hook.before_tool_call(&input, &host.hook_context()).await`.
    #[must_use]
    pub fn hook_context(&self) -> HookContext<'_> {
        self.state().of_context = 0;
        let deadline: Instant = tokio::time::Instant::now().into_std() + self.limits.timeout;
        HookContext { caller: &self.caller, step: 1, deadline, hosts: self, interception: None }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a call down and counts it.
    fn record(&self, call: HostCall) -> Result<(), ToolError> {
        let mut state = self.state();
        state.of_context += 1;
        let (used, allowed) = (state.of_context, self.limits.max_host_calls);
        if used > allowed {
            return Err(ToolError::limit(Limit::HostCalls, allowed, used));
        }
        state.calls.push(call);
        Ok(())
    }

    fn require(&self, action: &str) -> Result<(), ToolError> {
        if self.grants.covers(action) {
            return Ok(());
        }
        let message = format!("the permission `{action}` is needed and the test does not grant it");
        Err(ToolError::new(ErrorKind::PermissionDenied, message))
    }

    fn end_of(&self, ttl: Option<Duration>) -> Result<Option<i64>, ToolError> {
        let Some(ttl) = ttl else { return Ok(None) };
        let ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
        if ms == 0 {
            return Err(ToolError::new(ErrorKind::InvalidArguments, "a time to live has at least one millisecond"));
        }
        Ok(Some(self.clock.now_ms().saturating_add(ms)))
    }

    async fn keep(&self, key: &str, value: Value, ttl: Option<Duration>) -> Result<(), ToolError> {
        self.record(HostCall::KvSet { key: key.to_owned(), value: value.clone(), ttl })?;
        self.require("kv:write")?;
        let value = KvValue { value, expires_ms: self.end_of(ttl)? };
        self.store.set(&self.space, key, value, KvQuota::default(), self.clock.now_ms()).await
    }

    /// The next number of a sequence that looks random and is the same in every run (SplitMix64).
    fn next_bits(&self) -> u64 {
        let mut state = self.state();
        state.given += 1;
        let seed = state.given.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// The plugin that a host in a test belongs to.
#[allow(clippy::expect_used, reason = "a fixed name that fits")]
fn plugin_name() -> PluginName {
    PluginName::new("test").expect("it fits")
}

impl HookHosts for TestHost {
    fn host(&self) -> Arc<dyn Host> {
        Arc::new(self.clone())
    }
}

#[async_trait]
impl Host for TestHost {
    fn log(&self, level: LogLevel, message: &str) {
        // Past the limit of host calls it is dropped, as past the limit of the log.
        let _ = self.record(HostCall::Log { level, message: message.to_owned() });
    }

    fn config(&self) -> &Value {
        &self.config
    }

    fn assets(&self) -> &Assets {
        &self.assets
    }

    async fn kv_get(&self, key: &str) -> Result<Option<Value>, ToolError> {
        self.record(HostCall::KvGet { key: key.to_owned() })?;
        self.require("kv:read")?;
        self.store.get(&self.space, key, self.clock.now_ms()).await
    }

    async fn kv_set(&self, key: &str, value: Value) -> Result<(), ToolError> {
        self.keep(key, value, None).await
    }

    async fn kv_set_for(&self, key: &str, value: Value, ttl: Duration) -> Result<(), ToolError> {
        self.keep(key, value, Some(ttl)).await
    }

    async fn kv_compare_and_set(
        &self,
        key: &str,
        expected: Option<Value>,
        new: Option<Value>,
        ttl: Option<Duration>,
    ) -> Result<bool, ToolError> {
        let (asked_for, put) = (expected.clone(), new.clone());
        self.record(HostCall::KvCompareAndSet { key: key.to_owned(), expected: asked_for, new: put, ttl })?;
        self.require("kv:read")?;
        self.require("kv:write")?;
        let expires_ms = self.end_of(ttl)?;
        let new = new.map(|value| KvValue { value, expires_ms });
        let (quota, now) = (KvQuota::default(), self.clock.now_ms());
        self.store.compare_and_set(&self.space, key, expected, new, quota, now).await
    }

    async fn kv_delete(&self, key: &str) -> Result<bool, ToolError> {
        self.record(HostCall::KvDelete { key: key.to_owned() })?;
        self.require("kv:write")?;
        self.store.delete(&self.space, key, self.clock.now_ms()).await
    }

    async fn kv_list(&self, prefix: &str, limit: usize) -> Result<Vec<String>, ToolError> {
        self.kv_list_after(prefix, "", limit).await
    }

    async fn kv_list_after(&self, prefix: &str, after: &str, limit: usize) -> Result<Vec<String>, ToolError> {
        self.record(HostCall::KvList { prefix: prefix.to_owned(), after: after.to_owned(), limit })?;
        self.require("kv:read")?;
        self.store.list(&self.space, prefix, after, limit.min(1_000), self.clock.now_ms()).await
    }

    async fn call_tool(&self, tool: &str, arguments: Value) -> Result<ToolOutput, ToolError> {
        self.record(HostCall::CallTool { tool: tool.to_owned(), arguments: arguments.clone() })?;
        self.require(&format!("tool:call:{tool}"))?;
        let answer = match self.tools.get(tool) {
            Some(ScriptedTool::Function(function)) => Some(function(&arguments)),
            Some(ScriptedTool::Answers(answers)) => {
                let mut answers = answers.lock().unwrap_or_else(PoisonError::into_inner);
                if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }
            }
            None => None,
        };
        answer.unwrap_or_else(|| Err(self.no_such_tool(tool))).map(ToolOutput::new)
    }

    fn tools(&self) -> Vec<String> {
        self.tools.keys().cloned().collect()
    }

    async fn http(&self, request: Value) -> Result<Value, ToolError> {
        self.record(HostCall::Http { request: request.clone() })?;
        let unavailable =
            || ToolError::new(ErrorKind::Unavailable, "the test's host sends no HTTP requests: `with_http`");
        let sender = self.http.as_ref().ok_or_else(|| unavailable().with_retryable(false))?;
        let context = HttpSendContext {
            tenant: &self.caller.tenant,
            require: &|action| self.require(action),
            deadline: tokio::time::Instant::now().into_std() + self.limits.timeout,
            max_response_bytes: self.limits.max_string_bytes,
        };
        sender.send(request, context).await
    }

    async fn secret(&self, name: &str) -> Result<String, ToolError> {
        self.record(HostCall::Secret { name: name.to_owned() })?;
        let name = SecretName::new(name.strip_prefix("secret:").unwrap_or(name))?;
        self.require(&format!("secret:read:{name}"))?;
        let missing = || ToolError::new(ErrorKind::NotFound, format!("the test has no secret {name}: `with_secret`"));
        self.secrets.get(name.as_str()).map(|secret| secret.expose().to_owned()).ok_or_else(missing)
    }

    fn now_ms(&self) -> Result<i64, ToolError> {
        self.record(HostCall::NowMs)?;
        self.require("clock")?;
        Ok(self.clock.now_ms())
    }

    fn uuid(&self) -> Result<String, ToolError> {
        self.record(HostCall::Uuid)?;
        self.require("random")?;
        let bits = self.next_bits();
        Ok(format!("00000000-0000-4000-8000-{:012x}", bits & 0xffff_ffff_ffff))
    }

    fn random(&self) -> Result<u64, ToolError> {
        self.record(HostCall::Random)?;
        self.require("random")?;
        Ok(self.next_bits())
    }
}

impl TestHost {
    fn no_such_tool(&self, tool: &str) -> ToolError {
        let known: Vec<_> = self.tools.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let message = format!("the test has no answer for the tool {tool:?}; it has answers for: {known}");
        ToolError::new(ErrorKind::NotFound, message)
    }
}
