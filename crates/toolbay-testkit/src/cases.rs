//! A plugin's cases: lines of JSON, each a call and what must come of it. `toolbay test` runs them, and so can a test in
//! Rust.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

use serde::Deserialize;
use serde_json::{Map, Value};
use toolbay_api::{ErrorKind, LoadError, PluginName, Scope, ToolError, ToolOutput};
use toolbay_runtime::{Toolbay, ToolbayBuilder};

/// What became of a plugin's cases.
#[derive(Debug, Default)]
pub struct CaseReport {
    /// The sentences of the cases that came out as they should.
    pub passed: Vec<String>,
    /// Those that did not, each with its line, its sentence and what came instead.
    pub failed: Vec<String>,
    /// Questions to hooks among the lines, which are not run here.
    pub passed_over: usize,
    /// The agent's tools that no case calls.
    pub uncalled: Vec<String>,
}

/// One line: `{"case": "a sentence", "tool": "greet", "args": {...}, "data": ...}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    case: String,
    tool: String,
    #[serde(default = "no_arguments")]
    args: Value,
    /// The whole result.
    #[serde(default, deserialize_with = "present")]
    data: Option<Value>,
    /// A part of the result: of objects, the members that matter.
    matches: Option<Value>,
    error: Option<WantedError>,
    /// The plugin's configuration.
    config: Option<Value>,
    /// Cases of one tenant share what the plugin keeps, in the order of the lines; others have a tenant each.
    tenant: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WantedError {
    kind: Option<String>,
    message: Option<String>,
    contains: Option<String>,
}

/// A member that is there, though it be `null`.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

fn no_arguments() -> Value {
    Value::Object(Map::new())
}

/// Runs the cases in `cases`, the content of a file of JSON lines, against the plugin at `path`. `builder` makes the host;
/// it is called once for each configuration that a case asks for.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("greet.rhai");
/// # std::fs::write(&path, r#"const PLUGIN = #{ name: "greet", version: "1.0.0", description: "d",
/// #     tools: #{ greet: #{ description: "d", parameters: #{ type: "object" } } } };
/// #     fn greet(args) { if args.name == () { fail("who?") } "Hello, " + args.name + "!" }"#)?;
/// use toolbay_runtime::Toolbay;
/// use toolbay_testkit::check_cases;
///
/// let cases = r#"
///     {"case": "greets by name", "tool": "greet", "args": {"name": "Ada"}, "data": "Hello, Ada!"}
///     {"case": "asks for a name", "tool": "greet", "error": {"kind": "Script", "contains": "who"}}
/// "#;
/// let report = check_cases(&path, cases, || Toolbay::builder().runner(toolbay_rhai::RhaiRunner::default())).await?;
/// assert_eq!(report.passed, ["greets by name", "asks for a name"]);
/// assert!(report.failed.is_empty() && report.uncalled.is_empty());
/// # Ok(()) }
/// ```
///
/// # Errors
/// Where the plugin does not load. `Config` where a line is no case, with its number.
pub async fn check_cases(
    path: &Path,
    cases: &str,
    builder: impl Fn() -> ToolbayBuilder,
) -> Result<CaseReport, LoadError> {
    let mut hosts: HashMap<String, Toolbay> = HashMap::new();
    let (mut report, mut called) = (CaseReport::default(), BTreeSet::new());
    for (number, line) in cases.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let no_case = |error: serde_json::Error| {
            LoadError::new(ErrorKind::Config, format!("line {} of the cases: {error}", number + 1))
        };
        let value: Value = serde_json::from_str(line).map_err(no_case)?;
        if value.get("hook").is_some() {
            report.passed_over += 1;
            continue;
        }
        let line: Line = serde_json::from_value(value).map_err(no_case)?;
        let config = line.config.as_ref().map(Value::to_string).unwrap_or_default();
        let bay = match hosts.get(&config) {
            Some(bay) => bay.clone(),
            None => hosts.entry(config).or_insert(host(path, line.config.clone(), builder()).await?).clone(),
        };
        let tenant = line.tenant.clone().unwrap_or_else(|| format!("case-{}", number + 1));
        let session = bay.session(tenant.as_str());
        let session = session.map_err(|error| LoadError::new(ErrorKind::Config, error.to_string()))?;
        let reply = session.call(&line.tool, line.args.clone()).await;
        called.insert(reply.tool.to_string());
        if is_right(&line, &reply.result) {
            report.passed.push(line.case);
        } else {
            let came = serde_json::to_string(&reply.to_wire()).unwrap_or_default();
            report.failed.push(format!("line {} ({}): {came}", number + 1, line.case));
        }
    }
    let seen = match hosts.values().next() {
        Some(bay) => bay.clone(),
        None => host(path, None, builder()).await?,
    };
    if let Ok(session) = seen.session("cases") {
        let names = session.tools().into_iter().map(|tool| tool.definition.name.to_string());
        report.uncalled = names.filter(|name| !called.contains(name)).collect();
    }
    Ok(report)
}

/// A host with the plugin, configured as a case asks for.
async fn host(path: &Path, config: Option<Value>, mut builder: ToolbayBuilder) -> Result<Toolbay, LoadError> {
    if let Some(config) = config {
        let stem = if path.is_dir() { path.file_name() } else { path.file_stem() };
        let name = PluginName::new(stem.unwrap_or_default().to_string_lossy().as_ref());
        let name = name.map_err(|error| LoadError::new(ErrorKind::Config, error.to_string()))?;
        builder = builder.plugin_config(name, config);
    }
    let bay = builder.build()?;
    bay.load(Scope::Global, path).await?;
    Ok(bay)
}

fn is_right(line: &Line, result: &Result<ToolOutput, ToolError>) -> bool {
    match (result, &line.error) {
        // A case that says nothing of the result asks that there be one.
        (Ok(output), None) => {
            line.data.as_ref().is_none_or(|data| *data == output.data)
                && line.matches.as_ref().is_none_or(|part| holds(part, &output.data))
        }
        (Err(error), Some(wanted)) => {
            wanted.kind.as_ref().is_none_or(|kind| kind == error.kind.name())
                && wanted.message.as_ref().is_none_or(|message| *message == error.message)
                && wanted.contains.as_ref().is_none_or(|part| error.message.contains(part.as_str()))
        }
        _ => false,
    }
}

/// Whether `got` has everything that `wanted` has; arrays must be of one length.
fn holds(wanted: &Value, got: &Value) -> bool {
    match (wanted, got) {
        (Value::Object(wanted), Value::Object(got)) => {
            wanted.iter().all(|(key, wanted)| got.get(key).is_some_and(|got| holds(wanted, got)))
        }
        (Value::Array(wanted), Value::Array(got)) => {
            wanted.len() == got.len() && wanted.iter().zip(got).all(|(wanted, got)| holds(wanted, got))
        }
        _ => wanted == got,
    }
}
