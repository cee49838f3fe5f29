//! One connection to one server. Everything that comes from there is bounded: frames, pages, definitions, time.

use std::{
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rmcp::{
    RoleClient,
    model::{
        CallToolRequestParams, CallToolResult, JsonObject, MetaObject, PaginatedRequestParams, ProtocolVersion,
        RequestMetaObject,
    },
    service::{ClientInitializeError, ClientLifecycleMode, RunningService, ServiceError, serve_client_with_lifecycle},
    transport::{
        StreamableHttpClientTransport,
        async_rw::AsyncRwTransport,
        streamable_http_client::{StreamableHttpClient, StreamableHttpClientTransportConfig, StreamableHttpError},
    },
};
use serde_json::Value;

use crate::{
    child::{self, Group},
    handler::{Answerer, Handler},
    http::HttpPolicy,
    server_file::{Place, ReadyAuth},
    sign_in::{self, SignIn, Wanted},
};

/// Where a server finds a call's idempotency key in the request's `_meta`.
const KEY: &str = "toolbay/idempotency-key";

/// Pages of a list, tools in it, and bytes of one definition.
const MAX_PAGES: usize = 50;
const MAX_TOOLS: usize = 1_000;
const MAX_DEFINITION: usize = 128 * 1024;
/// How long a list may take in all.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);

/// Which revisions of the protocol are spoken.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Revisions {
    /// The newest that both sides know.
    #[default]
    Newest,
    /// Just this one, by its date.
    Only(String),
}

/// How a connection is made.
#[derive(Clone)]
pub struct LinkOptions {
    /// What the server is called in logs.
    pub label: Arc<str>,
    /// Where requests may go.
    pub http: HttpPolicy,
    /// Which revisions are spoken.
    pub revisions: Revisions,
    /// How long the beginning may take.
    pub open_timeout: Duration,
    /// Bytes of one message of the server.
    pub max_message_bytes: usize,
    /// Who answers what the server asks; nobody, and the server is told so, where it is left out.
    pub answerer: Option<Arc<dyn Answerer>>,
    /// How to sign in with a user, where the server asks for it.
    pub sign_in: Option<Arc<SignIn>>,
    /// Why to sign in anew, where signing in as before was not enough.
    pub wanted: Option<Wanted>,
}

impl Default for LinkOptions {
    /// To public addresses, in any revision, 20 seconds, 4 MiB, nobody who answers or signs in.
    fn default() -> Self {
        Self {
            label: "server".into(),
            http: HttpPolicy::default(),
            revisions: Revisions::Newest,
            open_timeout: Duration::from_secs(20),
            max_message_bytes: 4 * 1024 * 1024,
            answerer: None,
            sign_in: None,
            wanted: None,
        }
    }
}

/// Why there is no connection, or no answer in it. The texts may quote the server and are for operators.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// It is not allowed.
    #[error("{0}")]
    Refused(String),
    /// The server is not there, or broke off.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// The server wants to know who is calling.
    #[error("the server wants its caller to sign in")]
    SignInNeeded(Wanted),
    /// Signing in did not work.
    #[error("signing in failed: {0}")]
    SignInFailed(String),
    /// The server does not speak as the protocol has it, or says too much.
    #[error("the server does not keep to the protocol: {0}")]
    Broken(String),
    /// The server answered with an error of the protocol.
    #[error("the server answered with the error {code}: {message}")]
    Error {
        /// The code.
        code: i32,
        /// The server's words, cut.
        message: String,
    },
    /// It took too long.
    #[error("the server did not answer in time")]
    TimedOut,
}

/// A tool as a server offers it.
#[derive(Debug, Clone, PartialEq)]
pub struct Offered {
    /// Its name.
    pub name: String,
    /// What it does, in the server's words.
    pub description: String,
    /// Its parameters.
    pub parameters: Value,
    /// Its result, where the server says.
    pub output: Option<Value>,
}

/// One connection to one server; it ends when it is dropped.
pub struct Link {
    running: RunningService<RoleClient, Handler>,
    changed: Arc<AtomicBool>,
    /// Killed when it is dropped.
    _process: Option<Group>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").finish_non_exhaustive()
    }
}

impl Link {
    /// Connects to `place`.
    ///
    /// # Errors
    /// [`LinkError`] by what went wrong.
    ///
    /// # Cancel safety
    /// Dropping the future closes what was opened.
    pub async fn open(place: &Place, options: &LinkOptions) -> Result<Self, LinkError> {
        let opened = tokio::time::timeout(options.open_timeout, Self::open_slowly(place, options)).await;
        opened.unwrap_or(Err(LinkError::TimedOut))
    }

