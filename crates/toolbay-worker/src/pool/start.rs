//! Starting workers for the pool, each in a task of its own, so that a caller who gives up leaves a worker behind and
//! not half of one.

use std::{io, sync::Arc, sync::atomic::Ordering::Relaxed, time::Duration};

use tokio::{io::AsyncReadExt as _, net::unix::pipe, sync::oneshot};
use toolbay_api::ToolError;

use super::{Owner, Pool, State, unavailable};
use crate::{
    death::Death,
    driver::{self, Reader},
    frame::{FromWorker, Ready},
    isolation::Isolation,
    scale::Scale,
    wire::{Inbox, Malformed},
    worker::Worker,
};

/// How long a worker may take to be ready.
const START_TIME: Duration = Duration::from_secs(10);
/// Bytes of a worker's standard error that are logged over its life.
const LOG_BYTES: usize = 16 << 10;

/// A worker that is ready, and what its driver needs.
struct Fresh {
    worker: Arc<Worker>,
    reader: Reader,
    inbox: Inbox,
}

impl Pool {
    /// Begins to start a worker. Called under the pool's lock, which `state` stands for.
    pub(super) fn start(&self, state: &mut State, owner: Option<Owner>) -> oneshot::Receiver<Result<(), ToolError>> {
        state.alive += 1;
        match &owner {
            Some(owner) => state.owned.entry(owner.clone()).or_default().starting += 1,
            None => state.starting_spares += 1,
        }
        let (told, result) = oneshot::channel();
        if let Some(pool) = self.me.upgrade() {
            tokio::spawn(async move {
                let started = pool.fresh().await;
                let _ = told.send(pool.take_in(owner, started));
            });
        }
        result
    }

    /// Starts spare workers up to their number.
    pub(super) fn top_up(&self, state: &mut State) {
        while state.spares.len() + state.starting_spares < self.config.spare_workers
            && state.alive < self.config.max_workers
        {
            drop(self.start(state, None));
        }
    }

    /// Puts a worker that was started into the lists and begins to drive it.
    fn take_in(self: &Arc<Self>, owner: Option<Owner>, started: Result<Fresh, ToolError>) -> Result<(), ToolError> {
        let mut state = self.lock();
        match &owner {
            Some(owner) => {
                if let Some(owned) = state.owned.get_mut(owner) {
                    owned.starting = owned.starting.saturating_sub(1);
                }
            }
            None => state.starting_spares = state.starting_spares.saturating_sub(1),
        }
        let fresh = match started {
            Ok(fresh) => fresh,
            Err(error) => {
                state.alive = state.alive.saturating_sub(1);
                if let Some(owner) = &owner {
                    state.forget_if_empty(owner);
                }
                drop(state);
                self.changed.notify_waiters();
                tracing::warn!(target: "toolbay::worker", %error, "a worker could not be started");
                return Err(error);
            }
        };
        match owner {
            Some(owner) => {
                fresh.worker.last_used.store(self.now(), Relaxed);
                let _ = fresh.worker.owner.set(owner.clone());
                state.owned.entry(owner).or_default().workers.push(Arc::clone(&fresh.worker));
                self.top_up(&mut state);
                self.watch_idle(&mut state);
            }
            None => state.spares.push(Arc::clone(&fresh.worker)),
        }
        drop(state);
        self.changed.notify_waiters();
        tokio::spawn(attend(Arc::downgrade(self), fresh, self.bounds()));
        Ok(())
    }

    /// Starts a process and waits until it is ready.
    async fn fresh(&self) -> Result<Fresh, ToolError> {
        let problem = |error: io::Error| {
            unavailable("no worker process can be started on this host; tell the operator").with_source(error)
        };
        let started = self.spawner.start().await.map_err(problem)?;
        if let Some(log) = started.log.and_then(|log| pipe::Receiver::from_owned_fd(log.into()).ok()) {
            tokio::spawn(forward_log(log, started.process.id()));
        }
        let mut reader = driver::reader(&started.socket).map_err(problem)?;
        let mut inbox = Inbox::default();
        let ready = tokio::time::timeout(START_TIME, ready(&mut reader, &mut inbox)).await;
        let ready = ready.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(problem)?;
        let isolation = Isolation {
            landlock: ready.landlock,
            seccomp: ready.seccomp,
            process_limits: ready.limits,
            memory_cap: ready.memory_cap,
        };
        let _ = self.isolation.set(isolation);
        if self.config.require_full_isolation && !isolation.is_full() {
            return Err(unavailable(
                "worker processes cannot be isolated fully on this host, and its policy asks for that; tell the operator",
            )
            .with_source(format!("missing: {}", isolation.missing().join("; "))));
        }
        let id = self.last_id.fetch_add(1, Relaxed);
        let scale = Scale::of(started.process.id());
        let worker = Arc::new(Worker::new(id, started.process, started.socket, scale, self.config.grace));
        Ok(Fresh { worker, reader, inbox })
    }
}

/// Waits for a worker's first frame.
async fn ready(reader: &mut Reader, inbox: &mut Inbox) -> io::Result<Ready> {
    let malformed = |malformed: Malformed| io::Error::new(io::ErrorKind::InvalidData, malformed);
    loop {
        if let Some(content) = inbox.next(64).map_err(malformed)? {
            return match FromWorker::read(content).map_err(malformed)? {
                FromWorker::Ready(ready) => Ok(ready),
                _ => Err(malformed(Malformed("the first frame does not say that the worker is ready"))),
            };
        }
        if driver::read(reader, inbox).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Drives a worker to its end and tells everybody.
async fn attend(pool: std::sync::Weak<Pool>, fresh: Fresh, bounds: driver::Bounds) {
    let Fresh { worker, reader, inbox } = fresh;
    let mut death = driver::drive(&worker, reader, inbox, bounds).await;
    worker.is_gone.store(true, Relaxed);
    if let Death::Silent(_) = death {
        // How it ended is part of the error, and it has ended, or is about to.
        let status = worker.process.bury().await;
        death =
            if worker.is_retiring.load(Relaxed) && worker.load() == 0 { Death::Retired } else { Death::Silent(status) };
        worker.die(death);
    } else {
        worker.process.kill();
        worker.die(death);
        let _ = worker.process.bury().await;
    }
    let owner = worker.owner.get().map(ToString::to_string);
    if death.is_abnormal() {
        tracing::warn!(target: "toolbay::worker", pid = worker.process.id(), owner, ?death, "a worker ended");
    }
    if let Some(pool) = pool.upgrade() {
        pool.bury(&worker, death.is_abnormal());
    }
}

/// Logs what a worker writes to its standard error, up to a bound.
async fn forward_log(mut log: pipe::Receiver, pid: u32) {
    let (mut buffer, mut logged) = ([0; 2 << 10], 0);
    while let Ok(received @ 1..) = log.read(&mut buffer).await {
        if logged >= LOG_BYTES {
            continue;
        }
        logged += received;
        let text = String::from_utf8_lossy(buffer.get(..received).unwrap_or_default()).into_owned();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            // A script's text must not be able to forge lines or terminal codes in the operator's log.
            let shown: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            tracing::warn!(target: "toolbay::worker", pid, "{shown}");
        }
    }
}
