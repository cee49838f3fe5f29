//! Events that take the way over other processes: who tells of one hands it over, and one process handles it.

use std::time::Duration;

use serde_json::Value;
use toolbay_api::{ErrorKind, Event, EventId, Scope, ToolError, async_trait};

use super::{Delivery, Told};
use crate::toolbay::Toolbay;

/// Takes events over that are to be handled by one of several processes, which gives them to
/// [`Toolbay::receive`].
#[async_trait]
pub trait EventRelay: Send + Sync {
    /// Takes an event over. After that it is handled at least once, whatever becomes of this process.
    ///
    /// # Errors
    /// `Unavailable` where it cannot be taken now; `LimitExceeded` where too many wait.
    ///
    /// # Cancel safety
    /// A dropped future has handed it over or not.
    async fn post(&self, event: &Event) -> Result<(), ToolError>;
}

impl Toolbay {
    /// Tells of an event as [`publish`](Self::publish) does, by way of the host's [`EventRelay`] where it has one: when this
    /// returns the event will be handled at least once, by this process or another.
    ///
    /// # Errors
    /// As [`publish`](Self::publish) and [`EventRelay::post`].
    ///
    /// # Cancel safety
    /// As [`EventRelay::post`].
    pub async fn post(&self, scope: &Scope, name: &str, payload: Value) -> Result<EventId, ToolError> {
        self.pass_on(self.told_outside(scope, name, payload)?).await
    }

    /// Handles an event that came from another process, or back from the relay, and gives what became of it with each
    /// handler, waiting at most `within`.
    ///
    /// # Errors
    /// `Unavailable` while the host shuts down.
    ///
    /// # Cancel safety
    /// Dropped, it only waits no more.
    pub async fn receive(&self, event: Event, within: Duration) -> Result<Vec<Delivery>, ToolError> {
        self.registry().check_open().map_err(|error| ToolError::new(ErrorKind::Unavailable, error.message))?;
        Ok(self.hand_out_and_wait(event, false, within).await)
    }

    /// Hands what is told to the relay, or handles it here.
    ///
    /// # Errors
    /// As [`tell`](Self::tell) and [`EventRelay::post`].
    pub(crate) async fn pass_on(&self, told: Told) -> Result<EventId, ToolError> {
        let Some(relay) = &self.ports().relay else { return self.tell(told) };
        let event = self.event_of(told)?;
        relay.post(&event).await?;
        Ok(event.id)
    }
}
