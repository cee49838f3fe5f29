//! Hot reload: a new version of a plugin is loaded and started beside the old one, takes its place in one swap, and the
//! old one is stopped when the last run that began with it has ended.
//!
//! Where anything of the new one fails, the old one goes on as if nothing had been.

use std::{
    collections::{HashMap, HashSet},
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::future::join_all;
use toolbay_api::{ErrorKind, LoadError, Package, Plugin, PluginName, Scope, ToolError};

use crate::{
    catalog::{RegisterOptions, Registered},
    digest::Digest,
    evolution::Upgrade,
    found::{self, Finds, Found},
    index,
    lifecycle::Stage,
    load::{Failed, LoadReport, Loaded, Skipped},
    registry::Exchange,
    toolbay::{Opened, Toolbay, found_in},
    waves::{in_words, load_found},
};

/// How plugins are replaced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReloadOptions {
    /// Whether a new version may break those who call the old one's tools. Otherwise it is refused.
    pub allow_breaking: bool,
}

/// A plugin that was replaced.
#[derive(Debug, Clone)]
pub struct Reloaded {
    /// From which version to which, and what that changes.
    pub upgrade: Upgrade,
    /// How often the plugin was replaced in its place, and one.
    pub generation: u64,
}

/// What became of a folder's plugins when it was taken over anew.
#[derive(Debug, Default)]
pub struct SyncReport {
    /// New there, and registered.
    pub loaded: Vec<Loaded>,
    /// Changed, and replaced.
    pub reloaded: Vec<Reloaded>,
    /// Gone from there, and unregistered.
    pub removed: Vec<PluginName>,
    /// New or changed and not taken, or gone and still needed, with the reason. What was registered goes on.
    pub failed: Vec<Failed>,
    /// Not a plugin.
    pub skipped: Vec<Skipped>,
    /// Plugins that are as they were.
    pub unchanged: usize,
}

impl SyncReport {
    /// Whether nothing was done and nothing failed.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.loaded.is_empty() && self.reloaded.is_empty() && self.removed.is_empty() && self.failed.is_empty()
    }
}

impl fmt::Display for SyncReport {
    /// One line for each plugin that is not as it was, with the changes of those that were replaced.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for reloaded in &self.reloaded {
            writeln!(f, "reloaded {}", reloaded.upgrade)?;
        }
        for name in &self.removed {
            writeln!(f, "removed {name}")?;
        }
        self.loaded.iter().try_for_each(|loaded| writeln!(f, "{loaded}"))?;
        self.failed.iter().try_for_each(|failed| writeln!(f, "{failed}"))
    }
}

/// A plugin that is to take another's place, where it was found, and what that changes.
struct Change {
    origin: PathBuf,
    exchange: Exchange,
    upgrade: Upgrade,
    progress: Progress,
}

/// How far a new plugin has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Prepared,
    Loaded,
    Started,
}

impl Toolbay {
    /// Loads the plugin at `path` beside the one of its name and puts it in that one's place.
    ///
    /// Runs that began before go on with the old one, which is stopped when the last of them has ended; where there is
    /// none, before this returns. Nothing changes where the file is what is registered already.
    ///
    /// # Errors
    /// As [`load`](Self::load), and the old one goes on; `NotFound` where none of that name is registered in `scope`;
    /// `Conflict` where its tools would break callers, with what changed, unless `options` allow it, and where somebody
    /// else replaced it meanwhile; `Dependency` where a plugin that requires it does not take the new version.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the old one or has put the new one in its place. A new one that was started and not put
    /// there is dropped without its last callbacks.
    pub async fn reload(
        &self,
        scope: Scope,
        path: impl AsRef<Path>,
        options: ReloadOptions,
    ) -> Result<Reloaded, LoadError> {
        let path = path.as_ref();
        let opened = self.open(&scope, path).await?;
        self.put(&scope, opened, options).await.map_err(|error| found_in(error, path))
    }

