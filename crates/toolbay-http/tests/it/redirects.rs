//! Redirects: each hop is checked like a first request, and what goes along is what may.

use serde_json::{Value, json};
use toolbay_api::ErrorKind;

use crate::support::{Names, Server, builder, client, error, kind, ok, send, to};

/// A server that redirects everything but `/end` to `location`.
async fn redirecting(status: &'static str, location: impl Into<String>) -> Server {
    let location = location.into();
    Server::answering(move |head| if head.contains(" /end") { ok("end") } else { to(status, &location) }).await
}

#[tokio::test]
async fn a_redirect_is_followed_to_a_granted_host() {
    let b = Server::answering(|_| ok("from b")).await;
    let a = redirecting("302 Found", b.url("b.test", "/end?x=1")).await;
    let grants = ["http-plain:GET:a.test:*", "http-plain:GET:b.test:*"];
    let answer = send(&client(), json!({"url": a.url("a.test", "/")}), &grants).await.unwrap();
    assert_eq!(answer.to_json()["body"], "from b");
    assert_eq!(answer.url, b.url("b.test", "/end?x=1"));
}

#[tokio::test]
async fn a_redirect_to_an_ungranted_host_or_method_or_port_ends_there() {
    let b = Server::answering(|_| ok("from b")).await;
    let a = redirecting("302 Found", b.url("b.test", "/")).await;
    let result = send(&client(), json!({"url": a.url("a.test", "/")}), &["http-plain:GET:a.test:*"]).await;
    assert_eq!(
        error(result),
        format!(
            "PermissionDenied: the permission `http-plain:GET:b.test:{}` is needed and is not granted (the host \
             `a.test:{}` redirected there)",
            b.port, a.port
        )
    );
    let a = redirecting("303 See Other", b.url("a.test", "/")).await;
    let request = json!({"url": a.url("a.test", "/"), "method": "POST"});
    for grant in ["http-plain:POST:*", &format!("http-plain:*:a.test:{}", a.port)] {
        let result = send(&client(), request.clone(), &[grant]).await;
        assert_eq!(kind(&result), Some(ErrorKind::PermissionDenied), "{grant}");
    }
    assert_eq!(b.connections(), 0);
}

#[tokio::test]
async fn a_redirect_to_a_refused_address_ends_there() {
    let names = Names::loopback().with("inside.test", &["127.0.0.2"]);
    let client = builder().resolver(names).build().unwrap();
    let inside = Server::answering_on([127, 0, 0, 2].into(), |_| ok("inside")).await;
    for host in ["127.0.0.2", "inside.test", "0x7f000002", "[::ffff:127.0.0.2]", "INSIDE.test.", "2130706434"] {
        let a = redirecting("302 Found", inside.url(host, "/")).await;
        let result = send(&client, json!({"url": a.url("a.test", "/")}), &["*"]).await;
        assert_eq!(kind(&result), Some(ErrorKind::PermissionDenied), "{host}: {result:?}");
    }
    for location in ["http://169.254.169.254/latest/meta-data/", "//[fd00:ec2::254]/", "http://10.0.0.1:8080"] {
        let a = redirecting("307 Temporary Redirect", location).await;
        let result = send(&client, json!({"url": a.url("a.test", "/")}), &["*"]).await;
        assert_eq!(kind(&result), Some(ErrorKind::PermissionDenied), "{location}: {result:?}");
    }
    assert_eq!(inside.connections(), 0);
}

#[tokio::test]
async fn a_redirect_to_another_scheme_or_with_a_user_name_is_not_followed() {
    for (location, problem) in [
        ("file:///etc/passwd", "must begin with https:// or http://"),
        ("ftp://a.test/", "must begin with https:// or http://"),
        ("data:text/plain,x", "must begin with https:// or http://"),
        ("http://u:p@b.test/", "must not hold a user name or password: send an `authorization` header"),
        ("http:\\\\b.test", "must not hold spaces, control characters or backslashes: percent-encode them"),
    ] {
        let a = redirecting("301 Moved Permanently", location).await;
        let result = send(&client(), json!({"url": a.url("a.test", "/")}), &["*"]).await;
        let host = format!("a.test:{}", a.port);
        let text = format!("PermissionDenied: the host `{host}` redirected the request, but the new URL {problem}");
        assert_eq!(error(result), text, "{location}");
    }
}

