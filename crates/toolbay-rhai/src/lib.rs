//! Toolbay's sandbox around Rhai and the runner that loads Rhai plugins.
