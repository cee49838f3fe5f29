//! A collector on loopback, which records what it is sent and draws it as trees.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message;

#[derive(Clone, Default)]
pub(crate) struct Collector(Arc<Mutex<Received>>);

#[derive(Default)]
struct Received {
    requests: Vec<(HeaderMap, ExportTraceServiceRequest)>,
    bytes: Vec<u8>,
}

impl Collector {
    /// Starts one; the second value is its address.
    pub(crate) async fn start() -> (Self, String) {
        let collector = Self::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().route("/v1/traces", post(take)).with_state(collector.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        (collector, address)
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        let received = self.0.lock().unwrap();
        let requests = received.requests.iter().flat_map(|(_, request)| &request.resource_spans);
        let spans: Vec<Span> = requests.flat_map(|of| &of.scope_spans).flat_map(|of| of.spans.clone()).collect();
        spans
    }

    /// Everything that was sent, as bytes: what is not in here was not sent in any place.
    pub(crate) fn has(&self, text: &str) -> bool {
        self.0.lock().unwrap().bytes.windows(text.len()).any(|window| window == text.as_bytes())
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let received = self.0.lock().unwrap();
        received.requests.first()?.0.get(name)?.to_str().ok().map(str::to_owned)
    }

    pub(crate) fn resource(&self) -> BTreeMap<String, String> {
        let received = self.0.lock().unwrap();
        let resource = received.requests[0].1.resource_spans[0].resource.clone().unwrap();
        resource.attributes.iter().map(|each| (each.key.clone(), shown(each.value.as_ref()))).collect()
    }

    /// The traces as trees, in the order of their beginnings, with the attributes that do not differ from run to run.
    pub(crate) fn drawn(&self) -> String {
        let mut spans = self.spans();
        spans.sort_by_key(|span| span.start_time_unix_nano);
        let known = |id: &[u8]| spans.iter().any(|span| span.span_id == id);
        let mut text = String::new();
        for root in spans.iter().filter(|span| !known(&span.parent_span_id)) {
            draw(&mut text, &spans, root, 0);
        }
        text
    }
}

async fn take(State(collector): State<Collector>, headers: HeaderMap, body: Bytes) {
    let request = ExportTraceServiceRequest::decode(body.clone()).unwrap();
    let mut received = collector.0.lock().unwrap();
    received.bytes.extend_from_slice(&body);
    received.requests.push((headers, request));
}

fn draw(text: &mut String, spans: &[Span], span: &Span, depth: usize) {
    let indent = "  ".repeat(depth);
    let kind = ["unspecified", "internal", "server", "client"][usize::try_from(span.kind).unwrap()];
    let failed = if span.status.as_ref().is_some_and(|status| status.code == 2) { " FAILED" } else { "" };
    writeln!(text, "{indent}{} ({kind}){failed}", span.name).unwrap();
    assert!(span.events.is_empty(), "events are not for the collector: {:?}", span.events);
    for (key, value) in attributes(span) {
        let differs = matches!(key.as_str(), "toolbay.run" | "gen_ai.tool.call.id");
        writeln!(text, "{indent}  . {key} = {}", if differs { "..." } else { &value }).unwrap();
    }
    let mut children: Vec<&Span> = spans.iter().filter(|child| child.parent_span_id == span.span_id).collect();
    // Calls beside each other begin in any order.
    children.sort_by_key(|child| {
        (child.name.starts_with("execute_tool").then_some(&child.name), child.start_time_unix_nano)
    });
    children.sort_by_key(|child| if child.name.starts_with("execute_tool") { 1 } else { 0 });
    children.sort_by_key(|child| step(spans, child));
    for child in children {
        assert!(child.start_time_unix_nano >= span.start_time_unix_nano, "{} begins before {}", child.name, span.name);
        assert!(child.end_time_unix_nano <= span.end_time_unix_nano, "{} ends after {}", child.name, span.name);
        draw(text, spans, child, depth + 1);
    }
}

/// How many requests to the model began before it.
fn step(spans: &[Span], span: &Span) -> usize {
    let is_chat = |other: &&Span| other.name.starts_with("chat") && other.parent_span_id == span.parent_span_id;
    spans.iter().filter(is_chat).filter(|other| other.start_time_unix_nano <= span.start_time_unix_nano).count()
}

pub(crate) fn attributes(span: &Span) -> BTreeMap<String, String> {
    span.attributes.iter().map(|each| (each.key.clone(), shown(each.value.as_ref()))).collect()
}

fn shown(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(Value::BoolValue(yes)) => yes.to_string(),
        Some(Value::ArrayValue(list)) => {
            let items: Vec<_> = list.values.iter().map(|value| shown(Some(value))).collect();
            format!("[{}]", items.join(", "))
        }
        other => format!("{other:?}"),
    }
}
