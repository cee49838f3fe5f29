//! Runs as streams of events: what comes, in which order, what is held back until hooks have seen it, and that a slow reader
//! slows the run down in the place of filling the memory.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
};

use expect_test::expect;
use futures::StreamExt;
use serde_json::json;
use toolbay::{
    Agent, Decisions, Hook, HookContext, HookPoint, HookRegistration, Message, Model, ModelError, ModelErrorKind,
    ModelRequest, ModelResponse, Parts, RunEvent, RunStream, ScriptedModel, StreamOptions, ToolContext, Toolbay,
    ToolbayBuilder, async_trait,
    hook::{AfterModelCall, AfterModelCallOutcome, HookResult},
    tool,
};
use toolbay_testkit::{Answer, ScriptedHook};

use crate::support::Nothing;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Add {
    a: i64,
    b: i64,
}

fn bay(builder: ToolbayBuilder) -> Toolbay {
    let add = tool("add", "Adds", async |args: Add, _: ToolContext| Ok(args.a + args.b));
    builder.tool(add).without_audit().build().unwrap()
}

fn agent(model: impl Model + 'static, builder: ToolbayBuilder) -> Agent {
    Agent::new(model, bay(builder).session("acme").unwrap())
}

fn adding() -> ScriptedModel {
    ScriptedModel::new()
        .replies(ModelResponse {
            text: "Let me add.".into(),
            reasoning: Some("two numbers".into()),
            tool_calls: vec![toolbay::ToolCall {
                id: "c1".into(),
                name: "add".into(),
                arguments: json!({ "a": 1, "b": 2 }),
            }],
            ..ModelResponse::default()
        })
        .says("It is 3.")
}

/// An event on one short line, without ids of the run and times.
fn line(event: &RunEvent) -> String {
    let mut value = serde_json::to_value(event).unwrap();
    let name = value["event"].as_str().unwrap().to_owned();
    let fields = value.as_object_mut().unwrap();
    fields.shift_remove("event");
    for field in ["plugin", "scope", "tokens", "point"] {
        fields.shift_remove(field);
    }
    if let Some(result) = fields.get_mut("result") {
        *result = result["data"].take();
    }
    format!("{name} {value}")
}

async fn events(mut stream: RunStream) -> (Vec<RunEvent>, Result<String, String>) {
    let mut events = Vec::new();
    while let Some(event) = stream.next().await {
        events.push(event);
    }
    let reply = stream.reply().await;
    (events, reply.map(|reply| reply.text).map_err(|error| error.to_string()))
}

