//! What scripts can do in a worker: the same as in process.

use std::{fs, time::Duration};

use serde_json::{Value, json};
use toolbay_api::{ErrorKind, PermissionSet, PluginName, Scope};
use toolbay_runtime::Toolbay;
use toolbay_testkit::VirtualClock;
use toolbay_worker::WorkerRunner;

use crate::support::{Bay, config, limits, script};

#[tokio::test]
async fn a_tool_in_a_worker_answers_behind_full_isolation() {
    let bay = Bay::new(config(), limits()).with("sum", "sum", "fn sum(args) { args.a + args.b }").await;
    assert_eq!(bay.data("sum", json!({ "a": 2, "b": 40 })).await, json!(42));
    assert!(bay.runner.isolation().is_full(), "{:?}", bay.runner.isolation().missing());
}

#[tokio::test]
async fn a_script_knows_its_call() {
    let bay = Bay::new(config(), limits()).with("who", "who", "fn who(args, cx) { cx }").await;
    let session = bay.toolbay.session("acme").unwrap().with_user("ann").with_conversation("c1");
    let known = session.call("who", json!({})).await.result.unwrap().data;
    assert_eq!(
        (&known["tenant"], &known["user"], &known["conversation"]),
        (&json!("acme"), &json!("ann"), &json!("c1"))
    );
    assert!(known["deadline_ms"].as_i64().unwrap() > 5_000, "{known}");
    assert_eq!(known["run"].as_str().unwrap().len(), 36);
}

