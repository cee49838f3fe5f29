//! Values in memory: for tests, for programs that keep nothing, and as the model of what a store does.

use dashmap::DashMap;
use serde_json::Value;
use toolbay_api::{ToolError, async_trait};

use super::{KvQuota, KvSpace, KvStore, KvValue, cells::Cells, check_key};

/// Keeps values until the process ends.
#[derive(Debug, Default)]
pub struct MemoryKv(DashMap<KvSpace, Cells>);

impl MemoryKv {
    /// What `read` makes of a space's values. A reader that meets something that is over takes some of it away: a plugin
    /// that writes no more would keep it for ever.
    fn read<T>(&self, space: &KvSpace, now_ms: i64, read: impl FnOnce(&Cells) -> T) -> Option<T> {
        let (found, is_stale) = self.0.get(space).map(|cells| (read(&cells), cells.is_stale(now_ms)))?;
        if is_stale {
            if let Some(mut cells) = self.0.get_mut(space) {
                cells.sweep(now_ms);
            }
            self.forget_if_empty(space);
        }
        Some(found)
    }

    fn forget_if_empty(&self, space: &KvSpace) {
        self.0.remove_if(space, |_, cells| cells.is_empty());
    }
}

#[async_trait]
impl KvStore for MemoryKv {
    async fn get(&self, space: &KvSpace, key: &str, now_ms: i64) -> Result<Option<Value>, ToolError> {
        check_key(key)?;
        Ok(self.read(space, now_ms, |cells| cells.get(key, now_ms).cloned()).flatten())
    }

    async fn set(
        &self,
        space: &KvSpace,
        key: &str,
        value: KvValue,
        quota: KvQuota,
        now_ms: i64,
    ) -> Result<(), ToolError> {
        check_key(key)?;
        let kept = self.0.entry(space.clone()).or_default().set(key, value, quota, now_ms);
        self.forget_if_empty(space);
        kept
    }

    async fn compare_and_set(
        &self,
        space: &KvSpace,
        key: &str,
        expected: Option<Value>,
        new: Option<KvValue>,
        quota: KvQuota,
        now_ms: i64,
    ) -> Result<bool, ToolError> {
        check_key(key)?;
        let was_equal =
            self.0.entry(space.clone()).or_default().compare_and_set(key, expected.as_ref(), new, quota, now_ms);
        self.forget_if_empty(space);
        was_equal
    }

    async fn delete(&self, space: &KvSpace, key: &str, now_ms: i64) -> Result<bool, ToolError> {
        check_key(key)?;
        let was_there = self.0.get_mut(space).is_some_and(|mut cells| cells.delete(key, now_ms));
        self.forget_if_empty(space);
        Ok(was_there)
    }

    async fn list(
        &self,
        space: &KvSpace,
        prefix: &str,
        after: &str,
        limit: usize,
        now_ms: i64,
    ) -> Result<Vec<String>, ToolError> {
        Ok(self.read(space, now_ms, |cells| cells.list(prefix, after, limit, now_ms)).unwrap_or_default())
    }
}
