//! Runs foreign code under a time limit and catches its panics. Both the road and the hooks need it.

use std::{any::Any, future::Future, panic::AssertUnwindSafe, pin::pin, task::Poll, time::Instant};

use futures::FutureExt;

/// Why foreign code gave no value.
pub(crate) enum Failure {
    /// The deadline passed.
    TimedOut,
    /// It panicked, with this message.
    Panicked(String),
}

/// Now, by tokio's clock, which tests can set.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Drives `future` until it is ready, at most until `deadline`.
///
/// # Cancel safety
/// Dropping it drops `future`.
pub(crate) async fn guarded<F: Future>(deadline: Instant, future: F) -> Result<F::Output, Failure> {
    let mut future = pin!(AssertUnwindSafe(future).catch_unwind());
    // Most calls are ready at the first poll; they pay for no timer.
    let outcome = match futures::poll!(future.as_mut()) {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => tokio::time::timeout_at(deadline.into(), future).await.map_err(|_| Failure::TimedOut)?,
    };
    outcome.map_err(|panic| Failure::Panicked(panic_message(&*panic)))
}

/// The text of a panic, for the operator.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text =
        panic.downcast_ref::<&str>().map(|text| (*text).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "a panic without a message".to_owned())
}
