//! A program's way out: tools, the time and chance, and nothing else. Everything that it is answered goes by its
//! [`Script`].

use std::sync::{Arc, Weak};

use serde_json::Value;
use toolbay_api::{Assets, ErrorKind, Host, LogLevel, ToolError, ToolOutput, async_trait, program::CALL_SEVERAL};

use super::script::Script;

/// The way out of one program. A script that is left where it stands keeps it for ever, and the program with it is gone.
pub(super) struct ScriptHost {
    script: Weak<Script>,
    config: Value,
    assets: Assets,
}

impl ScriptHost {
    pub(super) fn new(script: &Arc<Script>) -> Self {
        Self { script: Arc::downgrade(script), config: Value::Null, assets: Assets::default() }
    }

    fn script(&self) -> Result<Arc<Script>, ToolError> {
        self.script.upgrade().ok_or_else(|| ToolError::new(ErrorKind::Cancelled, "the program is over"))
    }

    fn number<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, ToolError> {
        serde_json::from_value(value)
            .map_err(|error| ToolError::new(ErrorKind::Internal, "an answer has another form").with_source(error))
    }
}

fn nothing_kept<T>() -> Result<T, ToolError> {
    Err(ToolError::new(ErrorKind::PermissionDenied, "code keeps no values: return what is to be kept"))
}

#[async_trait]
impl Host for ScriptHost {
    fn log(&self, _: LogLevel, message: &str) {
        if let Some(script) = self.script.upgrade() {
            script.print(message);
        }
    }

    fn config(&self) -> &Value {
        &self.config
    }

    fn assets(&self) -> &Assets {
        &self.assets
    }

    async fn kv_get(&self, _: &str) -> Result<Option<Value>, ToolError> {
        nothing_kept()
    }

    async fn kv_set(&self, _: &str, _: Value) -> Result<(), ToolError> {
        nothing_kept()
    }

    async fn kv_delete(&self, _: &str) -> Result<bool, ToolError> {
        nothing_kept()
    }

    async fn kv_list(&self, _: &str, _: usize) -> Result<Vec<String>, ToolError> {
        nothing_kept()
    }

    async fn call_tool(&self, tool: &str, arguments: Value) -> Result<ToolOutput, ToolError> {
        let script = self.script()?;
        let data = if tool == CALL_SEVERAL {
            script.call_several(&arguments).await?
        } else {
            script.call(tool, arguments).await?
        };
        Ok(ToolOutput::new(data))
    }

    fn now_ms(&self) -> Result<i64, ToolError> {
        Self::number(self.script()?.ask("$now", |cx| cx.host().now_ms().map(Value::from))?)
    }

    fn uuid(&self) -> Result<String, ToolError> {
        Self::number(self.script()?.ask("$uuid", |cx| cx.host().uuid().map(Value::from))?)
    }

    fn random(&self) -> Result<u64, ToolError> {
        Self::number(self.script()?.ask("$random", |cx| cx.host().random().map(Value::from))?)
    }
}
