//! What one run may use, and how it can end.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};

/// What one agent run may use at most. Reaching a bound ends the run with an outcome of its own, never with an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bounds {
    /// Requests to the model. The tool calls of the last allowed step are still made, so that the conversation can be
    /// taken up again.
    pub max_steps: u32,
    /// Tool calls. Calls beyond it are not made but answered with an error; the model then has one more step to answer
    /// in text.
    pub max_tool_calls: u32,
    /// Tool calls of one step that run at the same time; 0 counts as 1.
    pub max_parallel_tool_calls: usize,
    /// Wall-clock time from the first step to the last. The stepper has no clock: its driver keeps this one.
    pub max_wall_time: Duration,
    /// Calls that had to go back to the model: malformed or invalid arguments, unknown tools.
    pub max_repairs: u32,
    /// Steps in a row in which a call had to go back to the model.
    pub max_repair_steps_in_a_row: u32,
    /// Tokens of all requests and replies, as the provider counts them; `None`: no bound. It is checked after each
    /// reply, so the last reply may overshoot it.
    pub max_tokens: Option<u64>,
    /// Tokens of all requests, checked like [`max_tokens`](Self::max_tokens).
    pub max_input_tokens: Option<u64>,
    /// Tokens of all replies, checked like [`max_tokens`](Self::max_tokens).
    pub max_output_tokens: Option<u64>,
    /// Cost in millionths of the currency of the [price table](crate::budget::Prices), checked like
    /// [`max_tokens`](Self::max_tokens). A run with a model that the table does not know is not begun then.
    pub max_cost_micros: Option<u64>,
    /// Calls of the tools whose names match a glob, by glob: `"mail.*" = 3`. Calls beyond it are not made but answered with an
    /// error, and the run goes on. A tool that matches several is counted for each.
    pub max_calls_per_tool: BTreeMap<String, u32>,
}

impl Default for Bounds {
    /// Enough for an assistant's task; a host that wants more says so.
    fn default() -> Self {
        Self {
            max_steps: 32,
            max_tool_calls: 128,
            max_parallel_tool_calls: 8,
            max_wall_time: Duration::from_secs(300),
            max_repairs: 12,
            max_repair_steps_in_a_row: 3,
            max_tokens: None,
            max_input_tokens: None,
            max_output_tokens: None,
            max_cost_micros: None,
            max_calls_per_tool: BTreeMap::new(),
        }
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum RunOutcome {
    /// The model answered.
    Completed,
    /// The model's answer was cut at its token limit.
    CutOff,
    /// The provider withheld the answer.
    Withheld,
    /// A hook or the host ended it.
    Stopped {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// [`Bounds::max_steps`] was reached.
    StepLimit,
    /// [`Bounds::max_tool_calls`] was reached.
    ToolCallLimit,
    /// [`Bounds::max_wall_time`] was reached.
    TimeLimit,
    /// [`Bounds::max_tokens`] was reached.
    TokenLimit,
    /// [`Bounds::max_input_tokens`] was reached.
    InputTokenLimit,
    /// [`Bounds::max_output_tokens`] was reached.
    OutputTokenLimit,
    /// [`Bounds::max_cost_micros`] was reached.
    CostLimit,
    /// The tenant's [budget of the day](crate::budget::DayBudget) is used up.
    DayLimit,
    /// [`Bounds::max_repairs`] or [`Bounds::max_repair_steps_in_a_row`] was reached.
    RepairLimit,
    /// The model could not be asked.
    ModelFailed,
    /// It waits for somebody to approve calls, and can go on.
    Suspended,
}

impl RunOutcome {
    /// The outcome's name in records and for scripts.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::CutOff => "cut_off",
            Self::Withheld => "withheld",
            Self::Stopped { .. } => "stopped",
            Self::StepLimit => "step_limit",
            Self::ToolCallLimit => "tool_call_limit",
            Self::TimeLimit => "time_limit",
            Self::TokenLimit => "token_limit",
            Self::InputTokenLimit => "input_token_limit",
            Self::OutputTokenLimit => "output_token_limit",
            Self::CostLimit => "cost_limit",
            Self::DayLimit => "day_limit",
            Self::RepairLimit => "repair_limit",
            Self::ModelFailed => "model_failed",
            Self::Suspended => "suspended",
        }
    }

    /// Whether there is an answer to give out, whole or cut.
    pub(crate) fn is_answer(&self) -> bool {
        !matches!(self, Self::Stopped { .. } | Self::ModelFailed | Self::Suspended)
    }

    /// Whether the model answered as it wanted to.
    #[must_use]
    pub fn is_completed(&self) -> bool {
        *self == Self::Completed
    }
}

impl fmt::Display for RunOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        if let Self::Stopped { by, reason } = self {
            write!(f, " by {by}: {reason}")?;
        }
        Ok(())
    }
}
