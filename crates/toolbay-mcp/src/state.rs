//! What a client carries from one round of a call to the next, sealed: it cannot be changed, used by somebody else, used
//! for another call or kept for long.

use std::{collections::BTreeMap, time::Duration};

use rmcp::{
    ErrorData,
    model::{RequestStateCodec, SealOptions},
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use toolbay_api::TenantId;

/// How long a user may think about a question.
const TTL: Duration = Duration::from_secs(15 * 60);
/// Bytes of a sealed state that is looked at.
const MAX_STATE: usize = 256 * 1024;

/// Seals and opens.
#[derive(Clone)]
pub(crate) struct Seal(RequestStateCodec);

/// What a state is good for: one user's one call.
pub(crate) struct Purpose([u8; 32]);

impl Purpose {
    pub(crate) fn new(tenant: &TenantId, user: Option<&str>, method: &str, subject: &str, arguments: &Value) -> Self {
        let mut hash = Sha256::new();
        // Each part with its length before it: no two lists of parts hash the same bytes.
        let arguments = arguments.to_string();
        let user = user.map_or_else(|| "-".to_owned(), |user| format!("+{user}"));
        for part in [tenant.as_str(), &user, method, subject, &arguments] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        Self(hash.finalize().into())
    }
}

impl Seal {
    /// With a key of this process: a state that another process sealed is refused.
    pub(crate) fn of_this_process() -> Self {
        let (one, other) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
        Self::with_key(&[*one.as_bytes(), *other.as_bytes()].concat())
    }

    /// With a key that several processes share. It is hashed, so that any length will do.
    pub(crate) fn with_key(key: &[u8]) -> Self {
        Self(RequestStateCodec::new_unchecked(Sha256::digest(key).to_vec()))
    }

    pub(crate) fn seal(&self, purpose: &Purpose, given: &BTreeMap<String, Value>) -> Result<String, ErrorData> {
        let options = SealOptions::new().associated_data(&purpose.0).ttl(TTL);
        self.0
            .seal_json_with(given, &options)
            .map_err(|_| ErrorData::internal_error("the state of the call could not be written", None))
    }

    /// # Errors
    /// Invalid parameters for a state that was not sealed here, for this user and this call, or too long ago.
    pub(crate) fn open(&self, purpose: &Purpose, sealed: &str) -> Result<BTreeMap<String, Value>, ErrorData> {
        let opened = if sealed.len() > MAX_STATE { None } else { self.0.open_json_with(sealed, &purpose.0).ok() };
        opened.ok_or_else(|| {
            let message = "requestState is not the one that this call was given, or it is too old; make the call anew, \
                           without requestState and inputResponses";
            ErrorData::invalid_params(message, None)
        })
    }
}
