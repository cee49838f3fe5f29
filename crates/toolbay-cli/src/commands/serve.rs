//! `toolbay serve`: the API and tenants' tools over MCP, by HTTP, to whoever shows a key; or, without keys, one tenant's
//! tools to this machine only.

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
use tokio::{net::TcpListener, sync::oneshot};
use toolbay::{
    Control, PermissionSet, Session, TenantId, async_trait,
    mcp::{
        Authenticate, Bearer, HttpOptions, Principal, Refused, StaticKeys, check_loopback, http_router,
        keyed_http_router, serve_http,
    },
    server::{Server, ServerOptions},
};

use crate::{
    exit::{CliError, Status},
    host::Host,
    options::{SessionOptions, WatchOptions},
    output, signals,
    stored::{self, FirstKeys},
};

/// Options of `toolbay serve`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The port; 0 takes a free one
    #[arg(long, default_value_t = 3000)]
    port: u16,
    /// The address. Other machines than this one reach it by their own risk: put a proxy with TLS before it
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1", value_parser = host_address)]
    host: IpAddr,
    /// Hosts by whose names clients reach this server, beside its own address; may be repeated
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
    /// Serve the tenant's tools over MCP to whoever is on this machine: no keys, no API, no database
    #[arg(long, conflicts_with_all = ["database", "data"])]
    keyless: bool,
    /// Serve MCP alone, without a database, to whoever brings a key of this TOML file, as the tenant that it says: `[[keys]]` with
    /// tenant and key, and perhaps user and rights
    #[arg(long, value_name = "FILE", conflicts_with_all = ["database", "data", "keyless"])]
    keys: Option<PathBuf>,
    #[command(flatten)]
    watch: WatchOptions,
    #[command(flatten)]
    session: SessionOptions,
}

pub(crate) async fn run(options: Options) -> Result<Status, CliError> {
    let wanted = SocketAddr::new(options.host, options.port);
    if options.keyless || options.keys.is_some() {
        check_loopback(wanted).map_err(|error| CliError::usage(format!("--host: {error}")))?;
        return without_database(options, wanted).await;
    }
    let (host, control) = Host::open_stored(&options.session, options.session.store.url_or_usual()?).await?;
    let named = options.session.plugins.tenant_tools.iter().map(|pair| &pair.key);
    stored::ensure_tenants(&control, named.chain([&options.session.tenant])).await?;
    let keys = stored::first_keys(&control, &options.session.tenant).await?;

    let mcp = HttpOptions { hosts: options.allow_host.clone(), ..HttpOptions::default() };
    let server = Server::new(control.clone(), ServerOptions::default());
    let (live, bay, known) = (server.live_runs(), host.toolbay.clone(), control.clone());
    let sessions = move |principal: &Principal| {
        // An issuer of tokens does not know whom this host knows.
        known.is_active(&principal.tenant).then_some(())?;
        let session = bay.session(&principal.tenant).ok()?;
        Some(session.with_observer(live.observer(&principal.tenant)))
    };
    let (router, end) = keyed_http_router(host.door(Keys(control)), sessions, mcp).into_parts();
    let server = server.merge(router).bind(wanted).await.map_err(|error| cannot_listen(wanted, &error))?;
    let address = server.local_addr().map_err(|error| cannot_listen(wanted, &error))?;
    // Before anybody is told the address, so that nobody who heard it can end the server the hard way.
    let shutdown = signals::end()?;
    let kept_up = host.keep_up(options.watch, output::sync_report)?;
    announce(&host, address, keys.as_ref());
    let (begin, begun) = oneshot::channel();
    let served = server.serve(async {
        shutdown.await;
        // Nobody listens only where the other end is gone with this one.
        let _ = begin.send(());
    });
    let ended = async {
        if begun.await.is_ok() {
            end.end().await;
        }
    };
    let (served, ()) = tokio::join!(served, ended);
    // Before the plugins are stopped, so that none is waited for since it is asked whether it is well.
    drop(kept_up);
    host.stop().await;
    served.map_err(CliError::usage)?;
    output::note("stopped");
    Ok(Status::Success)
}

/// The keys of the store as MCP's callers: those of tenants.
struct Keys(Control);

