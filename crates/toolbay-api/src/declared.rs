//! What is known of a plugin before its code is compiled. It stands apart from `plugin` since a host that compiles each
//! plugin when it loads it has no use for it.

use crate::{callback::Callback, manifest::Manifest, plugin::LoadError};

/// What a package says of itself, told without its code being compiled.
///
/// A host shows the plugin by it, in lists, to models and where names clash, until the code is needed. What the code
/// declares once it is compiled must be the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Declared {
    /// The whole manifest, with what the code declares.
    pub manifest: Manifest,
    /// The callbacks that the code may have. One that is not among them it does not have.
    pub callbacks: Vec<Callback>,
}

impl Declared {
    /// Whether the code has nothing to do before somebody needs it. A hook guards others from the beginning on, and
    /// `on_load` and `on_start` are the beginning, so a plugin that has one of them cannot wait.
    ///
    /// ```
    /// use toolbay_api::{Callback, Declared, Manifest, PluginName};
    /// let manifest = Manifest::new(PluginName::new("quiet")?, semver::Version::new(1, 0, 0), "Waits");
    /// let quiet = Declared { manifest, callbacks: vec![Callback::HealthCheck] };
    /// assert!(quiet.can_wait());
    /// assert!(!Declared { callbacks: vec![Callback::Start], ..quiet }.can_wait());
    /// # Ok::<(), toolbay_api::NameError>(())
    /// ```
    #[must_use]
    pub fn can_wait(&self) -> bool {
        let begins = |callback: &Callback| matches!(callback, Callback::Load | Callback::Start);
        self.manifest.hooks.is_empty() && !self.callbacks.iter().any(begins)
    }
}

/// Whether a registered plugin's code is there.
#[derive(Debug, Clone, Default)]
pub enum CodeState {
    /// It is.
    #[default]
    Ready,
    /// It is compiled when somebody needs it.
    AtFirstUse,
    /// It was needed and could not be compiled, for this reason: what needs it is refused.
    Failed(LoadError),
}

impl CodeState {
    /// The state's name, for tables and JSON: `ready`, `at-first-use`, `failed`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::AtFirstUse => "at-first-use",
            Self::Failed(_) => "failed",
        }
    }
}
