//! The public hook contract AGENT-HOOKS-0.1 over Toolbay's hooks.
//!
//! A session that is put under [`AgentHooks`] asks the same hooks as before. What they say is composed by the contract's own
//! implementation, the crate `agent-hooks-sdk`: four profiles, approvals bound to the identity of what was shown, a mode
//! that only evaluates, and one record for each moment.
//!
//! ```
//! use std::sync::Arc;
//! use toolbay_api::{
//!     HookContext, HookPoint, HookRegistration, ToolContext, async_trait, tool,
//!     hook::{BeforeToolCall, BeforeToolCallOutcome, Hook, HookResult},
//! };
//! use toolbay_contract::{AgentHooks, Records};
//! use toolbay_runtime::Toolbay;
//!
//! struct Closed;
//!
//! #[async_trait]
//! impl Hook for Closed {
//!     async fn before_tool_call(&self, _: &BeforeToolCall, _: &HookContext<'_>) -> HookResult<BeforeToolCallOutcome> {
//!         Ok(BeforeToolCallOutcome::deny("office:closed"))
//!     }
//! }
//!
//! # #[derive(serde::Deserialize, schemars::JsonSchema)] struct Nothing {}
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bay = Toolbay::builder()
//!     .tool(tool("pay", "Pays", async |_: Nothing, _: ToolContext| Ok("paid")))
//!     .hook(HookRegistration::new("hours", HookPoint::ALL, Closed))
//!     .build()?;
//! let records = Records::new(100);
//! let contract = AgentHooks { records: Some(records.sink()), ..AgentHooks::default() };
//! let session = bay.session("acme")?.with_contract(Arc::new(contract));
//! assert!(session.call("pay", serde_json::json!({})).await.is_error());
//! assert_eq!(records.take()[0].verdict.reason.as_deref(), Some("office:closed"));
//! # Ok(()) }
//! ```
//!
//! # Layout
//!
//! - [`settings`]: what a run under the contract is told.
//! - `emission`: one moment, asked and settled.
//! - `change`: a hook gives a whole value, the contract wants the place that changed.
//! - [`declaration`]: settings and hooks from a host declaration document.

mod change;
mod emission;

pub mod declaration;
pub mod settings;

/// The contract's own types.
pub use agent_hooks as sdk;
pub use declaration::{Binding, Declared, Host};
pub use settings::{AgentHooks, Identity, Records};
