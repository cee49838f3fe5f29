//! `toolbay audit`: who did what on a server, and whether the record is whole.

use clap::{Args, Subcommand};
use serde_json::json;
use toolbay::{
    Scope, TenantId,
    store::{AuditLine, AuditQuery, Page},
};

use crate::{
    exit::{CliError, Status},
    options::DatabaseOptions,
    output,
    stored::{failed, office, operator},
};

/// Options of `toolbay audit`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

/// What to do with the audit.
#[derive(Debug, Subcommand)]
enum Action {
    /// Print the last lines, oldest first, as JSON lines
    List {
        /// A tenant's; without it, that of what is for everybody
        #[arg(long, value_name = "TENANT")]
        tenant: Option<TenantId>,
        /// Only lines with this action; one that ends in . means all that begin so, as in plugin.
        #[arg(long, value_name = "ACTION")]
        action: Option<String>,
        /// How many at most
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        last: u32,
        #[command(flatten)]
        database: DatabaseOptions,
    },
    /// Read a whole chain and tell whether each line follows on the one before
    ///
    /// Exit status: 0 it is whole, 1 it is not, 2 it cannot be read.
    Verify {
        /// A tenant's; without it, that of what is for everybody
        #[arg(long, value_name = "TENANT")]
        tenant: Option<TenantId>,
        #[command(flatten)]
        database: DatabaseOptions,
    },
}

pub(crate) async fn run(options: Options) -> Result<Status, CliError> {
    let scope = |tenant: Option<TenantId>| tenant.map_or(Scope::Global, Scope::Tenant);
    match options.action {
        Action::List { tenant, action, last, database } => {
            let page = Page { after: None, limit: last };
            let query = AuditQuery { action, since_ms: None, newest_first: true, page };
            let control = office(&database.url()?).await?;
            let listed = control.audit(&operator(), &scope(tenant), &query).await.map_err(failed)?;
            for line in listed.items.iter().rev() {
                output::json_line(&shown(line))?;
            }
            Ok(Status::Success)
        }
        Action::Verify { tenant, database } => {
            let control = office(&database.url()?).await?;
            let verdict = control.verify_audit(&operator(), &scope(tenant)).await.map_err(failed)?;
            match verdict.broken_at {
                None => {
                    output::line(&format!("whole: {} lines", verdict.lines))?;
                    Ok(Status::Success)
                }
                Some(line) => {
                    output::line(&format!(
                        "broken at line {line}: it does not follow on the {} before",
                        verdict.lines
                    ))?;
                    Ok(Status::Failed)
                }
            }
        }
    }
}

fn shown(line: &AuditLine) -> serde_json::Value {
    let entry = &line.entry;
    json!({
        "sequence": line.sequence, "at_ms": entry.at_ms, "actor": entry.actor, "action": entry.action,
        "target": entry.target, "outcome": entry.outcome, "detail": entry.detail,
    })
}
