//! What the API takes and gives, a type for each: the wire's shapes are a promise, and stand apart from the rows and
//! figures inside, which are not.

use chrono::{DateTime, SecondsFormat};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use toolbay_api::{Scope, ToolError};
use toolbay_runtime::store::{AuditLine, KeyRow, PackageVersion, Registration, Role, RunRow, TenantRow};

/// A part of a list.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Page<T> {
    /// The part.
    pub(crate) items: Vec<T>,
    /// What to give as `cursor` for the next part; `null` where this is the end.
    pub(crate) next: Option<String>,
}

/// Where something is registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ScopeName {
    /// For everybody.
    Global,
    /// For the tenant.
    Tenant,
}

impl From<&Scope> for ScopeName {
    fn from(scope: &Scope) -> Self {
        match scope {
            Scope::Global => Self::Global,
            Scope::Tenant(_) => Self::Tenant,
        }
    }
}

/// What a key allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RoleName {
    /// Calls the tools of its tenant and decides about the tenant's plugins.
    Tenant,
    /// Decides about all tenants and their plugins.
    Operator,
    /// That, and about keys and what is global.
    Admin,
}

impl From<Role> for RoleName {
    fn from(role: Role) -> Self {
        match role {
            Role::Tenant => Self::Tenant,
            Role::Operator => Self::Operator,
            Role::Admin => Self::Admin,
        }
    }
}

impl From<RoleName> for Role {
    fn from(role: RoleName) -> Self {
        match role {
            RoleName::Tenant => Self::Tenant,
            RoleName::Operator => Self::Operator,
            RoleName::Admin => Self::Admin,
        }
    }
}

/// A time by RFC 3339, UTC.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[schemars(extend("format" = "date-time"))]
pub(crate) struct Time(pub(crate) String);

impl Time {
    pub(crate) fn of(millis: i64) -> Self {
        let time = DateTime::from_timestamp_millis(millis).unwrap_or_default();
        Self(time.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

/// A plugin.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PluginView {
    /// Its name.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
    /// Where it is registered.
    pub(crate) scope: ScopeName,
    /// What it says that it does.
    pub(crate) description: String,
    /// Whether its tools and hooks are there now. Of a global plugin as such: whether tenants have it before they decide.
    pub(crate) enabled: bool,
    /// Whether tenants may neither switch it off nor put one of their own in its place.
    pub(crate) protected: bool,
    /// Its place where several plugins could serve: lower goes first.
    pub(crate) priority: i32,
    /// Why it is off though it should be on, or why what is decided about it could not be taken over.
    pub(crate) problem: Option<String>,
    /// Its tools, by the names that callers know them by.
    pub(crate) tools: Vec<String>,
}

/// A plugin with what is decided about it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct PluginDetail {
    #[serde(flatten)]
    pub(crate) plugin: PluginView,
    /// The permissions that it asks for.
    pub(crate) permissions: Vec<String>,
    /// The JSON Schema of its configuration.
    pub(crate) config_schema: Option<Value>,
    /// What is decided about it here, where anything is.
    pub(crate) registration: Option<RegistrationView>,
}

/// What is decided about a plugin.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RegistrationView {
    /// Its number.
    pub(crate) id: String,
    /// The plugin.
    pub(crate) plugin: String,
    /// Where.
    pub(crate) scope: ScopeName,
    /// The version that is installed; for a plugin that was not uploaded, the one that was there when it was decided.
    pub(crate) version: String,
    /// The SHA-256 of the uploaded package that is installed.
    pub(crate) package: Option<String>,
    /// The version before this one.
    pub(crate) previous: Option<String>,
    /// Whether it is on.
    pub(crate) enabled: bool,
    /// What is said of its configuration.
    pub(crate) config: Option<Value>,
    /// Its place where several plugins could serve.
    pub(crate) priority: Option<i32>,
    /// When it was installed or first decided about.
    pub(crate) installed_at: Time,
    /// When it was last written.
    pub(crate) updated_at: Time,
    /// How often it was written.
    pub(crate) revision: i64,
}

impl From<&Registration> for RegistrationView {
    fn from(row: &Registration) -> Self {
        Self {
            id: row.id.to_string(),
            plugin: row.plugin.to_string(),
            scope: (&row.scope).into(),
            version: row.version.to_string(),
            package: row.package.as_ref().map(ToString::to_string),
            previous: row.previous.as_ref().map(ToString::to_string),
            enabled: row.enabled,
            config: row.config.clone(),
            priority: row.priority,
            installed_at: Time::of(row.installed_at),
            updated_at: Time::of(row.updated_at),
            revision: row.revision,
        }
    }
}

