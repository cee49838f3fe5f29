//! Manifest files: TOML, YAML and JSON, read into one tree that remembers where everything stands, and from there into the
//! one type. It stands apart from `load.rs` since a text is all it needs: loader, checker, tests and fuzzing use it alike.

mod json;
mod toml;
mod yaml;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use toolbay_api::{
    ErrorKind, LoadError, Manifest,
    manifest::{FieldPart, ManifestError},
};

/// The names under which a plugin's folder may have its manifest; it has just one of them.
pub const MANIFEST_NAMES: [&str; 4] = ["plugin.toml", "plugin.yaml", "plugin.yml", "plugin.json"];

/// Bytes of a manifest file.
pub(crate) const MAX_BYTES: usize = 256 << 10;
/// Levels of tables and lists in a manifest file. The schemas in it are the deepest part.
const MAX_DEPTH: usize = 64;

/// Characters of an error's message.
const MAX_MESSAGE: usize = 1_000;

/// Parses the text of a manifest file and checks it. The ending of `name` tells the format: `.toml`, `.json`, else YAML.
///
/// ```
/// let text = "name = \"fx\"\nversion = \"1.0.0\"\ndescription = \"Converts.\"\nauthor = \"Acme\"\ncolour = 1\n";
/// let error = toolbay_runtime::parse_manifest("plugin.toml", text).unwrap_err();
/// assert_eq!(error.position, Some((5, 1)));
/// assert!(error.message.starts_with("colour: unknown key"));
/// ```
///
/// # Errors
/// `Config` with the file, the field and, where it stands in the text, line, column and the line itself.
pub fn parse_manifest(name: &str, text: &str) -> Result<Manifest, LoadError> {
    ManifestFile::parse(name, text).map(|file| file.manifest)
}

/// The manifest in `folder`, if there is one.
///
/// # Errors
/// `Config` where there are several, with the names of two.
pub(crate) fn find(folder: &Path) -> Result<Option<PathBuf>, LoadError> {
    let mut names = MANIFEST_NAMES.into_iter().filter(|name| folder.join(name).is_file());
    match (names.next(), names.next()) {
        (Some(one), Some(other)) => Err(LoadError::new(
            ErrorKind::Config,
            format!("the folder has both {one} and {other}, and a plugin has one manifest: take one of them away"),
        )),
        (name, _) => Ok(name.map(|name| folder.join(name))),
    }
}

/// Whether `folder` holds a plugin, or what was meant to be one.
pub(crate) fn is_in(folder: &Path) -> bool {
    MANIFEST_NAMES.into_iter().any(|name| folder.join(name).is_file())
}

/// A manifest together with the text that it was read from.
pub(crate) struct ManifestFile<'t> {
    pub(crate) manifest: Manifest,
    name: &'t str,
    text: &'t str,
    tree: Node,
}

impl<'t> ManifestFile<'t> {
    pub(crate) fn parse(name: &'t str, text: &'t str) -> Result<Self, LoadError> {
        if text.len() > MAX_BYTES {
            let message = format!("the file has {} bytes, and {MAX_BYTES} are allowed", text.len());
            return Err(LoadError::new(ErrorKind::Config, message).in_file(name));
        }
        let extension = Path::new(name).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        let tree = match extension {
            "toml" => toml::read(text),
            "json" => json::read(text),
            _ => yaml::read(text),
        };
        let tree = tree.map_err(|fault| located(name, text, fault))?;
        match Manifest::from_json(tree.to_json()) {
            Ok(manifest) => Ok(Self { manifest, name, text, tree }),
            Err(problem) => Err(told(name, text, &tree, &problem)),
        }
    }

    /// The error that `problem` is, with the place of its field.
    pub(crate) fn error(&self, problem: &ManifestError) -> LoadError {
        told(self.name, self.text, &self.tree, problem)
    }
}

fn told(name: &str, text: &str, tree: &Node, problem: &ManifestError) -> LoadError {
    located(name, text, Fault { message: problem.to_string(), at: tree.find(&problem.field, problem.part) })
}

fn located(name: &str, text: &str, fault: Fault) -> LoadError {
    // A parser may quote what stands there, and that may be long.
    let message: String = fault.message.trim_end().chars().take(MAX_MESSAGE).collect();
    let error = LoadError::new(ErrorKind::Config, message).in_file(name);
    match fault.at {
        Some(place) => {
            let (line, column) = place.in_text(text);
            error.at(line, column, text)
        }
        None => error,
    }
}

/// A text that is not of its format.
struct Fault {
    message: String,
    at: Option<Place>,
}

impl Fault {
    fn new(message: impl Into<String>, at: Place) -> Self {
        Self { message: message.into(), at: Some(at) }
    }

    fn too_deep(at: Place) -> Self {
        Self::new(format!("more than {MAX_DEPTH} tables and lists in each other: write it flatter"), at)
    }
}

/// Where something stands, as its reader knows it. Lines are counted only for what is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Bytes from the beginning.
    Offset(usize),
    /// Line and column, from 1.
    Line(usize, usize),
}

impl Place {
    fn in_text(self, text: &str) -> (usize, usize) {
        match self {
            Self::Line(line, column) => (line.max(1), column.max(1)),
            Self::Offset(offset) => {
                let before = text.get(..offset).unwrap_or(text);
                let line_start = before.rfind('\n').map_or(0, |at| at + 1);
                let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
                (before.matches('\n').count() + 1, column)
            }
        }
    }
}

/// A value of the text and where it stands.
#[derive(Debug, Clone)]
struct Node {
    at: Place,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Scalar(Value),
    List(Vec<Node>),
    Table(Vec<Entry>),
}

#[derive(Debug, Clone)]
struct Entry {
    key: String,
    at: Place,
    value: Node,
}

impl Node {
    /// As JSON. The readers bounded the depth and refused double keys.
    fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Scalar(value) => value.clone(),
            Kind::List(items) => items.iter().map(Self::to_json).collect(),
            Kind::Table(entries) => Value::Object(
                entries.iter().map(|entry| (entry.key.clone(), entry.value.to_json())).collect::<Map<_, _>>(),
            ),
        }
    }

    /// Where the field of this path stands, or the nearest thing around it that is in the text.
    fn find(&self, path: &str, part: FieldPart) -> Option<Place> {
        let (mut node, mut rest, mut found) = (self, path, None);
        loop {
            let next = match &node.kind {
                // A tool's name may hold dots, so the longest key that fits is the one.
                Kind::Table(entries) => {
                    let fits = |entry: &&Entry| rest.strip_prefix(entry.key.as_str()).is_some_and(ends_a_step);
                    let entry = entries.iter().filter(fits).max_by_key(|entry| entry.key.len());
                    entry.map(|entry| (&entry.value, entry.at, rest.get(entry.key.len()..).unwrap_or_default()))
                }
                Kind::List(items) => {
                    rest.strip_prefix('[').and_then(|rest| rest.split_once(']')).and_then(|(index, rest)| {
                        let item = items.get(index.parse::<usize>().ok()?)?;
                        Some((item, item.at, rest))
                    })
                }
                Kind::Scalar(_) => None,
            };
            let Some((value, key, after)) = next else { return found };
            (node, rest) = (value, after.strip_prefix('.').unwrap_or(after));
            // A table's own place is that of its beginning, which in TOML and YAML may be anywhere: its key is clearer.
            let by_key = part == FieldPart::Key || matches!(value.kind, Kind::Table(_));
            found = Some(if by_key { key } else { value.at });
            if rest.is_empty() {
                return found;
            }
        }
    }
}

fn ends_a_step(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with(['.', '['])
}
