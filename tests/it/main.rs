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

/// As in the command `toolbay`: in process, calls are held by their memory limit where the program runs on it.
#[global_allocator]
static ALLOCATOR: toolbay::rhai::MeteredAllocator = toolbay::rhai::MeteredAllocator;

mod abilities;
mod activation;
mod agent_hooks;
mod approval;
mod arguments;
mod bfcl;
mod call_keys;
mod callers;
mod cancelling;
mod cli;
mod code_mode;
mod composition;
mod contract;
mod control;
mod denials;
mod documents;
mod events;
mod health;
mod index;
mod keeping;
mod lasting;
mod lazy;
mod lifecycle;
mod loading;
mod manifests;
mod metering;
mod recordings;
mod regressions;
mod reload;
mod retail;
mod road;
mod scopes;
mod services;
mod settings;
mod shipped_tools;
mod shown;
mod streaming;
mod support;
mod tidy;
mod tiers;
