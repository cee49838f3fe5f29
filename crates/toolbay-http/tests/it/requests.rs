//! The JSON form of requests and answers, and what a request may not hold.

use serde_json::{Value, json};
use toolbay_api::ErrorKind;
use toolbay_http::HttpRequest;

use crate::support::{Server, client, ok, send, with_head};

fn refused(request: Value) -> String {
    let error = HttpRequest::from_json(request).expect_err("the request is refused");
    assert_eq!(error.kind, ErrorKind::InvalidArguments);
    error.message.into_owned()
}

#[test]
fn an_error_names_the_member_and_what_it_must_be() {
    let url = "https://a.test/";
    for (request, message) in [
        (
            json!({"url": url, "follow": true}),
            "the HTTP request does not fit: unknown field `follow`, expected one of `method`, `url`, `headers`, \
             `query`, `body`, `body_base64`, `json`, `timeout_ms`",
        ),
        (
            json!("https://a.test/"),
            "the HTTP request must be an object such as {\"url\": \"https://api.example.com/v1\"}",
        ),
        (json!({}), "the HTTP request's `url` must be a text"),
        (json!({"url": 5}), "the HTTP request's `url` must be a text"),
        (json!({"url": url, "headers": "authorization: secret"}), "the HTTP request's `headers` must be an object"),
        (json!({"url": url, "query": ["secret"]}), "the HTTP request's `query` must be an object"),
        (
            json!({"url": url, "timeout_ms": -1}),
            "the HTTP request's `timeout_ms` must be a whole number of milliseconds, at least 1",
        ),
        (
            json!({"url": url, "timeout_ms": 0}),
            "the HTTP request's `timeout_ms` must be a whole number of milliseconds, at least 1",
        ),
        (
            json!({"url": url, "method": "TRACE"}),
            "the HTTP request's `method` must be GET, HEAD, OPTIONS, POST, PUT, PATCH or DELETE",
        ),
        (json!({"url": url, "headers": {"x": 1}}), "the HTTP request's `headers.x` must be a text"),
        (
            json!({"url": url, "query": {"a": {"b": 1}}}),
            "the HTTP request's `query.a` must be a text, a number, a boolean or a list of those",
        ),
        (
            json!({"url": url, "method": "POST", "body": "x", "json": 1}),
            "the HTTP request's `body` is there twice: give one of body, body_base64 and json",
        ),
        (
            json!({"url": url, "method": "POST", "body_base64": "?"}),
            "the HTTP request's `body_base64` is not base64 (the standard alphabet, padded)",
        ),
        (json!({"url": url, "body": "x"}), "the HTTP request's `body` cannot be sent with GET: use another method"),
    ] {
        assert_eq!(refused(request), message);
    }
}

#[test]
fn an_error_is_short_however_long_a_member_is() {
    let long = "x".repeat(10_000);
    for request in [
        json!({"url": "https://a.test/", (&long): 1}),
        json!({"url": "https://a.test/", "headers": {(&long): 1}}),
        json!({"url": "https://a.test/", "headers": {(&long): "ü"}}),
        json!({"url": "https://a.test/", "query": {(&long): {}}}),
        json!({"url": &long}),
        json!({"url": "https://a.test/", "method": &long}),
    ] {
        assert!(refused(request).len() < 500);
    }
}

#[test]
fn a_url_that_two_readers_could_take_differently_is_refused() {
    for (url, problem) in [
        ("/v1", "is no absolute URL such as https://api.example.com/v1 (relative URL without a base)"),
        ("file:///etc/passwd", "must begin with https:// or http://"),
        ("gopher://a.test/", "must begin with https:// or http://"),
        ("javascript:alert(1)", "must begin with https:// or http://"),
        ("https://user@a.test/", "must not hold a user name or password: send an `authorization` header"),
        ("https://:secret@a.test/", "must not hold a user name or password: send an `authorization` header"),
        ("https://a.test:0/", "must not name port 0"),
        ("https://*.test/", "must name a host of letters, digits, hyphens, underscores and dots, or an IP address"),
        ("https://a..test/", "must name a host of letters, digits, hyphens, underscores and dots, or an IP address"),
        ("https://a.test\\@b.test/", "must not hold spaces, control characters or backslashes: percent-encode them"),
        ("https://a.te\nst/", "must not hold spaces, control characters or backslashes: percent-encode them"),
        (" https://a.test/", "must not hold spaces, control characters or backslashes: percent-encode them"),
    ] {
        assert_eq!(refused(json!({"url": url})), format!("the HTTP request's `url` {problem}"), "{url}");
    }
    for url in ["https://", "https:///", "https://a.test:99999/", "https://1.2.3.4.5/", "https://[::1/", "https://%00/"]
    {
        refused(json!({"url": url}));
    }
}

