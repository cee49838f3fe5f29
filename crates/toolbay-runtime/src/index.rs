//! Registry indexes: a JSON file that names packages beside it, with versions and checksums, and what of it a host loads.
//! [`mod@write`] makes one from a folder.

pub mod write;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Read,
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use semver::{Version, VersionReq};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use toolbay_api::{ErrorKind, LoadError, PluginName, manifest::MAX_DESCRIPTION};

use crate::{
    load::{Skipped, unreadable},
    manifest_file::MANIFEST_NAMES,
};

/// The version of the file's form that is read and written here.
pub const FORM: u32 = 1;
/// Bytes of an index.
pub const MAX_BYTES: u64 = 16 << 20;
/// Entries of an index.
pub const MAX_ENTRIES: usize = 50_000;
/// Characters of a path in an index.
pub const MAX_PATH: usize = 500;

/// A registry index: packages of plugins that lie beside it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "A registry index of Toolbay plugins")]
pub struct Index {
    /// The version of this form: 1.
    #[schemars(range(min = FORM, max = FORM))]
    pub version: u32,
    /// The packages. A plugin may stand there in several versions, each once.
    #[schemars(length(max = MAX_ENTRIES))]
    pub plugins: Vec<IndexEntry>,
}

/// One version of one plugin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IndexEntry {
    /// The plugin's name.
    pub name: PluginName,
    /// Its version.
    #[schemars(with = "String")]
    pub version: Version,
    /// Its folder or its one file, by the path from the index's own folder, with / between the steps; never out of it.
    #[schemars(length(min = 1, max = MAX_PATH))]
    pub path: String,
    /// The SHA-256 of its content, in 64 digits of 0-9 a-f.
    #[schemars(regex(pattern = "^[0-9a-f]{64}$"))]
    pub sha256: String,
    /// The range of Toolbay versions that it works with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub framework: Option<VersionReq>,
    /// What it is for, in a sentence.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = MAX_DESCRIPTION))]
    pub description: String,
    /// Whether it is not to be used any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub yanked: bool,
}

impl Index {
    /// The JSON Schema of the file, for editors.
    #[must_use]
    pub fn json_schema() -> Value {
        schemars::schema_for!(Self).to_value()
    }

    /// The file's text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// A package that an index names, where it lies.
#[derive(Debug, Clone)]
pub(crate) struct Picked {
    pub(crate) path: PathBuf,
    pub(crate) entry: IndexEntry,
}

/// What a host makes of an index.
#[derive(Debug, Default)]
pub(crate) struct Picks {
    /// Of each plugin the one to load.
    pub(crate) picked: Vec<Picked>,
    /// Entries that cannot be used since something is wrong with them, and the name that each claims.
    pub(crate) failed: Vec<(PathBuf, Option<PluginName>, LoadError)>,
    /// Plugins of which nothing is to be used.
    pub(crate) skipped: Vec<Skipped>,
}

/// The file as far as one mistake in an entry is no concern of the others.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Whole {
    version: u32,
    plugins: Vec<Value>,
}

/// Whether `path` is to be read as an index: a JSON file that is no manifest.
pub(crate) fn is_index(path: &Path) -> bool {
    let is_manifest = path.file_name().is_some_and(|name| MANIFEST_NAMES.iter().any(|manifest| name == *manifest));
    path.extension().is_some_and(|extension| extension == "json") && !is_manifest && path.is_file()
}

/// Reads the index at `path` and picks of each plugin the newest version that this Toolbay can load and that is not yanked.
///
/// # Errors
/// `Config` where the file is no index at all, with line and column; `NotFound` where it cannot be read.
pub(crate) fn read(path: &Path) -> Result<Picks, LoadError> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let file = File::open(path).map_err(|error| unreadable(path, &error))?;
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|error| unreadable(path, &error))?;
    let config = |message: String| LoadError::new(ErrorKind::Config, message).in_file(name.clone());
    if text.len() as u64 > MAX_BYTES {
        return Err(config(format!("the index has more than {MAX_BYTES} bytes: split it")));
    }
    // serde would take a list for it, by the order of the fields.
    if !text.trim_start().starts_with('{') {
        return Err(config("is no registry index: write { \"version\": 1, \"plugins\": [] }".to_owned()));
    }
    let whole: Whole = serde_json::from_str(&text).map_err(|error| {
        let problem = error.to_string();
        let problem = problem.rsplit_once(" at line ").map_or(&*problem, |(problem, _)| problem).to_owned();
        config(format!("is no registry index: {problem}")).at(error.line(), error.column().max(1), &text)
    })?;
    if whole.version != FORM {
        let form = whole.version;
        return Err(config(format!("version: {form} is another form of index than {FORM}, which is read here")));
    }
    if whole.plugins.len() > MAX_ENTRIES {
        let count = whole.plugins.len();
        return Err(config(format!("plugins: has {count} entries, and {MAX_ENTRIES} are allowed: split it")));
    }
    let base = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(pick(path, base, whole.plugins))
}

