//! What a locked-down worker cannot do: open, create, connect, fork, run, trace, kill, map code; and, by trying every
//! system call that there is, anything else. Each attempt is made in a process of its own that has locked itself down
//! exactly as a worker does.
//!
//! Without a harness, since the lock must fall on a process with one thread.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a test, which the lints know only by its harness"
)]
#![allow(unsafe_code, reason = "escapes are tried by raw system calls")]

use std::{
    ffi::CString,
    fs,
    io::{self, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::net::UnixStream,
    process::{Command, Stdio},
    ptr,
    sync::atomic::{AtomicI32, Ordering::Relaxed},
    thread,
};

use toolbay_worker::{Layers, lock_down};

/// An attempt, and what it gives where it succeeds.
type Attempt = (&'static str, fn() -> io::Result<()>);

/// Made by a probe that is not locked, and removed afterwards.
const FOLDER: &str = "/dev/shm/toolbay-escape-folder";

fn call(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The probe's parent, asked for before the lock.
static PARENT: AtomicI32 = AtomicI32::new(0);

const FILES: [Attempt; 8] = [
    ("read a file", || fs::read("/etc/hostname").map(drop)),
    ("list a folder", || fs::read_dir("/").map(drop)),
    ("write a file", || fs::write("/dev/shm/toolbay-escape", "x")),
    ("remove a file", || fs::remove_file("/dev/shm/toolbay-escape-never")),
    ("read its own memory map", || fs::read("/proc/self/maps").map(drop)),
    ("make a folder", || fs::create_dir(FOLDER)),
    ("read a file by openat2", || {
        let how = [0_u64; 3];
        let (how, path) = (how.as_ptr(), c"/etc/hostname".as_ptr());
        // SAFETY: the pointers are to a live structure of the given size and to a terminated text.
        call(unsafe { libc::syscall(libc::SYS_openat2, libc::AT_FDCWD, path, how, 24) })
    }),
    // SAFETY: the pointer is to a terminated text.
    ("change its root", || call(unsafe { libc::chroot(c"/dev".as_ptr()) }.into())),
];

const NETWORK: [Attempt; 8] = [
    ("listen", || TcpListener::bind("127.0.0.1:0").map(drop)),
    ("connect", || TcpStream::connect("127.0.0.1:1").map(drop)),
    ("send a datagram", || UdpSocket::bind("127.0.0.1:0").map(drop)),
    ("send to an address", || {
        let address = [0_u8; 16];
        // SAFETY: the pointers are to live bytes of the given lengths.
        let sent = unsafe { libc::sendto(0, address.as_ptr().cast(), 1, 0, address.as_ptr().cast(), 16) };
        call(sent as libc::c_long)
    }),
    // SAFETY: the pointer is to a live byte.
    ("write elsewhere than to its log", || call(unsafe { libc::write(1, b"x".as_ptr().cast(), 1) } as libc::c_long)),
    ("send a descriptor", || {
        let message = [0_u64; 7];
        // SAFETY: a header of zeros is an empty message.
        call(unsafe { libc::syscall(libc::SYS_sendmsg, 0, message.as_ptr(), 0) })
    }),
    ("make a socket pair", || UnixStream::pair().map(drop)),
    // SAFETY: no pointer is passed.
    ("make a netlink socket", || call(unsafe { libc::syscall(libc::SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW, 0) })),
];

const PROCESSES: [Attempt; 13] = [
    ("run a program", || Command::new("/bin/true").status().map(drop)),
    ("start a thread", || thread::Builder::new().spawn(|| {}).map(drop)),
    ("fork", || {
        // SAFETY: where it succeeds, the child exits at once.
        let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
        if child == 0 {
            // SAFETY: no precondition.
            unsafe { libc::_exit(0) }
        }
        call(child)
    }),
    ("execute in place", || {
        let path = CString::new("/no/such/program")?;
        let arguments = [path.as_ptr(), ptr::null()];
        // SAFETY: the pointers are to live, terminated lists.
        call(unsafe { libc::execve(path.as_ptr(), arguments.as_ptr(), ptr::null()) }.into())
    }),
    ("fork by clone3", || {
        let mut arguments = [0_u64; 8];
        arguments[4] = libc::SIGCHLD as u64;
        // SAFETY: the pointer is to a live structure of the given size; where it succeeds, the child exits at once.
        let child = unsafe { libc::syscall(libc::SYS_clone3, arguments.as_ptr(), 64) };
        if child == 0 {
            // SAFETY: no precondition.
            unsafe { libc::_exit(0) }
        }
        call(child)
    }),
    ("execute from memory", || {
        // SAFETY: the name is a terminated text.
        let file = unsafe { libc::syscall(libc::SYS_memfd_create, c"x".as_ptr(), 0) };
        let arguments = [c"x".as_ptr(), ptr::null()];
        let (path, list) = (c"".as_ptr(), arguments.as_ptr());
        let none = ptr::null::<libc::c_char>();
        // SAFETY: the pointers are to live, terminated texts and lists. An empty file is no program.
        call(unsafe { libc::syscall(libc::SYS_execveat, file.max(0), path, list, none, libc::AT_EMPTY_PATH) })
    }),
    // SAFETY: no pointer is passed; seizing does not stop the other, and ends with this process.
    ("trace its parent", || call(unsafe { libc::ptrace(libc::PTRACE_SEIZE, PARENT.load(Relaxed), 0, 0) })),
    // SAFETY: signal 0 tests the permission only.
    ("signal its parent", || call(unsafe { libc::kill(PARENT.load(Relaxed), 0) }.into())),
    ("signal its parent's thread", || {
        let parent = PARENT.load(Relaxed);
        // SAFETY: as above.
        call(unsafe { libc::syscall(libc::SYS_tgkill, parent, parent, 0) })
    }),
    // SAFETY: no pointer is passed.
    ("become dumpable again", || call(unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1, 0, 0, 0) }.into())),
    ("read its parent's memory", || {
        let mut byte = 0_u8;
        let here = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let there = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        // SAFETY: the local buffer is live and one byte long.
        let read = unsafe { libc::process_vm_readv(PARENT.load(Relaxed), &raw const here, 1, &raw const there, 1, 0) };
        call(read as libc::c_long)
    }),
    ("take a descriptor of its parent", || {
        // SAFETY: no pointer is passed.
        call(unsafe { libc::syscall(libc::SYS_pidfd_open, PARENT.load(Relaxed), 0) })
    }),
    ("raise its own limits", || {
        let limit = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
        // SAFETY: the pointer is to a live value.
        call(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }.into())
    }),
];

