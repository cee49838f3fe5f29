//! The few system calls that the standard library has no safe form for: sockets, the clock, a worker's last words.
//!
//! What a worker calls works in a process that may do nearly nothing: no file can be opened, no thread made.
#![allow(unsafe_code, reason = "thin wrappers of system calls; the reasons stand at each block")]

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
    ptr,
    time::Duration,
};

use tokio::io::{Interest, unix::AsyncFd};

use crate::{alloc, frame, frame::LastWord};

/// The worker's end of the socket pair: its standard input.
const SOCKET: libc::c_int = 0;

/// The worker's socket.
pub(crate) fn socket() -> BorrowedFd<'static> {
    // SAFETY: a worker is started with its socket there, and nothing in it ever closes it.
    unsafe { BorrowedFd::borrow_raw(SOCKET) }
}

/// The exit code of a worker that went over its heap cap, for operators; the host learns it from the last frame.
pub const EXIT_MEMORY: i32 = 137;
/// The exit code of a worker that met a signal such as a stack overflow's.
pub const EXIT_SIGNAL: i32 = 134;
/// The exit code of a worker that was started by something else than a host, or got a frame that it cannot read.
pub const EXIT_PROTOCOL: i32 = 76;

/// Whether to wait for bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    UntilThere,
    No,
}

/// Bytes received at once at least, if they are there.
pub(crate) const AT_ONCE: usize = 64 << 10;

/// Appends what has come to `buffer`. `Ok(0)` means that the other side is gone, `WouldBlock` that nothing is there.
pub(crate) fn receive(socket: BorrowedFd<'_>, buffer: &mut Vec<u8>, wait: Wait) -> io::Result<usize> {
    buffer.reserve(AT_ONCE);
    let flags = match wait {
        Wait::UntilThere => 0,
        Wait::No => libc::MSG_DONTWAIT,
    };
    let spare = buffer.spare_capacity_mut();
    // SAFETY: the pointer and length are those of the vector's spare room, which nobody else sees meanwhile.
    let received = unsafe { libc::recv(socket.as_raw_fd(), spare.as_mut_ptr().cast(), spare.len(), flags) };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the system wrote that many bytes at the start of the spare room.
    unsafe { buffer.set_len(buffer.len() + received) };
    Ok(received)
}

/// Has the runtime tell when `socket` can be read or written. It is given a descriptor of its own, since it watches each
/// only once.
///
/// # Errors
/// The system's own.
pub(crate) fn watch(socket: BorrowedFd<'_>, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    let descriptor = socket.try_clone_to_owned()?;
    // SAFETY: the descriptor is open, is the runtime's alone, and stays the same until it is dropped with the result.
    unsafe { AsyncFd::register_with_interest(descriptor, interest) }.map_err(|error| error.into_parts().1)
}

/// Sends all of `bytes`.
pub(crate) fn send(bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        // SAFETY: pointer and length are those of a live slice.
        let sent = unsafe { libc::send(SOCKET, rest.as_ptr().cast(), rest.len(), libc::MSG_NOSIGNAL) };
        match usize::try_from(sent) {
            Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(())
}

/// Tells the host why the process ends, and ends it. Allocates nothing and may be called from a signal handler.
pub(crate) fn say_last(call: u64, last_word: LastWord) -> ! {
    let frame = frame::dying_frame(call, last_word);
    let _ = send(&frame);
    exit(match last_word {
        LastWord::Memory { .. } => EXIT_MEMORY,
        LastWord::Signal(_) => EXIT_SIGNAL,
    })
}

/// Gives freed memory back to the system, so that a small call does not carry the weight of a large one before it.
pub(crate) fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no precondition; the process has one thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The system's monotonic clock, which host and worker share: an [`Instant`](std::time::Instant) cannot be sent.
pub(crate) fn monotonic() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live value that the call only writes. It cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    Duration::new(u64::try_from(now.tv_sec).unwrap_or_default(), u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// Bytes of a page of memory.
pub(crate) fn page_bytes() -> u64 {
    // SAFETY: reads a constant of the system.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4_096)
}

/// Ends the process at once: no destructor and no exit handler runs.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: `_exit` has no precondition.
    unsafe { libc::_exit(code) }
}

/// Has the signals of broken programs tell the host which call it was. Rust's own runtime has made the stack that the
/// handler runs on, since the one that overflowed cannot carry it.
pub(crate) fn catch_signals() {
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT, libc::SIGXCPU, libc::SIGSYS]
    {
        // SAFETY: the structure is plain data for which zeros are a valid beginning; the handler is a function of the
        // right form that only reads atomics, sends from its own stack and exits.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_signal as *const () as usize;
            action.sa_flags = libc::SA_ONSTACK | libc::SA_NODEFER;
            libc::sigaction(signal, &raw const action, ptr::null_mut());
        }
    }
}

extern "C" fn on_signal(signal: libc::c_int) {
    say_last(alloc::running(), LastWord::Signal(u32::try_from(signal).unwrap_or_default()))
}
