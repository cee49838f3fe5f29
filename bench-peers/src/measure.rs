//! The three measurements. Each is done for one peer in a process of its own, so that no peer inherits the memory or
//! the allocator's state of another.

use std::{
    fs,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{runtime, task::JoinSet};

use crate::{
    peer::{Entry, Fallible, Peer},
    workload::{self, HELD, Tool},
};

/// Calls that are in flight while the peers wait.
pub const IN_FLIGHT: usize = 10_000;

/// Plugins that are loaded.
pub const PLUGINS: usize = 10_000;

/// How long a batch of calls should take: long beside the clock, short beside what else the machine does.
const BATCH: Duration = Duration::from_millis(4);

/// Batches of which the median is taken.
const BATCHES: usize = 80;

/// How long waiting calls are counted.
const COUNTED: Duration = Duration::from_secs(2);

/// What can be measured.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Calls one after the other on one core.
    Computing,
    /// Calls that wait for the host, many at once, on two threads.
    Waiting,
    /// Plugins held in memory.
    Loaded,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Computing, Self::Waiting, Self::Loaded];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Computing => "computing",
            Self::Waiting => "waiting",
            Self::Loaded => "loaded",
        }
    }

    /// How the peer does it; nothing where it is not measured.
    pub fn manner(self, entry: &Entry) -> &'static str {
        match self {
            Self::Computing => entry.computing,
            Self::Waiting => entry.waiting,
            Self::Loaded => entry.loaded,
        }
    }

    /// Measures one peer.
    pub fn measure(self, entry: &Entry) -> Fallible<Value> {
        let peer = (entry.start)()?;
        match self {
            Self::Computing => computing(peer.as_ref()),
            Self::Waiting => waiting(&peer),
            Self::Loaded => loaded(peer.as_ref()),
        }
    }
}

/// Nanoseconds of a call of each tool.
fn computing(peer: &dyn Peer) -> Fallible<Value> {
    let mut times = serde_json::Map::new();
    for tool in Tool::COMPUTING {
        let answer = peer.batch(tool, vec![tool.arguments()])?;
        if answer != tool.answer() {
            return Err(format!("{} answers {answer} instead of {}", tool.name(), tool.answer()).into());
        }
        times.insert(tool.name().to_owned(), json!(nanoseconds_of(peer, tool)?));
    }
    Ok(times.into())
}

fn nanoseconds_of(peer: &dyn Peer, tool: Tool) -> Fallible<f64> {
    let timed = |calls: usize| -> Fallible<Duration> {
        let arguments = vec![tool.arguments(); calls];
        let began = Instant::now();
        black_box(peer.batch(tool, arguments)?);
        Ok(began.elapsed())
    };
    let mut calls = 1;
    // Finds the size of a batch, and warms up on the way.
    while timed(calls)? < BATCH {
        calls *= 2;
    }
    let mut times = Vec::with_capacity(BATCHES);
    for _ in 0..BATCHES {
        times.push(timed(calls)?.as_secs_f64() * 1e9 / calls as f64);
    }
    Ok(median(times))
}

/// Calls per second with all in flight, and the memory of each while it waits.
fn waiting(peer: &Arc<dyn Peer>) -> Fallible<Value> {
    let runtime = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(Arc::clone(peer).wait("first"))?;
    let before = resident_bytes()?;
    let mut calls = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        calls.spawn_on(Arc::clone(peer).wait(HELD), runtime.handle());
    }
    let at_once = settled();
    let bytes = resident_bytes()?.saturating_sub(before);
    workload::release();
    runtime.block_on(finish(calls))?;

    let began = Instant::now() + Duration::from_millis(500);
    let end = began + COUNTED;
    let mut counters = JoinSet::new();
    for _ in 0..IN_FLIGHT {
        let peer = Arc::clone(peer);
        let counter = async move {
            let mut counted = 0_u64;
            loop {
                Arc::clone(&peer).wait("slow").await?;
                let now = Instant::now();
                if now >= end {
                    return Ok(counted);
                }
                counted += u64::from(now >= began);
            }
        };
        counters.spawn_on(counter, runtime.handle());
    }
    let counted: u64 = runtime.block_on(finish(counters))?.into_iter().sum();
    Ok(json!({
        "at_once": at_once,
        "bytes": bytes as f64 / at_once as f64,
        "calls_per_second": counted as f64 / COUNTED.as_secs_f64(),
    }))
}

async fn finish<T: Send + 'static>(mut tasks: JoinSet<Fallible<T>>) -> Fallible<Vec<T>> {
    let mut values = Vec::new();
    while let Some(done) = tasks.join_next().await {
        values.push(done??);
    }
    Ok(values)
}

/// Waits until no more calls come to wait, and says how many do.
fn settled() -> usize {
    let (mut waiting, mut since) = (0, Instant::now());
    while waiting < IN_FLIGHT && since.elapsed() < Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(10));
        let now = workload::waiting();
        if now != waiting {
            (waiting, since) = (now, Instant::now());
        }
    }
    waiting
}

/// Memory and time of a loaded plugin.
fn loaded(peer: &dyn Peer) -> Fallible<Value> {
    let first = peer.load(PLUGINS)?;
    let before = resident_bytes()?;
    let began = Instant::now();
    let mut plugins = Vec::with_capacity(PLUGINS);
    for number in 0..PLUGINS {
        plugins.push(peer.load(number)?);
    }
    let time = began.elapsed();
    let bytes = resident_bytes()?.saturating_sub(before);
    black_box((first, plugins.len()));
    // The process ends here; taking everything apart first would only take time.
    std::mem::forget(plugins);
    Ok(json!({
        "bytes": bytes as f64 / PLUGINS as f64,
        "nanoseconds": time.as_secs_f64() * 1e9 / PLUGINS as f64,
    }))
}

/// The middle one.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The process's memory. Linux only.
fn resident_bytes() -> Fallible<usize> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS in /proc/self/status")?;
    let kilobytes: usize = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kilobytes << 10)
}
