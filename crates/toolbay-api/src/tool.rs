//! Tools: what the model calls.

use std::{future::Future, marker::PhantomData, sync::Arc, time::Duration};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{
    callers::{AllowedCallers, CallersError},
    context::ToolContext,
    error::{ErrorKind, ToolError},
    names::ToolName,
    permission::PermissionSet,
    result::ToolOutput,
};

/// What a model, a client and the road know of a tool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolDefinition {
    /// Its name within its plugin; in a catalog qualified by the plugin.
    pub name: ToolName,
    /// What it does, for the model.
    pub description: String,
    /// Its parameters: a JSON Schema (2020-12, or draft-07 where `$schema` says so) of an object.
    pub parameters: Value,
    /// The JSON Schema of its result, checked where present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// Rights that the user must have, by the host's word, for the tool to be seen and called.
    #[serde(default, skip_serializing_if = "PermissionSet::is_empty")]
    pub required_permissions: PermissionSet,
    /// Who may call it; everybody where it is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed_callers: Option<AllowedCallers>,
    /// A shorter time limit than the plugin's; never a longer one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Duration>,
    /// What it does to the world.
    #[serde(default)]
    pub annotations: Annotations,
}

impl ToolDefinition {
    /// A definition with these parameters and nothing else set.
    ///
    /// # Errors
    /// [`NameError`](crate::NameError) where `name` is no tool name.
    pub fn new(
        name: impl AsRef<str>,
        description: impl Into<String>,
        parameters: Value,
    ) -> Result<Self, crate::NameError> {
        Ok(Self {
            name: ToolName::new(name)?,
            description: description.into(),
            parameters,
            output: None,
            required_permissions: PermissionSet::default(),
            allowed_callers: None,
            timeout: None,
            annotations: Annotations::default(),
        })
    }
}

/// What a tool does to the world, in the words of the Model Context Protocol. `None`: not said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Annotations {
    /// It changes nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
    /// It may destroy something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destructive: Option<bool>,
    /// Calling it twice does what calling it once does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotent: Option<bool>,
    /// It reaches beyond the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub open_world: Option<bool>,
}

/// Where a tool's code runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Execution {
    /// On the async workers, by [`Tool::call`].
    #[default]
    Async,
    /// On a thread of its own that may block, by [`Tool::call_blocking`].
    Blocking,
}

/// Something that a model can call.
///
/// Most native tools are made by [`tool`] from a function; a runner implements this for what it loads. Only the road
/// of the runtime calls it: arguments were checked against [`definition`](Self::definition)'s parameters before.
#[async_trait]
pub trait Tool: Send + Sync {
    /// What callers know of it. Read once, at registration.
    fn definition(&self) -> &ToolDefinition;

    /// Where its code runs.
    fn execution(&self) -> Execution {
        Execution::Async
    }

    /// Whether a call that ends with `ApprovalRequired`, since a call that it made inside needs approval, may be made again
    /// from its beginning with what was approved. Only where that does nothing twice: such calls inside are refused otherwise.
    fn resumes(&self) -> bool {
        false
    }

    /// Calls it.
    ///
    /// # Errors
    /// Whatever the tool has to say; a panic becomes [`ErrorKind::Panic`].
    ///
    /// # Cancel safety
    /// The future is dropped at the deadline or when the caller gives up.
    async fn call(&self, arguments: Value, cx: &ToolContext) -> Result<ToolOutput, ToolError>;

    /// Calls it on a thread that it may block. Used instead of [`call`](Self::call) where
    /// [`execution`](Self::execution) says [`Execution::Blocking`].
    ///
    /// # Errors
    /// As [`call`](Self::call). The thread cannot be taken away from it: a long tool asks
    /// [`ToolContext::is_cancelled`].
    fn call_blocking(&self, arguments: Value, cx: &ToolContext) -> Result<ToolOutput, ToolError> {
        let _ = (arguments, cx);
        Err(ToolError::new(ErrorKind::Internal, "the tool does not run on a blocking thread"))
    }
}

