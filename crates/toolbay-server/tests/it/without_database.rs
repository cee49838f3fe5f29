//! The database is away: what needs it says so, and everything else goes on.

use reqwest::Method;
use serde_json::json;
use toolbay_store::SqlStore;

use crate::support::{Answer, Host, script};

#[tokio::test]
async fn writes_answer_503_and_calls_go_on_from_what_was_read_last() {
    let host = Host::start().await;
    host.install(&host.acme, "/api/v1", "hello", script("hello", "1.0.0", "one")).await;
    let store: &SqlStore = &host.store;
    store.close().await;
    let key = &host.acme;
    host.act(key, "/api/v1/plugins/hello/disable").await.is(503, "Unavailable");
    host.put(key, "/api/v1/plugins/hello/priority", json!({ "priority": 1 })).await.is(503, "Unavailable");
    host.get(key, "/api/v1/audit").await.is(503, "Unavailable");
    host.post(&host.admin, "/api/v1/keys", json!({ "role": "operator" })).await.is(503, "Unavailable");
    let once = host.ask(key, Method::POST, "/api/v1/plugins/hello/disable").header("idempotency-key", "a");
    Answer::of(once).await.is(503, "Unavailable");
    let called = host.post(key, "/api/v1/tools/hello/call", json!({})).await;
    assert_eq!((called.status, &called.body["data"]), (200, &json!("one")));
    assert_eq!(host.get(key, "/api/v1/plugins").await.status, 200);
    assert_eq!(host.get(key, "/plugins/shop/orders/7").await.status, 200);
    // Whoever follows the store finds out.
    let _ = host.control.sync().await;
    Answer::of(host.bare(Method::GET, "/readyz")).await.is(503, "Unavailable");
    assert_eq!(Answer::of(host.bare(Method::GET, "/healthz")).await.status, 200);
    let text = host.get(&host.operator, "/metrics").await.body.to_string();
    assert!(text.contains("toolbay_store_ready 0"), "{text}");
    host.get("tbk_000000000000_x", "/api/v1/whoami").await.is(401, "Unauthenticated");
    host.stop().await.unwrap();
}
