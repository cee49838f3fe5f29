//! `allowed_callers`: whom a tool lets call it, and who sees it.

use std::sync::Arc;

use serde_json::json;
use toolbay::{ErrorKind, PermissionSet, Scope, Session, Toolbay, plugin::NativePlugin, tool};
use toolbay_testkit::RecordingAudit;

use crate::support::{Nothing, names, outcome, tenant};

/// A script with a tool `of` that lets `callers` call it.
fn owner(name: &str, callers: &str) -> String {
    format!(
        r#"const PLUGIN = #{{ name: "{name}", version: "1.0.0", description: "d", tools: #{{
            of: #{{ description: "d", allowed_callers: {callers} }} }} }};
        fn of(args) {{ "done" }}"#
    )
}

/// A script whose tool `ask` calls the tool that it is told.
fn caller(name: &str) -> String {
    format!(
        r#"const PLUGIN = #{{ name: "{name}", version: "1.0.0", description: "d", permissions: ["tool:call:*"], tools: #{{
            ask: #{{ description: "d", parameters: #{{ type: "object" }} }} }} }};
        fn ask(args) {{ call_tool(args.tool, #{{}}) }}"#
    )
}

async fn host(audit: Arc<RecordingAudit>) -> Toolbay {
    let bay = toolbay::builder().grants(PermissionSet::standard()).audit(audit).build().unwrap();
    for (name, callers) in
        [("inner", r#"["shop*"]"#), ("any", r#"["*"]"#), ("front", r#"["agent"]"#), ("both", r#"["agent", "shop"]"#)]
    {
        bay.load_source(Scope::Global, &format!("{name}.rhai"), &owner(name, callers)).await.unwrap();
    }
    for name in ["shop", "other"] {
        bay.load_source(Scope::Global, &format!("{name}.rhai"), &caller(name)).await.unwrap();
    }
    bay
}

async fn ask(session: &Session, by: &str, tool: &str) -> String {
    outcome(session, &format!("{by}.ask"), json!({ "tool": tool })).await.to_string()
}

#[tokio::test]
async fn a_plugin_that_a_tool_does_not_list_cannot_call_it_and_the_audit_knows() {
    let audit = Arc::new(RecordingAudit::default());
    let bay = host(Arc::clone(&audit)).await;
    let acme = bay.session("acme").unwrap();
    assert_eq!(ask(&acme, "shop", "inner.of").await, "\"done\"");
    let refused = ask(&acme, "other", "inner.of").await;
    assert_eq!(
        refused,
        "\"PermissionDenied: inner.of cannot be called here: the plugin `other` is not among the callers that it allows \
         (`allowed_callers` of the tool); use another tool\""
    );
    let records = audit.records();
    let denied: Vec<_> = records.iter().filter(|record| record.tool == "inner.of" && record.depth == 1).collect();
    assert_eq!(denied.iter().map(|record| record.outcome.as_str()).collect::<Vec<_>>(), ["ok", "PermissionDenied"]);
    for (by, tool, may) in
        [("other", "any.of", true), ("shop", "front.of", false), ("shop", "both.of", true), ("other", "both.of", false)]
    {
        assert_eq!(ask(&acme, by, tool).await == "\"done\"", may, "{by} calls {tool}");
    }
}

#[tokio::test]
async fn the_agent_neither_sees_nor_calls_what_is_for_plugins() {
    let bay = host(Arc::default()).await;
    let acme = bay.session("acme").unwrap();
    assert_eq!(names(&acme), ["both.of", "front.of", "other.ask", "shop.ask"]);
    assert!(acme.tool("inner.of").is_none());
    assert_eq!(acme.run().tools().len(), 4);
    let refused = outcome(&acme, "any.of", json!({})).await.to_string();
    assert!(refused.contains("PermissionDenied") && refused.contains("not for the agent"), "{refused}");
    // Nor is it told of it by way of a name that is like it.
    let unknown = outcome(&acme, "inner.off", json!({})).await.to_string();
    assert!(unknown.contains("NotFound") && !unknown.contains("inner.of "), "{unknown}");
}

#[tokio::test]
async fn a_tenant_cannot_name_its_plugin_after_a_caller_of_a_tool_for_everybody() {
    let bay = toolbay::builder().grants(PermissionSet::standard()).build().unwrap();
    for (name, callers) in [("inner", r#"["shop*"]"#), ("any", r#"["*"]"#)] {
        bay.load_source(Scope::Global, &format!("{name}.rhai"), &owner(name, callers)).await.unwrap();
    }
    bay.load_source(tenant("acme"), "own.rhai", &owner("own", r#"["shop"]"#)).await.unwrap();
    bay.load_source(tenant("acme"), "shop.rhai", &caller("shop")).await.unwrap();
    let acme = bay.session("acme").unwrap();
    assert!(ask(&acme, "shop", "inner.of").await.contains("PermissionDenied"));
    assert_eq!(ask(&acme, "shop", "own.of").await, "\"done\"");
    assert_eq!(ask(&acme, "shop", "any.of").await, "\"done\"");
}

#[tokio::test]
async fn a_plugin_called_agent_is_not_the_agent() {
    let bay = host(Arc::default()).await;
    bay.load_source(Scope::Global, "agent.rhai", &caller("agent")).await.unwrap();
    assert!(ask(&bay.session("acme").unwrap(), "agent", "front.of").await.contains("PermissionDenied"));
}

#[tokio::test]
async fn a_native_tool_says_so_in_its_definition() {
    let purge = tool("purge", "Purges", async |_: Nothing, _| Ok("purged"));
    let purge = purge.with_callers(["shop"]).unwrap();
    let bay = host(Arc::default()).await;
    bay.register(Scope::Global, NativePlugin::new("native", "1.0.0", "d").unwrap().tool(purge)).await.unwrap();
    let acme = bay.session("acme").unwrap();
    assert_eq!(ask(&acme, "shop", "native.purge").await, "\"purged\"");
    assert!(ask(&acme, "other", "native.purge").await.contains("PermissionDenied"));
    assert!(!names(&acme).contains(&"native.purge".to_owned()));
}

#[tokio::test]
async fn a_list_that_names_nobody_or_no_plugin_is_refused_with_its_place() {
    let bay = toolbay::builder().build().unwrap();
    for (callers, problem) in [
        ("[]", "names nobody"),
        (r#"["Shop"]"#, "is no caller"),
        (r#"[""]"#, "is no caller"),
        ("7", "expected a sequence"),
    ] {
        let error = bay.load_source(Scope::Global, "x.rhai", &owner("x", callers)).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Config);
        let text = error.to_string();
        assert!(text.contains("tools.of.allowed_callers") && text.contains(problem), "{text}");
    }
}
