//! The sandbox and the runner, tested at the `Runner`, `Tool` and `Hook` traits.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "clippy knows tests by their attribute only, not their helpers"
)]

mod basics;
mod calls;
mod conformance;
mod deadline;
mod fake;
mod hooks;
mod hostile;
mod lanes;
mod leaks;
mod loading;
mod surface;

// So that the memory limit is tested too.
#[global_allocator]
static ALLOCATOR: toolbay_rhai::MeteredAllocator = toolbay_rhai::MeteredAllocator;
