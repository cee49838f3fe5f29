//! What a tenant may spend in a day over all of its runs, and the port that remembers what it spent. It stands below the
//! agent, since a store keeps it.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use toolbay_api::{TenantId, async_trait, hook::ToolMatcher, message::Tokens};

/// What ran out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exhausted {
    /// What: `steps`, `tool calls`, `calls of mail.*`, `input tokens`, ...
    pub what: String,
    /// How much of it there was.
    pub allowed: u64,
    /// How much was used, with what would have come on top where that was refused.
    pub used: u64,
    /// Whether it is the tenant's for the day rather than the run's.
    pub of_the_day: bool,
    /// Whether nothing ran out, but nobody can tell for now whether it did.
    #[serde(default)]
    pub is_not_known: bool,
}

impl Exhausted {
    /// Something of a run.
    #[must_use]
    pub fn of_run(what: impl Into<String>, allowed: u64, used: u64) -> Self {
        Self { what: what.into(), allowed, used, of_the_day: false, is_not_known: false }
    }

    /// What a ledger says that cannot tell what was spent: that nothing is left.
    #[must_use]
    pub fn not_known() -> Self {
        Self { what: "budget".to_owned(), allowed: 0, used: 0, of_the_day: true, is_not_known: true }
    }
}

impl fmt::Display for Exhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, allowed, .. } = self;
        if self.is_not_known {
            f.write_str("what is left of the tenant's budget of the day cannot be looked up for now; try again later")
        } else if self.of_the_day {
            write!(f, "the tenant's {allowed} {what} of the day are used up; they are there again tomorrow (UTC)")
        } else {
            write!(f, "the run's limit of {allowed} {what} is used up")
        }
    }
}

/// What a tenant may spend in a day (UTC), over all of its runs. `None`: no bound.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DayBudget {
    /// Requests to models.
    pub max_steps: Option<u64>,
    /// Tool calls that models ask for.
    pub max_tool_calls: Option<u64>,
    /// Calls of the tools whose names match a glob, by glob.
    pub max_calls_per_tool: BTreeMap<String, u64>,
    /// Tokens of requests. What a reply uses is known when it is there, so the last one may overshoot it.
    pub max_input_tokens: Option<u64>,
    /// Tokens of replies, as above.
    pub max_output_tokens: Option<u64>,
    /// Cost in millionths of the price table's currency, as above.
    pub max_cost_micros: Option<u64>,
    /// Time of runs together. It is counted after each step, so runs beside each other may overshoot it.
    pub max_wall_time: Option<Duration>,
}

/// What is spent at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spending {
    /// Requests to the model.
    pub steps: u64,
    /// A call of this tool, by its qualified name.
    pub tool: Option<String>,
    /// Tokens.
    pub tokens: Tokens,
    /// Cost in millionths of the currency.
    pub cost_micros: u64,
    /// Time.
    pub wall_time: Duration,
}

/// Keeps what tenants spent.
#[async_trait]
pub trait Ledger: fmt::Debug + Send + Sync {
    /// Adds `spending` to what `tenant` spent on `day`, in days since 1970 (UTC).
    ///
    /// With a `budget`, nothing is added where steps or calls would go beyond it or where any other of its sums is reached
    /// already; both are one step, so that runs beside each other do not spend the same twice.
    ///
    /// # Errors
    /// What ran out. A ledger that cannot tell says that nothing is left, by [`Exhausted::not_known`]; without a budget it
    /// means that nothing was added.
    async fn spend(
        &self,
        tenant: &TenantId,
        day: u64,
        spending: &Spending,
        budget: Option<&DayBudget>,
    ) -> Result<(), Exhausted>;
}

/// The ledger of one process, in memory. It keeps one day.
#[derive(Debug, Default)]
pub struct MemoryLedger {
    // std's Mutex, not tokio's: nothing is awaited while it is held.
    day: Mutex<Day>,
}

#[derive(Debug, Default)]
struct Day {
    number: u64,
    spent: BTreeMap<TenantId, Spent>,
}

