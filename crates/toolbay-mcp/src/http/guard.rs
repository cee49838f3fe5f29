//! The check against DNS rebinding: a web page that a user of this machine opens must not reach the server through a
//! name of its own that points to the loopback address.
//!
//! `rmcp` makes the same check on its routes, and it stays on there. This one stands in front of everything, since
//! otherwise the difference between "refused" and "not found" would tell such a page which tenants there are.

use axum::{
    extract::Request,
    http::{
        HeaderMap, HeaderValue, StatusCode, Uri,
        header::{HOST, ORIGIN},
        uri::Authority,
    },
    middleware::Next,
    response::{IntoResponse, Response},
};

/// The names that a request may call this server by.
pub(super) const HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// The origins of pages that may call it: those served by this machine itself, such as a developer's inspector.
pub(super) const ORIGINS: [&str; 6] = [
    "http://localhost:*",
    "http://127.0.0.1:*",
    "http://[::1]:*",
    "https://localhost:*",
    "https://127.0.0.1:*",
    "https://[::1]:*",
];

/// Lets a request through that was meant for this machine and sent by it.
pub(super) async fn guard(request: Request, next: Next) -> Response {
    if !is_meant_for_us(request.uri(), request.headers()) {
        return refused("Host");
    }
    if !request.headers().get_all(ORIGIN).iter().all(is_our_origin) {
        return refused("Origin");
    }
    next.run(request).await
}

fn refused(header: &str) -> Response {
    tracing::warn!(header, "refused an HTTP request: the header names no loopback address");
    let text = format!("the {header} header must name localhost, 127.0.0.1 or [::1]\n");
    (StatusCode::FORBIDDEN, text).into_response()
}

/// HTTP/1.1 names the host in a header, HTTP/2 in the address. All that are given must agree with us.
fn is_meant_for_us(uri: &Uri, headers: &HeaderMap) -> bool {
    let in_headers: Vec<_> = headers.get_all(HOST).iter().collect();
    let named = !in_headers.is_empty() || uri.authority().is_some();
    named
        && uri.authority().is_none_or(is_our_host)
        && in_headers
            .into_iter()
            .all(|value| Authority::try_from(value.as_bytes()).is_ok_and(|authority| is_our_host(&authority)))
}

fn is_our_host(authority: &Authority) -> bool {
    HOSTS.iter().any(|host| host.eq_ignore_ascii_case(authority.host()))
}

fn is_our_origin(value: &HeaderValue) -> bool {
    Uri::try_from(value.as_bytes()).is_ok_and(|origin| {
        matches!(origin.scheme_str(), Some("http" | "https")) && origin.authority().is_some_and(is_our_host)
    })
}
