//! Real tool definitions with real calls, from the Berkeley Function-Calling Leaderboard: every definition registers, every
//! call that fits its schema by the set's own word is taken, also by the schemas that providers are shown, every other is
//! refused with a pointer, and so is every true call in which one thing was made wrong.

use std::{collections::BTreeMap, path::PathBuf};

use serde_json::{Map, Value, json};
use toolbay::{
    lowering::{ChangeKind, Dialect, Lowered, lower},
    schema::Schema,
};

use crate::support::project;

fn data() -> Option<Vec<Value>> {
    let folder = std::env::var_os("TOOLBAY_DATA").map_or_else(|| project().join("../shared/data"), PathBuf::from);
    let Ok(text) = std::fs::read_to_string(folder.join("bfcl/definitions_and_calls.jsonl")) else {
        println!("skipped: the data set is not here (TOOLBAY_DATA, or shared/data beside the project)");
        return None;
    };
    Some(text.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// The functions of an entry, by name.
fn functions(entry: &Value) -> BTreeMap<String, &Value> {
    let tools = entry["tools"].as_array().unwrap().iter().map(|tool| tool.get("function").unwrap_or(tool));
    tools.map(|function| (function["name"].as_str().unwrap().to_owned(), &function["parameters"])).collect()
}

/// The true calls of an entry: those that the set says fit their schemas.
fn true_calls<'a>(entry: &'a Value, functions: &BTreeMap<String, &'a Value>) -> Vec<(&'a Value, &'a Value)> {
    let calls = entry["calls"].as_array().unwrap().iter().filter(|call| call["schema_valid"] == true);
    calls.filter_map(|call| Some((*functions.get(call["name"].as_str()?)?, &call["arguments"]))).collect()
}

#[test]
fn every_real_definition_registers_and_every_real_call_is_judged_as_labelled() {
    let Some(entries) = data() else { return };
    let (mut definitions, mut calls, mut refused, mut wrong) = (0, 0, 0, Vec::new());
    for entry in &entries {
        let id = &entry["id"];
        let mut schemas = BTreeMap::new();
        for (name, parameters) in functions(entry) {
            definitions += 1;
            match Schema::compile_parameters(parameters) {
                Ok(schema) => drop(schemas.insert(name, schema)),
                Err(problem) => wrong.push(format!("{id} {name}: {problem}")),
            }
        }
        for call in entry["calls"].as_array().unwrap() {
            let Some(schema) = schemas.get(call["name"].as_str().unwrap()) else { continue };
            calls += 1;
            let taken = schema.check_arguments(&call["arguments"]);
            if taken.is_ok() != (call["schema_valid"] == true) {
                wrong.push(format!("{id} {}: {taken:?}", call["name"]));
            }
            if let Err(error) = taken {
                refused += 1;
                assert!(error.details["problems"][0]["pointer"].is_string(), "{id}: {error:?}");
            }
        }
    }
    println!("{definitions} definitions, {calls} calls, of which {refused} are labelled as not fitting");
    assert!(wrong.is_empty(), "{} wrong: {:#?}", wrong.len(), wrong.iter().take(10).collect::<Vec<_>>());
    assert!(definitions > 0 && calls > 0);
}

/// A lowered schema as JSON Schema, whose validator we have: OpenAPI's `nullable` is a type more.
fn as_json_schema(schema: &Value) -> Value {
    match schema {
        Value::Object(node) => {
            let mut node: Map<_, _> = node.iter().map(|(key, child)| (key.clone(), as_json_schema(child))).collect();
            match node.shift_remove("nullable") {
                Some(Value::Bool(true)) => json!({ "anyOf": [node, { "type": "null" }] }),
                _ => Value::Object(node),
            }
        }
        Value::Array(list) => list.iter().map(as_json_schema).collect(),
        other => other.clone(),
    }
}

/// What strict mode asks of a schema, by OpenAI's word: objects are closed and require all of their keys.
fn strict_faults(schema: &Value, place: &str, faults: &mut Vec<String>) {
    match schema {
        Value::Object(node) => {
            if let Some(properties) = node.get("properties").and_then(Value::as_object) {
                let required: Vec<_> = properties.keys().map(|key| json!(key)).collect();
                if node.get("additionalProperties") != Some(&json!(false))
                    || node.get("required") != Some(&json!(required))
                {
                    faults.push(place.to_owned());
                }
            }
            node.iter().for_each(|(key, child)| strict_faults(child, &format!("{place}/{key}"), faults));
        }
        Value::Array(list) => list.iter().for_each(|child| strict_faults(child, place, faults)),
        _ => {}
    }
}

#[test]
fn every_true_call_goes_through_every_providers_schema_and_back() {
    let Some(entries) = data() else { return };
    for dialect in [Dialect::OpenAi, Dialect::OpenAiStrict, Dialect::Anthropic, Dialect::Gemini] {
        let (mut definitions, mut strict, mut calls, mut wrong) = (0, 0, 0, Vec::new());
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        for entry in &entries {
            let (id, functions) = (&entry["id"], functions(entry));
            for (name, parameters) in &functions {
                definitions += 1;
                let Lowered { schema, strict: is_strict, changes, .. } = lower(parameters, dialect);
                strict += usize::from(is_strict);
                for change in changes {
                    *kinds.entry(format!("{:?}: {}", change.kind, change.what)).or_default() += 1;
                    let in_tool = parameters.pointer(&change.pointer).is_some();
                    assert!(in_tool || change.kind == ChangeKind::NotStrict, "{id} {name}: {change}");
                }
                if let Err(problem) = Schema::compile(&as_json_schema(&schema)) {
                    wrong.push(format!("{id} {name}: {problem}"));
                }
                if is_strict {
                    strict_faults(&schema, name, &mut wrong);
                }
            }
            for (parameters, arguments) in true_calls(entry, &functions) {
                calls += 1;
                let lowered = lower(parameters, dialect);
                let written = lowered.filled(arguments.clone());
                let shown = Schema::compile(&as_json_schema(&lowered.schema)).unwrap();
                if let Err(error) = shown.check_arguments(&written) {
                    wrong.push(format!("{id}: {error}"));
                }
                let back = lowered.restored(written);
                if back != *arguments {
                    wrong.push(format!("{id}: {arguments} came back as {back}"));
                }
                Schema::compile(parameters).unwrap().check_arguments(&back).unwrap();
            }
        }
        println!("{dialect:?}: {definitions} definitions ({strict} strict), {calls} calls; {kinds:#?}");
        assert!(
            wrong.is_empty(),
            "{dialect:?}: {} wrong: {:#?}",
            wrong.len(),
            wrong.iter().take(10).collect::<Vec<_>>()
        );
        assert!(definitions > 0 && calls > 0);
    }
}

/// `arguments` with one thing made wrong, each with the pointer at which a model must be told of it.
fn corrupted(parameters: &Value, arguments: &Value) -> Vec<(Value, String)> {
    let mut wrong = Vec::new();
    for key in parameters["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let mut arguments = arguments.clone();
        if arguments.as_object_mut().unwrap().shift_remove(key).is_some() {
            wrong.push((arguments, format!("/{}", key.replace('~', "~0").replace('/', "~1"))));
        }
    }
    for (key, value) in arguments.as_object().unwrap() {
        let pointer = format!("/{}", key.replace('~', "~0").replace('/', "~1"));
        let schema = &parameters["properties"][key];
        let other = match schema["type"].as_str() {
            Some("string") => json!(7),
            Some("integer" | "number" | "boolean" | "array") => json!({ "no": "such" }),
            Some("object") => json!("no such"),
            _ => continue,
        };
        let put = |place: &str, other: Value| {
            let mut arguments = arguments.clone();
            *arguments.pointer_mut(place).unwrap() = other;
            (arguments, place.to_owned())
        };
        wrong.push(put(&pointer, other));
        if schema.get("enum").is_some() && value.is_string() {
            wrong.push(put(&pointer, json!("a word that is in no list")));
        }
        if schema["items"]["type"].is_string() && value.as_array().is_some_and(|items| !items.is_empty()) {
            let other = if schema["items"]["type"] == "string" { json!(7) } else { json!("no such") };
            let is_any = schema["items"]["type"] == "object" || schema["items"]["type"] == "array";
            let other = if is_any { json!(7) } else { other };
            wrong.push(put(&format!("{pointer}/0"), other));
        }
    }
    wrong
}

#[test]
fn every_true_call_with_one_thing_made_wrong_is_refused_with_a_pointer_to_it() {
    let Some(entries) = data() else { return };
    let (mut made, mut wrong) = (0, Vec::new());
    for entry in &entries {
        let functions = functions(entry);
        for (parameters, arguments) in true_calls(entry, &functions) {
            let schema = Schema::compile_parameters(parameters).unwrap();
            for (arguments, pointer) in corrupted(parameters, arguments) {
                made += 1;
                match schema.check_arguments(&arguments) {
                    Ok(()) => wrong.push(format!("{}: taken: {arguments}", entry["id"])),
                    Err(error) => {
                        let problems = error.details["problems"].as_array().unwrap();
                        if !problems.iter().any(|problem| problem["pointer"] == pointer.as_str()) {
                            wrong.push(format!("{}: {pointer}: {error:?}", entry["id"]));
                        }
                    }
                }
            }
        }
    }
    println!("{made} corrupted calls");
    assert!(wrong.is_empty(), "{} wrong: {:#?}", wrong.len(), wrong.iter().take(10).collect::<Vec<_>>());
    assert!(made > 1000);
}
