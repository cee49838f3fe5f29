//! The port for a public hook contract: who composes what the hooks of a run say, in place of the runtime's own order.
//!
//! Without a contract none of this is touched. With one, each moment of a run becomes one [`Moment`] in the contract's
//! words and a [`Voter`] for each hook that stands there; the contract asks the voters as its profile wants it and says
//! what is settled. Hooks are the same in both cases: `voter` translates between their types and the contract's.

mod moments;
mod voter;

use std::sync::Arc;

use serde_json::Value;
use toolbay_api::{Caller, async_trait};

pub(crate) use moments::Passed;
pub use voter::{Vote, Voter};

/// A public hook contract, with its settings. A session has one or none.
pub trait Contract: Send + Sync {
    /// A run begins.
    fn begin(&self, caller: &Caller) -> Arc<dyn Composition>;
}

/// A contract over one run.
#[async_trait]
pub trait Composition: Send + Sync {
    /// Asks the voters, in the order of their registration, and says what is settled.
    ///
    /// # Cancel safety
    /// The future is dropped with the run. What was asked until then stays asked.
    async fn compose(&self, moment: Moment, voters: Vec<Voter>) -> Settled;
}

/// A moment of a run, in the words that public contracts share.
#[derive(Debug, Clone, PartialEq)]
pub enum Moment {
    /// Before anything else.
    AgentStartup {
        /// The tools that the run will have.
        tools: Vec<String>,
    },
    /// What the user said.
    Input {
        /// The text.
        content: Value,
        /// Who said it.
        role: &'static str,
    },
    /// Before a request to the model.
    PreModelCall {
        /// The model.
        model: String,
        /// The conversation.
        messages: Vec<Value>,
    },
    /// After the model's reply.
    PostModelCall {
        /// The model.
        model: String,
        /// `{content, tool_calls, finish_reason}`.
        response: Value,
    },
    /// Before a tool call.
    PreToolCall {
        /// The call's id.
        call: String,
        /// The tool's qualified name.
        tool: String,
        /// The arguments.
        arguments: Value,
    },
    /// After a tool call.
    PostToolCall {
        /// The call's id.
        call: String,
        /// The tool's qualified name.
        tool: String,
        /// The arguments as the tool got them.
        arguments: Value,
        /// The data, or the error's sentence.
        value: Value,
        /// Whether the call failed.
        is_error: bool,
    },
    /// Before the answer is given out.
    Output {
        /// The text.
        content: Value,
    },
    /// After everything else.
    AgentShutdown {
        /// `completed` or `error`.
        reason: &'static str,
    },
}

/// What a contract settled for a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Settled {
    /// What was asked about, as the contract leaves it: the arguments, the text, and so on.
    pub target: Value,
    /// Set where it must not go on.
    pub denied: Option<Denial>,
}

/// Why something must not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// The reason, in the contract's words.
    pub reason: String,
    /// A sentence beside it.
    pub message: Option<String>,
    /// The place in the order of the hook that decided; `None` where no single one did.
    pub by: Option<usize>,
    /// Whether the host denied, since a hook failed or hooks did not agree, rather than a hook.
    pub is_failure: bool,
}
