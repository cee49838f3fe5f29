//! A network without a network: answers by method and URL, and a record of what was asked for.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use toolbay_api::{ErrorKind, HttpSend, HttpSendContext, TenantId, ToolError};
use toolbay_http::HttpRequest;
use url::Url;

/// Requests that are kept; later ones are answered and not written down.
const MAX_RECORDED: usize = 10_000;

/// A sender of HTTP requests that sends none: it answers as told and writes down what it was asked for. Clones are the
/// same sender, so that a test keeps one and gives the other to its host.
///
/// Requests and grants are checked as by the real client: what is refused here is refused there. Addresses are not looked
/// up, redirects are not followed, nothing is ever late.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use serde_json::json;
/// use toolbay_api::Host;
/// use toolbay_testkit::{FakeAnswer, FakeHttp, TestHost};
///
/// let http = FakeHttp::new().on("GET", "https://api.example.com/rates/*", FakeAnswer::json(json!({ "usd": 1.1 })))?;
/// let host = TestHost::new().with_http(http.clone());
/// let answer = host.http(json!({ "url": "https://api.example.com/rates/eur", "query": { "day": 1 } })).await?;
/// assert_eq!((&answer["status"], &answer["body"]), (&json!(200), &json!(r#"{"usd":1.1}"#)));
/// assert_eq!(http.requests()[0].request["query"], json!({ "day": 1 }));
///
/// let error = host.http(json!({ "url": "https://api.example.com/rate" })).await.unwrap_err();
/// assert_eq!(
///     error.message,
///     "the test did not expect GET https://api.example.com/rate; it expects: GET https://api.example.com/rates/*"
/// );
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Default)]
pub struct FakeHttp(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    routes: Vec<Route>,
    requests: Vec<FakeRequest>,
    unexpected: Vec<String>,
}

/// What is answered where.
#[derive(Debug)]
struct Route {
    method: String,
    /// The URL without its query; with a `*` at the end, its beginning.
    url: String,
    answers: VecDeque<FakeAnswer>,
    was_asked: bool,
}

/// A request that was expected.
#[derive(Debug, Clone, PartialEq)]
pub struct FakeRequest {
    /// The method, in upper case.
    pub method: String,
    /// The URL in its one spelling, without its query.
    pub url: String,
    /// The query of the URL itself, without `?`; what the request has under `query` stands there.
    pub url_query: String,
    /// The request as the plugin wrote it.
    pub request: Value,
    /// On whose behalf.
    pub tenant: TenantId,
}

/// What a server answers.
#[derive(Debug, Clone)]
pub struct FakeAnswer(Result<Answer, ToolError>);

#[derive(Debug, Clone)]
struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl FakeAnswer {
    /// Status 200 with these bytes.
    #[must_use]
    pub fn bytes(body: impl Into<Vec<u8>>) -> Self {
        Self(Ok(Answer { status: 200, headers: BTreeMap::new(), body: body.into() }))
    }

    /// Status 200 with this text.
    #[must_use]
    pub fn text(body: &str) -> Self {
        Self::bytes(body).with_header("content-type", "text/plain; charset=utf-8")
    }

    /// Status 200 with this value as JSON.
    #[must_use]
    #[allow(clippy::needless_pass_by_value, reason = "written with `json!` in place, as everywhere")]
    pub fn json(body: Value) -> Self {
        Self::bytes(body.to_string()).with_header("content-type", "application/json")
    }

    /// This status without a body.
    #[must_use]
    pub fn status(status: u16) -> Self {
        Self::bytes([]).with_status(status)
    }

    /// No answer but this error, as when the server cannot be reached.
    #[must_use]
    pub fn fails(error: ToolError) -> Self {
        Self(Err(error))
    }

    /// Another status.
    #[must_use]
    pub fn with_status(self, status: u16) -> Self {
        Self(self.0.map(|answer| Answer { status, ..answer }))
    }

    /// A header field more.
    #[must_use]
    pub fn with_header(self, name: &str, value: &str) -> Self {
        Self(self.0.map(|mut answer| {
            answer.headers.insert(name.to_ascii_lowercase(), value.to_owned());
            answer
        }))
    }
}

