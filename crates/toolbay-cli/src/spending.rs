//! The sections of the configuration file about what an agent's runs may use, what models cost, and calls that are made again.

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;
use toolbay::{Bounds, DayBudget, Price, Prices, ToolRetries};

/// The millionths that prices and costs are counted in.
const MICROS: f64 = 1e6;

/// What one run of an agent may use.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct BudgetSection {
    /// Requests to the model.
    max_steps: Option<u32>,
    /// Tool calls.
    max_tool_calls: Option<u32>,
    /// Calls of the tools whose names match a glob, by glob.
    max_calls_per_tool: BTreeMap<String, u32>,
    /// Tokens of requests and replies.
    max_tokens: Option<u64>,
    /// Tokens of requests.
    max_input_tokens: Option<u64>,
    /// Tokens of replies.
    max_output_tokens: Option<u64>,
    /// Cost, in the currency of `prices`.
    max_cost: Option<f64>,
    /// Wall-clock time.
    max_wall_time_ms: Option<u64>,
    /// What the tenant may use in a day, over all runs at one database.
    day: Option<DaySection>,
}

/// What a tenant may use in a day (UTC).
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct DaySection {
    /// Requests to models.
    max_steps: Option<u64>,
    /// Tool calls.
    max_tool_calls: Option<u64>,
    /// Calls of the tools whose names match a glob, by glob.
    max_calls_per_tool: BTreeMap<String, u64>,
    /// Tokens of requests.
    max_input_tokens: Option<u64>,
    /// Tokens of replies.
    max_output_tokens: Option<u64>,
    /// Cost, in the currency of `prices`.
    max_cost: Option<f64>,
    /// Wall-clock time of all runs together.
    max_wall_time_ms: Option<u64>,
}

/// Calls of idempotent tools that are made again after errors that can pass.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RetriesSection {
    /// How often one call is made again; 0, and without this: never.
    max: u32,
    /// The wait before the first time; it doubles with each.
    first_wait_ms: Option<u64>,
    /// The longest wait.
    max_wait_ms: Option<u64>,
}

impl RetriesSection {
    /// How calls are made again, if they are.
    pub(crate) fn retries(&self) -> Option<ToolRetries> {
        let default = ToolRetries::default();
        (self.max > 0).then(|| ToolRetries {
            max_retries: self.max,
            first_wait: self.first_wait_ms.map_or(default.first_wait, Duration::from_millis),
            max_wait: self.max_wait_ms.map_or(default.max_wait, Duration::from_millis),
        })
    }
}

/// What a model's tokens cost.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PriceSection {
    /// A million tokens of requests.
    input: f64,
    /// A million tokens of replies.
    output: f64,
}

impl BudgetSection {
    /// The bounds, with `default` for what is not said.
    pub(crate) fn bounds(&self, default: Bounds) -> Result<Bounds, String> {
        let max_cost = self.max_cost.map(|cost| micros("max_cost", cost)).transpose()?;
        Ok(Bounds {
            max_steps: self.max_steps.unwrap_or(default.max_steps),
            max_tool_calls: self.max_tool_calls.unwrap_or(default.max_tool_calls),
            max_calls_per_tool: self.max_calls_per_tool.clone(),
            max_tokens: self.max_tokens.or(default.max_tokens),
            max_input_tokens: self.max_input_tokens.or(default.max_input_tokens),
            max_output_tokens: self.max_output_tokens.or(default.max_output_tokens),
            max_cost_micros: max_cost.or(default.max_cost_micros),
            max_wall_time: self.max_wall_time_ms.map_or(default.max_wall_time, Duration::from_millis),
            ..default
        })
    }

    /// What the tenant may use in a day, if anything is said of that.
    pub(crate) fn day(&self) -> Result<Option<DayBudget>, String> {
        let Some(day) = &self.day else { return Ok(None) };
        let max_cost_micros = day.max_cost.map(|cost| micros("day.max_cost", cost)).transpose()?;
        Ok(Some(DayBudget {
            max_steps: day.max_steps,
            max_tool_calls: day.max_tool_calls,
            max_calls_per_tool: day.max_calls_per_tool.clone(),
            max_input_tokens: day.max_input_tokens,
            max_output_tokens: day.max_output_tokens,
            max_cost_micros,
            max_wall_time: day.max_wall_time_ms.map(Duration::from_millis),
        }))
    }
}

/// The price table.
pub(crate) fn prices(sections: &BTreeMap<String, PriceSection>) -> Result<Prices, String> {
    let price = |(model, section): (&String, &PriceSection)| {
        let amount = |key: &str, value| micros(&format!("{model:?}.{key}"), value);
        let price = Price { input: amount("input", section.input)?, output: amount("output", section.output)? };
        Ok::<_, String>((model.clone(), price))
    };
    sections.iter().map(price).collect::<Result<_, _>>().map(Prices)
}

/// An amount in millionths. What is no amount of money is refused.
fn micros(key: &str, amount: f64) -> Result<u64, String> {
    let micros = (amount * MICROS).round();
    if !(0.0..1e15).contains(&micros) {
        return Err(format!("{key}: {amount} is no amount: give a number from 0 up, such as 2.5"));
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "its range is checked above")]
    Ok(micros as u64)
}
