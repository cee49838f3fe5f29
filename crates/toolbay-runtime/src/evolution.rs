//! What a new version of a plugin changes for those who call its tools, worked out from the two versions' schemas. It
//! stands apart from validation: nothing is checked here, two contracts are compared.
//!
//! A change breaks callers where arguments that were good may be refused, or where a result may lack what it had. What
//! cannot be told to be harmless counts as breaking.

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
};

use serde_json::{Map, Value};
use toolbay_api::{Permission, PluginName, Scope, ToolDefinition, ToolName};

use crate::catalog::Registered;

/// Changes of one plugin that are listed at most.
const MAX_CHANGES: usize = 200;
/// How deep two schemas are compared; what lies deeper counts as changed where it differs.
const MAX_DEPTH: usize = 32;
/// Words of a schema that say nothing about which values fit.
const ANNOTATIONS: [&str; 10] = [
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "$comment",
    "$schema",
    "$id",
];
/// Words that have a comparison of their own, and those that only hold what references lead to.
const COMPARED: [&str; 9] =
    ["type", "properties", "required", "additionalProperties", "items", "enum", "$defs", "definitions", "$ref"];
/// Of those, the ones that say nothing themselves.
const PLACES: [&str; 3] = ["$defs", "definitions", "$ref"];
/// Words that only ever narrow: a schema without one takes whatever one with it does.
const NARROWING: [&str; 8] = ["pattern", "const", "multipleOf", "uniqueItems", "not", "allOf", "anyOf", "oneOf"];
/// Bounds from below, and from above.
const FLOORS: [&str; 5] = ["minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"];
const CEILINGS: [&str; 5] = ["maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"];

/// What taking a new version of a plugin would change.
#[derive(Debug, Clone)]
pub struct Upgrade {
    /// The plugin.
    pub plugin: PluginName,
    /// Where it is registered.
    pub scope: Scope,
    /// The version that is registered.
    pub from: semver::Version,
    /// The version that would take its place.
    pub to: semver::Version,
    /// What changes for those who call its tools.
    pub changes: Vec<ToolChange>,
    /// What the new version asks to be allowed beyond the old one.
    pub new_permissions: Vec<Permission>,
}

impl Upgrade {
    /// The changes that break callers.
    pub fn breaking(&self) -> impl Iterator<Item = &ToolChange> {
        self.changes.iter().filter(|change| change.breaking)
    }

    pub(crate) fn between(old: &Registered, new: &Registered) -> Self {
        let asked = |registered: &Registered| registered.owner.asked.iter().cloned().collect::<Vec<_>>();
        let before = asked(old);
        Self {
            plugin: old.owner.name.clone(),
            scope: old.owner.scope.clone(),
            from: old.owner.version.clone(),
            to: new.owner.version.clone(),
            changes: changes(&definitions(old), &definitions(new)),
            new_permissions: asked(new)
                .into_iter()
                .filter(|asked| !before.iter().any(|had| had == asked || had.covers(asked.as_str())))
                .collect(),
        }
    }
}

impl fmt::Display for Upgrade {
    /// One line for the versions, one for each change and each new permission.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plugin, scope, from, to, changes, new_permissions } = self;
        write!(f, "{plugin} {from} → {to} ({scope})")?;
        for change in changes {
            write!(f, "\n  {}{change}", if change.breaking { "breaking: " } else { "" })?;
        }
        for permission in new_permissions {
            write!(f, "\n  asks for more: {permission}")?;
        }
        Ok(())
    }
}

/// One change of one tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolChange {
    /// The tool's qualified name.
    pub tool: ToolName,
    /// Where: a JSON Pointer into the arguments or the result that the schema describes, with `*` for any element of an
    /// array and any field that has no name; empty for the whole.
    pub at: String,
    /// Whether it is about the result, not the arguments.
    pub of_result: bool,
    /// What changed.
    pub kind: ChangeKind,
    /// Whether it breaks callers.
    pub breaking: bool,
}

