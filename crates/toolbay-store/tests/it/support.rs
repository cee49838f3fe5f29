//! A database for each test, rows for them, and short ways to say things.

use std::time::Duration;

use semver::Version;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _, SqliteConnection};
use tempfile::TempDir;
use toolbay_api::{ErrorKind, PluginName, Scope, TenantId, ToolError};
use toolbay_runtime::{
    kv::KvSpace,
    store::{
        AuditEntry, AuditQuery, Change, Expected, KeyRow, OutboxEvent, PackageDigest, PackageVersion, Page, Position,
        Registration, Role, RunRow, Step, Store as _, TenantRow,
    },
};
use toolbay_store::{Bounds, SqlStore, StoreOptions};
use uuid::Uuid;

/// Writes each test twice, for SQLite and for PostgreSQL.
macro_rules! on_both {
    ($(async fn $name:ident($db:ident: &Fixture) $body:block)*) => {$(
        mod $name {
            #[allow(unused_imports, reason = "not each test needs everything of its file")]
            use super::*;

            async fn check($db: &Fixture) $body

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_sqlite() {
                check(&Fixture::sqlite().await).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_postgres() {
                if let Some(db) = Fixture::postgres().await {
                    check(&db).await;
                }
            }
        }
    )*};
}

/// A new database with a store.
pub(crate) struct Fixture {
    pub(crate) url: String,
    pub(crate) store: SqlStore,
    pub(crate) folder: TempDir,
}

impl Fixture {
    pub(crate) async fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", folder.path().join("data/toolbay.db").display());
        Self { store: SqlStore::open(&url, StoreOptions::default()).await.unwrap(), url, folder }
    }

    /// `None` where no PostgreSQL is to be had.
    pub(crate) async fn postgres() -> Option<Self> {
        let url = new_postgres().await?;
        let store = SqlStore::open(&url, StoreOptions::default()).await.unwrap();
        Some(Self { store, url, folder: tempfile::tempdir().unwrap() })
    }

    /// Another store on the same database, as another process would have it.
    pub(crate) async fn another(&self) -> SqlStore {
        self.with(StoreOptions::default()).await
    }

    pub(crate) async fn with(&self, options: StoreOptions) -> SqlStore {
        SqlStore::open(&self.url, options).await.unwrap()
    }

    pub(crate) async fn bounded(&self, bounds: Bounds) -> SqlStore {
        self.with(StoreOptions { bounds, ..StoreOptions::default() }).await
    }

    pub(crate) fn is_postgres(&self) -> bool {
        self.url.starts_with("postgres")
    }

    /// The URL for a process of its own, which is known by a name.
    pub(crate) fn url_of(&self, process: &str) -> String {
        if self.is_postgres() { format!("{}?application_name={process}", self.url) } else { self.url.clone() }
    }

    /// Waits until the server has read to the end what a process sent it that is no more: only then it sees that nobody is
    /// there.
    pub(crate) async fn lets_go_of(&self, process: &str) {
        let served = format!(
            "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = '{process}'"
        );
        while self.is_postgres() && self.number(&served).await > 0 {}
    }

    /// Runs SQL behind the store's back.
    pub(crate) async fn sql(&self, sql: &str) -> Result<(), sqlx::Error> {
        if self.is_postgres() {
            let mut link = PgConnection::connect(&self.url).await?;
            sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut link).await?;
            link.close().await
        } else {
            let mut link = SqliteConnection::connect(&self.url).await?;
            sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut link).await?;
            link.close().await
        }
    }

    /// One number of the database.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        if self.is_postgres() {
            let mut link = PgConnection::connect(&self.url).await.unwrap();
            sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_one(&mut link).await.unwrap().get(0)
        } else {
            let mut link = SqliteConnection::connect(&self.url).await.unwrap();
            sqlx::query(AssertSqlSafe(sql.to_owned())).fetch_one(&mut link).await.unwrap().get(0)
        }
    }

    /// Makes tenants.
    pub(crate) async fn tenants(&self, names: &[&str]) {
        for name in names {
            self.store.commit(change([Step::AddTenant(tenant_row(name))])).await.unwrap();
        }
    }

    pub(crate) async fn step(&self, step: Step) -> Result<Position, ToolError> {
        self.store.commit(change([step])).await
    }
}

