//! Tenants: one does not see another's, and what was a removed one's is nobody's.

use serde_json::json;
use toolbay_api::{ErrorKind, Scope};
use toolbay_runtime::{
    kv::{KvQuota, KvStore as _},
    store::{Expected, SecretReference, Step, Store as _},
};
use uuid::Uuid;

use crate::support::*;

/// Gives a tenant one of everything. Gives its run's id.
async fn furnish(db: &Fixture, name: &str) -> Uuid {
    let content = b"const PLUGIN = 1;";
    let mut installed = registration(scope(name), "fx");
    installed.package = Some(toolbay_runtime::store::PackageDigest::of(content));
    let secret = SecretReference { scope: scope(name), name: "token".into(), reference: Some("vault/1".into()) };
    let mut furnished = change([
        // The registration first: the steps of a change may come in any order.
        put(installed),
        package(scope(name), "fx", "1.2.3", content),
        Step::AddKey(key(&format!("tb_{name}"), Some(name))),
        Step::PutSecret(secret),
    ]);
    furnished.audit.push(entry(scope(name), "plugin.upload", "fx"));
    db.store.commit(furnished).await.unwrap();
    let mine = run(name, 1);
    db.store.put_run(mine.clone(), Expected::Absent).await.unwrap();
    db.store.set(&space(name, "fx"), "k", json!(name).into(), KvQuota::default(), 0).await.unwrap();
    db.store.post(vec![event(scope(name), "k", 1)]).await.unwrap();
    mine.id
}

