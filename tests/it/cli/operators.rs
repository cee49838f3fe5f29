//! plugins, describe and doctor, reloading while a command goes on, and what the configuration file says of plugins' lives.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, ChildStdout},
};

use expect_test::expect;
use serde_json::{Value, json};

use super::{BROKEN, Desk, KIT};

/// A plugin with one tool that says `text`, and what else is in `more`.
fn plugin(name: &str, text: &str, more: &str) -> String {
    format!(
        "const PLUGIN = #{{ name: \"{name}\", version: \"1.0.0\", description: \"A test's.\", author: \"The tests\", {more}\n\
         tools: #{{ say: #{{ description: \"Says it\" }} }} }};\nfn say(args) {{ {text} }}\n"
    )
}

const ILL: &str = "const PLUGIN = #{ name: \"ill\", version: \"1.0.0\", description: \"A test's.\", author: \"The tests\",\n\
                   tools: #{ say: #{ description: \"Says it\" } } };\nfn say(args) { 1 }\n\
                   fn on_health_check(cx) { throw \"the disk is full\"; }\n";

#[test]
fn plugins_tells_state_generation_and_health() {
    let desk = Desk::with(&[("all/kit.rhai", KIT), ("all/ill.rhai", ILL), ("all/broken.rhai", BROKEN)]);
    let ran = desk.run(&["plugins", "--tools", "all"]).ends(2);
    expect![[r#"
        PLUGIN  VERSION  SCOPE   STATE   GEN  CALLS  HEALTH
        ill     1.0.0    global  Active  1    0      not well: on_health_check: the disk is full
        kit     1.2.3    global  Active  1    0      well
        failed  all/broken.rhai (global): Compile: all/broken.rhai:3:3: the script does not compile: Expecting name of a property
          3 |   let x
            |   ^
    "#]]
    .assert_eq(&ran.stdout);
    let told = desk.run(&["plugins", "--tools", "all", "--json"]).ends(2).json();
    let [ill, kit] = told["plugins"].as_array().unwrap().as_slice() else { panic!("{told}") };
    assert_eq!((&ill["well"], &kit["well"], &kit["generation"]), (&json!(false), &json!(true), &json!(1)));
    assert_eq!(ill["check"]["error"]["message"], json!("on_health_check: the disk is full"));
    assert_eq!(told["failed"][0]["path"], json!("all/broken.rhai"));
}

/// A command that goes on, and ends with the test.
struct Going {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Going {
    fn start(desk: &Desk, args: &[&str]) -> Self {
        let mut child = desk.command(args).spawn().expect("the binary starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        Self { child, lines }
    }

    /// Reads lines of JSON until one is as wanted.
    fn until(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).expect("text") > 0, "it ended");
            let value = serde_json::from_str(&line).expect("a line of JSON");
            if wanted(&value) {
                return value;
            }
        }
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn watched_plugins_are_reloaded_when_their_files_change() {
    let desk = Desk::with(&[("all/a.rhai", &plugin("a", "1", ""))]);
    let mut going = Going::start(&desk, &["plugins", "--tools", "all", "--watch", "--json"]);
    let generation = |told: &Value| told["plugins"][0]["generation"].clone();
    going.until(|told| generation(told) == 1);
    fs::write(desk.path("all/a.rhai"), plugin("a", "2", "")).unwrap();
    going.until(|told| generation(told) == 2);
    fs::write(desk.path("all/b.rhai"), plugin("b", "1", "")).unwrap();
    going.until(|told| told["plugins"].as_array().unwrap().len() == 2);
    // What breaks callers is not taken without a word.
    fs::write(desk.path("all/a.rhai"), plugin("a", "3", "").replace("say", "tell")).unwrap();
    fs::remove_file(desk.path("all/b.rhai")).unwrap();
    let told = going.until(|told| told["plugins"].as_array().unwrap().len() == 1);
    assert_eq!(generation(&told), 2);
    drop(going);
    let mut going = Going::start(&desk, &["plugins", "--tools", "all", "--watch", "--allow-breaking", "--json"]);
    going.until(|told| generation(told) == 1);
    fs::write(desk.path("all/a.rhai"), plugin("a", "4", "")).unwrap();
    going.until(|told| generation(told) == 2);
}

#[test]
fn breaking_changes_are_allowed_only_where_something_is_watched() {
    Desk::new().run(&["plugins", "--tools", "kit.rhai", "--allow-breaking"]).refuses(&["--watch"]);
}

#[test]
fn describe_tells_what_a_plugin_asks_for_and_is_given() {
    let asks = plugin(
        "pay",
        "1",
        "permissions: [\"kv:read\", \"http:GET:api.example.com\"], config_schema: #{ type: \"object\", \
                                   properties: #{ unit: #{ type: \"string\", \"default\": \"EUR\" } } },",
    );
    let desk = Desk::with(&[("all/pay.rhai", &asks), ("all/kit.rhai", KIT)]);
    let ran = desk.run(&["describe", "pay", "--tools", "all"]).ends(0);
    expect![[r#"
        pay 1.0.0 (global)
          A test's.
          author    The tests
          runtime   rhai
          found at  all/pay.rhai
          enabled   yes
          tools:
            pay.say()  Says it
          asks for:
            kv:read
            http:GET:api.example.com  (not given by this host)
          limits:
            5s and 5000000 operations a call
            67108864 bytes of memory, 262144 of result
          configuration:
            {"unit":"EUR"}
    "#]]
    .assert_eq(&ran.stdout);
    let all = desk.run(&["describe", "--tools", "all", "--json"]).ends(0).json();
    let names: Vec<_> = all.as_array().unwrap().iter().map(|plugin| plugin["manifest"]["name"].clone()).collect();
    assert_eq!(names, [json!("kit"), json!("pay")]);
    assert_eq!(all[1]["permissions"][1]["given_by_host"], json!(false));
    desk.run(&["describe", "nobody", "--tools", "all"]).refuses(&["no plugin called nobody", "toolbay plugins"]);
}

#[test]
fn the_doctor_names_each_thing_that_would_fail() {
    let secretive = plugin("pay", "1", "permissions: [\"http:GET:api.example.com\"],");
    let config = "[plugins.pay]\nconfig = { key = \"secret:STRIPE_KEY\" }\n\
                  [tenants.acme.plugins.fx]\nenabled = true\n[tenants.acme.plugins.kit]\nconfig = { base = 1 }\n";
    let files = [
        ("all/pay.rhai", secretive.as_str()),
        ("all/kit.rhai", KIT),
        ("all/ill.rhai", ILL),
        ("all/broken.rhai", BROKEN),
        ("toolbay.toml", config),
    ];
    let desk = Desk::with(&files);
    let ran = desk.run(&["doctor", "--tools", "all", "--config", "toolbay.toml", "--json"]).ends(2).json();
    let of = |grade: &str| -> Vec<String> {
        let findings = ran["findings"].as_array().unwrap().iter().filter(|finding| finding["grade"] == grade);
        let line = |text: &Value| text.as_str().unwrap().lines().next().unwrap().to_owned();
        findings.map(|finding| format!("{}: {}", line(&finding["about"]), line(&finding["text"]))).collect()
    };
    // Whether workers can be locked down is up to the machine.
    let failures: Vec<_> = of("failure").into_iter().filter(|line| !line.starts_with("isolation")).collect();
    expect![[r#"
        all/broken.rhai: does not load for global: Compile: all/broken.rhai:3:3: the script does not compile: Expecting name of a property
        ill (global): is not well: on_health_check: the disk is full
        tenants.acme.plugins.kit: keeps the plugin off: the configuration does not fit config_schema: /base: expected the type string, found the number 1
        --
        pay (global): asks for http:GET:api.example.com, which this host does not give: what needs it is refused
        pay (global): its configuration refers to the secret STRIPE_KEY, and secret:read:STRIPE_KEY is not granted
        tenants.acme.plugins.fx: speaks of a plugin that the tenant does not have"#]]
    .assert_eq(&format!("{}\n--\n{}", failures.join("\n"), of("warning").join("\n")));
    let ran = desk.run(&["doctor", "--tools", "all/kit.rhai"]);
    assert!(ran.stdout.contains("ok       kit (global): version 1.2.3"), "{}", ran.stdout);
}

/// What a call gives with a configuration file.
fn with_config(config: &str, source: &str, call: &[&str]) -> String {
    let desk = Desk::with(&[("toolbay.toml", config), ("p.rhai", source)]);
    let fixed = ["call", "--tools", "p.rhai", "--config", "toolbay.toml"];
    let ran = desk.run(&[&fixed, call].concat());
    format!("{}{}", ran.stdout, ran.stderr).trim_end().to_owned()
}

#[test]
fn the_file_says_which_plugins_tenants_have_and_how_they_are_configured() {
    let source = plugin(
        "p",
        "config(\"unit\")",
        "config_schema: #{ type: \"object\", properties: #{ unit: #{ type: \"string\" } } },",
    );
    let call = |config: &str, tenant: &str| with_config(config, &source, &["p.say", "--tenant", tenant]);
    assert_eq!(call("[plugins.p]\nconfig = { unit = \"c\" }\n", "acme"), "c");
    let off = "[plugins.p]\nenabled = false\n[tenants.acme.plugins.p]\nenabled = true\nconfig = { unit = \"f\" }\n";
    // A plugin of which the file speaks by name with a configuration is protected; one that is only off is not.
    assert_eq!(call(off, "acme"), "f");
    assert!(call(off, "globex").contains("there is no tool called \"p.say\""), "{}", call(off, "globex"));
    let first = "[tenants.acme.plugins.p]\npriority = -3\n";
    let desk = Desk::with(&[("toolbay.toml", first), ("p.rhai", &source)]);
    let args = ["describe", "p", "--tools", "p.rhai", "--config", "toolbay.toml", "--json", "--tenant"];
    for (tenant, priority) in [("acme", -3), ("globex", 0)] {
        assert_eq!(desk.run(&[&args[..], &[tenant]].concat()).json()[0]["priority"], priority, "{tenant}");
    }
    let off = "[tenants.acme.plugins.p]\nenabled = false\n";
    assert!(call(off, "acme").contains("switched off"), "{}", call(off, "acme"));
}

#[test]
fn variables_of_the_environment_configure_plugins_by_name() {
    let source = plugin(
        "my-p",
        "config(\"unit\")",
        "config_schema: #{ type: \"object\", properties: #{ unit: #{ type: \"string\" } } },",
    );
    let desk = Desk::with(&[("my-p.rhai", &source)]);
    let call = |name: &str| {
        let mut command = desk.command(&["call", "my-p.say", "--tools", "my-p.rhai"]);
        super::Ran::of(command.env(name, "k").output().unwrap())
    };
    assert_eq!(call("TOOLBAY_PLUGIN_MY_P__UNIT").ends(0).stdout, "k\n");
    let refused = call("TOOLBAY_PLUGIN_MY_P__COLOUR");
    assert!(refused.stderr.contains("MY_P__COLOUR names no field of the plugin's config_schema"), "{}", refused.stderr);
}

#[test]
fn the_file_says_how_long_callbacks_may_take_and_when_a_breaker_opens() {
    let slow = format!("{}fn on_load(cx) {{ let n = 0; loop {{ n += 1; }} }}\n", plugin("p", "1", ""));
    let refused = with_config("[callbacks]\ntimeout_ms = 30\n", &slow, &["p.say"]);
    assert!(refused.contains("TimedOut: p.rhai: on_load"), "{refused}");
    // Four calls that time out: the last one is refused where three open the circuit.
    let spin = plugin("p", "loop { }", "limits: #{ timeout_ms: 20 },");
    let calls = "{\"tool\": \"p.say\", \"args\": {}}\n".repeat(4);
    for (config, last) in [
        ("failures = 3", "Unavailable"),
        ("failures = 0", "TimedOut"),
        ("failures = 9", "TimedOut"),
        // It is over before the next call comes.
        ("failures = 3\nopen_for_ms = 0", "TimedOut"),
    ] {
        let config = format!("[breaker]\n{config}\n");
        let desk = Desk::with(&[("toolbay.toml", &config), ("p.rhai", &spin)]);
        let args = ["call", "--batch", "-", "--json", "--tools", "p.rhai", "--config", "toolbay.toml"];
        let ran = desk.run_with_input(&args, &calls);
        assert_eq!(super::kind(ran.lines().last().unwrap()), last, "{config}");
    }
}

#[test]
fn the_file_says_how_often_plugins_are_asked_and_when_they_are_down() {
    let down = |told: &Value| told["plugins"][0]["down"] == true;
    // Each command asks once before it tells.
    for (checks, expected) in [(1, true), (2, false), (0, false)] {
        let config = format!("[breaker]\nfailed_checks = {checks}\n");
        let desk = Desk::with(&[("toolbay.toml", &config), ("ill.rhai", ILL)]);
        let ran = desk.run(&["plugins", "--tools", "ill.rhai", "--config", "toolbay.toml", "--json"]);
        assert_eq!(down(&ran.json()), expected, "{checks}");
    }
    let config = "[breaker]\nfailed_checks = 3\ncheck_interval_ms = 20\n";
    let desk = Desk::with(&[("toolbay.toml", config), ("ill.rhai", ILL)]);
    let args = ["plugins", "--tools", "ill.rhai", "--config", "toolbay.toml", "--watch", "--json"];
    Going::start(&desk, &args).until(down);
}

#[test]
fn the_file_and_the_command_line_say_when_code_is_compiled() {
    let desk = Desk::with(&[
        ("all/one.rhai", &plugin("one", "1", "")),
        ("all/two.rhai", &plugin("two", "let x = ;", "auto_load: false,")),
        ("ill/ill.rhai", &ILL.replace("author:", "auto_load: false, author:").replace("{ 1 }", "{ let x = ; }")),
        ("lazy.toml", "[loading]\ncode = \"at-first-use\"\n"),
        ("eager.toml", "[loading]\ncode = \"at-once\"\n"),
        ("one.toml", "[plugins.one]\nauto_load = true\n"),
        ("two.toml", "[plugins.two]\nauto_load = false\n[loading]\ncode = \"at-once\"\n"),
    ]);
    let states = |args: &[&str]| {
        let told = desk.run(&[&["plugins", "--tools", "all", "--json"], args].concat()).json();
        let plugins = told["plugins"].as_array().unwrap().iter();
        plugins
            .map(|one| format!("{} {}", one["name"].as_str().unwrap(), one["code"].as_str().unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!(states(&[]), ["one ready", "two at-first-use"]);
    assert_eq!(states(&["--lazy"]), ["one at-first-use", "two at-first-use"]);
    assert_eq!(states(&["--config", "lazy.toml"]), ["one at-first-use", "two at-first-use"]);
    assert_eq!(states(&["--config", "eager.toml"]), ["one ready"], "two does not compile, and that shows");
    assert_eq!(states(&["--config", "eager.toml", "--lazy"]), ["one at-first-use", "two at-first-use"]);
    assert_eq!(states(&["--config", "one.toml", "--lazy"]), ["one ready", "two at-first-use"]);
    assert_eq!(states(&["--config", "two.toml"]), ["one ready", "two at-first-use"]);
    assert!(desk.run(&["describe", "two", "--tools", "all"]).ends(0).stdout.contains("compiled at first use"));
    // Those who look for mistakes see them.
    desk.run(&["doctor", "--tools", "all"]).ends(2);
    desk.run(&["check", "all"]).ends(2);
    desk.run(&["test", "all/two.rhai"]).ends(2);
    let ran = desk.run(&["call", "two.say", "--tools", "all", "--json"]).ends(1);
    assert_eq!(ran.json()["error"]["kind"], json!("Unavailable"));
    assert!(ran.stderr.contains("two.rhai:3:24"), "the operator sees where: {}", ran.stderr);
    // A callback needs the code, and what came of it is in the table.
    let ran = desk.run(&["plugins", "--tools", "ill"]).ends(0);
    assert!(ran.stdout.contains("does not compile: ill.rhai:3:24"), "{}", ran.stdout);
}
