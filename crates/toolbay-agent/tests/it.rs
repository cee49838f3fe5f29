//! The agent's integration tests, one binary: the stepper by properties, the scripted model, the driver over the real
//! runtime, the provider adapter over a server on loopback.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test that cannot go on says so by panicking; the helpers beside the test functions are tests too"
)]

#[path = "it/budgets.rs"]
mod budgets;
#[cfg(feature = "providers")]
#[path = "it/cassettes.rs"]
mod cassettes;
#[path = "it/driver.rs"]
mod driver;
#[path = "it/hooks.rs"]
mod hooks;
#[path = "it/lowering.rs"]
mod lowering;
#[cfg(feature = "providers")]
#[path = "it/provider.rs"]
mod provider;
#[cfg(feature = "providers")]
#[path = "it/recordings.rs"]
mod recordings;
#[path = "it/results.rs"]
mod results;
#[path = "it/retries.rs"]
mod retries;
#[path = "it/scripted.rs"]
mod scripted;
#[path = "it/search.rs"]
mod search;
#[path = "it/stepper.rs"]
mod stepper;
#[path = "it/support.rs"]
mod support;
