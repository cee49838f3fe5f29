//! Plugins from disk: a folder with a manifest, or one file. Reads files into a [`Package`] and reports what became of
//! each.

use std::{
    collections::BTreeMap,
    fmt, fs,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use semver::Version;
use toolbay_api::{
    Asset, Assets, CodeState, ErrorKind, Limits, LoadError, Package, PluginName, Scope, manifest::ManifestError,
};

use crate::manifest_file::{self, ManifestFile};

/// Files that one plugin may bring, code and assets together.
pub(crate) const MAX_FILES: usize = 1_000;
/// Bytes of all assets of one plugin.
const MAX_ASSET_BYTES: u64 = 256 << 20;

/// What became of every plugin that was found.
#[derive(Debug, Default)]
pub struct LoadReport {
    /// Registered.
    pub loaded: Vec<Loaded>,
    /// Not registered, with the reason.
    pub failed: Vec<Failed>,
    /// Not a plugin.
    pub skipped: Vec<Skipped>,
}

/// A plugin that was registered.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "the fields are named by the vocabulary's own words")]
pub struct Loaded {
    pub name: PluginName,
    pub version: Version,
    pub scope: Scope,
    pub origin: PathBuf,
    pub tools: usize,
    pub hooks: usize,
    pub code: CodeState,
    /// What an operator may want to change, in full sentences.
    pub warnings: Vec<String>,
}

/// A plugin that was not registered.
#[derive(Debug)]
#[allow(missing_docs, reason = "the fields are named by the vocabulary's own words")]
pub struct Failed {
    pub origin: PathBuf,
    pub scope: Scope,
    pub error: LoadError,
}

/// Something beside the plugins that is none.
#[derive(Debug)]
#[allow(missing_docs, reason = "the fields are named by the vocabulary's own words")]
pub struct Skipped {
    pub origin: PathBuf,
    pub reason: String,
}

impl LoadReport {
    /// Adds what another report has.
    pub fn merge(&mut self, other: Self) {
        self.loaded.extend(other.loaded);
        self.failed.extend(other.failed);
        self.skipped.extend(other.skipped);
    }
}

impl fmt::Display for Loaded {
    /// A line for the plugin and one for each warning, without the last line's end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, version, scope, tools, hooks, code, warnings, .. } = self;
        let (tools, hooks) = (counted(*tools, "tool"), counted(*hooks, "hook"));
        let waits = if matches!(code, CodeState::AtFirstUse) { ", compiled at first use" } else { "" };
        write!(f, "loaded  {name} {version} ({scope}): {tools}, {hooks}{waits}")?;
        warnings.iter().try_for_each(|warning| write!(f, "\n        note: {warning}"))
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed  {} ({}): {}", self.origin.display(), self.scope, self.error)
    }
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.loaded.iter().try_for_each(|loaded| writeln!(f, "{loaded}"))?;
        self.failed.iter().try_for_each(|failed| writeln!(f, "{failed}"))?;
        for skipped in &self.skipped {
            writeln!(f, "skipped {}: {}", skipped.origin.display(), skipped.reason)?;
        }
        Ok(())
    }
}

fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// What lies in a folder of plugins: the plugins, and what is none.
pub(crate) fn discover(folder: &Path, one_file_extensions: &[&str]) -> Result<(Vec<PathBuf>, Vec<Skipped>), LoadError> {
    let (mut found, mut skipped) = (Vec::new(), Vec::new());
    for path in sorted_entries(folder)? {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let extension = path.extension().map(|extension| extension.to_string_lossy().into_owned()).unwrap_or_default();
        // `cases` is where plugins' tests lie.
        if name.starts_with('.') || name == "cases" {
            continue;
        }
        if path.is_dir() {
            if manifest_file::is_in(&path) {
                found.push(path);
            } else {
                let reason = "a folder without plugin.toml (or .yaml, .json)".to_owned();
                skipped.push(Skipped { origin: path, reason });
            }
        } else if one_file_extensions.contains(&extension.as_str()) {
            found.push(path);
        } else if !name.ends_with(".md") && !name.starts_with("LICENSE") {
            skipped.push(Skipped { origin: path, reason: "not a plugin file".to_owned() });
        }
    }
    Ok((found, skipped))
}

/// A plugin's package, and its manifest file, as it stands there, by its name.
pub(crate) type WithManifest = (Package, Option<(String, String)>);

/// Reads the plugin at `path` into memory.
pub(crate) fn read(path: &Path, limits: &Limits, extensions: &[&str]) -> Result<WithManifest, LoadError> {
    let metadata = fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if metadata.is_dir() {
        return read_folder(path, limits, extensions);
    }
    if !metadata.is_file() {
        return Err(no_plain_file());
    }
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if !extensions.contains(&extension) {
        return Err(LoadError::new(
            ErrorKind::Config,
            format!("not a plugin: give a folder with plugin.toml or a file ending in .{}", extensions.join(", .")),
        ));
    }
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let source = read_source(path, &name, limits)?;
    let package = Package {
        origin: path.to_owned(),
        manifest: None,
        files: BTreeMap::from([(name, source)]),
        assets: Assets::default(),
    };
    Ok((package, None))
}

