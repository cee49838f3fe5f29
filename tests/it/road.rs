//! The road of a call: what each hook outcome does to it, in which order, and who is told.

use std::{sync::Arc, time::Duration};

use expect_test::{Expect, expect};
use serde_json::json;
use toolbay::{HookPoint, HookRegistration, Toolbay, hook::FailurePolicy};
use toolbay_testkit::{Answer, RecordingAudit, ScriptedHook};

use crate::support::{acme, host, outcome};

/// Calls `tool` for acme at a host with these hooks and compares the transcript.
async fn check(hooks: Vec<HookRegistration>, tool: &str, expected: Expect) {
    let builder = hooks.into_iter().fold(Toolbay::builder(), |builder, hook| builder.hook(hook));
    let bay = host(builder).await;
    let (session, transcript) = acme(&bay);
    let reply = session.call(tool, json!({ "n": 1 })).await;
    if let Some(stop) = &reply.stop {
        transcript.note(format!("stop    {}: {}", stop.by, stop.reason));
    }
    if let Some(feedback) = &reply.feedback {
        transcript.note(format!("tell    {feedback}"));
    }
    transcript.note(format!("flight  {}", session.calls_in_flight()));
    expected.assert_eq(&transcript.to_string());
}

fn passive(name: &str) -> HookRegistration {
    ScriptedHook::passive().everywhere(name)
}

fn before(name: &str, answer: Answer) -> HookRegistration {
    ScriptedHook::at(HookPoint::BeforeToolCall, answer).everywhere(name)
}

fn after(name: &str, answer: Answer) -> HookRegistration {
    ScriptedHook::at(HookPoint::AfterToolCall, answer).everywhere(name)
}