/// Makes a native tool from an async function over a type that derives `Deserialize` and `JsonSchema`.
///
/// Doc comments on the type's fields become descriptions in the schema. The result is anything that serialises.
///
/// ```
/// use schemars::JsonSchema;
/// use serde::Deserialize;
/// use toolbay_api::{ToolContext, tool};
///
/// #[derive(Deserialize, JsonSchema)]
/// struct Greet {
///     /// Whom to greet.
///     name: String,
/// }
///
/// let greet = tool("greet", "Greets somebody", async |args: Greet, _cx: ToolContext| Ok(format!("Hello, {}!", args.name)));
/// ```
///
/// # Panics
/// Where `name` is no [`ToolName`]: native tools are written by the host's own programmers, and this is found at the
/// first run.
#[allow(clippy::panic, reason = "a programmer's mistake in trusted code, documented")]
pub fn tool<P, R, F, Fut>(name: &str, description: &str, function: F) -> NativeTool<P, F>
where
    P: DeserializeOwned + JsonSchema + Send + 'static,
    R: Serialize,
    F: Fn(P, ToolContext) -> Fut + Send + Sync,
    Fut: Future<Output = Result<R, ToolError>> + Send,
{
    NativeTool { definition: typed_definition::<P>(name, description), function, parameters: PhantomData }
}

/// Makes a native tool from a plain function that computes or blocks: it runs on a thread of its own, off the async
/// workers.
///
/// # Panics
/// Where `name` is no [`ToolName`].
pub fn blocking_tool<P, R, F>(name: &str, description: &str, function: F) -> BlockingTool<P, F>
where
    P: DeserializeOwned + JsonSchema + Send + 'static,
    R: Serialize,
    F: Fn(P, &ToolContext) -> Result<R, ToolError> + Send + Sync,
{
    BlockingTool(NativeTool { definition: typed_definition::<P>(name, description), function, parameters: PhantomData })
}

/// As [`tool`], for a tool that shows more than data: pictures, sounds, documents.
///
/// ```
/// # use schemars::JsonSchema; use serde::Deserialize;
/// # #[derive(Deserialize, JsonSchema)] struct Empty {}
/// use toolbay_api::{Content, ToolContext, ToolOutput, showing_tool};
///
/// let dot = showing_tool("dot", "Draws a dot", async |_: Empty, _cx: ToolContext| {
///     Ok(ToolOutput::showing(vec![Content::Image { data: "R0lGODlhAQABAAAAACw=".into(), mime_type: "image/gif".into() }]))
/// });
/// ```
///
/// # Panics
/// Where `name` is no [`ToolName`].
pub fn showing_tool<P, F, Fut>(name: &str, description: &str, function: F) -> ShowingTool<P, F>
where
    P: DeserializeOwned + JsonSchema + Send + 'static,
    F: Fn(P, ToolContext) -> Fut + Send + Sync,
    Fut: Future<Output = Result<ToolOutput, ToolError>> + Send,
{
    ShowingTool(NativeTool { definition: typed_definition::<P>(name, description), function, parameters: PhantomData })
}

/// A tool made by [`showing_tool`].
pub struct ShowingTool<P, F>(NativeTool<P, F>);

impl<P, F> ShowingTool<P, F> {
    /// Changes the definition: output schema, annotations, required permissions, allowed callers, timeout.
    #[must_use]
    pub fn with(self, change: impl FnOnce(&mut ToolDefinition)) -> Self {
        Self(self.0.with(change))
    }
}

/// A tool made by [`tool`].
pub struct NativeTool<P, F> {
    definition: ToolDefinition,
    function: F,
    parameters: PhantomData<fn(P)>,
}

impl<P, F> NativeTool<P, F> {
    /// Changes the definition: output schema, annotations, required permissions, allowed callers, timeout.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut ToolDefinition)) -> Self {
        change(&mut self.definition);
        self
    }

    /// Lets only these callers call it: `"agent"`, and plugins by name, as [`AllowedCallers`] has it.
    ///
    /// # Errors
    /// [`CallersError`] where they are no such list.
    pub fn with_callers<T: AsRef<str>>(self, callers: impl IntoIterator<Item = T>) -> Result<Self, CallersError> {
        let callers = AllowedCallers::new(callers)?;
        Ok(self.with(|definition| definition.allowed_callers = Some(callers)))
    }
}

/// A tool made by [`blocking_tool`].
pub struct BlockingTool<P, F>(NativeTool<P, F>);

impl<P, F> BlockingTool<P, F> {
    /// Changes the definition: output schema, annotations, required permissions, allowed callers, timeout.
    #[must_use]
    pub fn with(self, change: impl FnOnce(&mut ToolDefinition)) -> Self {
        Self(self.0.with(change))
    }

