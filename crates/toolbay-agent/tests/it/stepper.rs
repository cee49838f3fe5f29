//! The stepper, by example and by property: whatever a model replies, the conversation stays whole and the run ends.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use serde_json::{Value, json};
use toolbay_agent::{Bounds, Next, RunEnd, RunOutcome, Stepper, StepperConfig, StepperError, ToolReply};
use toolbay_api::{
    Message, ModelResponse, ToolCall,
    message::{FinishReason, Tokens},
};

fn stepper(bounds: Bounds) -> Stepper {
    let config = StepperConfig { bounds, system: Some("Be brief.".into()), ..StepperConfig::default() };
    Stepper::new(config, vec![Message::user("go")], Vec::new())
}

fn calls(ids: &[&str]) -> ModelResponse {
    let call = |id: &&str| ToolCall { id: (*id).into(), name: "t".into(), arguments: json!({}) };
    ModelResponse { tool_calls: ids.iter().map(call).collect(), ..ModelResponse::default() }
}

fn says(text: &str) -> ModelResponse {
    ModelResponse { text: text.into(), ..ModelResponse::default() }
}

fn reply(id: &str) -> ToolReply {
    ToolReply { call_id: id.into(), text: format!("reply to {id}"), is_error: false, needs_repair: false }
}

fn repair(id: &str) -> ToolReply {
    ToolReply { call_id: id.into(), text: "wrong".into(), is_error: true, needs_repair: true }
}

/// Asks the stepper for the model's turn and gives the reply.
fn turn(stepper: &mut Stepper, response: ModelResponse) {
    assert!(matches!(stepper.next(), Next::CallModel { .. }), "it is the model's turn");
    stepper.model_replied(response).unwrap();
}

fn open(stepper: &mut Stepper) -> Vec<String> {
    match stepper.next() {
        Next::RunTools { calls, .. } => calls.into_iter().map(|call| call.id).collect(),
        other => panic!("no calls are open but {other:?}"),
    }
}

fn ended(stepper: &mut Stepper) -> RunEnd {
    match stepper.next() {
        Next::Done(end) => end,
        other => panic!("the run goes on with {other:?}"),
    }
}

fn tool_texts(messages: &[Message]) -> Vec<String> {
    let texts = messages.iter().filter_map(|message| match message {
        Message::Tool { call_id, text, .. } => Some(format!("{call_id}: {text}")),
        _ => None,
    });
    texts.collect()
}

#[test]
fn replies_stand_in_the_order_of_the_calls_however_they_came() {
    let mut stepper = stepper(Bounds::default());
    turn(&mut stepper, calls(&["a", "b", "c"]));
    for id in ["c", "a"] {
        stepper.tool_replied(reply(id)).unwrap();
    }
    assert_eq!(open(&mut stepper), ["b"]);
    stepper.tool_replied(reply("b")).unwrap();
    turn(&mut stepper, says("done"));
    assert_eq!(ended(&mut stepper), RunEnd { outcome: RunOutcome::Completed, text: "done".into() });
    assert_eq!((stepper.steps(), stepper.tool_calls()), (2, 3));
    let texts = tool_texts(&stepper.into_messages());
    assert_eq!(texts, ["a: reply to a", "b: reply to b", "c: reply to c"]);
}

#[test]
fn asking_twice_changes_nothing() {
    let mut stepper = stepper(Bounds::default());
    assert_eq!(stepper.next(), stepper.next());
    stepper.model_replied(calls(&["a"])).unwrap();
    assert_eq!(stepper.next(), stepper.next());
    stepper.tool_replied(reply("a")).unwrap();
    assert_eq!(stepper.next(), stepper.next());
    assert_eq!(stepper.steps(), 2);
}

#[test]
fn the_system_text_goes_with_requests_but_is_no_message() {
    let mut stepper = stepper(Bounds::default());
    let Next::CallModel { request, .. } = stepper.next() else { panic!("it is the model's turn") };
    assert_eq!(request.messages, [Message::system("Be brief."), Message::user("go")]);
    assert_eq!(stepper.messages(), [Message::user("go")]);
}

