//! Hooks: code that may change what an agent does.
//!
//! Hooks form an ordered list, not layers: a list can be printed, audited, kept per tenant and changed at run time, and
//! no hook can hold the rest of the road in its hand. A hook sees immutable input and answers with the outcome type of
//! its point; an outcome that would be illegal there does not exist.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use globset::{Glob, GlobMatcher};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    context::Caller,
    error::ToolError,
    host::Host,
    interception::Interception,
    message::{Message, ModelRequest, ModelResponse},
    names::{CallId, ToolName},
    result::ToolOutput,
    tool::ToolDefinition,
};

/// A point in a run at which hooks stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", try_from = "String")]
pub enum HookPoint {
    /// Before the first step of an agent run.
    BeforeAgentRun,
    /// After the last step of an agent run.
    AfterAgentRun,
    /// Before each request to the model.
    BeforeModelCall,
    /// After each reply of the model.
    AfterModelCall,
    /// Before each tool call, before its arguments are checked.
    BeforeToolCall,
    /// After each tool call, before the model sees its result.
    AfterToolCall,
    /// When the model showed reasoning.
    OnReasoningStep,
    /// When a tool call or a model call failed.
    OnError,
}

impl HookPoint {
    /// All eight in the order of a run's life.
    pub const ALL: [Self; 8] = [
        Self::BeforeAgentRun,
        Self::AfterAgentRun,
        Self::BeforeModelCall,
        Self::AfterModelCall,
        Self::BeforeToolCall,
        Self::AfterToolCall,
        Self::OnReasoningStep,
        Self::OnError,
    ];

    /// The point's name in manifests, transcripts and scripts.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BeforeAgentRun => "before_agent_run",
            Self::AfterAgentRun => "after_agent_run",
            Self::BeforeModelCall => "before_model_call",
            Self::AfterModelCall => "after_model_call",
            Self::BeforeToolCall => "before_tool_call",
            Self::AfterToolCall => "after_tool_call",
            Self::OnReasoningStep => "on_reasoning_step",
            Self::OnError => "on_error",
        }
    }

    /// The point called `name`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|point| point.name() == name)
    }

    /// Whether a hook here decides something, so that its failure counts as a no unless the hook says otherwise.
    #[must_use]
    pub fn is_gate(self) -> bool {
        !matches!(self, Self::OnReasoningStep | Self::OnError)
    }
}

impl TryFrom<String> for HookPoint {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        Self::parse(&name)
            .ok_or_else(|| format!("there is no such hook point; there are {}", Self::ALL.map(Self::name).join(", ")))
    }
}

impl schemars::JsonSchema for HookPoint {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "HookPoint".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "enum": Self::ALL.map(Self::name) })
    }
}

impl fmt::Display for HookPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a hook could not decide. The message goes to the operator's log, not to the model.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct HookError {
    /// What went wrong.
    pub message: String,
}

impl HookError {
    /// A failure with this message.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into() }
    }
}

/// What a hook answers: its point's outcome, or that it could not decide.
pub type HookResult<T> = Result<T, HookError>;

/// What a hook knows beside its point's own input.
pub struct HookContext<'a> {
    /// On whose behalf the run acts.
    pub caller: &'a Arc<Caller>,
    /// The step of the run, from 1; 0 outside of steps.
    pub step: u32,
    /// When the hook must have answered.
    pub deadline: std::time::Instant,
    /// Makes the host of the plugin that the hook belongs to, when it is asked for.
    pub hosts: &'a (dyn HookHosts + 'a),
    /// The moment as a public contract describes it, where the run is under one.
    pub interception: Option<&'a Interception>,
}

/// Gives a hook its plugin's [`Host`]. Made by the runtime.
pub trait HookHosts: Send + Sync {
    /// The host, narrowed to the tenant and the hook's plugin.
    fn host(&self) -> Arc<dyn Host>;
}

impl HookContext<'_> {
    /// The plugin's way out.
    #[must_use]
    pub fn host(&self) -> Arc<dyn Host> {
        self.hosts.host()
    }
}

/// The input of [`Hook::agent_startup`].
#[derive(Debug, Clone, Serialize)]
pub struct AgentStartup {
    /// The tools that the run will have, in alphabetical order.
    pub tools: Vec<ToolName>,
}

/// The outcome of [`Hook::agent_startup`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AgentStartupOutcome {
    /// Begin.
    Continue,
    /// Do not begin.
    Stop(String),
}

