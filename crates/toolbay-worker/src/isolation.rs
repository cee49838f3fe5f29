//! What keeps a worker process from everything but its socket, and what of that this system has.

#[cfg(target_os = "linux")]
mod linux;

/// The layers that a worker puts between itself and the system.
///
/// All are asked for by default. Taking one out is for systems on which it does harm; a runner that
/// [requires full isolation](crate::WorkerConfig::require_full_isolation) then refuses to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layers {
    /// Landlock: no file system, no TCP, no signals and no sockets beyond the process.
    pub landlock: bool,
    /// A filter of system calls: reading and writing the socket, memory, exit; nothing else.
    pub seccomp: bool,
}

impl Default for Layers {
    fn default() -> Self {
        Self { landlock: true, seccomp: true }
    }
}

/// What of the isolation is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Isolation {
    /// No file can be opened, by the kernel's Landlock.
    pub landlock: bool,
    /// No system call beyond the allowed few, by a seccomp filter.
    pub seccomp: bool,
    /// The process cannot gain rights, outlive its host, write core files, or hold more than a few descriptors.
    pub process_limits: bool,
    /// A call that goes over its memory limit ends the process: the worker's binary runs on
    /// [`CappedAlloc`](crate::CappedAlloc). Only a started worker can tell; [`probe`](Self::probe) takes it as given.
    pub memory_cap: bool,
}

impl Isolation {
    /// What this system offers, without starting a worker.
    #[must_use]
    pub fn probe() -> Self {
        #[cfg(target_os = "linux")]
        return linux::probe();
        #[cfg(not(target_os = "linux"))]
        Self { landlock: false, seccomp: false, process_limits: false, memory_cap: true }
    }

    /// Whether nothing is missing.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.missing().is_empty()
    }

    /// What is missing, each in words for an operator.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        let layers = [
            (self.landlock, "landlock (Linux 5.13 or later, enabled at boot)"),
            (self.seccomp, "seccomp filters (a Linux kernel built with them, on x86-64, arm64 or riscv64)"),
            (self.process_limits, "process limits and no_new_privs (Linux)"),
            (self.memory_cap, "the heap cap (the worker's program must declare toolbay_worker::CappedAlloc)"),
        ];
        layers.into_iter().filter(|(there, _)| !there).map(|(_, name)| name).collect()
    }
}

/// Locks the calling process down for good: descriptors, limits, Landlock, system-call filter. Says what took hold.
///
/// Called by a worker as the first thing it
/// does; public for those who test the lock itself.
#[must_use]
pub fn lock_down(layers: Layers) -> Isolation {
    #[cfg(target_os = "linux")]
    return linux::lock_down(layers);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = layers;
        Isolation { landlock: false, seccomp: false, process_limits: false, memory_cap: false }
    }
}
