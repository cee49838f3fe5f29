//! The life of one plugin: its state, the legal ways from one to the next, and the calls that keep it from stopping.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use semver::Version;
use tokio::{sync::Notify, time::Instant};
use toolbay_api::{ErrorKind, PluginName, Scope, ToolError};

use crate::events::announce::Announcer;

/// What a plugin was doing when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// `on_load`.
    Load,
    /// Taking its place beside others.
    Register,
    /// `on_start`.
    Start,
    /// `on_stop`.
    Stop,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Load => "load",
            Self::Register => "register",
            Self::Start => "start",
            Self::Stop => "stop",
        })
    }
}

/// Where in its life a plugin is.
#[derive(Debug, Clone)]
pub enum PluginState {
    /// Nothing of it was called yet, or nothing will be any more.
    Unloaded,
    /// In `on_load`.
    Loading,
    /// Loaded, and not started yet.
    Loaded,
    /// Its tools can be called.
    Active,
    /// Waiting for its last calls, or in `on_stop`.
    Stopping,
    /// Stopped, and not unloaded yet.
    Stopped,
    /// It could not go on.
    Failed {
        /// What it was doing.
        stage: Stage,
        /// Why, for the operator.
        error: ToolError,
    },
}

impl PluginState {
    /// The state's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unloaded => "Unloaded",
            Self::Loading => "Loading",
            Self::Loaded => "Loaded",
            Self::Active => "Active",
            Self::Stopping => "Stopping",
            Self::Stopped => "Stopped",
            Self::Failed { .. } => "Failed",
        }
    }

    /// Whether a plugin can go from here to `next` at once.
    ///
    /// ```
    /// use toolbay_runtime::PluginState;
    /// assert!(PluginState::Stopped.may_become(&PluginState::Active));
    /// assert!(!PluginState::Unloaded.may_become(&PluginState::Active));
    /// ```
    #[must_use]
    pub fn may_become(&self, next: &Self) -> bool {
        matches!(
            (self, next),
            (Self::Unloaded, Self::Loading)
                | (Self::Loading, Self::Loaded | Self::Failed { .. })
                | (Self::Loaded, Self::Active | Self::Failed { .. })
                | (Self::Active, Self::Stopping | Self::Failed { .. })
                | (Self::Stopping, Self::Stopped | Self::Failed { .. })
                | (Self::Stopped, Self::Active | Self::Unloaded)
                | (Self::Failed { .. }, Self::Unloaded)
        )
    }
}

impl fmt::Display for PluginState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Failed { stage, error } => write!(f, " ({stage}: {error})"),
            _ => Ok(()),
        }
    }
}

/// A plugin was to go where no way leads.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the plugin {plugin} cannot go from {from} to {to}")]
pub struct IllegalTransition {
    /// The plugin.
    pub plugin: PluginName,
    /// The state's name that it is in.
    pub from: &'static str,
    /// The state's name that it was to have.
    pub to: &'static str,
}

/// How a plugin fares.
#[derive(Debug, Clone)]
pub struct PluginStatus {
    /// Its name.
    pub name: PluginName,
    /// Its version.
    pub version: Version,
    /// Where it is, or was to be, registered.
    pub scope: Scope,
    /// Where in its life it is.
    pub state: PluginState,
    /// Since when.
    pub since: SystemTime,
    /// The last thing that went wrong in a callback, also where its state tells nothing of it any more.
    pub last_error: Option<ToolError>,
    /// Its calls in flight.
    pub calls_in_flight: usize,
}

/// One plugin's life.
pub(crate) struct Lifecycle {
    name: PluginName,
    version: Version,
    scope: Scope,
    /// Set when the whole host closes; shared by all of its plugins.
    closing: Arc<AtomicBool>,
    // std's Mutex: held for a look or a change only.
    record: Mutex<Record>,
    /// Whether calls may begin; beside the state, so that a call takes no lock.
    is_open: AtomicBool,
    in_flight: AtomicUsize,
    idle: Notify,
    /// Its place among all starts of the host.
    started: AtomicU64,
    announcer: Announcer,
}

struct Record {
    state: PluginState,
    since: SystemTime,
    last_error: Option<ToolError>,
    /// Whether `on_load` succeeded and `on_unload` was not called yet.
    owes_unload: bool,
}

impl Lifecycle {
    pub(crate) fn new(
        name: PluginName,
        version: Version,
        scope: Scope,
        closing: Arc<AtomicBool>,
        announcer: Announcer,
    ) -> Self {
        let since = SystemTime::now();
        Self {
            name,
            version,
            scope,
            closing,
            record: Mutex::new(Record { state: PluginState::Unloaded, since, last_error: None, owes_unload: false }),
            is_open: AtomicBool::new(false),
            in_flight: AtomicUsize::new(0),
            idle: Notify::new(),
            started: AtomicU64::new(0),
            announcer,
        }
    }

    pub(crate) fn name(&self) -> &PluginName {
        &self.name
    }

    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    pub(crate) fn status(&self) -> PluginStatus {
        let record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        PluginStatus {
            name: self.name.clone(),
            version: self.version.clone(),
            scope: self.scope.clone(),
            state: record.state.clone(),
            since: record.since,
            last_error: record.last_error.clone(),
            calls_in_flight: self.in_flight(),
        }
    }