/// The input of [`Hook::agent_shutdown`].
#[derive(Debug, Clone, Serialize)]
pub struct AgentShutdown {
    /// How the run ended: `completed` or `error`.
    pub reason: String,
}

/// The input of [`Hook::before_agent_run`].
#[derive(Debug, Clone, Serialize)]
pub struct BeforeAgentRun {
    /// The conversation that the run starts from; the last message is the user's.
    pub messages: Vec<Message>,
}

/// The outcome of [`Hook::before_agent_run`].
#[derive(Debug, Clone, PartialEq)]
pub enum BeforeAgentRunOutcome {
    /// Go on.
    Continue,
    /// Start from these messages instead.
    Rewrite(Vec<Message>),
    /// Do not start.
    Stop(String),
}

/// The input of [`Hook::after_agent_run`].
#[derive(Debug, Clone, Serialize)]
pub struct AfterAgentRun {
    /// The run's answer.
    pub text: String,
    /// How it ended, in the words of the run's outcome.
    pub outcome: String,
    /// Steps made.
    pub steps: u32,
    /// Tool calls made.
    pub tool_calls: u32,
}

/// The outcome of [`Hook::after_agent_run`].
#[derive(Debug, Clone, PartialEq)]
pub enum AfterAgentRunOutcome {
    /// Give the answer out.
    Continue,
    /// Give this answer out instead.
    Rewrite(String),
    /// Withhold the answer.
    Stop(String),
}

/// The input of [`Hook::before_model_call`].
#[derive(Debug, Clone, Serialize)]
pub struct BeforeModelCall {
    /// What the model will be asked.
    pub request: ModelRequest,
}

/// The outcome of [`Hook::before_model_call`].
#[derive(Debug, Clone, PartialEq)]
pub enum BeforeModelCallOutcome {
    /// Ask.
    Continue,
    /// Ask this instead.
    Rewrite(Box<ModelRequest>),
    /// End the run.
    Stop(String),
}

/// The input of [`Hook::after_model_call`].
#[derive(Debug, Clone, Serialize)]
pub struct AfterModelCall {
    /// What the model answered.
    pub response: ModelResponse,
}

/// The outcome of [`Hook::after_model_call`].
#[derive(Debug, Clone, PartialEq)]
pub enum AfterModelCallOutcome {
    /// Go on with the answer.
    Continue,
    /// Go on with this answer instead.
    Rewrite(Box<ModelResponse>),
    /// End the run.
    Stop(String),
}

/// The input of [`Hook::before_tool_call`].
#[derive(Debug, Clone, Serialize)]
pub struct BeforeToolCall {
    /// The call.
    pub call: CallId,
    /// The tool's qualified name.
    pub tool: ToolName,
    /// The arguments, as hooks before this one left them.
    pub arguments: Value,
    /// What is known of the tool.
    #[serde(skip)]
    pub definition: Arc<ToolDefinition>,
}

/// The outcome of [`Hook::before_tool_call`].
#[derive(Debug, Clone, PartialEq)]
pub enum BeforeToolCallOutcome {
    /// Go on.
    Continue,
    /// Go on with these arguments instead.
    Rewrite(Value),
    /// Do not call; this is the result.
    Answer(ToolOutput),
    /// Do not call; the model reads why.
    Deny(String),
    /// Do not call before somebody approved; the text says what is to be approved.
    Ask(String),
    /// Do not call and end the run.
    Stop(String),
}

impl BeforeToolCallOutcome {
    /// A denial with a reason that the model reads.
    pub fn deny(reason: impl Into<String>) -> Self {
        Self::Deny(reason.into())
    }
}

/// The input of [`Hook::after_tool_call`].
#[derive(Debug, Clone)]
pub struct AfterToolCall {
    /// The call.
    pub call: CallId,
    /// The tool's qualified name.
    pub tool: ToolName,
    /// What the tool gave, as hooks after it left it.
    pub result: Result<ToolOutput, ToolError>,
}

/// The outcome of [`Hook::after_tool_call`].
#[derive(Debug, Clone)]
pub enum AfterToolCallOutcome {
    /// Give it out as it is.
    Keep,
    /// Give this out instead; the audit keeps the raw result.
    Replace(Result<ToolOutput, ToolError>),
    /// Withhold it and end the run.
    Stop(String),
}

