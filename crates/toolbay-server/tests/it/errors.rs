//! Malformed and hostile requests: each has the right status, in the one shape.

use reqwest::Method;
use serde_json::json;
use toolbay_server::ServerOptions;

use crate::support::{Answer, Host};

#[tokio::test]
async fn what_is_malformed_is_refused_in_one_shape() {
    let host = Host::with(ServerOptions { max_body_bytes: 4_096, ..ServerOptions::default() }).await;
    let post = |path: &str| host.ask(&host.admin, Method::POST, path).header("content-type", "application/json");
    let tenants = "/api/v1/tenants";
    let deep = format!("{{\"name\":{}1{}}}", "[".repeat(1_000), "]".repeat(1_000));
    for body in [
        "",
        "{",
        "nonsense",
        "[]",
        "null",
        "{\"name\":1}",
        "{\"name\":\"a\",\"colour\":1}",
        "{\"name\":\"a\",\"name\":\"b\"}",
        "{\"name\":\"a\"} x",
        "{\"name\":\"../etc\"}",
        "{\"name\":\"a/b\"}",
        "{\"name\":\"\"}",
        "{\"name\":\"a\\u0000\"}",
        "{\"name\":\"\\ud800\"}",
        deep.as_str(),
        "{}",
    ] {
        Answer::of(post(tenants).body(body.to_owned())).await.is(400, "InvalidArguments");
    }
    Answer::of(post(tenants).body(vec![b'{', 0xff, 0xfe, b'}'])).await.is(400, "InvalidArguments");
    Answer::of(post(tenants).body("x".repeat(5_000))).await.is(413, "LimitExceeded");
    let xml = host.ask(&host.admin, Method::POST, tenants).header("content-type", "text/xml").body("<a/>");
    Answer::of(xml).await.is(415, "UnsupportedMediaType");
    let none = host.ask(&host.admin, Method::POST, tenants).body("{\"name\":\"a\"}");
    Answer::of(none).await.is(415, "UnsupportedMediaType");
    host.post(&host.admin, tenants, json!({ "name": "acme" })).await.is(409, "Conflict");
    let label = json!({ "role": "operator", "label": "a\u{0}b" });
    host.post(&host.admin, "/api/v1/keys", label).await.is(400, "InvalidArguments");
    host.post(&host.admin, "/api/v1/keys", json!({ "role": "tenant" })).await.is(400, "InvalidArguments");
    host.post(&host.admin, "/api/v1/keys", json!({ "role": "king" })).await.is(400, "InvalidArguments");
    host.post(&host.acme, "/api/v1/plugins/shop/enable", json!({})).await.is(400, "InvalidArguments");
    host.stop().await.unwrap();
}

