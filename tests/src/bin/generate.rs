//! Makes programs up and runs them until a time is over: `scripts/fuzz`.
//!
//! The programs run in a child process, one after another through the library; this process watches its memory and its
//! progress, writes down the programs that broke a promise, and begins a new child after one that died.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for developers, whose output is its purpose"
)]

use std::{
    collections::BTreeMap,
    env, fs,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, Command, ExitCode, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use toolbay_tests::hostile::{
    alone::{self, Alone},
    generator, resident,
};

#[global_allocator]
static ALLOCATOR: alone::Counting = alone::Counting;

/// The deadline of each program.
const TIMEOUT: Duration = Duration::from_millis(20);

/// How much later a call may return: the promise is 25 ms, the rest is for a busy machine.
const OVERRUN: Duration = Duration::from_millis(100);

/// A child that says nothing for this long hangs.
const SILENCE: Duration = Duration::from_secs(20);

/// What a child may hold: the cap of a call, what one operation may take beyond it, and the host itself.
const MOST_BYTES: u64 = (64 + 64 + 128) << 20;

/// Every kind that a program may end with; a panic is none of them.
const KINDS: &[&str] = &[
    "ok",
    "Script",
    "Compile",
    "TimedOut",
    "LimitExceeded",
    "InvalidArguments",
    "PermissionDenied",
    "NotFound",
    "Config",
];

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let number = |name: &str, default: u64| {
        let place = args.iter().position(|arg| arg == name);
        place.and_then(|place| args.get(place + 1)).map_or(default, |text| text.parse().expect("a number"))
    };
    let seed = number("--seed", 1);
    if args.iter().any(|arg| arg == "--show") {
        println!("{}", generator::program(seed));
        return ExitCode::SUCCESS;
    }
    let (seconds, count) = (number("--seconds", 60), number("--count", u64::MAX));
    if args.iter().any(|arg| arg == "--child") {
        child(seed, seconds, count);
        return ExitCode::SUCCESS;
    }
    Hunt::new(seed).run(Duration::from_secs(seconds), count)
}

/// Runs the programs from `seed` on, and tells of each before and after.
fn child(seed: u64, seconds: u64, count: u64) {
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut host = Alone::new(TIMEOUT);
    let mut out = std::io::stdout();
    for seed in seed..seed.saturating_add(count) {
        if Instant::now() >= end {
            break;
        }
        let source = generator::program(seed);
        let _ = writeln!(out, "begin {seed}");
        let ended = host.run(&source);
        let kind = ended.kind.split(':').next().unwrap_or_default();
        let mut wrong = Vec::new();
        if !KINDS.contains(&kind) {
            wrong.push(format!("kind {kind}: {}", ended.text));
        }
        // The call or its compiling: whichever was too long.
        if ended.wall > TIMEOUT + OVERRUN {
            // Once more, since the machine may have been busy elsewhere.
            let again = host.run(&source);
            if again.wall > TIMEOUT + OVERRUN {
                wrong.push(format!("took {:?}, the call {:?}", again.wall, again.call));
            }
        }
        let before = alone::live_bytes();
        if ended.text.len() > 4 << 10 {
            wrong.push(format!("a message of {} bytes", ended.text.len()));
        }
        if seed % 64 == 0 && !host.is_well() {
            wrong.push("the next call fails".to_owned());
        }
        let mut grown = Vec::new();
        if seed % 8 == 0 {
            grown = (0..3).map(|_| grows_by(&mut host, &source)).collect();
        }
        if !grown.is_empty() && grown.iter().all(|bytes| *bytes > 4 << 10) && !host.finds_out(&source) {
            wrong.push(format!("leaves {grown:?} bytes behind with each call; {before} live before"));
        }
        for wrong in wrong {
            let _ = writeln!(out, "wrong {seed} {}", wrong.replace('\n', " "));
        }
        let _ = writeln!(out, "end {seed} {kind}");
    }
    let _ = writeln!(out, "done");
}

fn grows_by(host: &mut Alone, source: &str) -> isize {
    let before = alone::live_bytes();
    host.run(source);
    alone::settled(before) - before
}

/// The watch over the children.
struct Hunt {
    seed: u64,
    done: u64,
    kinds: BTreeMap<String, u64>,
    faults: Vec<(u64, String)>,
    most: u64,
}

impl Hunt {
    fn new(seed: u64) -> Self {
        Self { seed, done: 0, kinds: BTreeMap::new(), faults: Vec::new(), most: 0 }
    }

    fn run(mut self, time: Duration, count: u64) -> ExitCode {
        let began = Instant::now();
        while began.elapsed() < time && self.done < count {
            let left = (time - began.elapsed()).as_secs().max(1);
            self.watch(left, count - self.done);
        }
        println!(
            "{} programs in {:.0} s, up to seed {}; most memory {} MiB",
            self.done,
            began.elapsed().as_secs_f64(),
            self.seed,
            self.most >> 20
        );
        println!("kinds: {:?}", self.kinds);
        println!("{} faults", self.faults.len());
        if self.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// Tells of a broken promise at once, and keeps the program.
    fn fault(&mut self, seed: u64, what: String) {
        println!("seed {seed}: {what}");
        let folder = PathBuf::from(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into())).join("hostile");
        let _ = fs::create_dir_all(&folder);
        let _ = fs::write(folder.join(format!("{seed}.rhai")), generator::program(seed));
        self.faults.push((seed, what));
    }

    /// One child from its start to its end.
    fn watch(&mut self, seconds: u64, count: u64) {
        let (seed, first) = (self.seed.to_string(), self.seed);
        let mut child = Command::new(own_program())
            .args(["--child", "--seed", &seed, "--seconds", &seconds.to_string(), "--count", &count.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a child");
        let lines = lines(&mut child);
        let mut now = first;
        loop {
            match lines.recv_timeout(SILENCE) {
                Ok(line) => {
                    let mut words = line.splitn(3, ' ');
                    let (what, seed) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                    let rest = words.next().unwrap_or_default();
                    match what {
                        "begin" => now = seed.parse().expect("a seed"),
                        "wrong" => self.fault(now, rest.to_owned()),
                        "end" => {
                            self.done += 1;
                            *self.kinds.entry(rest.to_owned()).or_default() += 1;
                            self.seed = now + 1;
                            if self.weigh(&child, now) {
                                break;
                            }
                        }
                        _ => break,
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.fault(now, format!("HANGS for {SILENCE:?}"));
                    break;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let status = child.wait().expect("a child of our own");
                    self.fault(now, format!("DEATH: {status}"));
                    self.done += 1;
                    break;
                }
            }
        }
        self.seed = now + 1;
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Whether the child holds too much, in which case another one is begun.
    fn weigh(&mut self, child: &Child, seed: u64) -> bool {
        let held = resident(child.id()).unwrap_or(0);
        self.most = self.most.max(held);
        let too_much = held > MOST_BYTES;
        if too_much {
            self.fault(seed, format!("MEMORY: {} MiB", held >> 20));
        }
        too_much
    }
}

/// This very program, also after another build put a new one in its place.
fn own_program() -> PathBuf {
    if cfg!(target_os = "linux") { "/proc/self/exe".into() } else { env::current_exe().expect("a path of our own") }
}

/// What the child prints, line by line, without waiting for ever.
fn lines(child: &mut Child) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    let output = BufReader::new(child.stdout.take().expect("a pipe"));
    thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    receiver
}
