//! What plugins keep for a time, compare and list in pieces: both stores do the same, and a script by the host's clock.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use toolbay::{
    ErrorKind, FileKv, KvQuota, KvSpace, KvStore, KvValue, Limit, MemoryKv, PermissionSet, PluginName, Scope, TenantId,
    Toolbay,
};
use toolbay_testkit::VirtualClock;

use crate::support::{outcome, tenant};

fn space() -> KvSpace {
    KvSpace { tenant: TenantId::new("acme").unwrap(), plugin: PluginName::new("todo").unwrap(), own: false }
}

fn until(end: i64, value: Value) -> KvValue {
    KvValue { value, expires_ms: Some(end) }
}

/// Both stores, the second in a folder that is kept as long.
fn stores() -> (tempfile::TempDir, [Arc<dyn KvStore>; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let in_files = FileKv::open(folder.path()).unwrap();
    (folder, [Arc::new(MemoryKv::default()), Arc::new(in_files)])
}

#[tokio::test]
async fn what_is_over_is_gone_for_every_reader_at_once() {
    let (_folder, stores) = stores();
    for store in stores {
        let (mine, quota) = (space(), KvQuota::default());
        store.set(&mine, "a", until(100, json!(1)), quota, 0).await.unwrap();
        store.set(&mine, "b", json!(2).into(), quota, 0).await.unwrap();
        assert_eq!(store.get(&mine, "a", 99).await.unwrap(), Some(json!(1)));
        assert_eq!(store.list(&mine, "", "", 9, 99).await.unwrap(), ["a", "b"]);
        assert_eq!(store.get(&mine, "a", 100).await.unwrap(), None);
        assert_eq!(store.list(&mine, "", "", 9, 100).await.unwrap(), ["b"]);
        assert!(!store.delete(&mine, "a", 100).await.unwrap());
        assert!(store.compare_and_set(&mine, "a", None, Some(json!(3).into()), quota, 100).await.unwrap());
        // Written anew without an end, it has none.
        assert_eq!(store.get(&mine, "a", i64::MAX).await.unwrap(), Some(json!(3)));
    }
}

#[tokio::test]
async fn a_quota_counts_what_lives() {
    let (_folder, stores) = stores();
    for store in stores {
        let (mine, quota) = (space(), KvQuota { max_keys: 100, max_bytes: 1_000, max_value_bytes: 900 });
        for n in 0..100 {
            store.set(&mine, &format!("{n:02}"), until(50, json!(1)), quota, 0).await.unwrap();
        }
        let full = store.set(&mine, "more", json!(1).into(), quota, 49).await.unwrap_err();
        assert_eq!(full.kind, ErrorKind::LimitExceeded { limit: Limit::Storage, allowed: 100, used: 101 });
        // More is over than one operation takes away, and none of it stands in the way.
        store.set(&mine, "more", json!("x".repeat(880)).into(), quota, 50).await.unwrap();
        for n in 0..33 {
            store.set(&mine, &format!("{n:02}"), json!(1).into(), quota, 50).await.unwrap();
        }
        let full = store.set(&mine, "99", json!("x".repeat(30)).into(), quota, 50).await.unwrap_err();
        assert!(matches!(full.kind, ErrorKind::LimitExceeded { limit: Limit::Storage, allowed: 1_000, .. }), "{full}");
    }
}

#[tokio::test]
async fn a_comparison_is_with_the_whole_value_and_null_is_nothing() {
    let (_folder, stores) = stores();
    for store in stores {
        let (mine, quota) = (space(), KvQuota { max_value_bytes: 20, ..KvQuota::default() });
        let set = async |expected: Value, new: Value| {
            store.compare_and_set(&mine, "k", Some(expected), Some(new.into()), quota, 0).await
        };
        assert!(!set(json!(1), json!(2)).await.unwrap(), "there was nothing to compare with");
        assert!(set(Value::Null, json!({ "a": 1, "b": [2] })).await.unwrap());
        assert!(!set(Value::Null, json!(2)).await.unwrap());
        assert!(!set(json!({ "a": 1, "b": [3] }), json!(2)).await.unwrap());
        let large = set(json!({ "b": [2], "a": 1 }), json!("x".repeat(20))).await.unwrap_err();
        assert!(matches!(large.kind, ErrorKind::LimitExceeded { limit: Limit::Storage, .. }), "{large}");
        assert!(set(json!({ "b": [2], "a": 1 }), json!(2)).await.unwrap(), "the refused value changed something");
        assert!(set(json!(2), Value::Null).await.unwrap());
        assert_eq!(store.list(&mine, "", "", 9, 0).await.unwrap(), [""; 0], "null as the new value forgets the key");
        store.set(&mine, "k", Value::Null.into(), quota, 0).await.unwrap();
        assert!(store.compare_and_set(&mine, "k", None, None, quota, 0).await.unwrap());
        let no_key = store.compare_and_set(&mine, "", None, None, quota, 0).await.unwrap_err();
        assert_eq!(no_key.kind, ErrorKind::InvalidArguments);
    }
}

#[tokio::test]
async fn a_listing_goes_on_after_the_last_key_of_the_one_before() {
    let (_folder, stores) = stores();
    for store in stores {
        let (mine, quota) = (space(), KvQuota::default());
        for key in ["a", "b:1", "b:2", "b:3", "c"] {
            store.set(&mine, key, json!(1).into(), quota, 0).await.unwrap();
        }
        assert_eq!(store.list(&mine, "b:", "", 2, 0).await.unwrap(), ["b:1", "b:2"]);
        assert_eq!(store.list(&mine, "b:", "b:2", 2, 0).await.unwrap(), ["b:3"]);
        assert_eq!(store.list(&mine, "b:", "b:3", 2, 0).await.unwrap(), [""; 0]);
        // A key that was deleted since, one before all of them, and one after.
        assert_eq!(store.list(&mine, "b:", "b:15", 9, 0).await.unwrap(), ["b:2", "b:3"]);
        assert_eq!(store.list(&mine, "b:", "a", 1, 0).await.unwrap(), ["b:1"]);
        assert_eq!(store.list(&mine, "b:", "z", 9, 0).await.unwrap(), [""; 0]);
    }
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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn eight_that_count_at_once_lose_nothing() {
    let (_folder, stores) = stores();
    for store in stores {
        let mut tasks = Vec::new();
        for _ in 0..8 {
            let store = Arc::clone(&store);
            tasks.push(tokio::spawn(async move {
                for _ in 0..125 {
                    loop {
                        let old = store.get(&space(), "count", 0).await.unwrap();
                        let new = json!(old.as_ref().and_then(Value::as_u64).unwrap_or(0) + 1);
                        let quota = KvQuota::default();
                        let done = store.compare_and_set(&space(), "count", old, Some(new.into()), quota, 0).await;
                        if done.unwrap() {
                            break;
                        }
                    }
                }
            }));
        }
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(store.get(&space(), "count", 0).await.unwrap(), Some(json!(1_000)));
    }
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
