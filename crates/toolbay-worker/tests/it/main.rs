//! The worker tier, tested at its boundary: the runtime in front, real worker processes behind.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "helpers of tests, which the lints do not know as such"
)]

#[global_allocator]
static ALLOCATOR: toolbay_worker::CappedAlloc = toolbay_worker::CappedAlloc;

mod callbacks;
mod calls;
mod conformance;
mod events;
mod faults;
mod outside;
mod parity;
mod pool;
mod recycling;
mod support;
