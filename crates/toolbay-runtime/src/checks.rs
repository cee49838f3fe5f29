//! Health checks: every active plugin is asked every now and then whether it is well.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures::{StreamExt, stream};
use tokio::{task::JoinHandle, time::MissedTickBehavior};
use toolbay_api::{Callback, Scope};

use crate::{
    catalog::Registered,
    health::{PluginHealth, Turn},
    lifecycle::PluginState,
    toolbay::Toolbay,
};

/// Plugins that are asked at the same time.
const AT_ONCE: usize = 16;

impl Toolbay {
    /// How the plugins of `scope` fare by their calls, in alphabetical order.
    #[must_use]
    pub fn health(&self, scope: &Scope) -> Vec<PluginHealth> {
        self.registry().catalog(scope).plugins().map(|registered| health_of(registered)).collect()
    }

    /// Asks every active plugin once whether it is well, each within the time that callbacks have.
    ///
    /// # Cancel safety
    /// Dropping the future asks no more of them; what was heard stays noted.
    pub async fn check_health(&self) {
        let (for_all, of_tenants) = self.by_whose();
        tokio::join!(self.ask_all(for_all), self.ask_all(of_tenants));
    }

    /// The plugins for everybody, and those of tenants.
    fn by_whose(&self) -> (Vec<Arc<Registered>>, Vec<Arc<Registered>>) {
        self.registry().all().into_iter().partition(|registered| registered.owner.scope == Scope::Global)
    }

    async fn ask_all(&self, plugins: Vec<Arc<Registered>>) {
        stream::iter(plugins).for_each_concurrent(AT_ONCE, |registered| self.ask(registered)).await;
    }

    async fn ask(&self, registered: Arc<Registered>) {
        // In flight, so that it is not stopped meanwhile, nor asked where it was.
        let Ok(_busy) = registered.owner.life.enter(false) else { return };
        let time = self.callback_timeout();
        let outcome = self.call_back(&registered, Callback::HealthCheck, None, time).await;
        let (plugin, scope) = (&registered.owner.name, &registered.owner.scope);
        if let Err(error) = &outcome {
            let detail = error.operator_detail().map(ToString::to_string).unwrap_or_default();
            tracing::warn!(target: "toolbay::health", %plugin, %scope, %error, detail, "not well");
        }
        match registered.owner.vitals.note_check(outcome) {
            Some(Turn::Down) => {
                tracing::warn!(target: "toolbay::health", %plugin, %scope, "down: its calls are refused");
            }
            Some(Turn::Up) => tracing::info!(target: "toolbay::health", %plugin, %scope, "up again"),
            None => {}
        }
    }

    /// Asks every active plugin whether it is well, now and then every `interval`, until what this gives is dropped. A
    /// round that takes longer than the interval delays the next.
    ///
    /// # Panics
    /// Outside of a tokio runtime, and where `interval` is zero.
    #[must_use = "the checks end when it is dropped"]
    pub fn watch_health(&self, interval: Duration) -> HealthWatch {
        let bay = self.clone();
        let rounds = move |bay: Toolbay, whose: fn(&Toolbay) -> Vec<Arc<Registered>>| async move {
            let mut ticks = tokio::time::interval(interval);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                bay.ask_all(whose(&bay)).await;
            }
        };
        // Apart, so that tenants with many plugins that do not answer delay no round of those for everybody.
        HealthWatch(tokio::spawn(async move {
            tokio::join!(rounds(bay.clone(), |bay| bay.by_whose().0), rounds(bay, |bay| bay.by_whose().1))
        }))
    }
}

fn health_of(registered: &Registered) -> PluginHealth {
    let status = registered.owner.life.status();
    let uptime = SystemTime::now().duration_since(status.since).unwrap_or_default();
    let mut health = PluginHealth {
        name: status.name,
        version: status.version,
        scope: status.scope,
        uptime: if matches!(status.state, PluginState::Active) { uptime } else { Duration::ZERO },
        state: status.state,
        generation: registered.owner.generation,
        calls_in_flight: status.calls_in_flight,
        calls: 0,
        errors: Default::default(),
        consecutive_failures: 0,
        last_error: None,
        latency: Default::default(),
        open_circuits: Vec::new(),
        last_check: None,
        is_down: false,
        code: registered.plugin.code(),
    };
    registered.owner.vitals.tell(&mut health);
    health
}

/// Keeps the health checks going.
pub struct HealthWatch(JoinHandle<((), ())>);

impl Drop for HealthWatch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for HealthWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HealthWatch").finish_non_exhaustive()
    }
}
