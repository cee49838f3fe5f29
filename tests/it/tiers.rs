//! Both tiers of the sandbox, one against the other: whatever a hostile program does, it comes to the same end in process
//! and in a worker process. `parity.rs` of toolbay-worker does the same with plain programs, word for word.

use std::time::Duration;

use serde_json::{Value, json};
use toolbay::{
    ErrorKind, Limits, RhaiRunner, Runner, Scope, Toolbay,
    worker::{WorkerConfig, WorkerProgram, WorkerRunner},
};
use toolbay_tests::hostile::corpus;

use crate::support::toolbay_command;

/// What takes so long, mostly to compile, that the clock ends it, or does not, as the machine has time: with little time
/// each tier ends it as too late, or as the other does.
const BY_TIME: &[&str] = &[
    "cpu/hash_deep_value",
    "cpu/unknown_functions_of_several_arguments",
    "parse/many_captures",
    "parse/many_constants",
    "parse/many_exports",
    "parse/many_lets",
    "parse/many_lets_and_uses",
    "parse/many_parameters",
];

/// Few operations on small values, and much time: what would go on for ever ends by a count, which both tiers keep, and
/// not by the clock, of which a busy machine gives one more than the other. The memory is the default one: a worker counts
/// what compiling takes, too, and the host's process does not, so a cap that is small for a source tells them apart.
fn limits(timeout: Duration) -> Limits {
    Limits {
        max_operations: 5_000,
        max_string_bytes: 32 << 10,
        max_array_len: 4_000,
        max_map_len: 2_000,
        timeout,
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

fn host(runner: impl Runner + 'static, timeout: Duration) -> Toolbay {
    Toolbay::builder().runner(runner).limits(limits(timeout)).without_audit().build().expect("a host")
}

/// The value of one program, or the kind of its error.
async fn end(bay: &Toolbay, tenant: &str, source: &str) -> Value {
    let scope = Scope::tenant(tenant).expect("a tenant");
    let plugin = match bay.load_program(scope.clone(), "program.rhai", source).await {
        Err(error) => return json!({ "does not load": kind_of(error.kind) }),
        Ok(plugin) => plugin,
    };
    let reply = bay.session(tenant).expect("a tenant").call("code", json!({})).await;
    bay.unregister(&scope, &plugin).await.expect("it is there");
    match reply.result {
        Ok(output) => json!({ "ok": output.data }),
        Err(error) => json!({ "fails": kind_of(error.kind) }),
    }
}

fn is_late(end: &Value) -> bool {
    ["fails", "does not load"].iter().any(|how| end[how] == "TimedOut")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_hostile_program_ends_alike_in_both_tiers() {
    let program = WorkerProgram::Path(toolbay_command());
    let workers = WorkerRunner::new(WorkerConfig { program, ..WorkerConfig::default() }).expect("workers");
    let tiers = |timeout| (host(RhaiRunner::default(), timeout), host(workers.clone(), timeout));
    let (patient, hasty) = (tiers(Duration::from_secs(60)), tiers(Duration::from_millis(200)));
    let (mut different, mut compared) = (Vec::new(), 0);
    for (index, program) in corpus().iter().enumerate() {
        // What is no text is no program: it is refused before any tier has it.
        let Ok(source) = std::str::from_utf8(&program.source) else { continue };
        let title = program.title();
        let is_by_time = BY_TIME.contains(&&*title);
        let (near, far) = if is_by_time { &hasty } else { &patient };
        // A tenant for a few of them: the one that broke many workers would have to wait for the next.
        let tenant = format!("tenant-{}", index / 8);
        let (near, far) = tokio::join!(end(near, &tenant, source), end(far, &tenant, source));
        let is_alike = near == far || (is_by_time && (is_late(&near) || is_late(&far)));
        if !is_alike {
            different.push(format!("{title}: {near:.300} in process, {far:.300} in a worker"));
        }
        compared += 1;
    }
    assert!(different.is_empty(), "{} of {compared}:\n{}", different.len(), different.join("\n"));
    assert!(compared > 600, "{compared}");
}