    async fn open_slowly(place: &Place, options: &LinkOptions) -> Result<Self, LinkError> {
        match place {
            Place::Command { command, args, env } => {
                let started = child::start(&options.label, command, args, env)?;
                let transport = AsyncRwTransport::<RoleClient, _, _>::new(started.output, started.input)
                    .with_max_line_length(options.max_message_bytes);
                let (handler, changed) = handler(options);
                let running = serve_client_with_lifecycle(handler, transport, lifecycle(&options.revisions)?).await;
                let running = running.map_err(|error| not_begun(&error))?;
                Ok(Self { running, changed, _process: Some(started.group) })
            }
            Place::Http { url, auth } => {
                options.http.check(url)?;
                let client = options.http.client()?;
                let http = || (client.clone(), options.http.clone());
                let mut config = StreamableHttpClientTransportConfig::with_uri(url.as_str());
                config.max_sse_event_size = options.max_message_bytes;
                match (auth, &options.sign_in) {
                    (Some(ReadyAuth::Bearer(token)), _) => {
                        config.auth_header = Some(token.expose().to_owned());
                        Self::call_at(client, config, options).await
                    }
                    (Some(ReadyAuth::ClientCredentials { client_id, client_secret, scopes }), _) => {
                        let client = sign_in::with_credentials(url, http(), client_id, client_secret, scopes).await?;
                        Self::call_at(client, config, options).await
                    }
                    (None, Some(sign_in)) => {
                        let client = sign_in.client(url, http(), options.wanted.as_ref()).await?;
                        Self::call_at(client, config, options).await
                    }
                    (None, None) => Self::call_at(client, config, options).await,
                }
            }
        }
    }

    async fn call_at(
        client: impl StreamableHttpClient + Sync,
        config: StreamableHttpClientTransportConfig,
        options: &LinkOptions,
    ) -> Result<Self, LinkError> {
        let (handler, changed) = handler(options);
        let transport = StreamableHttpClientTransport::with_client(client, config);
        let running = serve_client_with_lifecycle(handler, transport, lifecycle(&options.revisions)?).await;
        Ok(Self { running: running.map_err(|error| not_begun(&error))?, changed, _process: None })
    }

    /// All tools that the server has. An empty list where it says that it has none.
    ///
    /// # Errors
    /// [`LinkError::Broken`] where they are more than anybody needs, or two have one name.
    ///
    /// # Cancel safety
    /// Dropping the future gives up.
    pub async fn tools(&self) -> Result<Vec<Offered>, LinkError> {
        // Before it is asked: what changes in between is seen the next time.
        self.changed.store(false, Ordering::SeqCst);
        tokio::time::timeout(LIST_TIMEOUT, self.all_pages()).await.unwrap_or(Err(LinkError::TimedOut))
    }

    async fn all_pages(&self) -> Result<Vec<Offered>, LinkError> {
        let mut all: Vec<Offered> = Vec::new();
        let mut cursor = None;
        for _ in 0..MAX_PAGES {
            let params = PaginatedRequestParams::default().with_cursor(cursor);
            let page = self.running.list_tools(Some(params)).await.map_err(|error| failed(&error))?;
            for tool in page.tools {
                let offered = Offered {
                    name: tool.name.into_owned(),
                    description: tool.description.unwrap_or_default().into_owned(),
                    parameters: Value::Object(JsonObject::clone(&tool.input_schema)),
                    output: tool.output_schema.map(|schema| Value::Object(JsonObject::clone(&schema))),
                };
                let bytes = offered.name.len()
                    + offered.description.len()
                    + offered.parameters.to_string().len()
                    + offered.output.as_ref().map_or(0, |output| output.to_string().len());
                if bytes > MAX_DEFINITION {
                    return Err(LinkError::Broken(format!("a tool's definition has {bytes} bytes")));
                }
                if all.iter().any(|other| other.name == offered.name) {
                    return Err(LinkError::Broken("two of its tools have one name".to_owned()));
                }
                all.push(offered);
                if all.len() > MAX_TOOLS {
                    return Err(LinkError::Broken(format!("it has more than {MAX_TOOLS} tools")));
                }
            }
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok(all);
            }
        }
        Err(LinkError::Broken(format!("its list of tools has more than {MAX_PAGES} pages")))
    }

    /// Calls a tool. A tool that failed is a result. `key` is the call's idempotency key, which the server finds in the
    /// request's `_meta` as `toolbay/idempotency-key`.
    ///
    /// # Errors
    /// [`LinkError`] where there is no result.
    ///
    /// # Cancel safety
    /// Dropping the future tells the server that the call is cancelled.
    pub async fn call(
        &self,
        tool: &str,
        arguments: JsonObject,
        key: Option<&str>,
    ) -> Result<CallToolResult, LinkError> {
        let mut params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
        if let Some(key) = key {
            let mut meta = JsonObject::new();
            meta.insert(KEY.to_owned(), Value::from(key));
            params.meta = Some(RequestMetaObject(MetaObject(meta)));
        }
        self.running.call_tool(params).await.map_err(|error| failed(&error))
    }

    /// Whether the server has said that its tools changed since they were listed last.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        self.changed.load(Ordering::SeqCst)
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.running.peer().is_transport_closed()
    }

    /// Ends the connection in order.
    pub async fn close(self) {
        let _ = tokio::time::timeout(Duration::from_secs(2), self.running.cancel()).await;
    }
}

