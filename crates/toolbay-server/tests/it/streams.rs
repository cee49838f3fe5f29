//! Server-sent events.

use std::time::Duration;

use futures::StreamExt;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use toolbay_api::Scope;
use toolbay_server::ServerOptions;

use crate::support::{Answer, Host};

/// A reader of a stream.
struct Reader {
    bytes: std::pin::Pin<Box<dyn futures::Stream<Item = reqwest::Result<bytes::Bytes>> + Send>>,
    text: String,
}

impl Reader {
    async fn open(host: &Host, key: &str, path: &str) -> Self {
        let response = host.ask(key, Method::GET, path).send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut reader = Self { bytes: Box::pin(response.bytes_stream()), text: String::new() };
        assert_eq!(reader.block().await.as_deref(), Some(": hello"));
        reader
    }

    /// What stands up to the next empty line; `None` at the end.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                return Some(block);
            }
            let next = tokio::time::timeout(Duration::from_secs(10), self.bytes.next()).await.expect("in time");
            match next {
                Some(Ok(bytes)) => self.text.push_str(&String::from_utf8_lossy(&bytes)),
                _ => return None,
            }
        }
    }

    /// The next event's name and data.
    async fn event(&mut self) -> Option<(String, Value)> {
        loop {
            let block = self.block().await?;
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            if let (Some(name), Some(data)) = (field("event: "), field("data: ")) {
                return Some((name, serde_json::from_str(&data).expect("JSON")));
            }
        }
    }
}

#[tokio::test]
async fn a_tenant_hears_its_own_events_and_no_others() {
    let host = Host::start().await;
    let mut all = Reader::open(&host, &host.acme, "/api/v1/events").await;
    let mut orders = Reader::open(&host, &host.operator, "/api/v1/tenants/acme/events?name=order.*").await;
    let bay = host.control.toolbay();
    let tell =
        |tenant: &str, name: &str| bay.publish(&Scope::tenant(tenant).unwrap(), name, json!({ "of": tenant })).unwrap();
    tell("rival", "order.placed");
    tell("acme", "stock.low");
    tell("acme", "order.placed");
    for name in ["stock.low", "order.placed"] {
        let (kind, event) = all.event().await.expect("an event");
        assert_eq!(
            (kind.as_str(), &event["name"], &event["payload"]),
            ("event", &json!(name), &json!({ "of": "acme" }))
        );
    }
    assert_eq!(orders.event().await.expect("an event").1["name"], "order.placed");
    host.get(&host.acme, "/api/v1/tenants/rival/events").await.is(404, "NotFound");
    host.get(&host.acme, "/api/v1/global/events").await.is(403, "PermissionDenied");
    host.get(&host.acme, "/api/v1/events?name=%5B").await.is(400, "InvalidArguments");
    host.stop().await.unwrap();
}

#[tokio::test]
async fn runs_are_watched_as_they_happen_by_their_tenant_alone() {
    let host = Host::start().await;
    let mut acme = Reader::open(&host, &host.acme, "/api/v1/runs/live").await;
    let mut rival = Reader::open(&host, &host.rival, "/api/v1/runs/live").await;
    let call = async |key: &str, text: &str| {
        host.post(key, "/api/v1/tools/shop.echo/call", json!({ "arguments": { "text": text } })).await
    };
    call(&host.acme, "ours").await;
    call(&host.rival, "theirs").await;
    let mut seen = Vec::new();
    while seen.last() != Some(&json!("tool_call_finished")) {
        let (name, event) = acme.event().await.expect("an event");
        assert_eq!(name, "run");
        assert!(event["run"].is_string() && !event.to_string().contains("theirs"), "{event}");
        seen.push(event["event"].clone());
    }
    assert_eq!(seen[0], "tool_looked_up");
    let (_, first) = rival.event().await.expect("an event");
    assert!(!first.to_string().contains("ours"));
    host.stop().await.unwrap();
}

