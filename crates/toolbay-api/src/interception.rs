//! What a hook knows and may say beside its outcome while a run is under a public hook contract.
//!
//! It stands apart from [`hook`](crate::hook) because a hook needs none of it: outcomes are the same with and without a
//! contract, and whoever has nothing to add never touches this.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde_json::{Map, Value};

/// Warnings and labels that one hook may leave at one point, together.
const MAX_REMARKS: usize = 64;
/// Bytes of one text among them.
const MAX_TEXT: usize = 1024;

/// The moment that a hook is asked about, as the contract describes it.
///
/// ```
/// # use toolbay_api::interception::Interception;
/// # use serde_json::json;
/// let context = json!({ "interception_point": "input", "sequence": 1 });
/// let interception = Interception::new(context.as_object().cloned().unwrap_or_default());
/// interception.warn("pii:email", "an address in the text");
/// assert_eq!(interception.context()["sequence"], 1);
/// assert_eq!(interception.take().warnings.len(), 1);
/// ```
#[derive(Debug, Default)]
pub struct Interception {
    context: Map<String, Value>,
    remarks: Mutex<Remarks>,
}

/// What a hook said beside its outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remarks {
    /// Why it consented; the reason of a denial is part of the outcome.
    pub reason: Option<String>,
    /// What concerns it without changing the course of things: a reason and a sentence.
    pub warnings: Vec<(String, String)>,
    /// Labels for what comes out.
    pub labels: Vec<String>,
    /// A pointer to what can be verified later.
    pub evidence: Option<Evidence>,
    /// More was said than there is room for. The contract takes that for an answer that is none.
    pub overfull: bool,
}

/// A pointer to an artefact that can be verified without the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The artefact, or where it is.
    pub artefact: Option<String>,
    /// Where to verify what.
    pub verification_pointers: BTreeMap<String, String>,
}

impl Interception {
    /// The moment that `context` describes, with nothing said yet.
    #[must_use]
    pub fn new(context: Map<String, Value>) -> Self {
        Self { context, remarks: Mutex::default() }
    }

    /// The contract's description of the moment. It is the hook's own copy.
    #[must_use]
    pub fn context(&self) -> &Map<String, Value> {
        &self.context
    }

    /// Says why the hook consents.
    pub fn reason(&self, reason: impl Into<String>) {
        self.add(reason.into(), |remarks, reason| remarks.reason = Some(reason));
    }

    /// Leaves a warning on the record.
    pub fn warn(&self, reason: impl Into<String>, message: impl Into<String>) {
        let message = message.into();
        if message.len() > MAX_TEXT {
            self.lock().overfull = true;
            return;
        }
        self.add(reason.into(), |remarks, reason| remarks.warnings.push((reason, message)));
    }

    /// Leaves a label on the record.
    pub fn label(&self, label: impl Into<String>) {
        self.add(label.into(), |remarks, label| remarks.labels.push(label));
    }

    /// Leaves evidence on the record. The contract has a bound for it.
    pub fn evidence(&self, evidence: Evidence) {
        self.lock().evidence = Some(evidence);
    }

    /// Takes what was said.
    #[must_use]
    pub fn take(&self) -> Remarks {
        std::mem::take(&mut *self.lock())
    }

    fn add(&self, text: String, put: impl FnOnce(&mut Remarks, String)) {
        let mut remarks = self.lock();
        if text.len() > MAX_TEXT || remarks.warnings.len() + remarks.labels.len() >= MAX_REMARKS {
            remarks.overfull = true;
        } else {
            put(&mut remarks, text);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Remarks> {
        self.remarks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
