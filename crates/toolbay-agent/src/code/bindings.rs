//! A run's tools as functions, and what a model is told of them.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;
use toolbay_api::{ToolDefinition, ToolFunction};

use super::{
    RUN_CODE,
    names::identifiers,
    signature::{required, signature},
};
use crate::{
    results::READ_RESULT,
    search::{DESCRIBE_TOOL, SEARCH_TOOLS, is_search},
};

/// The space of tools that belong to no other, those that are called like their plugins.
const BARE: &str = "tools";

/// Bytes of a tool's description behind its signature.
const MAX_SUMMARY: usize = 120;

/// A run's tools as functions of a program.
#[derive(Debug, Clone, Default)]
pub(super) struct Bindings {
    functions: Vec<Bound>,
}

#[derive(Debug, Clone)]
struct Bound {
    function: ToolFunction,
    /// The name that models call the tool by outside of code.
    provider_name: Arc<str>,
    definition: Arc<ToolDefinition>,
}

impl Bindings {
    /// The functions for `tools`, each by the name that models know it by. What helps a model outside of code is left out.
    pub(super) fn new(tools: impl IntoIterator<Item = (Arc<str>, Arc<ToolDefinition>)>) -> Self {
        let is_for_code = |name: &str| name != RUN_CODE && name != READ_RESULT && !is_search(name);
        let mut tools: Vec<_> = tools.into_iter().filter(|(_, tool)| is_for_code(tool.name.as_str())).collect();
        tools.sort_by(|(_, one), (_, other)| one.name.cmp(&other.name));
        let spaces = identifiers(tools.iter().map(|(_, tool)| parts(tool.name.as_str()).0));
        let mut names: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (_, tool) in &tools {
            let (space, name) = parts(tool.name.as_str());
            names.entry(space).or_default().push(name);
        }
        let names: BTreeMap<_, _> = names.into_iter().map(|(space, names)| (space, identifiers(names))).collect();
        let bound = |(provider_name, definition): &(Arc<str>, Arc<ToolDefinition>)| {
            let (space, name) = parts(definition.name.as_str());
            let function = ToolFunction {
                space: spaces.get(space)?.clone(),
                name: names.get(space)?.get(name)?.clone(),
                tool: definition.name.to_string(),
                positional: positional(&definition.parameters),
                without_arguments: required(&definition.parameters).is_empty(),
            };
            Some(Bound { function, provider_name: Arc::clone(provider_name), definition: Arc::clone(definition) })
        };
        Self { functions: tools.iter().filter_map(bound).collect() }
    }

    /// For the runner.
    pub(super) fn functions(&self) -> Vec<ToolFunction> {
        self.functions.iter().map(|bound| bound.function.clone()).collect()
    }

    /// The tool that `name` stands for: a function's `space::name`, a qualified name or the one that providers know.
    pub(super) fn tool(&self, name: &str) -> Option<&Arc<ToolDefinition>> {
        let is_meant = |bound: &&Bound| {
            let by_path = name.split_once("::");
            by_path.is_some_and(|(space, local)| bound.function.space == space && bound.function.name == local)
                || bound.definition.name == *name
                || *bound.provider_name == *name
        };
        self.functions.iter().find(is_meant).map(|bound| &bound.definition)
    }

    /// The signature of a tool's function, by the tool's qualified name.
    pub(super) fn signature_of(&self, tool: &str) -> Option<String> {
        self.functions.iter().find(|bound| bound.definition.name == *tool).map(Bound::signature)
    }

    /// What there is in a space, or which spaces there are, for somebody who wrote `path` wrongly.
    pub(super) fn near(&self, path: &str) -> String {
        let space = path.split("::").next().unwrap_or(path);
        let of_space = self.functions.iter().filter(|bound| bound.function.space == space);
        let paths: Vec<_> = of_space.map(Bound::path).take(20).collect();
        if !paths.is_empty() {
            return format!("there are {}", paths.join(", "));
        }
        let mut spaces: Vec<_> = self.functions.iter().map(|bound| bound.function.space.as_str()).collect();
        spaces.dedup();
        if spaces.is_empty() {
            return "there are no tools".to_owned();
        }
        format!(
            "tools are in {}",
            spaces.into_iter().take(20).map(|space| format!("{space}::")).collect::<Vec<_>>().join(", ")
        )
    }

