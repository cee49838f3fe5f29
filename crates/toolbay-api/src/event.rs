//! Events: what plugins and the host tell each other, and who wants to hear it. An event changes nothing by itself, which
//! is what sets it apart from a hook.

use std::{
    fmt,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use globset::{Glob, GlobMatcher};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::{
    error::ToolError,
    host::Host,
    limits::Limits,
    names::{EventName, PluginName, Scope, TenantId},
};

/// Bytes of an event pattern.
const MAX_PATTERN_BYTES: usize = 128;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Copy, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventId(Uuid);

impl EventId {
    /// A new random id.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// It as a number.
    #[must_use]
    pub fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Who told of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventSource {
    /// The host: its own code, or the life of a plugin.
    Host,
    /// A plugin.
    Plugin {
        /// Its name. A tenant's plugin may have the name of a global one, so it says little without the scope.
        name: PluginName,
        /// Where it is registered.
        scope: Scope,
    },
}

/// Something that happened, as those who listen get it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its id.
    pub id: EventId,
    /// What happened.
    pub name: EventName,
    /// Whom it concerns. A tenant's event reaches that tenant's plugins and global ones acting for it; one of the whole
    /// host reaches global plugins only.
    pub scope: Scope,
    /// Who told of it. Set by the host, never by who tells.
    pub source: EventSource,
    /// What there is to know of it.
    pub payload: Value,
    /// How many handlers of other events stand between it and something that was no event.
    pub depth: u32,
    /// When, in milliseconds since the Unix epoch, UTC.
    pub at_ms: i64,
    /// The event whose handler told of it.
    pub cause: Option<EventId>,
}

impl Event {
    /// The tenant that it concerns; `None` where it concerns the whole host.
    #[must_use]
    pub fn tenant(&self) -> Option<&TenantId> {
        match &self.scope {
            Scope::Global => None,
            Scope::Tenant(tenant) => Some(tenant),
        }
    }
}

/// The names of events that somebody listens to: one name, or a glob (`*`, `?`, `[...]`, `{a,b}`).
///
/// As in permissions a `*` goes over dots.
///
/// ```
/// use toolbay_api::EventPattern;
/// let orders = EventPattern::new("order.*")?;
/// assert!(orders.matches("order.placed") && orders.matches("order.item.added"));
/// assert!(!orders.matches("orders.placed"));
/// # Ok::<(), toolbay_api::event::PatternError>(())
/// ```
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct EventPattern {
    text: Arc<str>,
    /// `None`: the text itself is the only name.
    glob: Option<Arc<GlobMatcher>>,
}

impl EventPattern {
    /// Checks and takes over a pattern.
    ///
    /// # Errors
    /// [`PatternError`] where the text is neither an [`EventName`] nor a glob of at most 128 bytes.
    pub fn new(text: impl AsRef<str>) -> Result<Self, PatternError> {
        let text = text.as_ref();
        if EventName::new(text).is_ok() {
            return Ok(Self { text: text.into(), glob: None });
        }
        let problem = |reason: String| PatternError { given: text.chars().take(80).collect(), reason };
        if text.is_empty() || text.len() > MAX_PATTERN_BYTES {
            return Err(problem(format!("it has {} bytes, and 1 to {MAX_PATTERN_BYTES} are allowed", text.len())));
        }
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_-.*?[]!{},".contains(&b);
        if !text.bytes().all(allowed) {
            return Err(problem("use the letters of event names and * ? [ ] ! { } ,".to_owned()));
        }
        if !text.contains(['*', '?', '[', '{']) {
            return Err(problem("it is no event name, which is words of A-Z a-z 0-9 _ - with dots between".to_owned()));
        }
        let glob = Glob::new(text).map_err(|error| problem(error.kind().to_string()))?;
        Ok(Self { text: text.into(), glob: Some(Arc::new(glob.compile_matcher())) })
    }

    /// The pattern as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether an event of this name is meant.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.glob.as_ref().map_or_else(|| &*self.text == name, |glob| glob.is_match(name))
    }
}

