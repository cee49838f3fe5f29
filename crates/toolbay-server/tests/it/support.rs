//! A server on a fresh SQLite file, and callers of it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
};
use toolbay_api::{
    PermissionSet, Route, RouteContext, RouteMethod, RouteRequest, RouteResponse, Scope, TenantId, ToolContext,
    ToolError, plugin::NativePlugin, tool,
};
use toolbay_rhai::RhaiRunner;
use toolbay_runtime::{Actor, Control, ControlOptions, Store, Toolbay, control::KeyWanted, store::Role};
use toolbay_server::{Server, ServerOptions};
use toolbay_store::{SqlStore, StoreOptions};

/// A server with an admin, an operator, and the tenants `acme` and `rival` with a key each.
pub struct Host {
    pub address: SocketAddr,
    pub control: Control,
    pub store: Arc<SqlStore>,
    pub admin: String,
    pub operator: String,
    pub acme: String,
    pub rival: String,
    stop: Option<oneshot::Sender<()>>,
    served: JoinHandle<std::io::Result<()>>,
    client: reqwest::Client,
    _folder: tempfile::TempDir,
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
pub struct Echo {
    text: String,
}

pub fn bay() -> Toolbay {
    Toolbay::builder().runner(RhaiRunner::default()).grants(PermissionSet::all()).build().expect("a host")
}

impl Host {
    pub async fn start() -> Self {
        Self::with(ServerOptions::default()).await
    }

    pub async fn with(options: ServerOptions) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite:{}", folder.path().join("toolbay.db").display());
        let store = Arc::new(SqlStore::open(&url, StoreOptions::default()).await.expect("a store"));
        let bay = bay();
        bay.register(Scope::Global, shop()).await.expect("shop is registered");
        let control =
            Control::open(bay, Arc::clone(&store) as Arc<dyn Store>, ControlOptions::default()).await.expect("control");
        let host = Actor::host("test");
        for name in ["acme", "rival"] {
            control.create_tenant(&host, &TenantId::new(name).unwrap()).await.expect("a tenant");
        }
        let admin = key(&control, Role::Admin, None).await;
        let operator = key(&control, Role::Operator, None).await;
        let acme = key(&control, Role::Tenant, Some("acme")).await;
        let rival = key(&control, Role::Tenant, Some("rival")).await;
        let server = Server::new(control.clone(), options);
        let server = server.bind("127.0.0.1:0".parse().unwrap()).await.expect("a free port");
        let address = server.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::spawn(server.serve(async {
            let _ = stopped.await;
        }));
        let client = reqwest::Client::builder().timeout(Duration::from_secs(30)).build().expect("a client");
        let stop = Some(stop);
        Self { address, control, store, admin, operator, acme, rival, stop, served, client, _folder: folder }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A request without a key.
    pub fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path))
    }

    pub fn ask(&self, key: &str, method: Method, path: &str) -> RequestBuilder {
        self.bare(method, path).bearer_auth(key)
    }

    pub async fn get(&self, key: &str, path: &str) -> Answer {
        Answer::of(self.ask(key, Method::GET, path)).await
    }

    pub async fn post(&self, key: &str, path: &str, body: Value) -> Answer {
        Answer::of(self.ask(key, Method::POST, path).json(&body)).await
    }

    /// As [`post`](Self::post), for a task of its own.
    pub fn post_owned(&self, key: String, path: &str, body: Value) -> impl Future<Output = Answer> + use<> {
        Answer::of(self.ask(&key, Method::POST, path).json(&body))
    }

    pub async fn put(&self, key: &str, path: &str, body: Value) -> Answer {
        Answer::of(self.ask(key, Method::PUT, path).json(&body)).await
    }

    /// A POST without a body.
    pub async fn act(&self, key: &str, path: &str) -> Answer {
        Answer::of(self.ask(key, Method::POST, path)).await
    }

    pub async fn delete(&self, key: &str, path: &str) -> Answer {
        Answer::of(self.ask(key, Method::DELETE, path)).await
    }

    /// Uploads and installs a plugin below `base`, as in `/api/v1`.
    pub async fn install(&self, key: &str, base: &str, name: &str, source: String) {
        let path = format!("{base}/plugins?file_name={name}.rhai");
        let sent = self.ask(key, Method::POST, &path).header("content-type", "text/plain").body(source);
        let uploaded = Answer::of(sent).await;
        assert_eq!(uploaded.status, 201, "{uploaded:?}");
        let installed = self.act(key, &format!("{base}/plugins/{name}/install")).await;
        assert_eq!(installed.status, 200, "{installed:?}");
    }

    pub async fn stop(mut self) -> std::io::Result<()> {
        let _ = self.stop.take().expect("it runs").send(());
        (&mut self.served).await.expect("the server's task")
    }

    /// Begins the shutdown without waiting for its end.
    pub fn begin_to_stop(&mut self) {
        let _ = self.stop.take().expect("it runs").send(());
    }

    pub async fn stopped(self) -> std::io::Result<()> {
        self.served.await.expect("the server's task")
    }

    /// What the server answers to these bytes, until it closes the connection or is silent.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.expect("a connection");
        stream.write_all(bytes).await.expect("sent");
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while let Ok(Ok(count @ 1..)) = tokio::time::timeout(Duration::from_millis(800), stream.read(&mut buffer)).await
        {
            answer.extend_from_slice(&buffer[..count]);
        }
        String::from_utf8_lossy(&answer).into_owned()
    }
}

