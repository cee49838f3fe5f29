//! Faults that were found by looking for them, each held by the sentence that it broke.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::Duration,
};

use serde_json::json;
use toolbay::{
    ErrorKind, Hook, HookContext, HookPoint, HookRegistration, Limit, Limits, PermissionSet, Quota, Scope, ToolContext,
    ToolError, Toolbay, async_trait, blocking_tool,
    hook::{HookResult, OnError, OnErrorOutcome},
    plugin::NativePlugin,
    tool,
};
use toolbay_testkit::ScriptedHook;

use crate::support::{Nothing, folder, host, outcome, project};

#[tokio::test]
async fn every_bit_of_a_random_number_is_random() {
    let seen = Arc::new((AtomicU64::new(0), AtomicU64::new(u64::MAX)));
    let bits = Arc::clone(&seen);
    let draw = tool("draw", "Draws", move |_: Nothing, cx: ToolContext| {
        let bits = Arc::clone(&bits);
        async move {
            for _ in 0..500 {
                let drawn = cx.host().random()?;
                bits.0.fetch_or(drawn, Ordering::Relaxed);
                bits.1.fetch_and(drawn, Ordering::Relaxed);
            }
            Ok(())
        }
    });
    let bay = Toolbay::builder().tool(draw).grants(PermissionSet::standard()).build().unwrap();
    assert_eq!(outcome(&bay.session("acme").unwrap(), "draw", json!({})).await, json!(null));
    assert_eq!(seen.0.load(Ordering::Relaxed), u64::MAX, "bits that are never set");
    assert_eq!(seen.1.load(Ordering::Relaxed), 0, "bits that are always set");
}

const MANIFEST: &str =
    "name = \"odd\"\nversion = \"1.0.0\"\ndescription = \"x\"\nauthor = \"x\"\nentry = \"main.rhai\"\n";

#[cfg(unix)]
#[tokio::test]
async fn a_pipe_in_a_plugins_place_is_refused_and_not_waited_for() {
    let pipe = |path: std::path::PathBuf| {
        assert!(std::process::Command::new("mkfifo").arg(path).status().expect("mkfifo is there").success());
    };
    let plugins = folder(&[("odd/plugin.toml", MANIFEST), ("odd/main.rhai", ""), ("odd/assets/a.json", "{}")]);
    pipe(plugins.path().join("one.rhai"));
    pipe(plugins.path().join("odd/assets/b.json"));
    let bay = toolbay::builder().build().unwrap();
    let report = bay.load_folder(Scope::Global, plugins.path()).await;
    let errors: Vec<_> = report.failed.iter().map(|failed| failed.error.to_string()).collect();
    let expected = "is neither a file nor a folder: a plugin is made of plain files";
    assert_eq!(errors, [format!("Config: assets/b.json: {expected}"), format!("Config: one.rhai: {expected}")]);
}

#[cfg(unix)]
#[tokio::test]
async fn a_manifest_that_is_a_link_is_not_read_and_so_not_quoted() {
    let plugins = folder(&[("secret.txt", "top secret"), ("odd/main.rhai", "")]);
    std::os::unix::fs::symlink(plugins.path().join("secret.txt"), plugins.path().join("odd/plugin.toml")).unwrap();
    let bay = toolbay::builder().build().unwrap();
    let error = bay.load(Scope::Global, plugins.path().join("odd")).await.unwrap_err();
    assert_eq!(error.to_string(), "Config: plugin.toml: is a link: a plugin is made of plain files");
}

#[tokio::test]
async fn an_error_about_a_key_of_megabytes_does_not_repeat_it_for_each_problem() {
    let texts = json!({ "type": "object", "additionalProperties": { "additionalProperties": { "type": "string" } } });
    let take = tool("take", "Takes texts", async |_: serde_json::Value, _: ToolContext| Ok(()))
        .with(|tool| tool.parameters = texts);
    let bay = Toolbay::builder().tool(take).build().unwrap();
    let inner: serde_json::Map<_, _> = (0..10).map(|n| (n.to_string(), json!(n))).collect();
    let arguments = json!({ "K".repeat(500_000): inner });
    let error = bay.session("acme").unwrap().call("take", arguments).await.result.unwrap_err();
    assert_eq!(error.kind, ErrorKind::InvalidArguments);
    assert!(error.message.contains("expected the type string"), "{:.200}", error.message);
    assert!(error.message.len() + error.details.to_string().len() < 60_000, "{}", error.message.len());
}

/// Arithmetic as a tool would declare it: an expression is a number or an operation on two expressions.
fn expressions() -> serde_json::Value {
    let operation = |name: &str| {
        json!({ "type": "object", "required": ["op", "l", "r"], "properties":
            { "op": { "const": name }, "l": { "$ref": "#/$defs/e" }, "r": { "$ref": "#/$defs/e" } } })
    };
    json!({ "type": "object", "required": ["e"], "properties": { "e": { "$ref": "#/$defs/e" } }, "$defs":
        { "e": { "anyOf": [{ "type": "number" }, operation("add"), operation("sub"), operation("mul")] } } })
}

