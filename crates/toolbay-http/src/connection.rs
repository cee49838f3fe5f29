//! One request over one connection of its own.
//!
//! No connection is ever used twice, and none is shared. A pool keyed by host name, which is what HTTP clients have,
//! would hand a connection that was opened after one check to a request whose own check had another answer, and the
//! connection of one tenant, with whatever the server keeps by connection, to the next. A pool keyed by tenant, plugin,
//! host and checked address would be sound; it would save a handshake for the few tools that ask the same host again
//! within seconds, at the price of idle connections for each of many thousand tenants. So the client below is made
//! anew for each hop and thrown away, and TLS sessions are not resumed either.

use std::{
    error::Error,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use reqwest::{
    Client, Response,
    dns::{Addrs, Name, Resolve, Resolving},
    header::{ACCEPT_ENCODING, CONNECTION, HeaderValue},
};
use rustls::ClientConfig;
use serde_json::json;
use toolbay_api::{ErrorKind, ToolError};

use crate::request::HttpRequest;

/// What all connections have in common.
pub(crate) struct Connector {
    pub(crate) tls: ClientConfig,
    pub(crate) user_agent: HeaderValue,
    pub(crate) connect_timeout: Duration,
    pub(crate) max_response_headers: usize,
}

impl Connector {
    /// Connects to one of `addresses`, which are checked, sends the request and waits for the answer's header.
    ///
    /// # Errors
    /// `Unavailable` where there is no connection or the answer is no HTTP; `InvalidArguments` where the URL cannot be
    /// written into a request.
    ///
    /// # Cancel safety
    /// Dropping the future, or the response that it gave, closes the connection.
    pub(crate) async fn exchange(&self, request: &HttpRequest, addresses: Vec<IpAddr>) -> Result<Response, ToolError> {
        let host = request.target.authority();
        let pinned = Pinned { name: request.target.host().to_string(), addresses };
        // Features of `reqwest` add up over the whole program, so what must be off is switched off here by name, also
        // where this crate does not ask for it.
        let client = Client::builder()
            .tls_backend_preconfigured(self.tls.clone())
            .dns_resolver(pinned)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .http1_only()
            .http1_max_headers(self.max_response_headers)
            .pool_max_idle_per_host(0)
            .connect_timeout(self.connect_timeout)
            .user_agent(self.user_agent.clone())
            .build()
            .map_err(|error| {
                ToolError::new(ErrorKind::Internal, "the HTTP client could not be made: an operator can see why")
                    .with_source(error)
            })?;
        client
            .request(request.method.clone(), request.target.url().clone())
            .headers(request.headers.clone())
            .header(ACCEPT_ENCODING, HeaderValue::from_static("identity"))
            .header(CONNECTION, HeaderValue::from_static("close"))
            .body(request.body.clone())
            .send()
            .await
            .map_err(|error| failed(&host, error))
    }
}

/// Gives the checked addresses for the name that they were checked for.
struct Pinned {
    name: String,
    addresses: Vec<IpAddr>,
}

impl Resolve for Pinned {
    fn resolve(&self, name: Name) -> Resolving {
        let answer: Result<Addrs, Box<dyn Error + Send + Sync>> = if name.as_str() == self.name {
            // The port 0 is replaced by the URL's.
            let addresses: Vec<_> = self.addresses.iter().map(|address| SocketAddr::new(*address, 0)).collect();
            Ok(Box::new(addresses.into_iter()))
        } else {
            Err("this name was not checked".into())
        };
        Box::pin(async { answer })
    }
}

/// What a failed exchange means for the plugin.
pub(crate) fn failed(host: &str, error: reqwest::Error) -> ToolError {
    // The URL's query may hold a secret, and the operator's log is no place for it.
    let error = error.without_url();
    if error.is_builder() {
        let message = "the HTTP request's `url` cannot be written into a request: percent-encode its path and query";
        return ToolError::new(ErrorKind::InvalidArguments, message).with_source(error);
    }
    if is_too_large(&error) {
        return header_too_large(host).with_source(error);
    }
    let message = if error.is_connect() {
        format!("no connection to `{host}`; try again later")
    } else {
        format!("the connection to `{host}` broke, or what it answered is no HTTP/1.1; try again later")
    };
    ToolError::new(ErrorKind::Unavailable, message).with_source(error)
}

/// The answer of a host that sends more header than is read.
pub(crate) fn header_too_large(host: &str) -> ToolError {
    ToolError::new(ErrorKind::Unavailable, format!("`{host}` answered with more header fields than are read"))
        .with_retryable(false)
        .with_details(json!({ "limit": "http_response_headers" }))
}

fn is_too_large(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_parse_too_large) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// TLS with the roots that the host trusts, and nothing kept from one connection to the next.
pub(crate) fn tls(roots: rustls::RootCertStore) -> Result<ClientConfig, rustls::Error> {
    // The provider is given, not the process's default: which one that is depends on what else the program links.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    tls.resumption = rustls::client::Resumption::disabled();
    Ok(tls)
}
