//! Toolbay's agent loop: a stepper without I/O, a thin driver, and a provider adapter.
