//! Who a caller is: the port between this server and whoever keeps keys, and what comes with it.
//!
//! A tenant is never named by a request or remembered by a session: it is what the credential of each single request says
//! through [`Authenticate`]. Nothing else in this crate makes a [`Principal`].
//!
//! # Layout
//!
//! - this file: the port, principals, refusals and how they look in HTTP.
//! - [`keys`]: keys that are given at the start. [`jwt`]: tokens of an OAuth 2.1 authorization server.

pub mod either;
pub mod jwt;
pub mod keys;

use std::{fmt, sync::Arc};

use axum::{
    Json,
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{AUTHORIZATION, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use toolbay_api::{PermissionSet, TenantId, async_trait};

/// The longest credential that is looked at, in bytes.
const MAX_CREDENTIAL: usize = 16 * 1024;

/// What a caller presented: the token of `Authorization: Bearer`. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Bearer(Arc<str>);

impl Bearer {
    /// Takes over a token.
    pub fn new(token: impl Into<Arc<str>>) -> Self {
        Self(token.into())
    }

    /// The token itself. It goes into no log, message or error.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The one credential in `headers`. `None` where there is none; two, or one of another scheme, are as bad as a wrong
    /// one.
    pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Self>, Refused> {
        let mut all = headers.get_all(AUTHORIZATION).iter();
        let Some(value) = all.next() else { return Ok(None) };
        if all.next().is_some() || value.len() > MAX_CREDENTIAL {
            return Err(Refused::Invalid);
        }
        let text = value.to_str().map_err(|_| Refused::Invalid)?;
        let (scheme, token) = text.split_once(' ').ok_or(Refused::Invalid)?;
        let token = token.trim();
        if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || token.contains(' ') {
            return Err(Refused::Invalid);
        }
        Ok(Some(Self::new(token)))
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bearer(***)")
    }
}

/// Who a caller is, by the word of whoever knows its credential.
#[derive(Debug, Clone, PartialEq)]
pub struct Principal {
    /// The tenant that it belongs to.
    pub tenant: TenantId,
    /// The tenant's user, where the credential is a user's.
    pub user: Option<Arc<str>>,
    /// The user's rights, which tools may require.
    pub rights: PermissionSet,
}

impl Principal {
    /// A tenant's principal without a user and without rights.
    #[must_use]
    pub fn new(tenant: TenantId) -> Self {
        Self { tenant, user: None, rights: PermissionSet::default() }
    }
}

/// Why a caller is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refused {
    /// It presented nothing: 401.
    Missing,
    /// What it presented is unknown, over, revoked or not meant for this server: 401. It is not told which.
    Invalid,
    /// It is known and may not: 403. The scopes would let it in.
    Insufficient {
        /// What it would need, as OAuth scopes; empty where no scope would do.
        scopes: Vec<String>,
    },
    /// Nobody can say at the moment: 503.
    Unavailable,
}

/// What an OAuth client has to know of this server, as RFC 9728 has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtectedResource {
    /// The address by which clients know this server: `https://tools.example.com/mcp`. Tokens are for it.
    pub resource: String,
    /// The issuers of tokens for it.
    pub authorization_servers: Vec<String>,
    /// The scopes that make sense here.
    pub scopes: Vec<String>,
}

/// Knows callers by their credentials.
///
/// It is asked at every request, so what is revoked is gone with the next one; it should answer from memory.
#[async_trait]
pub trait Authenticate: Send + Sync {
    /// Who presents `credential`.
    ///
    /// # Errors
    /// [`Refused::Invalid`] for one that is not known, over or not for this server; [`Refused::Unavailable`] where that
    /// cannot be told now. Whoever cannot decide says no.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    async fn authenticate(&self, credential: &Bearer) -> Result<Principal, Refused>;

    /// What OAuth clients have to know of this server; `None` where its keys are not OAuth's.
    fn protected_resource(&self) -> Option<ProtectedResource> {
        None
    }
}

#[async_trait]
impl<A: Authenticate + ?Sized> Authenticate for Arc<A> {
    async fn authenticate(&self, credential: &Bearer) -> Result<Principal, Refused> {
        (**self).authenticate(credential).await
    }

    fn protected_resource(&self) -> Option<ProtectedResource> {
        (**self).protected_resource()
    }
}

impl ProtectedResource {
    /// The metadata document.
    pub(crate) fn document(&self) -> Response {
        let document = json!({
            "resource": self.resource,
            "authorization_servers": self.authorization_servers,
            "scopes_supported": self.scopes,
            "bearer_methods_supported": ["header"],
        });
        Json(document).into_response()
    }

    /// Where the document is: at the resource's own origin, with the path after the well-known name.
    fn document_address(&self) -> String {
        let after_scheme = self.resource.find("://").map_or(0, |at| at + 3);
        let path_at = self.resource.get(after_scheme..).and_then(|rest| rest.find('/')).map(|at| at + after_scheme);
        let (origin, path) = self.resource.split_at(path_at.unwrap_or(self.resource.len()));
        format!("{origin}{WELL_KNOWN}{}", path.trim_end_matches('/'))
    }
}

/// Where RFC 9728 has the metadata.
pub(crate) const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

impl Refused {
    /// The answer of HTTP, with the challenge that tells a client what to do.
    pub(crate) fn response(&self, resource: Option<&ProtectedResource>) -> Response {
        let (status, error, text) = match self {
            Self::Missing => (StatusCode::UNAUTHORIZED, None, "a credential is needed: Authorization: Bearer ...\n"),
            Self::Invalid => (StatusCode::UNAUTHORIZED, Some("invalid_token"), "the credential is not good here\n"),
            Self::Insufficient { .. } => {
                (StatusCode::FORBIDDEN, Some("insufficient_scope"), "the credential is not enough for this\n")
            }
            Self::Unavailable => {
                let text = "credentials cannot be checked now; try again later\n";
                return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "5")], text).into_response();
            }
        };
        let mut parameters = Vec::new();
        if let Some(error) = error {
            parameters.push(format!("error=\"{error}\""));
        }
        let scopes = match (self, resource) {
            (Self::Insufficient { scopes }, _) => scopes.clone(),
            (_, Some(resource)) => resource.scopes.clone(),
            _ => Vec::new(),
        };
        if !scopes.is_empty() {
            parameters.push(format!("scope=\"{}\"", scopes.join(" ")));
        }
        if let Some(resource) = resource {
            parameters.push(format!("resource_metadata=\"{}\"", resource.document_address()));
        }
        let challenge = format!("Bearer {}", parameters.join(", "));
        let mut response = (status, text).into_response();
        // What is configured may have what a header may not; then there is a challenge without it.
        let value = HeaderValue::from_str(challenge.trim_end()).unwrap_or(HeaderValue::from_static("Bearer"));
        response.headers_mut().insert(WWW_AUTHENTICATE, value);
        response
    }
}

/// The scopes of a credential as rights of its user: `right:` before a right's name says which ones. Others are for the
/// authorization server's own business.
pub(crate) fn rights_of_scopes<'a>(scopes: impl Iterator<Item = &'a str>) -> PermissionSet {
    let rights = scopes.filter_map(|scope| scope.strip_prefix("right:"));
    rights.filter_map(|right| toolbay_api::Permission::new(right).ok()).collect()
}

/// A claim as text.
pub(crate) fn text_claim<'a>(claims: &'a Value, name: &str) -> Option<&'a str> {
    claims.get(name)?.as_str().filter(|text| !text.is_empty())
}