/// What changed about a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChangeKind {
    /// The tool is gone.
    ToolRemoved,
    /// The tool is new.
    ToolAdded,
    /// It requires a right of the user that it did not require.
    RightRequired(Permission),
    /// The field is gone.
    FieldRemoved,
    /// The field is new.
    FieldAdded,
    /// The types differ: before and after.
    TypeChanged(String, String),
    /// An argument must be given now; a field of a result must not.
    RequirednessChanged,
    /// Which fields beside the described ones there may be.
    OtherFieldsChanged,
    /// The list of values differs.
    ValuesChanged,
    /// This word of the schema differs.
    WordChanged(String),
    /// There are more changes than are listed.
    AndMore,
}

impl fmt::Display for ToolChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tool, at, of_result, kind, .. } = self;
        let side = if *of_result { "result" } else { "arguments" };
        match kind {
            ChangeKind::ToolRemoved => write!(f, "{tool} is gone"),
            ChangeKind::ToolAdded => write!(f, "{tool} is new"),
            ChangeKind::RightRequired(right) => write!(f, "{tool} requires the right {right} of the user"),
            ChangeKind::FieldRemoved => write!(f, "{tool}: {at} of the {side} is gone"),
            ChangeKind::FieldAdded => write!(f, "{tool}: {at} of the {side} is new"),
            ChangeKind::TypeChanged(from, to) => write!(f, "{tool}: {at} of the {side} was {from} and is {to}"),
            ChangeKind::RequirednessChanged if *of_result => write!(f, "{tool}: {at} of the result may be missing"),
            ChangeKind::RequirednessChanged => write!(f, "{tool}: {at} of the arguments must be given"),
            ChangeKind::OtherFieldsChanged => {
                write!(f, "{tool}: other fields of {at}/ of the {side} are not as before")
            }
            ChangeKind::ValuesChanged => write!(f, "{tool}: the values of {at} of the {side} are others"),
            ChangeKind::WordChanged(word) => write!(f, "{tool}: `{word}` of {at} of the {side} differs"),
            ChangeKind::AndMore => write!(f, "{tool}: and more"),
        }
    }
}

fn definitions(registered: &Registered) -> Vec<&ToolDefinition> {
    let of_abilities = registered.provided.iter().flat_map(|provided| &provided.operations);
    registered.tools.iter().chain(of_abilities).map(|entry| &*entry.info.definition).collect()
}

/// What changed from the tools `old` to the tools `new`, in the order of their names.
fn changes(old: &[&ToolDefinition], new: &[&ToolDefinition]) -> Vec<ToolChange> {
    let mut found = Vec::new();
    let names: BTreeSet<_> = old.iter().chain(new).map(|definition| &definition.name).collect();
    for name in names {
        let of = |list: &[&'_ ToolDefinition]| list.iter().position(|definition| definition.name == *name);
        let whole =
            |kind, breaking| ToolChange { tool: name.clone(), at: String::new(), of_result: false, kind, breaking };
        match (of(old).and_then(|at| old.get(at)), of(new).and_then(|at| new.get(at))) {
            (Some(_), None) => found.push(whole(ChangeKind::ToolRemoved, true)),
            (None, _) => found.push(whole(ChangeKind::ToolAdded, false)),
            (Some(old), Some(new)) => {
                let newly_required = new
                    .required_permissions
                    .iter()
                    .filter(|right| !old.required_permissions.iter().any(|had| had == *right));
                found.extend(newly_required.map(|right| whole(ChangeKind::RightRequired(right.clone()), true)));
                found.extend(compare(name, Side::Arguments, Purpose::Change, &old.parameters, &new.parameters));
                // A result that had no schema promised nothing; one that has none any more promises nothing either.
                match (&old.output, &new.output) {
                    (Some(old), Some(new)) => found.extend(compare(name, Side::Result, Purpose::Change, old, new)),
                    (Some(_), None) => found.push(ToolChange {
                        of_result: true,
                        ..whole(ChangeKind::WordChanged("output".to_owned()), true)
                    }),
                    (None, _) => {}
                }
            }
        }
        if found.len() > MAX_CHANGES {
            // Whatever was cut off may break callers.
            let more = whole(ChangeKind::AndMore, true);
            found.truncate(MAX_CHANGES - 1);
            found.push(more);
            break;
        }
    }
    found
}

/// Where `tool` takes less than `promised` says, or gives more. A tool that does not say what it gives is not asked: its
/// results are checked as they come.
pub(crate) fn misfits(promised: &ToolDefinition, tool: &ToolDefinition) -> Vec<ToolChange> {
    let name = &tool.name;
    let mut found = compare(name, Side::Arguments, Purpose::Fit, &promised.parameters, &tool.parameters);
    if let (Some(promised), Some(own)) = (&promised.output, &tool.output) {
        found.extend(compare(name, Side::Result, Purpose::Fit, promised, own));
    }
    found.retain(|change| change.breaking);
    found
}

/// What a schema is of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Arguments,
    Result,
}

