//! What the run still has for the calls of one program.

use toolbay_runtime::Run;

use crate::budget::{DayLimits, Exhausted, Spending, day_of, matches};

/// The tool calls that one program may make of what its run has left.
#[derive(Debug, Clone)]
pub struct Allowance {
    /// Calls of any tool.
    pub calls: u32,
    /// What `calls` was at the run's beginning, to be told of.
    pub of_calls: u32,
    /// Calls of tools that match a glob: the glob, how many are left, and how many there were.
    pub per_tool: Vec<(String, u32, u32)>,
    /// The tenant's day, where it is bounded.
    pub day: Option<DayLimits>,
}

impl Default for Allowance {
    /// No bound but the program's own.
    fn default() -> Self {
        Self { calls: u32::MAX, of_calls: u32::MAX, per_tool: Vec::new(), day: None }
    }
}

impl Allowance {
    /// Takes one call of `tool`.
    ///
    /// # Errors
    /// What ran out; then nothing was taken.
    pub(super) fn take(&mut self, tool: &str) -> Result<(), Exhausted> {
        if self.calls == 0 {
            return Err(Exhausted::of_run("tool calls", self.of_calls.into(), u64::from(self.of_calls) + 1));
        }
        if let Some((glob, _, of)) = self.per_tool.iter().find(|(glob, left, _)| *left == 0 && matches(glob, tool)) {
            return Err(Exhausted::of_run(format!("calls of {glob}"), (*of).into(), u64::from(*of) + 1));
        }
        self.calls -= 1;
        for (_, left, _) in self.per_tool.iter_mut().filter(|(glob, ..)| matches(glob, tool)) {
            *left -= 1;
        }
        Ok(())
    }

    /// Spends one call of `tool` of the tenant's day.
    ///
    /// # Errors
    /// What ran out.
    pub(super) async fn spend(day: Option<&DayLimits>, run: &Run, tool: &str) -> Result<(), Exhausted> {
        let Some(day) = day else { return Ok(()) };
        let spending = Spending { tool: Some(tool.to_owned()), ..Spending::default() };
        day.ledger.spend(run.tenant(), day_of(run.clock().now()), &spending, Some(&day.budget)).await
    }
}
