//! What was found out about texts that do not compile, for all plugins of the same text: no number of plugins, tenants or
//! reloads of one broken script makes a host compile it again and again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
};

use sha2::{Digest as _, Sha256};
use toolbay_api::{ErrorKind, Limits, LoadError};

use crate::digest::Digest;

/// Why one text does not compile, once somebody knows.
#[derive(Debug, Default)]
pub(crate) struct Refusal(OnceLock<LoadError>);

impl Refusal {
    pub(crate) fn known(&self) -> Option<LoadError> {
        self.0.get().cloned()
    }

    pub(crate) fn learn(&self, error: &LoadError) {
        let _ = self.0.set(error.clone());
    }
}

/// Whether a reason lies in nothing but the text and the limits: another plugin of that text would fail by it too, whosever
/// it is and wherever it runs.
pub(crate) fn is_of_the_text(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Compile | ErrorKind::PermissionDenied)
}

/// The refusals of all texts that plugins hold.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    refusals: HashMap<[u8; 32], Weak<Refusal>>,
    /// How many there may be before those that nobody holds are looked for.
    room: usize,
}

impl Refusals {
    /// The refusal of a package under these limits, which all plugins made of it share. It lasts as long as one of them.
    pub(crate) fn of(&self, package: Digest, limits: &Limits) -> Arc<Refusal> {
        let mut key = Sha256::new();
        key.update(package.bytes());
        // A text may be within one host's limits and beyond those of a tenant.
        key.update(format!("{limits:?}"));
        let key = key.finalize().into();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(refusal) = known.refusals.get(&key).and_then(Weak::upgrade) {
            return refusal;
        }
        if known.refusals.len() >= known.room {
            known.refusals.retain(|_, refusal| refusal.strong_count() > 0);
            known.room = known.refusals.len().saturating_mul(2).max(64);
        }
        let refusal = Arc::new(Refusal::default());
        known.refusals.insert(key, Arc::downgrade(&refusal));
        refusal
    }
}
