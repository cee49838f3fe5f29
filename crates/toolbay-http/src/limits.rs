//! What requests may use, for the host process and for each request.

use std::time::{Duration, Instant};

use toolbay_api::TenantId;

use crate::allow::Allow;

/// What the requests of all plugins may use at most. The bodies of answers that are being read have together at most
/// `max_in_flight` × `max_response_bytes`: 128 MiB by default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpLimits {
    /// Bytes of a request's URL with its query. A `url` of more than 64 KiB is refused whatever this says.
    pub max_url_bytes: usize,
    /// Bytes of a request's header names and values.
    pub max_request_header_bytes: usize,
    /// Bytes of a request's body.
    pub max_request_bytes: usize,
    /// Header fields of an answer.
    pub max_response_headers: usize,
    /// Bytes of an answer's header names and values. Up to about 400 KiB may be read before it is known that they are
    /// more, since the HTTP parser's buffer has that size.
    pub max_response_header_bytes: usize,
    /// Bytes of an answer's body, as they come over the wire: nothing is decompressed.
    pub max_response_bytes: usize,
    /// Redirects followed in one request.
    pub max_redirects: usize,
    /// Time for the connection and its TLS handshake, all addresses of the host together.
    pub connect_timeout: Duration,
    /// Requests at once in this process.
    pub max_in_flight: usize,
    /// Requests at once of one tenant.
    pub max_in_flight_per_tenant: usize,
}

impl Default for HttpLimits {
    /// Enough for APIs that answer with JSON; a host that lets plugins download files says so.
    fn default() -> Self {
        Self {
            max_url_bytes: 8 << 10,
            max_request_header_bytes: 16 << 10,
            max_request_bytes: 1 << 20,
            max_response_headers: 100,
            max_response_header_bytes: 32 << 10,
            max_response_bytes: 1 << 20,
            max_redirects: 5,
            connect_timeout: Duration::from_secs(5),
            max_in_flight: 128,
            max_in_flight_per_tenant: 16,
        }
    }
}

/// On whose behalf one request is sent, and within what.
#[derive(Clone, Copy)]
pub struct HttpCall<'a> {
    /// The tenant, whose requests at once are counted.
    pub tenant: &'a TenantId,
    /// The plugin's grants.
    pub allow: &'a dyn Allow,
    /// When the request ends, whatever it is doing. A request's own `timeout_ms` can only come earlier.
    pub deadline: Instant,
    /// Bytes that the answer's body may have, where that is fewer than [`HttpLimits::max_response_bytes`].
    pub max_response_bytes: usize,
}
