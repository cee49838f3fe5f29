//! Hostile programs: the corpus below `tests/hostile`, a child process for each run, and what a run must keep to.
//!
//! # Layout
//!
//! - `corpus`: the files and their headers.
//! - `attack`: one program in a process of its own, watched.
//! - `verdict`: what was promised against what happened.
//! - `alone`: the whole corpus in one process, one program after another, through the library.
//! - `generator`: programs made up from Rhai's vocabulary.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "what is allowed in tests is allowed in what only tests call"
)]

pub mod alone;
mod attack;
mod corpus;
pub mod generator;
mod verdict;

pub use attack::{Outcome, Range, resident};
pub use corpus::{Program, corpus};
pub use verdict::{Fault, Promise};