const KERNEL: [Attempt; 9] = [
    ("map executable memory", || {
        let code = libc::PROT_READ | libc::PROT_EXEC;
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, which nobody uses.
        let mapped = unsafe { libc::mmap(ptr::null_mut(), 4_096, code, kind, -1, 0) };
        if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
    }),
    // SAFETY: the name is a terminated text.
    ("make a memory file", || call(unsafe { libc::syscall(libc::SYS_memfd_create, c"x".as_ptr(), 0) })),
    // SAFETY: the kernel refuses the null pointer where it gets that far, with another error.
    ("set up io_uring", || call(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, 0) })),
    // SAFETY: as above.
    ("load a BPF program", || call(unsafe { libc::syscall(libc::SYS_bpf, 0, 0, 0) })),
    // SAFETY: no pointer is passed.
    ("enter a namespace of its own", || call(unsafe { libc::unshare(libc::CLONE_NEWUSER) }.into())),
    // SAFETY: no pointer is passed.
    ("enter its parent's namespaces", || call(unsafe { libc::setns(0, 0) }.into())),
    ("mount a file system", || {
        let (none, kind) = (ptr::null(), c"tmpfs".as_ptr());
        // SAFETY: the pointers are to terminated texts, or null where that is allowed.
        call(unsafe { libc::mount(none, c"/no/such/folder".as_ptr(), kind, 0, ptr::null()) }.into())
    }),
    // SAFETY: no pointer is passed.
    ("become somebody else", || call(unsafe { libc::setuid(0) }.into())),
    // SAFETY: no pointer is passed.
    ("duplicate its socket", || call(unsafe { libc::dup(0) }.into())),
];

fn attempts() -> impl Iterator<Item = Attempt> {
    FILES.into_iter().chain(NETWORK).chain(PROCESSES).chain(KERNEL)
}

