//! What the agent needs of a language model. It knows no HTTP, so that a test's model and a provider's are the same
//! thing to the loop.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use toolbay_api::{ErrorKind, ModelRequest, ModelResponse, ToolError};

use crate::parts::Parts;

/// A language model.
///
/// Implementations answer one request at a time and keep no conversation: the request carries all of it. They are
/// shared by runs of all tenants.
#[async_trait]
pub trait Model: Send + Sync {
    /// The name by which logs and users know it, such as `gpt-4o-mini`.
    fn id(&self) -> &str;

    /// Answers `request`.
    ///
    /// # Errors
    /// [`ModelError`], of which [`ModelErrorKind`] says what a caller can do.
    ///
    /// # Cancel safety
    /// The future is dropped at the run's time limit and when the run is dropped.
    async fn respond(&self, request: ModelRequest) -> Result<ModelResponse, ModelError>;

    /// Answers `request`, and puts the pieces of the reply into `parts` as they come. Without an implementation the reply comes
    /// in one piece.
    ///
    /// # Errors
    /// As [`respond`](Self::respond). Pieces may be out by then.
    ///
    /// # Cancel safety
    /// As [`respond`](Self::respond).
    async fn respond_in_parts(&self, request: ModelRequest, parts: &Parts) -> Result<ModelResponse, ModelError> {
        let response = self.respond(request).await?;
        parts.whole(&response).await;
        Ok(response)
    }
}

#[async_trait]
impl<M: Model + ?Sized> Model for Arc<M> {
    fn id(&self) -> &str {
        (**self).id()
    }

    async fn respond(&self, request: ModelRequest) -> Result<ModelResponse, ModelError> {
        (**self).respond(request).await
    }

    async fn respond_in_parts(&self, request: ModelRequest, parts: &Parts) -> Result<ModelResponse, ModelError> {
        (**self).respond_in_parts(request, parts).await
    }
}

#[async_trait]
impl<M: Model + ?Sized> Model for Box<M> {
    fn id(&self) -> &str {
        (**self).id()
    }

    async fn respond(&self, request: ModelRequest) -> Result<ModelResponse, ModelError> {
        (**self).respond(request).await
    }

    async fn respond_in_parts(&self, request: ModelRequest, parts: &Parts) -> Result<ModelResponse, ModelError> {
        (**self).respond_in_parts(request, parts).await
    }
}

/// The kinds of [`ModelError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelErrorKind {
    /// The key is missing, wrong or not allowed to use this model.
    Auth,
    /// Too many requests or tokens for now.
    RateLimited {
        /// How long the provider asks to wait, where it says.
        retry_after: Option<Duration>,
    },
    /// The provider has a fault or no capacity for now.
    Overloaded,
    /// The provider has no such model.
    UnknownModel,
    /// The provider does not accept the request as it is.
    BadRequest,
    /// The provider declines to answer this conversation.
    Refused,
    /// The provider could not be reached.
    Network,
    /// The provider took too long.
    TimedOut,
    /// The provider's answer could not be understood.
    Protocol,
    /// The model is not set up as it must be.
    Config,
    /// A scripted model has no replies left.
    ScriptEnded,
}

impl ModelErrorKind {
    /// Whether the same request can succeed if it is made again later.
    #[must_use]
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::RateLimited { .. } | Self::Overloaded | Self::Network | Self::TimedOut)
    }
}

/// A request to a model that failed.
///
/// The message is safe to show and says what to do; the source is for the operator only.
#[derive(Debug, Clone)]
pub struct ModelError {
    /// What a program branches on.
    pub kind: ModelErrorKind,
    /// What a user reads.
    pub message: String,
    /// Whether to try again, where the kind's own answer is not the right one.
    pub retryable: bool,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl ModelError {
    /// An error of this kind with a message that is safe to show.
    pub fn new(kind: ModelErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retryable: kind.is_retryable(), source: None }
    }

    /// Says whether to try again, where the kind's own answer is wrong.
    #[must_use]
    pub fn with_retryable(mut self, retryable: bool) -> Self {
        self.retryable = retryable;
        self
    }

    /// Keeps the cause for the operator's log.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// How long the provider asks to wait, where it says.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        if let ModelErrorKind::RateLimited { retry_after } = self.kind { retry_after } else { None }
    }
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for ModelError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// The error as error hooks see it.
impl From<&ModelError> for ToolError {
    fn from(error: &ModelError) -> Self {
        let kind = match error.kind {
            ModelErrorKind::Auth | ModelErrorKind::UnknownModel | ModelErrorKind::Config => ErrorKind::Config,
            ModelErrorKind::RateLimited { .. } => ErrorKind::RateLimited,
            ModelErrorKind::Overloaded | ModelErrorKind::Network => ErrorKind::Unavailable,
            ModelErrorKind::TimedOut => ErrorKind::TimedOut,
            ModelErrorKind::BadRequest
            | ModelErrorKind::Refused
            | ModelErrorKind::Protocol
            | ModelErrorKind::ScriptEnded => ErrorKind::Dependency,
        };
        let wrapped = Self::new(kind, error.message.clone()).with_retryable(error.retryable);
        match &error.source {
            Some(source) => wrapped.with_source(Arc::clone(source)),
            None => wrapped,
        }
    }
}
