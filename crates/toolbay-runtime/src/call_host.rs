//! What a plugin can reach during one call: the [`Host`] of the runtime, narrowed to tenant, plugin and grants.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;
use toolbay_api::{
    Assets, CallId, ErrorKind, Grants, Host, Limit, LogLevel, Scope, ToolError, ToolOutput, async_trait,
};

use crate::{
    catalog::Owner,
    kv::KvSpace,
    road::{self, Trip},
    run::Run,
};

/// Keys that one listing gives at most.
const MAX_LISTED_KEYS: usize = 1_000;

/// One call's way out.
pub(crate) struct CallHost {
    run: Run,
    owner: Arc<Owner>,
    call: CallId,
    depth: u32,
    deadline: Instant,
    logged: AtomicUsize,
    of_error_hook: bool,
}

impl CallHost {
    pub(crate) fn new(run: Run, owner: Arc<Owner>, call: CallId, depth: u32, deadline: Instant) -> Self {
        Self { run, owner, call, depth, deadline, logged: AtomicUsize::new(0), of_error_hook: false }
    }

    /// Whether an error hook is behind the call, so that what it calls in turn is shown to none.
    pub(crate) fn of_error_hook(mut self, yes: bool) -> Self {
        self.of_error_hook = yes;
        self
    }

    fn require(&self, action: &str) -> Result<(), ToolError> {
        let grants = Grants {
            asked: Arc::clone(&self.owner.asked),
            host: Arc::clone(&self.owner.host_grants),
            tenant: Arc::clone(&self.run.inner().tenant_grants),
        };
        grants.require(action).inspect_err(|_| {
            tracing::info!(
                target: "toolbay::audit",
                tenant = %self.run.tenant(), plugin = %self.owner.name, call = %self.call, action,
                "permission denied"
            );
        })
    }

    fn space(&self) -> KvSpace {
        let own = matches!(self.owner.scope, Scope::Tenant(_));
        KvSpace { tenant: self.run.tenant().clone(), plugin: self.owner.name.clone(), own }
    }
}

#[async_trait]
impl Host for CallHost {
    fn log(&self, level: LogLevel, message: &str) {
        let allowed = self.owner.limits.max_log_bytes;
        let before = self.logged.fetch_add(message.len().max(1), Ordering::Relaxed);
        if before >= allowed {
            return;
        }
        let left = allowed - before;
        let shown = message.get(..message.floor_char_boundary(left)).unwrap_or_default();
        // A script's text must not be able to forge lines or terminal codes in the operator's log.
        let shown: String = shown.chars().map(|c| if c.is_control() && c != '\t' { ' ' } else { c }).collect();
        let (tenant, plugin, call) = (self.run.tenant(), &self.owner.name, &self.call);
        match level {
            LogLevel::Trace => tracing::trace!(target: "toolbay::plugin", %tenant, %plugin, %call, "{shown}"),
            LogLevel::Debug => tracing::debug!(target: "toolbay::plugin", %tenant, %plugin, %call, "{shown}"),
            LogLevel::Info => tracing::info!(target: "toolbay::plugin", %tenant, %plugin, %call, "{shown}"),
            LogLevel::Warn => tracing::warn!(target: "toolbay::plugin", %tenant, %plugin, %call, "{shown}"),
            LogLevel::Error => tracing::error!(target: "toolbay::plugin", %tenant, %plugin, %call, "{shown}"),
        }
        if message.len() >= left {
            tracing::warn!(
                target: "toolbay::plugin", %tenant, %plugin, %call,
                "the call has logged its {allowed} bytes; what follows is dropped"
            );
        }
    }

    fn config(&self) -> &Value {
        &self.owner.config
    }

    fn assets(&self) -> &Assets {
        &self.owner.assets
    }

    async fn kv_get(&self, key: &str) -> Result<Option<Value>, ToolError> {
        self.require("kv:read")?;
        self.run.inner().kv.get(&self.space(), key).await
    }

    async fn kv_set(&self, key: &str, value: Value) -> Result<(), ToolError> {
        self.require("kv:write")?;
        self.run.inner().kv.set(&self.space(), key, value, self.run.inner().kv_quota).await
    }

    async fn kv_delete(&self, key: &str) -> Result<bool, ToolError> {
        self.require("kv:write")?;
        self.run.inner().kv.delete(&self.space(), key).await
    }

    async fn kv_list(&self, prefix: &str, limit: usize) -> Result<Vec<String>, ToolError> {
        self.require("kv:read")?;
        self.run.inner().kv.list(&self.space(), prefix, limit.min(MAX_LISTED_KEYS)).await
    }

    async fn call_tool(&self, tool: &str, arguments: Value) -> Result<ToolOutput, ToolError> {
        // The tool is named in the permission by its qualified name, whichever name the script used.
        let qualified = self.run.view().tool(tool).map(|entry| entry.info.definition.name.shared());
        self.require(&format!("tool:call:{}", qualified.as_deref().unwrap_or(tool)))?;
        let (depth, allowed) = (self.depth + 1, self.owner.limits.max_call_chain);
        if depth > allowed {
            return Err(ToolError::limit(Limit::CallChain, u64::from(allowed), u64::from(depth)));
        }
        let trip = Trip {
            step: 0,
            call: self.run.next_call_id(),
            name: tool.to_owned(),
            arguments,
            depth,
            deadline: Some(self.deadline),
            of_error_hook: self.of_error_hook,
        };
        road::travel(&self.run, trip).await.result
    }

    fn tools(&self) -> Vec<String> {
        self.run.tools().iter().map(|tool| String::from(tool.definition.name.clone())).collect()
    }

    fn now_ms(&self) -> Result<i64, ToolError> {
        self.require("clock")?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since
            .ok()
            .and_then(|since| i64::try_from(since.as_millis()).ok())
            .ok_or_else(|| ToolError::new(ErrorKind::Internal, "the host's clock is before 1970; tell the operator"))
    }

    fn uuid(&self) -> Result<String, ToolError> {
        self.require("random")?;
        Ok(uuid::Uuid::new_v4().to_string())
    }

    fn random(&self) -> Result<u64, ToolError> {
        self.require("random")?;
        // A version 4 UUID has six fixed bits, four in its high half and two in its low one. Half a turn lays the two on
        // random bits of the other, and the four too.
        let (high, low) = (uuid::Uuid::new_v4().as_u64_pair().0, uuid::Uuid::new_v4().as_u64_pair().1);
        Ok(high ^ low.rotate_left(32))
    }
}
