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
    mem::ManuallyDrop,
    ops::Deref,
    sync::RwLock,
};

use rhai::Dynamic;

use crate::fiber;

/// The system's allocator with an account for each script call.
#[derive(Debug, Clone, Copy, Default)]
pub struct MeteredAllocator;

/// What a call holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Account {
    /// Bytes.
    pub(crate) bytes: isize,
    /// Pieces of memory of such a size that they may be links of a chain of values, each holding the next.
    pub(crate) links: isize,
}

impl Account {
    /// Stack that dropping what is held can need, if all of it is one chain.
    pub(crate) fn stack_bytes(self) -> u64 {
        u64::try_from(self.links).unwrap_or(0).saturating_mul(STACK_BYTES_PER_LINK)
    }
}

/// Stack that one link needs while it is dropped: somewhat more than the 222 bytes that were measured.
pub(crate) const STACK_BYTES_PER_LINK: u64 = 256;

thread_local! {
    /// What the call which runs on this thread holds; outside of calls numbers without meaning.
    // Without a destructor, so that it can be used until the thread's very end.
    static HELD: Cell<Account> = const { Cell::new(Account { bytes: 0, links: 0 }) };

    /// Bytes that it may hold at the very most; outside of calls there is no such bound.
    static CEILING: Cell<isize> = const { Cell::new(isize::MAX) };
}

/// Whether a piece of memory of this size may be an array's or a map's head, a function, or a captured variable.
const fn is_link(size: usize) -> bool {
    const HEAD: usize = size_of::<rhai::Array>();
    const FUNCTION: usize = size_of::<rhai::FnPtr>();
    const CAPTURED: usize = 2 * size_of::<usize>() + size_of::<RwLock<Dynamic>>();
    matches!(size, HEAD | FUNCTION | CAPTURED)
}

/// Not inlined, since a fiber may go on on another thread, and the address of a thread-local must not be kept.
#[inline(never)]
fn add(size: usize) {
    let mut held = HELD.get();
    held.bytes = held.bytes.wrapping_add(signed(size));
    held.links = held.links.wrapping_add(isize::from(is_link(size)));
    HELD.set(held);
    if held.bytes > CEILING.get() {
        overrun(held.bytes);
    }
}

/// As [`add`], the other way.
#[inline(never)]
fn remove(size: usize) {
    let mut held = HELD.get();
    held.bytes = held.bytes.wrapping_sub(signed(size));
    held.links = held.links.wrapping_sub(isize::from(is_link(size)));
    HELD.set(held);
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
pub(crate) fn account() -> Account {
    HELD.get()
}

/// Bytes that the call on this thread holds.
#[inline(never)]
pub(crate) fn held() -> isize {
    HELD.get().bytes
}

/// As [`held`], for a function that suspends nowhere after it.
#[inline]
pub(crate) fn held_before_suspension() -> isize {
    HELD.get().bytes
}

/// Puts another account in place and gives the former one.
#[inline(never)]
pub(crate) fn exchange(account: Account) -> Account {
    HELD.replace(account)
}

/// Runs `body` at the expense of nobody's account: for what a call makes or drops but the host owns.
///
/// What is allocated inside must be freed inside another `outside`, and nothing of the call's own may be: otherwise the
/// call is charged for what it does not hold, or given room that it does not have.
pub(crate) fn outside<R>(body: impl FnOnce() -> R) -> R {
    /// Puts the account back, also where `body` panics.
    struct Former(Account);
    impl Drop for Former {
        fn drop(&mut self) {
            exchange(self.0);
        }
    }
    // So low that no ceiling is ever reached.
    let _former = Former(exchange(Account { bytes: isize::MIN / 2, links: 0 }));
    body()
}

/// A value that was made [`outside`] and is dropped there.
pub(crate) struct Outside<T>(ManuallyDrop<T>);

impl<T> Outside<T> {
    /// A value that is there already.
    pub(crate) fn of(value: T) -> Self {
        Self(ManuallyDrop::new(value))
    }
}

impl<T> Deref for Outside<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Drop for Outside<T> {
    fn drop(&mut self) {
        // SAFETY: nothing else drops the value, and nobody can reach it after this.
        outside(|| unsafe { ManuallyDrop::drop(&mut self.0) });
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
        add(layout.size());
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        remove(layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        remove(layout.size());
        add(new_size);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}
