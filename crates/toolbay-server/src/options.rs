//! What whoever runs the server decides about it: bounds and times, each with a default that is safe to keep.

use std::time::Duration;

/// Bounds and times of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerOptions {
    /// Bytes of one JSON body; a larger one is refused with status 413.
    pub max_body_bytes: usize,
    /// Bytes of one uploaded package.
    pub max_package_bytes: usize,
    /// How long one request may take from its head to its answer; then it is answered with status 504. A stream is
    /// answered when it begins.
    pub request_timeout: Duration,
    /// How long a body may be on its way; then the request is answered with status 408.
    pub body_timeout: Duration,
    /// How long the head of a request may be on its way, and how long a connection may be idle; then it is closed.
    pub header_timeout: Duration,
    /// How long a client may take nothing of its answer; then the connection is closed.
    pub write_timeout: Duration,
    /// Connections at once; further ones wait to be taken.
    pub max_connections: usize,
    /// Requests at once, streams not counted; a further one is answered with status 503.
    pub max_requests: usize,
    /// Requests of one key at once; a further one is answered with status 429.
    pub max_requests_per_key: u32,
    /// Requests a minute of a key that has no rate of its own.
    pub requests_per_minute: u32,
    /// Requests a minute from one address that show no valid key; further ones of that kind are answered with status 429.
    /// A valid key passes in any case.
    pub failures_per_minute: u32,
    /// Streams at once.
    pub max_streams: usize,
    /// Streams of one key at once.
    pub max_streams_per_key: u32,
    /// Events that wait for one reader of a stream; one that lags further behind is told so and sent away.
    pub stream_buffer: usize,
    /// How often a stream says that it is alive, and looks whether its key still is.
    pub heartbeat: Duration,
    /// How long requests that run when the server shuts down may go on.
    pub drain: Duration,
    /// Whether `/metrics` is for everybody who can reach the server rather than for operators' keys.
    pub open_metrics: bool,
}

impl Default for ServerOptions {
    fn default() -> Self {
        Self {
            max_body_bytes: 1 << 20,
            max_package_bytes: 4 << 20,
            request_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(20),
            header_timeout: Duration::from_secs(15),
            write_timeout: Duration::from_secs(30),
            max_connections: 2_048,
            max_requests: 512,
            max_requests_per_key: 128,
            requests_per_minute: 6_000,
            failures_per_minute: 60,
            max_streams: 512,
            max_streams_per_key: 8,
            stream_buffer: 256,
            heartbeat: Duration::from_secs(15),
            drain: Duration::from_secs(10),
            open_metrics: false,
        }
    }
}
