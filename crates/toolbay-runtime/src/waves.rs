//! Loading a folder: plugins in waves by what they require. All of a wave are loaded before one of it starts, and all
//! that a wave requires is active before it loads.

use std::{
    collections::HashMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use futures::future::join_all;
use toolbay_api::{ErrorKind, LoadError, PluginName, Scope, ToolError};

use crate::{
    catalog::Registered,
    found::{self, Finds, Found},
    lifecycle::Stage,
    load::{Failed, LoadReport},
    registry::Found as There,
    toolbay::{Toolbay, found_in},
};

/// Requirements that an error follows from one plugin to the next.
const MAX_CHAIN: usize = 64;

/// Characters of another plugin's error that an error quotes.
const MAX_QUOTED: usize = 300;

/// A plugin on its way in, and where it was found.
pub(crate) type Arrival = (PathBuf, Arc<Registered>);

/// One folder on its way in.
struct Loading<'a> {
    bay: &'a Toolbay,
    scope: Scope,
    report: LoadReport,
    /// What is registered, in the order of the starts.
    started: Vec<Arrival>,
    /// Why plugins of these names are not there.
    lost: HashMap<PluginName, String>,
}

impl Toolbay {
    /// Loads every plugin directly inside `folder`. One bad plugin stops no other, but for those that require it.
    pub async fn load_folder(&self, scope: Scope, folder: impl AsRef<Path>) -> LoadReport {
        let looked = found::look_into(folder.as_ref(), &self.one_file_extensions());
        Loading::run(self, scope, folder.as_ref(), looked).await.report
    }

    /// Loads what is at `path`, whatever it is: one plugin, every plugin directly inside a folder, or of each plugin that a
    /// [registry index](crate::index) names the newest version that this Toolbay can load and that is not yanked. One bad
    /// plugin stops no other, but for those that require it.
    pub async fn load_from(&self, scope: Scope, path: impl AsRef<Path>) -> LoadReport {
        let looked = found::look_at(path.as_ref(), &self.one_file_extensions());
        Loading::run(self, scope, path.as_ref(), looked).await.report
    }

    /// Loads every plugin directly inside `folder`, or none: where one fails, those that started are stopped and unloaded
    /// in reverse order, and the report has all of them among the failed.
    pub async fn load_folder_or_nothing(&self, scope: Scope, folder: impl AsRef<Path>) -> LoadReport {
        let looked = found::look_into(folder.as_ref(), &self.one_file_extensions());
        Loading::run(self, scope, folder.as_ref(), looked).await.or_nothing().await
    }

    /// As [`load_from`](Self::load_from), but all or nothing, as [`load_folder_or_nothing`](Self::load_folder_or_nothing) is.
    /// What an index names and this Toolbay cannot load, or is to leave alone, is no failure.
    pub async fn load_from_or_nothing(&self, scope: Scope, path: impl AsRef<Path>) -> LoadReport {
        let looked = found::look_at(path.as_ref(), &self.one_file_extensions());
        Loading::run(self, scope, path.as_ref(), looked).await.or_nothing().await
    }
}

/// Loads and starts what was found and prepared already.
pub(crate) async fn load_found(bay: &Toolbay, scope: Scope, found: Vec<Arrival>) -> LoadReport {
    let mut loading = Loading::new(bay, scope);
    loading.all(found).await;
    loading.report
}

impl<'a> Loading<'a> {
    fn new(bay: &'a Toolbay, scope: Scope) -> Self {
        Self { bay, scope, report: LoadReport::default(), started: Vec::new(), lost: HashMap::new() }
    }

    /// The report, after all is taken back where anything failed.
    async fn or_nothing(self) -> LoadReport {
        let Self { bay, scope, mut report, started, .. } = self;
        if report.failed.is_empty() {
            return report;
        }
        for (origin, registered) in started.into_iter().rev() {
            let name = &registered.owner.name;
            // What somebody else came to require in the meantime stays, and the report says so.
            if bay.unregister(&scope, name).await.is_ok() {
                report.loaded.retain(|loaded| loaded.name != *name);
                let message = "was taken back, since another plugin that was to load with it did not";
                let error = LoadError::new(ErrorKind::Dependency, message);
                report.failed.push(Failed { origin, scope: scope.clone(), error });
            }
        }
        report
    }

