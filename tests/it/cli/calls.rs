//! call: one tool, its output and its status.

use serde_json::json;

use super::{BROKEN, Desk, kind};

#[test]
fn data_goes_to_standard_output_and_nothing_else_does() {
    let desk = Desk::new();
    let echo = |args: &str| desk.run(&["call", "kit.echo", "--tools", "kit.rhai", "--args", args]).ends(0);
    assert_eq!(echo(r#"{"value": "two\nlines"}"#).stdout, "two\nlines\n");
    assert_eq!(
        echo(r#"{"value": {"a": [1, 2.5, null]}}"#).stdout,
        "{\n  \"a\": [\n    1,\n    2.5,\n    null\n  ]\n}\n"
    );
    assert_eq!(echo(r#"{"value": 1}"#).stderr, "");
}

#[test]
fn an_error_goes_to_standard_error_with_what_its_author_wants_to_know() {
    let ran = Desk::new().run(&["call", "kit.refuse", "--tools", "kit.rhai"]).ends(1);
    assert_eq!(ran.stdout, "");
    assert!(ran.stderr.starts_with("error: Script: not today\n"), "{}", ran.stderr);
    assert!(ran.stderr.contains("\"again\": \"tomorrow\""), "{}", ran.stderr);
    assert!(ran.stderr.contains("cause: kit.rhai:20:"), "{}", ran.stderr);
}

#[test]
fn the_wire_result_has_one_shape_whatever_happened() {
    let desk = Desk::new();
    let call = |tool: &str, args: &str| desk.run(&["call", tool, "--tools", "kit.rhai", "--args", args, "--json"]);
    for (tool, args, expected, status) in [
        ("kit.echo", r#"{"value": 1}"#, "ok", 0),
        ("kit__echo", r#"{"value": 1}"#, "ok", 0),
        ("kit.refuse", "{}", "Script", 1),
        ("kit.echo", "{}", "InvalidArguments", 1),
        ("kit.echo", "[]", "InvalidArguments", 1),
        ("kit.nothing", "{}", "NotFound", 1),
        ("", "{}", "NotFound", 1),
    ] {
        let ran = call(tool, args).ends(status);
        assert_eq!(ran.stdout.lines().count(), 1);
        let wire = ran.json();
        assert_eq!(kind(&wire), expected);
        let keys: Vec<_> = wire.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["success", "data", "error", "metadata"]);
        for key in ["duration_ms", "operations", "peak_bytes", "host_calls"] {
            assert!(wire["metadata"][key].is_number(), "{key} is not in {wire}");
        }
        if status == 1 {
            let keys: Vec<_> = wire["error"].as_object().unwrap().keys().map(String::as_str).collect();
            assert_eq!(keys, ["kind", "message", "details", "retryable"]);
            assert!(!ran.stdout.contains("kit.rhai"), "the operator's detail is on the wire: {}", ran.stdout);
        }
    }
}

#[test]
fn arguments_come_from_the_command_line_a_file_or_standard_input() {
    let desk = Desk::with(&[("args.json", r#"{"value": "from a file"}"#)]);
    let call = ["call", "kit.echo", "--tools", "kit.rhai", "--args"];
    assert_eq!(desk.run(&[&call[..], &["@args.json"]].concat()).ends(0).stdout, "from a file\n");
    let ran = desk.run_with_input(&[&call[..], &["-"]].concat(), r#"{"value": "from input"}"#);
    assert_eq!(ran.ends(0).stdout, "from input\n");
    assert_eq!(desk.run(&["call", "kit.whoami", "--tools", "kit.rhai"]).ends(0).stdout, "default\n");
}

#[test]
fn wrong_usage_says_what_to_do() {
    let desk = Desk::with(&[("bad.json", "{\"a\": 1,\n \"b\" 2}")]);
    let call = |args: &[&str]| desk.run(&[&["call", "kit.echo", "--tools", "kit.rhai"], args].concat());
    call(&["--args", "{"]).refuses(&[
        "--args: the text given is not JSON",
        "line 1 column 1",
        "write an object such as",
    ]);
    call(&["--args", "@bad.json"]).refuses(&["--args: bad.json is not JSON", "line 2 column 6"]);
    call(&["--args", "@nowhere.json"]).refuses(&["--args: nowhere.json"]);
    call(&["--tenant", "a/b"]).refuses(&["the tenant id \"a/b\" is not allowed", "1 to 64 of"]);
    call(&["--tools", "nowhere"]).refuses(&["--tools: nowhere does not exist: give a folder of plugins"]);
    call(&["--tenant-tools", "acme=nowhere"]).refuses(&["--tenant-tools: nowhere does not exist"]);
    call(&["--tenant-tools", "acme"]).refuses(&["write a name and a folder with = between them"]);
    call(&["--assets", "kit=nowhere"]).refuses(&["--assets: nowhere does not exist: give a folder"]);
    call(&["--assets", "kit=kit.rhai"]).refuses(&["--assets: kit.rhai", "give a folder"]);
    call(&["--state", "kit.rhai"]).refuses(&["--state: the state folder kit.rhai cannot be made"]);
    call(&["--timeout", "5"]).refuses(&["write a duration", "such as 50ms, 2s or 1m"]);
    call(&["--max-operations", "0"]).refuses(&["--max-operations"]);
    call(&["--max-output", "many"]).refuses(&["write a number of bytes such as 65536"]);
    desk.run(&["call"]).refuses(&["<TOOL|--batch <FILE|->>", "Usage: toolbay call [OPTIONS] <TOOL>"]);
    let mut misspelt = desk.command(&["call", "kit.echo"]);
    super::Ran::of(misspelt.env("RUST_LOG", "toolbay=loud").output().unwrap()).refuses(&["RUST_LOG is not understood"]);
}

#[test]
fn one_broken_plugin_stops_no_other_and_is_named() {
    let desk = Desk::with(&[("all/broken.rhai", BROKEN), ("all/kit.rhai", super::KIT)]);
    let ran = desk.run(&["call", "kit.whoami", "--tools", "all", "--json"]).ends(0);
    assert_eq!(ran.json()["data"], json!("default"));
    assert!(ran.stderr.contains("warning: a plugin was left out: all/broken.rhai"), "{}", ran.stderr);
    assert!(ran.stderr.contains("all/broken.rhai:3:3: ") && ran.stderr.contains("3 |   let x"), "{}", ran.stderr);

    let ran = desk.run(&["call", "broken.tool", "--tools", "all", "--json"]).ends(1);
    assert_eq!(kind(&ran.json()), "NotFound");
    assert!(ran.stderr.contains("hint: all/broken.rhai did not load"), "{}", ran.stderr);
    let ran = desk.run(&["call", "brokenhearted", "--tools", "all"]).ends(1);
    assert!(!ran.stderr.contains("hint:"), "{}", ran.stderr);
}

#[test]
fn the_flags_set_the_ceiling_up_and_down() {
    let desk = Desk::new();
    let wire = |args: &[&str]| desk.run(&[&["call", "--tools", "kit.rhai", "--json"], args].concat()).json();
    let spin = |args: &[&str]| wire(&[&["kit.spin"], args].concat());
    let tripped = spin(&["--max-operations", "1000"]);
    assert_eq!(kind(&tripped), "LimitExceeded");
    assert_eq!(tripped["error"]["details"]["allowed"], json!(1000));
    assert_eq!(kind(&spin(&["--timeout", "50ms", "--max-operations", "1000000000000"])), "TimedOut");
    let fill = |length: &str, args: &[&str]| wire(&[&["kit.fill", "--args", length], args].concat());
    let short = fill(r#"{"length": 500}"#, &["--max-output", "100"]);
    assert_eq!((kind(&short), &short["error"]["details"]["limit"]), ("LimitExceeded", &json!("output")));
    assert_eq!(kind(&fill(r#"{"length": 500000}"#, &[])), "LimitExceeded");
    assert_eq!(kind(&fill(r#"{"length": 500000}"#, &["--max-output", "1MiB"])), "ok");
}

#[test]
fn values_are_kept_between_commands_where_there_is_a_state_folder() {
    let desk = Desk::new();
    let count =
        |args: &[&str]| desk.run(&[&["call", "kit.count", "--tools", "kit.rhai"], args].concat()).ends(0).stdout;
    assert_eq!((count(&[]), count(&[])), ("1\n".to_owned(), "1\n".to_owned()));
    let kept = ["--state", "state"];
    assert_eq!((count(&kept), count(&kept)), ("1\n".to_owned(), "2\n".to_owned()));
    assert_eq!(count(&["--state", "state", "--tenant", "other"]), "1\n");
}

#[test]
fn assets_take_the_place_of_a_plugins_own() {
    let source = r#"const PLUGIN = #{ name: "shop", version: "1.0.0", description: "d", author: "a",
        tools: #{ price: #{ description: "Tells the price." } } };
        fn price(args, cx) { asset_get("prices.json", "/tea") }"#;
    let desk = Desk::with(&[("shop.rhai", source), ("stock/prices.json", r#"{"tea": 3}"#)]);
    let price = desk.run(&["call", "shop.price", "--tools", "shop.rhai", "--assets", "shop=stock"]);
    assert_eq!(price.ends(0).stdout, "3\n");
    let ran = desk.run(&["call", "kit.whoami", "--tools", "kit.rhai", "--assets", "shop=stock"]).ends(0);
    assert!(ran.stderr.contains("no plugin called shop is loaded"), "{}", ran.stderr);
}

#[test]
fn a_reader_that_goes_away_changes_no_status_and_causes_no_panic() {
    let desk = Desk::with(&[("bad/broken.rhai", BROKEN)]);
    for (status, args) in [
        (0, &["tools", "--tools", "kit.rhai"][..]),
        (0, &["call", "kit.whoami", "--tools", "kit.rhai"]),
        (1, &["call", "kit.refuse", "--tools", "kit.rhai", "--json"]),
        (0, &["check", "kit.rhai"]),
        (2, &["check", "bad"]),
        (0, &["completions", "bash"]),
        (0, &["new", "hello"]),
    ] {
        let ran = desk.run_unread(args).ends(status);
        assert!(!ran.stderr.contains("panicked"), "{args:?}: {}", ran.stderr);
    }
}

#[test]
fn logs_stay_off_standard_output() {
    let desk = Desk::new();
    let ran = desk.run(&["call", "kit.whoami", "--tools", "kit.rhai", "--json", "-vvv"]).ends(0);
    assert_eq!(ran.lines().len(), 1);
    assert!(ran.stderr.contains("toolbay::audit"), "{}", ran.stderr);
    let mut command = desk.command(&["call", "kit.whoami", "--tools", "kit.rhai", "-v"]);
    let ran = super::Ran::of(command.env("RUST_LOG", "off").output().unwrap()).ends(0);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("default\n", ""));
}

#[cfg(target_os = "linux")]
#[test]
fn a_result_that_cannot_be_written_is_not_lost_in_silence() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let desk = Desk::new();
    let mut command = desk.command(&["completions", "bash"]);
    super::Ran::of(command.stdout(full).output().unwrap()).refuses(&["standard output cannot be written"]);
}
