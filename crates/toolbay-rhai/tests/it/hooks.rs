//! Script hooks: what they see, what they may answer, and that they fail closed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use expect_test::expect;
use serde_json::json;
use toolbay_api::{
    CallId, Caller, ErrorKind, HookContext, HookPoint, HookRegistration, Host, Package, PermissionSet, PluginContext,
    RunId, Runner, Scope, TenantId, ToolDefinition, ToolError, ToolName, ToolOutput,
    hook::{AfterToolCall, BeforeAgentRun, BeforeToolCall, ErrorOrigin, HookHosts, OnError, ReasoningStep},
    message::Message,
};

use crate::fake::{Bench, FakeHost};

struct Hosts(Arc<FakeHost>);

impl HookHosts for Hosts {
    fn host(&self) -> Arc<dyn Host> {
        Arc::clone(&self.0) as Arc<dyn Host>
    }
}

/// Loads a plugin with one hook at `point` whose body is this.
async fn hook(point: HookPoint, body: &str, grants: PermissionSet) -> HookRegistration {
    let source = format!(
        "const PLUGIN = #{{ name: \"h\", version: \"1.0.0\", description: \"d\", permissions: [\"*\"],
           hooks: #{{ {point}: #{{ priority: 7, tools: [\"pay*\"], timeout_ms: 250 }} }} }};
         fn {point}(input, cx) {{ {body} }}"
    );
    let bench = Bench::default();
    let cx = PluginContext { scope: Scope::Global, limits: bench.limits.clone(), grants: Arc::new(grants) };
    let plugin = bench.runner.load(&Package::one_file("h.rhai", source), &cx).await.unwrap_or_else(|e| panic!("{e}"));
    plugin.hooks().remove(0)
}

/// What the hook answers at `point`, as text.
async fn ask(point: HookPoint, body: &str, grants: PermissionSet) -> String {
    let registration = hook(point, body, grants).await;
    let caller = Arc::new(Caller {
        tenant: TenantId::new("acme").unwrap(),
        user: None,
        conversation: None,
        run: RunId::random(),
        trace: None,
    });
    let hosts = Hosts(Arc::default());
    let deadline = Instant::now() + Duration::from_secs(5);
    let cx = HookContext { caller: &caller, step: 2, deadline, hosts: &hosts, interception: None };
    let hook = registration.hook;
    let tool = || ToolName::new("pay.now").unwrap();
    let text = |text: Result<String, toolbay_api::HookError>| text.unwrap_or_else(|error| format!("failed: {error}"));
    match point {
        HookPoint::BeforeAgentRun => {
            let input = BeforeAgentRun { messages: vec![Message::user("hello")] };
            text(hook.before_agent_run(&input, &cx).await.map(|outcome| format!("{outcome:?}")))
        }
        HookPoint::BeforeToolCall => {
            let definition = Arc::new(ToolDefinition::new("pay", "d", json!({})).unwrap());
            let input =
                BeforeToolCall { call: CallId::new("c1"), tool: tool(), arguments: json!({ "amount": 5 }), definition };
            text(hook.before_tool_call(&input, &cx).await.map(|outcome| format!("{outcome:?}")))
        }
        HookPoint::AfterToolCall => {
            let input = AfterToolCall {
                call: CallId::new("c1"),
                tool: tool(),
                result: if body.contains("error") {
                    Err(ToolError::new(ErrorKind::NotFound, "gone"))
                } else {
                    Ok(ToolOutput::new(json!({ "token": "x" })))
                },
            };
            text(hook.after_tool_call(&input, &cx).await.map(|outcome| format!("{outcome:?}")))
        }
        HookPoint::OnReasoningStep => {
            let input = ReasoningStep { step: 2, text: "hm".into() };
            text(hook.on_reasoning_step(&input, &cx).await.map(|outcome| format!("{outcome:?}")))
        }
        HookPoint::OnError => {
            let origin = ErrorOrigin::Tool { call: CallId::new("c1"), tool: "pay.now".into() };
            let input = OnError { origin, error: ToolError::failed("no") };
            text(hook.on_error(&input, &cx).await.map(|outcome| format!("{outcome:?}")))
        }
        _ => unreachable!("not asked here"),
    }
}

