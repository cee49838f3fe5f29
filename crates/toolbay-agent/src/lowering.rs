//! Schemas of tool parameters as providers take them.
//!
//! Each provider takes a part of JSON Schema. A schema is lowered into that part for the model's eyes only: the road checks
//! arguments against the tool's own schema, whatever a provider was shown. What is lost on the way is reported for each tool.
//!
//! Lowering keeps one promise: every call that the tool's own schema takes has a form that the lowered one takes
//! ([`Lowered::filled`]), and what a model writes after the lowered schema is brought back by [`Lowered::restored`]. The
//! exceptions are told in the report as [`ChangeKind::Narrowed`]: an object that said nothing of further keys is closed in
//! strict mode, since that mode knows no other, and Gemini has no word for "any value".

mod gemini;
mod nulls;
mod strict;

use std::{collections::BTreeMap, fmt};

use serde::Serialize;
use serde_json::{Map, Value, json};

/// Nodes of a lowered schema at most. Written-out references can make a small schema large without end.
const MAX_NODES: usize = 5_000;
/// How deep a schema is followed.
const MAX_DEPTH: usize = 64;

/// For whom a schema is lowered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// OpenAI's function calling.
    OpenAi,
    /// The same in strict mode: the model cannot write anything but what the schema says.
    OpenAiStrict,
    /// Anthropic's tools.
    Anthropic,
    /// Gemini's function declarations, whose `parameters` are OpenAPI's and not JSON Schema.
    Gemini,
}

/// A schema as a provider takes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Lowered {
    /// The schema.
    pub schema: Value,
    /// Whether strict mode can be asked for. A tool that strict mode has no words for goes without it.
    pub strict: bool,
    /// What is different from the tool's own schema.
    pub changes: Vec<Change>,
    /// Places in `schema` whose value may be null because the tool's own may be absent, and whether null stands for nothing
    /// else there.
    optional: BTreeMap<String, bool>,
}

/// One thing that is different in a lowered schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Where in the tool's own schema, as a JSON pointer.
    pub pointer: String,
    /// Which way.
    pub kind: ChangeKind,
    /// What, in a few words.
    pub what: String,
}

/// Which way a lowered schema differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It takes more than the tool does: the tool's own schema refuses the rest.
    Weakened,
    /// It takes less than the tool does.
    Narrowed,
    /// Strict mode has no words for the tool, which goes without it.
    NotStrict,
    /// The provider is known to refuse it, and there is nothing to put in its place.
    Refused,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            ChangeKind::Weakened => "weakened",
            ChangeKind::Narrowed => "narrowed",
            ChangeKind::NotStrict => "not strict",
            ChangeKind::Refused => "refused by the provider",
        };
        let place = if self.pointer.is_empty() { "/" } else { &self.pointer };
        write!(f, "{place}: {kind}: {}", self.what)
    }
}

/// Lowers the parameters of a tool.
///
/// ```
/// use serde_json::json;
/// use toolbay_agent::lowering::{Dialect, lower};
///
/// let own = json!({"type": "object", "properties": {"to": {"type": "string", "minLength": 3}, "note": {"type": "string"}},
///                  "required": ["to"]});
/// let lowered = lower(&own, Dialect::OpenAiStrict);
/// assert!(lowered.strict);
/// assert_eq!(lowered.schema["required"], json!(["to", "note"]));
/// assert_eq!(lowered.schema["properties"]["note"]["type"], json!(["string", "null"]));
/// assert_eq!(lowered.changes[0].to_string(), "/: narrowed: keys that it does not list are not taken");
/// assert_eq!(lowered.changes[1].to_string(), "/properties/to/minLength: weakened: not checked by the provider");
/// // What the model writes, as the tool takes it:
/// assert_eq!(lowered.restored(json!({"to": "Rome", "note": null})), json!({"to": "Rome"}));
/// ```
#[must_use]
pub fn lower(parameters: &Value, dialect: Dialect) -> Lowered {
    let mut report = Report::default();
    let root = rooted(parameters, &mut report);
    match dialect {
        Dialect::OpenAi => plain(root, report),
        Dialect::Anthropic => {
            key_names(&root, "", 0, &mut report);
            plain(root, report)
        }
        Dialect::Gemini => {
            let schema = gemini::lower(&root, &mut report);
            Lowered { schema, strict: false, changes: report.changes, optional: BTreeMap::new() }
        }
        Dialect::OpenAiStrict => match strict::lower(&root, &mut report) {
            Ok((schema, optional)) => Lowered { schema, strict: true, changes: report.changes, optional },
            Err(reason) => {
                let mut fresh = Report::default();
                let root = rooted(parameters, &mut fresh);
                fresh.changes.insert(0, reason);
                plain(root, fresh)
            }
        },
    }
}

