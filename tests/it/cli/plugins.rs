//! new, check and tools.

use serde_json::{Value, json};

use super::{BROKEN, Desk, kind};

#[test]
fn a_new_plugin_passes_its_check_and_its_cases() {
    let desk = Desk::new();
    let wrote = desk.run(&["new", "hello", "--dir", "mine"]).ends(0).stdout;
    assert!(wrote.contains("toolbay check mine/hello.rhai"), "{wrote}");
    assert!(wrote.contains("toolbay call hello.greet --tools mine/hello.rhai --args '{\"name\": \"Ada\"}'"), "{wrote}");
    desk.run(&["check", "mine"]).ends(0);
    assert_eq!(desk.run(&["test", "mine"]).ends(0).stdout, "ok      mine/hello.rhai: 3 passed\n");
    let called = desk.run(&["call", "hello.greet", "--tools", "mine/hello.rhai", "--args", r#"{"name": "Ada"}"#]);
    assert_eq!(called.ends(0).stdout, "Hello, Ada!\n");

    let cases = std::fs::read_to_string(desk.path("mine/cases/hello.jsonl")).unwrap();
    assert!(cases.lines().count() >= 3);
    for case in cases.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()) {
        let (tool, args) = (case["tool"].as_str().unwrap(), case["args"].to_string());
        let wire = desk.run(&["call", tool, "--tools", "mine", "--args", &args, "--json"]).json();
        assert_eq!(wire["data"], case.get("data").cloned().unwrap_or(Value::Null), "{case}");
        assert_eq!(kind(&wire), case["error"]["kind"].as_str().unwrap_or("ok"), "{case}");
        if let Some(message) = case["error"].get("message") {
            assert_eq!(&wire["error"]["message"], message);
        }
    }
}

#[test]
fn a_new_plugin_may_be_called_like_its_tool_or_hold_hyphens() {
    let desk = Desk::new();
    for (plugin, tool) in [("greet", "greet"), ("a-b_c", "a-b_c.greet")] {
        desk.run(&["new", plugin]).ends(0);
        let file = format!("{plugin}.rhai");
        let called = desk.run(&["call", tool, "--tools", &file, "--args", r#"{"name": "Ada"}"#]);
        assert_eq!(called.ends(0).stdout, "Hello, Ada!\n");
    }
}

#[test]
fn new_refuses_bad_names_and_overwrites_nothing() {
    let desk = Desk::with(&[("taken.rhai", "mine"), ("cases/tested.jsonl", "mine too")]);
    for name in ["Hello", "1st", "a/b", "..", "", "a.b"] {
        desk.run(&["new", name]).refuses(&["plugin name", "use 1 to 64 of a-z 0-9 _ -"]);
    }
    desk.run(&["new", "taken"]).refuses(&["taken.rhai is there already", "choose another name"]);
    desk.run(&["new", "tested"]).refuses(&["tested.jsonl is there already"]);
    assert!(!desk.path("tested.rhai").exists());
    assert_eq!(std::fs::read_to_string(desk.path("taken.rhai")).unwrap(), "mine");
    desk.run(&["new", "hello", "--dir", "kit.rhai"]).refuses(&["cannot be written"]);
}

#[test]
fn check_says_what_a_plugin_has_and_asks_for() {
    let ran = Desk::new().run(&["check", "kit.rhai"]).ends(0);
    assert!(ran.stdout.starts_with("ok      kit 1.2.3  kit.rhai\n"), "{}", ran.stdout);
    assert!(ran.stdout.contains("tools: kit.base, kit.count, kit.echo,"), "{}", ran.stdout);
    assert!(ran.stdout.contains("permissions: kv:read, kv:write"), "{}", ran.stdout);
}

#[test]
fn check_points_at_the_line_and_goes_on_with_the_others() {
    let desk = Desk::with(&[("all/broken.rhai", BROKEN), ("all/kit.rhai", super::KIT), ("all/notes.txt", "x")]);
    let ran = desk.run(&["check", "all"]).ends(2);
    assert!(ran.stdout.contains("ok      kit 1.2.3"), "{}", ran.stdout);
    assert!(ran.stdout.contains("failed  Compile: all/broken.rhai:3:3: "), "{}", ran.stdout);
    assert!(ran.stdout.contains("3 |   let x"), "{}", ran.stdout);
    assert!(ran.stdout.contains("skipped all/notes.txt: not a plugin file"), "{}", ran.stdout);

    let found = desk.run(&["check", "all", "--json"]).ends(2).json();
    assert_eq!(found["ok"], json!(false));
    let [kit, broken] = found["plugins"].as_array().unwrap().as_slice() else { panic!("{found}") };
    assert_eq!((&kit["ok"], &kit["name"], &kit["version"]), (&json!(true), &json!("kit"), &json!("1.2.3")));
    assert_eq!(kit["permissions"], json!(["kv:read", "kv:write"]));
    assert_eq!(broken["ok"], json!(false));
    let error = &broken["error"];
    assert_eq!((&error["kind"], &error["line"], &error["column"]), (&json!("Compile"), &json!(3), &json!(3)));
    assert_eq!((&error["file"], &error["excerpt"]), (&json!("all/broken.rhai"), &json!("  let x")));
    assert_eq!(found["skipped"][0]["path"], json!("all/notes.txt"));
}

#[test]
fn check_takes_folders_with_a_manifest_and_names_the_file_within() {
    let manifest = "name = \"pay\"\nversion = \"1.0.0\"\ndescription = \"d\"\nauthor = \"a\"\n\
                    [tools.pay]\ndescription = \"Pays.\"\n";
    let desk = Desk::with(&[
        ("pay/plugin.toml", manifest),
        ("pay/main.rhai", "fn pay(args, cx) { 1 }"),
        ("bad/plugin.toml", "name = \"bad\"\nversion = 1\ndescription = \"d\"\nauthor = \"a\"\n"),
    ]);
    let ran = desk.run(&["check", "pay", "kit.rhai"]).ends(0);
    assert!(ran.stdout.contains("ok      pay 1.0.0  pay\n        tools: pay\n"), "{}", ran.stdout);
    let ran = desk.run(&["check", "bad"]).ends(2);
    assert!(ran.stdout.starts_with("failed  Config: bad/plugin.toml:2:11: "), "{}", ran.stdout);
}

#[test]
fn a_plugin_that_requires_another_can_be_checked_alone() {
    let manifest = "name = \"pay\"\nversion = \"1.0.0\"\ndescription = \"d\"\nauthor = \"a\"\n\
                    [[requires]]\nname = \"bank\"\nversion = \"^2\"\n[tools.pay]\ndescription = \"Pays.\"\n";
    let desk = Desk::with(&[("all/pay/plugin.toml", manifest), ("all/pay/main.rhai", "fn pay(args, cx) { 1 }")]);
    let ran = desk.run(&["check", "all/pay"]).ends(0);
    assert!(ran.stdout.contains("warning: needs the plugin bank ^2"), "{}", ran.stdout);
    let ran = desk.run(&["check", "all"]).ends(2);
    assert!(ran.stdout.contains("failed  all/pay: Dependency: needs the plugin bank ^2"), "{}", ran.stdout);
}

#[test]
fn check_refuses_what_is_no_plugin_at_all() {
    let desk = Desk::with(&[("empty/README.md", "x"), ("notes.txt", "x")]);
    desk.run(&["check", "empty"]).refuses(&["no plugin in empty"]);
    let ran = desk.run(&["check", "nowhere", "notes.txt"]).ends(2);
    assert!(ran.stdout.contains("nowhere does not exist"), "{}", ran.stdout);
    assert!(ran.stdout.contains("Config: notes.txt: not a plugin"), "{}", ran.stdout);
}

#[test]
fn check_warns_of_what_the_host_would_not_grant() {
    let source = super::KIT.replace(r#"["kv:read", "kv:write"]"#, r#"["kv:read", "kv:write", "http:GET:example.com"]"#);
    let desk = Desk::with(&[("net/kit.rhai", &source)]);
    let ran = desk.run(&["check", "net"]).ends(0);
    assert!(
        ran.stdout.contains("warning: asks for http:GET:example.com, which this host does not grant"),
        "{}",
        ran.stdout
    );
}

#[test]
fn tools_come_in_the_form_of_each_api() {
    let desk = Desk::new();
    let list = |format: &str| desk.run(&["tools", "--tools", "kit.rhai", "--format", format]).ends(0).json();
    let echo = json!({ "type": "object", "required": ["value"], "properties": { "value": {} } });
    let first = |list: &Value, name: &str, key: &str| {
        let entry = list.as_array().unwrap().iter().find(|entry| entry.pointer(key) == Some(&json!(name)));
        entry.unwrap_or_else(|| panic!("{name} is not in {list}")).clone()
    };
    assert_eq!(
        first(&list("openai"), "kit__echo", "/function/name"),
        json!({ "type": "function", "function": {
            "name": "kit__echo", "description": "Gives back what it is given.", "parameters": echo } })
    );
    assert_eq!(
        first(&list("anthropic"), "kit__echo", "/name"),
        json!({ "name": "kit__echo", "description": "Gives back what it is given.", "input_schema": echo })
    );
    assert_eq!(
        first(&list("mcp"), "kit.echo", "/name"),
        json!({ "name": "kit.echo", "description": "Gives back what it is given.", "inputSchema": echo,
            "annotations": { "readOnlyHint": true } })
    );
    let all = first(&list("json"), "kit.echo", "/name");
    assert_eq!(
        (&all["provider_name"], &all["plugin"], &all["scope"]),
        (&json!("kit__echo"), &json!("kit"), &json!("global"))
    );
    let names: Vec<_> = list("mcp").as_array().unwrap().iter().map(|tool| tool["name"].to_string()).collect();
    assert!(names.is_sorted(), "{names:?}");
}

#[test]
fn the_table_is_aligned_and_cannot_steer_the_terminal() {
    let source = super::KIT.replace("Tells the tenant.", "Tells\\nthe \\x1b[2J tenant.");
    let desk = Desk::with(&[("t/kit.rhai", &source)]);
    let table = desk.run(&["tools", "--tools", "t"]).ends(0).stdout;
    let lines: Vec<_> = table.lines().collect();
    let column = lines[0].find("DESCRIPTION").unwrap();
    assert_eq!(lines.len(), 8);
    assert!(lines.iter().all(|line| line.as_bytes()[column - 2..column] == *b"  "), "{table}");
    assert!(lines.iter().any(|line| line.starts_with("kit.echo    kit 1.2.3  global  Gives back")), "{table}");
}

#[test]
fn a_tenants_tools_are_its_own() {
    let desk = Desk::new();
    let of = |tenant: &str| {
        let ran = desk.run(&["tools", "--tenant-tools", "acme=kit.rhai", "--tenant", tenant, "--format", "json"]);
        ran.ends(0).json().as_array().unwrap().len()
    };
    assert_eq!((of("acme"), of("other"), of("default")), (7, 0, 0));
    let call = |tenant: &str, tool: &str| {
        let ran = desk.run(&["call", tool, "--tenant-tools", "acme=kit.rhai", "--tenant", tenant, "--json"]);
        (ran.status, ran.json())
    };
    assert_eq!(call("acme", "kit.whoami").1["data"], json!("acme"));
    let (status, theirs) = call("other", "kit.whoami");
    let (_, nobodys) = call("other", "kit.nobody");
    assert_eq!((status, kind(&theirs)), (Some(1), "NotFound"));
    let message = |wire: &Value| wire["error"]["message"].as_str().unwrap().to_owned();
    assert_eq!(message(&theirs).replace("whoami", ""), message(&nobodys).replace("nobody", ""));
}

#[test]
fn tools_are_found_here_and_at_home_by_default() {
    let desk = Desk::with(&[("tools/kit.rhai", super::KIT)]);
    std::fs::create_dir_all(desk.path("home/.toolbay/plugins")).unwrap();
    std::fs::write(desk.path("home/.toolbay/plugins/mine.rhai"), super::KIT.replace("\"kit\"", "\"mine\"")).unwrap();
    let table = desk.run(&["tools"]).ends(0).stdout;
    assert!(table.contains("kit.echo") && table.contains("mine.echo"), "{table}");
    let table = desk.run(&["tools", "--tools", "kit.rhai"]).ends(0).stdout;
    assert!(!table.contains("mine.echo"), "{table}");
    let nothing = Desk::new().run(&["tools"]).ends(0);
    assert!(nothing.stdout.is_empty() && nothing.stderr.contains("has no tools: name a folder"), "{}", nothing.stderr);
}

#[test]
fn a_project_run_by_cargo_from_one_of_its_folders_finds_its_own_tools() {
    let desk = Desk::new();
    let mut command = desk.command(&["tools"]);
    let package = crate::support::project().join("crates/toolbay-cli");
    command.env("CARGO_MANIFEST_DIR", &package).env("CARGO_PKG_NAME", "somebody-elses");
    assert_eq!(super::Ran::of(command.output().unwrap()).ends(0).stdout, "");
    command.env("CARGO_PKG_NAME", "toolbay-cli");
    assert!(super::Ran::of(command.output().unwrap()).ends(0).stdout.contains("calculator.add"));
}

#[test]
fn test_says_which_cases_came_out_otherwise_and_which_tools_have_none() {
    let cases = r#"{"case": "counts", "tenant": "t", "tool": "kit.count", "data": 1}
{"case": "counts on", "tenant": "t", "tool": "kit.count", "data": 2}
{"case": "begins anew elsewhere", "tool": "kit.count", "data": 1}
{"case": "is configured", "tool": "kit.base", "config": {"base": "x"}, "data": "x"}
{"case": "null is a result", "tool": "kit.echo", "args": {"value": null}, "data": null}
{"case": "a part will do", "tool": "kit.echo", "args": {"value": {"a": 1, "b": 2}}, "matches": {"b": 2}}
{"case": "a hook is asked elsewhere", "hook": "kit.before_tool_call", "input": {}, "outcome": null}

{"case": "is wrong", "tool": "kit.echo", "args": {"value": 1}, "data": null}
{"case": "should fail", "tool": "kit.echo", "args": {"value": 1}, "error": {}}
"#;
    let desk = Desk::with(&[("cases/kit.jsonl", cases)]);
    let ran = desk.run(&["test", "kit.rhai"]).ends(1);
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert_eq!(lines[0], "failed  kit.rhai: 6 passed, 2 failed, 1 for hooks passed over");
    assert!(lines[1].contains("line 9 (is wrong): {") && lines[2].contains("line 10 (should fail): {"), "{lines:?}");
    let uncalled = ["fill", "refuse", "spin", "whoami"].map(|tool| format!("        no case calls kit.{tool}"));
    assert_eq!(lines[3..], uncalled);
}

#[test]
fn test_refuses_what_it_cannot_run() {
    let broken = Desk::with(&[
        ("broken.rhai", BROKEN),
        ("cases/broken.jsonl", "{\"case\": \"x\", \"tool\": \"broken\"}"),
        ("cases/kit.jsonl", "{\"case\": 1}"),
    ]);
    broken.run(&["test", "broken.rhai"]).refuses(&["broken.rhai:3"]);
    broken.run(&["test", "kit.rhai"]).refuses(&["kit.rhai", "line 1 of the cases"]);
    broken.run(&["test", "nowhere"]).refuses(&["nowhere does not exist"]);
    Desk::new().run(&["test", "kit.rhai"]).refuses(&["has no cases"]);
    Desk::new().run(&["test", "."]).refuses(&["no plugin with cases"]);
}

#[test]
fn schemas_are_lowered_for_strict_mode_and_gemini_and_what_is_lost_is_told() {
    let source = r#"const PLUGIN = #{ name: "send", version: "1.0.0", description: "d", author: "a", tools: #{ send: #{
        description: "Sends.", parameters: #{ type: "object", required: ["to"], properties: #{
            to: #{ type: "string", minLength: 3 }, level: #{ "enum": [1, 2] } } } } } };
    fn send(args) { 1 }"#;
    let desk = Desk::with(&[("t/send.rhai", source)]);
    let list = |rest: &[&str]| desk.run(&[&["tools", "--tools", "t", "--format"], rest].concat());
    let strict = list(&["openai", "--strict"]).ends(0);
    let function = &strict.json()[0]["function"];
    assert_eq!((&function["strict"], &function["parameters"]["required"]), (&json!(true), &json!(["to", "level"])));
    assert!(strict.stderr.contains("send: /properties/to/minLength: weakened: not checked"), "{}", strict.stderr);
    assert_eq!(list(&["openai"]).ends(0).json()[0]["function"]["strict"], json!(null));
    let gemini = list(&["gemini"]).ends(0);
    assert_eq!(gemini.json()[0]["parameters"]["properties"]["level"]["description"], "(one of: [1,2])");
    assert!(gemini.stderr.contains("send: /properties/level/enum: weakened"), "{}", gemini.stderr);
    list(&["mcp", "--strict"]).refuses(&["--strict is for --format openai"]);
}
