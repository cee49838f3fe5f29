//! Taking over from the store what is different there.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use dashmap::DashMap;
use tokio::{sync::Semaphore, task::JoinHandle};
use toolbay_api::{ErrorKind, PluginName, Scope, ToolError};

use super::{Control, told};
use crate::{
    activation::{Activation, Activations},
    archive,
    catalog::Registered,
    load::{Failed, LoadReport},
    reload::ReloadOptions,
    store::{PackageDigest, Position, Registration, Snapshot},
    toolbay::found_in,
    waves::load_found,
};

/// Problems that [`ControlStatus`] tells of; there may be more.
const MAX_TOLD: usize = 1_000;
/// Tenants whose plugins are loaded at once.
const AT_ONCE: usize = 64;

/// How it stands with the store.
#[derive(Debug, Clone, Default)]
pub struct ControlStatus {
    /// As of which position the registry is.
    pub position: Position,
    /// Why the store could not be read the last time, where it could not; the registry is as it was before.
    pub problem: Option<ToolError>,
    /// Registrations that could not be taken over, with the reasons: at most a thousand.
    pub failed: Vec<(Scope, PluginName, ToolError)>,
}

/// What was read, and what of it is on its way into the registry.
#[derive(Default)]
pub(super) struct Taking {
    /// Held while the store is read: tokio's, since that waits.
    read: tokio::sync::Mutex<Option<Position>>,
    /// Rows that were read and are not taken over yet. The newest of a scope are the only ones that count.
    waiting: Mutex<HashMap<Scope, Vec<Registration>>>,
    /// Each held while its scope is taken over. One scope's plugins that take their time must not keep others waiting.
    scopes: DashMap<Scope, Arc<tokio::sync::Mutex<Taken>>>,
    /// What could not be taken over, by scope; tried again when anything changes: what was missing may be there then.
    failed: DashMap<Scope, Vec<(PluginName, ToolError)>>,
    /// Scopes that are taken over at once.
    at_once: AtOnce,
}

/// Places for scopes that are taken over at once.
struct AtOnce(Arc<Semaphore>);

impl Default for AtOnce {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

/// What of a scope was taken over, for the next time.
#[derive(Default)]
pub(super) struct Taken {
    /// What the host decided on behalf of the tenant without the store, under what is in the store.
    base: Option<Option<Arc<Activations>>>,
    /// The packages that are registered on behalf of the store.
    installed: BTreeMap<PluginName, PackageDigest>,
}

impl Control {
    /// Takes over from the store what is different there since the last time: tenants, keys, secrets' references,
    /// decisions and uploaded plugins, in one swap for the plugins of each scope. What of it fails stays as it was, and is in
    /// [`status`](Self::status).
    ///
    /// # Errors
    /// What [`Store`](crate::store::Store) says; the registry is as it was.
    ///
    /// # Cancel safety
    /// What was read is taken over though nobody waits for it.
    pub async fn sync(&self) -> Result<(), ToolError> {
        for task in self.begin_sync().await? {
            joined(task).await?;
        }
        Ok(())
    }

    /// The same, waiting for what is global and for `scope` only.
    pub(super) async fn sync_for(&self, scope: &Scope) -> Result<(), ToolError> {
        drop(self.begin_sync().await?);
        // Whoever read it, it is taken over when its turn has come and gone.
        self.settle(scope.clone()).await;
        Ok(())
    }

    /// Reads what is different, takes over what is for everybody, and begins to take over the tenants'.
    pub(super) async fn begin_sync(&self) -> Result<Vec<JoinHandle<()>>, ToolError> {
        let taking = &self.0.taking;
        let mut read = taking.read.lock().await;
        let snapshot = match self.0.store.snapshot(*read).await {
            Ok(snapshot) => snapshot,
            Err(error) => {
                self.note(|status| status.problem = Some(error.clone()));
                return Err(error);
            }
        };
        let Snapshot { position, complete, tenants, mut removed_tenants, mut registrations, keys, secrets } = snapshot;
        let is_new = *read != Some(position);
        let seen = &self.0.seen;
        if complete {
            let there: HashSet<_> = tenants.iter().map(|row| row.id).collect();
            let gone = seen.tenants.iter().filter(|row| !there.contains(&row.id));
            removed_tenants.extend(gone.map(|row| (row.id, row.name.clone())));
            let known: HashSet<_> = keys.iter().map(|row| &row.prefix).collect();
            seen.keys.retain(|prefix, _| known.contains(prefix));
            for rows in &seen.rows {
                registrations.entry(rows.key().clone()).or_default();
            }
            if let Some(references) = &self.0.options.secrets {
                references.clear();
            }
        }
        for (id, tenant) in removed_tenants {
            // One of that name may have been made since.
            if seen.tenants.remove_if(&tenant, |_, row| row.id == id).is_some() {
                seen.keys.retain(|_, row| row.tenant.as_ref() != Some(&tenant));
                if let Some(references) = &self.0.options.secrets {
                    references.forget(&tenant);
                }
                registrations.entry(Scope::Tenant(tenant)).or_default();
            }
        }
        for row in tenants {
            seen.tenants.insert(row.name.clone(), row);
        }
        for row in keys {
            seen.keys.insert(row.prefix.clone(), row);
        }
        if let Some(references) = &self.0.options.secrets {
            references.take_over(secrets);
        }
        if is_new {
            for failed in &taking.failed {
                let rows = seen.rows.get(failed.key()).map(|rows| rows.values().cloned().collect());
                registrations.entry(failed.key().clone()).or_insert_with(|| rows.unwrap_or_default());
            }
        }
        let scopes: Vec<_> = registrations.keys().cloned().collect();
        taking.waiting.lock().unwrap_or_else(PoisonError::into_inner).extend(registrations);
        *read = Some(position);
        self.note(|status| {
            status.position = position;
            status.problem = None;
        });
        drop(read);
        // The global scope comes first: what tenants' own plugins require may be there.
        self.settle(Scope::Global).await;
        let take = |scope: Scope| {
            let control = self.clone();
            tokio::spawn(async move {
                // Never closed.
                let _place = Arc::clone(&control.0.taking.at_once.0).acquire_owned().await;
                control.settle(scope).await;
            })
        };
        Ok(scopes.into_iter().filter(|scope| *scope != Scope::Global).map(take).collect())
    }