#[test]
fn a_driver_that_mixes_things_up_is_told() {
    let mut stepper = stepper(Bounds::default());
    assert_eq!(stepper.model_replied(says("early")), Err(StepperError::OutOfTurn("a model's reply")));
    turn(&mut stepper, calls(&["a", "b"]));
    assert_eq!(stepper.model_failed(None), Err(StepperError::OutOfTurn("a model's failure")));
    assert_eq!(stepper.tool_replied(reply("x")), Err(StepperError::UnknownCall("x".into())));
    stepper.tool_replied(reply("a")).unwrap();
    assert_eq!(stepper.tool_replied(reply("a")), Err(StepperError::UnknownCall("a".into())));
}

#[test]
fn empty_and_repeated_ids_are_replaced() {
    let mut stepper = stepper(Bounds::default());
    turn(&mut stepper, calls(&["a", "a", ""]));
    let ids = open(&mut stepper);
    assert_eq!(ids.len(), ids.iter().collect::<HashSet<_>>().len());
    for id in &ids {
        stepper.tool_replied(reply(id)).unwrap();
    }
    turn(&mut stepper, calls(&["a"]));
    assert!(!ids.contains(&open(&mut stepper)[0]));
}

#[test]
fn the_step_bound_ends_the_run_after_the_last_steps_calls() {
    let mut stepper = stepper(Bounds { max_steps: 1, ..Bounds::default() });
    turn(&mut stepper, ModelResponse { text: "looking".into(), ..calls(&["a"]) });
    stepper.tool_replied(reply("a")).unwrap();
    assert_eq!(ended(&mut stepper), RunEnd { outcome: RunOutcome::StepLimit, text: "looking".into() });
}

#[test]
fn beyond_the_call_bound_calls_are_refused_and_the_model_has_one_last_word() {
    let mut stepper = stepper(Bounds { max_tool_calls: 2, ..Bounds::default() });
    turn(&mut stepper, calls(&["a", "b", "c"]));
    assert_eq!(open(&mut stepper), ["a", "b"]);
    stepper.tool_replied(reply("b")).unwrap();
    stepper.tool_replied(reply("a")).unwrap();
    turn(&mut stepper, says("what I have"));
    assert_eq!(ended(&mut stepper), RunEnd { outcome: RunOutcome::ToolCallLimit, text: "what I have".into() });
    assert_eq!(stepper.tool_calls(), 2);
    let refusal = "c: not called: the run's limit of 2 tool calls is used up. Answer now with what you have.";
    assert_eq!(tool_texts(stepper.messages())[2], refusal);
}

#[test]
fn a_model_that_wastes_its_last_word_on_calls_gets_no_other() {
    let mut stepper = stepper(Bounds { max_tool_calls: 0, ..Bounds::default() });
    turn(&mut stepper, calls(&["a"]));
    turn(&mut stepper, calls(&["b", "c"]));
    assert_eq!(ended(&mut stepper).outcome, RunOutcome::ToolCallLimit);
    assert_eq!(tool_texts(stepper.messages()).len(), 3);
}

#[test]
fn repairs_in_a_row_end_the_run_and_a_good_step_starts_the_count_anew() {
    let mut stepper = stepper(Bounds { max_repair_steps_in_a_row: 1, ..Bounds::default() });
    for good in [false, true, false] {
        turn(&mut stepper, calls(&[""]));
        let id = open(&mut stepper).remove(0);
        stepper.tool_replied(if good { reply(&id) } else { repair(&id) }).unwrap();
    }
    turn(&mut stepper, calls(&[""]));
    let id = open(&mut stepper).remove(0);
    stepper.tool_replied(repair(&id)).unwrap();
    assert_eq!(ended(&mut stepper).outcome, RunOutcome::RepairLimit);
}

#[test]
fn all_repairs_together_are_bounded_too() {
    let mut stepper = stepper(Bounds { max_repairs: 1, ..Bounds::default() });
    turn(&mut stepper, calls(&["a", "b"]));
    stepper.tool_replied(repair("a")).unwrap();
    stepper.tool_replied(repair("b")).unwrap();
    assert_eq!(ended(&mut stepper).outcome, RunOutcome::RepairLimit);
}

