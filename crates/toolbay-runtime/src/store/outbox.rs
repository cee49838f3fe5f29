//! Events on their way to other processes.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use toolbay_api::Scope;
use uuid::Uuid;

/// An event that waits for its delivery.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutboxEvent {
    /// The event's id: who gets it twice can tell.
    pub id: Uuid,
    /// Whose.
    pub scope: Scope,
    /// Events of one scope and key are delivered in the order in which they were posted.
    pub key: String,
    /// The event.
    pub event: Value,
    /// When it was posted, in milliseconds since 1970, UTC.
    pub posted_at: i64,
    /// How often its delivery was tried before.
    pub attempts: u32,
}

/// An event that was given up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeadEvent {
    /// The event.
    pub event: OutboxEvent,
    /// Why its last delivery failed.
    pub problem: String,
    /// When it was given up, in milliseconds since 1970, UTC.
    pub died_at: i64,
}
