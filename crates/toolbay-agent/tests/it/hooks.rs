//! Which hooks fire in a run and in which order, however it goes, and what their outcomes do to it.

use expect_test::{Expect, expect};
use serde_json::json;
use toolbay_agent::{AgentError, ModelError, ModelErrorKind, RunOutcome, ScriptedModel};
use toolbay_api::{
    Hook, HookContext, HookPoint, HookRegistration, Message, async_trait,
    hook::{
        AfterAgentRun, AfterAgentRunOutcome, AfterModelCall, AfterModelCallOutcome, AfterToolCall,
        AfterToolCallOutcome, BeforeAgentRun, BeforeAgentRunOutcome, BeforeModelCall, BeforeModelCallOutcome,
        BeforeToolCall, BeforeToolCallOutcome, HookResult, OnError, OnErrorOutcome, ReasoningStep,
        ReasoningStepOutcome,
    },
};

use crate::support::{Log, Recorder, agent, assert_whole, bay, tool_texts};

/// Runs the script and compares what the recorder saw at the eight points.
async fn check(model: ScriptedModel, hook: Option<HookRegistration>, expected: Expect) {
    let log = Log::default();
    let mut bay = bay().hook(Recorder::at_every_point(&log));
    if let Some(hook) = hook {
        bay = bay.hook(hook);
    }
    if let Ok(reply) = agent(&model, bay).run("go").await {
        assert_whole(&reply.messages);
    }
    expected.assert_eq(&log.text());
}

