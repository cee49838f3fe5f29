//! What is told of runs and calls: the tree, what stays unsaid, what is bounded, whose trace it is.

use std::{collections::HashMap, sync::Arc, time::Duration};

use expect_test::expect;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use toolbay_agent::{Agent, AgentConfig, ModelError, ModelErrorKind, ScriptedModel};
use toolbay_api::{
    PermissionSet, Secret, SecretName, SecretProvider, TenantId, ToolContext, ToolError, async_trait, tool,
};
use toolbay_otel::{Telemetry, TelemetryError, TelemetryOptions};
use toolbay_runtime::{Toolbay, ToolbayBuilder, trace::TARGET};
use tracing::{Instrument, subscriber::DefaultGuard};
use tracing_subscriber::prelude::*;

use crate::collector::{Collector, attributes};

#[derive(Deserialize, JsonSchema)]
struct Empty {}

#[derive(Deserialize, JsonSchema)]
struct Text {
    text: String,
}

/// Telemetry to `endpoint` for what this thread does from here on.
fn begin(options: TelemetryOptions) -> (Telemetry, DefaultGuard) {
    let telemetry = Telemetry::start(options).unwrap();
    let guard = tracing_subscriber::registry().with(telemetry.layer()).set_default();
    (telemetry, guard)
}

fn to(endpoint: &str) -> TelemetryOptions {
    TelemetryOptions { endpoint: endpoint.to_owned(), ..TelemetryOptions::default() }
}

fn bay() -> ToolbayBuilder {
    let outer = tool("outer", "Calls another, in a task of its own", async |_: Empty, cx: ToolContext| {
        let host = Arc::clone(cx.host());
        let inner = tokio::spawn(async move { host.call_tool("echo", json!({"text": "deep"})).await });
        inner.await.unwrap().map(|output| output.data)
    });
    Toolbay::builder()
        .without_audit()
        .grants(PermissionSet::parse(["tool:call:*", "secret:read:*"]).unwrap())
        .tool(tool("echo", "Says it again", async |args: Text, _: ToolContext| Ok(args.text)))
        .tool(tool("fails", "Fails", async |_: Empty, _: ToolContext| {
            Err::<(), _>(ToolError::failed("order 66 is lost"))
        }))
        .tool(outer)
}

async fn run(model: ScriptedModel, bay: ToolbayBuilder) {
    let session = bay.build().unwrap().session("acme").unwrap().with_conversation("c-1");
    let config = AgentConfig {
        name: Some("support".into()),
        max_retry_wait: Duration::from_millis(1),
        ..AgentConfig::default()
    };
    let agent = Agent::new(model, session).config(config).system("Be kind to customer 4711.");
    let _ = agent.run("Where is my order 66?").await;
}