    /// Takes over what waits for a scope, after whoever does so now.
    async fn settle(&self, scope: Scope) {
        let taking = &self.0.taking;
        let turn = Arc::clone(&taking.scopes.entry(scope.clone()).or_default());
        let mut taken = turn.lock().await;
        let waiting = taking.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&scope);
        if let Some(rows) = waiting {
            self.take_over(&mut taken, &scope, rows).await;
        }
        let is_empty = taken.installed.is_empty() && taken.base.is_none();
        drop(taken);
        // Nobody else has it, or is about to: two references are the map's and this one.
        taking.scopes.remove_if(&scope, |_, own| is_empty && Arc::ptr_eq(own, &turn) && Arc::strong_count(own) == 2);
    }

    /// How it stands with the store.
    #[must_use]
    pub fn status(&self) -> ControlStatus {
        let mut status = self.0.seen.status.read().unwrap_or_else(PoisonError::into_inner).clone();
        for failed in &self.0.taking.failed {
            let room = MAX_TOLD.saturating_sub(status.failed.len());
            let told = |(name, error): &(PluginName, ToolError)| (failed.key().clone(), name.clone(), error.clone());
            status.failed.extend(failed.value().iter().take(room).map(told));
        }
        status.failed.sort_by(|one, other| (&one.0, &one.1).cmp(&(&other.0, &other.1)));
        status
    }

