//! `toolbay keys`: the keys to a server, looked after by whoever has its database. Servers that run take changes over by
//! themselves.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand, ValueEnum};
use toolbay::{
    KeyWanted, NewKey, TenantId,
    store::{KeyRow, Page, Role},
};

use crate::{
    exit::{CliError, Status},
    options::DatabaseOptions,
    output,
    stored::{failed, office, operator},
    values,
};

/// Keys that are read at a time.
const PART: u32 = 200;

/// Options of `toolbay keys`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

/// What to do with keys.
#[derive(Debug, Subcommand)]
enum Action {
    /// Make a key and print it, this once
    Create {
        /// What the key allows
        #[arg(long, value_enum, default_value_t = RoleName::Tenant)]
        role: RoleName,
        /// The tenant whose key it is: for the role tenant, and for that one only
        #[arg(long, value_name = "TENANT")]
        tenant: Option<TenantId>,
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "")]
        label: String,
        /// Refuse it from then on, such as 12h or 90d from now
        #[arg(long, value_name = "DURATION", value_parser = values::days)]
        expires_in: Option<Duration>,
        /// The most requests a minute; without it, as many as the server allows every key
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        rate: Option<u32>,
        #[command(flatten)]
        database: DatabaseOptions,
    },
    /// List keys, newest first; their secrets are not kept anywhere
    List {
        /// Only this tenant's
        #[arg(long, value_name = "TENANT")]
        tenant: Option<TenantId>,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        database: DatabaseOptions,
    },
    /// Make a key in the place of one and print it, this once
    Rotate {
        /// The old key's first part, or its number
        key: String,
        /// How long the old key goes on beside the new one, such as 1h or 7d
        #[arg(long, value_name = "DURATION", value_parser = values::days)]
        grace: Option<Duration>,
        #[command(flatten)]
        database: DatabaseOptions,
    },
    /// Refuse a key from now on
    Revoke {
        /// The key's first part, or its number
        key: String,
        #[command(flatten)]
        database: DatabaseOptions,
    },
}

/// What a key allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RoleName {
    /// Calls the tools of its tenant and decides about the tenant's plugins
    Tenant,
    /// Decides about all tenants and their plugins
    Operator,
    /// That, and about keys and what is global
    Admin,
}

impl From<RoleName> for Role {
    fn from(role: RoleName) -> Self {
        match role {
            RoleName::Tenant => Self::Tenant,
            RoleName::Operator => Self::Operator,
            RoleName::Admin => Self::Admin,
        }
    }
}

pub(crate) async fn run(options: Options) -> Result<Status, CliError> {
    match options.action {
        Action::Create { role, tenant, label, expires_in, rate, database } => {
            let control = office(&database.url()?).await?;
            let expires_at = expires_in.map(in_future).transpose()?;
            let wanted = KeyWanted { role: role.into(), tenant, label, expires_at, rate };
            shown(&control.create_key(&operator(), wanted).await.map_err(failed)?)
        }
        Action::List { tenant, json, database } => {
            let keys = all(&database, tenant.as_ref()).await?;
            list(&keys, json)
        }
        Action::Rotate { key, grace, database } => {
            let id = found(&database, &key).await?.id;
            let control = office(&database.url()?).await?;
            let grace = i64::try_from(grace.unwrap_or_default().as_millis()).unwrap_or(i64::MAX);
            shown(&control.rotate_key(&operator(), id, grace).await.map_err(failed)?)
        }
        Action::Revoke { key, database } => {
            let row = found(&database, &key).await?;
            office(&database.url()?).await?.revoke_key(&operator(), row.id).await.map_err(failed)?;
            output::line(&format!("revoked {}", row.prefix))?;
            Ok(Status::Success)
        }
    }
}

/// Prints the key alone to standard output, so that it can be handed on, and what it is to standard error.
fn shown(key: &NewKey) -> Result<Status, CliError> {
    output::note(&format!("key {} ({}); it is shown this once:", key.row.prefix, key.row.role.name()));
    output::line(&key.secret)?;
    Ok(Status::Success)
}

fn list(keys: &[KeyRow], as_json: bool) -> Result<Status, CliError> {
    if as_json {
        output::json_pretty(&keys)?;
        return Ok(Status::Success);
    }
    let now = now_ms()?;
    let mut rows = vec![["KEY", "ROLE", "TENANT", "STATE", "LABEL"].map(str::to_owned)];
    rows.extend(keys.iter().map(|key| {
        let state = match (key.revoked_at, key.expires_at) {
            (Some(_), _) => "revoked",
            (None, Some(end)) if end <= now => "expired",
            (None, Some(_)) => "expires",
            (None, None) => "valid",
        };
        let tenant = key.tenant.as_ref().map(ToString::to_string).unwrap_or_default();
        [key.prefix.clone(), key.role.name().to_owned(), tenant, state.to_owned(), key.label.clone()]
    }));
    for line in output::table(&rows) {
        output::line(&line)?;
    }
    Ok(Status::Success)
}

async fn all(database: &DatabaseOptions, tenant: Option<&TenantId>) -> Result<Vec<KeyRow>, CliError> {
    let control = office(&database.url()?).await?;
    let (mut keys, mut after) = (Vec::new(), None);
    loop {
        let part = control.keys(&operator(), tenant, Page { after, limit: PART }).await.map_err(failed)?;
        keys.extend(part.items);
        match part.next {
            Some(next) => after = Some(next),
            None => return Ok(keys),
        }
    }
}

/// The key that is meant: by its first part as lists show it, or by its number.
async fn found(database: &DatabaseOptions, wanted: &str) -> Result<KeyRow, CliError> {
    // Whoever pastes a whole key means that one; it is not printed again.
    let prefix = wanted.strip_prefix("tbk_").and_then(|rest| rest.split('_').next()).unwrap_or(wanted);
    let keys = all(database, None).await?;
    let key = keys.into_iter().find(|key| key.prefix == prefix || key.id.to_string() == wanted);
    key.ok_or_else(|| CliError::usage("there is no such key: `toolbay keys list` has them by their first part"))
}

fn in_future(left: Duration) -> Result<i64, CliError> {
    let left = i64::try_from(left.as_millis()).unwrap_or(i64::MAX);
    Ok(now_ms()?.saturating_add(left))
}

fn now_ms() -> Result<i64, CliError> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_err(CliError::usage)?;
    Ok(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
