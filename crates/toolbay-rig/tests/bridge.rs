//! A rig agent with a scripted model at a tenant's tools: calls take the road, hooks decide, what rig has no place for ends
//! the run.

#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on says so by panicking; the helpers beside the test functions are tests too"
)]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use rig_agent::AgentBuilder;
use rig_core::test_utils::{MockCompletionModel, MockTurn};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use toolbay_api::{
    Hook, HookContext, HookPoint, HookRegistration, Message, ToolContext,
    hook::{
        AfterAgentRun, AfterAgentRunOutcome, AfterModelCall, AfterModelCallOutcome, BeforeAgentRun,
        BeforeAgentRunOutcome, BeforeModelCall, BeforeModelCallOutcome, BeforeToolCall, BeforeToolCallOutcome,
        HookResult,
    },
    tool,
};
use toolbay_rig::Bridge;
use toolbay_runtime::{Toolbay, ToolbayBuilder};

#[derive(Deserialize, JsonSchema)]
struct Add {
    a: i64,
    b: i64,
}

/// A hook that does what its name says, at the one point where it stands.
struct Does(&'static str);

#[async_trait]
impl Hook for Does {
    async fn before_agent_run(&self, input: &BeforeAgentRun, _: &HookContext<'_>) -> HookResult<BeforeAgentRunOutcome> {
        Ok(match self.0 {
            "stop the run" => BeforeAgentRunOutcome::Stop("closed".into()),
            "rewrite the prompt" => {
                let mut messages = input.messages.clone();
                messages.pop();
                messages.push(Message::user("3 + 4?"));
                BeforeAgentRunOutcome::Rewrite(messages)
            }
            "rewrite the conversation" => {
                BeforeAgentRunOutcome::Rewrite(vec![Message::system("Obey."), Message::user("?")])
            }
            _ => BeforeAgentRunOutcome::Continue,
        })
    }

    async fn before_model_call(
        &self,
        input: &BeforeModelCall,
        _: &HookContext<'_>,
    ) -> HookResult<BeforeModelCallOutcome> {
        Ok(match self.0 {
            "take tools away" => {
                let mut request = input.request.clone();
                request.tools.clear();
                BeforeModelCallOutcome::Rewrite(Box::new(request))
            }
            _ => BeforeModelCallOutcome::Continue,
        })
    }

    async fn after_model_call(&self, input: &AfterModelCall, _: &HookContext<'_>) -> HookResult<AfterModelCallOutcome> {
        Ok(match self.0 {
            "redact the reply" => {
                let mut response = input.response.clone();
                response.text = response.text.replace("4711", "***");
                AfterModelCallOutcome::Rewrite(Box::new(response))
            }
            _ => AfterModelCallOutcome::Continue,
        })
    }

    async fn before_tool_call(&self, _: &BeforeToolCall, _: &HookContext<'_>) -> HookResult<BeforeToolCallOutcome> {
        Ok(match self.0 {
            "deny the call" => BeforeToolCallOutcome::Deny("not today".into()),
            "stop at the call" => BeforeToolCallOutcome::Stop("alarm".into()),
            _ => BeforeToolCallOutcome::Continue,
        })
    }

    async fn after_agent_run(&self, _: &AfterAgentRun, _: &HookContext<'_>) -> HookResult<AfterAgentRunOutcome> {
        Ok(match self.0 {
            "withhold the answer" => AfterAgentRunOutcome::Stop("secret".into()),
            _ => AfterAgentRunOutcome::Continue,
        })
    }
}

/// What a run came to, what the model was asked, and how often the tool was called.
struct Came {
    to: Result<String, String>,
    model: MockCompletionModel,
    calls: usize,
}

async fn run(does: Option<(&'static str, HookPoint)>, turns: impl IntoIterator<Item = MockTurn>) -> Came {
    let calls = Arc::new(AtomicUsize::new(0));
    let bridge = Bridge::new(bay(does, &calls).build().unwrap().session("acme").unwrap().run());
    let model = MockCompletionModel::from_turns(turns);
    let agent = AgentBuilder::new(model.clone().erase()).add_hook(bridge.hooks()).dynamic_tools(bridge.tools()).build();
    let to = agent.prompt("1 + 2?").max_turns(4).await;
    let to = to.map(|response| response.output().to_owned()).map_err(|error| error.to_string());
    Came { to, model, calls: calls.load(Ordering::Relaxed) }
}

fn bay(does: Option<(&'static str, HookPoint)>, calls: &Arc<AtomicUsize>) -> ToolbayBuilder {
    let calls = Arc::clone(calls);
    let add = tool("add", "Adds", move |args: Add, _: ToolContext| {
        calls.fetch_add(1, Ordering::Relaxed);
        async move { Ok(args.a + args.b) }
    });
    let bay = Toolbay::builder().without_audit().tool(add);
    match does {
        Some((what, point)) => bay.hook(HookRegistration::new("guard", [point], Does(what))),
        None => bay,
    }
}

fn call() -> MockTurn {
    MockTurn::tool_call("c1", "add", json!({"a": 1, "b": 2}))
}

/// The last message that the model was shown, as JSON.
fn shown_last(came: &Came) -> String {
    serde_json::to_string(came.model.requests().last().unwrap().chat_history.last().unwrap()).unwrap()
}

#[tokio::test]
async fn a_rig_agent_works_with_a_tenants_tools() {
    let came = run(None, [call(), MockTurn::text("It is 3.")]).await;
    assert_eq!((came.to.as_deref(), came.calls), (Ok("It is 3."), 1));
    assert!(shown_last(&came).contains("3"), "{}", shown_last(&came));
    let tools: Vec<_> = came.model.requests()[0].tools.iter().map(|tool| tool.name.to_string()).collect();
    assert_eq!(tools, ["add"]);
}

#[tokio::test]
async fn wrong_arguments_go_back_to_the_model_with_their_place() {
    let wrong = MockTurn::tool_call("c1", "add", json!({"a": "one", "b": 2}));
    let came = run(None, [wrong, MockTurn::text("Hm.")]).await;
    assert_eq!(came.calls, 0);
    assert!(shown_last(&came).contains("/a"), "{}", shown_last(&came));
}

#[tokio::test]
async fn a_hook_denies_a_call_on_the_road() {
    let came = run(Some(("deny the call", HookPoint::BeforeToolCall)), [call(), MockTurn::text("Hm.")]).await;
    assert_eq!((came.to.as_deref(), came.calls), (Ok("Hm."), 0));
    assert!(shown_last(&came).contains("not today"), "{}", shown_last(&came));
}

#[tokio::test]
async fn a_tool_hooks_stop_ends_rigs_run() {
    let came = run(Some(("stop at the call", HookPoint::BeforeToolCall)), [call(), MockTurn::text("Hm.")]).await;
    assert!(came.to.as_ref().is_err_and(|error| error.contains("alarm")), "{:?}", came.to);
    assert_eq!((came.calls, came.model.requests().len()), (0, 1));
}

#[tokio::test]
async fn a_hook_stops_a_run_before_the_model_is_asked() {
    let came = run(Some(("stop the run", HookPoint::BeforeAgentRun)), [MockTurn::text("Hm.")]).await;
    assert!(came.to.as_ref().is_err_and(|error| error.contains("closed")), "{:?}", came.to);
    assert_eq!(came.model.requests().len(), 0);
}

#[tokio::test]
async fn a_hook_rewrites_the_prompt_and_no_more() {
    let came = run(Some(("rewrite the prompt", HookPoint::BeforeAgentRun)), [MockTurn::text("7")]).await;
    assert!(came.to.is_ok() && shown_last(&came).contains("3 + 4?"), "{:?}", came.to);
    let came = run(Some(("rewrite the conversation", HookPoint::BeforeAgentRun)), [MockTurn::text("7")]).await;
    assert!(came.to.as_ref().is_err_and(|error| error.contains("no place")), "{:?}", came.to);
    assert_eq!(came.model.requests().len(), 0);
}

#[tokio::test]
async fn a_hook_takes_tools_out_of_a_request() {
    let came = run(Some(("take tools away", HookPoint::BeforeModelCall)), [MockTurn::text("Hm.")]).await;
    assert!(came.to.is_ok(), "{:?}", came.to);
    assert!(came.model.requests()[0].tools.is_empty());
}

#[tokio::test]
async fn a_hook_redacts_a_reply_before_anybody_sees_it() {
    let came = run(Some(("redact the reply", HookPoint::AfterModelCall)), [MockTurn::text("It is 4711.")]).await;
    assert_eq!(came.to.as_deref(), Ok("It is ***."));
}

#[tokio::test]
async fn a_hook_withholds_the_answer() {
    let came = run(Some(("withhold the answer", HookPoint::AfterAgentRun)), [MockTurn::text("It is 4711.")]).await;
    assert!(came.to.as_ref().is_err_and(|error| !error.contains("4711")), "{:?}", came.to);
}

#[tokio::test]
async fn a_run_that_streams_is_refused() {
    use futures::StreamExt;

    let bridge = Bridge::new(bay(None, &Arc::default()).build().unwrap().session("acme").unwrap().run());
    let model = MockCompletionModel::from_turns([MockTurn::text("Hm.")]);
    let agent = AgentBuilder::new(model.clone().erase()).add_hook(bridge.hooks()).build();
    let items: Vec<_> = agent.prompt("1 + 2?").stream().collect().await;
    assert!(items.iter().any(Result::is_err), "{}", items.len());
    assert_eq!(model.requests().len(), 0);
}
