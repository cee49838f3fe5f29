//! Following a store: what changed since a position, and being told that something did.

use std::{
    collections::BTreeMap,
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _};
use proptest::{prelude::*, strategy::ValueTree as _};
use toolbay_api::{ErrorKind, Scope, TenantId};
use toolbay_runtime::store::{
    Expected, KeyRow, Position, Registration, SecretReference, Snapshot, Step, Store as _, TenantRow,
};
use toolbay_store::SqlStore;
use uuid::Uuid;

use crate::support::*;

/// What somebody knows who follows by snapshots.
#[derive(Debug, Default, PartialEq)]
struct Known {
    position: Position,
    tenants: BTreeMap<TenantId, TenantRow>,
    registrations: BTreeMap<Scope, Vec<Registration>>,
    keys: BTreeMap<Uuid, KeyRow>,
    secrets: BTreeMap<(Scope, String), String>,
}

impl Known {
    fn take(&mut self, news: Snapshot) {
        if news.complete {
            *self = Self::default();
        }
        assert!(news.position >= self.position, "time went back");
        self.position = news.position;
        for (id, name) in news.removed_tenants {
            // Of that name there may be another already.
            if self.tenants.get(&name).is_some_and(|known| known.id == id) {
                self.tenants.remove(&name);
            }
            let scope = Scope::Tenant(name.clone());
            self.registrations.remove(&scope);
            self.keys.retain(|_, key| key.tenant.as_ref() != Some(&name));
            self.secrets.retain(|(of, _), _| *of != scope);
        }
        for tenant in news.tenants {
            self.tenants.insert(tenant.name.clone(), tenant);
        }
        for (scope, registrations) in news.registrations {
            if registrations.is_empty() {
                self.registrations.remove(&scope);
            } else {
                self.registrations.insert(scope, registrations);
            }
        }
        for key in news.keys {
            self.keys.insert(key.id, key);
        }
        for secret in news.secrets {
            let name = (secret.scope, secret.name);
            match secret.reference {
                Some(reference) => drop(self.secrets.insert(name, reference)),
                None => drop(self.secrets.remove(&name)),
            }
        }
    }

    fn of(snapshot: Snapshot) -> Self {
        let mut known = Self::default();
        known.take(snapshot);
        known
    }
}

/// Something that a writer does, to one of a few tenants.
#[derive(Debug, Clone, Copy)]
enum Doing {
    Add(u8),
    Suspend(u8),
    Remove(u8),
    Install(u8, u8),
    Uninstall(u8, u8),
    Key(u8),
    Revoke(u8),
    Secret(u8, u8, bool),
}

fn doing() -> impl Strategy<Value = Doing> {
    prop_oneof![
        3 => (0..3_u8).prop_map(Doing::Add),
        1 => (0..3_u8).prop_map(Doing::Suspend),
        1 => (0..3_u8).prop_map(Doing::Remove),
        4 => (0..4_u8, 0..3_u8).prop_map(|(of, which)| Doing::Install(of, which)),
        2 => (0..4_u8, 0..3_u8).prop_map(|(of, which)| Doing::Uninstall(of, which)),
        2 => (0..4_u8).prop_map(Doing::Key),
        1 => (0..4_u8).prop_map(Doing::Revoke),
        3 => (0..4_u8, 0..2_u8, any::<bool>()).prop_map(|(of, which, there)| Doing::Secret(of, which, there)),
    ]
}

