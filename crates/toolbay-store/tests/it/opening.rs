//! Opening a database: made where it is missing, brought up to date by one at a time, refused where it is newer.

use std::path::Path;

use toolbay_api::ErrorKind;
use toolbay_runtime::store::Store as _;
use toolbay_store::{MigrationState, SqlStore, StoreOptions};

use crate::support::*;

#[cfg(unix)]
#[tokio::test]
async fn a_new_file_is_its_owners_alone_with_all_that_belongs_to_it() {
    use std::os::unix::fs::PermissionsExt as _;

    let db = Fixture::sqlite().await;
    db.tenants(&["acme"]).await;
    let folder = db.folder.path().join("data");
    let rights = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(rights(&folder), 0o700);
    let files: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files.len(), 3, "{files:?}");
    for file in files {
        assert_eq!(rights(&file), 0o600, "{}", file.display());
    }
}

#[tokio::test]
async fn what_is_no_database_is_said_without_repeating_it() {
    for url in [
        "",
        "mysql://toolbay:secret@localhost/x",
        "sqlite:",
        "sqlite::memory:",
        "postgres://toolbay:secret@localhost:port/x",
    ] {
        let error = SqlStore::open(url, StoreOptions::default()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Config, "{url}: {error}");
        assert!(!error.message.contains("secret"), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.db");
    std::fs::write(&file, "this is no database, whatever its name may say".repeat(100)).unwrap();
    let error = SqlStore::open(&format!("sqlite:{}", file.display()), StoreOptions::default()).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Internal);
    let missing =
        SqlStore::existing(&format!("sqlite:{}/missing.db", folder.path().display()), StoreOptions::default());
    assert_eq!(kind(missing), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_copy_is_a_database_and_takes_nobodys_place() {
    let db = Fixture::sqlite().await;
    db.tenants(&["acme"]).await;
    let copy = db.folder.path().join("copies/toolbay.db");
    db.store.backup(&copy).await.unwrap();
    assert_eq!(kind(db.store.backup(&copy).await), ErrorKind::Conflict);
    let copied = SqlStore::existing(&format!("sqlite:{}", copy.display()), StoreOptions::default()).unwrap();
    assert_eq!(copied.snapshot(None).await.unwrap(), db.store.snapshot(None).await.unwrap());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
    }
    if let Some(db) = Fixture::postgres().await {
        let error = db.store.backup(&copy.with_extension("pg")).await.unwrap_err();
        assert!(error.kind == ErrorKind::Config && error.message.contains("pg_dump"), "{error}");
    }
}

on_both! {
    async fn a_newer_or_another_schema_is_refused_and_left_alone(db: &Fixture) {
        let status = db.store.status().await.unwrap();
        assert!(status.is_current());
        let zeros = if db.is_postgres() { format!("'\\x{}'", "00".repeat(32)) } else { format!("x'{}'", "00".repeat(32)) };
        db.sql(&format!("INSERT INTO toolbay_migrations (version, name, digest) VALUES (99, 'later', {zeros})")).await.unwrap();
        let error = SqlStore::open(&db.url, StoreOptions::default()).await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Config);
        assert!(error.message.contains("0099 later was made by a newer version"), "{error}");
        let found = SqlStore::existing(&db.url, StoreOptions::default()).unwrap().status().await.unwrap();
        assert_eq!(found.migrations.last().map(|step| step.state), Some(MigrationState::Newer));
        db.sql(&format!("DELETE FROM toolbay_migrations WHERE version = 99; UPDATE toolbay_migrations SET digest = {zeros}")).await.unwrap();
        let error = SqlStore::open(&db.url, StoreOptions::default()).await.unwrap_err();
        assert!(error.kind == ErrorKind::Config && error.message.contains("0001 begin is not the one"), "{error}");
    }
}

#[tokio::test]
async fn the_server_is_told_who_connects_unless_the_url_says_another_name() {
    let Some(db) = Fixture::postgres().await else { return };
    let connected = async |name: &str| {
        let here = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()";
        db.number(&format!("{here} AND application_name = '{name}'")).await
    };
    db.store.ping().await.unwrap();
    assert!(connected("toolbay").await > 0);
    assert_eq!(connected("billing").await, 0);
    let url = format!("{}?application_name=billing", db.url);
    let named = SqlStore::open(&url, StoreOptions::default()).await.unwrap();
    named.ping().await.unwrap();
    assert!(connected("billing").await > 0);
}

/// Opens a new database several times at once.
async fn opened_at_once(url: &str) {
    let opened = (0..6).map(|_| {
        let url = url.to_owned();
        tokio::spawn(async move { SqlStore::open(&url, StoreOptions::default()).await })
    });
    for store in futures::future::join_all(opened).await {
        store.unwrap().unwrap().ping().await.unwrap();
    }
    let store = SqlStore::existing(url, StoreOptions::default()).unwrap();
    assert!(store.status().await.unwrap().is_current());
    assert!(store.migrate().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_that_start_at_once_do_not_collide() {
    let folder = tempfile::tempdir().unwrap();
    opened_at_once(&format!("sqlite:{}", folder.path().join("a/b/toolbay.db").display())).await;
    if let Some(url) = new_postgres().await {
        let before = SqlStore::existing(&url, StoreOptions::default()).unwrap().status().await.unwrap();
        assert_eq!(before.migrations.first().map(|step| step.state), Some(MigrationState::Pending));
        opened_at_once(&url).await;
    }
}
