//! The pieces of a model's reply on their way to whoever reads them.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use toolbay_api::{ModelResponse, async_trait};
use toolbay_runtime::RunEvent;

/// Takes pieces, and makes the model wait where nobody reads them.
#[async_trait]
pub(crate) trait Sink: Send + Sync {
    async fn put(&self, event: RunEvent);
}

/// Where a model puts the pieces of a reply as they come.
///
/// Each method waits where the reader is slow. Pieces put together are the reply that
/// [`respond_in_parts`](crate::Model::respond_in_parts) gives in the end; what is empty is left out.
pub struct Parts {
    to: Option<(Arc<dyn Sink>, u32)>,
    are_out: AtomicBool,
}

impl Parts {
    /// Pieces that nobody wants.
    #[must_use]
    pub fn none() -> Self {
        Self { to: None, are_out: AtomicBool::new(false) }
    }

    pub(crate) fn to(sink: Arc<dyn Sink>, step: u32) -> Self {
        Self { to: Some((sink, step)), are_out: AtomicBool::new(false) }
    }

    /// Whether somebody wants them.
    #[must_use]
    pub fn are_wanted(&self) -> bool {
        self.to.is_some()
    }

    /// Whether any was put: a request is not made again then, since the pieces of two replies would run together.
    #[must_use]
    pub fn are_out(&self) -> bool {
        self.are_out.load(Ordering::Relaxed)
    }

    /// More of the text.
    ///
    /// # Cancel safety
    /// Dropped, the piece may be put or not.
    pub async fn text(&self, text: &str) {
        if !text.is_empty() {
            self.put(|step| RunEvent::TextDelta { step, text: text.to_owned() }).await;
        }
    }

    /// More of the reasoning.
    ///
    /// # Cancel safety
    /// As [`text`](Self::text).
    pub async fn reasoning(&self, text: &str) {
        if !text.is_empty() {
            self.put(|step| RunEvent::ReasoningDelta { step, text: text.to_owned() }).await;
        }
    }

    /// More of a tool call: the call's place among those of the reply, its id and name with its first piece, and more of the
    /// arguments' text.
    ///
    /// # Cancel safety
    /// As [`text`](Self::text).
    pub async fn tool_call(&self, index: usize, id: Option<&str>, name: Option<&str>, arguments: &str) {
        if id.is_some() || name.is_some() || !arguments.is_empty() {
            let (id, name, arguments) = (id.map(str::to_owned), name.map(str::to_owned), arguments.to_owned());
            self.put(|step| RunEvent::ToolCallDelta { step, index, id, name, arguments }).await;
        }
    }

    /// A reply that came in one piece.
    ///
    /// # Cancel safety
    /// As [`text`](Self::text).
    pub async fn whole(&self, response: &ModelResponse) {
        self.reasoning(response.reasoning.as_deref().unwrap_or_default()).await;
        self.text(&response.text).await;
        for (index, call) in response.tool_calls.iter().enumerate() {
            self.tool_call(index, Some(&call.id), Some(&call.name), &call.arguments.to_string()).await;
        }
    }

    async fn put(&self, event: impl FnOnce(u32) -> RunEvent) {
        if let Some((sink, step)) = &self.to {
            self.are_out.store(true, Ordering::Relaxed);
            sink.put(event(*step)).await;
        }
    }
}
