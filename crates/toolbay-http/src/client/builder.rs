//! Sets a client up. Everything that opens something is a call of its own, and without calls all is closed.

use std::sync::Arc;

use ipnet::IpNet;
use reqwest::header::HeaderValue;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem, pem::PemObject},
};

use super::{HttpClient, Inner, PlainHttp};
use crate::{
    address::AddressRules,
    connection::{self, Connector},
    limits::HttpLimits,
    resolve::{Resolver, SystemResolver},
    slots::Slots,
};

/// What an [`HttpClient`] is made from.
pub struct HttpClientBuilder {
    limits: HttpLimits,
    rules: AddressRules,
    plain: PlainHttp,
    resolver: Arc<dyn Resolver>,
    user_agent: String,
    root_pem: Vec<u8>,
}

/// A client could not be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpSetupError {
    /// The extra roots are no certificates in PEM.
    #[error("the extra root certificates are not PEM")]
    Pem(#[from] pem::Error),
    /// A root certificate or the TLS settings do not work.
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
    /// The user agent is no header value.
    #[error("the user agent must be printable ASCII")]
    UserAgent,
}

impl Default for HttpClientBuilder {
    fn default() -> Self {
        Self {
            limits: HttpLimits::default(),
            rules: AddressRules::default(),
            plain: PlainHttp::Refused,
            resolver: Arc::new(SystemResolver),
            user_agent: concat!("toolbay/", env!("CARGO_PKG_VERSION")).to_owned(),
            root_pem: Vec::new(),
        }
    }
}

impl HttpClientBuilder {
    /// Bounds other than [`HttpLimits::default`].
    #[must_use]
    pub fn limits(mut self, limits: HttpLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Opens a network that is otherwise refused; see [`AddressRules::allow`]. It opens for all tenants, so a host
    /// that does this grants hosts in it with care: `http:*` then reaches them too.
    #[must_use]
    pub fn allow_network(mut self, network: IpNet) -> Self {
        self.rules.allow(network);
        self
    }

    /// Lets `http://` URLs be asked for where `http-plain:METHOD:HOST` is granted.
    #[must_use]
    pub fn allow_plain_http(mut self) -> Self {
        self.plain = PlainHttp::ByGrant;
        self
    }

    /// A resolver other than the [`SystemResolver`].
    #[must_use]
    pub fn resolver(mut self, resolver: impl Resolver) -> Self {
        self.resolver = Arc::new(resolver);
        self
    }

    /// Trusts these certificate authorities besides Mozilla's, given as PEM: an organisation's own, for example.
    #[must_use]
    pub fn add_roots_pem(mut self, pem: impl AsRef<[u8]>) -> Self {
        self.root_pem.extend_from_slice(pem.as_ref());
        self.root_pem.push(b'\n');
        self
    }

    /// What requests say of themselves where the plugin says nothing: `toolbay/VERSION` unless this is called.
    #[must_use]
    pub fn user_agent(mut self, user_agent: impl Into<String>) -> Self {
        self.user_agent = user_agent.into();
        self
    }

    /// Makes the client.
    ///
    /// # Errors
    /// [`HttpSetupError`] by what does not fit.
    pub fn build(self) -> Result<HttpClient, HttpSetupError> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        for certificate in CertificateDer::pem_slice_iter(&self.root_pem) {
            roots.add(certificate?)?;
        }
        let connector = Connector {
            tls: connection::tls(roots)?,
            user_agent: HeaderValue::from_str(&self.user_agent).map_err(|_| HttpSetupError::UserAgent)?,
            connect_timeout: self.limits.connect_timeout,
            max_response_headers: self.limits.max_response_headers,
        };
        Ok(HttpClient(Arc::new(Inner {
            slots: Slots::new(&self.limits),
            limits: self.limits,
            rules: self.rules,
            plain: self.plain,
            resolver: self.resolver,
            connector,
        })))
    }
}
