//! What plugins cost that nobody calls, what a waiting call holds, and how calls scale over threads; prints tables.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    unsafe_code,
    reason = "a benchmark that cannot begin has nothing to measure; the allocator trait is unsafe"
)]

use std::{
    alloc::{GlobalAlloc, Layout},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicIsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use toolbay::{Limits, Quota, RhaiRunner, Scope, Toolbay, rhai::MeteredAllocator};

/// Counts the bytes of the whole process on top of those of calls.
struct Counting;

static LIVE: AtomicIsize = AtomicIsize::new(0);

/// Threads that count in one place hold each other up, so this is off where they are measured.
static COUNTS: AtomicBool = AtomicBool::new(true);

fn count(bytes: usize, sign: isize) {
    if COUNTS.load(Ordering::Relaxed) {
        LIVE.fetch_add(sign * bytes as isize, Ordering::Relaxed);
    }
}

// SAFETY: every method hands its arguments on unchanged and returns what that returned.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's promises are those that are asked for.
        unsafe { MeteredAllocator.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: as above.
        unsafe { MeteredAllocator.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn source(number: usize) -> String {
    format!(
        r#"const PLUGIN = #{{ name: "small-{number}", version: "1.0.0", description: "Adds", author: "x",
    tools: #{{ add: #{{ description: "Adds {number}", parameters: #{{ type: "object",
        properties: #{{ n: #{{ type: "number" }} }}, required: ["n"] }} }} }} }};
    fn add(args) {{ args.n + {number} }}"#
    )
}

const WORK: &str = r#"const PLUGIN = #{ name: "work", version: "1.0.0", description: "Works", author: "x",
    tools: #{ sum: #{ description: "Works", parameters: #{ type: "object" } }, none: #{ description: "Ends", parameters: #{ type: "object" } } } };
    fn sum(args) { let sum = 0; for i in 0..1000 { if i % 3 == 0 { sum += i * 2; } } sum }
    fn none(args) { 42 }"#;

fn main() {
    let is_real = std::env::args().any(|argument| argument == "--bench");
    let (plugins, span) = if is_real { (2_000, Duration::from_secs(2)) } else { (10, Duration::from_millis(5)) };
    hold(plugins);
    scale(span);
}

fn builder() -> toolbay::ToolbayBuilder {
    let quota = Quota { max_concurrent_calls: 100_000, max_calls_per_minute: u32::MAX };
    Toolbay::builder().runner(RhaiRunner::default()).limits(Limits::default()).quota(quota).without_audit()
}

/// Loads different small plugins, each for one of a hundred tenants.
fn hold(plugins: usize) {
    let bay = builder().build().expect("a sound host");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let load = |range: std::ops::Range<usize>| {
        runtime.block_on(async {
            for number in range {
                let scope = Scope::tenant(format!("tenant-{}", number % 100)).expect("a name");
                bay.load_source(scope, &format!("small-{number}.rhai"), &source(number)).await.expect("a sound plugin");
            }
        });
    };
    load(0..100);
    let (before, began) = (LIVE.load(Ordering::Relaxed), Instant::now());
    load(100..100 + plugins);
    let (bytes, took) = (LIVE.load(Ordering::Relaxed) - before, began.elapsed());
    println!("| {plugins} small plugins, 100 tenants | each |\n| --- | --- |");
    println!("| source to registered | {:.1} µs |", took.as_secs_f64() * 1e6 / plugins as f64);
    println!("| memory | {:.1} KB |\n", bytes as f64 / 1e3 / plugins as f64);
}

/// Calls per second on one thread and on two, with one host for both and with one for each.
fn scale(span: Duration) {
    COUNTS.store(false, Ordering::Relaxed);
    println!("| calls/s | 1 thread | 2 threads, one host | ratio | 2 threads, a host each | ratio |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for tool in ["work.none", "work.sum"] {
        let (one, shared, apart) = (rate(tool, 1, true, span), rate(tool, 2, true, span), rate(tool, 2, false, span));
        println!("| `{tool}` | {one:.0} | {shared:.0} | {:.2} | {apart:.0} | {:.2} |", shared / one, apart / one);
    }
}

fn rate(tool: &str, threads: usize, is_shared: bool, span: Duration) -> f64 {
    let make = || {
        let bay = builder().build().expect("a sound host");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(bay.load_source(Scope::Global, "work.rhai", WORK)).expect("a sound plugin");
        Arc::new(bay)
    };
    let first = make();
    let hosts: Vec<Arc<Toolbay>> = (0..threads).map(|_| if is_shared { Arc::clone(&first) } else { make() }).collect();
    let workers: Vec<_> = hosts
        .into_iter()
        .enumerate()
        .map(|(number, bay)| {
            let tool = tool.to_owned();
            thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
                let session = bay.session(&*format!("tenant-{number}")).expect("a session");
                runtime.block_on(async {
                    let (began, mut calls) = (Instant::now(), 0_u64);
                    while began.elapsed() < span {
                        session.call(&tool, json!({})).await.result.expect("a result");
                        calls += 1;
                    }
                    calls as f64 / began.elapsed().as_secs_f64()
                })
            })
        })
        .collect();
    workers.into_iter().map(|worker| worker.join().expect("a worker")).sum()
}
