//! The handler: what MCP's requests mean for one tenant's session.
//!
//! It holds no state of a conversation beside the session and the level of a client's log, so that the same value serves
//! a stdio client for hours and a single stateless HTTP request. Who the tenant is was decided before it was made; nothing
//! in a request can change it.
//!
//! # Layout
//!
//! - this file: capabilities, and each request put where it belongs.
//! - `calls`: everything that is made by a tool, with its progress, its questions and its end; `told`: its span. `job`: one
//!   call, and what becomes of it as a task.

mod calls;
mod job;
mod told;

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CacheScope, CallToolRequestParams, CallToolResponse, CancelTaskParams, CompleteRequestParams, CompleteResult,
        CustomRequest, CustomResult, DiscoverResult, ErrorCode, GetPromptRequestParams, GetPromptResponse,
        GetTaskParams, GetTaskResult, Implementation, InitializeRequestParams, InitializeResult, ListPromptsResult,
        ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, LoggingLevel, PaginatedRequestParams,
        ReadResourceRequestParams, ReadResourceResponse, ServerCapabilities, ServerConfig, SetLevelRequestParams,
        SubscribeRequestParams, SubscriptionFilter, Tool, UnsubscribeRequestParams, UpdateTaskParams,
    },
    service::{NotificationContext, RequestContext, SubscriptionContext},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use toolbay_runtime::{Session, ToolInfo};
use tracing::Instrument;

use crate::{
    changes::{self, Eyes, Watched},
    options::{ServerOptions, Shared},
    owner::Owner,
    prompts, resources,
    state::Seal,
    tasks::Tasks,
    tools::{self, Revision},
};

/// Tools, prompts or resources on one page of a list.
const PAGE_SIZE: usize = 200;

/// How long a client may go on using a list, in milliseconds. Short, since a plugin can come and go at any time and a
/// client need not listen for it.
const LIST_TTL_MS: u64 = 5_000;

/// How long a client may go on using the answer to `server/discover`, in milliseconds: it changes with the binary.
const DISCOVER_TTL_MS: u64 = 60_000;

/// Resources that one client may watch.
const MAX_WATCHED: usize = 100;

const INSTRUCTIONS: &str = "A tool call that fails comes back as a result marked as an error. Its text begins with the \
                            kind of error and says what to change: after InvalidArguments repair the arguments and \
                            call again, after RateLimited, TimedOut or Unavailable try later, after other kinds do \
                            not repeat the same call.";

/// One tenant's tools, prompts and resources as an MCP server.
#[derive(Clone)]
pub struct McpServer {
    session: Session,
    shared: Arc<Shared>,
    client: Arc<Client>,
}

/// What is known of one client that began with `initialize`; nothing is for others.
struct Client {
    level: Mutex<LoggingLevel>,
    watched: Watched,
    is_told: AtomicBool,
    /// Opened before a client is told that it is heard, and taken by what tells it of changes.
    eyes: Mutex<Option<Eyes>>,
    gone: CancellationToken,
    /// Ends what waits for changes on the client's behalf, when the last clone of the server is dropped.
    _gone_when_dropped: DropGuard,
    /// Ends the client's tasks then, where it has the server for itself.
    _tasks_end: Option<DropGuard>,
}

impl McpServer {
    /// Serves what `session` sees.
    #[must_use]
    pub fn new(session: Session) -> Self {
        Self::with_options(session, ServerOptions::default())
    }

    /// The same within other bounds. Its tasks end with the last clone of it.
    #[must_use]
    pub fn with_options(session: Session, options: ServerOptions) -> Self {
        let stop = CancellationToken::new();
        let shared = Shared::new(options, Seal::of_this_process(), stop.clone());
        Self::made(session, Arc::new(shared), Some(stop.drop_guard()))
    }

    /// For one of several clients, who have tasks and results in common, each its own.
    pub(crate) fn sharing(session: Session, shared: Arc<Shared>) -> Self {
        Self::made(session, shared, None)
    }

    /// The calls that went on as tasks.
    pub(crate) fn tasks(&self) -> Arc<Tasks> {
        Arc::clone(&self.shared.tasks)
    }

    fn made(session: Session, shared: Arc<Shared>, tasks_end: Option<DropGuard>) -> Self {
        let gone = CancellationToken::new();
        let client = Client {
            level: Mutex::new(LoggingLevel::Info),
            watched: Watched::default(),
            is_told: AtomicBool::new(false),
            eyes: Mutex::default(),
            _gone_when_dropped: gone.clone().drop_guard(),
            gone,
            _tasks_end: tasks_end,
        };
        Self { session, shared, client: Arc::new(client) }
    }

    /// The tool that a client calls `name`: qualified, as listed, or in the form that model providers accept.
    fn find(&self, name: &str) -> Option<ToolInfo> {
        self.session.tool(name)
    }

    fn open_eyes(&self, watched: Watched) {
        let eyes = Eyes::open(self.session.clone(), watched);
        *self.client.eyes.lock().unwrap_or_else(PoisonError::into_inner) = Some(eyes);
    }

