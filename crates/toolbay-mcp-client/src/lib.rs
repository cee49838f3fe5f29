//! The tools of MCP servers as Toolbay plugins.
//!
//! A plugin with `runtime = "mcp"` has no code of its own: `assets/server.json` says which server to start or to call,
//! and `assets/tools.lock.json` holds the definitions that an operator approved. The plugin's tools are those, word for
//! word; what the server says of itself later is compared with them and never shown to a model. A server that describes an
//! approved tool in another way is not called any more until somebody has looked at the difference.
//!
//! # Layout
//!
//! - [`server_file`]: which server. [`pins`]: what was approved, and what differs.
//! - [`link`]: one connection; `handler`: what the server may ask in it; `child`: servers that are started; [`http`]: ways to
//!   those that are called; [`sign_in`]: OAuth.
//! - [`runner`]: `McpRunner`, its plugins and tools; `pool`: their connections, one for each tenant, and when to try anew.

#![allow(deprecated, reason = "sampling and roots, which SEP-2577 deprecates, are what servers of 2025-11-25 ask for")]

mod child;
mod handler;
pub mod http;
pub mod link;
pub mod pins;
mod pool;
pub mod runner;
pub mod server_file;
pub mod sign_in;

pub use handler::Answerer;
pub use http::HttpPolicy;
pub use link::{Link, LinkError, LinkOptions, Offered, Revisions};
pub use pins::{Difference, Pin, Pins, PinsError};
pub use runner::McpRunner;
pub use server_file::{Auth, Place, ServerFile, Value as ServerValue};
pub use sign_in::{Browser, SignIn};
