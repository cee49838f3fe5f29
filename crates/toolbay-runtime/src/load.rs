//! Plugins from disk: a folder with a manifest, or one file. Reads files into a [`Package`] and reports what became of
//! each.

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use semver::Version;
use toolbay_api::{Asset, Assets, ErrorKind, Limits, LoadError, Manifest, Package, PluginName, Scope};

/// Files that one plugin may bring, code and assets together.
const MAX_FILES: usize = 1_000;
/// Bytes of all assets of one plugin.
const MAX_ASSET_BYTES: u64 = 256 << 20;
/// Bytes of a manifest file.
const MAX_MANIFEST_BYTES: u64 = 256 << 10;
/// The names under which a manifest is looked for, in this order.
const MANIFEST_NAMES: [&str; 4] = ["plugin.toml", "plugin.yaml", "plugin.yml", "plugin.json"];

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

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for plugin in &self.loaded {
            let Loaded { name, version, scope, tools, hooks, .. } = plugin;
            let (tools, hooks) = (counted(*tools, "tool"), counted(*hooks, "hook"));
            writeln!(f, "loaded  {name} {version} ({scope}): {tools}, {hooks}")?;
            for warning in &plugin.warnings {
                writeln!(f, "        note: {warning}")?;
            }
        }
        for failed in &self.failed {
            writeln!(f, "failed  {} ({}): {}", failed.origin.display(), failed.scope, failed.error)?;
        }
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
            if manifest_path(&path).is_some() {
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

/// Reads the plugin at `path` into memory. `assets` is a folder to take in the place of the plugin's own assets.
pub(crate) fn read(path: &Path, limits: &Limits, extensions: &[&str]) -> Result<Package, LoadError> {
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
    Ok(Package {
        origin: path.to_owned(),
        manifest: None,
        files: BTreeMap::from([(name, source)]),
        assets: Assets::default(),
    })
}

fn read_folder(path: &Path, limits: &Limits, extensions: &[&str]) -> Result<Package, LoadError> {
    let Some(manifest_path) = manifest_path(path) else {
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
    let manifest = read_manifest(&manifest_path, &manifest_name)?;
    // A path such as `.` has no last step of its own; its absolute form has.
    let absolute = fs::canonicalize(path).map_err(|error| unreadable(path, &error))?;
    let folder = absolute.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if manifest.name.as_str() != folder {
        return Err(LoadError::new(
            ErrorKind::Config,
            format!("name: is {:?}, but the folder is called {folder:?}: make them equal", manifest.name.as_str()),
        )
        .in_file(manifest_name));
    }
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
    Ok(Package { origin: path.to_owned(), manifest: Some(manifest), files, assets })
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
    path.is_file() || manifest_path(path).is_some()
}

fn manifest_path(folder: &Path) -> Option<PathBuf> {
    MANIFEST_NAMES.iter().map(|name| folder.join(name)).find(|path| path.is_file())
}

fn read_source(path: &Path, name: &str, limits: &Limits) -> Result<Arc<str>, LoadError> {
    let bytes = fs::metadata(path).map_err(|error| unreadable(path, &error))?.len();
    let allowed = limits.max_source_bytes as u64;
    if bytes > allowed {
        let kind = ErrorKind::LimitExceeded { limit: toolbay_api::Limit::SourceSize, allowed, used: bytes };
        let message = format!("the file has {bytes} bytes, and {allowed} are allowed: split or shorten it");
        return Err(LoadError::new(kind, message).in_file(name));
    }
    let content = fs::read(path).map_err(|error| unreadable(path, &error))?;
    match String::from_utf8(content) {
        Ok(text) => Ok(text.into()),
        Err(_) => Err(LoadError::new(ErrorKind::Compile, "is not UTF-8 text").in_file(name)),
    }
}

fn read_manifest(path: &Path, name: &str) -> Result<Manifest, LoadError> {
    let problem = |message: String| LoadError::new(ErrorKind::Config, message).in_file(name);
    let bytes = fs::metadata(path).map_err(|error| unreadable(path, &error))?.len();
    if bytes > MAX_MANIFEST_BYTES {
        return Err(problem(format!("the file has {bytes} bytes, and {MAX_MANIFEST_BYTES} are allowed")));
    }
    let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    parse_manifest(name, &text)
}

/// Parses the text of a manifest file; its name tells the format.
///
/// # Errors
/// `Config` with file, line and field.
pub fn parse_manifest(name: &str, text: &str) -> Result<Manifest, LoadError> {
    let problem = |message: String| LoadError::new(ErrorKind::Config, message.trim_end().to_owned()).in_file(name);
    let extension = Path::new(name).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let manifest: Manifest = match extension {
        "toml" => toml::from_str(text).map_err(|error| {
            let found = problem(error.message().to_owned());
            match error.span() {
                Some(span) => {
                    let before = text.get(..span.start).unwrap_or_default();
                    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
                    let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
                    found.at(before.matches('\n').count() + 1, column, text)
                }
                None => found,
            }
        })?,
        "json" => serde_json::from_str(text)
            .map_err(|error| problem(error.to_string()).at(error.line(), error.column(), text))?,
        _ => serde_saphyr::from_str(text).map_err(|error| problem(error.to_string()))?,
    };
    manifest.validate().map_err(|error| problem(error.to_string()))?;
    Ok(manifest)
}

fn is_a_link(file: String) -> LoadError {
    LoadError::new(ErrorKind::Config, "is a link: a plugin is made of plain files").in_file(file)
}

/// A pipe or a device could keep the loader waiting for ever or never end.
fn no_plain_file() -> LoadError {
    LoadError::new(ErrorKind::Config, "is neither a file nor a folder: a plugin is made of plain files")
}

fn unreadable(path: &Path, error: &std::io::Error) -> LoadError {
    let message = match error.kind() {
        std::io::ErrorKind::NotFound => format!("{} does not exist", path.display()),
        _ => format!("{} cannot be read: {error}", path.display()),
    };
    LoadError::new(ErrorKind::NotFound, message)
}