/// The input of [`Hook::on_reasoning_step`].
#[derive(Debug, Clone, Serialize)]
pub struct ReasoningStep {
    /// The step, from 1.
    pub step: u32,
    /// The reasoning as the provider shows it.
    pub text: String,
}

/// The outcome of [`Hook::on_reasoning_step`].
#[derive(Debug, Clone, PartialEq)]
pub enum ReasoningStepOutcome {
    /// Go on.
    Continue,
    /// End the run.
    Stop(String),
}

/// Where an error came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorOrigin {
    /// A tool call.
    Tool {
        /// The call.
        call: CallId,
        /// The tool's name as the caller wrote it.
        tool: String,
    },
    /// A model call.
    Model,
}

/// The input of [`Hook::on_error`].
#[derive(Debug, Clone)]
pub struct OnError {
    /// Where it came from.
    pub origin: ErrorOrigin,
    /// The error.
    pub error: ToolError,
}

/// The outcome of [`Hook::on_error`].
#[derive(Debug, Clone, PartialEq)]
pub enum OnErrorOutcome {
    /// Leave the error as it is.
    Observe,
    /// Give the model this text beside the error, so that it tries again.
    RetryWithFeedback(String),
}

/// Code that stands at one or more [`HookPoint`]s of a run.
///
/// Implement the methods of the points that the hook takes and name these points in its [`HookRegistration`]; the
/// others are never called and cost nothing. A panic counts as a failure.
///
/// # Errors
/// All methods: a [`HookError`] where the hook could not decide. A gate that fails counts as a no, an observer that
/// fails is passed over; [`FailurePolicy`] changes either.
///
/// # Cancel safety
/// The future is dropped at the hook's time limit and when the run is dropped.
///
/// ```
/// use toolbay_api::{async_trait, hook::{BeforeToolCall, BeforeToolCallOutcome, Hook, HookContext, HookResult}};
///
/// struct OfficeHours;
///
/// #[async_trait]
/// impl Hook for OfficeHours {
///     async fn before_tool_call(&self, call: &BeforeToolCall, _: &HookContext<'_>) -> HookResult<BeforeToolCallOutcome> {
///         Ok(if call.tool == "pay" { BeforeToolCallOutcome::deny("closed") } else { BeforeToolCallOutcome::Continue })
///     }
/// }
/// ```
#[async_trait]
#[allow(unused_variables, reason = "the defaults take what the points give and do nothing with it")]
#[allow(clippy::missing_errors_doc, reason = "the errors are the same for all and stand at the trait")]
pub trait Hook: Send + Sync {
    /// Before anything else of an agent's run. Asked only under a public contract, of every hook that its registration's
    /// [`lifecycle`](HookRegistration::lifecycle) does not except.
    async fn agent_startup(&self, input: &AgentStartup, cx: &HookContext<'_>) -> HookResult<AgentStartupOutcome> {
        Ok(AgentStartupOutcome::Continue)
    }

    /// After everything else of an agent's run, however it ended. As [`agent_startup`](Self::agent_startup).
    async fn agent_shutdown(&self, input: &AgentShutdown, cx: &HookContext<'_>) -> HookResult<()> {
        Ok(())
    }

    /// Before the first step.
    async fn before_agent_run(
        &self,
        input: &BeforeAgentRun,
        cx: &HookContext<'_>,
    ) -> HookResult<BeforeAgentRunOutcome> {
        Ok(BeforeAgentRunOutcome::Continue)
    }

    /// After the last step.
    async fn after_agent_run(&self, input: &AfterAgentRun, cx: &HookContext<'_>) -> HookResult<AfterAgentRunOutcome> {
        Ok(AfterAgentRunOutcome::Continue)
    }

    /// Before each request to the model.
    async fn before_model_call(
        &self,
        input: &BeforeModelCall,
        cx: &HookContext<'_>,
    ) -> HookResult<BeforeModelCallOutcome> {
        Ok(BeforeModelCallOutcome::Continue)
    }

    /// After each reply of the model.
    async fn after_model_call(
        &self,
        input: &AfterModelCall,
        cx: &HookContext<'_>,
    ) -> HookResult<AfterModelCallOutcome> {
        Ok(AfterModelCallOutcome::Continue)
    }

    /// Before each tool call.
    async fn before_tool_call(
        &self,
        input: &BeforeToolCall,
        cx: &HookContext<'_>,
    ) -> HookResult<BeforeToolCallOutcome> {
        Ok(BeforeToolCallOutcome::Continue)
    }

