//! Packages: what is uploaded, and which version of it is installed.

use std::{path::PathBuf, sync::Arc};

use semver::Version;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use toolbay_api::{ErrorKind, Limit, PluginName, Scope, ToolError};

use super::{Actor, Control, Need, expected, told};
use crate::{
    archive,
    reload::ReloadOptions,
    store::{PackageDigest, PackageVersion, Registration, Revision, Step},
    toolbay::found_in,
};

/// A package on its way in: a one-file plugin's source, or a gzipped tar archive of a plugin's folder.
#[derive(Debug, Clone)]
pub struct Upload {
    /// The file's name, by whose extension a one-file plugin's runner is found.
    pub file_name: String,
    /// Its bytes.
    pub content: Arc<[u8]>,
}

/// A package that was uploaded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Uploaded {
    /// Its version.
    pub version: PackageVersion,
    /// Whether it was there before.
    pub known: bool,
    /// What an operator may want to change, in full sentences.
    pub warnings: Vec<String>,
}

/// How a version is installed.
#[derive(Debug, Clone, Default)]
pub struct Install {
    /// Which version; `None`: the newest one, or when going back, the one before.
    pub version: Option<Version>,
    /// Whether it may break those who call the tools of the one that is there.
    pub allow_breaking: bool,
    /// As the caller saw the registration.
    pub seen: Option<Revision>,
}

impl Control {
    /// Takes a package: loaded and checked as it would be for use, and kept. It is not installed by that.
    ///
    /// # Errors
    /// `PermissionDenied` where tenants bring no plugins; `LimitExceeded` where the package is too large or there are too
    /// many; `Conflict` where this version is there with other content; what loading says, with file and line.
    pub async fn upload(&self, by: &Actor, scope: &Scope, upload: Upload) -> Result<Uploaded, ToolError> {
        if let Some(done) = self.enter(by, scope, Need::Scope, "package.upload").await? {
            return Ok(done);
        }
        let options = &self.0.options;
        if *scope != Scope::Global && by.role == crate::store::Role::Tenant && !options.tenants_upload {
            let message = "tenants upload no plugins here: ask the operator";
            return Err(ToolError::new(ErrorKind::PermissionDenied, message));
        }
        let bytes = upload.content.len();
        if bytes > options.max_package_bytes {
            let mut error = ToolError::limit(Limit::SourceSize, options.max_package_bytes as u64, bytes as u64);
            error.message =
                format!("the package has {bytes} bytes, and {} are allowed", options.max_package_bytes).into();
            return Err(error);
        }
        let (_, loaded, manifest) = self.rehearse(scope, &upload.file_name, &upload.content, None).await?;
        let version = PackageVersion {
            scope: scope.clone(),
            plugin: loaded.name.clone(),
            version: loaded.version.clone(),
            digest: PackageDigest::of(&upload.content),
            bytes: i64::try_from(bytes).unwrap_or(i64::MAX),
            file_name: (!archive::is_archive(&upload.content)).then(|| upload.file_name.clone()),
            manifest,
            uploaded_at: self.now_ms()?,
            uploaded_by: by.name.clone(),
        };
        let there = self.0.store.versions(scope, &version.plugin).await?;
        let same = there.iter().find(|there| there.version == version.version);
        if let Some(same) = same {
            if same.digest != version.digest {
                let message = format!(
                    "version {} of {} was uploaded with other content: a version never changes; give this one another number",
                    version.version, version.plugin
                );
                return Err(ToolError::new(ErrorKind::Conflict, message));
            }
            return Ok(Uploaded { version: same.clone(), known: true, warnings: loaded.warnings });
        }
        if there.len() >= options.max_versions {
            let message = format!(
                "{} versions of {} are uploaded, which is as many as may be: remove the plugin with its versions, or ask the \
                 operator",
                there.len(),
                version.plugin
            );
            return Err(too_many(options.max_versions, message));
        }
        if there.is_empty() {
            self.check_plugins(scope)?;
        }
        let detail = json!({ "version": version.version, "digest": version.digest, "bytes": version.bytes });
        let entry = self.entry(by, scope, "package.upload", version.plugin.as_str(), detail)?;
        let uploaded = Uploaded { version: version.clone(), known: false, warnings: loaded.warnings };
        let step = Step::AddPackage { row: version, content: upload.content };
        self.commit(by, vec![step], entry, &uploaded).await?;
        Ok(uploaded)
    }

    /// Installs an uploaded version: from now on it is the plugin of that name in the scope.
    ///
    /// # Errors
    /// `NotFound` where there is no such version; `Conflict` where the registration is not as it was seen, another plugin
    /// has the name, or callers of the old version would break and `install` does not allow it; `Dependency` where what it
    /// requires is not there, or others require another version; what loading says.
    pub async fn install(
        &self,
        by: &Actor,
        scope: &Scope,
        plugin: &PluginName,
        install: Install,
    ) -> Result<Registration, ToolError> {
        if let Some(done) = self.enter(by, scope, Need::Scope, "plugin.install").await? {
            return Ok(done);
        }
        self.put_version(by, scope, plugin, install, "plugin.install").await
    }

