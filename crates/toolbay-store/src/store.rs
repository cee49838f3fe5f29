//! [`SqlStore`]: the port's methods, each handed to the file that does it.

use std::{path::Path, sync::Arc};

use futures::stream::BoxStream;
use serde_json::Value;
use toolbay_api::{ErrorKind, PluginName, Scope, TenantId, ToolError, async_trait};
use toolbay_runtime::store::{
    AuditEntry, AuditLine, AuditQuery, ChainHash, Change, DeadEvent, Expected, KeyRow, Listed, OutboxEvent,
    PackageDigest, PackageVersion, Page, Position, Registration, RunRow, SecretReference, Snapshot, Store, TenantRow,
};
use uuid::Uuid;

use crate::{
    answers, audit,
    changes::Watched,
    commit,
    db::{Db, Pools, read},
    fault::Fault,
    keys,
    migrations::{self, SchemaStatus},
    options::StoreOptions,
    outbox, packages, registrations, runs, secrets, snapshot, tenants,
    values::params,
};

/// A store in an SQLite file or in PostgreSQL. Cloning it gives another handle on the same connections.
///
/// ```
/// # async fn kept() -> Result<(), toolbay_api::ToolError> {
/// use toolbay_runtime::store::Store as _;
/// use toolbay_store::{SqlStore, StoreOptions};
///
/// let store = SqlStore::open("sqlite:toolbay-data/toolbay.db", StoreOptions::default()).await?;
/// assert!(store.snapshot(None).await?.tenants.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct SqlStore(pub(crate) Arc<Inner>);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) db: Db,
    pub(crate) watched: Watched,
}

impl SqlStore {
    /// Opens the database at `url`, `sqlite:PATH` or `postgres://...`, and brings its schema up to this program's. An SQLite
    /// file is made where it is missing, readable by its owner alone, with the folders on the way.
    ///
    /// # Errors
    /// `Config` where `url` is none, the file cannot be made, or the database is newer than this program; `Unavailable`
    /// where it cannot be reached.
    ///
    /// # Cancel safety
    /// A migration has happened wholly or not at all.
    pub async fn open(url: &str, options: StoreOptions) -> Result<Self, ToolError> {
        let store = Self::new(Db::new(url, options, true)?);
        store.migrate().await?;
        Ok(store)
    }

    /// The database at `url` as it is, for looking after it: nothing is made, and the port's methods fail where its schema is
    /// not this program's.
    ///
    /// # Errors
    /// `Config` where `url` is none; `NotFound` where there is no such file.
    pub fn existing(url: &str, options: StoreOptions) -> Result<Self, ToolError> {
        Db::new(url, options, false).map(Self::new)
    }

    fn new(db: Db) -> Self {
        Self(Arc::new(Inner { db, watched: Watched::default() }))
    }

    /// Brings the schema up to this program's. Gives the steps that were made.
    ///
    /// # Errors
    /// `Config` where the database is newer than this program; `Unavailable` where it cannot be reached.
    ///
    /// # Cancel safety
    /// It has happened wholly or not at all.
    pub async fn migrate(&self) -> Result<Vec<String>, ToolError> {
        migrations::migrate(&self.0.db).await
    }

    /// How the schema stands to this program's.
    ///
    /// # Errors
    /// `Unavailable` where the database cannot be reached.
    pub async fn status(&self) -> Result<SchemaStatus, ToolError> {
        migrations::status(&self.0.db).await
    }

    /// Writes a copy of the database to the new file `to`, as of one moment, while others go on writing. For SQLite only.
    ///
    /// # Errors
    /// `Config` for PostgreSQL, whose `pg_dump` does this; `Conflict` where there is such a file; `Unavailable` where it
    /// cannot be written.
    pub async fn backup(&self, to: &Path) -> Result<(), ToolError> {
        let Inner { db, .. } = &*self.0;
        if matches!(db.pools, Pools::Postgres { .. }) {
            return Err(ToolError::new(ErrorKind::Config, "a PostgreSQL database is backed up with pg_dump"));
        }
        if to.exists() {
            return Err(crate::fault::conflict(format!("there is a file {} already", to.display())));
        }
        let file = to.to_str().ok_or_else(|| crate::fault::invalid("the file's path is not Unicode"))?;
        // With the rights of the database: SQLite fills an empty file that is there.
        crate::db::make_file(to, true)?;
        let copied = db
            .within(db.options.long_timeout, async {
                let mut link = db.reading().await?;
                link.execute("VACUUM INTO $1", params![file]).await?;
                link.finish().await
            })
            .await;
        if copied.is_err() {
            // What is there is no copy.
            drop(std::fs::remove_file(to));
        }
        copied
    }

    /// Closes the connections. Operations after it fail with `Unavailable`.
    ///
    /// # Cancel safety
    /// Connections that were not yet closed close when they are done.
    pub async fn close(&self) {
        self.0.db.close().await;
    }

    fn db(&self) -> &Db {
        &self.0.db
    }
}

#[async_trait]
impl Store for SqlStore {
    async fn snapshot(&self, seen: Option<Position>) -> Result<Snapshot, ToolError> {
        snapshot::snapshot(self.db(), seen).await
    }

