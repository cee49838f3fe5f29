//! What the API does where all goes well.

use reqwest::Method;
use serde_json::json;

use crate::support::{Answer, Host, script};

#[tokio::test]
async fn a_tenant_uploads_installs_calls_upgrades_goes_back_and_removes() {
    let host = Host::start().await;
    let key = &host.acme;
    host.install(key, "/api/v1", "hello", script("hello", "1.0.0", "one")).await;
    let called = host.post(key, "/api/v1/tools/hello/call", json!({ "arguments": {} })).await;
    assert_eq!((called.status, &called.body["success"], &called.body["data"]), (200, &json!(true), &json!("one")));
    let sent = host.ask(key, Method::POST, "/api/v1/plugins?file_name=hello.rhai").header("content-type", "text/plain");
    let uploaded = Answer::of(sent.body(script("hello", "1.1.0", "two"))).await;
    assert_eq!(uploaded.status, 201);
    assert_eq!(uploaded.header("location"), "/api/v1/plugins/hello/versions");
    // Not installed by that.
    assert_eq!(host.post(key, "/api/v1/tools/hello/call", json!({})).await.body["data"], "one");
    let versions = host.get(key, "/api/v1/plugins/hello/versions").await;
    let listed: Vec<_> =
        versions.body["items"].as_array().unwrap().iter().map(|item| item["version"].clone()).collect();
    assert_eq!(listed, [json!("1.1.0"), json!("1.0.0")]);
    let upgraded = host.post(key, "/api/v1/plugins/hello/install", json!({ "version": "1.1.0" })).await;
    assert_eq!((upgraded.status, &upgraded.body["previous"]), (200, &json!("1.0.0")));
    assert_eq!(host.post(key, "/api/v1/tools/hello/call", json!({})).await.body["data"], "two");
    assert_eq!(host.act(key, "/api/v1/plugins/hello/rollback").await.body["version"], "1.0.0");
    assert_eq!(host.post(key, "/api/v1/tools/hello/call", json!({})).await.body["data"], "one");
    assert_eq!(host.act(key, "/api/v1/plugins/hello/reload").await.status, 204);
    assert_eq!(host.delete(key, "/api/v1/plugins/hello?purge=true").await.status, 204);
    host.get(key, "/api/v1/plugins/hello").await.is(404, "NotFound");
    let called = host.post(key, "/api/v1/tools/hello/call", json!({})).await;
    assert_eq!((called.status, &called.body["error"]["kind"]), (200, &json!("NotFound")));
    host.stop().await.unwrap();
}

#[tokio::test]
async fn a_plugin_is_switched_configured_and_preferred() {
    let host = Host::start().await;
    let key = &host.acme;
    host.install(key, "/api/v1", "hello", script("hello", "1.0.0", "one")).await;
    let off = host.act(key, "/api/v1/plugins/hello/disable").await;
    assert_eq!((off.status, &off.body["enabled"]), (200, &json!(false)));
    let called = host.post(key, "/api/v1/tools/hello/call", json!({})).await;
    assert_eq!(called.body["success"], false);
    assert_eq!(host.act(key, "/api/v1/plugins/hello/enable").await.body["enabled"], true);
    let config = json!({ "config": { "tone": "loud", "token": "s3cr3t" } });
    let put = host.put(key, "/api/v1/plugins/hello/config", config).await;
    assert_eq!((put.status, &put.body["config"]), (200, &json!({ "tone": "loud", "token": "***" })));
    let shown = host.get(key, "/api/v1/plugins/hello/config").await;
    assert_eq!(shown.body["config"], json!({ "tone": "loud", "token": "***" }));
    assert_eq!(shown.body["effective"], json!(null), "what the host says is none of the tenant's business");
    host.put(key, "/api/v1/plugins/hello/config", json!({ "config": { "tone": "shrill" } })).await.is(422, "Config");
    assert_eq!(host.delete(key, "/api/v1/plugins/hello/config").await.body["config"], json!(null));
    let preferred = host.put(key, "/api/v1/plugins/hello/priority", json!({ "priority": -3 })).await;
    assert_eq!(preferred.body["priority"], -3);
    assert_eq!(host.get(key, "/api/v1/plugins/hello").await.body["priority"], -3);
    let status = host.get(key, "/api/v1/plugins/hello/status").await;
    assert_eq!((status.status, &status.body["state"]), (200, &json!("Active")));
    let health = host.get(key, "/api/v1/plugins/hello/health").await;
    assert_eq!((&health.body["well"], health.body["figures"].is_object()), (&json!(true), true));
    host.stop().await.unwrap();
}