    /// Lets only these callers call it, as [`NativeTool::with_callers`].
    ///
    /// # Errors
    /// [`CallersError`] where they are no such list.
    pub fn with_callers<T: AsRef<str>>(self, callers: impl IntoIterator<Item = T>) -> Result<Self, CallersError> {
        self.0.with_callers(callers).map(Self)
    }
}

#[async_trait]
impl<P, R, F, Fut> Tool for NativeTool<P, F>
where
    P: DeserializeOwned + JsonSchema + Send + 'static,
    R: Serialize,
    F: Fn(P, ToolContext) -> Fut + Send + Sync,
    Fut: Future<Output = Result<R, ToolError>> + Send,
{
    fn definition(&self) -> &ToolDefinition {
        &self.definition
    }

    async fn call(&self, arguments: Value, cx: &ToolContext) -> Result<ToolOutput, ToolError> {
        let parameters = typed(arguments)?;
        ToolOutput::json((self.function)(parameters, cx.clone()).await?)
    }
}

#[async_trait]
impl<P, F, Fut> Tool for ShowingTool<P, F>
where
    P: DeserializeOwned + JsonSchema + Send + 'static,
    F: Fn(P, ToolContext) -> Fut + Send + Sync,
    Fut: Future<Output = Result<ToolOutput, ToolError>> + Send,
{
    fn definition(&self) -> &ToolDefinition {
        &self.0.definition
    }

    async fn call(&self, arguments: Value, cx: &ToolContext) -> Result<ToolOutput, ToolError> {
        (self.0.function)(typed(arguments)?, cx.clone()).await
    }
}

#[async_trait]
impl<P, R, F> Tool for BlockingTool<P, F>
where
    P: DeserializeOwned + JsonSchema + Send + 'static,
    R: Serialize,
    F: Fn(P, &ToolContext) -> Result<R, ToolError> + Send + Sync,
{
    fn definition(&self) -> &ToolDefinition {
        &self.0.definition
    }

    fn execution(&self) -> Execution {
        Execution::Blocking
    }

    async fn call(&self, arguments: Value, cx: &ToolContext) -> Result<ToolOutput, ToolError> {
        self.call_blocking(arguments, cx)
    }

    fn call_blocking(&self, arguments: Value, cx: &ToolContext) -> Result<ToolOutput, ToolError> {
        ToolOutput::json((self.0.function)(typed(arguments)?, cx)?)
    }
}

#[async_trait]
impl<T: Tool + ?Sized> Tool for Arc<T> {
    fn resumes(&self) -> bool {
        (**self).resumes()
    }

    fn definition(&self) -> &ToolDefinition {
        (**self).definition()
    }

    fn execution(&self) -> Execution {
        (**self).execution()
    }

    async fn call(&self, arguments: Value, cx: &ToolContext) -> Result<ToolOutput, ToolError> {
        (**self).call(arguments, cx).await
    }

    fn call_blocking(&self, arguments: Value, cx: &ToolContext) -> Result<ToolOutput, ToolError> {
        (**self).call_blocking(arguments, cx)
    }
}

#[allow(clippy::panic, reason = "a programmer's mistake in trusted code, documented at the callers")]
fn typed_definition<P: JsonSchema>(name: &str, description: &str) -> ToolDefinition {
    match ToolDefinition::new(name, description, parameters_of::<P>()) {
        Ok(definition) => definition,
        Err(error) => panic!("{error}"),
    }
}

/// The schema of arguments that become a `P`.
pub(crate) fn parameters_of<P: JsonSchema>() -> Value {
    let mut parameters = schemars::schema_for!(P).to_value();
    if let Some(schema) = parameters.as_object_mut() {
        // The Rust type's name means nothing to a model; a unit struct's schema is `null`, but arguments are an object.
        schema.remove("title");
        if schema.get("type").is_none_or(|kind| kind == "null") {
            schema.insert("type".into(), "object".into());
        }
    }
    parameters
}

/// Deserialises checked arguments. What the schema cannot say (a range of a newtype, say) is reported here.
fn typed<P: DeserializeOwned>(mut arguments: Value) -> Result<P, ToolError> {
    if arguments.is_null() {
        arguments = Value::Object(Map::new());
    }
    serde_json::from_value(arguments).map_err(|error| {
        ToolError::new(ErrorKind::InvalidArguments, format!("the arguments do not fit the tool: {error}"))
    })
}
