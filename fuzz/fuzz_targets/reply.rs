//! What a model writes, given to the loop: whatever ids, names and arguments it makes up, every call is answered once, ids are
//! told apart, the run ends within its bounds, and it can be put away and taken up at any step.
#![no_main]

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use toolbay::{Bounds, Message, ModelResponse, Next, Stepper, StepperConfig, ToolCall, ToolReply};

const STEPS: u32 = 8;
const CALLS: u32 = 32;

fuzz_target!(|text: &str| {
    let bounds = Bounds { max_steps: STEPS, max_tool_calls: CALLS, ..Bounds::default() };
    let config = StepperConfig { bounds, ..StepperConfig::default() };
    let mut stepper = Stepper::new(config, vec![Message::user("go")], Vec::new());
    let mut replies = text.lines().map(reply);
    let (mut asked, mut called) = (0, 0);
    loop {
        let stored = serde_json::to_string(&stepper).expect("a stepper is plain data");
        stepper = serde_json::from_str(&stored).expect("what was put away is taken up");
        match stepper.next() {
            Next::CallModel { request, .. } => {
                asked += 1;
                whole(&request.messages);
                match replies.next() {
                    Some(reply) => drop(stepper.model_replied(reply).expect("it waits for a reply")),
                    None => stepper.model_failed(None).expect("it waits for a reply"),
                }
            }
            Next::RunTools { calls, .. } => {
                assert!(!calls.is_empty());
                for (number, call) in calls.into_iter().enumerate() {
                    called += 1;
                    let (failed, reply) = (number % 2 == 1, format!("reply to {}", call.name.len()));
                    let reply = ToolReply { call_id: call.id, text: reply, is_error: failed, needs_repair: failed };
                    stepper.tool_replied(reply).expect("the call is open");
                }
            }
            Next::Done(_) => break,
        }
    }
    assert!(asked <= STEPS + 1 && called <= CALLS, "{asked} requests, {called} calls");
    whole(stepper.messages());
});

/// A line as a reply: its JSON, else a call whose arguments it is.
fn reply(line: &str) -> ModelResponse {
    serde_json::from_str(line).unwrap_or_else(|_| {
        let (name, arguments) = line.split_once(' ').unwrap_or((line, ""));
        let arguments = serde_json::from_str(arguments).unwrap_or_else(|_| Value::String(arguments.to_owned()));
        let call = ToolCall { id: name.chars().rev().collect(), name: name.to_owned(), arguments };
        ModelResponse { tool_calls: vec![call.clone(), call], ..ModelResponse::default() }
    })
}

/// Each call has exactly one reply behind it, in its order, and an id of its own that providers take.
fn whole(messages: &[Message]) {
    let (mut waiting, mut seen): (Vec<&str>, HashSet<&str>) = (Vec::new(), HashSet::new());
    for message in messages {
        if let Message::Tool { call_id, .. } = message {
            assert_eq!(waiting.first(), Some(&call_id.as_str()));
            waiting.remove(0);
            continue;
        }
        assert!(waiting.is_empty(), "without a reply: {waiting:?}");
        if let Message::Assistant { tool_calls, .. } = message {
            waiting = tool_calls.iter().map(|call| call.id.as_str()).collect();
            assert!(waiting.iter().all(|id| !id.is_empty() && seen.insert(*id)), "{waiting:?}");
        }
    }
    assert!(waiting.is_empty(), "without a reply: {waiting:?}");
}
