//! What a provider wants back with the next request but our conversation has no place for: signed thoughts and other
//! blocks that only it can read.
//!
//! Without them Anthropic refuses the step after a tool call where thinking is on, and others think anew. They are kept
//! in memory, a bounded number of them, under the conversation that led to them: whoever has the same conversation has
//! seen the same reply, so nothing crosses from one tenant to another. A conversation that was taken up in another
//! process goes on without them.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, DefaultHasher, Hasher, RandomState},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use genai::chat::{ContentPart, MessageContent};
use toolbay_api::Message;

/// Replies that are remembered; the oldest goes first.
const MAX_KEPT: usize = 512;

#[derive(Default)]
pub(super) struct Continuity {
    keys: RandomState,
    memory: Mutex<Memory>,
}

#[derive(Default)]
struct Memory {
    replies: HashMap<u64, Arc<Kept>>,
    order: VecDeque<u64>,
}

/// The opaque parts of one reply.
pub(super) struct Kept {
    /// Parts that go before text and calls, in their order.
    pub(super) leading: Vec<ContentPart>,
    /// The signatures of each call.
    pub(super) calls: Vec<Option<Vec<String>>>,
}

/// A conversation up to some message.
#[derive(Clone)]
pub(super) struct Trail(DefaultHasher);

impl Trail {
    pub(super) fn pass(&mut self, message: &Message) {
        // The text form is the same for the same message, which is all that is asked of it.
        let text = serde_json::to_string(message).unwrap_or_default();
        self.0.write_usize(text.len());
        self.0.write(text.as_bytes());
    }
}

impl Continuity {
    /// The trail of an empty conversation.
    pub(super) fn trail(&self) -> Trail {
        Trail(self.keys.build_hasher())
    }

    /// Where a reply to `messages` is kept.
    pub(super) fn place(&self, messages: &[Message]) -> u64 {
        let mut trail = self.trail();
        messages.iter().for_each(|message| trail.pass(message));
        trail.0.finish()
    }

    /// Keeps what is opaque in a reply, if anything is.
    pub(super) fn keep(&self, place: u64, reply: &MessageContent) {
        let opaque = |part: &&ContentPart| {
            matches!(part, ContentPart::ThoughtSignature(_) | ContentPart::ReasoningContent(_) | ContentPart::Custom(_))
        };
        let leading: Vec<_> = reply.iter().filter(opaque).cloned().collect();
        let calls: Vec<_> = reply.tool_calls().into_iter().map(|call| call.thought_signatures.clone()).collect();
        if leading.is_empty() && calls.iter().all(Option::is_none) {
            return;
        }
        let mut memory = self.lock();
        if memory.replies.insert(place, Arc::new(Kept { leading, calls })).is_none() {
            memory.order.push_back(place);
        }
        if memory.order.len() > MAX_KEPT
            && let Some(oldest) = memory.order.pop_front()
        {
            memory.replies.remove(&oldest);
        }
    }

    /// What was kept of the reply to the conversation up to here.
    pub(super) fn kept(&self, trail: &Trail) -> Option<Arc<Kept>> {
        self.lock().replies.get(&trail.0.finish()).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
