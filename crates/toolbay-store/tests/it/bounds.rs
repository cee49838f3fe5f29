//! Nothing that a tenant can make grow grows without end.

use serde_json::json;
use toolbay_api::{ErrorKind, Limit, Scope};
use toolbay_runtime::{
    kv::{KvQuota, KvStore as _},
    store::{Expected, Once, SecretReference, Step, Store as _},
};
use toolbay_store::Bounds;
use uuid::Uuid;

use crate::support::*;

fn over(allowed: u64, used: u64) -> ErrorKind {
    ErrorKind::LimitExceeded { limit: Limit::Storage, allowed, used }
}

on_both! {
    async fn what_a_tenant_makes_too_much_of_is_refused(db: &Fixture) {
        db.tenants(&["acme", "globex"]).await;
        let bounds = Bounds { registrations: 2, versions: 2, package_bytes: 10, keys: 2, secrets: 2, spaces: 2, document_bytes: 100, ..Bounds::default() };
        let store = db.bounded(bounds).await;
        let step = async |step: Step| store.commit(change([step])).await.map(drop);
        let secret = |name: &str, there: bool| {
            Step::PutSecret(SecretReference { scope: scope("acme"), name: name.into(), reference: there.then(|| "vault".into()) })
        };
        for name in ["a", "b"] {
            step(put(registration(scope("acme"), name))).await.unwrap();
            step(package(scope("acme"), "fx", if name == "a" { "1.0.0" } else { "2.0.0" }, b"1234")).await.unwrap();
            step(Step::AddKey(key(name, Some("acme")))).await.unwrap();
            step(secret(name, true)).await.unwrap();
            store.set(&space("acme", name), "k", json!(1).into(), KvQuota::default(), 0).await.unwrap();
        }
        assert_eq!(kind(step(put(registration(scope("acme"), "c"))).await), over(2, 3));
        assert_eq!(kind(step(package(scope("acme"), "fx", "3.0.0", b"1")).await), over(2, 3));
        assert_eq!(kind(step(package(scope("acme"), "gx", "1.0.0", b"123")).await), over(10, 11));
        assert_eq!(kind(step(Step::AddKey(key("c", Some("acme")))).await), over(2, 3));
        assert_eq!(kind(store.set(&space("acme", "c"), "k", json!(1).into(), KvQuota::default(), 0).await), over(2, 3));
        // One that is gone still takes its place, or names could be used up without end.
        step(secret("a", false)).await.unwrap();
        let listed = async |scope: Scope| store.secrets(&scope, page(10)).await.map(|listed| listed.items);
        let named: Vec<_> = listed(scope("acme")).await.unwrap().into_iter().map(|secret| secret.name).collect();
        assert_eq!(named, ["b"]);
        assert_eq!(listed(scope("globex")).await.unwrap(), []);
        assert_eq!(listed(scope("nobody")).await.unwrap_err().kind, ErrorKind::NotFound);
        step(secret("nothing", false)).await.unwrap();
        assert_eq!(kind(step(secret("c", true)).await), over(2, 3));
        step(secret("a", true)).await.unwrap();
        let mut large = registration(scope("globex"), "c");
        large.config = Some(json!({ "text": "x".repeat(100) }));
        assert!(matches!(kind(step(put(large)).await), ErrorKind::LimitExceeded { limit: Limit::Storage, allowed: 100, .. }));
        // Others have room, and a space that is empty makes some.
        step(put(registration(scope("globex"), "c"))).await.unwrap();
        step(put(registration(Scope::Global, "c"))).await.unwrap();
        step(Step::AddKey(key("c", None))).await.unwrap();
        assert!(store.delete(&space("acme", "a"), "k", 0).await.unwrap());
        store.set(&space("acme", "c"), "k", json!(1).into(), KvQuota::default(), 0).await.unwrap();
    }

    async fn keys_that_are_over_make_way(db: &Fixture) {
        db.tenants(&["acme"]).await;
        let store = db.bounded(Bounds { keys: 2, ..Bounds::default() }).await;
        let mut short = key("a", Some("acme"));
        short.expires_at = Some(1_000);
        for row in [short, key("b", Some("acme")), key("c", Some("acme"))] {
            store.commit(change([Step::AddKey(row)])).await.unwrap();
        }
        let prefixes: Vec<_> = store.keys(None, page(9)).await.unwrap().items.into_iter().map(|key| key.prefix).collect();
        assert_eq!(prefixes, ["c", "b"]);
    }

    async fn of_runs_the_newest_are_kept(db: &Fixture) {
        db.tenants(&["acme", "globex"]).await;
        let store = db.bounded(Bounds { runs: 3, ..Bounds::default() }).await;
        for at in 0..5 {
            store.put_run(run("acme", at), Expected::Absent).await.unwrap();
        }
        store.put_run(run("globex", 0), Expected::Absent).await.unwrap();
        let listed = store.runs(&tenant("acme"), page(2)).await.unwrap();
        let rest = store.runs(&tenant("acme"), toolbay_runtime::store::Page { after: listed.next, limit: 9 }).await.unwrap().items;
        let times: Vec<_> = listed.items.iter().chain(&rest).map(|run| (run.started_at, run.state.clone())).collect();
        assert_eq!(times, [(4, json!(null)), (3, json!(null)), (2, json!(null))]);
        let mut last = run("acme", 9);
        assert_eq!(kind(store.put_run(last.clone(), Expected::Revision(1)).await), ErrorKind::Conflict);
        store.put_run(last.clone(), Expected::Absent).await.unwrap();
        assert_eq!(kind(store.put_run(last.clone(), Expected::Absent).await), ErrorKind::Conflict);
        (last.revision, last.status) = (2, "finished".into());
        store.put_run(last.clone(), Expected::Revision(1)).await.unwrap();
        assert_eq!(store.run(&tenant("acme"), last.id).await.unwrap(), Some(last));
        assert_eq!(kind(store.put_run(run("nobody", 1), Expected::Absent).await), ErrorKind::NotFound);
    }

    async fn of_answers_those_that_are_over_and_those_that_end_first_go(db: &Fixture) {
        let store = db.bounded(Bounds { answers: 3, ..Bounds::default() }).await;
        let (one, two) = (Uuid::now_v7(), Uuid::now_v7());
        let answer = async |owner: Uuid, n: i64, at_ms: i64| {
            let once = Once { owner, key: n.to_string(), request: [1; 32], answer: json!(n), expires_ms: 1_000 + n };
            let mut change = change([]);
            (change.at_ms, change.once) = (at_ms, Some(once));
            store.commit(change).await.unwrap();
        };
        for n in 0..5 {
            answer(one, n, 0).await;
            answer(two, n, 0).await;
        }
        assert_eq!(db.number("SELECT COUNT(*) FROM answers").await, 6);
        assert_eq!(store.answered(one, "1", 0).await.unwrap(), None);
        assert_eq!(store.answered(one, "2", 0).await.unwrap(), Some(([1; 32], json!(2))));
        answer(one, 9, 5_000).await;
        assert_eq!(db.number("SELECT COUNT(*) FROM answers").await, 1);
    }
}
