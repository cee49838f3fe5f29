//! Whose processes there are, how many, and when they are replaced.

use std::{collections::HashMap, time::Duration, time::Instant};

use futures::future::join_all;
use serde_json::json;
use toolbay_api::{ErrorKind, Limit, Limits, Scope};
use toolbay_worker::{Isolation, Layers, WorkerConfig, WorkerRunner};

use crate::support::{Bay, config, limits};

const CODE: &str =
    "fn spin(args) { loop {} } fn ok(args) { 1 } fn bomb(args) { let s = \"x\"; s.pad(900000000, \"y\"); 1 }";

async fn bay(config: WorkerConfig) -> Bay {
    let limits = Limits {
        max_string_bytes: 1 << 30,
        max_memory_bytes: 8 << 20,
        max_operations: u64::MAX,
        timeout: Duration::from_secs(1),
        ..limits()
    };
    Bay::new(config, limits).with("x", "spin ok bomb", CODE).await
}

/// A tool that spins to its deadline, and one whose time is over before that.
const SPIN_AND_BRIEF: &str = "const PLUGIN = #{ name: \"x\", version: \"1.0.0\", description: \"d\", tools: #{
    spin: #{ description: \"d\" }, ok: #{ description: \"d\", timeout_ms: 500 } } };
    fn spin(args) { loop {} } fn ok(args) { 1 }";

fn spinning() -> Limits {
    Limits { max_operations: u64::MAX, timeout: Duration::from_secs(2), ..Limits::default() }
}

