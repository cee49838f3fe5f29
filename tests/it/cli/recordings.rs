//! agent --record and replay: a run written down, and what is found in it later.

use super::{Desk, Ran};

const SCRIPT: &str = r#"
{"tool_calls": [{"name": "kit.whoami", "arguments": {}}, {"name": "kit.refuse", "arguments": {}}]}
{"text": "You are acme."}
"#;

const GUARD: &str = r#"
const PLUGIN = #{ name: "closed", version: "1.0.0", description: "d", author: "a", hooks: #{ before_tool_call: #{ tools: ["kit.refuse"] } } };
fn before_tool_call(input, cx) { #{ deny: "closed today" } }
"#;

const OTHER_KIT: &str = r#"
const PLUGIN = #{ name: "kit", version: "2.0.0", description: "d", author: "a", tools: #{ whoami: #{ description: "d" } } };
fn whoami(args, cx) { "somebody" }
"#;

fn desk() -> Desk {
    Desk::with(&[("script.jsonl", SCRIPT), ("guard/closed.rhai", GUARD), ("other/kit.rhai", OTHER_KIT)])
}

fn record(desk: &Desk) -> Ran {
    desk.run(&[
        "agent",
        "Who am I?",
        "--script",
        "script.jsonl",
        "--tools",
        "kit.rhai",
        "--tenant",
        "acme",
        "--record",
        "run.jsonl",
    ])
}

#[test]
fn a_run_is_recorded_and_replayed_without_a_model() {
    let desk = desk();
    assert_eq!(record(&desk).ends(0).stdout, "You are acme.\n");
    let ran = desk.run(&["replay", "run.jsonl"]).ends(0);
    assert_eq!(ran.stdout, "the loop decides as recorded: 2 steps, 2 tool calls, 4 decisions\n");
    let json = desk.run(&["replay", "run.jsonl", "--json"]).ends(0).json();
    assert_eq!(json, serde_json::json!({ "steps": 2, "tool_calls": 2, "decisions": 4 }));
    // It is not made twice.
    record(&desk).refuses(&["--record: run.jsonl", "exists"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(desk.path("run.jsonl")).expect("a recording").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn a_difference_ends_with_status_1_and_what_is_no_recording_with_2() {
    let desk = desk();
    record(&desk).ends(0);
    let text = std::fs::read_to_string(desk.path("run.jsonl")).expect("a recording");
    let put = |name: &str, text: &str| std::fs::write(desk.path(name), text).expect("a file");
    put("other.jsonl", &text.replacen("\"max_steps\":32", "\"max_steps\":1", 1));
    let ran = desk.run(&["replay", "other.jsonl"]).ends(1);
    assert!(
        ran.stderr.contains("error: other.jsonl: line ") && ran.stderr.contains("the loop does something else"),
        "{}",
        ran.stderr
    );
    put("cut.jsonl", &text[..text.len() / 2]);
    desk.run(&["replay", "cut.jsonl"]).refuses(&["cut.jsonl: line ", "was cut off within this line"]);
    put("newer.jsonl", &text.replacen("\"toolbay_recording\":1", "\"toolbay_recording\":9", 1));
    desk.run(&["replay", "newer.jsonl"]).refuses(&["newer.jsonl: line 1: ", "version 9"]);
    desk.run(&["replay", "script.jsonl"]).refuses(&["script.jsonl: line 1: "]);
    desk.run(&["replay", "nothing.jsonl"]).refuses(&["nothing.jsonl: No such file"]);
}

#[test]
fn hooks_and_plugins_of_now_are_tried_over_a_recording() {
    let desk = desk();
    record(&desk).ends(0);
    let hooks = |tools: &[&str]| desk.run(&[&["replay", "run.jsonl", "--with-hooks"], tools].concat());
    assert!(hooks(&["--tools", "kit.rhai"]).ends(0).stderr.contains("nothing differs"));
    let ran = hooks(&["--tools", "kit.rhai", "--tools", "guard"]).ends(1);
    assert!(ran.stdout.contains("before_tool_call of kit.refuse"), "{}", ran.stdout);
    assert!(ran.stdout.contains("recorded no objection, now closed \"deny: closed today\""), "{}", ran.stdout);

    let plugin = |path: &str| desk.run(&["replay", "run.jsonl", "--json", "--with-plugin", path]);
    plugin("kit.rhai").ends(0);
    let found = plugin("other").ends(1).lines();
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!((&found[0]["recorded"], &found[0]["now"]), (&"\"acme\"".into(), &"\"somebody\"".into()));
    assert!(found[1]["now"].as_str().expect("a text").contains("NotFound"), "{found:?}");
    plugin("nothing").refuses(&["nothing"]);
    desk.run(&["replay", "run.jsonl", "--with-hooks", "--with-plugin", "kit.rhai"]).refuses(&["give one of them"]);
}
