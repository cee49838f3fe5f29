//! The store's behaviours, each on both databases: `scripts/postgres run cargo test -p toolbay-store`. Without a PostgreSQL
//! in `TOOLBAY_TEST_POSTGRES` its half is left out, and says so.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test that cannot go on fails, and says where"
)]

#[macro_use]
mod support;
mod suspended;

mod audit;
mod away;
mod bounds;
mod changes;
mod crash;
mod following;
mod kv;
mod opening;
mod outbox;
mod outcomes;
mod spending;
mod tenants;
