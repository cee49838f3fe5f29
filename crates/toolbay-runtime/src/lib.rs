//! Toolbay's runtime: the registry, sessions and runs, and the one road that every tool call takes.
//!
//! # Layout
//!
//! - [`toolbay`](mod@toolbay): `Toolbay` and its builder, the host's handle on everything; [`load`]: plugins from disk;
//!   [`manifest_file`]: the text of a manifest, in three formats; `archive`: plugins that come as bytes.
//! - [`session`]: a tenant's view of the tools; [`run`](mod@run): one generation of it, from start to end.
//! - `road`: the road of a tool call, one function. Beside it, one file a step: `view` (look-up), `gates` (hooks),
//!   [`schema`], [`approval`], [`meter`], [`quarantine`], `callers` (whom a tool allows), `call_host` (what a plugin
//!   can reach), `shape`.
//! - [`contract`]: the port through which a public hook contract composes what hooks say.
//! - [`lifecycle`]: a plugin's states; `callbacks`: its callbacks; `waves`: folders in the order of what requires what;
//!   `lives`: failures and plugins on their way out; `generation`: when nobody sees those any more; [`shutdown`]: the end.
//! - `abilities`: what the host declares and plugins provide.
//! - [`events`]: who is told what happens; `services`: what native plugins lend each other.
//! - [`routes`]: HTTP routes of native plugins, for whoever serves them; [`excerpt`]: results that are too long.
//! - `catalog` and `registry`: what is registered, immutable and swapped whole.
//! - [`control`]: what operators and tenants change, written to the [`store`] first and taken over from there.
//! - [`trace`]: spans for telemetry.
//! - Ports: [`store`], [`kv`], [`outcomes`] (what became of calls), [`spending`] (what tenants spent), [`clock`], [`secrets`],
//!   [`audit`], [`observe`]; `redact` keeps what a call read of secrets in it.

mod abilities;
mod archive;
mod call_host;
mod callbacks;
mod callers;
mod catalog;
mod chance;
mod checks;
mod denials;
mod digest;
mod expense;
mod found;
mod gates;
mod generation;
mod guarded;
mod lives;
mod redact;
mod refusals;
mod registry;
mod road;
mod services;
mod settings;
mod shape;
mod shelf;
mod view;
mod waves;

pub mod activation;
pub mod approval;
pub mod audit;
pub mod clock;
pub mod contract;
pub mod control;
pub mod events;
pub mod evolution;
pub mod excerpt;
pub mod formats;
pub mod health;
pub mod index;
pub mod kv;
pub mod lazy;
pub mod lifecycle;
pub mod load;
pub mod manifest_file;
pub mod meter;
pub mod observe;
pub mod outcomes;
pub mod quarantine;
pub mod recorded;
pub mod reload;
pub mod reply;
pub mod routes;
pub mod run;
pub mod schema;
pub mod secrets;
pub mod session;
pub mod shown;
pub mod shutdown;
pub mod spending;
pub mod store;
pub mod toolbay;
pub mod trace;

pub use activation::{Activation, TenantPlugin};
pub use approval::{Approval, ApprovalPolicy, AskedBy, CalledPlugin, Decision, Desk, PendingApproval};
pub use audit::{ApprovalRecord, ApprovalStage, AuditRecord, AuditSink, DenialRecord, EventRecord, TracingAudit};
pub use catalog::{PluginInfo, RegisterOptions, ToolInfo};
pub use checks::HealthWatch;
pub use clock::{Clock, SystemClock};
pub use contract::{Composition, Contract};
pub use control::{
    Actor, Control, ControlOptions, ControlStatus, Install, KeyWanted, NewKey, OnceKey, Principal, StoreAudit,
    StoreRelay, StoredSecrets, Upload, Uploaded,
};
pub use events::{Delivery, DeliveryOutcome, EventBounds, EventCounters, EventRelay, EventStream, Heard};
pub use evolution::{ChangeKind, ToolChange, Upgrade};
pub use gates::{Gate, Stop};
pub use health::{Breaker, Latency, OpenCircuit, PluginHealth};
pub use index::{Index, IndexEntry};
pub use kv::{FileKv, KvQuota, KvSpace, KvStore, KvValue, MemoryKv};
pub use lazy::{CodeLoading, Loading};
pub use lifecycle::{IllegalTransition, PluginState, PluginStatus, Stage};
pub use load::{Failed, LoadReport, Loaded, Skipped};
pub use manifest_file::{MANIFEST_NAMES, parse_manifest};
pub use meter::Quota;
pub use observe::{Observer, Observers, RunEvent};
pub use outcomes::{MemoryOutcomes, OutcomeLedger, Outcomes};
pub use quarantine::{Quarantine, Quarantined};
pub use recorded::StandIn;
pub use reload::{ReloadOptions, Reloaded, SyncReport};
pub use reply::{CallMetadata, Reply};
pub use routes::{RouteCall, RouteFound, RouteInfo};
pub use run::Run;
pub use secrets::{EnvSecrets, FileSecrets, SecretChain};
pub use session::{Glimpse, Session};
pub use shown::{PromptInfo, ResourceInfo};
pub use shutdown::{ShutdownReport, Unstopped};
pub use spending::{DayBudget, Exhausted, Ledger, MemoryLedger, Spending};
pub use store::Store;
pub use toolbay::{Toolbay, ToolbayBuilder};
pub use trace::TraceLink;
