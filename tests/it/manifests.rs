//! Manifest files: the same keys in three formats, what each refuses and how it says so, and the schema for editors.

use std::{fmt::Write, fs, path::Path};

use expect_test::{expect, expect_file};
use jsonschema::Validator;
use proptest::{prelude::*, sample::Index};
use serde_json::{Value, json};
use toolbay::{Manifest, Scope, manifest::schema::json_schema, parse_manifest};

use crate::support::{folder, project};

/// A manifest with every key.
fn full() -> Value {
    json!({
        "$schema": "../schemas/plugin.schema.json",
        "name": "pay", "version": "1.2.3-rc.1+build.5", "description": "Pays.", "author": "Acme",
        "license": "(MIT OR Apache-2.0) AND GPL-2.0+", "homepage": "https://example.com/a?b=c#d",
        "repository": "http://[::1]:8080/x", "keywords": ["money", "pay out"], "runtime": "rhai", "entry": "src/main.rhai",
        "provides": { "tools": ["get.it", "pay"], "hooks": ["before_tool_call"], "abilities": ["bank"], "events": ["paid"] },
        "requires": [{ "name": "bank", "version": ">=1.2, <2" }, { "name": "fx", "version": "*" }],
        "framework": "^0.1", "permissions": ["kv:*", "http:GET:api.example.com"],
        "limits": { "timeout_ms": 5, "max_operations": 1, "max_host_calls": 0 },
        "config_schema": { "type": "object", "properties": { "base": { "type": "string" } } },
        "tools": {
            "pay": {
                "description": "Pays.", "parameters": { "type": "object" }, "output": { "type": "number" },
                "required_permissions": ["billing:write"], "timeout_ms": 9,
                "annotations": { "read_only": false, "destructive": true, "idempotent": null, "open_world": true },
            },
            "get.it": { "description": "Gets it." },
        },
        "hooks": { "before_tool_call": { "priority": -3, "tools": ["pay", "todo.*"], "timeout_ms": 7, "on_failure": "open" } },
    })
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        Value::Object(entries) => {
            let kept = entries.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key.clone(), without_nulls(value))).collect())
        }
        other => other.clone(),
    }
}

fn parse(format: &str, text: &str) -> Result<Manifest, String> {
    parse_manifest(&format!("plugin.{format}"), text).map_err(|error| error.to_string())
}

#[test]
fn a_manifest_with_every_key_is_the_same_in_three_formats() {
    let json_text = full().to_string();
    let manifest = parse("json", &json_text).unwrap();
    assert_eq!(parse("yaml", &json_text).unwrap(), manifest, "JSON is YAML");
    let toml_text = toml::to_string(&without_nulls(&full())).unwrap();
    assert_eq!(parse("toml", &toml_text).unwrap(), manifest);
    assert_eq!(manifest.limits.max_operations, Some(1));
    assert_eq!(manifest.requires.len(), 2);
}

