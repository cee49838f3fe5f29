//! Traces as a collector gets them.

mod collector;
mod traces;
