//! The process's environment changes nothing: a proxy in it would see every request and resolve the names itself.

use std::{net::TcpListener, process::Command};

use serde_json::json;

use crate::support::{Server, client, ok, send};

/// Run by the test below once more in a process of its own, since the environment of this one is shared by all tests.
#[tokio::test]
async fn a_request_in_an_environment_with_a_proxy() {
    let server = Server::answering(|_| ok("direct")).await;
    let answer = send(&client(), json!({"url": server.url("a.test", "/")}), &["*"]).await.unwrap();
    assert_eq!(answer.to_json()["body"], "direct");
}

#[test]
fn a_proxy_of_the_environment_is_not_used() {
    // A proxy that takes connections and never answers.
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", proxy.local_addr().unwrap());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "environment::a_request_in_an_environment_with_a_proxy"]);
    for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env(name, &url);
    }
    let output = command.env_remove("no_proxy").env_remove("NO_PROXY").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
