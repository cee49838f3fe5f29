//! What a host lends its plugins beyond itself: the sender of their HTTP requests and the keeper of secrets. They are
//! traits here so that neither the runtime nor a runner depends on an HTTP stack or a vault.

use std::{fmt, sync::Arc, time::Instant};

use async_trait::async_trait;
use serde_json::Value;

use crate::{
    error::{ErrorKind, ToolError},
    names::TenantId,
};

/// The longest secret, in bytes.
pub const MAX_SECRET_BYTES: usize = 64 << 10;

/// The question to the plugin's grants: `Ok` where the action is granted, `PermissionDenied` where it is not.
pub type Require<'a> = dyn Fn(&str) -> Result<(), ToolError> + Send + Sync + 'a;

/// On whose behalf one HTTP request is sent, and within what.
#[derive(Clone, Copy)]
pub struct HttpSendContext<'a> {
    /// The tenant.
    pub tenant: &'a TenantId,
    /// To be asked for `http:METHOD:HOST` before anything is looked up or sent, and again for each hop of a redirect.
    /// Its denials are audited.
    pub require: &'a Require<'a>,
    /// When the request ends, whatever it is doing.
    pub deadline: Instant,
    /// Bytes that the answer's body may have.
    pub max_response_bytes: usize,
}

/// Sends HTTP requests for plugins.
#[async_trait]
pub trait HttpSend: Send + Sync {
    /// Sends `request`, an object with `url` and what else the sender knows, and gives `{status, headers, body, url}`,
    /// with `body_base64` in the place of `body` where that is not UTF-8.
    ///
    /// # Errors
    /// `InvalidArguments` where it is no request; `PermissionDenied` where `cx.require` says no or the address is not for
    /// plugins; `TimedOut`, `RateLimited`, `Unavailable` by what became of it.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection. The server may have acted on the request.
    async fn send(&self, request: Value, cx: HttpSendContext<'_>) -> Result<Value, ToolError>;
}

/// A secret's name: 1 to 64 of `A-Z 0-9 _`. It can be neither a path nor a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SecretName(Arc<str>);

impl SecretName {
    /// Checks and takes over a name.
    ///
    /// # Errors
    /// `InvalidArguments`, without what was given: a script that mixes up name and value must not show the value.
    pub fn new(name: &str) -> Result<Self, ToolError> {
        let fits = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
            let message = "a secret's name has 1 to 64 of A-Z 0-9 _, as in STRIPE_KEY";
            return Err(ToolError::new(ErrorKind::InvalidArguments, message));
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// For providers: the error of a secret that is there and cannot be read, with the cause for the operator.
    #[must_use]
    pub fn unreadable(&self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ToolError {
        ToolError::new(ErrorKind::Unavailable, format!("the secret {self} cannot be read; tell the operator"))
            .with_retryable(false)
            .with_source(cause)
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A secret's value. It has no `Display`, and its `Debug` is `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Takes over a value.
    #[must_use]
    pub fn new(value: impl Into<Arc<str>>) -> Self {
        Self(value.into())
    }

    /// For providers: takes over the value of the secret called `name`.
    ///
    /// # Errors
    /// `Unavailable` where it has more than [`MAX_SECRET_BYTES`].
    pub fn bounded(name: &SecretName, value: String) -> Result<Self, ToolError> {
        if value.len() > MAX_SECRET_BYTES {
            let message = format!("the secret {name} has more than {MAX_SECRET_BYTES} bytes; tell the operator");
            return Err(ToolError::new(ErrorKind::Unavailable, message).with_retryable(false));
        }
        Ok(Self::new(value))
    }

    /// The value itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Keeps secrets for plugins.
///
/// A provider is asked only after the plugin's grant for `secret:read:NAME` was checked.
#[async_trait]
pub trait SecretProvider: Send + Sync {
    /// The secret called `name` for a plugin that works for `tenant`; `None` where there is none.
    ///
    /// # Errors
    /// `Unavailable` where it cannot be read. The message is shown to the plugin and has nothing of the value.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    async fn secret(&self, tenant: &TenantId, name: &SecretName) -> Result<Option<Secret>, ToolError>;
}
