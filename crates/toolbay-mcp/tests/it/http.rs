//! Streamable HTTP: tenants by address, who is let in, bounds, and the end.

use std::{net::SocketAddr, time::Duration};

use rmcp::{
    ServiceExt,
    service::ClientServiceExt,
    transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};
use toolbay_mcp::{HttpOptions, McpError, check_loopback, http_router, serve_http};
use toolbay_runtime::Toolbay;

use crate::support::{Client, Slow, call, discover, give_secret, names, refused, text, toolbay, with_cryptography};

/// A server of the tenants `acme` and `globex`, with `acme` at `/mcp`.
struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<Result<(), McpError>>,
}

impl Server {
    async fn start(toolbay: &Toolbay, options: HttpOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let known = toolbay.clone();
        let tenants = move |name: &str| ["acme", "globex"].contains(&name).then(|| known.session(name).unwrap());
        let router = http_router(toolbay.session("acme").unwrap(), tenants, options);
        let ended = tokio::spawn(serve_http(listener, router, async {
            let _ = stopped.await;
        }));
        Self { address, stop: Some(stop), ended }
    }

    fn transport(
        &self,
        path: &str,
    ) -> StreamableHttpClientTransport<impl rmcp::transport::streamable_http_client::StreamableHttpClient> {
        with_cryptography();
        let config = StreamableHttpClientTransportConfig::with_uri(format!("http://{}{path}", self.address));
        StreamableHttpClientTransport::from_config(config)
    }

    async fn older_client(&self, path: &str) -> Client {
        ().serve(self.transport(path)).await.unwrap()
    }

    async fn newer_client(&self, path: &str) -> Client {
        ().serve_with_lifecycle(self.transport(path), discover()).await.unwrap()
    }

    /// Sends one request by hand and gives the whole answer, head and body.
    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
        let mut answer = String::new();
        self.open(method, path, headers, body).await.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Sends one request by hand. A header that is given replaces the one that a client would send.
    async fn open(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> TcpStream {
        let host = self.address.to_string();
        let length = body.len().to_string();
        let usual = [
            ("host", host.as_str()),
            ("connection", "close"),
            ("accept", "application/json, text/event-stream"),
            ("content-type", "application/json"),
            ("content-length", length.as_str()),
        ];
        let mut request = format!("{method} {path} HTTP/1.1\r\n");
        let kept = usual.iter().filter(|(name, _)| headers.iter().all(|(given, _)| given != name));
        for (name, value) in headers.iter().chain(kept) {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(format!("{request}\r\n{body}").as_bytes()).await.unwrap();
        stream
    }

    /// Begins a session by hand and gives its id.
    async fn begin_session(&self, path: &str) -> String {
        let answer = self.send("POST", path, &[], &initialize()).await;
        assert_eq!(status(&answer), 200, "{answer}");
        let id = answer.lines().find_map(|line| line.strip_prefix("mcp-session-id: "));
        id.unwrap().to_owned()
    }
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_else(|| panic!("no status in {answer:?}"))
}

fn initialize() -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}})
    .to_string()
}

fn call_message(tool: &str, arguments: Value) -> String {
    let params = json!({"name": tool, "arguments": arguments});
    json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}).to_string()
}

const NEWER_HEADERS: [(&str, &str); 3] =
    [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "slow.wait")];

/// A call of `slow.wait` as 2026-07-28 has it, to be sent with [`NEWER_HEADERS`].
fn newer_call() -> String {
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {}});
    let params = json!({"name": "slow.wait", "arguments": {}, "_meta": meta});
    json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string()
}

#[tokio::test]
async fn clients_of_both_revisions_list_and_call() {
    let server = Server::start(&toolbay().await, HttpOptions::default()).await;
    for client in [server.older_client("/mcp").await, server.newer_client("/mcp").await] {
        let tools = client.list_all_tools().await.unwrap();
        assert_eq!(names(&tools), ["calculator.add", "calculator.divide", "calculator.greet"]);
        let sum = call(&client, "calculator.add", json!({"a": 2, "b": 3})).await.unwrap();
        assert_eq!(sum.structured_content, Some(json!({"sum": 5.0})));
        let error = call(&client, "calculator.divide", json!({"a": 1, "b": 0})).await.unwrap();
        assert_eq!(error.is_error, Some(true));
        assert!(text(&error).starts_with("Script: division by zero"));
        assert!(refused(&client, "nothing.here", json!({})).await.message.starts_with("Unknown tool"));
    }
}

