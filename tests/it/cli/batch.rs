//! call --batch: as many lines out as went in, in their order.

use std::io::{BufRead, BufReader, Write};

use serde_json::{Value, json};

use super::{Desk, kind};

const BATCH: [&str; 5] = ["call", "--batch", "-", "--tools", "kit.rhai"];

#[test]
fn every_line_has_its_result_in_order() {
    let input = r#"{"tool": "kit.echo", "args": {"value": 1}}

        {"tool": "kit.refuse"}
        this is no JSON
        {"tool": "kit.nothing", "args": {}}
        {"args": {}}
        {"tool": "kit.whoami", "tenant": "a/b"}
        {"tool": "kit.whoami", "surprise": 1}
        {"tool": "kit.whoami", "tenant": "fresh"}
        {"tool": "kit.whoami"}"#;
    let ran = Desk::new().run_with_input(&[&BATCH[..], &["--tenant", "acme"]].concat(), input).ends(0);
    let results = ran.lines();
    let kinds: Vec<_> = results.iter().map(kind).collect();
    let wrong = "InvalidArguments";
    assert_eq!(kinds, ["ok", "Script", wrong, "NotFound", wrong, wrong, wrong, "ok", "ok"]);
    assert_eq!((&results[7]["data"], &results[8]["data"]), (&json!("fresh"), &json!("acme")));
    assert_eq!(results[2]["error"]["details"], json!({ "line": 4 }));
    let message = |index: usize| results[index]["error"]["message"].as_str().unwrap();
    assert!(
        message(2).starts_with("line 4 of the batch: ") && message(2).contains("write {\"tool\": "),
        "{}",
        message(2)
    );
    assert!(message(4).contains("missing field `tool`"));
    assert!(message(5).contains("tenant id \"a/b\" is not allowed"));
    assert!(message(6).contains("unknown field `surprise`"));
    assert_eq!(ran.stderr, "");
}

#[test]
fn a_result_is_there_as_soon_as_its_call_is_done() {
    let desk = Desk::new();
    let mut child = desk.command(&BATCH).stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    for expected in 1..=3 {
        writeln!(input, r#"{{"tool": "kit.count", "tenant": "t"}}"#).unwrap();
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["data"], json!(expected));
    }
    drop(input);
    assert!(child.wait().unwrap().success());
}

#[test]
fn tenants_of_a_batch_do_not_see_each_others_values() {
    let lines: String =
        (0..3000).map(|index| format!("{{\"tool\": \"kit.count\", \"tenant\": \"t{}\"}}\n", index % 1500)).collect();
    let desk = Desk::with(&[("batch.jsonl", &lines)]);
    let ran = desk.run(&["call", "--batch", "batch.jsonl", "--json", "--tools", "kit.rhai"]).ends(0);
    let counts: Vec<_> = ran.lines().iter().map(|wire| wire["data"].as_u64().unwrap()).collect();
    assert_eq!(counts.len(), 3000);
    assert!(counts[..1500].iter().all(|count| *count == 1) && counts[1500..].iter().all(|count| *count == 2));
}

#[test]
fn a_line_beyond_the_bound_or_of_other_bytes_is_a_result_too() {
    let mut input =
        format!("{{\"tool\": \"kit.echo\", \"args\": {{\"value\": \"{}\"}}}}\n", "x".repeat(17 << 20)).into_bytes();
    input.extend_from_slice(b"\xff\xfe\n{\"tool\": \"kit.whoami\"}");
    let desk = Desk::new();
    std::fs::write(desk.path("long.jsonl"), input).unwrap();
    let ran = desk.run(&["call", "--batch", "long.jsonl", "--tools", "kit.rhai"]).ends(0);
    let results = ran.lines();
    assert_eq!(results.iter().map(kind).collect::<Vec<_>>(), ["InvalidArguments", "InvalidArguments", "ok"]);
    assert!(results[0]["error"]["message"].as_str().unwrap().contains("are allowed: pass less data"));
}

#[test]
fn a_batch_that_cannot_be_worked_off_says_so() {
    let desk = Desk::new();
    desk.run(&["call", "--batch", "nowhere.jsonl"]).refuses(&["--batch: nowhere.jsonl"]);
    desk.run(&["call", "kit.echo", "--batch", "-"]).refuses(&["cannot be used with"]);
    let ran = desk.run_unread(&["call", "--batch", "nothing", "--tools", "kit.rhai"]);
    assert_eq!(ran.status, Some(2));
    std::fs::write(desk.path("some.jsonl"), "{\"tool\": \"kit.whoami\"}\n").unwrap();
    let unread = desk.run_unread(&["call", "--batch", "some.jsonl", "--tools", "kit.rhai"]).ends(1);
    assert_eq!(unread.stderr, "");
}

#[test]
fn the_shipped_example_of_a_batch_works_on_the_shop_of_our_own() {
    let desk = Desk::new();
    let plugins = crate::support::project().join("examples/plugins");
    let plugins = plugins.to_str().unwrap();
    let line = r#"{"tool": "retail.list_all_product_types", "args": {}, "tenant": "task-17"}"#;
    let ran = desk.run_with_input(&["call", "--batch", "-", "--json", "--tools", plugins], line).ends(0);
    assert_eq!(ran.lines().iter().map(kind).collect::<Vec<_>>(), ["ok"]);
}
