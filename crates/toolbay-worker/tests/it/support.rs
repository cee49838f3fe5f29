//! A host with workers, in one line.

use std::{path::PathBuf, time::Duration};

use serde_json::Value;
use toolbay_api::{Limits, PermissionSet, Scope};
use toolbay_runtime::{Reply, Toolbay};
use toolbay_worker::{WorkerConfig, WorkerProgram, WorkerRunner};

/// The crate's own worker program, two workers a tenant, no spare ones: what a test starts is what it asked for.
pub(crate) fn config() -> WorkerConfig {
    WorkerConfig {
        program: WorkerProgram::Path(PathBuf::from(env!("CARGO_BIN_EXE_toolbay-worker"))),
        spare_workers: 0,
        max_workers: 6,
        // Debug builds on a busy machine; what is measured is measured elsewhere.
        grace: Duration::from_millis(8),
        ..WorkerConfig::default()
    }
}

pub(crate) fn limits() -> Limits {
    Limits { timeout: Duration::from_secs(10), ..Limits::default() }
}

pub(crate) struct Bay {
    pub(crate) toolbay: Toolbay,
    pub(crate) runner: WorkerRunner,
}

impl Bay {
    pub(crate) fn new(config: WorkerConfig, limits: Limits) -> Self {
        let runner = WorkerRunner::new(config).expect("workers");
        let builder = Toolbay::builder().runner(runner.clone()).limits(limits).grants(PermissionSet::all());
        Self { toolbay: builder.build().expect("a host"), runner }
    }

    /// Loads a script whose tools are `tools`, for everybody.
    pub(crate) async fn with(self, name: &str, tools: &str, code: &str) -> Self {
        self.load(Scope::Global, name, tools, code).await;
        self
    }

    pub(crate) async fn load(&self, scope: Scope, name: &str, tools: &str, code: &str) {
        let loaded = self.toolbay.load_source(scope, &format!("{name}.rhai"), &script(name, tools, code)).await;
        loaded.unwrap_or_else(|error| panic!("{error}"));
    }

    pub(crate) async fn call(&self, tenant: &str, tool: &str, arguments: Value) -> Reply {
        self.toolbay.session(tenant).expect("a tenant").call(tool, arguments).await
    }

    pub(crate) async fn data(&self, tool: &str, arguments: Value) -> Value {
        let reply = self.call("acme", tool, arguments).await;
        reply.result.unwrap_or_else(|error| panic!("{error} {:?}", error.operator_detail())).data
    }

    pub(crate) async fn error(&self, tool: &str, arguments: Value) -> toolbay_api::ToolError {
        self.call("acme", tool, arguments).await.result.expect_err("the call should fail")
    }

    /// The process of a tenant's first worker.
    pub(crate) fn pid_of(&self, tenant: &str) -> Option<u32> {
        let is_theirs = |owner: &toolbay_api::TenantId| owner.as_str() == tenant;
        let workers = self.runner.workers();
        workers.iter().find(|worker| worker.tenant.as_ref().is_some_and(is_theirs)).map(|worker| worker.pid)
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        let mut pids: Vec<_> = self.runner.workers().iter().map(|worker| worker.pid).collect();
        pids.sort_unstable();
        pids
    }
}

/// A one-file plugin that asks for everything; its tools, separated by spaces, take any arguments.
pub(crate) fn script(name: &str, tools: &str, code: &str) -> String {
    let tools: Vec<_> = tools
        .split_whitespace()
        .map(|tool| format!("{tool}: #{{ description: \"d\", parameters: #{{ type: \"object\" }} }}"))
        .collect();
    format!(
        "const PLUGIN = #{{ name: \"{name}\", version: \"1.0.0\", description: \"d\", permissions: [\"*\"], tools: \
         #{{ {} }} }};\n{code}",
        tools.join(", ")
    )
}
