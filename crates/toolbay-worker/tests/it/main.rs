//! The worker tier, tested at its boundary: the runtime in front, real worker processes behind.

#[global_allocator]
static ALLOCATOR: toolbay_worker::CappedAlloc = toolbay_worker::CappedAlloc;

mod calls;
mod faults;
mod parity;
mod pool;
mod support;
