//! The section of the configuration file about programs that a model writes.

use schemars::JsonSchema;
use serde::Deserialize;
use toolbay::{code::CodeSettings, hook::ToolMatcher};

/// Whether the models of agents write programs that call tools, and what these may do.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CodeModeSection {
    /// Whether they do; `toolbay agent --code-mode` goes before.
    enabled: bool,
    /// Tool calls of one program.
    max_calls: Option<u32>,
    /// Calls of one `parallel` that run at the same time.
    max_parallel: Option<usize>,
    /// Bytes of what one program prints.
    max_printed_bytes: Option<usize>,
    /// Bytes of the functions in what the model is told.
    max_listing_bytes: Option<usize>,
    /// The tools whose names match one of these globs are given to the model beside.
    beside: Vec<String>,
    /// These never run beside others in a `parallel`.
    exclusive: Vec<String>,
    /// Bytes of what is kept of a program that waits for approval.
    max_journal_bytes: Option<usize>,
}

impl CodeModeSection {
    /// What programs may do, where there are any.
    pub(crate) fn settings(&self, enabled: bool) -> Result<Option<CodeSettings>, String> {
        if !self.enabled && !enabled {
            return Ok(None);
        }
        let matcher = |key: &str, globs: &[String]| {
            let matcher = ToolMatcher::new(globs);
            matcher.map_err(|problem| format!("{key}: {problem}"))
        };
        let mut settings = CodeSettings::default();
        settings.max_calls = self.max_calls.unwrap_or(settings.max_calls);
        settings.max_parallel = self.max_parallel.unwrap_or(settings.max_parallel);
        settings.max_printed_bytes = self.max_printed_bytes.unwrap_or(settings.max_printed_bytes);
        settings.max_listing_bytes = self.max_listing_bytes.unwrap_or(settings.max_listing_bytes);
        settings.journal.max_bytes = self.max_journal_bytes.unwrap_or(settings.journal.max_bytes);
        settings.beside = matcher("beside", &self.beside)?;
        settings.exclusive = matcher("exclusive", &self.exclusive)?;
        Ok(Some(settings))
    }
}
