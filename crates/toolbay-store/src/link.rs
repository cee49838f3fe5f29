//! One connection in somebody's hands: statements, and the end of a transaction.
//!
//! Statements have numbered parameters (`$1`), which both drivers know, and are otherwise written in what both databases
//! understand.

use sqlx::{
    AssertSqlSafe, Executor as _, PgConnection, Postgres, Sqlite, SqliteConnection, Transaction, pool::PoolConnection,
};

use crate::{
    fault::Fault,
    values::{Param, Row, postgres_arguments, sqlite_arguments},
};

/// A connection, for one statement after another or for one transaction. One that is dropped rather than
/// [finished](Self::finish) takes back what it did.
pub(crate) enum Link {
    Sqlite(PoolConnection<Sqlite>),
    SqliteTransaction(Transaction<'static, Sqlite>),
    Postgres(Held),
}

/// A connection to PostgreSQL. One that is dropped before its end is closed: its task is cancelled in the middle of an
/// answer, or the network does not answer, and the pool would wait for both without end.
pub(crate) struct Held {
    connection: Option<PoolConnection<Postgres>>,
    in_transaction: bool,
}

impl Held {
    pub(crate) fn new(connection: PoolConnection<Postgres>) -> Self {
        Self { connection: Some(connection), in_transaction: false }
    }

    pub(crate) async fn begin(&mut self, statement: &'static str) -> Result<(), Fault> {
        self.in_transaction = true;
        self.get()?.execute(sqlx::raw_sql(statement)).await?;
        Ok(())
    }

    fn get(&mut self) -> Result<&mut PgConnection, Fault> {
        self.connection.as_deref_mut().ok_or(Fault::Database(sqlx::Error::PoolClosed))
    }

    async fn end(mut self, statement: &'static str) -> Result<(), Fault> {
        if self.in_transaction {
            self.get()?.execute(sqlx::raw_sql(statement)).await?;
        }
        // It is whole, and goes back to the pool.
        drop(self.connection.take());
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
    }
}

impl Link {
    /// Runs a statement. Gives the number of rows that it changed.
    pub(crate) async fn execute(&mut self, sql: &'static str, params: Vec<Param>) -> Result<u64, Fault> {
        Ok(match self.either()? {
            Either::Sqlite(link) => {
                let query = sqlx::query_with::<Sqlite, _>(sql, sqlite_arguments(params)?);
                query.execute(link).await?.rows_affected()
            }
            Either::Postgres(link) => {
                let query = sqlx::query_with::<Postgres, _>(sql, postgres_arguments(params)?);
                query.execute(link).await?.rows_affected()
            }
        })
    }

    /// The rows that a statement gives.
    pub(crate) async fn rows(&mut self, sql: &'static str, params: Vec<Param>) -> Result<Vec<Row>, Fault> {
        Ok(match self.either()? {
            Either::Sqlite(link) => {
                let query = sqlx::query_with::<Sqlite, _>(sql, sqlite_arguments(params)?);
                query.fetch_all(link).await?.into_iter().map(Row::Sqlite).collect()
            }
            Either::Postgres(link) => {
                let query = sqlx::query_with::<Postgres, _>(sql, postgres_arguments(params)?);
                query.fetch_all(link).await?.into_iter().map(Row::Postgres).collect()
            }
        })
    }

    /// The first row that a statement gives.
    pub(crate) async fn row(&mut self, sql: &'static str, params: Vec<Param>) -> Result<Option<Row>, Fault> {
        Ok(self.rows(sql, params).await?.into_iter().next())
    }

    /// The one value that a statement gives in its first row.
    pub(crate) async fn number(&mut self, sql: &'static str, params: Vec<Param>) -> Result<i64, Fault> {
        let row = self.row(sql, params).await?.ok_or(Fault::Database(sqlx::Error::RowNotFound))?;
        row.get(0)
    }

    /// Runs several statements without values, from our own migrations.
    pub(crate) async fn script(&mut self, sql: String) -> Result<(), Fault> {
        match self.either()? {
            Either::Sqlite(link) => link.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.map(drop)?,
            Either::Postgres(link) => link.execute(sqlx::raw_sql(AssertSqlSafe(sql))).await.map(drop)?,
        }
        Ok(())
    }

    pub(crate) fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// Makes what was done last, where this is a transaction, and gives the connection back.
    pub(crate) async fn finish(self) -> Result<(), Fault> {
        match self {
            Self::Sqlite(_) => {}
            Self::SqliteTransaction(transaction) => transaction.commit().await?,
            Self::Postgres(held) => held.end("COMMIT").await?,
        }
        Ok(())
    }

    /// Takes back what was done, and gives the connection back.
    pub(crate) async fn abandon(self) {
        match self {
            Self::Sqlite(_) => {}
            // Where this fails, the connection goes, and the transaction with it.
            Self::SqliteTransaction(transaction) => drop(transaction.rollback().await),
            Self::Postgres(held) => drop(held.end("ROLLBACK").await),
        }
    }

    fn either(&mut self) -> Result<Either<'_>, Fault> {
        Ok(match self {
            Self::Sqlite(link) => Either::Sqlite(link),
            Self::SqliteTransaction(link) => Either::Sqlite(link),
            Self::Postgres(held) => Either::Postgres(held.get()?),
        })
    }
}

enum Either<'a> {
    Sqlite(&'a mut SqliteConnection),
    Postgres(&'a mut PgConnection),
}