    /// Loads what was looked for in `place`.
    async fn run(bay: &'a Toolbay, scope: Scope, place: &Path, looked: Result<Finds, LoadError>) -> Self {
        let mut loading = Self::new(bay, scope);
        let Finds { found, failed, skipped } = match looked {
            Ok(finds) => finds,
            Err(error) => {
                loading.fail(place, None, error);
                return loading;
            }
        };
        loading.report.skipped = skipped;
        for (origin, name, error) in failed {
            loading.fail(&origin, name.as_ref(), found_in(error, &origin));
        }
        let mut waiting: Vec<Arrival> = Vec::new();
        for found in found {
            let prepared = loading.prepare(&found).await;
            let path = found.path;
            match prepared {
                Ok(registered) => waiting.push((path, registered)),
                Err(error) => {
                    // A plugin that cannot be read is most likely called like its file.
                    let stem = || path.file_stem().and_then(|stem| PluginName::new(stem.to_string_lossy()).ok());
                    let name = found.picked.map(|picked| picked.entry.name).or_else(stem);
                    loading.fail(&path, name.as_ref(), found_in(error, &path));
                }
            }
        }
        loading.all(waiting).await;
        loading
    }

    async fn prepare(&self, found: &Found) -> Result<Arc<Registered>, LoadError> {
        let (bay, scope) = (self.bay, &self.scope);
        let package = bay.read_found(scope, found)?;
        let opened = bay.open_to_use(scope, &found.path, package).await?.found(found)?;
        bay.prepare(scope, opened)
    }

    /// Loads and starts what was found, wave after wave.
    async fn all(&mut self, mut waiting: Vec<Arrival>) {
        let bay = self.bay;
        loop {
            let is_met = |(_, registered): &Arrival| bay.registry().lacking(&self.scope, registered).is_none();
            let (wave, rest): (Vec<_>, Vec<_>) = waiting.into_iter().partition(is_met);
            waiting = rest;
            if wave.is_empty() {
                break;
            }
            self.wave(wave).await;
        }
        self.give_up(waiting);
    }

    /// Loads a wave, starts it, and lets it be called, all at once.
    async fn wave(&mut self, wave: Vec<Arrival>) {
        let bay = self.bay;
        let all: Vec<_> = wave.iter().map(|(_, registered)| Arc::clone(registered)).collect();
        // Before anything of them is called.
        let clashes = bay.registry().clashes(&self.scope, &all);
        let mut candidates = Vec::new();
        for ((path, registered), clash) in wave.into_iter().zip(clashes) {
            match clash {
                None => candidates.push((path, registered)),
                // One of that name is there, so nobody lacks it.
                Some(error) => self.fail(&path, None, error),
            }
        }
        let brought = join_all(candidates.iter().map(|(_, registered)| bay.bring_up(registered))).await;
        let mut loaded = Vec::new();
        for (found, brought) in candidates.into_iter().zip(brought) {
            self.keep(&mut loaded, found, brought);
        }
        let mut ready = Vec::new();
        for found in loaded {
            let started = bay.start_up(&found.1).await;
            self.keep(&mut ready, found, started);
        }
        let all: Vec<_> = ready.iter().map(|(_, registered)| Arc::clone(registered)).collect();
        // One swap for the whole wave; only if somebody else took a name in the meantime, one by one.
        let at_once = bay.registry().add(&self.scope, &all).is_ok();
        let mut turned_away = Vec::new();
        for (path, registered) in ready {
            let one = || bay.registry().add(&self.scope, std::slice::from_ref(&registered));
            match if at_once { Ok(()) } else { one() } {
                Ok(()) => {
                    bay.lives().unshelve(&self.scope, &registered.owner.name);
                    self.report.loaded.push(bay.loaded(&registered, &path));
                    self.started.push((path, registered));
                }
                Err(error) => turned_away.push((path, registered, error)),
            }
        }
        for (path, registered, error) in turned_away.into_iter().rev() {
            let reason = ToolError::new(error.kind, error.message.clone());
            bay.undo_start(&registered, Stage::Register, &reason).await;
            self.fail(&path, Some(&registered.owner.name), error);
        }
    }

