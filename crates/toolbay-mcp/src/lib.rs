//! Toolbay over the Model Context Protocol: a server for every tenant's tools.
//!
//! One [`McpServer`] shows one [`Session`](toolbay_runtime::Session), that is: one tenant's tools as one user may see
//! them. It is a handler of our own rather than `rmcp`'s tool router, since that router is one map for everybody.
//! Both revisions that clients speak today are served: 2025-11-25 and older after `initialize`, and 2026-07-28, where
//! every request stands alone and `server/discover` takes the handshake's place.
//!
//! # Layout
//!
//! - [`server`]: the handler; `tools`, `prompts`, `resources`: how each looks on this wire; [`options`]: its bounds.
//! - `exchange`: the client as a running tool sees it; `state`: what the client carries between rounds; `approvals`: what its
//!   user decides; `changes`: telling clients that lists have changed.
//! - `tasks`: calls that go on after they were answered; `kept`: results that were too long; `owner`: whose they are.
//! - [`stdio`]: one client over standard input and output.
//! - [`http`]: many clients of many tenants over streamable HTTP; [`auth`]: who they are.
//! - [`error`]: why serving ended or never began.

#![allow(
    deprecated,
    reason = "sampling, roots and logging, which SEP-2577 deprecates, are what clients of 2025-11-25 speak"
)]

mod approvals;
pub mod auth;
mod changes;
pub mod error;
mod exchange;
pub mod http;
mod kept;
pub mod options;
mod owner;
mod prompts;
mod resources;
pub mod server;
mod state;
pub mod stdio;
mod tasks;
mod tools;

pub use auth::{
    Authenticate, Bearer, Principal, ProtectedResource, Refused,
    either::Either,
    jwt::{FetchedKeys, JwtIssuer, JwtOptions, KeySource},
    keys::{KeyError, StaticKeys},
};
pub use error::McpError;
pub use http::{HttpOptions, McpEnd, McpRouter, StateKey, check_loopback, http_router, keyed_http_router, serve_http};
pub use options::{ResultOptions, ServerOptions, TaskOptions};
pub use server::McpServer;
pub use stdio::{serve_stdio, serve_stdio_with};
