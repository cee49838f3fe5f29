//! Workers that are not ours: this program, started as a worker, sends what no worker sends. The host must end it, tell
//! its calls clearly, and stay well; so must the worker of another tenant, which is ours.
//!
//! Without a harness, since the worker is this very program. Which attack it makes comes in the one number that a host
//! hands down to its workers: the bytes that packaged files may take. Whether it makes it at all says a file, which is
//! there while the hostile one starts.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a test, which the lints know only by its harness"
)]

use std::{
    fs,
    io::{Read, Write},
    os::{fd::FromRawFd, unix::net::UnixStream},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use toolbay_api::{ErrorKind, Limits, LoadError, Package, PermissionSet, PluginContext, Runner, Scope, TenantId};
use toolbay_runtime::Toolbay;
use toolbay_worker::{WorkerConfig, WorkerRunner};

#[global_allocator]
static ALLOCATOR: toolbay_worker::CappedAlloc = toolbay_worker::CappedAlloc;

type Attack = (&'static str, fn(&mut UnixStream), fn(&LoadError));

const READY: [u8; 5] = [65, 1, 1, 1, 1];

const ATTACKS: [Attack; 21] = [
    ("an unknown frame", |host| send(host, &[200, 1, 2, 3]), is_unavailable),
    ("a frame of four gigabytes", |host| raw(host, &[255, 255, 255, 255]), is_unavailable),
    ("an empty frame", |host| send(host, &[]), is_unavailable),
    ("a second greeting", |host| send(host, &READY), is_unavailable),
    ("the end of a call that there is not", |host| send(host, &done(99, b"1")), is_unavailable),
    (
        "the end of its call and of the next",
        |host| raw(host, &twice(&loaded(1, MANIFEST, &[]), &done(2, b"1"))),
        is_unavailable,
    ),
    (
        "the end of its call, twice",
        |host| raw(host, &twice(&loaded(1, MANIFEST, &[]), &loaded(1, MANIFEST, &[]))),
        is_unavailable,
    ),
    (
        "a request of a call that there is not",
        |host| send(host, &[&[66], &99_u64.to_le_bytes()[..], &[5]].concat()),
        is_unavailable,
    ),
    ("a host's frame", |host| send(host, &[&[5], &1_u64.to_le_bytes()[..], &[0]].concat()), is_unavailable),
    (
        "the end of its call with more behind it",
        |host| send(host, &[&done(1, b"1")[..], &[0]].concat()),
        is_unavailable,
    ),
    ("a request while loading", |host| send(host, &[&[66], &1_u64.to_le_bytes()[..], &[3]].concat()), is_unavailable),
    ("a value nested 10,000 deep", |host| send(host, &done(1, "[".repeat(10_000).as_bytes())), is_unavailable),
    ("a value nested 100 deep", |host| send(host, &done(1, nested(100).as_bytes())), is_unavailable),
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
        "a manifest that is none, and the end of a call that there is not",
        |host| raw(host, &twice(&loaded(1, b"{\"name\":\"x\"}", &[]), &done(9, b"1"))),
        |error| {
            assert_eq!(error.kind, ErrorKind::Config, "{error}");
        },
    ),
    ("a callback that there is not", |host| send(host, &loaded(1, MANIFEST, &["on_fire"])), is_unavailable),
    ("more callbacks than there are", |host| send(host, &loaded(1, MANIFEST, &["on_load"; 8])), is_unavailable),
    (
        "a value in the place of a plugin, and the end of a call that there is not",
        |host| raw(host, &twice(&done(1, MANIFEST), &done(9, b"1"))),
        |error| assert_eq!(error.kind, ErrorKind::Internal, "{error}"),
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

/// Two frames in one piece.
fn twice(first: &[u8], second: &[u8]) -> Vec<u8> {
    let frame =
        |content: &[u8]| [&u32::try_from(content.len()).expect("a short frame").to_le_bytes()[..], content].concat();
    [frame(first), frame(second)].concat()
}

fn nested(levels: usize) -> String {
    format!("{}{}", "[".repeat(levels), "]".repeat(levels))
}

/// The frame that ends a call with this JSON.
fn done(call: u64, json: &[u8]) -> Vec<u8> {
    let length = u32::try_from(json.len()).expect("a short text").to_le_bytes();
    [&[67], &call.to_le_bytes()[..], &[0; 32], &[0], &length, json].concat()
}

/// The frame that ends a load with this manifest and these callbacks.
fn loaded(call: u64, manifest: &[u8], callbacks: &[&str]) -> Vec<u8> {
    let mut frame = done(call, manifest);
    // Behind tag, call and the four figures of what was used.
    frame[41] = 4;
    frame.push(u8::try_from(callbacks.len()).expect("a few"));
    for callback in callbacks {
        frame.extend(u32::try_from(callback.len()).expect("a name").to_le_bytes());
        frame.extend(callback.as_bytes());
    }
    frame
}

#[allow(unsafe_code, reason = "a worker's socket is its standard input")]
fn be_hostile(attack: usize) -> ! {
    // SAFETY: the host put its socket there, and nothing else uses it.
    let mut host = unsafe { UnixStream::from_raw_fd(0) };
    send(&mut host, &READY);
    // The attack begins when the host has asked for something.
    let mut length = [0; 4];
    host.read_exact(&mut length).expect("the host listens");
    match ATTACKS.get(attack) {
        Some((_, attack, _)) => attack(&mut host),
        None => answer_too_much(&mut host, length),
    }
    loop {
        std::thread::park();
    }
}

/// While this file is there, workers that start are hostile. Named by the host's process, their parent.
fn signal_file(host: u32) -> PathBuf {
    format!("/dev/shm/toolbay-hostile-{host}").into()
}

/// What a plugin of one tool is loaded from.
const SOURCE: &str =
    "const PLUGIN = #{ name: \"x\", version: \"1.0.0\", description: \"d\", tools: #{ x: #{ description: \"d\" } } };
    fn x(args) { let s = 0; for i in 0..20_000 { s += i } s }";
/// And as a worker gives it.
const MANIFEST: &[u8] =
    br#"{"name":"x","version":"1.0.0","description":"d","author":"a","tools":{"x":{"description":"d"}}}"#;

async fn survives(attack: usize) {
    let (name, _, check) = ATTACKS[attack];
    let config = WorkerConfig {
        // Eight times this is what a worker is told.
        max_asset_bytes: attack as u64 + 1,
        spare_workers: 0,
        ..WorkerConfig::default()
    };
    let runner = WorkerRunner::new(config).expect("workers");
    let toolbay = Toolbay::builder().runner(runner.clone()).build().expect("a host");
    let calm = Scope::tenant("calm").expect("a tenant");
    toolbay.load_source(calm, "x.rhai", SOURCE).await.expect("an honest worker");
    let session = toolbay.session("calm").expect("a tenant");
    let honest = runner.workers()[0].pid;

    let file = signal_file(std::process::id());
    fs::write(&file, "").expect("a signal");
    let cx = PluginContext {
        scope: Scope::tenant("hit").expect("a tenant"),
        limits: Limits::default(),
        grants: Arc::new(PermissionSet::default()),
    };
    let began = Instant::now();
    // Calls of the other tenant are under way before, while and after the attack happens.
    let beside = async {
        for _ in 0..10 {
            let reply = session.call("x", json!({})).await;
            assert_eq!(reply.result.expect("an answer").data, json!(199_990_000));
        }
    };
    let package = Package::one_file("x.rhai", SOURCE);
    let (loaded, ()) = tokio::join!(runner.load(&package, &cx), beside);
    match loaded {
        Err(error) => {
            check(&error);
            println!("{name}: {error}");
        }
        // Its own call it ended as it should; what it sent after that is what it dies of.
        Ok(_) => assert!(name.starts_with("the end of its call"), "{name}"),
    }
    fs::remove_file(&file).expect("the signal");
    while runner.workers().iter().any(|worker| worker.pid != honest) {
        tokio::task::yield_now().await;
    }
    assert!(began.elapsed() < Duration::from_secs(4), "{name}: found out too late");
    assert_eq!(runner.workers().iter().map(|worker| worker.pid).collect::<Vec<_>>(), [honest], "{name}");
    // The tenant that was hit has an honest worker next.
    runner.load(&package, &cx).await.expect("an honest worker");
}

/// An answer as long as a frame may be, and longer than the call may give.
async fn an_answer_over_the_limit_is_not_read() {
    let config =
        WorkerConfig { max_asset_bytes: ATTACKS.len() as u64 + 1, spare_workers: 0, ..WorkerConfig::default() };
    let runner = WorkerRunner::new(config).expect("workers");
    let file = signal_file(std::process::id());
    fs::write(&file, "").expect("a signal");
    let toolbay = Toolbay::builder().runner(runner).build().expect("a host");
    toolbay.load_source(Scope::tenant("hit").expect("a tenant"), "x.rhai", SOURCE).await.expect("it begins well");
    let reply = toolbay.session("hit").expect("a tenant").call("x", json!({})).await;
    fs::remove_file(&file).expect("the signal");
    let error = reply.result.expect_err("too long");
    assert_eq!((error.kind, error.retryable), (ErrorKind::Unavailable, true), "{error}");
}

/// Plays along while loading, and answers the first call with a million zeros.
fn answer_too_much(host: &mut UnixStream, mut length: [u8; 4]) {
    let content = |host: &mut UnixStream, length: [u8; 4]| {
        let mut content = vec![0; u32::from_le_bytes(length) as usize];
        host.read_exact(&mut content).expect("the rest of a frame");
    };
    content(host, length);
    send(host, &loaded(1, MANIFEST, &[]));
    host.read_exact(&mut length).expect("a call");
    content(host, length);
    send(host, &done(2, format!("[{}0]", "0,".repeat(900_000)).as_bytes()));
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
        // Whatever the host has in its environment, a worker has nothing of it.
        assert_eq!(std::env::vars_os().count(), 0);
        if signal_file(std::os::unix::process::parent_id()).exists() {
            be_hostile(arguments[4].parse::<usize>().expect("a number") / 8 - 1);
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
    runtime.block_on(an_answer_over_the_limit_is_not_read());
    runtime.block_on(is_its_own_worker());
}