#[tokio::test]
async fn hooks_go_in_by_priority_and_out_in_reverse() {
    let hooks = vec![passive("late").with_priority(9), passive("early").with_priority(1), passive("usual")];
    check(
        hooks,
        "test.echo",
        expect![[r#"
            lookup  global/test.echo
            hook    early before_tool_call -> continue
            hook    late before_tool_call -> continue
            hook    usual before_tool_call -> continue
            call    test.echo {"n":1}
            hook    usual after_tool_call -> keep
            hook    late after_tool_call -> keep
            hook    early after_tool_call -> keep
            reply   {"n":1}
            flight  0
        "#]],
    )
    .await;
}

#[tokio::test]
async fn a_failed_tool_is_shown_to_the_error_hooks_before_the_hooks_after_it() {
    check(
        vec![passive("h")],
        "test.fail",
        expect![[r#"
            lookup  global/test.fail
            hook    h before_tool_call -> continue
            call    test.fail {"n":1}
            hook    h on_error -> observe
            hook    h after_tool_call -> keep
            reply   Script: told to fail
            flight  0
        "#]],
    )
    .await;
}

#[tokio::test]
async fn a_denied_call_never_reaches_its_plugin_and_no_hook_behind_the_one_that_denied() {
    let hooks = vec![
        passive("first").with_priority(1),
        before("office_hours", Answer::Deny("closed".into())).with_priority(2),
        passive("never").with_priority(3),
    ];
    check(
        hooks,
        "test.echo",
        expect![[r#"
            lookup  global/test.echo
            hook    first before_tool_call -> continue
            hook    office_hours before_tool_call -> deny: closed
            hook    first on_error -> observe
            hook    office_hours on_error -> observe
            hook    never on_error -> observe
            hook    office_hours after_tool_call -> keep
            hook    first after_tool_call -> keep
            reply   DeniedByHook: office_hours: closed
            flight  0
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_tool_that_hangs_is_ended_at_its_deadline() {
    check(
        vec![passive("h")],
        "test.hang",
        expect![[r#"
            lookup  global/test.hang
            hook    h before_tool_call -> continue
            call    test.hang {"n":1}
            hook    h on_error -> observe
            hook    h after_tool_call -> keep
            reply   TimedOut: the tool did not answer within its 5s; ask for less at once or try again
            flight  0
        "#]],
    )
    .await;
}

#[tokio::test]
async fn a_tool_that_panics_is_an_error_of_its_call_alone() {
    check(
        vec![passive("h")],
        "test.panic",
        expect![[r#"
            lookup  global/test.panic
            hook    h before_tool_call -> continue
            call    test.panic {"n":1}
            hook    h on_error -> observe
            hook    h after_tool_call -> keep
            reply   Panic: the tool broke down; this is a fault of the tool, not of the arguments: tell the operator
            flight  0
        "#]],
    )
    .await;
}

#[tokio::test]
async fn rewrites_chain_and_the_tool_gets_the_last() {
    let hooks =
        vec![before("one", Answer::Rewrite(json!({ "n": 2 }))), before("two", Answer::Rewrite(json!({ "n": 3 })))];
    check(
        hooks,
        "test.echo",
        expect![[r#"
            lookup  global/test.echo
            hook    one before_tool_call -> rewrite
            hook    two before_tool_call -> rewrite
            call    test.echo {"n":3}
            hook    two after_tool_call -> keep
            hook    one after_tool_call -> keep
            reply   {"n":3}
            flight  0
        "#]],
    )
    .await;
}

#[tokio::test]
async fn arguments_are_checked_as_the_hooks_left_them() {
    check(
        vec![before("breaker", Answer::Rewrite(json!([])))],
        "test.echo",
        expect![[r#"
            lookup  global/test.echo
            hook    breaker before_tool_call -> rewrite
            hook    breaker on_error -> observe
            hook    breaker after_tool_call -> keep
            reply   InvalidArguments: the arguments do not fit the tool's parameters; mend these and call again: the whole: expected the type object, found an array of 0
            flight  0
        "#]],
    )
    .await;
}

#[tokio::test]
async fn a_hook_can_answer_in_the_tools_place() {
    check(
        vec![before("cache", Answer::Answer(json!("from the cache")))],
        "test.hang",
        expect![[r#"
            lookup  global/test.hang
            hook    cache before_tool_call -> answer
            hook    cache after_tool_call -> keep
            reply   "from the cache"
            flight  0
        "#]],
    )
    .await;
}

#[tokio::test]
async fn what_a_hook_wants_approved_is_refused_with_the_reason() {
    check(
        vec![before("careful", Answer::Ask("a payment".into()))],
        "test.echo",
        expect![[r#"
            lookup  global/test.echo
            hook    careful before_tool_call -> ask: a payment
            hook    careful on_error -> observe
            hook    careful after_tool_call -> keep
            reply   ApprovalRequired: this call needs approval (careful: a payment): it was not made; have an operator approve it, or call it where approvals can be given
            flight  0
        "#]],
    )
    .await;
}

#[tokio::test]
async fn a_hook_before_or_after_a_call_can_end_the_run() {
    check(
        vec![before("guard", Answer::Stop("enough".into()))],
        "test.echo",
        expect![[r#"
            lookup  global/test.echo
            hook    guard before_tool_call -> stop: enough
            hook    guard on_error -> observe
            hook    guard after_tool_call -> keep
            reply   DeniedByHook: guard stopped the run: enough
            stop    guard: enough
            flight  0
        "#]],
    )
    .await;
    check(
        vec![after("guard", Answer::Stop("a secret".into()))],
        "test.echo",
        expect![[r#"
            lookup  global/test.echo
            hook    guard before_tool_call -> continue
            call    test.echo {"n":1}
            hook    guard after_tool_call -> stop: a secret
            reply   DeniedByHook: guard stopped the run: a secret
            stop    guard: a secret
            flight  0
        "#]],
    )
    .await;
}

#[tokio::test]
async fn an_error_hook_can_tell_the_model_what_to_try() {
    check(
        vec![ScriptedHook::at(HookPoint::OnError, Answer::Feedback("use test.echo".into())).everywhere("coach")],
        "test.fail",
        expect![[r#"
            lookup  global/test.fail
            hook    coach before_tool_call -> continue
            call    test.fail {"n":1}
            hook    coach on_error -> retry with feedback: use test.echo
            hook    coach after_tool_call -> keep
            reply   Script: told to fail
            tell    use test.echo
            flight  0
        "#]],
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_fails_panics_or_hangs_is_a_no() {
    for (answer, cause) in [
        (Answer::Fail("no database".into()), "failed: no database"),
        (Answer::Panic, "failed: panicked: told to panic"),
        (Answer::Hang, "failed: no answer within 1s"),
    ] {
        let bay = host(Toolbay::builder().hook(before("gate", answer))).await;
        let (session, transcript) = acme(&bay);
        let reply = outcome(&session, "test.echo", json!({})).await;
        assert_eq!(reply, json!("HookFailed: the hook gate could not decide, which counts as a no; tell the operator"));
        assert!(transcript.to_string().contains(cause), "{transcript}");
        assert!(!transcript.to_string().contains("\ncall "), "the plugin was called: {transcript}");
    }
}

#[tokio::test]
async fn a_hook_after_the_call_that_fails_withholds_the_result() {
    let bay = host(Toolbay::builder().hook(after("redact", Answer::Fail("broken".into())))).await;
    let (session, _) = acme(&bay);
    let reply = session.call("test.echo", json!({ "secret": 1 })).await;
    assert!(!format!("{:?}", reply.to_wire()).contains("secret"), "{reply:?}");
    assert!(reply.is_error());
}

#[tokio::test]
async fn the_failure_policy_of_a_hook_can_be_turned_round() {
    let mut open = before("observer", Answer::Fail("broken".into()));
    open.on_failure = Some(FailurePolicy::Open);
    let bay = host(Toolbay::builder().hook(open)).await;
    assert_eq!(outcome(&acme(&bay).0, "test.echo", json!({})).await, json!({}));
}

#[tokio::test(start_paused = true)]
async fn a_hooks_own_time_limit_counts() {
    let mut slow = before("slow", Answer::Hang);
    slow.timeout = Duration::from_millis(7);
    let bay = host(Toolbay::builder().hook(slow)).await;
    let (session, transcript) = acme(&bay);
    session.call("test.echo", json!({})).await;
    assert!(transcript.to_string().contains("no answer within 7ms"), "{transcript}");
}

#[tokio::test]
async fn a_failing_error_hook_is_passed_over_and_shown_to_none() {
    let failing = ScriptedHook::at(HookPoint::OnError, Answer::Panic);
    let asked = failing.asked();
    let bay = host(Toolbay::builder().hook(failing.everywhere("nervous"))).await;
    assert_eq!(outcome(&acme(&bay).0, "test.fail", json!({})).await, json!("Script: told to fail"));
    let errors = asked.lock().unwrap().iter().filter(|point| **point == HookPoint::OnError).count();
    assert_eq!(errors, 1);
}

#[tokio::test]
async fn a_hook_is_asked_about_matching_tools_only() {
    let matcher = toolbay::hook::ToolMatcher::new(["test.f*"]).expect("a glob");
    let denies = before("narrow", Answer::Deny("no".into())).with_tools(matcher);
    let bay = host(Toolbay::builder().hook(denies)).await;
    let (session, _) = acme(&bay);
    assert_eq!(outcome(&session, "test.echo", json!({})).await, json!({}));
    assert_eq!(outcome(&session, "test.fail", json!({})).await, json!("DeniedByHook: narrow: no"));
}

#[tokio::test]
async fn the_audit_keeps_the_raw_result_and_who_changed_it() {
    let audit = Arc::new(RecordingAudit::default());
    let redact = after("redact", Answer::Replace(json!("***")));
    let bay = host(Toolbay::builder().audit(audit.clone()).hook(redact)).await;
    assert_eq!(outcome(&acme(&bay).0, "test.echo", json!({ "key": "s3cret" })).await, json!("***"));
    expect![[r#"
        [
            Audited {
                tenant: "acme",
                tool: "test.echo",
                plugin: Some(
                    "test",
                ),
                served_by: None,
                outcome: "ok",
                raw: Some(
                    Object {
                        "key": String("s3cret"),
                    },
                ),
                reply: Some(
                    String("***"),
                ),
                decisions: [
                    "after_tool_call redact: replace",
                ],
                depth: 0,
                call: "call-1",
                parent: None,
            },
        ]
    "#]]
    .assert_debug_eq(&audit.records());
}

#[tokio::test]
async fn an_unknown_tool_is_not_found_with_a_suggestion() {
    let bay = host(Toolbay::builder()).await;
    let (session, transcript) = acme(&bay);
    session.call("test.ehco", json!({})).await;
    expect![[r#"
        reply   NotFound: there is no tool called "test.ehco"; did you mean test.echo or test.hang or test.panic?
    "#]]
    .assert_eq(&transcript.to_string());
}

#[tokio::test]
async fn dropping_a_call_gives_its_permit_back() {
    let bay = host(Toolbay::builder()).await;
    let (session, _) = acme(&bay);
    let mut call = Box::pin(session.call("test.hang", json!({})));
    assert!(futures_poll(&mut call).await.is_none());
    assert_eq!(session.calls_in_flight(), 1);
    drop(call);
    assert_eq!(session.calls_in_flight(), 0);
}

/// Polls once.
async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(cx) {
            std::task::Poll::Ready(value) => Some(value),
            std::task::Poll::Pending => None,
        })
    })
    .await
}
