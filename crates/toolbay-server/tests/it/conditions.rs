//! Entity tags and requests that come twice.

use reqwest::Method;
use serde_json::json;

use crate::support::{Answer, Host, script};

#[tokio::test]
async fn a_change_goes_by_what_its_caller_saw() {
    let host = Host::start().await;
    host.install(&host.acme, "/api/v1", "hello", script("hello", "1.0.0", "one")).await;
    let seen = host.get(&host.acme, "/api/v1/plugins/hello").await;
    let tag = seen.header("etag").to_owned();
    assert!(tag.starts_with('"'), "{tag}");
    let put = |tag: &str| {
        let path = "/api/v1/plugins/hello/priority";
        host.ask(&host.acme, Method::PUT, path).header("if-match", tag.to_owned()).json(&json!({ "priority": 1 }))
    };
    let changed = Answer::of(put(&tag)).await;
    assert_eq!(changed.status, 200);
    assert_ne!(changed.header("etag"), tag);
    Answer::of(put(&tag)).await.is(412, "PreconditionFailed");
    Answer::of(put("\"*\"")).await.is(412, "PreconditionFailed");
    Answer::of(put(&format!("W/{}", changed.header("etag")))).await.is(412, "PreconditionFailed");
    Answer::of(put("nonsense")).await.is(400, "InvalidArguments");
    assert_eq!(Answer::of(put("*")).await.status, 200);
    let list = format!("\"x\", {}", host.get(&host.acme, "/api/v1/plugins/hello").await.header("etag"));
    assert_eq!(Answer::of(put(&list)).await.status, 200);
    // One that was made anew is another, though its revision is the same.
    host.delete(&host.acme, "/api/v1/plugins/hello").await;
    host.act(&host.acme, "/api/v1/plugins/hello/install").await;
    Answer::of(put(&tag)).await.is(412, "PreconditionFailed");
    let upload =
        host.ask(&host.acme, Method::POST, "/api/v1/plugins?file_name=a.rhai").header("content-type", "text/plain");
    Answer::of(upload.header("if-match", "*").body("x")).await.is(400, "InvalidArguments");
    host.stop().await.unwrap();
}

#[tokio::test]
async fn a_request_that_comes_twice_is_done_once() {
    let host = Host::start().await;
    host.install(&host.acme, "/api/v1", "hello", script("hello", "1.0.0", "one")).await;
    let tag = host.get(&host.acme, "/api/v1/plugins/hello").await.header("etag").to_owned();
    let put = |key: &str, once: &str, priority: i32| {
        let asked = host.ask(key, Method::PUT, "/api/v1/plugins/hello/priority").header("if-match", tag.clone());
        asked.header("idempotency-key", once.to_owned()).json(&json!({ "priority": priority }))
    };
    let first = Answer::of(put(&host.acme, "\"a-1\"", 7)).await;
    let again = Answer::of(put(&host.acme, "a-1", 7)).await;
    assert_eq!((first.status, again.status), (200, 200), "{again:?}");
    assert_eq!(first.body, again.body);
    assert_eq!(
        host.get(&host.acme, "/api/v1/plugins/hello").await.body["registration"]["revision"],
        first.body["revision"]
    );
    Answer::of(put(&host.acme, "a-1", 8)).await.is(422, "IdempotencyMismatch");
    Answer::of(put(&host.acme, "", 8)).await.is(400, "InvalidArguments");
    Answer::of(put(&host.acme, "a b", 8)).await.is(400, "InvalidArguments");
    Answer::of(put(&host.acme, "\"a\"b", 8)).await.is(400, "InvalidArguments");
    // A tool call is not a change of the store's, and must not look as if it were done once.
    let call =
        host.ask(&host.acme, Method::POST, "/api/v1/tools/hello/call").header("idempotency-key", "x").json(&json!({}));
    Answer::of(call).await.is(400, "InvalidArguments");
    let create = || {
        let asked = host.ask(&host.admin, Method::POST, "/api/v1/keys").header("idempotency-key", "k");
        asked.json(&json!({ "role": "operator" }))
    };
    assert_eq!(Answer::of(create()).await.status, 201);
    // The secret is shown once, whatever else.
    Answer::of(create()).await.is(409, "Conflict");
    host.stop().await.unwrap();
}

#[tokio::test]
async fn of_those_who_race_one_wins() {
    let host = Host::start().await;
    host.install(&host.acme, "/api/v1", "hello", script("hello", "1.0.0", "one")).await;
    let tag = host.get(&host.acme, "/api/v1/plugins/hello").await.header("etag").to_owned();
    let puts = (0..8).map(|priority| {
        let asked = host.ask(&host.acme, Method::PUT, "/api/v1/plugins/hello/priority").header("if-match", tag.clone());
        Answer::of(asked.json(&json!({ "priority": priority })))
    });
    let answers = futures::future::join_all(puts).await;
    let won = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(won, 1, "{answers:?}");
    assert!(answers.iter().all(|answer| matches!(answer.status, 200 | 409 | 412)), "{answers:?}");
    host.stop().await.unwrap();
}
