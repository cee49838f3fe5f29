//! The key-value port: what plugins keep between calls, apart for each tenant and plugin.

mod file;
mod memory;

use serde_json::Value;
use toolbay_api::{ErrorKind, Limit, PluginName, TenantId, ToolError, async_trait};

pub use file::FileKv;
pub use memory::MemoryKv;

/// Whose keys: a tenant's, for one plugin. Fields, never one joined string.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KvSpace {
    /// The tenant.
    pub tenant: TenantId,
    /// The plugin.
    pub plugin: PluginName,
    /// Whether the plugin is the tenant's own. What a global plugin keeps for a tenant is not for one that the tenant
    /// puts in its place.
    pub own: bool,
}

/// What one space may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvQuota {
    /// Keys.
    pub max_keys: usize,
    /// Bytes of all keys and of all values as compact JSON.
    pub max_bytes: usize,
    /// Bytes of one value as compact JSON.
    pub max_value_bytes: usize,
}

impl Default for KvQuota {
    fn default() -> Self {
        Self { max_keys: 10_000, max_bytes: 16 << 20, max_value_bytes: 256 << 10 }
    }
}

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 256;

/// Keeps values by space and key.
///
/// # Errors
/// All methods: `InvalidArguments` for a key that is empty or longer than [`MAX_KEY_BYTES`]; `Unavailable` where the
/// store cannot be reached; `LimitExceeded` with [`Limit::Storage`] where `set` would break the quota.
///
/// # Cancel safety
/// A dropped `set` or `delete` has happened wholly or not at all.
#[async_trait]
#[allow(clippy::missing_errors_doc, reason = "the errors are the same for all and stand at the trait")]
pub trait KvStore: Send + Sync {
    /// The value under `key`.
    async fn get(&self, space: &KvSpace, key: &str) -> Result<Option<Value>, ToolError>;

    /// Puts `value` under `key`. The quota is checked and the value written as one step.
    async fn set(&self, space: &KvSpace, key: &str, value: Value, quota: KvQuota) -> Result<(), ToolError>;

    /// Forgets `key`; says whether it was there.
    async fn delete(&self, space: &KvSpace, key: &str) -> Result<bool, ToolError>;

    /// The first `limit` keys that begin with `prefix`, in alphabetical order.
    async fn list(&self, space: &KvSpace, prefix: &str, limit: usize) -> Result<Vec<String>, ToolError>;
}

/// `Ok` where `key` can be one.
pub(crate) fn check_key(key: &str) -> Result<(), ToolError> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(ToolError::new(
            ErrorKind::InvalidArguments,
            format!("a key has 1 to {MAX_KEY_BYTES} bytes, this one has {}", key.len()),
        ));
    }
    Ok(())
}

/// One space's values with the sum of their sizes; both stores keep one of these.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    values: std::collections::BTreeMap<String, Value>,
    bytes: usize,
}

impl Cells {
    pub(crate) fn from_values(values: std::collections::BTreeMap<String, Value>) -> Self {
        let bytes = values.iter().map(|(key, value)| cell_bytes(key, value)).sum();
        Self { values, bytes }
    }

    pub(crate) fn values(&self) -> &std::collections::BTreeMap<String, Value> {
        &self.values
    }

    pub(crate) fn get(&self, key: &str) -> Option<Value> {
        self.values.get(key).cloned()
    }

    pub(crate) fn set(&mut self, key: &str, value: Value, quota: KvQuota) -> Result<(), ToolError> {
        let new = cell_bytes(key, &value);
        if new > quota.max_value_bytes {
            return Err(ToolError::limit(Limit::Storage, quota.max_value_bytes as u64, new as u64));
        }
        let old = self.values.get(key).map(|old| cell_bytes(key, old));
        let bytes = self.bytes - old.unwrap_or(0) + new;
        if bytes > quota.max_bytes {
            return Err(ToolError::limit(Limit::Storage, quota.max_bytes as u64, bytes as u64));
        }
        if old.is_none() && self.values.len() >= quota.max_keys {
            let (allowed, used) = (quota.max_keys as u64, self.values.len() as u64 + 1);
            let mut error = ToolError::limit(Limit::Storage, allowed, used);
            error.message = format!("the plugin's store has its {allowed} keys; delete some first").into();
            return Err(error);
        }
        self.bytes = bytes;
        self.values.insert(key.to_owned(), value);
        Ok(())
    }

    pub(crate) fn delete(&mut self, key: &str) -> bool {
        match self.values.remove(key) {
            Some(old) => {
                self.bytes -= cell_bytes(key, &old);
                true
            }
            None => false,
        }
    }

    pub(crate) fn list(&self, prefix: &str, limit: usize) -> Vec<String> {
        self.values
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .take(limit)
            .map(|(key, _)| key.clone())
            .collect()
    }
}

fn cell_bytes(key: &str, value: &Value) -> usize {
    crate::shape::json_bytes(value) + key.len()
}
