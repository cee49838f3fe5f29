//! Toolbay's registry, sessions and the one road that every tool call takes.