#[async_trait]
impl Authenticate for Keys {
    async fn authenticate(&self, credential: &Bearer) -> Result<Principal, Refused> {
        let principal = self.0.authenticate(credential.expose()).ok_or(Refused::Invalid)?;
        // Operators have no tools.
        principal.tenant.map(Principal::new).ok_or(Refused::Insufficient { scopes: Vec::new() })
    }
}

/// Serves MCP alone: one tenant's tools, and those of the tenants that the command line gives tools, to whoever asks, or
/// every tenant's to whoever has a key of a file.
async fn without_database(options: Options, wanted: SocketAddr) -> Result<Status, CliError> {
    let host = Host::open_at(&options.session, None).await?;
    if options.keyless && host.takes_tokens() {
        return Err(CliError::usage(
            "--keyless lets everybody in, and the configuration file has [oauth]: leave one out",
        ));
    }
    let listener = TcpListener::bind(wanted).await.map_err(|error| cannot_listen(wanted, &error))?;
    let address = listener.local_addr().map_err(|error| cannot_listen(wanted, &error))?;
    let chosen = host.session_of(&options.session.tenant)?;
    let tenants = tenants(&host, &options)?;
    let shutdown = signals::end()?;
    let kept_up = host.keep_up(options.watch, output::sync_report)?;
    let keys = options.keys.as_deref().map(read_keys).transpose()?;
    if keys.is_some() {
        announce_keyed(&host, address);
    } else {
        announce_keyless(&host, &chosen, &tenants, address);
    }
    let mcp = HttpOptions { hosts: options.allow_host, ..HttpOptions::default() };
    let router = match keys {
        Some(keys) => {
            let toolbay = host.toolbay.clone();
            let session = move |principal: &Principal| toolbay.session(principal.tenant.as_str()).ok();
            keyed_http_router(host.door(keys), session, mcp)
        }
        None => http_router(chosen, move |tenant| tenants.get(tenant).cloned(), mcp),
    };
    let served = serve_http(listener, router, shutdown).await.map_err(CliError::usage);
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

/// Says what was loaded, what not and why.
fn loaded(host: &Host) {
    output::load_report(&host.report);
    if host.report.loaded.is_empty() {
        output::note("no plugin is loaded from disk: name a folder of plugins with --tools");
    }
}

/// Says what was loaded and how to come in; keys that were made just now are shown this once.
fn announce(host: &Host, address: SocketAddr, keys: Option<&FirstKeys>) {
    loaded(host);
    if let Some(control) = host.control() {
        output::store_failures(&control.status());
    }
    let base = format!("http://{address}");
    output::note(&format!(
        "\n{base}/api/v1 is the API ({base}/docs tells of it), {base}/mcp has the tools of the tenant whose key is shown"
    ));
    if let Some(FirstKeys { admin, tenant }) = keys {
        output::note(&format!("\nthe first admin key, shown this once:\n{}", admin.secret));
        if let Some(key) = tenant {
            let name = key.row.tenant.as_ref().map(ToString::to_string).unwrap_or_default();
            output::note(&format!("\na key of the tenant {name}, shown this once:\n{}", key.secret));
            tell_clients(&format!("{base}/mcp"), Some(&key.secret));
        }
    }
    output::note(&format!("listening on {base}"));
}

/// Says what was loaded and how to come in without keys.
fn announce_keyless(host: &Host, chosen: &Session, tenants: &BTreeMap<TenantId, Session>, address: SocketAddr) {
    loaded(host);
    let url = format!("http://{address}/mcp");
    output::note(&format!("\n{url} has the {} tools of tenant {}", chosen.tools().len(), chosen.tenant()));
    for (tenant, session) in tenants {
        let count = session.tools().len();
        output::note(&format!("http://{address}/tenants/{tenant}/mcp has the {count} tools of tenant {tenant}"));
    }
    tell_clients(&url, None);
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
    tell_clients(&url, Some("YOUR-KEY"));
    output::note(&format!("listening on {url}"));
}

/// Says what an MCP client has to be told to come in.
fn tell_clients(url: &str, key: Option<&str>) {
    let server = match key {
        Some(key) => json!({ "type": "http", "url": url, "headers": { "Authorization": format!("Bearer {key}") } }),
        None => json!({ "type": "http", "url": url }),
    };
    let snippet = json!({ "mcpServers": { "toolbay": server } });
    output::note(&format!("\nto connect an MCP client, give it this configuration:\n{snippet:#}\n"));
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
