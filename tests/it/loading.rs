//! Plugins from disk: what loads, what does not, and what its author is told.

use expect_test::{Expect, expect};
use serde_json::json;
use toolbay::{Activation, LoadReport, PermissionSet, PluginName, Scope, TenantId, Toolbay};

use crate::support::{folder, names, outcome, tenant};

const MANIFEST: &str = r#"
name = "pay"
version = "1.2.3"
description = "Pays"
author = "Acme"

[tools.pay]
description = "Pays an amount"
parameters = { type = "object", properties = { amount = { type = "number" } }, required = ["amount"] }
"#;

const SCRIPT: &str = "fn pay(args, cx) { #{ paid: args.amount, by: cx.tenant } }";

fn one_file(name: &str) -> String {
    format!(
        r#"const PLUGIN = #{{ name: "{name}", version: "1.0.0", description: "A test's", author: "Acme",
               tools: #{{ {name}: #{{ description: "Says its name", parameters: #{{ type: "object" }} }} }} }};
           fn {name}(args) {{ "{name}" }}"#
    )
}

async fn load(files: &[(&str, &str)]) -> (Toolbay, LoadReport) {
    let bay = toolbay::builder().grants(PermissionSet::standard()).build().unwrap();
    let folder = folder(files);
    let report = bay.load_folder(Scope::Global, folder.path()).await;
    (bay, report)
}

/// The report of loading `files`, with the test's folder left out.
async fn report(files: &[(&str, &str)], expected: Expect) {
    let bay = toolbay::builder().grants(PermissionSet::standard()).build().unwrap();
    let folder = folder(files);
    let report = bay.load_folder(Scope::Global, folder.path()).await.to_string();
    expected.assert_eq(&report.replace(&format!("{}/", folder.path().display()), ""));
}

#[tokio::test]
async fn a_folder_with_a_manifest_and_a_single_file_are_both_plugins() {
    let files = [("pay/plugin.toml", MANIFEST), ("pay/main.rhai", SCRIPT), ("hello.rhai", &one_file("hello"))];
    let (bay, report) = load(&files).await;
    assert!(report.failed.is_empty(), "{report}");
    let acme = bay.session("acme").unwrap();
    assert_eq!(names(&acme), ["hello", "pay"]);
    assert_eq!(outcome(&acme, "pay", json!({ "amount": 5 })).await, json!({ "paid": 5, "by": "acme" }));
    assert_eq!(outcome(&acme, "hello", json!({})).await, json!("hello"));
}

#[tokio::test]
async fn the_same_keys_make_a_manifest_in_toml_yaml_and_json() {
    let yaml = r#"
name: pay
version: 1.2.3
description: Pays
author: Acme
tools:
  pay:
    description: Pays an amount
    parameters: { type: object, properties: { amount: { type: number } }, required: [amount] }
"#;
    let json_text = r#"{ "name": "pay", "version": "1.2.3", "description": "Pays", "author": "Acme",
        "tools": { "pay": { "description": "Pays an amount", "parameters": { "type": "object",
            "properties": { "amount": { "type": "number" } }, "required": ["amount"] } } } }"#;
    let toml = toolbay::parse_manifest("plugin.toml", MANIFEST).unwrap();
    assert_eq!(toolbay::parse_manifest("plugin.yaml", yaml).unwrap(), toml);
    assert_eq!(toolbay::parse_manifest("plugin.json", json_text).unwrap(), toml);
    for (name, text) in [("plugin.yaml", yaml), ("plugin.json", json_text)] {
        let (bay, report) = load(&[(&format!("pay/{name}"), text), ("pay/main.rhai", SCRIPT)]).await;
        assert!(report.failed.is_empty(), "{report}");
        assert_eq!(names(&bay.session("acme").unwrap()), ["pay"]);
    }
}