fn pick(index: &Path, base: &Path, entries: Vec<Value>) -> Picks {
    let mut picks = Picks::default();
    let (mut seen, mut by_name) = (BTreeSet::new(), BTreeMap::<PluginName, Vec<(IndexEntry, PathBuf)>>::new());
    for (at, value) in entries.into_iter().enumerate() {
        let claimed = value.get("name").and_then(Value::as_str).and_then(|name| PluginName::new(name).ok());
        let checked = entry(value).and_then(|entry| {
            if !seen.insert((entry.name.clone(), entry.version.clone())) {
                return Err(format!("version: {} {} stands there twice", entry.name, entry.version));
            }
            let path = place(base, &entry.path)?;
            Ok((entry, path))
        });
        match checked {
            Ok((entry, path)) => by_name.entry(entry.name.clone()).or_default().push((entry, path)),
            Err(problem) => {
                let whose = claimed.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
                let error = LoadError::new(ErrorKind::Config, format!("plugins[{at}]{whose}: {problem}"));
                picks.failed.push((index.to_owned(), claimed, error));
            }
        }
    }
    let this = Version::parse(env!("CARGO_PKG_VERSION")).ok();
    for (name, mut versions) in by_name {
        // Of those that are released the newest; what comes before a release only where there is no release.
        versions.sort_by(|(a, _), (b, _)| {
            let released = |entry: &IndexEntry| entry.version.pre.is_empty();
            (released(b), &b.version).cmp(&(released(a), &a.version))
        });
        let mut skip = |path: &Path, reason: String| {
            picks.skipped.push(Skipped { origin: path.to_owned(), reason });
        };
        // What is skipped is of interest only above the one that is taken.
        for (entry, path) in versions {
            let version = &entry.version;
            let fits = |range: &VersionReq| this.as_ref().is_some_and(|this| range.matches(this));
            match &entry.framework {
                _ if entry.yanked => skip(&path, format!("{name} {version} is yanked in the index")),
                Some(range) if !fits(range) => {
                    let this = env!("CARGO_PKG_VERSION");
                    skip(&path, format!("{name} {version} asks for Toolbay {range}, and this is {this}"));
                }
                _ => {
                    picks.picked.push(Picked { path, entry });
                    break;
                }
            }
        }
    }
    picks
}

fn entry(value: Value) -> Result<IndexEntry, String> {
    if !value.is_object() {
        return Err("must be an object".to_owned());
    }
    let entry: IndexEntry = serde_json::from_value(value).map_err(|error| error.to_string())?;
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    if entry.sha256.len() != 64 || !entry.sha256.bytes().all(is_digit) {
        return Err("sha256: must be 64 digits of 0-9 a-f".to_owned());
    }
    if entry.description.chars().count() > MAX_DESCRIPTION {
        return Err(format!("description: must have at most {MAX_DESCRIPTION} characters"));
    }
    Ok(entry)
}

/// Where the package lies that an index in `base` names by `path`.
///
/// # Errors
/// What is wrong with the path: it leads out of the folder, or a step of it is a link, which could.
fn place(base: &Path, path: &str) -> Result<PathBuf, String> {
    let is_step = |step: &str| !matches!(step, "" | "." | "..") && !step.contains(['\\', ':', '\0']);
    if path.chars().count() > MAX_PATH || !path.split('/').all(is_step) {
        let shown: String = path.chars().take(80).collect();
        return Err(format!(
            "path: {shown:?} must lead to something below the index's folder, with / between the steps"
        ));
    }
    let mut place = base.to_owned();
    for step in path.split('/') {
        place.push(step);
        if fs::symlink_metadata(&place).is_ok_and(|metadata| metadata.is_symlink()) {
            return Err(format!("path: {path:?} goes by a link: packages of an index are plain files and folders"));
        }
    }
    Ok(place)
}

impl Picked {
    /// `Ok` where the content is what the index says.
    ///
    /// # Errors
    /// `Config` with both checksums.
    pub(crate) fn check_content(&self, sum: &str) -> Result<(), LoadError> {
        if sum == self.entry.sha256 {
            return Ok(());
        }
        let IndexEntry { name, version, sha256, .. } = &self.entry;
        let message = format!(
            "{name} {version} is not what the index says: its content has the sha256 {sum}, and the index has {sha256}; fetch \
             it again, or find out who changed it"
        );
        Err(LoadError::new(ErrorKind::Config, message))
    }

    /// `Ok` where the package is the plugin that the index says.
    ///
    /// # Errors
    /// `Config` with both names.
    pub(crate) fn check_name(&self, name: &PluginName, version: &Version) -> Result<(), LoadError> {
        if *name == self.entry.name && *version == self.entry.version {
            return Ok(());
        }
        let IndexEntry { name: said, version: told, .. } = &self.entry;
        let message = format!("the index calls it {said} {told}, and it calls itself {name} {version}: mend the index");
        Err(LoadError::new(ErrorKind::Config, message))
    }
}
