//! Results that are too long for a model: cut with their structure kept, and readable in whole by pages.
//!
//! What was cut is kept for the rest of the run, within a bound, and the model gets `read_result` for it. That is a tool of
//! the host like every other, given to the model from the first cut on. What is kept is what hooks let through.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use toolbay_api::{Annotations, ErrorKind, RunId, Tool, ToolContext, ToolError, tool};
use toolbay_runtime::excerpt;

/// The name of the tool that reads what was cut.
pub const READ_RESULT: &str = "read_result";

/// How much of a result a model is shown, and how much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResultBounds {
    /// Bytes of one result, or of one page of it. At least 200 count.
    pub max_shown_bytes: usize,
    /// Bytes of what is kept for a run; the oldest goes first.
    pub max_kept_bytes: usize,
}

impl Default for ResultBounds {
    /// 16 KiB shown, 4 MiB kept.
    fn default() -> Self {
        Self { max_shown_bytes: 16 << 10, max_kept_bytes: 4 << 20 }
    }
}

/// Cuts results and keeps them. Clones share what is kept.
#[derive(Debug, Clone)]
pub struct Results {
    bounds: ResultBounds,
    // std's Mutex, not tokio's: nothing is awaited while it is held. A run's entry goes with the run.
    kept: Arc<Mutex<HashMap<RunId, Kept>>>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Handle, size and whole.
    results: VecDeque<(String, usize, Arc<Value>)>,
    bytes: usize,
    made: usize,
}

/// A way to cut results and the tool that reads them: [`AgentConfig::results`](crate::AgentConfig::results) takes the one,
/// `builder.tool(...)` the other.
#[must_use]
pub fn results(bounds: ResultBounds) -> (Results, impl Tool + 'static) {
    let bounds = ResultBounds { max_shown_bytes: bounds.max_shown_bytes.max(200), ..bounds };
    let results = Results { bounds, kept: Arc::default() };
    let kept = results.clone();
    let about = "Reads a result that was too long to be shown, by pages.";
    let read = tool(READ_RESULT, about, move |wanted: Wanted, cx: ToolContext| {
        let page = kept.page(cx.caller().run, &wanted);
        async move { page }
    });
    let read = read.with(|definition| {
        definition.annotations =
            Annotations { read_only: Some(true), idempotent: Some(true), ..Annotations::default() };
    });
    (results, read)
}

/// The arguments of `read_result`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// The result, as it was named where it was cut.
    handle: String,
    /// The part of it, as a JSON pointer such as /orders/3; the whole unless said.
    #[serde(default)]
    pointer: String,
    /// Where in the part to begin: a character of a text, an item of a list, a key of an object.
    #[serde(default)]
    offset: usize,
}

impl Results {
    /// `whole` as a model is shown it, where it is too long: cut, and whether it was kept under a handle.
    pub(crate) fn shortened(&self, run: RunId, whole: &Value, text: &str) -> Option<(String, bool)> {
        let most = self.bounds.max_shown_bytes;
        if text.len() <= most {
            return None;
        }
        let shown = excerpt::cut(whole, most);
        let handle = self.keep(run, whole, text.len());
        let said = match &handle {
            Some(handle) => format!(
                "[cut from {} bytes; {READ_RESULT} with the handle {handle:?} reads the whole, or a part by its pointer]",
                text.len()
            ),
            None => format!("[cut from {} bytes; the whole is too long to be kept: ask for less at once]", text.len()),
        };
        Some((format!("{shown}\n{said}"), handle.is_some()))
    }

    /// Forgets what a run left.
    pub(crate) fn forget(&self, run: RunId) {
        self.lock().remove(&run);
    }

    fn keep(&self, run: RunId, whole: &Value, bytes: usize) -> Option<String> {
        if bytes > self.bounds.max_kept_bytes {
            return None;
        }
        let mut runs = self.lock();
        let kept = runs.entry(run).or_default();
        while kept.bytes + bytes > self.bounds.max_kept_bytes {
            let (_, freed, _) = kept.results.pop_front()?;
            kept.bytes -= freed;
        }
        kept.made += 1;
        kept.bytes += bytes;
        let handle = format!("result-{}", kept.made);
        kept.results.push_back((handle.clone(), bytes, Arc::new(whole.clone())));
        Some(handle)
    }

    fn page(&self, run: RunId, wanted: &Wanted) -> Result<Value, ToolError> {
        let found = self.lock().get(&run).and_then(|kept| {
            kept.results.iter().find(|(handle, ..)| *handle == wanted.handle).map(|(.., whole)| Arc::clone(whole))
        });
        let whole = found.ok_or_else(|| {
            let text = "no result is kept under this handle: it is another run's, or newer ones took its place; call the tool again";
            ToolError::new(ErrorKind::NotFound, text)
        })?;
        let part = whole.pointer(&wanted.pointer).ok_or_else(|| {
            let text = "the result has nothing at this pointer; read it from the top, with the pointer \"\"";
            ToolError::new(ErrorKind::NotFound, text)
        })?;
        Ok(excerpt::page(part, wanted.offset, self.bounds.max_shown_bytes))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<RunId, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