    /// Goes on to `next`. Of several that want it at the same time one succeeds, so what follows is done once.
    ///
    /// # Errors
    /// [`IllegalTransition`] where no way leads there; the state stays.
    pub(crate) fn go(&self, next: PluginState) -> Result<(), IllegalTransition> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        let (from, to) = (record.state.name(), next.name());
        if !record.state.may_become(&next) {
            return Err(IllegalTransition { plugin: self.name.clone(), from, to });
        }
        match &next {
            PluginState::Loaded => record.owes_unload = true,
            PluginState::Failed { error, .. } => record.last_error = Some(error.clone()),
            _ => {}
        }
        self.is_open.store(matches!(next, PluginState::Active), Ordering::SeqCst);
        let (plugin, scope) = (&self.name, &self.scope);
        match &next {
            PluginState::Failed { stage, error } => {
                let detail = error.operator_detail().map(ToString::to_string).unwrap_or_default();
                tracing::warn!(target: "toolbay::lifecycle", %plugin, %scope, from, to, %stage, %error, detail);
            }
            _ => tracing::info!(target: "toolbay::lifecycle", %plugin, %scope, from, to),
        }
        let error = match &next {
            PluginState::Failed { error, .. } => Some(error.to_string()),
            _ => None,
        };
        (record.state, record.since) = (next, SystemTime::now());
        drop(record);
        self.announcer.changed(&self.name, &self.version, &self.scope, to, error.as_deref());
        Ok(())
    }

    /// Takes on that `on_unload` is called now: true once after each `on_load` that succeeded.
    pub(crate) fn take_unload(&self) -> bool {
        std::mem::take(&mut self.record.lock().unwrap_or_else(PoisonError::into_inner).owes_unload)
    }

    /// Writes down what went wrong where the state does not tell it.
    pub(crate) fn note(&self, error: &ToolError) {
        tracing::warn!(target: "toolbay::lifecycle", plugin = %self.name, scope = %self.scope, %error);
        self.record.lock().unwrap_or_else(PoisonError::into_inner).last_error = Some(error.clone());
    }

    pub(crate) fn is_active(&self) -> bool {
        self.is_open.load(Ordering::SeqCst)
    }

    pub(crate) fn set_started(&self, order: u64) {
        self.started.store(order, Ordering::Relaxed);
    }

    pub(crate) fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Begins a call. `nested` is one that another call waits for, which goes through while the host is closing.
    ///
    /// # Errors
    /// `NotReady` where the plugin is not active, `Unavailable` where the host is closing.
    pub(crate) fn enter(self: &Arc<Self>, nested: bool) -> Result<Busy, ToolError> {
        // Counted before it looks, while who stops looks at the count after shutting: one of the two sees the other.
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        let busy = Busy(Arc::clone(self));
        if !nested && self.closing.load(Ordering::SeqCst) {
            return Err(ToolError::new(
                ErrorKind::Unavailable,
                "the host is shutting down and takes no more calls; try again when it is back",
            ));
        }
        if !self.is_active() {
            return Err(ToolError::new(
                ErrorKind::NotReady,
                format!("the plugin {} is not active: it was stopped or is not started yet", self.name),
            ));
        }
        Ok(busy)
    }

    /// Goes on with a call that has begun, beyond the wait of its caller.
    pub(crate) fn stay(self: &Arc<Self>) -> Busy {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        Busy(Arc::clone(self))
    }

    /// Waits until no call is in flight, at most until `deadline`; says how many still are.
    pub(crate) async fn drained(&self, deadline: Instant) -> usize {
        loop {
            let idle = self.idle.notified();
            if self.in_flight() == 0 || tokio::time::timeout_at(deadline, idle).await.is_err() {
                return self.in_flight();
            }
        }
    }
}

impl fmt::Debug for Lifecycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lifecycle").field("name", &self.name).finish_non_exhaustive()
    }
}

/// One call of a plugin in flight.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Lifecycle>);

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The edges of the design, as it writes them.
    const EDGES: &str = "Unloaded>Loading Loading>Loaded Loaded>Active Active>Stopping Stopping>Stopped Stopped>Active \
                         Stopped>Unloaded Loading>Failed Loaded>Failed Active>Failed Stopping>Failed Failed>Unloaded";

    fn states() -> [PluginState; 7] {
        use PluginState::{Active, Failed, Loaded, Loading, Stopped, Stopping, Unloaded};
        let failed = Failed { stage: Stage::Start, error: ToolError::failed("told to") };
        [Unloaded, Loading, Loaded, Active, Stopping, Stopped, failed]
    }

    proptest! {
        #[test]
        fn a_plugin_takes_the_designs_edges_and_no_other(walk in proptest::collection::vec(0_usize..7, 0..60)) {
            let (name, version) = (PluginName::new("p").unwrap(), Version::new(1, 0, 0));
            let life = Arc::new(Lifecycle::new(name, version, Scope::Global, Arc::default(), Announcer::default()));
            let mut at = "Unloaded";
            for step in walk {
                let next = states()[step].clone();
                let to = next.name();
                let legal = EDGES.split_whitespace().any(|edge| edge == format!("{at}>{to}"));
                match life.go(next) {
                    Ok(()) => {
                        prop_assert!(legal, "{at} > {to}");
                        at = to;
                    }
                    Err(error) => {
                        prop_assert!(!legal, "{at} > {to}");
                        prop_assert_eq!(error.to_string(), format!("the plugin p cannot go from {at} to {to}"));
                    }
                }
                prop_assert_eq!(life.status().state.name(), at);
                prop_assert_eq!(life.enter(false).is_ok(), at == "Active");
            }
        }
    }
}
