//! `toolbay serve`: tenants' tools over MCP by HTTP, on this machine only until callers have to show who they are.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

use clap::Args;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use toolbay::{
    PermissionSet, Session, TenantId,
    mcp::{HttpOptions, Principal, StaticKeys, check_loopback, http_router, keyed_http_router, serve_http},
};

use crate::{
    exit::{CliError, Status},
    host::Host,
    options::{SessionOptions, WatchOptions},
    output, signals,
};

/// Options of `toolbay serve`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The port; 0 takes a free one
    #[arg(long, default_value_t = 3000)]
    port: u16,
    /// The address, which must be one of this machine alone: 127.0.0.1, ::1 or localhost
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = host_address)]
    host: IpAddr,
    /// Let in only who brings a key of this TOML file, as the tenant that it says: [[keys]] with tenant and key, and perhaps
    /// user and rights. All tenants are then served at /mcp
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    #[command(flatten)]
    watch: WatchOptions,
    #[command(flatten)]
    session: SessionOptions,
}

pub(crate) async fn run(options: Options) -> Result<Status, CliError> {
    let wanted = SocketAddr::new(options.host, options.port);
    check_loopback(wanted).map_err(|error| CliError::usage(format!("--host: {error}")))?;
    let host = Host::open(&options.session.host, &options.session.plugins).await?;
    let listener = TcpListener::bind(wanted).await.map_err(|error| cannot_listen(wanted, &error))?;
    let address = listener.local_addr().map_err(|error| cannot_listen(wanted, &error))?;
    let chosen = host.session_of(&options.session.tenant)?;
    let tenants = tenants(&host, &options)?;
    // Before anybody is told the address, so that nobody who heard it can end the server the hard way.
    let shutdown = signals::end()?;
    let kept_up = host.keep_up(options.watch, output::sync_report)?;
    let keys = options.keys.as_deref().map(read_keys).transpose()?;
    if keys.is_some() {
        announce_keyed(&host, address);
    } else {
        announce(&host, &chosen, &tenants, address);
    }
    let router = match keys {
        Some(keys) => {
            let toolbay = host.toolbay.clone();
            let session = move |principal: &Principal| toolbay.session(principal.tenant.as_str()).ok();
            keyed_http_router(Arc::new(keys), session, HttpOptions::default())
        }
        None => http_router(chosen, move |tenant| tenants.get(tenant).cloned(), HttpOptions::default()),
    };
    let served = serve_http(listener, router, shutdown).await.map_err(CliError::usage);
    // Before the plugins are stopped, so that none is waited for since it is asked whether it is well.
    drop(kept_up);
    host.stop().await;
    served?;
    output::note("stopped");
    Ok(Status::Success)
}

/// The tenants that have an address of their own: those that the command line gives tools.
fn tenants(host: &Host, options: &Options) -> Result<BTreeMap<TenantId, Session>, CliError> {
    let named: BTreeSet<_> = options.session.plugins.tenant_tools.iter().map(|pair| &pair.key).collect();
    named.into_iter().map(|tenant| Ok((tenant.clone(), host.session_of(tenant)?))).collect()
}

/// Says what was loaded, what not and why, and how to come in.
fn announce(host: &Host, chosen: &Session, tenants: &BTreeMap<TenantId, Session>, address: SocketAddr) {
    output::load_report(&host.report);
    if host.report.loaded.is_empty() {
        output::note("no plugin is loaded: name a folder of plugins with --tools");
    }
    let url = format!("http://{address}/mcp");
    output::note(&format!("\n{url} has the {} tools of tenant {}", chosen.tools().len(), chosen.tenant()));
    for (tenant, session) in tenants {
        let count = session.tools().len();
        output::note(&format!("http://{address}/tenants/{tenant}/mcp has the {count} tools of tenant {tenant}"));
    }
    let snippet = json!({ "mcpServers": { "toolbay": { "type": "http", "url": url } } });
    output::note(&format!("\nto connect an MCP client, give it this configuration:\n{snippet:#}\n"));
    output::note(&format!("listening on {url}"));
}

/// The file of `--keys`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    keys: Vec<KeyEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyEntry {
    tenant: TenantId,
    key: String,
    user: Option<String>,
    #[serde(default)]
    rights: PermissionSet,
}

/// Reads the keys. No message quotes the file: there are keys in it.
fn read_keys(path: &Path) -> Result<StaticKeys, CliError> {
    let problem = |what: String| CliError::usage(format!("--keys: {}: {what}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| problem(error.to_string()))?;
    let file: KeysFile = toml::from_str(&text).map_err(|error: toml::de::Error| problem(error.message().to_owned()))?;
    let mut keys = StaticKeys::default();
    for (number, entry) in file.keys.into_iter().enumerate() {
        let principal = Principal { tenant: entry.tenant, user: entry.user.map(Arc::from), rights: entry.rights };
        keys = keys.with(&entry.key, principal).map_err(|error| problem(format!("keys[{number}]: {error}")))?;
    }
    Ok(keys)
}

/// Says what was loaded, and how to come in with a key.
fn announce_keyed(host: &Host, address: SocketAddr) {
    output::load_report(&host.report);
    let url = format!("http://{address}/mcp");
    let headers = json!({ "Authorization": "Bearer YOUR-KEY" });
    let snippet = json!({ "mcpServers": { "toolbay": { "type": "http", "url": url, "headers": headers } } });
    output::note(&format!("\nto connect an MCP client, give it this configuration:\n{snippet:#}\n"));
    output::note(&format!("listening on {url}"));
}

fn host_address(text: &str) -> Result<IpAddr, String> {
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    text.parse().map_err(|_| "write an address such as 127.0.0.1, or localhost".to_owned())
}

fn cannot_listen(address: SocketAddr, error: &io::Error) -> CliError {
    let advice =
        if error.kind() == io::ErrorKind::AddrInUse { ": choose another --port, or 0 for a free one" } else { "" };
    CliError::usage(format!("cannot listen on {address}: {error}{advice}"))
}
