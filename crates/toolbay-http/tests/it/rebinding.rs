//! A resolver that answers differently each time, and connections that nobody else gets.

use serde_json::json;
use toolbay_api::ErrorKind;

use crate::support::{Names, Server, builder, client, closed_port, error, kind, ok, send, to};

#[tokio::test]
async fn the_address_that_was_checked_is_the_one_that_is_connected_to() {
    let names = Names::default().with("x.test", &["127.0.0.1"]).with("x.test", &["127.0.0.2"]);
    let client = builder().resolver(names.clone()).build().unwrap();
    let server = Server::answering(|_| ok("outside")).await;
    let answer = send(&client, json!({"url": server.url("x.test", "/")}), &["*"]).await.unwrap();
    assert_eq!(answer.to_json()["body"], "outside");
    assert_eq!(names.asked(), ["x.test"], "one look-up serves the check and the connection");
}

#[tokio::test]
async fn a_second_request_is_checked_anew_and_finds_no_connection_left_over() {
    let names = Names::default().with("x.test", &["127.0.0.1"]).with("x.test", &["127.0.0.2"]);
    let client = builder().resolver(names).build().unwrap();
    let server = Server::answering(|_| ok("outside")).await;
    let request = json!({"url": server.url("x.test", "/")});
    send(&client, request.clone(), &["*"]).await.unwrap();
    assert_eq!(kind(&send(&client, request, &["*"]).await), Some(ErrorKind::PermissionDenied));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_redirect_to_the_same_name_is_looked_up_and_checked_again() {
    let names = Names::default().with("x.test", &["127.0.0.1"]).with("x.test", &["127.0.0.2"]);
    let client = builder().resolver(names).build().unwrap();
    let server = Server::answering(|_| to("302 Found", "/again")).await;
    let result = send(&client, json!({"url": server.url("x.test", "/")}), &["*"]).await;
    assert_eq!(kind(&result), Some(ErrorKind::PermissionDenied));
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn no_connection_serves_two_requests() {
    let server = Server::answering(|_| ok("kept open")).await;
    let client = client();
    for _ in 0..3 {
        send(&client, json!({"url": server.url("a.test", "/")}), &["*"]).await.unwrap();
        server.is_left().await;
    }
    assert_eq!(server.connections(), 3);
}

#[tokio::test]
async fn a_connection_that_fails_can_be_tried_again_later() {
    let port = closed_port().await;
    let result = send(&client(), json!({"url": format!("http://a.test:{port}/")}), &["*"]).await;
    assert_eq!(error(result), format!("Unavailable (again): no connection to `a.test:{port}`; try again later"));
}
