//! The sandbox and the runner, tested at the `Runner`, `Tool` and `Hook` traits.

mod basics;
mod calls;
mod deadline;
mod fake;
mod hooks;
mod hostile;
mod loading;
mod surface;

// So that the memory limit is tested too.
#[global_allocator]
static ALLOCATOR: toolbay_rhai::MeteredAllocator = toolbay_rhai::MeteredAllocator;
