//! Following the store: taking over when something changes there, whoever changed it.

use std::time::Duration;

use futures::StreamExt;
use tokio::task::JoinHandle;

use super::Control;

/// The longest time between two tries while the store is away.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Follows the store while it lives.
#[derive(Debug)]
pub struct Following([JoinHandle<()>; 2]);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

impl Control {
    /// Takes over from the store whatever changes there, until what this gives is dropped: when the store says so, and every
    /// [`poll_ms`](super::ControlOptions::poll_ms) in case it could not. While the store is away calls go on with what there
    /// is. Events that wait in the store are delivered as well.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[must_use = "following ends when this is dropped"]
    pub fn follow(&self) -> Following {
        let control = self.clone();
        let delivering = tokio::spawn(super::relay::deliver(self.clone()));
        let following = tokio::spawn(async move {
            let poll = Duration::from_millis(control.0.options.poll_ms.max(1));
            let (mut changes, mut wait) = (control.0.store.changes(), poll);
            loop {
                tokio::select! {
                    change = changes.next() => if change.is_none() {
                        // One that ended is asked no more.
                        changes = Box::pin(futures::stream::pending());
                    },
                    () = tokio::time::sleep(wait) => {}
                }
                match control.begin_sync().await {
                    // Tenants' plugins load meanwhile, each for itself.
                    Ok(_) => wait = poll,
                    Err(error) => {
                        // Once for each time that it goes away.
                        if wait == poll {
                            tracing::warn!(target: "toolbay::control", %error, "the store is away; calls go on without");
                        }
                        wait = (wait * 2).min(MAX_WAIT.max(poll));
                    }
                }
            }
        });
        Following([following, delivering])
    }
}
