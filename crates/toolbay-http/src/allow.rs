//! The question to the grants, as a trait of its own so that a host can audit each answer where it is given.

use toolbay_api::{ErrorKind, Grants, ToolError};

/// Answers whether the plugin may do what an action names: `http:GET:api.example.com` and its like.
///
/// It is asked before a request's host name is looked up, and again for each hop of a redirect, so that a host which
/// writes down denials sees all of them. It must answer at once: it is called on the async runtime's threads.
pub trait Allow: Send + Sync {
    /// `Ok` where `action` is granted.
    ///
    /// # Errors
    /// `PermissionDenied` with a sentence for the plugin where it is not. Any error ends the request.
    fn require(&self, action: &str) -> Result<(), ToolError>;
}

impl Allow for Grants {
    fn require(&self, action: &str) -> Result<(), ToolError> {
        Self::require(self, action)
    }
}

impl<F: Fn(&str) -> bool + Send + Sync> Allow for F {
    fn require(&self, action: &str) -> Result<(), ToolError> {
        if self(action) {
            return Ok(());
        }
        let message = format!("the permission `{action}` is needed and is not granted");
        Err(ToolError::new(ErrorKind::PermissionDenied, message))
    }
}
