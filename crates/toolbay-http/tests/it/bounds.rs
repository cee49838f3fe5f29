//! Servers that send too much, too slowly or for ever, and plugins that ask too much at once.

use std::{
    io::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use tokio::sync::Notify;
use toolbay_api::{ErrorKind, PermissionSet, TenantId, async_trait};
use toolbay_http::{HttpCall, HttpClient, HttpLimits, HttpRequest, Resolver};

use crate::support::{Server, builder, client, error, kind, ok, send, send_within, with_head};

const NO_TIME: Duration = Duration::ZERO;

fn small() -> HttpClient {
    let limits = HttpLimits {
        max_url_bytes: 100,
        max_request_header_bytes: 50,
        max_request_bytes: 100,
        max_response_headers: 10,
        max_response_header_bytes: 500,
        max_response_bytes: 1_000,
        ..HttpLimits::default()
    };
    builder().limits(limits).build().unwrap()
}

#[tokio::test]
async fn a_request_over_a_bound_is_not_sent() {
    let server = Server::answering(|_| ok("")).await;
    let url = server.url("a.test", "/");
    let long = "x".repeat(101);
    for (member, request) in [
        ("url", json!({"url": format!("{url}{long}")})),
        ("url", json!({"url": url, "query": {"q": long}})),
        ("headers", json!({"url": url, "headers": {"x": long}})),
        ("body", json!({"url": url, "method": "POST", "body": long})),
    ] {
        let result = send(&small(), request, &["*"]).await;
        assert_eq!(kind(&result), Some(ErrorKind::InvalidArguments));
        let error = result.unwrap_err();
        assert!(error.message.starts_with(&format!("the HTTP request's `{member}` has ")), "{error}");
        assert_eq!(error.details["limit"], format!("http_request_{member}_bytes"));
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_body_at_the_bound_passes_and_one_byte_more_does_not() {
    let chunked = |bytes: usize| {
        let mut answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..bytes {
            answer.extend_from_slice(b"1\r\nx\r\n");
        }
        answer.extend_from_slice(b"0\r\n\r\n");
        answer
    };
    let to_the_end = |bytes: usize| format!("HTTP/1.0 200 OK\r\n\r\n{}", "x".repeat(bytes)).into_bytes();
    for bytes in [1_000, 1_001] {
        for (form, answer) in [("announced", ok("x".repeat(bytes))), ("chunked", chunked(bytes))] {
            let server = Server::answering(move |_| answer.clone()).await;
            let result = send(&small(), json!({"url": server.url("a.test", "/")}), &["*"]).await;
            if bytes == 1_000 {
                assert_eq!(result.unwrap().body.len(), 1_000, "{form}");
            } else {
                let error = result.unwrap_err();
                assert_eq!((error.kind, error.retryable), (ErrorKind::Unavailable, false), "{form}");
                assert_eq!(error.details, json!({"limit": "http_response_bytes", "allowed": 1_000}), "{form}");
            }
        }
    }
    let answer = to_the_end(1_001);
    let server = Server::answering(move |_| answer.clone()).await;
    let result = send(&small(), json!({"url": server.url("a.test", "/")}), &["*"]).await;
    let text = "answered with more than 1000 bytes, which is the limit; ask it for less at once";
    assert_eq!(error(result), format!("Unavailable: `a.test:{}` {text}", server.port));
    server.is_left().await;
}

#[tokio::test]
async fn a_body_that_is_announced_as_too_large_is_not_waited_for() {
    let server = Server::answering(|_| b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n".to_vec()).await;
    let result = send(&small(), json!({"url": server.url("a.test", "/")}), &["*"]).await;
    assert_eq!(result.unwrap_err().details["limit"], "http_response_bytes");
    server.is_left().await;
}

#[tokio::test]
async fn a_call_can_lower_the_bound_of_the_body_and_not_raise_it() {
    let server = Server::answering(|_| ok("x".repeat(600))).await;
    let tenant = TenantId::default();
    for (max_response_bytes, passes) in [(599, false), (600, true), (usize::MAX, true)] {
        let deadline = Instant::now() + Duration::from_secs(20);
        let call = HttpCall { tenant: &tenant, allow: &|_: &str| true, deadline, max_response_bytes };
        let request = HttpRequest::new("GET", &server.url("a.test", "/")).unwrap();
        assert_eq!(small().send(request, call).await.is_ok(), passes, "{max_response_bytes}");
    }
}

#[tokio::test]
async fn an_endless_body_ends_at_the_bound_and_the_connection_with_it() {
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let server = Server::endless(head, &format!("1000\r\n{}\r\n", "x".repeat(0x1000)), NO_TIME).await;
    let result = send(&client(), json!({"url": server.url("a.test", "/")}), &["*"]).await;
    assert_eq!(result.unwrap_err().details["limit"], "http_response_bytes");
    server.is_left().await;
}

#[tokio::test]
async fn a_compressed_bomb_is_not_unpacked() {
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    bomb.write_all(&vec![0; 50 << 20]).unwrap();
    let bomb = bomb.finish().unwrap();
    let bytes = bomb.len();
    assert!(bytes < 100_000);
    let server = Server::answering(move |_| with_head("200 OK", "content-encoding: gzip\r\n", &bomb)).await;
    let answer = send(&client(), json!({"url": server.url("a.test", "/")}), &["*"]).await.unwrap();
    assert_eq!(answer.body.len(), bytes);
    assert!(answer.to_json()["body_base64"].as_str().unwrap().starts_with("H4sI"));
    assert!(server.requests()[0].contains("accept-encoding: identity\r\n"));
}

#[tokio::test]
async fn too_many_and_too_large_and_endless_headers_are_refused() {
    let many: String = (0..20).map(|n| format!("x-{n}: 1\r\n")).collect();
    let large = format!("x: {}\r\n", "x".repeat(600));
    for headers in [many, large] {
        let server = Server::answering(move |_| with_head("200 OK", &headers, "")).await;
        let result = send(&small(), json!({"url": server.url("a.test", "/")}), &["*"]).await;
        let text = "answered with more header fields than are read";
        assert_eq!(error(result), format!("Unavailable: `a.test:{}` {text}", server.port));
    }
    for (head, again) in [
        ("HTTP/1.1 200 OK\r\n", "x: 123456789012345678901234567890\r\n".repeat(100)),
        ("HTTP/1.1 200 OK\r\nx: ", "x".repeat(10_000)),
        ("HTTP/1.1 ", "9".repeat(10_000)),
    ] {
        let server = Server::endless(head, &again, NO_TIME).await;
        let result = send(&client(), json!({"url": server.url("a.test", "/")}), &["*"]).await;
        assert_eq!(kind(&result), Some(ErrorKind::Unavailable), "{head}");
        server.is_left().await;
    }
}

#[tokio::test]
async fn an_answer_that_is_no_http_is_an_error() {
    for answer in ["SSH-2.0-OpenSSH\r\n\r\n", "HTTP/1.1 2000 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nx y: 1\r\n\r\n", "\0\0\0"]
    {
        let server = Server::endless(answer, answer, NO_TIME).await;
        let result = send(&client(), json!({"url": server.url("a.test", "/")}), &["*"]).await;
        assert_eq!(kind(&result), Some(ErrorKind::Unavailable), "{answer:?}");
    }
    // Two lengths are how one message is made to look like two.
    let two = "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx";
    let server = Server::answering(move |_| two.as_bytes().to_vec()).await;
    let result = send(&client(), json!({"url": server.url("a.test", "/")}), &["*"]).await;
    assert_eq!(kind(&result), Some(ErrorKind::Unavailable));
}

#[tokio::test]
async fn a_server_that_drips_is_left_at_the_deadline() {
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let often = Duration::from_millis(20);
    for (head, again) in [
        (chunked, "1\r\nx\r\n"),
        ("HTTP/1.1 200 OK\r\n", "x: 1\r\n"),
        ("", "HTTP/1.1 103 Early Hints\r\n\r\n"),
        ("", ""),
    ] {
        let server = Server::endless(head, again, often).await;
        let begun = Instant::now();
        let request = json!({"url": server.url("a.test", "/")});
        let result = send_within(&client(), request, &["*"], Duration::from_millis(300)).await;
        let text = "was not answered in time; ask for less, or try later";
        let host = format!("a.test:{}", server.port);
        assert_eq!(error(result), format!("TimedOut (again): the request to `{host}` {text}"), "{head:?} {again:?}");
        let took = begun.elapsed();
        assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(10), "{took:?}");
        if !again.is_empty() {
            server.is_left().await;
        }
    }
}

#[tokio::test]
async fn a_flood_of_interim_answers_ends_at_the_deadline() {
    let server = Server::endless("", &"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100), NO_TIME).await;
    let request = json!({"url": server.url("a.test", "/")});
    let result = send_within(&client(), request, &["*"], Duration::from_millis(300)).await;
    assert_eq!(kind(&result), Some(ErrorKind::TimedOut));
    server.is_left().await;
}

#[tokio::test]
async fn the_requests_own_timeout_can_only_come_earlier() {
    let server = Server::silent().await;
    let request = |milliseconds: u64| json!({"url": server.url("a.test", "/"), "timeout_ms": milliseconds});
    for (own, call) in [(50, Duration::from_secs(20)), (u64::MAX, Duration::from_millis(50)), (20_000, NO_TIME)] {
        let begun = Instant::now();
        let result = send_within(&client(), request(own), &["*"], call).await;
        assert_eq!(kind(&result), Some(ErrorKind::TimedOut));
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
    assert_eq!(server.connections(), 2, "past the deadline nothing is begun");
}

#[tokio::test]
async fn giving_up_closes_the_connection() {
    let dripping = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n1234";
    for server in [Server::silent().await, Server::answering(move |_| dripping.as_bytes().to_vec()).await] {
        let url = server.url("a.test", "/");
        let request = tokio::spawn(async move { send(&client(), json!({"url": url}), &["*"]).await });
        server.asked.notified().await;
        request.abort();
        server.is_left().await;
    }
}

#[tokio::test]
async fn requests_at_once_are_bounded_for_a_tenant_and_for_all() {
    let limits = HttpLimits { max_in_flight: 3, max_in_flight_per_tenant: 2, ..HttpLimits::default() };
    let client = builder().limits(limits).build().unwrap();
    let server = Server::silent().await;
    let ask = |tenant: &'static str, time: Duration| {
        let (client, url) = (client.clone(), server.url("a.test", "/"));
        async move {
            let tenant = TenantId::new(tenant).unwrap();
            let deadline = Instant::now() + time;
            let call = HttpCall { tenant: &tenant, allow: &|_: &str| true, deadline, max_response_bytes: 1 };
            client.send(HttpRequest::new("GET", &url).unwrap(), call).await
        }
    };
    let long = Duration::from_secs(60);
    let mut running = Vec::new();
    for tenant in ["acme", "acme", "other"] {
        running.push(tokio::spawn(ask(tenant, long)));
        server.asked.notified().await;
    }
    let text = "there are already 2 requests at once of one tenant, which is the limit; try again in a moment";
    assert_eq!(error(ask("acme", long).await), format!("RateLimited (again): {text}"));
    let text = "there are already 3 requests at once of all tenants, which is the limit; try again in a moment";
    assert_eq!(error(ask("other", long).await), format!("Unavailable (again): {text}"));
    // A request that is given up gives its place back.
    let first = running.remove(0);
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    assert_eq!(kind(&ask("acme", Duration::from_millis(50)).await), Some(ErrorKind::TimedOut));
    assert_eq!(kind(&ask("acme", Duration::from_millis(50)).await), Some(ErrorKind::TimedOut));
    running.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn a_look_up_that_cannot_be_stopped_keeps_its_place() {
    struct Stuck(Arc<Notify>, Arc<Notify>);
    #[async_trait]
    impl Resolver for Stuck {
        async fn resolve(&self, _: &str) -> std::io::Result<Vec<std::net::IpAddr>> {
            self.0.notified().await;
            self.1.notify_one();
            Err(std::io::ErrorKind::TimedOut.into())
        }
    }
    let (go_on, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let limits = HttpLimits { max_in_flight_per_tenant: 1, ..HttpLimits::default() };
    let resolver = Stuck(Arc::clone(&go_on), Arc::clone(&ended));
    let client = builder().limits(limits).resolver(resolver).build().unwrap();
    let request = || json!({"url": "https://a.test/"});
    let soon = Duration::from_millis(50);
    assert_eq!(kind(&send_within(&client, request(), &["*"], soon).await), Some(ErrorKind::TimedOut));
    assert_eq!(kind(&send_within(&client, request(), &["*"], soon).await), Some(ErrorKind::RateLimited));
    go_on.notify_one();
    ended.notified().await;
    tokio::task::yield_now().await;
    assert_eq!(kind(&send_within(&client, request(), &["*"], soon).await), Some(ErrorKind::TimedOut));
}

#[test]
fn a_future_of_a_request_can_move_between_threads() {
    fn check<T: Send>(_: T) {}
    let (tenant, grants) = (TenantId::default(), PermissionSet::all());
    let allow = |action: &str| grants.covers(action);
    let call = HttpCall { tenant: &tenant, allow: &allow, deadline: Instant::now(), max_response_bytes: 1 };
    check(client().send(HttpRequest::new("GET", "https://a.test").unwrap(), call));
}
