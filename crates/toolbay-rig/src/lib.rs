//! A bridge to the rig framework (`rig-agent` 0.44): a tenant's tools as rig's dynamic tools, each call of which takes
//! Toolbay's road, and Toolbay's hooks as a hook of rig's agents.
//!
//! ```
//! # use rig_core::test_utils::{MockCompletionModel, MockTurn};
//! # use schemars::JsonSchema; use serde::Deserialize;
//! # #[derive(Deserialize, JsonSchema)] struct Add { a: i64, b: i64 }
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use rig_agent::AgentBuilder;
//! use toolbay_api::{ToolContext, tool};
//! use toolbay_rig::Bridge;
//! use toolbay_runtime::Toolbay;
//!
//! let add = tool("add", "Adds two numbers", async |args: Add, _: ToolContext| Ok(args.a + args.b));
//! let session = Toolbay::builder().tool(add).build()?.session("acme")?;
//! # let calls = MockTurn::tool_call("c1", "add", serde_json::json!({"a": 1, "b": 2}));
//! # let model = MockCompletionModel::from_turns([calls, MockTurn::text("It is 3.")]).erase();
//!
//! // One bridge for one run: it sees the tenant's tools as they are now, and its hooks' decisions are of this run.
//! let bridge = Bridge::new(session.run());
//! let agent = AgentBuilder::new(model).add_hook(bridge.hooks()).dynamic_tools(bridge.tools()).build();
//! let response = agent.prompt("What is 1 + 2?").max_turns(3).await?;
//! assert_eq!(response.output(), "It is 3.");
//! # Ok(()) }
//! ```
//!
//! What rig's agents have no place for is refused, never passed over:
//!
//! - a run that streams, since text would be shown before hooks have judged the whole of it;
//! - a hook that rewrites the conversation other than the prompt's text, or adds calls to a reply.
//!
//! Bounds, budgets, retries, approval and tool search are of Toolbay's own agent; here rig's hold. `on_error` hooks observe
//! errors of the model; what they would tell the model is not told.
//!
//! # Layout
//!
//! `tools`: the way of a call. `hooks`: moments of rig's run as ours. `convert`: messages in both directions.

mod convert;
mod hooks;
mod tools;

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use rig_core::tool::DynamicTool;
use toolbay_runtime::{Run, Stop};

pub use hooks::ToolbayHooks;

/// One run of Toolbay for one run of a rig agent. Cheap to clone; clones are of the same run.
#[derive(Clone)]
pub struct Bridge(Arc<Inner>);

struct Inner {
    run: Run,
    /// A tool hook's stop, until rig's run is told of it.
    stop: Mutex<Option<Stop>>,
    calls: AtomicU32,
}

impl Bridge {
    /// A bridge for `run`.
    #[must_use]
    pub fn new(run: Run) -> Self {
        Self(Arc::new(Inner { run, stop: Mutex::default(), calls: AtomicU32::new(0) }))
    }

    /// The tenant's tools under the names that providers accept, for `AgentBuilder::dynamic_tools`.
    #[must_use]
    pub fn tools(&self) -> Vec<DynamicTool> {
        self.run().tools().iter().filter_map(|tool| tools::dynamic_tool(self, tool)).collect()
    }

    /// The tenant's hooks around rig's run and its requests, for `AgentBuilder::add_hook`. Hooks around tool calls are on
    /// the road of each call already; without this one a tool hook's wish to end the run is an error to the model.
    #[must_use]
    pub fn hooks(&self) -> ToolbayHooks {
        ToolbayHooks(self.clone())
    }

    fn run(&self) -> &Run {
        &self.0.run
    }

    /// A number for the next call.
    fn count_call(&self) -> u32 {
        self.0.calls.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn calls(&self) -> u32 {
        self.0.calls.load(Ordering::Relaxed)
    }

    fn note_stop(&self, stop: Stop) {
        self.0.stop.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(stop);
    }

    fn take_stop(&self) -> Option<Stop> {
        self.0.stop.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl std::fmt::Debug for Bridge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bridge").field("run", &self.run().id()).finish_non_exhaustive()
    }
}
