//! What validating against a schema can cost at worst, worked out when it is registered.
//!
//! Validation runs on the caller's thread and cannot be stopped. A schema of thirty lines whose `oneOf`s refer to each
//! other looks at a value a billion times, so what a plugin's schema may cost is bounded before anything is validated:
//! the looks at one value, and, where a schema refers to itself, how deep a value may be.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

/// Looks that a schema may take at one value, its parts not counted.
const MAX_LOOKS: u64 = 100_000;
/// Looks at all parts of a value together, where a schema that refers to itself looks at a part more than once.
const MAX_LOOKS_AT_PARTS: f64 = 1e6;
/// Schemas that may stand behind one another in one place. Validation recurses through them.
const MAX_CHAIN: usize = 1_000;

/// How deep a value may nest for `schema` to be validated against it at a bounded cost; `None`: as deep as it likes.
///
/// # Errors
/// What is wrong, where no value could be validated at a bounded cost.
pub(crate) fn max_depth(schema: &Value) -> Result<Option<usize>, String> {
    let graph = Graph::of(schema);
    let mut costs = Costs { graph: &graph, recursive: graph.on_cycles(), done: vec![None; graph.nodes.len()] };
    let mut branching = 1;
    for node in 0..graph.nodes.len() {
        costs.visit(node, 0)?;
        let again = costs.done.get(node).and_then(Option::as_ref).map_or(0, Cost::widest);
        branching = branching.max(again);
    }
    // Each level multiplies the looks by the branching; a value may have as many levels as keep them bounded.
    Ok((branching > 1).then(|| (MAX_LOOKS_AT_PARTS.ln() / (branching as f64).ln()).floor().max(1.0) as usize))
}

/// The schemas inside a schema and how they lead to each other.
#[derive(Default)]
struct Graph {
    nodes: Vec<Node>,
}

#[derive(Default)]
struct Node {
    /// Schemas that look at the same value.
    same: Vec<usize>,
    /// Schemas that look at a part of it: the property's name, or `None` for any.
    parts: Vec<(Option<String>, usize)>,
    /// Whether what its schemas looked at is looked at again.
    twice: bool,
}

impl Graph {
    fn of(schema: &Value) -> Self {
        let mut walk = Walk::default();
        walk.node(schema, String::new());
        let Walk { mut graph, by_place, references, .. } = walk;
        for (from, target) in references {
            let place = target.strip_prefix('#').map(|place| place.replace("%25", "%"));
            if let Some(to) = place.and_then(|place| by_place.get(&place).copied())
                && let Some(node) = graph.nodes.get_mut(from)
            {
                node.same.push(to);
            }
        }
        graph
    }

    /// The nodes that lie on a cycle, or between two.
    fn on_cycles(&self) -> Vec<bool> {
        let mut out: Vec<Vec<usize>> = self.nodes.iter().map(Node::targets).collect();
        let mut into = vec![Vec::new(); self.nodes.len()];
        for (from, targets) in out.iter().enumerate() {
            for to in targets {
                if let Some(list) = into.get_mut(*to) {
                    list.push(from);
                }
            }
        }
        let mut kept = vec![true; self.nodes.len()];
        // What nothing leads to, and then what leads to nothing, is on no cycle.
        for _ in 0..2 {
            let mut degrees: Vec<usize> = into
                .iter()
                .map(|sources| sources.iter().filter(|source| kept.get(**source) == Some(&true)).count())
                .collect();
            let mut free: Vec<usize> = (0..kept.len()).filter(|node| degrees.get(*node) == Some(&0)).collect();
            while let Some(node) = free.pop() {
                let Some(here) = kept.get_mut(node).filter(|here| **here) else { continue };
                *here = false;
                for to in out.get(node).into_iter().flatten() {
                    if let Some(degree) = degrees.get_mut(*to) {
                        *degree = degree.saturating_sub(1);
                        if *degree == 0 {
                            free.push(*to);
                        }
                    }
                }
            }
            std::mem::swap(&mut into, &mut out);
        }
        kept
    }
}

impl Node {
    fn targets(&self) -> Vec<usize> {
        self.same.iter().copied().chain(self.parts.iter().map(|(_, target)| *target)).collect()
    }
}

/// Makes the graph.
#[derive(Default)]
struct Walk {
    graph: Graph,
    /// Nodes by pointer and by anchor.
    by_place: HashMap<String, usize>,
    references: Vec<(usize, String)>,
}