#[tokio::test]
async fn each_tenant_has_its_own_address_and_tools() {
    let toolbay = toolbay().await;
    give_secret(&toolbay, "acme").await;
    let server = Server::start(&toolbay, HttpOptions::default()).await;
    for path in ["/mcp", "/tenants/acme/mcp"] {
        let acme = server.newer_client(path).await;
        assert_eq!(text(&call(&acme, "secret.tell", json!({})).await.unwrap()), "42");
    }
    for globex in [server.newer_client("/tenants/globex/mcp").await, server.older_client("/tenants/globex/mcp").await] {
        assert!(!names(&globex.list_all_tools().await.unwrap()).contains(&"secret.tell"));
        refused(&globex, "secret.tell", json!({})).await;
    }
}

#[tokio::test]
async fn a_session_is_worth_nothing_at_another_tenants_address() {
    let toolbay = toolbay().await;
    give_secret(&toolbay, "acme").await;
    let server = Server::start(&toolbay, HttpOptions::default()).await;
    let session = server.begin_session("/tenants/acme/mcp").await;
    let with_session = [("mcp-session-id", session.as_str())];
    let call = call_message("secret.tell", json!({}));
    let own = server.send("POST", "/tenants/acme/mcp", &with_session, &call).await;
    assert!(own.contains(r#""text":"42""#), "{own}");
    for path in ["/tenants/globex/mcp", "/mcp"] {
        let other = server.send("POST", path, &with_session, &call).await;
        assert_eq!(status(&other), 404, "{other}");
    }
}

#[tokio::test]
async fn an_unknown_tenant_is_answered_like_a_path_that_leads_nowhere() {
    let server = Server::start(&toolbay().await, HttpOptions::default()).await;
    let bare = |answer: String| -> String {
        let lines = answer.lines().filter(|line| !line.starts_with("date:")).map(|line| format!("{line}\n"));
        lines.collect()
    };
    let nowhere = bare(server.send("POST", "/no/such/path", &[], &initialize()).await);
    assert_eq!(status(&nowhere), 404);
    for tenant in ["initech", "..", "%2e%2e", "acme%2f"] {
        let unknown = bare(server.send("POST", &format!("/tenants/{tenant}/mcp"), &[], &initialize()).await);
        assert_eq!(unknown, nowhere);
    }
}

#[tokio::test]
async fn a_request_for_another_host_is_refused_before_it_learns_of_any_tenant() {
    let server = Server::start(&toolbay().await, HttpOptions::default()).await;
    let mut answers = Vec::new();
    for path in ["/mcp", "/tenants/acme/mcp", "/tenants/initech/mcp"] {
        for host in ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example", "a@b@c"] {
            let answer = server.send("POST", path, &[("host", host)], &initialize()).await;
            assert_eq!(status(&answer), 403, "{host}: {answer}");
            answers.push(answer.lines().filter(|line| !line.starts_with("date:")).collect::<String>());
        }
    }
    answers.dedup();
    assert_eq!(answers.len(), 1, "{answers:?}");
    for host in ["localhost", "LOCALHOST:1234", "[::1]:80"] {
        let answer = server.send("POST", "/mcp", &[("host", host)], &initialize()).await;
        assert_eq!(status(&answer), 200, "{host}: {answer}");
    }
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused() {
    let server = Server::start(&toolbay().await, HttpOptions::default()).await;
    for origin in ["http://evil.example", "null", "https://localhost.evil.example", "file://localhost", "nonsense"] {
        let answer = server.send("POST", "/mcp", &[("origin", origin)], &initialize()).await;
        assert_eq!(status(&answer), 403, "{origin}: {answer}");
    }
    for origin in ["http://localhost:6274", "http://127.0.0.1:3000", "http://[::1]:3000"] {
        let answer = server.send("POST", "/mcp", &[("origin", origin)], &initialize()).await;
        assert_eq!(status(&answer), 200, "{origin}: {answer}");
    }
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused() {
    let options = HttpOptions { max_body_bytes: 1000, ..HttpOptions::default() };
    let server = Server::start(&toolbay().await, options).await;
    let session = server.begin_session("/mcp").await;
    let message = call_message("calculator.greet", json!({"padding": "x".repeat(2000)}));
    let answer = server.send("POST", "/mcp", &[("mcp-session-id", &session)], &message).await;
    assert_eq!(status(&answer), 413, "{answer}");
}

#[tokio::test]
async fn sessions_are_bounded_and_an_ended_one_makes_room() {
    let options = HttpOptions { max_sessions: 2, ..HttpOptions::default() };
    let server = Server::start(&toolbay().await, options).await;
    let first = server.begin_session("/mcp").await;
    server.begin_session("/mcp").await;
    let refused = server.send("POST", "/mcp", &[], &initialize()).await;
    assert_eq!(status(&refused), 503, "{refused}");
    assert!(refused.contains("retry-after: "), "{refused}");

    // Those that are connected, those of other tenants and those that need no session go on.
    let call_greet = call_message("calculator.greet", json!({}));
    let answer = server.send("POST", "/mcp", &[("mcp-session-id", &first)], &call_greet).await;
    assert!(answer.contains("Hello!"), "{answer}");
    server.begin_session("/tenants/globex/mcp").await;
    let newer = server.newer_client("/mcp").await;
    assert_eq!(text(&call(&newer, "calculator.greet", json!({})).await.unwrap()), "Hello!");

    let ended = server.send("DELETE", "/mcp", &[("mcp-session-id", &first)], "").await;
    assert_eq!(status(&ended), 204, "{ended}");
    server.begin_session("/mcp").await;
}

#[tokio::test]
async fn an_idle_session_ends_and_makes_room() {
    let options = HttpOptions { max_sessions: 1, session_idle: Duration::from_millis(30), ..HttpOptions::default() };
    let server = Server::start(&toolbay().await, options).await;
    let session = server.begin_session("/mcp").await;
    // The stream of notifications ends with its session.
    server.send("GET", "/mcp", &[("mcp-session-id", &session), ("accept", "text/event-stream")], "").await;
    while status(&server.send("POST", "/mcp", &[], &initialize()).await) == 503 {
        tokio::task::yield_now().await;
    }
    let call = call_message("calculator.greet", json!({}));
    let answer = server.send("POST", "/mcp", &[("mcp-session-id", &session)], &call).await;
    assert_eq!(status(&answer), 404, "{answer}");
}

#[tokio::test]
async fn a_client_of_2026_that_hangs_up_cancels_its_call() {
    let toolbay = toolbay().await;
    let slow = Slow::register(&toolbay).await;
    let server = Server::start(&toolbay, HttpOptions::default()).await;
    let connection = server.open("POST", "/mcp", &NEWER_HEADERS, &newer_call()).await;
    slow.started.notified().await;
    drop(connection);
    slow.over.notified().await;
}

#[tokio::test]
async fn at_the_end_no_connection_is_taken_and_what_runs_too_long_is_cancelled() {
    let toolbay = toolbay().await;
    let slow = Slow::register(&toolbay).await;
    let options = HttpOptions { drain: Duration::from_millis(20), ..HttpOptions::default() };
    let mut server = Server::start(&toolbay, options).await;
    let session = server.begin_session("/mcp").await;
    let message = call_message("slow.wait", json!({}));
    let _connection = server.open("POST", "/mcp", &[("mcp-session-id", &session)], &message).await;
    slow.started.notified().await;
    server.stop.take().unwrap().send(()).unwrap();
    slow.over.notified().await;
    server.ended.await.unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn at_the_end_a_running_request_still_gets_its_answer() {
    let toolbay = toolbay().await;
    let slow = Slow::register(&toolbay).await;
    let mut server = Server::start(&toolbay, HttpOptions::default()).await;
    let session = server.begin_session("/mcp").await;
    let message = call_message("slow.wait", json!({}));
    let mut older = server.open("POST", "/mcp", &[("mcp-session-id", &session)], &message).await;
    slow.started.notified().await;
    let mut newer = server.open("POST", "/mcp", &NEWER_HEADERS, &newer_call()).await;
    slow.started.notified().await;

    server.stop.take().unwrap().send(()).unwrap();
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    slow.release.notify_waiters();
    for connection in [&mut older, &mut newer] {
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains(r#""text":"done""#), "{answer}");
    }
    server.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn at_the_end_a_waiting_stream_does_not_hold_the_server_up() {
    let mut server = Server::start(&toolbay().await, HttpOptions::default()).await;
    let client = server.older_client("/mcp").await;
    server.stop.take().unwrap().send(()).unwrap();
    tokio::time::timeout(HttpOptions::default().drain, server.ended).await.unwrap().unwrap().unwrap();
    drop(client);
}

#[tokio::test]
async fn an_address_that_other_machines_can_reach_is_refused() {
    for refused in ["0.0.0.0:80", "192.168.1.2:80", "[::]:80", "[2001:db8::1]:80", "[::ffff:10.0.0.1]:80"] {
        let error = check_loopback(refused.parse().unwrap()).unwrap_err();
        assert!(matches!(error, McpError::NotLoopback(_)));
        assert!(error.to_string().contains("127.0.0.1"), "{error}");
    }
    for allowed in ["127.0.0.1:80", "[::1]:80", "[::ffff:127.0.0.1]:80"] {
        check_loopback(allowed.parse().unwrap()).unwrap();
    }
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let router = http_router(toolbay().await.session("acme").unwrap(), |_| None, HttpOptions::default());
    let error = serve_http(listener, router, std::future::pending()).await.unwrap_err();
    assert!(matches!(error, McpError::NotLoopback(_)));
}