on_both! {
    async fn nothing_of_a_tenant_is_found_by_way_of_another(db: &Fixture) {
        db.tenants(&["acme", "globex"]).await;
        let run = furnish(db, "acme").await;
        let (store, globex) = (&db.store, tenant("globex"));
        let own = toolbay_runtime::kv::KvSpace { own: true, ..space("acme", "fx") };
        for other in [space("globex", "fx"), space("acme", "gx"), own] {
            assert_eq!(store.get(&other, "k", 0).await.unwrap(), None);
            assert!(store.list(&other, "", "", 9, 0).await.unwrap().is_empty());
            assert!(!store.delete(&other, "k", 0).await.unwrap());
        }
        for other in [scope("globex"), Scope::Global] {
            assert_eq!(store.registration(&other, &plugin("fx")).await.unwrap(), None);
            assert!(store.versions(&other, &plugin("fx")).await.unwrap().is_empty());
            assert!(store.audit(&other, &all()).await.unwrap().items.is_empty());
        }
        assert!(store.keys(Some(&globex), page(9)).await.unwrap().items.is_empty());
        assert_eq!(store.run(&globex, run).await.unwrap(), None);
        assert!(store.runs(&globex, page(9)).await.unwrap().items.is_empty());
        let key = store.keys(Some(&tenant("acme")), page(9)).await.unwrap().items.remove(0);
        let revoked = db.step(Step::RevokeKey { id: key.id, tenant: Some(globex.clone()) }).await;
        assert_eq!(kind(revoked), ErrorKind::NotFound);
        // Not even by its number or revision.
        let mut theirs = toolbay_runtime::store::RunRow { tenant: globex, ..store.run(&tenant("acme"), run).await.unwrap().unwrap() };
        theirs.revision = 2;
        assert_eq!(kind(store.put_run(theirs, Expected::Revision(1)).await), ErrorKind::Conflict);
        let mut row = store.registration(&scope("acme"), &plugin("fx")).await.unwrap().unwrap();
        row.scope = scope("globex");
        let moved = Step::PutRegistration { row, expected: Expected::Revision(1) };
        assert_eq!(kind(db.step(moved).await), ErrorKind::Conflict);
    }

    async fn a_removed_tenant_leaves_its_audit_and_nothing_else(db: &Fixture) {
        db.tenants(&["acme", "globex"]).await;
        let run = furnish(db, "acme").await;
        furnish(db, "globex").await;
        let before = db.store.snapshot(None).await.unwrap();
        let old = db.store.tenant(&tenant("acme")).await.unwrap().unwrap();
        let removal = |revision| Step::RemoveTenant { tenant: tenant("acme"), expected: Expected::Revision(revision) };
        assert_eq!(kind(db.step(removal(2)).await), ErrorKind::Conflict);
        let mut removed = change([removal(1)]);
        removed.audit.push(entry(scope("acme"), "tenant.remove", "acme"));
        db.store.commit(removed).await.unwrap();
        for table in ["plugin_registrations", "package_versions", "runs", "kv", "kv_spaces", "secret_references", "outbox", "outbox_scopes"] {
            assert_eq!(db.number(&format!("SELECT COUNT(DISTINCT tenant_id) FROM {table}")).await, 1, "{table}");
        }
        // The other tenant has the same package, so its content stays.
        assert_eq!(db.number("SELECT COUNT(*) FROM packages").await, 1);
        let gone = db.store.snapshot(Some(before.position)).await.unwrap();
        assert_eq!(gone.removed_tenants, [(old.id, tenant("acme"))]);
        // What is still done by it, such as the end of a call, goes to its chain; so does its removal.
        db.store.record(vec![entry(scope("acme"), "tool.call", "fx")]).await.unwrap();
        let lines = db.store.audit(&scope("acme"), &all()).await.unwrap().items;
        assert_eq!(lines.iter().map(|line| line.entry.action.as_str()).collect::<Vec<_>>(), ["plugin.upload", "tenant.remove", "tool.call"]);

        db.tenants(&["acme"]).await;
        let new = db.store.tenant(&tenant("acme")).await.unwrap().unwrap();
        assert_ne!(new.id, old.id);
        assert_eq!(db.store.get(&space("acme", "fx"), "k", 0).await.unwrap(), None);
        assert_eq!(db.store.registration(&scope("acme"), &plugin("fx")).await.unwrap(), None);
        assert!(db.store.versions(&scope("acme"), &plugin("fx")).await.unwrap().is_empty());
        assert!(db.store.keys(Some(&tenant("acme")), page(9)).await.unwrap().items.is_empty());
        assert_eq!(db.store.run(&tenant("acme"), run).await.unwrap(), None);
        assert!(db.store.audit(&scope("acme"), &all()).await.unwrap().items.is_empty(), "the new one sees the old one's audit");
        assert_eq!(db.store.verify_audit().await.unwrap(), []);
        // Its number is never another's.
        let again = toolbay_runtime::store::TenantRow { id: old.id, ..tenant_row("initech") };
        assert_eq!(kind(db.step(Step::AddTenant(again)).await), ErrorKind::Conflict);
    }

    async fn a_tenant_that_is_removed_while_it_writes_leaves_nothing(db: &Fixture) {
        for _ in 0..4 {
            db.tenants(&["acme"]).await;
            let mut writers = Vec::new();
            for process in 0..3 {
                let store = db.another().await;
                writers.push(tokio::spawn(async move {
                    for n in 0.. {
                        let key = format!("{process}-{n}");
                        let written = match n % 3 {
                            0 => store.set(&space("acme", "fx"), &key, json!(n).into(), KvQuota::default(), 0).await,
                            1 => store.post(vec![event(scope("acme"), &key, n)]).await,
                            _ => store.put_run(run("acme", n), Expected::Absent).await,
                        };
                        if let Err(error) = written {
                            assert_eq!(error.kind, ErrorKind::NotFound, "{error:?}");
                            return n;
                        }
                    }
                    0
                }));
            }
            tokio::time::sleep(std::time::Duration::from_millis(60)).await;
            let removal = Step::RemoveTenant { tenant: tenant("acme"), expected: Expected::Revision(1) };
            db.step(removal).await.unwrap();
            for writer in writers {
                soon(std::time::Duration::from_secs(10), writer).await.unwrap();
            }
            for table in ["kv", "kv_spaces", "outbox", "outbox_scopes", "runs"] {
                assert_eq!(db.number(&format!("SELECT COUNT(*) FROM {table}")).await, 0, "{table}");
            }
        }
        if db.is_postgres() {
            // Each would have cost a second, and a try of those that there are.
            let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
            assert_eq!(db.number(deadlocks).await, 0);
        }
    }

    async fn tenants_are_listed_by_name_in_parts_and_the_global_scope_is_none(db: &Fixture) {
        let names = ["Zeta", "a.b", "a-b", "a_b", "acme", "globex"];
        db.tenants(&names).await;
        let mut found = Vec::new();
        let mut part = page(4);
        loop {
            let listed = db.store.tenants(part.clone()).await.unwrap();
            found.extend(listed.items.iter().map(|row| row.name.to_string()));
            let Some(next) = listed.next else { break };
            part.after = Some(next);
        }
        let mut sorted = names.map(str::to_owned);
        sorted.sort();
        assert_eq!(found, sorted);
        assert_eq!(kind(db.step(Step::AddTenant(tenant_row("acme"))).await), ErrorKind::Conflict);
        let suspended = Step::SuspendTenant { tenant: tenant("acme"), suspended: true, expected: Expected::Revision(1) };
        db.step(suspended.clone()).await.unwrap();
        assert_eq!(kind(db.step(suspended).await), ErrorKind::Conflict, "seen before it was changed");
        let row = db.store.tenant(&tenant("acme")).await.unwrap().unwrap();
        assert!(row.suspended && row.revision == 2);
        let nobody = Step::SuspendTenant { tenant: tenant("nobody"), suspended: true, expected: Expected::Revision(1) };
        assert_eq!(kind(db.step(nobody).await), ErrorKind::NotFound);
    }
}
