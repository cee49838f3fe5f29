//! `toolbay db`: the database of a server, looked after by hand. Servers migrate theirs themselves when they start.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use toolbay::{
    ErrorKind, ToolError,
    sql::{MigrationState, SchemaStatus, SqlStore, StoreOptions},
};

use crate::{
    exit::{CliError, Status},
    options::DatabaseOptions,
    output,
};

/// Options of `toolbay db`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

/// What to do with the database.
#[derive(Debug, Subcommand)]
enum Action {
    /// Make the database, or bring it up to this version of toolbay
    Migrate {
        #[command(flatten)]
        database: DatabaseOptions,
    },
    /// Tell whether the database is as this version of toolbay needs it
    ///
    /// Exit status: 0 it is, 1 it is not, 2 it cannot be looked at.
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        database: DatabaseOptions,
    },
    /// Copy the database to a new file while servers go on using it; PostgreSQL has pg_dump for that
    Backup {
        /// The new file
        file: PathBuf,
        #[command(flatten)]
        database: DatabaseOptions,
    },
}

pub(crate) async fn run(options: Options) -> Result<Status, CliError> {
    match options.action {
        Action::Migrate { database } => migrate(&database).await,
        Action::Status { json, database } => status(&database, json).await,
        Action::Backup { file, database } => backup(&database, file).await,
    }
}

async fn migrate(database: &DatabaseOptions) -> Result<Status, CliError> {
    let url = database.url()?;
    // Opening migrates; what was pending before it is what it made.
    let before = match SqlStore::existing(&url, StoreOptions::default()) {
        Ok(store) => Some(store.status().await.map_err(failed)?),
        Err(error) if error.kind == ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    let store = SqlStore::open(&url, StoreOptions::default()).await.map_err(failed)?;
    let now = store.status().await.map_err(failed)?;
    store.close().await;
    let was_pending = |version| {
        before.as_ref().is_none_or(|before| {
            before.migrations.iter().any(|step| step.version == version && step.state == MigrationState::Pending)
        })
    };
    let mut made = 0;
    for step in now.migrations.iter().filter(|step| was_pending(step.version)) {
        output::line(&format!("applied {:04} {}", step.version, step.name))?;
        made += 1;
    }
    if made == 0 {
        output::line("the database is up to date")?;
    }
    Ok(Status::Success)
}

async fn status(database: &DatabaseOptions, json: bool) -> Result<Status, CliError> {
    let store = SqlStore::existing(&database.url()?, StoreOptions::default()).map_err(failed)?;
    let status = store.status().await.map_err(failed)?;
    store.close().await;
    if json {
        output::json_pretty(&status)?;
    } else {
        for line in lines(&status) {
            output::line(&line)?;
        }
    }
    Ok(if status.is_current() { Status::Success } else { Status::Failed })
}

fn lines(status: &SchemaStatus) -> Vec<String> {
    let mut rows = vec![["MIGRATION".to_owned(), "STATE".to_owned()]];
    rows.extend(status.migrations.iter().map(|step| {
        let state = match step.state {
            MigrationState::Applied => "applied",
            MigrationState::Pending => "pending: toolbay db migrate applies it",
            MigrationState::Different => "not the one of this version of toolbay",
            MigrationState::Newer => "of a newer version of toolbay: use that one",
        };
        [format!("{:04} {}", step.version, step.name), state.to_owned()]
    }));
    output::table(&rows)
}

async fn backup(database: &DatabaseOptions, file: PathBuf) -> Result<Status, CliError> {
    let store = SqlStore::existing(&database.url()?, StoreOptions::default()).map_err(failed)?;
    store.backup(&file).await.map_err(failed)?;
    store.close().await;
    output::line(&format!("copied to {}", file.display()))?;
    Ok(Status::Success)
}

/// With its source: whoever is at this terminal is the operator.
fn failed(error: ToolError) -> CliError {
    match error.operator_detail() {
        Some(detail) => CliError::usage(format!("{}: {detail}", error.message)),
        None => CliError::usage(error.message),
    }
}
