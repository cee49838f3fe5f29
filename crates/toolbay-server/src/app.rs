//! What all requests share.

use std::sync::{Arc, OnceLock, atomic::AtomicBool};

use bytes::Bytes;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use toolbay_runtime::Control;

use toolbay_listen::Guesses;

use crate::{live::LiveRuns, metrics::Metrics, options::ServerOptions, table::Endpoint, usage::Usage};

/// What all requests share.
pub(crate) struct App {
    pub(crate) control: Control,
    pub(crate) options: ServerOptions,
    pub(crate) guesses: Guesses,
    pub(crate) usage: Arc<Usage>,
    pub(crate) requests: Arc<Semaphore>,
    pub(crate) live: LiveRuns,
    pub(crate) metrics: Metrics,
    /// Every endpoint, from which both the routes and the OpenAPI document are made.
    pub(crate) table: Vec<Arc<Endpoint>>,
    /// The document without plugins' routes: it does not change, and everybody may ask for it.
    pub(crate) document: OnceLock<Bytes>,
    /// Set when the server begins to shut down.
    pub(crate) is_closing: AtomicBool,
    /// Ends the streams.
    pub(crate) stop: CancellationToken,
}
