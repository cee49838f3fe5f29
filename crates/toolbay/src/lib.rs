//! Toolbay gives every tenant's AI agent its own tools, safely.
//!
//! This is the one crate that an embedder names: it re-exports the others. [`builder`] makes a [`Toolbay`];
//! [`Toolbay::session`] opens a tenant's session; [`Agent`] runs a model over it.
//!
//! ```
//! # use toolbay::{Agent, ScriptedModel, ToolContext};
//! # use schemars::JsonSchema;
//! # use serde::Deserialize;
//! #[derive(Deserialize, JsonSchema)]
//! struct Weather {
//!     /// The city, in English.
//!     city: String,
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let model = ScriptedModel::new().calls("weather", serde_json::json!({ "city": "Rome" })).says("Sunny.");
//! let weather = toolbay::tool("weather", "Tells the weather", async |args: Weather, _cx: ToolContext| {
//!     Ok(format!("{}: sunny, 21 °C", args.city))
//! });
//! let bay = toolbay::builder().tool(weather).build()?;
//! let agent = Agent::new(model, bay.session("acme")?);
//! let reply = agent.run("What is the weather in Rome?").await?;
//! println!("{}", reply.text);
//! # assert_eq!(reply.text, "Sunny.");
//! # Ok(())
//! # }
//! ```

pub use toolbay_agent::*;
pub use toolbay_api::*;
pub use toolbay_runtime::*;

#[cfg(feature = "agent-hooks")]
pub use toolbay_contract as agent_hooks;
#[cfg(feature = "http")]
pub use toolbay_http as http;
#[cfg(feature = "keyring")]
pub use toolbay_keyring as keyring;
#[cfg(feature = "mcp")]
pub use toolbay_mcp as mcp;
#[cfg(feature = "mcp-client")]
pub use toolbay_mcp_client as mcp_client;
#[cfg(feature = "otel")]
pub use toolbay_otel as otel;
#[cfg(feature = "rig")]
pub use toolbay_rig as rig;
#[cfg(feature = "server")]
pub use toolbay_server as server;
#[cfg(feature = "sql")]
pub use toolbay_store as sql;
#[cfg(feature = "sql")]
pub use toolbay_store::{SqlStore, StoreOptions};
#[cfg(feature = "watch")]
pub use toolbay_watch as watch;
#[cfg(feature = "worker")]
pub mod tiers;

#[cfg(feature = "rhai")]
pub use toolbay_rhai as rhai;
#[cfg(feature = "rhai")]
pub use toolbay_rhai::RhaiRunner;

#[cfg(feature = "worker")]
pub use tiers::{TierPolicy, TieredRunner};
#[cfg(feature = "worker")]
pub use toolbay_worker as worker;

/// Begins to put a [`Toolbay`] together that loads the kinds of plugins that this crate's features give: Rhai scripts
/// with the feature `rhai`, which is on by default.
#[must_use]
pub fn builder() -> ToolbayBuilder {
    let builder = Toolbay::builder();
    #[cfg(feature = "rhai")]
    let builder = builder.runner(RhaiRunner::default());
    builder
}
