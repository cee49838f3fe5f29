//! The key of a call: the same over retries and in whichever process the run goes on, and nobody else's.

use std::fmt;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use toolbay_api::{CallId, RunId, TenantId};

/// What the key is a digest of, so that no other digest of the same parts is one.
const PURPOSE: &[u8] = b"toolbay idempotency key 1";

/// The idempotency key of a call: a digest of tenant, run and call. A run's id is random, so that no tenant can guess a key of
/// another, and the tenant is in it, so that none can have one of another's either.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallKey([u8; 32]);

impl CallKey {
    /// The key of `call` in `run` of `tenant`.
    ///
    /// ```
    /// use toolbay_api::{CallId, RunId, TenantId};
    /// use toolbay_runtime::outcomes::CallKey;
    ///
    /// let (acme, run) = (TenantId::new("acme")?, RunId::random());
    /// let key = CallKey::of(&acme, run, &CallId::new("call_1"));
    /// assert_eq!(key, CallKey::of(&acme, run, &CallId::new("call_1")));
    /// assert_ne!(key, CallKey::of(&TenantId::new("globex")?, run, &CallId::new("call_1")));
    /// assert_eq!(key.to_string().len(), 64);
    /// # Ok::<(), toolbay_api::NameError>(())
    /// ```
    #[must_use]
    pub fn of(tenant: &TenantId, run: RunId, call: &CallId) -> Self {
        let mut sum = Sha256::new();
        for part in [PURPOSE, tenant.as_str().as_bytes(), run.as_bytes(), call.as_str().as_bytes()] {
            part_into(&mut sum, part);
        }
        Self(sum.finalize().into())
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A digest of arguments under this key. The order of an object's keys makes no difference: a run that was written down
    /// may come back with another.
    pub(crate) fn digest(&self, arguments: &Value) -> [u8; 32] {
        let mut sum = Sha256::new();
        part_into(&mut sum, &self.0);
        value_into(&mut sum, arguments);
        sum.finalize().into()
    }
}

impl fmt::Display for CallKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits: String = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(digit).collect();
        f.write_str(&digits)
    }
}

/// A hexadecimal digit. Each call of a run has its key written, and the formatter takes longer than the digest.
fn digit(value: u8) -> char {
    char::from(if value < 10 { b'0' + value } else { b'a' - 10 + value })
}

impl fmt::Debug for CallKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever has it can pass for the call, so logs have its beginning alone.
        f.write_str("CallKey(")?;
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("...)")
    }
}

/// A part with its length before it, so that no two lists of parts have the same bytes.
fn part_into(sum: &mut Sha256, part: &[u8]) {
    sum.update((part.len() as u64).to_le_bytes());
    sum.update(part);
}

/// A value with a letter for its type. Values of calls are nested within the limits that the road has checked.
fn value_into(sum: &mut Sha256, value: &Value) {
    match value {
        Value::Null => sum.update(b"n"),
        Value::Bool(truth) => sum.update(if *truth { b"t" } else { b"f" }),
        Value::Number(number) => {
            sum.update(b"d");
            part_into(sum, number.to_string().as_bytes());
        }
        Value::String(text) => {
            sum.update(b"s");
            part_into(sum, text.as_bytes());
        }
        Value::Array(items) => {
            sum.update(b"a");
            sum.update((items.len() as u64).to_le_bytes());
            items.iter().for_each(|item| value_into(sum, item));
        }
        Value::Object(map) => {
            sum.update(b"o");
            sum.update((map.len() as u64).to_le_bytes());
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| *key);
            for (key, value) in entries {
                part_into(sum, key.as_bytes());
                value_into(sum, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn key(tenant: &str, run: u8, call: &str) -> CallKey {
        CallKey::of(&TenantId::new(tenant).unwrap(), RunId::from_bytes([run; 16]), &CallId::new(call))
    }

    #[test]
    fn a_key_is_of_one_tenant_run_and_call() {
        let all = [key("a", 1, "bc"), key("ab", 1, "c"), key("a", 2, "bc"), key("a", 1, "c"), key("a", 1, "")];
        let distinct: std::collections::BTreeSet<_> = all.into_iter().collect();
        assert_eq!(distinct.len(), all.len());
    }

    #[test]
    fn arguments_are_told_apart_by_what_they_say_and_not_by_its_order() {
        let digest = |value: Value| key("a", 1, "c").digest(&value);
        assert_eq!(digest(json!({"a": 1, "b": [2]})), digest(json!({"b": [2], "a": 1})));
        for other in [json!({"a": 1, "b": [3]}), json!({"a": "1", "b": [2]}), json!({"a": 1}), json!({"a": 1, "b": 2})]
        {
            assert_ne!(digest(json!({"a": 1, "b": [2]})), digest(other));
        }
        assert_ne!(digest(json!([[1], 2])), digest(json!([[1, 2]])));
    }
}
