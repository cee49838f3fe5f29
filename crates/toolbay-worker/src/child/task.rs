//! One call inside a worker: what it runs, what it holds, when it is polled.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use toolbay_api::{ErrorKind, ToolContext, ToolError};

use crate::{
    alloc,
    frame::{Outcome, Spent},
};

/// What a call runs.
pub(crate) type Work = Pin<Box<dyn Future<Output = Outcome>>>;

/// One call.
pub(crate) struct Task {
    pub(crate) call: u64,
    allowed: u64,
    /// Bytes that it holds.
    account: isize,
    context: Option<ToolContext>,
    work: Option<Work>,
    awake: Arc<Awake>,
    waker: Waker,
}

/// Set while the call can go on.
struct Awake(AtomicBool);

impl Wake for Awake {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Task {
    /// A call that holds `account` bytes already and is polled at the next round.
    pub(crate) fn new(call: u64, allowed: u64, account: isize, context: Option<ToolContext>, work: Work) -> Self {
        let awake = Arc::new(Awake(AtomicBool::new(true)));
        let waker = Waker::from(Arc::clone(&awake));
        Self { call, allowed, account, context, work: Some(work), awake, waker }
    }

    pub(crate) fn is_awake(&self) -> bool {
        self.awake.0.load(Ordering::Relaxed)
    }

    /// Lets it run for a slice of time.
    pub(crate) fn poll(&mut self) -> Poll<Outcome> {
        self.awake.0.store(false, Ordering::Relaxed);
        let Some(work) = &mut self.work else { return Poll::Pending };
        let mut cx = Context::from_waker(&self.waker);
        let (polled, account) = alloc::under_cap(self.call, self.account, self.allowed, || {
            catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(&mut cx)))
        });
        self.account = account;
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(outcome)) => {
                self.end();
                Poll::Ready(outcome)
            }
            Err(_) => {
                self.end();
                let text = "the tool failed because of a fault in the host; the operator can see why";
                Poll::Ready(Outcome::Error(ToolError::new(ErrorKind::Panic, text)))
            }
        }
    }

    /// Bytes that it holds.
    pub(crate) fn account(&self) -> isize {
        self.account
    }

    /// Runs what hands it something that it asked for, which counts as its own.
    pub(crate) fn receive(&mut self, hand_over: impl FnOnce()) {
        let ((), account) = alloc::under_cap(self.call, self.account, self.allowed, hand_over);
        self.account = account;
    }

    /// Drops what it runs, which cancels a script. The cap holds while its destructors run, too.
    pub(crate) fn end(&mut self) {
        if let Some(work) = self.work.take() {
            let ((), account) = alloc::under_cap(self.call, self.account, self.allowed, || {
                let _ = catch_unwind(AssertUnwindSafe(|| drop(work)));
            });
            self.account = account;
        }
    }

    /// What it used, in a worker whose heap holds `heap_bytes` that are no call's.
    pub(crate) fn spent(&self, heap_bytes: u64) -> Spent {
        match self.context.as_ref().map(ToolContext::usage) {
            None => Spent { heap_bytes, ..Spent::default() },
            Some(usage) => Spent {
                operations: usage.operations(),
                peak_bytes: usage.peak_bytes(),
                host_calls: usage.host_calls(),
                heap_bytes,
            },
        }
    }
}
