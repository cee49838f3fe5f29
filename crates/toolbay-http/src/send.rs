//! The client as hosts take it: [`HttpSend`], with requests and answers in their JSON forms.

use serde_json::Value;
use toolbay_api::{HttpSend, HttpSendContext, ToolError, async_trait, reach::Require};

use crate::{allow::Allow, client::HttpClient, limits::HttpCall, request::HttpRequest};

/// The host's question to the grants. A newtype, since the plain function type would overlap with the blanket
/// implementation for predicates.
struct Asked<'a>(&'a Require<'a>);

impl Allow for Asked<'_> {
    fn require(&self, action: &str) -> Result<(), ToolError> {
        (self.0)(action)
    }
}

#[async_trait]
impl HttpSend for HttpClient {
    async fn send(&self, request: Value, cx: HttpSendContext<'_>) -> Result<Value, ToolError> {
        let request = HttpRequest::from_json(request)?;
        let call = HttpCall {
            tenant: cx.tenant,
            allow: &Asked(cx.require),
            deadline: cx.deadline,
            max_response_bytes: cx.max_response_bytes,
        };
        Self::send(self, request, call).await.map(|response| response.to_json())
    }
}
