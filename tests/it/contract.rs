//! What is different under the public hook contract beyond what its vectors try: each sentence of that list in
//! `docs/hooks.md`.

use std::{sync::Arc, time::Duration};

use agent_hooks::{ApprovalRequest, ApprovalResolution, ApprovalResolver, EnforcementMode};
use serde_json::{Value, json};
use toolbay::{
    Agent, HookContext, HookPoint, HookRegistration, ScriptedModel, Session, Toolbay,
    agent_hooks::{AgentHooks, Records},
    hook::{
        BeforeModelCall, BeforeModelCallOutcome, BeforeToolCall, BeforeToolCallOutcome, FailurePolicy, Hook,
        HookResult, ToolMatcher,
    },
};
use toolbay_testkit::{Answer, ScriptedHook};

use crate::support::host;

/// Who is at the tools under the contract, and the records of it.
async fn under(contract: AgentHooks, hooks: Vec<HookRegistration>) -> (Session, Records) {
    let records = Records::new(100);
    let contract = AgentHooks { records: Some(records.sink()), ..contract };
    let builder = hooks.into_iter().fold(Toolbay::builder(), |builder, hook| builder.hook(hook));
    let bay = host(builder).await;
    (bay.session("acme").unwrap().with_contract(Arc::new(contract)), records)
}

fn before(name: &str, answer: Answer) -> HookRegistration {
    ScriptedHook::at(HookPoint::BeforeToolCall, answer).everywhere(name)
}

/// What a call of `test.echo` gives, and the verdict before it: its decision and its reason.
async fn call(session: &Session, records: &Records) -> (String, String) {
    let result = session.call("test.echo", json!({ "n": 1 })).await.result;
    let verdict = records.take().remove(0).verdict;
    let verdict = format!("{} {}", verdict.decision.as_str(), verdict.reason.unwrap_or_default());
    (result.map_or_else(|error| error.to_string(), |output| output.data.to_string()), verdict)
}

#[tokio::test(start_paused = true)]
async fn whoever_fails_is_late_or_says_what_the_contract_does_not_know_is_a_no() {
    for (answer, verdict) in [
        (Answer::Fail("the cause".into()), "deny host_error:interceptor_failed"),
        (Answer::Panic, "deny host_error:interceptor_failed"),
        (Answer::Hang, "deny host_error:interceptor_timeout"),
        (Answer::Answer(json!(7)), "deny host_error:verdict_invalid"),
    ] {
        let mut hook = before("guard", answer.clone());
        // Without a contract this would pass the hook over.
        hook.on_failure = Some(FailurePolicy::Open);
        let (session, records) = under(AgentHooks::default(), vec![hook]).await;
        let (result, said) = call(&session, &records).await;
        assert_eq!(said, verdict, "{answer:?}");
        assert!(result.starts_with("HookFailed: guard: host_error:"), "{answer:?}: {result}");
    }
}

#[tokio::test]
async fn a_moment_without_a_hook_is_a_no_and_a_hook_that_a_tool_does_not_concern_consents() {
    let (session, records) = under(AgentHooks::default(), vec![]).await;
    assert_eq!(call(&session, &records).await.1, "deny host_error:no_interceptor");
    let other = before("guard", Answer::Deny("no".into())).with_tools(ToolMatcher::new(["other.*"]).unwrap());
    let (session, records) = under(AgentHooks::default(), vec![other]).await;
    assert_eq!(call(&session, &records).await, ("{\"n\":1}".to_owned(), "allow ".to_owned()));
    let evaluate = AgentHooks { mode: EnforcementMode::EvaluateOnly, ..AgentHooks::default() };
    let (session, records) = under(evaluate, vec![before("guard", Answer::Deny("no".into()))]).await;
    assert_eq!(call(&session, &records).await, ("{\"n\":1}".to_owned(), "deny no".to_owned()));
}

/// Approves what it is shown, after a while.
struct Slow(Duration);

#[async_trait::async_trait]
impl ApprovalResolver for Slow {
    async fn resolve(&self, request: ApprovalRequest<'_>) -> ApprovalResolution {
        tokio::time::sleep(self.0).await;
        ApprovalResolution {
            outcome: agent_hooks::ApprovalOutcome::Approve,
            context_identity: request.context_identity,
            verdict: Some(agent_hooks::Verdict::allow()),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_approval_counts_while_there_is_time() {
    for (takes, result, verdict) in
        [(9, "{\"n\":1}", "allow "), (11, "HookFailed", "deny host_error:approval_resolver_failed")]
    {
        let contract = AgentHooks {
            resolver: Some(Arc::new(Slow(Duration::from_secs(takes)))),
            approval_timeout: Some(Duration::from_secs(10)),
            ..AgentHooks::default()
        };
        let (session, records) = under(contract, vec![before("guard", Answer::Ask("sure?".into()))]).await;
        let (got, said) = call(&session, &records).await;
        assert!(got.starts_with(result), "{got}");
        assert_eq!(said, verdict);
    }
}

/// Says a lot beside its consent.
struct Talkative(usize, usize);

#[async_trait::async_trait]
impl Hook for Talkative {
    async fn before_tool_call(&self, _: &BeforeToolCall, cx: &HookContext<'_>) -> HookResult<BeforeToolCallOutcome> {
        let interception = cx.interception.expect("the session is under the contract");
        assert_eq!(interception.context()["tenant"]["id"], "acme");
        (0..self.0).for_each(|_| interception.warn("x".repeat(self.1), "a warning"));
        Ok(BeforeToolCallOutcome::Continue)
    }
}

#[tokio::test]
async fn what_a_hook_says_beside_its_outcome_is_bounded() {
    for (count, bytes, verdict) in [
        (64, 1_024, "allow "),
        (65, 10, "deny host_error:verdict_invalid"),
        (1, 1_025, "deny host_error:verdict_invalid"),
    ] {
        let hook = HookRegistration::new("talk", HookPoint::ALL, Talkative(count, bytes));
        let (session, records) = under(AgentHooks::default(), vec![hook]).await;
        assert_eq!(call(&session, &records).await.1, verdict, "{count} of {bytes}");
    }
}

/// Changes what the contract has no word for.
struct Warmer;

#[async_trait::async_trait]
impl Hook for Warmer {
    async fn before_model_call(
        &self,
        input: &BeforeModelCall,
        _: &HookContext<'_>,
    ) -> HookResult<BeforeModelCallOutcome> {
        let request = toolbay::ModelRequest { temperature: Some(0.9), ..input.request.clone() };
        Ok(BeforeModelCallOutcome::Rewrite(Box::new(request)))
    }
}

#[tokio::test]
async fn a_rewrite_that_the_contract_has_no_word_for_ends_the_run_and_a_stop_does_too() {
    let warmer = HookRegistration::new("warmer", HookPoint::ALL, Warmer);
    let stop = before("brake", Answer::Stop("enough".into()));
    for (hook, outcome) in
        [(warmer, "stopped by warmer: host_error:verdict_invalid"), (stop, "stopped by brake: enough")]
    {
        let (session, records) = under(AgentHooks::default(), vec![hook]).await;
        let model = ScriptedModel::new().calls("test.echo", json!({})).says("done");
        let reply = Agent::new(model, session).run("go").await.unwrap();
        assert_eq!(reply.outcome.to_string(), outcome);
        let last: Value = serde_json::to_value(records.take().last()).unwrap();
        assert_eq!(last["interception_point"], "agent_shutdown");
    }
}
