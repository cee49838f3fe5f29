//! The key-value port: what plugins keep between calls, apart for each tenant and plugin.

mod cells;
mod file;
mod memory;

use serde_json::Value;
use toolbay_api::{ErrorKind, PluginName, TenantId, ToolError, async_trait};

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

/// What one space may hold. Values that are over do not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvQuota {
    /// Keys.
    pub max_keys: usize,
    /// Bytes of all keys and of all values as compact JSON.
    pub max_bytes: usize,
    /// Bytes of one value as compact JSON, its key included.
    pub max_value_bytes: usize,
}

impl Default for KvQuota {
    fn default() -> Self {
        Self { max_keys: 10_000, max_bytes: 16 << 20, max_value_bytes: 256 << 10 }
    }
}

/// A value to be kept, and until when.
#[derive(Debug, Clone, PartialEq)]
pub struct KvValue {
    /// The value.
    pub value: Value,
    /// When it is over, in milliseconds since 1970, UTC; `None`: never.
    pub expires_ms: Option<i64>,
}

impl From<Value> for KvValue {
    /// A value that is kept for ever.
    fn from(value: Value) -> Self {
        Self { value, expires_ms: None }
    }
}

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 256;

/// Keeps values by space and key.
///
/// `now_ms` is the host's time in milliseconds since 1970, UTC: a store has no clock of its own, so that one clock, which
/// tests can set, says when a value is over. From then on it is not there for anybody and does not count; a store takes it
/// away when it likes, a bounded number at a time.
///
/// # Errors
/// All methods: `InvalidArguments` for a key that is empty or longer than [`MAX_KEY_BYTES`]; `Unavailable` where the
/// store cannot be reached; `LimitExceeded` with [`Limit::Storage`](toolbay_api::Limit::Storage) where a value would break
/// the quota; for what writes, `NotFound` where the store knows the host's tenants and this is none.
///
/// # Cancel safety
/// A dropped `set`, `compare_and_set` or `delete` has happened wholly or not at all.
#[async_trait]
#[allow(clippy::missing_errors_doc, reason = "the errors are the same for all and stand at the trait")]
pub trait KvStore: Send + Sync {
    /// The value under `key`.
    async fn get(&self, space: &KvSpace, key: &str, now_ms: i64) -> Result<Option<Value>, ToolError>;

    /// Puts `value` under `key`. The quota is checked and the value written as one step.
    async fn set(
        &self,
        space: &KvSpace,
        key: &str,
        value: KvValue,
        quota: KvQuota,
        now_ms: i64,
    ) -> Result<(), ToolError>;

    /// Puts `new` under `key`, or forgets the key where it is `None`, if `expected` is there; says whether it did. The
    /// comparison, the quota and the writing are one step. A stored `null` is equal to nothing.
    async fn compare_and_set(
        &self,
        space: &KvSpace,
        key: &str,
        expected: Option<Value>,
        new: Option<KvValue>,
        quota: KvQuota,
        now_ms: i64,
    ) -> Result<bool, ToolError>;

    /// Forgets `key`; says whether it was there.
    async fn delete(&self, space: &KvSpace, key: &str, now_ms: i64) -> Result<bool, ToolError>;

    /// The first `limit` keys that begin with `prefix` and come after `after`, in alphabetical order; an empty `after` is
    /// before all of them.
    async fn list(
        &self,
        space: &KvSpace,
        prefix: &str,
        after: &str,
        limit: usize,
        now_ms: i64,
    ) -> Result<Vec<String>, ToolError>;
}

/// `Ok` where `key` can be one.
fn check_key(key: &str) -> Result<(), ToolError> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES {
        return Err(ToolError::new(
            ErrorKind::InvalidArguments,
            format!("a key has 1 to {MAX_KEY_BYTES} bytes, this one has {}", key.len()),
        ));
    }
    Ok(())
}