    /// The eyes that were opened last, where they are on the same resources. Those of another subscription of the same client
    /// may have seen less: then it is told of a change that it knows.
    fn eyes(&self, watched: Watched) -> Eyes {
        let opened = self.client.eyes.lock().unwrap_or_else(PoisonError::into_inner).take();
        opened.filter(|eyes| eyes.are_on(&watched)).unwrap_or_else(|| Eyes::open(self.session.clone(), watched))
    }
}

impl ServerHandler for McpServer {
    fn get_info(&self) -> ServerConfig {
        let server = Implementation::new("toolbay", env!("CARGO_PKG_VERSION")).with_title("Toolbay");
        let capabilities = ServerCapabilities::builder()
            .enable_logging()
            .enable_completions()
            .enable_prompts()
            .enable_prompts_list_changed()
            .enable_resources()
            .enable_resources_list_changed()
            .enable_resources_subscribe()
            .enable_tools()
            .enable_tool_list_changed()
            .enable_tasks()
            .build();
        ServerConfig::new(capabilities).with_server_info(server).with_instructions(INSTRUCTIONS)
    }

    async fn discover(&self, _: RequestContext<RoleServer>) -> Result<DiscoverResult, ErrorData> {
        let versions = self.supported_protocol_versions().into_owned();
        Ok(DiscoverResult::from_server_info(versions, self.get_info())
            .with_ttl_ms(DISCOVER_TTL_MS)
            .with_cache_scope(CacheScope::Private))
    }

