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
use toolbay::{CodeLoading, Limits, Loading, Quota, ReloadOptions, RhaiRunner, Scope, Toolbay, rhai::MeteredAllocator};

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
    from_disk(plugins * 5, CodeLoading::AtOnce);
    from_disk(plugins * 5, CodeLoading::AtFirstUse);
    tenants(plugins * 50, plugins / 2);
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

/// Loads a folder of different one-file plugins for everybody, as a host does when it starts.
fn from_disk(plugins: usize, code: CodeLoading) {
    let folder = std::env::temp_dir().join(format!("toolbay-hold-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    for number in 0..plugins {
        std::fs::write(folder.join(format!("small-{number}.rhai")), source(number)).expect("a file");
    }
    let loading = Loading { code, ..Loading::default() };
    let bay = builder().loading(loading).build().expect("a sound host");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (before, began) = (LIVE.load(Ordering::Relaxed), Instant::now());
    let report = runtime.block_on(bay.load_folder(Scope::Global, &folder));
    let took = began.elapsed();
    assert_eq!(report.loaded.len(), plugins, "every plugin loads");
    drop(report);
    let bytes = LIVE.load(Ordering::Relaxed) - before;
    let session = bay.session("acme").expect("a name");
    let began = Instant::now();
    let reply = runtime.block_on(session.call("small-7.add", json!({ "n": 1 })));
    assert_eq!(reply.result.expect("a result").data, json!(8), "the code is that of the file");
    let first = began.elapsed();
    let began = Instant::now();
    let report = runtime.block_on(bay.sync(Scope::Global, &folder, ReloadOptions::default()));
    assert_eq!(report.unchanged, plugins, "none changed");
    let looked = began.elapsed();
    std::fs::remove_dir_all(&folder).expect("our own folder");
    println!("| {plugins} one-file plugins in a folder, code {code:?} | |\n| --- | --- |");
    println!("| loaded in | {:.2} s |", took.as_secs_f64());
    println!("| memory | {:.0} MB |", bytes as f64 / 1e6);
    println!("| first call of one | {:.2} ms |", first.as_secs_f64() * 1e3);
    println!("| looked through without a change in | {:.2} s |\n", looked.as_secs_f64());
}

/// Opens a session and makes a call for each of many tenants, of whom some have a plugin of their own.
fn tenants(tenants: usize, with_own: usize) {
    let bay = builder().build().expect("a sound host");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        bay.load_source(Scope::Global, "work.rhai", WORK).await.expect("a sound plugin");
        let before = LIVE.load(Ordering::Relaxed);
        for number in 0..with_own {
            let scope = Scope::tenant(format!("tenant-{number}")).expect("a name");
            bay.load_source(scope, "small.rhai", &source(number)).await.expect("a sound plugin");
        }
        let own = LIVE.load(Ordering::Relaxed) - before;
        let mut sessions = Vec::new();
        for number in 0..tenants {
            let session = bay.session(format!("tenant-{number}")).expect("a name");
            session.call("work.none", json!({})).await.result.expect("a result");
            sessions.push(session);
        }
        let all = LIVE.load(Ordering::Relaxed) - before;
        println!("| {tenants} tenants, {with_own} with a plugin of their own | over the base |\n| --- | --- |");
        println!("| the plugins | {:.1} MB |", own as f64 / 1e6);
        println!("| all, each tenant with a session that was used and is kept open | {:.1} MB |\n", all as f64 / 1e6);
    });
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
