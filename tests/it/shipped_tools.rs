//! The plugins of `tools/` against their case files, through the facade: each line of `tools/cases/NAME.jsonl` is a call
//! or a question to a hook, with what must come of it. A new case is a new line; nothing here changes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of a test, outside of its functions: a failed step is the test's failure"
)]

use std::{collections::BTreeSet, path::PathBuf};

use serde_json::{Map, Value, json};
use toolbay::{
    ErrorKind, LoadError, PermissionSet, PluginName, Scope, ToolContext, ToolError, ToolName, Toolbay,
    plugin::NativePlugin, tool,
};

use toolbay_testkit::check_cases;

use crate::support::{project, unhurried};

fn tools() -> PathBuf {
    project().join("tools")
}

/// The cases of a plugin, each with its place for messages.
fn cases(plugin: &str) -> Vec<(String, Value)> {
    let text = std::fs::read_to_string(tools().join("cases").join(format!("{plugin}.jsonl"))).expect("a case file");
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(n, line)| {
            let case: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{plugin}.jsonl:{n}: {error}"));
            let sentence = case["case"].as_str().expect("each case has a sentence");
            (format!("{plugin}.jsonl:{} ({sentence})", n + 1), case)
        })
        .collect()
}

/// A host with one shipped plugin, configured as the case says.
async fn host_with(plugin: &str, case: &Value) -> Result<Toolbay, LoadError> {
    let name = PluginName::new(plugin).expect("a plugin name");
    let mut builder = unhurried();
    if let Some(config) = case.get("config") {
        builder = builder.plugin_config(name, config.clone());
    }
    let bay = builder.build()?;
    bay.load(Scope::Global, tools().join(format!("{plugin}.rhai"))).await?;
    Ok(bay)
}

/// Whether an error is the one that a case wants: by kind, by its whole message, by a part of it.
fn is_wanted(wanted: &Value, kind: &str, message: &str) -> bool {
    wanted["kind"].as_str().is_none_or(|wanted| wanted == kind)
        && wanted["message"].as_str().is_none_or(|wanted| wanted == message)
        && wanted["contains"].as_str().is_none_or(|wanted| message.contains(wanted))
}

