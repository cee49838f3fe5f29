//! The functions that a run's tools become: always names that Rhai takes, each one once, and a call through one is judged by
//! the tool's schema as the plain call is.

use std::collections::BTreeSet;

use expect_test::expect;
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use toolbay::{
    CallId, RhaiRunner, Scope, Session, Tool, ToolCall, ToolContext, ToolDefinition, ToolError, ToolOutput, Toolbay,
    async_trait,
    code::{CodeMode, CodeSettings, CodeTurn, code_mode},
    plugin::NativePlugin,
};

use crate::support::project;

/// A tool that gives back what it is called with.
struct Echo(ToolDefinition);

#[async_trait]
impl Tool for Echo {
    fn definition(&self) -> &ToolDefinition {
        &self.0
    }

    async fn call(&self, arguments: Value, _: &ToolContext) -> Result<ToolOutput, ToolError> {
        Ok(arguments.into())
    }
}

fn echo(name: &str, parameters: Value) -> Echo {
    Echo(ToolDefinition::new(name, "Gives back", parameters).unwrap())
}

/// A host with these plugins of tools that echo, in code mode.
async fn echoing(plugins: &[(&str, Vec<(String, Value)>)]) -> (Session, CodeMode) {
    let (mode, run_code) = code_mode(CodeSettings { max_listing_bytes: usize::MAX, ..CodeSettings::default() });
    let bay = Toolbay::builder().runner(RhaiRunner::default()).without_audit().tool(run_code).build().unwrap();
    for (plugin, tools) in plugins {
        let mut native = NativePlugin::new(plugin, "1.0.0", "Echoes").unwrap();
        for (name, parameters) in tools {
            native = native.tool(echo(name, parameters.clone()));
        }
        bay.register(Scope::Global, native).await.unwrap();
    }
    (bay.session("acme").unwrap(), mode)
}

/// What a program gives.
async fn code(session: &Session, mode: &CodeMode, code: &str) -> Result<Value, ToolError> {
    let call = ToolCall { id: "c".into(), name: "run_code".into(), arguments: json!({ "code": code }) };
    let made = mode.call(&session.run(), 1, call, CodeTurn::default()).await;
    made.reply.result.map(|output| output.data["result"].clone())
}

/// The functions' paths, as the model is told of them.
fn paths(session: &Session, mode: &CodeMode) -> Vec<String> {
    let definition = mode.definition(&session.run()).unwrap();
    let listing = definition.description.split("Functions:\n").nth(1).unwrap().to_owned();
    listing.lines().map(|line| line.split('(').next().unwrap().to_owned()).collect()
}

fn any_object() -> Value {
    json!({ "type": "object" })
}

