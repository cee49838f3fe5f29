//! Bounds: slow clients, many requests, and the end.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
};
use toolbay_api::{Scope, ToolContext, plugin::NativePlugin, tool};
use toolbay_server::ServerOptions;

use crate::support::Host;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Nothing {}

/// A plugin whose tool waits until it is let go.
async fn waiter(host: &Host) -> (std::sync::Arc<Notify>, std::sync::Arc<Notify>) {
    let (begun, go) = (std::sync::Arc::new(Notify::new()), std::sync::Arc::new(Notify::new()));
    let (told, wait) = (std::sync::Arc::clone(&begun), std::sync::Arc::clone(&go));
    let tool = tool("waiter", "Waits", move |_: Nothing, _: ToolContext| {
        let (told, wait) = (std::sync::Arc::clone(&told), std::sync::Arc::clone(&wait));
        async move {
            told.notify_one();
            wait.notified().await;
            Ok::<_, toolbay_api::ToolError>("done")
        }
    });
    let plugin = NativePlugin::new("waiter", "1.0.0", "Waits").unwrap().tool(tool);
    host.control.toolbay().register(Scope::Global, plugin).await.expect("waiter is registered");
    (begun, go)
}

async fn rest(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut text)).await;
    read.expect("the server ends it").ok();
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn a_slow_head_is_cut_off_and_a_slow_body_is_answered() {
    let short = Duration::from_millis(200);
    let host =
        Host::with(ServerOptions { header_timeout: short, body_timeout: short, ..ServerOptions::default() }).await;
    let mut head = TcpStream::connect(host.address).await.unwrap();
    head.write_all(b"GET /healthz HTTP/1.1\r\nhost: a\r\nx-slow: ").await.unwrap();
    assert!(!rest(&mut head).await.contains("200 OK"));
    let mut idle = TcpStream::connect(host.address).await.unwrap();
    assert_eq!(rest(&mut idle).await, "");
    let mut body = TcpStream::connect(host.address).await.unwrap();
    let request = format!(
        "POST /api/v1/tenants HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: 20\r\n\r\n{{\"name\"",
        host.operator
    );
    body.write_all(request.as_bytes()).await.unwrap();
    let answer = rest(&mut body).await;
    assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"kind\":\"TimedOut\""), "{answer}");
    host.stop().await.unwrap();
}

#[tokio::test]
async fn a_body_without_a_length_is_bounded_too() {
    let host = Host::with(ServerOptions { max_body_bytes: 1_000, ..ServerOptions::default() }).await;
    let chunk = format!("400\r\n{}\r\n", "x".repeat(0x400));
    let request = format!(
        "POST /api/v1/tenants HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n{chunk}{chunk}",
        host.operator
    );
    let answer = host.raw(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("\"kind\":\"LimitExceeded\""), "{answer}");
    host.stop().await.unwrap();
}

#[tokio::test]
async fn requests_at_once_are_bounded_for_a_key_and_for_all_and_probes_pass() {
    let options = ServerOptions { max_requests_per_key: 1, max_requests: 2, ..ServerOptions::default() };
    let host = Host::with(options).await;
    let (begun, go) = waiter(&host).await;
    let call = |key: String| host.post_owned(key, "/api/v1/tools/waiter/call", json!({}));
    let one = tokio::spawn(call(host.acme.clone()));
    begun.notified().await;
    host.get(&host.acme, "/api/v1/whoami").await.is(429, "RateLimited");
    let two = tokio::spawn(call(host.rival.clone()));
    begun.notified().await;
    host.get(&host.admin, "/api/v1/whoami").await.is(503, "Unavailable");
    assert_eq!(host.get(&host.admin, "/healthz").await.status, 200);
    go.notify_waiters();
    for answer in [one.await.unwrap(), two.await.unwrap()] {
        assert_eq!(answer.body["data"], "done");
    }
    assert_eq!(host.get(&host.acme, "/api/v1/whoami").await.status, 200);
    host.stop().await.unwrap();
}

#[tokio::test]
async fn a_shutdown_lets_running_requests_end_and_takes_no_new_ones() {
    let mut host = Host::start().await;
    let (begun, go) = waiter(&host).await;
    let call = tokio::spawn(host.post_owned(host.acme.clone(), "/api/v1/tools/waiter/call", json!({})));
    begun.notified().await;
    host.begin_to_stop();
    let refused = async {
        while TcpStream::connect(host.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), refused).await.expect("the listener closes");
    go.notify_waiters();
    assert_eq!(call.await.unwrap().body["data"], "done");
    tokio::time::timeout(Duration::from_secs(5), host.stopped()).await.expect("it ends").unwrap();
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered() {
    let host =
        Host::with(ServerOptions { request_timeout: Duration::from_millis(100), ..ServerOptions::default() }).await;
    let (_begun, _go) = waiter(&host).await;
    host.post(&host.acme, "/api/v1/tools/waiter/call", json!({})).await.is(504, "TimedOut");
    host.stop().await.unwrap();
}
