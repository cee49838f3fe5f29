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
    let limits = Limits { max_string_bytes: 1 << 30, max_memory_bytes: 8 << 20, max_operations: u64::MAX, ..limits() };
    Bay::new(config, limits).with("x", "spin ok bomb", CODE).await
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
async fn a_worker_is_replaced_after_its_number_of_calls() {
    let bay = bay(WorkerConfig { recycle_after: 3, max_workers_per_tenant: 1, ..config() }).await;
    let mut pids = Vec::new();
    for _ in 0..6 {
        assert_eq!(bay.data("x.ok", json!({})).await, json!(1));
        pids.extend(bay.runner.workers().iter().filter(|worker| worker.tenant.is_some()).map(|worker| worker.pid));
    }
    pids.dedup();
    assert!(pids.len() >= 2, "{pids:?}");
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
    let limits = Limits { max_operations: u64::MAX, timeout: Duration::from_secs(3), ..Limits::default() };
    let bay = Bay::new(config, limits);
    // The second call's time is over before the first one's.
    let source = "const PLUGIN = #{ name: \"x\", version: \"1.0.0\", description: \"d\", tools: #{
        spin: #{ description: \"d\" }, ok: #{ description: \"d\", timeout_ms: 500 } } };
        fn spin(args) { loop {} } fn ok(args) { 1 }";
    bay.toolbay.load_source(Scope::Global, "x.rhai", source).await.unwrap();
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
