//! What every server of ours holds against its clients, whatever it serves: readers that take nothing, and guessers of keys.
//!
//! It stands apart from the servers, which stand beside each other and have nothing else in common.
//!
//! # Layout
//!
//! - [`slow`]: connections with a time limit for writing.
//! - [`guess`]: how many keys may be wrong.

pub mod guess;
pub mod slow;

pub use guess::Guesses;
pub use slow::Hurried;
