//! Keys: who may, who not, and how alike the refusals are.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use toolbay_server::ServerOptions;

use crate::support::{Answer, Host};

#[tokio::test]
async fn every_key_that_does_not_count_is_refused_in_the_same_words() {
    let host = Host::start().await;
    let made = host.post(&host.admin, "/api/v1/keys", json!({ "role": "tenant", "tenant": "acme" })).await;
    let (revoked, id) =
        (made.body["secret"].as_str().unwrap().to_owned(), made.body["id"].as_str().unwrap().to_owned());
    assert_eq!(host.get(&revoked, "/api/v1/whoami").await.body["tenant"], "acme");
    assert_eq!(host.delete(&host.admin, &format!("/api/v1/keys/{id}")).await.status, 204);
    let expired = json!({ "role": "tenant", "tenant": "acme", "expires_at": "2001-01-01T00:00:00Z" });
    let expired = host.post(&host.admin, "/api/v1/keys", expired).await.body["secret"].as_str().unwrap().to_owned();
    host.act(&host.operator, "/api/v1/tenants/rival/suspend").await;
    let good = host.acme.clone();
    let mut forged = good.clone();
    let last = if forged.pop() == Some('A') { 'B' } else { 'A' };
    forged.push(last);
    let mut answers = Vec::new();
    let path = "/api/v1/plugins";
    answers.push(Answer::of(host.bare(Method::GET, path)).await);
    for header in [
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        "Basic YTpi".to_owned(),
        good.clone(),
        format!("Bearer {forged}"),
        format!("Bearer {revoked}"),
        format!("Bearer {expired}"),
        format!("Bearer {}", host.rival),
        format!("Bearer {good} {good}"),
        format!("Bearer {}", "x".repeat(5_000)),
    ] {
        answers.push(Answer::of(host.bare(Method::GET, path).header("authorization", header)).await);
    }
    let twice = host.bare(Method::GET, path).header("authorization", format!("Bearer {good}"));
    answers.push(Answer::of(twice.header("authorization", format!("Bearer {good}"))).await);
    for answer in &answers {
        answer.is(401, "Unauthenticated");
        assert_eq!(answer.header("www-authenticate"), "Bearer realm=\"toolbay\"");
        assert_eq!(answer.learnt(), answers[0].learnt());
    }
    host.act(&host.operator, "/api/v1/tenants/rival/resume").await;
    assert_eq!(host.get(&host.rival, path).await.status, 200);
    host.stop().await.unwrap();
}

#[tokio::test]
async fn a_rotated_key_goes_on_for_its_grace_and_no_longer() {
    let host = Host::start().await;
    let made =
        host.post(&host.operator, "/api/v1/keys", json!({ "role": "tenant", "tenant": "acme", "label": "a" })).await;
    let (old, id) = (made.body["secret"].as_str().unwrap().to_owned(), made.body["id"].as_str().unwrap().to_owned());
    let rotated =
        host.post(&host.operator, &format!("/api/v1/keys/{id}/rotate"), json!({ "grace_ms": 3_600_000 })).await;
    assert_eq!((rotated.status, &rotated.body["label"]), (201, &json!("a")));
    let new = rotated.body["secret"].as_str().unwrap().to_owned();
    for key in [&old, &new] {
        assert_eq!(host.get(key, "/api/v1/whoami").await.status, 200);
    }
    let at_once = host.act(&host.operator, &format!("/api/v1/keys/{id}/rotate")).await;
    assert_eq!(at_once.status, 201);
    host.get(&old, "/api/v1/whoami").await.is(401, "Unauthenticated");
    host.post(&host.operator, "/api/v1/keys", json!({ "role": "admin" })).await.is(403, "PermissionDenied");
    host.post(&host.acme, "/api/v1/keys", json!({ "role": "tenant", "tenant": "acme" }))
        .await
        .is(403, "PermissionDenied");
    let listed = host.get(&host.admin, "/api/v1/keys?tenant=acme").await;
    assert!(!listed.body.to_string().contains("secret"), "{listed:?}");
    host.stop().await.unwrap();
}

#[tokio::test]
async fn guessing_is_slowed_down_and_locks_nobody_out() {
    let host = Host::with(ServerOptions { failures_per_minute: 5, ..ServerOptions::default() }).await;
    for _ in 0..5 {
        host.get("tbk_000000000000_x", "/api/v1/whoami").await.is(401, "Unauthenticated");
    }
    for _ in 0..3 {
        host.get("tbk_000000000000_x", "/api/v1/whoami").await.is(429, "RateLimited");
        // From the same address.
        assert_eq!(host.get(&host.acme, "/api/v1/whoami").await.status, 200);
    }
    host.stop().await.unwrap();
}

#[tokio::test]
async fn a_key_is_held_to_its_rate_and_no_other_key_suffers() {
    let host = Host::start().await;
    let wanted = json!({ "role": "tenant", "tenant": "acme", "rate": 3 });
    let slow = host.post(&host.admin, "/api/v1/keys", wanted).await.body["secret"].as_str().unwrap().to_owned();
    for _ in 0..3 {
        assert_eq!(host.get(&slow, "/api/v1/whoami").await.status, 200);
    }
    host.get(&slow, "/api/v1/whoami").await.is(429, "RateLimited");
    assert_eq!(host.get(&host.acme, "/api/v1/whoami").await.status, 200);
    host.stop().await.unwrap();
}

#[tokio::test]
async fn the_first_admin_key_works_and_is_made_once() {
    let host = Host::start().await;
    let first = host.control.first_key().await.unwrap().expect("the first key");
    assert!(host.control.first_key().await.unwrap().is_none());
    assert_eq!(host.get(&first.secret, "/api/v1/whoami").await.body["role"], "admin");
    let wait = Duration::from_secs(5);
    tokio::time::timeout(wait, host.stop()).await.expect("it stops").unwrap();
}
