//! What can go wrong with a tool call.
//!
//! Handling is not reporting: [`ErrorKind`] is what a program branches on, the message is what the model or the user
//! reads, and the source is for the operator and never leaves the process.

use std::{borrow::Cow, error::Error, fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A limit that a call can run into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Limit {
    /// Steps of the interpreter.
    Operations,
    /// Nested function calls.
    CallDepth,
    /// Nested expressions.
    ExprDepth,
    /// Bytes that the script holds.
    Memory,
    /// Bytes of one string.
    StringSize,
    /// Elements of one array.
    ArraySize,
    /// Entries of one map.
    MapSize,
    /// Variables in scope.
    Variables,
    /// Bytes of the plugin's source.
    SourceSize,
    /// Bytes of the result.
    Output,
    /// Nesting of a value that crosses the sandbox.
    Nesting,
    /// Bytes logged.
    Log,
    /// Host functions called.
    HostCalls,
    /// Tool calls inside tool calls.
    CallChain,
    /// Calls of the tenant in flight.
    Concurrency,
    /// Calls of the tenant in a minute.
    Rate,
    /// Bytes or keys in the plugin's key-value store.
    Storage,
    /// Bytes of the arguments.
    Arguments,
    /// Events told of by handlers of events.
    EventDepth,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Operations => "operations",
            Self::CallDepth => "call depth",
            Self::ExprDepth => "expression depth",
            Self::Memory => "bytes of memory",
            Self::StringSize => "bytes in a string",
            Self::ArraySize => "elements in an array",
            Self::MapSize => "entries in a map",
            Self::Variables => "variables",
            Self::SourceSize => "bytes of source",
            Self::Output => "bytes of output",
            Self::Nesting => "levels of nesting",
            Self::Log => "bytes of log",
            Self::HostCalls => "host function calls",
            Self::CallChain => "tool calls inside one another",
            Self::Concurrency => "calls at once",
            Self::Rate => "calls a minute",
            Self::Storage => "bytes of storage",
            Self::Arguments => "bytes of arguments",
            Self::EventDepth => "events that follow from one another",
        })
    }
}

/// The kinds of error, closed but for what later versions add.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No such tool, or none that this tenant may know of.
    NotFound,
    /// The arguments do not fit the tool's parameters.
    InvalidArguments,
    /// A permission is not granted or the user lacks a right.
    PermissionDenied,
    /// The tenant has the plugin switched off.
    NotEnabled,
    /// The plugin is not started.
    NotReady,
    /// The tenant's rate or concurrency is used up for now.
    RateLimited,
    /// The deadline passed.
    TimedOut,
    /// A limit was reached.
    LimitExceeded {
        /// Which.
        limit: Limit,
        /// What was allowed, in the limit's unit.
        allowed: u64,
        /// What was used or asked for when it tripped, in the limit's unit.
        used: u64,
    },
    /// The caller gave up.
    Cancelled,
    /// A hook said no.
    DeniedByHook,
    /// A hook that must decide did not.
    HookFailed,
    /// The script or module does not compile.
    Compile,
    /// The plugin's own code raised an error.
    Script,
    /// A plugin or tool that this one needs failed or is missing.
    Dependency,
    /// The name or version is taken.
    Conflict,
    /// The configuration does not fit.
    Config,
    /// The plugin panicked; the host caught it.
    Panic,
    /// Somebody has to approve the call first, and its caller cannot wait for that.
    ApprovalRequired,
    /// Somebody has to answer a question first; the same call is then made again with the answer.
    InputRequired,
    /// Something that the call needs is away for now.
    Unavailable,
    /// A fault of Toolbay itself.
    Internal,
}

impl ErrorKind {
    /// The kind's name on the wire.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotFound => "NotFound",
            Self::InvalidArguments => "InvalidArguments",
            Self::PermissionDenied => "PermissionDenied",
            Self::NotEnabled => "NotEnabled",
            Self::NotReady => "NotReady",
            Self::RateLimited => "RateLimited",
            Self::TimedOut => "TimedOut",
            Self::LimitExceeded { .. } => "LimitExceeded",
            Self::Cancelled => "Cancelled",
            Self::DeniedByHook => "DeniedByHook",
            Self::HookFailed => "HookFailed",
            Self::Compile => "Compile",
            Self::Script => "Script",
            Self::Dependency => "Dependency",
            Self::Conflict => "Conflict",
            Self::Config => "Config",
            Self::Panic => "Panic",
            Self::ApprovalRequired => "ApprovalRequired",
            Self::InputRequired => "InputRequired",
            Self::Unavailable => "Unavailable",
            Self::Internal => "Internal",
        }
    }

    /// Whether the same call can succeed if it is made again later, unchanged.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::NotReady | Self::RateLimited | Self::TimedOut | Self::Unavailable)
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A failed tool call.
///
/// `message` is a sentence that is safe for the model and the user and says what to do next. `details` is data for
/// them. `source` is the operator's; [`WireError`](crate::result::WireError) has no field for it.
#[derive(Debug, Clone)]
pub struct ToolError {
    /// What a program branches on.
    pub kind: ErrorKind,
    /// What the model or user reads.
    pub message: Cow<'static, str>,
    /// Data beside the message; `Null` where there is none.
    pub details: Value,
    /// Whether to try again, where the kind's own answer is not the right one.
    pub retryable: bool,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl ToolError {
    /// An error of this kind with a message that is safe to show.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), details: Value::Null, retryable: kind.is_retryable(), source: None }
    }

    /// An error that the plugin's own code raises, with the message as its author wrote it.
    pub fn failed(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Script, message)
    }

    /// A limit that was reached, with the figures in message and details.
    #[must_use]
    pub fn limit(limit: Limit, allowed: u64, used: u64) -> Self {
        Self::new(
            ErrorKind::LimitExceeded { limit, allowed, used },
            format!("the call was stopped at its limit of {allowed} {limit} (used {used}); ask for less at once"),
        )
        .with_details(json!({ "limit": limit, "allowed": allowed, "used": used }))
    }

    /// Adds data for the caller.
    #[must_use]
    pub fn with_details(mut self, details: Value) -> Self {
        self.details = details;
        self
    }

    /// Says whether to try again, where the kind's own answer is wrong.
    #[must_use]
    pub fn with_retryable(mut self, retryable: bool) -> Self {
        self.retryable = retryable;
        self
    }

    /// Keeps the cause for the operator's log.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// The cause, for the operator only.
    #[must_use]
    pub fn operator_detail(&self) -> Option<&(dyn Error + Send + Sync)> {
        self.source.as_deref()
    }
}

impl fmt::Display for ToolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.message)
    }
}

impl Error for ToolError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
