//! `toolbay runs`: runs of agents that wait for approval in a server's database.

use clap::{Args, Subcommand};
use toolbay::{
    PendingApproval, SqlStore, StoreOptions, TenantId,
    store::{Page, SuspendedRow, SuspendedRuns},
};
use uuid::Uuid;

use super::agent::{in_words, now_ms};
use crate::{
    exit::{CliError, Status},
    options::DatabaseOptions,
    output,
    stored::failed,
};

/// Runs that are read at a time.
const PART: u32 = 200;

/// Options of `toolbay runs`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

/// What to do with runs that wait.
#[derive(Debug, Subcommand)]
enum Action {
    /// List a tenant's runs that wait, the longest first
    List {
        #[command(flatten)]
        of: Of,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what a run waits for
    Show {
        /// The run
        run: Uuid,
        #[command(flatten)]
        of: Of,
        /// Print JSON, with the conversation
        #[arg(long)]
        json: bool,
    },
    /// Give a run up that waits
    Remove {
        /// The run
        run: Uuid,
        #[command(flatten)]
        of: Of,
    },
}

/// Whose runs, and where.
#[derive(Debug, Args)]
struct Of {
    /// The tenant
    #[arg(long, value_name = "TENANT", default_value = "default")]
    tenant: TenantId,
    #[command(flatten)]
    database: DatabaseOptions,
}

impl Of {
    fn store(&self) -> Result<SqlStore, CliError> {
        SqlStore::existing(&self.database.url()?, StoreOptions::default()).map_err(failed)
    }

    fn no_such(&self, run: Uuid) -> CliError {
        CliError::usage(format!("no run {run} of {} waits there", self.tenant))
    }
}

pub(crate) async fn run(options: Options) -> Result<Status, CliError> {
    match options.action {
        Action::List { of, json } => list(&of, json).await?,
        Action::Show { run, of, json } => {
            let row = of.store()?.suspended(&of.tenant, run, now_ms()).await.map_err(failed)?;
            let row = row.ok_or_else(|| of.no_such(run))?;
            if json {
                output::json_pretty(&row)?;
            } else {
                for pending in pending(&row)? {
                    output::line(&format!("{}  {}", pending.id, in_words(&pending)))?;
                }
            }
        }
        Action::Remove { run, of } => {
            let row = of.store()?.take_suspended(&of.tenant, run, now_ms()).await.map_err(failed)?;
            row.ok_or_else(|| of.no_such(run))?;
            output::line(&format!("removed {run}"))?;
        }
    }
    Ok(Status::Success)
}

fn pending(row: &SuspendedRow) -> Result<Vec<PendingApproval>, CliError> {
    let read = serde_json::from_value(row.pending.clone());
    read.map_err(|error| CliError::usage(format!("what run {} waits for cannot be read: {error}", row.id)))
}

async fn list(of: &Of, json: bool) -> Result<(), CliError> {
    let store = of.store()?;
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let part = store.list_suspended(&of.tenant, Page { after, limit: PART }, now_ms()).await.map_err(failed)?;
        rows.extend(part.items);
        match part.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    if json {
        return output::json_pretty(&rows);
    }
    let mut lines = vec![["RUN".to_owned(), "WAITS FOR".to_owned()]];
    for row in &rows {
        let calls: Vec<_> = pending(row)?.iter().map(in_words).collect();
        lines.push([row.id.to_string(), calls.join("; ")]);
    }
    for line in output::table(&lines) {
        output::line(&line)?;
    }
    Ok(())
}
