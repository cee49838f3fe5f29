//! What plugins keep for a time, compare and list in pieces: both stores do the same, and a script by the host's clock.

use std::time::Duration;

use serde_json::{Value, json};
use toolbay::{
    ErrorKind, FileKv, KvQuota, KvSpace, KvStore, KvValue, PermissionSet, PluginName, Scope, TenantId, Toolbay,
};
use toolbay_testkit::VirtualClock;

use crate::support::{outcome, tenant};

fn space() -> KvSpace {
    KvSpace { tenant: TenantId::new("acme").unwrap(), plugin: PluginName::new("todo").unwrap(), own: false }
}

fn until(end: i64, value: Value) -> KvValue {
    KvValue { value, expires_ms: Some(end) }
}

#[tokio::test]
async fn ends_are_in_the_file_and_files_from_before_there_were_any_are_read() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("acme")).unwrap();
    let file = folder.path().join("acme/todo.json");
    std::fs::write(&file, r#"{"old":1}"#).unwrap();
    let store = FileKv::open(folder.path()).unwrap();
    store.set(&space(), "new", until(100, json!(2)), KvQuota::default(), 0).await.unwrap();
    let another = FileKv::open(folder.path()).unwrap();
    assert_eq!(another.list(&space(), "", "", 9, 99).await.unwrap(), ["new", "old"]);
    assert_eq!(another.list(&space(), "", "", 9, 100).await.unwrap(), ["old"]);
    // The next to write clears up.
    another.set(&space(), "old", json!(3).into(), KvQuota::default(), 100).await.unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), r#"{"old":3}"#);
}

const SCRIPT: &str = r#"
const PLUGIN = #{ name: "keep", version: "1.0.0", description: "d", permissions: ["kv:read", "kv:write", "clock"], tools: #{
    put: #{ description: "d", parameters: #{ type: "object" } }, get: #{ description: "d", parameters: #{ type: "object" } },
    swap: #{ description: "d", parameters: #{ type: "object" } }, keys: #{ description: "d", parameters: #{ type: "object" } },
    time: #{ description: "d" } } };
fn put(args) { kv_set(args.key, args.value, args.options) }
fn get(args) { kv_get(args.key) }
fn swap(args) { kv_compare_and_set(args.key, args.from, args.to, args.options ?? #{}) }
fn keys(args) { kv_list("", args.limit, args.after) }
fn time(args) { now() }
"#;

async fn host(builder: toolbay::ToolbayBuilder) -> Toolbay {
    let bay = builder.build().unwrap();
    bay.load_source(Scope::Global, "keep.rhai", SCRIPT).await.unwrap();
    bay
}

#[tokio::test]
async fn a_script_keeps_values_for_a_time_by_the_hosts_clock() {
    let clock = VirtualClock::at_ms(5_000);
    let bay = host(toolbay::builder().clock(clock.clone()).grants(PermissionSet::standard())).await;
    let acme = bay.session("acme").unwrap();
    assert_eq!(outcome(&acme, "keep.time", json!({})).await, json!(5_000));
    let put = json!({ "key": "a", "value": [1], "options": { "ttl_ms": 1_000 } });
    outcome(&acme, "keep.put", put).await;
    clock.advance(Duration::from_millis(999));
    assert_eq!(outcome(&acme, "keep.get", json!({ "key": "a" })).await, json!([1]));
    clock.advance(Duration::from_millis(1));
    assert_eq!(outcome(&acme, "keep.get", json!({ "key": "a" })).await, Value::Null);
    // Without an option it is as without options.
    outcome(&acme, "keep.put", json!({ "key": "a", "value": 2, "options": {} })).await;
    clock.advance(Duration::from_secs(1_000_000));
    assert_eq!(outcome(&acme, "keep.get", json!({ "key": "a" })).await, json!(2));
    for options in [json!({ "ttl_ms": 0 }), json!({ "ttl_ms": 1.5 }), json!({ "ttl_ms": null }), json!({ "ttl": 5 })] {
        let refused = outcome(&acme, "keep.put", json!({ "key": "a", "value": 3, "options": options })).await;
        assert!(refused.to_string().contains("ttl_ms"), "{options}: {refused}");
    }
    assert_eq!(outcome(&acme, "keep.get", json!({ "key": "a" })).await, json!(2), "a refused write changed something");
}

#[tokio::test]
async fn a_script_compares_and_sets() {
    let clock = VirtualClock::at_ms(0);
    let bay = host(toolbay::builder().clock(clock.clone()).grants(PermissionSet::standard())).await;
    let acme = bay.session("acme").unwrap();
    let swap =
        async |old: Value, new: Value| outcome(&acme, "keep.swap", json!({ "key": "k", "from": old, "to": new })).await;
    assert_eq!(swap(json!(null), json!({ "n": 1.0 })).await, json!(true));
    assert_eq!(swap(json!(null), json!(2)).await, json!(false));
    assert_eq!(swap(json!({ "n": 1.0 }), json!(null)).await, json!(true));
    assert_eq!(outcome(&acme, "keep.keys", json!({ "limit": 9, "after": "" })).await, json!([]));
    // A lock that gives itself back.
    let lock = json!({ "key": "lock", "from": null, "to": "me", "options": { "ttl_ms": 100 } });
    assert_eq!(outcome(&acme, "keep.swap", lock.clone()).await, json!(true));
    assert_eq!(outcome(&acme, "keep.swap", lock.clone()).await, json!(false));
    clock.advance(Duration::from_millis(100));
    assert_eq!(outcome(&acme, "keep.swap", lock).await, json!(true));
    for key in ["a", "b"] {
        outcome(&acme, "keep.put", json!({ "key": key, "value": 1, "options": {} })).await;
    }
    assert_eq!(outcome(&acme, "keep.keys", json!({ "limit": 1, "after": "" })).await, json!(["a"]));
    assert_eq!(outcome(&acme, "keep.keys", json!({ "limit": 9, "after": "a" })).await, json!(["b", "lock"]));
}

#[tokio::test]
async fn to_compare_needs_both_grants() {
    for granted in ["kv:read", "kv:write"] {
        let bay = host(toolbay::builder().grants(PermissionSet::parse([granted]).unwrap())).await;
        let swap = json!({ "key": "k", "from": null, "to": 1 });
        let refused = outcome(&bay.session("acme").unwrap(), "keep.swap", swap).await;
        assert!(refused.as_str().is_some_and(|text| text.starts_with("PermissionDenied")), "{granted}: {refused}");
    }
    let source = SCRIPT.replace(r#"permissions: ["kv:read", "#, "permissions: [");
    let bay = toolbay::builder().build().unwrap();
    let error = bay.load_source(tenant("acme"), "keep.rhai", &source).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::PermissionDenied);
    assert!(error.message.contains("\"kv:read\""), "{error}");
}
