//! What each key uses: its rate, its requests in flight, its streams, and its idempotent requests that are being answered.
//!
//! Only valid keys are in the map, and those that do nothing are taken out, so it is bounded by the keys that there are.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use axum::http::StatusCode;
use toolbay_runtime::Principal;
use uuid::Uuid;

use crate::{options::ServerOptions, problem::Problem};

/// Keys below which nothing is swept.
const SWEEP_AT: usize = 1_024;

/// What all keys use.
pub(crate) struct Usage {
    keys: Mutex<HashMap<Uuid, OfKey>>,
    streams: Arc<tokio::sync::Semaphore>,
}

struct OfKey {
    /// Requests that it may make at once now; comes back with time.
    tokens: f64,
    counted_at: Instant,
    in_flight: u32,
    streams: u32,
    answering: HashSet<String>,
}

impl OfKey {
    fn is_idle(&self, now: Instant) -> bool {
        let long_ago = now.saturating_duration_since(self.counted_at).as_secs() >= 60;
        long_ago && self.in_flight == 0 && self.streams == 0
    }
}

impl Usage {
    pub(crate) fn new(options: &ServerOptions) -> Arc<Self> {
        let streams = Arc::new(tokio::sync::Semaphore::new(options.max_streams));
        Arc::new(Self { keys: Mutex::default(), streams })
    }

    /// Counts a request of `who`.
    ///
    /// # Errors
    /// 429 where the key's rate or its requests in flight are used up.
    pub(crate) fn admit(
        self: &Arc<Self>,
        who: &Principal,
        options: &ServerOptions,
        now: Instant,
    ) -> Result<InFlight, Problem> {
        let rate = f64::from(who.rate.unwrap_or(options.requests_per_minute).max(1));
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if keys.len() >= SWEEP_AT && !keys.contains_key(&who.key) {
            keys.retain(|_, of_key| !of_key.is_idle(now));
        }
        let of_key = keys.entry(who.key).or_insert_with(|| OfKey {
            tokens: rate,
            counted_at: now,
            in_flight: 0,
            streams: 0,
            answering: HashSet::new(),
        });
        let passed = now.saturating_duration_since(of_key.counted_at).as_secs_f64();
        of_key.tokens = (of_key.tokens + passed * rate / 60.0).min(rate);
        of_key.counted_at = now;
        let refused = |message, s| Problem::busy(StatusCode::TOO_MANY_REQUESTS, "RateLimited", message, s);
        if of_key.tokens < 1.0 {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a minute at most")]
            let wait = ((1.0 - of_key.tokens) * 60.0 / rate).ceil() as u64;
            let message = format!("this key allows {rate} requests a minute; try again in {} s", wait.max(1));
            return Err(refused(message, wait));
        }
        if of_key.in_flight >= options.max_requests_per_key {
            let message = format!(
                "this key has {} requests in flight, and no more are allowed at once; try again when one has ended",
                of_key.in_flight
            );
            return Err(refused(message, 1));
        }
        of_key.tokens -= 1.0;
        of_key.in_flight += 1;
        Ok(InFlight { usage: Arc::clone(self), key: who.key })
    }

    /// Opens a stream for `key`.
    ///
    /// # Errors
    /// 429 where the key has as many as it may; 503 where the server has.
    pub(crate) fn open_stream(self: &Arc<Self>, key: Uuid, allowed: u32) -> Result<OpenStream, Problem> {
        let message = "the server has as many streams open as it may; try again later";
        let busy = |_| Problem::busy(StatusCode::SERVICE_UNAVAILABLE, "Unavailable", message, 5);
        let slot = Arc::clone(&self.streams).try_acquire_owned().map_err(busy)?;
        self.with(key, |of_key| {
            if of_key.streams >= allowed {
                let message = format!("this key has {allowed} streams open, and no more are allowed; close one");
                return Err(Problem::busy(StatusCode::TOO_MANY_REQUESTS, "RateLimited", message, 5));
            }
            of_key.streams += 1;
            Ok(())
        })?;
        Ok(OpenStream { usage: Arc::clone(self), key, _slot: slot })
    }

    /// Begins to answer the idempotent request `name` of `key`.
    ///
    /// # Errors
    /// 409 where it is being answered already.
    pub(crate) fn begin_once(self: &Arc<Self>, key: Uuid, name: &str) -> Result<Answering, Problem> {
        self.with(key, |of_key| {
            if of_key.answering.insert(name.to_owned()) {
                return Ok(());
            }
            let message = "a request with this Idempotency-Key is being answered; ask again when it is done";
            let mut problem = Problem::new(StatusCode::CONFLICT, "Conflict", message);
            problem.retryable = true;
            Err(problem)
        })?;
        Ok(Answering { usage: Arc::clone(self), key, name: name.to_owned() })
    }

    /// Streams that are open.
    pub(crate) fn streams(&self, all: usize) -> usize {
        all.saturating_sub(self.streams.available_permits())
    }

    fn with<T>(&self, key: Uuid, change: impl FnOnce(&mut OfKey) -> Result<T, Problem>) -> Result<T, Problem> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        // The request in flight holds the entry.
        keys.get_mut(&key).map_or_else(|| Err(Problem::internal()), change)
    }

    fn end(&self, key: Uuid, change: impl FnOnce(&mut OfKey)) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_key) = keys.get_mut(&key) {
            change(of_key);
        }
    }
}

/// A request in flight.
pub(crate) struct InFlight {
    usage: Arc<Usage>,
    key: Uuid,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.usage.end(self.key, |of_key| of_key.in_flight = of_key.in_flight.saturating_sub(1));
    }
}

/// An open stream.
pub(crate) struct OpenStream {
    usage: Arc<Usage>,
    key: Uuid,
    _slot: tokio::sync::OwnedSemaphorePermit,
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.usage.end(self.key, |of_key| of_key.streams = of_key.streams.saturating_sub(1));
    }
}

/// An idempotent request that is being answered.
pub(crate) struct Answering {
    usage: Arc<Usage>,
    key: Uuid,
    name: String,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.usage.end(self.key, |of_key| _ = of_key.answering.remove(&self.name));
    }
}
