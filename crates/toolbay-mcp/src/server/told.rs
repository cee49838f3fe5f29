//! The span of a tool call for telemetry, in the trace of whoever asks: by `_meta` of the request (SEP-414), else by the
//! header. The library gives each request a task of its own, so there is no span around it that could be gone on in.

use axum::http::request::Parts;
use rmcp::{RoleServer, service::RequestContext};
use toolbay_runtime::{
    Session,
    trace::{MAX_NAME_BYTES, TARGET, cut},
};
use tracing::{Level, Span};

pub(super) fn call(session: &Session, tool: &str, context: &RequestContext<RoleServer>) -> Span {
    if !tracing::span_enabled!(target: TARGET, Level::INFO) {
        return Span::none();
    }
    let tool = cut(tool, MAX_NAME_BYTES);
    let span = tracing::info_span!(
        target: TARGET, "tools/call",
        otel.name = format!("tools/call {tool}"), otel.kind = "server",
        "mcp.method.name" = "tools/call", "gen_ai.operation.name" = "execute_tool", "gen_ai.tool.name" = tool,
        "toolbay.tenant" = %session.tenant(),
    );
    let Some(link) = session.trace_link() else { return span };
    if let Some(parent) = context.meta.get_traceparent() {
        link.follow(&span, parent, context.meta.get_tracestate());
    } else if let Some(parts) = context.extensions.get::<Parts>() {
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(parent) = header("traceparent") {
            link.follow(&span, parent, header("tracestate"));
        }
    }
    span
}