#[tokio::test]
async fn one_bad_plugin_is_reported_and_stops_no_other() {
    report(
        &[
            ("good.rhai", &one_file("good")),
            ("broken.rhai", "const PLUGIN = #{ name: \"broken\" };\nfn oops( {"),
            ("notes.txt", "not a plugin"),
            ("empty/readme.txt", "no manifest here"),
            ("README.md", "left alone"),
        ],
        expect![[r#"
            loaded  good 1.0.0 (global): 1 tool, 0 hooks
            failed  broken.rhai (global): Compile: broken.rhai:2:10: the script does not compile: Expecting ')' to close the parameters list of function 'oops'
              2 | fn oops( {
                |          ^
            skipped empty: a folder without plugin.toml (or .yaml, .json)
            skipped notes.txt: not a plugin file
        "#]],
    )
    .await;
}

#[tokio::test]
async fn a_manifest_that_does_not_fit_is_told_by_file_line_and_field() {
    let cases: &[(&str, &str)] = &[
        ("version = \"1.2.3\"", "version = \"1.2\""),
        ("author = \"Acme\"", "author = \"\""),
        ("author = \"Acme\"", ""),
        ("author = \"Acme\"", "author = \"Acme\"\ncolour = \"red\""),
        ("name = \"pay\"", "name = \"Pay\""),
        ("name = \"pay\"", "name = \"other\""),
        ("author = \"Acme\"", "author = \"Acme\"\nframework = \">=99\""),
        ("author = \"Acme\"", "author = \"Acme\"\nentry = \"../main.rhai\""),
        ("author = \"Acme\"", "author = \"Acme\"\nentry = \"gone.rhai\""),
        ("author = \"Acme\"", "author = \"Acme\"\nruntime = \"python\""),
        ("author = \"Acme\"", "author = \"Acme\"\nruntime = \"wasm\""),
        ("author = \"Acme\"", "author = \"Acme\"\npermissions = [\"kv read\"]"),
        ("author = \"Acme\"", "author = \"Acme\"\n[limits]\nmax_operations = \"many\""),
        ("author = \"Acme\"", "author = \"Acme\"\n[provides]\ntools = [\"refund\"]"),
        ("[tools.pay]", "[tools.\"pay it\"]"),
        ("type = \"object\"", "type = \"array\""),
        ("description = \"Pays an amount\"", "description = \" \""),
        ("author = \"Acme\"", "author = \"Acme"),
    ];
    let mut text = String::new();
    for (from, to) in cases {
        let manifest = MANIFEST.replacen(from, to, 1);
        let bay = toolbay::builder().build().unwrap();
        let folder = folder(&[("pay/plugin.toml", &manifest), ("pay/main.rhai", SCRIPT)]);
        let error = bay.load(Scope::Global, folder.path().join("pay")).await.expect_err(to);
        text.push_str(&format!("{}\n", error.to_string().replace(&format!("{}/", folder.path().display()), "")));
    }
    expect![[r#"
        Config: plugin.toml:3:11: version: unexpected end of input while parsing minor version number
          3 | version = "1.2"
            |           ^
        Config: plugin.toml:5:10: author: must not be empty
          5 | author = ""
            |          ^
        Config: plugin.toml: author: is missing
        Config: plugin.toml:6:1: colour: unknown key; known are name, version, description, author, license, homepage, repository, keywords, runtime, entry, provides, requires, requires_services, framework, auto_load, permissions, limits, config_schema, tools, hooks, events, prompts, resources
          6 | colour = "red"
            | ^
        Config: plugin.toml:2:8: name: the plugin name "Pay" is not allowed: use 1 to 64 of a-z 0-9 _ - and begin with a letter
          2 | name = "Pay"
            |        ^
        Config: plugin.toml:2:8: name: is "other", but the folder is called "pay": make them equal
          2 | name = "other"
            |        ^
        Config: plugin.toml:6:13: framework: asks for >=99, and this is Toolbay 0.1.0
          6 | framework = ">=99"
            |             ^
        Config: plugin.toml:6:9: entry: "../main.rhai" must be a file within the plugin's folder, such as "main.rhai"
          6 | entry = "../main.rhai"
            |         ^
        Config: entry: the plugin has no file "gone.rhai"; its .rhai files are: [main.rhai]
        Config: plugin.toml:6:11: runtime: unknown variant `python`, expected one of `native`, `rhai`, `wasm`, `grpc`, `mcp`
          6 | runtime = "python"
            |           ^
        Config: this host has no runner for the runtime wasm; it has: rhai
        Config: plugin.toml:6:16: permissions[0]: the permission "kv read" is not allowed: use words of A-Z a-z 0-9 _ . - * / with colons between them, as in kv:read
          6 | permissions = ["kv read"]
            |                ^
        Config: plugin.toml:7:18: limits.max_operations: invalid type: string "many", expected u64
          7 | max_operations = "many"
            |                  ^
        Config: plugin.toml:7:9: provides.tools: names "refund", which is not declared
          7 | tools = ["refund"]
            |         ^
        Config: plugin.toml:7:8: tools.pay it: the tool name "pay it" is not allowed: use 1 to 128 of A-Z a-z 0-9 _ . -
          7 | [tools."pay it"]
            |        ^
        Config: pay: tools.pay.parameters: /type: the parameters of a tool are an object: write "type": "object" instead of "array"
        Config: plugin.toml:8:15: tools.pay.description: must not be empty
          8 | description = " "
            |               ^
        Config: plugin.toml:5:15: invalid basic string, expected `"`
          5 | author = "Acme
            |               ^
    "#]]
    .assert_eq(&text);
}

#[tokio::test]
async fn a_one_file_plugin_that_does_not_fit_is_told_by_line_and_field() {
    let mut text = String::new();
    let good = one_file("pay");
    for source in [
        "fn pay(args) { 1 }".to_owned(),
        good.replace("1.0.0", "one"),
        good.replace("fn pay", "fn pya"),
        good.replace("fn pay(args)", "fn pay(a, b, c)"),
        good.replace("author:", "colour: 1, author:"),
        good.replace("\"Acme\"", "\"\""),
        good.replace("type: \"object\"", "type: \"nubmer\""),
        good.replace("\"pay\" }", "kv_get(\"a\") }"),
        good.replace("\"pay\" }", "eval(\"1\") }"),
        good.replace("\"pay\" }", "import \"/etc/passwd\" as p; 1 }"),
        good.replace("\"pay\" }", "let x = ; }"),
    ] {
        let bay = toolbay::builder().build().unwrap();
        match bay.load_source(Scope::Global, "pay.rhai", &source).await {
            Ok(_) => text.push_str("loaded\n"),
            Err(error) => text.push_str(&format!("{error}\n")),
        }
    }
    expect![[r#"
        Config: pay.rhai: the script does not declare its plugin: write `const PLUGIN = #{ name: "...", version: "1.0.0", description: "...", tools: #{ ... } };`
        Config: pay.rhai:1:1: PLUGIN.version: unexpected character 'o' while parsing major version number
          1 | const PLUGIN = #{ name: "pay", version: "one", description: "A test's", author: "Acme",
            | ^
        Config: pay.rhai:1:1: the tool "pay" has no function: write `fn pay(args, cx) { ... }`
          1 | const PLUGIN = #{ name: "pay", version: "1.0.0", description: "A test's", author: "Acme",
            | ^
        Config: pay.rhai:1:1: the function of the tool "pay" has 3 parameters: write `fn pay(args, cx)` or `fn pay(args)`
          1 | const PLUGIN = #{ name: "pay", version: "1.0.0", description: "A test's", author: "Acme",
            | ^
        Config: pay.rhai:1:1: PLUGIN.colour: unknown key; known are name, version, description, author, license, homepage, repository, keywords, runtime, entry, provides, requires, requires_services, framework, auto_load, permissions, limits, config_schema, tools, hooks, events, prompts, resources
          1 | const PLUGIN = #{ name: "pay", version: "1.0.0", description: "A test's", colour: 1, author: "Acme",
            | ^
        Config: pay.rhai:1:1: PLUGIN.author: must not be empty
          1 | const PLUGIN = #{ name: "pay", version: "1.0.0", description: "A test's", author: "",
            | ^
        Config: pay.rhai: tools.pay.parameters: /type: the parameters of a tool are an object: write "type": "object" instead of "nubmer"
        PermissionDenied: pay.rhai:3:27: `kv_get` needs a permission: add "kv:read" to permissions
          3 |            fn pay(args) { kv_get("a") }
            |                           ^
        Compile: pay.rhai:3:27: the script does not compile: reserved keyword 'eval' is disabled
          3 |            fn pay(args) { eval("1") }
            |                           ^
        Compile: pay.rhai:3:27: "/etc/passwd" cannot be imported: only the plugin's own files can, by their path within the plugin
          3 |            fn pay(args) { import "/etc/passwd" as p; 1 }
            |                           ^
        Compile: pay.rhai:3:35: the script does not compile: Unexpected ';'
          3 |            fn pay(args) { let x = ; }
            |                                   ^
    "#]]
    .assert_eq(&text);
}

#[tokio::test]
async fn a_plugin_is_made_of_plain_files_within_its_folder() {
    let bay = toolbay::builder().build().unwrap();
    let files = folder(&[("pay/plugin.toml", MANIFEST), ("pay/main.rhai", SCRIPT), ("secret.txt", "s3cret")]);
    std::fs::create_dir(files.path().join("pay/assets")).unwrap();
    std::os::unix::fs::symlink(files.path().join("secret.txt"), files.path().join("pay/assets/a.txt")).unwrap();
    let error = bay.load(Scope::Global, files.path().join("pay")).await.unwrap_err();
    assert_eq!(error.to_string(), "Config: assets/a.txt: is a link: a plugin is made of plain files");
}

#[tokio::test]
async fn requirements_are_met_in_any_order_of_the_alphabet_and_missing_ones_named() {
    let needs = |name: &str, other: &str, range: &str| {
        one_file(name).replace(
            "author: \"Acme\",",
            &format!("author: \"Acme\", requires: [#{{ name: \"{other}\", version: \"{range}\" }}],"),
        )
    };
    report(
        &[
            ("a.rhai", &needs("a", "z", "^1")),
            ("z.rhai", &one_file("z")),
            ("b.rhai", &needs("b", "z", "^2")),
            ("c.rhai", &needs("c", "gone", "*")),
            ("d.rhai", &needs("d", "c", "*")),
            ("e.rhai", &needs("e", "f", "*")),
            ("f.rhai", &needs("f", "e", "*")),
        ],
        expect![[r#"
            loaded  z 1.0.0 (global): 1 tool, 0 hooks
            loaded  a 1.0.0 (global): 1 tool, 0 hooks
            failed  b.rhai (global): Dependency: needs the plugin z ^2, and version 1.0.0 is there
            failed  c.rhai (global): Dependency: needs the plugin gone *, and it is not registered
            failed  d.rhai (global): Dependency: needs the plugin c *, which needs the plugin gone *, and it is not registered
            failed  e.rhai (global): Dependency: needs the plugin f *, which needs the plugin e * again: e → f → e is a cycle; take one of the requirements away
            failed  f.rhai (global): Dependency: needs the plugin e *, which needs the plugin f * again: f → e → f is a cycle; take one of the requirements away
        "#]],
    )
    .await;
}

#[tokio::test]
async fn what_a_plugin_asks_beyond_the_hosts_grants_is_a_note_in_the_report() {
    let bay = toolbay::builder().grants(PermissionSet::parse(["kv:read"]).unwrap()).build().unwrap();
    let asks = one_file("asks").replace("author:", "permissions: [\"kv:read\", \"clock\"], author:");
    let files = folder(&[("asks.rhai", &asks)]);
    let report = bay.load_folder(Scope::Global, files.path()).await;
    assert_eq!(report.loaded[0].warnings, ["asks for clock, which this host does not grant: what needs it is refused"]);
}

#[tokio::test]
async fn a_configuration_is_checked_against_the_plugins_schema() {
    let source = one_file("greet").replace(
        "author:",
        r#"config_schema: #{ type: "object", properties: #{ greeting: #{ type: "string" } }, required: ["greeting"] }, author:"#,
    );
    let source = source.replace("\"greet\" }", "config(\"greeting\") }");
    let name = PluginName::new("greet").unwrap();
    for (config, expected) in [
        (json!({ "greeting": "hi" }), "\"hi\""),
        (
            json!({ "greeting": 5 }),
            "Config: greet.rhai: the configuration does not fit config_schema: /greeting: expected the type string, found the number 5",
        ),
        (
            json!({}),
            "Config: greet.rhai: the configuration does not fit config_schema: /greeting: expected a value: this property is required, found nothing",
        ),
    ] {
        let acme = TenantId::new("acme").unwrap();
        let decided = Activation { config: Some(config.clone()), ..Activation::default() };
        let of_host = toolbay::builder().plugin_config(name.clone(), config).build().unwrap();
        let of_tenant = toolbay::builder().activation(acme, name.clone(), decided).build().unwrap();
        for (bay, scope) in [(of_host, Scope::Global), (of_tenant, tenant("acme"))] {
            let said = match bay.load_source(scope, "greet.rhai", &source).await {
                Ok(_) => outcome(&bay.session("acme").unwrap(), "greet", json!({})).await.to_string(),
                Err(error) => error.to_string(),
            };
            assert_eq!(said, expected);
        }
    }
}

#[tokio::test]
async fn a_source_over_the_hosts_limit_is_refused_before_it_is_read() {
    let limits = toolbay::Limits { max_source_bytes: 100, ..toolbay::Limits::default() };
    let bay = toolbay::builder().limits(limits).build().unwrap();
    let files = folder(&[("big.rhai", &"/".repeat(101))]);
    let error = bay.load(Scope::Global, files.path().join("big.rhai")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "LimitExceeded: big.rhai: the file has 101 bytes, and 100 are allowed: split or shorten it"
    );
}

#[tokio::test]
async fn a_plugin_that_is_not_there_is_named() {
    let bay = toolbay::builder().build().unwrap();
    let error = bay.load(Scope::Global, "nowhere/at-all").await.unwrap_err();
    assert_eq!(error.to_string(), "NotFound: nowhere/at-all does not exist");
}
