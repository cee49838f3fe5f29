//! What a client carries from one round of a call to the next, sealed: it cannot be changed, used by somebody else, used
//! for another call or kept for long.

use std::{collections::BTreeMap, time::Duration};

use rmcp::{
    ErrorData,
    model::{RequestStateCodec, SealOptions},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use toolbay_runtime::{PendingApproval, Session};
use uuid::Uuid;

/// How long a user may think about a question.
const TTL: Duration = Duration::from_secs(15 * 60);
/// Bytes of a sealed state that is looked at.
const MAX_STATE: usize = 256 * 1024;

/// Seals and opens.
#[derive(Clone)]
pub(crate) struct Seal {
    codec: RequestStateCodec,
    /// This process, since it alone knows which approvals were used.
    process: Uuid,
}

/// What a client carries.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Carried {
    /// What was answered so far.
    pub(crate) given: BTreeMap<String, Value>,
    /// What has to be approved first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) waits: Vec<PendingApproval>,
    /// Who asked for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    process: Option<Uuid>,
}

impl Carried {
    pub(crate) fn new(given: BTreeMap<String, Value>, waits: Vec<PendingApproval>) -> Self {
        Self { given, waits, process: None }
    }
}

/// What a state is good for: one user's one call.
pub(crate) struct Purpose([u8; 32]);

impl Purpose {
    pub(crate) fn new(session: &Session, method: &str, subject: &str, arguments: &Value) -> Self {
        let mut hash = Sha256::new();
        // Each part with its length before it: no two lists of parts hash the same bytes.
        let arguments = arguments.to_string();
        let user = session.user().map_or_else(|| "-".to_owned(), |user| format!("+{user}"));
        let rights = serde_json::to_string(session.rights()).unwrap_or_default();
        for part in [session.tenant().as_str(), &user, &rights, method, subject, &arguments] {
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
        Self { codec: RequestStateCodec::new_unchecked(Sha256::digest(key).to_vec()), process: Uuid::new_v4() }
    }

    pub(crate) fn seal(&self, purpose: &Purpose, mut carried: Carried) -> Result<String, ErrorData> {
        carried.process = (!carried.waits.is_empty()).then_some(self.process);
        let options = SealOptions::new().associated_data(&purpose.0).ttl(TTL);
        self.codec
            .seal_json_with(&carried, &options)
            .map_err(|_| ErrorData::internal_error("the state of the call could not be written", None))
    }

    /// # Errors
    /// Invalid parameters for a state that was not sealed here, for this user and this call, or too long ago.
    pub(crate) fn open(&self, purpose: &Purpose, sealed: &str) -> Result<Carried, ErrorData> {
        let opened = if sealed.len() > MAX_STATE { None } else { self.codec.open_json_with(sealed, &purpose.0).ok() };
        let opened = opened.map(|mut carried: Carried| {
            if carried.process != Some(self.process) {
                // Asked elsewhere, where it may have been used: the user is asked anew.
                carried.waits.clear();
            }
            carried
        });
        opened.ok_or_else(|| {
            let message = "requestState is not the one that this call was given, or it is too old; make the call anew, \
                           without requestState and inputResponses";
            ErrorData::invalid_params(message, None)
        })
    }
}
