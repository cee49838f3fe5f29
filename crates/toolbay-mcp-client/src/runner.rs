//! `McpRunner`: plugins that are MCP servers.

use std::sync::Arc;

use rmcp::model::{CallToolResult, ContentBlock, JsonObject, ResourceContents};
use serde_json::Value;
use toolbay_api::{
    Callback, CallbackContext, Content, Document, DocumentBody, ErrorKind, LoadError, Package, Plugin, PluginContext,
    PluginMetadata, Runner, RuntimeKind, Scope, Tool, ToolContext, ToolDefinition, ToolError, ToolOutput, async_trait,
};

use crate::{
    http::HttpPolicy,
    link::{LinkError, LinkOptions},
    pins::{self, Pin, Pins},
    pool::Pool,
    server_file::{self, ServerFile},
};

/// Characters of what a server says of a failed call.
const MAX_FAILURE: usize = 4_000;

/// Loads plugins with `runtime = "mcp"`.
///
/// A plugin needs the permission for its way to the server, by the host's grant too: `process:start:PROGRAM` for one that
/// is started, `http:POST:HOST` for one that is called. A tenant's own plugin cannot start programs at all, unless the host
/// says so: they would run with the host's rights.
#[derive(Default)]
pub struct McpRunner {
    http: HttpPolicy,
    tenants_may_start: bool,
}

impl McpRunner {
    /// Opens addresses to servers besides public ones.
    #[must_use]
    pub fn with_http(mut self, http: HttpPolicy) -> Self {
        self.http = http;
        self
    }

    /// Lets tenants' own plugins start programs on this machine, as this user. Only for hosts whose tenants are trusted
    /// with that.
    #[must_use]
    pub fn tenants_may_start_programs(mut self) -> Self {
        self.tenants_may_start = true;
        self
    }
}

#[async_trait]
impl Runner for McpRunner {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Mcp
    }

    async fn load(&self, package: &Package, cx: &PluginContext) -> Result<Arc<dyn Plugin>, LoadError> {
        let config = |message: String| LoadError::new(ErrorKind::Config, message);
        let manifest = package.manifest.as_ref().ok_or_else(|| config("an MCP plugin needs plugin.toml".to_owned()))?;
        let asset = |name: &str| {
            let found = package.assets.get(name);
            found.map_err(|_| config(format!("assets/{name} is missing: `toolbay mcp add` writes it")))
        };
        let file = ServerFile::parse(asset(server_file::FILE)?.bytes())?;
        let pins = Pins::parse(asset(pins::FILE)?.bytes())
            .map_err(|error| config(error.to_string()).in_file(format!("assets/{}", pins::FILE)))?;
        let action = file.action();
        if !manifest.permissions.covers(&action) || !cx.grants.covers(&action) {
            let message =
                format!("the plugin needs the permission {action}: it has to ask for it, and the host to grant it");
            return Err(LoadError::new(ErrorKind::PermissionDenied, message));
        }
        match &file.url {
            Some(url) => {
                self.http.check(url).map_err(|error| LoadError::new(ErrorKind::PermissionDenied, error.to_string()))?;
            }
            None if matches!(cx.scope, Scope::Tenant(_)) && !self.tenants_may_start => {
                let message = "a tenant's plugin cannot start programs on this host: give the server an address";
                return Err(LoadError::new(ErrorKind::PermissionDenied, message));
            }
            None => {}
        }
        let options =
            LinkOptions { label: manifest.name.as_str().into(), http: self.http.clone(), ..LinkOptions::default() };
        let pins = Arc::new(pins);
        let pool = Arc::new(Pool::new(file, Arc::clone(&pins), options));
        let tool = |pin: &Pin| {
            let (definition, theirs) = (pin.definition(), pin.tool.clone());
            Arc::new(McpTool { definition, theirs, pool: Arc::clone(&pool) }) as Arc<dyn Tool>
        };
        let tools = pins.tools.iter().map(tool).collect();
        Ok(Arc::new(McpPlugin { metadata: manifest.clone(), tools, pool }))
    }
}

