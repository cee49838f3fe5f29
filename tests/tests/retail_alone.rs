//! Temporary: the retail tests alone.
#[path = "../it/retail.rs"]
mod retail;
