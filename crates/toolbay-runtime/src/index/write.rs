//! Makes a registry index from a folder of packages. It stands apart from reading one, which trusts nobody, since who writes
//! one answers for it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use toolbay_api::{ErrorKind, LoadError, Scope};

use super::{FORM, Index, IndexEntry, MAX_ENTRIES};
use crate::{
    load::{self, Failed, LoadReport},
    manifest_file,
    toolbay::{Toolbay, found_in},
};

/// Folders within folders that are looked through for packages.
const MAX_DEPTH: usize = 8;

impl Toolbay {
    /// Makes an index of the plugins below `folder`, of all their versions, with paths from `base`, a folder around them in
    /// which the index will lie. Each is checked as [`check`](Self::check) does; where one fails, it is in the report and
    /// not in the index. What is yanked in `before`, an index of the same place, stays so.
    ///
    /// # Errors
    /// `Config` where `folder` is not within `base`, or there are too many plugins; `NotFound` where it cannot be read.
    pub async fn index_of(
        &self,
        folder: &Path,
        base: &Path,
        before: Option<&Index>,
    ) -> Result<(Index, LoadReport), LoadError> {
        let absolute = |path: &Path| fs::canonicalize(path).map_err(|error| load::unreadable(path, &error));
        let (folder, base) = (absolute(folder)?, absolute(base)?);
        if !folder.starts_with(&base) {
            let message = format!("{} is not within {}, where the index is to lie", folder.display(), base.display());
            return Err(LoadError::new(ErrorKind::Config, message));
        }
        let (mut report, mut plugins) = (LoadReport::default(), Vec::new());
        for path in packages(&folder, &self.one_file_extensions(), MAX_DEPTH)? {
            match self.entry_of(&path, &base).await {
                Ok((mut entry, loaded)) => {
                    let is_it = |old: &&IndexEntry| old.name == entry.name && old.version == entry.version;
                    entry.yanked =
                        before.and_then(|before| before.plugins.iter().find(is_it)).is_some_and(|old| old.yanked);
                    plugins.push(entry);
                    report.loaded.push(loaded);
                }
                Err(error) => {
                    let error = found_in(error, &path);
                    report.failed.push(Failed { origin: path, scope: Scope::Global, error });
                }
            }
        }
        plugins.sort_by(|a, b| (&a.name, &a.version).cmp(&(&b.name, &b.version)));
        Ok((Index { version: FORM, plugins }, report))
    }

    async fn entry_of(&self, path: &Path, base: &Path) -> Result<(IndexEntry, load::Loaded), LoadError> {
        let (package, sum) = self.read_with_sum(&Scope::Global, path)?;
        let opened = self.open_package(&Scope::Global, path, package).await?;
        let registered = self.prepare(&Scope::Global, opened)?;
        let metadata = registered.plugin.metadata();
        let relative = path.strip_prefix(base).ok().and_then(Path::to_str);
        let relative = relative.ok_or_else(|| LoadError::new(ErrorKind::Config, "has a name that is no text"))?;
        let entry = IndexEntry {
            name: metadata.name.clone(),
            version: metadata.version.clone(),
            path: relative.replace(std::path::MAIN_SEPARATOR, "/"),
            sha256: sum,
            framework: metadata.framework.clone(),
            description: metadata.description.clone(),
            yanked: false,
        };
        Ok((entry, self.loaded(&registered, path)))
    }
}

/// The plugins below `folder`: folders with a manifest, and one-file plugins outside of those.
fn packages(folder: &Path, extensions: &[&str], depth: usize) -> Result<Vec<PathBuf>, LoadError> {
    let (mut found, skipped) = load::discover(folder, extensions)?;
    for skipped in skipped.into_iter().map(|skipped| skipped.origin) {
        let is_folder = fs::symlink_metadata(&skipped).is_ok_and(|metadata| metadata.is_dir());
        if is_folder && depth > 0 && !manifest_file::is_in(&skipped) {
            found.extend(packages(&skipped, extensions, depth - 1)?);
        }
    }
    if found.len() > MAX_ENTRIES {
        return Err(LoadError::new(
            ErrorKind::Config,
            format!("there are more than {MAX_ENTRIES} plugins: split them"),
        ));
    }
    Ok(found)
}