/// A plugin's configuration.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ConfigView {
    /// What is said of it here; `null`: nothing.
    pub(crate) config: Option<Value>,
    /// All layers together, for operators: the host's own may be none of a tenant's business.
    pub(crate) effective: Option<Value>,
    /// Its JSON Schema.
    pub(crate) schema: Option<Value>,
}

/// A configuration to be set.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfigWanted {
    /// An object, which goes before the host's configuration field by field.
    pub(crate) config: serde_json::Map<String, Value>,
}

/// A place to be set.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PriorityWanted {
    /// Lower goes first; `null` takes it away.
    #[schemars(required)]
    #[serde(deserialize_with = "present")]
    pub(crate) priority: Option<i32>,
}

/// A field that must be there, and may be `null`.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<i32>, D::Error> {
    Option::deserialize(deserializer)
}

/// How a version is to be installed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InstallWanted {
    /// Which; the newest where none is said.
    #[serde(default)]
    pub(crate) version: Option<String>,
    /// Whether it may break those who call the tools of the one that is there.
    #[serde(default)]
    pub(crate) allow_breaking: bool,
}

/// An uploaded version.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct VersionView {
    /// The plugin.
    pub(crate) plugin: String,
    /// The version.
    pub(crate) version: String,
    /// The SHA-256 of its package.
    pub(crate) digest: String,
    /// The package's length.
    pub(crate) bytes: i64,
    /// The name of its file, where it is a one-file plugin.
    pub(crate) file_name: Option<String>,
    /// The plugin's manifest.
    pub(crate) manifest: Value,
    /// When it was uploaded.
    pub(crate) uploaded_at: Time,
    /// Who uploaded it, as the audit calls them.
    pub(crate) uploaded_by: String,
    /// What an operator may want to change, in full sentences. In the answer to an upload only.
    pub(crate) warnings: Vec<String>,
}

impl From<&PackageVersion> for VersionView {
    fn from(row: &PackageVersion) -> Self {
        Self {
            plugin: row.plugin.to_string(),
            version: row.version.to_string(),
            digest: row.digest.to_string(),
            bytes: row.bytes,
            file_name: row.file_name.clone(),
            manifest: row.manifest.clone(),
            uploaded_at: Time::of(row.uploaded_at),
            uploaded_by: row.uploaded_by.clone(),
            warnings: Vec::new(),
        }
    }
}

/// An error of a plugin.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ErrorView {
    /// Its kind.
    pub(crate) kind: String,
    /// What went wrong.
    pub(crate) message: String,
}

impl From<&ToolError> for ErrorView {
    fn from(error: &ToolError) -> Self {
        Self { kind: error.kind.name().to_owned(), message: error.message.clone().into_owned() }
    }
}

/// Where in its life a plugin is.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StatusView {
    /// Its name.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
    /// Where it is registered.
    pub(crate) scope: ScopeName,
    /// `Unloaded`, `Loading`, `Loaded`, `Active`, `Stopping`, `Stopped` or `Failed`.
    pub(crate) state: String,
    /// Whether it is on.
    pub(crate) enabled: bool,
    /// Why it is off though it should be on.
    pub(crate) problem: Option<String>,
    /// Since when it is in its state. Of a global plugin: for operators.
    pub(crate) since: Option<Time>,
    /// Its calls in flight. Of a global plugin: for operators.
    pub(crate) calls_in_flight: Option<u64>,
    /// The last thing that went wrong in a callback. Of a global plugin: for operators.
    pub(crate) last_error: Option<ErrorView>,
}

/// How a plugin fares.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct HealthView {
    /// Its name.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
    /// Where it is registered.
    pub(crate) scope: ScopeName,
    /// Whether it is called without restriction here.
    pub(crate) well: bool,
    /// Why it is not called for the tenant for now.
    pub(crate) withheld: Option<Withheld>,
    /// What its calls tell. Of a global plugin: for operators, since the calls are other tenants' too.
    pub(crate) figures: Option<Figures>,
}

/// Why a plugin is not called for a tenant.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Withheld {
    /// `breaker` or `quarantine`.
    pub(crate) by: String,
    /// For how long yet, in milliseconds.
    pub(crate) left_ms: u64,
    /// The last failure.
    pub(crate) cause: String,
}

