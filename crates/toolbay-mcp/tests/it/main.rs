//! The MCP server as clients see it: over an in-memory pipe and over HTTP on the loopback address.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what tests share is part of them"
)]

mod approving;
mod asking;
mod conversation;
mod http;
mod keys;
mod long_results;
mod support;
mod tasks;