/// What a tenant has spent on one day.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Spent {
    /// Requests to models.
    pub steps: u64,
    /// Tool calls.
    pub tool_calls: u64,
    /// Tool calls by the budget's globs, of which there are as many as an operator wrote.
    pub per_tool: BTreeMap<String, u64>,
    /// Tokens of requests.
    pub input: u64,
    /// Tokens of replies.
    pub output: u64,
    /// Cost in millionths of the currency.
    pub cost_micros: u64,
    /// Time of runs.
    pub wall_time: Duration,
}

impl MemoryLedger {
    /// A ledger in which nothing is spent.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }
}

#[async_trait]
impl Ledger for MemoryLedger {
    async fn spend(
        &self,
        tenant: &TenantId,
        day: u64,
        spending: &Spending,
        budget: Option<&DayBudget>,
    ) -> Result<(), Exhausted> {
        let mut kept = self.day.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that is set back does not give a day a second time.
        if day > kept.number {
            *kept = Day { number: day, spent: BTreeMap::new() };
        }
        let spent = kept.spent.entry(tenant.clone()).or_default();
        *spent = spent.plus(spending, budget)?;
        Ok(())
    }
}

impl Spent {
    /// What is spent after `spending`. A ledger keeps this in the place of what it was made from, in one step.
    ///
    /// # Errors
    /// What ran out, as [`Ledger::spend`] has it.
    pub fn plus(&self, spending: &Spending, budget: Option<&DayBudget>) -> Result<Self, Exhausted> {
        let next = self.with(spending, budget);
        if let Some(budget) = budget {
            next.within(self, spending, budget)?;
        }
        Ok(next)
    }

    fn with(&self, spending: &Spending, budget: Option<&DayBudget>) -> Self {
        let mut next = self.clone();
        next.steps = next.steps.saturating_add(spending.steps);
        next.input = next.input.saturating_add(spending.tokens.input);
        next.output = next.output.saturating_add(spending.tokens.output);
        next.cost_micros = next.cost_micros.saturating_add(spending.cost_micros);
        next.wall_time = next.wall_time.saturating_add(spending.wall_time);
        if let Some(tool) = &spending.tool {
            next.tool_calls = next.tool_calls.saturating_add(1);
            let globs = budget.into_iter().flat_map(|budget| budget.max_calls_per_tool.keys());
            for glob in globs.filter(|glob| matches(glob, tool)) {
                *next.per_tool.entry(glob.clone()).or_default() += 1;
            }
        }
        next
    }

    fn within(&self, before: &Self, spending: &Spending, budget: &DayBudget) -> Result<(), Exhausted> {
        let ran_out = |what: String, allowed: u64, used: u64| {
            Err(Exhausted { what, allowed, used, of_the_day: true, is_not_known: false })
        };
        if let Some(most) = budget.max_steps.filter(|most| spending.steps > 0 && self.steps > *most) {
            return ran_out("steps".to_owned(), most, self.steps);
        }
        if let Some(most) = budget.max_tool_calls.filter(|most| spending.tool.is_some() && self.tool_calls > *most) {
            return ran_out("tool calls".to_owned(), most, self.tool_calls);
        }
        for (glob, most) in &budget.max_calls_per_tool {
            let used = self.per_tool.get(glob).copied().unwrap_or_default();
            if used > *most && used > before.per_tool.get(glob).copied().unwrap_or_default() {
                return ran_out(format!("calls of {glob}"), *most, used);
            }
        }
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        for (what, most, used) in [
            ("input tokens", budget.max_input_tokens, before.input),
            ("output tokens", budget.max_output_tokens, before.output),
            ("millionths of the currency", budget.max_cost_micros, before.cost_micros),
            ("milliseconds", budget.max_wall_time.map(milliseconds), milliseconds(before.wall_time)),
        ] {
            if let Some(most) = most.filter(|most| used >= *most) {
                return ran_out(what.to_owned(), most, used);
            }
        }
        Ok(())
    }
}

/// Whether a glob of a budget means a tool called `name`. What is no glob means itself.
#[must_use]
pub fn matches(glob: &str, name: &str) -> bool {
    glob == name || ToolMatcher::new([glob]).is_ok_and(|matcher| matcher.matches(name))
}
