//! The peers, one module an engine.

pub mod bare_rhai;
pub mod luau;
pub mod quickjs;
pub mod through_toolbay;
pub mod wasm;