#[tokio::test]
async fn queries_and_paths_are_read_strictly() {
    let host = Host::start().await;
    for query in [
        "colour=red",
        "limit=0",
        "limit=201",
        "limit=1e1",
        "limit=%2B5",
        "limit=1&limit=2",
        "cursor=",
        "limit",
        "cursor=%00",
    ] {
        host.get(&host.acme, &format!("/api/v1/plugins?{query}")).await.is(400, "InvalidArguments");
    }
    host.get(&host.acme, "/api/v1/audit?since=yesterday").await.is(400, "InvalidArguments");
    host.get(&host.acme, "/api/v1/plugins/UPPER").await.is(400, "InvalidArguments");
    host.get(&host.acme, "/api/v1/runs/1").await.is(400, "InvalidArguments");
    host.delete(&host.acme, "/api/v1/plugins/shop?purge=yes").await.is(400, "InvalidArguments");
    let lines = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {}\r\n\r\n", host.acme);
    for (path, status) in [
        ("/api/v1/plugins/%2e%2e", "400"),
        ("/api/v1/plugins/..", "400"),
        ("/api/v1/plugins/a%2Fb", "400"),
        ("/api/v1/plugins/a%00b", "400"),
        ("/api/v1/plugins/%ff%fe", "400"),
        ("/api/v1/plugins/%zz", "400"),
        ("/api/v1/plugins?limit=%ff", "400"),
        ("/api/v1/plugins?limit=%4", "400"),
        ("/api/v1/plugins/../../keys", "404"),
        ("//api/v1/plugins", "404"),
        ("/api/v1/plugins/", "404"),
        ("/plugins/shop/orders/%2e%2e", "400"),
        ("/plugins/shop/orders/a%2Fb", "400"),
        ("/plugins/shop/orders/a%5Cb", "400"),
        ("/plugins/shop//orders", "400"),
        ("/plugins/../shop", "400"),
    ] {
        let answer = host.raw(lines(path).as_bytes()).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
        assert!(answer.contains("application/problem+json"), "{path}: {answer}");
    }
    host.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_not_there_and_what_is_not_done_there_say_so() {
    let host = Host::start().await;
    Answer::of(host.bare(Method::GET, "/nowhere")).await.is(404, "NotFound");
    host.get(&host.acme, "/api/v1/nowhere").await.is(404, "NotFound");
    let wrong = Answer::of(host.ask(&host.acme, Method::PATCH, "/api/v1/plugins/shop/config")).await;
    wrong.is(405, "MethodNotAllowed");
    let mut allowed: Vec<_> = wrong.header("allow").split(", ").collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["DELETE", "GET", "HEAD", "PUT"]);
    let head = Answer::of(host.ask(&host.acme, Method::HEAD, "/api/v1/plugins")).await;
    assert_eq!((head.status, head.body), (200, json!("")));
    host.get(&host.admin, "/api/v1/plugins").await.is(403, "PermissionDenied");
    host.stop().await.unwrap();
}

#[tokio::test]
async fn a_request_has_an_id_that_its_caller_may_give() {
    let host = Host::start().await;
    let asked = |id: &str| host.bare(Method::GET, "/nowhere").header("x-request-id", id.to_owned());
    let given = Answer::of(asked("mine-1.2_3")).await;
    assert_eq!((given.header("x-request-id"), &given.body["request_id"]), ("mine-1.2_3", &json!("mine-1.2_3")));
    for bad in ["a b", "\"", "x\tlevel=error", &"a".repeat(65)] {
        let made = Answer::of(asked(bad)).await;
        assert_ne!(made.header("x-request-id"), bad);
        assert_eq!(made.header("x-request-id").len(), 36);
    }
    host.stop().await.unwrap();
}

#[tokio::test]
async fn hostile_packages_are_refused_and_leave_nothing() {
    let host = Host::start().await;
    let upload = async |name: &str, body: Vec<u8>| {
        let path = format!("/api/v1/plugins?file_name={name}");
        let sent = host.ask(&host.acme, Method::POST, &path).header("content-type", "application/octet-stream");
        Answer::of(sent.body(body)).await
    };
    upload("..%2Fevil.rhai", b"x".to_vec()).await.is(400, "InvalidArguments");
    upload(".rhai", b"x".to_vec()).await.is(400, "InvalidArguments");
    upload("a.rhai", Vec::new()).await.is(400, "InvalidArguments");
    for (name, body) in [
        ("a.rhai", b"this is no script (".to_vec()),
        ("a.exe", b"MZ".to_vec()),
        ("a.tar.gz", b"\x1f\x8b not really".to_vec()),
        ("a.rhai", vec![0xff; 100]),
        ("a.rhai", vec![0; 100]),
    ] {
        let refused = upload(name, body).await;
        assert!(matches!(refused.status, 413 | 422), "{name}: {refused:#?}");
        refused.is(refused.status, refused.body["kind"].as_str().unwrap());
    }
    assert_eq!(host.get(&host.acme, "/api/v1/plugins").await.body["items"].as_array().unwrap().len(), 1);
    host.stop().await.unwrap();
}
