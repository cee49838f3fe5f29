//! Stacks for fibers: large, committed only where touched, used again.
//!
//! Rhai clones, drops, prints and compares nested values by native recursion, where no callback of ours runs. Each call
//! therefore gets a stack that the deepest value within the size limits cannot fill: address space is reserved, the
//! system commits a page when it is first touched, and a guard page stands at the end. A stack that was used deeply is
//! given back to the system before it waits for its next call.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicIsize, AtomicUsize, Ordering},
    },
};

use corosensei::stack::{DefaultStack, Stack as _};
use toolbay_api::Limits;

/// Address space of the smallest stacks.
const LEAST_STACK_BYTES: usize = 256 << 20;

/// Address space of the largest ones.
const MOST_STACK_BYTES: usize = 1 << 40;

/// Stack that one level of a nested value can need: twice the most that was measured, 430 bytes for `{:?}` of a map in a
/// debug build.
const BYTES_PER_LEVEL: usize = 1 << 10;

/// Stack that dropping a chain of functions can need for each byte of heap that the chain holds: each captures the one
/// before. More than twice what was measured: 72 bytes of heap and 222 of stack a link.
const STACK_BYTES_PER_HEAP_BYTE: usize = 8;

/// The stack that the deepest value needs. Rhai's size limits count a value's elements with all that is inside, so arrays
/// and maps cannot have more levels than `max_array_len` and `max_map_len` allow elements. What functions capture is in
/// no such limit: only the heap bounds how long a chain of them is.
pub(crate) fn needed_bytes(limits: &Limits) -> usize {
    let levels = limits.max_array_len.saturating_add(limits.max_map_len);
    let nested = levels.saturating_mul(BYTES_PER_LEVEL);
    let chained =
        usize::try_from(limits.max_memory_bytes).unwrap_or(usize::MAX).saturating_mul(STACK_BYTES_PER_HEAP_BYTE);
    nested.max(chained).clamp(LEAST_STACK_BYTES, MOST_STACK_BYTES).next_power_of_two()
}

/// What a stack may keep committed while nobody uses it. An ordinary call touches less.
const KEPT_BYTES: usize = 256 << 10;

/// The size of a page that the check below looks at. Larger system pages only make the check stricter.
const PAGE_BYTES: usize = 4 << 10;

/// Has the system prefer other threads to this one where it must choose.
pub(super) fn lower_priority() {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: takes numbers and changes nothing but the calling thread's own priority, since Linux counts priorities
        // by thread.
        let _ = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, LANE_NICENESS) };
    }
}

/// The niceness of threads for scripts that take long.
#[cfg(target_os = "linux")]
const LANE_NICENESS: libc::c_int = 10;

/// Stacks that wait for their next call.
#[derive(Debug)]
pub(crate) struct StackPool {
    /// A shelf for each thread, as far as there are enough: each call takes a stack and gives it back.
    shelves: [Shelf; SHELVES],
    max_on_a_shelf: usize,
    stack_bytes: usize,
}

/// Stacks on a line of the processor's cache of their own.
// std's Mutex: held for a push or a pop only.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shelf {
    idle: Mutex<Vec<Stack>>,
    /// Stacks that were taken by this shelf's threads, less those that they gave back.
    out: AtomicIsize,
}

/// Threads that do not meet when they take stacks.
const SHELVES: usize = 8;

thread_local! {
    /// The shelf that this thread goes to first.
    static OWN_SHELF: usize = NEXT_SHELF.fetch_add(1, Ordering::Relaxed) % SHELVES;
}

static NEXT_SHELF: AtomicUsize = AtomicUsize::new(0);

impl StackPool {
    /// An empty pool that keeps at most `max_idle` stacks of this size.
    pub(crate) fn new(max_idle: usize, stack_bytes: usize) -> Arc<Self> {
        Arc::new(Self { shelves: Default::default(), max_on_a_shelf: max_idle.div_ceil(SHELVES), stack_bytes })
    }

    /// A stack that nothing runs on.
    ///
    /// # Errors
    /// The system's own, where it has no address space left.
    pub(crate) fn take(&self) -> io::Result<Stack> {
        let own = OWN_SHELF.with(|own| *own);
        let idle = (own..own + SHELVES).find_map(|shelf| self.lock(shelf)?.pop());
        let stack = idle.map_or_else(|| Stack::new(self.stack_bytes), Ok)?;
        self.count(own, 1);
        Ok(stack)
    }

    /// Stacks that were taken and not given back.
    pub(crate) fn out(&self) -> usize {
        let out: isize = self.shelves.iter().map(|shelf| shelf.out.load(Ordering::Relaxed)).sum();
        out.max(0).unsigned_abs()
    }