/// What a plugin's calls tell.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Figures {
    /// How often it was replaced in its place, and one.
    pub(crate) generation: u64,
    /// How long it has been in its state, in milliseconds.
    pub(crate) uptime_ms: u64,
    /// Calls that ended.
    pub(crate) calls: u64,
    /// The failed ones by the kind of their error.
    pub(crate) errors: std::collections::BTreeMap<String, u64>,
    /// The last ones that failed in a row.
    pub(crate) consecutive_failures: u32,
    /// Half of the calls took no longer, in milliseconds.
    pub(crate) p50_ms: f64,
    /// 99 of 100 took no longer.
    pub(crate) p99_ms: f64,
    /// Tenants for which it is not called for now.
    pub(crate) open_circuits: usize,
    /// Whether it is kept from everybody since its health checks fail.
    pub(crate) down: bool,
}

/// A tenant.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct TenantView {
    /// Its number.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// Whether its keys are refused for now.
    pub(crate) suspended: bool,
    /// When it was made.
    pub(crate) created_at: Time,
    /// How often it was written.
    pub(crate) revision: i64,
}

impl From<&TenantRow> for TenantView {
    fn from(row: &TenantRow) -> Self {
        Self {
            id: row.id.to_string(),
            name: row.name.to_string(),
            suspended: row.suspended,
            created_at: Time::of(row.created_at),
            revision: row.revision,
        }
    }
}

/// A tenant to be made.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TenantWanted {
    /// Its name.
    pub(crate) name: toolbay_api::TenantId,
}

/// A key, without itself.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct KeyView {
    /// Its number.
    pub(crate) id: String,
    /// Its first part, which is not secret.
    pub(crate) prefix: String,
    /// What it allows.
    pub(crate) role: RoleName,
    /// Its tenant, where the role is that of a tenant.
    pub(crate) tenant: Option<String>,
    /// What it is for.
    pub(crate) label: String,
    /// Requests a minute that it allows; `null`: as many as the server allows every key.
    pub(crate) rate: Option<u32>,
    /// When it was made.
    pub(crate) created_at: Time,
    /// From when on it is refused.
    pub(crate) expires_at: Option<Time>,
    /// When it was revoked.
    pub(crate) revoked_at: Option<Time>,
}

impl From<&KeyRow> for KeyView {
    fn from(row: &KeyRow) -> Self {
        Self {
            id: row.id.to_string(),
            prefix: row.prefix.clone(),
            role: row.role.into(),
            tenant: row.tenant.as_ref().map(ToString::to_string),
            label: row.label.clone(),
            rate: row.rate,
            created_at: Time::of(row.created_at),
            expires_at: row.expires_at.map(Time::of),
            revoked_at: row.revoked_at.map(Time::of),
        }
    }
}

/// A key that was just made.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct NewKeyView {
    #[serde(flatten)]
    pub(crate) key: KeyView,
    /// The key itself, shown this once.
    pub(crate) secret: String,
}

/// A key to be made.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyAsked {
    /// What it is to allow.
    pub(crate) role: RoleName,
    /// Its tenant: for the role tenant, and for that one only.
    #[serde(default)]
    pub(crate) tenant: Option<toolbay_api::TenantId>,
    /// What it is for.
    #[serde(default)]
    #[schemars(length(max = 200))]
    pub(crate) label: String,
    /// From when on it is refused.
    #[serde(default)]
    pub(crate) expires_at: Option<Time>,
    /// Requests a minute that it allows.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub(crate) rate: Option<u32>,
}

/// How a key is to be replaced.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RotateWanted {
    /// How long the old key goes on beside the new one, in milliseconds.
    #[serde(default)]
    #[schemars(range(min = 0, max = 2_592_000_000_u64))]
    pub(crate) grace_ms: u64,
}

/// Where a secret is found.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SecretWanted {
    /// As the host's keeper of secrets calls it.
    #[schemars(regex(pattern = "^[A-Z0-9_]{1,64}$"))]
    pub(crate) reference: String,
}

/// Where a secret is found.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct SecretView {
    /// As plugins call it.
    pub(crate) name: String,
    /// As the host's keeper of secrets calls it.
    pub(crate) reference: String,
}

/// A line of the audit.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct AuditView {
    /// Its place in its chain, from 1.
    pub(crate) sequence: i64,
    /// When.
    pub(crate) at: Time,
    /// Who.
    pub(crate) actor: String,
    /// What.
    pub(crate) action: String,
    /// To what.
    pub(crate) target: String,
    /// How it went: `ok`, or an error's kind.
    pub(crate) outcome: String,
    /// What else there is to know.
    pub(crate) detail: Value,
    /// The hash of the line before, in hexadecimal.
    pub(crate) previous: String,
    /// This line's hash.
    pub(crate) hash: String,
}

