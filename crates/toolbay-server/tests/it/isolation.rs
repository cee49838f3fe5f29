//! One tenant's key on another tenant's things: every route answers as it does for what is not there.

use reqwest::Method;
use serde_json::{Value, json};
use toolbay_api::{Scope, TenantId};
use toolbay_runtime::store::{Expected, RunRow};
use uuid::Uuid;

use crate::support::{Answer, Host, script, shop};

/// What the rival has, and what nobody has, of equal lengths.
struct Names {
    tenant: [&'static str; 2],
    plugin: [&'static str; 2],
    tool: [&'static str; 2],
    secret: [&'static str; 2],
    run: [String; 2],
    key: [String; 2],
}

impl Names {
    fn fill(&self, path: &str, which: usize) -> String {
        path.replace("{tenant}", self.tenant[which])
            .replace("{plugin}", self.plugin[which])
            .replace("{tool}", self.tool[which])
            .replace("{secret}", self.secret[which])
            .replace("{run}", &self.run[which])
            .replace("{key}", &self.key[which])
            .replace("{id}", "7")
    }

    /// An answer without the names that the caller wrote.
    fn without(&self, answer: &Answer, which: usize) -> (u16, Vec<(String, String)>, Value) {
        let (status, mut headers, body) = answer.learnt();
        let mut text = body.to_string();
        for name in [self.tenant[which], self.tool[which], self.plugin[which], self.secret[which]] {
            text = text.replace(name, "NAME");
        }
        text = text.replace(&self.run[which], "ID").replace(&self.key[which], "ID");
        let mut body: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
        if let Some(fields) = body.get_mut("metadata").and_then(Value::as_object_mut) {
            fields.remove("duration_ms");
            // As many digits as the time has.
            headers.retain(|(name, _)| name != "content-length");
        }
        (status, headers, body)
    }
}

async fn rivals(host: &Host) -> Names {
    host.install(&host.rival, "/api/v1", "vaultkeep", script("vaultkeep", "1.0.0", "the rival's")).await;
    host.put(&host.rival, "/api/v1/plugins/vaultkeep/config", json!({ "config": { "tone": "soft" } })).await;
    host.put(&host.operator, "/api/v1/tenants/rival/secrets/VAULT_PIN", json!({ "reference": "RIVALS_PIN" })).await;
    let native = shop();
    let native = native.with(|metadata| metadata.name = toolbay_api::PluginName::new("backroom").unwrap());
    host.control.toolbay().register(Scope::tenant("rival").unwrap(), native).await.expect("backroom is registered");
    let run = Uuid::now_v7();
    let row = RunRow {
        id: run,
        tenant: TenantId::new("rival").unwrap(),
        status: "finished".to_owned(),
        started_at: 1,
        updated_at: 2,
        state: json!({ "said": "secret" }),
        revision: 1,
    };
    host.control.store().put_run(row, Expected::Absent).await.expect("a run");
    let keys = host.get(&host.admin, "/api/v1/keys?tenant=rival").await;
    let key = keys.body["items"][0]["id"].as_str().expect("the rival's key").to_owned();
    Names {
        tenant: ["rival", "nobod"],
        plugin: ["vaultkeep", "nowhereat"],
        tool: ["vaultkeep", "nowhereat"],
        secret: ["VAULT_PIN", "OTHER_PIN"],
        run: [run.to_string(), Uuid::now_v7().to_string()],
        key: [key, Uuid::now_v7().to_string()],
    }
}

#[tokio::test]
async fn every_route_answers_for_anothers_things_as_for_what_is_not_there() {
    let host = Host::start().await;
    let names = rivals(&host).await;
    let document = host.get(&host.rival, "/api/v1/openapi.json").await.body;
    let before = host.get(&host.rival, "/api/v1/plugins/vaultkeep").await;
    let mut seen = 0;
    for (path, item) in document["paths"].as_object().expect("paths") {
        // The rival's own native plugin stands in the rival's document by its name.
        let path = path.replace("/plugins/backroom", "/plugins/{plugin}");
        // Everybody has the shop.
        if !path.contains('{') || path.starts_with("/plugins/shop") {
            continue;
        }
        for (method, operation) in item.as_object().expect("operations") {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let mut answers = Vec::new();
            for which in [0, 1] {
                let mut path = names.fill(&path, which);
                if operation["operationId"].as_str().is_some_and(|id| id.starts_with("upload")) {
                    path.push_str("?file_name=a.rhai");
                }
                let asked = host.ask(&host.acme, method.clone(), &path);
                let content = operation["requestBody"]["content"].as_object();
                let asked = match content {
                    None => asked,
                    Some(content) if content.contains_key("text/plain") => {
                        asked.header("content-type", "text/plain").body(script("a", "1.0.0", "a"))
                    }
                    Some(content) => {
                        let example = content["application/json"].get("example").cloned();
                        asked.json(&example.unwrap_or_else(|| json!({ "count": 1 })))
                    }
                };
                let answer = Answer::of(asked).await;
                assert!(answer.status >= 400 || answer.body["success"] == false, "{method} {path}: {answer:#?}");
                assert!(answer.status < 500, "{method} {path}: {answer:#?}");
                answers.push(names.without(&answer, which));
            }
            assert_eq!(answers[0], answers[1], "{method} {path}");
            seen += 1;
        }
    }
    assert!(seen >= 50, "only {seen} operations were tried");
    let after = host.get(&host.rival, "/api/v1/plugins/vaultkeep").await;
    assert_eq!(before.body, after.body, "nothing was changed");
    host.stop().await.unwrap();
}

#[tokio::test]
async fn lists_and_documents_hold_nothing_of_anothers() {
    let host = Host::start().await;
    rivals(&host).await;
    for path in [
        "/api/v1/plugins",
        "/api/v1/tools",
        "/api/v1/audit",
        "/api/v1/runs",
        "/api/v1/quarantine",
        "/api/v1/openapi.json",
        "/api/v1/whoami",
        "/api/v1/keys?tenant=rival",
        "/api/v1/tenants",
        "/api/v1/status",
        "/metrics",
    ] {
        let answer = host.get(&host.acme, path).await;
        let text = answer.body.to_string();
        for name in ["rival", "vaultkeep", "backroom", "VAULT"] {
            assert!(!text.contains(name), "{path} tells of {name}: {text}");
        }
    }
    let document = host.get(&host.rival, "/api/v1/openapi.json").await;
    assert!(document.body["paths"].get("/plugins/backroom/orders/{id}").is_some());
    host.stop().await.unwrap();
}

#[tokio::test]
async fn a_cursor_of_anothers_list_opens_nothing() {
    let host = Host::start().await;
    let names = rivals(&host).await;
    for path in ["/api/v1/audit", "/api/v1/runs", "/api/v1/plugins"] {
        let theirs = host.get(&host.rival, &format!("{path}?limit=1")).await;
        let cursor = theirs.body["next"].as_str().unwrap_or(&names.run[0]).to_owned();
        let escaped: String = cursor.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = host.get(&host.acme, &format!("{path}?cursor={escaped}")).await;
        assert!(matches!(answer.status, 200 | 400), "{answer:?}");
        assert!(!answer.body.to_string().contains("vaultkeep"), "{answer:?}");
    }
    host.stop().await.unwrap();
}