/// Runs all tool cases of a plugin. Cases that name a tenant share its state, the others have a tenant each.
async fn check_tools(plugin: &str) {
    let cases = std::fs::read_to_string(tools().join("cases").join(format!("{plugin}.jsonl"))).expect("a case file");
    let report = check_cases(&tools().join(format!("{plugin}.rhai")), &cases, unhurried).await;
    let report = report.unwrap_or_else(|error| panic!("{plugin}: {error}"));
    assert!(report.failed.is_empty(), "{} cases failed:\n{}", report.failed.len(), report.failed.join("\n"));
    assert!(report.uncalled.is_empty(), "every tool of {plugin} has a case: {:?}", report.uncalled);
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Echo {
    data: Value,
    error: Option<String>,
}

/// A native plugin with the tool that a hook case speaks of: it gives back the data or fails with the error.
fn echo(qualified: &str) -> NativePlugin {
    let (plugin, local) = qualified.split_once('.').unwrap_or((qualified, qualified));
    let echo = tool(local, "Gives back what it is given", async |args: Echo, _: ToolContext| match args.error {
        Some(message) => Err(ToolError::failed(message)),
        None => Ok(args.data),
    });
    NativePlugin::new(plugin, "1.0.0", "A test's plugin").expect("a plugin name").tool(echo)
}

/// Runs all cases of a hook plugin down the road of calls of an echo tool.
async fn check_hook(plugin: &str) {
    let mut failures = Vec::new();
    for (place, case) in cases(plugin) {
        let input = &case["input"];
        let name = input["tool"].as_str().expect("a tool");
        let bay = match host_with(plugin, &case).await {
            Ok(bay) => bay,
            Err(error) => {
                if !case.get("error").is_some_and(|wanted| is_wanted(wanted, error.kind.name(), &error.message)) {
                    failures.push(format!("{place}: {error}"));
                }
                continue;
            }
        };
        bay.register(Scope::Global, echo(name)).await.unwrap_or_else(|error| panic!("{place}: {error}"));
        let data = input.get("data").cloned().unwrap_or_default();
        let message = input["error"]["message"].clone();
        let reply = bay.session("t").unwrap().call(name, json!({ "data": data, "error": message })).await;
        if !is_decided(&case, &data, &message, &reply.result) {
            failures.push(format!("{place}: {}", serde_json::to_string(&reply.to_wire()).unwrap()));
        }
    }
    assert!(failures.is_empty(), "{} cases failed:\n{}", failures.len(), failures.join("\n"));
}

/// Whether what came of the call is what the hook's wanted outcome makes of it.
fn is_decided(case: &Value, data: &Value, message: &Value, result: &Result<toolbay::ToolOutput, ToolError>) -> bool {
    let none = Map::new();
    let outcome = case["outcome"].as_object().unwrap_or(&none);
    match result {
        // A hook that fails is a no; its own words are the operator's.
        Err(error) if error.kind == ErrorKind::HookFailed => {
            let detail = error.operator_detail().map(ToString::to_string).unwrap_or_default();
            case["error"]["contains"].as_str().is_some_and(|part| detail.contains(part))
        }
        Err(error) if matches!(error.kind, ErrorKind::DeniedByHook | ErrorKind::ApprovalRequired) => {
            let text = outcome.get("deny").or(outcome.get("ask")).and_then(Value::as_str);
            text.is_some_and(|text| error.message.contains(text))
        }
        Err(error) => outcome.is_empty() && case.get("error").is_none() && *message == *error.message,
        Ok(output) => match outcome.get("replace") {
            Some(replaced) => *replaced == output.data,
            None => outcome.is_empty() && case.get("error").is_none() && *data == output.data,
        },
    }
}

#[tokio::test]
async fn the_calculator_keeps_its_cases() {
    check_tools("calculator").await;
}

#[tokio::test]
async fn text_keeps_its_cases() {
    check_tools("text").await;
}

#[tokio::test]
async fn json_keeps_its_cases() {
    check_tools("json").await;
}

#[tokio::test]
async fn datetime_keeps_its_cases() {
    check_tools("datetime").await;
}

#[tokio::test]
async fn units_keeps_its_cases() {
    check_tools("units").await;
}

#[tokio::test]
async fn todo_keeps_its_cases() {
    check_tools("todo").await;
}

#[tokio::test]
async fn guard_keeps_its_cases() {
    check_hook("guard").await;
}

#[tokio::test]
async fn redact_keeps_its_cases() {
    check_hook("redact").await;
}

#[tokio::test]
async fn all_shipped_plugins_load_together_and_every_plugin_has_cases() {
    let bay = toolbay::builder().grants(PermissionSet::standard()).build().unwrap();
    let report = bay.load_folder(Scope::Global, tools()).await;
    let failed: Vec<_> = report.failed.iter().map(|failed| failed.error.to_string()).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let warnings: Vec<_> = report.loaded.iter().flat_map(|loaded| &loaded.warnings).collect();
    assert!(warnings.is_empty(), "{warnings:?}");
    let names: Vec<_> = report.loaded.iter().map(|loaded| loaded.name.to_string()).collect();
    assert_eq!(names, ["calculator", "datetime", "guard", "json", "redact", "text", "todo", "units"]);
    for name in names {
        assert!(cases(&name).len() >= 15, "{name} has 15 cases or more");
    }
    for tool in bay.session("t").unwrap().tools() {
        let definition = &tool.definition;
        assert!(definition.annotations.read_only.is_some(), "{} says whether it changes anything", definition.name);
        let undescribed = definition.parameters["properties"]
            .as_object()
            .is_some_and(|properties| properties.values().any(|property| property.get("description").is_none()));
        // The units of `datetime.add` are their own description.
        assert!(!undescribed || definition.name == ToolName::new("datetime.add").unwrap(), "{}", definition.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn items_that_are_added_at_once_all_get_an_id_of_their_own() {
    let bay = toolbay::builder().grants(PermissionSet::standard()).build().unwrap();
    bay.load(Scope::Global, tools().join("todo.rhai")).await.unwrap();
    let mut adding = tokio::task::JoinSet::new();
    for n in 0..10 {
        let session = bay.session("busy").unwrap();
        adding.spawn(async move { session.call("todo.add", json!({ "title": format!("item {n}") })).await.result });
    }
    let mut ids = BTreeSet::new();
    while let Some(added) = adding.join_next().await {
        ids.insert(added.unwrap().unwrap().data["id"].as_i64().unwrap());
    }
    assert_eq!(ids.len(), 10);
    let listed = bay.session("busy").unwrap().call("todo.list", json!({})).await.result.unwrap();
    assert_eq!(listed.data["count"], 10);
}
