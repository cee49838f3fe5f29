//! The schema: steps that are in the program, made in their order when a store is opened.
//!
//! Written once, with words for what the databases call differently; sqlx's own migrations would want a folder for each
//! database. What was made is remembered with its digest, so that a program never goes on with a schema that it does not
//! know: one of a newer program, or one that somebody changed.

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use toolbay_api::{ErrorKind, ToolError};

use crate::{
    db::{Db, Pools, transact},
    fault::Fault,
    link::Link,
    values::params,
};

struct Migration {
    version: i64,
    name: &'static str,
    text: &'static str,
}

const MIGRATIONS: [Migration; 2] = [
    Migration { version: 1, name: "begin", text: include_str!("../migrations/0001_begin.sql") },
    Migration { version: 3, name: "suspended", text: include_str!("../migrations/0003_suspended.sql") },
];

/// Held in PostgreSQL by whoever migrates: `toolbay`, in ASCII.
const ADVISORY_LOCK: i64 = 0x0074_6f6f_6c62_6179;

/// How a database stands to this program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SchemaStatus {
    /// `sqlite` or `postgres`.
    pub database: &'static str,
    /// The steps that are made, or can be, in their order.
    pub migrations: Vec<MigrationStatus>,
}

impl SchemaStatus {
    /// Whether a program of this version can use the database as it is.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.migrations.iter().all(|step| step.state == MigrationState::Applied)
    }
}

/// How a step of the schema stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MigrationStatus {
    /// Its number.
    pub version: i64,
    /// Its name.
    pub name: String,
    /// Whether it is made.
    pub state: MigrationState,
}

/// Whether a step of the schema is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MigrationState {
    /// It is.
    Applied,
    /// It will be by the next migration.
    Pending,
    /// It is, and is not as this program has it.
    Different,
    /// It is, and this program does not know it: a newer one made it.
    Newer,
}

/// Makes the steps that are not yet made; gives their names.
pub(crate) async fn migrate(db: &Db) -> Result<Vec<String>, ToolError> {
    let limit = db.options.long_timeout;
    let made = transact!(db, limit, |link| {
        if link.is_postgres() {
            allow_long(&mut link, limit).await?;
            // Others that start now wait here. It ends with the transaction.
            link.rows("SELECT pg_advisory_xact_lock($1)", params![ADVISORY_LOCK]).await?;
        }
        let words = Words::of(&link);
        link.script(words.put_in(
            "CREATE TABLE IF NOT EXISTS toolbay_migrations (
                version @int PRIMARY KEY, name @text NOT NULL, digest @bytes NOT NULL
            ) @strict",
        ))
        .await?;
        let mut made = Vec::new();
        for step in standing(&applied(&mut link).await?) {
            match step.state {
                MigrationState::Applied => {}
                MigrationState::Newer => return Err(refused(&step, "was made by a newer version of toolbay").into()),
                MigrationState::Different => {
                    return Err(refused(&step, "is not the one that this version of toolbay knows").into());
                }
                MigrationState::Pending => {
                    let Some(migration) = MIGRATIONS.iter().find(|known| known.version == step.version) else {
                        continue;
                    };
                    link.script(words.put_in(migration.text)).await?;
                    link.execute(
                        "INSERT INTO toolbay_migrations (version, name, digest) VALUES ($1, $2, $3)",
                        params![migration.version, migration.name, &digest(migration)],
                    )
                    .await?;
                    made.push(format!("{:04} {}", migration.version, migration.name));
                }
            }
        }
        Ok(made)
    })?;
    for step in &made {
        tracing::info!(target: "toolbay::store", step, "the database was migrated");
    }
    Ok(made)
}

/// How the database stands, without changing it.
pub(crate) async fn status(db: &Db) -> Result<SchemaStatus, ToolError> {
    let (database, exists) = match &db.pools {
        Pools::Sqlite { .. } => ("sqlite", "SELECT COUNT(*) FROM sqlite_master WHERE name = 'toolbay_migrations'"),
        Pools::Postgres { .. } => (
            "postgres",
            "SELECT COUNT(*) FROM information_schema.tables
             WHERE table_schema = current_schema() AND table_name = 'toolbay_migrations'",
        ),
    };
    let applied = crate::db::read!(db, |link| {
        if link.number(exists, params![]).await? == 0 { Ok(Vec::new()) } else { applied(&mut link).await }
    })?;
    Ok(SchemaStatus { database, migrations: standing(&applied) })
}

