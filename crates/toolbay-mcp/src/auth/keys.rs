//! Keys that are given when the server starts. A host with many tenants keeps them in its store and implements
//! [`Authenticate`] over that; this is for one with few, and for tests.

use std::collections::HashMap;

use sha2::{Digest, Sha256};
use toolbay_api::async_trait;

use super::{Authenticate, Bearer, Principal, Refused};

/// Bytes that a key must have at least: a shorter one can be guessed.
pub const MIN_KEY: usize = 16;

/// Keys and whom they belong to. Only digests are kept, and a key is found by its digest: how long that takes says nothing
/// of how much of a guess was right.
#[derive(Default)]
pub struct StaticKeys(HashMap<[u8; 32], Principal>);

/// A key that is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// It has too few bytes.
    #[error("a key must have {MIN_KEY} bytes or more: a shorter one can be guessed")]
    TooShort,
    /// It is somebody's already.
    #[error("the key belongs to somebody else already: each needs a key of its own")]
    Taken,
}

impl StaticKeys {
    /// Adds a key.
    ///
    /// # Errors
    /// [`KeyError`] where it is too short or taken.
    pub fn with(mut self, key: &str, principal: Principal) -> Result<Self, KeyError> {
        if key.len() < MIN_KEY {
            return Err(KeyError::TooShort);
        }
        match self.0.insert(Sha256::digest(key).into(), principal) {
            None => Ok(self),
            Some(_) => Err(KeyError::Taken),
        }
    }
}

#[async_trait]
impl Authenticate for StaticKeys {
    async fn authenticate(&self, credential: &Bearer) -> Result<Principal, Refused> {
        let digest: [u8; 32] = Sha256::digest(credential.expose()).into();
        self.0.get(&digest).cloned().ok_or(Refused::Invalid)
    }
}