#[tokio::test]
async fn state_is_kept_by_the_host_and_only_there() {
    let code = "fn put(args) { kv_set(args.key, args.value); kv_get(args.key) } fn get(args) { kv_get(args.key) }
        fn keys(args) { kv_list(\"\") } fn forget(args) { [kv_delete(args.key), kv_delete(args.key)] }";
    let bay = Bay::new(config(), limits()).with("store", "put get keys forget", code).await;
    let value = json!({ "n": 0.1, "deep": [[1, "x", null]] });
    assert_eq!(bay.data("store.put", json!({ "key": "a", "value": value })).await, value);
    assert_eq!(bay.data("store.keys", json!({})).await, json!(["a"]));
    assert_eq!(bay.data("store.forget", json!({ "key": "a" })).await, json!([true, false]));
    assert_eq!(bay.data("store.get", json!({ "key": "a" })).await, Value::Null);
    let other = bay.call("other", "store.get", json!({ "key": "a" })).await;
    assert_eq!(other.result.unwrap().data, Value::Null);
}

#[tokio::test]
async fn values_last_compare_and_are_listed_in_pieces_by_the_hosts_word() {
    let code =
        "fn put(args) { kv_set(args.key, 1, #{ ttl_ms: args.ttl }) } fn keys(args) { kv_list(\"\", 1, args.after) }
        fn swap(args) { kv_compare_and_set(args.key, args.from, args.to) }
        fn lock(args) { kv_compare_and_set(\"lock\", (), 1, #{ ttl_ms: 5 }) }
        fn get(args) { kv_get(args.key) }";
    let clock = VirtualClock::default();
    let toolbay = |grants: &[&str]| {
        let runner = WorkerRunner::new(config()).unwrap();
        let grants = PermissionSet::parse(grants).unwrap();
        Toolbay::builder().runner(runner).limits(limits()).clock(clock.clone()).grants(grants).build().unwrap()
    };
    let source = script("store", "put keys swap lock get", code);
    let bay = toolbay(&["kv:*"]);
    bay.load_source(Scope::Global, "store.rhai", &source).await.unwrap();
    let session = bay.session("acme").unwrap();
    let data = async |tool: &str, arguments: Value| session.call(tool, arguments).await.result.unwrap().data;
    data("store.put", json!({ "key": "a", "ttl": 1_000 })).await;
    assert_eq!(data("store.swap", json!({ "key": "b", "from": null, "to": [1, 0.5] })).await, json!(true));
    assert_eq!(data("store.swap", json!({ "key": "b", "from": null, "to": 2 })).await, json!(false));
    assert_eq!(data("store.swap", json!({ "key": "b", "from": [1, 0.5], "to": 2 })).await, json!(true));
    assert_eq!([data("store.lock", json!({})).await, data("store.lock", json!({})).await], [json!(true), json!(false)]);
    assert_eq!(data("store.keys", json!({ "after": "" })).await, json!(["a"]));
    assert_eq!(data("store.keys", json!({ "after": "a" })).await, json!(["b"]));
    clock.advance(Duration::from_secs(1));
    assert_eq!(data("store.get", json!({ "key": "a" })).await, Value::Null);
    assert_eq!(data("store.lock", json!({})).await, json!(true));

    // Whatever a worker asks for, the host has the say.
    for (granted, refused) in
        [("kv:read", "store.put"), ("kv:read", "store.swap"), ("kv:write", "store.swap"), ("kv:write", "store.keys")]
    {
        let bay = toolbay(&[granted]);
        bay.load_source(Scope::Global, "store.rhai", &source).await.unwrap();
        let arguments = json!({ "key": "a", "ttl": 5, "from": null, "to": 1, "after": "" });
        let error = bay.session("acme").unwrap().call(refused, arguments).await.result.unwrap_err();
        assert_eq!(error.kind, ErrorKind::PermissionDenied, "{granted}: {refused}: {error}");
    }
}

#[tokio::test]
async fn tools_call_tools_and_catch_their_errors() {
    let code = r#"fn outer(args) { call_tool("nest.inner", #{ n: args.n }) + 1 }
        fn inner(args) { if args.n < 0 { fail("too small", #{ n: args.n }) } args.n * 2 }
        fn careful(args) { try { call_tool("nest.inner", #{ n: -1 }); } catch (e) { return [e.kind, e.message, e.details]; } }
        fn deep(args) { call_tool("nest.deep", #{}) }"#;
    let bay = Bay::new(config(), limits()).with("nest", "outer inner careful deep", code).await;
    assert_eq!(bay.data("nest.outer", json!({ "n": 4 })).await, json!(9));
    assert_eq!(bay.data("nest.careful", json!({})).await, json!(["Script", "too small", { "n": -1 }]));
    let error = bay.error("nest.deep", json!({})).await;
    assert_eq!(error.kind.name(), "LimitExceeded", "{error}");
    assert_eq!(bay.runner.workers().iter().filter(|worker| worker.calls > 0).count(), 0);
}

#[tokio::test]
async fn the_host_checks_each_grant_and_gives_clock_and_chance() {
    let code = "fn all(args) { [now() > 1600000000000, uuid().len, random() < 1.0, random_int(3, 3), config()] }
        fn write(args) { kv_set(\"a\", 1) }";
    let bay = Bay::new(config(), limits()).with("chance", "all", code).await;
    assert_eq!(bay.data("chance.all", json!({})).await, json!([true, 36, true, 3, {}]));

    let runner = WorkerRunner::new(config()).unwrap();
    let grants = PermissionSet::parse(["kv:read"]).unwrap();
    let poor = Toolbay::builder().runner(runner).limits(limits()).grants(grants).build().unwrap();
    poor.load_source(Scope::Global, "chance.rhai", &script("chance", "all write", code)).await.unwrap();
    for tool in ["chance.all", "chance.write"] {
        let error = poor.session("acme").unwrap().call(tool, json!({})).await.result.unwrap_err();
        assert_eq!(error.kind, ErrorKind::PermissionDenied, "{error}");
    }
}

#[tokio::test]
async fn a_folder_with_modules_assets_and_configuration_works() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join("shop");
    fs::create_dir_all(plugin.join("assets")).unwrap();
    let manifest = r#"
name = "shop"
version = "1.0.0"
description = "A shop"
author = "us"
[tools.price]
description = "d"
parameters = { type = "object" }
[tools.text]
description = "d"
[tools.currency]
description = "d"
"#;
    fs::write(plugin.join("plugin.toml"), manifest).unwrap();
    fs::write(plugin.join("tax.rhai"), "fn with_tax(x) { x * 2 }").unwrap();
    let code = r#"import "tax" as tax;
        fn price(args) { tax::with_tax(asset_get("db.json", "/items/" + args.item + "/price")) }
        fn text(args) { asset_text("note.txt") + asset_names().len }
        fn currency(args) { config("currency") }"#;
    fs::write(plugin.join("main.rhai"), code).unwrap();
    // Larger than what the call may hold: packaged files are not counted for it.
    let many: Vec<_> = (0..20_000).map(|n| format!("\"i{n}\": {{ \"price\": {n}, \"name\": \"an item\" }}")).collect();
    fs::write(plugin.join("assets/db.json"), format!("{{ \"items\": {{ {} }} }}", many.join(","))).unwrap();
    fs::write(plugin.join("assets/note.txt"), "hello").unwrap();

    let runner = WorkerRunner::new(config()).unwrap();
    let limits = toolbay_api::Limits { max_memory_bytes: 2 << 20, ..limits() };
    let toolbay = Toolbay::builder()
        .runner(runner.clone())
        .limits(limits)
        .plugin_config(PluginName::new("shop").unwrap(), json!({ "currency": "EUR" }))
        .build()
        .unwrap();
    toolbay.load(Scope::Global, &plugin).await.unwrap();
    let session = toolbay.session("acme").unwrap();
    for _ in 0..2 {
        let reply = session.call("shop.price", json!({ "item": "i777" })).await;
        assert_eq!(reply.result.unwrap().data, json!(1_554));
        assert!(reply.metadata.peak_bytes < 1 << 20, "{}", reply.metadata.peak_bytes);
        assert_eq!(reply.metadata.host_calls, 1);
    }
    assert_eq!(session.call("shop.text", json!({})).await.result.unwrap().data, json!("hello2"));
    assert_eq!(session.call("shop.currency", json!({})).await.result.unwrap().data, json!("EUR"));
    let others = runner.workers();
    assert_eq!(others.iter().filter(|worker| worker.tenant.is_some()).count(), 1, "{others:?}");
}

#[tokio::test]
async fn hooks_in_a_worker_decide() {
    let source = r#"const PLUGIN = #{ name: "guard", version: "1.0.0", description: "d", permissions: ["hook:rewrite"],
        hooks: #{ before_tool_call: #{ tools: ["echo"] }, after_tool_call: #{} } };
        fn before_tool_call(input, cx) {
            if "secret" in input.arguments { return #{ deny: "no secrets for " + cx.tenant }; }
            if "rewrite" in input.arguments { return #{ rewrite: #{ rewritten: true } }; }
        }
        fn after_tool_call(input, cx) { if input.success && input.data == "stop" { #{ stop: "enough" } } }"#;
    for grants in [PermissionSet::all(), PermissionSet::default()] {
        let is_granted = !grants.is_empty();
        let runner = WorkerRunner::new(config()).unwrap();
        let toolbay = Toolbay::builder().runner(runner).limits(limits()).grants(grants).build().unwrap();
        toolbay.load_source(Scope::Global, "guard.rhai", source).await.unwrap();
        toolbay
            .load_source(Scope::Global, "echo.rhai", &script("echo", "echo", "fn echo(args) { args.say ?? args }"))
            .await
            .unwrap();
        let session = toolbay.session("acme").unwrap();
        assert_eq!(session.call("echo", json!({ "say": 1 })).await.result.unwrap().data, json!(1));
        let denied = session.call("echo", json!({ "secret": 1 })).await.result.unwrap_err();
        assert_eq!(denied.kind, ErrorKind::DeniedByHook, "{denied}");
        assert!(denied.message.contains("no secrets for acme"), "{denied}");
        assert_eq!(session.call("echo", json!({ "say": "stop" })).await.stop.unwrap().reason, "enough");
        let rewritten = session.call("echo", json!({ "rewrite": 1 })).await.result;
        if is_granted {
            assert_eq!(rewritten.unwrap().data, json!({ "rewritten": true }));
        } else {
            assert_eq!(rewritten.unwrap_err().kind, ErrorKind::HookFailed);
        }
    }
}

#[tokio::test]
async fn a_load_error_keeps_file_line_and_excerpt() {
    let bay = Bay::new(config(), limits());
    let source = script("bad", "bad", "fn bad(args) {\n    let x = ;\n}");
    let error = bay.toolbay.load_source(Scope::Global, "bad.rhai", &source).await.unwrap_err();
    assert_eq!((error.kind, error.file.as_deref()), (ErrorKind::Compile, Some("bad.rhai")));
    assert_eq!((error.position.unwrap().0, error.excerpt.as_deref()), (3, Some("    let x = ;")));
}

#[tokio::test]
async fn a_script_error_has_its_place_for_the_operator_and_usage_is_counted() {
    let code = "fn fails(args) {\n  let a = 1;\n  a.nothing()\n}\nfn works(args) { let s = 0; for i in 0..1000 { s += i } log(\"x\"); s }";
    let bay = Bay::new(config(), limits()).with("p", "fails works", code).await;
    let error = bay.error("p.fails", json!({})).await;
    assert_eq!(error.kind, ErrorKind::Script);
    assert!(error.operator_detail().unwrap().to_string().contains("p.rhai:4"), "{:?}", error.operator_detail());
    let reply = bay.call("acme", "p.works", json!({})).await;
    assert!(reply.metadata.operations > 1_000, "{:?}", reply.metadata);
    assert!(reply.metadata.peak_bytes > 0, "{:?}", reply.metadata);
    assert_eq!(reply.metadata.host_calls, 1);
}
