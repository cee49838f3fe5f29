//! Servers that are started: with a closed environment, and ended when nobody holds them any more.

use std::{collections::BTreeMap, process::Stdio, sync::Arc};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::link::LinkError;

/// Bytes of one line of a server's log that are kept.
const MAX_LINE: u64 = 4 * 1024;
/// Lines of one server that are logged before it is told to nobody any more.
const MAX_LINES: usize = 10_000;

/// A running server's pipes, and the processes behind them, which are killed when this is dropped.
pub(crate) struct Started {
    pub(crate) input: ChildStdin,
    pub(crate) output: ChildStdout,
    pub(crate) group: Group,
}

/// A server's process and all that it started in turn, as far as those stayed in its group. Killed when it is dropped.
pub(crate) struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // Nobody waits for the process as long as this is there, so its number is nobody else's, even where it has ended.
        let leader = self.0.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(leader) = leader {
            // Where nothing is left of the group there is nothing to end.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Starts the program with just this environment. What it writes to standard error goes to our log.
pub(crate) fn start(
    label: &Arc<str>,
    command: &str,
    args: &[String],
    env: &BTreeMap<String, String>,
) -> Result<Started, LinkError> {
    let process = Command::new(command)
        .args(args)
        .env_clear()
        .envs(env)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own: a signal to ours, as from a terminal, is not for it.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| LinkError::Unreachable(format!("the program cannot be started: {error}")))?;
    let mut group = Group(process);
    let process = &mut group.0;
    let broken = || LinkError::Unreachable("the program has no pipes".to_owned());
    let (input, output) = (process.stdin.take().ok_or_else(broken)?, process.stdout.take().ok_or_else(broken)?);
    if let Some(stderr) = process.stderr.take() {
        let label = Arc::clone(label);
        tokio::spawn(async move {
            let mut lines = BufReader::new(stderr);
            for number in 0.. {
                let mut line = Vec::new();
                match (&mut lines).take(MAX_LINE).read_until(b'\n', &mut line).await {
                    Ok(0) | Err(_) => return,
                    // Read on without an end in any case: a server whose pipe is full would stand still.
                    Ok(_) if number < MAX_LINES => {
                        let text = String::from_utf8_lossy(&line);
                        let text: String =
                            text.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
                        tracing::info!(target: "toolbay::mcp", server = %label, "{text}");
                    }
                    Ok(_) => {}
                }
            }
        });
    }
    Ok(Started { input, output, group })
}
