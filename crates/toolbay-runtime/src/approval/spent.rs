//! Approvals that were used in this process, so that one that is kept and presented again does not count. Between processes
//! it is the store that gives a suspended run out once.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use uuid::Uuid;

/// Approvals that are remembered; each is somebody's decision, so that there are few.
const MOST: usize = 65_536;

/// What was used and has not expired.
#[derive(Default)]
// std's Mutex, not tokio's: nothing is awaited while it is held.
pub(crate) struct Spent(Mutex<HashMap<Uuid, i64>>);

impl Spent {
    /// Uses an approval; says whether it was there to use. Where there is no place to remember it, it was not.
    pub(crate) fn spend(&self, id: Uuid, expires_at: i64, now_ms: i64) -> bool {
        let mut spent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spent.len() >= MOST {
            spent.retain(|_, expires_at| *expires_at > now_ms);
        }
        spent.len() < MOST && spent.insert(id, expires_at).is_none()
    }
}