    /// Installs the version that was there before the one that is installed.
    ///
    /// # Errors
    /// As [`install`](Self::install); `NotFound` where there was none before.
    pub async fn rollback(
        &self,
        by: &Actor,
        scope: &Scope,
        plugin: &PluginName,
        install: Install,
    ) -> Result<Registration, ToolError> {
        if let Some(done) = self.enter(by, scope, Need::Scope, "plugin.rollback").await? {
            return Ok(done);
        }
        let before = self.0.store.registration(scope, plugin).await?.and_then(|row| row.previous);
        let version = install.version.clone().or(before).ok_or_else(|| {
            ToolError::new(ErrorKind::NotFound, format!("no version of {plugin} was installed before this one"))
        })?;
        let install = Install { version: Some(version), ..install };
        self.put_version(by, scope, plugin, install, "plugin.rollback").await
    }

    async fn put_version(
        &self,
        by: &Actor,
        scope: &Scope,
        plugin: &PluginName,
        install: Install,
        action: &str,
    ) -> Result<Registration, ToolError> {
        let versions = self.0.store.versions(scope, plugin).await?;
        let wanted = |there: &&PackageVersion| install.version.as_ref().is_none_or(|version| *version == there.version);
        let chosen = versions.iter().find(wanted).ok_or_else(|| {
            let which = install
                .version
                .as_ref()
                .map_or_else(|| "no version".to_owned(), |version| format!("no version {version}"));
            ToolError::new(ErrorKind::NotFound, format!("{which} of {plugin} is uploaded there"))
        })?;
        let content = self.content(&chosen.digest).await?;
        let file_name = chosen.file_name.clone().unwrap_or_else(|| plugin.to_string());
        let how = ReloadOptions { allow_breaking: install.allow_breaking };
        let (upgrade, _, _) = self.rehearse(scope, &file_name, &content, Some(how)).await?;
        let before = self.0.store.registration(scope, plugin).await?;
        let seen = expected(before.as_ref().map(|row| row.revision), install.seen)?;
        let now = self.now_ms()?;
        let row = match before {
            Some(row) => {
                let previous = (row.package.is_some() && row.version != chosen.version).then(|| row.version.clone());
                Registration {
                    version: chosen.version.clone(),
                    package: Some(chosen.digest),
                    previous: previous.or(row.previous),
                    updated_at: now,
                    revision: row.revision + 1,
                    ..row
                }
            }
            None => {
                self.check_room(scope)?;
                let package = Some(chosen.digest);
                Registration { package, ..Registration::new(scope, plugin, &chosen.version, now) }
            }
        };
        let detail = json!({
            "version": row.version, "previous": row.previous, "digest": row.package, "changes": upgrade,
            "allow_breaking": install.allow_breaking, "revision": row.revision,
        });
        let entry = self.entry(by, scope, action, plugin.as_str(), detail)?;
        self.commit(by, vec![Step::PutRegistration { row: row.clone(), expected: seen }], entry, &row).await?;
        Ok(row)
    }

    /// Takes an uploaded plugin out, or what was decided about another away. With `purge` its uploaded versions go too.
    ///
    /// # Errors
    /// `NotFound` where there is neither; `Dependency` where others require the plugin; `Conflict` where the registration
    /// is not as `seen`.
    pub async fn remove(
        &self,
        by: &Actor,
        scope: &Scope,
        plugin: &PluginName,
        seen: Option<Revision>,
        purge: bool,
    ) -> Result<(), ToolError> {
        if self.enter::<()>(by, scope, Need::Scope, "plugin.remove").await?.is_some() {
            return Ok(());
        }
        let row = self.0.store.registration(scope, plugin).await?;
        let seen = expected(row.as_ref().map(|row| row.revision), seen)?;
        let mut steps = Vec::new();
        if let Some(row) = &row {
            if row.package.is_some() {
                self.0.bay.registry().check_removable(scope, plugin)?;
            }
            steps.push(Step::RemoveRegistration { scope: scope.clone(), plugin: plugin.clone(), expected: seen });
        }
        if purge && !self.0.store.versions(scope, plugin).await?.is_empty() {
            steps.push(Step::RemovePackages { scope: scope.clone(), plugin: plugin.clone() });
        }
        if steps.is_empty() {
            let message = format!("nothing is installed or decided there about a plugin called {plugin}");
            return Err(ToolError::new(ErrorKind::NotFound, message));
        }
        let detail = json!({ "version": row.map(|row| row.version), "purge": purge });
        let entry = self.entry(by, scope, "plugin.remove", plugin.as_str(), detail)?;
        self.commit(by, steps, entry, &()).await
    }