impl Lowered {
    /// Arguments that a model wrote after the lowered schema, as the tool takes them: without the nulls that stand for what
    /// is absent.
    #[must_use]
    pub fn restored(&self, arguments: Value) -> Value {
        nulls::without(arguments, &self.schema, &self.optional)
    }

    /// Arguments that the tool takes, as a model would write them after the lowered schema: with a null for what is absent.
    #[must_use]
    pub fn filled(&self, arguments: Value) -> Value {
        nulls::with(arguments, &self.schema, &self.optional)
    }

    /// What was weakened or worse; a schema without any is as strong as the tool's own.
    pub fn weaknesses(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter().filter(|change| change.kind != ChangeKind::Narrowed)
    }
}

/// What was changed so far.
#[derive(Default)]
struct Report {
    changes: Vec<Change>,
    nodes: usize,
}

impl Report {
    fn note(&mut self, kind: ChangeKind, pointer: impl Into<String>, what: impl Into<String>) {
        // A schema repeats its faults; the first hundred tell all.
        if self.changes.len() < 100 {
            self.changes.push(Change { pointer: pointer.into(), kind, what: what.into() });
        }
    }

    fn weakened(&mut self, pointer: impl Into<String>, what: impl Into<String>) {
        self.note(ChangeKind::Weakened, pointer, what);
    }

    /// Counts a node; `false` where there are too many.
    fn has_room(&mut self, depth: usize) -> bool {
        self.nodes += 1;
        self.nodes <= MAX_NODES && depth <= MAX_DEPTH
    }
}

/// The schema with the root that all providers ask for: an object, said by `type`, without alternatives beside it.
fn rooted(parameters: &Value, report: &mut Report) -> Value {
    let mut root = match parameters {
        Value::Object(root) => root.clone(),
        _ => Map::new(),
    };
    // Which draft it is written in is our validator's business; some providers refuse the key.
    root.remove("$schema");
    if let Some(reference) = root.get("$ref").and_then(Value::as_str).map(str::to_owned) {
        let referred = parameters.pointer(reference.trim_start_matches('#')).and_then(Value::as_object).cloned();
        root.remove("$ref");
        match referred {
            Some(referred) => {
                let kept = root.clone();
                root = referred;
                root.extend(kept);
            }
            None => report.weakened("/$ref", "left out"),
        }
    }
    for key in ["anyOf", "oneOf", "allOf", "not", "enum", "const", "if", "then", "else"] {
        if root.remove(key).is_some() {
            report.weakened(format!("/{key}"), "left out: providers do not take it at the top");
        }
    }
    // Arguments are an object whether or not the schema says so.
    root.insert("type".to_owned(), "object".into());
    Value::Object(root)
}

fn plain(schema: Value, report: Report) -> Lowered {
    Lowered { schema, strict: false, changes: report.changes, optional: BTreeMap::new() }
}

/// Anthropic takes keys of letters, digits, `_`, `.` and `-`, 64 at most.
fn key_names(schema: &Value, pointer: &str, depth: usize, report: &mut Report) {
    if !report.has_room(depth) {
        return;
    }
    for (key, child) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let place = step(&step(pointer, "properties"), key);
        let taken = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if key.is_empty() || key.len() > 64 || !key.chars().all(taken) {
            report.note(ChangeKind::Refused, &place, "a key that the provider does not take: rename it");
        }
        key_names(child, &place, depth + 1, report);
    }
    if let Some(items) = schema.get("items") {
        key_names(items, &step(pointer, "items"), depth + 1, report);
    }
}

/// `pointer` one step further.
fn step(pointer: &str, key: &str) -> String {
    format!("{pointer}/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// The keywords of a schema that tell a reader something and refuse nothing.
const SAYING_ONLY: [&str; 11] = [
    "title",
    "description",
    "default",
    "examples",
    "example",
    "$comment",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$id",
    "optional",
];

/// Adds what a provider does not check to the description, so that the model knows of it all the same.
fn describe(node: &mut Map<String, Value>, hints: &[String]) {
    if hints.is_empty() {
        return;
    }
    let said = node.get("description").and_then(Value::as_str).unwrap_or_default();
    let hints = hints.join(", ");
    let text = if said.is_empty() { format!("({hints})") } else { format!("{said} ({hints})") };
    node.insert("description".to_owned(), json!(text));
}

/// A keyword as a hint: short values only.
fn hint(key: &str, value: &Value) -> Option<String> {
    let text = value.to_string();
    (text.len() <= 80).then(|| format!("{key}: {text}"))
}
