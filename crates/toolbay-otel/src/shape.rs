//! What of a span leaves the process: attributes that the conventions and Toolbay know, within bounds. It stands at the
//! exporter, the one way out, so that a field that somebody adds to a span later goes nowhere unless its name is here.

use std::time::Duration;

use opentelemetry::{Array, KeyValue, StringValue, Value};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SpanData, SpanEvents, SpanExporter},
};

/// Names of attributes, or their beginnings, that may leave.
const KNOWN: [&str; 7] = [
    "gen_ai.",
    "toolbay.",
    "error.type",
    "http.request.method",
    "http.response.status_code",
    "http.route",
    "mcp.method.name",
];

/// Bytes of one attribute; more is cut. Contents are bounded where they are made, below this.
const MAX_ATTRIBUTE_BYTES: usize = 72 * 1024;

/// An exporter behind which nothing unknown goes.
#[derive(Debug)]
pub(crate) struct Shaped<E>(pub(crate) E);

impl<E: SpanExporter> SpanExporter for Shaped<E> {
    fn export(&self, mut batch: Vec<SpanData>) -> impl Future<Output = OTelSdkResult> + Send {
        batch.iter_mut().for_each(shape);
        self.0.export(batch)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

fn shape(span: &mut SpanData) {
    // Log lines, whose texts are the plugins' and the providers'.
    span.events = SpanEvents::default();
    span.attributes.retain(|attribute| {
        let key = attribute.key.as_str();
        KNOWN.iter().any(|known| key == *known || (known.ends_with('.') && key.starts_with(known)))
    });
    for KeyValue { key, value, .. } in &mut span.attributes {
        if let Value::String(text) = value {
            if key.as_str() == "gen_ai.response.finish_reasons" {
                *value = listed(text.as_str());
            } else if text.as_str().len() > MAX_ATTRIBUTE_BYTES {
                let end = text.as_str().floor_char_boundary(MAX_ATTRIBUTE_BYTES);
                *value = Value::from(text.as_str().get(..end).unwrap_or_default().to_owned());
            }
        }
    }
}

/// A list of texts, which fields of spans can only have as JSON.
fn listed(json: &str) -> Value {
    let texts: Vec<String> = serde_json::from_str(json).unwrap_or_default();
    Value::Array(Array::String(texts.into_iter().map(StringValue::from).collect()))
}
