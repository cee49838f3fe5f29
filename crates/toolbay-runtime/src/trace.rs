//! The spans of tool calls, and what all spans for telemetry have in common. They stand under one target of their own, so
//! that an exporter takes them and nothing else: no log line, no plugin's text.
//!
//! Names and attributes are those of OpenTelemetry's semantic conventions for generative AI (status: development), as they
//! stand in the repository `semantic-conventions-genai`, which went on from version 1.41 of the general ones. What is
//! ours alone begins with `toolbay.`.

use std::borrow::Cow;

use serde_json::Value;
use toolbay_api::{ToolError, ToolOutput};
use tracing::{Span, field::Empty};

use crate::{road::Trip, run::Run};

/// The target of every span that is meant for telemetry.
pub const TARGET: &str = "toolbay::gen_ai";

/// Bytes of a name or an id in a span; models write both.
pub const MAX_NAME_BYTES: usize = 128;

/// Bytes of one content in a span, such as a call's arguments.
pub const MAX_CONTENT_BYTES: usize = 8 * 1024;

/// `text`, cut at `max` bytes.
#[must_use]
pub fn cut(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or_default()
}

/// A JSON value as the content of a span, cut at [`MAX_CONTENT_BYTES`].
#[must_use]
pub fn content(value: &Value) -> String {
    let mut text = value.to_string();
    if text.len() > MAX_CONTENT_BYTES {
        text.truncate(text.floor_char_boundary(MAX_CONTENT_BYTES));
        text.push_str("...");
    }
    text
}

/// The way between spans and what tells them apart across processes, such as W3C Trace Context; the host's telemetry has
/// it.
pub trait TraceLink: Send + Sync {
    /// Makes `span`, which must be new, a part of the caller's trace. What is no trace changes nothing.
    fn follow(&self, span: &Span, traceparent: &str, tracestate: Option<&str>);

    /// The trace that `span` is a part of, in 32 hex digits.
    fn trace_id(&self, span: &Span) -> Option<String>;
}

/// The span of a call from its look-up to its reply. It is within the span around it, be that of a run or of the call that
/// a plugin makes this one from.
pub(crate) fn of_call(run: &Run, trip: &Trip) -> Span {
    // Names are not made where nobody looks.
    if !tracing::span_enabled!(target: TARGET, tracing::Level::INFO) {
        return Span::none();
    }
    // Entered rather than named as the parent: the nearest span around it that the exporter knows is to be the parent.
    let _within = trip.within.as_ref().map(Span::enter);
    let name = run.view().tool(&trip.name).map_or_else(
        || Cow::Borrowed(cut(&trip.name, MAX_NAME_BYTES)),
        |entry| Cow::Owned(entry.info.definition.name.to_string()),
    );
    let span = tracing::info_span!(
        target: TARGET, "execute_tool",
        otel.name = format!("execute_tool {name}"), otel.kind = "internal", otel.status_code = Empty,
        "gen_ai.operation.name" = "execute_tool", "gen_ai.tool.name" = &*name, "gen_ai.tool.type" = "function",
        "gen_ai.tool.call.id" = cut(trip.call.as_str(), MAX_NAME_BYTES),
        "gen_ai.tool.call.arguments" = Empty, "gen_ai.tool.call.result" = Empty, "error.type" = Empty,
        "toolbay.tenant" = %run.tenant(), "toolbay.plugin" = Empty, "toolbay.depth" = trip.depth,
    );
    if run.traces_content() {
        let mut arguments = trip.arguments.clone();
        trip.redactor.value(&mut arguments);
        span.record("gen_ai.tool.call.arguments", content(&arguments));
    }
    span
}

/// Writes into a call's span what came of it: as the caller sees it, thus without secrets.
pub(crate) fn call_ended(span: &Span, run: &Run, plugin: Option<&str>, reply: &Result<ToolOutput, ToolError>) {
    if span.is_disabled() {
        return;
    }
    if let Some(plugin) = plugin {
        span.record("toolbay.plugin", plugin);
    }
    match reply {
        Ok(output) if run.traces_content() => {
            span.record("gen_ai.tool.call.result", content(&output.data));
        }
        Ok(_) => {}
        Err(error) => {
            // The message is left out: it may quote arguments.
            span.record("error.type", error.kind.name());
            span.record("otel.status_code", "ERROR");
        }
    }
}