impl From<&AuditLine> for AuditView {
    fn from(line: &AuditLine) -> Self {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let entry = &line.entry;
        Self {
            sequence: line.sequence,
            at: Time::of(entry.at_ms),
            actor: entry.actor.clone(),
            action: entry.action.clone(),
            target: entry.target.clone(),
            outcome: entry.outcome.clone(),
            detail: entry.detail.clone(),
            previous: hex(&line.previous),
            hash: hex(&line.hash),
        }
    }
}

/// What came of reading a chain.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct VerdictView {
    /// Whether every line follows on the one before.
    pub(crate) whole: bool,
    /// Lines that were read.
    pub(crate) lines: i64,
    /// The first line that does not follow.
    pub(crate) broken_at: Option<i64>,
}

/// A run.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RunView {
    /// Its id.
    pub(crate) id: String,
    /// `running`, `suspended`, `finished`, `failed` or `cancelled`.
    pub(crate) status: String,
    /// When it began.
    pub(crate) started_at: Time,
    /// When it was last written.
    pub(crate) updated_at: Time,
    /// What is needed to go on or to show it; `null` in lists.
    pub(crate) state: Value,
    /// How often it was written.
    pub(crate) revision: i64,
}

impl From<&RunRow> for RunView {
    fn from(row: &RunRow) -> Self {
        Self {
            id: row.id.to_string(),
            status: row.status.clone(),
            started_at: Time::of(row.started_at),
            updated_at: Time::of(row.updated_at),
            state: row.state.clone(),
            revision: row.revision,
        }
    }
}

/// A plugin that is not called for a while since it ran into its limits too often.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct QuarantineView {
    /// The plugin.
    pub(crate) plugin: String,
    /// For how long yet, in milliseconds.
    pub(crate) left_ms: u64,
    /// The last breach.
    pub(crate) cause: String,
}

/// A tool call.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CallWanted {
    /// The arguments, as the tool's parameters have them.
    #[serde(default)]
    pub(crate) arguments: serde_json::Map<String, Value>,
    /// The tenant's user for whom the call is made.
    #[serde(default)]
    #[schemars(length(min = 1, max = 200))]
    pub(crate) user: Option<String>,
    /// The conversation that it belongs to.
    #[serde(default)]
    #[schemars(length(min = 1, max = 200))]
    pub(crate) conversation: Option<String>,
    /// The user's rights, which tools may require. The key's holder answers for its users.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub(crate) rights: Vec<String>,
}

/// The result of a tool call.
#[derive(Debug, Serialize, JsonSchema)]
#[allow(dead_code, reason = "the document's picture of the vocabulary's WireResult, which knows no schemas")]
pub(crate) struct CallResult {
    /// Whether the tool succeeded.
    pub(crate) success: bool,
    /// Its result, `null` after a failure.
    pub(crate) data: Value,
    /// Its error, `null` after success.
    pub(crate) error: Option<CallError>,
    /// `duration_ms`, `operations`, `peak_bytes`, `host_calls` and what later versions add.
    pub(crate) metadata: serde_json::Map<String, Value>,
}

/// The error of a tool call.
#[derive(Debug, Serialize, JsonSchema)]
#[allow(dead_code, reason = "as above")]
pub(crate) struct CallError {
    /// Its kind.
    pub(crate) kind: String,
    /// What went wrong and what to do.
    pub(crate) message: String,
    /// Data beside the message.
    pub(crate) details: Value,
    /// Whether the same call can succeed later.
    pub(crate) retryable: bool,
}

/// Tools in some form.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct ToolsView {
    /// The tools, as `format` asks for them.
    pub(crate) tools: Vec<Value>,
}

/// Whose key it is.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct WhoView {
    /// The key's first part.
    pub(crate) prefix: String,
    /// What it allows.
    pub(crate) role: RoleName,
    /// Its tenant.
    pub(crate) tenant: Option<String>,
}

/// Whether the server is there, or ready.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Condition {
    /// `ok`.
    pub(crate) status: String,
}

/// How it stands with the store.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct StoreView {
    /// As of which change the registry is.
    pub(crate) position: i64,
    /// Whether the store could be read the last time.
    pub(crate) ready: bool,
    /// Registrations that could not be taken over.
    pub(crate) failed: Vec<FailedView>,
}

/// A registration that could not be taken over.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct FailedView {
    /// Whose; `null` for what is for everybody.
    pub(crate) tenant: Option<String>,
    /// The plugin.
    pub(crate) plugin: String,
    /// Why.
    pub(crate) problem: String,
}
