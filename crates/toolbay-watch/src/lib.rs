//! Watches plugins on disk and reloads what changes.
//!
//! An event of the file system is only a reason to look: what is done follows from what lies there when it has been quiet
//! for a moment. So an editor that writes in pieces, or writes another file and renames it, is one change, and an event
//! that was lost is made good by the next look.
//!
//! It is a crate of its own for the sake of `notify`, which only long-running hosts need.
//!
//! ```no_run
//! # use toolbay_api::Scope; use toolbay_runtime::Toolbay; use toolbay_watch::{Watch, WatchOptions};
//! # async fn example(bay: Toolbay) -> Result<(), toolbay_watch::WatchError> {
//! let watch = Watch::begin(bay, Scope::Global, "tools", WatchOptions::default(), |report| print!("{report}"))?;
//! // … as long as `watch` lives …
//! # drop(watch); Ok(())
//! # }
//! ```

use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{
    sync::mpsc::{self, Receiver},
    task::JoinHandle,
    time::{Instant, timeout_at},
};
use toolbay_api::Scope;
use toolbay_runtime::{ReloadOptions, SyncReport, Toolbay};

/// How a folder is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchOptions {
    /// How long it must have been quiet before the folder is looked at.
    pub quiet: Duration,
    /// How long a folder that is never quiet is left alone at most.
    pub patience: Duration,
    /// How often it is looked at without a reason, in case an event was lost or the folder was away.
    pub rescan: Duration,
    /// How changed plugins take their place.
    pub reload: ReloadOptions,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            quiet: Duration::from_millis(200),
            patience: Duration::from_secs(2),
            rescan: Duration::from_secs(30),
            reload: ReloadOptions::default(),
        }
    }
}

/// A folder is not looked at without a reason more often than this, whatever the options say.
const LEAST_RESCAN: Duration = Duration::from_millis(10);

/// A path cannot be watched.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be watched: {source}", path.display())]
pub struct WatchError {
    /// The path.
    pub path: PathBuf,
    /// What the system says.
    pub source: notify::Error,
}

/// Keeps what is registered from a path what lies there, until it is dropped.
pub struct Watch(JoinHandle<()>);

impl Watch {
    /// Watches `path`, a folder of plugins or one plugin that were loaded into `scope`. Each time that something was done
    /// or failed, `report` is told; the same failure twice in a row is told once. It is called on the watch's own task: it
    /// hands the report on and returns.
    ///
    /// # Errors
    /// [`WatchError`] where the path is not there or the system watches no more.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn begin(
        bay: Toolbay,
        scope: Scope,
        path: impl Into<PathBuf>,
        options: WatchOptions,
        report: impl FnMut(SyncReport) + Send + 'static,
    ) -> Result<Self, WatchError> {
        let path = path.into();
        let (reason, reasons) = mpsc::channel(1);
        let told = move |event: notify::Result<notify::Event>| {
            // Looking is no reason to look again. Where one reason waits already, another one changes nothing.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                let _ = reason.try_send(());
            }
        };
        let failed = |source| WatchError { path: path.clone(), source };
        let mut watcher = notify::recommended_watcher(told).map_err(failed)?;
        watch(&mut watcher, &path).map_err(failed)?;
        let watching = Watching { bay, scope, path, options, watcher, reasons, last: String::new(), report };
        Ok(Self(tokio::spawn(watching.run())))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

/// A file is watched by its folder: an editor puts another one in its place.
fn watch(watcher: &mut RecommendedWatcher, path: &Path) -> notify::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    if path.is_file() {
        return watcher.watch(parent.unwrap_or(Path::new(".")), RecursiveMode::NonRecursive);
    }
    watcher.watch(path, RecursiveMode::Recursive)
}

struct Watching<R> {
    bay: Toolbay,
    scope: Scope,
    path: PathBuf,
    options: WatchOptions,
    watcher: RecommendedWatcher,
    reasons: Receiver<()>,
    /// The last report's text.
    last: String,
    report: R,
}

impl<R: FnMut(SyncReport) + Send> Watching<R> {
    async fn run(mut self) {
        loop {
            let rescan = Instant::now() + self.options.rescan.max(LEAST_RESCAN);
            match timeout_at(rescan, self.reasons.recv()).await {
                Ok(Some(())) => self.settle().await,
                // The watcher is ours, and so are its reasons.
                Ok(None) => return,
                Err(_) => {
                    // A folder that was away and came back is another one to the system.
                    if let Err(error) = watch(&mut self.watcher, &self.path) {
                        tracing::debug!(target: "toolbay::watch", path = %self.path.display(), %error);
                    }
                }
            }
            let report = self.bay.sync(self.scope.clone(), &self.path, self.options.reload).await;
            let text = report.to_string();
            let is_news = !report.loaded.is_empty() || !report.reloaded.is_empty() || !report.removed.is_empty();
            if is_news || text != self.last {
                self.last = text;
                if !report.is_quiet() {
                    (self.report)(report);
                }
            }
        }
    }

    /// Waits until it has been quiet for a moment, with patience.
    async fn settle(&mut self) {
        let end = Instant::now() + self.options.patience;
        loop {
            let quiet = (Instant::now() + self.options.quiet).min(end);
            if timeout_at(quiet, self.reasons.recv()).await.is_err() || Instant::now() >= end {
                return;
            }
        }
    }
}
