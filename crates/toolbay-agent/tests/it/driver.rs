//! The driver over the real runtime: repairs, parallel calls, bounds, retries, dropping.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use expect_test::expect;
use serde_json::json;
use tokio::sync::{Barrier, Notify};
use toolbay_agent::{
    Agent, AgentConfig, AgentError, Bounds, Model, ModelError, ModelErrorKind, RunOutcome, ScriptedModel, StepperConfig,
};
use toolbay_api::{
    ErrorKind, Message, ModelRequest, ModelResponse, Scope, ToolContext, ToolError, async_trait, hook::ToolMatcher,
    plugin::NativePlugin, tool,
};
use toolbay_runtime::{ApprovalPolicy, Toolbay};

use crate::support::{Add, Empty, Log, agent, assert_whole, bay, session, tool_texts};

#[tokio::test]
async fn an_agent_answers_with_its_tools() {
    let model = ScriptedModel::new().calls("add", json!({"a": 1, "b": 2})).using(10, 5).says("3").using(20, 1);
    let agent = agent(&model, bay()).system("Be brief.");
    let reply = agent.run("1 + 2?").await.unwrap();
    assert_eq!((reply.text.as_str(), &reply.outcome), ("3", &RunOutcome::Completed));
    assert_eq!((reply.steps, reply.tool_calls, reply.tokens.input, reply.tokens.output), (2, 1, 30, 6));
    assert_eq!(tool_texts(&reply.messages), ["3"]);

    let requests = model.requests();
    assert_eq!(requests[0].messages, [Message::system("Be brief."), Message::user("1 + 2?")]);
    let tools: Vec<_> = requests[0].tools.iter().map(|tool| tool.name.as_str()).collect();
    assert_eq!(tools, ["add", "fails", "hangs", "panics"]);
}

#[tokio::test]
async fn a_conversation_goes_on_from_its_messages() {
    let model = ScriptedModel::new().calls("add", json!({"a": 1, "b": 2})).says("3").says("6");
    let agent = agent(&model, bay());
    let mut messages = agent.run("1 + 2?").await.unwrap().messages;
    messages.push(Message::user("and doubled?"));
    let reply = agent.run_messages(messages).await.unwrap();
    assert_eq!((reply.text.as_str(), reply.messages.len()), ("6", 6));
    assert!(matches!(agent.run_messages(vec![]).await, Err(AgentError::NoMessages)));
}

#[tokio::test]
async fn the_model_sees_and_calls_tools_under_names_that_providers_accept() {
    let toolbay = Toolbay::builder().build().unwrap();
    let add = tool("add.up", "Adds", async |args: Add, _: ToolContext| Ok(args.a + args.b));
    let plugin = NativePlugin::new("calc", "1.0.0", "Calculates").unwrap().tool(add);
    toolbay.register(Scope::tenant("acme").unwrap(), plugin).await.unwrap();
    let session = toolbay.session("acme").unwrap();
    let offered = session.tools()[0].provider_name.to_string();
    assert!(!offered.contains('.'));

    let arguments = json!({"a": 1, "b": 2});
    let model = ScriptedModel::new().calls(&offered, arguments.clone()).calls("calc.add.up", arguments).says("3");
    let reply = Agent::new(model.clone(), session).run("go").await.unwrap();
    assert_eq!(tool_texts(&reply.messages), ["3", "3"]);
    assert_eq!(model.requests()[0].tools[0].name, offered.as_str());
}

#[tokio::test]
async fn what_the_model_wrote_wrongly_goes_back_to_it() {
    let model = ScriptedModel::new()
        .raw_calls("add", "{\"a\": 1, \"b\":")
        .calls("ad", json!({"a": 1, "b": 2}))
        .calls("add", json!({"a": "one", "b": 2}))
        .raw_calls("add", "{\"a\": 1, \"b\": 2}")
        .says("3");
    let bounds = Bounds { max_repair_steps_in_a_row: 3, max_repairs: 3, ..Bounds::default() };
    let reply = agent(&model, bay()).bounds(bounds).run("go").await.unwrap();
    assert_eq!(reply.outcome, RunOutcome::Completed);
    let texts = tool_texts(&reply.messages);
    assert!(texts[0].starts_with("InvalidArguments: "), "{}", texts[0]);
    assert!(texts[1].starts_with("NotFound: "), "{}", texts[1]);
    assert!(texts[2].starts_with("InvalidArguments: ") && texts[2].contains("/a"), "{}", texts[2]);
    assert_eq!(texts[3], "3", "arguments that were encoded twice are read");
}

