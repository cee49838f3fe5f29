//! The rules for methods and header fields: which a plugin may choose, and which belong to the connection.

use reqwest::{
    Method,
    header::{HeaderMap, HeaderName, HeaderValue},
};

use super::{RequestError, wire::shown};

/// `CONNECT` asks for a tunnel and `TRACE` for an echo of the request; neither is for plugins. Others are unknown to
/// grants.
const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// Fields that say where a message ends, what happens to the connection, or which host is meant. Two readers that take
/// them differently are what request smuggling lives on, so only the host writes them.
const HOSTS_OWN: [&str; 13] = [
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
];

/// Fields of one request. The map behind them panics at 32,768, so the bound stands where they are added.
const MAX_FIELDS: usize = 100;

/// Reads a method, in upper or lower case.
pub(super) fn method(text: &str) -> Result<Method, RequestError> {
    METHODS
        .into_iter()
        .find(|method| method.as_str().eq_ignore_ascii_case(text))
        .ok_or_else(|| RequestError::of("method", "must be GET, HEAD, OPTIONS, POST, PUT, PATCH or DELETE"))
}

/// Adds a field that a plugin may choose.
pub(super) fn add_header(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), RequestError> {
    let member = format!("headers.{}", shown(name, 80));
    let parsed = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| RequestError::of(&member, "is no header name: use letters, digits and hyphens"))?;
    if HOSTS_OWN.contains(&parsed.as_str()) || parsed.as_str().starts_with("proxy-") {
        return Err(RequestError::of(&member, "is set by the host: leave it out"));
    }
    if !value.bytes().all(|b| matches!(b, b' '..=b'~' | b'\t')) {
        return Err(RequestError::of(
            &member,
            "must be printable ASCII without line breaks: encode other characters as the API asks for",
        ));
    }
    if headers.len() >= MAX_FIELDS {
        return Err(RequestError::of("headers", format_args!("has more than {MAX_FIELDS} fields, which is the limit")));
    }
    let value = HeaderValue::from_str(value).map_err(|_| RequestError::of(&member, "is no header value"))?;
    if headers.insert(parsed, value).is_some() {
        return Err(RequestError::of(&member, "is there twice, since names are the same in upper and lower case"));
    }
    Ok(())
}
