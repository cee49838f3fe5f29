//! Tools as others write them down. One function for each form, so that a form can change with its API alone; here, since
//! every interface gives the same ones.

use serde_json::{Map, Value, json};
use toolbay_api::{Annotations, Scope};

use crate::catalog::ToolInfo;

/// An entry of `tools` in OpenAI's chat completions.
#[must_use]
pub fn openai(tool: &ToolInfo) -> Value {
    openai_as(tool, parameters(tool), false)
}

/// The same with parameters in OpenAI's own words, and whether it is to hold the model to them.
#[must_use]
pub fn openai_as(tool: &ToolInfo, parameters: Value, strict: bool) -> Value {
    let mut function = json!({
        "name": tool.provider_name,
        "description": tool.definition.description,
        "parameters": parameters,
    });
    if let (true, Some(function)) = (strict, function.as_object_mut()) {
        function.insert("strict".to_owned(), true.into());
    }
    json!({ "type": "function", "function": function })
}

/// An entry of `tools` in Anthropic's messages.
#[must_use]
pub fn anthropic(tool: &ToolInfo) -> Value {
    anthropic_as(tool, parameters(tool))
}

/// The same with parameters in Anthropic's own words.
#[must_use]
pub fn anthropic_as(tool: &ToolInfo, parameters: Value) -> Value {
    json!({
        "name": tool.provider_name,
        "description": tool.definition.description,
        "input_schema": parameters,
    })
}

/// An entry of `functionDeclarations` in a Gemini request, with parameters in Gemini's own words. A function without
/// parameters has none.
#[must_use]
pub fn gemini_as(tool: &ToolInfo, parameters: Value) -> Value {
    let mut function = json!({ "name": tool.provider_name, "description": tool.definition.description });
    if let (Some(_), Some(function)) = (parameters.get("properties"), function.as_object_mut()) {
        function.insert("parameters".to_owned(), parameters);
    }
    function
}

/// An entry of `tools` in MCP's `tools/list`.
#[must_use]
pub fn mcp(tool: &ToolInfo) -> Value {
    let mut entry = Map::new();
    entry.insert("name".to_owned(), json!(tool.definition.name));
    entry.insert("description".to_owned(), json!(tool.definition.description));
    entry.insert("inputSchema".to_owned(), parameters(tool));
    if let Some(schema) = &tool.definition.output {
        entry.insert("outputSchema".to_owned(), schema.clone());
    }
    let Annotations { read_only, destructive, idempotent, open_world } = tool.definition.annotations;
    let hints = [
        ("readOnlyHint", read_only),
        ("destructiveHint", destructive),
        ("idempotentHint", idempotent),
        ("openWorldHint", open_world),
    ];
    let said = hints.into_iter().filter_map(|(name, hint)| Some((name.to_owned(), Value::Bool(hint?))));
    let said: Map<_, _> = said.collect();
    if !said.is_empty() {
        entry.insert("annotations".to_owned(), Value::Object(said));
    }
    Value::Object(entry)
}

/// All that Toolbay knows of a tool.
#[must_use]
pub fn full(tool: &ToolInfo) -> Value {
    let definition = &tool.definition;
    json!({
        "name": definition.name,
        "provider_name": tool.provider_name,
        "plugin": tool.plugin,
        "version": tool.version.to_string(),
        "served_by": tool.served_by,
        "scope": if tool.scope == Scope::Global { "global" } else { "tenant" },
        "description": definition.description,
        "parameters": definition.parameters,
        "output": definition.output,
        "required_permissions": definition.required_permissions,
        "annotations": definition.annotations,
    })
}

/// The parameters with the `type` that all these APIs insist on; arguments are an object whether or not the schema says
/// so.
fn parameters(tool: &ToolInfo) -> Value {
    let mut schema = tool.definition.parameters.as_object().cloned().unwrap_or_default();
    if schema.get("type").and_then(Value::as_str) != Some("object") {
        schema.insert("type".to_owned(), "object".into());
    }
    Value::Object(schema)
}
