//! Why a command ends, as the shell sees it. It stands apart since the numbers are a promise to scripts.

use std::{fmt, io, process::ExitCode};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// It did what was asked: 0.
    Success,
    /// The tool failed, or the agent's run did not complete: 1.
    Failed,
    /// It could not be done as asked, or a plugin did not load where that was the question: 2.
    Usage,
    /// The agent's run waits for somebody and can go on: 3.
    Waits,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(match status {
            Status::Success => 0,
            Status::Failed => 1,
            Status::Usage => 2,
            Status::Waits => 3,
        })
    }
}

/// Why a command could not go on.
#[derive(Debug)]
pub(crate) enum CliError {
    /// What is wrong and what to do; ends with [`Status::Usage`].
    Usage(String),
    /// Nobody reads standard output any more. No error of ours, and nothing to say.
    Closed,
}

impl CliError {
    /// Something that the user can put right.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::Usage(message.to_string())
    }

    /// Standard output could not be written.
    pub(crate) fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::Closed
        } else {
            Self::Usage(format!("standard output cannot be written: {error}"))
        }
    }
}
