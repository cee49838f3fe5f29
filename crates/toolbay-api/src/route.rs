//! HTTP routes of native plugins, without any HTTP stack: what a route is called, what it takes and gives, and its code.
//!
//! They stand apart from tools since whoever calls them is a program of the tenant, not a model: there are no hooks, and
//! a name is a method and a path. Only native plugins, which are trusted, have them.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use serde_json::Value;

use crate::{error::ToolError, host::Host, limits::Limits, names::TenantId};

/// Bytes of a route's path at most.
const MAX_PATH_BYTES: usize = 128;
/// Steps of a route's path at most.
const MAX_STEPS: usize = 8;

/// What a caller wants to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the words of HTTP")]
pub enum RouteMethod {
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl RouteMethod {
    /// Its name in HTTP.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// What a route says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteDefinition {
    /// What the caller wants to do.
    pub method: RouteMethod,
    /// Its path below the plugin: empty, or steps with `/` before each, words of `A-Z a-z 0-9 _ . -` or `{name}` for one
    /// that the caller chooses.
    pub path: String,
    /// What it does, in a sentence.
    pub summary: String,
    /// The JSON Schema of the query, an object whose values are strings. `None`: it takes none.
    pub query: Option<Value>,
    /// The JSON Schema of the body that it takes. `None`: it takes none.
    pub request: Option<Value>,
    /// The JSON Schema of the body that it gives. `None`: any.
    pub response: Option<Value>,
    /// A shorter time than the plugin's limit.
    pub timeout: Option<Duration>,
}

/// One step of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathStep<'a> {
    /// This word.
    Word(&'a str),
    /// Any word, known by this name.
    Named(&'a str),
}

impl RouteDefinition {
    /// The steps of its path.
    ///
    /// # Errors
    /// What is wrong with the path, as a sentence.
    pub fn steps(&self) -> Result<Vec<PathStep<'_>>, String> {
        let path = &self.path;
        if path.is_empty() {
            return Ok(Vec::new());
        }
        let rest = path.strip_prefix('/').ok_or_else(|| format!("the path {path:?} must begin with / or be empty"))?;
        if path.len() > MAX_PATH_BYTES || rest.split('/').count() > MAX_STEPS {
            return Err(format!("a path has at most {MAX_PATH_BYTES} bytes and {MAX_STEPS} steps"));
        }
        let mut steps: Vec<PathStep<'_>> = Vec::new();
        for step in rest.split('/') {
            let is_word = |text: &str| {
                text.bytes().any(|b| b != b'.')
                    && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
            };
            let is_name = |text: &str| {
                text.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
                    && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
            };
            let named = step.strip_prefix('{').and_then(|step| step.strip_suffix('}'));
            steps.push(match named {
                Some(name) if !is_name(name) => {
                    return Err(format!("the path {path:?}: {{{name}}} must be a name of a-z 0-9 _"));
                }
                Some(name) if steps.contains(&PathStep::Named(name)) => {
                    return Err(format!("the path {path:?} has {{{name}}} twice"));
                }
                Some(name) => PathStep::Named(name),
                None if is_word(step) => PathStep::Word(step),
                None => return Err(format!("the path {path:?}: {step:?} must be a word of A-Z a-z 0-9 _ . -")),
            });
        }
        Ok(steps)
    }
}

/// One request, as a route's code gets it.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteRequest {
    /// The tenant whose key the request came with.
    pub tenant: TenantId,
    /// The tenant's user, as the tenant calls them.
    pub user: Option<Arc<str>>,
    /// The words of the path that the caller chose, by their names.
    pub params: BTreeMap<String, String>,
    /// The query, checked.
    pub query: BTreeMap<String, String>,
    /// The body, checked; `null` where the route takes none.
    pub body: Value,
}

/// What a route gives back where it succeeded. A failure is a [`ToolError`], so that all failures look alike.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteResponse {
    /// 200 to 299.
    pub status: u16,
    /// The body; `null` is none.
    pub body: Value,
}

impl RouteResponse {
    /// 200 with a body.
    #[must_use]
    pub fn ok(body: Value) -> Self {
        Self { status: 200, body }
    }

    /// 204, without a body.
    #[must_use]
    pub fn empty() -> Self {
        Self { status: 204, body: Value::Null }
    }
}

/// What a route's code knows of the request's surroundings. Cheap to clone.
#[derive(Clone)]
pub struct RouteContext {
    /// When it ends, whatever it is doing.
    pub deadline: Instant,
    /// What it may use.
    pub limits: Arc<Limits>,
    /// The plugin's way out, for the tenant and by its grants.
    pub host: Arc<dyn Host>,
}

impl fmt::Debug for RouteContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteContext").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// A route's code. A function that takes both by value is one, too.
#[async_trait]
pub trait RouteHandler: Send + Sync {
    /// Answers one request.
    ///
    /// # Errors
    /// Whatever went wrong; the kind decides the status.
    ///
    /// # Cancel safety
    /// The future is dropped at its deadline, and where the caller goes away.
    async fn handle(&self, request: RouteRequest, cx: RouteContext) -> Result<RouteResponse, ToolError>;
}

#[async_trait]
impl<F, Fut> RouteHandler for F
where
    F: Fn(RouteRequest, RouteContext) -> Fut + Send + Sync,
    Fut: Future<Output = Result<RouteResponse, ToolError>> + Send,
{
    async fn handle(&self, request: RouteRequest, cx: RouteContext) -> Result<RouteResponse, ToolError> {
        self(request, cx).await
    }
}

/// A route and its code.
///
/// ```
/// use serde_json::json;
/// use toolbay_api::{Route, RouteContext, RouteMethod, RouteRequest, RouteResponse, plugin::NativePlugin};
///
/// let route = Route::new(RouteMethod::Get, "/orders/{id}", "One order", async |asked: RouteRequest, _: RouteContext| {
///     Ok(RouteResponse::ok(json!({ "id": asked.params["id"], "of": asked.tenant })))
/// })
/// .response(json!({ "type": "object" }));
/// let plugin = NativePlugin::new("shop", "1.0.0", "A shop")?.route(route);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Route {
    /// What it says of itself.
    pub definition: RouteDefinition,
    /// Its code.
    pub handler: Arc<dyn RouteHandler>,
}

impl Route {
    /// A route that takes neither query nor body. What is wrong with its path is told at the plugin's registration.
    pub fn new(method: RouteMethod, path: &str, summary: &str, handler: impl RouteHandler + 'static) -> Self {
        let definition = RouteDefinition {
            method,
            path: path.to_owned(),
            summary: summary.to_owned(),
            query: None,
            request: None,
            response: None,
            timeout: None,
        };
        Self { definition, handler: Arc::new(handler) }
    }

    /// Takes a query of this schema, an object of strings.
    #[must_use]
    pub fn query(mut self, schema: Value) -> Self {
        self.definition.query = Some(schema);
        self
    }

    /// Takes a JSON body of this schema.
    #[must_use]
    pub fn request(mut self, schema: Value) -> Self {
        self.definition.request = Some(schema);
        self
    }

    /// Gives a JSON body of this schema.
    #[must_use]
    pub fn response(mut self, schema: Value) -> Self {
        self.definition.response = Some(schema);
        self
    }

    /// Gives each request less time than the plugin's limit.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.definition.timeout = Some(timeout);
        self
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Route").field("definition", &self.definition).finish_non_exhaustive()
    }
}
