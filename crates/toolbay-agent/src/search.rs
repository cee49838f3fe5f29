//! Tool search: where a tenant has many tools, the model is not given all of them but a way to find them.
//!
//! `search_tools` ranks the tools that the user may see by what the model looks for, `describe_tool` tells how one is called.
//! Both are tools of the host and take the road like every other; what they see is the run's own snapshot, which does not
//! change while the run goes on. A tool that was described is given to the model from then on.

use std::sync::Arc;

use bm25::{Document, SearchEngineBuilder, Tokenizer};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use toolbay_api::{Annotations, ErrorKind, Tool, ToolContext, ToolDefinition, ToolError, hook::ToolMatcher, tool};

use crate::code::{is_run_code, signature_in};

/// The name of the tool that finds tools.
pub const SEARCH_TOOLS: &str = "search_tools";
/// The name of the tool that describes one.
pub const DESCRIBE_TOOL: &str = "describe_tool";

/// Tools that one search finds at most, and without a word about it.
const MAX_FOUND: u8 = 50;
const DEFAULT_FOUND: u8 = 8;
/// Bytes of a description in a list of tools.
const MAX_DESCRIPTION: usize = 240;

/// When a model gets the search in the place of the tools.
#[derive(Debug, Clone)]
pub struct ToolSearch {
    /// With more tools than this.
    pub over: usize,
    /// Tools that it gets all the same, by their qualified names.
    pub pinned: ToolMatcher,
}

impl Default for ToolSearch {
    /// With more than 40 tools, and none pinned.
    fn default() -> Self {
        let none: [&str; 0] = [];
        Self { over: 40, pinned: ToolMatcher::new(none).unwrap_or_default() }
    }
}

/// Both tools: `builder.tool(...)` takes each, and [`AgentConfig::search`](crate::AgentConfig::search) puts them to use.
///
/// ```
/// # #[derive(serde::Deserialize, schemars::JsonSchema)] struct Nothing {}
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use toolbay_agent::search::tools;
/// use toolbay_api::{ToolContext, tool};
/// use toolbay_runtime::Toolbay;
///
/// let weather = tool("weather", "Tells whether it will rain", async |_: Nothing, _: ToolContext| Ok("sunny"));
/// let (search, describe) = tools();
/// let session = Toolbay::builder().tool(weather).tool(search).tool(describe).build()?.session("acme")?;
/// let found = session.call("search_tools", serde_json::json!({"query": "will it rain tomorrow?"})).await.result?;
/// assert_eq!(found.data["tools"][0]["name"], "weather");
/// # Ok(()) }
/// ```
#[must_use]
pub fn tools() -> (impl Tool + 'static, impl Tool + 'static) {
    let about_search = "Finds tools by what they do. There are more than those that you were given.";
    let search = tool(SEARCH_TOOLS, about_search, async |wanted: Wanted, cx: ToolContext| {
        let limit = wanted.limit.unwrap_or(DEFAULT_FOUND).min(MAX_FOUND);
        Ok(search(&catalog(&cx), &wanted.query, usize::from(limit)))
    });
    let about_describe = "Tells how a tool is called. Have a tool described before you call it.";
    let describe = tool(DESCRIBE_TOOL, about_describe, async |named: Named, cx: ToolContext| {
        let mut described = describe(&catalog(&cx), &named.name)?;
        // For a model that writes programs: how it is called there.
        let all = cx.host().catalog();
        let found = all.iter().find(|(name, _)| described.get("name").and_then(Value::as_str) == Some(&**name));
        let function = found.and_then(|(_, tool)| signature_in(&all, tool.name.as_str()));
        if let (Some(function), Some(fields)) = (function, described.as_object_mut()) {
            fields.insert("function".to_owned(), function.into());
        }
        Ok(described)
    });
    (search.with(changes_nothing), describe.with(changes_nothing))
}

/// The arguments of `search_tools`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// What the tool should do, in a few words.
    #[schemars(length(min = 1, max = 500))]
    query: String,
    /// How many to list: 8 unless said.
    #[schemars(range(min = 1, max = 50))]
    limit: Option<u8>,
}

/// The arguments of `describe_tool`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Named {
    /// The tool's name as search_tools gives it.
    name: String,
}

fn changes_nothing(definition: &mut ToolDefinition) {
    definition.annotations = Annotations { read_only: Some(true), idempotent: Some(true), ..Annotations::default() };
}

