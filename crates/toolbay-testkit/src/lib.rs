//! Toolbay's test kit: what a test of a host, a plugin or a hook needs around it.
//!
//! - [`Transcript`] writes down what happens in runs, one short line an event, without ids and times.
//! - [`scripted_tools`] are native tools that succeed, fail, hang and panic when told.
//! - [`ScriptedHook`] stands at every point, and answers as told at one.
//! - [`RecordingAudit`] keeps what an audit would.
//! - [`check_lifecycle!`] takes a native plugin through its life and says what was wrong with it.

mod audit;
mod hooks;
mod lifecycle;
mod tools;
mod transcript;

pub use audit::{Audited, AuditedEvent, RecordingAudit};
pub use hooks::{Answer, ScriptedHook};
pub use lifecycle::{check_life_of, granting_host};
pub use tools::scripted_tools;
pub use transcript::Transcript;
