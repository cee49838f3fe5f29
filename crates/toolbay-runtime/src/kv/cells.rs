//! One space's values, in memory: sizes, ends and quota. Both stores keep one of these for each space, so that they do the
//! same.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

use serde_json::Value;
use toolbay_api::{Limit, ToolError};

use super::{KvQuota, KvValue};

/// Values that are over and that one operation takes away, beside those whose place a new value needs.
const SWEPT_AT_ONCE: usize = 32;

/// One space's values.
#[derive(Debug, Default)]
pub(super) struct Cells {
    values: BTreeMap<String, KvValue>,
    /// The keys of values that end, by their ends.
    ends: BTreeSet<(i64, String)>,
    bytes: usize,
}

impl Cells {
    /// From values and the ends of some of them.
    pub(super) fn new(values: BTreeMap<String, Value>, ends: &BTreeMap<String, i64>) -> Self {
        let mut cells = Self::default();
        for (key, value) in values {
            let expires_ms = ends.get(&key).copied();
            cells.put(key, KvValue { value, expires_ms });
        }
        cells
    }

    /// All that is kept, in the order of the keys.
    pub(super) fn values(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(key, kept)| (key.as_str(), &kept.value))
    }

    /// The keys of values that end, with their ends.
    pub(super) fn ends(&self) -> impl Iterator<Item = (&str, i64)> {
        self.ends.iter().map(|(end, key)| (key.as_str(), *end))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Whether something is over and still takes space.
    pub(super) fn is_stale(&self, now_ms: i64) -> bool {
        self.ends.first().is_some_and(|(end, _)| *end <= now_ms)
    }

    /// Takes away some of what is over.
    pub(super) fn sweep(&mut self, now_ms: i64) {
        for _ in 0..SWEPT_AT_ONCE {
            if !self.sweep_one(now_ms) {
                break;
            }
        }
    }

    pub(super) fn get(&self, key: &str, now_ms: i64) -> Option<&Value> {
        self.values.get(key).filter(|kept| lives(kept, now_ms)).map(|kept| &kept.value)
    }

    pub(super) fn set(&mut self, key: &str, new: KvValue, quota: KvQuota, now_ms: i64) -> Result<(), ToolError> {
        let size = size_of(key, &new.value);
        if size > quota.max_value_bytes {
            return Err(ToolError::limit(Limit::Storage, quota.max_value_bytes as u64, size as u64));
        }
        self.sweep(now_ms);
        // What is left of what is over must not be counted: each turn of the loop takes one of it away.
        loop {
            let old = self.values.get(key).map(|old| size_of(key, &old.value));
            let bytes = self.bytes - old.unwrap_or(0) + size;
            let keys = self.values.len() + usize::from(old.is_none());
            if bytes <= quota.max_bytes && keys <= quota.max_keys {
                break;
            }
            if self.sweep_one(now_ms) {
                continue;
            }
            if bytes > quota.max_bytes {
                return Err(ToolError::limit(Limit::Storage, quota.max_bytes as u64, bytes as u64));
            }
            let allowed = quota.max_keys as u64;
            let mut error = ToolError::limit(Limit::Storage, allowed, keys as u64);
            error.message = format!("the plugin's store has its {allowed} keys; delete some first").into();
            return Err(error);
        }
        self.put(key.to_owned(), new);
        Ok(())
    }

    pub(super) fn compare_and_set(
        &mut self,
        key: &str,
        expected: Option<&Value>,
        new: Option<KvValue>,
        quota: KvQuota,
        now_ms: i64,
    ) -> Result<bool, ToolError> {
        let something = |value: &&Value| !value.is_null();
        if self.get(key, now_ms).filter(something) != expected.filter(something) {
            return Ok(false);
        }
        match new.filter(|new| !new.value.is_null()) {
            Some(new) => self.set(key, new, quota, now_ms)?,
            None => drop(self.take(key)),
        }
        Ok(true)
    }

    pub(super) fn delete(&mut self, key: &str, now_ms: i64) -> bool {
        self.sweep(now_ms);
        self.take(key).is_some_and(|old| lives(&old, now_ms))
    }

    pub(super) fn list(&self, prefix: &str, after: &str, limit: usize, now_ms: i64) -> Vec<String> {
        let start = if after < prefix { Bound::Included(prefix) } else { Bound::Excluded(after) };
        self.values
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter(|(_, kept)| lives(kept, now_ms))
            .take(limit)
            .map(|(key, _)| key.clone())
            .collect()
    }

    fn put(&mut self, key: String, new: KvValue) {
        self.take(&key);
        self.bytes += size_of(&key, &new.value);
        if let Some(end) = new.expires_ms {
            self.ends.insert((end, key.clone()));
        }
        self.values.insert(key, new);
    }

    fn take(&mut self, key: &str) -> Option<KvValue> {
        let old = self.values.remove(key)?;
        self.bytes -= size_of(key, &old.value);
        if let Some(end) = old.expires_ms {
            self.ends.remove(&(end, key.to_owned()));
        }
        Some(old)
    }

    /// Takes away what is over the longest, if anything is.
    fn sweep_one(&mut self, now_ms: i64) -> bool {
        if !self.is_stale(now_ms) {
            return false;
        }
        let Some((_, key)) = self.ends.pop_first() else { return false };
        if let Some(old) = self.values.remove(&key) {
            self.bytes -= size_of(&key, &old.value);
        }
        true
    }
}

fn lives(kept: &KvValue, now_ms: i64) -> bool {
    kept.expires_ms.is_none_or(|end| now_ms < end)
}

fn size_of(key: &str, value: &Value) -> usize {
    crate::shape::json_bytes(value) + key.len()
}
