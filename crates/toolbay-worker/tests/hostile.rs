//! Workers that are not ours: this program, started as a worker, sends what no worker sends. The host must end it, tell
//! its calls clearly, and stay well.
//!
//! Without a harness, since the worker is this very program. Which attack it makes comes in the one number that a host
//! hands down to its workers: the bytes that packaged files may take.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a test, which the lints know only by its harness"
)]

use std::{
    io::{Read, Write},
    os::{fd::FromRawFd, unix::net::UnixStream},
    sync::Arc,
    time::{Duration, Instant},
};

use toolbay_api::{ErrorKind, Limits, LoadError, Package, PermissionSet, PluginContext, Runner, Scope, TenantId};
use toolbay_worker::{WorkerConfig, WorkerRunner};

#[global_allocator]
static ALLOCATOR: toolbay_worker::CappedAlloc = toolbay_worker::CappedAlloc;

type Attack = (&'static str, fn(&mut UnixStream), fn(&LoadError));

const READY: [u8; 5] = [65, 1, 1, 1, 1];

const ATTACKS: [Attack; 12] = [
    ("an unknown frame", |host| send(host, &[200, 1, 2, 3]), is_unavailable),
    ("a frame of four gigabytes", |host| raw(host, &[255, 255, 255, 255]), is_unavailable),
    ("an empty frame", |host| send(host, &[]), is_unavailable),
    ("a second greeting", |host| send(host, &READY), is_unavailable),
    ("the end of a call that there is not", |host| send(host, &done(99, b"1")), is_unavailable),
    ("a request while loading", |host| send(host, &[&[66], &1_u64.to_le_bytes()[..], &[3]].concat()), is_unavailable),
    ("a value nested 10,000 deep", |host| send(host, &done(1, "[".repeat(10_000).as_bytes())), is_unavailable),
    ("a text that is no JSON", |host| send(host, &done(1, b"{\"a\":")), is_unavailable),
    ("a length that lies", |host| send(host, &[&done(1, b"")[..41], &[0, 255, 255, 0, 0]].concat()), is_unavailable),
    (
        "a flood of noise",
        |host| {
            let noise = [170_u8; 1 << 16];
            while host.write_all(&noise).is_ok() {}
        },
        is_unavailable,
    ),
    (
        "a manifest that is none",
        |host| send(host, &done(1, b"{\"name\":\"x\"}")),
        |error| {
            assert_eq!(error.kind, ErrorKind::Config, "{error}");
        },
    ),
    ("silence", |_| std::process::exit(3), |error| assert_eq!(error.kind, ErrorKind::Panic, "{error}")),
];

fn is_unavailable(error: &LoadError) {
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");
}

fn raw(host: &mut UnixStream, bytes: &[u8]) {
    host.write_all(bytes).expect("the host listens");
}

fn send(host: &mut UnixStream, content: &[u8]) {
    raw(host, &u32::try_from(content.len()).expect("a short frame").to_le_bytes());
    raw(host, content);
}

/// The frame that ends a call with this JSON.
fn done(call: u64, json: &[u8]) -> Vec<u8> {
    let length = u32::try_from(json.len()).expect("a short text").to_le_bytes();
    [&[67], &call.to_le_bytes()[..], &[0; 32], &[0], &length, json].concat()
}

#[allow(unsafe_code, reason = "a worker's socket is its standard input")]
fn be_hostile(attack: usize) -> ! {
    // SAFETY: the host put its socket there, and nothing else uses it.
    let mut host = unsafe { UnixStream::from_raw_fd(0) };
    send(&mut host, &READY);
    // The attack begins when the host has asked for something.
    let _ = host.read(&mut [0; 1]);
    ATTACKS[attack].1(&mut host);
    loop {
        std::thread::park();
    }
}

async fn survives(attack: usize) {
    let (name, _, check) = ATTACKS[attack];
    let config = WorkerConfig {
        // Eight times this is what a worker is told.
        max_asset_bytes: attack as u64 + 1,
        spare_workers: 0,
        ..WorkerConfig::default()
    };
    let runner = WorkerRunner::new(config).expect("workers");
    let cx = PluginContext {
        scope: Scope::Tenant(TenantId::default()),
        limits: Limits::default(),
        grants: Arc::new(PermissionSet::default()),
    };
    let began = Instant::now();
    let error = runner.load(&Package::one_file("x.rhai", "fn x() {}"), &cx).await.err().expect(name);
    check(&error);
    assert!(began.elapsed() < Duration::from_secs(4), "{name}: found out too late");
    println!("{name}: {error}");
}

/// The same program as an honest worker: what an embedder's `main` begins with.
async fn is_its_own_worker() {
    let runner = WorkerRunner::new(WorkerConfig::default()).expect("workers");
    let cx = PluginContext {
        scope: Scope::Tenant(TenantId::default()),
        limits: Limits::default(),
        grants: Arc::new(PermissionSet::default()),
    };
    let source = "const PLUGIN = #{ name: \"x\", version: \"1.0.0\", description: \"d\", tools: #{ x: #{ description: \"d\" } } };
        fn x(args) { 1 }";
    let plugin = runner.load(&Package::one_file("x.rhai", source), &cx).await.expect("a plugin");
    assert_eq!(plugin.tools().len(), 1);
    assert!(runner.isolation().is_full(), "{:?}", runner.isolation());
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|first| first == "--toolbay-worker-process") {
        let attack = arguments[4].parse::<usize>().expect("a number") / 8 - 1;
        if attack < ATTACKS.len() {
            be_hostile(attack);
        }
    }
    toolbay_worker::run_if_worker();
    // A test runner asks what there is before it runs it, and again for what is to be passed over.
    if arguments.iter().any(|argument| argument == "--list") {
        if !arguments.iter().any(|argument| argument == "--ignored") {
            println!("every_hostile_worker_is_survived: test");
        }
        return;
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for attack in 0..ATTACKS.len() {
        runtime.block_on(survives(attack));
    }
    runtime.block_on(is_its_own_worker());
}
