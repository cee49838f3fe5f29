//! The HTTP client for servers that are called: to public addresses and those that the operator names, without proxies and
//! redirects, and within bounds. Each request resolves its host through the same rules, so that a name cannot point
//! somewhere else the second time.

use std::{
    error::Error,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use reqwest::{
    Client,
    dns::{Addrs, Name, Resolve, Resolving},
};
use rmcp::transport::auth::{OAuthHttpClient, OAuthHttpClientFuture, OAuthHttpRequest};
use toolbay_http::AddressRules;
use url::Url;

use crate::link::LinkError;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a request for a token may take, and how large its answer may be.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_TOKEN_BYTES: usize = 256 * 1024;

/// Where requests may go.
#[derive(Debug, Clone, Default)]
pub struct HttpPolicy {
    /// Which addresses. The default are public ones.
    pub addresses: AddressRules,
}

impl HttpPolicy {
    /// Checks the host of `url` where it is an address itself; names are checked when they are looked up.
    ///
    /// # Errors
    /// [`LinkError::Refused`].
    pub(crate) fn check(&self, url: &str) -> Result<Url, LinkError> {
        let refused = |what: &str| LinkError::Refused(format!("the address of the server {what}"));
        let url = Url::parse(url).map_err(|_| refused("cannot be read"))?;
        let address = match url.host() {
            Some(url::Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(url::Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(url::Host::Domain(_)) => None,
            None => return Err(refused("has no host")),
        };
        match address.map(|address| self.addresses.check(address)) {
            Some(Err(error)) => {
                tracing::warn!(target: "toolbay::mcp", %error, "refused the address of an MCP server");
                Err(refused("is not for plugins; an operator can allow it"))
            }
            _ => Ok(url),
        }
    }

    /// A client that keeps to the policy.
    ///
    /// # Errors
    /// [`LinkError::Unreachable`] where there can be none.
    pub(crate) fn client(&self) -> Result<Client, LinkError> {
        let broken = |error: &dyn Error| LinkError::Unreachable(format!("the HTTP client could not be made: {error}"));
        let mut roots = rustls::RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| broken(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(Checked(Arc::new(self.addresses.clone())))
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("toolbay/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| broken(&error))
    }
}

/// Gives only addresses that the rules allow.
struct Checked(Arc<AddressRules>);

impl Resolve for Checked {
    fn resolve(&self, name: Name) -> Resolving {
        let rules = Arc::clone(&self.0);
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> =
                found.filter_map(|it| Some(SocketAddr::new(rules.check(it.ip()).ok()?, 0))).collect();
            if allowed.is_empty() {
                return Err(format!("{} has no address that plugins may reach", name.as_str()).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// The same client for what OAuth has to send.
pub(crate) struct OAuthHttp {
    pub(crate) client: Client,
    pub(crate) policy: HttpPolicy,
}

impl OAuthHttpClient for OAuthHttp {
    fn execute(&self, request: OAuthHttpRequest) -> OAuthHttpClientFuture<'_> {
        Box::pin(async move {
            self.policy.check(&request.request.uri().to_string())?;
            let request = reqwest::Request::try_from(request.request)?;
            let exchange = async {
                let mut response = self.client.execute(request).await?;
                let mut answer = http::Response::builder().status(response.status());
                for (name, value) in response.headers() {
                    answer = answer.header(name, value);
                }
                let mut body = Vec::new();
                while let Some(chunk) = response.chunk().await? {
                    if body.len() + chunk.len() > MAX_TOKEN_BYTES {
                        return Err("the answer is too large".into());
                    }
                    body.extend_from_slice(&chunk);
                }
                Ok::<_, Box<dyn Error + Send + Sync>>(answer.body(body)?)
            };
            tokio::time::timeout(TOKEN_TIMEOUT, exchange).await?
        })
    }
}
