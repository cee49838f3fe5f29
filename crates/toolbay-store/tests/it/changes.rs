//! Changes: whole or not at all, once, by whoever saw the row as it is.

use std::collections::BTreeSet;

use proptest::{prelude::*, strategy::ValueTree as _};
use serde_json::{Value, json};
use toolbay_api::{ErrorKind, Scope};
use toolbay_runtime::{
    kv::{KvQuota, KvStore as _},
    store::{Expected, Once, PackageDigest, Registration, Step, Store as _},
};
use uuid::Uuid;

use crate::support::*;

fn once(owner: Uuid, key: &str) -> Once {
    Once { owner, key: key.into(), request: [3; 32], answer: json!({ "id": 1.0 }), expires_ms: 2_000 }
}

on_both! {
    async fn a_row_comes_back_as_it_was_written(db: &Fixture) {
        db.tenants(&["acme"]).await;
        let mut full = registration(scope("acme"), "fx");
        let config = r#"{"z":1,"a":1.0,"n":{"b":-0.0,"a":1e300,"c":0.1,"d":12345678901234567890,"e":-9007199254740993},"t":"\u0000é\"\\","l":[[],{}]}"#;
        full.config = Some(serde_json::from_str(config).unwrap());
        let bare = Registration { previous: None, config: None, priority: None, enabled: false, ..registration(Scope::Global, "fx") };
        db.store.commit(change([put(full.clone()), put(bare.clone())])).await.unwrap();
        let found = db.store.registration(&scope("acme"), &plugin("fx")).await.unwrap().unwrap();
        assert_eq!(found, full);
        assert_eq!(found.config.unwrap().to_string(), full.config.unwrap().to_string(), "the order of keys or a number's form changed");
        assert_eq!(db.store.registration(&Scope::Global, &plugin("fx")).await.unwrap(), Some(bare));

        let mine = key("tb_1", Some("acme"));
        db.step(Step::AddKey(mine.clone())).await.unwrap();
        assert_eq!(db.store.keys(Some(&tenant("acme")), page(9)).await.unwrap().items, [mine]);
        let row = version_row(scope("acme"), "fx", "1.0.0", b"x");
        db.step(package(scope("acme"), "fx", "1.0.0", b"x")).await.unwrap();
        assert_eq!(db.store.versions(&scope("acme"), &plugin("fx")).await.unwrap(), [row]);
        assert_eq!(db.store.package(&PackageDigest::of(b"x")).await.unwrap().as_deref(), Some(&b"x"[..]));
        let one = run("acme", 5);
        db.store.put_run(one.clone(), Expected::Absent).await.unwrap();
        assert_eq!(db.store.run(&tenant("acme"), one.id).await.unwrap(), Some(one));
    }

    async fn a_change_happens_wholly_or_not_at_all(db: &Fixture) {
        db.tenants(&["acme"]).await;
        let before = db.store.snapshot(None).await.unwrap();
        let (owner, mut failing) = (Uuid::now_v7(), change([
            Step::AddTenant(tenant_row("globex")),
            put(registration(scope("globex"), "fx")),
            Step::AddKey(key("tb_1", Some("acme"))),
            // The last of them is refused.
            Step::AddTenant(tenant_row("acme")),
        ]));
        failing.audit.push(entry(scope("acme"), "tenant.add", "globex"));
        failing.once = Some(once(owner, "request-1"));
        assert_eq!(kind(db.store.commit(failing).await), ErrorKind::Conflict);
        assert_eq!(db.store.snapshot(None).await.unwrap(), before);
        assert!(db.store.audit(&scope("acme"), &all()).await.unwrap().items.is_empty());
        assert_eq!(db.store.answered(owner, "request-1", 0).await.unwrap(), None);
        // An audit that cannot be written takes the change with it.
        let mut failing = change([Step::AddTenant(tenant_row("globex"))]);
        failing.audit.push(entry(scope("nobody"), "tenant.add", "globex"));
        assert_eq!(kind(db.store.commit(failing).await), ErrorKind::NotFound);
        assert_eq!(db.store.tenant(&tenant("globex")).await.unwrap(), None);
    }

    async fn who_saw_an_older_row_is_refused(db: &Fixture) {
        db.tenants(&["acme"]).await;
        let row = registration(scope("acme"), "fx");
        db.step(put(row.clone())).await.unwrap();
        assert_eq!(kind(db.step(put(row.clone())).await), ErrorKind::Conflict);
        let newer = Registration { revision: 2, enabled: false, ..row.clone() };
        let write = |row: &Registration, seen| Step::PutRegistration { row: row.clone(), expected: Expected::Revision(seen) };
        db.step(write(&newer, 1)).await.unwrap();
        assert_eq!(kind(db.step(write(&newer, 1)).await), ErrorKind::Conflict);
        let remove = |seen| Step::RemoveRegistration { scope: scope("acme"), plugin: plugin("fx"), expected: Expected::Revision(seen) };
        assert_eq!(kind(db.step(remove(1)).await), ErrorKind::Conflict);
        db.step(remove(2)).await.unwrap();
        assert_eq!(kind(db.step(remove(2)).await), ErrorKind::Conflict);
        // Made anew, it has the same revision, and is another.
        db.step(put(Registration { id: Uuid::now_v7(), ..row.clone() })).await.unwrap();
        assert_eq!(kind(db.step(write(&newer, 1)).await), ErrorKind::Conflict);
        assert_eq!(kind(db.step(put(registration(scope("nobody"), "fx"))).await), ErrorKind::NotFound);
    }

    async fn of_two_at_once_one_is_refused_and_its_answer_is_the_others(db: &Fixture) {
        let (other, owner) = (db.another().await, Uuid::now_v7());
        let twin = |name: &str| {
            let mut twin = change([Step::AddTenant(tenant_row(name))]);
            twin.once = Some(once(owner, "request-1"));
            twin
        };
        let (one, two) = tokio::join!(db.store.commit(twin("acme")), other.commit(twin("globex")));
        assert!(one.is_ok() != two.is_ok(), "{one:?} {two:?}");
        assert_eq!(db.store.snapshot(None).await.unwrap().tenants.len(), 1);
        let found = db.store.answered(owner, "request-1", 1_999).await.unwrap();
        assert_eq!(found, Some(([3; 32], json!({ "id": 1.0 }))));
        assert_eq!(db.store.answered(Uuid::now_v7(), "request-1", 0).await.unwrap(), None, "another's");
        assert_eq!(db.store.answered(owner, "request-1", 2_000).await.unwrap(), None, "it is over");
        let mut later = twin("initech");
        later.at_ms = 2_000;
        db.store.commit(later).await.unwrap();
    }

    async fn what_is_installed_is_there_and_stays(db: &Fixture) {
        db.tenants(&["acme"]).await;
        let (one, two) = (b"one", b"two");
        let mut row = registration(scope("acme"), "fx");
        row.package = Some(PackageDigest::of(one));
        assert_eq!(kind(db.step(put(row.clone())).await), ErrorKind::NotFound);
        db.store.commit(change([put(row.clone()), package(scope("acme"), "fx", "1.2.3", one)])).await.unwrap();
        db.step(package(scope("acme"), "fx", "1.2.3", one)).await.unwrap();
        assert_eq!(kind(db.step(package(scope("acme"), "fx", "1.2.3", two)).await), ErrorKind::Conflict, "a version never changes");
        for version in ["1.10.0", "1.9.0", "2.0.0-rc.1"] {
            db.step(package(scope("acme"), "fx", version, two)).await.unwrap();
        }
        let versions = db.store.versions(&scope("acme"), &plugin("fx")).await.unwrap();
        assert_eq!(versions.iter().map(|row| row.version.to_string()).collect::<Vec<_>>(), ["2.0.0-rc.1", "1.10.0", "1.9.0", "1.2.3"]);
        let removal = Step::RemovePackages { scope: scope("acme"), plugin: plugin("fx") };
        assert_eq!(kind(db.step(removal.clone()).await), ErrorKind::Conflict);
        let unregister = Step::RemoveRegistration { scope: scope("acme"), plugin: plugin("fx"), expected: Expected::Revision(1) };
        db.store.commit(change([removal, unregister])).await.unwrap();
        assert_eq!(db.number("SELECT COUNT(*) FROM packages").await, 0);
        assert_eq!(db.store.package(&PackageDigest::of(one)).await.unwrap(), None);
        // Its bytes are what its digest says, or it does not come in.
        let mut lie = version_row(scope("acme"), "fx", "1.0.0", b"other");
        lie.bytes = 3;
        let lie = Step::AddPackage { row: lie, content: one.as_slice().into() };
        assert_eq!(kind(db.step(lie).await), ErrorKind::InvalidArguments);
    }

    async fn keys_are_revoked_once_and_for_all(db: &Fixture) {
        db.tenants(&["acme"]).await;
        let (mine, admin) = (key("tb_1", Some("acme")), key("tb_2", None));
        db.store.commit(change([Step::AddKey(mine.clone()), Step::AddKey(admin.clone())])).await.unwrap();
        assert_eq!(kind(db.step(Step::AddKey(key("tb_1", Some("acme")))).await), ErrorKind::Conflict);
        assert_eq!(kind(db.step(Step::AddKey(key("tb_3", Some("nobody")))).await), ErrorKind::NotFound);
        let mut of_nobody = key("tb_3", None);
        of_nobody.role = toolbay_runtime::store::Role::Tenant;
        assert_eq!(kind(db.step(Step::AddKey(of_nobody)).await), ErrorKind::InvalidArguments);
        let seen = db.store.snapshot(None).await.unwrap().position;
        db.step(Step::RevokeKey { id: mine.id, tenant: Some(tenant("acme")) }).await.unwrap();
        let mut again = change([Step::RevokeKey { id: mine.id, tenant: None }]);
        again.at_ms = 5_000;
        db.store.commit(again).await.unwrap();
        let changed = db.store.snapshot(Some(seen)).await.unwrap().keys;
        assert_eq!(changed.iter().map(|key| (key.id, key.revoked_at)).collect::<Vec<_>>(), [(mine.id, Some(1_000))]);
        assert_eq!(kind(db.step(Step::RevokeKey { id: Uuid::now_v7(), tenant: None }).await), ErrorKind::NotFound);
        let listed = db.store.keys(None, page(1)).await.unwrap();
        let rest = db.store.keys(None, toolbay_runtime::store::Page { after: listed.next.clone(), limit: 9 }).await.unwrap();
        let ids: BTreeSet<_> = listed.items.iter().chain(&rest.items).map(|key| key.id).collect();
        assert_eq!((ids, rest.next), (BTreeSet::from([mine.id, admin.id]), None));
        let from_nowhere = toolbay_runtime::store::Page { after: Some("'; DROP TABLE api_keys".into()), limit: 9 };
        assert_eq!(kind(db.store.keys(None, from_nowhere).await), ErrorKind::InvalidArguments);
    }

    async fn what_a_database_cannot_keep_is_refused_alike(db: &Fixture) {
        db.tenants(&["acme"]).await;
        let mut zero = run("acme", 1);
        zero.status = "a\0b".into();
        assert_eq!(kind(db.store.put_run(zero, Expected::Absent).await), ErrorKind::InvalidArguments);
        let mut deep = json!(1);
        for _ in 0..200 {
            deep = json!([deep]);
        }
        let set = db.store.set(&space("acme", "fx"), "k", deep.into(), KvQuota::default(), 0).await;
        assert_eq!(kind(set), ErrorKind::InvalidArguments);
        // In keys of plugins' values and within JSON a zero is a character like others.
        db.store.set(&space("acme", "fx"), "a\0b", json!("x\0y").into(), KvQuota::default(), 0).await.unwrap();
        assert_eq!(db.store.get(&space("acme", "fx"), "a\0b", 0).await.unwrap(), Some(json!("x\0y")));
        assert_eq!(db.store.list(&space("acme", "fx"), "a\0", "", 9, 0).await.unwrap(), ["a\0b"]);
        db.store.record(vec![entry(scope("acme"), "tool.call", "a\0b")]).await.unwrap();
        assert_eq!(db.store.audit(&scope("acme"), &all()).await.unwrap().items[0].entry.target, "a\u{fffd}b");
    }

    async fn any_document_comes_back_equal(db: &Fixture) {
        db.tenants(&["acme"]).await;
        let documents = (0..200).map(|_| document());
        let mut runner = proptest::test_runner::TestRunner::default();
        for (n, strategy) in documents.enumerate() {
            let value = strategy.new_tree(&mut runner).unwrap().current();
            let key = format!("k{n}");
            db.store.set(&space("acme", "fx"), &key, value.clone().into(), KvQuota::default(), 0).await.unwrap();
            let found = db.store.get(&space("acme", "fx"), &key, 0).await.unwrap().unwrap();
            assert_eq!(found.to_string(), value.to_string());
        }
    }
}

fn document() -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..6).prop_map(|fields| fields.into_iter().collect()),
        ]
    })
    .boxed()
}
