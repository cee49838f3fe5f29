//! What a stepper is told and what it decides, in the order in which that happens: all that is needed to go through a run again
//! without model and tools.

use std::{collections::BTreeMap, fmt, sync::Arc};

use toolbay_api::{Message, ModelRequest, ModelResponse, ToolCall, ToolDefinition, message::Tokens};

use super::{RunEnd, StepperConfig, ToolReply};
use crate::{bounds::RunOutcome, budget::Exhausted};

/// One thing that a stepper was told, or that it decided.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// It was made, of these.
    Began {
        /// What stays the same.
        config: StepperConfig,
        /// The conversation before the run.
        messages: Vec<Message>,
        /// The model's tools.
        tools: Vec<ToolDefinition>,
        /// Qualified names of tools by the names that the model uses.
        names: BTreeMap<String, String>,
    },
    /// The model got one tool more.
    Offered(ToolDefinition),
    /// The model's reply came, as it was given.
    ModelReplied(ModelResponse),
    /// The model failed; with a text for it, it is asked again.
    ModelFailed(Option<String>),
    /// A tool's reply came.
    ToolReplied(ToolReply),
    /// Somebody ended the run.
    Stopped(RunOutcome),
    /// Something ran out.
    RanOut(RunOutcome, Exhausted),
    /// Calls were made inside a call of the model.
    CalledInside(Vec<String>, Option<Exhausted>),
    /// Tokens were used by a reply that does not count.
    Spent(Tokens),
    /// It decided to ask the model.
    Asks {
        /// The step.
        step: u32,
        /// What.
        request: Box<ModelRequest>,
    },
    /// It decided to have these tools called.
    Calls {
        /// The step.
        step: u32,
        /// The calls.
        calls: Vec<ToolCall>,
    },
    /// It decided that the run is over.
    Ends(RunEnd),
}

impl Told {
    /// Whether the stepper decided it, rather than being told.
    #[must_use]
    pub fn is_decision(&self) -> bool {
        matches!(self, Self::Asks { .. } | Self::Calls { .. } | Self::Ends(_))
    }
}

/// Hears all that a stepper is told and decides.
pub trait Tape: Send + Sync {
    /// One thing, at once.
    fn told(&self, told: &Told);
}

/// Where a stepper says what it hears. It is no part of its state: a stepper that was written down has none.
#[derive(Clone, Default)]
pub(super) struct Tell(Option<Arc<dyn Tape>>);

impl Tell {
    pub(super) fn to(tape: Arc<dyn Tape>) -> Self {
        Self(Some(tape))
    }

    /// Tells, where somebody hears.
    pub(super) fn tell(&self, told: impl FnOnce() -> Told) {
        if let Some(tape) = &self.0 {
            tape.told(&told());
        }
    }
}

impl PartialEq for Tell {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for Tell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tell")
    }
}
