//! The network without a network and the test host: they refuse what the real ones refuse, and say what they were asked.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "clippy knows tests by their attribute only, not their helpers"
)]

use std::time::Duration;

use serde_json::{Value, json};
use toolbay_api::{ErrorKind, Host, Limit, Limits, LogLevel, PermissionSet, ToolError};
use toolbay_testkit::{FakeAnswer, FakeHttp, HostCall, TestHost, VirtualClock};

const URL: &str = "https://api.example.com/a";

async fn get(host: &TestHost, url: &str) -> Result<Value, ToolError> {
    host.http(json!({ "url": url })).await
}

#[tokio::test]
async fn answers_of_one_route_come_in_turn_and_the_last_stays() {
    let http = FakeHttp::new().on("get", URL, FakeAnswer::status(503)).unwrap();
    let http =
        http.on("GET", "https://API.example.com:443/a", FakeAnswer::text("ok").with_header("X-Id", "7")).unwrap();
    let host = TestHost::new().with_http(http.clone());
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(get(&host, "https://api.example.com/a?q=1").await.unwrap()["status"].clone());
    }
    assert_eq!(statuses, [503, 200, 200]);
    assert_eq!(get(&host, URL).await.unwrap()["headers"]["x-id"], "7");
    assert_eq!((http.requests()[0].url.as_str(), http.requests()[0].url_query.as_str()), (URL, "q=1"));
}

#[tokio::test]
async fn what_was_not_expected_is_refused_with_the_list_and_noted() {
    let http = FakeHttp::new().on("POST", URL, FakeAnswer::status(200)).unwrap();
    let http = http.on("GET", "https://api.example.com/b/*", FakeAnswer::status(200)).unwrap();
    let host = TestHost::new().with_http(http.clone());
    let error = get(&host, URL).await.unwrap_err();
    assert_eq!(
        error.message,
        "the test did not expect GET https://api.example.com/a; it expects: POST https://api.example.com/a, GET \
         https://api.example.com/b/*"
    );
    assert!(!error.retryable);
    get(&host, "https://api.example.com/b/1").await.unwrap();
    assert_eq!(http.unexpected(), ["GET https://api.example.com/a"]);
    assert_eq!(http.unasked(), ["POST https://api.example.com/a"]);
    assert!(FakeHttp::new().on("TRACE", URL, FakeAnswer::status(200)).is_err(), "no plugin can send it");
}

#[tokio::test]
async fn the_network_asks_for_the_same_grants_and_takes_the_same_requests_as_the_real_one() {
    let http = FakeHttp::new().on("GET", URL, FakeAnswer::bytes([0xff, 0xfe])).unwrap();
    let host =
        |grant: &str| TestHost::new().with_http(http.clone()).with_grants(PermissionSet::parse([grant]).unwrap());
    for grant in ["http:POST:api.example.com", "http:GET:example.com", "http-plain:GET:api.example.com"] {
        assert_eq!(get(&host(grant), URL).await.unwrap_err().kind, ErrorKind::PermissionDenied, "{grant}");
    }
    let granted = host("http:GET:api.example.com");
    assert_eq!(get(&granted, URL).await.unwrap()["body_base64"], "//4=");
    let wrong = [
        json!({ "url": "api.example.com" }),
        json!({ "url": URL, "verb": "GET" }),
        json!({ "url": URL, "body": "x" }),
        json!({ "url": URL, "headers": { "host": "x" } }),
    ];
    for request in wrong {
        assert_eq!(granted.http(request.clone()).await.unwrap_err().kind, ErrorKind::InvalidArguments, "{request}");
    }
    let small = granted.with_limits(Limits { max_string_bytes: 1, ..Limits::default() });
    assert_eq!(get(&small, URL).await.unwrap_err().details["limit"], "http_response_bytes");
    let away = ToolError::new(ErrorKind::Unavailable, "no route");
    let http = FakeHttp::new().on("GET", URL, FakeAnswer::fails(away)).unwrap();
    assert_eq!(get(&TestHost::new().with_http(http), URL).await.unwrap_err().message, "no route");
}

#[tokio::test]
async fn a_test_host_writes_down_what_it_is_asked_and_gives_the_same_each_time() {
    let clock = VirtualClock::at_ms(5);
    let host = TestHost::new().with_clock(clock.clone()).with_answers("rates", [Ok(json!(1)), Ok(json!(2))]);
    let host = host.with_tool("double", |args| Ok(json!(args["n"].as_i64().unwrap_or(0) * 2)));
    let call = async |tool: &str, args: Value| host.call_tool(tool, args).await.map(|output| output.data);
    let rates = [call("rates", json!({})).await, call("rates", json!({})).await, call("rates", json!({})).await];
    assert_eq!(rates.map(Result::unwrap), [json!(1), json!(2), json!(2)]);
    assert_eq!(call("double", json!({ "n": 4 })).await.unwrap(), 8);
    let error = call("other", json!({})).await.unwrap_err();
    assert_eq!(error.message, "the test has no answer for the tool \"other\"; it has answers for: double, rates");

    host.log(LogLevel::Warn, "look");
    host.kv_set_for("k", json!(1), Duration::from_millis(10)).await.unwrap();
    assert!(host.kv_compare_and_set("k", Some(json!(1)), Some(json!(2)), None).await.unwrap());
    assert_eq!((host.now_ms().unwrap(), host.kv("k").await), (5, Some(json!(2))));
    assert_eq!(host.log_lines(), ["look"]);
    let last = host.calls().pop().unwrap();
    assert_eq!(last, HostCall::NowMs, "what the test itself looks at is not written down");
    let other = TestHost::new();
    assert_eq!((host.uuid().unwrap(), host.random().unwrap()), (other.uuid().unwrap(), other.random().unwrap()));
}

#[tokio::test]
async fn a_test_host_holds_the_limit_of_host_calls_for_each_call() {
    let host = TestHost::new().with_limits(Limits { max_host_calls: 2, ..Limits::default() });
    let two = async || {
        for _ in 0..2 {
            host.kv_get("k").await.unwrap();
        }
    };
    two().await;
    let error = host.kv_get("k").await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::LimitExceeded { limit: Limit::HostCalls, allowed: 2, used: 3 });
    let _next = host.context();
    two().await;
}
