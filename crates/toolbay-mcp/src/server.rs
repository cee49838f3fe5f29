//! The handler: what MCP's requests mean for one tenant's session.
//!
//! It holds no state beside the session, so that the same value serves a stdio client for hours and a single stateless
//! HTTP request. Who the tenant is was decided before it was made; nothing in a request can change it.

use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CacheScope, CallToolRequestParams, CallToolResponse, CustomRequest, CustomResult, DiscoverResult, ErrorCode,
        Implementation, ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
    },
    service::RequestContext,
};
use serde_json::Value;
use toolbay_runtime::{Session, ToolInfo};

use crate::tools::{self, Revision};

/// Tools on one page of `tools/list`.
const PAGE_SIZE: usize = 200;

/// How long a client may go on using a tool list, in milliseconds. Short, since a plugin can come and go at any time
/// and clients are not told of it yet.
const LIST_TTL_MS: u64 = 5_000;

/// How long a client may go on using the answer to `server/discover`, in milliseconds: it changes with the binary.
const DISCOVER_TTL_MS: u64 = 60_000;

const INSTRUCTIONS: &str = "A tool call that fails comes back as a result marked as an error. Its text begins with the \
                            kind of error and says what to change: after InvalidArguments repair the arguments and \
                            call again, after RateLimited, TimedOut or Unavailable try later, after other kinds do \
                            not repeat the same call.";

/// One tenant's tools as an MCP server.
#[derive(Clone)]
pub struct McpServer {
    session: Session,
}

impl McpServer {
    /// Serves what `session` sees.
    #[must_use]
    pub fn new(session: Session) -> Self {
        Self { session }
    }

    /// The tool that a client calls `name`: qualified, as listed, or in the form that model providers accept.
    fn find(&self, name: &str) -> Option<ToolInfo> {
        let mut tools = self.session.tools().into_iter();
        tools.find(|info| info.definition.name == name || &*info.provider_name == name)
    }
}

impl ServerHandler for McpServer {
    fn get_info(&self) -> ServerConfig {
        let server = Implementation::new("toolbay", env!("CARGO_PKG_VERSION")).with_title("Toolbay");
        // `listChanged` stays unsaid until such a notification is really sent.
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(server)
            .with_instructions(INSTRUCTIONS)
    }

    async fn discover(&self, _: RequestContext<RoleServer>) -> Result<DiscoverResult, ErrorData> {
        let versions = self.supported_protocol_versions().into_owned();
        Ok(DiscoverResult::from_server_info(versions, self.get_info())
            .with_ttl_ms(DISCOVER_TTL_MS)
            .with_cache_scope(CacheScope::Private))
    }

    async fn list_tools(
        &self,
        params: Option<PaginatedRequestParams>,
        context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let revision = Revision::of(context.protocol_version().as_ref());
        let (page, next_cursor) = tools::page(self.session.tools(), params.as_ref(), PAGE_SIZE)?;
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
        let revision = Revision::of(context.protocol_version().as_ref());
        let arguments = Value::Object(params.arguments.unwrap_or_default());
        let reply = tokio::select! {
            reply = self.session.call(&params.name, arguments) => reply,
            // Nobody reads this answer: the client gave up or is gone.
            () = context.ct.cancelled() => return Err(ErrorData::internal_error("the call was cancelled", None)),
        };
        // A tool that the tenant or the user may not see must look just like one that does not exist, whatever the road
        // refused the call for. A tool's own `NotFound` (of a record, say) is told apart by the tool's being there.
        if reply.is_error() && self.find(&params.name).is_none() {
            return Err(unknown_tool(&params.name));
        }
        Ok(tools::result(reply, revision, || self.find(&params.name)).into())
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
            "tools/list" => ErrorData::invalid_params("tools/list takes an optional string `cursor`", None),
            _ => ErrorData::new(ErrorCode::METHOD_NOT_FOUND, "the method is not known here", None),
        })
    }
}

/// The name is the client's own; only as much of it is given back as a name can have.
fn unknown_tool(name: &str) -> ErrorData {
    let name: String = name.chars().take(128).collect();
    ErrorData::invalid_params(format!("Unknown tool: {name}; tools/list has those that there are"), None)
}