    async fn commit(&self, change: Change) -> Result<Position, ToolError> {
        let position = commit::commit(self.db(), &change).await?;
        self.0.watched.tell();
        Ok(position)
    }

    fn changes(&self) -> BoxStream<'static, ()> {
        Watched::changes(&self.0)
    }

    async fn ping(&self) -> Result<(), ToolError> {
        read!(self.db(), |link| link.number("SELECT position FROM store_state", params![]).await.map(drop))
    }

    async fn tenants(&self, page: Page) -> Result<Listed<TenantRow>, ToolError> {
        tenants::list(self.db(), &page).await
    }

    async fn tenant(&self, name: &TenantId) -> Result<Option<TenantRow>, ToolError> {
        tenants::one(self.db(), name).await
    }

    async fn registration(&self, scope: &Scope, plugin: &PluginName) -> Result<Option<Registration>, ToolError> {
        registrations::one(self.db(), scope, plugin).await
    }

    async fn versions(&self, scope: &Scope, plugin: &PluginName) -> Result<Vec<PackageVersion>, ToolError> {
        packages::versions(self.db(), scope, plugin).await
    }

    async fn package(&self, digest: &PackageDigest) -> Result<Option<Arc<[u8]>>, ToolError> {
        packages::content(self.db(), digest).await
    }

    async fn keys(&self, tenant: Option<&TenantId>, page: Page) -> Result<Listed<KeyRow>, ToolError> {
        keys::list(self.db(), tenant, &page).await
    }

    async fn secrets(&self, scope: &Scope, page: Page) -> Result<Listed<SecretReference>, ToolError> {
        secrets::list(self.db(), scope, &page).await
    }

    async fn answered(&self, owner: Uuid, key: &str, now_ms: i64) -> Result<Option<(ChainHash, Value)>, ToolError> {
        answers::answered(self.db(), owner, key, now_ms).await
    }

    async fn record(&self, entries: Vec<AuditEntry>) -> Result<(), ToolError> {
        audit::record(self.db(), &entries).await
    }

    async fn audit(&self, scope: &Scope, query: &AuditQuery) -> Result<Listed<AuditLine>, ToolError> {
        audit::lines(self.db(), scope, query).await
    }

    async fn put_run(&self, run: RunRow, expected: Expected) -> Result<(), ToolError> {
        runs::put(self.db(), &run, expected).await
    }

    async fn run(&self, tenant: &TenantId, id: Uuid) -> Result<Option<RunRow>, ToolError> {
        runs::one(self.db(), tenant, id).await
    }

    async fn runs(&self, tenant: &TenantId, page: Page) -> Result<Listed<RunRow>, ToolError> {
        runs::list(self.db(), tenant, &page).await
    }

    async fn post(&self, events: Vec<OutboxEvent>) -> Result<(), ToolError> {
        outbox::post(self.db(), &events).await
    }

    async fn claim(&self, limit: u32, lease_ms: i64, now_ms: i64) -> Result<Vec<OutboxEvent>, ToolError> {
        outbox::claim(self.db(), limit, lease_ms, now_ms).await
    }

    async fn delivered(&self, id: Uuid, attempts: u32) -> Result<(), ToolError> {
        outbox::delivered(self.db(), id, attempts).await
    }

    async fn undelivered(
        &self,
        id: Uuid,
        attempts: u32,
        problem: &str,
        retry_ms: Option<i64>,
        now_ms: i64,
    ) -> Result<(), ToolError> {
        outbox::undelivered(self.db(), id, attempts, problem, retry_ms, now_ms).await
    }

    async fn dead_events(&self, page: Page) -> Result<Listed<DeadEvent>, ToolError> {
        outbox::dead(self.db(), &page).await
    }

    async fn revive(&self, id: Uuid, now_ms: i64) -> Result<bool, ToolError> {
        outbox::revive(self.db(), id, now_ms).await
    }
}

/// The number of a scope, for statements: the tenant's, or nil; `None` where there is no such tenant.
pub(crate) async fn scope_id(link: &mut crate::link::Link, scope: &Scope) -> Result<Option<Uuid>, Fault> {
    let Scope::Tenant(tenant) = scope else { return Ok(Some(Uuid::nil())) };
    let row = link.row("SELECT id FROM tenants WHERE name = $1", params![tenant.as_str()]).await?;
    row.map(|row| row.get(0)).transpose()
}

/// The same, where a missing tenant is an error.
pub(crate) async fn known_scope_id(link: &mut crate::link::Link, scope: &Scope) -> Result<Uuid, Fault> {
    let id = scope_id(link, scope).await?;
    id.ok_or_else(|| crate::fault::not_found(format!("there is no {scope}")).into())
}

/// The name of a scope in `tenants`.
pub(crate) fn scope_name(scope: &Scope) -> &str {
    match scope {
        Scope::Global => "",
        Scope::Tenant(tenant) => tenant.as_str(),
    }
}

/// The scope of a name in `tenants`.
pub(crate) fn scope_of(name: String) -> Result<Scope, Fault> {
    if name.is_empty() {
        return Ok(Scope::Global);
    }
    TenantId::new(name).map(Scope::Tenant).map_err(|_| crate::fault::damaged("a tenant's name").into())
}