#[tokio::test]
async fn five_redirects_are_followed_and_a_sixth_is_not() {
    let server = Server::answering(|head| {
        let left: u32 = head.strip_prefix("GET /").and_then(|rest| rest.split(' ').next()).unwrap().parse().unwrap();
        if left == 0 { ok("end") } else { to("302 Found", &format!("/{}", left - 1)) }
    })
    .await;
    let answer = send(&client(), json!({"url": server.url("a.test", "/5")}), &["*"]).await.unwrap();
    assert_eq!(answer.to_json()["body"], "end");
    let result = send(&client(), json!({"url": server.url("a.test", "/6")}), &["*"]).await;
    assert_eq!(result.as_ref().unwrap_err().details, json!({"limit": "http_redirects", "allowed": 5}));
    let text = "redirected the request again after 5 redirects, which is the limit";
    assert_eq!(error(result), format!("Unavailable: `a.test:{}` {text}", server.port));
}

/// Sends a request with secrets to `a.test`, which redirects; gives what came to the redirect's end, sorted.
async fn what_arrives(status: &'static str, method: &str, host: &str) -> Vec<String> {
    let end = Server::answering(|_| ok("")).await;
    let a = redirecting(status, end.url(host, "/end")).await;
    // The same origin has the same port too, so there the first server is the end as well.
    let same = host == "same";
    let a = if same { redirecting(status, "/end").await } else { a };
    let mut request = json!({
        "method": method, "url": a.url("a.test", "/"),
        "headers": {"Authorization": "Bearer s", "Cookie": "s", "X-Api-Key": "s", "Accept": "text/csv"},
    });
    if method != "GET" {
        request["json"] = Value::from(1);
    }
    send(&client(), request, &["*"]).await.unwrap();
    let seen = if same { a.requests().remove(1) } else { end.requests().remove(0) };
    let own = ["host:", "user-agent:", "accept-encoding:", "connection:", "content-length:"];
    let mut lines: Vec<_> = seen.split("\r\n").filter(|line| !line.is_empty()).map(str::to_owned).collect();
    lines.retain(|line| !own.iter().any(|name| line.starts_with(name)));
    lines.sort_unstable();
    lines
}

#[tokio::test]
async fn secrets_stay_behind_where_the_origin_changes() {
    let all = ["GET /end HTTP/1.1", "accept: text/csv", "authorization: Bearer s", "cookie: s", "x-api-key: s"];
    assert_eq!(what_arrives("302 Found", "GET", "same").await, all);
    let few = ["GET /end HTTP/1.1", "accept: text/csv"];
    assert_eq!(what_arrives("302 Found", "GET", "b.test").await, few);
    // The same name on another port is another origin.
    assert_eq!(what_arrives("302 Found", "GET", "a.test").await, few);
}

#[tokio::test]
async fn the_method_changes_as_in_browsers() {
    for (status, method, kept) in [
        ("301 Moved Permanently", "POST", false),
        ("302 Found", "POST", false),
        ("303 See Other", "POST", false),
        ("303 See Other", "PUT", false),
        ("301 Moved Permanently", "PUT", true),
        ("302 Found", "DELETE", true),
        ("307 Temporary Redirect", "POST", true),
        ("308 Permanent Redirect", "POST", true),
    ] {
        let seen = what_arrives(status, method, "b.test").await;
        if kept {
            let first = format!("{method} /end HTTP/1.1");
            assert_eq!(seen, ["1", &first, "accept: text/csv", "content-type: application/json"], "{status} {method}");
        } else {
            assert_eq!(seen, ["GET /end HTTP/1.1", "accept: text/csv"], "{status} {method}");
        }
    }
}

#[tokio::test]
async fn a_redirect_status_without_a_location_is_an_answer() {
    let server = Server::answering(|_| crate::support::with_head("304 Not Modified", "location: /x\r\n", "")).await;
    assert_eq!(send(&client(), json!({"url": server.url("a.test", "/")}), &["*"]).await.unwrap().status, 304);
    let server = Server::answering(|_| crate::support::with_head("302 Found", "", "where to?")).await;
    assert_eq!(send(&client(), json!({"url": server.url("a.test", "/")}), &["*"]).await.unwrap().status, 302);
}

#[tokio::test]
async fn a_redirect_to_an_overlong_url_is_not_followed() {
    let server = redirecting("302 Found", format!("/{}", "x".repeat(10_000))).await;
    let result = send(&client(), json!({"url": server.url("a.test", "/")}), &["*"]).await;
    let text = "redirected to a URL of more than 8192 bytes, which is the limit";
    assert_eq!(error(result), format!("Unavailable: `a.test:{}` {text}", server.port));
}