#[tokio::test]
async fn a_model_that_never_gets_it_right_runs_into_the_repair_bound() {
    let model = (0..10).fold(ScriptedModel::new(), |model, _| model.calls("nonsense", json!({})));
    let bounds = Bounds { max_repair_steps_in_a_row: 2, ..Bounds::default() };
    let reply = agent(&model, bay()).bounds(bounds).run("go").await.unwrap();
    assert_eq!((&reply.outcome, reply.steps), (&RunOutcome::RepairLimit, 3));
    assert_whole(&reply.messages);
}

#[tokio::test]
async fn a_tools_own_failure_is_no_repair() {
    let missing = tool("missing", "Finds nothing", async |_: Empty, _: ToolContext| {
        Err::<(), _>(ToolError::new(ErrorKind::NotFound, "no such order"))
    });
    let model = ScriptedModel::new().calls("fails", json!({})).calls("missing", json!({})).says("gave up");
    let bounds = Bounds { max_repairs: 0, max_repair_steps_in_a_row: 0, ..Bounds::default() };
    let reply = agent(&model, bay().tool(missing)).bounds(bounds).run("go").await.unwrap();
    assert_eq!((&reply.outcome, reply.text.as_str()), (&RunOutcome::Completed, "gave up"));
}

#[tokio::test]
async fn parallel_calls_run_at_the_same_time() {
    // Each call waits for the two others; were they made one after the other, all would hang until their deadline.
    let barrier = Arc::new(Barrier::new(3));
    let meet = tool("meet", "Meets", move |_: Empty, _: ToolContext| {
        let barrier = Arc::clone(&barrier);
        async move {
            barrier.wait().await;
            Ok("met")
        }
    });
    let model = ScriptedModel::new().calls_all([("meet", json!({})), ("meet", json!({})), ("meet", json!({}))]);
    let bounds = Bounds { max_parallel_tool_calls: 3, ..Bounds::default() };
    let reply = agent(&model.says("done"), bay().tool(meet)).bounds(bounds).run("go").await.unwrap();
    assert_eq!(tool_texts(&reply.messages), ["met", "met", "met"]);
}

/// A tool that counts how many of its calls run at once and keeps the most.
fn counting(
    name: &str,
    now: &Arc<AtomicUsize>,
    most: &Arc<AtomicUsize>,
    destructive: bool,
) -> impl toolbay_api::Tool + use<> {
    let (now, most) = (Arc::clone(now), Arc::clone(most));
    tool(name, "Counts", move |_: Empty, _: ToolContext| {
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // Lets every other call that may run come in.
            for _ in 0..50 {
                tokio::task::yield_now().await;
            }
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        }
    })
    .with(|definition| definition.annotations.destructive = Some(destructive))
}

#[tokio::test]
async fn the_cap_on_parallel_calls_holds() {
    let (now, most) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
    let model = ScriptedModel::new().calls_all((0..6).map(|_| ("count", json!({})))).says("done");
    let bounds = Bounds { max_parallel_tool_calls: 2, ..Bounds::default() };
    let bay = bay().tool(counting("count", &now, &most, false));
    let reply = agent(&model, bay).bounds(bounds).run("go").await.unwrap();
    assert_eq!((reply.tool_calls, most.load(Ordering::SeqCst)), (6, 2));
}

