//! From files to a plugin that is not checked yet: which runner has it, under which limits and grants, and whether its code
//! waits.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use toolbay_api::{
    ErrorKind, Limits, LoadError, Package, Permission, PermissionSet, Plugin, PluginContext, PluginName, Runner,
    RuntimeKind, Scope,
};

use super::Toolbay;
use crate::{
    catalog::RegisterOptions,
    digest::{self, Digest},
    found::Found,
    guarded::{Failure, guarded, now},
    lazy::LazyPlugin,
    load::{self, WithManifest},
};

/// How long a runner may take to load one plugin.
const LOAD_TIME: Duration = Duration::from_secs(10);

/// A plugin as its runner gave it, not checked yet.
pub(crate) struct Opened {
    pub(crate) plugin: Arc<dyn Plugin>,
    pub(crate) options: RegisterOptions,
    pub(crate) digest: Option<Digest>,
}

impl Opened {
    fn from(plugin: Arc<dyn Plugin>, path: &Path, digest: Digest) -> Self {
        let options = RegisterOptions { origin: Some(path.to_owned()), ..RegisterOptions::default() };
        Self { plugin, options, digest: Some(digest) }
    }

    /// The same, where it is what the index says that named it.
    ///
    /// # Errors
    /// `Config` where it calls itself otherwise.
    pub(crate) fn found(mut self, found: &Found) -> Result<Self, LoadError> {
        if let Some(picked) = &found.picked {
            let metadata = self.plugin.metadata();
            picked.check_name(&metadata.name, &metadata.version)?;
        }
        self.options.index.clone_from(&found.index);
        Ok(self)
    }
}

impl Toolbay {
    /// Reads a plugin's files and has its runner load it.
    pub(crate) async fn open(&self, scope: &Scope, path: &Path) -> Result<Opened, LoadError> {
        self.open_package(scope, path, self.read(scope, path)?).await
    }

    /// Reads a plugin's files.
    pub(crate) fn read(&self, scope: &Scope, path: &Path) -> Result<Package, LoadError> {
        self.read_as_it_stands(scope, path).map(|(package, _)| package)
    }

    /// Reads a plugin's files, and gives the checksum of their content too.
    pub(crate) fn read_with_sum(&self, scope: &Scope, path: &Path) -> Result<(Package, String), LoadError> {
        let read = self.read_as_it_stands(scope, path)?;
        let sum = digest::checksum(&read);
        Ok((read.0, sum))
    }

    /// Reads the files of a plugin that was found. Where an index named it, they are what that says.
    pub(crate) fn read_found(&self, scope: &Scope, found: &Found) -> Result<Package, LoadError> {
        let Some(picked) = &found.picked else { return self.read(scope, &found.path) };
        let (package, sum) = self.read_with_sum(scope, &found.path)?;
        picked.check_content(&sum)?;
        Ok(package)
    }

    fn read_as_it_stands(&self, scope: &Scope, path: &Path) -> Result<WithManifest, LoadError> {
        load::read(path, &self.ceiling(scope), &self.one_file_extensions())
    }

    /// The digest of a plugin of this name, with what the operator puts in the place of its assets.
    pub(crate) fn digest_with_assets(
        &self,
        scope: &Scope,
        plugin: &PluginName,
        digest: Digest,
    ) -> Result<Digest, LoadError> {
        match self.assets_instead(scope, plugin) {
            Some(folder) => load::read_assets(folder).map(|assets| digest.with_assets(&assets)),
            None => Ok(digest),
        }
    }

    /// The folder that the operator put in the place of a plugin's assets.
    pub(super) fn assets_instead(&self, scope: &Scope, plugin: &PluginName) -> Option<&PathBuf> {
        (*scope == Scope::Global).then(|| self.0.policy.assets.get(plugin)).flatten()
    }

    /// Has a plugin's runner load it.
    pub(crate) async fn open_package(&self, scope: &Scope, path: &Path, package: Package) -> Result<Opened, LoadError> {
        let digest = Digest::of(&package);
        let plugin = self.run_loader(scope, package).await?;
        Ok(Opened::from(plugin, path, digest))
    }

