//! Recordings of runs: what is in them and what never is, files that are none, and what a replay finds.

mod files;
mod secrets;
mod trials;

use std::sync::Arc;

use async_trait::async_trait;
use proptest::prelude::*;
use serde_json::{Value, json};
use toolbay::{
    Agent, AgentConfig, AgentReply, Bounds, DayBudget, DayLimits, HookContext, HookPoint, HookRegistration,
    MemoryLedger, ModelError, ModelErrorKind, RecordBounds, Recorder, ResultBounds, ScriptedModel, Session,
    StepperConfig, Tool, ToolContext, ToolError, Toolbay, ToolbayBuilder,
    hook::{
        AfterToolCall, AfterToolCallOutcome, BeforeToolCall, BeforeToolCallOutcome, Hook, HookResult, OnError,
        OnErrorOutcome,
    },
    replay::{self, ReadBounds, Recording, ReplayError},
    tool,
};

use crate::support::Nothing;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Add {
    a: i64,
    b: i64,
}

fn add() -> impl Tool + 'static {
    tool("add", "Adds", async |args: Add, _: ToolContext| Ok(args.a + args.b))
}

fn bay() -> ToolbayBuilder {
    let fails =
        tool("fails", "Fails", async |_: Nothing, _: ToolContext| Err::<(), _>(ToolError::failed("no such order")));
    let long = tool("long", "Says much", async |_: Nothing, _: ToolContext| Ok(vec!["many words"; 500]));
    Toolbay::builder().without_audit().tool(add()).tool(fails).tool(long)
}

/// Denies calls of one tool, stops at another's reply, and has a word for errors of the model.
struct Guard {
    denies: &'static str,
    reason: &'static str,
}

#[async_trait]
impl Hook for Guard {
    async fn before_tool_call(&self, call: &BeforeToolCall, _: &HookContext<'_>) -> HookResult<BeforeToolCallOutcome> {
        Ok(if call.tool.as_str() == self.denies {
            BeforeToolCallOutcome::Deny(self.reason.to_owned())
        } else {
            BeforeToolCallOutcome::Continue
        })
    }

    async fn after_tool_call(&self, _: &AfterToolCall, _: &HookContext<'_>) -> HookResult<AfterToolCallOutcome> {
        Ok(AfterToolCallOutcome::Keep)
    }

    async fn on_error(&self, _: &OnError, _: &HookContext<'_>) -> HookResult<OnErrorOutcome> {
        Ok(OnErrorOutcome::RetryWithFeedback("try something else".to_owned()))
    }
}

fn guard(denies: &'static str, reason: &'static str) -> HookRegistration {
    let points = [HookPoint::BeforeToolCall, HookPoint::AfterToolCall, HookPoint::OnError];
    HookRegistration::new("guard", points, Guard { denies, reason })
}

/// Runs an agent of `acme` and gives what was recorded.
async fn recorded_with(
    session: Session,
    model: ScriptedModel,
    config: AgentConfig,
    bounds: RecordBounds,
) -> (String, AgentReply) {
    let (recorder, mut lines) = Recorder::new(bounds);
    let reply = Agent::new(model, session.with_observer(recorder)).config(config).run("Go.").await;
    let reply = match reply {
        Ok(reply) => reply,
        Err(toolbay::AgentError::Model { partial, .. }) => *partial,
        Err(error) => panic!("{error}"),
    };
    let mut text = String::new();
    while let Ok(line) = lines.try_recv() {
        assert_eq!((line.run, line.tenant.as_str()), (reply.run, "acme"));
        text.push_str(&line.text);
    }
    (text, reply)
}

async fn recorded(builder: ToolbayBuilder, model: ScriptedModel) -> String {
    let session = builder.build().unwrap().session("acme").unwrap();
    recorded_with(session, model, AgentConfig::default(), RecordBounds::default()).await.0
}

fn read(text: &str) -> Result<Recording, ReplayError> {
    Recording::read(text.as_bytes(), &ReadBounds::default())
}

