//! MCP servers as plugins, at the boundary: a Toolbay with the runner, and servers that keep to the protocol or do not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what tests share is part of them"
)]

mod approval;
mod hostile;
mod keys;
mod oauth;
mod programs;
mod support;
