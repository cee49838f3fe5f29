//! What the integration binary, `it`, and the programs that attack the sandbox share; and the Rust samples of the
//! documents, run as doctests.

pub mod hostile;

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../../docs/sandbox.md")]
pub struct Sandbox;

#[cfg(doctest)]
#[doc = include_str!("../../docs/agent.md")]
pub struct AgentDocument;

#[cfg(doctest)]
#[doc = include_str!("../../docs/hooks.md")]
pub struct Hooks;

#[cfg(doctest)]
#[doc = include_str!("../../docs/plugins.md")]
pub struct Plugins;

#[cfg(doctest)]
#[doc = include_str!("../../docs/migration.md")]
pub struct Migration;
