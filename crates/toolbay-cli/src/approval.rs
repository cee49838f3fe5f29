//! The section of the configuration file about calls that somebody has to approve.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use toolbay::{ApprovalPolicy, hook::ToolMatcher};

/// Which calls need approval, beside what hooks ask for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ApprovalSection {
    /// Calls of tools that say of themselves that they may destroy something. Unless it is said: in runs of agents.
    destructive: Option<bool>,
    /// Calls of the tools whose names match one of these globs.
    ask: Vec<String>,
    /// Never calls of these, whatever stands above; what a hook asks for stays asked.
    except: Vec<String>,
    /// Whether this is for calls that are made inside other tools too, where most cannot wait and are refused.
    inside_tools: Option<bool>,
    /// How long an approval can be given after it was asked for.
    expires_after_ms: Option<u64>,
}

impl ApprovalSection {
    /// The policy, with `destructive` where the file does not say.
    pub(crate) fn policy(&self, destructive: bool) -> Result<ApprovalPolicy, String> {
        let matcher = |key: &str, globs: &[String]| {
            let matcher = (!globs.is_empty()).then(|| ToolMatcher::new(globs)).transpose();
            matcher.map_err(|problem| format!("{key}: {problem}"))
        };
        let usual = ApprovalPolicy::default();
        let expires_after = self.expires_after_ms.map_or(usual.expires_after, Duration::from_millis);
        if expires_after.is_zero() {
            return Err("expires_after_ms: nothing could be approved in 0 ms".to_owned());
        }
        Ok(ApprovalPolicy {
            destructive: self.destructive.unwrap_or(destructive),
            ask: matcher("ask", &self.ask)?,
            except: matcher("except", &self.except)?,
            inside_tools: self.inside_tools.unwrap_or(usual.inside_tools),
            expires_after,
        })
    }
}
