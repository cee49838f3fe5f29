//! Toolbay over HTTP: the admin API over [`Control`], tool calls for agents in any
//! language, streams of what happens, and the routes of native plugins.
//!
//! ```no_run
//! # async fn run(control: toolbay_runtime::Control) -> std::io::Result<()> {
//! use toolbay_server::{Server, ServerOptions};
//!
//! let server = Server::new(control, ServerOptions::default()).bind("127.0.0.1:3000".parse().expect("an address")).await?;
//! println!("listening on http://{}", server.local_addr()?);
//! server.serve(async { _ = tokio::signal::ctrl_c().await }).await
//! # }
//! ```
//!
//! # Layout
//!
//! - `server`: listening, connections and their times, the end. `options`: what whoever runs it decides.
//! - `envelope`: around every request: its id, its count, the one shape of errors, which is `problem`.
//! - `road`: the way of a request to the API, one function. Beside it, one file a step: `auth` (who asks, and
//!   failures), `usage` (rates), `call` (what they sent).
//! - `table`: the endpoints as data; `routes`: their code; `views`: what they take and give; `openapi`: the document.
//! - `live`: runs as they happen. `metrics`: what is counted.
//!
//! [`Control`]: toolbay_runtime::Control

mod app;
mod auth;
mod call;
mod envelope;
mod live;
mod metrics;
mod openapi;
mod options;
mod problem;
mod road;
mod routes;
mod server;
mod table;
mod usage;
mod views;

pub use live::LiveRuns;
pub use options::ServerOptions;
pub use server::{BoundServer, Server, router};