/// What there is to be found: all but the two tools themselves, and the one that runs programs.
fn catalog(cx: &ToolContext) -> Vec<Listed> {
    let is_meant = |name: &str| !is_search(name) && !is_run_code(name);
    cx.host().catalog().into_iter().filter(|(_, tool)| is_meant(tool.name.as_str())).collect()
}

/// Whether a tool is one of the two here.
pub(crate) fn is_search(name: &str) -> bool {
    name == SEARCH_TOOLS || name == DESCRIBE_TOOL
}

/// A tool under the name that the model calls it by.
type Listed = (Arc<str>, Arc<ToolDefinition>);

fn search(tools: &[Listed], query: &str, limit: usize) -> Value {
    let documents = tools.iter().enumerate().map(|(index, (_, tool))| Document { id: index, contents: words_of(tool) });
    let documents: Vec<_> = documents.collect();
    let engine = SearchEngineBuilder::<usize, u32, Words>::with_tokenizer_and_documents(Words, documents).build();
    let mut found = engine.search(query, tools.len());
    // Equal scores in the order of names, so that a search gives the same each time.
    found.sort_by(|one, other| other.score.total_cmp(&one.score).then(one.document.id.cmp(&other.document.id)));
    let found = found.iter().take(limit).filter_map(|result| tools.get(result.document.id));
    let found = found.map(|(name, tool)| json!({ "name": name, "description": short(&tool.description) }));
    let found: Vec<_> = found.collect();
    let hint = if found.is_empty() {
        "nothing was found: say it in other words"
    } else {
        "describe_tool tells how one of these is called"
    };
    json!({ "tools": found, "searched": tools.len(), "hint": hint })
}

fn describe(tools: &[Listed], name: &str) -> Result<Value, ToolError> {
    let found = tools.iter().find(|(listed, tool)| **listed == *name || tool.name == *name);
    let (name, tool) = found.ok_or_else(|| {
        let shown: String = name.chars().take(80).collect();
        ToolError::new(
            ErrorKind::NotFound,
            format!("there is no tool called {shown:?}; look for one with search_tools"),
        )
    })?;
    Ok(
        json!({ "name": name, "description": tool.description, "parameters": tool.parameters, "annotations": tool.annotations }),
    )
}

fn short(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_DESCRIPTION)).unwrap_or_default()
}

/// What a tool is found by: its name, which says most, its description, and the names and descriptions of its parameters.
fn words_of(tool: &ToolDefinition) -> String {
    let mut words = format!("{0} {0} {1}", tool.name, tool.description);
    for (key, schema) in tool.parameters.get("properties").and_then(Value::as_object).into_iter().flatten() {
        words.push(' ');
        words.push_str(key);
        if let Some(said) = schema.get("description").and_then(Value::as_str) {
            words.push(' ');
            words.push_str(said);
        }
    }
    words
}

/// Words of names and of English: parts of `snake_case` and `camelCase`, in lower case, without the ends that make plurals.
///
/// The library's own tokenizer takes `create_invoice` for one word, and brings a dozen crates.
#[derive(Debug, Default)]
struct Words;

impl Tokenizer for Words {
    fn tokenize(&self, text: &str) -> Vec<String> {
        let mut words = Vec::new();
        let mut word = String::new();
        let mut before_is_lower = false;
        for letter in text.chars() {
            if !letter.is_alphanumeric() || (before_is_lower && letter.is_uppercase()) {
                words.extend(stem(std::mem::take(&mut word)));
            }
            if letter.is_alphanumeric() {
                word.extend(letter.to_lowercase());
            }
            before_is_lower = letter.is_lowercase();
        }
        words.extend(stem(word));
        words
    }
}

/// Words that say nothing of a tool.
const SILENT: [&str; 26] = [
    "a", "an", "and", "are", "as", "be", "by", "for", "from", "i", "if", "in", "is", "it", "its", "of", "on", "or",
    "that", "the", "this", "to", "what", "which", "will", "with",
];

fn stem(word: String) -> Option<String> {
    if word.is_empty() || SILENT.contains(&word.as_str()) {
        return None;
    }
    let stem = match word.as_str() {
        short if short.len() <= 3 => short,
        word if word.ends_with("ss") || word.ends_with("us") || word.ends_with("is") => word,
        word => match word.strip_suffix("ies") {
            Some(start) => return Some(format!("{start}y")),
            None => word.strip_suffix('s').unwrap_or(word),
        },
    };
    Some(stem.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fall_apart_into_words_and_plurals_lose_their_ends() {
        assert_eq!(
            Words.tokenize("createInvoice list_invoices, the Status of CITIES"),
            ["create", "invoice", "list", "invoice", "status", "city"]
        );
    }
}
