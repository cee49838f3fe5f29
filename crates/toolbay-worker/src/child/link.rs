//! The worker's end of the socket, with the answers that calls wait for.

use std::{
    collections::{HashMap, VecDeque},
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use crate::{
    alloc,
    frame::{self, Request},
    sys::{self, Wait},
    wire::Inbox,
};

/// Shared by the executor and the hosts of all calls. The process has one thread; the lock satisfies the compiler, and
/// is never contended.
#[derive(Clone, Default)]
pub(crate) struct Link(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    inbox: Inbox,
    /// Frames that came while a call waited for its answer in place.
    queued: VecDeque<Vec<u8>>,
    out: Vec<u8>,
    /// By call: each waits for one answer at most, since its script stands still until then.
    answers: HashMap<u64, Slot>,
}

#[derive(Default)]
struct Slot {
    answer: Option<Vec<u8>>,
    waker: Option<Waker>,
}

impl Link {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a frame that is sent with the next [`flush`](Self::flush).
    pub(crate) fn write(&self, write: impl FnOnce(&mut Vec<u8>)) {
        // The buffer outlives the call in whose turn it grows.
        alloc::of_another(|| write(&mut self.lock().out));
    }

    /// Sends what was written. A host that is gone ends the worker.
    pub(crate) fn flush(&self) {
        let mut inner = self.lock();
        if !inner.out.is_empty() {
            if sys::send(&inner.out).is_err() {
                sys::exit(0)
            }
            inner.out.clear();
            inner.out.shrink_to(256 << 10);
        }
    }

    /// The next frame, if one has come or is waited for.
    pub(crate) fn next(&self, wait: Wait) -> Option<Vec<u8>> {
        let mut inner = self.lock();
        if let Some(frame) = inner.queued.pop_front() {
            return Some(frame);
        }
        inner.read(wait)
    }

    /// A frame that came already.
    pub(crate) fn next_at_hand(&self) -> Option<Vec<u8>> {
        let mut inner = self.lock();
        if let Some(frame) = inner.queued.pop_front() {
            return Some(frame);
        }
        inner.buffered()
    }

    /// Hands an answer to the call that waits for it.
    pub(crate) fn answer(&self, call: u64, answer: &[u8]) {
        let waker = match self.lock().answers.get_mut(&call) {
            None => None,
            Some(slot) => {
                slot.answer = Some(answer.to_vec());
                slot.waker.take()
            }
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Asks the host and waits in place: for questions that it answers at once. Other calls stand still meanwhile.
    pub(crate) fn ask_now(&self, call: u64, request: &Request) -> Vec<u8> {
        self.write(|out| frame::write_request(out, call, request));
        self.flush();
        loop {
            let mut inner = self.lock();
            let Some(frame) = alloc::of_another(|| inner.read(Wait::UntilThere)) else { continue };
            if frame::reply_to(&frame) == Some(call) {
                let answer = frame.get(frame::REPLY_HEAD..).unwrap_or_default().to_vec();
                // What a large answer needed is given back here, where the allocator counts as it did before.
                alloc::of_another(|| {
                    drop(frame);
                    inner.inbox.space();
                });
                return answer;
            }
            alloc::of_another(|| inner.queued.push_back(frame));
        }
    }

    /// Asks the host; the call waits, others go on.
    pub(crate) fn ask(&self, call: u64, request: &Request) -> Asked {
        self.write(|out| frame::write_request(out, call, request));
        self.lock().answers.insert(call, Slot::default());
        Asked { link: self.clone(), call }
    }
}

impl Inner {
    fn buffered(&mut self) -> Option<Vec<u8>> {
        match self.inbox.next(usize::MAX) {
            Ok(frame) => frame.map(<[u8]>::to_vec),
            Err(_) => sys::exit(sys::EXIT_PROTOCOL),
        }
    }

    fn read(&mut self, wait: Wait) -> Option<Vec<u8>> {
        loop {
            if let Some(frame) = self.buffered() {
                return Some(frame);
            }
            match sys::receive(sys::socket(), self.inbox.space(), wait) {
                Ok(0) => sys::exit(0),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(_) => sys::exit(0),
            }
        }
    }
}

/// An answer to come.
pub(crate) struct Asked {
    link: Link,
    call: u64,
}

impl Future for Asked {
    type Output = Vec<u8>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Vec<u8>> {
        let mut inner = self.link.lock();
        let slot = inner.answers.entry(self.call).or_default();
        match slot.answer.take() {
            Some(answer) => Poll::Ready(answer),
            None => {
                slot.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.link.lock().answers.remove(&self.call);
    }
}
