//! The end of a host: no more calls, the last ones waited for, every plugin stopped once, in the reverse order of their
//! starts.

use std::{
    cmp::Reverse,
    fmt,
    sync::{Arc, PoisonError},
    time::Duration,
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio::time::Instant;
use toolbay_api::{ErrorKind, PluginName, Scope, ToolError};

use crate::{catalog::Registered, lifecycle::PluginState, toolbay::Toolbay};

/// The one shutdown of a host, for whoever asks for it.
pub(crate) type SharedReport = Shared<BoxFuture<'static, ShutdownReport>>;

/// What became of the plugins when the host shut down.
#[derive(Debug, Clone, Default)]
pub struct ShutdownReport {
    /// Stopped and unloaded, in the order in which that was done.
    pub stopped: Vec<(Scope, PluginName)>,
    /// Not stopped, or not as they should have been, with the reason; in the same order.
    pub unstopped: Vec<Unstopped>,
    /// How long it took.
    pub took: Duration,
}

/// A plugin that did not stop as it should have.
#[derive(Debug, Clone)]
pub struct Unstopped {
    /// Where it was registered.
    pub scope: Scope,
    /// Its name.
    pub plugin: PluginName,
    /// What went wrong.
    pub error: ToolError,
    /// Its calls that had not ended when it was stopped.
    pub calls_in_flight: usize,
}

impl fmt::Display for ShutdownReport {
    /// One line for each plugin that did not stop as it should have.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Unstopped { scope, plugin, error, .. } in &self.unstopped {
            let detail = error.operator_detail().map(|detail| format!(": {detail}")).unwrap_or_default();
            writeln!(f, "unstopped {plugin} ({scope}): {error}{detail}")?;
        }
        Ok(())
    }
}

impl Toolbay {
    /// Shuts the host down within `within`.
    ///
    /// At once no call, no plugin and no change is taken any more: calls fail with `Unavailable`, but for those that a call
    /// in flight makes. Calls in flight have four fifths of the time to end; the last fifth is kept for the callbacks. Then
    /// every plugin is stopped and unloaded, once, the one that started last first, each callback within its own limit and
    /// what is left of the time. One whose time is over is given up and reported, and the next one has its turn.
    ///
    /// A second shutdown waits for the first and gives the same report.
    ///
    /// # Cancel safety
    /// The shutdown goes on though nobody waits for it.
    pub async fn shutdown(&self, within: Duration) -> ShutdownReport {
        let report = {
            let mut slot = self.lives().shutdown.lock().unwrap_or_else(PoisonError::into_inner);
            let begin = || {
                let bay = self.clone();
                let task = tokio::spawn(async move { bay.stop_all(within).await });
                // A task is lost only with its runtime, and then there is nobody to tell.
                task.map(Result::unwrap_or_default).boxed().shared()
            };
            slot.get_or_insert_with(begin).clone()
        };
        report.await
    }

    async fn stop_all(&self, within: Duration) -> ShutdownReport {
        let begun = Instant::now();
        let end = begun + within;
        let mut all = self.registry().close();
        all.extend(self.lives().leaving());
        all.sort_by_key(|registered| Reverse(registered.owner.life.started()));
        drain(&all, begun + within * 4 / 5).await;
        let mut report = ShutdownReport::default();
        for registered in &all {
            let life = &registered.owner.life;
            let (scope, plugin, calls_in_flight) = (life.scope().clone(), life.name().clone(), life.in_flight());
            let left = || self.callback_timeout().min(end.saturating_duration_since(Instant::now()));
            let stopped = self.wind_down(registered, Duration::ZERO, left).await;
            let stopped = stopped.and_then(|()| match life.status().state {
                PluginState::Stopping => {
                    Err(ToolError::new(ErrorKind::TimedOut, "it was being stopped already, and is not done"))
                }
                _ if calls_in_flight > 0 => Err(ToolError::new(
                    ErrorKind::TimedOut,
                    format!("calls that had not ended when it was stopped: {calls_in_flight}"),
                )),
                _ => Ok(()),
            });
            match stopped {
                Ok(()) => report.stopped.push((scope, plugin)),
                Err(error) => report.unstopped.push(Unstopped { scope, plugin, error, calls_in_flight }),
            }
        }
        report.took = begun.elapsed();
        report
    }
}

/// Waits until none of `all` has a call in flight, at most until `deadline`.
async fn drain(all: &[Arc<Registered>], deadline: Instant) {
    loop {
        for registered in all {
            registered.owner.life.drained(deadline).await;
        }
        // A call of one that was busy may have called one that was idle when it was looked at.
        if all.iter().all(|registered| registered.owner.life.in_flight() == 0) || Instant::now() >= deadline {
            return;
        }
    }
}