#[tokio::test]
async fn a_registration_is_as_declared() {
    let registration = hook(HookPoint::BeforeToolCall, "", PermissionSet::default()).await;
    assert_eq!((&*registration.name, registration.priority), ("h", 7));
    assert_eq!(registration.timeout, Duration::from_millis(250));
    assert_eq!(registration.points, [HookPoint::BeforeToolCall]);
    assert!(registration.tools.matches("pay.now") && !registration.tools.matches("get"));
}

#[tokio::test]
async fn a_script_hook_tightens_without_any_grant() {
    let cases = [
        (HookPoint::BeforeToolCall, "", expect!["Continue"]),
        (HookPoint::BeforeToolCall, "\"continue\"", expect!["Continue"]),
        (
            HookPoint::BeforeToolCall,
            "if input.arguments.amount > 3 { #{ deny: `too much for ${input.tool} by ${cx.tenant}` } }",
            expect![[r#"Deny("too much for pay.now by acme")"#]],
        ),
        (HookPoint::BeforeToolCall, "#{ stop: input.call_id }", expect![[r#"Stop("c1")"#]]),
        (HookPoint::BeforeToolCall, "#{ ask: \"sure?\" }", expect![[r#"Ask("sure?")"#]]),
        (HookPoint::BeforeAgentRun, "#{ stop: input.messages[0].text }", expect![[r#"Stop("hello")"#]]),
        (HookPoint::AfterToolCall, "if input.success { #{ stop: input.data.token } }", expect![[r#"Stop("x")"#]]),
        (HookPoint::AfterToolCall, "#{ stop: input.error.kind }", expect![[r#"Stop("NotFound")"#]]),
        (HookPoint::OnReasoningStep, "#{ stop: input.text }", expect![[r#"Stop("hm")"#]]),
        (HookPoint::OnError, "", expect!["Observe"]),
    ];
    for (point, body, expected) in cases {
        expected.assert_eq(&ask(point, body, PermissionSet::default()).await);
    }
}

#[tokio::test]
async fn loosening_needs_the_hosts_grant() {
    let granted = || PermissionSet::parse(["hook:*"]).unwrap();
    let cases = [
        (
            HookPoint::BeforeToolCall,
            "#{ rewrite: #{ amount: 1 } }",
            expect![[r#"Rewrite(Object {"amount": Number(1)})"#]],
        ),
        (HookPoint::BeforeToolCall, "#{ answer: 3 }", expect!["Answer(ToolOutput { data: Number(3), content: [] })"]),
        (
            HookPoint::AfterToolCall,
            "#{ replace: \"***\" }",
            expect![[r#"Replace(Ok(ToolOutput { data: String("***"), content: [] }))"#]],
        ),
        (HookPoint::OnError, "#{ feedback: \"again\" }", expect![[r#"RetryWithFeedback("again")"#]]),
        (
            HookPoint::BeforeAgentRun,
            "input.messages.push(#{ role: \"user\", text: \"x\" }); #{ rewrite: input.messages }",
            expect![[r#"Rewrite([User { text: "hello" }, User { text: "x" }])"#]],
        ),
    ];
    for (point, body, expected) in cases {
        expected.assert_eq(&ask(point, body, granted()).await);
        let refused = ask(point, body, PermissionSet::default()).await;
        assert!(refused.starts_with("failed:") && refused.contains("without the grant \"hook:"), "{refused}");
    }
}

#[tokio::test]
async fn what_is_not_legal_at_a_point_fails_closed() {
    let all = PermissionSet::all;
    let cases = [
        (HookPoint::BeforeToolCall, "true"),
        (HookPoint::BeforeToolCall, "#{ allow: true }"),
        (HookPoint::BeforeToolCall, "#{ deny: 3 }"),
        (HookPoint::BeforeToolCall, "#{ deny: \"a\", stop: \"b\" }"),
        (HookPoint::BeforeToolCall, "#{}"),
        (HookPoint::BeforeToolCall, "throw \"oops\""),
        (HookPoint::BeforeToolCall, "loop {}"),
        (HookPoint::BeforeToolCall, "#{ replace: 1 }"),
        (HookPoint::AfterToolCall, "#{ deny: \"x\" }"),
        (HookPoint::BeforeAgentRun, "#{ rewrite: \"x\" }"),
        (HookPoint::OnReasoningStep, "#{ rewrite: \"x\" }"),
        (HookPoint::OnError, "#{ stop: \"x\" }"),
    ];
    for (point, body) in cases {
        let answer = ask(point, body, all()).await;
        assert!(answer.starts_with(&format!("failed: the hook {point} of h")), "{body}: {answer}");
    }
}
