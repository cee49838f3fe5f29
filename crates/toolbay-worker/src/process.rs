//! Starting, killing and burying worker processes.

use std::{
    io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::{
    child::{Start, WORKER_ARGUMENT},
    config::WorkerProgram,
};

/// How long a process may take to be gone after its socket closed, before it is killed.
const BURIAL_TIME: Duration = Duration::from_millis(10);

/// A process that was just started.
pub(crate) struct Started {
    pub(crate) process: Process,
    pub(crate) socket: UnixStream,
    pub(crate) log: Option<ChildStderr>,
}

type Order = oneshot::Sender<io::Result<Started>>;

/// Starts workers, from one thread that lives as long as the pool: a worker asks the kernel to be killed when the
/// thread that started it ends, and threads of an async runtime come and go.
pub(crate) struct Spawner(mpsc::Sender<Order>);

impl Spawner {
    pub(crate) fn new(program: WorkerProgram, start: Start) -> io::Result<Self> {
        let (orders, incoming) = mpsc::channel::<Order>();
        thread::Builder::new().name("toolbay-workers".into()).spawn(move || {
            for order in incoming {
                let _ = order.send(spawn(&program, start));
            }
        })?;
        Ok(Self(orders))
    }

    pub(crate) async fn start(&self) -> io::Result<Started> {
        let (order, started) = oneshot::channel();
        let gone = || io::Error::other("the thread that starts workers is gone");
        self.0.send(order).map_err(|_| gone())?;
        started.await.map_err(|_| gone())?
    }
}

fn spawn(program: &WorkerProgram, start: Start) -> io::Result<Started> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut child = Command::new(path(program)?)
        .arg(WORKER_ARGUMENT)
        .args(start.to_arguments())
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let log = child.stderr.take();
    Ok(Started { process: Process(Mutex::new(child)), socket: ours, log })
}

fn path(program: &WorkerProgram) -> io::Result<PathBuf> {
    match program {
        WorkerProgram::Path(path) => Ok(path.clone()),
        // The link leads to the running program even after its file was replaced or removed.
        WorkerProgram::CurrentExe if cfg!(target_os = "linux") => Ok(Path::new("/proc/self/exe").to_owned()),
        WorkerProgram::CurrentExe => std::env::current_exe(),
    }
}

/// A worker's process. Dropping it kills and buries it.
pub(crate) struct Process(Mutex<Child>);

impl Process {
    // std's Mutex: no call made under it waits, since a process is only waited for when it is killed already.
    fn lock(&self) -> MutexGuard<'_, Child> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn id(&self) -> u32 {
        self.lock().id()
    }

    /// Kills it, if it is still there.
    pub(crate) fn kill(&self) {
        let _ = self.lock().kill();
    }

    /// Waits for its end after its socket closed, and helps where that takes too long.
    pub(crate) async fn bury(&self) -> Option<ExitStatus> {
        let patience = Instant::now() + BURIAL_TIME;
        loop {
            match self.lock().try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) => {}
                Err(_) => return None,
            }
            if Instant::now() >= patience {
                self.kill();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let child = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        if !matches!(child.try_wait(), Ok(Some(_))) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
