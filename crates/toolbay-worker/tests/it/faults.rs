//! What a script cannot do to anybody but itself.

use std::{process::Command, time::Duration, time::Instant};

use serde_json::json;
use toolbay_api::{ErrorKind, Limit, Limits, Scope};
use toolbay_worker::WorkerConfig;

use crate::support::{Bay, config, limits, script};

/// Sends a signal, by the system's own program.
fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill").args([name, &pid.to_string()]).status().expect("kill");
    assert!(sent.success());
}

fn short() -> Limits {
    Limits { timeout: Duration::from_millis(300), max_operations: u64::MAX, ..Limits::default() }
}

const CODE: &str =
    "fn spin(args) { loop {} } fn ok(args) { 1 } fn slow(args) { kv_get(\"k\"); call_tool(\"x.spin\", #{}) }";

#[tokio::test]
async fn an_endless_loop_ends_at_the_deadline_and_the_next_call_is_fine() {
    let bay = Bay::new(config(), short()).with("x", "spin ok", CODE).await;
    assert_eq!(bay.data("x.ok", json!({})).await, json!(1));
    let began = Instant::now();
    assert_eq!(bay.error("x.spin", json!({})).await.kind, ErrorKind::TimedOut);
    assert!(began.elapsed() < Duration::from_millis(400), "{:?}", began.elapsed());
    assert_eq!(bay.data("x.ok", json!({})).await, json!(1));
}

#[tokio::test]
async fn a_worker_that_is_stuck_is_killed_at_the_deadline() {
    let bay = Bay::new(config(), short()).with("x", "spin ok", CODE).await;
    assert_eq!(bay.data("x.ok", json!({})).await, json!(1));
    let stuck = bay.runner.workers().into_iter().find(|worker| worker.tenant.is_some()).expect("a worker").pid;
    signal("-STOP", stuck);
    let began = Instant::now();
    assert_eq!(bay.error("x.ok", json!({})).await.kind, ErrorKind::TimedOut);
    assert!(began.elapsed() < Duration::from_millis(400), "{:?}", began.elapsed());
    assert_eq!(bay.data("x.ok", json!({})).await, json!(1));
    while bay.pids().contains(&stuck) {
        tokio::task::yield_now().await;
    }
}

/// Many variables, each looked up many times: the parser's time is their product.
fn slow_to_compile(name: &str) -> String {
    let lets: String = (0..8_000).map(|n| format!("let v{n}=0;")).collect();
    script(name, name, &format!("fn {name}(args) {{ {lets} {} 1 }}", "v0;".repeat(40_000)))
}

fn hasty() -> Limits {
    Limits {
        timeout: Duration::from_millis(50),
        max_source_bytes: 1 << 20,
        max_variables: 100_000,
        max_operations: u64::MAX,
        ..Limits::default()
    }
}

#[tokio::test]
async fn loading_ends_at_the_deadline_and_the_next_load_is_fine() {
    let bay = Bay::new(config(), hasty()).with("ok", "ok", "fn ok(args) { 1 }").await;
    let began = Instant::now();
    let error = bay.toolbay.load_source(Scope::Global, "slow.rhai", &slow_to_compile("slow")).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::TimedOut, "{error}");
    assert!(began.elapsed() < Duration::from_millis(150), "{:?}", began.elapsed());
    let bay = bay.with("fine", "fine", "fn fine(args) { 2 }").await;
    assert_eq!(bay.data("fine", json!({})).await, json!(2));
}

#[tokio::test]
async fn loading_in_a_worker_that_is_stuck_ends_at_the_deadline_by_kill() {
    let bay = Bay::new(WorkerConfig { max_workers_per_tenant: 1, ..config() }, hasty());
    let bay = bay.with("ok", "ok", "fn ok(args) { 1 }").await;
    let stuck = bay.pids()[0];
    signal("-STOP", stuck);
    let began = Instant::now();
    let source = script("fine", "fine", "fn fine(args) { 2 }");
    let error = bay.toolbay.load_source(Scope::Global, "fine.rhai", &source).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::TimedOut, "{error}");
    assert!(began.elapsed() < Duration::from_millis(150), "{:?}", began.elapsed());
    let bay = bay.with("fine", "fine", "fn fine(args) { 2 }").await;
    assert!(!bay.pids().contains(&stuck));
    assert_eq!(bay.data("fine", json!({})).await, json!(2));
}