/// The URL of a new database; `None` where no PostgreSQL is to be had.
pub(crate) async fn new_postgres() -> Option<String> {
    let Ok(cluster) = std::env::var("TOOLBAY_TEST_POSTGRES") else {
        println!("left out: no PostgreSQL in TOOLBAY_TEST_POSTGRES; see scripts/postgres");
        return None;
    };
    let name = format!("t_{}", Uuid::new_v4().simple());
    let mut link = PgConnection::connect(&cluster).await.unwrap();
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut link).await.unwrap();
    link.close().await.unwrap();
    let (server, _) = cluster.rsplit_once('/').unwrap();
    Some(format!("{server}/{name}"))
}

pub(crate) fn change(steps: impl IntoIterator<Item = Step>) -> Change {
    Change { at_ms: 1_000, steps: steps.into_iter().collect(), audit: Vec::new(), once: None }
}

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

pub(crate) fn scope(name: &str) -> Scope {
    Scope::Tenant(tenant(name))
}

pub(crate) fn plugin(name: &str) -> PluginName {
    PluginName::new(name).unwrap()
}

pub(crate) fn tenant_row(name: &str) -> TenantRow {
    TenantRow { id: Uuid::now_v7(), name: tenant(name), suspended: false, created_at: 5, revision: 1 }
}

pub(crate) fn registration(scope: Scope, name: &str) -> Registration {
    Registration {
        id: Uuid::now_v7(),
        scope,
        plugin: plugin(name),
        version: Version::new(1, 2, 3),
        package: None,
        previous: Some(Version::parse("1.2.2-rc.1+build").unwrap()),
        enabled: true,
        config: Some(json!({ "base": "EUR" })),
        priority: Some(-5),
        installed_at: 7,
        updated_at: 8,
        revision: 1,
    }
}

pub(crate) fn put(row: Registration) -> Step {
    Step::PutRegistration { row, expected: Expected::Absent }
}

pub(crate) fn package(scope: Scope, name: &str, version: &str, content: &[u8]) -> Step {
    Step::AddPackage { row: version_row(scope, name, version, content), content: content.into() }
}

pub(crate) fn version_row(scope: Scope, name: &str, version: &str, content: &[u8]) -> PackageVersion {
    PackageVersion {
        scope,
        plugin: plugin(name),
        version: version.parse().unwrap(),
        digest: PackageDigest::of(content),
        bytes: content.len() as i64,
        file_name: Some(format!("{name}.rhai")),
        manifest: json!({ "name": name, "z": 1, "a": 2.0 }),
        uploaded_at: 9,
        uploaded_by: "key:abc".into(),
    }
}

pub(crate) fn key(prefix: &str, owner: Option<&str>) -> KeyRow {
    KeyRow {
        id: Uuid::now_v7(),
        prefix: prefix.into(),
        hash: [7; 32],
        role: if owner.is_some() { Role::Tenant } else { Role::Admin },
        tenant: owner.map(tenant),
        label: "for tests".into(),
        rate: Some(60),
        created_at: 10,
        expires_at: Some(i64::MAX),
        revoked_at: None,
    }
}

pub(crate) fn run(owner: &str, started_at: i64) -> RunRow {
    RunRow {
        id: Uuid::now_v7(),
        tenant: tenant(owner),
        status: "running".into(),
        started_at,
        updated_at: started_at,
        state: json!({ "step": 1 }),
        revision: 1,
    }
}

pub(crate) fn event(scope: Scope, key: &str, n: i64) -> OutboxEvent {
    OutboxEvent { id: Uuid::now_v7(), scope, key: key.into(), event: json!({ "n": n }), posted_at: n, attempts: 0 }
}

pub(crate) fn entry(scope: Scope, action: &str, target: &str) -> AuditEntry {
    AuditEntry {
        scope,
        at_ms: 11,
        actor: "key:abc".into(),
        action: action.into(),
        target: target.into(),
        outcome: "ok".into(),
        detail: json!({ "z": 1.5, "a": [true, null] }),
    }
}

pub(crate) fn space(owner: &str, name: &str) -> KvSpace {
    KvSpace { tenant: tenant(owner), plugin: plugin(name), own: false }
}

pub(crate) fn page(limit: u32) -> Page {
    Page { after: None, limit }
}

pub(crate) fn all() -> AuditQuery {
    AuditQuery { action: None, since_ms: None, newest_first: false, page: page(1_000) }
}

pub(crate) fn kind<T: std::fmt::Debug>(result: Result<T, ToolError>) -> ErrorKind {
    result.unwrap_err().kind
}

/// `work`, which must not take longer than `limit`.
pub(crate) async fn soon<T>(limit: Duration, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(limit, work).await.expect("in time")
}