    fn count(&self, shelf: usize, by: isize) {
        if let Some(shelf) = self.shelves.get(shelf % SHELVES) {
            shelf.out.fetch_add(by, Ordering::Relaxed);
        }
    }

    /// Takes a stack back.
    pub(crate) fn give(&self, stack: Stack) {
        stack.release_deep_pages();
        let own = OWN_SHELF.with(|own| *own);
        self.count(own, -1);
        let Some(mut idle) = self.lock(own) else { return };
        if idle.len() < self.max_on_a_shelf {
            idle.push(stack);
        }
    }

    fn lock(&self, shelf: usize) -> Option<MutexGuard<'_, Vec<Stack>>> {
        Some(self.shelves.get(shelf % SHELVES)?.idle.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One stack.
pub(crate) struct Stack {
    inner: DefaultStack,
    bytes: usize,
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stack")
    }
}

impl Stack {
    fn new(bytes: usize) -> io::Result<Self> {
        let stack = Self { inner: DefaultStack::new(bytes)?, bytes };
        stack.refuse_huge_pages();
        Ok(stack)
    }

    /// The lowest address of the part that a waiting stack may keep.
    fn kept_from(&self) -> usize {
        self.inner.base().get() - KEPT_BYTES
    }

    /// The lowest address that is no guard page.
    fn lowest(&self) -> usize {
        self.inner.base().get() - self.bytes
    }

    /// A huge page would commit two megabytes for a call that needs ten kilobytes.
    #[cfg(target_os = "linux")]
    fn refuse_huge_pages(&self) {
        // SAFETY: the range is the writable part of the mapping that `self` owns; the advice changes no content.
        let _ = unsafe { libc::madvise(self.lowest() as *mut libc::c_void, self.bytes, libc::MADV_NOHUGEPAGE) };
    }

    #[cfg(not(target_os = "linux"))]
    fn refuse_huge_pages(&self) {}

    /// Gives what lies deeper than [`KEPT_BYTES`] back to the system, if any of it was touched.
    ///
    /// Whether it was is read off the first page there: a recursion that passed through left return addresses in it.
    /// Reading a page that was never touched commits nothing, since the system maps its shared page of zeros.
    #[cfg(target_os = "linux")]
    fn release_deep_pages(&self) {
        let first_deep = self.kept_from() - PAGE_BYTES;
        // SAFETY: the page lies within the writable part of the mapping, is aligned for u64, and nothing runs on this
        // stack, so that nobody writes to it meanwhile.
        let words = unsafe { std::slice::from_raw_parts(first_deep as *const u64, PAGE_BYTES / size_of::<u64>()) };
        if words.iter().all(|word| *word == 0) {
            return;
        }
        let length = self.kept_from() - self.lowest();
        // SAFETY: the range is the deep part of the mapping that `self` owns. Nothing runs on this stack, so that no
        // live value lies there; the pages read as zeros afterwards.
        let _ = unsafe { libc::madvise(self.lowest() as *mut libc::c_void, length, libc::MADV_DONTNEED) };
    }

    #[cfg(not(target_os = "linux"))]
    fn release_deep_pages(&self) {}
}

// SAFETY: base and limit are those of the wrapped stack, which fulfils the trait's contract.
unsafe impl corosensei::stack::Stack for Stack {
    fn base(&self) -> corosensei::stack::StackPointer {
        self.inner.base()
    }

    fn limit(&self) -> corosensei::stack::StackPointer {
        self.inner.limit()
    }

    #[cfg(windows)]
    fn teb_fields(&self) -> corosensei::stack::StackTebFields {
        self.inner.teb_fields()
    }

    #[cfg(windows)]
    fn update_teb_fields(&mut self, stack_limit: usize, guaranteed_stack_bytes: usize) {
        self.inner.update_teb_fields(stack_limit, guaranteed_stack_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_that_was_used_deeply_reads_as_zeros_again() {
        fn recurse(depth: usize) -> usize {
            let frame = std::hint::black_box([depth; 64]);
            if depth == 0 { frame[0] } else { recurse(depth - 1) + std::hint::black_box(frame)[1] }
        }
        let pool = StackPool::new(4, LEAST_STACK_BYTES);
        let mut stack = pool.take().expect("address space");
        corosensei::on_stack(&mut stack, || std::hint::black_box(recurse(4_000)));
        let deep = (stack.kept_from() - PAGE_BYTES) as *const u64;
        let read = || (0..PAGE_BYTES / 8).any(|word| unsafe { deep.add(word).read_volatile() } != 0);
        assert!(read(), "the recursion did not reach the page");
        stack.release_deep_pages();
        assert!(!read());
    }
}