/// What a worker may call; `sendto` on its socket without an address only, and beside these `recvfrom` likewise, `write`
/// to its log, and what ends a process or a signal handler: the sweep does not try them.
const ALLOWED: [libc::c_long; 16] = [
    libc::SYS_sendto,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_clock_gettime,
    libc::SYS_getrandom,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigprocmask,
    libc::SYS_restart_syscall,
];
const UNTRIED: [libc::c_long; 4] = [libc::SYS_recvfrom, libc::SYS_rt_sigreturn, libc::SYS_exit, libc::SYS_exit_group];
/// The numbers of x86-64 that are no calls but ways back from probes of the kernel: no filter is asked, and a program
/// that makes them itself gets SIGILL.
const WAYS_BACK: std::ops::RangeInclusive<libc::c_long> = 335..=336;

/// Every number that is or may become a system call, with no arguments; on x86-64 also those of its 32-bit variant.
fn sweep() -> String {
    let variants: &[libc::c_long] = if cfg!(target_arch = "x86_64") { &[0, 0x4000_0000] } else { &[0] };
    let numbers = variants.iter().flat_map(|base| (0..1_024).map(move |number| base + number));
    let mut open = Vec::new();
    let is_tried = |number: &libc::c_long| {
        let is_way_back = cfg!(target_arch = "x86_64") && WAYS_BACK.contains(number);
        !UNTRIED.contains(number) && !is_way_back
    };
    for number in numbers.filter(is_tried) {
        // SAFETY: whatever is not refused gets null pointers and descriptor 0, and does nothing of use with them.
        let refused = call(unsafe { libc::syscall(number, 0, 0, 0, 0, 0, 0) });
        if refused.err().and_then(|error| error.raw_os_error()) != Some(libc::EPERM) {
            open.push(number.to_string());
        }
    }
    open.join(" ")
}

/// The descriptors that are open, found without opening any.
fn descriptors() -> String {
    // SAFETY: reads the flags of a descriptor, if there is one.
    let is_open = |descriptor: &libc::c_int| unsafe { libc::fcntl(*descriptor, libc::F_GETFD) } >= 0;
    (0..4_096).filter(is_open).map(|descriptor| descriptor.to_string()).collect::<Vec<_>>().join(" ")
}

/// On x86-64, system calls have a second entrance, with numbers of their own.
#[cfg(target_arch = "x86_64")]
fn by_the_old_gate() {
    // The numbers are those of 32-bit programs: 20 is getpid.
    // SAFETY: the call has no arguments; it changes the register of its result only.
    unsafe { std::arch::asm!("int 0x80", inlateout("eax") 20 => _) };
}
#[cfg(not(target_arch = "x86_64"))]
fn by_the_old_gate() {
    std::process::abort();
}

/// The locked-down side: one line an attempt, in the order of the list.
fn probe(layers: Layers, what: &str) {
    // SAFETY: no precondition.
    PARENT.store(unsafe { libc::getppid() }, Relaxed);
    let before = descriptors();
    let isolation = lock_down(layers);
    let special = match what {
        "sweep" => Some(sweep()),
        "descriptors" => Some(format!("{before}/{}", descriptors())),
        "gate" => {
            by_the_old_gate();
            Some("DONE".to_owned())
        }
        _ => None,
    };
    if let Some(report) = special {
        let _ = io::stderr().write_all(report.as_bytes());
        return;
    }
    let mut report = format!("{isolation:?}\n");
    for (name, attempt) in attempts() {
        report += &match attempt() {
            Ok(()) => format!("{name}: DONE\n"),
            Err(error) => format!("{name}: {}\n", error.raw_os_error().unwrap_or_default()),
        };
    }
    let _ = io::stderr().write_all(report.as_bytes());
}

