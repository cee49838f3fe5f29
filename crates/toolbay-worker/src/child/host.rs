//! The host as a script in a worker sees it: each question goes to the real one, which checks every grant itself.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use serde_json::Value;
use toolbay_api::{Asset, Assets, ErrorKind, Host, LogLevel, ToolError, ToolOutput, hook::HookHosts};

use super::link::Link;
use crate::{
    alloc, fault,
    frame::{self, Comparison, Outcome, Request},
    wire::{Malformed, Reader},
};

/// Refusals of the host that a call is known by; a script that goes on through more than these meets limits of its own.
const KEPT_REFUSALS: usize = 64;

/// One call's way to the host.
pub(crate) struct FarHost {
    link: Link,
    call: u64,
    /// Shared by all calls of the plugin in this worker.
    assets: Arc<OnceLock<Assets>>,
    config: OnceLock<Value>,
    /// The kinds of errors that the host answered with, limits with their figures.
    refusals: Mutex<Vec<ErrorKind>>,
}

impl FarHost {
    pub(crate) fn new(link: Link, call: u64, assets: Arc<OnceLock<Assets>>) -> Self {
        Self { link, call, assets, config: OnceLock::new(), refusals: Mutex::default() }
    }

    /// How a call ended that failed with `error` and had until `deadline`: at its own limits, or by an error of the
    /// host's that it let pass. A script's own time-out comes at its deadline and never before; what else a worker itself
    /// calls unavailable comes before the script has asked for anything.
    pub(crate) fn end(&self, error: ToolError, deadline: Instant) -> Outcome {
        let is_late = error.kind == ErrorKind::TimedOut && Instant::now() >= deadline;
        let is_hosts = self.refusals.lock().unwrap_or_else(PoisonError::into_inner).contains(&error.kind);
        if is_hosts && !is_late { Outcome::Passed(error) } else { Outcome::Error(error) }
    }

    /// Keeps in mind what the host refused.
    fn noted<T>(&self, answer: Result<T, ToolError>) -> Result<T, ToolError> {
        if let Err(error) = &answer {
            let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
            if refusals.len() < KEPT_REFUSALS && !refusals.contains(&error.kind) {
                refusals.push(error.kind);
            }
        }
        answer
    }

    fn ask_now<T>(
        &self,
        request: &Request,
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, Malformed>,
    ) -> Result<T, ToolError> {
        self.noted(unpack(&self.link.ask_now(self.call, request), read))
    }

