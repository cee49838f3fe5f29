//! What runs cost, and what a tenant may spend in a day over all of its runs.
//!
//! What one run may use stands in [`Bounds`](crate::Bounds). A day's budget needs a memory beyond the run, which is the port
//! [`Ledger`]: [`MemoryLedger`] is of one process, a store's of all that share it.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use toolbay_api::message::Tokens;
pub(crate) use toolbay_runtime::spending::matches;
pub use toolbay_runtime::spending::{DayBudget, Exhausted, Ledger, MemoryLedger, Spending};

/// What a model's tokens cost, in millionths of a currency for a million tokens: 2.50 are `2_500_000`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// A million tokens of requests.
    pub input: u64,
    /// A million tokens of replies, reasoning included.
    pub output: u64,
}

impl Price {
    /// What `tokens` cost, in millionths of the currency, rounded up.
    ///
    /// ```
    /// use toolbay_agent::budget::Price;
    /// use toolbay_api::message::Tokens;
    ///
    /// let price = Price { input: 2_500_000, output: 10_000_000 };
    /// assert_eq!(price.of(Tokens { input: 1_000, output: 100 }), 3_500);
    /// ```
    #[must_use]
    pub fn of(self, tokens: Tokens) -> u64 {
        let cost =
            u128::from(self.input) * u128::from(tokens.input) + u128::from(self.output) * u128::from(tokens.output);
        u64::try_from(cost.div_ceil(1_000_000)).unwrap_or(u64::MAX)
    }
}

/// Prices by model, whose names may be globs: `"gpt-4o*"`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Prices(pub BTreeMap<String, Price>);

impl Prices {
    /// The price of `model`: under its own name, else under the longest glob that matches.
    #[must_use]
    pub fn of(&self, model: &str) -> Option<Price> {
        let globs = self.0.iter().filter(|(glob, _)| matches(glob, model));
        let longest = || globs.max_by_key(|(glob, _)| glob.len()).map(|(_, price)| *price);
        self.0.get(model).copied().or_else(longest)
    }
}

/// A tenant's day: its budget and who keeps it.
#[derive(Debug, Clone)]
pub struct DayLimits {
    /// What a tenant may spend.
    pub budget: DayBudget,
    /// What it spent.
    pub ledger: Arc<dyn Ledger>,
}

/// The day of `now`, in days since 1970 (UTC).
pub(crate) fn day_of(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 86_400
}