    /// Loads a one-file plugin from text and puts it in the place of the one of its name, as [`reload`](Self::reload)
    /// does.
    ///
    /// # Errors
    /// As [`reload`](Self::reload).
    pub async fn reload_source(
        &self,
        scope: Scope,
        file_name: &str,
        source: &str,
        options: ReloadOptions,
    ) -> Result<Reloaded, LoadError> {
        let path = Path::new(file_name);
        let opened = self.open_package(&scope, path, Package::one_file(file_name, source)).await?;
        self.put(&scope, opened, options).await.map_err(|error| found_in(error, path))
    }

    /// Puts a native plugin in the place of the one of its name, as [`reload`](Self::reload) does.
    ///
    /// # Errors
    /// As [`reload`](Self::reload).
    pub async fn replace(
        &self,
        scope: Scope,
        plugin: Arc<dyn Plugin>,
        register: RegisterOptions,
        options: ReloadOptions,
    ) -> Result<Reloaded, LoadError> {
        self.put(&scope, Opened { plugin, options: register, digest: None }, options).await
    }

    /// What putting the plugin at `path` in the place of the one of its name would change; nothing is called of it.
    ///
    /// # Errors
    /// As [`check`](Self::check); `NotFound` where none of that name is registered in `scope`.
    pub async fn compare(&self, scope: Scope, path: impl AsRef<Path>) -> Result<Upgrade, LoadError> {
        let path = path.as_ref();
        let opened = self.open(&scope, path).await?;
        let new = self.prepare(&scope, opened).map_err(|error| found_in(error, path))?;
        let old = self.old_of(&scope, &new).map_err(|error| found_in(error, path))?;
        Ok(Upgrade::between(&old, &new))
    }

    /// Makes what is registered in `scope` from `path`, a folder of plugins, one plugin or a registry index, what lies there
    /// now: new plugins are loaded, changed ones replaced, all in one swap, and those that are gone unregistered. What fails stays
    /// as it was.
    ///
    /// # Cancel safety
    /// As [`reload`](Self::reload); what was done by then stays done.
    pub async fn sync(&self, scope: Scope, path: impl AsRef<Path>, options: ReloadOptions) -> SyncReport {
        let syncing = self.lives().syncing(&scope);
        let _one_at_a_time = syncing.lock().await;
        Sync { bay: self, scope, path: path.as_ref(), options, report: SyncReport::default() }.run().await
    }

    /// Reads a plugin's files on a thread that may block: folders are looked at again and again while tools are called. The
    /// digest is that of the plugin which is there now, if this is it.
    async fn read_aside(
        &self,
        scope: &Scope,
        found: &Found,
        there: Option<&PluginName>,
    ) -> Result<(Package, Digest), LoadError> {
        let (bay, scope, found, there) = (self.clone(), scope.clone(), found.clone(), there.cloned());
        let reading = tokio::task::spawn_blocking(move || {
            let package = bay.read_found(&scope, &found)?;
            let digest = Digest::of(&package);
            let digest = match &there {
                Some(name) => bay.digest_with_assets(&scope, name, digest)?,
                None => digest,
            };
            Ok((package, digest))
        });
        let lost = |error: tokio::task::JoinError| {
            LoadError::new(ErrorKind::Internal, format!("reading the plugin's files came to no end: {error}"))
        };
        reading.await.map_err(lost)?
    }

    async fn put(&self, scope: &Scope, opened: Opened, options: ReloadOptions) -> Result<Reloaded, LoadError> {
        // Before anything of it is called.
        self.registry().check_open()?;
        let new = self.prepare(scope, opened)?;
        let old = self.old_of(scope, &new)?;
        let origin = new.owner.origin.clone().unwrap_or_default();
        if new.owner.digest.is_some() && new.owner.digest == old.owner.digest {
            return Ok(Reloaded { upgrade: Upgrade::between(&old, &new), generation: old.owner.generation });
        }
        let change = self.rehearse(origin, old, new, options)?;
        let (mut done, failed) = self.exchange_all(scope, vec![change]).await;
        let failed = failed.into_iter().next().map(|(_, error)| error);
        let lost = || LoadError::new(ErrorKind::Internal, "the plugin was neither replaced nor refused");
        done.pop().ok_or_else(|| failed.unwrap_or_else(lost))
    }