pub async fn key(control: &Control, role: Role, tenant: Option<&str>) -> String {
    let tenant = tenant.map(|tenant| TenantId::new(tenant).unwrap());
    let wanted = KeyWanted { role, tenant, label: "test".to_owned(), expires_at: None, rate: None };
    control.create_key(&Actor::host("test"), wanted).await.expect("a key").secret
}

/// An answer, read to its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    pub async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.expect("a body");
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Self { status, headers, body }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    /// Checks that it is a problem of this status and kind, in the one shape.
    #[track_caller]
    pub fn is(&self, status: u16, kind: &str) -> &Self {
        assert_eq!((self.status, self.body["kind"].as_str()), (status, Some(kind)), "{self:#?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        let fields: Vec<_> = self.body.as_object().expect("an object").keys().map(String::as_str).collect();
        let shape = ["type", "title", "status", "detail", "kind", "message", "details", "retryable", "request_id"];
        assert_eq!(fields, shape);
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["request_id"], self.header("x-request-id"));
        if matches!(status, 429 | 503) {
            let seconds: u64 = self.header("retry-after").parse().expect("Retry-After is a number");
            assert!(seconds >= 1);
        }
        self
    }

    /// All that a caller could learn from it, but for its own request's id and the lengths that follow from that.
    pub fn learnt(&self) -> (u16, Vec<(String, String)>, Value) {
        let mut body = self.body.clone();
        if let Some(fields) = body.as_object_mut() {
            fields.remove("request_id");
        }
        let own = ["x-request-id", "date"];
        let mut headers: Vec<_> =
            self.headers.iter().map(|(name, value)| (name.to_string(), format!("{value:?}"))).collect();
        headers.retain(|(name, _)| !own.contains(&name.as_str()));
        headers.sort();
        (self.status, headers, body)
    }
}

/// A script with one tool that answers with `says`.
pub fn script(name: &str, version: &str, says: &str) -> String {
    format!(
        r#"const PLUGIN = #{{
    name: "{name}", version: "{version}", description: "Says something",
    config_schema: #{{ type: "object", properties: #{{
        tone: #{{ type: "string", enum: ["loud", "soft"] }}, token: #{{ type: "string", writeOnly: true }},
    }}, additionalProperties: false }},
    tools: #{{ {name}: #{{ description: "Says it", parameters: #{{ type: "object", properties: #{{}}, additionalProperties: false }} }} }},
}};
fn {name}(args) {{ "{says}" }}
"#
    )
}

/// A native plugin for everybody, with a tool and routes.
pub fn shop() -> NativePlugin {
    let echo = tool("echo", "Says it again", async |args: Echo, _: ToolContext| Ok::<_, ToolError>(args.text));
    let order = Route::new(RouteMethod::Get, "/orders/{id}", "One order", async |asked: RouteRequest, _: RouteContext| {
        Ok(RouteResponse::ok(json!({ "id": asked.params["id"], "tenant": asked.tenant, "user": asked.user })))
    })
    .query(json!({ "type": "object", "properties": { "full": { "type": "string", "enum": ["yes", "no"] } }, "additionalProperties": false }))
    .response(json!({ "type": "object", "properties": { "id": { "$ref": "#/$defs/id" } }, "required": ["id"], "$defs": { "id": { "type": "string" } } }));
    let place = Route::new(RouteMethod::Post, "/orders", "Orders", async |asked: RouteRequest, _: RouteContext| {
        if asked.body["count"] == 13 {
            return Err(ToolError::new(toolbay_api::ErrorKind::Conflict, "there are no thirteen of it"));
        }
        Ok(RouteResponse { status: 201, body: asked.body })
    })
    .request(json!({ "type": "object", "properties": { "count": { "type": "integer" } }, "required": ["count"], "additionalProperties": false }));
    let broken =
        Route::new(RouteMethod::Get, "/broken", "Breaks down", async |asked: RouteRequest, _: RouteContext| {
            assert!(asked.params.contains_key("nothing"), "the code of a route that panics");
            Ok(RouteResponse::empty())
        });
    NativePlugin::new("shop", "1.0.0", "A shop").unwrap().tool(echo).route(order).route(place).route(broken)
}