#[tokio::test]
async fn compiling_for_a_call_is_on_the_calls_time() {
    // Loaded by the host's worker with time enough, compiled again by the tenant's for a call that has little.
    let bay = Bay::new(config(), Limits { timeout: Duration::from_secs(60), ..hasty() });
    let source = slow_to_compile("slow").replace("slow: #{", "slow: #{ timeout_ms: 50, ");
    bay.toolbay.load_source(Scope::Global, "slow.rhai", &source).await.unwrap_or_else(|error| panic!("{error}"));
    let bay = bay.with("ok", "ok", "fn ok(args) { 1 }").await;
    assert_eq!(bay.data("ok", json!({})).await, json!(1));
    let began = Instant::now();
    let error = bay.error("slow", json!({})).await;
    assert_eq!(error.kind, ErrorKind::TimedOut, "{error}");
    assert!(began.elapsed() < Duration::from_millis(150), "{:?}", began.elapsed());
    assert_eq!(bay.data("ok", json!({})).await, json!(1));
}

#[tokio::test]
async fn siblings_of_a_call_whose_worker_is_killed_may_try_again() {
    let one = WorkerConfig { max_workers_per_tenant: 1, ..config() };
    let bay = Bay::new(one, Limits { timeout: Duration::from_secs(30), ..short() });
    let source = r#"const PLUGIN = #{ name: "x", version: "1.0.0", description: "d", permissions: ["*"], tools: #{
        brief: #{ description: "d", timeout_ms: 400 }, spin: #{ description: "d" }, waits: #{ description: "d" },
        ok: #{ description: "d", parameters: #{ type: "object" } } } };
        fn brief(args) { loop {} } fn spin(args) { loop {} } fn waits(args) { call_tool("x.spin", #{}) }
        fn ok(args) { args.n }"#;
    bay.toolbay.load_source(Scope::Global, "x.rhai", source).await.unwrap();
    assert_eq!(bay.data("x.ok", json!({ "n": 0 })).await, json!(0));
    let pid = bay.pid_of("acme").unwrap();
    // Three that run, two that wait for the host. Nothing but a kill can end a process that is stopped.
    let stuck = async {
        while bay.runner.workers().iter().all(|worker| worker.pid != pid || worker.calls < 7) {
            tokio::task::yield_now().await;
        }
        signal("-STOP", pid);
    };
    let siblings = ["x.spin", "x.waits", "x.spin", "x.waits"].map(|tool| bay.call("acme", tool, json!({})));
    let (brief, siblings, ()) =
        tokio::join!(bay.call("acme", "x.brief", json!({})), futures::future::join_all(siblings), stuck);
    assert_eq!(brief.result.unwrap_err().kind, ErrorKind::TimedOut);
    for sibling in siblings {
        let error = sibling.result.expect_err("its worker was killed");
        assert_eq!((error.kind, error.retryable), (ErrorKind::Unavailable, true), "{error}");
    }
    // Which is worth it, and the answers are everybody's own.
    let again = (1..8).map(|n| bay.call("acme", "x.ok", json!({ "n": n })));
    for (n, reply) in (1..8).zip(futures::future::join_all(again).await) {
        assert_eq!(reply.result.unwrap().data, json!(n));
    }
    assert_ne!(bay.pid_of("acme"), Some(pid));
}

#[tokio::test]
async fn a_memory_bomb_is_named_with_its_figures_and_the_next_call_is_fine() {
    let limits = Limits { max_memory_bytes: 8 << 20, max_string_bytes: 1 << 30, max_operations: u64::MAX, ..limits() };
    // One operation that allocates far more than the cap; many that stay below a value's own limits.
    let code = "fn jump(args) { let s = \"x\"; s.pad(900000000, \"y\"); s.len } fn ok(args) { 1 }
        fn grow(args) { let all = []; loop { let s = \"x\"; s.pad(100000, \"y\"); all.push(s); } }";
    let bay = Bay::new(config(), limits).with("bomb", "jump grow ok", code).await;
    for tool in ["bomb.jump", "bomb.grow"] {
        let error = bay.error(tool, json!({})).await;
        match error.kind {
            ErrorKind::LimitExceeded { limit: Limit::Memory, allowed, used } => {
                assert!(allowed == 8 << 20 && used > allowed, "{tool}: {error}");
            }
            other => panic!("{tool}: {other:?} {error}"),
        }
        assert_eq!(bay.data("bomb.ok", json!({})).await, json!(1));
    }
}

#[tokio::test]
async fn what_the_host_answers_counts_as_the_calls_memory() {
    let limits = Limits { max_memory_bytes: 6 << 20, max_string_bytes: 1 << 30, ..limits() };
    // Answers come and go; if their going were the call's gain, it could hold as much more.
    let code = r#"fn put(args) { let s = "x"; s.pad(60_000, "y"); kv_set("k", s); 1 }
        fn jump(args) { for i in 0..200 { kv_get("k"); } let s = "x"; s.pad(10_000_000, "y"); 1 }"#;
    let bay = Bay::new(config(), limits).with("a", "put jump", code).await;
    assert_eq!(bay.data("a.put", json!({})).await, json!(1));
    let reply = bay.call("acme", "a.jump", json!({})).await;
    let error = reply.result.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::LimitExceeded { limit: Limit::Memory, .. }), "{error}");
    // Found by the worker's hard cap, which ends it on the spot, so that it cannot say what was used; not by the sandbox
    // after the fact.
    assert_eq!(reply.metadata.operations, 0, "{error}");
}

#[tokio::test]
async fn a_worker_is_weighed_while_its_only_call_runs() {
    // The heap cap does not see the stacks that recursion fills; the scale outside does.
    let limits = Limits {
        max_call_depth: 20_000,
        max_operations: u64::MAX,
        max_memory_bytes: 16 << 20,
        timeout: Duration::from_secs(5),
        ..limits()
    };
    let code = "fn down(n) { if n == 0 { loop {} } down(n - 1) } fn sink(args) { down(args.levels) }";
    let bay = Bay::new(config(), limits).with("sink", "sink", code).await;
    let error = bay.error("sink", json!({ "levels": 19_000 })).await;
    assert!(matches!(error.kind, ErrorKind::LimitExceeded { limit: Limit::Memory, .. }), "{error}");
}

#[tokio::test]
async fn values_nested_as_deeply_as_the_limits_allow_are_no_danger() {
    let limits = Limits { max_operations: u64::MAX, timeout: Duration::from_secs(60), ..Limits::default() };
    let code =
        "fn nest(args) { let a = []; for i in 0..args.levels { let b = []; b.push(a); a = b; } 1 } fn ok(args) { 1 }";
    let bay = Bay::new(config(), limits).with("deep", "nest ok", code).await;
    let reply = bay.call("acme", "deep.nest", json!({ "levels": 3_000 })).await;
    assert_eq!(reply.result.expect("shallow enough").data, json!(1));
    assert_eq!(bay.data("deep.ok", json!({})).await, json!(1));
}

#[tokio::test]
async fn a_broken_process_is_told_apart_from_its_neighbours() {
    let bay = Bay::new(config(), limits()).with("x", "spin ok slow", CODE).await;
    assert_eq!(bay.data("x.ok", json!({})).await, json!(1));
    let pid = bay.runner.workers().iter().find(|worker| worker.tenant.is_some()).unwrap().pid;
    let broken = async {
        while bay.runner.workers().iter().all(|worker| worker.pid != pid || worker.calls < 2) {
            tokio::task::yield_now().await;
        }
        signal("-SEGV", pid);
    };
    // The outer call waits for the inner one, which runs.
    let (reply, ()) = tokio::join!(bay.call("acme", "x.slow", json!({})), broken);
    let error = reply.result.unwrap_err();
    assert!(error.kind == ErrorKind::Unavailable && error.retryable, "{error}");
    assert_eq!(bay.data("x.ok", json!({})).await, json!(1));

    // Alone, the call that ran is the broken one.
    let pid = bay.runner.workers().iter().find(|worker| worker.tenant.is_some()).unwrap().pid;
    let broken = async {
        while bay.runner.workers().iter().all(|worker| worker.pid != pid || worker.calls < 1) {
            tokio::task::yield_now().await;
        }
        // The worker may not have begun yet; a signal in the middle of the script is what is tested.
        tokio::time::sleep(Duration::from_millis(50)).await;
        signal("-ABRT", pid);
    };
    let (reply, ()) = tokio::join!(bay.call("acme", "x.spin", json!({})), broken);
    let error = reply.result.unwrap_err();
    assert_eq!((error.kind, &error.details), (ErrorKind::Panic, &json!({ "signal": 6 })), "{error}");
}

#[tokio::test]
async fn a_dropped_call_is_cancelled_and_its_worker_goes_on() {
    let patient = WorkerConfig { grace: Duration::from_secs(5), ..config() };
    let limits = Limits { max_operations: u64::MAX, ..limits() };
    let bay = Bay::new(patient, limits).with("x", "spin ok", CODE).await;
    assert_eq!(bay.data("x.ok", json!({})).await, json!(1));
    let before = bay.pids();
    let dropped = tokio::time::timeout(Duration::from_millis(100), bay.call("acme", "x.spin", json!({}))).await;
    assert!(dropped.is_err());
    while bay.runner.workers().iter().any(|worker| worker.calls > 0) {
        tokio::task::yield_now().await;
    }
    assert_eq!(bay.data("x.ok", json!({})).await, json!(1));
    assert_eq!(bay.pids(), before);
}

#[tokio::test]
async fn host_calls_past_the_limit_end_the_call() {
    let limits = Limits { max_host_calls: 50, ..limits() };
    let code = "fn many(args) { loop { kv_get(\"k\"); } } fn lines(args) { loop { log(\"x\"); } } fn ok(args) { 1 }";
    let bay = Bay::new(config(), limits).with("h", "many lines ok", code).await;
    for tool in ["h.many", "h.lines"] {
        let error = bay.error(tool, json!({})).await;
        assert!(matches!(error.kind, ErrorKind::LimitExceeded { limit: Limit::HostCalls, allowed: 50, .. }), "{error}");
    }
    assert_eq!(bay.data("h.ok", json!({})).await, json!(1));
}

#[tokio::test]
async fn a_worker_weighs_little_more_than_its_call_may_hold() {
    let cap = 48 << 20;
    let limits = Limits {
        max_memory_bytes: cap,
        max_array_len: 10_000_000,
        max_string_bytes: 1 << 30,
        max_operations: u64::MAX,
        timeout: Duration::from_secs(20),
        ..Limits::default()
    };
    // Many values, of which the system's allocator makes more than was asked for.
    let code =
        "fn fill(args) { let all = []; loop { let some = []; for i in 0..1000 { let s = \"x\"; s.pad(100, \"y\");
        some.push(s); } all.push(some); } }";
    let bay = Bay::new(config(), limits).with("fill", "fill", code).await;
    let status = |pid: u32, what: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(what).map(str::to_owned));
        line.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<u64>().ok()).unwrap_or_default() << 10
    };
    // The worker that loaded the plugin, and nothing else.
    let empty = status(bay.pids()[0], "VmRSS:");
    let mut call = std::pin::pin!(bay.error("fill", json!({})));
    let mut highest = 0;
    let error = loop {
        let pause = tokio::time::sleep(Duration::from_millis(2));
        tokio::select! {
            error = &mut call => break error,
            () = pause => {}
        }
        for worker in bay.runner.workers() {
            highest = highest.max(status(worker.pid, "VmHWM:"));
        }
    };
    assert!(matches!(error.kind, ErrorKind::LimitExceeded { limit: Limit::Memory, .. }), "{error}");
    // A debug build is itself larger than a release build by more than the difference.
    let allowed = if cfg!(debug_assertions) { empty + cap + (4 << 20) } else { cap + (16 << 20) };
    println!("empty {} KiB, highest {} KiB, cap {} KiB", empty >> 10, highest >> 10, cap >> 10);
    assert!(highest > cap / 2 && highest <= allowed, "{} MiB of {}", highest >> 20, allowed >> 20);
}