#[tokio::test]
async fn names_that_rhai_does_not_take_are_changed_and_those_that_become_the_same_are_told_apart() {
    let tools = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), any_object())).collect::<Vec<_>>();
    let (session, mode) = echoing(&[
        ("my-tools", tools(&["get-it", "get_it", "print", "2fa", "loop"])),
        ("my_tools", tools(&["x"])),
        ("global", tools(&["call"])),
        ("bare", tools(&["bare"])),
        ("tools", tools(&["bare"])),
    ])
    .await;
    expect![[r#"
        tools::bare
        global_::call_
        my_tools_2::t_2fa
        my_tools_2::get_it_2
        my_tools_2::get_it
        my_tools_2::loop_
        my_tools_2::print_
        my_tools::x
        tools::bare"#]]
    .assert_eq(&paths(&session, &mode).join("\n"));
}

#[tokio::test]
async fn signatures_say_what_to_write() {
    let tool = |name: &str, parameters: Value| (name.to_owned(), parameters);
    let (session, mode) = echoing(&[("sign", vec![
        tool("nothing", json!({ "type": "object", "properties": {}, "additionalProperties": false })),
        tool("anything", any_object()),
        tool("order", json!({ "type": "object", "required": ["b", "a"], "properties": {
            "a": { "type": "integer" }, "b": { "type": ["string", "null"] }, "c": { "enum": ["x", "y", 3] } } })),
        tool("nested", json!({ "type": "object", "properties": { "list": { "type": "array", "items": { "type": "object",
            "properties": { "a b": { "type": "boolean" } }, "required": ["a b"] } } } })),
        tool("recursive", json!({ "type": "object", "properties": { "tree": { "$ref": "#/$defs/tree" } }, "$defs": {
            "tree": { "type": "object", "properties": { "left": { "$ref": "#/$defs/tree" } } } } })),
        tool("choice", json!({ "type": "object", "properties": { "to": { "anyOf": [{ "type": "number" }, { "const": "all" }] } } })),
        tool("numbers", json!({ "type": "object", "additionalProperties": { "type": "number" } })),
    ])])
    .await;
    let definition = mode.definition(&session.run()).unwrap();
    expect![[r#"
        sign::anything()  // Gives back
        sign::choice(#{to?: float | "all"})  // Gives back
        sign::nested(#{list?: [#{"a b": bool}]})  // Gives back
        sign::nothing()  // Gives back
        sign::numbers(#{...: float})  // Gives back
        sign::order(#{b: string | (), a: int, c?: "x" | "y" | 3})  // Gives back
        sign::recursive(#{tree?: #{left?: #{left?: any}}})  // Gives back
    "#]]
    .assert_eq(definition.description.split("Functions:\n").nth(1).unwrap());
}

/// Names as plugins and tools can have them.
fn names() -> impl Strategy<Value = BTreeSet<String>> {
    let words = prop_oneof![
        "[a-z][a-z0-9_-]{0,12}",
        Just("print".to_owned()),
        Just("call".to_owned()),
        Just("this".to_owned()),
        Just("a-b".to_owned()),
        Just("a_b".to_owned()),
    ];
    proptest::collection::btree_set(words, 1..8)
}

fn schemas() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({ "type": "string" })),
        Just(json!({ "type": "integer", "minimum": 0 })),
        Just(json!({ "type": ["boolean", "null"] })),
        Just(json!({ "enum": ["a", 1, null] })),
        Just(json!({})),
        Just(json!({ "$ref": "#" })),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            inner.clone().prop_map(|items| json!({ "type": "array", "items": items })),
            proptest::collection::btree_map("[ -~]{0,10}", inner.clone(), 0..6).prop_map(|keys| {
                let required: Vec<_> = keys.keys().step_by(2).cloned().collect();
                json!({ "type": "object", "properties": keys, "required": required })
            }),
            proptest::collection::vec(inner, 1..4).prop_map(|any| json!({ "anyOf": any })),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_tool_has_a_function_of_its_own_that_can_be_called(plugins in names(), tools in names()) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let tools: Vec<_> = tools.iter().map(|name| (name.clone(), any_object())).collect();
            let plugins: Vec<_> = plugins.iter().filter(|name| *name != "run_code").collect();
            let plugins: Vec<_> = plugins.iter().map(|name| (name.as_str(), tools.clone())).collect();
            let (session, mode) = echoing(&plugins).await;
            let paths = paths(&session, &mode);
            let distinct: BTreeSet<_> = paths.iter().collect();
            assert_eq!((distinct.len(), paths.len()), (plugins.len() * tools.len(), plugins.len() * tools.len()));
            for path in &paths {
                let given = code(&session, &mode, &format!("{path}(#{{ path: \"{path}\" }})")).await;
                assert_eq!(given.unwrap(), json!({ "path": path }));
            }
        });
    }

    #[test]
    fn every_schema_has_a_signature_of_bounded_length(schema in schemas()) {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let parameters = json!({ "type": "object", "properties": { "value": schema.clone(), "other key": schema } });
            let (session, mode) = echoing(&[("any", vec![("one".to_owned(), parameters)])]).await;
            let definition = mode.definition(&session.run()).unwrap();
            let listing = definition.description.split("Functions:\n").nth(1).unwrap().to_owned();
            assert_eq!(listing.lines().count(), 1, "{listing}");
            assert!(listing.starts_with("any::one(#{") && listing.len() < 4_000, "{listing}");
        });
    }
}

/// A JSON value as a program writes it.
fn literal(value: &Value) -> String {
    match value {
        Value::Null => "()".to_owned(),
        Value::Array(items) => format!("[{}]", items.iter().map(literal).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let entries = map.iter().map(|(key, value)| format!("{}: {}", quoted(key), literal(value)));
            format!("#{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        Value::String(text) => quoted(text),
        Value::Number(number) if number.is_f64() => {
            let text = number.to_string();
            if text.contains(['.', 'e']) { text } else { format!("{text}.0") }
        }
        other => other.to_string(),
    }
}

fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_call_through_its_function_is_judged_like_the_plain_call() {
    let folder = std::env::var_os("TOOLBAY_DATA").map_or_else(|| project().join("../shared/data"), Into::into);
    let Ok(text) = std::fs::read_to_string(folder.join("bfcl/definitions_and_calls.jsonl")) else {
        println!("skipped: the data set is not here (TOOLBAY_DATA, or shared/data beside the project)");
        return;
    };
    let (mut functions, mut calls, mut wrong) = (0, 0, Vec::new());
    for line in text.lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        let tools = entry["tools"].as_array().unwrap().iter().map(|tool| tool.get("function").unwrap_or(tool));
        // Names of the set are no tool names, so each gets one; what they are called is the other property's.
        let tools: Vec<_> = tools
            .enumerate()
            .map(|(index, tool)| (tool["name"].clone(), format!("f{index}"), tool["parameters"].clone()))
            .collect();
        let named: Vec<_> = tools.iter().map(|(_, name, parameters)| (name.clone(), parameters.clone())).collect();
        let (session, mode) = echoing(&[("set", named)]).await;
        functions += tools.len();
        let found = paths(&session, &mode);
        let distinct: BTreeSet<_> = found.iter().collect();
        if distinct.len() != tools.iter().map(|(_, name, _)| name).collect::<BTreeSet<_>>().len() {
            wrong.push(format!("{}: {found:?}", entry["id"]));
        }
        let run = session.run();
        for (index, call) in entry["calls"].as_array().unwrap().iter().enumerate() {
            let Some((_, name, _)) = tools.iter().find(|(known, ..)| *known == call["name"]) else { continue };
            let plain = ToolCall {
                id: CallId::new(format!("plain-{index}")).to_string(),
                name: format!("set.{name}"),
                arguments: call["arguments"].clone(),
            };
            let plain = run.call(1, plain).await.result.map(|output| output.data);
            let through = code(&session, &mode, &format!("set::{name}({})", literal(&call["arguments"]))).await;
            calls += 1;
            let alike = match (&plain, &through) {
                (Ok(one), Ok(other)) => sorted(one) == sorted(other),
                (Err(one), Err(other)) => other.message.contains(&*one.message),
                _ => false,
            };
            if !alike {
                wrong.push(format!("{} {name}: {plain:.300?} and {through:.300?}", entry["id"]));
            }
        }
    }
    println!("{functions} functions, {calls} calls");
    assert!(wrong.is_empty(), "{} wrong of {calls}: {:#?}", wrong.len(), wrong.iter().take(10).collect::<Vec<_>>());
    assert!(functions > 0 && calls > 0);
}

/// With keys in order, which a program's maps have, and numbers as far as they are the same.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<_> = map.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
            keys.sort_by(|one, other| one.0.cmp(&other.0));
            Value::Object(keys.into_iter().collect::<Map<_, _>>())
        }
        Value::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}