/// The lines of a recording as JSON.
fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn busy() -> ScriptedModel {
    ScriptedModel::new()
        .calls_all([("add", json!({ "a": 1, "b": 2 })), ("fails", json!({})), ("add", json!({ "a": 3, "b": 0.5 }))])
        .using(100, 20)
        .fails(ModelError::new(ModelErrorKind::BadRequest, "not like this"))
        .calls("add", json!({ "a": 1, "b": 2 }))
        .says("It is 3.")
}

#[tokio::test]
async fn a_recording_has_what_model_tools_and_hooks_did_and_who_decided_with_times() {
    let text = recorded(bay().hook(guard("fails", "closed")), busy()).await;
    let all = lines(&text);
    let head = &all[0];
    assert_eq!(
        (&head["toolbay_recording"], &head["tenant"], &head["model"]),
        (&json!(1), &json!("acme"), &json!("scripted"))
    );
    assert_eq!(head["tools"].as_array().unwrap().len(), 3);
    assert_eq!(head["tools"][0]["digest"].as_str().unwrap().len(), 16);
    assert!(
        head["config"]["bounds"]["max_steps"].is_u64() && head["started_at_ms"].is_u64() && head["run"].is_string()
    );
    assert!(all[1..].iter().all(|line| line["at_ms"].is_u64()));
    let kinds: Vec<_> = all[1..].iter().map(|line| line["kind"].as_str().unwrap()).collect();
    for kind in [
        "input",
        "began",
        "asks",
        "model_answered",
        "model_replied",
        "calls",
        "hook",
        "tool_started",
        "tool_answered",
        "tool_finished",
        "tool_replied",
        "model_failed",
        "ends",
        "finished",
    ] {
        assert!(kinds.contains(&kind), "{kind} is not in {kinds:?}");
    }
    let denied = all.iter().find(|line| line["decision"] == "deny: closed").unwrap();
    assert_eq!((&denied["hook"], &denied["point"]), (&json!("guard"), &json!("before_tool_call")));
    let failed = all.iter().find(|line| line["kind"] == "model_failed").unwrap();
    assert_eq!(failed["feedback"], "try something else");
}

#[tokio::test]
async fn a_run_that_waits_and_goes_on_is_one_recording_and_replayed_to_its_end() {
    let (recorder, mut lines) = Recorder::new(RecordBounds::default());
    let session = bay().build().unwrap().session("acme").unwrap().with_observer(recorder);
    let approval =
        toolbay::ApprovalPolicy { ask: Some(toolbay::hook::ToolMatcher::new(["add"]).unwrap()), ..Default::default() };
    let model = ScriptedModel::new()
        .calls_all([("add", json!({ "a": 1, "b": 2 })), ("fails", json!({})), ("add", json!({ "a": 2, "b": 2 }))])
        .says("It is 3.");
    let agent = Agent::new(model, session).config(AgentConfig { approval, ..AgentConfig::default() });
    let suspended = agent.run("Go.").await.unwrap().suspended.unwrap();
    let [first, second] = &suspended.pending[..] else { panic!("{:?}", suspended.pending) };
    let decisions = toolbay::Decisions::by("ada").approve(first.id).reject(second.id, "not today");
    let reply = agent.resume(*suspended, decisions).await.unwrap();
    assert_eq!(reply.text, "It is 3.");
    let mut text = String::new();
    while let Ok(line) = lines.try_recv() {
        text.push_str(&line.text);
    }
    let summary = replay::strict(&read(&text).unwrap()).unwrap();
    assert_eq!(summary.steps, 2);
    let told = text.replace("not today", "perhaps");
    assert!(replay::strict(&read(&told).unwrap()).is_err(), "another word is another conversation");
}