/// What two schemas are compared for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// The same tool before and after: who knows the old one must not be surprised, even by less than the schema says.
    Change,
    /// An interface and one who keeps it: it is only asked which values fit.
    Fit,
}

fn compare(tool: &ToolName, side: Side, purpose: Purpose, old: &Value, new: &Value) -> Vec<ToolChange> {
    let (of_result, fitting) = (side == Side::Result, purpose == Purpose::Fit);
    let (seen, found) = (HashSet::new(), Vec::new());
    let mut comparing = Comparing { tool, of_result, fitting, old_root: old, new_root: new, seen, found };
    comparing.schemas("", old, new, 0);
    comparing.found
}

/// Two schemas of one tool side by side.
struct Comparing<'a> {
    tool: &'a ToolName,
    of_result: bool,
    fitting: bool,
    old_root: &'a Value,
    new_root: &'a Value,
    seen: HashSet<(*const Value, *const Value)>,
    found: Vec<ToolChange>,
}

impl<'a> Comparing<'a> {
    fn add(&mut self, at: &str, kind: ChangeKind, breaking: bool) {
        if self.found.len() <= MAX_CHANGES {
            let (tool, of_result) = (self.tool.clone(), self.of_result);
            self.found.push(ToolChange { tool, at: at.to_owned(), of_result, kind, breaking });
        }
    }

    fn schemas(&mut self, at: &str, old: &'a Value, new: &'a Value, depth: usize) {
        // Enough is said already, and a stranger wrote the schemas.
        if self.found.len() > MAX_CHANGES {
            return;
        }
        self.beside_reference(at, old, new);
        let (old, new) = (resolve(self.old_root, old), resolve(self.new_root, new));
        // References may lead in a circle, and to one place from many: each pair is looked at where it is met first.
        if !self.seen.insert((std::ptr::from_ref(old), std::ptr::from_ref(new))) {
            return;
        }
        if depth > MAX_DEPTH {
            if old != new || self.leads_elsewhere(old) {
                self.add(at, ChangeKind::AndMore, true);
            }
            return;
        }
        match (old, new) {
            (Value::Object(old), Value::Object(new)) => self.objects(at, old, new, depth),
            (old, new) if old == new => {}
            // `true` takes everything, `false` nothing.
            (old, new) => {
                let widened = *new == Value::Bool(true) || *old == Value::Bool(false);
                self.add(at, ChangeKind::WordChanged("schema".to_owned()), widened == self.of_result);
            }
        }
    }

    /// Words beside a reference, which count with what it leads to: no telling how, so that each difference breaks callers.
    fn beside_reference(&mut self, at: &str, old: &Value, new: &Value) {
        let none = Map::new();
        let beside = |schema: &'_ Value| schema.as_object().filter(|schema| schema.contains_key("$ref")).cloned();
        let (old, new) = match (beside(old), beside(new)) {
            (None, None) => return,
            (old, new) => (old.unwrap_or_else(|| none.clone()), new.unwrap_or(none)),
        };
        let words: BTreeSet<_> = old.keys().chain(new.keys()).map(String::as_str).collect();
        for word in words.into_iter().filter(|word| !ANNOTATIONS.contains(word) && !PLACES.contains(word)) {
            if self.differs(word, old.get(word), new.get(word)) {
                self.add(at, ChangeKind::WordChanged(word.to_owned()), true);
            }
        }
    }

