//! The frames of a stream as the provider sent them, for what the client passes over.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
};

use genai::chat::{ChatFrameSink, FrameCtx, RawFrameRef};
use serde_json::Value;
use toolbay_api::{
    ToolCall,
    message::{FinishReason, Tokens},
};

use super::ReplyDelta;
use crate::provider::fallback;

/// Tool calls of one reply that are read; no provider makes as many.
const MAX_CALLS: usize = 256;

/// Everything that the frames said so far.
pub(super) struct Frames {
    most: usize,
    read: Mutex<State>,
}

#[derive(Default)]
struct State {
    bytes: usize,
    is_too_much: bool,
    calls: BTreeMap<u64, Parts>,
    told: VecDeque<ReplyDelta>,
    text: String,
    refusal: String,
    finish: Option<FinishReason>,
    tokens: Tokens,
    failure: Option<Value>,
}

/// A call in OpenAI's form, in so far as it came in.
#[derive(Default)]
struct Parts {
    id: String,
    name: String,
    arguments: String,
}

/// What the frames of a whole reply said.
pub(super) struct Read {
    pub(super) calls: Vec<ToolCall>,
    pub(super) text: String,
    pub(super) refusal: Option<String>,
    pub(super) finish: Option<FinishReason>,
    pub(super) tokens: Tokens,
}

impl Frames {
    pub(super) fn new(most: usize) -> Self {
        Self { most, read: Mutex::default() }
    }

    /// Whether the reply has more bytes than any reply; what comes after is not read.
    pub(super) fn is_too_much(&self) -> bool {
        self.lock().is_too_much
    }

    /// The pieces of tool calls since the last time.
    pub(super) fn take_told(&self) -> VecDeque<ReplyDelta> {
        std::mem::take(&mut self.lock().told)
    }

    /// What the provider said of its failure.
    pub(super) fn failure(&self) -> Option<Value> {
        self.lock().failure.clone()
    }

    pub(super) fn take_read(&self) -> Read {
        let mut state = std::mem::take(&mut *self.lock());
        let calls = std::mem::take(&mut state.calls).into_values();
        let calls = calls.filter(|call| !call.name.is_empty()).map(|call| {
            let Parts { id, name, arguments } = call;
            ToolCall { id, name, arguments: fallback::arguments_of(arguments) }
        });
        Read {
            calls: calls.collect(),
            text: state.text,
            refusal: (!state.refusal.is_empty()).then_some(state.refusal),
            finish: state.finish,
            tokens: state.tokens,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ChatFrameSink for Frames {
    fn on_frame(&self, _: &FrameCtx, frame: RawFrameRef<'_>) {
        let mut state = self.lock();
        state.bytes = state.bytes.saturating_add(frame.data.len());
        if state.bytes > self.most {
            state.is_too_much = true;
            return;
        }
        if let Ok(frame) = serde_json::from_str::<Value>(frame.data) {
            state.take(&frame);
        }
    }
}

impl State {
    fn take(&mut self, frame: &Value) {
        if let Some(error) = frame.get("error").filter(|error| !error.is_null()) {
            self.failure = Some(error.clone());
        }
        match frame.get("type").and_then(Value::as_str) {
            Some("response.refusal.delta") => self.refusal.push_str(text(frame.get("delta"))),
            Some("response.failed") => self.failure = frame.pointer("/response/error").cloned(),
            _ => {}
        }
        if let Some(choice) = frame.pointer("/choices/0") {
            self.take_choice(choice);
        }
        if let Some(usage) = frame.get("usage").filter(|usage| !usage.is_null()) {
            let count = |key: &str| usage.get(key).and_then(Value::as_u64).unwrap_or(0);
            self.tokens = Tokens { input: count("prompt_tokens"), output: count("completion_tokens") };
        }
    }

    fn take_choice(&mut self, choice: &Value) {
        if let Some(delta) = choice.get("delta") {
            self.refusal.push_str(text(delta.get("refusal")));
            self.text.push_str(text(delta.get("content")));
            let calls = delta.get("tool_calls").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            for (place, call) in calls.iter().enumerate() {
                self.take_call(place, call);
            }
        }
        if let Some(reason) = choice.get("finish_reason").and_then(Value::as_str) {
            self.finish = Some(fallback::finish_of(reason));
        }
    }

    fn take_call(&mut self, place: usize, call: &Value) {
        // Servers that send each call whole leave the index out.
        let index = call.get("index").and_then(Value::as_u64).unwrap_or(place as u64);
        if self.calls.len() >= MAX_CALLS && !self.calls.contains_key(&index) {
            return;
        }
        let (id, function) = (text(call.get("id")), call.get("function"));
        let part = |key: &str| text(function.and_then(|function| function.get(key)));
        let (name, arguments) = (part("name"), part("arguments"));
        let so_far = self.calls.entry(index).or_default();
        if so_far.id.is_empty() {
            so_far.id.push_str(id);
        }
        let told_name = if so_far.name.is_empty() { name } else { "" };
        so_far.name.push_str(told_name);
        so_far.arguments.push_str(arguments);
        let (id, name) = (so_far.id.clone(), told_name.to_owned());
        let index = self.calls.keys().position(|known| *known == index).unwrap_or(place);
        self.told.push_back(ReplyDelta::ToolCall { index, id, name, arguments: arguments.to_owned() });
    }
}

fn text(value: Option<&Value>) -> &str {
    value.and_then(Value::as_str).unwrap_or_default()
}