#[tokio::test]
async fn destructive_and_exclusive_tools_run_alone() {
    let (now, most) = <(Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
    let counting = |name| counting(name, &now, &most, name == "wipe");
    let bay = bay().tool(counting("count")).tool(counting("book")).tool(counting("wipe"));
    let names = ["count", "wipe", "wipe", "book", "book", "count"];
    let model = ScriptedModel::new().calls_all(names.map(|name| (name, json!({})))).says("done");
    let exclusive = Some(ToolMatcher::new(["bo*"]).unwrap());
    let approval = ApprovalPolicy::default();
    let agent = agent(&model, bay).config(AgentConfig { exclusive, approval, ..AgentConfig::default() });
    let reply = agent.run("go").await.unwrap();
    assert_eq!((reply.tool_calls, most.load(Ordering::SeqCst)), (6, 1));
    assert_whole(&reply.messages);
}

#[tokio::test]
async fn each_bound_ends_the_run_with_its_own_outcome() {
    let calling =
        || (0..20).fold(ScriptedModel::new(), |model, _| model.calls("add", json!({"a": 1, "b": 2})).using(5, 5));
    let cases = [
        (Bounds { max_steps: 3, ..Bounds::default() }, RunOutcome::StepLimit, 3, 3),
        (Bounds { max_tool_calls: 2, ..Bounds::default() }, RunOutcome::ToolCallLimit, 4, 2),
        (Bounds { max_tokens: Some(25), ..Bounds::default() }, RunOutcome::TokenLimit, 3, 2),
    ];
    for (bounds, outcome, steps, tool_calls) in cases {
        let reply = agent(&calling(), bay()).bounds(bounds).run("go").await.unwrap();
        assert_eq!((&reply.outcome, reply.steps, reply.tool_calls), (&outcome, steps, tool_calls));
        assert_whole(&reply.messages);
    }
}

/// A model that never answers. It says when it was asked and when its request was dropped.
#[derive(Clone, Default)]
struct Silent {
    asked: Arc<Notify>,
    dropped: Arc<AtomicUsize>,
}

struct CountsItsDrop(Arc<AtomicUsize>);

impl Drop for CountsItsDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Model for Silent {
    fn id(&self) -> &str {
        "silent"
    }

    async fn respond(&self, _: ModelRequest) -> Result<ModelResponse, ModelError> {
        let _guard = CountsItsDrop(Arc::clone(&self.dropped));
        self.asked.notify_one();
        std::future::pending().await
    }
}

#[tokio::test]
async fn the_time_bound_ends_a_run_whose_model_is_silent() {
    let model = Silent::default();
    let bounds = Bounds { max_wall_time: Duration::from_millis(30), ..Bounds::default() };
    let reply = Agent::new(model.clone(), session(bay())).bounds(bounds).run("go").await.unwrap();
    assert_eq!((&reply.outcome, reply.steps), (&RunOutcome::TimeLimit, 1));
    assert_eq!(model.dropped.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_time_bound_keeps_replies_that_were_there_and_answers_the_others() {
    let waits = tool("waits", "Waits", async |_: Empty, _: ToolContext| {
        std::future::pending::<()>().await;
        Ok(())
    });
    let model = ScriptedModel::new().calls_all([("waits", json!({})), ("add", json!({"a": 1, "b": 2}))]);
    let bounds = Bounds { max_wall_time: Duration::from_millis(30), ..Bounds::default() };
    let reply = agent(&model, bay().tool(waits)).bounds(bounds).run("go").await.unwrap();
    assert_eq!(reply.outcome, RunOutcome::TimeLimit);
    assert_whole(&reply.messages);
    let texts = tool_texts(&reply.messages);
    assert!(texts[0].starts_with("the run ended before this call was finished"), "{texts:?}");
    assert_eq!(texts[1], "3");
}

#[tokio::test]
async fn dropping_a_run_drops_its_request() {
    let model = Silent::default();
    let agent = Agent::new(model.clone(), session(bay()));
    let before = async {
        model.asked.notified().await;
        model.dropped.load(Ordering::SeqCst)
    };
    tokio::select! {
        _ = agent.run("go") => panic!("the model is silent"),
        before = before => assert_eq!(before, 0, "the request is in flight"),
    }
    assert_eq!(model.dropped.load(Ordering::SeqCst), 1, "the future went with the select, and the request with it");
}

#[tokio::test]
async fn dropping_a_run_drops_its_calls_in_flight() {
    let (begun, dropped) = (Arc::new(Barrier::new(3)), Arc::new(AtomicUsize::new(0)));
    let waits = tool("waits", "Waits", {
        let (begun, dropped) = (Arc::clone(&begun), Arc::clone(&dropped));
        move |_: Empty, _: ToolContext| {
            let (begun, guard) = (Arc::clone(&begun), CountsItsDrop(Arc::clone(&dropped)));
            async move {
                let _guard = guard;
                begun.wait().await;
                std::future::pending::<()>().await;
                Ok(())
            }
        }
    });
    let model = ScriptedModel::new().calls_all([("waits", json!({})), ("waits", json!({}))]);
    let agent = agent(&model, bay().tool(waits));
    let before = async {
        begun.wait().await;
        dropped.load(Ordering::SeqCst)
    };
    tokio::select! {
        _ = agent.run("go") => panic!("the calls never end"),
        before = before => assert_eq!(before, 0, "the calls are in flight"),
    }
    assert_eq!(dropped.load(Ordering::SeqCst), 2, "the future went with the select, and they with it");
}

#[tokio::test]
async fn a_failure_that_can_pass_is_tried_again() {
    let busy = || {
        let kind = ModelErrorKind::RateLimited { retry_after: Some(Duration::from_millis(1)) };
        ModelError::new(kind, "too many requests")
    };
    let model = ScriptedModel::new().fails(busy()).fails(busy()).says("there");
    let reply = agent(&model, bay()).run("go").await.unwrap();
    assert_eq!((reply.text.as_str(), reply.steps), ("there", 1));

    let model = ScriptedModel::new().fails(busy()).fails(busy()).fails(busy()).says("too late");
    let error = agent(&model, bay()).run("go").await.unwrap_err();
    assert_eq!(error.to_string(), "too many requests");
}

#[tokio::test]
async fn a_provider_that_asks_for_too_long_a_wait_is_not_waited_for() {
    let kind = ModelErrorKind::RateLimited { retry_after: Some(Duration::from_secs(3_600)) };
    let model = ScriptedModel::new().fails(ModelError::new(kind, "come back tomorrow")).says("never");
    let error = agent(&model, bay()).run("go").await.unwrap_err();
    assert_eq!(error.to_string(), "come back tomorrow");
}

#[tokio::test]
async fn an_observer_sees_the_run_as_it_happens() {
    let log = Log::default();
    let model = ScriptedModel::new().calls("add", json!({"a": 1, "b": 2})).thinking("hm").says("3");
    let session = session(bay()).with_observer(Arc::new(log.clone()));
    Agent::new(model, session).run("go").await.unwrap();
    expect![[r#"
        run_started
        step_started
        reasoning
        model_replied
        tool_looked_up
        tool_call_started
        tool_call_finished
        step_started
        model_replied
        run_finished
    "#]]
    .assert_eq(&log.text());
}

#[tokio::test]
async fn the_models_settings_reach_it() {
    let model = ScriptedModel::new().says("ok");
    let stepper = StepperConfig { max_output_tokens: Some(100), temperature: Some(0.2), ..StepperConfig::default() };
    let config = AgentConfig { stepper, ..AgentConfig::default() };
    agent(&model, bay()).config(config).run("go").await.unwrap();
    let request = &model.requests()[0];
    assert_eq!((request.max_output_tokens, request.temperature), (Some(100), Some(0.2)));
}

#[tokio::test]
async fn any_pointer_to_a_model_is_a_model() {
    let shared: Arc<dyn Model> = Arc::new(ScriptedModel::new().says("one").says("two"));
    let boxed: Box<dyn Model> = Box::new(Arc::clone(&shared));
    assert_eq!(Agent::new(Arc::clone(&shared), session(bay())).run("go").await.unwrap().text, "one");
    assert_eq!(Agent::new(boxed, session(bay())).run("go").await.unwrap().text, "two");
}

#[tokio::test]
async fn a_run_may_move_between_threads() {
    let model = ScriptedModel::new().says("ok");
    let agent = agent(&model, bay());
    let reply = tokio::spawn(async move { agent.run("go").await }).await.unwrap().unwrap();
    assert_eq!(reply.text, "ok");
}
