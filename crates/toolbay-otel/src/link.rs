//! W3C Trace Context: the traces of callers, which requests go on in.

use std::collections::HashMap;

use opentelemetry::{propagation::TextMapPropagator, trace::TraceContextExt};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use toolbay_runtime::TraceLink;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The longest `tracestate` that is looked at; the standard asks for no more.
const MAX_TRACESTATE_BYTES: usize = 512;

/// Connects spans with the traces of callers, by the headers `traceparent` and `tracestate`.
#[derive(Debug, Default, Clone, Copy)]
pub struct OtelLink;

impl TraceLink for OtelLink {
    fn follow(&self, span: &Span, traceparent: &str, tracestate: Option<&str>) {
        let mut headers = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
        if let Some(state) = tracestate.filter(|state| state.len() <= MAX_TRACESTATE_BYTES) {
            headers.insert("tracestate".to_owned(), state.to_owned());
        }
        let context = TraceContextPropagator::new().extract(&headers);
        if context.span().span_context().is_valid() {
            // A span that is not exported, or has begun, stays in the trace that it is in.
            let _ = span.set_parent(context);
        }
    }

    fn trace_id(&self, span: &Span) -> Option<String> {
        let context = span.context();
        let of = context.span().span_context().clone();
        of.is_valid().then(|| of.trace_id().to_string())
    }
}
