//! Routes of native plugins.

use reqwest::Method;
use serde_json::json;
use toolbay_api::{PluginName, Scope};

use crate::support::{Answer, Host};

#[tokio::test]
async fn a_native_plugins_routes_are_served_behind_the_same_keys_and_checks() {
    let host = Host::start().await;
    let got =
        Answer::of(host.ask(&host.acme, Method::GET, "/plugins/shop/orders/7?full=yes").header("toolbay-user", "u-1"))
            .await;
    assert_eq!((got.status, got.body), (200, json!({ "id": "7", "tenant": "acme", "user": "u-1" })));
    let placed = host.post(&host.acme, "/plugins/shop/orders", json!({ "count": 2 })).await;
    assert_eq!((placed.status, placed.body), (201, json!({ "count": 2 })));
    Answer::of(host.bare(Method::GET, "/plugins/shop/orders/7")).await.is(401, "Unauthenticated");
    host.get(&host.admin, "/plugins/shop/orders/7").await.is(403, "PermissionDenied");
    host.get(&host.acme, "/plugins/shop/orders/7?full=maybe").await.is(400, "InvalidArguments");
    host.get(&host.acme, "/plugins/shop/orders/7?colour=red").await.is(400, "InvalidArguments");
    host.post(&host.acme, "/plugins/shop/orders", json!({ "count": "two" })).await.is(400, "InvalidArguments");
    host.post(&host.acme, "/plugins/shop/orders", json!({ "count": 13 })).await.is(409, "Conflict");
    host.get(&host.acme, "/plugins/shop/nowhere").await.is(404, "NotFound");
    host.get(&host.acme, "/plugins/other/orders/7").await.is(404, "NotFound");
    let wrong = host.get(&host.acme, "/plugins/shop/orders").await;
    assert_eq!(wrong.is(405, "MethodNotAllowed").header("allow"), "POST");
    let text =
        host.ask(&host.acme, Method::POST, "/plugins/shop/orders").header("content-type", "text/plain").body("x");
    Answer::of(text).await.is(415, "UnsupportedMediaType");
    let broken = host.get(&host.acme, "/plugins/shop/broken").await;
    broken.is(422, "Panic");
    assert!(!broken.body.to_string().contains("the code of a route"), "{broken:?}");
    host.stop().await.unwrap();
}

#[tokio::test]
async fn they_are_gone_where_the_tenant_has_the_plugin_switched_off_and_when_it_is_unregistered() {
    let host = Host::start().await;
    let documented = async |key: &str| {
        let document = host.get(key, "/api/v1/openapi.json").await;
        document.body["paths"].get("/plugins/shop/orders/{id}").is_some()
    };
    assert!(documented(&host.acme).await && documented(&host.admin).await);
    let open = Answer::of(host.bare(Method::GET, "/api/v1/openapi.json")).await;
    assert!(open.body["paths"].get("/plugins/shop/orders/{id}").is_none(), "which plugins there are is for keys");
    assert_eq!(host.act(&host.acme, "/api/v1/plugins/shop/disable").await.status, 200);
    host.get(&host.acme, "/plugins/shop/orders/7").await.is(404, "NotFound");
    assert!(!documented(&host.acme).await && documented(&host.rival).await);
    assert_eq!(host.get(&host.rival, "/plugins/shop/orders/7").await.status, 200);
    host.act(&host.acme, "/api/v1/plugins/shop/enable").await;
    assert_eq!(host.get(&host.acme, "/plugins/shop/orders/7").await.status, 200);
    let shop = PluginName::new("shop").unwrap();
    host.control.toolbay().unregister(&Scope::Global, &shop).await.expect("it goes");
    host.get(&host.rival, "/plugins/shop/orders/7").await.is(404, "NotFound");
    assert!(!documented(&host.admin).await);
    host.stop().await.unwrap();
}
