//! What the driver's tests share: a bay with tools of every temper, and a hook that writes down what it sees.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use schemars::JsonSchema;
use serde::Deserialize;
use toolbay_agent::{Agent, ScriptedModel};
use toolbay_api::{
    Hook, HookContext, HookPoint, HookRegistration, Message, RunId, ToolContext, ToolError, async_trait,
    hook::{
        AfterAgentRun, AfterAgentRunOutcome, AfterModelCall, AfterModelCallOutcome, AfterToolCall,
        AfterToolCallOutcome, BeforeAgentRun, BeforeAgentRunOutcome, BeforeModelCall, BeforeModelCallOutcome,
        BeforeToolCall, BeforeToolCallOutcome, ErrorOrigin, HookResult, OnError, OnErrorOutcome, ReasoningStep,
        ReasoningStepOutcome,
    },
    tool,
};
use toolbay_runtime::{Observer, RunEvent, Session, Toolbay, ToolbayBuilder};

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Empty {}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Add {
    pub(crate) a: i64,
    pub(crate) b: i64,
}

/// A bay with a tool for each way in which a call can go.
pub(crate) fn bay() -> ToolbayBuilder {
    Toolbay::builder()
        .without_audit()
        .tool(tool("add", "Adds", async |args: Add, _: ToolContext| Ok(args.a + args.b)))
        .tool(tool("fails", "Fails", async |_: Empty, _: ToolContext| Err::<(), _>(ToolError::failed("no such order"))))
        .tool(tool("panics", "Panics", async |_: Empty, _: ToolContext| -> Result<(), ToolError> { panic!("boom") }))
        .tool(
            tool("hangs", "Never ends", async |_: Empty, _: ToolContext| {
                std::future::pending::<()>().await;
                Ok(())
            })
            .with(|definition| definition.timeout = Some(Duration::from_millis(30))),
        )
}

pub(crate) fn session(builder: ToolbayBuilder) -> Session {
    builder.build().unwrap().session("acme").unwrap()
}

pub(crate) fn agent(model: &ScriptedModel, builder: ToolbayBuilder) -> Agent {
    Agent::new(model.clone(), session(builder))
}

/// Lines that hooks and observers write, in the order in which things happen.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn add(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn text(&self) -> String {
        self.lines().iter().map(|line| format!("{line}\n")).collect()
    }
}

/// Writes down every point that it is asked at.
pub(crate) struct Recorder(pub(crate) Log);

impl Recorder {
    pub(crate) fn at_every_point(log: &Log) -> HookRegistration {
        HookRegistration::new("recorder", HookPoint::ALL, Self(log.clone())).with_priority(0)
    }
}

#[async_trait]
impl Hook for Recorder {
    async fn before_agent_run(&self, input: &BeforeAgentRun, _: &HookContext<'_>) -> HookResult<BeforeAgentRunOutcome> {
        self.0.add(format!("before_agent_run {} message(s)", input.messages.len()));
        Ok(BeforeAgentRunOutcome::Continue)
    }

    async fn after_agent_run(&self, input: &AfterAgentRun, _: &HookContext<'_>) -> HookResult<AfterAgentRunOutcome> {
        self.0.add(format!("after_agent_run {} {:?}", input.outcome, input.text));
        Ok(AfterAgentRunOutcome::Continue)
    }

    async fn before_model_call(&self, _: &BeforeModelCall, cx: &HookContext<'_>) -> HookResult<BeforeModelCallOutcome> {
        self.0.add(format!("before_model_call {}", cx.step));
        Ok(BeforeModelCallOutcome::Continue)
    }

    async fn after_model_call(&self, _: &AfterModelCall, cx: &HookContext<'_>) -> HookResult<AfterModelCallOutcome> {
        self.0.add(format!("after_model_call {}", cx.step));
        Ok(AfterModelCallOutcome::Continue)
    }

    async fn before_tool_call(&self, input: &BeforeToolCall, _: &HookContext<'_>) -> HookResult<BeforeToolCallOutcome> {
        self.0.add(format!("before_tool_call {} {}", input.tool, input.arguments));
        Ok(BeforeToolCallOutcome::Continue)
    }

    async fn after_tool_call(&self, input: &AfterToolCall, _: &HookContext<'_>) -> HookResult<AfterToolCallOutcome> {
        let result = match &input.result {
            Ok(output) => output.to_text(),
            Err(error) => error.kind.to_string(),
        };
        self.0.add(format!("after_tool_call {} {result}", input.tool));
        Ok(AfterToolCallOutcome::Keep)
    }

    async fn on_reasoning_step(&self, input: &ReasoningStep, _: &HookContext<'_>) -> HookResult<ReasoningStepOutcome> {
        self.0.add(format!("on_reasoning_step {} {:?}", input.step, input.text));
        Ok(ReasoningStepOutcome::Continue)
    }

    async fn on_error(&self, input: &OnError, _: &HookContext<'_>) -> HookResult<OnErrorOutcome> {
        let origin = match &input.origin {
            ErrorOrigin::Tool { tool, .. } => tool.as_str(),
            ErrorOrigin::Model => "model",
        };
        self.0.add(format!("on_error {origin} {}", input.error.kind));
        Ok(OnErrorOutcome::Observe)
    }
}

impl Observer for Log {
    fn observe(&self, _: RunId, event: &RunEvent) {
        let event = serde_json::to_value(event).unwrap();
        self.add(event["event"].as_str().unwrap());
    }
}

/// Each call has exactly one reply, behind its message and in its order.
pub(crate) fn assert_whole(messages: &[Message]) {
    let mut waiting: Vec<&str> = Vec::new();
    let mut seen = HashSet::new();
    for message in messages {
        if let Message::Tool { call_id, .. } = message {
            assert_eq!(waiting.first(), Some(&call_id.as_str()));
            waiting.remove(0);
            continue;
        }
        assert!(waiting.is_empty(), "without a reply: {waiting:?}");
        if let Message::Assistant { tool_calls, .. } = message {
            waiting = tool_calls.iter().map(|call| call.id.as_str()).collect();
            assert!(waiting.iter().all(|id| seen.insert(*id)));
        }
    }
    assert!(waiting.is_empty(), "without a reply: {waiting:?}");
}

/// The replies of tools as the model reads them.
pub(crate) fn tool_texts(messages: &[Message]) -> Vec<&str> {
    let texts = messages.iter().filter_map(|message| match message {
        Message::Tool { text, .. } => Some(text.as_str()),
        _ => None,
    });
    texts.collect()
}
