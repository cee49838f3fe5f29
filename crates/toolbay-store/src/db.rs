//! The database: where it is, its connections, and how long anything may take.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    ConnectOptions as _, PgPool, SqlitePool,
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use tokio::sync::Semaphore;
use toolbay_api::{ErrorKind, ToolError};

use crate::{
    fault::{Fault, unavailable},
    link::{Held, Link},
    options::StoreOptions,
};

/// How often a transaction is tried that others were in the way of.
pub(crate) const TRIES: u32 = 6;

/// A database and its connections.
#[derive(Debug)]
pub(crate) struct Db {
    pub(crate) pools: Pools,
    pub(crate) options: StoreOptions,
    /// Who uses or awaits a connection. Where the database is away nobody else waits for it.
    places: Semaphore,
}

/// Two databases, as they are.
#[derive(Debug)]
pub(crate) enum Pools {
    /// A file has one writer at a time; who waits for it waits here rather than in the file's lock.
    Sqlite { writer: SqlitePool, readers: SqlitePool },
    /// `listener` has the one connection that hears of changes.
    Postgres { pool: PgPool, listener: PgPool },
}

/// Where a database is.
#[derive(Debug, Clone)]
enum Place {
    Sqlite(PathBuf),
    Postgres(Box<PgConnectOptions>),
}

impl Place {
    fn parse(url: &str) -> Result<Self, ToolError> {
        // The URL may hold a password, so no error repeats it.
        let config = |message: &str| ToolError::new(ErrorKind::Config, message.to_owned());
        match url.split_once(':') {
            Some(("sqlite", path)) => {
                let path = path.strip_prefix("//").unwrap_or(path);
                if path.is_empty() || path == ":memory:" || path.contains('?') {
                    return Err(config("the database is to be `sqlite:` and the path of a file"));
                }
                Ok(Self::Sqlite(path.into()))
            }
            Some(("postgres" | "postgresql", _)) => {
                let options = url.parse::<PgConnectOptions>();
                let options = options.map_err(|error| {
                    config("the database's URL is to be like `postgres://USER@HOST:PORT/DATABASE`").with_source(error)
                })?;
                Ok(Self::Postgres(Box::new(options)))
            }
            _ => Err(config("the database is to be `sqlite:PATH` or `postgres://USER@HOST:PORT/DATABASE`")),
        }
    }
}

impl Db {
    /// The database at `url`; connections are made when they are needed. A missing file is made if `create` says so.
    pub(crate) fn new(url: &str, options: StoreOptions, create: bool) -> Result<Self, ToolError> {
        let pools = match Place::parse(url)? {
            Place::Sqlite(path) => {
                make_file(&path, create)?;
                let connect = SqliteConnectOptions::new()
                    .filename(&path)
                    .create_if_missing(false)
                    .journal_mode(SqliteJournalMode::Wal)
                    // What is acknowledged is on the disk, also where the machine loses its power.
                    .synchronous(SqliteSynchronous::Full)
                    .foreign_keys(true)
                    .busy_timeout(options.timeout)
                    .disable_statement_logging();
                let pool = || {
                    let pool = SqlitePoolOptions::new().acquire_timeout(options.timeout);
                    // A file does not go away as a server does, so there is nothing to ask before each use.
                    pool.max_lifetime(None).idle_timeout(None).test_before_acquire(false)
                };
                let writer = pool().max_connections(1).connect_lazy_with(connect.clone());
                let readers = pool().max_connections(options.connections.max(1)).connect_lazy_with(connect);
                Pools::Sqlite { writer, readers }
            }
            Place::Postgres(connect) => {
                let limit = |time: Duration| time.as_millis().max(1).to_string();
                let name = connect.get_application_name().unwrap_or("toolbay").to_owned();
                let connect = connect
                    .application_name(&name)
                    .options([
                        ("statement_timeout", limit(options.timeout)),
                        ("lock_timeout", limit(options.timeout)),
                        ("idle_in_transaction_session_timeout", limit(options.timeout)),
                    ])
                    .disable_statement_logging();
                let pool = || PgPoolOptions::new().acquire_timeout(options.connect_timeout);
                let listener = pool().max_connections(1).connect_lazy_with(connect.clone());
                let pool = pool().max_connections(options.connections.max(1)).connect_lazy_with(connect);
                Pools::Postgres { pool, listener }
            }
        };
        let places = Semaphore::new(options.connections as usize + options.waiting);
        Ok(Self { pools, options, places })
    }

