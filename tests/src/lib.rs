//! Holds the one integration binary, `it`.
