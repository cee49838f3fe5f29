//! Toolbay gives every tenant's AI agent its own tools, safely.
//!
//! This is the one crate that an embedder names: it re-exports the others. [`builder`] makes a [`Toolbay`];
//! [`Toolbay::session`] opens a tenant's session; [`Agent`] runs a model over it.
#![doc = include_str!("../README.md")]

pub use toolbay_agent::*;
pub use toolbay_api::*;
pub use toolbay_runtime::*;

#[cfg(feature = "mcp")]
pub use toolbay_mcp as mcp;
#[cfg(feature = "rhai")]
pub use toolbay_rhai as rhai;
#[cfg(feature = "rhai")]
pub use toolbay_rhai::RhaiRunner;

/// Begins to put a [`Toolbay`] together that loads the kinds of plugins that this crate's features give: Rhai scripts
/// with the feature `rhai`, which is on by default.
#[must_use]
pub fn builder() -> ToolbayBuilder {
    let builder = Toolbay::builder();
    #[cfg(feature = "rhai")]
    let builder = builder.runner(RhaiRunner::default());
    builder
}