    /// Loads an installed plugin anew, in this process: an uploaded one from its package, one from disk from there.
    ///
    /// # Errors
    /// `NotFound` where it is not registered there, or came from neither; what loading says, and then the old one goes on.
    pub async fn reload(&self, by: &Actor, scope: &Scope, plugin: &PluginName) -> Result<(), ToolError> {
        if self.enter::<()>(by, scope, Need::Scope, "plugin.reload").await?.is_some() {
            return Ok(());
        }
        self.reload_here(scope, plugin).await?;
        let entry = self.entry(by, scope, "plugin.reload", plugin.as_str(), Value::Null)?;
        self.commit(by, Vec::new(), entry, &()).await
    }

    /// The uploaded versions of a plugin, newest first.
    ///
    /// # Errors
    /// `NotFound` where the scope is another tenant's; what [`Store`](crate::store::Store) says.
    pub async fn versions(
        &self,
        by: &Actor,
        scope: &Scope,
        plugin: &PluginName,
    ) -> Result<Vec<PackageVersion>, ToolError> {
        self.allow(by, scope, Need::Scope, "package.list").await?;
        self.0.store.versions(scope, plugin).await
    }

    /// The bytes of a package that a row says is there.
    pub(super) async fn content(&self, digest: &PackageDigest) -> Result<Arc<[u8]>, ToolError> {
        let content = self.0.store.package(digest).await?;
        let content = content
            .ok_or_else(|| ToolError::new(ErrorKind::Internal, format!("the package {digest} is not in the store")))?;
        if PackageDigest::of(&content) != *digest {
            let message = format!("the package {digest} has other content than it was uploaded with: it is not loaded");
            return Err(ToolError::new(ErrorKind::Internal, message));
        }
        Ok(content)
    }

    /// Loads and checks a package without registering it; with `how`, also whether it could take its place.
    async fn rehearse(
        &self,
        scope: &Scope,
        file_name: &str,
        content: &[u8],
        how: Option<ReloadOptions>,
    ) -> Result<(Vec<String>, crate::load::Loaded, Value), ToolError> {
        let bay = &self.0.bay;
        let origin = PathBuf::from(file_name);
        let package = self.unpack(scope, file_name, content)?;
        let opened = bay.open_package(scope, &origin, package).await.map_err(told)?;
        let new = bay.prepare(scope, opened).map_err(|error| told(found_in(error, &origin)))?;
        let manifest =
            serde_json::to_value(new.plugin.metadata()).map_err(|error| super::broken("the manifest", &error))?;
        let loaded = bay.loaded(&new, &origin);
        let Some(how) = how else { return Ok((Vec::new(), loaded, manifest)) };
        let name = &new.owner.name;
        let is_ours =
            self.0.seen.rows.get(scope).is_some_and(|rows| rows.get(name).is_some_and(|row| row.package.is_some()));
        if !is_ours && bay.registry().catalog(scope).plugin(name).is_some() {
            let message = format!(
                "a plugin called {name} is there that was not uploaded: take it out where it comes from, or rename this one"
            );
            return Err(ToolError::new(ErrorKind::Conflict, message));
        }
        let changes = bay.rehearse_install(scope, origin, new, how).map_err(told)?;
        Ok((changes, loaded, manifest))
    }

    pub(super) fn unpack(
        &self,
        scope: &Scope,
        file_name: &str,
        content: &[u8],
    ) -> Result<toolbay_api::Package, ToolError> {
        let bay = &self.0.bay;
        archive::unpack(file_name, content, &bay.ceiling(scope), &bay.one_file_extensions()).map_err(told)
    }

    /// `Ok` where one more registration has room in the scope.
    pub(super) fn check_room(&self, scope: &Scope) -> Result<(), ToolError> {
        let rows = self.0.seen.rows.get(scope).map_or(0, |rows| rows.len());
        if rows < crate::activation::MAX_DECISIONS {
            return Ok(());
        }
        let message =
            format!("about {rows} plugins something is decided there, which is as many as may be: remove some");
        Err(too_many(crate::activation::MAX_DECISIONS, message))
    }

    /// `Ok` where one more plugin may be uploaded in the scope.
    fn check_plugins(&self, scope: &Scope) -> Result<(), ToolError> {
        let uploaded = |row: &&Registration| row.package.is_some();
        let there = self.0.seen.rows.get(scope).map_or(0, |rows| rows.values().filter(uploaded).count());
        let max = self.0.options.max_plugins;
        if *scope == Scope::Global || there < max {
            return Ok(());
        }
        Err(too_many(max, format!("{there} plugins are uploaded there, which is as many as may be: remove one first")))
    }
}

fn too_many(allowed: usize, message: String) -> ToolError {
    let mut error = ToolError::limit(Limit::Storage, allowed as u64, allowed as u64 + 1);
    error.message = message.into();
    error
}
