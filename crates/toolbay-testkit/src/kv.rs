//! What every key-value store owes its host: [`check_kv`].
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "a check that fails panics and says what was wrong, as an assertion of a test does"
)]

use std::sync::Arc;

use serde_json::{Value, json};
use toolbay_api::{ErrorKind, Limit, PluginName, TenantId};
use toolbay_runtime::kv::{KvQuota, KvSpace, KvStore, KvValue};

/// Checks that `store` does what the port [`KvStore`] says: spaces apart, quotas, ends, comparisons, lists, and that
/// writers at the same time lose nothing. It must be new, and know the tenants `acme` and `globex`.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let store = std::sync::Arc::new(toolbay_runtime::MemoryKv::default());
/// toolbay_testkit::check_kv(store).await;
/// # });
/// ```
///
/// # Panics
/// Where it does not, saying what was wrong.
pub async fn check_kv(store: Arc<dyn KvStore>) {
    keeps_within_the_quota_and_apart(&*store).await;
    what_is_over_is_gone_for_every_reader_at_once(&*store).await;
    a_quota_counts_what_lives(&*store).await;
    a_comparison_is_with_the_whole_value_and_null_is_nothing(&*store).await;
    a_listing_goes_on_after_the_last_key_of_the_one_before(&*store).await;
    eight_that_count_at_once_lose_nothing(&store).await;
}

fn space(tenant: &str, plugin: &str) -> KvSpace {
    KvSpace { tenant: TenantId::new(tenant).unwrap(), plugin: PluginName::new(plugin).unwrap(), own: false }
}

fn until(end: i64, value: Value) -> KvValue {
    KvValue { value, expires_ms: Some(end) }
}

async fn keeps_within_the_quota_and_apart(store: &dyn KvStore) {
    let (mine, quota) = (space("acme", "keeps"), KvQuota { max_keys: 3, max_bytes: 100, max_value_bytes: 60 });
    assert_eq!(store.get(&mine, "a", 0).await.unwrap(), None);
    store.set(&mine, "a", json!({ "n": 1 }).into(), quota, 0).await.unwrap();
    store.set(&mine, "ab", json!(2).into(), quota, 0).await.unwrap();
    store.set(&mine, "b", json!(null).into(), quota, 0).await.unwrap();
    assert_eq!(store.get(&mine, "a", 0).await.unwrap(), Some(json!({ "n": 1 })));
    assert_eq!(store.get(&mine, "b", 0).await.unwrap(), Some(Value::Null));
    assert_eq!(store.list(&mine, "a", "", 10, 0).await.unwrap(), ["a", "ab"]);
    assert_eq!(store.list(&mine, "", "", 2, 0).await.unwrap(), ["a", "ab"]);

    let own = KvSpace { own: true, ..space("acme", "keeps") };
    for other in [space("acme", "other"), space("globex", "keeps"), own] {
        assert_eq!(store.get(&other, "a", 0).await.unwrap(), None);
        assert!(store.list(&other, "", "", 10, 0).await.unwrap().is_empty());
        assert!(!store.delete(&other, "a", 0).await.unwrap());
    }

    let over = store.set(&mine, "c", json!(1).into(), quota, 0).await.unwrap_err();
    assert_eq!(over.kind, ErrorKind::LimitExceeded { limit: Limit::Storage, allowed: 3, used: 4 });
    let long = store.set(&mine, "a", json!("x".repeat(60)).into(), quota, 0).await.unwrap_err();
    assert_eq!(long.kind, ErrorKind::LimitExceeded { limit: Limit::Storage, allowed: 60, used: 63 });
    store.set(&mine, "a", json!("x".repeat(50)).into(), quota, 0).await.unwrap();
    let sum = store.set(&mine, "b", json!("x".repeat(50)).into(), quota, 0).await.unwrap_err();
    assert!(matches!(sum.kind, ErrorKind::LimitExceeded { limit: Limit::Storage, allowed: 100, .. }), "{sum}");
    assert_eq!(store.get(&mine, "b", 0).await.unwrap(), Some(Value::Null), "a refused write changed something");

    assert!(store.delete(&mine, "a", 0).await.unwrap());
    assert!(!store.delete(&mine, "a", 0).await.unwrap());
    store.set(&mine, "c", json!(1).into(), quota, 0).await.unwrap();
    for key in ["", &"k".repeat(257)] {
        assert_eq!(
            store.set(&mine, key, json!(1).into(), quota, 0).await.unwrap_err().kind,
            ErrorKind::InvalidArguments
        );
        assert_eq!(store.get(&mine, key, 0).await.unwrap_err().kind, ErrorKind::InvalidArguments);
    }
}

async fn what_is_over_is_gone_for_every_reader_at_once(store: &dyn KvStore) {
    let (mine, quota) = (space("acme", "lasts0"), KvQuota::default());
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

async fn a_quota_counts_what_lives(store: &dyn KvStore) {
    let (mine, quota) = (space("acme", "lasts1"), KvQuota { max_keys: 100, max_bytes: 1_000, max_value_bytes: 900 });
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

async fn a_comparison_is_with_the_whole_value_and_null_is_nothing(store: &dyn KvStore) {
    let (mine, quota) = (space("acme", "lasts2"), KvQuota { max_value_bytes: 20, ..KvQuota::default() });
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

async fn a_listing_goes_on_after_the_last_key_of_the_one_before(store: &dyn KvStore) {
    let (mine, quota) = (space("acme", "lasts3"), KvQuota::default());
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

async fn eight_that_count_at_once_lose_nothing(store: &Arc<dyn KvStore>) {
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let store = Arc::clone(store);
        tasks.push(tokio::spawn(async move {
            for _ in 0..25 {
                loop {
                    let old = store.get(&space("acme", "counts"), "count", 0).await.unwrap();
                    let new = json!(old.as_ref().and_then(Value::as_u64).unwrap_or(0) + 1);
                    let quota = KvQuota::default();
                    let done =
                        store.compare_and_set(&space("acme", "counts"), "count", old, Some(new.into()), quota, 0).await;
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
    assert_eq!(store.get(&space("acme", "counts"), "count", 0).await.unwrap(), Some(json!(200)));
}