    async fn ask<T>(
        &self,
        request: Request,
        read: impl FnOnce(&mut Reader<'_>) -> Result<T, Malformed> + Send,
    ) -> Result<T, ToolError> {
        let asked = self.link.ask(self.call, &request);
        self.noted(unpack(&asked.await, read))
    }
}

/// Reads what the host made of a request: a zero and the answer, or the error.
fn unpack<T>(answer: &[u8], read: impl FnOnce(&mut Reader<'_>) -> Result<T, Malformed>) -> Result<T, ToolError> {
    let mut reader = Reader::new(answer);
    let read = match reader.u8() {
        Ok(0) => read(&mut reader).map(Ok),
        Ok(_) => fault::read_error(&mut reader).map(Err),
        Err(malformed) => Err(malformed),
    };
    read.unwrap_or_else(|malformed| {
        Err(ToolError::new(ErrorKind::Internal, "the host's answer could not be read; tell the operator")
            .with_source(malformed))
    })
}

/// Packaged files, parsed where they are JSON so that no call pays for that out of its memory.
fn read_assets(reader: &mut Reader<'_>) -> Result<Assets, Malformed> {
    let count = reader.u32()?;
    let mut assets = Vec::new();
    for _ in 0..count {
        let (name, bytes) = (reader.text()?.to_owned(), reader.bytes()?);
        let asset = Asset::new(bytes);
        if name.ends_with(".json") {
            let _ = asset.json();
        }
        assets.push((name, asset));
    }
    Ok(assets.into_iter().collect())
}

#[async_trait]
impl Host for FarHost {
    fn log(&self, level: LogLevel, message: &str) {
        // Nobody waits for an answer: lines go out with the next frame that somebody does wait for.
        let request = Request::Log(level, message.to_owned());
        self.link.write(|out| frame::write_request(out, self.call, &request));
    }

    fn config(&self) -> &Value {
        self.config.get_or_init(|| self.ask_now(&Request::Config, |reader| reader.json()).unwrap_or_default())
    }

    fn assets(&self) -> &Assets {
        self.assets.get_or_init(|| alloc::outside(|| self.ask_now(&Request::Assets, read_assets).unwrap_or_default()))
    }

    async fn kv_get(&self, key: &str) -> Result<Option<Value>, ToolError> {
        self.ask(Request::KvGet(key.to_owned()), |reader| {
            Ok(if reader.u8()? == 1 { Some(reader.json()?) } else { None })
        })
        .await
    }

    async fn kv_set(&self, key: &str, value: Value) -> Result<(), ToolError> {
        self.ask(Request::KvSet(key.to_owned(), value), |_| Ok(())).await
    }

    async fn kv_delete(&self, key: &str) -> Result<bool, ToolError> {
        self.ask(Request::KvDelete(key.to_owned()), |reader| Ok(reader.u8()? == 1)).await
    }

    async fn kv_list(&self, prefix: &str, limit: usize) -> Result<Vec<String>, ToolError> {
        self.ask(Request::KvList(prefix.to_owned(), limit as u64), |reader| reader.json()).await
    }

    async fn kv_set_for(&self, key: &str, value: Value, ttl: Duration) -> Result<(), ToolError> {
        self.ask(Request::KvSetFor(key.to_owned(), value, milliseconds(ttl)), |_| Ok(())).await
    }

    async fn kv_compare_and_set(
        &self,
        key: &str,
        expected: Option<Value>,
        new: Option<Value>,
        ttl: Option<Duration>,
    ) -> Result<bool, ToolError> {
        let (expected, new) = (expected.unwrap_or_default(), new.unwrap_or_default());
        let comparison = Comparison { key: key.to_owned(), expected, new, ttl_ms: ttl.map(milliseconds) };
        self.ask(Request::KvCompareAndSet(Box::new(comparison)), |reader| Ok(reader.u8()? == 1)).await
    }

    async fn kv_list_after(&self, prefix: &str, after: &str, limit: usize) -> Result<Vec<String>, ToolError> {
        let request = Request::KvListAfter(prefix.to_owned(), after.to_owned(), limit as u64);
        self.ask(request, |reader| reader.json()).await
    }

    async fn call_tool(&self, tool: &str, arguments: Value) -> Result<ToolOutput, ToolError> {
        self.ask(Request::CallTool(tool.to_owned(), arguments), |reader| reader.json()).await.map(ToolOutput::new)
    }

    async fn http(&self, request: Value) -> Result<Value, ToolError> {
        self.ask(Request::Http(request), |reader| reader.json()).await
    }

    async fn emit(&self, name: &str, payload: Value) -> Result<(), ToolError> {
        self.ask(Request::Emit(name.to_owned(), payload), |_| Ok(())).await
    }

    async fn secret(&self, name: &str) -> Result<String, ToolError> {
        self.ask(Request::Secret(name.to_owned()), |reader| reader.text().map(str::to_owned)).await
    }

    fn tools(&self) -> Vec<String> {
        self.ask_now(&Request::Tools, |reader| reader.json()).unwrap_or_default()
    }

    fn now_ms(&self) -> Result<i64, ToolError> {
        self.ask_now(&Request::NowMs, |reader| reader.u64().map(u64::cast_signed))
    }

    fn uuid(&self) -> Result<String, ToolError> {
        self.ask_now(&Request::Uuid, |reader| reader.text().map(str::to_owned))
    }

    fn random(&self) -> Result<u64, ToolError> {
        self.ask_now(&Request::Random, |reader| reader.u64())
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Gives a hook its host.
pub(crate) struct FarHosts(pub(crate) Arc<FarHost>);

impl HookHosts for FarHosts {
    fn host(&self) -> Arc<dyn Host> {
        Arc::clone(&self.0) as Arc<dyn Host>
    }
}