#[test]
fn the_token_bound_leaves_an_answer_but_makes_no_more_calls() {
    let bounds = Bounds { max_tokens: Some(10), ..Bounds::default() };
    let tokens = Tokens { input: 8, output: 2 };
    let mut answered = stepper(bounds.clone());
    turn(&mut answered, ModelResponse { tokens, ..says("42") });
    assert_eq!(ended(&mut answered).outcome, RunOutcome::Completed);

    let mut calling = stepper(bounds);
    turn(&mut calling, ModelResponse { tokens, ..calls(&["a"]) });
    assert_eq!(ended(&mut calling).outcome, RunOutcome::TokenLimit);
    assert_eq!(tool_texts(calling.messages()), ["a: not called: the run's limit of 10 tokens is used up"]);
}

#[test]
fn an_answer_that_was_cut_or_withheld_is_no_completed_run() {
    for (finish, outcome) in
        [(FinishReason::Length, RunOutcome::CutOff), (FinishReason::ContentFilter, RunOutcome::Withheld)]
    {
        let mut stepper = stepper(Bounds::default());
        turn(&mut stepper, ModelResponse { finish, ..says("The answ") });
        assert_eq!(ended(&mut stepper), RunEnd { outcome, text: "The answ".into() });
    }
}

#[test]
fn a_failed_model_is_asked_again_with_feedback_and_not_without() {
    let mut stepper = stepper(Bounds::default());
    stepper.next();
    stepper.model_failed(Some("shorter, please".into())).unwrap();
    let Next::CallModel { step: 2, request } = stepper.next() else { panic!("it is the model's turn") };
    assert_eq!(request.messages.last(), Some(&Message::system("shorter, please")));
    stepper.model_failed(None).unwrap();
    assert_eq!(ended(&mut stepper).outcome, RunOutcome::ModelFailed);
}

#[test]
fn a_stop_answers_open_calls_and_gives_no_text_out() {
    let mut stepper = stepper(Bounds::default());
    turn(&mut stepper, ModelResponse { text: "secret".into(), ..calls(&["a", "b"]) });
    stepper.tool_replied(reply("b")).unwrap();
    let stopped = RunOutcome::Stopped { by: "guard".into(), reason: "no".into() };
    stepper.stop(stopped.clone());
    assert_eq!(ended(&mut stepper), RunEnd { outcome: stopped, text: String::new() });
    let texts = tool_texts(stepper.messages());
    assert!(texts[0].starts_with("a: the run ended before"), "{texts:?}");
    assert_eq!(texts[1], "b: reply to b");
}

/// What the generated model does in one turn.
#[derive(Debug, Clone)]
enum Turn {
    Replies(ModelResponse),
    Fails(Option<String>),
}

fn any_arguments() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!({"a": 1})),
        Just(json!("{\"a\": 1}")),
        Just(json!("{\"a\": ")),
        Just(Value::Null),
        Just(json!([1, 2])),
        ".{0,12}".prop_map(Value::String),
    ]
}

fn any_call() -> impl Strategy<Value = ToolCall> {
    // Few ids, so that they repeat; the empty one; one that looks as if it was made up.
    let id = prop_oneof![Just(""), Just("a"), Just("b"), Just("call_1"), Just("call_2")];
    (id, any_arguments()).prop_map(|(id, arguments)| ToolCall { id: id.into(), name: "t".into(), arguments })
}

fn any_turn() -> impl Strategy<Value = Turn> {
    let finish = prop_oneof![Just(FinishReason::Stop), Just(FinishReason::ToolCalls), Just(FinishReason::Length)];
    let replies = (".{0,4}", prop::collection::vec(any_call(), 0..6), finish, 0..50u64).prop_map(
        |(text, tool_calls, finish, output)| {
            let tokens = Tokens { input: 1, output };
            Turn::Replies(ModelResponse { text, reasoning: None, tool_calls, finish, tokens })
        },
    );
    prop_oneof![8 => replies, 1 => Just(Turn::Fails(Some("again".into()))), 1 => Just(Turn::Fails(None))]
}