    fn note(&self, change: impl FnOnce(&mut ControlStatus)) {
        change(&mut self.0.seen.status.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Makes a scope what its rows say.
    async fn take_over(&self, taken: &mut Taken, scope: &Scope, rows: Vec<Registration>) {
        let bay = &self.0.bay;
        let rows: BTreeMap<_, _> = rows.into_iter().map(|row| (row.plugin.clone(), row)).collect();
        // Decisions go first: a tenant's own plugin may need what is said of its configuration.
        self.decide(taken, scope, &rows);
        let installed = &mut taken.installed;
        let (mut failed, mut changed, mut new) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows.values() {
            let Some(digest) = row.package else { continue };
            if installed.get(&row.plugin) == Some(&digest) {
                continue;
            }
            match self.prepared(scope, row, &digest).await {
                Ok((origin, ready)) => match bay.registry().catalog(scope).plugin(&row.plugin) {
                    Some(old) if installed.contains_key(&row.plugin) => changed.push((origin, Arc::clone(old), ready)),
                    _ => new.push((origin, ready)),
                },
                Err(error) => failed.push((row.plugin.clone(), error)),
            }
        }
        // What it breaks was weighed when it was written.
        let how = ReloadOptions { allow_breaking: true };
        for (name, error) in bay.replace_all(scope, changed, how).await {
            failed.push((name, told(error)));
        }
        let is_gone = |name: &&PluginName| rows.get(*name).is_none_or(|row| row.package.is_none());
        let gone: Vec<_> = installed.keys().filter(is_gone).cloned().collect();
        for (name, error) in bay.unregister_all(scope, gone).await.1 {
            failed.push((name, error));
        }
        let names: HashMap<_, _> = new.iter().map(|(path, ready)| (path.clone(), ready.owner.name.clone())).collect();
        let LoadReport { failed: not_loaded, .. } = load_found(bay, scope.clone(), new).await;
        for Failed { origin, error, .. } in not_loaded {
            if let Some(name) = names.get(&origin) {
                failed.push((name.clone(), told(error)));
            }
        }
        // What is there now, by what is registered: a failed upgrade leaves the old one.
        let catalog = bay.registry().catalog(scope);
        installed.retain(|name, _| catalog.plugin(name).is_some());
        for row in rows.values() {
            let is_in = failed.iter().all(|(name, _)| *name != row.plugin);
            if let Some(digest) = row.package.filter(|_| is_in) {
                installed.insert(row.plugin.clone(), digest);
            }
        }
        for (plugin, error) in &failed {
            tracing::warn!(target: "toolbay::control", %scope, %plugin, %error, "not taken over");
        }
        if failed.is_empty() {
            self.0.taking.failed.remove(scope);
        } else {
            self.0.taking.failed.insert(scope.clone(), failed);
        }
        if rows.is_empty() {
            self.0.seen.rows.remove(scope);
        } else {
            self.0.seen.rows.insert(scope.clone(), rows);
        }
    }

    /// Lays what the rows say over what the host decided without the store.
    fn decide(&self, taken: &mut Taken, scope: &Scope, rows: &BTreeMap<PluginName, Registration>) {
        let registry = self.0.bay.registry();
        let base = match scope {
            Scope::Global => None,
            Scope::Tenant(_) => taken.base.get_or_insert_with(|| registry.activations(scope)).clone(),
        };
        let mut next = base.map(|base| Activations::clone(&base)).unwrap_or_default();
        for row in rows.values() {
            let Registration { plugin, enabled, config, priority, .. } = row;
            let decided = Activation { enabled: Some(*enabled), config: config.clone(), priority: *priority };
            next.put(plugin, decided);
        }
        registry.decide(scope, next);
        if rows.is_empty() {
            taken.base = None;
        }
    }

    /// Loads the package of a row up to where it can be registered.
    async fn prepared(
        &self,
        scope: &Scope,
        row: &Registration,
        digest: &PackageDigest,
    ) -> Result<(PathBuf, Arc<Registered>), ToolError> {
        let content = self.content(digest).await?;
        // Only a one-file plugin has a name of its own, which the store has to be asked for.
        let versions = match archive::is_archive(&content) {
            true => Vec::new(),
            false => self.0.store.versions(scope, &row.plugin).await?,
        };
        let version = versions.into_iter().find(|version| version.version == row.version);
        let file_name = version.and_then(|version| version.file_name).unwrap_or_else(|| row.plugin.to_string());
        let package = self.unpack(scope, &file_name, &content)?;
        // Several may have files of one name; by this they are told apart.
        let origin = PathBuf::from(row.plugin.as_str()).join(&file_name);
        let bay = &self.0.bay;
        let opened = bay.open_to_use(scope, &origin, package).await.map_err(told)?;
        let ready = bay.prepare(scope, opened).map_err(|error| told(found_in(error, &origin)))?;
        if ready.owner.name != row.plugin || ready.owner.version != row.version {
            let (name, version) = (&ready.owner.name, &ready.owner.version);
            let message = format!("the package is {name} {version}, and {} {} is installed", row.plugin, row.version);
            return Err(ToolError::new(ErrorKind::Internal, message));
        }
        Ok((origin, ready))
    }

    /// Loads a registered plugin anew from where it came.
    pub(super) async fn reload_here(&self, scope: &Scope, plugin: &PluginName) -> Result<(), ToolError> {
        let bay = &self.0.bay;
        let missing = || {
            ToolError::new(
                ErrorKind::NotFound,
                format!("no plugin called {plugin} is registered there from a file or a package"),
            )
        };
        let turn = Arc::clone(&self.0.taking.scopes.entry(scope.clone()).or_default());
        let mut taken = turn.lock().await;
        let is_installed = taken.installed.contains_key(plugin);
        let row = self.0.seen.rows.get(scope).and_then(|rows| rows.get(plugin).cloned());
        let Some((row, digest)) = row.and_then(|row| row.package.map(|digest| (row, digest))) else {
            let old = bay.registry().catalog(scope).plugin(plugin).cloned().ok_or_else(missing)?;
            let origin = old.owner.origin.clone().filter(|origin| origin.exists()).ok_or_else(missing)?;
            return bay.reload(scope.clone(), origin, ReloadOptions::default()).await.map(|_| ()).map_err(told);
        };
        if !is_installed {
            let rows = self.0.seen.rows.get(scope).map(|rows| rows.values().cloned().collect()).unwrap_or_default();
            self.take_over(&mut taken, scope, rows).await;
            let failed = self.0.taking.failed.get(scope);
            let failed = failed.as_ref().and_then(|failed| failed.iter().find(|(name, _)| name == plugin));
            return failed.map_or(Ok(()), |(_, error)| Err(error.clone()));
        }
        let old = bay.registry().catalog(scope).plugin(plugin).cloned().ok_or_else(missing)?;
        let (origin, new) = self.prepared(scope, &row, &digest).await?;
        let failed = bay.replace_all(scope, vec![(origin, old, new)], ReloadOptions { allow_breaking: true }).await;
        failed.into_iter().next().map_or(Ok(()), |(_, error)| Err(told(error)))
    }
}

/// Waits for a scope that is taken over.
async fn joined(task: JoinHandle<()>) -> Result<(), ToolError> {
    task.await.map_err(|error| {
        ToolError::new(ErrorKind::Internal, "taking over from the store came to no end").with_source(error.to_string())
    })
}
