//! The line that each request leaves in the host's log, also where it was refused or given up.

use std::time::Instant;

use toolbay_api::{TenantId, ToolError};

use crate::{limits::HttpCall, request::HttpRequest, response::HttpResponse};

/// One line, written on drop. It holds no path, query, header value or body, since each of them may be a secret.
pub(super) struct Line {
    tenant: TenantId,
    method: String,
    host: String,
    begun: Instant,
    /// The status of the last answer; 0 where there was none.
    pub(super) status: u16,
    /// Bytes of the body that were read.
    pub(super) bytes: usize,
    pub(super) redirects: usize,
    outcome: &'static str,
    cause: Option<String>,
}

impl Line {
    pub(super) fn begin(request: &HttpRequest, call: &HttpCall<'_>) -> Self {
        Self {
            tenant: call.tenant.clone(),
            method: request.method().to_owned(),
            host: request.authority(),
            begun: Instant::now(),
            status: 0,
            bytes: 0,
            redirects: 0,
            outcome: "given up",
            cause: None,
        }
    }

    pub(super) fn end(mut self, result: &Result<HttpResponse, ToolError>) {
        match result {
            Ok(_) => self.outcome = "answered",
            Err(error) => {
                self.outcome = error.kind.name();
                self.cause = error.operator_detail().map(ToString::to_string);
            }
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        tracing::info!(
            tenant = %self.tenant,
            host = self.host,
            method = self.method,
            status = self.status,
            bytes = self.bytes,
            ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX),
            redirects = self.redirects,
            outcome = self.outcome,
            cause = self.cause,
            "http request of a plugin"
        );
    }
}