    /// Whether `new` could be registered now, beside others or in the place of the one of its name; what that would change, a
    /// sentence each. Nothing of it is called.
    ///
    /// # Errors
    /// As [`register_with`](Self::register_with) and [`reload`](Self::reload).
    pub(crate) fn rehearse_install(
        &self,
        scope: &Scope,
        origin: PathBuf,
        new: Arc<Registered>,
        options: ReloadOptions,
    ) -> Result<Vec<String>, LoadError> {
        let registry = self.registry();
        registry.check_open()?;
        let Some(old) = registry.catalog(scope).plugin(&new.owner.name).cloned() else {
            let clashes = registry.clashes(scope, std::slice::from_ref(&new));
            clashes.into_iter().flatten().next().map_or(Ok(()), Err)?;
            registry.lacking(scope, &new).map_or(Ok(()), Err)?;
            return Ok(Vec::new());
        };
        let change = self.rehearse(origin, old, new, options)?;
        registry.misfit(scope, std::slice::from_ref(&change.exchange)).map_or(Ok(()), |(_, error)| Err(error))?;
        Ok(change.upgrade.changes.iter().map(ToString::to_string).collect())
    }

    /// Puts plugins in the places of others, those that fit in one swap; gives those that were not.
    pub(crate) async fn replace_all(
        &self,
        scope: &Scope,
        all: Vec<(PathBuf, Arc<Registered>, Arc<Registered>)>,
        options: ReloadOptions,
    ) -> Vec<(PluginName, LoadError)> {
        let names: HashMap<_, _> = all.iter().map(|(path, old, _)| (path.clone(), old.owner.name.clone())).collect();
        let (mut changes, mut failed) = (Vec::new(), Vec::new());
        for (origin, old, new) in all {
            match self.rehearse(origin.clone(), old, new, options) {
                Ok(change) => changes.push(change),
                Err(error) => failed.push((origin, error)),
            }
        }
        if !changes.is_empty() {
            failed.extend(self.exchange_all(scope, changes).await.1);
        }
        failed.into_iter().filter_map(|(path, error)| Some((names.get(&path)?.clone(), error))).collect()
    }

    /// Unregisters plugins, those that require others before those. Gives those that are gone, in that order, and those that
    /// stay, with the reasons.
    pub(crate) async fn unregister_all(
        &self,
        scope: &Scope,
        mut names: Vec<PluginName>,
    ) -> (Vec<PluginName>, Vec<(PluginName, ToolError)>) {
        let mut gone = Vec::new();
        loop {
            let (before, mut kept) = (names.len(), Vec::new());
            for name in names {
                match self.unregister(scope, &name).await {
                    Ok(()) => gone.push(name),
                    Err(error) if error.kind == ErrorKind::NotFound => {}
                    Err(error) => kept.push((name, error)),
                }
            }
            if kept.is_empty() || kept.len() == before {
                return (gone, kept);
            }
            names = kept.into_iter().map(|(name, _)| name).collect();
        }
    }

    /// Checks that `new` may take the place of `old`: for those who call it, and for those who configured it.
    fn rehearse(
        &self,
        origin: PathBuf,
        old: Arc<Registered>,
        new: Arc<Registered>,
        options: ReloadOptions,
    ) -> Result<Change, LoadError> {
        let upgrade = Upgrade::between(&old, &new);
        if !options.allow_breaking {
            let breaking: Vec<_> = upgrade.breaking().take(5).map(ToString::to_string).collect();
            if !breaking.is_empty() {
                let more = upgrade.breaking().count() - breaking.len();
                let more = if more > 0 { format!(" (and {more} more)") } else { String::new() };
                let message = format!(
                    "would break those who call its tools: {}{more}; keep what they rely on, or allow it",
                    breaking.join("; ")
                );
                return Err(LoadError::new(ErrorKind::Conflict, message));
            }
            let for_all = self.registry().config_for_all(&new.owner.scope, &new.owner.name);
            for (tenant, config) in self.registry().configs_of(&new.owner) {
                let layers: Vec<_> = for_all.iter().chain([&config]).collect();
                if let Err(problem) = new.owner.config_with(&layers) {
                    let problem =
                        problem.replacen("configuration", &format!("configuration of the tenant {tenant}"), 1);
                    let message =
                        format!("{problem}; mend it first, or allow it, which keeps the plugin off for the tenant");
                    return Err(LoadError::new(ErrorKind::Config, message));
                }
            }
        }
        Ok(Change { origin, exchange: Exchange { old, new }, upgrade, progress: Progress::Prepared })
    }

