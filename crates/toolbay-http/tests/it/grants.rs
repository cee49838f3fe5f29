//! Which grant a request needs, and that nothing happens without it.

use std::sync::{Arc, Mutex};

use serde_json::json;
use toolbay_api::{ErrorKind, Grants, PermissionSet, TenantId};
use toolbay_http::{HttpCall, HttpClient, HttpRequest};

use crate::support::{Names, Server, builder, client, error, kind, ok, send};

#[test]
fn the_action_names_method_host_and_any_port_but_the_schemes_own() {
    for (method, url, action) in [
        ("GET", "https://api.example.com/v1?key=1#part", "http:GET:api.example.com"),
        ("get", "https://API.Example.COM:443/", "http:GET:api.example.com"),
        ("POST", "https://api.example.com:8443/", "http:POST:api.example.com:8443"),
        ("GET", "https://api.example.com./", "http:GET:api.example.com"),
        ("GET", "https://api%2eexample.com/", "http:GET:api.example.com"),
        ("GET", "https://bücher.example/", "http:GET:xn--bcher-kva.example"),
        ("GET", "https://ＡＰＩ.example.com/", "http:GET:api.example.com"),
        ("GET", "http://api.example.com/", "http-plain:GET:api.example.com"),
        ("GET", "http://api.example.com:80/", "http-plain:GET:api.example.com"),
        ("GET", "https://api.example.com:80/", "http:GET:api.example.com:80"),
        ("GET", "http://api.example.com:443/", "http-plain:GET:api.example.com:443"),
        ("GET", "https://0x08080808/", "http:GET:8.8.8.8"),
        ("GET", "https://[2606:4700::0:1]/", "http:GET:[2606:4700::1]"),
    ] {
        assert_eq!(HttpRequest::new(method, url).unwrap().action(), action, "{url}");
    }
}

#[tokio::test]
async fn without_the_grant_not_even_the_name_is_looked_up() {
    let names = Names::loopback();
    let client = builder().resolver(names.clone()).build().unwrap();
    for (grant, url) in [
        ("http:GET:b.test", "https://a.test/"),
        ("http:POST:a.test", "https://a.test/"),
        ("http:GET:a.test", "https://a.test:8443/"),
        ("http:GET:a.test:8443", "https://a.test/"),
        ("http:GET:*.a.test", "https://a.test/"),
        ("http:*", "http://a.test/"),
        ("http-plain:GET:a.test", "https://a.test/"),
    ] {
        let result = send(&client, json!({"url": url}), &[grant]).await;
        assert_eq!(kind(&result), Some(ErrorKind::PermissionDenied), "{grant} for {url}");
    }
    assert!(names.asked().is_empty());
}

#[tokio::test]
async fn a_grant_for_the_host_and_its_port_is_enough() {
    let server = Server::answering(|_| ok("hello")).await;
    let grant = format!("http-plain:GET:a.test:{}", server.port);
    let answer = send(&client(), json!({"url": server.url("A.test.", "/x")}), &[&grant]).await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.url, server.url("a.test", "/x"));
    assert!(server.requests()[0].contains(&format!("host: a.test:{}\r\n", server.port)));
}

#[tokio::test]
async fn plain_http_needs_the_hosts_yes_besides_the_grant() {
    let client = HttpClient::builder().resolver(Names::loopback()).build().unwrap();
    let result = send(&client, json!({"url": "http://a.test/"}), &["*"]).await;
    assert_eq!(error(result), "PermissionDenied: this host sends no plain http: use https with `a.test`");
}

#[tokio::test]
async fn the_grants_of_host_tenant_and_manifest_are_asked_as_they_are() {
    let set = |text: &str| Arc::new(PermissionSet::parse([text]).unwrap());
    let grants = Grants { asked: set("http:GET:a.test"), host: set("http:*"), tenant: set("kv:*") };
    let tenant = TenantId::default();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    let call = HttpCall { tenant: &tenant, allow: &grants, deadline, max_response_bytes: 1 };
    let result = client().send(HttpRequest::new("GET", "https://a.test/").unwrap(), call).await;
    assert_eq!(
        error(result),
        "PermissionDenied: the permission `http:GET:a.test` is needed and the tenant does not grant it to its plugins: \
         the tenant's administrator can"
    );
}

#[tokio::test]
async fn every_hop_is_asked_for_so_that_denials_can_be_audited() {
    let server =
        Server::answering(
            |head| {
                if head.starts_with("POST /1") { crate::support::to("303 See Other", "/2") } else { ok("") }
            },
        )
        .await;
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let allow = move |action: &str| {
        seen.lock().unwrap().push(action.to_owned());
        true
    };
    let tenant = TenantId::default();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    let call = HttpCall { tenant: &tenant, allow: &allow, deadline, max_response_bytes: 1 };
    client().send(HttpRequest::new("POST", &server.url("a.test", "/1")).unwrap(), call).await.unwrap();
    let port = server.port;
    let expected = [format!("http-plain:POST:a.test:{port}"), format!("http-plain:GET:a.test:{port}")];
    assert_eq!(*asked.lock().unwrap(), expected);
}
