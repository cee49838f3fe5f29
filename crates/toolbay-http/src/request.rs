//! A request as a plugin writes it, checked field by field. It stands apart from the sending so that a host can check
//! a request without sending it.

mod fields;
mod wire;

use std::{fmt, time::Duration};

use bytes::Bytes;
use reqwest::{
    Method,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use serde_json::Value;
use toolbay_api::{ErrorKind, ToolError};

use crate::target::Target;

/// A request to send, with a URL, method and header fields that are known to be sound.
///
/// As JSON it is an object with these members, of which only `url` must be there:
///
/// | member | what |
/// | --- | --- |
/// | `method` | `GET` (the default), `HEAD`, `OPTIONS`, `POST`, `PUT`, `PATCH` or `DELETE` |
/// | `url` | `https://...`, or `http://...` where host and grant both say so |
/// | `headers` | an object of texts, at most 100 |
/// | `query` | an object of texts, numbers, booleans or lists of them, added to the URL's query |
/// | `body` | the body as text |
/// | `body_base64` | the body as bytes in base64 |
/// | `json` | the body as a JSON value |
/// | `timeout_ms` | milliseconds for the whole of it, where the call's deadline does not come earlier |
///
/// At most one of the three bodies may be there, and none with `GET` or `HEAD`. Where `headers` has no `content-type`,
/// one that fits the body is added. A member that is `null` is taken as absent; an unknown member is an error.
#[derive(Clone)]
pub struct HttpRequest {
    pub(crate) method: Method,
    pub(crate) target: Target,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) timeout: Option<Duration>,
}

/// What is wrong with which member of a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the HTTP request{0}")]
pub(crate) struct RequestError(String);

impl RequestError {
    /// `problem` completes the sentence that begins with the member's name.
    pub(crate) fn of(member: impl fmt::Display, problem: impl fmt::Display) -> Self {
        Self(format!("'s `{member}` {problem}"))
    }

    /// `problem` is about the whole and completes the sentence that begins with "the HTTP request".
    pub(crate) fn whole(problem: impl fmt::Display) -> Self {
        Self(format!(" {problem}"))
    }
}

impl From<RequestError> for ToolError {
    fn from(error: RequestError) -> Self {
        Self::new(ErrorKind::InvalidArguments, error.to_string())
    }
}

impl HttpRequest {
    /// A request without header fields and body.
    ///
    /// # Errors
    /// `InvalidArguments`, which names the member, where `method` is none of those above or `url` is no absolute
    /// `http` or `https` URL without user name and password.
    pub fn new(method: &str, url: &str) -> Result<Self, ToolError> {
        Ok(Self::parse(method, url)?)
    }

    /// Reads the JSON form.
    ///
    /// # Errors
    /// `InvalidArguments` with the member's name and what it must be. Of the values nothing is shown, since an
    /// uncaught error may get as far as the model, and a header value in the wrong place is still a secret.
    pub fn from_json(value: Value) -> Result<Self, ToolError> {
        Ok(wire::parse(value)?)
    }

    /// Adds a header field.
    ///
    /// # Errors
    /// `InvalidArguments` where the name is no token or is one that the host sets itself, where the value holds
    /// anything but printable ASCII and tabs, where the request has a field of this name, or where it has 100 fields.
    pub fn with_header(mut self, name: &str, value: &str) -> Result<Self, ToolError> {
        fields::add_header(&mut self.headers, name, value)?;
        Ok(self)
    }

    /// Sets the body.
    ///
    /// # Errors
    /// `InvalidArguments` where the method is `GET` or `HEAD`.
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Result<Self, ToolError> {
        self.set_body("body", body.into(), "application/octet-stream")?;
        Ok(self)
    }

    /// Sets the time for the whole request, where the call's deadline does not come earlier.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The method, in upper case.
    #[must_use]
    pub fn method(&self) -> &str {
        self.method.as_str()
    }

    /// The host and, where it is not the scheme's own, the port: `api.example.com:8443`.
    #[must_use]
    pub fn authority(&self) -> String {
        self.target.authority()
    }

    /// The action that must be granted to send it: `http:GET:api.example.com`.
    #[must_use]
    pub fn action(&self) -> String {
        self.target.action(self.method.as_str())
    }

    /// Bytes of all header names and values.
    pub(crate) fn header_bytes(&self) -> usize {
        header_bytes(&self.headers)
    }

    fn parse(method: &str, url: &str) -> Result<Self, RequestError> {
        let method = fields::method(method)?;
        let target = Target::parse(url).map_err(|error| RequestError::of("url", error))?;
        Ok(Self { method, target, headers: HeaderMap::new(), body: Bytes::new(), timeout: None })
    }

    fn set_body(&mut self, member: &str, body: Bytes, content_type: &'static str) -> Result<(), RequestError> {
        if matches!(self.method, Method::GET | Method::HEAD) {
            let problem = format!("cannot be sent with {}: use another method", self.method);
            return Err(RequestError::of(member, problem));
        }
        self.body = body;
        self.headers.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static(content_type));
        Ok(())
    }
}

impl fmt::Debug for HttpRequest {
    /// Without path, query, header values and body: those may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRequest")
            .field("method", &self.method)
            .field("target", &self.target)
            .field("headers", &self.headers.keys().map(HeaderName::as_str).collect::<Vec<_>>())
            .field("body_bytes", &self.body.len())
            .field("timeout", &self.timeout)
            .finish()
    }
}

/// Bytes of all names and values.
pub(crate) fn header_bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum()
}