/// Whether there is such a process; one that is dead and not buried yet counts.
fn is_alive(pid: u32) -> bool {
    std::path::Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn a_process_never_serves_two_tenants_and_their_number_is_bounded() {
    let bay = bay(WorkerConfig { max_workers: 3, max_workers_per_tenant: 1, ..config() }).await;
    let mut owners: HashMap<u32, String> = HashMap::new();
    for round in 0..12 {
        let tenant = format!("t{}", round % 6);
        assert_eq!(bay.call(&tenant, "x.ok", json!({})).await.result.unwrap().data, json!(1));
        let workers = bay.runner.workers();
        assert!(workers.len() <= 3, "{workers:?}");
        for worker in workers {
            let Some(owner) = worker.tenant else { continue };
            let first = owners.entry(worker.pid).or_insert_with(|| owner.to_string());
            assert_eq!(*first, owner.to_string(), "pid {} changed hands", worker.pid);
        }
    }
    assert!(owners.len() >= 6);
}

#[tokio::test]
async fn the_worker_used_longest_ago_makes_room_for_another_tenants() {
    let bay = bay(WorkerConfig { max_workers: 3, max_workers_per_tenant: 1, ..config() }).await;
    let mut pids = HashMap::new();
    // The host's own worker, which loaded the plugin, goes first; a is used again, so that b is the oldest.
    for tenant in ["a", "b", "c", "a"] {
        assert_eq!(bay.call(tenant, "x.ok", json!({})).await.result.unwrap().data, json!(1));
        pids.insert(tenant, bay.pid_of(tenant).unwrap());
    }
    assert_eq!(bay.call("d", "x.ok", json!({})).await.result.unwrap().data, json!(1));
    assert_eq!((bay.pid_of("a"), bay.pid_of("b"), bay.pid_of("c")), (Some(pids["a"]), None, Some(pids["c"])));
    assert!(bay.pid_of("d").is_some());
}

#[tokio::test]
async fn a_worker_with_calls_never_makes_room() {
    let bay = Bay::new(WorkerConfig { max_workers: 1, max_workers_per_tenant: 1, ..config() }, spinning());
    bay.toolbay.load_source(Scope::Global, "x.rhai", SPIN_AND_BRIEF).await.unwrap();
    let other = async {
        while bay.runner.workers().iter().all(|worker| worker.tenant.is_none() || worker.calls == 0) {
            tokio::task::yield_now().await;
        }
        (bay.call("b", "x.ok", json!({})).await.result.unwrap_err(), bay.pid_of("a"))
    };
    let (spinning, (refused, pid)) = tokio::join!(bay.call("a", "x.spin", json!({})), other);
    assert_eq!((refused.kind, refused.retryable), (ErrorKind::Unavailable, true), "{refused}");
    assert!(pid.is_some());
    assert_eq!(spinning.result.unwrap_err().kind, ErrorKind::TimedOut);
}

#[tokio::test]
async fn an_idle_worker_is_ended_and_a_busy_one_is_not() {
    let bay = bay(WorkerConfig { idle_timeout: Duration::from_millis(100), ..config() }).await;
    assert_eq!(bay.call("idle", "x.ok", json!({})).await.result.unwrap().data, json!(1));
    let idle = bay.pid_of("idle").unwrap();
    let mut busy = std::pin::pin!(bay.call("busy", "x.spin", json!({})));
    let is_gone = async {
        // The process itself, not only the list's entry; and the host's own, which loaded the plugin.
        while bay.runner.workers().iter().any(|worker| worker.calls == 0) || is_alive(idle) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        reply = &mut busy => panic!("the busy worker was ended, or the idle one never: {:?}", reply.result),
        () = is_gone => {}
    }
    assert!(bay.pid_of("busy").is_some() && bay.pid_of("idle").is_none());
    assert_eq!(busy.await.result.unwrap_err().kind, ErrorKind::TimedOut);
    // It comes back when it is needed, and goes again.
    assert_eq!(bay.call("idle", "x.ok", json!({})).await.result.unwrap().data, json!(1));
    while !bay.runner.workers().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Calls `tools` one after the other, and gives the process that each ran in.
async fn processes(bay: &Bay, tools: &[&str]) -> Vec<u32> {
    let mut pids = Vec::new();
    for tool in tools {
        let running = async {
            loop {
                let workers = bay.runner.workers();
                if let Some(worker) = workers.iter().find(|worker| worker.tenant.is_some() && worker.calls > 0) {
                    return worker.pid;
                }
                tokio::task::yield_now().await;
            }
        };
        // The call is over after its place was given, so that its process is always seen.
        let (reply, pid) = tokio::join!(bay.call("acme", tool, json!({ "n": 1 })), running);
        drop(reply);
        pids.push(pid);
    }
    pids
}

fn single() -> WorkerConfig {
    WorkerConfig { max_workers_per_tenant: 1, ..config() }
}

#[tokio::test]
async fn a_worker_is_replaced_after_its_number_of_calls() {
    let bay = bay(WorkerConfig { recycle_after: 3, ..single() }).await;
    let pids = processes(&bay, &["x.ok"; 6]).await;
    assert!(pids[0] == pids[1] && pids[1] == pids[2] && pids[2] != pids[3] && pids[3] == pids[5], "{pids:?}");
}

#[tokio::test]
async fn a_worker_is_replaced_when_calls_leave_memory_behind() {
    let code = r#"fn clean(args) { let a = []; for i in 0..1000 { a.push("some text"); } a.len }
        fn leaky(args) { let m = #{}; m.big = blob(90_000, 1); let f = || m; m.f = f; 1 }"#;
    let bay = Bay::new(single(), limits());
    let bay = bay.with("m", "clean leaky", code).await;
    let pids = processes(&bay, &["m.clean"; 12]).await;
    assert!(pids.iter().all(|pid| *pid == pids[0]), "{pids:?}");
    let mut pids = processes(&bay, &["m.leaky"; 16]).await;
    pids.dedup();
    assert!(pids.len() >= 2, "{pids:?}");
}

#[tokio::test]
async fn memory_left_behind_is_seen_beside_calls_that_wait() {
    let code = r#"fn waits(args) { call_tool("m.spin", #{}) } fn spin(args) { loop {} }
        fn leaky(args) { let m = #{}; m.big = blob(90_000, 1); let f = || m; m.f = f; 1 }"#;
    let limits = Limits { max_operations: u64::MAX, timeout: Duration::from_secs(1), ..limits() };
    let bay = Bay::new(single(), limits);
    let bay = bay.with("m", "waits spin leaky", code).await;
    let beside = async {
        while bay.runner.workers().iter().all(|worker| worker.calls < 2) {
            tokio::task::yield_now().await;
        }
        let before = bay.pids();
        for _ in 0..20 {
            assert_eq!(bay.data("m.leaky", json!({})).await, json!(1));
        }
        (before, bay.pids())
    };
    // One that is to be replaced takes no further call, and does not count as its tenant's only one.
    let (waiting, (before, after)) = tokio::join!(bay.call("acme", "m.waits", json!({})), beside);
    assert_eq!(waiting.result.unwrap_err().kind, ErrorKind::TimedOut);
    assert!(after.iter().any(|pid| !before.contains(pid)), "{before:?} {after:?}");
}

#[tokio::test]
async fn a_worker_is_replaced_after_a_limit_tripped() {
    let code = "fn ok(args) { 1 } fn spin(args) { loop {} } fn deep(args) { deep(args) }
        fn grow(args) { let all = []; loop { let s = \"x\"; s.pad(60000, \"y\"); all.push(s); } }";
    let limits = Limits { max_operations: 100_000, max_memory_bytes: 4 << 20, max_string_bytes: 1 << 30, ..limits() };
    let bay = Bay::new(single(), limits).with("t", "ok spin deep grow", code).await;
    for tool in ["t.spin", "t.deep", "t.grow"] {
        let pids = processes(&bay, &["t.ok", tool, "t.ok"]).await;
        assert!(pids[0] == pids[1] && pids[1] != pids[2], "{tool}: {pids:?}");
    }
}

#[tokio::test]
async fn a_worker_is_replaced_after_a_crash() {
    let bay = bay(single()).await;
    assert_eq!(bay.data("x.ok", json!({})).await, json!(1));
    let pid = bay.pid_of("acme").unwrap();
    assert!(std::process::Command::new("kill").args(["-SEGV", &pid.to_string()]).status().unwrap().success());
    let is_noticed = async {
        while bay.pid_of("acme").is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), is_noticed).await.unwrap();
    assert_eq!(bay.data("x.ok", json!({})).await, json!(1));
    assert_ne!(bay.pid_of("acme"), Some(pid));
}

#[tokio::test]
async fn a_storm_of_broken_workers_is_slowed_down_for_its_tenant_only() {
    let bay = bay(WorkerConfig { max_workers_per_tenant: 1, ..config() }).await;
    let began = Instant::now();
    for _ in 0..8 {
        let error = bay.error("x.bomb", json!({})).await;
        assert!(matches!(error.kind, ErrorKind::LimitExceeded { limit: Limit::Memory, .. }), "{error}");
    }
    // Four are free; 10, 20 and 40 ms follow.
    assert!(began.elapsed() >= Duration::from_millis(70), "{:?}", began.elapsed());
    let began = Instant::now();
    assert_eq!(bay.call("calm", "x.ok", json!({})).await.result.unwrap().data, json!(1));
    let calm = began.elapsed();
    assert_eq!(bay.data("x.ok", json!({})).await, json!(1));
    assert!(calm < Duration::from_secs(2), "{calm:?}");
}

#[tokio::test]
async fn calls_that_wait_for_the_host_share_one_process() {
    // Each waits for another tool of a native kind that answers when all have asked.
    let bay = Bay::new(WorkerConfig { max_workers_per_tenant: 1, ..config() }, limits()).with(
        "w",
        "outer inner",
        "fn outer(args) { call_tool(\"w.inner\", args) } fn inner(args) { args.n }",
    );
    let bay = bay.await;
    let calls = (0..20).map(|n| bay.call("acme", "w.outer", json!({ "n": n })));
    for (n, reply) in join_all(calls).await.into_iter().enumerate() {
        assert_eq!(reply.result.unwrap().data, json!(n));
    }
    assert_eq!(bay.runner.workers().iter().filter(|worker| worker.tenant.is_some()).count(), 1);
}

#[tokio::test]
async fn a_tenant_whose_workers_are_all_busy_is_told_so() {
    let config = WorkerConfig { max_workers_per_tenant: 1, calls_per_worker: 1, ..config() };
    let bay = Bay::new(config, spinning());
    bay.toolbay.load_source(Scope::Global, "x.rhai", SPIN_AND_BRIEF).await.unwrap();
    let waiting = async {
        while bay.runner.workers().iter().all(|worker| worker.tenant.is_none() || worker.calls == 0) {
            tokio::task::yield_now().await;
        }
        bay.call("acme", "x.ok", json!({})).await
    };
    let (spinning, waiting) = tokio::join!(bay.call("acme", "x.spin", json!({})), waiting);
    let (first, second) = (spinning.result.unwrap_err(), waiting.result.unwrap_err());
    assert_eq!((first.kind, second.kind), (ErrorKind::TimedOut, ErrorKind::RateLimited), "{second}");
}

#[tokio::test]
async fn a_tenants_own_plugin_is_loaded_by_its_own_worker() {
    let bay = Bay::new(config(), limits());
    bay.load(Scope::tenant("acme").unwrap(), "own", "own", "fn own(args) { 7 }").await;
    let workers = bay.runner.workers();
    assert!(
        workers.iter().all(|worker| worker.tenant.as_ref().is_some_and(|tenant| *tenant == *"acme")),
        "{workers:?}"
    );
    assert_eq!(bay.data("own", json!({})).await, json!(7));
    assert_eq!(bay.runner.workers().len(), 1);
}

#[tokio::test]
async fn missing_isolation_is_named_and_refused_unless_allowed() {
    let without = WorkerConfig { layers: Layers { landlock: true, seccomp: false }, ..config() };
    let error = WorkerRunner::new(without.clone()).expect_err("a layer is missing");
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(error.message.contains("seccomp"), "{error}");
    let bay = bay(WorkerConfig { require_full_isolation: false, ..without }).await;
    assert_eq!(bay.data("x.ok", json!({})).await, json!(1));
    assert_eq!(bay.runner.isolation(), Isolation { seccomp: false, ..Isolation::probe() });
}

#[tokio::test]
async fn a_program_that_is_no_worker_is_an_error_and_no_hang() {
    let program = toolbay_worker::WorkerProgram::Path("/bin/true".into());
    let bay = Bay::new(WorkerConfig { program, ..config() }, limits());
    let source = crate::support::script("x", "ok", "fn ok(args) { 1 }");
    let error = bay.toolbay.load_source(Scope::Global, "x.rhai", &source).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
}