#[tokio::test]
async fn all_points_fire_in_order_on_success() {
    let model = ScriptedModel::new().calls("add", json!({"a": 1, "b": 2})).thinking("I should add").says("3");
    check(
        model,
        None,
        expect![[r#"
            before_agent_run 1 message(s)
            before_model_call 1
            after_model_call 1
            on_reasoning_step 1 "I should add"
            before_tool_call add {"a":1,"b":2}
            after_tool_call add 3
            before_model_call 2
            after_model_call 2
            after_agent_run completed "3"
        "#]],
    )
    .await;
}

#[tokio::test]
async fn a_tools_error_goes_past_the_error_hooks() {
    check(
        ScriptedModel::new().calls("fails", json!({})).says("sorry"),
        None,
        expect![[r#"
            before_agent_run 1 message(s)
            before_model_call 1
            after_model_call 1
            before_tool_call fails {}
            on_error fails Script
            after_tool_call fails Script
            before_model_call 2
            after_model_call 2
            after_agent_run completed "sorry"
        "#]],
    )
    .await;
}

#[tokio::test]
async fn a_time_out_is_an_error_like_any_other() {
    check(
        ScriptedModel::new().calls("hangs", json!({})).says("too slow"),
        None,
        expect![[r#"
            before_agent_run 1 message(s)
            before_model_call 1
            after_model_call 1
            before_tool_call hangs {}
            on_error hangs TimedOut
            after_tool_call hangs TimedOut
            before_model_call 2
            after_model_call 2
            after_agent_run completed "too slow"
        "#]],
    )
    .await;
}

#[tokio::test]
async fn so_is_a_panic() {
    check(
        ScriptedModel::new().calls("panics", json!({})).says("broken"),
        None,
        expect![[r#"
            before_agent_run 1 message(s)
            before_model_call 1
            after_model_call 1
            before_tool_call panics {}
            on_error panics Panic
            after_tool_call panics Panic
            before_model_call 2
            after_model_call 2
            after_agent_run completed "broken"
        "#]],
    )
    .await;
}

#[tokio::test]
async fn a_denial_keeps_the_run_going() {
    check(
        ScriptedModel::new().calls("add", json!({"a": 1, "b": 2})).says("not allowed"),
        Some(at(HookPoint::BeforeToolCall)),
        expect![[r#"
            before_agent_run 1 message(s)
            before_model_call 1
            after_model_call 1
            before_tool_call add {"a":1,"b":2}
            on_error add DeniedByHook
            after_tool_call add DeniedByHook
            before_model_call 2
            after_model_call 2
            after_agent_run completed "not allowed"
        "#]],
    )
    .await;
}

#[tokio::test]
async fn a_models_failure_goes_past_the_error_hooks_and_the_run_is_still_closed() {
    check(
        ScriptedModel::new().fails(ModelError::new(ModelErrorKind::Refused, "no")),
        None,
        expect![[r#"
            before_agent_run 1 message(s)
            before_model_call 1
            on_error model Dependency
            after_agent_run model_failed ""
        "#]],
    )
    .await;
}

/// Does the strongest thing that its point knows: deny before a tool call, feedback on an error, else stop.
struct Strict;

fn at(point: HookPoint) -> HookRegistration {
    HookRegistration::new("strict", [point], Strict)
}

#[async_trait]
impl Hook for Strict {
    async fn before_agent_run(&self, _: &BeforeAgentRun, _: &HookContext<'_>) -> HookResult<BeforeAgentRunOutcome> {
        Ok(BeforeAgentRunOutcome::Stop("closed".into()))
    }

    async fn after_agent_run(&self, _: &AfterAgentRun, _: &HookContext<'_>) -> HookResult<AfterAgentRunOutcome> {
        Ok(AfterAgentRunOutcome::Stop("closed".into()))
    }

    async fn before_model_call(&self, _: &BeforeModelCall, _: &HookContext<'_>) -> HookResult<BeforeModelCallOutcome> {
        Ok(BeforeModelCallOutcome::Stop("closed".into()))
    }

    async fn after_model_call(&self, _: &AfterModelCall, _: &HookContext<'_>) -> HookResult<AfterModelCallOutcome> {
        Ok(AfterModelCallOutcome::Stop("closed".into()))
    }

    async fn before_tool_call(&self, _: &BeforeToolCall, _: &HookContext<'_>) -> HookResult<BeforeToolCallOutcome> {
        Ok(BeforeToolCallOutcome::deny("closed"))
    }

    async fn after_tool_call(&self, _: &AfterToolCall, _: &HookContext<'_>) -> HookResult<AfterToolCallOutcome> {
        Ok(AfterToolCallOutcome::Stop("closed".into()))
    }

    async fn on_reasoning_step(&self, _: &ReasoningStep, _: &HookContext<'_>) -> HookResult<ReasoningStepOutcome> {
        Ok(ReasoningStepOutcome::Stop("closed".into()))
    }

    async fn on_error(&self, _: &OnError, _: &HookContext<'_>) -> HookResult<OnErrorOutcome> {
        Ok(OnErrorOutcome::RetryWithFeedback("try it another way".into()))
    }
}

#[tokio::test]
async fn a_stop_at_any_point_ends_the_run_and_gives_nothing_out() {
    let stops = [
        (HookPoint::BeforeAgentRun, 0, 0),
        (HookPoint::BeforeModelCall, 1, 0),
        (HookPoint::AfterModelCall, 1, 0),
        (HookPoint::OnReasoningStep, 1, 0),
        (HookPoint::AfterToolCall, 1, 2),
        (HookPoint::AfterAgentRun, 2, 2),
    ];
    for (point, steps, tool_calls) in stops {
        let log = Log::default();
        let model = ScriptedModel::new()
            .calls_all([("add", json!({"a": 1, "b": 2})), ("add", json!({"a": 3, "b": 4}))])
            .thinking("add twice")
            .says("the secret");
        let bay = bay().hook(Recorder::at_every_point(&log)).hook(at(point));
        let reply = agent(&model, bay).run("go").await.unwrap();

        let stopped = RunOutcome::Stopped { by: "strict".into(), reason: "closed".into() };
        assert_eq!((&reply.outcome, reply.text.as_str()), (&stopped, ""), "{point}");
        assert_eq!((reply.steps, reply.tool_calls), (steps, tool_calls), "{point}");
        assert_whole(&reply.messages);
        assert!(!serde_json::to_string(&reply.messages).unwrap().contains("the secret"), "{point}");
        let closings = log.lines().iter().filter(|line| line.starts_with("after_agent_run")).count();
        // The recorder has the lower priority number and so comes last on the way out, behind the one that stops there.
        let expected = usize::from(!matches!(point, HookPoint::BeforeAgentRun | HookPoint::AfterAgentRun));
        assert_eq!(closings, expected, "{point}");
    }
}

#[tokio::test]
async fn a_denial_is_what_the_model_reads() {
    let model = ScriptedModel::new().calls("add", json!({"a": 1, "b": 2})).says("ok");
    let reply = agent(&model, bay().hook(at(HookPoint::BeforeToolCall))).run("go").await.unwrap();
    assert!(tool_texts(&reply.messages)[0].contains("closed"), "{:?}", reply.messages);
}

#[tokio::test]
async fn an_error_hooks_feedback_reaches_the_model_beside_the_error() {
    let model = ScriptedModel::new().calls("fails", json!({})).says("ok");
    let reply = agent(&model, bay().hook(at(HookPoint::OnError))).run("go").await.unwrap();
    assert_eq!(tool_texts(&reply.messages), ["Script: no such order\ntry it another way"]);
}

#[tokio::test]
async fn an_error_hooks_feedback_has_a_failed_model_asked_again() {
    let error = ModelError::new(ModelErrorKind::BadRequest, "too long");
    let model = ScriptedModel::new().fails(error).says("shorter");
    let reply = agent(&model, bay().hook(at(HookPoint::OnError))).run("go").await.unwrap();
    assert_eq!((reply.text.as_str(), reply.steps), ("shorter", 2));
    assert_eq!(reply.messages[1], Message::system("try it another way"));
}

#[tokio::test]
async fn a_failed_model_is_an_error_that_keeps_what_was_done() {
    let error = ModelError::new(ModelErrorKind::Refused, "no");
    let model = ScriptedModel::new().calls("add", json!({"a": 1, "b": 2})).fails(error);
    match agent(&model, bay()).run("go").await {
        Err(AgentError::Model { error, partial }) => {
            assert_eq!((error.kind, error.message.as_str()), (ModelErrorKind::Refused, "no"));
            assert_eq!((&partial.outcome, partial.tool_calls), (&RunOutcome::ModelFailed, 1));
            assert_eq!(tool_texts(&partial.messages), ["3"]);
        }
        other => panic!("expected the model's error, not {other:?}"),
    }
}

/// Rewrites at every point that can.
struct Rewriting;

#[async_trait]
impl Hook for Rewriting {
    async fn before_agent_run(&self, _: &BeforeAgentRun, _: &HookContext<'_>) -> HookResult<BeforeAgentRunOutcome> {
        Ok(BeforeAgentRunOutcome::Rewrite(vec![Message::user("rewritten prompt")]))
    }

    async fn before_model_call(
        &self,
        input: &BeforeModelCall,
        _: &HookContext<'_>,
    ) -> HookResult<BeforeModelCallOutcome> {
        let mut request = input.request.clone();
        request.temperature = Some(0.5);
        Ok(BeforeModelCallOutcome::Rewrite(Box::new(request)))
    }

    async fn after_model_call(&self, input: &AfterModelCall, _: &HookContext<'_>) -> HookResult<AfterModelCallOutcome> {
        let mut response = input.response.clone();
        response.text = response.text.replace("secret", "[masked]");
        response.tokens = Default::default();
        Ok(AfterModelCallOutcome::Rewrite(Box::new(response)))
    }

    async fn after_agent_run(&self, input: &AfterAgentRun, _: &HookContext<'_>) -> HookResult<AfterAgentRunOutcome> {
        Ok(AfterAgentRunOutcome::Rewrite(format!("{}!", input.text)))
    }
}

#[tokio::test]
async fn rewrites_take_effect_where_they_are_made() {
    let model = ScriptedModel::new().says("the secret").using(5, 6);
    let hook = HookRegistration::new("rewriting", HookPoint::ALL, Rewriting);
    let reply = agent(&model, bay().hook(hook)).run("go").await.unwrap();
    assert_eq!(model.requests()[0].messages, [Message::user("rewritten prompt")]);
    assert_eq!(model.requests()[0].temperature, Some(0.5));
    assert_eq!(reply.text, "the [masked]!");
    // The conversation must not give away what the answer does not say.
    let said = Message::Assistant { text: "the [masked]!".into(), reasoning: None, tool_calls: vec![] };
    assert_eq!(reply.messages, [Message::user("rewritten prompt"), said]);
    assert_eq!((reply.tokens.input, reply.tokens.output), (5, 6), "the provider's count stays");
}

/// Stops the run before any tool call.
struct Brake;

#[async_trait]
impl Hook for Brake {
    async fn before_tool_call(&self, _: &BeforeToolCall, _: &HookContext<'_>) -> HookResult<BeforeToolCallOutcome> {
        Ok(BeforeToolCallOutcome::Stop("enough".into()))
    }
}

#[tokio::test]
async fn a_stop_before_a_call_drops_the_calls_beside_it() {
    // `waits` would never end; the run does not wait for it.
    let waits = toolbay_api::tool("waits", "Waits", async |_: crate::support::Empty, _: toolbay_api::ToolContext| {
        std::future::pending::<()>().await;
        Ok(())
    });
    let tools = toolbay_api::hook::ToolMatcher::new(["add"]).unwrap();
    let brake = HookRegistration::new("brake", [HookPoint::BeforeToolCall], Brake).with_tools(tools);
    let model = ScriptedModel::new().calls_all([("waits", json!({})), ("add", json!({"a": 1, "b": 2}))]);
    let reply = agent(&model, bay().tool(waits).hook(brake)).run("go").await.unwrap();
    assert_eq!(reply.outcome, RunOutcome::Stopped { by: "brake".into(), reason: "enough".into() });
    assert_eq!(reply.outcome.to_string(), "stopped by brake: enough");
    assert_whole(&reply.messages);
    let texts = tool_texts(&reply.messages);
    assert!(texts[0].starts_with("the run ended before this call was finished"), "{texts:?}");
    assert!(texts[1].contains("enough"), "{texts:?}");
}