#[test]
fn a_header_that_could_smuggle_a_second_request_is_refused() {
    for name in [
        "Host",
        "content-length",
        "Transfer-Encoding",
        "TE",
        "Trailer",
        "Connection",
        "Keep-Alive",
        "Upgrade",
        "Proxy-Connection",
        "Proxy-Authorization",
        "Expect",
        "HTTP2-Settings",
        "Via",
        "Accept-Encoding",
    ] {
        let message = refused(json!({"url": "https://a.test/", "headers": {name: "1"}}));
        assert_eq!(message, format!("the HTTP request's `headers.{name}` is set by the host: leave it out"));
    }
    for name in ["", "x y", "x:", "x\r\nhost", "ü", ":authority", "x\0"] {
        let message = refused(json!({"url": "https://a.test/", "headers": {name: "1"}}));
        assert!(message.ends_with("is no header name: use letters, digits and hyphens"), "{message}");
        assert!(!message.contains(['\r', '\n', '\0']), "{message:?}");
    }
    for value in ["a\r\nhost: b.test", "a\nb", "a\rb", "a\0", "ü", "\u{7f}"] {
        let message = refused(json!({"url": "https://a.test/", "headers": {"x": value}}));
        assert!(message.contains("`headers.x` must be printable ASCII without line breaks"), "{message}");
    }
    let message = refused(json!({"url": "https://a.test/", "headers": {"X-One": "1", "x-one": "2"}}));
    assert!(message.contains("`headers.x-one` is there twice"), "{message}");
}

#[test]
fn a_request_of_any_size_is_parsed_in_bounded_time_and_does_not_panic() {
    let begun = std::time::Instant::now();
    let many: serde_json::Map<_, _> = (0..40_000).map(|n| (format!("x-{n}"), json!("1"))).collect();
    let message = refused(json!({"url": "https://a.test/", "headers": many}));
    assert_eq!(message, "the HTTP request's `headers` has more than 100 fields, which is the limit");
    let message = refused(json!({"url": format!("https://a.test/{}", "x".repeat(1 << 20))}));
    assert_eq!(message, "the HTTP request's `url` must not have more than 65536 bytes");
    for host in ["ü".repeat(30_000), "%C3%BC".repeat(10_000), "ü.".repeat(20_000), "1.".repeat(30_000)] {
        refused(json!({"url": format!("https://{host}/")}));
    }
    assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
}

#[test]
fn what_is_printed_of_a_request_holds_no_secret() {
    let request = HttpRequest::from_json(json!({
        "url": "https://a.test/secret-path?key=secret", "method": "POST", "json": "secret",
        "headers": {"authorization": "secret"},
    }));
    let text = format!("{:?}", request.unwrap());
    assert!(!text.contains("secret") && text.contains("authorization"), "{text}");
}

#[tokio::test]
async fn a_request_reaches_the_server_as_it_was_meant() {
    let server = Server::answering(|_| ok("done")).await;
    let request = json!({
        "method": "post", "url": server.url("a.test", "/v1?a=1#part"), "headers": {"X-Key": "k"},
        "query": {"q": "ä &=", "n": 2.5, "on": true, "many": [1, "two"], "none": []},
        "json": {"b": [1]}, "body": null, "timeout_ms": 5000,
    });
    let answer = send(&client(), request, &["*"]).await.unwrap();
    assert_eq!(answer.to_json()["body"], "done");
    let seen = server.requests().remove(0);
    let mut lines: Vec<_> = seen.split("\r\n").collect();
    assert_eq!(lines.remove(0), "POST /v1?a=1&q=%C3%A4+%26%3D&n=2.5&on=true&many=1&many=two HTTP/1.1");
    assert_eq!(lines.pop(), Some("{\"b\":[1]}"));
    lines.sort_unstable();
    let host = format!("host: a.test:{}", server.port);
    let agent = concat!("user-agent: toolbay/", env!("CARGO_PKG_VERSION"));
    let expected = [
        "",
        "accept-encoding: identity",
        "accept: */*",
        "connection: close",
        "content-length: 9",
        "content-type: application/json",
        &host,
        agent,
        "x-key: k",
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn an_answer_is_text_where_it_can_be_and_base64_otherwise() {
    let server = Server::answering(|head| {
        if head.starts_with("GET /text") {
            with_head("404 Not Found", "X-A: 1\r\nx-a: 2\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\n", "größer")
        } else {
            ok([0, 159, 146, 150])
        }
    })
    .await;
    let answer = send(&client(), json!({"url": server.url("a.test", "/text")}), &["*"]).await.unwrap();
    let expected = json!({
        "status": 404,
        "headers": {"content-length": "8", "x-a": "1, 2", "set-cookie": "a=1\nb=2"},
        "body": "größer",
        "url": server.url("a.test", "/text"),
    });
    assert_eq!(answer.to_json(), expected);
    assert_eq!(serde_json::to_value(&answer).unwrap(), expected);
    let answer = send(&client(), json!({"url": server.url("a.test", "/bytes")}), &["*"]).await.unwrap().to_json();
    assert_eq!(answer["body_base64"], "AJ+Slg==");
    assert_eq!(answer.get("body"), None);
}

#[tokio::test]
async fn a_head_request_has_an_answer_without_a_body() {
    let server = Server::answering(|_| b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n".to_vec()).await;
    let request = json!({"method": "HEAD", "url": server.url("a.test", "/")});
    let answer = send(&client(), request, &["*"]).await.unwrap();
    assert_eq!(answer.headers["content-length"], "99999999");
    assert!(answer.body.is_empty());
}
