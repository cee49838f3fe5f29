//! What is refused at load, and with which words.

use std::{collections::BTreeMap, sync::Arc};

use expect_test::{Expect, expect};
use serde_json::json;
use toolbay_api::{Assets, ErrorKind, Manifest, Package, Runner};

use crate::fake::Bench;

async fn check(source: &str, expected: Expect) {
    let bench = Bench::default();
    match bench.source(source).await {
        Ok(_) => expected.assert_eq("loaded"),
        Err(error) => expected.assert_eq(&error.to_string()),
    }
    // One bad plugin stops no other.
    assert_eq!(bench.run("1").await.unwrap(), json!(1));
}

#[tokio::test]
async fn a_script_that_does_not_parse() {
    check(
        "const PLUGIN = #{ name: \"a\" };\nfn a(args) {\n  let = 3;\n}",
        expect![[r#"
            Compile: t.rhai:3:7: the script does not compile: Expecting name of a variable
              3 |   let = 3;
                |       ^"#]],
    )
    .await;
    check("", expect![[r#"Config: t.rhai: the script does not declare its plugin: write `const PLUGIN = #{ name: "...", version: "1.0.0", description: "...", tools: #{ ... } };`"#]]).await;
}

#[tokio::test]
async fn fields_that_are_wrong_missing_empty_or_unknown() {
    let plugin = |fields: &str| {
        format!("const PLUGIN = #{{ {fields}, tools: #{{ t: #{{ description: \"d\" }} }} }};\nfn t(args) {{ 1 }}")
    };
    check(
        &plugin("name: \"Bad Name\", version: \"1.0.0\", description: \"d\""),
        expect![[r#"
            Config: t.rhai:1:1: PLUGIN.name: the plugin name "Bad Name" is not allowed: use 1 to 64 of a-z 0-9 _ - and begin with a letter
              1 | const PLUGIN = #{ name: "Bad Name", version: "1.0.0", description: "d", tools: #{ t: #{ description: "d" } } };
                | ^"#]],
    )
    .await;
    check(
        &plugin("name: \"a\", version: \"one\", description: \"d\""),
        expect![[r#"
            Config: t.rhai:1:1: PLUGIN.version: unexpected character 'o' while parsing major version number
              1 | const PLUGIN = #{ name: "a", version: "one", description: "d", tools: #{ t: #{ description: "d" } } };
                | ^"#]],
    )
    .await;
    check(
        &plugin("name: \"a\", version: \"1.0.0\""),
        expect![[r#"
            Config: t.rhai:1:1: PLUGIN.description: must not be empty
              1 | const PLUGIN = #{ name: "a", version: "1.0.0", tools: #{ t: #{ description: "d" } } };
                | ^"#]],
    )
    .await;
    check(
        &plugin("name: \"a\", version: \"1.0.0\", description: \"d\", author: \" \""),
        expect![[r#"
            Config: t.rhai:1:1: PLUGIN.author: must not be empty
              1 | const PLUGIN = #{ name: "a", version: "1.0.0", description: "d", author: " ", tools: #{ t: #{ description: "d" } } };
                | ^"#]],
    )
    .await;
    check(
        &plugin("name: \"a\", version: \"1.0.0\", description: \"d\", permission: [\"kv:read\"]"),
        expect![[r#"
            Config: t.rhai:1:1: PLUGIN.permission: unknown key; did you mean permissions?
              1 | const PLUGIN = #{ name: "a", version: "1.0.0", description: "d", permission: ["kv:read"], tools: #{ t: #{ description: "d" } } };
                | ^"#]],
    )
    .await;
    check(
        &plugin("name: \"a\", version: \"1.0.0\", description: \"d\", limits: #{ max_operations: \"many\" }"),
        expect![[r#"
            Config: t.rhai:1:1: PLUGIN.limits.max_operations: invalid type: string "many", expected u64
              1 | const PLUGIN = #{ name: "a", version: "1.0.0", description: "d", limits: #{ max_operations: "many" }, tools: #{ t: #{ description: "d" } } };
                | ^"#]],
    )
    .await;
    check(
        &plugin("name: \"a\", version: 1 + 2, description: \"d\""),
        expect![[r#"
            Config: t.rhai:1:41: `+` can only join texts here
              1 | const PLUGIN = #{ name: "a", version: 1 + 2, description: "d", tools: #{ t: #{ description: "d" } } };
                |                                         ^"#]],
    )
    .await;
}

#[tokio::test]
async fn functions_that_are_missing_or_have_the_wrong_parameters() {
    let plugin = |tools: &str, code: &str| {
        format!("const PLUGIN = #{{ name: \"a\", version: \"1.0.0\", description: \"d\", {tools} }};\n{code}")
    };
    let tool = "tools: #{ \"get-it\": #{ description: \"d\" } }";
    check(
        &plugin(tool, ""),
        expect![[r#"
            Config: t.rhai:1:1: the tool "get-it" has no function: write `fn get_it(args, cx) { ... }`
              1 | const PLUGIN = #{ name: "a", version: "1.0.0", description: "d", tools: #{ "get-it": #{ description: "d" } } };
                | ^"#]],
    )
    .await;
    check(
        &plugin(tool, "fn get_it(a, b, c) { 1 }"),
        expect![[r#"
            Config: t.rhai:1:1: the function of the tool "get-it" has 3 parameters: write `fn get_it(args, cx)` or `fn get_it(args)`
              1 | const PLUGIN = #{ name: "a", version: "1.0.0", description: "d", tools: #{ "get-it": #{ description: "d" } } };
                | ^"#]],
    )
    .await;
    check(&plugin(tool, "fn get_it(args) { 1 }"), expect!["loaded"]).await;
    check(
        &plugin("hooks: #{ before_tool_call: #{} }", "fn other(x) { 1 }"),
        expect![[r#"
            Config: t.rhai:1:1: the hook before_tool_call has no function: write `fn before_tool_call(input, cx) { ... }`
              1 | const PLUGIN = #{ name: "a", version: "1.0.0", description: "d", hooks: #{ before_tool_call: #{} } };
                | ^"#]],
    )
    .await;
    check(
        &plugin("hooks: #{ before_lunch: #{} }", "fn before_lunch(x) { 1 }"),
        expect![[r#"
            Config: t.rhai:1:1: PLUGIN.hooks.before_lunch: unknown key; known are after_agent_run, after_model_call, after_tool_call, before_agent_run, before_model_call, before_tool_call, on_error, on_reasoning_step
              1 | const PLUGIN = #{ name: "a", version: "1.0.0", description: "d", hooks: #{ before_lunch: #{} } };
                | ^"#]],
    )
    .await;
    check(
        &plugin("hooks: #{ before_tool_call: #{ tools: [\"a[\"] } }", "fn before_tool_call(x) { }"),
        expect!["Config: t.rhai: hooks.before_tool_call.tools: error parsing glob 'a[': unclosed character class; missing ']'"],
    )
    .await;
    check(
        &plugin("tools: #{ \"a-b\": #{ description: \"d\" }, \"a.b\": #{ description: \"d\" } }", "fn a_b(x) { 1 }"),
        expect![[r#"
            Conflict: t.rhai:1:1: the tools "a-b" and "a.b" would both be the function `a_b`
              1 | const PLUGIN = #{ name: "a", version: "1.0.0", description: "d", tools: #{ "a-b": #{ description: "d" }, "a.b": #{ description: "d" } } };
                | ^"#]],
    )
    .await;
}

#[tokio::test]
async fn host_functions_that_the_manifest_does_not_ask_for() {
    let plugin = |code: &str| {
        format!(
            "const PLUGIN = #{{ name: \"a\", version: \"1.0.0\", description: \"d\", permissions: [\"tool:call:echo\"], tools: #{{ t: #{{ description: \"d\" }} }} }};\nfn t(args) {{\n  {code}\n}}"
        )
    };
    check(
        &plugin("let x = 1; kv_get(\"a\")"),
        expect![[r#"
            PermissionDenied: t.rhai:3:14: `kv_get` needs a permission: add "kv:read" to permissions
              3 |   let x = 1; kv_get("a")
                |              ^"#]],
    )
    .await;
    check(
        &plugin("call_tool(\"other\", #{})"),
        expect![[r#"
            PermissionDenied: t.rhai:3:3: `call_tool` needs a permission: add "tool:call:other" to permissions
              3 |   call_tool("other", #{})
                |   ^"#]],
    )
    .await;
    check(&plugin("call_tool(\"echo\", #{})"), expect!["loaded"]).await;
    check(
        &plugin("[1].map(|x| now())"),
        expect![[r#"
            PermissionDenied: t.rhai:3:15: `now` needs a permission: add "clock" to permissions
              3 |   [1].map(|x| now())
                |               ^"#]],
    )
    .await;
    // Its own function of that name is no host function.
    check(&(plugin("now()") + "\nfn now() { 1 }"), expect!["loaded"]).await;
    check(
        &plugin("sleep(1)"),
        expect![[r#"
            Compile: t.rhai:3:3: `sleep` does not exist here: a call has a deadline and should end as soon as it can
              3 |   sleep(1)
                |   ^"#]],
    )
    .await;
}

#[tokio::test]
async fn a_source_that_is_too_large_or_too_deep() {
    let bench = Bench::with_limits(|limits| limits.max_source_bytes = 1_000);
    let error = bench.source(&"// comment\n".repeat(1_000)).await.err().unwrap();
    assert!(matches!(error.kind, ErrorKind::LimitExceeded { allowed: 1_000, used: 11_000, .. }), "{error}");
    let bench = Bench::default();
    for nested in ["(".repeat(5_000), "[".repeat(5_000), "#{a:".repeat(5_000), "{".repeat(5_000), "-".repeat(5_000)] {
        assert_eq!(bench.source(&nested).await.err().unwrap().kind, ErrorKind::Compile);
    }
    let sum = format!("{}\nconst X = 1{};", crate::fake::tool_source("1"), " + 1".repeat(2_000));
    assert!(bench.source(&sum).await.is_err());
    let long = format!("{}\nfn x() {{ {} }}", crate::fake::tool_source("1"), "let a = 1; ".repeat(10_000));
    assert!(bench.source(&long).await.is_ok());
}

fn folder(manifest: serde_json::Value, files: &[(&str, &str)]) -> Package {
    let manifest: Manifest = serde_json::from_value(manifest).unwrap();
    let files: BTreeMap<String, Arc<str>> =
        files.iter().map(|(name, text)| ((*name).to_owned(), Arc::from(*text))).collect();
    Package { origin: "p".into(), manifest: Some(manifest), files, assets: Assets::default() }
}

fn manifest() -> serde_json::Value {
    json!({ "name": "p", "version": "1.0.0", "description": "d", "author": "a" })
}

fn with(mut manifest: serde_json::Value, key: &str, value: serde_json::Value) -> serde_json::Value {
    manifest[key] = value;
    manifest
}

#[tokio::test]
async fn a_folder_plugin_imports_its_own_files() {
    let bench = Bench::default();
    let package = folder(
        with(manifest(), "tools", json!({ "t": { "description": "d" } })),
        &[
            (
                "main.rhai",
                "import \"lib/a\" as a;\nconst K = 3;\nfn t(args) { a::twice(K) + helper() }\nfn helper() { K + a::ONE }",
            ),
            ("lib/a.rhai", "import \"lib/b.rhai\" as b;\nexport const ONE = 1;\nfn twice(x) { b::add(x, x) }"),
            ("lib/b.rhai", "fn add(x, y) { x + y }"),
        ],
    );
    let plugin = bench.load(&package).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(bench.call(&*plugin, "t", json!({})).await.unwrap(), json!(10));
}

#[tokio::test]
async fn errors_in_imported_files_name_the_file() {
    let bench = Bench::default();
    let package = folder(
        with(manifest(), "tools", json!({ "t": { "description": "d" } })),
        &[("main.rhai", "import \"a\" as a;\nfn t(args) {\n  a::f(0)\n}"), ("a.rhai", "fn f(x) {\n  1 / x\n}")],
    );
    let plugin = bench.load(&package).await.unwrap_or_else(|error| panic!("{error}"));
    let error = bench.call(&*plugin, "t", json!({})).await.unwrap_err();
    expect!["the tool failed because of an error in its script: division by zero (line 2)"].assert_eq(&error.message);
    expect![[r#"
        a.rhai:2:5: division by zero
          2 |   1 / x
            |     ^
          in the call of `f` at main.rhai:3:6"#]]
    .assert_eq(&error.operator_detail().unwrap().to_string());
}

#[tokio::test]
async fn folders_that_are_wrong() {
    let bench = Bench::default();
    let tools = json!({ "t": { "description": "d" } });
    let cases = [
        (
            manifest(),
            vec![("other.rhai", "")],
            expect!["Config: entry: the plugin has no file \"main.rhai\"; its .rhai files are: [other.rhai]"],
        ),
        (
            with(manifest(), "tools", tools.clone()),
            vec![("main.rhai", "const PLUGIN = #{ tools: #{ t: #{ description: \"d\" } } };\nfn t(args) { 1 }")],
            expect![[r#"
                Conflict: main.rhai:1:1: the manifest declares tools too: keep them in one of the two places
                  1 | const PLUGIN = #{ tools: #{ t: #{ description: "d" } } };
                    | ^"#]],
        ),
        (
            manifest(),
            vec![("main.rhai", "const PLUGIN = #{ name: \"q\" };")],
            expect![[r#"
                Config: main.rhai:1:1: PLUGIN.name: in a plugin with a manifest the script can declare `tools`, `hooks` and `events` only
                  1 | const PLUGIN = #{ name: "q" };
                    | ^"#]],
        ),
        (
            with(manifest(), "tools", tools.clone()),
            vec![("main.rhai", "import \"../x\" as x;\nfn t(args) { 1 }")],
            expect![[r#"
                Compile: main.rhai:1:1: "../x" cannot be imported: only the plugin's own files can, by their path within the plugin
                  1 | import "../x" as x;
                    | ^"#]],
        ),
        (
            with(manifest(), "tools", tools.clone()),
            vec![("main.rhai", "import \"a\" as a;\nfn t(args) { 1 }"), ("a.rhai", "import \"main\" as m;")],
            expect![[r#"
                Compile: a.rhai:1:1: "main.rhai" imports itself, by way of main.rhai -> a.rhai
                  1 | import "main" as m;
                    | ^"#]],
        ),
        (
            with(manifest(), "tools", tools.clone()),
            vec![("main.rhai", "import \"a\" as a;\nfn t(args) { 1 }"), ("a.rhai", "loop {}")],
            expect![
                "LimitExceeded: main.rhai: the call was stopped at its limit of 5000000 operations (used 5000001); ask for less at once: a.rhai:1:6: stopped here by a limit\n  1 | loop {}\n    |      ^"
            ],
        ),
        (
            manifest(),
            vec![("main.rhai", "fn t(args) { 1 }")],
            expect![
                "Config: main.rhai: the plugin declares no tool and no hook: add `tools`, `hooks` or `events` to PLUGIN"
            ],
        ),
    ];
    for (manifest, files, expected) in cases {
        let error = bench.load(&folder(manifest, &files)).await.err().expect("refused");
        expected.assert_eq(&error.to_string());
    }
}

#[tokio::test]
async fn a_folder_plugin_may_declare_its_tools_in_the_script() {
    let bench = Bench::default();
    let package = folder(
        manifest(),
        &[(
            "main.rhai",
            "const D = \"says \" + \"it\";\nconst PLUGIN = #{ tools: #{ t: #{ description: D } } };\nfn t(args) { D }",
        )],
    );
    let plugin = bench.load(&package).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(plugin.tools()[0].definition().description, "says it");
    assert_eq!(bench.call(&*plugin, "t", json!({})).await.unwrap(), json!("says it"));
}

#[tokio::test]
async fn a_package_that_is_no_one_file_plugin() {
    let bench = Bench::default();
    let files = BTreeMap::from([("a.rhai".to_owned(), Arc::from("")), ("b.rhai".to_owned(), Arc::from(""))]);
    let package = Package { origin: "p".into(), manifest: None, files, assets: Assets::default() };
    assert_eq!(bench.runner.load(&package, &bench.plugin_context()).await.err().unwrap().kind, ErrorKind::Config);
}