    /// As [`open_package`](Self::open_package), but for the code of a plugin that may wait until it is needed.
    pub(crate) async fn open_to_use(&self, scope: &Scope, path: &Path, package: Package) -> Result<Opened, LoadError> {
        let loading = &self.0.policy.loading;
        if !loading.may_be_lazy(scope, &package) {
            return self.open_package(scope, path, package).await;
        }
        let (runner, cx) = (Arc::clone(self.runner_for(&package)?), self.context_for(scope, &package));
        match in_time(runner.declare(&package, &cx)).await? {
            Some(declared)
                if declared.can_wait()
                    && loading.is_lazy(scope, &declared.manifest.name, declared.manifest.auto_load) =>
            {
                let digest = Digest::of(&package);
                let refusal = self.0.refusals.of(digest, &cx.limits);
                let plugin = Arc::new(LazyPlugin::new(runner, package, cx, declared, refusal));
                Ok(Opened::from(plugin, path, digest))
            }
            _ => self.open_package(scope, path, package).await,
        }
    }

    pub(super) async fn run_loader(&self, scope: &Scope, package: Package) -> Result<Arc<dyn Plugin>, LoadError> {
        let runner = self.runner_for(&package)?;
        in_time(runner.load(&package, &self.context_for(scope, &package))).await
    }

    fn context_for(&self, scope: &Scope, package: &Package) -> PluginContext {
        let grants = match &package.manifest {
            Some(manifest) => self.grants_for(scope, &manifest.name),
            // A one-file plugin's name is known only once it is loaded; the grants of the plugin that the file is named
            // after are what its author reckons with.
            None => {
                let stem = package.origin.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
                PluginName::new(stem)
                    .map_or_else(|_| Arc::clone(&self.0.policy.grants), |name| self.grants_for(scope, &name))
            }
        };
        PluginContext { scope: scope.clone(), limits: self.ceiling(scope), grants }
    }

    pub(super) fn runner_for(&self, package: &Package) -> Result<&Arc<dyn Runner>, LoadError> {
        let by_kind = |kind: RuntimeKind| self.0.runners.iter().find(|runner| runner.kind() == kind);
        let (runner, what) = match &package.manifest {
            Some(manifest) => (by_kind(manifest.runtime), format!("the runtime {}", manifest.runtime)),
            None => {
                let extension = package.origin.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
                let takes = |runner: &&Arc<dyn Runner>| runner.one_file_extension() == Some(extension);
                (self.0.runners.iter().find(takes), format!("files ending in .{extension}"))
            }
        };
        runner.ok_or_else(|| {
            let known: Vec<_> = self.0.runners.iter().map(|runner| runner.kind().to_string()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            LoadError::new(ErrorKind::Config, format!("this host has no runner for {what}; it has: {known}"))
        })
    }

    pub(crate) fn one_file_extensions(&self) -> Vec<&'static str> {
        self.0.runners.iter().filter_map(|runner| runner.one_file_extension()).collect()
    }

    /// The host's limits; for a tenant's own plugin, lowered by the tenant's, since those of sources count at loading.
    pub(crate) fn ceiling(&self, scope: &Scope) -> Limits {
        let policy = &self.0.policy;
        let own = match scope {
            Scope::Tenant(tenant) => policy.tenant_limits.get(tenant),
            Scope::Global => None,
        };
        own.map_or_else(|| policy.limits.clone(), |own| policy.limits.lowered_by(own))
    }

    pub(super) fn grants_for(&self, scope: &Scope, plugin: &PluginName) -> Arc<PermissionSet> {
        let policy = &self.0.policy;
        match (policy.plugin_grants.get(plugin), scope) {
            (None, _) => Arc::clone(&policy.grants),
            (Some(named), Scope::Global) => Arc::clone(named),
            // Tenants choose their plugins' names: to one of theirs a name can only take away.
            (Some(named), Scope::Tenant(_)) => {
                let general = |permission: &&Permission| policy.grants.covers(permission.as_str());
                Arc::new(named.iter().filter(general).cloned().collect())
            }
        }
    }
}

/// Waits for a runner, within the time that loading may take.
pub(crate) async fn in_time<T>(loading: impl Future<Output = Result<T, LoadError>>) -> Result<T, LoadError> {
    match guarded(now() + LOAD_TIME, loading).await {
        Ok(loaded) => loaded,
        Err(Failure::TimedOut) => {
            Err(LoadError::new(ErrorKind::TimedOut, format!("loading took longer than {LOAD_TIME:?}")))
        }
        Err(Failure::Panicked(message)) => {
            Err(LoadError::new(ErrorKind::Panic, format!("the runner broke down while loading: {message}")))
        }
    }
}

/// Names the plugin's file or folder in an error that knows no place of its own.
pub(crate) fn found_in(error: LoadError, path: &Path) -> LoadError {
    match (&error.file, path.file_name()) {
        (None, Some(name)) => error.in_file(name.to_string_lossy()),
        _ => error,
    }
}
