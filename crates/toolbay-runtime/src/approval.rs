//! Step 5 of the road: calls that somebody has to approve first.
//!
//! A hook asks, a tool is annotated as destructive, or a policy names the tool. Such a call is not made. Where its caller can
//! wait it comes back as a [`PendingApproval`]; it is made again, down the whole road, with the [`Approval`] that somebody's
//! [`Decision`] became, and that counts for exactly what was shown, once, and for a time.
//!
//! # Layout
//!
//! - here: policies, what is pending, decisions. [`identity`]: what binds them. `desk`: what a call on the road has of them.
//! - `spent`: which were used.

mod desk;
mod identity;
mod spent;

use std::{fmt, time::Duration};

use semver::Version;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use toolbay_api::{Annotations, CallId, PluginName, RunId, Scope, TenantId, ToolName, hook::ToolMatcher};
use uuid::Uuid;

pub use desk::Desk;
pub(crate) use desk::{Ask, Verdict, settle};
pub use identity::identity;
pub(crate) use spent::Spent;

use crate::catalog::ToolEntry;

/// When calls need approval, beside what hooks ask for.
///
/// Host, session and agent can have one each; a call needs approval where one of them says so.
#[derive(Debug, Clone)]
pub struct ApprovalPolicy {
    /// Calls of tools that say of themselves that they may destroy something.
    pub destructive: bool,
    /// Calls of these tools.
    pub ask: Option<ToolMatcher>,
    /// Never calls of these, as far as this policy goes. What a hook asks for stays asked.
    pub except: Option<ToolMatcher>,
    /// Whether the policy is for calls that are made inside other tools too. Most such calls cannot wait: what needs approval is
    /// then refused.
    pub inside_tools: bool,
    /// How long an approval can be given, and used, after it was asked for. The shortest of all policies counts.
    pub expires_after: Duration,
}

impl Default for ApprovalPolicy {
    /// Nothing needs approval but what hooks ask for; a day to give it.
    fn default() -> Self {
        Self {
            destructive: false,
            ask: None,
            except: None,
            inside_tools: true,
            expires_after: Duration::from_secs(24 * 60 * 60),
        }
    }
}

impl ApprovalPolicy {
    /// The policy of an agent's runs where none is set: calls of destructive tools need approval.
    #[must_use]
    pub fn destructive() -> Self {
        Self { destructive: true, ..Self::default() }
    }

    /// What the policy has against a call of `entry`, if anything.
    fn asks(&self, entry: &ToolEntry, is_inside: bool) -> Option<Ask> {
        let names = [Some(&entry.info.definition.name), entry.info.served_by.as_ref()];
        let concerns = |tools: &Option<ToolMatcher>| {
            let matches = |tools: &ToolMatcher| names.iter().flatten().any(|name| tools.matches(name.as_str()));
            tools.as_ref().is_some_and(matches)
        };
        if (is_inside && !self.inside_tools) || concerns(&self.except) {
            return None;
        }
        let destroys = |entry: &ToolEntry| {
            let Annotations { destructive, .. } = entry.info.definition.annotations;
            destructive == Some(true)
        };
        if self.destructive && (destroys(entry) || entry.serving.as_deref().is_some_and(destroys)) {
            let reason = "the tool may destroy something".to_owned();
            return Some(Ask { by: AskedBy::Annotation, reason });
        }
        let reason = || "calls of this tool are to be approved".to_owned();
        concerns(&self.ask).then(|| Ask { by: AskedBy::Policy, reason: reason() })
    }
}

/// Who wants a call approved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AskedBy {
    /// A hook.
    Hook(String),
    /// The tool's own annotation, by a policy.
    Annotation,
    /// A policy that names the tool.
    Policy,
}

impl fmt::Display for AskedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hook(name) => f.write_str(name),
            Self::Annotation => f.write_str("annotation"),
            Self::Policy => f.write_str("policy"),
        }
    }
}

/// The code that a call would run, as an approval is bound to it: equal in every process that has the same plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CalledPlugin {
    /// Its name.
    pub name: PluginName,
    /// Its version.
    pub version: Version,
    /// Where it is registered.
    pub scope: Scope,
    /// SHA-256 over its files in hexadecimal digits, where it came from files.
    pub content: Option<String>,
}

/// A call that waits for somebody's decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PendingApproval {
    /// What a decision names.
    pub id: Uuid,
    /// The tenant.
    pub tenant: TenantId,
    /// The run.
    pub run: RunId,
    /// The call that waits. Where the tool was to be called inside another tool's call, that one.
    pub call: CallId,
    /// The tool, by its qualified name.
    pub tool: ToolName,
    /// The tool's code.
    pub plugin: CalledPlugin,
    /// What it would be called with, without secrets.
    pub arguments: Value,
    /// Why, in words of whoever asks. A script may have written them: they are shown, never acted on.
    pub reason: String,
    /// Who asks.
    pub asked_by: Vec<AskedBy>,
    /// Names tenant, tool, code and true arguments, and what is shown.
    pub digest: String,
    /// When it was asked, in milliseconds since 1970, UTC.
    pub created_at: i64,
    /// From when on no decision counts.
    pub expires_at: i64,
}

/// What somebody decides about a [`PendingApproval`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Make the call as it was shown.
    Approve,
    /// Do not.
    Reject {
        /// Why; the model reads it.
        reason: String,
    },
    /// Make it with these arguments. They are checked like any, hooks see them, and where a hook changes them the call is
    /// asked about again.
    Edit {
        /// The arguments.
        arguments: Value,
    },
}

impl Decision {
    /// Its name in records.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Reject { .. } => "reject",
            Self::Edit { .. } => "edit",
        }
    }
}

/// A decision as a call is presented with it; made by [`Session::decide`](crate::Session::decide).
#[derive(Debug, Clone)]
pub struct Approval {
    pub(crate) id: Uuid,
    pub(crate) binds: Binds,
    /// The reason, where the call must not be made.
    pub(crate) rejected: Option<String>,
    pub(crate) expires_at: i64,
}

/// What a decision counts for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Binds {
    /// What was shown, by its digest.
    Shown(String),
    /// This tool with the arguments that whoever decided wrote.
    Subject(String),
}

impl PendingApproval {
    pub(crate) fn approval(&self, decision: &Decision) -> Approval {
        let (binds, rejected) = match decision {
            Decision::Approve => (Binds::Shown(self.digest.clone()), None),
            Decision::Reject { reason } => (Binds::Shown(self.digest.clone()), Some(reason.clone())),
            Decision::Edit { arguments } => {
                let subject = subject(&self.tenant, &self.tool, &self.plugin, arguments);
                (Binds::Subject(identity(&subject)), None)
            }
        };
        Approval { id: self.id, binds, rejected, expires_at: self.expires_at }
    }
}

/// What would be called, for whom, with what.
fn subject(tenant: &TenantId, tool: &ToolName, plugin: &CalledPlugin, arguments: &Value) -> Value {
    json!({
        "spec": "toolbay-approval/1", "tenant": tenant, "tool": tool, "plugin": plugin, "arguments": arguments,
    })
}
