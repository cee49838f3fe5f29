//! Events on their way: each at least once, in order within a key, to one at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use toolbay_api::{ErrorKind, Limit, Scope};
use toolbay_runtime::store::{OutboxEvent, Store as _};
use toolbay_store::Bounds;
use uuid::Uuid;

use crate::support::*;

fn numbers(events: &[OutboxEvent]) -> Vec<i64> {
    events.iter().map(|event| event.event["n"].as_i64().unwrap()).collect()
}

on_both! {
    async fn of_each_key_only_the_oldest_is_given_until_it_is_delivered(db: &Fixture) {
        db.tenants(&["acme", "globex"]).await;
        let (store, a) = (&db.store, || scope("acme"));
        let events = vec![event(a(), "k", 1), event(a(), "k", 2), event(a(), "l", 3), event(scope("globex"), "k", 4), event(Scope::Global, "k", 5)];
        store.post(events.clone()).await.unwrap();
        // Who did not hear of its success posts again.
        store.post(events.clone()).await.unwrap();
        let claimed = store.claim(10, 100, 1_000).await.unwrap();
        assert_eq!(numbers(&claimed), [1, 3, 4, 5]);
        assert_eq!(claimed[0], events[0]);
        assert!(store.claim(10, 100, 1_099).await.unwrap().is_empty(), "a lease holds");
        store.delivered(claimed[0].id, 0).await.unwrap();
        assert_eq!(numbers(&store.claim(10, 100, 1_099).await.unwrap()), [2]);
        // The lease is over: it is given again, and says that it was tried.
        let again = store.claim(10, 100, 1_100).await.unwrap();
        assert_eq!((numbers(&again), again[0].attempts), (vec![3, 4, 5], 1));
        store.undelivered(again[0].id, 1, "no answer", Some(5_000), 1_150).await.unwrap();
        assert_eq!(numbers(&store.claim(10, 100, 4_999).await.unwrap()), [2, 4, 5]);
        assert_eq!(numbers(&store.claim(10, 100, 5_000).await.unwrap()), [3]);
    }

    async fn whoever_was_too_slow_does_not_end_anothers_claim(db: &Fixture) {
        let store = &db.store;
        store.post(vec![event(Scope::Global, "k", 1), event(Scope::Global, "k", 2)]).await.unwrap();
        let slow = store.claim(1, 100, 0).await.unwrap().remove(0);
        let quick = store.claim(1, 100, 100).await.unwrap().remove(0);
        assert_eq!((slow.id, slow.attempts, quick.attempts), (quick.id, 0, 1));
        store.delivered(slow.id, slow.attempts).await.unwrap();
        store.undelivered(slow.id, slow.attempts, "late", Some(0), 100).await.unwrap();
        store.undelivered(slow.id, slow.attempts, "late", None, 100).await.unwrap();
        assert!(store.claim(9, 100, 150).await.unwrap().is_empty(), "given to two at once, or out of order");
        store.delivered(quick.id, quick.attempts).await.unwrap();
        assert_eq!(numbers(&store.claim(9, 100, 150).await.unwrap()), [2]);
    }

    async fn what_is_given_up_makes_way_and_can_be_revived(db: &Fixture) {
        let store = &db.store;
        store.post(vec![event(Scope::Global, "k", 1), event(Scope::Global, "k", 2)]).await.unwrap();
        let first = store.claim(9, 100, 0).await.unwrap().remove(0);
        store.undelivered(first.id, 0, "no\0answer", None, 77).await.unwrap();
        assert_eq!(numbers(&store.claim(9, 100, 0).await.unwrap()), [2]);
        let dead = store.dead_events(page(9)).await.unwrap().items;
        assert_eq!((dead.len(), dead[0].problem.as_str(), dead[0].died_at, dead[0].event.attempts), (1, "no\u{fffd}answer", 77, 1));
        assert!(store.revive(first.id, 100).await.unwrap());
        assert!(!store.revive(first.id, 100).await.unwrap());
        assert!(store.dead_events(page(9)).await.unwrap().items.is_empty());
        // It comes after what waited meanwhile.
        assert!(store.claim(9, 100, 50).await.unwrap().is_empty());
        let second = store.claim(9, 100, 200).await.unwrap();
        store.delivered(second[0].id, second[0].attempts).await.unwrap();
        assert_eq!(numbers(&store.claim(9, 100, 250).await.unwrap()), [1]);
    }

    async fn several_processes_deliver_each_event_once_and_in_order(db: &Fixture) {
        db.tenants(&["acme"]).await;
        let (keys, each) = (5, 12);
        let delivered: Arc<Mutex<Vec<(String, i64)>>> = Arc::default();
        let held: Arc<Mutex<BTreeSet<String>>> = Arc::default();
        let mut posters = Vec::new();
        for key in 0..keys {
            let store = db.another().await;
            posters.push(tokio::spawn(async move {
                for n in 0..each {
                    store.post(vec![event(scope("acme"), &format!("k{key}"), n)]).await.unwrap();
                }
            }));
        }
        let mut workers = Vec::new();
        for _ in 0..4 {
            let (store, delivered, held) = (db.another().await, Arc::clone(&delivered), Arc::clone(&held));
            workers.push(tokio::spawn(async move {
                loop {
                    // With time to spare: no lease is over in this test.
                    let events = store.claim(3, 1_000_000, 1).await.unwrap();
                    if events.is_empty() {
                        if delivered.lock().unwrap().len() as i64 == keys * each {
                            return;
                        }
                        tokio::task::yield_now().await;
                    }
                    for event in events {
                        assert!(held.lock().unwrap().insert(event.key.clone()), "two of a key at once, or one given to two");
                        tokio::task::yield_now().await;
                        delivered.lock().unwrap().push((event.key.clone(), event.event["n"].as_i64().unwrap()));
                        held.lock().unwrap().remove(&event.key);
                        store.delivered(event.id, event.attempts).await.unwrap();
                    }
                }
            }));
        }
        for task in posters.into_iter().chain(workers) {
            // One that fails leaves the others waiting for what it holds.
            soon(Duration::from_secs(30), task).await.unwrap();
        }
        let mut by_key: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for (key, n) in delivered.lock().unwrap().drain(..) {
            by_key.entry(key).or_default().push(n);
        }
        for (key, numbers) in by_key {
            assert_eq!(numbers, (0..each).collect::<Vec<_>>(), "{key}");
        }
        assert_eq!(db.number("SELECT COUNT(*) FROM outbox").await, 0);
        assert_eq!(db.number("SELECT entries FROM outbox_scopes").await, 0);
    }

    async fn a_scope_that_posts_without_end_is_refused_and_others_are_not(db: &Fixture) {
        db.tenants(&["acme", "globex"]).await;
        let store = db.bounded(Bounds { events: 3, dead_events: 2, ..Bounds::default() }).await;
        let many = |scope: Scope, count: i64| (0..count).map(|n| event(scope.clone(), &n.to_string(), n)).collect::<Vec<_>>();
        assert_eq!(kind(store.post(many(scope("acme"), 4)).await), ErrorKind::LimitExceeded { limit: Limit::Storage, allowed: 3, used: 4 });
        assert!(store.claim(9, 1, 0).await.unwrap().is_empty(), "some were posted");
        store.post(many(scope("acme"), 3)).await.unwrap();
        assert_eq!(kind(store.post(many(scope("acme"), 1)).await), ErrorKind::LimitExceeded { limit: Limit::Storage, allowed: 3, used: 4 });
        store.post(many(scope("globex"), 3)).await.unwrap();
        assert_eq!(kind(store.post(vec![event(scope("nobody"), "k", 1)]).await), ErrorKind::NotFound);
        for (at, event) in (0..).zip(store.claim(9, 1, 0).await.unwrap()) {
            store.undelivered(event.id, 0, "no", None, at).await.unwrap();
        }
        let dead = store.dead_events(page(9)).await.unwrap().items;
        assert_eq!(dead.iter().map(|dead| (dead.event.scope.to_string(), dead.died_at)).collect::<Vec<_>>().len(), 4, "the newest two of each");
        store.post(many(scope("acme"), 3)).await.unwrap();
        assert_eq!(kind(store.revive(dead[0].event.id, 9).await), ErrorKind::LimitExceeded { limit: Limit::Storage, allowed: 3, used: 4 });
        assert!(!store.revive(Uuid::now_v7(), 9).await.unwrap());
    }
}
