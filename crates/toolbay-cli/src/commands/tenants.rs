//! `toolbay tenants`: a server's tenants, looked after by whoever has its database.

use clap::{Args, Subcommand};
use toolbay::{TenantId, store::Page};

use crate::{
    exit::{CliError, Status},
    options::DatabaseOptions,
    output,
    stored::{failed, office, operator},
};

/// Tenants that are read at a time.
const PART: u32 = 500;

/// Options of `toolbay tenants`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

/// What to do with tenants.
#[derive(Debug, Subcommand)]
enum Action {
    /// Make a tenant
    Create {
        /// Its name
        tenant: TenantId,
        #[command(flatten)]
        database: DatabaseOptions,
    },
    /// List tenants by name
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        database: DatabaseOptions,
    },
    /// Refuse a tenant's keys until it is resumed
    Suspend {
        /// Which
        tenant: TenantId,
        #[command(flatten)]
        database: DatabaseOptions,
    },
    /// Take a suspended tenant's keys again
    Resume {
        /// Which
        tenant: TenantId,
        #[command(flatten)]
        database: DatabaseOptions,
    },
    /// Remove a tenant and everything of it but its audit: plugins, packages, keys, values, runs
    Remove {
        /// Which
        tenant: TenantId,
        /// Do so; without this nothing happens
        #[arg(long, required = true)]
        yes: bool,
        #[command(flatten)]
        database: DatabaseOptions,
    },
}

pub(crate) async fn run(options: Options) -> Result<Status, CliError> {
    match options.action {
        Action::Create { tenant, database } => {
            office(&database.url()?).await?.create_tenant(&operator(), &tenant).await.map_err(failed)?;
            output::line(&format!("created {tenant}"))?;
        }
        Action::List { json, database } => list(&database, json).await?,
        Action::Suspend { tenant, database } => {
            office(&database.url()?).await?.suspend_tenant(&operator(), &tenant, true, None).await.map_err(failed)?;
            output::line(&format!("suspended {tenant}"))?;
        }
        Action::Resume { tenant, database } => {
            office(&database.url()?).await?.suspend_tenant(&operator(), &tenant, false, None).await.map_err(failed)?;
            output::line(&format!("resumed {tenant}"))?;
        }
        Action::Remove { tenant, database, yes: _ } => {
            office(&database.url()?).await?.remove_tenant(&operator(), &tenant, None).await.map_err(failed)?;
            output::line(&format!("removed {tenant}"))?;
        }
    }
    Ok(Status::Success)
}

async fn list(database: &DatabaseOptions, json: bool) -> Result<(), CliError> {
    let control = office(&database.url()?).await?;
    let (mut tenants, mut after) = (Vec::new(), None);
    loop {
        let part = control.tenants(&operator(), Page { after, limit: PART }).await.map_err(failed)?;
        tenants.extend(part.items);
        match part.next {
            Some(next) => after = Some(next),
            None => break,
        }
    }
    if json {
        return output::json_pretty(&tenants);
    }
    let mut rows = vec![["TENANT".to_owned(), "STATE".to_owned()]];
    rows.extend(tenants.iter().map(|tenant| {
        let state = if tenant.suspended { "suspended" } else { "active" };
        [tenant.name.to_string(), state.to_owned()]
    }));
    for line in output::table(&rows) {
        output::line(&line)?;
    }
    Ok(())
}
