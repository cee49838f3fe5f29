//! Runs that wait: kept apart for each tenant, up to a number and a time, and taken out once.

use serde_json::{Value, json};
use toolbay_api::ErrorKind;
use toolbay_runtime::store::{MemorySuspended, Page, Step, Store as _, SuspendedRow, SuspendedRuns};
use toolbay_store::Bounds;
use uuid::Uuid;

use crate::support::*;

fn waiting(owner: &str, suspended_at: i64) -> SuspendedRow {
    SuspendedRow {
        id: Uuid::now_v7(),
        tenant: tenant(owner),
        user: Some("ada".into()),
        suspended_at,
        expires_at: suspended_at + 1_000,
        pending: json!([{ "tool": "pay" }]),
        state: json!({ "z": 1.50, "a": [true, null, 9_007_199_254_740_993_i64] }),
    }
}

/// What every store of runs that wait does; two may be kept.
async fn keeps(store: &dyn SuspendedRuns) {
    let (acme, globex) = (tenant("acme"), tenant("globex"));
    let (one, two) = (waiting("acme", 1), waiting("acme", 2));
    store.put_suspended(two.clone(), 2).await.unwrap();
    store.put_suspended(one.clone(), 2).await.unwrap();
    assert_eq!(store.suspended(&acme, one.id, 3).await.unwrap(), Some(one.clone()));
    assert_eq!(kind(store.put_suspended(one.clone(), 2).await), ErrorKind::Conflict);
    // In parts, without their states, those that wait longest first.
    let first = store.list_suspended(&acme, page(1), 3).await.unwrap();
    assert_eq!(first.items, [SuspendedRow { state: Value::Null, ..one.clone() }]);
    let rest = store.list_suspended(&acme, Page { after: first.next, limit: 9 }, 3).await.unwrap();
    assert_eq!((rest.items[0].id, rest.items.len(), rest.next), (two.id, 1, None));
    // Another tenant's are not there.
    assert_eq!(store.suspended(&globex, one.id, 3).await.unwrap(), None);
    assert_eq!(store.take_suspended(&globex, one.id, 3).await.unwrap(), None);
    assert!(store.list_suspended(&globex, page(9), 3).await.unwrap().items.is_empty());
    store.put_suspended(waiting("globex", 1), 2).await.unwrap();
    // As many as are allowed, of which none is pushed out.
    assert!(matches!(kind(store.put_suspended(waiting("acme", 3), 3).await), ErrorKind::LimitExceeded { .. }));
    assert_eq!(store.take_suspended(&acme, one.id, 3).await.unwrap(), Some(one.clone()));
    assert_eq!(store.take_suspended(&acme, one.id, 3).await.unwrap(), None);
    store.put_suspended(waiting("acme", 3), 3).await.unwrap();
    // Those that are over are not there, and make room.
    assert_eq!(store.suspended(&acme, two.id, 1_002).await.unwrap(), None);
    assert_eq!(store.take_suspended(&acme, two.id, 1_002).await.unwrap(), None);
    let late = waiting("acme", 1_002);
    store.put_suspended(late.clone(), 1_002).await.unwrap();
    store.take_suspended(&acme, late.id, 1_003).await.unwrap().unwrap();
}

#[tokio::test]
async fn runs_that_wait_are_kept_in_memory() {
    keeps(&MemorySuspended::new(2)).await;
}

on_both! {
    async fn runs_that_wait_are_kept_and_go_with_their_tenant(db: &Fixture) {
        db.tenants(&["acme", "globex"]).await;
        let store = db.bounded(Bounds { suspended_runs: 2, ..Bounds::default() }).await;
        keeps(&store).await;
        assert_eq!(kind(store.put_suspended(waiting("nobody", 1), 1).await), ErrorKind::NotFound);
        let revision = store.tenant(&tenant("globex")).await.unwrap().unwrap().revision;
        let expected = toolbay_runtime::store::Expected::Revision(revision);
        db.step(Step::RemoveTenant { tenant: tenant("globex"), expected }).await.unwrap();
        assert_eq!(db.number("SELECT COUNT(*) FROM suspended_runs s WHERE s.suspended_at = 1").await, 0);
    }

    async fn of_many_that_take_the_same_run_one_gets_it(db: &Fixture) {
        db.tenants(&["acme"]).await;
        let others = [db.another().await, db.another().await];
        for round in 0..20 {
            let row = waiting("acme", round);
            db.store.put_suspended(row.clone(), round).await.unwrap();
            let takes = (0..8).map(|n| {
                let (store, row) = (others[n % 2].clone(), row.clone());
                tokio::spawn(async move { store.take_suspended(&row.tenant, row.id, 1).await.unwrap() })
            });
            let mut got = Vec::new();
            for take in takes.collect::<Vec<_>>() {
                got.extend(take.await.unwrap());
            }
            assert_eq!(got, [row]);
        }
    }

    async fn tenants_cannot_have_more_than_they_may_by_being_quick(db: &Fixture) {
        db.tenants(&["acme"]).await;
        let store = db.bounded(Bounds { suspended_runs: 3, ..Bounds::default() }).await;
        let puts = (0..12).map(|n| {
            let store = store.clone();
            tokio::spawn(async move { store.put_suspended(waiting("acme", n), 0).await.is_ok() })
        });
        let mut kept = 0;
        for put in puts.collect::<Vec<_>>() {
            kept += usize::from(put.await.unwrap());
        }
        assert_eq!((kept, db.number("SELECT COUNT(*) FROM suspended_runs").await), (3, 3));
    }
}
