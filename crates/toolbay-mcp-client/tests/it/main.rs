//! MCP servers as plugins, at the boundary: a Toolbay with the runner, and servers that keep to the protocol or do not.

mod approval;
mod hostile;
mod programs;
mod support;
