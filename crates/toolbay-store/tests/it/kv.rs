//! Plugins' values: as the port says, against the store in memory as a model, and with writers in several processes.

use std::sync::Arc;

use proptest::{prelude::*, strategy::ValueTree as _};
use serde_json::{Value, json};
use toolbay_api::{ErrorKind, Limit};
use toolbay_runtime::{
    MemoryKv,
    kv::{KvQuota, KvStore, KvValue},
};
use toolbay_testkit::check_kv;

use crate::support::*;

/// Something done to a store.
#[derive(Debug, Clone)]
enum Doing {
    Get(String),
    Set(String, Value, Option<i64>),
    Compare(String, Option<Value>, Option<Value>),
    Delete(String),
    List(String, String, usize),
    Wait(i64),
}

fn doing() -> impl Strategy<Value = Doing> {
    let key =
        || prop::sample::select(vec!["", "a", "ab", "b", "b:1", "b:2", "c\u{0}", "é", "z"]).prop_map(str::to_owned);
    let value = || {
        prop_oneof![
            Just(Value::Null),
            Just(json!(1)),
            Just(json!(1.0)),
            Just(json!({ "a": 1, "b": [2] })),
            Just(json!("x".repeat(40)))
        ]
    };
    prop_oneof![
        key().prop_map(Doing::Get),
        (key(), value(), prop::option::of(0..20_i64)).prop_map(|(key, value, end)| Doing::Set(key, value, end)),
        (key(), prop::option::of(value()), prop::option::of(value()))
            .prop_map(|(key, old, new)| Doing::Compare(key, old, new)),
        key().prop_map(Doing::Delete),
        (key(), key(), 0..5_usize).prop_map(|(prefix, after, limit)| Doing::List(prefix, after, limit)),
        (1..10_i64).prop_map(Doing::Wait),
    ]
}

/// Does it, and tells what came of it.
async fn done(store: &dyn KvStore, doing: &Doing, now: i64) -> String {
    let (space, quota) = (space("acme", "model"), KvQuota { max_keys: 4, max_bytes: 90, max_value_bytes: 60 });
    match doing {
        Doing::Get(key) => format!("{:?}", store.get(&space, key, now).await),
        Doing::Set(key, value, end) => {
            let value = KvValue { value: value.clone(), expires_ms: end.map(|end| now + end) };
            format!("{:?}", store.set(&space, key, value, quota, now).await)
        }
        Doing::Compare(key, old, new) => {
            let new = new.clone().map(KvValue::from);
            format!("{:?}", store.compare_and_set(&space, key, old.clone(), new, quota, now).await)
        }
        Doing::Delete(key) => format!("{:?}", store.delete(&space, key, now).await),
        Doing::List(prefix, after, limit) => format!("{:?}", store.list(&space, prefix, after, *limit, now).await),
        Doing::Wait(_) => String::new(),
    }
}

on_both! {
    async fn the_store_does_what_every_key_value_store_does(db: &Fixture) {
        db.tenants(&["acme", "globex"]).await;
        check_kv(Arc::new(db.store.clone())).await;
    }

    async fn whatever_is_done_comes_to_the_same_as_in_memory(db: &Fixture) {
        db.tenants(&["acme"]).await;
        let mut runner = proptest::test_runner::TestRunner::default();
        for _ in 0..24 {
            let doings = prop::collection::vec(doing(), 1..40).new_tree(&mut runner).unwrap().current();
            let (model, mut now) = (MemoryKv::default(), 0);
            for (at, one) in doings.iter().enumerate() {
                if let Doing::Wait(time) = one {
                    now += time;
                }
                let (found, expected) = (done(&db.store, one, now).await, done(&model, one, now).await);
                assert_eq!(found, expected, "after {:#?}", &doings[..=at]);
                let counted = db.number(
                    "SELECT (SELECT COUNT(*) FROM kv_spaces s WHERE s.keys <> (SELECT COUNT(*) FROM kv) OR s.bytes <>
                        (SELECT SUM(bytes) FROM kv)) + (SELECT COUNT(*) FROM kv_spaces WHERE keys = 0)",
                );
                if at % 8 == 0 {
                    assert_eq!(counted.await, 0, "the counters are wrong after {:#?}", &doings[..=at]);
                }
            }
            db.sql("DELETE FROM kv_spaces").await.unwrap();
        }
    }

    async fn writers_in_several_processes_do_not_break_the_quota_together(db: &Fixture) {
        db.tenants(&["acme"]).await;
        let quota = KvQuota { max_keys: 20, max_bytes: 10_000, max_value_bytes: 1_000 };
        let mut writers = Vec::new();
        for process in 0..4 {
            let store = db.another().await;
            writers.push(tokio::spawn(async move {
                let mut kept = 0;
                for n in 0..12 {
                    match store.set(&space("acme", "fx"), &format!("{process}-{n}"), json!(n).into(), quota, 0).await {
                        Ok(()) => kept += 1,
                        Err(error) => {
                            assert_eq!(error.kind, ErrorKind::LimitExceeded { limit: Limit::Storage, allowed: 20, used: 21 });
                        }
                    }
                }
                kept
            }));
        }
        let mut kept = 0;
        for writer in writers {
            kept += writer.await.unwrap();
        }
        let there = db.store.list(&space("acme", "fx"), "", "", 100, 0).await.unwrap().len();
        assert_eq!((kept, there), (20, 20));
        assert_eq!(db.number("SELECT keys FROM kv_spaces").await, 20);
    }

    async fn nothing_is_kept_for_a_tenant_that_is_not_there(db: &Fixture) {
        let store = &db.store;
        assert_eq!(kind(store.set(&space("acme", "fx"), "k", json!(1).into(), KvQuota::default(), 0).await), ErrorKind::NotFound);
        assert_eq!(store.get(&space("acme", "fx"), "k", 0).await.unwrap(), None);
        assert!(!store.delete(&space("acme", "fx"), "k", 0).await.unwrap());
    }
}
