//! The clock port: what time plugins are told, and when what they keep for a time is over. Deadlines do not go by it; those
//! are tokio's, whose time tests can pause.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use toolbay_api::{ErrorKind, ToolError};

/// Tells the time of day.
pub trait Clock: Send + Sync {
    /// The time now.
    fn now(&self) -> SystemTime;
}

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// Milliseconds since 1970, UTC.
///
/// # Errors
/// `Internal` where the clock is before that.
pub(crate) fn now_ms(clock: &dyn Clock) -> Result<i64, ToolError> {
    let since = clock.now().duration_since(UNIX_EPOCH).ok();
    since
        .and_then(|since| i64::try_from(since.as_millis()).ok())
        .ok_or_else(|| ToolError::new(ErrorKind::Internal, "the host's clock is before 1970; tell the operator"))
}

/// When something is over that lasts for `ttl` from `now_ms` on.
///
/// # Errors
/// `InvalidArguments` for less than a millisecond.
pub(crate) fn end_of(ttl: Duration, now_ms: i64) -> Result<i64, ToolError> {
    match i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX) {
        0 => Err(ToolError::new(ErrorKind::InvalidArguments, "a time to live has at least one millisecond")),
        ttl => Ok(now_ms.saturating_add(ttl)),
    }
}
