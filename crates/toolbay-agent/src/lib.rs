//! Toolbay's agent loop.
//!
//! A [`Model`] answers requests, a [`Stepper`] decides what comes next, an [`Agent`] drives the stepper over a tenant's
//! session: every tool call takes the runtime's road, and hooks stand before and after the run and each request.
//!
//! # Layout
//!
//! - [`model`]: the `Model` trait and its error; [`parts`]: replies piece by piece; [`scripted`]: a model that says what it was told to say.
//! - [`bounds`]: what a run may use, and how it can end; [`budget`]: what it costs, and what a tenant may spend in a day.
//! - [`lowering`]: schemas of parameters as providers take them.
//! - [`results`]: results that are too long for a model.
//! - [`code`]: programs of the model's that call tools as functions.
//! - [`search`]: tools that find tools, where there are many.
//! - [`stepper`]: the loop as a value without I/O.
//! - [`agent`]: the driver, a run as a stream, and runs that wait for somebody; [`record`]: what runs did, as JSON Lines;
//!   [`replay`]: going through that again; `trace`: its spans.
//! - `provider` (feature `providers`): real models over HTTP.

pub mod agent;
pub mod bounds;
pub mod budget;
pub mod code;
pub mod lowering;
pub mod model;
pub mod parts;
#[cfg(feature = "providers")]
pub mod provider;
pub mod record;
pub mod replay;
pub mod results;
pub mod scripted;
pub mod search;
pub mod stepper;
mod trace;

pub use agent::{
    Agent, AgentConfig, AgentError, AgentReply, Decisions, ResumeError, RunStream, StreamOptions, SuspendedRun,
    ToolRetries,
};
pub use bounds::{Bounds, RunOutcome};
pub use budget::{DayBudget, DayLimits, Exhausted, Ledger, MemoryLedger, Price, Prices, Spending};
pub use code::{CodeMode, CodeSettings};
pub use model::{Model, ModelError, ModelErrorKind, ServedBy};
pub use parts::Parts;
pub use record::{RecordBounds, RecordedLine, Recorder};
pub use results::{ResultBounds, Results};
pub use scripted::{ScriptError, ScriptedModel};
pub use search::ToolSearch;
pub use stepper::{Next, RunEnd, Stepper, StepperConfig, StepperError, Tape, Told, ToolReply};
