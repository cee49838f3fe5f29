//! A host that keeps everything in memory, and short ways to load and call a script.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use toolbay_api::{
    Asset, Assets, CallId, Caller, CancelFlag, ErrorKind, Host, Limits, LoadError, LogLevel, Package, PermissionSet,
    Plugin, PluginContext, RunId, Runner, Scope, TenantId, ToolContext, ToolContextParts, ToolError, ToolOutput,
    async_trait,
};
use toolbay_rhai::RhaiRunner;

/// The host of one call.
#[derive(Default)]
pub(crate) struct FakeHost {
    pub(crate) kv: Mutex<BTreeMap<String, Value>>,
    pub(crate) logs: Mutex<Vec<String>>,
    /// When each line began to be written, and how long writing takes.
    pub(crate) logged_at: Mutex<Vec<Instant>>,
    pub(crate) log_takes: Duration,
    pub(crate) config: Value,
    pub(crate) assets: Assets,
    /// What a tool called `wait` waits for.
    pub(crate) gate: Option<Arc<tokio::sync::Semaphore>>,
    /// Grants; `None` gives everything.
    pub(crate) grants: Option<PermissionSet>,
}

impl FakeHost {
    fn require(&self, action: &str) -> Result<(), ToolError> {
        match &self.grants {
            Some(grants) if !grants.covers(action) => {
                Err(ToolError::new(ErrorKind::PermissionDenied, format!("`{action}` is not granted")))
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Host for FakeHost {
    fn log(&self, level: LogLevel, message: &str) {
        assert!(message != "a fault of the log's", "{message}");
        self.logged_at.lock().unwrap().push(Instant::now());
        std::thread::sleep(self.log_takes);
        self.logs.lock().unwrap().push(format!("{level:?} {message}"));
    }

    fn config(&self) -> &Value {
        &self.config
    }

    fn assets(&self) -> &Assets {
        &self.assets
    }

    async fn kv_get(&self, key: &str) -> Result<Option<Value>, ToolError> {
        self.require("kv:read")?;
        Ok(self.kv.lock().unwrap().get(key).cloned())
    }

    async fn kv_set(&self, key: &str, value: Value) -> Result<(), ToolError> {
        self.require("kv:write")?;
        self.kv.lock().unwrap().insert(key.to_owned(), value);
        Ok(())
    }

    // Nothing is ever over here.
    async fn kv_set_for(&self, key: &str, value: Value, _: Duration) -> Result<(), ToolError> {
        self.kv_set(key, value).await
    }

    async fn kv_compare_and_set(
        &self,
        key: &str,
        expected: Option<Value>,
        new: Option<Value>,
        _: Option<Duration>,
    ) -> Result<bool, ToolError> {
        self.require("kv:write")?;
        let mut kv = self.kv.lock().unwrap();
        let is_equal = kv.get(key).cloned().unwrap_or_default() == expected.unwrap_or_default();
        if let (true, Some(new)) = (is_equal, new) {
            kv.insert(key.to_owned(), new);
        }
        Ok(is_equal)
    }

    async fn kv_list_after(&self, prefix: &str, after: &str, limit: usize) -> Result<Vec<String>, ToolError> {
        let kv = self.kv.lock().unwrap();
        let keys = kv.keys().filter(|key| key.starts_with(prefix) && key.as_str() > after);
        Ok(keys.take(limit.min(1_000)).cloned().collect())
    }

    async fn kv_delete(&self, key: &str) -> Result<bool, ToolError> {
        Ok(self.kv.lock().unwrap().remove(key).is_some())
    }

    async fn kv_list(&self, prefix: &str, limit: usize) -> Result<Vec<String>, ToolError> {
        let kv = self.kv.lock().unwrap();
        Ok(kv.keys().filter(|key| key.starts_with(prefix)).take(limit.min(1_000)).cloned().collect())
    }

    async fn call_tool(&self, tool: &str, arguments: Value) -> Result<ToolOutput, ToolError> {
        self.require(&format!("tool:call:{tool}"))?;
        match tool {
            "echo" => Ok(ToolOutput::new(arguments)),
            "wait" => {
                let gate = self.gate.clone().expect("a gate");
                gate.acquire_owned().await.expect("an open gate").forget();
                Ok(ToolOutput::new(json!("waited")))
            }
            "yield" => {
                tokio::task::yield_now().await;
                Ok(ToolOutput::new(json!("yielded")))
            }
            "slow" => Err(ToolError::new(ErrorKind::TimedOut, "the other tool was too slow")),
            "panic" => panic!("a fault of the host's"),
            _ => Err(ToolError::new(ErrorKind::NotFound, format!("there is no tool {tool:?}"))
                .with_details(json!({ "asked": tool }))),
        }
    }

    fn now_ms(&self) -> Result<i64, ToolError> {
        self.require("clock")?;
        Ok(1_700_000_000_000)
    }

    fn uuid(&self) -> Result<String, ToolError> {
        Ok("00000000-0000-4000-8000-000000000000".to_owned())
    }

    fn random(&self) -> Result<u64, ToolError> {
        Ok(1 << 63)
    }
}

/// Assets from names and texts.
pub(crate) fn assets(files: &[(&str, &str)]) -> Assets {
    files.iter().map(|(name, text)| ((*name).to_owned(), Asset::new(text.as_bytes()))).collect()
}

/// Where a script is called: a runner, limits and a host.
pub(crate) struct Bench {
    pub(crate) runner: RhaiRunner,
    pub(crate) limits: Limits,
    pub(crate) host: Arc<FakeHost>,
}

impl Default for Bench {
    fn default() -> Self {
        // Debug builds are slow; what is tested is the kind of the end, not its speed.
        let limits = Limits { timeout: Duration::from_secs(60), ..Limits::default() };
        Self { runner: RhaiRunner::default(), limits, host: Arc::default() }
    }
}

impl Bench {
    pub(crate) fn with_limits(change: impl FnOnce(&mut Limits)) -> Self {
        let mut bench = Self::default();
        change(&mut bench.limits);
        bench
    }

    pub(crate) fn with_host(change: impl FnOnce(&mut FakeHost)) -> Self {
        let mut host = FakeHost::default();
        change(&mut host);
        Self { host: Arc::new(host), ..Self::default() }
    }

    pub(crate) fn plugin_context(&self) -> PluginContext {
        PluginContext { scope: Scope::Global, limits: self.limits.clone(), grants: Arc::new(PermissionSet::all()) }
    }

    pub(crate) async fn load(&self, package: &Package) -> Result<Arc<dyn Plugin>, LoadError> {
        self.runner.load(package, &self.plugin_context()).await
    }

    /// Loads a one-file plugin from source.
    pub(crate) async fn source(&self, source: &str) -> Result<Arc<dyn Plugin>, LoadError> {
        self.load(&Package::one_file("t.rhai", source)).await
    }

    pub(crate) fn context(&self) -> ToolContext {
        let caller = Caller {
            tenant: TenantId::new("acme").unwrap(),
            user: Some("ada".into()),
            conversation: None,
            run: RunId::random(),
            trace: None,
        };
        let host: Arc<dyn Host> = Arc::clone(&self.host) as Arc<dyn Host>;
        ToolContext::new(ToolContextParts {
            caller: Arc::new(caller),
            call: CallId::new("call-1"),
            depth: 0,
            deadline: Instant::now() + self.limits.timeout,
            limits: Arc::new(self.limits.clone()),
            idempotency_key: None,
            host,
            cancelled: CancelFlag::default(),
            peer: None,
        })
    }

    /// Calls the plugin's tool `name`.
    pub(crate) async fn call(&self, plugin: &dyn Plugin, name: &str, arguments: Value) -> Result<Value, ToolError> {
        let tool = plugin.tools().into_iter().find(|tool| tool.definition().name == name).expect("the tool");
        tool.call(arguments, &self.context()).await.map(|output| output.data)
    }

    /// Runs `body` as the body of a tool with every permission.
    pub(crate) async fn run(&self, body: &str) -> Result<Value, ToolError> {
        self.run_with(body, json!({})).await
    }

    /// Runs `body` as the body of a tool with these arguments.
    pub(crate) async fn run_with(&self, body: &str, arguments: Value) -> Result<Value, ToolError> {
        let plugin = self.source(&tool_source(body)).await.unwrap_or_else(|error| panic!("{error}"));
        self.call(&*plugin, "t", arguments).await
    }
}

/// A plugin with every permission whose tool `t` has this body.
pub(crate) fn tool_source(body: &str) -> String {
    format!(
        "const PLUGIN = #{{ name: \"t\", version: \"1.0.0\", description: \"d\", permissions: [\"*\"],
  tools: #{{ t: #{{ description: \"d\", parameters: #{{ type: \"object\" }} }} }} }};
fn t(args, cx) {{
{body}
}}
"
    )
}