fn read_folder(path: &Path, limits: &Limits, extensions: &[&str]) -> Result<WithManifest, LoadError> {
    let Some(manifest_path) = manifest_file::find(path)? else {
        return Err(LoadError::new(
            ErrorKind::Config,
            "the folder has no plugin.toml (or .yaml, .json): write one, or give the plugin's one file",
        ));
    };
    let manifest_name = manifest_path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // Refused before it is read: an error in it quotes a line of it.
    if manifest_path.is_symlink() {
        return Err(is_a_link(manifest_name));
    }
    let text = read_text(&manifest_path, &manifest_name, manifest_file::MAX_BYTES as u64, |_| ErrorKind::Config)?;
    let file = ManifestFile::parse(&manifest_name, &text)?;
    // A path such as `.` has no last step of its own; its absolute form has.
    let absolute = fs::canonicalize(path).map_err(|error| unreadable(path, &error))?;
    let folder = absolute.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = &file.manifest.name;
    if name.as_str() != folder {
        let problem = format!("is {:?}, but the folder is called {folder:?}: make them equal", name.as_str());
        return Err(file.error(&ManifestError::new("name", problem)));
    }
    let manifest = file.manifest;
    let (mut files, mut count) = (BTreeMap::new(), 0);
    collect(path, "", &mut count, &mut |relative, file| {
        let extension = file.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if !relative.starts_with("assets/") && extensions.contains(&extension) {
            let source = read_source(file, relative, limits)?;
            files.insert(relative.to_owned(), source);
        }
        Ok(())
    })?;
    let assets = path.join("assets");
    let assets = if assets.is_dir() { read_assets(&assets)? } else { Assets::default() };
    let package = Package { origin: path.to_owned(), manifest: Some(manifest), files, assets };
    Ok((package, Some((manifest_name, text))))
}

/// Reads every file below `folder` as an asset.
pub(crate) fn read_assets(folder: &Path) -> Result<Assets, LoadError> {
    let (mut assets, mut count, mut bytes) = (Vec::new(), 0, 0);
    collect(folder, "", &mut count, &mut |relative, file| {
        bytes += fs::metadata(file).map_err(|error| unreadable(file, &error))?.len();
        if bytes > MAX_ASSET_BYTES {
            return Err(LoadError::new(
                ErrorKind::Config,
                format!("the assets are over {MAX_ASSET_BYTES} bytes together: leave some out"),
            )
            .in_file(relative));
        }
        let content = fs::read(file).map_err(|error| unreadable(file, &error))?;
        assets.push((relative.to_owned(), Asset::new(content)));
        Ok(())
    })?;
    Ok(assets.into_iter().collect())
}

/// Calls `take` for every file below `folder`, in alphabetical order, with its path from there.
fn collect(
    folder: &Path,
    prefix: &str,
    count: &mut usize,
    take: &mut impl FnMut(&str, &Path) -> Result<(), LoadError>,
) -> Result<(), LoadError> {
    for path in sorted_entries(folder)? {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if name.starts_with('.') {
            continue;
        }
        let relative = format!("{prefix}{name}");
        let kind = fs::symlink_metadata(&path).map_err(|error| unreadable(&path, &error))?.file_type();
        // A link could lead out of the folder to any file that the host can read.
        if kind.is_symlink() {
            return Err(is_a_link(relative));
        }
        *count += 1;
        if *count > MAX_FILES {
            return Err(LoadError::new(ErrorKind::Config, format!("the plugin has more than {MAX_FILES} files")));
        }
        if kind.is_dir() {
            collect(&path, &format!("{relative}/"), count, take)?;
        } else if kind.is_file() {
            take(&relative, &path)?;
        } else {
            return Err(no_plain_file().in_file(relative));
        }
    }
    Ok(())
}

fn sorted_entries(folder: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let entries = fs::read_dir(folder).map_err(|error| unreadable(folder, &error))?;
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry.map_err(|error| unreadable(folder, &error))?.path());
    }
    paths.sort();
    Ok(paths)
}

/// Whether `path` is one plugin rather than a folder of them.
pub fn is_plugin(path: &Path) -> bool {
    path.is_file() || manifest_file::is_in(path)
}

fn read_source(path: &Path, name: &str, limits: &Limits) -> Result<Arc<str>, LoadError> {
    let allowed = limits.max_source_bytes as u64;
    let limit = |used| ErrorKind::LimitExceeded { limit: toolbay_api::Limit::SourceSize, allowed, used };
    read_text(path, name, allowed, limit).map(Into::into)
}

/// Reads a text of at most `allowed` bytes; `too_long` is the kind of error for a longer one. No more than that is read,
/// also where the file grows meanwhile.
fn read_text(
    path: &Path,
    name: &str,
    allowed: u64,
    too_long: impl FnOnce(u64) -> ErrorKind,
) -> Result<String, LoadError> {
    let file = fs::File::open(path).map_err(|error| unreadable(path, &error))?;
    let bytes = file.metadata().map_err(|error| unreadable(path, &error))?.len();
    let mut content = Vec::new();
    file.take(allowed.saturating_add(1)).read_to_end(&mut content).map_err(|error| unreadable(path, &error))?;
    let bytes = bytes.max(content.len() as u64);
    if bytes > allowed {
        let message = format!("the file has {bytes} bytes, and {allowed} are allowed: split or shorten it");
        return Err(LoadError::new(too_long(bytes), message).in_file(name));
    }
    String::from_utf8(content).map_err(|_| LoadError::new(ErrorKind::Compile, "is not UTF-8 text").in_file(name))
}

fn is_a_link(file: String) -> LoadError {
    LoadError::new(ErrorKind::Config, "is a link: a plugin is made of plain files").in_file(file)
}

/// A pipe or a device could keep the loader waiting for ever or never end.
fn no_plain_file() -> LoadError {
    LoadError::new(ErrorKind::Config, "is neither a file nor a folder: a plugin is made of plain files")
}

pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> LoadError {
    let message = match error.kind() {
        std::io::ErrorKind::NotFound => format!("{} does not exist", path.display()),
        _ => format!("{} cannot be read: {error}", path.display()),
    };
    LoadError::new(ErrorKind::NotFound, message)
}