fn any_bounds() -> impl Strategy<Value = Bounds> {
    (0..8u32, 0..12u32, 0..6u32, 0..4u32, prop::option::of(1..200u64)).prop_map(
        |(max_steps, max_tool_calls, max_repairs, max_repair_steps_in_a_row, max_tokens)| Bounds {
            max_steps,
            max_tool_calls,
            max_repairs,
            max_repair_steps_in_a_row,
            max_tokens,
            ..Bounds::default()
        },
    )
}

/// Every call has one reply, in the calls' order, right behind its message; ids are unique.
fn assert_whole(messages: &[Message]) {
    let mut seen = HashSet::new();
    let mut waiting: Vec<String> = Vec::new();
    for message in messages {
        match message {
            Message::Tool { call_id, .. } => {
                assert_eq!(waiting.first(), Some(call_id), "a reply that no call is waiting for");
                waiting.remove(0);
            }
            other => {
                assert!(waiting.is_empty(), "calls without a reply: {waiting:?}");
                if let Message::Assistant { tool_calls, .. } = other {
                    waiting = tool_calls.iter().map(|call| call.id.clone()).collect();
                    for id in &waiting {
                        assert!(!id.is_empty() && seen.insert(id.clone()), "the id {id:?} is empty or repeated");
                    }
                }
            }
        }
    }
    assert!(waiting.is_empty(), "calls without a reply at the end: {waiting:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_500) })]

    #[test]
    fn any_run_ends_within_its_bounds_with_a_whole_conversation(
        bounds in any_bounds(),
        turns in prop::collection::vec(any_turn(), 10),
        order in any::<prop::sample::Index>(),
        faulty in prop::collection::vec(any::<bool>(), 64),
        stop_after in prop::option::of(0..20usize),
        put_away in any::<bool>(),
    ) {
        let mut stepper = stepper(bounds.clone());
        let mut turns = turns.into_iter().cycle();
        let mut faulty = faulty.into_iter().cycle();
        let mut made = HashMap::new();
        let mut actions = 0;
        let end = loop {
            if stop_after == Some(actions) {
                stepper.stop(RunOutcome::TimeLimit);
            }
            actions += 1;
            prop_assert!(actions < 500, "the run does not end");
            if put_away {
                let text = serde_json::to_string(&stepper).unwrap();
                let taken_up: Stepper = serde_json::from_str(&text).unwrap();
                prop_assert_eq!(&taken_up, &stepper);
                stepper = taken_up;
            }
            match stepper.next() {
                Next::CallModel { step, request } => {
                    prop_assert!(step <= bounds.max_steps);
                    assert_whole(&request.messages);
                    match turns.next().unwrap() {
                        Turn::Replies(response) => { stepper.model_replied(response).unwrap(); }
                        Turn::Fails(feedback) => stepper.model_failed(feedback).unwrap(),
                    }
                }
                Next::RunTools { calls, .. } => {
                    // One reply at a time, in any order.
                    let call = &calls[order.index(calls.len())];
                    prop_assert_eq!(made.insert(call.id.clone(), ()), None, "a call is given out after its reply");
                    let needs_repair = faulty.next().unwrap();
                    let text = "x".into();
                    let reply = ToolReply { call_id: call.id.clone(), text, is_error: needs_repair, needs_repair };
                    stepper.tool_replied(reply).unwrap();
                }
                Next::Done(end) => break end,
            }
        };
        prop_assert!(stepper.steps() <= bounds.max_steps);
        prop_assert!(stepper.tool_calls() <= bounds.max_tool_calls);
        prop_assert!(made.len() <= bounds.max_tool_calls as usize);
        prop_assert_eq!(Some(&end), stepper.end());
        assert_whole(stepper.messages());
        prop_assert_eq!(stepper.messages().to_vec(), stepper.clone().into_messages());
    }
}