#[tokio::test]
async fn wrong_arguments_of_a_recursive_schema_cost_little_however_deep_they_are() {
    let eval = tool("eval", "Computes", async |_: serde_json::Value, _: ToolContext| Ok("computed"))
        .with(|tool| tool.parameters = expressions());
    let bay = Toolbay::builder().tool(eval).build().unwrap();
    let session = bay.session("acme").unwrap();
    let nested = |levels, leaf| {
        let add = |inner: serde_json::Value, _| json!({ "op": "add", "l": inner, "r": 1 });
        json!({ "e": (0..levels).fold(leaf, add) })
    };
    let near = session.call("eval", nested(2, json!("one"))).await.result.unwrap_err();
    assert!(near.message.contains("expected anyOf"), "{near}");
    let deep = session.call("eval", nested(50, json!("one"))).await.result.unwrap_err();
    // How often such a schema looks at a part is multiplied at each level, so deep values are not validated at all.
    assert!(matches!(deep.kind, ErrorKind::LimitExceeded { limit: toolbay::Limit::Nesting, .. }), "{deep}");
    assert_eq!(outcome(&session, "eval", nested(9, json!(1))).await, json!("computed"));
}

#[tokio::test]
async fn arguments_over_the_limit_are_the_callers_fault_and_shown_to_no_hook() {
    let watcher = ScriptedHook::passive();
    let asked = watcher.asked();
    let limits = Limits { max_argument_bytes: 100, ..Limits::default() };
    let bay = host(Toolbay::builder().limits(limits).hook(watcher.everywhere("watcher"))).await;
    let call = bay.session("acme").unwrap().call("test.echo", json!({ "text": "x".repeat(200) })).await;
    let error = call.result.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::LimitExceeded { limit: Limit::Arguments, allowed: 100, .. }), "{error}");
    assert_eq!(*asked.lock().unwrap(), [HookPoint::OnError]);
}

#[tokio::test]
async fn a_blocking_tool_keeps_its_place_until_its_thread_is_free() {
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let wait = blocking_tool("wait", "Waits past its time", move |_: Nothing, _: &ToolContext| {
        let _ = released.lock().map(|released| released.recv());
        Ok(())
    });
    let wait = wait.with(|tool| tool.timeout = Some(Duration::from_millis(20)));
    let quota = Quota { max_concurrent_calls: 1, max_calls_per_minute: 100 };
    let bay = Toolbay::builder().tool(wait).quota(quota).build().unwrap();
    let session = bay.session("acme").unwrap();
    let kind = async || session.call("wait", json!({})).await.result.map_err(|error| error.kind);
    assert_eq!(kind().await, Err(ErrorKind::TimedOut));
    assert_eq!(session.calls_in_flight(), 1);
    assert_eq!(kind().await, Err(ErrorKind::RateLimited));
    drop(release);
    while session.calls_in_flight() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(kind().await.map(drop), Ok(()));
}

/// At an error it calls a tool that fails, and counts how often it was asked.
struct Stubborn(Arc<AtomicU64>);

#[async_trait]
impl Hook for Stubborn {
    async fn on_error(&self, _: &OnError, cx: &HookContext<'_>) -> HookResult<OnErrorOutcome> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let _ = cx.host().call_tool("fail", json!({})).await;
        Ok(OnErrorOutcome::Observe)
    }
}

#[tokio::test]
async fn an_error_that_an_error_hook_makes_is_shown_to_no_error_hook() {
    let fail = tool("fail", "Fails", async |_: Nothing, _: ToolContext| Err::<(), _>(ToolError::failed("no")));
    let asked = Arc::new(AtomicU64::new(0));
    let hook = HookRegistration::new("stubborn", [HookPoint::OnError], Stubborn(Arc::clone(&asked)));
    let plugin = NativePlugin::new("stubborn", "1.0.0", "Asks again")
        .unwrap()
        .with(|metadata| metadata.permissions = PermissionSet::standard())
        .hook(hook);
    let bay = Toolbay::builder().tool(fail).grants(PermissionSet::standard()).build().unwrap();
    bay.register(Scope::Global, plugin).await.unwrap();
    assert_eq!(outcome(&bay.session("acme").unwrap(), "fail", json!({})).await, json!("Script: no"));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[test]
fn an_error_of_no_one_file_names_the_plugins_folder_as_it_is() {
    let manifest = MANIFEST.to_owned() + "[tools.t]\ndescription = \"x\"\nparameters = { type = \"objekt\" }\n";
    let plugins = folder(&[("odd/plugin.toml", &manifest), ("odd/main.rhai", "fn t(args, cx) { 1 }")]);
    let path = plugins.path().join("odd");
    let ran = std::process::Command::new(crate::support::toolbay_command())
        .arg("check")
        .arg(&path)
        .current_dir(project())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&ran.stdout);
    assert!(text.contains(&format!("Config: {}: tools.t.parameters", path.display())), "{text}");
}