    fn old_of(&self, scope: &Scope, new: &Registered) -> Result<Arc<Registered>, LoadError> {
        let name = &new.owner.name;
        let catalog = self.registry().catalog(scope);
        catalog.plugin(name).map(Arc::clone).ok_or_else(|| {
            LoadError::new(
                ErrorKind::NotFound,
                format!("no plugin called {name} is registered in {scope}: load it first"),
            )
        })
    }

    /// Loads and starts all that fit together, puts them in their places in one swap, and stops the old ones. Gives what
    /// was replaced and what was not.
    async fn exchange_all(&self, scope: &Scope, changes: Vec<Change>) -> (Vec<Reloaded>, Vec<(PathBuf, LoadError)>) {
        let mut failed = Vec::new();
        let mut going = self.fitting(scope, changes, &mut failed).await;
        let brought = join_all(going.iter().map(|change| self.bring_up(&change.exchange.new))).await;
        going = keep(going, brought, Progress::Loaded, &mut failed);
        going = self.fitting(scope, going, &mut failed).await;
        going = in_order(going);
        let mut started = Vec::new();
        for change in going {
            let outcome = self.start_up(&change.exchange.new).await;
            started.extend(keep(vec![change], vec![outcome], Progress::Started, &mut failed));
        }
        loop {
            started = self.fitting(scope, started, &mut failed).await;
            if started.is_empty() {
                return (Vec::new(), failed);
            }
            let exchanges: Vec<_> = started.iter().map(|change| change.exchange.clone()).collect();
            match self.registry().exchange(scope, &exchanges) {
                Ok(removed) => {
                    for change in &started {
                        self.lives().unshelve(scope, &change.exchange.new.owner.name);
                    }
                    self.retire(removed).await;
                    let done = started.into_iter().map(|Change { exchange, upgrade, .. }| {
                        let generation = exchange.new.owner.generation;
                        tracing::info!(
                            target: "toolbay::lifecycle", plugin = %upgrade.plugin, %scope, from = %upgrade.from,
                            to = %upgrade.to, generation, "replaced"
                        );
                        Reloaded { upgrade, generation }
                    });
                    return (done.collect(), failed);
                }
                // Somebody changed something between the look and the swap: looked at once more, unless it is the end.
                Err(error) if error.kind == ErrorKind::Unavailable => {
                    for change in started.drain(..).rev() {
                        self.turn_away(change, error.clone(), &mut failed).await;
                    }
                }
                Err(_) => {}
            }
        }
    }

    /// Those of `changes` that can be made together; the others are undone.
    async fn fitting(
        &self,
        scope: &Scope,
        mut changes: Vec<Change>,
        failed: &mut Vec<(PathBuf, LoadError)>,
    ) -> Vec<Change> {
        loop {
            let exchanges: Vec<_> = changes.iter().map(|change| change.exchange.clone()).collect();
            match self.registry().misfit(scope, &exchanges) {
                Some((at, error)) if at < changes.len() => {
                    let change = changes.remove(at);
                    self.turn_away(change, error, failed).await;
                }
                _ => return changes,
            }
        }
    }

    /// Takes back what was done of a change that is not made.
    async fn turn_away(&self, change: Change, error: LoadError, failed: &mut Vec<(PathBuf, LoadError)>) {
        let reason = ToolError::new(error.kind, error.message.clone());
        match change.progress {
            Progress::Prepared => {}
            Progress::Loaded => self.give_up(&change.exchange.new, Stage::Register, &reason).await,
            Progress::Started => self.undo_start(&change.exchange.new, Stage::Register, &reason).await,
        }
        failed.push((change.origin, error));
    }
}

/// Those of which the last step succeeded.
fn keep(
    changes: Vec<Change>,
    outcomes: Vec<Result<(), ToolError>>,
    progress: Progress,
    failed: &mut Vec<(PathBuf, LoadError)>,
) -> Vec<Change> {
    let mut kept = Vec::new();
    for (change, outcome) in changes.into_iter().zip(outcomes) {
        match outcome {
            Ok(()) => kept.push(Change { progress, ..change }),
            // What of it was loaded is unloaded already.
            Err(error) => failed.push((change.origin, in_words(&error))),
        }
    }
    kept
}

