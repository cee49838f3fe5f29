//! What goes wrong in a database, sorted by what somebody can do about it. It stands apart so that no other file looks at
//! the drivers' codes.

use std::error::Error as _;

use sqlx::error::ErrorKind as Violation;
use toolbay_api::{ErrorKind, Limit, ToolError};

/// Why an operation did not succeed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// An answer to the caller.
    Told(ToolError),
    /// The database's error.
    Database(sqlx::Error),
}

impl From<ToolError> for Fault {
    fn from(error: ToolError) -> Self {
        Self::Told(error)
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// What a database's error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    /// The database is away, or too busy.
    Away,
    /// Others were in the way; the same transaction may succeed when it is tried again.
    Again,
    /// A row that another refers to is not there: it was taken away since it was looked at, which another try will see.
    Gone,
    /// A row with this key is there.
    Taken,
    /// It answered with what cannot be.
    Broken,
}

impl Fault {
    /// Whether the same transaction may succeed when it is tried again.
    pub(crate) fn is_worth_another_try(&self) -> bool {
        matches!(self, Self::Database(error) if matches!(sort(error), Sort::Again | Sort::Gone))
    }

    pub(crate) fn into_error(self) -> ToolError {
        let error = match self {
            Self::Told(error) => return error,
            Self::Database(error) => error,
        };
        match sort(&error) {
            Sort::Away | Sort::Again => unavailable().with_source(error),
            Sort::Taken | Sort::Gone => {
                conflict("it is there already, or was changed at the same time").with_source(error)
            }
            Sort::Broken => {
                tracing::error!(target: "toolbay::store", %error, cause = error.source(), "the database failed");
                ToolError::new(ErrorKind::Internal, "the store failed; the log of the host says why").with_source(error)
            }
        }
    }
}

fn sort(error: &sqlx::Error) -> Sort {
    match error {
        sqlx::Error::Database(error) => {
            match error.kind() {
                Violation::UniqueViolation => return Sort::Taken,
                Violation::ForeignKeyViolation => return Sort::Gone,
                _ => {}
            }
            let code = error.code().unwrap_or_default();
            if error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some() {
                of_postgres(&code)
            } else {
                of_sqlite(&code)
            }
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::BeginFailed
        | sqlx::Error::WorkerCrashed => Sort::Away,
        _ => Sort::Broken,
    }
}

/// By SQLSTATE, see PostgreSQL's documentation, appendix A.
fn of_postgres(code: &str) -> Sort {
    match code {
        // Serialization failure, deadlock.
        "40001" | "40P01" => Sort::Again,
        // No lock in time, a statement that was given up, an idle transaction that was ended, a standby.
        "55P03" | "57014" | "25P03" | "25P04" | "25006" => Sort::Away,
        // Connections (08), no place (53), shut down or starting up (57P), failures of the system (58).
        _ if ["08", "53", "57P", "58"].iter().any(|class| code.starts_with(class)) => Sort::Away,
        _ => Sort::Broken,
    }
}

/// By result code, see <https://sqlite.org/rescode.html>; the low byte is the primary one.
fn of_sqlite(code: &str) -> Sort {
    match code.parse::<i32>().unwrap_or_default() & 0xff {
        // Busy, locked, read-only, I/O, full, cannot open.
        5 | 6 | 8 | 10 | 13 | 14 => Sort::Away,
        _ => Sort::Broken,
    }
}

pub(crate) fn unavailable() -> ToolError {
    ToolError::new(ErrorKind::Unavailable, "the store cannot be reached; try again later")
}

pub(crate) fn conflict(message: impl Into<String>) -> ToolError {
    ToolError::new(ErrorKind::Conflict, message.into())
}

pub(crate) fn not_found(message: impl Into<String>) -> ToolError {
    ToolError::new(ErrorKind::NotFound, message.into())
}

pub(crate) fn invalid(message: impl Into<String>) -> ToolError {
    ToolError::new(ErrorKind::InvalidArguments, message.into())
}

/// A row that cannot be read back: somebody else wrote it.
pub(crate) fn damaged(what: &str) -> ToolError {
    tracing::error!(target: "toolbay::store", what, "a row of the database cannot be read");
    ToolError::new(ErrorKind::Internal, "the store holds something that cannot be; the log of the host says what")
}

/// `Ok` where `used` is within `allowed`.
pub(crate) fn within(allowed: u64, used: u64, what: &str) -> Result<(), ToolError> {
    if used <= allowed {
        return Ok(());
    }
    let mut error = ToolError::limit(Limit::Storage, allowed, used);
    error.message = format!("the store keeps at most {allowed} {what}; remove some first").into();
    Err(error)
}