#[tokio::test]
async fn a_reader_that_falls_behind_is_told_so_and_sent_away() {
    let host = Host::start().await;
    let mut slow = TcpStream::connect(host.address).await.unwrap();
    let head = format!("GET /api/v1/events HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\r\n", host.acme);
    slow.write_all(head.as_bytes()).await.unwrap();
    // Until it is heard.
    let mut buffer = vec![0; 64 << 10];
    let mut text = String::new();
    while !text.contains("hello") {
        let count = tokio::io::AsyncReadExt::read(&mut slow, &mut buffer).await.unwrap();
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    let payload = json!({ "text": "x".repeat(32 << 10) });
    for _ in 0..1_500 {
        host.control.toolbay().publish(&Scope::tenant("acme").unwrap(), "noise", payload.clone()).unwrap();
        tokio::task::yield_now().await;
    }
    let mut text = String::new();
    while let Ok(Ok(count @ 1..)) =
        tokio::time::timeout(Duration::from_secs(5), tokio::io::AsyncReadExt::read(&mut slow, &mut buffer)).await
    {
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        if text.contains("event: lagged") {
            break;
        }
    }
    assert!(text.contains("event: lagged\ndata: {}"), "{} bytes without it", text.len());
    host.stop().await.unwrap();
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut_off() {
    let options = ServerOptions {
        max_streams: 1,
        write_timeout: Duration::from_millis(300),
        heartbeat: Duration::from_secs(60),
        ..ServerOptions::default()
    };
    let host = Host::with(options).await;
    let mut deaf = TcpStream::connect(host.address).await.unwrap();
    let head = format!("GET /api/v1/events HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\r\n", host.acme);
    deaf.write_all(head.as_bytes()).await.unwrap();
    let (mut text, mut buffer) = (String::new(), [0; 512]);
    while !text.contains("hello") {
        let count = tokio::io::AsyncReadExt::read(&mut deaf, &mut buffer).await.unwrap();
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    let theirs = async || Answer::of(host.ask(&host.rival, Method::HEAD, "/api/v1/events")).await.status;
    assert_eq!(theirs().await, 503, "the only place is taken");
    let open = async {
        let payload = json!({ "text": "x".repeat(32 << 10) });
        while theirs().await != 200 {
            for _ in 0..64 {
                host.control.toolbay().publish(&Scope::tenant("acme").unwrap(), "noise", payload.clone()).unwrap();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(15), open).await.expect("its place is given back");
    host.stop().await.unwrap();
}

#[tokio::test]
async fn a_revoked_key_reads_no_further() {
    let host = Host::with(ServerOptions { heartbeat: Duration::from_millis(50), ..ServerOptions::default() }).await;
    let made = host.post(&host.admin, "/api/v1/keys", json!({ "role": "tenant", "tenant": "acme" })).await;
    let key = made.body["secret"].as_str().unwrap().to_owned();
    let mut reader = Reader::open(&host, &key, "/api/v1/events").await;
    host.delete(&host.admin, &format!("/api/v1/keys/{}", made.body["id"].as_str().unwrap())).await;
    host.control.toolbay().publish(&Scope::tenant("acme").unwrap(), "late.news", json!({})).unwrap();
    assert_eq!(reader.event().await.expect("a last event").0, "end");
    assert!(reader.block().await.is_none());
    host.stop().await.unwrap();
}

#[tokio::test]
async fn streams_are_counted_and_give_their_places_back() {
    let host = Host::with(ServerOptions { max_streams_per_key: 2, max_streams: 3, ..ServerOptions::default() }).await;
    let one = Reader::open(&host, &host.acme, "/api/v1/events").await;
    let _two = Reader::open(&host, &host.acme, "/api/v1/runs/live").await;
    host.get(&host.acme, "/api/v1/events").await.is(429, "RateLimited");
    let _three = Reader::open(&host, &host.rival, "/api/v1/events").await;
    host.get(&host.rival, "/api/v1/events").await.is(503, "Unavailable");
    drop(one);
    // The server notices when it next writes.
    let told = async || {
        host.control.toolbay().publish(&Scope::tenant("acme").unwrap(), "ping", json!({})).unwrap();
        Answer::of(host.ask(&host.acme, Method::HEAD, "/api/v1/events")).await.status
    };
    let again = async {
        while told().await != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), again).await.expect("a place comes back");
    host.stop().await.unwrap();
}

#[tokio::test]
async fn the_end_of_the_server_ends_streams_and_lets_requests_finish() {
    let host = Host::start().await;
    let mut reader = Reader::open(&host, &host.acme, "/api/v1/events").await;
    let stopped = tokio::time::timeout(Duration::from_secs(5), host.stop());
    let (stopped, last) = tokio::join!(stopped, reader.event());
    stopped.expect("it does not wait for streams").unwrap();
    assert_eq!(last.expect("a last event").0, "end");
}