#[tokio::test]
async fn a_run_is_told_as_a_tree() {
    let (collector, address) = Collector::start().await;
    let (telemetry, guard) = begin(to(&address));
    let failing = ModelError::new(ModelErrorKind::Overloaded, "busy");
    let model = ScriptedModel::new()
        .fails(failing)
        .calls_all([("outer", json!({})), ("fails", json!({}))])
        .using(100, 20)
        .calls("no such tool", json!({"secret": "sauce"}))
        .using(150, 10)
        .says("It is lost.")
        .using(200, 5);
    run(model, bay()).await;
    drop(guard);
    telemetry.stop().await;
    expect![[r#"
        invoke_agent support (internal)
          . gen_ai.agent.name = support
          . gen_ai.conversation.id = c-1
          . gen_ai.operation.name = invoke_agent
          . gen_ai.provider.name = _OTHER
          . gen_ai.request.model = scripted
          . gen_ai.usage.input_tokens = 450
          . gen_ai.usage.output_tokens = 35
          . toolbay.outcome = completed
          . toolbay.run = ...
          . toolbay.steps = 3
          . toolbay.tenant = acme
          . toolbay.tool_calls = 3
          chat scripted (client)
            . gen_ai.conversation.id = c-1
            . gen_ai.operation.name = chat
            . gen_ai.provider.name = _OTHER
            . gen_ai.request.model = scripted
            . gen_ai.response.finish_reasons = [tool_call]
            . gen_ai.usage.input_tokens = 100
            . gen_ai.usage.output_tokens = 20
            . toolbay.retries = 1
            . toolbay.step = 1
            . toolbay.tenant = acme
          execute_tool fails (internal) FAILED
            . error.type = Script
            . gen_ai.operation.name = execute_tool
            . gen_ai.tool.call.id = ...
            . gen_ai.tool.name = fails
            . gen_ai.tool.type = function
            . toolbay.depth = 0
            . toolbay.plugin = fails
            . toolbay.tenant = acme
          execute_tool outer (internal)
            . gen_ai.operation.name = execute_tool
            . gen_ai.tool.call.id = ...
            . gen_ai.tool.name = outer
            . gen_ai.tool.type = function
            . toolbay.depth = 0
            . toolbay.plugin = outer
            . toolbay.tenant = acme
            execute_tool echo (internal)
              . gen_ai.operation.name = execute_tool
              . gen_ai.tool.call.id = ...
              . gen_ai.tool.name = echo
              . gen_ai.tool.type = function
              . toolbay.depth = 1
              . toolbay.plugin = echo
              . toolbay.tenant = acme
          chat scripted (client)
            . gen_ai.conversation.id = c-1
            . gen_ai.operation.name = chat
            . gen_ai.provider.name = _OTHER
            . gen_ai.request.model = scripted
            . gen_ai.response.finish_reasons = [tool_call]
            . gen_ai.usage.input_tokens = 150
            . gen_ai.usage.output_tokens = 10
            . toolbay.step = 2
            . toolbay.tenant = acme
          execute_tool no such tool (internal) FAILED
            . error.type = NotFound
            . gen_ai.operation.name = execute_tool
            . gen_ai.tool.call.id = ...
            . gen_ai.tool.name = no such tool
            . gen_ai.tool.type = function
            . toolbay.depth = 0
            . toolbay.tenant = acme
          chat scripted (client)
            . gen_ai.conversation.id = c-1
            . gen_ai.operation.name = chat
            . gen_ai.provider.name = _OTHER
            . gen_ai.request.model = scripted
            . gen_ai.response.finish_reasons = [stop]
            . gen_ai.usage.input_tokens = 200
            . gen_ai.usage.output_tokens = 5
            . toolbay.step = 3
            . toolbay.tenant = acme
    "#]]
    .assert_eq(&collector.drawn());
    let traces: std::collections::HashSet<_> = collector.spans().into_iter().map(|span| span.trace_id).collect();
    assert_eq!(traces.len(), 1);
    assert_eq!(collector.resource()["service.name"], "toolbay");
}

#[tokio::test]
async fn what_was_said_stays_here_unless_the_host_says_otherwise() {
    let model = || ScriptedModel::new().calls("echo", json!({"text": "for 4711"})).says("Lost, 4711.");
    for (wanted, content) in [(false, false), (true, true)] {
        let (collector, address) = Collector::start().await;
        let (telemetry, guard) = begin(to(&address));
        run(model(), bay().trace_content(wanted)).await;
        // A log line goes nowhere, whatever is wanted.
        tracing::error!(target: TARGET, "a line about 0815");
        tracing::info_span!(target: "toolbay::plugin", "of no concern").in_scope(|| tracing::error!("0815"));
        drop(guard);
        telemetry.stop().await;
        assert!(!collector.spans().is_empty());
        for text in ["4711", "order 66", "for 4711"] {
            assert_eq!(collector.has(text), content, "{text}");
        }
        assert!(!collector.has("0815"));
        let names: Vec<_> = collector.spans().iter().flat_map(|span| attributes(span).into_keys()).collect();
        for name in ["gen_ai.input.messages", "gen_ai.tool.call.arguments", "gen_ai.tool.call.result"] {
            assert_eq!(names.iter().any(|other| other == name), content, "{name}");
        }
    }
}

#[tokio::test]
async fn content_is_in_the_form_of_the_conventions() {
    let (collector, address) = Collector::start().await;
    let (telemetry, guard) = begin(to(&address));
    let model = ScriptedModel::new().calls("echo", json!({"text": "hi"})).says("done");
    run(model, bay().trace_content(true)).await;
    drop(guard);
    telemetry.stop().await;
    let spans = collector.spans();
    let of = |name: &str, key: &str| {
        let span = spans.iter().rfind(|span| span.name.starts_with(name)).unwrap();
        attributes(span).remove(key).unwrap()
    };
    expect![[r#"[{"role":"system","parts":[{"type":"text","content":"Be kind to customer 4711."}]},{"role":"user","parts":[{"type":"text","content":"Where is my order 66?"}]},{"role":"assistant","parts":[{"type":"tool_call","id":"call_1","name":"echo","arguments":{"text":"hi"}}]},{"role":"tool","parts":[{"type":"tool_call_response","id":"call_1","response":"hi"}]}]"#]].assert_eq(&of("chat", "gen_ai.input.messages"));
    expect![[r#"[{"role":"assistant","parts":[{"type":"text","content":"done"}],"finish_reason":"stop"}]"#]]
        .assert_eq(&of("chat", "gen_ai.output.messages"));
    expect![[r#"[{"type":"text","content":"Be kind to customer 4711."}]"#]]
        .assert_eq(&of("invoke_agent", "gen_ai.system_instructions"));
    assert_eq!(of("execute_tool echo", "gen_ai.tool.call.arguments"), r#"{"text":"hi"}"#);
    assert_eq!(of("execute_tool echo", "gen_ai.tool.call.result"), r#""hi""#);
}

struct Keeper;

#[async_trait]
impl SecretProvider for Keeper {
    async fn secret(&self, _: &TenantId, _: &SecretName) -> Result<Option<Secret>, ToolError> {
        Ok(Some(Secret::new("hunter2-hunter2".to_owned())))
    }
}

#[tokio::test]
async fn a_secret_that_a_plugin_read_is_never_told() {
    let (collector, address) = Collector::start().await;
    let (telemetry, guard) = begin(to(&address));
    let leaky = tool("leaky", "Tells its key", async |_: Empty, cx: ToolContext| {
        let key = cx.host().secret("KEY").await?;
        // As an argument of another call, and as a result.
        cx.host().call_tool("echo", json!({ "text": format!("key {key}") })).await.map(|output| output.data)
    });
    let model = ScriptedModel::new().calls("leaky", json!({})).says("done");
    run(model, bay().tool(leaky).secrets(Keeper).trace_content(true)).await;
    drop(guard);
    telemetry.stop().await;
    assert!(collector.has("key ***"), "{}", collector.drawn());
    assert!(!collector.has("hunter2"), "{}", collector.drawn());
}

#[tokio::test]
async fn what_a_model_writes_is_cut() {
    let (collector, address) = Collector::start().await;
    let (telemetry, guard) = begin(to(&address));
    let long = "x".repeat(100_000);
    let model = ScriptedModel::new().calls(&long, json!({})).calls("echo", json!({ "text": long })).says(&long);
    run(model, bay().trace_content(true)).await;
    drop(guard);
    telemetry.stop().await;
    for span in collector.spans() {
        assert!(span.name.len() <= 150, "{}", span.name.len());
        for (key, value) in attributes(&span) {
            assert!(value.len() <= 72 * 1024, "{key}: {}", value.len());
        }
    }
}

#[tokio::test]
async fn a_request_goes_on_in_its_callers_trace() {
    let (collector, address) = Collector::start().await;
    let (telemetry, guard) = begin(to(&address));
    let link = telemetry.link();
    let trace = "0af7651916cd43dd8448eb211c80319c";
    for (traceparent, is_followed) in [
        (format!("00-{trace}-b7ad6b7169203331-01"), true),
        ("00-00000000000000000000000000000000-b7ad6b7169203331-01".to_owned(), false),
        ("nonsense".to_owned(), false),
    ] {
        let span = tracing::info_span!(target: TARGET, "request", otel.kind = "server");
        link.follow(&span, &traceparent, None);
        assert_eq!(link.trace_id(&span).unwrap() == trace, is_followed, "{traceparent}");
        let seen = tool("seen", "Tells its trace", async |_: Empty, cx: ToolContext| Ok(cx.caller().trace.clone()));
        let bay = bay().tool(seen).trace_link(Arc::clone(&link)).build().unwrap();
        let session = bay.session("acme").unwrap();
        let reply = async { session.call("seen", json!({})).await }.instrument(span.clone()).await;
        assert_eq!(reply.result.unwrap().data, json!(link.trace_id(&span)));
    }
    drop(guard);
    telemetry.stop().await;
    let of_caller = collector
        .spans()
        .into_iter()
        .filter(|span| span.parent_span_id == [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
    assert_eq!(of_caller.count(), 1);
}

#[tokio::test]
async fn a_caller_that_does_not_sample_is_heeded_and_so_is_the_host() {
    let (collector, address) = Collector::start().await;
    let (telemetry, guard) = begin(to(&address));
    let span = tracing::info_span!(target: TARGET, "request");
    telemetry.link().follow(&span, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00", None);
    drop((span, guard));
    telemetry.stop().await;
    let (telemetry, guard) = begin(TelemetryOptions { sampled: 0.0, ..to(&address) });
    run(ScriptedModel::new().says("hi"), bay()).await;
    drop(guard);
    telemetry.stop().await;
    assert!(collector.spans().is_empty());
}

#[tokio::test]
async fn headers_go_along_and_are_not_shown() {
    let (collector, address) = Collector::start().await;
    let headers = HashMap::from([("x-key".to_owned(), "k-123".to_owned())]);
    let options = TelemetryOptions { headers, ..to(&format!("{address}/")) };
    assert!(!format!("{options:?}").contains("k-123"));
    let (telemetry, guard) = begin(options);
    run(ScriptedModel::new().says("hi"), bay()).await;
    drop(guard);
    telemetry.stop().await;
    assert_eq!(collector.header("x-key").as_deref(), Some("k-123"));
}

#[tokio::test]
async fn a_collector_that_is_away_holds_nothing_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    // It takes connections and never answers.
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (telemetry, guard) = begin(TelemetryOptions { timeout: Duration::from_millis(200), ..to(&address) });
    run(ScriptedModel::new().calls("echo", json!({"text": "hi"})).says("done"), bay()).await;
    drop(guard);
    tokio::time::timeout(Duration::from_secs(20), telemetry.stop()).await.expect("it ends");
    drop(listener);
}

#[tokio::test]
async fn options_that_make_no_sense_are_refused() {
    for endpoint in ["", "localhost:4318", "ftp://localhost", "http://"] {
        assert!(matches!(Telemetry::start(to(endpoint)), Err(TelemetryError::Endpoint { .. })), "{endpoint}");
    }
    for sampled in [-0.1, 1.1, f64::NAN] {
        let options = TelemetryOptions { sampled, ..TelemetryOptions::default() };
        assert!(matches!(Telemetry::start(options), Err(TelemetryError::Sampled)), "{sampled}");
    }
    assert!(matches!(
        std::thread::spawn(|| Telemetry::start(TelemetryOptions::default())).join().unwrap(),
        Err(TelemetryError::NoRuntime)
    ));
}

#[tokio::test]
async fn a_field_that_nobody_decided_to_tell_goes_nowhere() {
    let (collector, address) = Collector::start().await;
    let (telemetry, guard) = begin(to(&address));
    let span = tracing::info_span!(target: TARGET, "added", toolbay.step = 7, customer = "ada@example.com");
    span.in_scope(|| tracing::info!(target: TARGET, order = "sixty-six", "a line of a log"));
    drop(span);
    drop(guard);
    telemetry.stop().await;
    assert!(collector.has("added") && collector.has("toolbay.step"), "{}", collector.drawn());
    for unsaid in ["customer", "ada@example.com", "sixty-six", "a line of a log"] {
        assert!(!collector.has(unsaid), "{unsaid} is told");
    }
}