    /// After each tool call.
    async fn after_tool_call(&self, input: &AfterToolCall, cx: &HookContext<'_>) -> HookResult<AfterToolCallOutcome> {
        Ok(AfterToolCallOutcome::Keep)
    }

    /// When the model showed reasoning.
    async fn on_reasoning_step(&self, input: &ReasoningStep, cx: &HookContext<'_>) -> HookResult<ReasoningStepOutcome> {
        Ok(ReasoningStepOutcome::Continue)
    }

    /// When a tool call or a model call failed. An error of an error hook is never given to error hooks.
    async fn on_error(&self, input: &OnError, cx: &HookContext<'_>) -> HookResult<OnErrorOutcome> {
        Ok(OnErrorOutcome::Observe)
    }
}

/// What a hook's failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailurePolicy {
    /// A no: the call is refused, the run stopped.
    Closed,
    /// Nothing: as if the hook were not there.
    Open,
}

/// Whether a hook is asked at the two ends of an agent's run, which exist under a public contract only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifecycle {
    /// At [`Hook::agent_startup`].
    pub startup: bool,
    /// At [`Hook::agent_shutdown`].
    pub shutdown: bool,
}

impl Default for Lifecycle {
    /// At both. A hook that does not care consents.
    fn default() -> Self {
        Self { startup: true, shutdown: true }
    }
}

/// A hook together with where, when and for what it stands.
#[derive(Clone)]
pub struct HookRegistration {
    /// Its name in records and messages.
    pub name: Arc<str>,
    /// The points that it takes.
    pub points: Vec<HookPoint>,
    /// Lower goes first; after-points run in reverse.
    pub priority: i32,
    /// How long it may think at each point.
    pub timeout: Duration,
    /// What its failure means; `None`: closed at gates, open elsewhere.
    pub on_failure: Option<FailurePolicy>,
    /// The tools that it is asked about at the tool-call points.
    pub tools: ToolMatcher,
    /// Whether it stands at the two ends of a run that only a public contract knows.
    pub lifecycle: Lifecycle,
    /// The code.
    pub hook: Arc<dyn Hook>,
}

impl HookRegistration {
    /// `hook` at these points with priority 100, one second of time and all tools.
    pub fn new(
        name: impl Into<Arc<str>>,
        points: impl IntoIterator<Item = HookPoint>,
        hook: impl Hook + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            points: points.into_iter().collect(),
            priority: 100,
            timeout: Duration::from_secs(1),
            on_failure: None,
            tools: ToolMatcher::default(),
            lifecycle: Lifecycle::default(),
            hook: Arc::new(hook),
        }
    }

    /// Sets the priority: lower goes first.
    #[must_use]
    pub fn with_priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// Narrows the hook to tools that match one of these globs.
    #[must_use]
    pub fn with_tools(mut self, tools: ToolMatcher) -> Self {
        self.tools = tools;
        self
    }

    /// What its failure means at `point`.
    #[must_use]
    pub fn failure_policy(&self, point: HookPoint) -> FailurePolicy {
        self.on_failure.unwrap_or(if point.is_gate() { FailurePolicy::Closed } else { FailurePolicy::Open })
    }
}

impl fmt::Debug for HookRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookRegistration")
            .field("name", &self.name)
            .field("points", &self.points)
            .field("priority", &self.priority)
            .finish_non_exhaustive()
    }
}

/// Which tools a hook is asked about: all, or those whose qualified names match one of some globs.
#[derive(Debug, Clone, Default)]
pub struct ToolMatcher(Option<Arc<[GlobMatcher]>>);

impl ToolMatcher {
    /// Tools that match one of `globs` (`*`, `?`, `[...]`, `{a,b}`).
    ///
    /// # Errors
    /// The glob's own error text.
    pub fn new<T: AsRef<str>>(globs: impl IntoIterator<Item = T>) -> Result<Self, String> {
        globs
            .into_iter()
            .map(|glob| Glob::new(glob.as_ref()).map(|glob| glob.compile_matcher()).map_err(|error| error.to_string()))
            .collect::<Result<Vec<_>, _>>()
            .map(|matchers| Self(Some(matchers.into())))
    }

    /// Whether the hook is asked about `tool`.
    #[must_use]
    pub fn matches(&self, tool: &str) -> bool {
        self.0.as_ref().is_none_or(|globs| globs.iter().any(|glob| glob.is_match(tool)))
    }
}
