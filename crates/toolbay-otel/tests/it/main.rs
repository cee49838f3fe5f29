//! Traces as a collector gets them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on says so by panicking; the helpers beside the test functions are tests too"
)]

mod collector;
mod traces;
