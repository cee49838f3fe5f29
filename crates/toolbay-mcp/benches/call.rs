//! What one `tools/call` costs, beside a server with the same tool on `rmcp` alone, in the same run: over HTTP in both
//! revisions and over a pipe. Then a thousand clients that stay connected, each of which calls once.
//!
//! `cargo bench -p toolbay-mcp --bench call`. An own harness, since a call waits: what counts are the quantiles of one client
//! that calls again and again, not the throughput of a loop.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot go on fails, and prints what it found"
)]

use std::{
    future::pending,
    time::{Duration, Instant},
};

use rmcp::{
    ErrorData, RoleClient, RoleServer, ServerHandler, ServiceExt,
    model::{
        CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ProtocolVersion, ServerCapabilities,
        ServerConfig,
    },
    service::{ClientLifecycleMode, ClientServiceExt, RequestContext, RunningService, serve_server},
    transport::{
        StreamableHttpClientTransport,
        streamable_http_server::{
            StreamableHttpServerConfig, StreamableHttpService, session::local::LocalSessionManager,
        },
    },
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use toolbay_api::{Scope, ToolContext, plugin::NativePlugin, tool};
use toolbay_mcp::{HttpOptions, McpServer, http_router, serve_http};
use toolbay_runtime::{Quota, Session, Toolbay};

const WARM_UP: usize = 200;
const CALLS: usize = 3_000;
const CLIENTS: usize = 1_000;

#[derive(Deserialize, JsonSchema)]
struct Two {
    a: f64,
    b: f64,
}

/// The same tool on `rmcp` alone: no schema check, no meter, no deadline, no audit.
#[derive(Clone)]
struct Plain;

impl ServerHandler for Plain {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn call_tool(
        &self,
        params: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = serde_json::Value::Object(params.arguments.unwrap_or_default());
        let two: Two =
            serde_json::from_value(arguments).map_err(|error| ErrorData::invalid_params(error.to_string(), None))?;
        let sum = json!({ "sum": two.a + two.b });
        let mut result = CallToolResult::success(vec![ContentBlock::text(sum.to_string())]);
        result.structured_content = Some(sum);
        Ok(result.into())
    }
}

type Client = RunningService<RoleClient, ()>;

fn main() {
    // Which one there is by itself depends on what else is built.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let session = session().await;
        let (ours, plain) = (serve(session.clone()).await, serve_plain().await);
        for newer in [true, false] {
            let revision = if newer { "2026-07-28" } else { "2025-11-25" };
            for (name, url) in [("toolbay", &ours), ("rmcp alone", &plain)] {
                report(&format!("HTTP {revision} {name}"), measure(&http(url, newer).await).await);
            }
        }
        let (one, other) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move { serve_server(McpServer::new(session), one).await.unwrap().waiting().await });
        report("pipe 2025-11-25 toolbay", measure(&().serve(other).await.unwrap()).await);
        let (one, other) = tokio::io::duplex(64 * 1024);
        tokio::spawn(async move { serve_server(Plain, one).await.unwrap().waiting().await });
        report("pipe 2025-11-25 rmcp alone", measure(&().serve(other).await.unwrap()).await);
        hold(&ours).await;
    });
}

async fn session() -> Session {
    let quota = Quota { max_concurrent_calls: CLIENTS * 2, max_calls_per_minute: u32::MAX };
    let bay = Toolbay::builder().quota(quota).build().unwrap();
    let add = tool("add", "Adds", async |two: Two, _: ToolContext| Ok(json!({ "sum": two.a + two.b })));
    let plugin = NativePlugin::new("add", "1.0.0", "Adds").unwrap().tool(add);
    bay.register(Scope::Global, plugin).await.unwrap();
    bay.session("acme").unwrap()
}

async fn serve(session: Session) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    tokio::spawn(serve_http(listener, http_router(session, |_| None, HttpOptions::default()), pending()));
    url
}

async fn serve_plain() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let config = StreamableHttpServerConfig::default().with_json_response(true);
    let service = StreamableHttpService::new(|| Ok(Plain), LocalSessionManager::default().into(), config);
    let router = axum::Router::new().nest_service("/mcp", service);
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

async fn http(url: &str, newer: bool) -> Client {
    let transport = StreamableHttpClientTransport::from_uri(url);
    if newer {
        let mode = ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] };
        ().serve_with_lifecycle(transport, mode).await.unwrap()
    } else {
        ().serve(transport).await.unwrap()
    }
}

async fn call(client: &Client) {
    let arguments = json!({ "a": 2, "b": 3 }).as_object().unwrap().clone();
    let result = client.call_tool(CallToolRequestParams::new("add").with_arguments(arguments)).await.unwrap();
    assert_eq!(result.structured_content, Some(json!({ "sum": 5.0 })));
}

async fn measure(client: &Client) -> Vec<Duration> {
    for _ in 0..WARM_UP {
        call(client).await;
    }
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let began = Instant::now();
        call(client).await;
        times.push(began.elapsed());
    }
    times.sort();
    times
}

fn report(name: &str, times: Vec<Duration>) {
    let at = |share: usize| times[times.len() * share / 1_000];
    println!("{name:<32} p50 {:>9.1?}  p99 {:>9.1?}  p99.9 {:>9.1?}", at(500), at(990), at(999));
}

/// Clients of 2025-11-25, each with a session and a stream of its own, all at once. Both ends are in this process: it needs
/// some 5,000 file handles.
async fn hold(url: &str) {
    let began = Instant::now();
    let mut clients = Vec::with_capacity(CLIENTS);
    for _ in 0..CLIENTS {
        clients.push(http(url, false).await);
    }
    let connected = began.elapsed();
    let began = Instant::now();
    futures::future::join_all(clients.iter().map(call)).await;
    println!(
        "{CLIENTS} clients held: connected in {connected:.1?}, a call of each at once took {:.1?}",
        began.elapsed()
    );
}