fn handler(options: &LinkOptions) -> (Handler, Arc<AtomicBool>) {
    let changed = Arc::new(AtomicBool::new(false));
    let handler = Handler {
        label: Arc::clone(&options.label),
        answerer: options.answerer.clone(),
        changed: Arc::clone(&changed),
    };
    (handler, changed)
}

fn lifecycle(revisions: &Revisions) -> Result<ClientLifecycleMode, LinkError> {
    let newest = ProtocolVersion::V_2026_07_28;
    Ok(match revisions {
        Revisions::Newest => ClientLifecycleMode::Auto { preferred_versions: vec![newest], legacy_version: None },
        Revisions::Only(date) => {
            let version: ProtocolVersion = serde_json::from_value(Value::String(date.clone()))
                .map_err(|_| LinkError::Refused(format!("{date:?} is no revision of the protocol")))?;
            if version.as_str() >= newest.as_str() {
                ClientLifecycleMode::Discover { preferred_versions: vec![version] }
            } else {
                ClientLifecycleMode::Initialize
            }
        }
    })
}

fn not_begun(error: &ClientInitializeError) -> LinkError {
    match error {
        ClientInitializeError::TransportError { error, .. } => of_transport(&*error.error),
        ClientInitializeError::JsonRpcError(error) => of_server(error),
        ClientInitializeError::ConnectionClosed(_) => {
            LinkError::Unreachable("it ended before the conversation began".to_owned())
        }
        other => LinkError::Broken(cut(&other.to_string())),
    }
}

fn failed(error: &ServiceError) -> LinkError {
    match error {
        ServiceError::McpError(error) => of_server(error),
        ServiceError::TransportSend(error) => of_transport(&*error.error),
        ServiceError::TransportClosed => LinkError::Unreachable("the connection ended".to_owned()),
        ServiceError::Timeout { .. } => LinkError::TimedOut,
        other => LinkError::Broken(cut(&other.to_string())),
    }
}

fn of_server(error: &rmcp::ErrorData) -> LinkError {
    LinkError::Error { code: error.code.0, message: cut(&error.message) }
}

/// What became of a request by HTTP; the rest are pipes that broke.
fn of_transport(error: &(dyn Error + 'static)) -> LinkError {
    let mut cause = Some(error);
    while let Some(error) = cause {
        match error.downcast_ref::<StreamableHttpError<reqwest::Error>>() {
            Some(StreamableHttpError::AuthRequired(needed)) => {
                let challenge = Some(needed.www_authenticate_header.clone());
                return LinkError::SignInNeeded(Wanted { challenge, scopes: Vec::new() });
            }
            Some(StreamableHttpError::InsufficientScope(needed)) => {
                let scopes = needed.required_scope.as_deref().unwrap_or_default();
                let scopes = scopes.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned).collect();
                let challenge = Some(needed.www_authenticate_header.clone());
                return LinkError::SignInNeeded(Wanted { challenge, scopes });
            }
            Some(StreamableHttpError::ResponseBodyTooLarge { max_size }) => {
                return LinkError::Broken(format!("its answer has more than {max_size} bytes"));
            }
            _ => {}
        }
        cause = error.source();
    }
    LinkError::Unreachable(cut(&error.to_string()))
}

/// What a server wrote, as much of it as a log needs.
fn cut(text: &str) -> String {
    text.chars().take(500).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