    async fn initialize(
        &self,
        params: InitializeRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<InitializeResult, ErrorData> {
        let mut answer = self.negotiate_initialize(&params)?;
        // Whoever begins so speaks a revision without extensions.
        answer.capabilities.extensions = None;
        context.peer.set_peer_info(params);
        self.open_eyes(Arc::clone(&self.client.watched));
        Ok(answer)
    }

    /// A client of an older revision is told of changes from `initialize` on without asking for it.
    async fn on_initialized(&self, context: NotificationContext<RoleServer>) {
        if self.client.is_told.swap(true, Ordering::SeqCst) {
            return;
        }
        let eyes = self.eyes(Arc::clone(&self.client.watched));
        let (peer, gone) = (context.peer, self.client.gone.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = gone.cancelled() => {}
                () = changes::tell_older(eyes, peer) => {}
            }
        });
    }

    async fn set_level(&self, params: SetLevelRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        *self.client.level.lock().unwrap_or_else(PoisonError::into_inner) = params.level;
        Ok(())
    }

    async fn list_tools(
        &self,
        params: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let revision = Revision::of(context.protocol_version().as_ref());
        let name = |info: &ToolInfo| info.definition.name.to_string();
        let (page, next_cursor) = tools::page(self.session.tools(), name, params.as_ref(), PAGE_SIZE)?;
        let mut result =
            ListToolsResult::with_all_items(page.iter().map(|info| tools::definition(info, revision)).collect());
        result.next_cursor = next_cursor;
        Ok(match revision {
            Revision::ObjectsOnly => result,
            // Private, since each tenant and user sees a list of their own.
            Revision::AnyValue => result.with_ttl_ms(LIST_TTL_MS).with_cache_scope(CacheScope::Private),
        })
    }

    /// Asked by the HTTP transport, which checks a call's headers against the schema.
    fn get_tool(&self, name: &str) -> Option<Tool> {
        self.find(name).map(|info| tools::definition(&info, Revision::AnyValue))
    }

    /// Takes the call down the road.
    ///
    /// An unknown tool is an error of the protocol, as MCP asks for; arguments that do not fit and all else that can go
    /// wrong are results, so that the model reads them and can repair its call.
    ///
    /// # Cancel safety
    /// Dropping the future cancels the call, and so does the client's `notifications/cancelled` or its going away.
    async fn call_tool(
        &self,
        params: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let span = told::call(&self.session, &params.name, &context);
        self.answer_call(params, context).instrument(span).await
    }

    async fn get_task(&self, params: GetTaskParams, _: RequestContext<RoleServer>) -> Result<GetTaskResult, ErrorData> {
        let task = self.shared.tasks.get(&Owner::of(&self.session), &params.task_id)?;
        Ok(GetTaskResult::new(task))
    }

    async fn update_task(&self, params: UpdateTaskParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        self.shared.tasks.update(&Owner::of(&self.session), &params.task_id, params.input_responses)
    }

    async fn cancel_task(&self, params: CancelTaskParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        self.shared.tasks.cancel(&Owner::of(&self.session), &params.task_id)
    }

    async fn list_prompts(
        &self,
        params: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListPromptsResult, ErrorData> {
        let all = self.session.prompts();
        let (page, next_cursor) = tools::page(all, |info| info.name.to_string(), params.as_ref(), PAGE_SIZE)?;
        let mut result = ListPromptsResult::with_all_items(page.iter().map(prompts::definition).collect());
        result.next_cursor = next_cursor;
        Ok(match Revision::of(context.protocol_version().as_ref()) {
            Revision::ObjectsOnly => result,
            Revision::AnyValue => result.with_ttl_ms(LIST_TTL_MS).with_cache_scope(CacheScope::Private),
        })
    }

    async fn get_prompt(
        &self,
        params: GetPromptRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<GetPromptResponse, ErrorData> {
        self.answer_prompt(params, context).await
    }

    async fn complete(
        &self,
        params: CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        prompts::complete(&self.session, &params)
    }

    async fn list_resources(
        &self,
        params: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let all = self.session.resources().into_iter().filter(|info| !info.declaration.is_template()).collect();
        let (page, next_cursor) = tools::page(all, |info| info.name.to_string(), params.as_ref(), PAGE_SIZE)?;
        let mut result = ListResourcesResult::with_all_items(page.iter().map(resources::definition).collect());
        result.next_cursor = next_cursor;
        Ok(match Revision::of(context.protocol_version().as_ref()) {
            Revision::ObjectsOnly => result,
            Revision::AnyValue => result.with_ttl_ms(LIST_TTL_MS).with_cache_scope(CacheScope::Private),
        })
    }

    async fn list_resource_templates(
        &self,
        params: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let all = self.session.resources().into_iter().filter(|info| info.declaration.is_template()).collect();
        let (page, next_cursor) = tools::page(all, |info| info.name.to_string(), params.as_ref(), PAGE_SIZE)?;
        let mut result = ListResourceTemplatesResult::with_all_items(page.iter().map(resources::template).collect());
        result.next_cursor = next_cursor;
        Ok(match Revision::of(context.protocol_version().as_ref()) {
            Revision::ObjectsOnly => result,
            Revision::AnyValue => result.with_ttl_ms(LIST_TTL_MS).with_cache_scope(CacheScope::Private),
        })
    }

    async fn read_resource(
        &self,
        params: ReadResourceRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        self.answer_read(params, context).await
    }

    /// Resources are watched as far as they are there and within the bound; lists always.
    fn accepted_subscription_filter(&self, requested: &SubscriptionFilter) -> Option<SubscriptionFilter> {
        let mut accepted = requested.clone();
        if let Some(uris) = &mut accepted.resource_subscriptions {
            uris.truncate(MAX_WATCHED);
            uris.retain(|uri| resources::find(&self.session, uri).is_some());
        }
        self.open_eyes(changes::watch(&self.session, accepted.resource_subscriptions.as_deref().unwrap_or_default()));
        Some(accepted)
    }

    async fn listen(&self, context: SubscriptionContext) -> Result<(), ErrorData> {
        let sink = context.sink().clone();
        let uris = sink.accepted().resource_subscriptions.clone().unwrap_or_default();
        let eyes = self.eyes(changes::watch(&self.session, &uris));
        let end = self.client.gone.clone();
        tokio::select! {
            () = context.cancelled() => {}
            () = end.cancelled() => {}
            () = changes::tell_newer(eyes, sink) => {}
        }
        Ok(())
    }

    async fn subscribe(&self, params: SubscribeRequestParams, _: RequestContext<RoleServer>) -> Result<(), ErrorData> {
        if resources::find(&self.session, &params.uri).is_none() {
            return Err(resources::not_found(&params.uri));
        }
        let mut watched = self.client.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.iter().any(|(uri, _)| *uri == params.uri) {
            return Ok(());
        }
        if watched.len() >= MAX_WATCHED {
            let message = format!("a client may watch {MAX_WATCHED} resources; unsubscribe from one first");
            return Err(ErrorData::invalid_params(message, None));
        }
        let mark = changes::mark_of(&self.session, &params.uri);
        watched.push((params.uri, mark));
        Ok(())
    }

    async fn unsubscribe(
        &self,
        params: UnsubscribeRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<(), ErrorData> {
        self.client.watched.lock().unwrap_or_else(PoisonError::into_inner).retain(|(uri, _)| *uri != params.uri);
        Ok(())
    }

    /// A request of no method that we know, or one whose parameters could not be read at all.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        _: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        Err(match request.method.as_str() {
            "tools/call" => {
                ErrorData::invalid_params("tools/call takes a string `name` and an object `arguments`", None)
            }
            "prompts/get" => {
                ErrorData::invalid_params("prompts/get takes a string `name` and an object `arguments`", None)
            }
            "resources/read" => ErrorData::invalid_params("resources/read takes a string `uri`", None),
            "completion/complete" => ErrorData::invalid_params("completion/complete takes `ref` and `argument`", None),
            "tasks/get" | "tasks/cancel" => {
                ErrorData::invalid_params("tasks/get and tasks/cancel take a string `taskId`", None)
            }
            "tasks/update" => {
                ErrorData::invalid_params("tasks/update takes a string `taskId` and an object `inputResponses`", None)
            }
            "tools/list" | "prompts/list" | "resources/list" | "resources/templates/list" => {
                ErrorData::invalid_params("the list takes an optional string `cursor`", None)
            }
            _ => ErrorData::new(ErrorCode::METHOD_NOT_FOUND, "the method is not known here", None),
        })
    }
}
