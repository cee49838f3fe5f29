//! The server as its callers meet it: HTTP over the loopback address, on an SQLite file.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    unreachable_pub,
    reason = "what tests share is part of them"
)]

mod api;
mod bounds;
mod conditions;
mod documents;
mod errors;
mod isolation;
mod keys;
mod mounted;
mod streams;
mod support;
mod system;
mod without_database;
