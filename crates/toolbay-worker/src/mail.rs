//! What a worker's driver leaves for the call that waits: a request to the host, or the call's end.

use std::{
    sync::{Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use toolbay_api::ToolError;

use crate::frame::{Outcome, Request};

/// What a waiting call is woken for.
#[derive(Debug)]
pub(crate) enum Letter {
    /// The script wants something from the host that may take a while.
    Request(Request),
    /// The call is over.
    Done(Outcome),
    /// The worker is gone.
    Lost(ToolError),
}

/// Between the driver and one call. Holds one letter: a script asks for one thing at a time.
#[derive(Default)]
pub(crate) struct Mail(Mutex<(Option<Letter>, Option<Waker>)>);

impl Mail {
    pub(crate) fn put(&self, letter: Letter) {
        let waker = {
            let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            slot.0 = Some(letter);
            slot.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn poll(&self, cx: &mut Context<'_>) -> Poll<Letter> {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(letter) = slot.0.take() {
            return Poll::Ready(letter);
        }
        if slot.1.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            slot.1 = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}
