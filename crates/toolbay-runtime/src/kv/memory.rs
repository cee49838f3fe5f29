//! Values in memory: for tests, for programs that keep nothing, and as the model of what a store does.

use dashmap::DashMap;
use serde_json::Value;
use toolbay_api::{ToolError, async_trait};

use super::{Cells, KvQuota, KvSpace, KvStore, check_key};

/// Keeps values until the process ends.
#[derive(Debug, Default)]
pub struct MemoryKv(DashMap<KvSpace, Cells>);

#[async_trait]
impl KvStore for MemoryKv {
    async fn get(&self, space: &KvSpace, key: &str) -> Result<Option<Value>, ToolError> {
        check_key(key)?;
        Ok(self.0.get(space).and_then(|cells| cells.get(key)))
    }

    async fn set(&self, space: &KvSpace, key: &str, value: Value, quota: KvQuota) -> Result<(), ToolError> {
        check_key(key)?;
        self.0.entry(space.clone()).or_default().set(key, value, quota)
    }

    async fn delete(&self, space: &KvSpace, key: &str) -> Result<bool, ToolError> {
        check_key(key)?;
        Ok(self.0.get_mut(space).is_some_and(|mut cells| cells.delete(key)))
    }

    async fn list(&self, space: &KvSpace, prefix: &str, limit: usize) -> Result<Vec<String>, ToolError> {
        Ok(self.0.get(space).map(|cells| cells.list(prefix, limit)).unwrap_or_default())
    }
}
