//! The server itself: probes, counts, its document and the page that shows it.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, Host};

#[tokio::test]
async fn probes_answer_and_counts_have_bounded_labels() {
    let host = Host::start().await;
    for path in ["/healthz", "/readyz"] {
        let answer = Answer::of(host.bare(Method::GET, path)).await;
        assert_eq!((answer.status, answer.body), (200, json!({ "status": "ok" })));
    }
    for number in 0..50 {
        host.get(&host.acme, &format!("/api/v1/plugins/made-up-{number}")).await;
        host.post(&host.acme, &format!("/api/v1/tools/made_up_{number}/call"), json!({})).await;
        host.get(&host.acme, &format!("/made/up/{number}")).await;
        host.get(&host.acme, &format!("/plugins/made-up-{number}/x")).await;
        Answer::of(host.ask(&host.acme, Method::from_bytes(format!("MADE{number}").as_bytes()).unwrap(), "/healthz"))
            .await;
    }
    Answer::of(host.bare(Method::GET, "/metrics")).await.is(401, "Unauthenticated");
    host.get(&host.acme, "/metrics").await.is(403, "PermissionDenied");
    let text = host.get(&host.operator, "/metrics").await.body.as_str().expect("text").to_owned();
    for wanted in [
        "toolbay_http_requests_total{method=\"GET\",route=\"/api/v1/plugins/{plugin}\",status=\"404\"} 50",
        "toolbay_http_requests_total{method=\"GET\",route=\"other\",status=\"404\"} 50",
        "toolbay_http_requests_total{method=\"other\",route=\"other\",status=\"405\"} 50",
        "toolbay_tool_calls_total{outcome=\"NotFound\"} 50",
        "toolbay_store_ready 1",
    ] {
        assert!(text.contains(wanted), "{wanted} is not in\n{text}");
    }
    assert!(!text.to_lowercase().contains("made") && !text.contains("acme"), "{text}");
    host.stop().await.unwrap();
}

#[tokio::test]
async fn the_document_is_sound_and_has_every_route_with_its_errors() {
    let host = Host::start().await;
    let document = host.get(&host.acme, "/api/v1/openapi.json").await.body;
    assert_eq!(document["openapi"], "3.1.0");
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let place = format!("{method} {path}");
            assert!(
                ids.insert(operation["operationId"].as_str().unwrap().to_owned()),
                "{place}: its id is there twice"
            );
            for status in ["400", "500", "503"] {
                let problem = &operation["responses"][status]["content"]["application/problem+json"];
                assert_eq!(problem["schema"]["$ref"], "#/components/schemas/Problem", "{place} {status}");
                assert_eq!(problem["example"]["status"].to_string(), status);
            }
            for part in path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
                let parameters = operation["parameters"].as_array().expect("parameters");
                assert!(parameters.iter().any(|param| param["name"] == part && param["in"] == "path"), "{place}");
            }
        }
    }
    let mut references = BTreeSet::new();
    collect(&document, &mut references);
    for reference in references {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference} leads nowhere");
    }
    for wanted in ["listPlugins", "uploadPluginOfTenant", "enablePluginGlobal", "callTool", "verifyAudit", "streamRuns"]
    {
        assert!(ids.contains(wanted), "{wanted}");
    }
    host.stop().await.unwrap();
}

fn collect(value: &Value, references: &mut BTreeSet<String>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| collect(item, references)),
        Value::Object(fields) => {
            references.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            fields.values().for_each(|value| collect(value, references));
        }
        _ => {}
    }
}

#[tokio::test]
async fn the_page_of_the_document_needs_nothing_from_elsewhere() {
    let host = Host::start().await;
    let page = Answer::of(host.bare(Method::GET, "/docs")).await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.header("content-security-policy").contains("default-src 'none'"));
    for path in ["/docs/docs.js", "/docs/docs.css"] {
        assert!(page.body.as_str().unwrap().contains(path));
        let part = Answer::of(host.bare(Method::GET, path)).await;
        assert_eq!(part.status, 200);
        let text = part.body.as_str().unwrap();
        assert!(!text.contains("http://") && !text.contains("https://") && !text.contains("innerHTML"));
    }
    host.stop().await.unwrap();
}
