//! What a host knows of its plugins' lives beside the registry: those that failed, those that are on their way out, and
//! the settings of callbacks.

use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use toolbay_api::{ErrorKind, PluginName, Scope, TenantId, ToolError};

use crate::{
    activation::Switching,
    catalog::Registered,
    lifecycle::{Lifecycle, PluginState, PluginStatus},
    registry::{Kept, Removed, required},
    session::Session,
    shelf::Shelf,
    shutdown::SharedReport,
    toolbay::Toolbay,
};

/// How long each callback may take unless the host says otherwise, and loading a plugin's files.
pub(crate) const CALLBACK_TIME: Duration = Duration::from_secs(10);

/// The part of a host that its plugins' lives need.
pub(crate) struct Lives {
    callback_timeout: Duration,
    starts: AtomicU64,
    // std's Mutexes: held for a look or a change only.
    failed: Mutex<Shelf>,
    /// Taken out, and not stopped yet since a run may see them.
    leaving: Mutex<Vec<Arc<Registered>>>,
    pub(crate) shutdown: Mutex<Option<SharedReport>>,
    pub(crate) switching: Switching,
    /// Of each scope one, where folders of it are being taken over.
    syncing: Mutex<HashMap<Scope, Weak<tokio::sync::Mutex<()>>>>,
}

impl Lives {
    pub(crate) fn new(callback_timeout: Duration) -> Self {
        Self {
            callback_timeout,
            starts: AtomicU64::new(0),
            failed: Mutex::default(),
            leaving: Mutex::default(),
            shutdown: Mutex::default(),
            switching: Switching::default(),
            syncing: Mutex::default(),
        }
    }

    /// To be held while a folder is taken over, so that two do not take it over at once. tokio's, since plugins load
    /// meanwhile. Each scope has its own, or one tenant's plugins that take their time would keep all others waiting.
    pub(crate) fn syncing(&self, scope: &Scope) -> Arc<tokio::sync::Mutex<()>> {
        let mut syncing = self.syncing.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = syncing.get(scope).and_then(Weak::upgrade) {
            return known;
        }
        syncing.retain(|_, known| known.strong_count() > 0);
        let new = Arc::default();
        syncing.insert(scope.clone(), Arc::downgrade(&new));
        new
    }

    /// The number of the next start: who started later stops earlier.
    pub(crate) fn next_start(&self) -> u64 {
        self.starts.fetch_add(1, Ordering::Relaxed)
    }