impl Walk {
    fn node(&mut self, schema: &Value, place: String) -> usize {
        let index = self.graph.nodes.len();
        self.graph.nodes.push(Node::default());
        let Value::Object(map) = schema else {
            self.by_place.insert(place, index);
            return index;
        };
        let mut node = Node::default();
        for (keyword, value) in map {
            let below = || format!("{place}/{}", escaped(keyword));
            match (keyword.as_str(), value) {
                ("$ref" | "$dynamicRef", Value::String(target)) => self.references.push((index, target.clone())),
                ("$anchor" | "$dynamicAnchor", Value::String(anchor)) => {
                    self.by_place.insert(anchor.clone(), index);
                }
                ("allOf" | "anyOf" | "oneOf", Value::Array(schemas)) => {
                    for (number, schema) in schemas.iter().enumerate() {
                        node.same.push(self.node(schema, format!("{}/{number}", below())));
                    }
                }
                ("not" | "if" | "then" | "else", schema) => node.same.push(self.node(schema, below())),
                ("dependentSchemas", Value::Object(schemas)) => {
                    for (name, schema) in schemas {
                        node.same.push(self.node(schema, format!("{}/{}", below(), escaped(name))));
                    }
                }
                ("properties", Value::Object(schemas)) => {
                    for (name, schema) in schemas {
                        let part = self.node(schema, format!("{}/{}", below(), escaped(name)));
                        node.parts.push((Some(name.clone()), part));
                    }
                }
                ("patternProperties" | "dependencies", Value::Object(schemas)) => {
                    for (name, schema) in schemas {
                        let part = self.node(schema, format!("{}/{}", below(), escaped(name)));
                        node.parts.push((None, part));
                    }
                }
                ("items" | "prefixItems", Value::Array(schemas)) => {
                    for (number, schema) in schemas.iter().enumerate() {
                        let part = self.node(schema, format!("{}/{number}", below()));
                        node.parts.push((None, part));
                    }
                }
                ("items" | "additionalItems" | "additionalProperties" | "contains" | "unevaluatedItems", schema)
                | ("unevaluatedProperties", schema) => {
                    node.twice |= keyword.starts_with("unevaluated");
                    let part = self.node(schema, below());
                    node.parts.push((None, part));
                }
                ("$defs" | "definitions", Value::Object(schemas)) => {
                    for (name, schema) in schemas {
                        self.node(schema, format!("{}/{}", below(), escaped(name)));
                    }
                }
                _ => {}
            }
        }
        self.by_place.insert(place, index);
        if let Some(slot) = self.graph.nodes.get_mut(index) {
            *slot = node;
        }
        index
    }
}

fn escaped(step: &str) -> String {
    step.replace('~', "~0").replace('/', "~1")
}

/// What one node costs in its place.
#[derive(Clone, Default)]
struct Cost {
    looks: u64,
    /// How often each part is handed to a schema that may come round to this one again.
    again: BTreeMap<Option<String>, u64>,
}

impl Cost {
    /// The most often that one part is looked at for one look at the whole.
    fn widest(&self) -> u64 {
        let any = self.again.get(&None).copied().unwrap_or(0);
        let named = self.again.iter().filter(|(name, _)| name.is_some()).map(|(_, count)| *count).max().unwrap_or(0);
        any.saturating_add(named)
    }
}

struct Costs<'a> {
    graph: &'a Graph,
    recursive: Vec<bool>,
    done: Vec<Option<Cost>>,
}

impl Costs<'_> {
    /// Works out a node's cost and that of all that it leads to in its place.
    fn visit(&mut self, index: usize, chain: usize) -> Result<(), String> {
        if self.done.get(index).is_none_or(Option::is_some) {
            return Ok(());
        }
        if chain > MAX_CHAIN {
            return Err(
                "schemas refer to each other in a ring, or in too long a row, without coming to a part of the value"
                    .to_owned(),
            );
        }
        let Some(node) = self.graph.nodes.get(index) else { return Ok(()) };
        let mut cost = Cost { looks: 1, again: BTreeMap::new() };
        let factor = if node.twice { 2 } else { 1 };
        for (name, part) in &node.parts {
            if self.recursive.get(*part) == Some(&true) {
                *cost.again.entry(name.clone()).or_default() += 1;
            }
        }
        for same in &node.same {
            self.visit(*same, chain + 1)?;
            // Not done yet: it leads round to itself, which the length of the chain finds out.
            let Some(inner) = self.done.get(*same).and_then(Option::as_ref) else { continue };
            cost.looks = cost.looks.saturating_add(inner.looks.saturating_mul(factor));
            for (name, count) in &inner.again {
                let sum = cost.again.entry(name.clone()).or_default();
                *sum = sum.saturating_add(count.saturating_mul(factor));
            }
        }
        if cost.looks > MAX_LOOKS {
            return Err(format!(
                "validating could look at one value more than {MAX_LOOKS} times: use fewer alternatives inside one another"
            ));
        }
        if let Some(slot) = self.done.get_mut(index) {
            *slot = Some(cost);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ordinary_schemas_are_not_bounded_in_depth() {
        let tree =
            json!({ "type": "object", "properties": { "children": { "type": "array", "items": { "$ref": "#" } } } });
        assert_eq!(max_depth(&tree), Ok(None));
        let flat = json!({ "anyOf": [{ "type": "string" }, { "type": "number" }, { "properties": { "a": {} } }] });
        assert_eq!(max_depth(&flat), Ok(None));
    }

    #[test]
    fn alternatives_that_come_round_bound_the_depth() {
        let operation = |name: &str| json!({ "properties": { "op": { "const": name }, "left": { "$ref": "#" } } });
        let expression = json!({ "anyOf": [operation("add"), operation("sub"), operation("mul"), operation("div")] });
        assert_eq!(max_depth(&expression), Ok(Some(9)));
    }

    #[test]
    fn towers_and_rings_are_refused() {
        for keyword in ["allOf", "anyOf", "oneOf"] {
            let mut defs = serde_json::Map::new();
            for level in 0..24 {
                let next = json!({ "$ref": format!("#/$defs/d{}", level + 1) });
                defs.insert(format!("d{level}"), json!({ keyword: [next, next] }));
            }
            defs.insert("d24".to_owned(), json!({}));
            assert!(max_depth(&json!({ "$ref": "#/$defs/d0", "$defs": defs })).is_err(), "{keyword}");
        }
        assert!(max_depth(&json!({ "allOf": [{ "$ref": "#" }] })).is_err());
    }
}
