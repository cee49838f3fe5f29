//! Tools and hooks written in Rhai, run in a sandbox.
//!
//! [`RhaiRunner`] turns a one-file plugin or a folder into a [`Plugin`](toolbay_api::Plugin). A script reaches nothing
//! but the functions that its manifest asks for and its host grants; every call has a fresh scope, a deadline and
//! limits that it cannot catch; an endless loop or a waiting call holds no thread.
//!
//! # Layout
//!
//! - `runner`, `plugin`, `hook`, `event`: the crate's face to [`toolbay_api`].
//! - `program`: code that is run from top to bottom, with tools as functions; `bindings`: the functions that a host made for it.
//! - `script`, `literal`, `declaration`, `check`: from source to something that may be called; `outline`: what a script says
//!   of itself before that.
//! - `engine`, `functions`: what scripts can use.
//! - `call`, `fiber`, `convert`, `fault`: one call: its budget, its stack, its values, its errors.

mod bindings;
mod call;
mod callback;
mod check;
mod convert;
mod declaration;
mod engine;
mod event;
mod fault;
mod fiber;
mod functions;
mod hook;
mod literal;
mod meter;
mod no_host;
mod outline;
mod plugin;
mod program;
mod runner;
mod script;

pub use meter::MeteredAllocator;
pub use outline::declared_in_manifest;
pub use runner::RhaiRunner;

/// The signatures of all functions that any script can be given, Rhai's own included, in alphabetical order.
///
/// For authors' tools, and for the test that stops at a function which nobody has looked at yet.
#[must_use]
pub fn signatures() -> Vec<String> {
    let mut signatures = engine::Library::new().signatures();
    signatures.sort();
    signatures.dedup();
    signatures
}
