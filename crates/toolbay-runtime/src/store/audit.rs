//! The audit: who did what, each line tied to the one before by a hash, a chain for each tenant and one for what is global.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use toolbay_api::Scope;

use super::rows::Page;

/// SHA-256.
pub type ChainHash = [u8; 32];

/// Something that was done, as the audit is to keep it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// To whose chain it belongs.
    pub scope: Scope,
    /// When, in milliseconds since 1970, UTC.
    pub at_ms: i64,
    /// Who: `key:PREFIX`, `cli`, `agent`, a user's id within a tenant.
    pub actor: String,
    /// What: `plugin.enable`, `tool.call`, ...
    pub action: String,
    /// To what: a plugin, a tool, a key's prefix.
    pub target: String,
    /// How it went: `ok`, or an error's kind.
    pub outcome: String,
    /// What else there is to know, without secrets.
    pub detail: Value,
}

/// A line of the audit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AuditLine {
    /// Its place in its chain, from 1.
    pub sequence: i64,
    /// What was done.
    pub entry: AuditEntry,
    /// The hash of the line before, or zeros.
    pub previous: ChainHash,
    /// This line's hash.
    pub hash: ChainHash,
}

impl AuditLine {
    /// The line after one with the hash `previous`.
    #[must_use]
    pub fn new(sequence: i64, entry: AuditEntry, previous: ChainHash) -> Self {
        let hash = chain(sequence, &entry, &previous);
        Self { sequence, entry, previous, hash }
    }

    /// Whether it follows on `previous` with nothing changed in it.
    #[must_use]
    pub fn follows(&self, sequence: i64, previous: &ChainHash) -> bool {
        self.sequence == sequence
            && self.previous == *previous
            && self.hash == chain(self.sequence, &self.entry, &self.previous)
    }
}

/// The hash of a line: of every part with its length before it, so that no two lines read alike.
fn chain(sequence: i64, entry: &AuditEntry, previous: &ChainHash) -> ChainHash {
    let AuditEntry { scope, at_ms, actor, action, target, outcome, detail } = entry;
    let mut sum = Sha256::new();
    let mut part = |bytes: &[u8]| {
        sum.update((bytes.len() as u64).to_le_bytes());
        sum.update(bytes);
    };
    part(previous);
    part(&sequence.to_le_bytes());
    match scope {
        Scope::Global => part(b"global"),
        Scope::Tenant(tenant) => {
            part(b"tenant");
            part(tenant.as_str().as_bytes());
        }
    }
    part(&at_ms.to_le_bytes());
    for text in [actor, action, target, outcome] {
        part(text.as_bytes());
    }
    part(canonical(detail).to_string().as_bytes());
    sum.finalize().into()
}

/// `value` with the keys of its objects in order: databases give them back in an order of their own.
fn canonical(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(canonical).collect(),
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().map(|(key, value)| (key.clone(), canonical(value))).collect();
            sorted.sort_by(|one, other| one.0.cmp(&other.0));
            Value::Object(sorted.into_iter().collect())
        }
        _ => value.clone(),
    }
}

/// Which lines of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditQuery {
    /// Only those with this action, or whose action begins with it where it ends in `.`.
    pub action: Option<String>,
    /// Only those from then on, in milliseconds since 1970, UTC.
    pub since_ms: Option<i64>,
    /// Newest first rather than in the chain's order.
    pub newest_first: bool,
    /// Which part of them.
    pub page: Page,
}
