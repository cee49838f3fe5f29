//! agent: a scripted model at the kit's tools.

use super::{Desk, Ran};

const SCRIPT: &str = r#"
{"text": "Let me ask.", "tool_calls": [{"name": "kit__whoami", "arguments": {}}], "tokens": {"input": 12, "output": 3}}
{"tool_calls": [{"name": "kit.refuse", "arguments": {}}]}
{"text": "You are acme."}
"#;

const GUARD: &str = r#"
const PLUGIN = #{ name: "closed", version: "1.0.0", description: "d", author: "a", hooks: #{ before_tool_call: #{} } };
fn before_tool_call(input, cx) { #{ deny: "closed today" } }
"#;

fn desk() -> Desk {
    Desk::with(&[("script.jsonl", SCRIPT), ("guard/closed.rhai", GUARD)])
}

fn agent(desk: &Desk, args: &[&str]) -> Ran {
    desk.run(
        &[&["agent", "Who am I?", "--script", "script.jsonl", "--tools", "kit.rhai", "--tenant", "acme"], args]
            .concat(),
    )
}

#[test]
fn the_answer_goes_to_standard_output_and_the_way_to_it_to_standard_error() {
    let ran = agent(&desk(), &[]).ends(0);
    assert_eq!(ran.stdout, "You are acme.\n");
    for part in [
        "run for tenant acme",
        "step 1",
        "model  Let me ask. wants kit__whoami (12 tokens in, 3 out)",
        "call   kit.whoami {}",
        "reply  kit.whoami ok in ",
        ": \"acme\"",
        "step 2",
        "reply  kit.refuse Script in ",
        ": not today",
        "completed after 3 steps and 2 tool calls",
    ] {
        assert!(ran.stderr.contains(part), "{part:?} is not in:\n{}", ran.stderr);
    }
}

#[test]
fn what_hooks_decide_is_shown() {
    let ran = agent(&desk(), &["--tools", "guard"]).ends(0);
    assert!(ran.stderr.contains("before_tool_call: deny: closed today"), "{}", ran.stderr);
    assert!(ran.stderr.contains("reply  kit.whoami DeniedByHook in "), "{}", ran.stderr);
}

#[test]
fn events_come_as_json_lines() {
    let ran = agent(&desk(), &["--json"]).ends(0);
    let events = ran.lines();
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "run_started",
            "step_started",
            "model_replied",
            "tool_looked_up",
            "tool_call_started",
            "tool_call_finished",
            "step_started",
            "model_replied",
            "tool_looked_up",
            "tool_call_started",
            "tool_call_finished",
            "step_started",
            "model_replied",
            "run_finished",
        ]
    );
    assert_eq!(events[5]["result"]["data"], "acme");
    assert_eq!((&events[13]["outcome"], &events[13]["text"]), (&"completed".into(), &"You are acme.".into()));
    assert_eq!(ran.stderr, "");
}

#[test]
fn a_run_that_meets_its_bounds_fails() {
    let ran = agent(&desk(), &["--max-steps", "1"]).ends(1);
    assert!(ran.stderr.contains("error: the run did not complete: step_limit"), "{}", ran.stderr);
    let ran = agent(&desk(), &["--max-tool-calls", "1", "--json"]);
    assert_eq!(ran.lines().last().unwrap()["tool_calls"], 1);
    agent(&desk(), &["--max-steps", "0"]).refuses(&["--max-steps"]);
}

#[test]
fn a_model_that_cannot_be_asked_fails_the_run() {
    let desk = Desk::with(&[("script.jsonl", "{\"error\": \"the provider is down\"}")]);
    let ran = agent(&desk, &[]).ends(1);
    assert!(ran.stderr.contains("error: the provider is down"), "{}", ran.stderr);
}

#[test]
fn without_a_key_the_variable_is_named() {
    let desk = Desk::new();
    desk.run(&["agent", "Hi"]).refuses(&["set OPENAI_API_KEY", "--model", "--script"]);
    let mut other = desk.command(&["agent", "Hi", "--model", "claude-sonnet-4-5"]);
    Ran::of(other.env_remove("ANTHROPIC_API_KEY").output().unwrap()).refuses(&["set ANTHROPIC_API_KEY"]);
    desk.run(&["agent", "Hi", "--model", "unheard-of"])
        .refuses(&["the provider of the model \"unheard-of\" is not known"]);
}

#[test]
fn a_script_that_is_not_understood_names_its_line() {
    let desk = Desk::with(&[("bad.jsonl", "{\"text\": \"a\"}\n{\"txt\": \"b\"}\n")]);
    let script = |file: &str| desk.run(&["agent", "Hi", "--script", file]);
    script("bad.jsonl").refuses(&["--script: bad.jsonl: line 2 of the script"]);
    script("nowhere.jsonl").refuses(&["--script: nowhere.jsonl"]);
}

#[test]
fn a_reader_that_goes_away_ends_the_run() {
    let endless = r#"{"tool_calls": [{"name": "kit.spin", "arguments": {}}]}"#;
    let desk = Desk::with(&[("endless.jsonl", endless), ("script.jsonl", SCRIPT)]);
    let unlimited = ["--timeout", "24h", "--max-operations", "18446744073709551615"];
    let endless = ["agent", "Hi", "--script", "endless.jsonl", "--tools", "kit.rhai", "--json"];
    let ran = desk.run_unread(&[&endless[..], &unlimited].concat()).ends(1);
    assert_eq!(ran.stderr, "");
    let ran = desk.run_unread(&["agent", "Hi", "--script", "script.jsonl", "--tools", "kit.rhai"]).ends(0);
    assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
}