    /// Whether the values of a word differ, or what they refer to.
    fn differs(&self, word: &str, old: Option<&Value>, new: Option<&Value>) -> bool {
        old != new
            || match word {
                // One that could not be followed leads somewhere in the document.
                "$ref" | "$dynamicRef" => self.old_root != self.new_root,
                _ => new.is_some_and(|same| self.leads_elsewhere(same)),
            }
    }

    /// Whether something that stands in both schemas refers to what is not the same in both.
    fn leads_elsewhere(&self, same: &Value) -> bool {
        let (mut waiting, mut seen) = (vec![same], HashSet::new());
        while let Some(value) = waiting.pop() {
            match value {
                Value::Array(items) => waiting.extend(items),
                Value::Object(fields) => {
                    waiting.extend(fields.values());
                    let references = ["$ref", "$dynamicRef"].into_iter().filter_map(|word| fields.get(word)?.as_str());
                    for to in references.filter(|to| seen.insert(*to)).collect::<Vec<_>>() {
                        let target = |root: &'a Value| to.strip_prefix('#').and_then(|pointer| root.pointer(pointer));
                        match (target(self.old_root), target(self.new_root)) {
                            (Some(old), Some(new)) if old == new => waiting.push(new),
                            // What is referred to by an anchor is somewhere in the document.
                            (None, None) if self.old_root == self.new_root => {}
                            _ => return true,
                        }
                    }
                }
                _ => {}
            }
        }
        false
    }

    fn objects(&mut self, at: &str, old: &'a Map<String, Value>, new: &'a Map<String, Value>, depth: usize) {
        self.types(at, old, new);
        self.properties(at, old, new, depth);
        match (old.get("items"), new.get("items")) {
            (Some(old), Some(new)) => self.schemas(&format!("{at}/*"), old, new, depth + 1),
            (None, None) => {}
            (had, _) => {
                let narrowed = had.is_none();
                self.add(at, ChangeKind::WordChanged("items".to_owned()), narrowed != self.of_result);
            }
        }
        self.values(at, old, new);
        let words: BTreeSet<_> = old.keys().chain(new.keys()).map(String::as_str).collect();
        for word in words {
            // A reference that is left here leads to no place that could be looked at.
            let is_compared = COMPARED.contains(&word) && word != "$ref";
            if ANNOTATIONS.contains(&word) || is_compared || !self.differs(word, old.get(word), new.get(word)) {
                continue;
            }
            // Most formats are of numbers, written by generators, and none is checked by itself.
            if self.fitting && word == "format" {
                continue;
            }
            let around = if self.of_result { old } else { new };
            let breaking = match bound(word) {
                None => !(self.fitting && NARROWING.contains(&word) && !around.contains_key(word)),
                Some(is_floor) => {
                    let number = |schema: &Map<String, Value>| schema.get(word).and_then(Value::as_f64);
                    let narrowed = match (number(old), number(new)) {
                        (Some(old), Some(new)) => (new > old) == is_floor,
                        (had, _) => had.is_none(),
                    };
                    narrowed != self.of_result
                }
            };
            self.add(at, ChangeKind::WordChanged(word.to_owned()), breaking);
        }
    }

    fn types(&mut self, at: &str, old: &Map<String, Value>, new: &Map<String, Value>) {
        let (before, after) = (types(old), types(new));
        if before == after {
            return;
        }
        let (within, around) = if self.of_result { (&after, &before) } else { (&before, &after) };
        let fits = |kind: &String| around.contains(kind) || (kind == "integer" && around.contains("number"));
        let breaking = !around.is_empty() && (within.is_empty() || !within.iter().all(fits));
        let named = |types: &BTreeSet<String>| {
            if types.is_empty() {
                "anything".to_owned()
            } else {
                types.iter().cloned().collect::<Vec<_>>().join(" or ")
            }
        };
        self.add(at, ChangeKind::TypeChanged(named(&before), named(&after)), breaking);
    }

