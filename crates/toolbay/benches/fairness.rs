//! How a tenant's small calls fare beside another tenant's endless loops, on fibers and, as the baseline in the same run,
//! on `spawn_blocking` with a bare Rhai engine. Two worker threads; prints a table.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot begin has nothing to measure"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use toolbay::{Limits, Quota, Scope};

const HOSTILE: usize = 8;
const CALLS: usize = 1_000;

const LOOP: &str = r#"const PLUGIN = #{ name: "spin", version: "1.0.0", description: "Never ends", author: "x",
    tools: #{ spin: #{ description: "Never ends", parameters: #{ type: "object" } } } };
    fn spin(args) { let n = 0; loop { n += 1; } }"#;
const SMALL: &str = r#"const PLUGIN = #{ name: "small", version: "1.0.0", description: "Ends at once", author: "x",
    tools: #{ small: #{ description: "Ends at once", parameters: #{ type: "object" } } } };
    fn small(args) { 40 + 2 }"#;

#[global_allocator]
static ALLOCATOR: toolbay::rhai::MeteredAllocator = toolbay::rhai::MeteredAllocator;

fn main() {
    // `cargo test` runs benches too, to see that they work; there is nothing to learn from their figures then.
    let calls = if std::env::args().any(|argument| argument == "--bench") { CALLS } else { 10 };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // As many as cores: with more, the baseline would only trade latency for memory and switches.
        .max_blocking_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    println!("{calls} calls that end at once beside {HOSTILE} endless loops of another tenant, 2 threads\n");
    println!("| | median | p99 | longest |\n| --- | --- | --- | --- |");
    for hostile in [0, HOSTILE] {
        let times = runtime.block_on(fibers(hostile, calls));
        row(&format!("toolbay, {hostile} loops"), times);
    }
    let times = runtime.block_on(blocking(HOSTILE, calls.min(100)));
    row(&format!("spawn_blocking, {HOSTILE} loops of 50 ms"), times);
}

fn row(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("| {what} | {:?} | {:?} | {:?} |", at(0.5), at(0.99), at(1.0));
}

/// On fibers, through the whole road.
async fn fibers(hostile: usize, calls: usize) -> Vec<Duration> {
    let limits = Limits { timeout: Duration::from_secs(60), max_operations: u64::MAX, ..Limits::default() };
    let quota = Quota { max_concurrent_calls: 64, max_calls_per_minute: u32::MAX };
    let bay = toolbay::builder().limits(limits).quota(quota).build().expect("a host");
    bay.load_source(Scope::Global, "spin.rhai", LOOP).await.expect("sound");
    bay.load_source(Scope::Global, "small.rhai", SMALL).await.expect("sound");
    let session = bay.session("hostile").expect("a tenant");
    let loops: Vec<_> = (0..hostile)
        .map(|_| {
            let session = session.clone();
            tokio::spawn(async move { session.call("spin", json!({})).await })
        })
        .collect();
    while session.calls_in_flight() < hostile {
        tokio::task::yield_now().await;
    }
    let quiet = bay.session("quiet").expect("a tenant");
    let mut times = Vec::new();
    for _ in 0..calls {
        let quiet = quiet.clone();
        let begun = Instant::now();
        // A task of its own, as a request to a server would be.
        tokio::spawn(async move { quiet.call("small", json!({})).await.result.expect("it ends") })
            .await
            .expect("it does not panic");
        times.push(begun.elapsed());
    }
    loops.iter().for_each(|task| task.abort());
    for task in loops {
        let _ = task.await;
    }
    times
}

/// On blocking threads, with a deadline in the progress callback: what one would write without fibers. The loops begin
/// anew when their 50 ms are over, as a hostile tenant's would.
async fn blocking(hostile: usize, calls: usize) -> Vec<Duration> {
    let ended = Arc::new(AtomicBool::new(false));
    let run = |source: &'static str, time: Duration| {
        let deadline = Instant::now() + time;
        let mut engine = rhai::Engine::new();
        engine.on_progress(move |_| (Instant::now() > deadline).then_some(rhai::Dynamic::UNIT));
        let _ = engine.eval::<i64>(source);
    };
    let loops: Vec<_> = (0..hostile)
        .map(|_| {
            let ended = Arc::clone(&ended);
            tokio::spawn(async move {
                while !ended.load(Ordering::Relaxed) {
                    let loop_once = move || run("loop {}", Duration::from_millis(50));
                    tokio::task::spawn_blocking(loop_once).await.expect("it does not panic");
                }
            })
        })
        .collect();
    tokio::task::yield_now().await;
    let mut times = Vec::new();
    for _ in 0..calls {
        let begun = Instant::now();
        tokio::task::spawn_blocking(move || run("40 + 2", Duration::from_secs(60))).await.expect("it does not panic");
        times.push(begun.elapsed());
    }
    ended.store(true, Ordering::Relaxed);
    for task in loops {
        let _ = task.await;
    }
    times
}
