//! Both tiers of the sandbox, one against the other: whatever a hostile program does, it comes to the same end in process
//! and in a worker process. `parity.rs` of toolbay-worker does the same with plain programs, word for word.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use toolbay::{
    ErrorKind, Limits, LoadError, RhaiRunner, Scope, Toolbay,
    worker::{WorkerConfig, WorkerProgram, WorkerRunner},
};
use toolbay_tests::hostile::corpus;

use crate::support::toolbay_command;

/// Few operations on small values, and much time: what would go on for ever ends by a count, which both tiers keep, and
/// not by the clock, of which a busy machine gives one more than the other.
fn limits() -> Limits {
    Limits {
        max_operations: 10_000,
        max_memory_bytes: 4 << 20,
        max_string_bytes: 32 << 10,
        max_array_len: 4_000,
        max_map_len: 2_000,
        timeout: Duration::from_secs(30),
        ..Limits::default()
    }
}

fn kind_of(kind: ErrorKind) -> String {
    match kind {
        // How far over it the program was found is a matter of the tier.
        ErrorKind::LimitExceeded { limit, .. } => {
            format!("LimitExceeded:{}", json!(limit).as_str().unwrap_or_default())
        }
        kind => kind.name().to_owned(),
    }
}

/// What becomes of one program, as a tenant of its own, so that nothing that one did is held against the next.
async fn outcome(bay: &Toolbay, tenant: &str, source: &str) -> Value {
    let loaded: Result<_, LoadError> =
        bay.load_program(Scope::tenant(tenant).expect("a tenant"), "program.rhai", source).await;
    match loaded {
        Err(error) => json!({ "does not load": kind_of(error.kind) }),
        Ok(plugin) => {
            let reply = bay.session(tenant).expect("a tenant").call("code", json!({})).await;
            bay.unregister(&Scope::tenant(tenant).expect("a tenant"), &plugin).await.expect("it is there");
            match reply.result {
                Ok(output) => json!({ "ok": output.data }),
                Err(error) => json!({ "error": kind_of(error.kind) }),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_hostile_program_ends_alike_in_both_tiers() {
    let workers = WorkerRunner::new(WorkerConfig {
        program: WorkerProgram::Path(toolbay_command()),
        max_workers_per_tenant: 1,
        ..WorkerConfig::default()
    })
    .expect("workers");
    let builder = || Toolbay::builder().limits(limits()).without_audit();
    let near = builder().runner(RhaiRunner::default()).build().expect("a host");
    let far = builder().runner(workers).build().expect("a host");
    let mut different = Vec::new();
    let began = Instant::now();
    for (index, program) in corpus().iter().enumerate() {
        let Ok(source) = std::str::from_utf8(&program.source) else { continue };
        let tenant = format!("tenant-{}", index / 8);
        let t = Instant::now();
        let (a, b) = tokio::join!(outcome(&near, &tenant, source), outcome(&far, &tenant, source));
        println!("T {:6} {}", t.elapsed().as_millis(), program.title());
        if a != b {
            different.push(format!("{}: {a:.300} in process, {b:.300} in a worker", program.title()));
        }
    }
    println!("{:?}", began.elapsed());
    assert!(different.is_empty(), "{}", different.join("\n"));
}
