//! Toolbay's runtime: the registry, sessions and runs, and the one road that every tool call takes.
//!
//! # Layout
//!
//! - [`toolbay`](mod@toolbay): `Toolbay` and its builder, the host's handle on everything; [`load`]: plugins from disk.
//! - [`session`]: a tenant's view of the tools; [`run`](mod@run): one generation of it, from start to end.
//! - `road`: the road of a tool call, one function. Beside it, one file a step: `view` (look-up), `gates` (hooks),
//!   [`schema`], [`meter`], [`quarantine`], `call_host` (what a plugin can reach), `shape`.
//! - `catalog` and `registry`: what is registered, immutable and swapped whole.
//! - Ports: [`kv`], [`audit`], [`observe`].

mod call_host;
mod catalog;
mod expense;
mod gates;
mod guarded;
mod registry;
mod road;
mod shape;
mod view;

pub mod audit;
pub mod kv;
pub mod load;
pub mod meter;
pub mod observe;
pub mod quarantine;
pub mod reply;
pub mod run;
pub mod schema;
pub mod session;
pub mod toolbay;

pub use audit::{AuditRecord, AuditSink, TracingAudit};
pub use catalog::{PluginInfo, RegisterOptions, ToolInfo};
pub use gates::{Gate, Stop};
pub use kv::{FileKv, KvQuota, KvSpace, KvStore, MemoryKv};
pub use load::{Failed, LoadReport, Loaded, Skipped};
pub use meter::Quota;
pub use observe::{Observer, RunEvent};
pub use quarantine::{Quarantine, Quarantined};
pub use reply::{CallMetadata, Reply};
pub use run::Run;
pub use session::Session;
pub use toolbay::{Toolbay, ToolbayBuilder};
