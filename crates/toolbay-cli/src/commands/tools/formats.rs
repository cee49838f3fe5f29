//! Tools as others write them down. One function for each form, so that a form can change with its API alone.

use serde_json::{Map, Value, json};
use toolbay::{Annotations, Scope, ToolInfo, lowering::Lowered};

/// An entry of `tools` in OpenAI's chat completions.
pub(super) fn openai(tool: &ToolInfo, lowered: &Lowered) -> Value {
    let mut function = json!({
        "name": tool.provider_name,
        "description": tool.definition.description,
        "parameters": lowered.schema,
    });
    if let (true, Some(function)) = (lowered.strict, function.as_object_mut()) {
        function.insert("strict".to_owned(), true.into());
    }
    json!({ "type": "function", "function": function })
}

/// An entry of `tools` in Anthropic's messages.
pub(super) fn anthropic(tool: &ToolInfo, lowered: &Lowered) -> Value {
    json!({
        "name": tool.provider_name,
        "description": tool.definition.description,
        "input_schema": lowered.schema,
    })
}

/// An entry of `functionDeclarations` in a Gemini request. A function without parameters has none.
pub(super) fn gemini(tool: &ToolInfo, lowered: &Lowered) -> Value {
    let mut function = json!({ "name": tool.provider_name, "description": tool.definition.description });
    if let (Some(_), Some(function)) = (lowered.schema.get("properties"), function.as_object_mut()) {
        function.insert("parameters".to_owned(), lowered.schema.clone());
    }
    function
}

/// An entry of `tools` in MCP's `tools/list`.
pub(super) fn mcp(tool: &ToolInfo) -> Value {
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
pub(super) fn json(tool: &ToolInfo) -> Value {
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
