//! Toolbay's test kit: what a test of a host, a plugin or a hook needs around it.
//!
//! - [`Transcript`] writes down what happens in runs, one short line an event, without ids and times.
//! - [`scripted_tools`] are native tools that succeed, fail, hang and panic when told.
//! - [`ScriptedHook`] stands at every point, and answers as told at one.
//! - [`RecordingAudit`] keeps what an audit would.
//! - [`VirtualClock`] stands still until it is set.
//! - [`TestHost`] is a host for unit tests of native tools and hooks; [`FakeHttp`] is the network for it or for a
//!   [`Toolbay`](toolbay_runtime::Toolbay).
//! - [`check_cases`] runs a plugin's file of cases.
//! - [`FakeSecrets`] keeps the secrets of a test.
//! - [`runner_conformance!`] writes a suite of tests for a runner.
//! - [`check_kv`] tells whether a key-value store does what every one does.
//! - [`check_lifecycle!`] takes a native plugin through its life and says what was wrong with it.

mod audit;
mod cases;
mod clock;
mod conformance;
#[cfg(feature = "http")]
mod fake_http;
mod hooks;
mod kv;
mod lifecycle;
mod secrets;
mod test_host;
mod tools;
mod transcript;

pub use audit::{Audited, AuditedDenial, AuditedEvent, RecordingAudit};
pub use cases::{CaseReport, check_cases};
pub use clock::VirtualClock;
pub use conformance::Case;
#[doc(hidden)]
pub use conformance::{Trial, check_runner};
#[cfg(feature = "http")]
pub use fake_http::{FakeAnswer, FakeHttp, FakeRequest};
pub use hooks::{Answer, ScriptedHook};
pub use kv::check_kv;
pub use lifecycle::{check_life_of, granting_host};
pub use secrets::FakeSecrets;
pub use test_host::{HostCall, TestHost};
pub use tools::scripted_tools;
pub use transcript::Transcript;
