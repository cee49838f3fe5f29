//! The plugin's only way out.

use std::{any::Any, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::Value;

use crate::{
    asset::Assets,
    error::{ErrorKind, ToolError},
    result::ToolOutput,
    service::ServiceQuery,
    tool::ToolDefinition,
};

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the usual five words")]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

/// What a plugin can reach, already narrowed to one tenant, one plugin, its grants and one call.
///
/// Each method checks the grant itself and counts against the call's limits, so a runner need not and cannot forget.
///
/// # Errors
/// All methods: `PermissionDenied` without the grant that is named at the method; `LimitExceeded` past
/// [`Limits::max_host_calls`](crate::Limits::max_host_calls) and the method's own limit.
///
/// # Cancel safety
/// Dropping a future before it resolves leaves either the whole effect or none.
#[async_trait]
#[allow(clippy::missing_errors_doc, reason = "the errors are the same for all and stand at the trait")]
pub trait Host: Send + Sync {
    /// Writes a line to the plugin's log. Needs no grant. Past
    /// [`Limits::max_log_bytes`](crate::Limits::max_log_bytes) lines are dropped, and the log says so once.
    fn log(&self, level: LogLevel, message: &str);

    /// The plugin's configuration for this tenant: an object. Needs no grant.
    fn config(&self) -> &Value;

    /// The plugin's packaged files. Needs no grant.
    fn assets(&self) -> &Assets;

    /// The value stored under `key` by this plugin for this tenant. Needs `kv:read`.
    async fn kv_get(&self, key: &str) -> Result<Option<Value>, ToolError>;

    /// Stores `value` under `key`. Needs `kv:write`. Over the quota: `LimitExceeded` with
    /// [`Limit::Storage`](crate::Limit::Storage).
    async fn kv_set(&self, key: &str, value: Value) -> Result<(), ToolError>;

    /// Stores `value` under `key` for `ttl`, in whole milliseconds and at least one; after that it is as if it had never
    /// been. Needs `kv:write`. Errors as [`kv_set`](Self::kv_set); `InvalidArguments` for a shorter time.
    async fn kv_set_for(&self, key: &str, value: Value, ttl: Duration) -> Result<(), ToolError> {
        drop((key, value, ttl));
        Err(unsupported("keeps no values for a time"))
    }

    /// Puts `new` under `key` where `expected` is there now, as one step, and says whether it did. `None` is nothing: as
    /// `expected` it asks that there be none, as `new` it forgets the key. A stored `null` counts as nothing, since a
    /// script cannot tell the two apart. With a `ttl` what is stored lasts as long, as by
    /// [`kv_set_for`](Self::kv_set_for), and for ever without one. Needs `kv:read` and `kv:write`.
    ///
    /// Of those that see the same value and compare with it, one succeeds:
    ///
    /// ```
    /// # use toolbay_api::{Host, ToolError};
    /// # use serde_json::{Value, json};
    /// /// Adds one, however many do so at the same time.
    /// async fn count(host: &dyn Host) -> Result<u64, ToolError> {
    ///     loop {
    ///         let old = host.kv_get("count").await?;
    ///         let new = old.as_ref().and_then(Value::as_u64).unwrap_or(0) + 1;
    ///         if host.kv_compare_and_set("count", old, Some(json!(new)), None).await? {
    ///             return Ok(new);
    ///         }
    ///     }
    /// }
    /// ```
    async fn kv_compare_and_set(
        &self,
        key: &str,
        expected: Option<Value>,
        new: Option<Value>,
        ttl: Option<Duration>,
    ) -> Result<bool, ToolError> {
        drop((key, expected, new, ttl));
        Err(unsupported("does not compare values"))
    }

    /// Forgets `key` and says whether it was there. Needs `kv:write`.
    async fn kv_delete(&self, key: &str) -> Result<bool, ToolError>;

    /// Keys that begin with `prefix`, in alphabetical order, at most `limit` and never more than 1,000. Needs `kv:read`.
    async fn kv_list(&self, prefix: &str, limit: usize) -> Result<Vec<String>, ToolError>;

    /// As [`kv_list`](Self::kv_list), but only keys that come after `after`, which need not be there itself: the last key
    /// of one listing is where the next begins. Needs `kv:read`.
    async fn kv_list_after(&self, prefix: &str, after: &str, limit: usize) -> Result<Vec<String>, ToolError> {
        let _ = (prefix, after, limit);
        Err(unsupported("lists no keys from a place on"))
    }

    /// Calls another tool of the same tenant down the whole road, with this plugin's grants and this call's deadline.
    /// Needs `tool:call:NAME`.
    async fn call_tool(&self, tool: &str, arguments: Value) -> Result<ToolOutput, ToolError>;

    /// The qualified names of the tools that the call's user may see, in alphabetical order. Needs no grant: to call one
    /// does.
    fn tools(&self) -> Vec<String> {
        Vec::new()
    }

    /// The tools that the user of the call's run may see and call from outside of plugins, each under the name that models
    /// know it by, as they were when the run began. For native plugins that help a model to find its tools.
    fn catalog(&self) -> Vec<(Arc<str>, Arc<ToolDefinition>)> {
        Vec::new()
    }

    /// Tells of an event, to this tenant's plugins and to global ones on its behalf; from the callback of a global plugin
    /// to global plugins. Waits for nobody who listens. Needs `event:emit:NAME`. `InvalidArguments` where `name` is no
    /// [`EventName`](crate::EventName) or begins with `plugin.` or `host.`; `LimitExceeded` where the payload is too large
    /// or the event follows from too many others.
    async fn emit(&self, name: &str, payload: Value) -> Result<(), ToolError> {
        let _ = (name, payload);
        Err(ToolError::new(ErrorKind::Unavailable, "this host carries no events; tell the operator")
            .with_retryable(false))
    }

    /// The service that is asked for. [`HostServices`](crate::HostServices) has the typed forms, which are what plugins
    /// call.
    fn find_service(&self, query: &ServiceQuery<'_>) -> Result<Arc<dyn Any + Send + Sync>, ToolError> {
        let _ = query;
        Err(ToolError::new(ErrorKind::Unavailable, "services are lent to native plugins only"))
    }

    /// Sends an HTTP request and gives the answer, whatever its status: objects as
    /// [`HttpSend::send`](crate::HttpSend::send) has them. Needs `http:METHOD:HOST[:PORT]`, for each hop of a redirect
    /// anew. `Unavailable` where the host sends none.
    async fn http(&self, request: Value) -> Result<Value, ToolError> {
        drop(request);
        Err(ToolError::new(ErrorKind::Unavailable, "this host sends no HTTP requests; tell the operator")
            .with_retryable(false))
    }

    /// The secret called `name`, or `secret:name` as configurations write it. Needs `secret:read:NAME`. `NotFound` where
    /// there is none, `Unavailable` where the host keeps none.
    ///
    /// What was read does not come out of the call again: hosts put `***` in its place in the call's log, errors, audit
    /// record and result.
    async fn secret(&self, name: &str) -> Result<String, ToolError> {
        let _ = name;
        Err(ToolError::new(ErrorKind::Unavailable, "this host keeps no secrets; tell the operator")
            .with_retryable(false))
    }

    /// Milliseconds since the Unix epoch, UTC. Needs `clock`.
    fn now_ms(&self) -> Result<i64, ToolError>;

    /// A random version 4 UUID. Needs `random`.
    fn uuid(&self) -> Result<String, ToolError>;

    /// 64 random bits. Needs `random`.
    fn random(&self) -> Result<u64, ToolError>;
}

/// What a host has not, in words for the plugin.
fn unsupported(what: &str) -> ToolError {
    ToolError::new(ErrorKind::Unavailable, format!("this host {what}; tell the operator")).with_retryable(false)
}
