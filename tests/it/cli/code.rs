//! `toolbay code`: programs, their results and their ends.

use serde_json::{Value, json};

use super::{Desk, Ran};
use crate::support::project;

fn code(program: &str, flags: &[&str]) -> (Ran, Value) {
    let mut arguments = vec!["code", "-"];
    arguments.extend(flags);
    let ran = Desk::new().run_with_input(&arguments, program);
    let wire = ran.json();
    (ran, wire)
}

#[test]
fn the_last_value_of_a_program_is_its_result() {
    let (ran, wire) =
        code("const RATE = 3; fn twice(x) { x * 2 } let sum = 0; for i in 0..4 { sum += twice(i) * RATE; } sum", &[]);
    assert_eq!((ran.status, &wire["success"], &wire["data"]), (Some(0), &json!(true), &json!(36)));
    let metadata = wire["metadata"].as_object().unwrap();
    for key in ["duration_ms", "operations", "peak_bytes", "host_calls", "isolation"] {
        assert!(metadata.contains_key(key), "{metadata:?}");
    }
}

#[test]
fn the_tenants_tools_are_functions_by_each_of_their_names() {
    let program = r#"[calculator.add(#{ a: 2, b: 3 }), calculator__add(#{ a: 2, b: 3 }), call_tool("calculator.add", #{ a: 2, b: 3 })]"#;
    let tools = crate::support::project().join("tools");
    let (_, wire) = code(program, &["--tools", tools.to_str().unwrap()]);
    assert_eq!(wire["data"], json!([5, 5, 5]));
    assert_eq!(wire["metadata"]["host_calls"], json!(3));
}

#[test]
fn a_tools_failure_can_be_caught_and_is_the_programs_where_it_is_not() {
    let tools = crate::support::project().join("tools");
    let flags = ["--tools", tools.to_str().unwrap()];
    let (ran, wire) = code("calculator.divide(#{ a: 1, b: 0 })", &flags);
    assert_eq!((ran.status, &wire["error"]["message"]), (Some(1), &json!("division by zero: b must not be 0")));
    let (_, wire) = code("try { calculator.divide(#{ a: 1, b: 0 }) } catch (e) { return e.kind; }", &flags);
    assert_eq!(wire["data"], json!("Script"));
}

#[test]
fn a_program_that_goes_on_for_ever_ends_with_the_kind_of_its_limit() {
    for (program, flags, kind, limit) in [
        ("loop {}", vec!["--timeout", "50ms"], "TimedOut", Value::Null),
        ("loop {}", vec!["--max-operations", "1000"], "LimitExceeded", json!("operations")),
        ("fn f() { f() } f()", vec![], "LimitExceeded", json!("call_depth")),
        ("let a = []; loop { a.push([0, 1, 2, 3]); }", vec!["--memory", "2MiB"], "LimitExceeded", json!("memory")),
        ("let s = \"x\"; s.pad(5000, \"x\"); s", vec!["--max-output", "1KiB"], "LimitExceeded", json!("output")),
    ] {
        let (ran, wire) = code(program, &flags);
        assert_eq!(ran.status, Some(1), "{program}");
        let error = &wire["error"];
        assert_eq!((&error["kind"], &error["details"]["limit"]), (&json!(kind), &limit), "{program}: {error}");
    }
}

#[test]
fn a_program_that_does_not_compile_is_told_the_line() {
    let (ran, wire) = code("let x = 1;\nlet y = ;", &[]);
    assert_eq!((ran.status, &wire["error"]["kind"]), (Some(1), &json!("Compile")));
    assert!(wire["error"]["message"].as_str().unwrap().contains("2:9"), "{wire}");
}

#[test]
fn a_program_is_granted_nothing_but_tools() {
    for program in ["now()", "uuid()", "kv_get(\"a\")", "kv_set(\"a\", 1)"] {
        let (_, wire) = code(program, &[]);
        assert_eq!(wire["error"]["kind"], json!("PermissionDenied"), "{program}: {wire}");
    }
}

#[test]
fn with_deterministic_there_is_neither_clock_nor_chance() {
    let tools = project().join("tools");
    for place in ["process", "in-process"] {
        let flags = ["call", "datetime.now", "--json", "--tools", tools.to_str().unwrap(), "--isolation", place];
        assert_eq!(Desk::new().run(&flags).json()["success"], true);
        let wire = Desk::new().run(&[&flags[..], &["--deterministic"]].concat()).json();
        assert_eq!(wire["error"]["kind"], "PermissionDenied", "{place}: {wire}");
    }
}

#[test]
fn the_same_program_gives_the_same_result_by_the_same_operations_in_any_process() {
    let program =
        "let n = 0; let f = |x| { n += x; n }; [1, 2, 3].map(f); `${f} ${f.name} ${n} ${[1, 2].map(|x| x * 2)}`";
    let wires: Vec<Value> = ["process", "in-process", "process", "in-process"]
        .into_iter()
        .map(|place| code(program, &["--isolation", place]).1)
        .collect();
    for wire in &wires {
        assert_eq!(wire["data"], "Fn(anon) anon 6 [2, 4]", "{wire}");
        assert_eq!(wire["metadata"]["operations"], wires[0]["metadata"]["operations"]);
    }
}