impl FakeHttp {
    /// A network in which nothing is expected yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers requests of `method` for `url`, whatever their query. A `*` at the end of `url` stands for any rest. Where
    /// several answers are given for one method and URL, each is given once, in that order, and the last for good.
    ///
    /// # Errors
    /// `InvalidArguments` where no plugin could send such a request.
    pub fn on(self, method: &str, url: &str, answer: FakeAnswer) -> Result<Self, ToolError> {
        let (method, url, query) = spelled(method, url)?;
        if !query.is_empty() {
            let message = format!("{url}: give the URL without its query; the test can look at `requests()`");
            return Err(ToolError::new(ErrorKind::InvalidArguments, message));
        }
        let mut state = self.state();
        match state.routes.iter_mut().find(|route| route.method == method && route.url == url) {
            Some(route) => route.answers.push_back(answer),
            None => state.routes.push(Route { method, url, answers: VecDeque::from([answer]), was_asked: false }),
        }
        drop(state);
        Ok(self)
    }

    /// The requests that were expected, in the order in which they came.
    #[must_use]
    pub fn requests(&self) -> Vec<FakeRequest> {
        self.state().requests.clone()
    }

    /// The requests that were not expected, as `METHOD URL`. A plugin may have made the best of their errors.
    #[must_use]
    pub fn unexpected(&self) -> Vec<String> {
        self.state().unexpected.clone()
    }

    /// What was expected and never asked for, as `METHOD URL`.
    #[must_use]
    pub fn unasked(&self) -> Vec<String> {
        self.state().routes.iter().filter(|route| !route.was_asked).map(Route::name).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Route {
    fn name(&self) -> String {
        format!("{} {}", self.method, self.url)
    }

    fn takes(&self, method: &str, url: &str) -> bool {
        let is_there = match self.url.strip_suffix('*') {
            Some(beginning) => url.starts_with(beginning),
            None => url == self.url,
        };
        is_there && method == self.method
    }
}

impl State {
    /// Finds the answer, of the longest URL that takes the request, and writes it down.
    fn answer(&mut self, request: FakeRequest) -> Result<Answer, ToolError> {
        let FakeRequest { method, url, .. } = &request;
        let found = self.routes.iter_mut().filter(|route| route.takes(method, url)).max_by_key(|route| route.url.len());
        let Some(route) = found else {
            let asked = format!("{method} {url}");
            let expected: Vec<_> = self.routes.iter().map(Route::name).collect();
            let expected = if expected.is_empty() { "no request".to_owned() } else { expected.join(", ") };
            let message = format!("the test did not expect {asked}; it expects: {expected}");
            if self.unexpected.len() < MAX_RECORDED {
                self.unexpected.push(asked);
            }
            return Err(ToolError::new(ErrorKind::Unavailable, message).with_retryable(false));
        };
        route.was_asked = true;
        let answer = if route.answers.len() > 1 { route.answers.pop_front() } else { route.answers.front().cloned() };
        if self.requests.len() < MAX_RECORDED {
            self.requests.push(request);
        }
        let none = || ToolError::new(ErrorKind::Internal, "the route has no answer");
        answer.map_or_else(|| Err(none()), |answer| answer.0)
    }
}

/// Method and URL in their one spelling, and the query that the URL has.
fn spelled(method: &str, url: &str) -> Result<(String, String, String), ToolError> {
    let method = HttpRequest::new(method, url)?.method().to_owned();
    let parsed = Url::parse(url);
    let mut url = parsed.map_err(|error| ToolError::new(ErrorKind::InvalidArguments, format!("{url}: {error}")))?;
    let query = url.query().unwrap_or_default().to_owned();
    url.set_query(None);
    url.set_fragment(None);
    Ok((method, url.into(), query))
}

#[async_trait]
impl HttpSend for FakeHttp {
    async fn send(&self, request: Value, cx: HttpSendContext<'_>) -> Result<Value, ToolError> {
        let checked = HttpRequest::from_json(request.clone())?;
        (cx.require)(&checked.action())?;
        let given = request.get("url").and_then(Value::as_str).unwrap_or_default();
        let (method, url, url_query) = spelled(checked.method(), given)?;
        let recorded = FakeRequest { method, url: url.clone(), url_query, request, tenant: cx.tenant.clone() };
        let answer = self.state().answer(recorded)?;
        let (bytes, allowed) = (answer.body.len(), cx.max_response_bytes);
        if bytes > allowed {
            let message = format!("the server answered with {bytes} bytes, and {allowed} are allowed; ask it for less");
            return Err(ToolError::new(ErrorKind::Unavailable, message)
                .with_retryable(false)
                .with_details(json!({ "limit": "http_response_bytes", "allowed": allowed })));
        }
        let mut shown = json!({ "status": answer.status, "headers": answer.headers, "url": url });
        let (member, body) = match String::from_utf8(answer.body) {
            Ok(text) => ("body", text),
            Err(binary) => ("body_base64", STANDARD.encode(binary.as_bytes())),
        };
        if let Some(members) = shown.as_object_mut() {
            members.insert(member.to_owned(), Value::String(body));
        }
        Ok(shown)
    }
}