/// Those that others require before those others. What requires each other goes last: it cannot be met anyway.
fn in_order(mut waiting: Vec<Change>) -> Vec<Change> {
    let mut ordered = Vec::new();
    loop {
        let names: Vec<_> = waiting.iter().map(|change| change.exchange.new.owner.name.clone()).collect();
        let waits = |change: &Change| {
            let own = &change.exchange.new.owner.name;
            let requires = &change.exchange.new.plugin.metadata().requires;
            requires.iter().any(|needed| needed.name != *own && names.contains(&needed.name))
        };
        let (later, now): (Vec<_>, Vec<_>) = waiting.into_iter().partition(waits);
        if now.is_empty() {
            ordered.extend(later);
            return ordered;
        }
        ordered.extend(now);
        waiting = later;
    }
}

/// Whether the registered plugin was loaded from just this path, which may be written in more than one way.
fn is_the_one_there(old: &Registered, path: &Path) -> bool {
    let same = |origin: &Path| {
        origin == path || fs::canonicalize(origin).is_ok_and(|origin| fs::canonicalize(path).is_ok_and(|p| p == origin))
    };
    old.owner.origin.as_deref().is_some_and(same)
}

/// A folder of plugins, or one plugin, that is taken over anew.
struct Sync<'a> {
    bay: &'a Toolbay,
    scope: Scope,
    path: &'a Path,
    options: ReloadOptions,
    report: SyncReport,
}

