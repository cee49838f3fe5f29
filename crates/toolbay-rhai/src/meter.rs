//! A global allocator that knows how much memory each script call holds.
//!
//! It counts into a thread-local account; a fiber takes its own account along from thread to thread. Rhai's limits of
//! single values do not bound their number, so only with this allocator does
//! [`Limits::max_memory_bytes`](toolbay_api::Limits::max_memory_bytes) hold. The binary installs it:
//!
//! ```
//! #[global_allocator]
//! static ALLOCATOR: toolbay_rhai::MeteredAllocator = toolbay_rhai::MeteredAllocator;
//! # fn main() {}
//! ```
#![allow(unsafe_code, reason = "the allocator trait is unsafe; every method hands on to the system's allocator")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use crate::fiber;

/// The system's allocator with an account for each script call.
#[derive(Debug, Clone, Copy, Default)]
pub struct MeteredAllocator;

thread_local! {
    /// Bytes that the call which runs on this thread holds; outside of calls a number without meaning.
    // Without a destructor, so that it can be used until the thread's very end.
    static HELD: Cell<isize> = const { Cell::new(0) };

    /// What it may hold at the very most; outside of calls there is no such bound.
    static CEILING: Cell<isize> = const { Cell::new(isize::MAX) };
}

/// Not inlined, since a fiber may go on on another thread, and the address of a thread-local must not be kept.
#[inline(never)]
fn count(bytes: isize) {
    let held = HELD.get().wrapping_add(bytes);
    HELD.set(held);
    if bytes > 0 && held > CEILING.get() {
        overrun(held);
    }
}

/// A single operation of the interpreter asks for far more than the call may hold: the call ends here and now.
#[cold]
#[inline(never)]
fn overrun(held: isize) {
    // What ends the call allocates too.
    let ceiling = exchange_ceiling(isize::MAX);
    fiber::abandon(held);
    // Still here: this cannot be left where it stands. The next operation ends the call.
    exchange_ceiling(ceiling.saturating_mul(2));
}

/// Sets what the call on this thread may hold at the very most, and gives what it was.
#[inline(never)]
pub(crate) fn exchange_ceiling(bytes: isize) -> isize {
    CEILING.replace(bytes)
}

/// What the call on this thread holds.
#[inline(never)]
pub(crate) fn held() -> isize {
    HELD.get()
}

/// As [`held`], for a function that suspends nowhere after it.
#[inline]
pub(crate) fn held_before_suspension() -> isize {
    HELD.get()
}

/// Puts another account in place and gives the former one.
#[inline(never)]
pub(crate) fn exchange(account: isize) -> isize {
    HELD.replace(account)
}

/// Runs `body` at the expense of nobody's account: for what a call makes or drops but the host owns.
///
/// What is allocated inside must be freed inside another `outside`, and nothing of the call's own may be: otherwise the
/// call is charged for what it does not hold, or given room that it does not have.
pub(crate) fn outside<R>(body: impl FnOnce() -> R) -> R {
    /// Puts the account back, also where `body` panics.
    struct Former(isize);
    impl Drop for Former {
        fn drop(&mut self) {
            exchange(self.0);
        }
    }
    // So low that no ceiling is ever reached.
    let _former = Former(exchange(isize::MIN / 2));
    body()
}

/// A value that was made [`outside`] and is dropped there.
pub(crate) struct Outside<T>(Option<T>);

impl<T> Outside<T> {
    /// A value that is there already.
    pub(crate) fn of(value: T) -> Self {
        Self(Some(value))
    }

    /// The value; `None` never, but for the compiler.
    pub(crate) fn get(&self) -> Option<&T> {
        self.0.as_ref()
    }
}

impl<T> Drop for Outside<T> {
    fn drop(&mut self) {
        let value = self.0.take();
        outside(|| drop(value));
    }
}

/// Whether the process runs on this allocator.
pub(crate) fn is_installed() -> bool {
    let before = held();
    let probe = std::hint::black_box(Box::new([0_u8; 64]));
    let counted = held() != before;
    drop(probe);
    counted
}

fn signed(bytes: usize) -> isize {
    isize::try_from(bytes).unwrap_or(isize::MAX)
}

// SAFETY: every method hands its arguments on to the system's allocator unchanged and returns what that returned; the
// counting touches a plain cell and allocates nothing.
unsafe impl GlobalAlloc for MeteredAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(signed(layout.size()));
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-signed(layout.size()));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(signed(layout.size()));
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(signed(new_size) - signed(layout.size()));
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}
