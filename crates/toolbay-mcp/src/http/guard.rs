//! The check against DNS rebinding: a web page that a user of this machine opens must not reach the server through a
//! name of its own that points to the server's address.
//!
//! `rmcp` has such a check on its routes. This one stands in front of everything, since otherwise the difference between
//! "refused" and "not found" would tell such a page which tenants there are.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue, StatusCode, Uri,
        header::{HOST, ORIGIN},
        uri::Authority,
    },
    middleware::Next,
    response::{IntoResponse, Response},
};

/// The names that a request may always call this server by, and whose pages may call it: this machine's own.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// The names and pages of this machine, and those that the operator added.
pub(super) struct Allowed {
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl Allowed {
    pub(super) fn new(hosts: &[String], origins: &[String]) -> Self {
        let lower = |all: &[String]| all.iter().map(|one| one.trim_end_matches('/').to_ascii_lowercase()).collect();
        Self { hosts: lower(hosts), origins: lower(origins) }
    }

    /// HTTP/1.1 names the host in a header, HTTP/2 in the address. All that are given must agree with us.
    fn is_meant_for_us(&self, uri: &Uri, headers: &HeaderMap) -> bool {
        let in_headers: Vec<_> = headers.get_all(HOST).iter().collect();
        let named = !in_headers.is_empty() || uri.authority().is_some();
        named
            && uri.authority().is_none_or(|authority| self.is_our_host(authority))
            && in_headers
                .into_iter()
                .all(|value| Authority::try_from(value.as_bytes()).is_ok_and(|authority| self.is_our_host(&authority)))
    }

    /// An added name stands for any port, one with a port for that port.
    fn is_our_host(&self, authority: &Authority) -> bool {
        let (host, whole) = (authority.host().to_ascii_lowercase(), authority.as_str().to_ascii_lowercase());
        LOOPBACK.contains(&host.as_str()) || self.hosts.iter().any(|own| *own == host || *own == whole)
    }

    fn is_our_origin(&self, value: &HeaderValue) -> bool {
        let of_this_machine = |origin: Uri| {
            matches!(origin.scheme_str(), Some("http" | "https"))
                && origin.authority().is_some_and(|it| LOOPBACK.iter().any(|own| own.eq_ignore_ascii_case(it.host())))
        };
        let added = value.to_str().is_ok_and(|text| self.origins.contains(&text.to_ascii_lowercase()));
        added || Uri::try_from(value.as_bytes()).is_ok_and(of_this_machine)
    }
}

/// Lets a request through that was meant for this server and sent by a page that may.
pub(super) async fn guard(State(allowed): State<Arc<Allowed>>, request: Request, next: Next) -> Response {
    if !allowed.is_meant_for_us(request.uri(), request.headers()) {
        return refused("Host");
    }
    if !request.headers().get_all(ORIGIN).iter().all(|origin| allowed.is_our_origin(origin)) {
        return refused("Origin");
    }
    next.run(request).await
}

fn refused(header: &str) -> Response {
    tracing::warn!(header, "refused an HTTP request: the header names no address of this server");
    let text =
        format!("the {header} header must name localhost, 127.0.0.1, [::1] or a name that the server is given\n");
    (StatusCode::FORBIDDEN, text).into_response()
}
