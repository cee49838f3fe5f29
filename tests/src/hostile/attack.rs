//! One program in a process of its own: its memory and its time are watched from outside, where nothing that it does
//! can reach.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use super::corpus::Program;

/// After its deadline a process is given this long before it is killed and counted as hanging.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often a running process is looked at.
const GLANCE: Duration = Duration::from_millis(2);

/// Where programs are run: the binary, what else is passed to it, and a folder of its own.
pub struct Range {
    binary: PathBuf,
    extra: Vec<String>,
    folder: TempDir,
}

/// What became of a run.
#[derive(Debug)]
pub struct Outcome {
    /// `ok`, the error's kind, `LimitExceeded:LIMIT`, or `no result` where the process printed none.
    pub kind: String,
    /// How the process died, if it did not end by itself.
    pub death: Option<String>,
    /// What the call itself says that it took; nothing for what did not compile.
    pub duration: Option<Duration>,
    /// From the start of the process to its end.
    pub wall: Duration,
    /// The most memory that the process held, as the system counts it.
    pub resident: u64,
    /// The error's message, or the beginning of the data.
    pub text: String,
    /// The wire result, or nothing.
    pub wire: Value,
    /// All that was printed.
    pub printed: String,
}

impl Range {
    /// A range for `binary`, which is passed `extra` with each program.
    #[must_use]
    pub fn new(binary: PathBuf, extra: Vec<String>) -> Self {
        Self { binary, extra, folder: tempfile::tempdir().expect("a folder for the programs") }
    }

    /// The folder that the programs lie in, which no output may name.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The memory and the time of a process that runs a program which does nothing: the median of five.
    #[must_use]
    pub fn baseline(&self, timeout: Duration) -> (u64, Duration) {
        let nothing = Program {
            class: "baseline".to_owned(),
            name: "nothing".to_owned(),
            expected: Vec::new(),
            args: Vec::new(),
            timeout: None,
            source: b"1".to_vec(),
        };
        let mut runs: Vec<Outcome> = (0..5).map(|_| self.run(&nothing, timeout)).collect();
        runs.sort_by_key(|run| run.wall);
        (runs.iter().map(|run| run.resident).max().unwrap_or(0), runs[runs.len() / 2].wall)
    }

    /// Runs `program` with this deadline, or with its own.
    #[must_use]
    pub fn run(&self, program: &Program, timeout: Duration) -> Outcome {
        let timeout = program.timeout.unwrap_or(timeout);
        let stem = format!("{}-{}-{}", program.class, program.name, timeout.as_millis());
        let path = |ending: &str| self.folder.path().join(format!("{stem}.{ending}"));
        fs::write(path("rhai"), &program.source).expect("the program is written");
        let create = |ending: &str| File::create(path(ending)).expect("a file for the output");
        let began = Instant::now();
        let mut child = Command::new(&self.binary)
            .arg("code")
            .arg(path("rhai"))
            .args(["--timeout", &format!("{}ms", timeout.as_millis())])
            .args(&program.args)
            .args(&self.extra)
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            // Writing a panic down with all its calls takes a hundred megabytes and a third of a second.
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null())
            .stdout(create("out"))
            .stderr(create("err"))
            .spawn()
            .expect("the binary starts");
        let (ended, seen) = watch(&mut child, began + timeout + PATIENCE);
        let wall = began.elapsed();
        let printed = String::from_utf8_lossy(&fs::read(path("out")).expect("its output")).into_owned();
        let complaint = String::from_utf8_lossy(&fs::read(path("err")).expect("its errors")).into_owned();
        for ending in ["rhai", "out", "err"] {
            let _ = fs::remove_file(path(ending));
        }
        Outcome::new(ended, wall, seen, printed, &complaint)
    }
}

impl Outcome {
    fn new(ended: Option<ExitStatus>, wall: Duration, resident: u64, printed: String, complaint: &str) -> Self {
        let wire: Value = serde_json::from_str(&printed).unwrap_or_default();
        let error = &wire["error"];
        let kind = match (wire["success"].as_bool(), error["kind"].as_str()) {
            (Some(true), _) => "ok".to_owned(),
            (_, Some("LimitExceeded")) => {
                format!("LimitExceeded:{}", error["details"]["limit"].as_str().unwrap_or_else(|| limit_in_words(error)))
            }
            (_, Some(kind)) => kind.to_owned(),
            (_, None) => "no result".to_owned(),
        };
        let text = match error["message"].as_str() {
            Some(message) => message.to_owned(),
            None if wire.is_null() => complaint.to_owned(),
            None => wire["data"].to_string(),
        };
        let duration = wire["metadata"]["duration_ms"].as_f64().map(|ms| Duration::from_secs_f64(ms / 1_000.0));
        Self {
            kind,
            death: death(ended, complaint),
            duration,
            wall,
            resident,
            text: text.chars().take(300).collect(),
            wire,
            printed,
        }
    }
}

/// The limit of a load error, which has no details on the wire.
fn limit_in_words(error: &Value) -> &'static str {
    let message = error["message"].as_str().unwrap_or_default();
    if message.contains("bytes of source") { "source_size" } else { "compile" }
}

/// How the process died: a signal, a hang that ended in a kill, or a panic's exit status.
fn death(ended: Option<ExitStatus>, complaint: &str) -> Option<String> {
    let Some(status) = ended else { return Some("it never ended".to_owned()) };
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return Some(format!("signal {signal}"));
    }
    // A status of 1 or 2 is the command's own answer.
    match status.code() {
        Some(0..=2) if complaint.contains("panicked at") => Some("a panic's text on standard error".to_owned()),
        Some(0..=2) => None,
        code => Some(format!("exit status {code:?}")),
    }
}

/// Waits for the process until `end` and kills it then; gives its status, if it ended by itself, and its largest memory.
fn watch(child: &mut Child, end: Instant) -> (Option<ExitStatus>, u64) {
    let mut most = 0;
    loop {
        most = most.max(resident_with_children(child.id()));
        if let Some(status) = child.try_wait().expect("a child of our own") {
            return (Some(status), most);
        }
        if Instant::now() >= end {
            child.kill().expect("a child of our own");
            child.wait().expect("a child of our own");
            return (None, most);
        }
        // Not an expectation of any test: only how finely memory is seen.
        thread::sleep(GLANCE);
    }
}

/// As [`resident`], with the processes that it started: workers hold what their scripts hold.
fn resident_with_children(process: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let children = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let listed = children.collect::<Vec<_>>().join(" ");
    let children = listed.split_whitespace().filter_map(|child| resident(child.parse().ok()?)).sum::<u64>();
    resident(process).unwrap_or(0) + children
}

/// The most memory that a process held so far; nothing where the system does not tell.
#[must_use]
pub fn resident(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}
