//! The command line, as a user meets it: the real binary, its output and its status.
//!
//! `help` holds the texts; `plugins` new, check and tools; `calls` and `batch` the call; `code` programs; `config` the configuration
//! file; `databases` what looks after them; `looking_after` tenants, keys and what they have of plugins; `operators` what tells of
//! plugins and keeps up with them; `agents`, `approvals` and `serving` the long-running commands; `servers` MCP servers as
//! plugins; `tokens` those of an authorization server; `recordings`, `telemetry` and the rest what their names say.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what is allowed in tests is allowed in what only tests call"
)]

mod agents;
mod approvals;
mod batch;
mod calls;
mod code;
mod coming_again;
mod config;
mod databases;
mod help;
mod looking_after;
mod operators;
mod plugins;
mod recordings;
mod servers;
mod serving;
mod telemetry;
mod tokens;

use std::{
    io::{PipeWriter, Write},
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// A plugin with a tool for each thing that the tests want to see happen.
const KIT: &str = r#"
const PLUGIN = #{ name: "kit", version: "1.2.3", description: "Tools for tests.", author: "The tests",
    permissions: ["kv:read", "kv:write"],
    config_schema: #{ type: "object", properties: #{ base: #{ type: "string" } } },
    tools: #{
        echo: #{ description: "Gives back what it is given.", parameters: #{ type: "object", required: ["value"], properties: #{ value: #{} } },
            annotations: #{ read_only: true } },
        whoami: #{ description: "Tells the tenant." },
        spin: #{ description: "Never ends." },
        fill: #{ description: "Gives a long text.", parameters: #{ type: "object", properties: #{ length: #{ type: "integer" } } } },
        base: #{ description: "Tells its configuration." },
        count: #{ description: "Counts its calls." },
        refuse: #{ description: "Fails." } } };
fn echo(args, cx) { args.value }
fn whoami(args, cx) { cx.tenant }
fn spin(args, cx) { let n = 0; loop { n += 1; } }
fn fill(args, cx) { let text = ""; text.pad(args.length, "x"); text }
fn base(args, cx) { config("base") }
fn count(args, cx) { let n = kv_get("n"); if n == () { n = 0; } n += 1; kv_set("n", n); n }
fn refuse(args, cx) { fail("not today", #{ again: "tomorrow" }) }
"#;

/// A script that does not compile, at line 3.
const BROKEN: &str = "const PLUGIN = #{\n  name: \"broken\",\n  let x\n};\n";

/// What a command came to.
pub(crate) struct Ran {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A folder to work in, with the kit in `kit.rhai`, and a home without plugins.
pub(crate) struct Desk(TempDir);

impl Desk {
    pub(crate) fn new() -> Self {
        Self::with(&[])
    }

    pub(crate) fn with(files: &[(&str, &str)]) -> Self {
        let all: Vec<_> = files.iter().copied().chain([("kit.rhai", KIT)]).collect();
        Self(crate::support::folder(&all))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The binary at this desk, with nothing of the developer's own in its environment.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(args).current_dir(self.0.path()).env("HOME", self.path("home"));
        for variable in [
            "RUST_LOG",
            "TOOLBAY_MODEL",
            "OPENAI_API_KEY",
            "OPENAI_BASE_URL",
            "CARGO_PKG_NAME",
            "COLUMNS",
            "TOOLBAY_DATABASE",
        ] {
            command.env_remove(variable);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().expect("the binary starts"))
    }

    fn run_with_input(&self, args: &[&str], input: impl AsRef<[u8]>) -> Ran {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().expect("the binary starts");
        // In a file's place: the inputs of these tests are small enough for the pipe to take them whole.
        child.stdin.take().expect("a pipe").write_all(input.as_ref()).expect("input is read");
        Ran::of(child.wait_with_output().expect("the binary ends"))
    }

    /// Runs with a standard output that nobody reads.
    fn run_unread(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).stdout(nobody()).output().expect("the binary starts"))
    }
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        Self { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// Its standard output as JSON Lines.
    #[track_caller]
    fn lines(&self) -> Vec<Value> {
        self.stdout.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {} {}", self.stdout, self.stderr))
    }

    #[track_caller]
    fn ends(self, status: i32) -> Self {
        assert_eq!(self.status, Some(status), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Checks that it ended with status 2 and all of these words on standard error, and gave no panic away.
    #[track_caller]
    fn refuses(self, words: &[&str]) {
        let ran = self.ends(2);
        for word in words {
            assert!(ran.stderr.contains(word), "{word:?} is not in: {}", ran.stderr);
        }
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
    }
}

/// The writing end of a pipe whose reader has gone.
fn nobody() -> PipeWriter {
    std::io::pipe().expect("a pipe").1
}

/// The kind of a wire result's error, or `ok`.
fn kind(wire: &Value) -> &str {
    if wire["success"] == Value::Bool(true) { "ok" } else { wire["error"]["kind"].as_str().expect("a kind") }
}

/// The binary under test: `TOOLBAY_BIN`, which `scripts/test` sets, or the one that cargo built beside the tests.
pub(crate) fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("TOOLBAY_BIN") {
        return crate::support::project().join(path);
    }
    let tests = std::env::current_exe().expect("a path of our own");
    let built = tests.ancestors().nth(2).expect("target/PROFILE/deps").join("toolbay");
    let built = built.with_extension(std::env::consts::EXE_EXTENSION);
    assert!(built.is_file(), "no {}: run `cargo build -p toolbay-cli` first, or scripts/test", built.display());
    built
}