/// Runs a probe, and gives what it wrote.
fn run(layers: &str, what: &str) -> String {
    let (here, there) = UnixStream::pair().expect("a socket pair");
    let child = Command::new(std::env::current_exe().expect("this program"))
        .args(["probe", layers, what])
        .env_clear()
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(there)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a probe");
    let output = child.wait_with_output().expect("its report");
    drop(here);
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Runs all attempts, and gives for each the error's number, or `None` where it succeeded.
fn results(layers: &str) -> Vec<(String, Option<i32>)> {
    let text = run(layers, "attempts");
    let line = |line: &str| {
        let (name, result) = line.rsplit_once(": ")?;
        let is_attempt = attempts().any(|(attempt, _)| attempt == name);
        is_attempt
            .then(|| (name.to_owned(), if result == "DONE" { None } else { Some(result.parse().expect("a number")) }))
    };
    // Programs that were started in spite of everything write here, too.
    text.lines().filter_map(line).collect()
}

/// Behind the whole lock, each attempt is refused, by the filter.
fn every_escape_is_refused() {
    let results = results("all");
    assert_eq!(results.len(), attempts().count(), "{results:?}");
    for (name, error) in results {
        assert_eq!(error, Some(libc::EPERM), "{name}");
    }
}

/// No system call passes but the few that a worker needs.
fn nothing_but_the_list_is_allowed() {
    let report = run("all", "sweep");
    let mut open: Vec<libc::c_long> =
        report.split_whitespace().map(|number| number.parse().unwrap_or_else(|_| panic!("{report}"))).collect();
    let mut allowed = ALLOWED;
    open.sort_unstable();
    allowed.sort_unstable();
    assert_eq!(open, allowed, "system calls that were not refused, and those that should not be");
}

/// The other entrance is shut, too: its first use ends the process.
fn the_old_gate_is_shut() {
    assert_eq!(run("all", "gate"), "");
}

/// A descriptor that the host forgot to mark is inherited, and closed by the lock: socket, null device, log are left.
fn no_descriptor_is_inherited() {
    let forgotten = fs::File::open("/dev/null").expect("a descriptor");
    let descriptor = std::os::fd::AsRawFd::as_raw_fd(&forgotten);
    // SAFETY: clears a flag of a descriptor that is open.
    assert_eq!(unsafe { libc::fcntl(descriptor, libc::F_SETFD, 0) }, 0);
    let report = run("landlock", "descriptors");
    let (before, after) = report.split_once('/').expect("two lists");
    assert!(before.split(' ').any(|inherited| *inherited == *descriptor.to_string()), "{report}");
    assert_eq!(after, "0 1 2");
}

/// Without the filter, files and TCP are still refused, by Landlock.
fn landlock_alone_still_keeps_files_and_tcp_away() {
    let results = results("landlock");
    let error = |name: &str| results.iter().find(|(other, _)| other == name).expect("the attempt").1;
    assert_eq!(error("make a folder"), Some(libc::EACCES));
    for name in ["read a file", "list a folder", "write a file", "listen", "connect"] {
        // What needs a descriptor fails for the lack of one before Landlock is asked.
        assert!(matches!(error(name), Some(libc::EACCES | libc::EMFILE)), "{name}: {:?}", error(name));
    }
}

/// Without any lock the same attempts do work: the probe tries what it says.
fn the_probe_would_notice_an_open_door() {
    let results = results("none");
    for name in ["fork", "fork by clone3", "make a netlink socket", "map executable memory", "make a folder"] {
        let error = results.iter().find(|(other, _)| other == name).expect("the attempt").1;
        assert!(matches!(error, None | Some(libc::EMFILE | libc::EAGAIN)), "{name}: {error:?}");
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|first| first == "probe") {
        let which = arguments.get(2).map_or("all", String::as_str);
        let what = arguments.get(3).map_or("attempts", String::as_str);
        return probe(Layers { landlock: which != "none", seccomp: which == "all" }, what);
    }
    // A test runner asks what there is before it runs it, and again for what is to be passed over.
    if arguments.iter().any(|argument| argument == "--list") {
        if !arguments.iter().any(|argument| argument == "--ignored") {
            println!("every_escape_is_refused: test");
        }
        return;
    }
    let _ = fs::remove_dir(FOLDER);
    every_escape_is_refused();
    nothing_but_the_list_is_allowed();
    the_old_gate_is_shut();
    no_descriptor_is_inherited();
    landlock_alone_still_keeps_files_and_tcp_away();
    the_probe_would_notice_an_open_door();
    let _ = fs::remove_dir(FOLDER);
    println!("escape: {} attempts refused", attempts().count());
}
