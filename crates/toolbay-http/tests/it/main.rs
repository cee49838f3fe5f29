//! Outgoing HTTP seen from both ends: a plugin's request on one side, a server on the loopback address, as hostile as
//! it likes, on the other.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what tests share is part of them"
)]

mod addresses;
mod bounds;
mod environment;
mod grants;
mod log;
mod rebinding;
mod redirects;
mod requests;
mod support;
mod tls;
