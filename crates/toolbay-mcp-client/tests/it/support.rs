//! Servers to talk to, and a Toolbay with a plugin that stands for one.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::post,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use toolbay_api::{PermissionSet, Scope, Secret, SecretName, SecretProvider, TenantId, ToolError, async_trait};
use toolbay_mcp_client::{HttpPolicy, Link, LinkOptions, McpRunner, Pins, Place, ServerFile};
use toolbay_runtime::Toolbay;

/// What a server does with a request: its result, an error, or nothing at all.
pub(crate) enum Does {
    Answers(Value),
    AnswersAs(Value, Value),
    Never,
}

type Behaviour = dyn Fn(&str, &Value) -> Does + Send + Sync;

/// A server on the loopback address that speaks 2025-11-25.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) url: String,
    /// The methods that it was asked for, in order.
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    /// The credentials that it was shown.
    pub(crate) shown: Arc<Mutex<Vec<String>>>,
    behaviour: Arc<Behaviour>,
}

impl Fake {
    pub(crate) async fn start(behaviour: impl Fn(&str, &Value) -> Does + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let fake = Self { url, asked: Arc::default(), shown: Arc::default(), behaviour: Arc::new(behaviour) };
        let router = Router::new().route("/mcp", post(answer)).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        fake
    }

    /// A server with these tools, which all say "done".
    pub(crate) async fn with_tools(tools: Value) -> Self {
        Self::start(move |method, _| match method {
            "tools/list" => Does::Answers(json!({ "tools": tools })),
            "tools/call" => Does::Answers(said("done")),
            _ => Does::Answers(json!({})),
        })
        .await
    }

    pub(crate) fn count(&self, method: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| *asked == method).count()
    }

    pub(crate) fn file(&self) -> ServerFile {
        ServerFile { url: Some(self.url.clone()), ..ServerFile::default() }
    }
}

async fn answer(State(fake): State<Fake>, headers: HeaderMap, Json(message): Json<Value>) -> Response {
    let method = message["method"].as_str().unwrap_or_default().to_owned();
    fake.asked.lock().unwrap().push(method.clone());
    if let Some(credential) = headers.get("authorization") {
        fake.shown.lock().unwrap().push(credential.to_str().unwrap().to_owned());
    }
    let Some(id) = message.get("id").cloned() else { return StatusCode::ACCEPTED.into_response() };
    let reply =
        |id: Value, result: Value| Json(json!({ "jsonrpc": "2.0", "id": id, "result": result })).into_response();
    match method.as_str() {
        "server/discover" => {
            let error = json!({ "code": -32601, "message": "no such method" });
            Json(json!({ "jsonrpc": "2.0", "id": id, "error": error })).into_response()
        }
        "initialize" => reply(
            id,
            json!({ "protocolVersion": "2025-11-25", "capabilities": { "tools": {} },
                "serverInfo": { "name": "fake", "version": "1" } }),
        ),
        _ => match (fake.behaviour)(&method, &message["params"]) {
            Does::Answers(result) => reply(id, result),
            Does::AnswersAs(id, result) => reply(id, result),
            Does::Never => std::future::pending().await,
        },
    }
}

pub(crate) fn said(text: &str) -> Value {
    json!({ "content": [{ "type": "text", "text": text }] })
}

pub(crate) fn a_tool(name: &str, description: &str) -> Value {
    json!({ "name": name, "description": description, "inputSchema": { "type": "object" } })
}

/// Addresses of this machine, for tests.
pub(crate) fn loopback() -> HttpPolicy {
    let mut policy = HttpPolicy::default();
    policy.addresses.allow("127.0.0.0/8".parse().unwrap());
    policy
}

pub(crate) fn options() -> LinkOptions {
    LinkOptions { http: loopback(), ..LinkOptions::default() }
}

pub(crate) async fn link(file: &ServerFile) -> Link {
    let place: Place = file.place(|_| Err("no secrets here")).unwrap();
    Link::open(&place, &options()).await.unwrap()
}

/// Approves what the server has now.
pub(crate) async fn approved(file: &ServerFile) -> Pins {
    let link = link(file).await;
    let (pins, left_out) = Pins::of(&link.tools().await.unwrap());
    assert!(left_out.is_empty(), "{left_out:?}");
    pins
}

/// Writes the plugin `remote` into a folder.
pub(crate) fn plugin(file: &ServerFile, pins: &Pins) -> TempDir {
    let folder = TempDir::new().unwrap();
    write_plugin(&folder.path().join("remote"), file, pins);
    folder
}

pub(crate) fn write_plugin(folder: &Path, file: &ServerFile, pins: &Pins) {
    std::fs::create_dir_all(folder.join("assets")).unwrap();
    let manifest = json!({ "name": "remote", "version": "1.0.0", "description": "A server", "author": "The tests",
        "runtime": "mcp", "permissions": ["*"], "limits": { "timeout_ms": 1500 } });
    std::fs::write(folder.join("plugin.json"), manifest.to_string()).unwrap();
    std::fs::write(folder.join("assets/server.json"), serde_json::to_string(file).unwrap()).unwrap();
    std::fs::write(folder.join("assets/tools.lock.json"), pins.to_json()).unwrap();
}

/// A Toolbay that grants everything, to addresses of this machine.
pub(crate) fn toolbay() -> Toolbay {
    let runner = McpRunner::default().with_http(loopback());
    Toolbay::builder().runner(runner).grants(PermissionSet::all()).secrets(Keeper).build().unwrap()
}

/// A Toolbay with the plugin for everybody.
pub(crate) async fn loaded(file: &ServerFile, pins: &Pins) -> (Toolbay, TempDir) {
    let (bay, folder) = (toolbay(), plugin(file, pins));
    bay.load(Scope::Global, folder.path().join("remote")).await.unwrap();
    (bay, folder)
}

/// Each tenant's secrets are its name.
struct Keeper;

#[async_trait]
impl SecretProvider for Keeper {
    async fn secret(&self, tenant: &TenantId, name: &SecretName) -> Result<Option<Secret>, ToolError> {
        Ok(Some(Secret::new(format!("{name}-of-{tenant}"))))
    }
}
