//! The lock of a worker on Linux: descriptors, limits, Landlock, seccomp, in this order, since each takes away what the
//! one before it needs.
#![allow(
    unsafe_code,
    reason = "prctl, setrlimit and close_range have no safe interface; the reasons stand at each block"
)]

use std::collections::BTreeMap;

use landlock::{ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus, Scope};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use super::{Isolation, Layers};

/// The newest Landlock whose whole set of restrictions is asked for; older kernels give what they have.
const LANDLOCK: ABI = ABI::V6;
/// Processor time of a whole worker's life, in seconds: for one that runs on although its host is stuck.
const CPU_SECONDS: u64 = 3_600;

pub(super) fn probe() -> Isolation {
    // SAFETY: asks for the version only; no pointer is passed.
    let landlock = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, 1_u32) };
    // SAFETY: reads a property of the process.
    let seccomp = unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) };
    Isolation {
        landlock: landlock >= 1,
        seccomp: seccomp >= 0 && filter().is_some(),
        process_limits: true,
        memory_cap: true,
    }
}

pub(super) fn lock_down(layers: Layers) -> Isolation {
    let mut process_limits = close_descriptors() & limit_process();
    let landlock = layers.landlock && forbid_files();
    // After Landlock, whose set of rules is a descriptor for a moment.
    process_limits &= limit(libc::RLIMIT_NOFILE, 3);
    let seccomp = layers.seccomp && filter().is_some_and(|filter| seccompiler::apply_filter(&filter).is_ok());
    Isolation { landlock, seccomp, process_limits, memory_cap: false }
}

/// Closes all but socket, null device and log.
fn close_descriptors() -> bool {
    // SAFETY: closes descriptors that nothing of ours uses: a worker begins with this.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) } == 0;
    if !closed {
        for descriptor in 3..1_024 {
            // SAFETY: as above.
            unsafe { libc::close(descriptor) };
        }
    }
    std::env::set_current_dir("/").is_ok()
}

fn limit_process() -> bool {
    // SAFETY: these prctl calls take numbers only.
    let set = |option, value: libc::c_ulong| unsafe { libc::prctl(option, value, 0, 0, 0) } == 0;
    let mut done = set(libc::PR_SET_NO_NEW_PRIVS, 1)
        & set(libc::PR_SET_DUMPABLE, 0)
        & set(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong);
    // A huge page would commit two megabytes where a few kilobytes are used. Where the kernel has none, nothing is lost.
    let _ = set(libc::PR_SET_THP_DISABLE, 1);
    // No limit on address space: stacks of calls reserve hundreds of megabytes each and touch a few pages. Memory that is
    // really used is bounded by the allocator's cap and by the host, which watches the process from outside.
    for (resource, value) in [
        (libc::RLIMIT_CORE, 0),
        (libc::RLIMIT_NPROC, 0),
        (libc::RLIMIT_FSIZE, 0),
        (libc::RLIMIT_MEMLOCK, 0),
        (libc::RLIMIT_CPU, CPU_SECONDS),
    ] {
        done &= limit(resource, value);
    }
    done
}

fn limit(resource: libc::__rlimit_resource_t, value: u64) -> bool {
    let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: the pointer is to a live value that the call only reads.
    unsafe { libc::setrlimit(resource, &raw const limit) == 0 }
}

/// Denies everything that this kernel's Landlock can deny. Files are what counts; what an older kernel lacks (TCP,
/// signals) the system-call filter denies too.
fn forbid_files() -> bool {
    let restrict = || -> Result<RulesetStatus, landlock::RulesetError> {
        let status = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(LANDLOCK))?
            .handle_access(AccessNet::from_all(LANDLOCK))?
            .scope(Scope::from_all(LANDLOCK))?
            .create()?
            .restrict_self()?;
        Ok(status.ruleset)
    };
    matches!(restrict(), Ok(RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced))
}

/// The system calls that a worker makes after its start; all others fail with `EPERM`.
fn filter() -> Option<BpfProgram> {
    let is = |argument: u8, value: u64| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value).ok()
    };
    let whole_is = |argument: u8, value: u64| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, value).ok()
    };
    let lacks = |argument: u8, bits: i32| {
        let bits = u64::try_from(bits).ok()?;
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(bits), 0).ok()
    };
    let rule = |conditions: Vec<SeccompCondition>| SeccompRule::new(conditions).ok();
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    // The socket, without addresses, and the log.
    rules.insert(libc::SYS_recvfrom, vec![rule(vec![is(0, 0)?, whole_is(4, 0)?])?]);
    rules.insert(libc::SYS_sendto, vec![rule(vec![is(0, 0)?, whole_is(4, 0)?])?]);
    rules.insert(libc::SYS_write, vec![rule(vec![is(0, 2)?])?]);
    // Memory that is never executed.
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        rules.insert(call, vec![rule(vec![lacks(2, libc::PROT_EXEC)?])?]);
    }
    for call in [
        libc::SYS_munmap,
        libc::SYS_mremap,
        libc::SYS_madvise,
        libc::SYS_brk,
        libc::SYS_futex,
        libc::SYS_clock_gettime,
        libc::SYS_getrandom,
        // Rhai waits a few times for a variable that is in use; std takes a refusal for a bug and panics. A call that
        // sleeps is killed at its deadline like any other.
        libc::SYS_nanosleep,
        libc::SYS_clock_nanosleep,
        libc::SYS_sched_yield,
        libc::SYS_sigaltstack,
        libc::SYS_rt_sigreturn,
        libc::SYS_rt_sigprocmask,
        libc::SYS_restart_syscall,
        libc::SYS_exit,
        libc::SYS_exit_group,
    ] {
        rules.insert(call, Vec::new());
    }
    let architecture = std::env::consts::ARCH.try_into().ok()?;
    let refuse = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    SeccompFilter::new(rules, refuse, SeccompAction::Allow, architecture).ok()?.try_into().ok()
}
