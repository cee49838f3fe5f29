//! The allocator of a worker: it meters each script call, and ends the process where a call goes over its hard cap.
//!
//! The sandbox inside the worker stops a script at its next operation; one built-in operation can allocate a gigabyte
//! before that. Here the allocation itself is refused, by the one means that needs nobody's cooperation. In the host,
//! which runs the same binary, the cap is not armed and costs one comparison.
#![allow(unsafe_code, reason = "the allocator trait is unsafe; every method hands on to the metered allocator")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    sync::atomic::{AtomicBool, AtomicIsize, AtomicU64, Ordering::Relaxed},
};

use toolbay_rhai::MeteredAllocator;

use crate::{frame::LastWord, sys};

/// The allocator that a program with workers runs on: toolbay-rhai's [`MeteredAllocator`] with a hard cap on top, armed
/// in worker processes only.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: toolbay_worker::CappedAlloc = toolbay_worker::CappedAlloc;
/// # fn main() {}
/// ```
#[derive(Debug, Clone, Copy, Default)]
pub struct CappedAlloc;

/// What a call's hard cap is above its memory limit. The sandbox counts the bytes asked for and stops a script gently;
/// the cap counts what the system's allocator makes of them.
pub(crate) const SLACK: u64 = 2 << 20;

/// What a worker may hold for itself when no call runs: the engine, compiled scripts, frames.
const OWN_BYTES: isize = 96 << 20;

// A worker has one thread, and only a worker arms the cap. So loads and stores are enough, and no read-modify-write is
// paid for; with more threads the figures would drift, and nothing worse.
static ARMED: AtomicBool = AtomicBool::new(false);
static HELD: AtomicIsize = AtomicIsize::new(0);
static CAP: AtomicIsize = AtomicIsize::new(OWN_BYTES);
/// The call that runs, and its limit as it was set.
static CALL: AtomicU64 = AtomicU64::new(0);
static ALLOWED: AtomicU64 = AtomicU64::new(OWN_BYTES as u64);
/// While set, allocations are neither metered nor under the cap of a call, but under one of their own.
static OUTSIDE: AtomicBool = AtomicBool::new(false);
static OUTSIDE_HELD: AtomicIsize = AtomicIsize::new(0);
static OUTSIDE_CAP: AtomicIsize = AtomicIsize::new(0);
/// Of what the present turn of a call allocated, what belongs to others.
static STRAY: AtomicIsize = AtomicIsize::new(0);

/// Arms the cap, and tells whether the process runs on this allocator at all. `outside` bounds what
/// [`outside`] may hold.
pub(crate) fn arm(outside: u64) -> bool {
    OUTSIDE_CAP.store(isize::try_from(outside).unwrap_or(isize::MAX), Relaxed);
    ARMED.store(true, Relaxed);
    let before = HELD.load(Relaxed);
    let probe = std::hint::black_box(Box::new([0_u8; 64]));
    let counts = HELD.load(Relaxed) != before;
    drop(probe);
    counts
}

/// Bytes held since the cap was armed.
pub(crate) fn held() -> isize {
    HELD.load(Relaxed)
}

/// The call that runs at this instant; 0 for none.
pub(crate) fn running() -> u64 {
    CALL.load(Relaxed)
}

/// Runs `body` as part of `call`, which holds `account` bytes already and may hold `allowed`. Gives what it holds
/// afterwards.
pub(crate) fn under_cap<R>(call: u64, account: isize, allowed: u64, body: impl FnOnce() -> R) -> (R, isize) {
    let before = held();
    let room = isize::try_from(allowed.saturating_add(SLACK)).unwrap_or(isize::MAX / 2);
    CAP.store(before.saturating_add(room).saturating_sub(account), Relaxed);
    ALLOWED.store(allowed, Relaxed);
    CALL.store(call, Relaxed);
    STRAY.store(0, Relaxed);
    let result = body();
    CALL.store(0, Relaxed);
    CAP.store(held().saturating_add(OWN_BYTES), Relaxed);
    ALLOWED.store(OWN_BYTES as u64, Relaxed);
    (result, account + held() - before - STRAY.swap(0, Relaxed))
}