    /// Whether all that there is to say of the functions has no more than `max_bytes`.
    pub(super) fn fits(&self, max_bytes: usize) -> bool {
        self.whole().len() <= max_bytes
    }

    fn whole(&self) -> String {
        self.functions.iter().map(|bound| bound.line(true)).collect()
    }

    /// The functions as a model is told of them within `max_bytes`: with what they do; where that is too long their
    /// signatures alone; where that is too long as well, their names as far as they go, and how to learn of the others.
    pub(super) fn listing(&self, max_bytes: usize, can_search: bool) -> String {
        let whole = self.whole();
        if whole.len() <= max_bytes {
            return whole;
        }
        let how = if can_search {
            format!("{SEARCH_TOOLS} finds functions by what they do, {DESCRIBE_TOOL} gives the signature of one.\n")
        } else {
            String::new()
        };
        let brief: String = self.functions.iter().map(|bound| bound.line(false)).collect();
        if how.len() + brief.len() <= max_bytes {
            return how + &brief;
        }
        let mut text = how;
        let mut shown = 0;
        for bound in &self.functions {
            let path = bound.path();
            // Room for the words about the rest.
            if text.len() + path.len() + 60 > max_bytes {
                break;
            }
            if shown > 0 {
                text.push_str(", ");
            }
            text.push_str(&path);
            shown += 1;
        }
        let left = self.functions.len() - shown;
        if left > 0 {
            text.push_str(&format!(" and {left} more"));
        }
        text.push('\n');
        text
    }
}

impl Bound {
    fn path(&self) -> String {
        format!("{}::{}", self.function.space, self.function.name)
    }

    fn signature(&self) -> String {
        signature(&self.function, &self.definition.parameters, self.definition.output.as_ref())
    }

    fn line(&self, with_summary: bool) -> String {
        let summary = summary(&self.definition.description);
        match (with_summary, summary.is_empty()) {
            (true, false) => format!("{}  // {summary}\n", self.signature()),
            _ => format!("{}\n", self.signature()),
        }
    }
}

/// The first line of a description, cut.
fn summary(description: &str) -> String {
    let line = description.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let cut = line.get(..line.floor_char_boundary(MAX_SUMMARY)).unwrap_or(line);
    if cut.len() < line.len() { format!("{cut}…") } else { cut.to_owned() }
}

/// Plugin and name of a tool; one that is called like its plugin has none.
fn parts(tool: &str) -> (&str, &str) {
    tool.split_once('.').unwrap_or((BARE, tool))
}

/// The required parameters, where they can be given by their places: few, none of them unknown to the schema, and a single
/// one no map, which would be taken for the map of all.
fn positional(parameters: &Value) -> Vec<String> {
    let required = required(parameters);
    let schema = |name: &String| parameters.get("properties").and_then(|keys| keys.get(name));
    let fits = match required.as_slice() {
        [] => false,
        [only] => schema(only).is_some_and(is_never_a_map),
        several => several.len() <= ToolFunction::MAX_POSITIONAL && several.iter().all(|name| schema(name).is_some()),
    };
    if fits { required } else { Vec::new() }
}

/// Whether a schema says by its type that no map fits.
fn is_never_a_map(schema: &Value) -> bool {
    let is_simple = |kind: &Value| kind.as_str().is_some_and(|kind| kind != "object");
    match schema.get("type") {
        Some(Value::Array(kinds)) => !kinds.is_empty() && kinds.iter().all(is_simple),
        Some(kind) => is_simple(kind),
        None => false,
    }
}
