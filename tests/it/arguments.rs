//! Arguments against schemas: what a model reads when they do not fit, and which schemas are refused.

use expect_test::{Expect, expect};
use serde_json::{Value, json};
use toolbay::{
    ErrorKind, Limit, Limits, Scope, Tool, ToolContext, ToolDefinition, ToolError, ToolOutput, Toolbay, async_trait,
    plugin::NativePlugin,
};

use crate::support::outcome;

/// A tool with this definition that gives `result`, or else its arguments.
struct Fixed(ToolDefinition, Option<Value>);

#[async_trait]
impl Tool for Fixed {
    fn definition(&self) -> &ToolDefinition {
        &self.0
    }

    async fn call(&self, arguments: Value, _: &ToolContext) -> Result<ToolOutput, ToolError> {
        Ok(self.1.clone().unwrap_or(arguments).into())
    }
}

async fn with_tool(parameters: Value, output: Option<Value>, result: Option<Value>) -> Result<Toolbay, String> {
    let mut definition = ToolDefinition::new("tool", "A test's tool", parameters).unwrap();
    definition.output = output;
    let plugin = NativePlugin::new("tool", "1.0.0", "A test's plugin").unwrap().tool(Fixed(definition, result));
    let bay = Toolbay::builder().limits(small_limits()).build().unwrap();
    bay.register(Scope::Global, plugin).await.map_err(|error| error.to_string())?;
    Ok(bay)
}

fn small_limits() -> Limits {
    Limits { max_argument_bytes: 300, max_output_bytes: 300, max_nesting: 8, ..Limits::default() }
}

async fn call(parameters: Value, arguments: Value) -> String {
    let bay = with_tool(parameters, None, None).await.unwrap();
    outcome(&bay.session("acme").unwrap(), "tool", arguments).await.to_string()
}

fn order() -> Value {
    json!({
        "type": "object",
        "properties": {
            "amount": { "type": "number", "minimum": 0 },
            "to": { "type": "string", "pattern": "^[A-Z]{3}$" },
            "items": { "type": "array", "maxItems": 2, "items": { "type": "object", "properties": { "sku": { "type": "string" } }, "required": ["sku"] } },
            "size": { "enum": ["small", "large"] },
            "a/b": { "const": 1 }
        },
        "required": ["amount", "to"],
        "additionalProperties": false
    })
}

async fn problems(arguments: Value, expected: Expect) {
    let bay = with_tool(order(), None, None).await.unwrap();
    let reply = bay.session("acme").unwrap().call("tool", arguments).await;
    let error = reply.result.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidArguments);
    let mut text = String::new();
    for problem in error.details["problems"].as_array().unwrap() {
        let part = |name: &str| problem[name].as_str().unwrap().to_owned();
        text.push_str(&format!("{}: expected {}, found {}\n", part("pointer"), part("expected"), part("found")));
    }
    expected.assert_eq(&text);
}

