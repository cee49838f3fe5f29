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

/// A model that waits, calls `kit.whoami` twice and answers, for 10 tokens in and 4 out each time.
const SPENDER: &str = r#"
{"tool_calls": [{"name": "kit.whoami", "arguments": {}}], "tokens": {"input": 10, "output": 4}}
{"tool_calls": [{"name": "kit.spin", "arguments": {}}], "tokens": {"input": 10, "output": 4}}
{"tool_calls": [{"name": "kit.whoami", "arguments": {}}], "tokens": {"input": 10, "output": 4}}
{"text": "done", "tokens": {"input": 10, "output": 4}}
"#;

#[test]
fn each_budget_of_the_configuration_file_binds_and_says_what_ran_out() {
    const PRICES: &str = "[prices.\"script*\"]\ninput = 2.0\noutput = 10.0\n";
    for (low, high, says) in [
        ("max_steps = 2", "max_steps = 20", "step_limit: the run's limit of 2 steps is used up"),
        ("max_tool_calls = 1", "max_tool_calls = 20", "tool_call_limit: the run's limit of 1 tool calls is used up"),
        ("max_tokens = 20", "max_tokens = 2000", "token_limit: the run's limit of 20 tokens is used up"),
        ("max_input_tokens = 15", "max_input_tokens = 150", "input_token_limit: the run's limit of 15 input tokens"),
        ("max_output_tokens = 5", "max_output_tokens = 50", "output_token_limit: the run's limit of 5 output tokens"),
        ("max_cost = 0.0001", "max_cost = 0.1", "cost_limit: the run's limit of 100 millionths of the currency"),
        ("max_wall_time_ms = 100", "max_wall_time_ms = 60000", "time_limit: the run's limit of 100 milliseconds"),
    ] {
        let run = |budget: &str| {
            let config = format!("[budget]\n{budget}\n[limits]\ntimeout_ms = 1000\n{PRICES}");
            let desk = Desk::with(&[("script.jsonl", SPENDER), ("toolbay.toml", &config)]);
            agent(&desk, &["--config", "toolbay.toml", "--isolation", "in-process"])
        };
        let ran = run(low).ends(1);
        assert!(ran.stderr.contains(&format!("error: the run did not complete: {says}")), "{low}: {}", ran.stderr);
        assert_eq!(run(high).ends(0).stdout, "done\n", "{high}");
    }
    let run = |config: &str| {
        let desk = Desk::with(&[("script.jsonl", SPENDER), ("toolbay.toml", config)]);
        agent(&desk, &["--config", "toolbay.toml"])
    };
    let calls = |most: u32| run(&format!("[budget.max_calls_per_tool]\n\"*.whoami\" = {most}\n")).ends(0).stderr;
    assert!(calls(1).contains("completed after 4 steps and 2 tool calls"), "{}", calls(1));
    assert!(calls(2).contains("completed after 4 steps and 3 tool calls"), "{}", calls(2));
    // The price decides what a cost is, and whether there is one.
    assert!(run("[budget]\nmax_cost = 0.0001\n").ends(1).stderr.contains("the price of the model"), "no price");
    run("[budget]\nmax_cost = 0.0001\n[prices.\"script*\"]\ninput = 0.5\noutput = 1\n").ends(0);
    run("[prices.x]\ninput = -1\noutput = 1\n").refuses(&["prices.\"x\".input", "no amount"]);
}

/// A model that writes this program.
fn writes(code: &str) -> String {
    format!(
        "{}\n{{\"text\": \"done\"}}",
        serde_json::json!({ "tool_calls": [{ "name": "run_code", "arguments": { "code": code } }] })
    )
}

/// What happens where a model writes `code`, with these keys in the section of the file.
fn coding(code: &str, keys: &str, rest: &str, args: &[&str]) -> Ran {
    let config = format!("[code_mode]\n{keys}\n{rest}");
    let desk = Desk::with(&[("script.jsonl", &writes(code)), ("toolbay.toml", &config), ("guard/told.rhai", TOLD)]);
    let place: &[&str] = if args.contains(&"--isolation") { &[] } else { &["--isolation", "in-process"] };
    agent(&desk, &[&["--config", "toolbay.toml"], place, args].concat())
}