#[tokio::test]
async fn operators_reach_every_tenant_and_admins_what_is_for_everybody() {
    let host = Host::start().await;
    host.install(&host.operator, "/api/v1/tenants/acme", "hello", script("hello", "1.0.0", "one")).await;
    assert_eq!(host.post(&host.acme, "/api/v1/tools/hello/call", json!({})).await.body["data"], "one");
    host.install(&host.admin, "/api/v1/global", "bye", script("bye", "1.0.0", "all")).await;
    assert_eq!(host.post(&host.rival, "/api/v1/tools/bye/call", json!({})).await.body["data"], "all");
    host.act(&host.operator, "/api/v1/global/plugins/bye/disable").await.is(403, "PermissionDenied");
    host.act(&host.acme, "/api/v1/global/plugins/bye/disable").await.is(403, "PermissionDenied");
    let figures = host.get(&host.acme, "/api/v1/plugins/bye/health").await;
    assert_eq!((figures.status, &figures.body["figures"]), (200, &json!(null)), "others' calls are in them");
    let made = host.post(&host.operator, "/api/v1/tenants", json!({ "name": "third" })).await;
    assert_eq!((made.status, made.header("location")), (201, "/api/v1/tenants/third"));
    assert_eq!(host.get(&host.operator, "/api/v1/tenants/third/plugins").await.status, 200);
    host.get(&host.operator, "/api/v1/tenants/fourth/plugins").await.is(404, "NotFound");
    assert_eq!(host.get(&host.acme, "/api/v1/tenants/acme").await.body["name"], "acme");
    assert_eq!(host.delete(&host.admin, "/api/v1/tenants/third").await.status, 204);
    host.get(&host.operator, "/api/v1/tenants/third/plugins").await.is(404, "NotFound");
    assert_eq!(host.get(&host.operator, "/api/v1/tenants/third/audit").await.status, 200, "the audit stays");
    let put = host
        .put(&host.operator, "/api/v1/tenants/acme/secrets/STRIPE_KEY", json!({ "reference": "ACME_STRIPE" }))
        .await;
    assert_eq!(put.status, 200, "{put:?}");
    let listed = host.get(&host.operator, "/api/v1/tenants/acme/secrets").await;
    let expected = json!({ "items": [{ "name": "STRIPE_KEY", "reference": "ACME_STRIPE" }], "next": null });
    assert_eq!((listed.status, &listed.body), (200, &expected));
    host.get(&host.acme, "/api/v1/tenants/acme/secrets").await.is(403, "PermissionDenied");
    host.get(&host.operator, "/api/v1/tenants/fourth/secrets").await.is(404, "NotFound");
    assert_eq!(host.delete(&host.operator, "/api/v1/tenants/acme/secrets/STRIPE_KEY").await.status, 204);
    let listed = host.get(&host.operator, "/api/v1/tenants/acme/secrets").await;
    assert_eq!(listed.body["items"], json!([]));
    host.put(&host.acme, "/api/v1/tenants/acme/secrets/STRIPE_KEY", json!({ "reference": "RIVAL_STRIPE" }))
        .await
        .is(403, "PermissionDenied");
    host.stop().await.unwrap();
}

