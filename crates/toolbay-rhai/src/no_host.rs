//! The host of code that runs while a plugin is loaded: it has nothing to give.

use async_trait::async_trait;
use serde_json::Value;
use toolbay_api::{Assets, ErrorKind, Host, LogLevel, ToolError, ToolOutput};

/// A host that refuses everything.
#[derive(Default)]
pub(crate) struct NoHost(Assets);

fn refused<T>() -> Result<T, ToolError> {
    Err(ToolError::new(ErrorKind::NotReady, "host functions can be called by tools and hooks, not while loading"))
}

#[async_trait]
impl Host for NoHost {
    fn log(&self, _: LogLevel, _: &str) {}

    fn config(&self) -> &Value {
        &Value::Null
    }

    fn assets(&self) -> &Assets {
        &self.0
    }

    async fn kv_get(&self, _: &str) -> Result<Option<Value>, ToolError> {
        refused()
    }

    async fn kv_set(&self, _: &str, _: Value) -> Result<(), ToolError> {
        refused()
    }

    async fn kv_delete(&self, _: &str) -> Result<bool, ToolError> {
        refused()
    }

    async fn kv_list(&self, _: &str, _: usize) -> Result<Vec<String>, ToolError> {
        refused()
    }

    async fn call_tool(&self, _: &str, _: Value) -> Result<ToolOutput, ToolError> {
        refused()
    }

    async fn emit(&self, _: &str, _: Value) -> Result<(), ToolError> {
        refused()
    }

    fn now_ms(&self) -> Result<i64, ToolError> {
        refused()
    }

    fn uuid(&self) -> Result<String, ToolError> {
        refused()
    }

    fn random(&self) -> Result<u64, ToolError> {
        refused()
    }
}
