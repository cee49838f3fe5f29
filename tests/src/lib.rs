//! Holds the one integration binary, `it`, and runs the Rust samples of the documents as doctests.

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