#[tokio::test]
async fn a_run_that_nobody_records_says_nothing_of_its_loop() {
    struct Watch(std::sync::Mutex<Vec<Value>>);
    impl toolbay::Observer for Watch {
        fn observe(&self, _: toolbay::RunId, event: &toolbay::RunEvent) {
            assert!(!event.is_for_recordings());
            self.0.lock().unwrap().push(serde_json::to_value(event).unwrap());
        }
    }
    let watch = Arc::new(Watch(std::sync::Mutex::default()));
    let bay = bay().build().unwrap();
    let session = bay.session("acme").unwrap().with_observer(watch.clone());
    Agent::new(busy(), session).run("Go.").await.unwrap_err();
    let alone = watch.0.lock().unwrap().len();
    assert!(alone > 5);
    // Beside a recorder it sees no more.
    let (recorder, _lines) = Recorder::new(RecordBounds::default());
    let both = toolbay::Observers(vec![watch.clone(), recorder]);
    Agent::new(busy(), bay.session("acme").unwrap().with_observer(Arc::new(both))).run("Go.").await.unwrap_err();
    assert_eq!(watch.0.lock().unwrap().len(), 2 * alone);
}

/// What a model does in one turn.
fn turn() -> impl Strategy<Value = u32> {
    0..9_u32
}

fn told(model: ScriptedModel, turn: u32) -> ScriptedModel {
    match turn {
        0 => model.calls("add", json!({ "a": 1, "b": 2 })),
        1 => model.calls_all([("add", json!({ "a": 1, "b": 2 })), ("fails", json!({}))]),
        2 => model.calls("nothing", json!({})),
        3 => model.raw_calls("add", "{\"a\": 1,"),
        4 => model.raw_calls("add", "{\"a\": 1.25e3, \"b\": 7}"),
        5 => model.fails(ModelError::new(ModelErrorKind::BadRequest, "no")),
        6 => model.calls("long", json!({})).thinking("Much to say."),
        7 => model.calls_all(vec![("add", json!({ "a": 1, "b": 2 })); 5]),
        _ => model.says("Enough."),
    }
    .using(3, 5)
}

fn bounds() -> impl Strategy<Value = Bounds> {
    (1..6_u32, 0..8_u32, 0..4_u32, prop::option::of(5..60_u64), 0..3_u32).prop_map(
        |(max_steps, max_tool_calls, max_repairs, max_tokens, most)| Bounds {
            max_steps,
            max_tool_calls,
            max_repairs,
            max_tokens,
            max_calls_per_tool: [("ad*".to_owned(), most + 1)].into(),
            ..Bounds::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever model, tools, hooks and bounds do: the loop does again what was recorded of it.
    #[test]
    fn every_recorded_run_is_replayed_to_its_end(
        turns in prop::collection::vec(turn(), 1..8),
        bounds in bounds(),
        guarded in any::<bool>(),
        day in prop::option::of(0..6_u64),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (results, read_result) = toolbay::results::results(ResultBounds { max_shown_bytes: 1_000, ..ResultBounds::default() });
            let mut builder = bay().tool(read_result);
            if guarded {
                builder = builder.hook(guard("add", "closed"));
            }
            let day = day.map(|max_tool_calls| DayLimits {
                budget: DayBudget { max_tool_calls: Some(max_tool_calls), max_steps: Some(4), ..DayBudget::default() },
                ledger: MemoryLedger::new(),
            });
            let config = AgentConfig {
                stepper: StepperConfig { bounds, system: Some("Be brief.".into()), ..StepperConfig::default() },
                results: Some(results),
                day,
                ..AgentConfig::default()
            };
            let model = turns.into_iter().fold(ScriptedModel::new(), told).says("Done.");
            let session = builder.build().unwrap().session("acme").unwrap();
            let (text, reply) = recorded_with(session, model, config, RecordBounds::default()).await;
            let replayed = replay::strict(&read(&text).unwrap_or_else(|error| panic!("{error}\n{text}")));
            let replayed = replayed.unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert_eq!((replayed.steps, replayed.tool_calls), (reply.steps, reply.tool_calls));
        });
    }
}
