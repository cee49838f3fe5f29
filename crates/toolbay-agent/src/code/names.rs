//! Names of tools as names of Rhai functions: always identifiers, never words of the language, each one once.

use std::collections::{BTreeMap, BTreeSet};

/// What no function and no space can be called: words of the language, those that it keeps for later, and those that do
/// something of their own when they are called.
const RESERVED: [&str; 67] = [
    "Fn",
    "as",
    "async",
    "await",
    "break",
    "call",
    "case",
    "catch",
    "const",
    "continue",
    "curry",
    "debug",
    "default",
    "do",
    "else",
    "eval",
    "exit",
    "export",
    "false",
    "fn",
    "for",
    "global",
    "go",
    "goto",
    "if",
    "import",
    "in",
    "is",
    "is_def_fn",
    "is_def_var",
    "is_shared",
    "let",
    "loop",
    "match",
    "module",
    "new",
    "nil",
    "null",
    "package",
    "parallel",
    "print",
    "private",
    "protected",
    "public",
    "return",
    "shared",
    "spawn",
    "static",
    "super",
    "switch",
    "sync",
    "this",
    "thread",
    "throw",
    "true",
    "try",
    "type_of",
    "until",
    "use",
    "var",
    "void",
    "while",
    "with",
    "yield",
    "call_tool",
    "PLUGIN",
    "unless",
];

/// The longest identifier made here; what is longer is cut, and told apart by its number.
const MAX_BYTES: usize = 96;

/// An identifier for each of `names`, none twice. Those that are identifiers already keep their names; of those that become
/// the same, the first in alphabetical order has it and the others get numbers. The order of `names` makes no difference.
pub(super) fn identifiers<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeMap<&'a str, String> {
    let names: BTreeSet<&str> = names.into_iter().collect();
    let mut made = BTreeMap::new();
    let (keep, change): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| identifier(name) == *name);
    let mut taken: BTreeSet<String> = keep.iter().map(|name| (*name).to_owned()).collect();
    made.extend(keep.into_iter().map(|name| (name, name.to_owned())));
    for name in change {
        let wanted = identifier(name);
        let free = std::iter::once(wanted.clone()).chain((2_u32..).map(|number| format!("{wanted}_{number}")));
        if let Some(free) = free.into_iter().find(|free| !taken.contains(free)) {
            taken.insert(free.clone());
            made.insert(name, free);
        }
    }
    made
}

/// `name` as an identifier, whatever it is.
fn identifier(name: &str) -> String {
    let mut made: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(MAX_BYTES).collect();
    // A letter goes before any digit, and one there must be.
    if !made.trim_start_matches('_').starts_with(|first: char| first.is_ascii_alphabetic()) {
        made.insert_str(0, "t_");
    }
    if !made.contains(|c: char| c.is_ascii_alphabetic()) {
        made.insert(0, 't');
    }
    if RESERVED.contains(&made.as_str()) {
        made.push('_');
    }
    made
}

/// Whether a key can stand in a map without quotes.
pub(super) fn is_plain_key(key: &str) -> bool {
    !key.is_empty() && identifier(key) == key
}
