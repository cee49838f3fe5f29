//! Integration tests: one binary, a module for each thing that a user can hold.

mod arguments;
mod cli;
mod documents;
mod keeping;
mod loading;
mod metering;
mod retail;
mod road;
mod scopes;
mod shipped_tools;
mod support;
mod tidy;