#[tokio::test]
async fn every_problem_is_told_with_pointer_expected_and_found() {
    problems(
        json!({ "amount": -5, "items": [{}, { "sku": 7 }, null], "size": "huge", "a/b": 2, "amuont": 1 }),
        expect![[r#"
            /to: expected a value: this property is required, found nothing
            /amount: expected minimum 0, found the number -5
            /items: expected maxItems 2, found an array of 3
            /items/0/sku: expected a value: this property is required, found nothing
            /items/1/sku: expected the type string, found the number 7
            /items/2: expected the type object, found null
            /size: expected one of ["small","large"], found the string "huge"
            /a~1b: expected just 1, found the number 2
            : expected no other properties than amount, to, items, size, a/b, found the unknown amuont
        "#]],
    )
    .await;
}

#[tokio::test]
async fn a_wrong_type_and_a_wrong_pattern_are_told_in_words() {
    problems(
        json!({ "amount": "5", "to": "euro" }),
        expect![[r#"
            /amount: expected the type number, found the string "5"
            /to: expected text that matches the pattern ^[A-Z]{3}$, found the string "euro"
        "#]],
    )
    .await;
}

#[tokio::test]
async fn arguments_that_are_no_object_are_refused() {
    for arguments in [json!(null), json!([]), json!("{\"amount\": 1}"), json!(5)] {
        let reply = call(order(), arguments).await;
        assert!(reply.contains("InvalidArguments"), "{reply}");
    }
}

#[tokio::test]
async fn arguments_over_the_byte_limit_or_nested_too_deep_are_refused_before_validation() {
    let reply = call(json!({ "type": "object" }), json!({ "text": "x".repeat(400) })).await;
    assert!(reply.contains("LimitExceeded") && reply.contains("300 bytes of arguments (used 411)"), "{reply}");
    let deep = (0..20).fold(json!({}), |inner, _| json!({ "a": inner }));
    let reply = call(json!({ "type": "object" }), deep).await;
    assert!(reply.contains("LimitExceeded") && reply.contains("8 levels of nesting"), "{reply}");
}

#[tokio::test]
async fn a_result_over_its_limit_is_an_error_with_both_figures() {
    let bay = with_tool(json!({ "type": "object" }), None, Some(json!("x".repeat(1000)))).await.unwrap();
    let error = bay.session("acme").unwrap().call("tool", json!({})).await.result.unwrap_err();
    assert_eq!(error.kind, ErrorKind::LimitExceeded { limit: Limit::Output, allowed: 300, used: 1002 });
}

#[tokio::test]
async fn a_result_that_breaks_the_output_schema_is_the_tools_fault() {
    let output = Some(json!({ "type": "object", "required": ["total"] }));
    let bay = with_tool(json!({ "type": "object" }), output, Some(json!({ "sum": 5 }))).await.unwrap();
    expect![[r#""Script: the tool's result does not fit its own output schema: /total: expected a value: this property is required, found nothing""#]]
        .assert_eq(&outcome(&bay.session("acme").unwrap(), "tool", json!({})).await.to_string());
}

#[tokio::test]
async fn bad_schemas_are_refused_at_registration_with_their_place() {
    let mut text = String::new();
    for (what, parameters) in [
        ("no type", json!({ "properties": {} })),
        ("no object", json!({ "type": "array" })),
        ("not a schema", json!("anything")),
        ("bad keyword", json!({ "type": "object", "properties": { "a": { "type": "nubmer" } } })),
        ("bad pattern", json!({ "type": "object", "properties": { "a": { "pattern": "(" } } })),
        ("look-around", json!({ "type": "object", "properties": { "a": { "pattern": "(?=a)b" } } })),
        ("unknown $ref", json!({ "type": "object", "properties": { "a": { "$ref": "#/$defs/none" } } })),
        ("remote $ref", json!({ "type": "object", "properties": { "a": { "$ref": "https://example.com/s.json" } } })),
        ("local file", json!({ "type": "object", "properties": { "a": { "$ref": "file:///etc/passwd" } } })),
        ("old draft", json!({ "$schema": "http://json-schema.org/draft-04/schema#", "type": "object" })),
    ] {
        let error = with_tool(parameters, None, None).await.expect_err(what);
        text.push_str(&format!("{what}: {error}\n"));
    }
    expect![[r#"
        no type: Config: tools.tool.parameters: /type: the parameters of a tool are an object: write "type": "object" instead of nothing
        no object: Config: tools.tool.parameters: /type: the parameters of a tool are an object: write "type": "object" instead of "array"
        not a schema: Config: tools.tool.parameters: the schema must be an object, not string
        bad keyword: Config: tools.tool.parameters: /properties/a/type: "nubmer" is no type of JSON Schema: use string, number, integer, boolean, object, array or null
        bad pattern: Config: tools.tool.parameters: /properties/a/pattern: "(" is not a "regex"
        look-around: Config: tools.tool.parameters: /properties/a/pattern: "(?=a)b" is not a "regex"
        unknown $ref: Config: tools.tool.parameters: a $ref leads to nothing in this schema (remote ones are never fetched): Pointer '/$defs/none' does not exist
        remote $ref: Config: tools.tool.parameters: a $ref leads to nothing in this schema (remote ones are never fetched): Resource 'https://example.com/s.json' is not present in a registry and retrieving it fai…
        local file: Config: tools.tool.parameters: a $ref leads to nothing in this schema (remote ones are never fetched): Resource 'file:///etc/passwd' is not present in a registry and retrieving it failed: Ret…
        old draft: Config: tools.tool.parameters: /$schema: "http://json-schema.org/draft-04/schema#" is not supported: use JSON Schema 2020-12 or draft-07
    "#]]
    .assert_eq(&text);
}

#[tokio::test]
async fn draft_07_is_taken_where_the_schema_says_so() {
    let parameters = json!({
        "$schema": "http://json-schema.org/draft-07/schema#", "type": "object",
        "properties": { "pair": { "items": [{ "type": "string" }, { "type": "number" }], "additionalItems": false } }
    });
    // The array form of `items` means positions in draft-07 and is no schema in 2020-12.
    assert_eq!(call(parameters.clone(), json!({ "pair": ["a", 1] })).await, r#"{"pair":["a",1]}"#);
    assert!(call(parameters, json!({ "pair": [1, "a"] })).await.contains("/pair/0"));
}

#[tokio::test]
async fn a_pattern_made_to_explode_costs_nothing() {
    let parameters = json!({ "type": "object", "properties": { "a": { "type": "string", "pattern": "^(a+)+$" } } });
    let reply = call(parameters, json!({ "a": format!("{}!", "a".repeat(200)) })).await;
    assert!(reply.contains("InvalidArguments"), "{reply}");
}

#[tokio::test]
async fn a_native_tools_schema_comes_from_its_type() {
    #[derive(serde::Deserialize, schemars::JsonSchema)]
    #[allow(dead_code, reason = "only the schema is looked at")]
    struct Transfer {
        /// In euros.
        amount: f64,
        to: Option<String>,
    }
    let tool = toolbay::tool("pay", "Pays", async |_: Transfer, _: ToolContext| Ok(()));
    expect![[r#"
        {
          "type": "object",
          "properties": {
            "amount": {
              "type": "number",
              "format": "double",
              "description": "In euros."
            },
            "to": {
              "type": [
                "string",
                "null"
              ]
            }
          },
          "required": [
            "amount"
          ],
          "$schema": "https://json-schema.org/draft/2020-12/schema"
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&tool.definition().parameters).unwrap());
}
