//! Runs as they happen, for whoever reads along: the events of a tenant's runs, handed on to the tenant's readers.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};
use tokio::sync::mpsc;
use toolbay_api::{RunId, TenantId};
use toolbay_runtime::{Observer, RunEvent};

/// Bytes of events that may wait for one reader.
const MAX_WAITING_BYTES: usize = 4 << 20;

/// The runs that are watched. Cheap to clone.
///
/// Sessions that the server opens show their runs here; others do where they are given [`observer`](Self::observer).
#[derive(Clone, Default)]
pub struct LiveRuns(Arc<Inner>);

#[derive(Default)]
struct Inner {
    // std's Mutex: nothing is awaited while it is held. A tenant without readers is not in it.
    readers: Mutex<HashMap<TenantId, Vec<Reader>>>,
    /// How many there are, so that without readers no event is made, let alone a lock taken.
    count: AtomicUsize,
}

struct Reader {
    sender: mpsc::Sender<Arc<str>>,
    waiting: Arc<AtomicUsize>,
    is_behind: Arc<AtomicBool>,
}

/// The events of one tenant's runs, for one reader.
pub(crate) struct LiveEvents {
    receiver: mpsc::Receiver<Arc<str>>,
    waiting: Arc<AtomicUsize>,
    is_behind: Arc<AtomicBool>,
}

impl LiveRuns {
    /// Shows a tenant's runs to whoever watches them.
    #[must_use]
    pub fn observer(&self, tenant: &TenantId) -> Arc<dyn Observer> {
        Arc::new(OfTenant { runs: self.clone(), tenant: tenant.clone() })
    }

    /// Reads along. `buffer` events may wait.
    pub(crate) fn open(&self, tenant: &TenantId, buffer: usize) -> LiveEvents {
        let (sender, receiver) = mpsc::channel(buffer.max(1));
        let (waiting, is_behind) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let reader = Reader { sender, waiting: Arc::clone(&waiting), is_behind: Arc::clone(&is_behind) };
        let mut readers = self.0.readers.lock().unwrap_or_else(PoisonError::into_inner);
        readers.retain(|_, all| {
            all.retain(|reader| !reader.sender.is_closed());
            !all.is_empty()
        });
        readers.entry(tenant.clone()).or_default().push(reader);
        self.0.count.store(readers.values().map(Vec::len).sum(), Ordering::Release);
        LiveEvents { receiver, waiting, is_behind }
    }

    fn show(&self, tenant: &TenantId, run: RunId, event: &RunEvent) {
        if self.0.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut readers = self.0.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(all) = readers.get_mut(tenant) else { return };
        let mut line = serde_json::to_value(event).unwrap_or(Value::Null);
        if let Value::Object(fields) = &mut line {
            fields.insert("run".to_owned(), json!(run));
        }
        let line: Arc<str> = line.to_string().into();
        all.retain(|reader| reader.offer(&line));
        if all.is_empty() {
            readers.remove(tenant);
        }
        self.0.count.store(readers.values().map(Vec::len).sum(), Ordering::Release);
    }
}

impl Reader {
    /// Puts the line before the reader; says whether it is to get more.
    fn offer(&self, line: &Arc<str>) -> bool {
        let waiting = self.waiting.fetch_add(line.len(), Ordering::AcqRel) + line.len();
        if waiting <= MAX_WAITING_BYTES && self.sender.try_send(Arc::clone(line)).is_ok() {
            return true;
        }
        self.is_behind.store(true, Ordering::Release);
        false
    }
}

impl LiveEvents {
    /// The next event's JSON; `None` where the reader was too slow.
    pub(crate) async fn next(&mut self) -> Option<Arc<str>> {
        let line = self.receiver.recv().await?;
        self.waiting.fetch_sub(line.len(), Ordering::AcqRel);
        Some(line)
    }

    /// Whether it ended since its reader was too slow.
    pub(crate) fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Acquire)
    }
}

struct OfTenant {
    runs: LiveRuns,
    tenant: TenantId,
}

impl Observer for OfTenant {
    fn observe(&self, run: RunId, event: &RunEvent) {
        self.runs.show(&self.tenant, run, event);
    }

    fn is_watching(&self) -> bool {
        self.runs.0.count.load(Ordering::Acquire) > 0
    }
}
