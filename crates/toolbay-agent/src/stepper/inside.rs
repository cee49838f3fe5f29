//! Calls that are made inside a call of the model: the run's bounds count them like the model's own.

use super::{Stepper, Told};
use crate::{budget::Exhausted, code::Allowance};

impl Stepper {
    /// The calls that may be made inside an open call, of what the run has left.
    #[must_use]
    pub fn allowance(&self) -> Allowance {
        let bounds = &self.config.bounds;
        let left = |(glob, most): (&String, &u32)| {
            let used = self.per_tool.get(glob).copied().unwrap_or_default();
            (glob.clone(), most.saturating_sub(used), *most)
        };
        Allowance {
            calls: bounds.max_tool_calls.saturating_sub(self.tool_calls),
            of_calls: bounds.max_tool_calls,
            per_tool: bounds.max_calls_per_tool.iter().map(left).collect(),
            day: None,
        }
    }

    /// Counts calls that were made inside a call of the model, by the tools' qualified names, and notes what ran out there.
    pub fn called_inside(&mut self, tools: &[String], exhausted: Option<Exhausted>) {
        if tools.is_empty() && exhausted.is_none() {
            return;
        }
        self.tell.tell(|| Told::CalledInside(tools.to_vec(), exhausted.clone()));
        for tool in tools {
            self.tool_calls = self.tool_calls.saturating_add(1);
            self.count(tool);
        }
        if let Some(exhausted) = exhausted {
            self.exhausted.get_or_insert(exhausted);
        }
    }
}