async fn step(store: &SqlStore, doing: Doing) -> Option<Step> {
    let owner = |of: u8| tenant(&format!("t{of}"));
    let scope_of = |of: u8| if of == 3 { Scope::Global } else { Scope::Tenant(owner(of)) };
    let named = |which: u8| plugin(&format!("p{which}"));
    let seen = async |of: u8| store.tenant(&owner(of)).await.unwrap().map(|row| Expected::Revision(row.revision));
    Some(match doing {
        Doing::Add(of) => Step::AddTenant(tenant_row(owner(of).as_str())),
        Doing::Suspend(of) => Step::SuspendTenant { tenant: owner(of), suspended: true, expected: seen(of).await? },
        Doing::Remove(of) => Step::RemoveTenant { tenant: owner(of), expected: seen(of).await? },
        Doing::Install(of, which) => match store.registration(&scope_of(of), &named(which)).await.unwrap() {
            None => put(registration(scope_of(of), named(which).as_str())),
            Some(row) => {
                let expected = Expected::Revision(row.revision);
                Step::PutRegistration {
                    row: Registration { revision: row.revision + 1, enabled: !row.enabled, ..row },
                    expected,
                }
            }
        },
        Doing::Uninstall(of, which) => {
            let row = store.registration(&scope_of(of), &named(which)).await.unwrap()?;
            Step::RemoveRegistration {
                scope: scope_of(of),
                plugin: named(which),
                expected: Expected::Revision(row.revision),
            }
        }
        Doing::Key(of) => {
            let owner = (of != 3).then(|| owner(of).to_string());
            Step::AddKey(key(&Uuid::new_v4().to_string(), owner.as_deref()))
        }
        Doing::Revoke(of) => {
            let keys = store.keys((of != 3).then(|| owner(of)).as_ref(), page(1)).await.unwrap().items;
            Step::RevokeKey { id: keys.first()?.id, tenant: None }
        }
        Doing::Secret(of, which, there) => Step::PutSecret(SecretReference {
            scope: scope_of(of),
            name: format!("s{which}"),
            reference: there.then(|| Uuid::new_v4().to_string()),
        }),
    })
}

on_both! {
    async fn whoever_takes_only_what_changed_knows_everything(db: &Fixture) {
        let mut runner = proptest::test_runner::TestRunner::default();
        let mut known = Known::of(db.store.snapshot(None).await.unwrap());
        for _ in 0..6 {
            let is_over = Arc::new(AtomicBool::new(false));
            let mut writers = Vec::new();
            for _ in 0..3 {
                let doings = prop::collection::vec(doing(), 12).new_tree(&mut runner).unwrap().current();
                let store = db.another().await;
                writers.push(tokio::spawn(async move {
                    for doing in doings {
                        let Some(step) = step(&store, doing).await else { continue };
                        if let Err(error) = store.commit(change([step])).await {
                            // Another writer was first.
                            assert!(matches!(error.kind, ErrorKind::Conflict | ErrorKind::NotFound), "{doing:?}: {error:?}");
                        }
                    }
                }));
            }
            // While they write, somebody follows as fast as they can.
            let (store, over) = (db.store.clone(), Arc::clone(&is_over));
            let follower = tokio::spawn(async move {
                let mut snapshots = 0;
                while !over.load(Ordering::Relaxed) {
                    known.take(store.snapshot(Some(known.position)).await.unwrap());
                    snapshots += 1;
                }
                known.take(store.snapshot(Some(known.position)).await.unwrap());
                (known, snapshots)
            });
            for writer in writers {
                writer.await.unwrap();
            }
            is_over.store(true, Ordering::Relaxed);
            let snapshots;
            (known, snapshots) = follower.await.unwrap();
            assert!(snapshots > 3);
            assert_eq!(known, Known::of(db.store.snapshot(None).await.unwrap()));
        }
    }

    async fn a_database_that_was_put_back_is_told_whole(db: &Fixture) {
        db.tenants(&["acme"]).await;
        let now = db.store.snapshot(None).await.unwrap();
        assert!(now.complete);
        assert!(!db.store.snapshot(Some(now.position)).await.unwrap().complete);
        let seen_of_another = Position(now.position.0 + 5);
        assert_eq!(db.store.snapshot(Some(seen_of_another)).await.unwrap(), now);
    }

    async fn what_one_process_changes_another_is_told_within_a_second(db: &Fixture) {
        let other = db.another().await;
        let mut told = other.changes();
        // The first ones may come for having begun to look.
        while tokio::time::timeout(Duration::from_millis(700), told.next()).await.is_ok() {}
        for name in ["a", "b", "c"] {
            db.tenants(&[name]).await;
            soon(Duration::from_secs(1), told.next()).await.unwrap();
            assert!(other.tenant(&tenant(name)).await.unwrap().is_some());
            while told.next().now_or_never().is_some() {}
        }
        drop(other);
        soon(Duration::from_secs(5), async { while told.next().await.is_some() {} }).await;
    }

    async fn after_a_cut_one_is_told_again(db: &Fixture) {
        if !db.is_postgres() {
            return;
        }
        let other = db.another().await;
        let mut told = other.changes();
        while tokio::time::timeout(Duration::from_millis(700), told.next()).await.is_ok() {}
        // Everybody's connections but the one that does this.
        db.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
            .await
            .unwrap();
        soon(Duration::from_secs(5), told.next()).await.unwrap();
        other.ping().await.unwrap();
        db.store.ping().await.unwrap();
    }
}
