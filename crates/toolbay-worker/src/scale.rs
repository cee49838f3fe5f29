//! What a worker's process weighs, seen from outside: the bound that rests on nothing inside it.
//!
//! The allocator's cap does not see the stacks that a script's recursion fills, and trusts the process that it is in.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use crate::sys;

/// What a worker may weigh above what it weighed when it was ready, what it holds for itself, and what its calls may
/// hold.
const ALLOWANCE: u64 = 16 << 20;

/// Weighs one process.
pub(crate) struct Scale {
    /// The kernel's own record of the process's memory, in pages. Missing where the system has no such file.
    record: Option<File>,
    empty: u64,
    /// Bytes of heap while idle, and of packaged files: what belongs to no call.
    own: AtomicU64,
    files: AtomicU64,
}

impl Scale {
    /// The scale of a process that is ready and has done nothing yet.
    pub(crate) fn of(pid: u32) -> Self {
        let record = File::open(format!("/proc/{pid}/statm")).ok();
        let mut scale = Self { record, empty: 0, own: AtomicU64::new(0), files: AtomicU64::new(0) };
        scale.empty = scale.weigh().unwrap_or_default();
        scale
    }

    /// Bytes of memory that the process has now.
    pub(crate) fn weigh(&self) -> Option<u64> {
        let mut text = [0; 128];
        let read = self.record.as_ref()?.read_at(&mut text, 0).ok()?;
        let text = std::str::from_utf8(text.get(..read)?).ok()?;
        let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
        Some(pages.saturating_mul(sys::page_bytes()))
    }

    /// Notes what the heap holds while no call runs.
    ///
    /// The figure is the worker's own, so that a hostile one could ask for anything: it gets no more than this.
    pub(crate) fn note_own(&self, bytes: u64) {
        const MOST: u64 = 64 << 20;
        self.own.store(bytes.min(MOST), Relaxed);
    }

    /// Notes packaged files that were sent, with what they become when they are parsed.
    pub(crate) fn note_files(&self, bytes: u64) {
        self.files.fetch_add(bytes.saturating_mul(8), Relaxed);
    }

    /// What the process weighs, if that is more than it may while its calls may hold `calls` bytes together.
    pub(crate) fn excess(&self, calls: u64) -> Option<u64> {
        let allowed = [self.own.load(Relaxed), self.files.load(Relaxed), calls, ALLOWANCE];
        let allowed = allowed.iter().fold(self.empty, |sum, bytes| sum.saturating_add(*bytes));
        self.weigh().filter(|weight| *weight > allowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_weighs_something_and_more_when_it_holds_more() {
        let scale = Scale::of(std::process::id());
        let (before, held) = (scale.weigh().unwrap(), vec![1_u8; 64 << 20]);
        assert!(scale.excess(8 << 20).is_some_and(|weight| weight > before + (48 << 20)), "{}", held.len());
        assert_eq!(scale.excess(1 << 30), None);
    }
}
