//! A program that is a worker and nothing else, for hosts whose own executable cannot be one.

#[global_allocator]
static ALLOCATOR: toolbay_worker::CappedAlloc = toolbay_worker::CappedAlloc;

fn main() {
    toolbay_worker::worker_main();
}
