//! The sandbox and the runner, tested at the `Runner`, `Tool` and `Hook` traits.

mod basics;
mod fake;
