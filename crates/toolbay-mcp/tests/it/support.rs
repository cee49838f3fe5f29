//! What the tests serve, and clients to look at it with.

use std::sync::Arc;

use rmcp::{
    RoleClient, ServiceExt,
    model::{CallToolRequestParams, CallToolResult, ErrorData, ProtocolVersion, Tool},
    service::{ClientLifecycleMode, ClientServiceExt, RunningService, ServiceError, serve_server},
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Notify;
use toolbay_api::{ErrorKind, Scope, ToolContext, ToolError, plugin::NativePlugin, tool};
use toolbay_mcp::McpServer;
use toolbay_runtime::{Session, Toolbay};

pub(crate) type Client = RunningService<RoleClient, ()>;

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Two {
    pub(crate) a: f64,
    pub(crate) b: f64,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Nothing {}

/// Names a provider of cryptography for `rmcp`'s HTTP client: which one there is by itself depends on what else is built.
pub(crate) fn with_cryptography() {
    // Another test may have done so.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A host with a global `calculator`.
pub(crate) async fn toolbay() -> Toolbay {
    let toolbay = Toolbay::builder().build().unwrap();
    let sum = json!({"type": "object", "properties": {"sum": {"type": "number"}}, "required": ["sum"]});
    let calculator = NativePlugin::new("calculator", "1.0.0", "Calculates")
        .unwrap()
        .tool(tool("add", "Adds two numbers", async |two: Two, _: ToolContext| Ok(json!({"sum": two.a + two.b}))).with(
            |definition| {
                definition.output = Some(sum);
                definition.annotations.read_only = Some(true);
                definition.annotations.idempotent = Some(true);
            },
        ))
        .tool(
            tool("divide", "Divides one number by another", async |two: Two, _: ToolContext| {
                if two.b == 0.0 {
                    let error = ToolError::new(ErrorKind::Script, "division by zero: give another divisor");
                    return Err(error.with_details(json!({"pointer": "/b"})));
                }
                Ok(two.a / two.b)
            })
            .with(|definition| definition.output = Some(json!({"type": "number"}))),
        )
        .tool(tool("greet", "Says hello", async |_: Nothing, _: ToolContext| Ok("Hello!")));
    toolbay.register(Scope::Global, calculator).await.unwrap();
    toolbay
}

/// Registers a plugin with one tool, `secret.tell`, for one tenant.
pub(crate) async fn give_secret(toolbay: &Toolbay, tenant: &str) {
    let tell = tool("tell", "Tells a secret", async |_: Nothing, _: ToolContext| Ok("42"));
    let plugin = NativePlugin::new("secret", "1.0.0", "Keeps a secret").unwrap().tool(tell);
    toolbay.register(Scope::tenant(tenant).unwrap(), plugin).await.unwrap();
}

/// A tool, `slow.wait`, that answers "done" when a test lets it.
#[derive(Clone, Default)]
pub(crate) struct Slow {
    pub(crate) started: Arc<Notify>,
    pub(crate) release: Arc<Notify>,
    /// The call is over, by its end or by being dropped.
    pub(crate) over: Arc<Notify>,
}

impl Slow {
    /// Registers the tool for everybody.
    pub(crate) async fn register(toolbay: &Toolbay) -> Self {
        struct OnDrop(Arc<Notify>);
        impl Drop for OnDrop {
            fn drop(&mut self) {
                self.0.notify_one();
            }
        }

        let slow = Self::default();
        let seen = slow.clone();
        let wait = tool("wait", "Takes its time", move |_: Nothing, _: ToolContext| {
            let Slow { started, release, over } = seen.clone();
            async move {
                let _over = OnDrop(over);
                started.notify_one();
                release.notified().await;
                Ok("done")
            }
        });
        let plugin = NativePlugin::new("slow", "1.0.0", "Takes its time").unwrap().tool(wait);
        toolbay.register(Scope::Global, plugin).await.unwrap();
        slow
    }
}

/// A client that began with `initialize`, as all revisions up to 2025-11-25 do.
pub(crate) async fn older_client(session: Session) -> Client {
    ().serve(pipe_to(session)).await.unwrap()
}

/// A client that speaks 2026-07-28.
pub(crate) async fn newer_client(session: Session) -> Client {
    ().serve_with_lifecycle(pipe_to(session), discover()).await.unwrap()
}

pub(crate) fn discover() -> ClientLifecycleMode {
    ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }
}

/// The client's end of a pipe at whose other end `session` is served.
pub(crate) fn pipe_to(session: Session) -> tokio::io::DuplexStream {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    tokio::spawn(async move {
        let running = serve_server(McpServer::new(session), theirs).await.unwrap();
        running.waiting().await.unwrap();
    });
    ours
}

pub(crate) fn params(tool: &str, arguments: Value) -> CallToolRequestParams {
    CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments.as_object().unwrap().clone())
}

pub(crate) async fn call(client: &Client, tool: &str, arguments: Value) -> Result<CallToolResult, ServiceError> {
    client.call_tool(params(tool, arguments)).await
}

/// The call must fail as an error of the protocol.
pub(crate) async fn refused(client: &Client, tool: &str, arguments: Value) -> ErrorData {
    match call(client, tool, arguments).await {
        Err(ServiceError::McpError(error)) => error,
        other => panic!("not refused: {other:?}"),
    }
}

pub(crate) fn text(result: &CallToolResult) -> &str {
    assert_eq!(result.content.len(), 1, "{result:?}");
    &result.content[0].as_text().unwrap().text
}

pub(crate) fn names(tools: &[Tool]) -> Vec<&str> {
    tools.iter().map(|tool| tool.name.as_ref()).collect()
}
