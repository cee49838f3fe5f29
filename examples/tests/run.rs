//! Runs every example and looks at what it prints.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on fails, and says where")]

use std::process::Command;

use expect_test::{Expect, expect};

fn check(program: &str, expected: Expect) {
    let output = Command::new(program).env_remove("TOOLBAY_MODEL").output().expect("the example runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    expected.assert_eq(&String::from_utf8_lossy(&output.stdout));
}

#[test]
fn an_agent_is_embedded() {
    check(
        env!("CARGO_BIN_EXE_embed_agent"),
        expect![[r#"
        It is sunny in Rome, 21 °C.
        (2 steps, 1 tool calls)
    "#]],
    );
}

#[test]
fn a_run_waits_for_somebody_at_the_desk() {
    check(
        env!("CARGO_BIN_EXE_approval_bot"),
        expect![[r#"
        calls look_up {"order":17}
        calls look_up {"order":17}
        waits: refund {"order":17,"amount":80}
        calls refund {"order":17,"amount":50}
        I have refunded 50 euros for order 17. The rest is with a colleague.
    "#]],
    );
}

#[test]
fn native_hooks_deny_and_mask() {
    check(
        env!("CARGO_BIN_EXE_hook"),
        expect![[r#"
        {"paid":5.0,"account":"***"}
        DeniedByHook: ceiling: at most 100 without a signature
    "#]],
    );
}

#[test]
fn a_script_belongs_to_its_tenant() {
    check(
        env!("CARGO_BIN_EXE_tenant_script"),
        expect![[r#"
        acme   {"order":1,"pays":19.99}
        acme   {"order":2,"pays":17.99}
        globex NotFound: there is no tool called "discount"; list the tools to see what there is
    "#]],
    );
}

#[test]
fn the_loop_is_in_the_programs_own_hands() {
    check(
        env!("CARGO_BIN_EXE_own_loop"),
        expect![[r#"
        step 1: asking with 1 messages
        step 1: add -> 5
        step 1: add -> InvalidArguments: the arguments do not fit the tool's parameters; mend these and call again: /a: expected the type integer, found the string "two"
        step 2: asking with 4 messages
        The sum is 5.
    "#]],
    );
}

#[test]
fn two_tenants_get_their_own_providers_of_two_abilities() {
    check(
        env!("CARGO_BIN_EXE_abilities"),
        expect![[r#"
        acme   chain by ledger
        acme   model by rules
        acme   chain.balance  {"address":"ada","amount":600}
        acme   chain.transaction  {"amount":300,"block":2,"from":"ada","id":"tx-2","to":"bob"}
        acme   chain.events  [{"block":2,"transaction":"tx-2"}]
        acme   model.predict  {"value":980.0}
        acme   model.info  {"features":["rooms","square metres"],"name":"rules of thumb"}
        globex chain by recorded
        globex model by linear
        globex chain.balance  {"address":"ada","amount":3000}
        globex chain.transaction  {"amount":1250,"block":2,"from":"ada","id":"b1","to":"bob"}
        globex chain.events  [{"block":2,"transaction":"b1"},{"block":2,"transaction":"b2"}]
        globex model.predict  {"value":1160.0}
        globex model.info  {"name":"linear rents","features":["rooms","square metres"]}
    "#]],
    );
}

#[test]
fn an_mcp_server_ends_when_its_client_is_gone() {
    let output = Command::new(env!("CARGO_BIN_EXE_mcp_stdio")).stdin(std::process::Stdio::null()).output().unwrap();
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
}

#[test]
fn an_analyst_writes_a_program() {
    let program = env!("CARGO_BIN_EXE_code_mode_analyst");
    let output = Command::new(program).env_remove("TOOLBAY_MODEL").output().expect("the example runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let end =
        "-> {\"result\":{\"store\":\"store-8\",\"total\":6272}}\nstore-8 sold most: 6,272.\n(2 steps, 22 tool calls)\n";
    assert!(text.starts_with("let best = ") && text.ends_with(end), "{text}");
}

#[test]
fn what_code_mode_saves_is_as_the_benchmarks_say() {
    let output = Command::new(env!("CARGO_BIN_EXE_code_mode_savings")).output().expect("the example runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let figures = |what: &str| -> Vec<usize> {
        let line = text.lines().find(|line| line.starts_with(what)).expect("a line of the table");
        line.trim_start_matches(what).split_whitespace().map(|figure| figure.parse().expect("a figure")).collect()
    };
    let (plain, at_once, code) = (figures("calls one by one"), figures("calls in one reply"), figures("one program"));
    assert_eq!((plain[0], at_once[0], code[0]), (21, 2, 2));
    assert_eq!((plain[2], at_once[2], code[2]), (20, 20, 22));
    assert!(plain[1] > 20 * code[1] && at_once[1] > 3 * code[1], "{text}");
}