struct McpPlugin {
    metadata: PluginMetadata,
    tools: Vec<Arc<dyn Tool>>,
    pool: Arc<Pool>,
}

#[async_trait]
impl Plugin for McpPlugin {
    fn metadata(&self) -> &PluginMetadata {
        &self.metadata
    }

    fn tools(&self) -> Vec<Arc<dyn Tool>> {
        self.tools.clone()
    }

    fn callbacks(&self) -> Vec<Callback> {
        vec![Callback::HealthCheck, Callback::Stop]
    }

    async fn on_health_check(&self, _: &CallbackContext) -> Result<(), ToolError> {
        self.pool.check_quarantine()
    }

    async fn on_stop(&self, _: &CallbackContext) -> Result<(), ToolError> {
        self.pool.close();
        Ok(())
    }
}

/// An approved tool of a server.
struct McpTool {
    definition: ToolDefinition,
    theirs: String,
    pool: Arc<Pool>,
}

#[async_trait]
impl Tool for McpTool {
    fn definition(&self) -> &ToolDefinition {
        &self.definition
    }

    /// The road drops this at the deadline and when the caller gives up, which tells the server that it is over.
    async fn call(&self, arguments: Value, cx: &ToolContext) -> Result<ToolOutput, ToolError> {
        let arguments: JsonObject = arguments.as_object().cloned().unwrap_or_default();
        let link = self.pool.link(cx).await?;
        let answer = link.call(&self.theirs, arguments, cx.idempotency_key()).await;
        let broke = matches!(answer, Err(LinkError::Unreachable(_) | LinkError::SignInNeeded(_))) || link.is_over();
        self.pool.note(cx.tenant(), &link, broke);
        output(answer.map_err(|error| self.pool.tool_error(&error))?)
    }
}

/// A server's result as ours. It is as little to be trusted as its definitions, and cannot be read beforehand: the road
/// bounds it and checks it against the approved schema.
fn output(result: CallToolResult) -> Result<ToolOutput, ToolError> {
    let texts: Vec<_> = result.content.iter().filter_map(|block| Some(block.as_text()?.text.as_str())).collect();
    let text = texts.join("\n");
    if result.is_error == Some(true) {
        let said: String = text.chars().take(MAX_FAILURE).collect();
        return Err(ToolError::failed(if said.is_empty() {
            "the tool failed and did not say why".to_owned()
        } else {
            said
        }));
    }
    let is_text_alone = texts.len() == result.content.len();
    let content: Vec<_> =
        if is_text_alone { Vec::new() } else { result.content.into_iter().filter_map(shown).collect() };
    let data = result.structured_content.unwrap_or(Value::String(text));
    let mut output = ToolOutput::new(data);
    if output.data == Value::String(String::new()) && !content.is_empty() {
        output = ToolOutput::showing(content);
    } else {
        output.content = content;
    }
    Ok(output)
}

fn shown(block: ContentBlock) -> Option<Content> {
    Some(match block {
        ContentBlock::Text(text) => Content::text(text.text),
        ContentBlock::Image(image) => Content::Image { data: image.data, mime_type: image.mime_type },
        ContentBlock::Audio(audio) => Content::Audio { data: audio.data, mime_type: audio.mime_type },
        ContentBlock::Resource(embedded) => Content::Document(match embedded.resource {
            ResourceContents::TextResourceContents { uri, mime_type, text, .. } => {
                Document { uri, mime_type, body: DocumentBody::Text(text) }
            }
            ResourceContents::BlobResourceContents { uri, mime_type, blob, .. } => {
                Document { uri, mime_type, body: DocumentBody::Base64(blob) }
            }
            _ => return None,
        }),
        // A link leads to a place that nobody approved.
        _ => return None,
    })
}