/// Runs `body` within [`under_cap`] with what it allocates left out of the call's account: it is another's, and will be
/// freed when that one runs.
pub(crate) fn of_another<R>(body: impl FnOnce() -> R) -> R {
    let (before, cap) = (held(), CAP.load(Relaxed));
    CAP.store(before.saturating_add(OWN_BYTES), Relaxed);
    let result = body();
    let stray = held() - before;
    STRAY.store(STRAY.load(Relaxed) + stray, Relaxed);
    CAP.store(cap.saturating_add(stray), Relaxed);
    result
}

/// Runs `body` with allocations counted for the worker and not for the call that runs.
pub(crate) fn outside<R>(body: impl FnOnce() -> R) -> R {
    let former = OUTSIDE.swap(true, Relaxed);
    let result = body();
    OUTSIDE.store(former, Relaxed);
    result
}

/// What the system's allocator makes of a request: eight bytes more, a multiple of sixteen, 32 at least.
fn footprint(bytes: usize) -> isize {
    let whole = bytes.saturating_add(8 + 15) & !15;
    isize::try_from(whole.max(32)).unwrap_or(isize::MAX)
}

/// Counts `bytes` more, or ends the process.
fn count(bytes: isize) {
    if OUTSIDE.load(Relaxed) {
        let held = OUTSIDE_HELD.load(Relaxed).saturating_add(bytes);
        OUTSIDE_HELD.store(held, Relaxed);
        let cap = OUTSIDE_CAP.load(Relaxed);
        if held > cap && bytes > 0 {
            die(cap, held);
        }
        return;
    }
    let held = HELD.load(Relaxed).saturating_add(bytes);
    HELD.store(held, Relaxed);
    let cap = CAP.load(Relaxed);
    if held > cap && bytes > 0 {
        let allowed = ALLOWED.load(Relaxed);
        let over = u64::try_from(held.saturating_sub(cap)).unwrap_or(0);
        sys::say_last(CALL.load(Relaxed), LastWord::Memory { allowed, used: allowed.saturating_add(SLACK + over) });
    }
}

fn die(cap: isize, held: isize) -> ! {
    let number = |bytes: isize| u64::try_from(bytes).unwrap_or(0);
    sys::say_last(CALL.load(Relaxed), LastWord::Memory { allowed: number(cap), used: number(held) })
}

// SAFETY: every method hands its arguments on unchanged, either to the metered allocator or to the system's, on which
// that one stands itself, so that a block of one can be freed by the other. The counting touches plain statics and
// allocates nothing; where it ends the process, no caller goes on.
unsafe impl GlobalAlloc for CappedAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if ARMED.load(Relaxed) {
            count(footprint(layout.size()));
            if OUTSIDE.load(Relaxed) {
                // SAFETY: the caller's promises are those that the system's allocator asks for.
                return unsafe { System.alloc(layout) };
            }
        }
        // SAFETY: the caller's promises are those that the inner allocator asks for.
        unsafe { MeteredAllocator.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if ARMED.load(Relaxed) {
            count(-footprint(layout.size()));
            if OUTSIDE.load(Relaxed) {
                // SAFETY: as above; both allocators give blocks of the system's.
                return unsafe { System.dealloc(pointer, layout) };
            }
        }
        // SAFETY: as above.
        unsafe { MeteredAllocator.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if ARMED.load(Relaxed) {
            count(footprint(layout.size()));
            if OUTSIDE.load(Relaxed) {
                // SAFETY: as above.
                return unsafe { System.alloc_zeroed(layout) };
            }
        }
        // SAFETY: as above.
        unsafe { MeteredAllocator.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if ARMED.load(Relaxed) {
            count(footprint(new_size).saturating_sub(footprint(layout.size())));
            if OUTSIDE.load(Relaxed) {
                // SAFETY: as above.
                return unsafe { System.realloc(pointer, layout, new_size) };
            }
        }
        // SAFETY: as above.
        unsafe { MeteredAllocator.realloc(pointer, layout, new_size) }
    }
}