fn refused(step: &MigrationStatus, why: &str) -> ToolError {
    let MigrationStatus { version, name, .. } = step;
    ToolError::new(ErrorKind::Config, format!("the database's migration {version:04} {name} {why}; use that version"))
}

struct Applied {
    version: i64,
    name: String,
    digest: [u8; 32],
}

async fn applied(link: &mut Link) -> Result<Vec<Applied>, Fault> {
    let rows = link.rows("SELECT version, name, digest FROM toolbay_migrations ORDER BY version", params![]).await?;
    rows.iter().map(|row| Ok(Applied { version: row.get(0)?, name: row.get(1)?, digest: row.digest(2)? })).collect()
}

fn standing(applied: &[Applied]) -> Vec<MigrationStatus> {
    let known = MIGRATIONS.iter().map(|known| {
        let state = match applied.iter().find(|made| made.version == known.version) {
            None => MigrationState::Pending,
            Some(made) if made.digest == digest(known) => MigrationState::Applied,
            Some(_) => MigrationState::Different,
        };
        MigrationStatus { version: known.version, name: known.name.to_owned(), state }
    });
    let is_newer = |made: &&Applied| MIGRATIONS.iter().all(|known| known.version != made.version);
    let newer = applied.iter().filter(is_newer).map(|made| MigrationStatus {
        version: made.version,
        name: made.name.clone(),
        state: MigrationState::Newer,
    });
    known.chain(newer).collect()
}

fn digest(migration: &Migration) -> [u8; 32] {
    Sha256::digest(migration.text.as_bytes()).into()
}

/// Lets this transaction's statements take `limit`.
pub(crate) async fn allow_long(link: &mut Link, limit: std::time::Duration) -> Result<(), Fault> {
    if link.is_postgres() {
        let limit = limit.as_millis();
        link.script(format!("SET LOCAL statement_timeout = {limit}; SET LOCAL lock_timeout = {limit}")).await?;
    }
    Ok(())
}

/// What a database calls things.
struct Words {
    section: &'static str,
    words: [(&'static str, &'static str); 10],
}

impl Words {
    fn of(link: &Link) -> Self {
        if link.is_postgres() {
            Self {
                section: "-- @postgres",
                words: [
                    ("@uuid", "UUID"),
                    ("@json", "JSON"),
                    ("@bytes", "BYTEA"),
                    ("@int", "BIGINT"),
                    ("@bool", "BOOLEAN"),
                    // By bytes, as Rust and SQLite compare, whatever language the server speaks.
                    ("@text", "TEXT COLLATE \"C\""),
                    ("@serial", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"),
                    ("@strict", ""),
                    ("@nil", "'00000000-0000-0000-0000-000000000000'"),
                    ("@false", "FALSE"),
                ],
            }
        } else {
            Self {
                section: "-- @sqlite",
                words: [
                    ("@uuid", "BLOB"),
                    ("@json", "TEXT"),
                    ("@bytes", "BLOB"),
                    ("@int", "INTEGER"),
                    ("@bool", "INTEGER"),
                    ("@text", "TEXT"),
                    ("@serial", "INTEGER PRIMARY KEY AUTOINCREMENT"),
                    ("@strict", "STRICT"),
                    ("@nil", "x'00000000000000000000000000000000'"),
                    ("@false", "0"),
                ],
            }
        }
    }

    /// `text` as this database understands it: what is for both, and the section for this one.
    fn put_in(&self, text: &str) -> String {
        let mut mine = true;
        let mut sql = String::with_capacity(text.len());
        for line in text.lines() {
            if line.starts_with("-- @") {
                mine = line == self.section;
            } else if mine && !line.trim_start().starts_with("--") {
                sql.push_str(line);
                sql.push('\n');
            }
        }
        for (word, meaning) in self.words {
            sql = sql.replace(word, meaning);
        }
        sql
    }
}
