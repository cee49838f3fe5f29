//! Whoever gets a model to write a program gets no more by it than the model has: the sandbox's limits, the tenant's tools,
//! the user's rights.

use std::time::Duration;

use serde_json::json;
use toolbay::{
    Agent, AgentConfig, Breaker, Limits, PermissionSet, Quarantine, RhaiRunner, Scope, ScriptedModel, ToolContext,
    Toolbay, code::CodeSettings, plugin::NativePlugin, tool,
};
use toolbay_tests::hostile::corpus;

use super::{bay, bay_with, config, read, run, text_of};
use crate::support::{Nothing, plugin_that_says, tenant};

fn limits() -> Limits {
    Limits { timeout: Duration::from_secs(20), max_operations: 200_000, max_memory_bytes: 8 << 20, ..Limits::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_program_goes_on_past_its_limits_and_none_catches_one() {
    let builder = Toolbay::builder().runner(RhaiRunner::default()).limits(limits());
    let (bay, mode) = bay_with(builder, CodeSettings { max_calls: 50, ..CodeSettings::default() }).await;
    for (code, expected) in [
        ("loop { }", "LimitExceeded"),
        ("loop { try { loop { } } catch { } }", "LimitExceeded"),
        ("fn deeper(n) { deeper(n + 1) } try { deeper(0) } catch { } deeper(0)", "LimitExceeded"),
        ("let a = []; loop { try { a.push(\"x\".pad_left(30000)); } catch { } }", "LimitExceeded"),
        ("let a = []; for i in 0..100 { a.push([a, a, a, a]); } 1", "LimitExceeded"),
        ("for i in 0..10000 { try { shop::total(i) } catch { } } 1", "LimitExceeded: a program may call 50 tools"),
        (
            "let c = []; for i in 0..500 { c.push(#{ tool: \"shop::total\", args: #{ id: i } }); } try { parallel(c) } catch { }",
            "LimitExceeded: a program may call 50 tools",
        ),
        (
            "loop { try { parallel([#{ tool: \"shop::total\", args: #{ id: 1 } }]) } catch { } }",
            "LimitExceeded: a program may call 50 tools",
        ),
        ("eval(\"1\")", "Compile"),
        ("import \"/etc/passwd\" as x; 1", "Compile"),
        ("let f = Fn(\"shop::total\"); f.call(1)", "Script"),
        ("\"x\".pad_right(1 << 40, \"y\")", ""),
    ] {
        let text = text_of(&bay, &mode, code).await;
        assert!(text.starts_with(expected) && !text.starts_with('{'), "{code}\n{text}");
    }
    // The host is as it was.
    assert_eq!(text_of(&bay, &mode, "shop::total(1).total").await, r#"{"result":10}"#);
}

#[tokio::test(start_paused = true)]
async fn a_program_ends_with_its_time_wherever_it_waits_and_says_what_it_called() {
    let (bay, mode) = bay().await;
    let text = text_of(&bay, &mode, "shop::total(1); try { test::hang(#{}) } catch { } 5").await;
    assert!(text.starts_with("TimedOut"), "{text}");
    assert!(text.contains("shop.total: ok") && text.contains("test.hang: "), "{text}");
}

#[tokio::test]
async fn what_another_tenant_has_and_what_the_user_may_not_call_is_as_unknown_as_what_is_not_there() {
    let (bay, mode) = bay().await;
    bay.register(tenant("globex"), plugin_that_says("secrets", "all of them")).await.unwrap();
    let guarded = tool("shred", "Shreds", async |_: Nothing, _: ToolContext| Ok("shredded")).with(|definition| {
        definition.required_permissions = PermissionSet::parse(["files:shred"]).unwrap();
    });
    bay.register(Scope::Global, NativePlugin::new("office", "1.0.0", "Office").unwrap().tool(guarded)).await.unwrap();

    let attempts = |name: &str, path: &str| {
        [
            format!("call_tool(\"{name}\", #{{}})"),
            format!("call_tool(\"{path}\", #{{}})"),
            format!("{path}(#{{}})"),
            format!("parallel([#{{ tool: \"{path}\" }}])"),
        ]
    };
    let mut told: Vec<[String; 4]> = Vec::new();
    for (name, path) in
        [("secrets.what", "secrets::what"), ("office.shred", "office::shred"), ("absent.missing", "absent::missing")]
    {
        let mut texts = Vec::new();
        for code in attempts(name, path) {
            let text = text_of(&bay, &mode, &code).await;
            let (plugin, tool) = name.split_once('.').unwrap();
            texts.push(text.replace(plugin, "PLUGIN").replace(tool, "TOOL"));
        }
        told.push(texts.try_into().unwrap());
    }
    for (index, text) in told[2].iter().enumerate() {
        // Columns and lines of text under an error are as long as the names.
        let plain = |text: &str| text.split(" (line").next().unwrap().to_owned();
        assert_eq!(plain(&told[0][index]), plain(text));
        assert_eq!(plain(&told[1][index]), plain(text));
    }
    // Whoever has the right has the tool.
    let session = bay.session("acme").unwrap().with_rights(PermissionSet::parse(["files:shred"]).unwrap());
    let reply = run(session, config(&mode), "office::shred()").await;
    assert_eq!(read(&reply), r#"{"result":"shredded"}"#);
}

#[tokio::test]
async fn programs_are_for_the_model_of_a_run_and_do_not_call_one_another() {
    let (bay, mode) = bay().await;
    let inside = text_of(&bay, &mode, "call_tool(\"run_code\", #{ code: \"1\" })").await;
    assert!(inside.starts_with("PermissionDenied: line 1, column 1: run_code cannot be called from code"), "{inside}");
    let direct = bay.session("acme").unwrap().call("run_code", json!({ "code": "shop::orders()" })).await;
    assert!(direct.result.unwrap_err().message.starts_with("run_code is for the model of an agent in code mode"));

    // A plugin that calls it, while a program of the same run is under way and waits for that plugin.
    let source = r#"const PLUGIN = #{ name: "sly", version: "1.0.0", description: "Sly", author: "a", permissions: ["tool:call:*"], tools: #{
            reach: #{ description: "Reaches", parameters: #{ type: "object" } } } };
        fn reach(args) { call_tool("run_code", #{ code: "1" }) }"#;
    let builder = Toolbay::builder().runner(RhaiRunner::default()).grants(PermissionSet::standard());
    let (bay, mode) = bay_with(builder, CodeSettings::default()).await;
    bay.load_source(tenant("acme"), "sly.rhai", source).await.unwrap();
    let text = text_of(&bay, &mode, "let r = (); try { sly::reach() } catch (e) { r = e.message; } r").await;
    assert!(text.starts_with(r#"{"result":"run_code is for the model"#), "{text}");
}

#[tokio::test]
async fn a_program_reaches_nothing_but_tools() {
    let (bay, mode) = bay().await;
    for code in
        ["kv_get(\"a\")", "kv_set(\"a\", 1)", "secret(\"a\")", "http_get(\"http://127.0.0.1\")", "emit(\"a.b\", 1)"]
    {
        let text = text_of(&bay, &mode, code).await;
        assert!(!text.contains("result"), "{code}: {text}");
    }
    assert_eq!(text_of(&bay, &mode, "config()").await, r#"{"result":{}}"#);
}

#[tokio::test]
async fn a_run_that_is_dropped_drops_its_program_and_what_it_waits_for() {
    let (bay, mode) = bay().await;
    let session = bay.session("acme").unwrap();
    let run = run(session.clone(), config(&mode), "parallel([#{ tool: \"test::hang\" }, #{ tool: \"test::hang\" }])");
    let mut run = Box::pin(run);
    // One for the program and one for each of its calls.
    while session.calls_in_flight() < 3 {
        assert!(futures::poll!(run.as_mut()).is_pending());
        tokio::task::yield_now().await;
    }
    drop(run);
    assert_eq!(session.calls_in_flight(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_hostile_program_comes_to_an_end_as_code_too() {
    let hasty = Limits {
        timeout: Duration::from_millis(300),
        max_operations: 5_000,
        max_string_bytes: 32 << 10,
        max_array_len: 4_000,
        max_map_len: 2_000,
        ..Limits::default()
    };
    let builder = Toolbay::builder().runner(RhaiRunner::default()).limits(hasty).without_audit();
    let patient = Quarantine { breaches: usize::MAX, ..Quarantine::default() };
    let builder = builder.quarantine(patient).breaker(Breaker { failures: 0, ..Breaker::default() });
    let (bay, mode) = bay_with(builder, CodeSettings::default()).await;
    let (mut tried, mut ended) = (0, 0);
    for program in corpus() {
        let Ok(source) = std::str::from_utf8(&program.source) else { continue };
        let model = ScriptedModel::new().calls("run_code", json!({ "code": source })).says("done");
        let agent = Agent::new(model, bay.session("acme").unwrap());
        let config = AgentConfig { code: Some(mode.clone()), ..AgentConfig::default() };
        let reply = agent.config(config).run("go").await.unwrap();
        tried += 1;
        ended += usize::from(reply.outcome.is_completed() && reply.tool_calls >= 1);
    }
    assert!(tried > 600, "{tried}");
    assert_eq!(ended, tried);
}