/// A text that is no event pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the event pattern {given:?} is not allowed: {reason}")]
pub struct PatternError {
    given: String,
    reason: String,
}

impl PartialEq for EventPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for EventPattern {}

impl PartialOrd for EventPattern {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for EventPattern {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl fmt::Debug for EventPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

impl fmt::Display for EventPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for EventPattern {
    type Err = PatternError;
    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::new(text)
    }
}

impl TryFrom<String> for EventPattern {
    type Error = PatternError;
    fn try_from(text: String) -> Result<Self, PatternError> {
        Self::new(text)
    }
}

impl From<EventPattern> for String {
    fn from(pattern: EventPattern) -> String {
        pattern.text.as_ref().to_owned()
    }
}

/// What a handler knows of the event's delivery. Cheap to clone.
#[derive(Clone)]
pub struct EventContext {
    /// When the handler ends, whatever it is doing.
    pub deadline: Instant,
    /// What it may use.
    pub limits: Arc<Limits>,
    /// The plugin's way out, for the event's tenant and by that tenant's grants. For an event of the whole host it acts
    /// for no tenant, as in the callbacks of a global plugin: without keys and other tools.
    pub host: Arc<dyn Host>,
}

impl EventContext {
    /// Time left until the deadline.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }
}

impl fmt::Debug for EventContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventContext").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// Code that is called with events. A function that takes both by value is one, too.
#[async_trait]
pub trait EventHandler: Send + Sync {
    /// Handles one event. The result goes to whoever published the event and waits for it; nearly nobody does.
    ///
    /// # Errors
    /// Whatever went wrong; it is counted and logged, and keeps nothing from going on.
    ///
    /// # Cancel safety
    /// The future is dropped at its deadline.
    async fn handle(&self, event: &Arc<Event>, cx: &EventContext) -> Result<Value, ToolError>;
}

#[async_trait]
impl<F, Fut> EventHandler for F
where
    F: Fn(Arc<Event>, EventContext) -> Fut + Send + Sync,
    Fut: Future<Output = Result<Value, ToolError>> + Send,
{
    async fn handle(&self, event: &Arc<Event>, cx: &EventContext) -> Result<Value, ToolError> {
        self(Arc::clone(event), cx.clone()).await
    }
}

/// Events that a plugin listens to, and its code for them.
///
/// To be called the plugin needs `event:listen:NAME` for each event's name.
///
/// ```
/// use std::sync::Arc;
/// use serde_json::Value;
/// use toolbay_api::{Event, EventContext, Subscription};
///
/// let heard = Subscription::new("order.*", async |event: Arc<Event>, cx: EventContext| {
///     cx.host.log(toolbay_api::LogLevel::Info, event.name.as_str());
///     Ok(Value::Null)
/// })?;
/// # Ok::<(), toolbay_api::event::PatternError>(())
/// ```
#[derive(Clone)]
pub struct Subscription {
    /// The events.
    pub pattern: EventPattern,
    /// The code.
    pub handler: Arc<dyn EventHandler>,
    /// A shorter time than the plugin's limit for one event.
    pub timeout: Option<Duration>,
    /// Fewer events of one tenant that may wait than the host allows; what comes beyond them is dropped.
    pub queue: Option<usize>,
}

impl Subscription {
    /// `handler` for the events that `pattern` means, within the host's bounds.
    ///
    /// # Errors
    /// [`PatternError`] where `pattern` is none.
    pub fn new(pattern: &str, handler: impl EventHandler + 'static) -> Result<Self, PatternError> {
        let pattern = EventPattern::new(pattern)?;
        Ok(Self { pattern, handler: Arc::new(handler), timeout: None, queue: None })
    }

    /// Gives each event less time than the plugin's limit.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Lets fewer events of one tenant wait than the host allows.
    #[must_use]
    pub fn with_queue(mut self, events: usize) -> Self {
        self.queue = Some(events);
        self
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription").field("pattern", &self.pattern).finish_non_exhaustive()
    }
}
