//! YAML into the tree. Anchors and aliases are taken within bounds, merge keys and a second document are not.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Number, Value};
use serde_saphyr::{
    Location, Options, Spanned, budget, options,
    options::{AliasLimits, DuplicateKeyPolicy, MergeKeyPolicy},
};

use super::{Entry, Fault, Kind, MAX_DEPTH, Node, Place};

/// Values of a document, those that aliases repeat included.
const MAX_NODES: usize = 50_000;
/// Aliases of a document, and values that all of them together repeat.
const MAX_ALIASES: usize = 100;
const MAX_REPEATED: usize = 10_000;

pub(super) fn read(text: &str) -> Result<Node, Fault> {
    let tree: Spanned<Tree> = serde_saphyr::from_str_with_options(text, bounds()).map_err(|error| {
        let at = error.location().and_then(place);
        // The place is told with the excerpt, as for the other formats.
        let message = error.without_snippet().to_string();
        let suffix = error.location().map(|at| format!(" at line {}, column {}", at.line(), at.column()));
        let message = suffix.and_then(|suffix| message.strip_suffix(&suffix).map(str::to_owned)).unwrap_or(message);
        Fault { message, at }
    })?;
    node(tree, 1)
}

fn bounds() -> Options {
    let mut aliases = AliasLimits::default();
    aliases.max_total_replayed_events = MAX_REPEATED;
    aliases.max_replay_stack_depth = 8;
    aliases.max_alias_expansions_per_anchor = MAX_ALIASES;
    options! {
        budget: budget! {
            max_depth: MAX_DEPTH,
            flow_nesting_limit: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 4 * MAX_NODES,
            max_documents: 1,
            max_aliases: MAX_ALIASES,
            max_anchors: MAX_ALIASES,
            max_total_scalar_bytes: 4 * super::MAX_BYTES,
            max_recorded_anchor_events: MAX_REPEATED,
            max_recorded_anchor_bytes: super::MAX_BYTES,
        },
        alias_limits: aliases,
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        // `yes` and `on` are texts, as YAML 1.2 has it.
        strict_booleans: true,
        with_snippet: false,
    }
}

fn place(location: Location) -> Option<Place> {
    let (line, column) = (usize::try_from(location.line()).ok()?, usize::try_from(location.column()).ok()?);
    (line > 0).then_some(Place::Line(line, column))
}

fn node(tree: Spanned<Tree>, depth: usize) -> Result<Node, Fault> {
    let at = place(tree.referenced).unwrap_or(Place::Line(1, 1));
    if depth > MAX_DEPTH {
        return Err(Fault::too_deep(at));
    }
    let kind = match tree.value {
        Tree::Scalar(value) => Kind::Scalar(value),
        Tree::List(items) => Kind::List(items.into_iter().map(|item| node(item, depth + 1)).collect::<Result<_, _>>()?),
        Tree::Table(entries) => {
            let entry = |(key, value): (Spanned<String>, Spanned<Tree>)| {
                let at = place(key.referenced).unwrap_or(at);
                Ok(Entry { key: key.value, at, value: node(value, depth + 1)? })
            };
            Kind::Table(entries.into_iter().map(entry).collect::<Result<_, _>>()?)
        }
    };
    Ok(Node { at, kind })
}

/// A value as YAML gives it.
enum Tree {
    Scalar(Value),
    List(Vec<Spanned<Tree>>),
    Table(Vec<(Spanned<String>, Spanned<Tree>)>),
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TreeVisitor;

        impl<'de> Visitor<'de> for TreeVisitor {
            type Value = Tree;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value that JSON has")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
                Ok(Tree::Scalar(Value::Bool(value)))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
                Ok(Tree::Scalar(Value::from(value)))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
                Ok(Tree::Scalar(Value::from(value)))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<Tree, E> {
                let number = Number::from_f64(value).ok_or_else(|| E::custom("this is no number that JSON has"))?;
                Ok(Tree::Scalar(Value::Number(number)))
            }

            fn visit_str<E>(self, value: &str) -> Result<Tree, E> {
                Ok(Tree::Scalar(Value::from(value)))
            }

            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Scalar(Value::Null))
            }

            fn visit_none<E>(self) -> Result<Tree, E> {
                Ok(Tree::Scalar(Value::Null))
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tree, D::Error> {
                deserializer.deserialize_any(self)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Tree, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Tree::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Tree, A::Error> {
                let mut table = Vec::new();
                while let Some(entry) = entries.next_entry()? {
                    table.push(entry);
                }
                Ok(Tree::Table(table))
            }
        }

        deserializer.deserialize_any(TreeVisitor)
    }
}
