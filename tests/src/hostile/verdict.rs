//! What was promised for a run against what happened.

use std::{fmt, path::Path, time::Duration};

use super::{attack::Outcome, corpus::Program};

/// What a program may use, and how much more is forgiven.
#[derive(Debug, Clone, Copy)]
pub struct Promise {
    /// The deadline that was set.
    pub timeout: Duration,
    /// How much later the call may return.
    pub overrun: Duration,
    /// What a process takes that runs a trivial program: its memory, and its time from start to end.
    pub baseline: (u64, Duration),
    /// What the memory may exceed baseline and cap by.
    pub spare_bytes: u64,
}

/// A promise that was not kept, from the worst to the least.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The process ended by a signal, a panic, or not at all.
    Death(String),
    /// More memory than cap and spare, in MiB.
    Memory(u64),
    /// The call returned this much too late.
    Overrun(Duration),
    /// Compiling, loading or ending took the process this much longer than the deadline.
    Slow(Duration),
    /// Another kind than expected, and its message.
    Kind(String, String),
    /// Something in the output that must not cross.
    Leaked(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Death(how) => write!(f, "DEATH: {how}"),
            Self::Memory(mib) => write!(f, "MEMORY: {mib} MiB resident"),
            Self::Overrun(by) => write!(f, "OVERRUN: by {:.1} ms", by.as_secs_f64() * 1e3),
            Self::Slow(by) => write!(f, "SLOW: the process took {:.0} ms beyond its deadline", by.as_secs_f64() * 1e3),
            Self::Kind(kind, text) => write!(f, "KIND: {kind}: {text}"),
            Self::Leaked(what) => write!(f, "LEAKED: {what}"),
        }
    }
}

impl Promise {
    /// The memory cap that `program` runs under: its own or the default.
    fn cap(program: &Program) -> u64 {
        let given = program.args.iter().skip_while(|arg| *arg != "--memory").nth(1);
        given.map_or(64 << 20, |text| {
            let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
            let unit = match text.trim_start_matches(|c: char| c.is_ascii_digit()) {
                "KiB" => 1 << 10,
                "MiB" => 1 << 20,
                "GiB" => 1 << 30,
                _ => 1,
            };
            digits.parse::<u64>().expect("a size") * unit
        })
    }

    /// All that was not kept. `folder` is where the program lay.
    #[must_use]
    pub fn faults(&self, program: &Program, outcome: &Outcome, folder: &Path) -> Vec<Fault> {
        let mut faults = Vec::new();
        let (memory, start) = self.baseline;
        if let Some(how) = &outcome.death {
            faults.push(Fault::Death(how.clone()));
        }
        if outcome.resident > memory + Self::cap(program) + self.spare_bytes {
            faults.push(Fault::Memory(outcome.resident >> 20));
        }
        let timeout = program.timeout.unwrap_or(self.timeout);
        let over = self.overrun_of(program, outcome);
        if over > self.overrun {
            faults.push(Fault::Overrun(over));
        }
        // Starting a process varies with the machine's load, so this forgives more.
        let slow = outcome.wall.saturating_sub(start + timeout);
        if outcome.death.is_none() && slow > self.overrun * 2 + Duration::from_millis(100) {
            faults.push(Fault::Slow(slow));
        }
        if !program.expected.contains(&outcome.kind) {
            faults.push(Fault::Kind(outcome.kind.clone(), outcome.text.clone()));
        }
        faults.extend(leaks(outcome, folder));
        faults
    }

    /// How much later than its deadline the call returned.
    #[must_use]
    pub fn overrun_of(&self, program: &Program, outcome: &Outcome) -> Duration {
        outcome.duration.unwrap_or_default().saturating_sub(program.timeout.unwrap_or(self.timeout))
    }
}

/// What must not be in any output: where things lie on the host, and more text than an error may have.
fn leaks(outcome: &Outcome, folder: &Path) -> Option<Fault> {
    let message = outcome.wire["error"]["message"].as_str().unwrap_or_default();
    if message.len() > 4 << 10 {
        return Some(Fault::Leaked(format!("a message of {} bytes", message.len())));
    }
    let secrets = [folder.to_string_lossy().into_owned(), env!("CARGO_MANIFEST_DIR").to_owned(), ".cargo/".to_owned()];
    let found = secrets.into_iter().find(|secret| outcome.printed.contains(secret.as_str()))?;
    Some(Fault::Leaked(format!("{found:?} in the output")))
}
