//! What calls leave behind: nothing, or the plugin is called no more.

use serde_json::{Value, json};
use toolbay_api::ErrorKind;

use crate::fake::{Bench, assets, tool_source};

/// The first call fills what is made once; each of the others must leave nothing at all.
const CALLS: usize = 4;

/// Takes a plugin out of use at the first byte.
fn strict(mut bench: Bench) -> Bench {
    bench.runner = bench.runner.with_max_left_behind(0);
    bench
}

async fn calls(body: &str, arguments: Value) {
    let bench = strict(Bench::with_host(|host| {
        host.assets =
            assets(&[("data.json", r#"{"a": [1, 2, {"b": "a text that is longer than what fits in place"}]}"#)]);
        host.config = json!({ "endpoint": "a text that is longer than what fits in place" });
    }));
    let plugin = bench.source(&tool_source(body)).await.unwrap();
    for call in 0..CALLS {
        bench.host.logs.lock().unwrap().clear();
        if let Err(error) = bench.call(&*plugin, "t", arguments.clone()).await {
            assert_ne!(error.kind, ErrorKind::Unavailable, "call {call} of {body}: {error}");
        }
    }
}

#[tokio::test]
async fn calls_of_honest_scripts_leave_nothing_behind() {
    let long = "a text that is longer than what fits in place";
    let arguments = json!({ "text": long, "list": [{ "a": long }, { "b": [long, long] }] });
    for body in [
        "args",
        "args.list.map(|x| x).len()",
        "let n = 0; args.list.for_each(|x| n += 1); n",
        "let kept = []; let f = |x| kept.push(x); f.call(args.text); kept",
        "`${args.text} and ${args}`",
        "throw args.text",
        "throw #{ message: args.text, details: args }",
        "let n = 1; [1].map(|x| { throw args.text })",
        "fail(args.text, args)",
        "nothing.here",
        "let n = 1; let f = |x| n.missing(x); f.call(2)",
        "args.text.missing(args)",
        "log(args.text); log(args); print(args); config()",
        "config(\"endpoint\")",
        "kv_set(args.text, args); kv_get(args.text)",
        "kv_list(\"\"); kv_delete(args.text)",
        "kv_set(args.text, args, #{ ttl_ms: 5 }); kv_list(args.text, 5, \"\")",
        "kv_compare_and_set(args.text, args, args.list); kv_compare_and_set(args.text, kv_get(args.text), args, #{ ttl_ms: 5 })",
        "kv_compare_and_set(args.text, args, |x| x)",
        "kv_compare_and_set(args.text, args, args, #{ ttl_ms: 0 })",
        "kv_set(args.text, args, args)",
        "call_tool(\"echo\", args)",
        "call_tool(\"missing\", args)",
        "try { call_tool(\"missing\", args) } catch (e) { return e; }",
        "try { parse_json(args.text) } catch (e) { return e.message; }",
        "asset_get(\"data.json\", \"/a/2\")",
        "asset_get(\"missing.json\", \"/a/2\")",
        "asset_find(\"data.json\", \"/a\", \"/b\", args.text)",
        "uuid() + now() + random()",
        "to_json(args); parse_json(to_json(args))",
        "regex_find_all(\"[a-z]+\", args.text)",
        "regex_replace(\"([a-z]+) (x)?\", args.text, \"$1\")",
        "regex_is_match(\"(\", args.text)",
        "let n = 0; args.list.map(|x| { n += 1; regex_named(\"(?P<word>[a-z]+)\", args.text) })",
        "date_format(0, \"%Y-%m-%d\", \"Europe/Berlin\")",
        "sha256(args.text) + base64_encode(args.text)",
        "let s = args.text; s.replace(\"a\", args.text); s.split(\" \")",
        "args.list.sort(|x, y| 1); args.list == args.list",
    ] {
        calls(body, arguments.clone()).await;
    }
}

#[tokio::test]
async fn calls_that_reach_a_limit_leave_nothing_behind() {
    let bench = strict(Bench::with_limits(|limits| {
        limits.max_operations = 2_000;
        limits.max_memory_bytes = 200_000;
        limits.max_host_calls = 5;
    }));
    for body in [
        "loop {}",
        "let n = 0; loop { n += 1; [1].map(|x| n + x); }",
        "let a = []; loop { a.push(\"some text that is not short at all\"); }",
        "let a = []; let f = || a; loop { a.push(\"some text that is not short at all\"); }",
        "loop { kv_get(\"a\"); }",
        "let s = \"a\"; loop { s += s; }",
    ] {
        let plugin = bench.source(&tool_source(body)).await.unwrap();
        for call in 0..CALLS {
            let error = bench.call(&*plugin, "t", json!({})).await.expect_err("a limit");
            assert_ne!(error.kind, ErrorKind::Unavailable, "call {call} of {body}: {error}");
        }
    }
}

#[tokio::test]
async fn a_plugin_whose_functions_hold_themselves_is_called_no_more() {
    for body in [
        "let a = [blob(90000, 1), 0]; let f = || a; a[1] = f;",
        "let m = #{ big: blob(90000, 1) }; let f = || m; m.f = f;",
        "let a = (); let big = blob(90000, 1); let f = || { a; big }; a = f;",
    ] {
        let bench = Bench::default();
        let plugin = bench.source(&tool_source(body)).await.unwrap();
        let mut refused = None;
        for _ in 0..100 {
            if let Err(error) = bench.call(&*plugin, "t", json!({})).await {
                refused = Some(error);
                break;
            }
        }
        let refused = refused.unwrap_or_else(|| panic!("{body} leaks for ever"));
        assert_eq!(refused.kind, ErrorKind::Unavailable, "{body}");
        assert!(refused.message.contains("memory behind"), "{refused}");
        assert!(!refused.retryable);
        // Loaded again, it begins anew.
        let plugin = bench.source(&tool_source(body)).await.unwrap();
        assert!(bench.call(&*plugin, "t", json!({})).await.is_ok());
    }
}

#[tokio::test]
async fn what_the_host_answers_counts_as_memory_of_the_call() {
    let bench = Bench::with_limits(|limits| limits.max_memory_bytes = 1 << 20);
    bench.host.kv.lock().unwrap().insert("big".into(), json!("x".repeat(100_000)));
    let kept = "let a = []; for i in 0..100 { a.push(kv_get(\"big\")); } a.len()";
    let error = bench.run(kept).await.expect_err("ten megabytes were kept");
    assert!(matches!(error.kind, ErrorKind::LimitExceeded { limit: toolbay_api::Limit::Memory, .. }), "{error}");
    let dropped = "for i in 0..100 { kv_get(\"big\"); } 1";
    assert_eq!(bench.run(dropped).await.unwrap(), json!(1));
}

#[tokio::test]
async fn an_operation_that_takes_far_too_much_is_left_where_it_stands() {
    let bench = Bench::with_limits(|limits| limits.max_memory_bytes = 8 << 20);
    // Writing a value into a text prints it by Rhai's own hand, what its functions capture included.
    let body = "let t = \"x\"; while t.len() < 500000 { t += t; } let f = || t; let a = []; a.pad(400, f); \
                let s = \"ab\"; s[0..1] = a; s.len()";
    let plugin = bench.source(&tool_source(body)).await.unwrap();
    let error = bench.call(&*plugin, "t", json!({})).await.expect_err("two hundred megabytes");
    let ErrorKind::LimitExceeded { limit: toolbay_api::Limit::Memory, used, .. } = error.kind else {
        panic!("{error}")
    };
    assert!(used > 40 << 20, "{used}");
    // What it held is lost, so there is no second time.
    let refused = bench.call(&*plugin, "t", json!({})).await.expect_err("out of use");
    assert_eq!(refused.kind, ErrorKind::Unavailable, "{refused}");
    assert_eq!(bench.run("40 + 2").await.unwrap(), json!(42));
}

#[tokio::test]
async fn a_chain_of_functions_is_bounded_by_the_stack_that_dropping_it_needs() {
    let bench = Bench::with_limits(|limits| {
        limits.max_memory_bytes = 8 << 20;
        limits.max_operations = 100_000_000;
    });
    let chain = "let f = || 1; let n = 0; loop { let g = f; f = || g; n += 1; }";
    let plugin = bench.source(&tool_source(chain)).await.unwrap();
    let context = bench.context();
    let error = plugin.tools()[0].call(json!({}), &context).await.expect_err("a chain without end");
    let ErrorKind::LimitExceeded { limit: toolbay_api::Limit::Memory, allowed, used } = error.kind else {
        panic!("{error}")
    };
    // The heap that it holds is far from the limit: it is the stack that counts.
    assert!(used > allowed && used < allowed + (1 << 20), "{used}");
    assert!(context.usage().peak_bytes() < allowed / 2, "{}", context.usage().peak_bytes());
    let wide =
        "let n = 1; let a = []; a.pad(90000, 1); for i in 0..3 { let b = a; b[0] = i; a = b; } [1].map(|x| x + n)";
    assert_eq!(bench.run(wide).await.unwrap(), json!([2]));
}
