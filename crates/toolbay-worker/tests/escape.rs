//! What a locked-down worker cannot do: open, create, connect, fork, run, trace, kill, map code. Each attempt is made in
//! a process of its own that has locked itself down exactly as a worker does.
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
    ptr, thread,
};

use toolbay_worker::{Layers, lock_down};

/// An attempt, and what it gives where it succeeds.
type Attempt = (&'static str, fn() -> io::Result<()>);

/// Made by a probe that is not locked, and removed afterwards.
const FOLDER: &str = "/dev/shm/toolbay-escape-folder";

fn call(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

const FILES: [Attempt; 6] = [
    ("read a file", || fs::read("/etc/hostname").map(drop)),
    ("list a folder", || fs::read_dir("/").map(drop)),
    ("write a file", || fs::write("/dev/shm/toolbay-escape", "x")),
    ("remove a file", || fs::remove_file("/dev/shm/toolbay-escape-never")),
    ("read its own memory map", || fs::read("/proc/self/maps").map(drop)),
    ("make a folder", || fs::create_dir(FOLDER)),
];

const NETWORK: [Attempt; 5] = [
    ("listen", || TcpListener::bind("127.0.0.1:0").map(drop)),
    ("connect", || TcpStream::connect("127.0.0.1:1").map(drop)),
    ("send a datagram", || UdpSocket::bind("127.0.0.1:0").map(drop)),
    ("make a socket pair", || UnixStream::pair().map(drop)),
    // SAFETY: no pointer is passed.
    ("make a netlink socket", || call(unsafe { libc::syscall(libc::SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW, 0) })),
];

const PROCESSES: [Attempt; 9] = [
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
    // SAFETY: no pointer is passed.
    ("trace a process", || call(unsafe { libc::ptrace(libc::PTRACE_ATTACH, 4_194_303, 0, 0) })),
    // SAFETY: signal 0 tests the permission only.
    ("signal its parent", || call(unsafe { libc::kill(libc::getppid(), 0) }.into())),
    ("read its parent's memory", || {
        let mut byte = 0_u8;
        let here = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let there = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        // SAFETY: the local buffer is live and one byte long.
        call(unsafe { libc::process_vm_readv(1, &raw const here, 1, &raw const there, 1, 0) } as libc::c_long)
    }),
    ("take a descriptor of its parent", || {
        // SAFETY: no pointer is passed.
        call(unsafe { libc::syscall(libc::SYS_pidfd_open, 1, 0) })
    }),
    ("raise its own limits", || {
        let limit = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
        // SAFETY: the pointer is to a live value.
        call(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }.into())
    }),
];

const KERNEL: [Attempt; 7] = [
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
    ("become somebody else", || call(unsafe { libc::setuid(0) }.into())),
    // SAFETY: no pointer is passed.
    ("duplicate its socket", || call(unsafe { libc::dup(0) }.into())),
];

fn attempts() -> impl Iterator<Item = Attempt> {
    FILES.into_iter().chain(NETWORK).chain(PROCESSES).chain(KERNEL)
}

/// The locked-down side: one line an attempt, in the order of the list.
fn probe(layers: Layers) {
    let isolation = lock_down(layers);
    let mut report = format!("{isolation:?}\n");
    for (name, attempt) in attempts() {
        report += &match attempt() {
            Ok(()) => format!("{name}: DONE\n"),
            Err(error) => format!("{name}: {}\n", error.raw_os_error().unwrap_or_default()),
        };
    }
    let _ = io::stderr().write_all(report.as_bytes());
}

/// Runs a probe, and gives for each attempt the error's number, or `None` where it succeeded.
fn results(layers: &str) -> Vec<(String, Option<i32>)> {
    let (here, there) = UnixStream::pair().expect("a socket pair");
    let child = Command::new(std::env::current_exe().expect("this program"))
        .args(["probe", layers])
        .env_clear()
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(there)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a probe");
    let output = child.wait_with_output().expect("its report");
    drop(here);
    let text = String::from_utf8_lossy(&output.stderr);
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
    for name in ["fork", "make a netlink socket", "map executable memory", "make a folder"] {
        let error = results.iter().find(|(other, _)| other == name).expect("the attempt").1;
        assert!(matches!(error, None | Some(libc::EMFILE | libc::EAGAIN)), "{name}: {error:?}");
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|first| first == "probe") {
        let which = arguments.get(2).map_or("all", String::as_str);
        return probe(Layers { landlock: which != "none", seccomp: which == "all" });
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
    landlock_alone_still_keeps_files_and_tcp_away();
    the_probe_would_notice_an_open_door();
    let _ = fs::remove_dir(FOLDER);
    println!("escape: {} attempts refused", attempts().count());
}
