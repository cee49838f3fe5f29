//! Integration tests: one binary, a module for each thing that a user can hold.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::clone_on_ref_ptr,
    reason = "a test that cannot go on fails, and says where"
)]

mod arguments;
mod bfcl;
mod cli;
mod documents;
mod keeping;
mod lifecycle;
mod loading;
mod manifests;
mod metering;
mod regressions;
mod retail;
mod road;
mod scopes;
mod settings;
mod shipped_tools;
mod support;
mod tidy;