impl Sync<'_> {
    async fn run(mut self) -> SyncReport {
        let (bay, scope) = (self.bay, self.scope.clone());
        if let Err(error) = bay.registry().check_open() {
            self.fail(self.path, error);
            return self.report;
        }
        let catalog = bay.registry().catalog(&scope);
        let folder = fs::canonicalize(self.path).ok();
        let is_index = index::is_index(self.path);
        let is_from_here = |old: &&Arc<Registered>| match &old.owner.index {
            Some(index) => is_index && index == self.path,
            None => !is_index && self.is_from_here(old, folder.as_deref()),
        };
        let here: Vec<_> = catalog.plugins().filter(is_from_here).cloned().collect();
        // One plugin that is gone is as good as a folder without it.
        let was_one = here.iter().any(|plugin| plugin.owner.origin.as_deref() == Some(self.path));
        let looked = if was_one && !self.path.exists() {
            Ok(Finds::default())
        } else {
            found::look_at(self.path, &bay.one_file_extensions())
        };
        let Finds { found, failed, skipped } = match looked {
            Ok(finds) => finds,
            Err(error) => {
                self.fail(self.path, error);
                return self.report;
            }
        };
        self.report.skipped = skipped;
        let file_of =
            |old: &Arc<Registered>| old.owner.origin.as_deref().and_then(Path::file_name).map(ToOwned::to_owned);
        let by_file: HashMap<_, _> = here.iter().filter_map(|old| Some((file_of(old)?, old))).collect();
        let by_name: HashMap<_, _> = here.iter().map(|old| (&old.owner.name, old)).collect();
        // Of what could not be read nothing can be told: what came from there stays.
        let (mut kept, mut changed, mut new) = (HashSet::new(), Vec::new(), Vec::new());
        for (origin, name, error) in failed {
            self.fail(&origin, error);
            kept.extend(name);
        }
        for found in found {
            let path = &found.path;
            // An index says who it is, a folder only where it lies.
            let at = match &found.picked {
                Some(picked) => by_name.get(&picked.entry.name).copied(),
                None => path.file_name().and_then(|file| by_file.get(file)).copied(),
            };
            let mut keep = |old: Option<&Arc<Registered>>| kept.extend(old.map(|old| old.owner.name.clone()));
            let (package, digest) = match bay.read_aside(&scope, &found, at.map(|at| &at.owner.name)).await {
                Ok(read) => read,
                Err(error) => {
                    self.fail(path, error);
                    keep(at);
                    continue;
                }
            };
            if at.is_some_and(|at| at.owner.digest == Some(digest)) {
                self.report.unchanged += 1;
                keep(at);
                continue;
            }
            let opened = bay.open_package(&scope, path, package).await.and_then(|opened| opened.found(&found));
            let registered = match opened.and_then(|opened| bay.prepare(&scope, opened)) {
                Ok(registered) => registered,
                Err(error) => {
                    self.fail(path, found_in(error, path));
                    keep(at);
                    continue;
                }
            };
            // One that was found under another path is moved where nothing lies at that path any more.
            let is_moved = |old: &Registered| old.owner.origin.as_ref().is_some_and(|origin| !origin.exists());
            let is_same = |old: &Arc<Registered>| at.is_some_and(|at| Arc::ptr_eq(at, old)) || is_moved(old);
            match (by_name.get(&registered.owner.name).copied().filter(|old| is_same(old)), at) {
                (Some(old), _) => {
                    keep(Some(old));
                    changed.push((found.path, Arc::clone(old), registered));
                }
                // It calls itself otherwise than before: put in the old one's place in one swap, so that the old one goes on
                // where the new one does not start.
                (None, Some(at)) if is_the_one_there(at, path) => {
                    keep(Some(at));
                    changed.push((found.path, Arc::clone(at), registered));
                }
                (None, _) => new.push((found.path, registered)),
            }
        }
        self.exchange(changed).await;
        let gone = here.iter().filter(|old| !kept.contains(&old.owner.name));
        self.remove(gone.map(|old| old.owner.name.clone()).collect()).await;
        if !new.is_empty() {
            let LoadReport { loaded, failed, .. } = load_found(bay, scope, new).await;
            self.report.loaded.extend(loaded);
            self.report.failed.extend(failed);
        }
        self.report
    }

    fn fail(&mut self, origin: &Path, error: LoadError) {
        self.report.failed.push(Failed { origin: origin.to_owned(), scope: self.scope.clone(), error });
    }

    /// Whether a plugin was found at the path or directly in it; `folder` is the path without links and detours.
    fn is_from_here(&self, plugin: &Registered, folder: Option<&Path>) -> bool {
        let Some(origin) = plugin.owner.origin.as_deref() else { return false };
        let is_folder = |parent: &Path| {
            parent == self.path || fs::canonicalize(parent).is_ok_and(|parent| Some(&*parent) == folder)
        };
        origin == self.path || origin.parent().is_some_and(is_folder)
    }

    async fn exchange(&mut self, changed: Vec<(PathBuf, Arc<Registered>, Arc<Registered>)>) {
        let (mut changes, mut renamed) = (Vec::new(), HashMap::new());
        for (path, old, new) in changed {
            if old.owner.name != new.owner.name {
                // For everybody else one plugin goes and another one comes, which breaks no contract of either.
                let upgrade = Upgrade::between(&old, &new);
                renamed.insert(old.owner.name.clone(), (path.clone(), Arc::clone(&new)));
                let exchange = Exchange { old, new };
                changes.push(Change { origin: path, exchange, upgrade, progress: Progress::Prepared });
                continue;
            }
            match self.bay.rehearse(path.clone(), old, new, self.options) {
                Ok(change) => changes.push(change),
                Err(error) => self.fail(&path, found_in(error, &path)),
            }
        }
        if changes.is_empty() {
            return;
        }
        let (done, failed) = self.bay.exchange_all(&self.scope, changes).await;
        for reloaded in done {
            match renamed.get(&reloaded.upgrade.plugin) {
                Some((path, new)) => {
                    self.report.removed.push(reloaded.upgrade.plugin);
                    self.report.loaded.push(self.bay.loaded(new, path));
                }
                None => self.report.reloaded.push(reloaded),
            }
        }
        for (path, error) in failed {
            self.fail(&path, found_in(error, &path));
        }
    }

    /// Unregisters what is gone, those that require others before those.
    async fn remove(&mut self, gone: Vec<PluginName>) {
        let (removed, kept) = self.bay.unregister_all(&self.scope, gone).await;
        self.report.removed.extend(removed);
        for (name, error) in kept {
            let error = LoadError::new(error.kind, format!("its file is gone, and it stays: {}", error.message));
            self.fail(&self.path.join(name.as_str()), error);
        }
    }
}