    /// Remembers a plugin that failed, in the place of an earlier one of its name.
    pub(crate) fn shelve(&self, life: Arc<Lifecycle>) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).put(life);
    }

    /// Forgets a failure: one of that name is there now.
    pub(crate) fn unshelve(&self, scope: &Scope, name: &PluginName) -> Option<Arc<Lifecycle>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).take(scope, name)
    }

    pub(crate) fn leaving(&self) -> Vec<Arc<Registered>> {
        self.leaving.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Toolbay {
    /// How the plugins of `scope` fare, in alphabetical order: those that are registered, those that are on their way out,
    /// and the last hundred of that scope that failed.
    #[must_use]
    pub fn statuses(&self, scope: &Scope) -> Vec<PluginStatus> {
        let catalog = self.registry().catalog(scope);
        let mut all: Vec<_> = catalog.plugins().map(|registered| registered.owner.life.status()).collect();
        let of_scope = |life: &&Arc<Lifecycle>| life.scope() == scope;
        all.extend(
            self.lives().leaving().iter().map(|leaving| &leaving.owner.life).filter(of_scope).map(|l| l.status()),
        );
        let failed = self.lives().failed.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(failed.of(scope).map(|life| life.status()));
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Forgets that a plugin failed.
    ///
    /// # Errors
    /// `NotFound` where nothing of that name failed in `scope`; `Conflict` where one is registered that has not failed.
    pub fn reset(&self, scope: &Scope, plugin: &PluginName) -> Result<(), ToolError> {
        let conflict = |error: crate::lifecycle::IllegalTransition| {
            ToolError::new(ErrorKind::Conflict, format!("{error}: only one that failed can be reset"))
        };
        if let Some(life) = self.lives().unshelve(scope, plugin) {
            return life.go(PluginState::Unloaded).map_err(conflict);
        }
        match self.registry().catalog(scope).plugin(plugin) {
            Some(registered) => registered.owner.life.go(PluginState::Unloaded).map_err(conflict),
            None => Err(ToolError::new(ErrorKind::NotFound, format!("no plugin called {plugin} has failed there"))),
        }
    }

    /// Takes a plugin out: no run that begins after this sees it.
    ///
    /// Runs that began before go on with it, and `on_stop` and `on_unload` follow when the last of them has ended; where
    /// there is none, before this returns. What goes wrong in them is logged, and a plugin whose `on_stop` failed stays in
    /// [`statuses`](Self::statuses).
    ///
    /// # Errors
    /// `NotFound` where it is not registered there; `Dependency` where others require it, which are named; `Unavailable`
    /// while the host shuts down.
    ///
    /// # Cancel safety
    /// The plugin is taken out at once or not at all; its callbacks are called though nobody waits for them.
    pub async fn unregister(&self, scope: &Scope, plugin: &PluginName) -> Result<(), ToolError> {
        match self.registry().remove(scope, plugin) {
            Ok(removed) => {
                self.retire(removed).await;
                Ok(())
            }
            Err(kept) => Err(kept_error(&kept, plugin)),
        }
    }

    /// Takes a plugin out and before it all that require it, and gives them in that order.
    ///
    /// # Errors
    /// As [`unregister`](Self::unregister), but for `Dependency`.
    pub async fn unregister_with_dependants(
        &self,
        scope: &Scope,
        plugin: &PluginName,
    ) -> Result<Vec<(Scope, PluginName)>, ToolError> {
        let mut gone = Vec::new();
        let mut waiting = vec![(scope.clone(), plugin.clone())];
        while let Some((scope, plugin)) = waiting.last().cloned() {
            match self.registry().remove(&scope, &plugin) {
                Ok(removed) => {
                    self.retire(removed).await;
                    gone.push((scope, plugin));
                    waiting.pop();
                }
                // The registry lets in none that require each other, so this comes to its end.
                Err(Kept::Required(by)) => waiting.extend(by),
                // Two that go may require the same third, which went with the first.
                Err(Kept::NotFound) if waiting.len() > 1 => {
                    waiting.pop();
                }
                Err(kept) => return Err(kept_error(&kept, &plugin)),
            }
        }
        Ok(gone)
    }

    /// Stops plugins that were taken out, those that started last first, when no run sees them any more, and waits for
    /// that where it is now.
    pub(crate) async fn retire(&self, removed: Removed) {
        let Removed { mut all, mut unseen } = removed;
        all.sort_by_key(|registered| Reverse(registered.owner.life.started()));
        self.lives().leaving.lock().unwrap_or_else(PoisonError::into_inner).extend(all.iter().cloned());
        let seen = matches!(unseen.try_recv(), Err(tokio::sync::oneshot::error::TryRecvError::Empty));
        let bay = self.clone();
        // A task of its own, so that a caller who gives up leaves no plugin half stopped.
        let stopping = tokio::spawn(async move {
            if seen {
                let _ = unseen.await;
            }
            let time = bay.callback_timeout();
            for registered in &all {
                // What went wrong is in the log and in the plugin's status.
                let _ = bay.wind_down(registered, time, || time).await;
                let mut leaving = bay.lives().leaving.lock().unwrap_or_else(PoisonError::into_inner);
                leaving.retain(|other| !Arc::ptr_eq(other, registered));
            }
        });
        if !seen {
            let _ = stopping.await;
        }
    }

    pub(crate) fn callback_timeout(&self) -> Duration {
        self.lives().callback_timeout
    }

    /// A session of a tenant whose id is one already.
    pub(crate) fn session_of(&self, tenant: TenantId) -> Session {
        Session::new(self.clone(), tenant)
    }
}

fn kept_error(kept: &Kept, plugin: &PluginName) -> ToolError {
    match kept {
        Kept::NotFound => ToolError::new(ErrorKind::NotFound, format!("no plugin called {plugin} is registered there")),
        Kept::Required(by) => required(plugin, by),
        Kept::Closing => ToolError::new(ErrorKind::Unavailable, "the host is shutting down, which stops every plugin"),
    }
}