fn text_of(events: &[RunEvent]) -> String {
    let texts = events.iter().filter_map(|event| match event {
        RunEvent::TextDelta { text, .. } => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}

#[tokio::test]
async fn a_run_is_told_piece_by_piece_and_comes_to_the_same() {
    let (events, text) = events(agent(adding(), Toolbay::builder()).stream("1 + 2?")).await;
    let lines: Vec<_> = events.iter().map(line).collect();
    expect![[r#"
        [
            "run_started {\"tenant\":\"acme\"}",
            "step_started {\"step\":1}",
            "reasoning_delta {\"step\":1,\"text\":\"two \"}",
            "reasoning_delta {\"step\":1,\"text\":\"numbers\"}",
            "text_delta {\"step\":1,\"text\":\"Let \"}",
            "text_delta {\"step\":1,\"text\":\"me \"}",
            "text_delta {\"step\":1,\"text\":\"add.\"}",
            "tool_call_delta {\"step\":1,\"index\":0,\"id\":\"c1\",\"name\":\"add\",\"arguments\":\"\"}",
            "tool_call_delta {\"step\":1,\"index\":0,\"arguments\":\"{\\\"a\\\":1,\\\"b\\\":2\"}",
            "tool_call_delta {\"step\":1,\"index\":0,\"arguments\":\"}\"}",
            "model_replied {\"step\":1,\"text\":\"Let me add.\",\"tool_calls\":[{\"id\":\"c1\",\"name\":\"add\",\"arguments\":{\"a\":1,\"b\":2}}]}",
            "tool_looked_up {\"call\":\"c1\",\"tool\":\"add\"}",
            "tool_call_started {\"call\":\"c1\",\"tool\":\"add\",\"arguments\":{\"a\":1,\"b\":2}}",
            "tool_call_finished {\"call\":\"c1\",\"tool\":\"add\",\"result\":3}",
            "step_started {\"step\":2}",
            "text_delta {\"step\":2,\"text\":\"It \"}",
            "text_delta {\"step\":2,\"text\":\"is \"}",
            "text_delta {\"step\":2,\"text\":\"3.\"}",
            "model_replied {\"step\":2,\"text\":\"It is 3.\",\"tool_calls\":[]}",
            "run_finished {\"outcome\":\"completed\",\"text\":\"It is 3.\",\"steps\":2,\"tool_calls\":1}",
        ]
    "#]]
    .assert_debug_eq(&lines);
    assert_eq!(text, Ok("It is 3.".to_owned()));
    assert_eq!(agent(adding(), Toolbay::builder()).run("1 + 2?").await.unwrap().text, "It is 3.");
    // Without pieces, and with nobody who reads.
    let options = StreamOptions { deltas: false, ..StreamOptions::default() };
    let whole = agent(adding(), Toolbay::builder()).stream_messages(vec![Message::user("1 + 2?")], options);
    let (events, _) = self::events(whole).await;
    assert!(events.iter().all(|event| !line(event).contains("_delta")) && events.len() == 10, "{events:?}");
    assert_eq!(agent(adding(), Toolbay::builder()).stream("1 + 2?").reply().await.unwrap().text, "It is 3.");
    let (none, error) = self::events(agent(adding(), Toolbay::builder()).stream_messages(vec![], options)).await;
    assert!(none.is_empty() && error.unwrap_err().contains("nothing to answer"));
}

/// Replaces the texts of replies.
struct Redacts;

#[async_trait]
impl Hook for Redacts {
    async fn after_model_call(&self, input: &AfterModelCall, _: &HookContext<'_>) -> HookResult<AfterModelCallOutcome> {
        let text = input.response.text.replace("hunter2", "***");
        Ok(AfterModelCallOutcome::Rewrite(Box::new(ModelResponse { text, ..input.response.clone() })))
    }
}

fn at(point: HookPoint, answer: Answer) -> HookRegistration {
    HookRegistration::new("guard", [point], ScriptedHook::at(point, answer))
}

#[tokio::test]
async fn nothing_of_a_reply_is_given_out_before_the_hooks_that_could_deny_it_have_seen_it() {
    let says = || ScriptedModel::new().says("The password is hunter2.").thinking("hunter2 it is");
    let redacts = HookRegistration::new("redacts", [HookPoint::AfterModelCall], Redacts);
    for (hook, given_out) in [
        (redacts, "The password is ***."),
        (at(HookPoint::AfterModelCall, Answer::Stop("no".into())), ""),
        (at(HookPoint::OnReasoningStep, Answer::Stop("no".into())), ""),
        (at(HookPoint::AfterAgentRun, Answer::Stop("no".into())), ""),
        (at(HookPoint::AfterAgentRun, Answer::Rewrite(json!("I cannot say."))), "I cannot say."),
    ] {
        let at_reasoning = hook.points.contains(&HookPoint::OnReasoningStep);
        let (events, _) = events(agent(says(), Toolbay::builder().hook(hook)).stream("?")).await;
        assert_eq!(text_of(&events), given_out);
        let told = |event: &&RunEvent| !matches!(event, RunEvent::ReasoningDelta { .. });
        let told: Vec<_> = events.iter().filter(told).map(line).collect();
        assert!(!told.join("\n").contains("hunter2"), "{told:?}");
        if given_out.is_empty() {
            let reasoning = events.iter().any(|event| matches!(event, RunEvent::ReasoningDelta { .. }));
            assert!(!reasoning || !at_reasoning, "{events:?}");
        }
    }
    // A hook that is asked about other things holds nothing back.
    let passive = HookRegistration::new("other", [HookPoint::BeforeToolCall], ScriptedHook::passive());
    let (events, _) = events(agent(says(), Toolbay::builder().hook(passive)).stream("?")).await;
    assert!(events.iter().filter(|event| matches!(event, RunEvent::TextDelta { .. })).count() > 1);
}

#[tokio::test]
async fn what_is_held_back_for_the_end_stands_before_it_and_intermediate_replies_come_in_between() {
    let hook = HookRegistration::new("last", [HookPoint::AfterAgentRun], ScriptedHook::passive());
    let (events, _) = events(agent(adding(), Toolbay::builder().hook(hook)).stream("?")).await;
    let names: Vec<_> = events.iter().map(|event| line(event).split(' ').next().unwrap().to_owned()).collect();
    expect![[r#"
        [
            "run_started",
            "step_started",
            "reasoning_delta",
            "text_delta",
            "tool_call_delta",
            "model_replied",
            "tool_looked_up",
            "tool_call_started",
            "tool_call_finished",
            "step_started",
            "hook_decided",
            "text_delta",
            "model_replied",
            "run_finished",
        ]
    "#]]
    .assert_debug_eq(&names);
}

/// Puts out many pieces and counts them.
struct Talks(Arc<AtomicUsize>);

#[async_trait]
impl Model for Talks {
    fn id(&self) -> &str {
        "talks"
    }

    async fn respond(&self, _: ModelRequest) -> Result<ModelResponse, ModelError> {
        Ok(ModelResponse { text: "x".repeat(5_000), ..ModelResponse::default() })
    }

    async fn respond_in_parts(&self, request: ModelRequest, parts: &Parts) -> Result<ModelResponse, ModelError> {
        for _ in 0..5_000 {
            parts.text("x").await;
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        self.respond(request).await
    }
}

#[tokio::test]
async fn a_slow_reader_slows_the_model_down() {
    let put = Arc::<AtomicUsize>::default();
    let options = StreamOptions { capacity: 4, ..StreamOptions::default() };
    let agent = agent(Talks(Arc::clone(&put)), Toolbay::builder());
    let mut stream = agent.stream_messages(vec![Message::user("Talk.")], options);
    let mut read = 0;
    while let Some(event) = stream.next().await {
        read += usize::from(matches!(event, RunEvent::TextDelta { .. }));
        let waiting = stream.waiting();
        assert!(waiting <= 5, "{waiting} events wait");
        assert!(put.load(Ordering::SeqCst) <= read + 5, "the model is ahead of its reader");
    }
    assert_eq!(read, 5_000);
}

#[tokio::test]
async fn calls_wait_for_their_reader_too_even_those_inside_a_tool() {
    let many = tool("many", "Calls often", async |_: Nothing, cx: ToolContext| {
        for n in 0..300 {
            cx.host().call_tool("add", json!({ "a": n, "b": 1 })).await?;
            cx.progress(f64::from(n), Some(300.0), None);
        }
        Ok(())
    });
    let model = ScriptedModel::new().calls_all((0..4).map(|_| ("many", json!({})))).says("Done.");
    let agent = agent(model, Toolbay::builder().tool(many).grants(toolbay::PermissionSet::all()));
    let options = StreamOptions { capacity: 8, ..StreamOptions::default() };
    let mut stream = agent.stream_messages(vec![Message::user("?")], options);
    let (mut most, mut calls, mut progress) = (0, 0, 0);
    while let Some(event) = stream.next().await {
        most = most.max(stream.waiting());
        calls += usize::from(matches!(event, RunEvent::ToolCallFinished { .. }));
        progress += usize::from(matches!(event, RunEvent::ToolProgress { .. }));
    }
    // Eight, and what each of the four adds that began while there was room: a look-up, a beginning, an end, progress.
    assert!(most <= 8 + 4 * 5, "{most} events waited");
    assert_eq!(calls, 4 * 301);
    assert!(progress >= 1 && stream.reply().await.unwrap().text == "Done.");
}

/// Fails after a piece or before any, once.
struct Breaks(bool, AtomicUsize);

#[async_trait]
impl Model for Breaks {
    fn id(&self) -> &str {
        "breaks"
    }

    async fn respond(&self, _: ModelRequest) -> Result<ModelResponse, ModelError> {
        Ok(ModelResponse { text: "whole".into(), ..ModelResponse::default() })
    }

    async fn respond_in_parts(&self, request: ModelRequest, parts: &Parts) -> Result<ModelResponse, ModelError> {
        if self.1.fetch_add(1, Ordering::SeqCst) == 0 {
            if self.0 {
                parts.text("who").await;
            }
            return Err(ModelError::new(ModelErrorKind::Network, "it broke off"));
        }
        let response = self.respond(request).await?;
        parts.whole(&response).await;
        Ok(response)
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_made_again_only_while_nothing_of_its_reply_is_out() {
    let (told, text) = events(agent(Breaks(false, AtomicUsize::new(0)), Toolbay::builder()).stream("?")).await;
    assert_eq!((text_of(&told), text), ("whole".to_owned(), Ok("whole".to_owned())));
    let (told, text) = events(agent(Breaks(true, AtomicUsize::new(0)), Toolbay::builder()).stream("?")).await;
    assert_eq!((text_of(&told), text), ("who".to_owned(), Err("it broke off".to_owned())));
}

#[tokio::test]
async fn a_run_that_waits_ends_its_stream_and_goes_on_in_another() {
    let pay = tool("pay", "Pays", async |_: Nothing, _: ToolContext| Ok("paid"));
    let pay = pay.with(|definition| definition.annotations.destructive = Some(true));
    let agent = agent(ScriptedModel::new().calls("pay", json!({})).says("Paid."), Toolbay::builder().tool(pay));
    let mut stream = agent.stream("Pay.");
    let mut last = None;
    while let Some(event) = stream.next().await {
        last = Some(line(&event));
    }
    assert!(last.unwrap().starts_with("run_suspended "));
    let run = *stream.reply().await.unwrap().suspended.unwrap();
    let decisions = Decisions::by("dan").approve(run.pending[0].id);
    let (events, text) = events(agent.resume_stream(run, decisions, StreamOptions::default())).await;
    assert!(line(&events[0]).starts_with("run_resumed "));
    assert_eq!((text_of(&events), text), ("Paid.".to_owned(), Ok("Paid.".to_owned())));
}

#[tokio::test]
async fn a_stream_that_nobody_reads_does_nothing() {
    let put = Arc::<AtomicUsize>::default();
    let stream = agent(Talks(Arc::clone(&put)), Toolbay::builder()).stream("?");
    tokio::task::yield_now().await;
    assert_eq!((put.load(Ordering::SeqCst), stream.waiting()), (0, 0));
    drop(stream);
    // And one that is read and left stays where it is.
    let mut stream = agent(Talks(Arc::clone(&put)), Toolbay::builder()).stream("?");
    let first = poll_fn(|cx| Poll::Ready(stream.poll_next_unpin(cx).is_ready())).await;
    assert!(first && stream.waiting() <= 65, "{}", stream.waiting());
    let before = put.load(Ordering::SeqCst);
    tokio::task::yield_now().await;
    assert_eq!(put.load(Ordering::SeqCst), before);
}
