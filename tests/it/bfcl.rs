//! Real tool definitions with real calls, from the Berkeley Function-Calling Leaderboard: every definition registers,
//! every call that fits its schema by the set's own word is taken, every other is refused with a pointer.

use std::{collections::BTreeMap, path::PathBuf};

use serde_json::Value;
use toolbay::schema::Schema;

use crate::support::project;

fn data() -> Option<PathBuf> {
    let folder = std::env::var_os("TOOLBAY_DATA").map_or_else(|| project().join("../shared/data"), PathBuf::from);
    let file = folder.join("bfcl/definitions_and_calls.jsonl");
    file.is_file().then_some(file)
}

#[test]
fn every_real_definition_registers_and_every_real_call_is_judged_as_labelled() {
    let Some(file) = data() else {
        println!("skipped: the data set is not here (TOOLBAY_DATA, or shared/data beside the project)");
        return;
    };
    let text = std::fs::read_to_string(file).unwrap();
    let (mut definitions, mut calls, mut refused, mut wrong) = (0, 0, 0, Vec::new());
    for line in text.lines() {
        let entry: Value = serde_json::from_str(line).unwrap();
        let id = &entry["id"];
        let mut schemas = BTreeMap::new();
        for tool in entry["tools"].as_array().unwrap() {
            let function = tool.get("function").unwrap_or(tool);
            definitions += 1;
            match Schema::compile_parameters(&function["parameters"]) {
                Ok(schema) => drop(schemas.insert(function["name"].as_str().unwrap().to_owned(), schema)),
                Err(problem) => wrong.push(format!("{id} {}: {problem}", function["name"])),
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