#[tokio::test]
async fn lists_come_in_parts_that_meet() {
    let host = Host::start().await;
    for name in ["one", "two", "three", "four"] {
        host.post(&host.operator, "/api/v1/tenants", json!({ "name": name })).await;
        host.install(&host.acme, "/api/v1", name, script(name, "1.0.0", name)).await;
        let secret = format!("/api/v1/tenants/acme/secrets/{}", name.to_uppercase());
        host.put(&host.operator, &secret, json!({ "reference": "VAULT" })).await;
    }
    for (key, path) in [
        (&host.operator, "/api/v1/tenants"),
        (&host.acme, "/api/v1/plugins"),
        (&host.acme, "/api/v1/audit"),
        (&host.admin, "/api/v1/keys"),
        (&host.operator, "/api/v1/tenants/acme/secrets"),
    ] {
        let field = if path.ends_with("audit") {
            "sequence"
        } else if path.ends_with("keys") {
            "id"
        } else {
            "name"
        };
        let whole = host.get(key, path).await.body["items"].clone();
        let whole: Vec<_> = whole.as_array().unwrap().iter().map(|item| item[field].clone()).collect();
        assert!(whole.len() >= 4, "{path}: {whole:?}");
        let (mut parts, mut cursor) = (Vec::new(), String::new());
        loop {
            let part = host.get(key, &format!("{path}?limit=2{cursor}")).await;
            assert_eq!(part.status, 200, "{part:?}");
            let items = part.body["items"].as_array().unwrap();
            assert!(items.len() <= 2);
            parts.extend(items.iter().map(|item| item[field].clone()));
            let Some(next) = part.body["next"].as_str() else { break };
            let escaped: String = next.bytes().map(|byte| format!("%{byte:02X}")).collect();
            cursor = format!("&cursor={escaped}");
        }
        assert_eq!(parts, whole, "{path}");
    }
    host.stop().await.unwrap();
}

#[tokio::test]
async fn tools_are_listed_for_every_provider() {
    let host = Host::start().await;
    let first = async |format: &str| {
        let listed = host.get(&host.acme, &format!("/api/v1/tools?format={format}")).await;
        listed.body["tools"][0].clone()
    };
    assert_eq!(first("openai").await["function"]["name"], "shop__echo");
    assert_eq!(first("anthropic").await["input_schema"]["type"], "object");
    assert_eq!(first("mcp").await["inputSchema"]["type"], "object");
    assert_eq!(first("full").await["plugin"], "shop");
    let called =
        host.post(&host.acme, "/api/v1/tools/shop__echo/call", json!({ "arguments": { "text": "a" }, "user": "u" }));
    assert_eq!(called.await.body["data"], "a");
    let wrong = host.post(&host.acme, "/api/v1/tools/shop.echo/call", json!({ "arguments": { "txt": 1 } })).await;
    assert_eq!((wrong.status, &wrong.body["error"]["kind"]), (200, &json!("InvalidArguments")));
    assert_eq!(wrong.body["data"], json!(null));
    host.stop().await.unwrap();
}

#[tokio::test]
async fn the_audit_has_every_change_and_is_whole() {
    let host = Host::start().await;
    host.install(&host.acme, "/api/v1", "hello", script("hello", "1.0.0", "one")).await;
    host.act(&host.acme, "/api/v1/plugins/hello/disable").await;
    let lines = host.get(&host.acme, "/api/v1/audit?action=plugin.").await;
    let actions: Vec<_> = lines.body["items"].as_array().unwrap().iter().map(|line| line["action"].clone()).collect();
    assert_eq!(actions, [json!("plugin.install"), json!("plugin.disable")]);
    let newest = host.get(&host.acme, "/api/v1/audit?order=newest&limit=1").await;
    assert_eq!(newest.body["items"][0]["action"], "plugin.disable");
    let verdict = host.get(&host.acme, "/api/v1/audit/verify").await;
    assert_eq!(verdict.body["whole"], true);
    host.stop().await.unwrap();
}
