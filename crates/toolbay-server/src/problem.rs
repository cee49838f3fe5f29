//! The one shape of every error: problem details by RFC 9457, with what a program branches on beside them.

use std::borrow::Cow;

use axum::{
    body::Body,
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use toolbay_api::{ErrorKind, Limit, ToolError};

/// How long a caller is asked to wait where nothing says how long.
const RETRY_AFTER_S: u64 = 1;

/// A request that failed. It becomes a body in `envelope`, where the request's id is known.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    pub(crate) kind: &'static str,
    pub(crate) message: Cow<'static, str>,
    pub(crate) details: Value,
    pub(crate) retryable: bool,
    pub(crate) retry_after_s: Option<u64>,
    header: Option<(HeaderName, HeaderValue)>,
}

/// A problem as callers see it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(crate) struct ProblemBody {
    /// Always `about:blank`: `kind` tells problems apart.
    pub(crate) r#type: &'static str,
    /// The status in words.
    pub(crate) title: &'static str,
    /// The status.
    pub(crate) status: u16,
    /// The message again, where RFC 9457 has it.
    pub(crate) detail: String,
    /// What a program branches on.
    pub(crate) kind: &'static str,
    /// What went wrong and what to do.
    pub(crate) message: String,
    /// Data beside the message.
    pub(crate) details: Value,
    /// Whether the same request can succeed later.
    pub(crate) retryable: bool,
    /// The request's id, by which the operator finds it in the log.
    pub(crate) request_id: String,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, kind: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            kind,
            message: message.into(),
            details: Value::Null,
            retryable: false,
            retry_after_s: None,
            header: None,
        }
    }

    /// 400: the request is not what it should be.
    pub(crate) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidArguments", message)
    }

    /// 404. One text for what is not there and for what is another's.
    pub(crate) fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    /// 401. One text for every key that does not count, whatever is wrong with it.
    pub(crate) fn unauthenticated() -> Self {
        let message = "this needs a valid key: send it as `Authorization: Bearer KEY`";
        let mut problem = Self::new(StatusCode::UNAUTHORIZED, "Unauthenticated", message);
        problem.header = Some((WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"toolbay\"")));
        problem
    }

    /// 403.
    pub(crate) fn denied(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "PermissionDenied", message)
    }

    /// 405, with the methods that there are.
    pub(crate) fn method_not_allowed(methods: &str) -> Self {
        let message = format!("this path takes {methods} only");
        let mut problem = Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message);
        problem.header = HeaderValue::from_str(methods).ok().map(|value| (ALLOW, value));
        problem
    }

    /// 413.
    pub(crate) fn too_large(allowed: usize) -> Self {
        let message = format!("the body is larger than the {allowed} bytes that are allowed here; send less at once");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "LimitExceeded", message)
    }

    /// 429 or 503, with when to come back.
    pub(crate) fn busy(status: StatusCode, kind: &'static str, message: impl Into<Cow<'static, str>>, s: u64) -> Self {
        let mut problem = Self::new(status, kind, message);
        (problem.retryable, problem.retry_after_s) = (true, Some(s.max(1)));
        problem
    }

    /// 500. What happened stands in the log.
    pub(crate) fn internal() -> Self {
        let message = "something broke down here; the operator finds it in the log by the request's id";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal", message)
    }

    /// The body, and the headers that go with it.
    pub(crate) fn render(self, request_id: &str) -> Response {
        let body = ProblemBody {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: self.message.clone().into_owned(),
            kind: self.kind,
            message: self.message.into_owned(),
            details: self.details,
            retryable: self.retryable,
            request_id: request_id.to_owned(),
        };
        let text = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if let Some((name, value)) = self.header {
            headers.insert(name, value);
        }
        response
    }
}

/// The status of an error of the host. Kinds that only a tool call has are here too, since a plugin's callback can fail
/// with them when it is switched on.
fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::NotFound => StatusCode::NOT_FOUND,
        ErrorKind::InvalidArguments => StatusCode::BAD_REQUEST,
        ErrorKind::PermissionDenied | ErrorKind::DeniedByHook | ErrorKind::ApprovalRequired => StatusCode::FORBIDDEN,
        ErrorKind::NotEnabled | ErrorKind::Conflict | ErrorKind::Dependency => StatusCode::CONFLICT,
        ErrorKind::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::NotReady | ErrorKind::Unavailable | ErrorKind::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::LimitExceeded { limit: Limit::Arguments | Limit::SourceSize, .. } => StatusCode::PAYLOAD_TOO_LARGE,
        // What was sent was understood and cannot be done: a script that does not compile, a configuration that does not
        // fit, a plugin that refuses.
        ErrorKind::LimitExceeded { .. }
        | ErrorKind::Compile
        | ErrorKind::Config
        | ErrorKind::Script
        | ErrorKind::Panic
        | ErrorKind::HookFailed => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<ToolError> for Problem {
    fn from(error: ToolError) -> Self {
        let status = status_of(error.kind);
        let detail = error.operator_detail().map(ToString::to_string).unwrap_or_default();
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(target: "toolbay::server", %error, detail, "a request failed");
            return Self::internal();
        }
        if !detail.is_empty() {
            tracing::warn!(target: "toolbay::server", %error, detail, "a request failed");
        }
        let waits = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let told = error.details.get("retry_after_s").and_then(Value::as_u64);
        Self {
            status,
            kind: error.kind.name(),
            message: error.message,
            details: error.details,
            retryable: error.retryable,
            retry_after_s: waits.then(|| told.unwrap_or(RETRY_AFTER_S).max(1)),
            header: None,
        }
    }
}

impl IntoResponse for Problem {
    /// A response without a body yet, which `envelope` completes.
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}
