//! The online shop of `examples/plugins/retail`: its own cases on its own small shop, and the recorded calls of
//! tau-bench on the real one. It stands apart since it is the one test of a plugin at the size of a real workload.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "clippy knows tests by their attribute and these helpers have none"
)]

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};
use toolbay::{PluginName, Reply, Scope, Toolbay};

use crate::support::{project, unhurried};

/// A Toolbay with the shop, on the database of the folder `assets` instead of its own where one is given.
async fn shop(assets: Option<PathBuf>) -> Toolbay {
    let name = PluginName::new("retail").unwrap();
    let mut builder = unhurried();
    if let Some(folder) = assets {
        builder = builder.assets(name, folder);
    }
    let toolbay = builder.build().unwrap();
    if let Err(error) = toolbay.load(Scope::Global, project().join("examples/plugins/retail")).await {
        panic!("{error}");
    }
    toolbay
}

/// The value with every number as a float, so that 5 equals 5.0.
fn with_floats(value: &Value) -> Value {
    match value {
        Value::Number(number) => json!(number.as_f64().unwrap() + 0.0),
        Value::Array(items) => items.iter().map(with_floats).collect(),
        Value::Object(map) => {
            Value::Object(map.iter().map(|(key, value)| (key.clone(), with_floats(value))).collect::<Map<_, _>>())
        }
        other => other.clone(),
    }
}

/// What the reply comes to as the recordings write it: an error is its message.
fn as_recorded(reply: &Reply) -> String {
    match &reply.result {
        Ok(output) => output.to_text(),
        Err(error) => error.message.to_string(),
    }
}

/// Whether a reply is the recorded one: errors of `calculate` by their beginning, JSON by value, all else exactly.
fn is_recorded(tool: &str, reply: &Reply, expected: &str) -> bool {
    let text = as_recorded(reply);
    if reply.is_error() != expected.starts_with("Error") {
        return false;
    }
    if tool == "calculate" && reply.is_error() {
        return text.starts_with("Error");
    }
    match (serde_json::from_str(&text), serde_json::from_str(expected)) {
        (Ok(text), Ok(expected)) => with_floats(&text) == with_floats(&expected),
        _ => text == expected,
    }
}

#[tokio::test]
async fn each_case_of_the_small_shop_comes_out_as_written() {
    let toolbay = shop(None).await;
    let cases = std::fs::read_to_string(project().join("examples/plugins/retail/cases.jsonl")).unwrap();
    let mut wrong = Vec::new();
    for line in cases.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let session = toolbay.session(case["tenant"].as_str().unwrap()).unwrap();
        let reply = session.call(case["tool"].as_str().unwrap(), case["args"].clone()).await;
        let fits = match &reply.result {
            Ok(output) => case.get("data").is_some_and(|data| with_floats(data) == with_floats(&output.data)),
            Err(error) => {
                let expected = &case["error"];
                expected["kind"] == error.kind.name()
                    && expected.get("message").is_none_or(|message| *message == *error.message)
            }
        };
        if !fits {
            wrong.push(format!("{}: {}", case["case"], as_recorded(&reply)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_fresh_tenant_is_a_fresh_shop() {
    let toolbay = shop(None).await;
    let order = json!({ "order_id": "#W7000274" });
    let (one, other) = (toolbay.session("one").unwrap(), toolbay.session("other").unwrap());
    let cancelled = json!({ "order_id": "#W7000274", "reason": "no longer needed" });
    assert!(!one.call("retail.cancel_pending_order", cancelled).await.is_error());
    assert_eq!(one.call("retail.get_order_details", order.clone()).await.result.unwrap().data["status"], "cancelled");
    assert_eq!(other.call("retail.get_order_details", order).await.result.unwrap().data["status"], "pending");
}

#[tokio::test]
async fn every_recorded_call_of_the_real_shop_comes_out_equal() {
    let data = std::env::var_os("TOOLBAY_DATA").map_or_else(|| project().join("../shared/data"), PathBuf::from);
    let data = data.join("tau-retail");
    if !data.join("db.json").exists() {
        println!("skipped: the recorded calls are not at {}; set TOOLBAY_DATA to their folder", data.display());
        return;
    }
    let toolbay = shop(Some(data.clone())).await;
    let mut wrong = Vec::new();
    let mut times: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    for file in ["replay_dev.json", "replay_train.json", "replay_fuzz.json"] {
        let (mut calls, mut equal, start) = (0, 0, Instant::now());
        let replay: Value = serde_json::from_slice(&std::fs::read(data.join(file)).unwrap()).unwrap();
        for task in replay["tasks"].as_array().unwrap() {
            let id = task["task_id"].as_str().unwrap();
            let session = toolbay.session(id).unwrap();
            for action in task["actions"].as_array().unwrap() {
                let (tool, expected) = (action["name"].as_str().unwrap(), action["expected_output"].as_str().unwrap());
                let reply = session.call(&format!("retail.{tool}"), action["arguments"].clone()).await;
                times.entry(tool.to_owned()).or_default().push(reply.metadata.duration);
                calls += 1;
                if is_recorded(tool, &reply, expected) {
                    equal += 1;
                } else {
                    let arguments = &action["arguments"];
                    wrong.push(format!("{id} {tool} {arguments}\n  want {expected}\n  got  {}", as_recorded(&reply)));
                }
            }
            // A record that changed unseen would show only in a later call, so each is looked at when the task is over.
            for change in task["db_changes"].as_array().unwrap() {
                let key = change["key"].clone();
                let (tool, arguments) = match change["table"].as_str().unwrap() {
                    "orders" => ("get_order_details", json!({ "order_id": key })),
                    _ => ("get_user_details", json!({ "user_id": key })),
                };
                let record = session.call(&format!("retail.{tool}"), arguments).await.result.unwrap().data;
                if with_floats(&record) != with_floats(&change["after"]) {
                    wrong.push(format!("{id} {key} is now {record}, not {}", change["after"]));
                }
            }
        }
        println!("{file}: {equal} of {calls} calls equal, {:?} in all", start.elapsed());
    }
    for (tool, mut times) in times {
        times.sort();
        println!(
            "  {tool:32} {:5} calls, median {:?}, longest {:?}",
            times.len(),
            times[times.len() / 2],
            times[times.len() - 1]
        );
    }
    wrong.truncate(10);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
