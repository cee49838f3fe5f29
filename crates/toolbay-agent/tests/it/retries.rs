//! Calls that are made again, with time that the tests set: which, how often, when, and under which key.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::json;
use tokio::time::Instant;
use toolbay_agent::{Agent, AgentConfig, AgentReply, Bounds, RunOutcome, ScriptedModel, StepperConfig, ToolRetries};
use toolbay_api::{Annotations, ErrorKind, Message, ToolContext, ToolError, tool};
use toolbay_runtime::{MemoryOutcomes, Outcomes, ToolbayBuilder};

use crate::support::{Empty, bay, session};

/// When each attempt was made, and under which key.
type Attempts = Arc<Mutex<Vec<(Instant, String)>>>;

/// A tool that fails `failures` times with an error of this kind.
fn flaky(kind: ErrorKind, failures: usize, annotations: Annotations) -> (ToolbayBuilder, Attempts) {
    let attempts = Attempts::default();
    let made = Arc::clone(&attempts);
    let flaky = tool("flaky", "Fails at first", move |_: Empty, cx: ToolContext| {
        let made = Arc::clone(&made);
        async move {
            let key = cx.idempotency_key().map(str::to_owned).expect("a call of a run has a key");
            let mut made = made.lock().unwrap();
            made.push((Instant::now(), key));
            if made.len() <= failures { Err(ToolError::new(kind, "not now")) } else { Ok(made.len()) }
        }
    });
    (bay().tool(flaky.with(|definition| definition.annotations = annotations)), attempts)
}

fn idempotent() -> Annotations {
    Annotations { idempotent: Some(true), ..Annotations::default() }
}

async fn run(builder: ToolbayBuilder, tool_retries: Option<ToolRetries>, bounds: Bounds) -> AgentReply {
    let model = ScriptedModel::new().calls("flaky", json!({})).calls("flaky", json!({})).says("done");
    let stepper = StepperConfig { bounds, ..StepperConfig::default() };
    let config = AgentConfig { tool_retries, stepper, ..AgentConfig::default() };
    Agent::new(model, session(builder)).config(config).run("go").await.unwrap()
}

fn retries(max_retries: u32) -> Option<ToolRetries> {
    Some(ToolRetries { max_retries, ..ToolRetries::default() })
}

fn said(reply: &AgentReply) -> Vec<&str> {
    let said = reply.messages.iter().filter_map(|message| match message {
        Message::Tool { text, .. } => Some(text.as_str()),
        _ => None,
    });
    said.collect()
}

#[tokio::test(start_paused = true)]
async fn only_passing_errors_of_idempotent_tools_are_tried_again_and_only_where_that_is_asked_for() {
    let not_said = Annotations::default();
    let reads = Annotations { read_only: Some(true), ..Annotations::default() };
    for (kind, annotations, asked, attempts) in [
        (ErrorKind::Unavailable, idempotent(), retries(2), 4),
        (ErrorKind::RateLimited, idempotent(), retries(2), 4),
        (ErrorKind::Unavailable, idempotent(), None, 2),
        (ErrorKind::Unavailable, not_said, retries(2), 2),
        (ErrorKind::Unavailable, Annotations { idempotent: Some(false), ..not_said }, retries(2), 2),
        (ErrorKind::Unavailable, reads, retries(2), 2),
        (ErrorKind::Script, idempotent(), retries(2), 2),
        (ErrorKind::PermissionDenied, idempotent(), retries(2), 2),
    ] {
        let (builder, made) = flaky(kind, 2, annotations);
        let reply = run(builder, asked.clone(), Bounds::default()).await;
        assert_eq!(reply.outcome, RunOutcome::Completed);
        assert_eq!(made.lock().unwrap().len(), attempts, "{kind:?} {annotations:?} {asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_key_is_one_for_all_attempts_of_a_call_and_another_for_each_call_and_no_message_has_it() {
    let (builder, made) = flaky(ErrorKind::Unavailable, 2, idempotent());
    let reply = run(builder.outcomes(Outcomes::new(MemoryOutcomes::new(100))), retries(2), Bounds::default()).await;
    assert_eq!(said(&reply), ["3", "4"]);
    let keys: Vec<_> = made.lock().unwrap().iter().map(|(_, key)| key.clone()).collect();
    assert!(keys[0] == keys[1] && keys[1] == keys[2] && keys[2] != keys[3], "{keys:?}");
    let shown = serde_json::to_string(&reply).unwrap();
    assert!(keys.iter().all(|key| key.len() == 64 && !shown.contains(key.as_str())));
}

#[tokio::test(start_paused = true)]
async fn waits_double_up_to_a_bound_less_up_to_a_half_by_chance() {
    let (first_wait, max_wait) = (Duration::from_millis(100), Duration::from_millis(400));
    let asked = ToolRetries { max_retries: 5, first_wait, max_wait };
    let mut firsts = Vec::new();
    for _ in 0..8 {
        let (builder, made) = flaky(ErrorKind::Unavailable, 5, idempotent());
        run(builder, Some(asked.clone()), Bounds::default()).await;
        let made = made.lock().unwrap();
        let waits: Vec<_> = made.windows(2).take(5).map(|pair| (pair[1].0 - pair[0].0).as_millis()).collect();
        for (wait, most) in waits.iter().zip([100, 200, 400, 400, 400]) {
            // Timers are of whole milliseconds.
            assert!((most / 2..=most + 1).contains(wait), "{waits:?}");
        }
        firsts.push(waits[0]);
    }
    firsts.dedup();
    assert!(firsts.len() > 1, "all runs wait alike: {firsts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_wait_beyond_the_runs_time_is_not_begun_and_the_error_is_the_models() {
    let hour = Duration::from_secs(3_600);
    let asked = ToolRetries { max_retries: 3, first_wait: hour, max_wait: hour };
    let (builder, made) = flaky(ErrorKind::Unavailable, 9, idempotent());
    let bounds = Bounds { max_wall_time: Duration::from_secs(60), ..Bounds::default() };
    let began = Instant::now();
    let reply = run(builder, Some(asked), bounds).await;
    assert_eq!((reply.outcome.clone(), made.lock().unwrap().len()), (RunOutcome::Completed, 2));
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(said(&reply), ["Unavailable: not now", "Unavailable: not now"]);
}

#[tokio::test(start_paused = true)]
async fn retries_are_one_call_to_the_budget_and_calls_of_their_own_to_hooks() {
    use crate::support::{Log, Recorder};
    let (builder, made) = flaky(ErrorKind::Unavailable, 2, idempotent());
    let log = Log::default();
    let bounds = Bounds { max_tool_calls: 2, ..Bounds::default() };
    let reply = run(builder.hook(Recorder::at_every_point(&log)), retries(2), bounds).await;
    assert_eq!((reply.tool_calls, made.lock().unwrap().len()), (2, 4));
    let asked = log.lines().iter().filter(|line| line.starts_with("before_tool_call")).count();
    assert_eq!(asked, 4);
}