    fn keep(&mut self, kept: &mut Vec<Arrival>, found: Arrival, outcome: Result<(), ToolError>) {
        match outcome {
            Ok(()) => kept.push(found),
            Err(error) => {
                self.fail(&found.0, Some(&found.1.owner.name), found_in(in_words(&error), &found.0));
            }
        }
    }

    fn fail(&mut self, origin: &Path, name: Option<&PluginName>, error: LoadError) {
        if let Some(name) = name {
            let quoted: String = format!("{}: {}", error.kind, error.message).chars().take(MAX_QUOTED).collect();
            self.lost.insert(name.clone(), quoted);
        }
        self.report.failed.push(Failed { origin: origin.to_owned(), scope: self.scope.clone(), error });
    }

    /// Reports what waits for something that will not come.
    fn give_up(&mut self, waiting: Vec<Arrival>) {
        let by_name: HashMap<_, _> =
            waiting.iter().rev().map(|(_, waiting)| (waiting.owner.name.clone(), Arc::clone(waiting))).collect();
        let errors: Vec<_> = waiting.iter().map(|(_, registered)| self.explain(registered, &by_name)).collect();
        for ((path, _), error) in waiting.iter().zip(errors) {
            self.fail(path, None, error);
        }
    }

    /// Follows what `first` requires to what is missing.
    fn explain(&self, first: &Arc<Registered>, waiting: &HashMap<PluginName, Arc<Registered>>) -> LoadError {
        let (mut at, mut chain, mut text) = (first, vec![&first.owner.name], String::new());
        while let Some((needed, found)) = self.bay.registry().unmet(&self.scope, at) {
            let (name, range) = (&needed.name, &needed.version);
            let link = if text.is_empty() { "" } else { ", which " };
            let _ = write!(text, "{link}needs the plugin {name} {range}");
            let next = waiting.get(name);
            let version = match (&found, next) {
                (There::Version(version), _) => Some(version),
                (There::Nothing, Some(next)) => Some(&next.owner.version).filter(|version| !range.matches(version)),
                (There::Nothing, None) => None,
            };
            if let Some(version) = version {
                let _ = write!(text, ", and version {version} is there");
                break;
            }
            let Some(next) = next else {
                match self.lost.get(name) {
                    Some(error) => _ = write!(text, ", which did not load: {error}"),
                    None => text.push_str(", and it is not registered"),
                }
                break;
            };
            if chain.contains(&name) {
                let names: Vec<_> = chain.iter().map(|name| name.as_str()).chain([name.as_str()]).collect();
                let _ = write!(text, " again: {} is a cycle; take one of the requirements away", names.join(" → "));
                break;
            }
            if chain.len() >= MAX_CHAIN {
                text.push_str(", and so on");
                break;
            }
            chain.push(&next.owner.name);
            at = next;
        }
        // The last of the chain may have all plugins that it requires, and lack a service.
        let registry = self.bay.registry();
        if registry.unmet(&self.scope, at).is_none()
            && let Some(error) = registry.missing_services(&self.scope, at)
        {
            let link = if text.is_empty() { "" } else { ", which " };
            let _ = write!(text, "{link}{}", error.message);
        }
        LoadError::new(ErrorKind::Dependency, text)
    }
}

/// A callback's error for the report, which the operator reads: with its cause.
pub(crate) fn in_words(error: &ToolError) -> LoadError {
    let detail = error.operator_detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    LoadError::new(error.kind, format!("{}{detail}", error.message))
}