    fn properties(&mut self, at: &str, old: &'a Map<String, Value>, new: &'a Map<String, Value>, depth: usize) {
        let fields = |schema: &'a Map<String, Value>| schema.get("properties").and_then(Value::as_object);
        let (old_fields, new_fields) = (fields(old), fields(new));
        let (old_required, new_required) = (required(old), required(new));
        let (before, after) = (others(old), others(new));
        let names = |fields: Option<&'a Map<String, Value>>| fields.into_iter().flat_map(Map::keys);
        let all: BTreeSet<&String> = names(old_fields).chain(names(new_fields)).collect();
        for name in all {
            let place = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
            match (old_fields.and_then(|fields| fields.get(name)), new_fields.and_then(|fields| fields.get(name))) {
                (Some(old), Some(new)) => self.schemas(&place, old, new, depth + 1),
                (Some(_), None) => {
                    let missed =
                        if self.of_result { old_required.contains(name.as_str()) } else { *after != Value::Bool(true) };
                    self.add(&place, ChangeKind::FieldRemoved, !self.fitting || missed);
                }
                (None, _) => {
                    let unexpected = self.of_result && *before == Value::Bool(false);
                    self.add(&place, ChangeKind::FieldAdded, self.fitting && unexpected);
                }
            }
        }
        let (had, has) = if self.of_result { (&new_required, &old_required) } else { (&old_required, &new_required) };
        for name in has.difference(had) {
            // Of a result's field that is gone altogether enough is said.
            if self.of_result && new_fields.is_none_or(|fields| !fields.contains_key(*name)) {
                continue;
            }
            self.add(&format!("{at}/{name}"), ChangeKind::RequirednessChanged, true);
        }
        match (before, after) {
            (Value::Bool(before), Value::Bool(after)) if before == after => {}
            (before @ Value::Object(_), after @ Value::Object(_)) => {
                self.schemas(&format!("{at}/*"), before, after, depth + 1);
            }
            (before, after) => {
                let (within, around) = if self.of_result { (after, before) } else { (before, after) };
                let breaking = if self.fitting {
                    *around != Value::Bool(true) && *within != Value::Bool(false)
                } else if self.of_result {
                    // A result that had other fields of some kind may have them of any kind now, or none.
                    before.is_object()
                } else {
                    *before != Value::Bool(false) && *after != Value::Bool(true)
                };
                self.add(at, ChangeKind::OtherFieldsChanged, breaking);
            }
        }
    }

    fn values(&mut self, at: &str, old: &Map<String, Value>, new: &Map<String, Value>) {
        let (before, after) = (values(old), values(new));
        if before == after {
            return;
        }
        let (within, around) = if self.of_result { (after, before) } else { (before, after) };
        let breaking = match (within, around) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(within), Some(around)) => !within.is_subset(&around),
        };
        self.add(at, ChangeKind::ValuesChanged, breaking);
    }
}

/// What a reference within the document leads to; anything else as it is.
fn resolve<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    let mut at = schema;
    // A chain of references may lead in a circle.
    for _ in 0..MAX_DEPTH {
        let target = at
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|to| to.strip_prefix('#'))
            .and_then(|pointer| root.pointer(pointer));
        match target {
            Some(target) => at = target,
            None => break,
        }
    }
    at
}

fn types(schema: &Map<String, Value>) -> BTreeSet<String> {
    match schema.get("type") {
        Some(Value::String(one)) => BTreeSet::from([one.clone()]),
        Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => BTreeSet::new(),
    }
}

fn required(schema: &Map<String, Value>) -> BTreeSet<&str> {
    schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The values that are listed, as text: such lists may be long.
fn values(schema: &Map<String, Value>) -> Option<HashSet<String>> {
    Some(schema.get("enum")?.as_array()?.iter().map(Value::to_string).collect())
}

/// What fields beside the described ones may be.
fn others(schema: &Map<String, Value>) -> &Value {
    schema.get("additionalProperties").unwrap_or(&Value::Bool(true))
}

/// Whether `word` is a bound, and then whether from below.
fn bound(word: &str) -> Option<bool> {
    if FLOORS.contains(&word) {
        return Some(true);
    }
    CEILINGS.contains(&word).then_some(false)
}
