//! agent: what is counted over commands, and calls that are made again.

use super::{Desk, Ran};

/// A model that calls `kit.whoami` twice and answers, for 10 tokens in and 4 out each time.
const SPENDER: &str = r#"
{"tool_calls": [{"name": "kit.whoami", "arguments": {}}], "tokens": {"input": 10, "output": 4}}
{"tool_calls": [{"name": "kit.whoami", "arguments": {}}], "tokens": {"input": 10, "output": 4}}
{"text": "done", "tokens": {"input": 10, "output": 4}}
"#;

const PRICES: &str = "[prices.\"script*\"]\ninput = 2.0\noutput = 10.0\n";

fn agent(desk: &Desk, tenant: &str, more: &[&str]) -> Ran {
    let args = [
        "agent",
        "Go",
        "--script",
        "script.jsonl",
        "--tools",
        "kit.rhai",
        "--tenant",
        tenant,
        "--config",
        "toolbay.toml",
    ];
    desk.run(&[&args, more].concat())
}

#[test]
fn each_budget_of_a_day_binds_over_commands_at_one_database() {
    for (low, high, says) in [
        ("max_steps = 4", "max_steps = 6", "4 steps"),
        ("max_tool_calls = 3", "max_tool_calls = 4", "3 tool calls"),
        (
            "max_calls_per_tool = { \"*.whoami\" = 3 }",
            "max_calls_per_tool = { \"*.whoami\" = 4 }",
            "3 calls of *.whoami",
        ),
        ("max_input_tokens = 40", "max_input_tokens = 400", "40 input tokens"),
        ("max_output_tokens = 16", "max_output_tokens = 160", "16 output tokens"),
        ("max_cost = 0.0002", "max_cost = 0.02", "200 millionths of the currency"),
        ("max_wall_time_ms = 1", "max_wall_time_ms = 600000", "1 milliseconds"),
    ] {
        let run = |budget: &str| {
            let config = format!("[budget.day]\n{budget}\n{PRICES}");
            let desk = Desk::with(&[("script.jsonl", SPENDER), ("toolbay.toml", &config)]);
            desk.run(&["db", "migrate"]).ends(0);
            for tenant in ["acme", "globex"] {
                desk.run(&["tenants", "create", tenant]).ends(0);
            }
            // Each at the same database.
            let data = ["--data", "toolbay-data"];
            let first = agent(&desk, "acme", &data);
            let (second, other) = (agent(&desk, "acme", &data), agent(&desk, "globex", &data));
            (first, second, other)
        };
        let of_the_day = format!("{says} of the day are used up");
        let (first, second, other) = run(low);
        if low.contains("calls") {
            // The run goes on without the calls.
            let made = second.stderr.matches("call   kit.whoami").count();
            assert!(made == 1 && second.stderr.contains("completed after 3 steps"), "{low}: {}", second.stderr);
        } else {
            assert!(second.stderr.contains(&of_the_day), "{low}: {}", second.stderr);
            second.ends(1);
        }
        if !low.contains("wall_time") {
            assert_eq!(
                (first.ends(0).stdout, other.ends(0).stdout),
                ("done\n".to_owned(), "done\n".to_owned()),
                "{low}"
            );
        }
        let (first, second, _) = run(high);
        assert_eq!((first.ends(0).stdout, second.ends(0).stdout), ("done\n".to_owned(), "done\n".to_owned()), "{high}");
    }
    let desk = Desk::with(&[("script.jsonl", SPENDER), ("toolbay.toml", "[budget.day]\nmax_steps = 4\n")]);
    agent(&desk, "acme", &[]).refuses(&["budget.day needs a database"]);
    std::fs::write(desk.path("toolbay.toml"), "[budget.day]\nmax_cost = -1\n").expect("a file");
    agent(&desk, "acme", &[]).refuses(&["budget.day.max_cost", "no amount"]);
}

/// Fails twice, in a way that can pass.
const FLAKY: &str = r#"
const PLUGIN = #{ name: "flaky", version: "1.0.0", description: "d", author: "a", permissions: ["kv:read", "kv:write"],
    tools: #{ flaky: #{ description: "d", annotations: #{ idempotent: true } } } };
fn flaky(args, cx) {
    let n = kv_get("n");
    if n == () { n = 0; }
    n += 1;
    kv_set("n", n);
    if n <= 2 { throw #{ message: "not now", retryable: true }; }
    n
}
"#;

#[test]
fn each_setting_of_retries_says_whether_and_when_a_call_is_made_again() {
    let run = |retries: &str| {
        let config = format!("[budget]\nmax_wall_time_ms = 20000\n{retries}");
        let script = "{\"tool_calls\": [{\"name\": \"flaky\", \"arguments\": {}}]}\n{\"text\": \"done\"}\n";
        let desk = Desk::with(&[("script.jsonl", script), ("toolbay.toml", &config), ("flaky.rhai", FLAKY)]);
        let stderr = agent(&desk, "acme", &["--tools", "flaky.rhai", "--isolation", "in-process"]).ends(0).stderr;
        (stderr.matches("call   flaky").count(), stderr.contains("reply  flaky ok"))
    };
    assert_eq!(run(""), (1, false));
    assert_eq!(run("[retries]\nmax = 0\n"), (1, false));
    assert_eq!(run("[retries]\nmax = 1\nfirst_wait_ms = 1\n"), (2, false));
    assert_eq!(run("[retries]\nmax = 2\nfirst_wait_ms = 1\n"), (3, true));
    // A wait that the run has no time for is not begun.
    assert_eq!(run("[retries]\nmax = 2\nfirst_wait_ms = 3600000\nmax_wait_ms = 3600000\n"), (1, false));
    assert_eq!(run("[retries]\nmax = 2\nfirst_wait_ms = 3600000\nmax_wait_ms = 1\n"), (3, true));
}