    /// `work` within its time.
    pub(crate) async fn within<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, ToolError> {
        let Ok(_place) = self.places.try_acquire() else { return Err(unavailable()) };
        match tokio::time::timeout(limit, work).await {
            Ok(done) => done.map_err(Fault::into_error),
            Err(_) => Err(unavailable()),
        }
    }

    /// A connection for single statements that change nothing.
    pub(crate) async fn reading(&self) -> Result<Link, Fault> {
        Ok(match &self.pools {
            Pools::Sqlite { readers, .. } => Link::Sqlite(readers.acquire().await?),
            Pools::Postgres { pool, .. } => Link::Postgres(Held::new(pool.acquire().await?)),
        })
    }

    /// A transaction that sees everything as of one moment and changes nothing.
    pub(crate) async fn moment(&self) -> Result<Link, Fault> {
        Ok(match &self.pools {
            Pools::Sqlite { readers, .. } => Link::SqliteTransaction(readers.begin_with("BEGIN").await?),
            Pools::Postgres { pool, .. } => {
                let mut held = Held::new(pool.acquire().await?);
                held.begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
                Link::Postgres(held)
            }
        })
    }

    /// A transaction that changes something.
    pub(crate) async fn writing(&self) -> Result<Link, Fault> {
        Ok(match &self.pools {
            // The lock at once: one that is taken later fails where somebody else has written in between.
            Pools::Sqlite { writer, .. } => Link::SqliteTransaction(writer.begin_with("BEGIN IMMEDIATE").await?),
            Pools::Postgres { pool, .. } => {
                let mut held = Held::new(pool.acquire().await?);
                held.begin("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
                Link::Postgres(held)
            }
        })
    }

    /// Closes the connections.
    pub(crate) async fn close(&self) {
        match &self.pools {
            Pools::Sqlite { writer, readers } => {
                readers.close().await;
                writer.close().await;
            }
            Pools::Postgres { pool, listener } => {
                listener.close().await;
                pool.close().await;
            }
        }
    }
}

/// Runs a transaction: `transact!(db, limit, |link| ...)`, where the body is tried again where others were in its way.
macro_rules! transact {
    ($db:expr, $limit:expr, |$link:ident| $body:expr) => {{
        let db: &$crate::db::Db = $db;
        let work = async {
            let mut tries = 0;
            loop {
                tries += 1;
                let mut $link = db.writing().await?;
                let done: Result<_, $crate::fault::Fault> = async { $body }.await;
                let done = match done {
                    Ok(value) => $link.finish().await.map(|()| value),
                    Err(fault) => {
                        $link.abandon().await;
                        Err(fault)
                    }
                };
                match done {
                    Err(fault) if fault.is_worth_another_try() && tries < $crate::db::TRIES => {
                        tokio::time::sleep(std::time::Duration::from_millis(4 << tries)).await;
                    }
                    done => break done,
                }
            }
        };
        db.within($limit, Box::pin(work)).await
    }};
}
pub(crate) use transact;

/// Runs statements that change nothing: `read!(db, |link| ...)`.
macro_rules! read {
    ($db:expr, |$link:ident| $body:expr) => {{
        let db: &$crate::db::Db = $db;
        let work = async {
            let mut $link = db.reading().await?;
            let done: Result<_, $crate::fault::Fault> = async { $body }.await;
            // What was said about the request says nothing against the connection.
            if !matches!(done, Err($crate::fault::Fault::Database(_))) {
                $link.finish().await?;
            }
            done
        };
        db.within(db.options.timeout, Box::pin(work)).await
    }};
}
pub(crate) use read;

/// Makes the file that is to be a database, for its owner alone; SQLite gives its other files the same rights.
pub(crate) fn make_file(path: &Path, create: bool) -> Result<(), ToolError> {
    let config = |what: &str, error| {
        let message = format!("the database {} {what}: {error}", path.display());
        ToolError::new(ErrorKind::Config, message)
    };
    if path.exists() {
        return Ok(());
    }
    if !create {
        return Err(ToolError::new(ErrorKind::NotFound, format!("there is no database {}", path.display())));
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(folder).map_err(|error| config("cannot be made", error))?;
    }
    let mut file = fs::OpenOptions::new();
    file.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut file, 0o600);
    match file.open(path) {
        Ok(_) => Ok(()),
        // Another process was first.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(config("cannot be made", error)),
    }
}
