//! A database that is away, hangs or is held by somebody: an answer in time, and everything as before when it is back.

use std::time::{Duration, Instant};

use futures::future::join_all;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};
use toolbay_api::{ErrorKind, Scope};
use toolbay_runtime::{
    kv::{KvQuota, KvStore as _},
    store::{Step, Store as _},
};
use toolbay_store::{SqlStore, StoreOptions};

use crate::support::*;

/// What a way to the database does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Open,
    /// Takes connections and bytes, and nothing comes of them.
    Hanging,
    Cut,
}

/// A way to the database that can be cut. Gives its port.
async fn way_to(server: String, way: watch::Receiver<Way>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let (server, mut way) = (server.clone(), way.clone());
            tokio::spawn(async move {
                let Ok(mut far) = TcpStream::connect(server).await else { return };
                loop {
                    let now = *way.borrow_and_update();
                    match now {
                        Way::Cut => return,
                        Way::Hanging => drop(way.changed().await),
                        Way::Open => tokio::select! {
                            _ = copy_bidirectional(&mut near, &mut far) => return,
                            _ = way.changed() => {}
                        },
                    }
                }
            });
        }
    });
    port
}

fn impatient() -> StoreOptions {
    StoreOptions {
        connections: 4,
        connect_timeout: Duration::from_millis(500),
        timeout: Duration::from_millis(800),
        ..StoreOptions::default()
    }
}

/// A connection of somebody else's in the middle of a transaction.
enum Other {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Other {
    async fn holding(db: &Fixture, sql: &str) -> Self {
        let sql = |begin: &str| AssertSqlSafe(format!("{begin}; {sql}"));
        if db.is_postgres() {
            let mut link = PgConnection::connect(&db.url).await.unwrap();
            sqlx::raw_sql(sql("BEGIN")).execute(&mut link).await.unwrap();
            Self::Postgres(link)
        } else {
            let mut link = SqliteConnection::connect(&db.url).await.unwrap();
            sqlx::raw_sql(sql("BEGIN IMMEDIATE")).execute(&mut link).await.unwrap();
            Self::Sqlite(link)
        }
    }

    async fn let_go(self) {
        match self {
            Self::Sqlite(link) => link.close().await.unwrap(),
            Self::Postgres(link) => link.close().await.unwrap(),
        }
    }
}

on_both! {
    async fn what_somebody_else_holds_is_waited_for_and_not_without_end(db: &Fixture) {
        db.tenants(&["acme"]).await;
        let store = db.with(impatient()).await;
        let other = Other::holding(db, "UPDATE store_state SET position = position").await;
        let begun = Instant::now();
        let refused = store.commit(change([Step::AddTenant(tenant_row("globex"))])).await;
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        let error = refused.unwrap_err();
        assert!(error.kind == ErrorKind::Unavailable && error.retryable, "{error:?}");
        assert!(!error.message.contains("127.0.0.1") && !error.message.to_lowercase().contains("update"), "{error}");
        // Who reads is not in the way.
        assert!(store.tenant(&tenant("acme")).await.unwrap().is_some());
        other.let_go().await;
        store.commit(change([Step::AddTenant(tenant_row("globex"))])).await.unwrap();
    }

    async fn a_change_whose_caller_goes_away_happens_wholly_or_not_at_all(db: &Fixture) {
        db.tenants(&["acme"]).await;
        let store = db.with(StoreOptions { connections: 2, ..StoreOptions::default() }).await;
        for n in 0..60_u64 {
            let name = format!("t{n}");
            let mut change = change([Step::AddTenant(tenant_row(&name)), put(registration(scope(&name), "fx"))]);
            change.audit.push(entry(Scope::Global, "tenant.add", &name));
            let task = tokio::spawn({
                let store = store.clone();
                async move { store.commit(change).await }
            });
            tokio::time::sleep(Duration::from_micros(n * 97 % 4_000)).await;
            task.abort();
        }
        soon(Duration::from_secs(5), store.ping()).await.unwrap();
        db.tenants(&["last"]).await;
        let snapshot = store.snapshot(None).await.unwrap();
        let audited = store.audit(&Scope::Global, &all()).await.unwrap().items.len();
        assert_eq!(snapshot.tenants.len(), audited + 2);
        assert_eq!(snapshot.registrations.len(), audited);
        assert_eq!(store.verify_audit().await.unwrap(), []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_cut_off_or_hangs_is_told_in_time_and_found_again() {
    let Some(url) = new_postgres().await else { return };
    let (before, server) = url.split_once('@').unwrap();
    let (server, name) = server.split_once('/').unwrap();
    let (way, ways) = watch::channel(Way::Open);
    let port = way_to(server.to_owned(), ways).await;
    let store = SqlStore::open(&format!("{before}@127.0.0.1:{port}/{name}"), impatient()).await.unwrap();
    let mut told = store.changes();
    store.commit(change([Step::AddTenant(tenant_row("acme"))])).await.unwrap();
    let position = store.snapshot(None).await.unwrap().position;
    for bad in [Way::Cut, Way::Hanging, Way::Cut, Way::Hanging] {
        way.send(bad).unwrap();
        let begun = Instant::now();
        let writes = (0..100).map(async |n| {
            let key = n.to_string();
            store.set(&space("acme", "fx"), &key, json!(n).into(), KvQuota::default(), 0).await
        });
        for error in soon(Duration::from_secs(3), join_all(writes)).await.into_iter().map(Result::unwrap_err) {
            assert!(error.kind == ErrorKind::Unavailable && error.retryable, "{error:?}");
        }
        assert_eq!(kind(store.snapshot(Some(position)).await), ErrorKind::Unavailable);
        assert_eq!(kind(store.ping().await), ErrorKind::Unavailable);
        println!("{bad:?}: a hundred writes refused and more in {:?}", begun.elapsed());
        way.send(Way::Open).unwrap();
        let begun = Instant::now();
        while store.ping().await.is_err() {
            assert!(begun.elapsed() < Duration::from_secs(5), "it does not come back");
            tokio::task::yield_now().await;
        }
        println!("back after {:?}", begun.elapsed());
        store.set(&space("acme", "fx"), "k", json!(1).into(), KvQuota::default(), 0).await.unwrap();
        soon(Duration::from_secs(5), futures::StreamExt::next(&mut told)).await.unwrap();
    }
    // Nothing has piled up: the pool, and the one that listens.
    let mut link = PgConnection::connect(&url).await.unwrap();
    let count = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let begun = Instant::now();
    loop {
        let count: i64 = sqlx::query_scalar(count).fetch_one(&mut link).await.unwrap();
        if count <= 5 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{count} connections are left");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_than_may_wait_are_refused_at_once() {
    let db = Fixture::sqlite().await;
    db.tenants(&["acme"]).await;
    let store = db.with(StoreOptions { waiting: 3, connections: 1, ..impatient() }).await;
    let other = Other::holding(&db, "UPDATE store_state SET position = position").await;
    let (begun, writes) = (
        Instant::now(),
        (0..50).map(async |n: i32| {
            let set = store.set(&space("acme", "fx"), &n.to_string(), json!(n).into(), KvQuota::default(), 0).await;
            (set.unwrap_err().kind, Instant::now())
        }),
    );
    let ended = join_all(writes).await;
    assert!(ended.iter().all(|(kind, _)| *kind == ErrorKind::Unavailable));
    let at_once = ended.iter().filter(|(_, at)| at.duration_since(begun) < Duration::from_millis(400)).count();
    assert_eq!(at_once, 46);
    other.let_go().await;
}