/// A hook that says what the model is given.
const TOLD: &str = r#"
const PLUGIN = #{ name: "told", version: "1.0.0", description: "d", author: "a", permissions: ["hook:stop"],
    hooks: #{ before_model_call: #{} } };
fn before_model_call(input, cx) {
    let names = ""; let length = 0;
    for tool in input.request.tools { names += tool.name + ","; if tool.name == "run_code" { length = tool.description.len(); } }
    #{ stop: `${names} in ${length}` }
}
"#;

#[test]
fn a_model_writes_a_program_where_the_command_says_so() {
    let code = "print(now() > 0); [kit::whoami(), kit::whoami()]";
    let ran = coding(code, "", "", &["--code-mode"]).ends(0);
    assert!(ran.stderr.contains(r#"reply  run_code ok in "#), "{}", ran.stderr);
    assert!(ran.stderr.contains("completed after 2 steps and 3 tool calls"), "{}", ran.stderr);
    assert!(coding(code, "", "", &[]).ends(0).stderr.contains("there is no tool called \"run_code\""));
}

#[test]
fn each_key_of_code_mode_says_what_programs_may_do() {
    let on = |code: &str, keys: &str| coding(code, &format!("enabled = true\n{keys}"), "", &[]).ends(0).stderr;
    let twice = "kit::whoami(); kit::whoami(); print(\"a long line\"); 1";
    assert!(on(twice, "").contains("run_code ok in"));
    assert!(coding(twice, "enabled = false", "", &[]).ends(0).stderr.contains("there is no tool called \"run_code\""));

    assert!(on(twice, "max_calls = 1").contains("a program may call 1 tools"));
    assert!(on(twice, "max_calls = 2").contains("run_code ok in"));
    assert!(on(twice, "max_printed_bytes = 3").contains("a l\\n[the rest"));
    assert!(on(twice, "max_printed_bytes = 300").contains("a long line"));

    // In processes, since a call in this one is over before the next begins.
    let order = |keys: &str| {
        let code = "parallel([#{tool: \"kit::whoami\"}, #{tool: \"kit::whoami\"}]).len()";
        let ran = coding(code, &format!("enabled = true\n{keys}"), "", &["--isolation", "process"]).ends(0);
        let lines = ran.stderr.lines().map(str::trim_start);
        let of_kit = lines.filter(|line| line.contains(" kit.whoami"));
        of_kit.map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(order("max_parallel = 2"), ["call", "call", "reply", "reply"]);
    assert_eq!(order("max_parallel = 1"), ["call", "reply", "call", "reply"]);
    assert_eq!(order("exclusive = [\"kit.*\"]"), ["call", "reply", "call", "reply"]);

    let told = |keys: &str| coding(twice, &format!("enabled = true\n{keys}"), "", &["--tools", "guard"]).ends(1).stderr;
    let length = |told: &str| -> usize {
        let text = told.split(" in ").find_map(|part| part.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
        text.unwrap_or_else(|| panic!("no length in {told}"))
    };
    assert!(told("").contains("run_code, in "), "{}", told(""));
    assert!(told("beside = [\"kit.whoami\"]").contains("kit__whoami,run_code, in "));
    assert!(length(&told("max_listing_bytes = 80")) < length(&told("")));

    let waits = |keys: &str| {
        let code = "kit::whoami(); kit::refuse()";
        let rest = "[approval]\nask = [\"kit.refuse\"]\n";
        coding(code, &format!("enabled = true\n{keys}"), rest, &["--approve", "never"]).ends(0).stderr
    };
    assert!(waits("max_journal_bytes = 10").contains("has done too much to be kept"));
    assert!(waits("").contains("was not approved"), "{}", waits(""));
}