#[test]
fn each_format_points_at_the_line_and_the_field() {
    let toml = "name = \"pay\"\nversion = \"1.0.0\"\ndescription = \"d\"\nauthor = \"a\"\n\
                [[requires]]\nname = \"bank\"\nversion = \"one\"\n[tools.\"a.b\"]\ndescription = \"d\"\ntimeout_ms = 1\n";
    let yaml = "name: pay\nversion: 1.0.0\ndescription: d\nauthor: a\n\
                requires:\n  - name: bank\n    version: one\ntools:\n  a.b:\n    description: d\n    timeout_ms: 1\n";
    let json = "{ \"name\": \"pay\", \"version\": \"1.0.0\",\n  \"description\": \"d\", \"author\": \"a\",\n  \"requires\": [\
                { \"name\": \"bank\", \"version\": \"one\" }],\n  \"tools\": { \"a.b\": { \"description\": \"d\",\n    \"timeout_ms\": 1 } }\n}\n";
    let mut text = String::new();
    for (format, source) in [("toml", toml), ("yaml", yaml), ("json", json)] {
        let fixed = source.replacen("one", "^1", 1);
        let (quoted, number) = if format == "yaml" { ("name: bank", ": 1") } else { ("\"bank\"", "1") };
        for (from, to) in [
            ("one", "one"),
            ("^1", ""),
            (quoted, &quoted.replace("bank", "pay")),
            ("timeout_ms", "timeuot_ms"),
            (
                &format!(
                    "timeout_ms{}",
                    if format == "toml" {
                        " = 1"
                    } else if format == "json" {
                        "\": 1"
                    } else {
                        number
                    }
                ),
                &format!(
                    "timeout_ms{}",
                    if format == "toml" {
                        " = 0"
                    } else if format == "json" {
                        "\": 0"
                    } else {
                        ": 0"
                    }
                ),
            ),
            ("a.b", "a b"),
            ("author", "auhtor"),
        ] {
            let wrong = if from == "one" { source.to_owned() } else { fixed.replacen(from, to, 1) };
            let _ = writeln!(text, "{}", parse(format, &wrong).expect_err(to));
        }
    }
    expect![[r#"
        Config: plugin.toml:7:11: requires[0].version: unexpected character 'o' while parsing major version number
          7 | version = "one"
            |           ^
        Config: plugin.toml:7:11: requires[0].version: unexpected end of input while parsing major version number
          7 | version = ""
            |           ^
        Config: plugin.toml:6:8: requires[0].name: a plugin cannot require itself: take pay out
          6 | name = "pay"
            |        ^
        Config: plugin.toml:10:1: tools.a.b.timeuot_ms: unknown key; did you mean timeout_ms?
          10 | timeuot_ms = 1
             | ^
        Config: plugin.toml:10:14: tools.a.b.timeout_ms: must be 1 or more: 0 would leave no time at all
          10 | timeout_ms = 0
             |              ^
        Config: plugin.toml:8:8: tools.a b: the tool name "a b" is not allowed: use 1 to 128 of A-Z a-z 0-9 _ . -
          8 | [tools."a b"]
            |        ^
        Config: plugin.toml:4:1: auhtor: unknown key; did you mean author?
          4 | auhtor = "a"
            | ^
        Config: plugin.yaml:7:14: requires[0].version: unexpected character 'o' while parsing major version number
          7 |     version: one
            |              ^
        Config: plugin.yaml:7:12: requires[0].version: invalid type: null, expected semver version
          7 |     version: 
            |            ^
        Config: plugin.yaml:6:11: requires[0].name: a plugin cannot require itself: take pay out
          6 |   - name: pay
            |           ^
        Config: plugin.yaml:11:5: tools.a.b.timeuot_ms: unknown key; did you mean timeout_ms?
          11 |     timeuot_ms: 1
             |     ^
        Config: plugin.yaml:11:17: tools.a.b.timeout_ms: must be 1 or more: 0 would leave no time at all
          11 |     timeout_ms: 0
             |                 ^
        Config: plugin.yaml:9:3: tools.a b: the tool name "a b" is not allowed: use 1 to 128 of A-Z a-z 0-9 _ . -
          9 |   a b:
            |   ^
        Config: plugin.yaml:4:1: auhtor: unknown key; did you mean author?
          4 | auhtor: a
            | ^
        Config: plugin.json:3:45: requires[0].version: unexpected character 'o' while parsing major version number
          3 |   "requires": [{ "name": "bank", "version": "one" }],
            |                                             ^
        Config: plugin.json:3:45: requires[0].version: unexpected end of input while parsing major version number
          3 |   "requires": [{ "name": "bank", "version": "" }],
            |                                             ^
        Config: plugin.json:3:26: requires[0].name: a plugin cannot require itself: take pay out
          3 |   "requires": [{ "name": "pay", "version": "^1" }],
            |                          ^
        Config: plugin.json:5:5: tools.a.b.timeuot_ms: unknown key; did you mean timeout_ms?
          5 |     "timeuot_ms": 1 } }
            |     ^
        Config: plugin.json:5:19: tools.a.b.timeout_ms: must be 1 or more: 0 would leave no time at all
          5 |     "timeout_ms": 0 } }
            |                   ^
        Config: plugin.json:4:14: tools.a b: the tool name "a b" is not allowed: use 1 to 128 of A-Z a-z 0-9 _ . -
          4 |   "tools": { "a b": { "description": "d",
            |              ^
        Config: plugin.json:2:23: auhtor: unknown key; did you mean author?
          2 |   "description": "d", "auhtor": "a",
            |                       ^
    "#]]
    .assert_eq(&text);
}

/// A minimal manifest with `entry` in it, as JSON text.
fn with(entry: &str) -> String {
    let text = r#"{ "name": "pay", "version": "1.0.0", "description": "d", "author": "a", "tools": { "pay": { "description": "d" } } }"#;
    let key = entry.split('"').nth(1).unwrap_or_default();
    let mut value: Value = serde_json::from_str(text).unwrap();
    let entry: Value = serde_json::from_str(&format!("{{{entry}}}")).unwrap();
    value[key] = entry[key].clone();
    value.to_string()
}

#[test]
fn every_rule_has_a_sentence_of_its_own() {
    let long = |length: usize| "x".repeat(length);
    let many = |count: usize, item: &dyn Fn(usize) -> String| (0..count).map(item).collect::<Vec<_>>().join(",");
    let cases = [
        r#""name": "Pay""#.to_owned(),
        format!(r#""name": "{}""#, long(65)),
        r#""version": "1.2""#.to_owned(),
        format!(r#""version": "1.2.3-{}""#, long(200)),
        r#""description": " \n""#.to_owned(),
        format!(r#""description": "{}""#, long(4001)),
        r#""author": """#.to_owned(),
        format!(r#""author": "{}""#, long(201)),
        r#""author": null"#.to_owned(),
        r#""license": """#.to_owned(),
        r#""license": "MIT or Apache-2.0""#.to_owned(),
        r#""license": "MIT OR""#.to_owned(),
        r#""license": "(MIT""#.to_owned(),
        r#""homepage": "example.com""#.to_owned(),
        r#""homepage": "javascript:alert(1)""#.to_owned(),
        r#""homepage": "https://""#.to_owned(),
        r#""homepage": "https://me:secret@example.com""#.to_owned(),
        r#""repository": "git@example.com:a/b""#.to_owned(),
        r#""repository": "https://example.com/a b""#.to_owned(),
        format!(r#""repository": "https://example.com/{}""#, long(2000)),
        r#""keywords": [""]"#.to_owned(),
        r#""keywords": ["a", "b", "a"]"#.to_owned(),
        format!(r#""keywords": ["{}"]"#, long(51)),
        format!(r#""keywords": [{}]"#, many(21, &|n| format!("\"k{n}\""))),
        r#""runtime": "python""#.to_owned(),
        r#""entry": """#.to_owned(),
        r#""entry": "/etc/passwd""#.to_owned(),
        r#""entry": "a\\b""#.to_owned(),
        format!(r#""entry": "{}""#, long(201)),
        r#""framework": "^9""#.to_owned(),
        r#""framework": "new""#.to_owned(),
        r#""requires": [{ "name": "pay", "version": "*" }]"#.to_owned(),
        r#""requires": [{ "name": "b", "version": "1" }, { "name": "b", "version": "2" }]"#.to_owned(),
        r#""requires": [{ "name": "b" }]"#.to_owned(),
        format!(r#""requires": [{}]"#, many(101, &|n| format!(r#"{{ "name": "p{n}", "version": "*" }}"#))),
        r#""permissions": ["kv read"]"#.to_owned(),
        format!(r#""permissions": [{}]"#, many(201, &|n| format!("\"kv:{n}\""))),
        r#""limits": { "timeout_ms": 0 }"#.to_owned(),
        r#""limits": { "max_nesting": 0 }"#.to_owned(),
        r#""limits": { "max_operations": -1 }"#.to_owned(),
        r#""limits": { "timeout": 1 }"#.to_owned(),
        r#""config_schema": true"#.to_owned(),
        r#""provides": { "tools": ["refund"] }"#.to_owned(),
        r#""provides": { "hooks": ["on_error"] }"#.to_owned(),
        r#""provides": { "events": [""] }"#.to_owned(),
        r#""tools": { "pay": {} }"#.to_owned(),
        r#""tools": { "pay it": { "description": "d" } }"#.to_owned(),
        r#""tools": { "pay": { "description": "d", "parameters": null } }"#.to_owned(),
        r#""tools": { "pay": { "description": "d", "output": [] } }"#.to_owned(),
        r#""tools": { "pay": { "description": "d", "timeout_ms": 0 } }"#.to_owned(),
        r#""tools": { "pay": { "description": "d", "annotations": { "readonly": true } } }"#.to_owned(),
        format!(r#""tools": {{ "pay": {{ "description": "{}" }} }}"#, long(10_001)),
        format!(r#""tools": {{ {} }}"#, many(1001, &|n| format!(r#""t{n}": {{ "description": "d" }}"#))),
        r#""hooks": { "before_tool_cal": {} }"#.to_owned(),
        r#""hooks": { "on_error": { "timeout_ms": 0 } }"#.to_owned(),
        r#""hooks": { "on_error": { "on_failure": "shut" } }"#.to_owned(),
        r#""hooks": { "on_error": { "tools": [""] } }"#.to_owned(),
        r#""licence": "MIT""#.to_owned(),
        r#""$schema": 5"#.to_owned(),
        format!(r#""limits": {{ "max_operations": "{}" }}"#, long(5_000)),
        format!(r#""tools": {{ "{}": {{ "description": "d" }} }}"#, long(5_000)),
    ];
    let mut text = String::new();
    for case in cases {
        let error = parse_manifest("plugin.json", &with(&case)).expect_err(&case);
        assert!(error.position.is_some() && error.message.len() < 1_100, "{error}");
        let _ = writeln!(text, "{}", error.message);
    }
    expect![[r#"
        name: the plugin name "Pay" is not allowed: use 1 to 64 of a-z 0-9 _ - and begin with a letter
        name: the plugin name "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" is not allowed: use 1 to 64 of a-z 0-9 _ - and begin with a letter
        version: unexpected end of input while parsing minor version number
        version: has 206 characters, and 200 are allowed
        description: must not be empty
        description: has 4001 characters, and 4000 are allowed
        author: must not be empty
        author: has 201 characters, and 200 are allowed
        author: invalid type: null, expected a string
        license: must not be empty
        license: "MIT or Apache-2.0" is no SPDX expression: write one such as "MIT" or "MIT OR Apache-2.0"
        license: "MIT OR" is no SPDX expression: write one such as "MIT" or "MIT OR Apache-2.0"
        license: "(MIT" is no SPDX expression: write one such as "MIT" or "MIT OR Apache-2.0"
        homepage: "example.com" must be an http or https address, such as "https://example.com/fx"
        homepage: "javascript:alert(1)" must be an http or https address, such as "https://example.com/fx"
        homepage: "https://" must be an http or https address, such as "https://example.com/fx"
        homepage: "https://me:secret@example.com" must be an http or https address, such as "https://example.com/fx"
        repository: "git@example.com:a/b" must be an http or https address, such as "https://example.com/fx"
        repository: "https://example.com/a b" must be an http or https address, such as "https://example.com/fx"
        repository: has 2020 characters, and 2000 are allowed
        keywords[0]: must not be empty
        keywords[2]: "a" stands there already
        keywords[0]: has 51 characters, and 50 are allowed
        keywords: has 21 entries, and 20 are allowed
        runtime: unknown variant `python`, expected one of `native`, `rhai`, `wasm`, `grpc`, `mcp`
        entry: "" must be a file within the plugin's folder, such as "main.rhai"
        entry: "/etc/passwd" must be a file within the plugin's folder, such as "main.rhai"
        entry: "a\\b" must be a file within the plugin's folder, such as "main.rhai"
        entry: has 201 characters, and 200 are allowed
        framework: asks for ^9, and this is Toolbay 0.1.0
        framework: unexpected character 'n' while parsing major version number
        requires[0].name: a plugin cannot require itself: take pay out
        requires[1].name: requires b again: write one range of versions, such as ">=1.2, <1.9"
        requires[0].version: is missing
        requires: has 101 entries, and 100 are allowed
        permissions[0]: the permission "kv read" is not allowed: use words of A-Z a-z 0-9 _ . - * / with colons between them, as in kv:read
        permissions: has 201 permissions, and 200 are allowed
        limits.timeout_ms: must be 1 or more: with 0 no call could run
        limits.max_nesting: must be 1 or more: with 0 no call could run
        limits.max_operations: invalid value: integer `-1`, expected u64
        limits.timeout: unknown key; did you mean timeout_ms?
        config_schema: must be a JSON Schema, written as a table: { type = "object", ... }
        provides.tools: names "refund", which is not declared
        provides.hooks: names "on_error", which is not declared
        provides.events[0]: must not be empty
        tools.pay.description: is missing
        tools.pay it: the tool name "pay it" is not allowed: use 1 to 128 of A-Z a-z 0-9 _ . -
        tools.pay.parameters: must be a JSON Schema, written as a table: { type = "object", ... }
        tools.pay.output: must be a JSON Schema, written as a table: { type = "object", ... }
        tools.pay.timeout_ms: must be 1 or more: 0 would leave no time at all
        tools.pay.annotations.readonly: unknown key; did you mean read_only?
        tools.pay.description: has 10001 characters, and 10000 are allowed
        tools: has 1001 tools, and 1000 are allowed
        hooks.before_tool_cal: unknown key; did you mean before_tool_call?
        hooks.on_error.timeout_ms: must be 1 or more: 0 would leave no time at all
        hooks.on_error.on_failure: unknown variant `shut`, expected `closed` or `open`
        hooks.on_error.tools[0]: must not be empty
        licence: unknown key; did you mean license?
        $schema: must be the address of a JSON Schema, as text
        limits.max_operations: invalid type: string "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...
        tools.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...: the tool name "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx" is not allowed: use 1 to 128 of A-Z a-z 0-9 _ . -
    "#]].assert_eq(&text);
}

#[test]
fn texts_made_to_harm_are_refused_in_every_format() {
    let deep = |open: &str, close: &str, levels: usize| format!("{}1{}", open.repeat(levels), close.repeat(levels));
    let bomb = |levels: usize| {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..levels {
            let before = vec![format!("*a{}", level - 1); 10].join(", ");
            let _ = writeln!(text, "a{level}: &a{level} [{before}]");
        }
        text
    };
    let wide: String = (0..20_000).map(|n| format!("\"k{n}\": 1,")).collect();
    let cases: Vec<(&str, String)> = vec![
        ("toml", format!("config_schema = {}", deep("[", "]", 5_000))),
        ("toml", format!("config_schema = {}", deep("{ a = ", " }", 5_000))),
        ("toml", format!("config_schema = {}", deep("[", "]", 70))),
        ("toml", format!("[a{}]", ".a".repeat(5_000))),
        ("toml", "name = \"a\"\nname = \"b\"".to_owned()),
        ("toml", "limits = { max_operations = 99999999999999999999 }".to_owned()),
        ("toml", "config_schema = { a = nan }".to_owned()),
        ("toml", format!("# {}", "x".repeat(300 << 10))),
        ("json", format!("{{ \"config_schema\": {} }}", deep("[", "]", 60_000))),
        ("json", format!("{{ \"config_schema\": {} }}", deep("{\"a\":", "}", 30_000))),
        ("json", format!("{{ \"config_schema\": {} }}", deep("[", "]", 70))),
        ("json", "{ \"name\": \"a\", \"name\": \"b\" }".to_owned()),
        ("json", "{ \"tools\": { \"a\": {}, \"\\u0061\": {} } }".to_owned()),
        ("json", "{ \"name\": \"\\ud800\" }".to_owned()),
        ("json", "{ \"limits\": 1e999 }".to_owned()),
        ("json", "{ \"name\": \"a\" } x".to_owned()),
        ("json", format!("{}{{}}", " ".repeat(300 << 10))),
        ("yaml", bomb(9)),
        ("yaml", format!("a: &a {}\nb: [{}]", "x".repeat(50_000), vec!["*a"; 90].join(", "))),
        ("yaml", format!("a: {}", deep("[", "]", 5_000))),
        ("yaml", format!("a: {}", deep("{a: ", "}", 5_000))),
        ("yaml", (0..500).map(|level| format!("{}a:\n", " ".repeat(level))).collect()),
        ("yaml", format!("a:\n{}", "- ".repeat(50_000))),
        ("yaml", "name: a\nname: b".to_owned()),
        ("yaml", "name: a\n\"name\": b".to_owned()),
        ("yaml", "a: &a {b: 1}\nc:\n  <<: *a".to_owned()),
        ("yaml", "name: a\n---\nname: b".to_owned()),
        ("yaml", "a: &a [*a]".to_owned()),
        ("yaml", "name: !!python/object:os.system x".to_owned()),
        ("yaml", "name: .nan".to_owned()),
        ("yaml", format!("# {}", "x".repeat(300 << 10))),
        ("yaml", format!("{{{wide}}}")),
    ];
    let mut text = String::new();
    for (format, source) in cases {
        let begin = std::time::Instant::now();
        let error = parse_manifest(&format!("plugin.{format}"), &source).expect_err("refused");
        assert!(begin.elapsed() < std::time::Duration::from_secs(2), "{format}: {error}");
        let (line, column) = error.position.unwrap_or_default();
        let message: String = error.message.chars().take(160).collect();
        let _ = writeln!(text, "{format}:{line}:{column}: {message}");
    }
    expect![[r#"
        toml:1:97: cannot recurse further; max recursion depth met
        toml:1:497: cannot recurse further; max recursion depth met
        toml:1:80: more than 64 tables and lists in each other: write it flatter
        toml:0:0: recursion limit
        toml:2:1: duplicate key
        toml:1:12: the number 99999999999999999999 is too large
        toml:1:19: nan is no number that JSON has
        toml:0:0: the file has 307202 bytes, and 262144 are allowed
        json:1:83: more than 64 tables and lists in each other: write it flatter
        json:1:335: more than 64 tables and lists in each other: write it flatter
        json:1:83: more than 64 tables and lists in each other: write it flatter
        json:1:16: the key "name" stands there twice: keep one
        json:1:23: the key "a" stands there twice: keep one
        json:1:11: unexpected end of hex escape
        json:1:13: number out of range
        json:1:17: trailing characters
        json:0:0: the file has 307202 bytes, and 262144 are allowed
        yaml:4:15: what is repeated takes up more than 262144 bytes
        yaml:2:21: what is repeated takes up more than 262144 bytes
        yaml:1:69: recursion limit exceeded
        yaml:1:256: more than 64 tables and lists in each other: write it flatter
        yaml:65:65: more than 64 tables and lists in each other: write it flatter
        yaml:2:127: more than 64 tables and lists in each other: write it flatter
        yaml:2:1: the key "name" stands there twice: keep one
        yaml:2:1: the key "name" stands there twice: keep one
        yaml:3:3: merge keys are not taken: write the entries out
        yaml:2:1: a second document begins here, and a manifest is one
        yaml:1:8: this repeats what is not at its end yet
        yaml:1:33: tags are not taken: write the value without its !
        yaml:1:7: this is no number that JSON has
        yaml:0:0: the file has 307202 bytes, and 262144 are allowed
        yaml:1:2: k0: unknown key; known are name, version, description, author, license, homepage, repository, keywords, runtime, entry, provides, requires, requires_services, f
    "#]].assert_eq(&text);
}

/// Found by fuzzing: YAML ends a line at a carriage return alone, and the excerpt was of another line, or of none.
#[test]
fn a_line_is_what_an_editor_calls_a_line() {
    let error = parse_manifest("plugin.yaml", "\r\r\rname: [").unwrap_err();
    assert_eq!(error.position.map(|(line, _)| line), Some(1), "{error}");
    assert!(error.excerpt.is_some_and(|line| line.contains("name: [")));
}

#[tokio::test]
async fn a_folder_with_two_manifests_is_refused_with_both_names() {
    let toml = "name = \"pay\"\nversion = \"1.0.0\"\ndescription = \"d\"\nauthor = \"a\"\n";
    let files = [("pay/plugin.toml", toml), ("pay/plugin.yml", "name: pay\n"), ("pay/main.rhai", "fn pay(args) { 1 }")];
    let files = folder(&files);
    let bay = toolbay::builder().build().unwrap();
    let error = bay.load(Scope::Global, files.path().join("pay")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Config: the folder has both plugin.toml and plugin.yml, and a plugin has one manifest: take one of them away"
    );
    let report = bay.load_folder(Scope::Global, files.path()).await;
    assert_eq!((report.failed.len(), report.skipped.len()), (1, 0), "{report}");
}

#[test]
fn the_schema_in_the_repository_is_that_of_the_type() {
    let text = serde_json::to_string_pretty(&json_schema()).unwrap() + "\n";
    expect_file!["../../schemas/plugin.schema.json"].assert_eq(&text);
}

fn validator() -> Validator {
    jsonschema::options().with_draft(jsonschema::Draft::Draft202012).build(&json_schema()).expect("a schema")
}

#[test]
fn every_shipped_manifest_fits_the_schema() {
    let (validator, mut seen) = (validator(), 0);
    for folder in ["tools", "examples"] {
        manifests(&project().join(folder), &mut |path| {
            let text = fs::read_to_string(path).unwrap();
            let value = match path.extension().and_then(|extension| extension.to_str()) {
                Some("toml") => serde_json::to_value(toml::from_str::<toml::Table>(&text).unwrap()).unwrap(),
                Some("json") => serde_json::from_str(&text).unwrap(),
                // No shipped plugin has YAML yet; the day it has, this says what to do.
                _ => panic!("{}: teach this test YAML", path.display()),
            };
            let problems: Vec<_> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
            assert!(problems.is_empty(), "{}: {problems:#?}", path.display());
            seen += 1;
        });
    }
    assert!(seen > 0, "there are no manifests");
}

fn manifests(folder: &Path, look: &mut impl FnMut(&Path)) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" {
            manifests(&path, look);
        } else if toolbay::MANIFEST_NAMES.contains(&name.as_str()) {
            look(&path);
        }
    }
}

/// One change to a manifest: at a place, another value there, or another key, or a letter more in the text there.
#[derive(Debug, Clone)]
struct Change {
    place: Index,
    what: What,
}

#[derive(Debug, Clone)]
enum What {
    Replace(Value),
    Remove,
    Add(String, Value),
    Insert(Index, char),
    Cut(Index),
    Repeat(usize),
}

fn value() -> impl Strategy<Value = Value> {
    let texts = [
        "",
        " ",
        "x",
        "\u{feff}",
        "1.0.0",
        "1.0",
        "01.2.3",
        "1.0.0-a",
        "1.0.0+",
        "^1",
        ">=0.1, <9",
        "*",
        "x.y.z",
        "MIT",
        "MIT+",
        "MIT WITH x",
        "MIT AND",
        "((MIT))",
        "(MIT))",
        "https://a",
        "https://A.b/%20?q=[1]",
        "HTTP://a",
        "https://ä",
        "ftp://a",
        "main.rhai",
        "a/../b",
        "a//b",
        "/a",
        "a/",
        ".",
        "a\\b",
        "kv:*",
        "kv:read/x",
        "pay",
        "get.it",
        "open",
        "closed",
        "wasm",
        "rhai",
        "before_tool_call",
        "on_error",
    ];
    let numbers = prop_oneof![
        Just(json!(0)),
        Just(json!(1)),
        Just(json!(-1)),
        Just(json!(u64::MAX)),
        Just(json!(1.5)),
        Just(json!(u32::MAX))
    ];
    prop_oneof![
        4 => prop::sample::select(texts.to_vec()).prop_map(Value::from),
        2 => numbers,
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(json!([])),
        1 => Just(json!({})),
        1 => prop::sample::select(texts.to_vec()).prop_map(|text| json!([text, text])),
        1 => Just(json!({ "name": "other", "version": "1" })),
        1 => Just(json!({ "description": "d" })),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let keys = [
        "name",
        "$schema",
        "description",
        "timeout_ms",
        "on_error",
        "on_startup",
        "tools",
        "x",
        "a b",
        "priority",
        "max_map_len",
    ];
    let letters = [' ', '-', '.', '+', '(', ')', '/', '\\', ':', '*', '@', 'Z', '0', '_', '\u{e9}', '\n', '\0', '['];
    let what = prop_oneof![
        4 => value().prop_map(What::Replace),
        1 => Just(What::Remove),
        2 => (prop::sample::select(keys.to_vec()), value()).prop_map(|(key, value)| What::Add(key.to_owned(), value)),
        4 => (any::<Index>(), prop::sample::select(letters.to_vec())).prop_map(|(at, letter)| What::Insert(at, letter)),
        1 => any::<Index>().prop_map(What::Cut),
        1 => prop::sample::select(vec![20_usize, 64, 65, 200, 201, 2_001, 10_001]).prop_map(What::Repeat),
    ];
    (any::<Index>(), what).prop_map(|(place, what)| Change { place, what })
}

impl Change {
    fn apply(self, manifest: &mut Value) {
        let mut pointers = Vec::new();
        list(manifest, "", &mut pointers);
        let pointer = self.place.get(&pointers).clone();
        if let (What::Remove, Some((parent, key))) = (&self.what, pointer.rsplit_once('/')) {
            if let Some(entries) = manifest.pointer_mut(parent).and_then(Value::as_object_mut) {
                entries.remove(&key.replace("~1", "/").replace("~0", "~"));
            }
            return;
        }
        let Some(place) = manifest.pointer_mut(&pointer) else { return };
        match (self.what, place) {
            (What::Replace(value), place) => *place = value,
            (What::Add(key, value), Value::Object(entries)) => {
                entries.insert(key, value);
            }
            (What::Add(_, value), Value::Array(items)) => items.push(value),
            (What::Insert(at, letter), Value::String(text)) => {
                let mut letters: Vec<char> = text.chars().collect();
                letters.insert(at.index(letters.len() + 1), letter);
                *text = letters.into_iter().collect();
            }
            (What::Cut(at), Value::String(text)) if !text.is_empty() => {
                let mut letters: Vec<char> = text.chars().collect();
                letters.remove(at.index(letters.len()));
                *text = letters.into_iter().collect();
            }
            (What::Repeat(count), Value::String(text)) => {
                let last = text.chars().last().unwrap_or('x').to_string();
                text.push_str(&last.repeat(count));
            }
            (What::Repeat(count), Value::Array(items)) => {
                let first = items.first().cloned().unwrap_or(Value::Null);
                items.extend(std::iter::repeat_n(first, count.min(250)));
            }
            _ => {}
        }
    }
}

fn list(value: &Value, pointer: &str, into: &mut Vec<String>) {
    into.push(pointer.to_owned());
    let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
    match value {
        Value::Object(entries) => {
            entries.iter().for_each(|(key, value)| list(value, &format!("{pointer}/{}", escaped(key)), into))
        }
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, value)| list(value, &format!("{pointer}/{n}"), into))
        }
        _ => {}
    }
}

/// An editor that follows the schema must not reject what loads; and the three formats are one.
#[test]
fn what_the_parser_takes_the_schema_takes_and_each_format_says_the_same() {
    let (validator, mut taken, mut refused) = (validator(), 0, 0);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 1_500,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let changes = prop::collection::vec(change(), 1..3);
    let counts = std::cell::RefCell::new((&mut taken, &mut refused));
    let result = runner.run(&changes, |changes| {
        let mut value = full();
        changes.into_iter().for_each(|change| change.apply(&mut value));
        let text = value.to_string();
        let json = parse("json", &text);
        let mut counts = counts.borrow_mut();
        *(if json.is_ok() { &mut *counts.0 } else { &mut *counts.1 }) += 1;
        if json.is_ok() {
            prop_assert!(validator.is_valid(&value), "the schema refuses {text}");
        }
        prop_assert_eq!(parse("yaml", &text).ok(), json.clone().ok(), "as YAML: {:?}", parse("yaml", &text));
        if without_nulls(&value) == value
            && let Ok(toml) = toml::to_string(&value)
        {
            prop_assert_eq!(parse("toml", &toml).ok(), json.ok(), "as TOML: {:?}", parse("toml", &toml));
        }
        Ok(())
    });
    assert!(result.is_ok(), "{}", result.unwrap_err());
    assert!(taken > 150 && refused > 150, "{taken} taken, {refused} refused: the changes are too tame or too wild");
}
