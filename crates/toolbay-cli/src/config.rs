//! The configuration file: what an operator decides once instead of on every command line.
//!
//! TOML; every key is optional and an unknown one is an error:
//!
//! ```toml
//! [limits]                          # the ceiling for every call, up or down from the defaults
//! timeout_ms = 2000                 # the keys are those of `toolbay::LimitsRequest`
//! max_operations = 1_000_000
//!
//! [quota]                           # what each tenant may use together
//! max_concurrent_calls = 64
//! max_calls_per_minute = 6000
//!
//! [grants]
//! host = ["kv:*", "clock"]          # what every plugin is given if it asks, in the place of the standard grants
//!
//! [http]                            # plugins' HTTP requests; hosts and methods are granted like everything else
//! allow_plain_http = true           # whether http:// may be granted, as "http-plain:GET:HOST"
//! allow_networks = ["10.0.0.0/8"]   # networks that are not public and may be reached all the same
//! max_response_bytes = 1_048_576    # bytes of an answer; a call's max_string_bytes may be less
//! timeout_ms = 10_000               # a request's time, where the call's is longer
//!
//! [secrets]                         # what `secret("NAME")` reads, where "secret:read:NAME" is granted
//! environment = "TOOLBAY_SECRET_"   # the variables that begin with this
//! directory = "/run/secrets"        # then the files of this folder
//!
//! [oauth]                           # tokens that let clients in at /mcp, beside the host's own keys
//! issuer = "https://login.example.com"            # iss, to the letter
//! resource = "https://tools.example.com/mcp"      # this server, in aud
//! jwks_uri = "https://login.example.com/jwks"     # the issuer's keys; [http] says what may be reached
//! tenant_claim = "tenant"           # the claim that names the tenant
//! required_scope = "tools"          # without it any scope will do
//!
//! [isolation]                       # "process" or "in-process"; a manifest has no say
//! global = "in-process"             # plugins for everybody
//! tenants = "process"               # plugins of tenants, and programs
//! allow_in_process = false          # whether to go on without worker processes where the system cannot have them
//!
//! [breaker]                         # when a plugin that fails is not called for a while; 0 failures: never
//! failures = 20                     # calls in a row that failed by no fault of their caller, for one tenant
//! open_for_ms = 30_000              # how long before one call is let through to try
//! failed_checks = 3                 # health checks in a row, for everybody
//! check_interval_ms = 30_000        # how often servers ask plugins whether they are well; 0: never
//!
//! [loading]
//! code = "at-first-use"             # when code is compiled that can wait: "as-declared" (by auto_load), "at-once"
//!
//! [budget]                          # what one run of `toolbay agent` may use; its options go before
//! max_steps = 32
//! max_tool_calls = 128
//! max_calls_per_tool = { "mail.*" = 3 } # by glob
//! max_tokens = 200_000               # of requests and replies; max_input_tokens and max_output_tokens bound each
//! max_cost = 0.25                    # by the prices below; a model without a price does not run then
//! max_wall_time_ms = 300_000
//!
//! [budget.day]                      # what the tenant may use in a day, over all runs at one database (--database)
//! max_cost = 5                      # max_steps, max_tool_calls, max_calls_per_tool, max_input_tokens, max_output_tokens and
//!                                   # max_wall_time_ms as above
//!
//! [retries]                         # calls of idempotent tools that are made again after errors that can pass
//! max = 2                           # how often one call is; without this: never
//! first_wait_ms = 200               # the wait before the first time; it doubles with each
//! max_wait_ms = 5_000
//!
//! [prices."gpt-4o*"]                # what a million tokens cost, by model or glob
//! input = 2.5
//! output = 10
//!
//! [telemetry]                       # traces for OpenTelemetry
//! endpoint = "http://127.0.0.1:4318" # the collector, over OTLP by HTTP; without it nothing is sent
//! service_name = "toolbay"
//! sampled = 1.0                     # the share of traces that is sent; a caller's own decision goes before it
//! content = false                   # whether spans have what was said, asked and answered
//! timeout_ms = 10_000               # for one request to the collector
//!
//! [callbacks]
//! timeout_ms = 10_000               # how long each callback of a plugin may take
//!
//! [abilities.chain]                 # an interface that plugins provide; callers use `chain.balance`
//! description = "A block chain, read only"
//!
//! [abilities.chain.operations.balance]
//! description = "What an address holds"
//! parameters = { type = "object", properties = { address = { type = "string" } }, required = ["address"] }
//! output = { type = "object", required = ["amount"] }
//! annotations = { read_only = true }
//!
//! [code_mode]                       # models write programs that call tools, in the place of calling them one by one
//! enabled = true                    # or by `toolbay agent --code-mode`
//! max_calls = 100                   # tool calls of one program; the budget counts them too
//! max_parallel = 8                  # calls of one parallel() at the same time
//! max_printed_bytes = 4096          # of what one program prints
//! max_listing_bytes = 16_384        # of the functions in what the model is told
//! beside = ["mail.*"]               # tools that the model is given beside, by glob
//! exclusive = ["ledger.*"]          # tools that never run beside others
//! max_journal_bytes = 1_048_576     # of what is kept of a program that waits for approval
//!
//! [approval]                        # which calls need approval, beside what hooks ask for
//! destructive = true                # tools that say so of themselves; unless it is said: in runs of agents alone
//! ask = ["bank.*"]                  # these tools
//! except = ["bank.balance"]         # never these
//!
//! [plugins.fx]
//! config = { base = "EUR" }         # checked against the plugin's config_schema
//! grants = ["kv:*", "clock"]        # what this plugin is given, in the place of [grants]
//!
//! isolation = "process"             # where this plugin runs
//! enabled = false                   # whether tenants have it before it is switched on for them
//! auto_load = true                  # whether its code is compiled when it is loaded, in the place of [loading]
//!
//! [tenants.acme]
//! isolation = "process"             # where the tenant's own plugins run
//! secrets = { directory = "acme" }   # the tenant's own, in the place of [secrets]
//! grants = ["kv:read"]              # what the tenant gives plugins on its behalf; without it whatever the host gives
//! limits = { timeout_ms = 500 }     # lower limits for the tenant's calls
//!
//! [tenants.acme.plugins.fx]         # what the tenant decides about a plugin
//! enabled = true
//! config = { base = "CHF" }         # goes before the configuration above, field by field
//! priority = 1                      # lower goes first where several plugins could serve
//! ```

use std::{collections::BTreeMap, fs, io::Read, path::Path, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use toolbay::{
    Ability, AbilityName, Activation, Annotations, ApprovalPolicy, Bounds, Breaker, CodeLoading, DayBudget, ErrorKind,
    Isolation, Limits, LimitsRequest, LoadError, Loading, Operation, PermissionSet, PluginName, Prices, Quota,
    SecretChain, TenantId, TierPolicy, ToolName, ToolRetries, ToolbayBuilder, code::CodeSettings, mcp::JwtIssuer,
    mcp_client::HttpPolicy,
};

use crate::{
    approval::ApprovalSection,
    code_mode::CodeModeSection,
    exit::CliError,
    oauth::OauthSection,
    outside::{HttpSection, SecretsSection},
    spending::{self, BudgetSection, PriceSection, RetriesSection},
};

/// More is no configuration written by hand.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// How often servers ask plugins whether they are well, unless the file says otherwise.
const HEALTH_INTERVAL: Duration = Duration::from_secs(30);

/// What an operator of Toolbay decides once instead of on every command line.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "Toolbay's configuration file")]
pub(crate) struct Config {
    /// The ceiling for every call, up or down from the defaults.
    limits: LimitsRequest,
    /// What each tenant may use together.
    quota: QuotaSection,
    /// What every plugin is given if it asks.
    grants: GrantsSection,
    /// Plugins' HTTP requests.
    http: HttpSection,
    /// Where plugins' secrets lie.
    secrets: SecretsSection,
    /// Whose tokens let clients in at /mcp.
    oauth: Option<OauthSection>,
    /// Where scripts run.
    isolation: IsolationSection,
    /// When a plugin that fails is not called for a while.
    breaker: BreakerSection,
    /// When plugins' code is compiled.
    loading: LoadingSection,
    /// What one run of an agent may use.
    budget: BudgetSection,
    /// Calls of tools that are made again.
    retries: RetriesSection,
    /// What a million tokens of a model cost, by model or glob.
    prices: BTreeMap<String, PriceSection>,
    /// Traces for OpenTelemetry.
    telemetry: TelemetrySection,
    /// Programs that models write.
    code_mode: CodeModeSection,
    /// Which calls need approval.
    approval: ApprovalSection,
    /// Plugins' callbacks.
    callbacks: CallbacksSection,
    /// Interfaces that plugins provide, by name.
    abilities: BTreeMap<AbilityName, AbilitySection>,
    /// Single plugins by name.
    plugins: BTreeMap<PluginName, PluginSection>,
    /// Single tenants by id.
    tenants: BTreeMap<TenantId, TenantSection>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct QuotaSection {
    /// Calls in flight at any instant, nested ones included.
    max_concurrent_calls: Option<usize>,
    /// Calls that may begin in a minute.
    max_calls_per_minute: Option<u32>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct GrantsSection {
    /// What every plugin is given if it asks, in the place of the standard grants.
    host: Option<PermissionSet>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct IsolationSection {
    /// Plugins for everybody.
    global: Option<Isolation>,
    /// Plugins of tenants, and programs.
    tenants: Option<Isolation>,
    /// Whether to go on without worker processes where the system cannot have them.
    allow_in_process: bool,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct BreakerSection {
    /// Calls of one tenant in a row that failed by no fault of their caller; 0: never.
    failures: Option<u32>,
    /// How long before one call is let through to try.
    open_for_ms: Option<u64>,
    /// Health checks in a row that failed, for everybody; 0: never.
    failed_checks: Option<u32>,
    /// How often servers ask plugins whether they are well; 0: never.
    check_interval_ms: Option<u64>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct LoadingSection {
    /// For code that can wait: all but that of plugins with hooks, on_load or on_start.
    code: WhenCompiled,
}

/// When code is compiled.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum WhenCompiled {
    /// As each manifest says by auto_load.
    #[default]
    AsDeclared,
    /// When the plugin is loaded.
    AtOnce,
    /// When it is needed first.
    AtFirstUse,
}

/// Traces for OpenTelemetry.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TelemetrySection {
    /// The collector's address, for OTLP by HTTP; without it nothing is sent.
    pub(crate) endpoint: Option<String>,
    /// The program's name in traces.
    pub(crate) service_name: Option<String>,
    /// The share of traces that is sent, from 0 to 1.
    pub(crate) sampled: Option<f64>,
    /// Whether spans have what was said, asked and answered.
    pub(crate) content: bool,
    /// For one request to the collector.
    pub(crate) timeout_ms: Option<u64>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct CallbacksSection {
    /// How long each callback of a plugin may take.
    timeout_ms: Option<u64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct AbilitySection {
    /// What it is for, in a sentence.
    description: String,
    /// What can be asked of it, by name.
    operations: BTreeMap<ToolName, OperationSection>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OperationSection {
    /// What it does, for the model.
    description: String,
    /// The JSON Schema of its arguments, an object; without it the operation takes none.
    #[schemars(with = "Option<Map<String, Value>>")]
    parameters: Option<toml::Table>,
    /// The JSON Schema of its result.
    #[schemars(with = "Option<Map<String, Value>>")]
    output: Option<toml::Table>,
    /// What it does to the world.
    #[serde(default)]
    annotations: Annotations,
}

impl OperationSection {
    fn operation(&self) -> Result<Operation, String> {
        let schema = |key: &str, table: &Option<toml::Table>| {
            let value = |table: &toml::Table| json(&toml::Value::Table(table.clone()));
            table.as_ref().map(value).transpose().map_err(|problem| format!("{key}: {problem}"))
        };
        let mut operation = Operation::without_parameters(&self.description);
        operation.parameters = schema("parameters", &self.parameters)?.unwrap_or(operation.parameters);
        operation.output = schema("output", &self.output)?;
        operation.annotations = self.annotations;
        Ok(operation)
    }
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct PluginSection {
    /// Whether tenants have the plugin before it is switched on for them.
    enabled: Option<bool>,
    /// Whether the plugin's code is compiled when it is loaded, in the place of loading.code.
    auto_load: Option<bool>,
    /// The plugin's configuration, checked against its config_schema.
    #[schemars(with = "Option<Map<String, Value>>")]
    config: Option<toml::Table>,
    /// Where the plugin runs.
    isolation: Option<Isolation>,
    /// What the plugin is given, in the place of grants.host.
    grants: Option<PermissionSet>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct TenantSection {
    /// Where the tenant's own plugins run.
    isolation: Option<Isolation>,
    /// What the tenant gives plugins on its behalf; without it whatever the host gives.
    grants: Option<PermissionSet>,
    /// The tenant's own secrets, in the place of the host's.
    secrets: Option<SecretsSection>,
    /// Lower limits for the tenant's calls.
    limits: LimitsRequest,
    /// What the tenant decides about single plugins.
    plugins: BTreeMap<PluginName, ActivationSection>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct ActivationSection {
    /// Whether the tenant has the plugin.
    enabled: Option<bool>,
    /// Its configuration for the tenant, which goes before the plugin's own field by field.
    #[schemars(with = "Option<Map<String, Value>>")]
    config: Option<toml::Table>,
    /// Its place where several plugins could serve: lower goes first.
    priority: Option<i32>,
}

impl Config {
    /// Reads the file at `path`; without one, everything is as by default.
    pub(crate) fn load(path: Option<&Path>) -> Result<Self, CliError> {
        let Some(path) = path else { return Ok(Self::default()) };
        let shown = path.display();
        let unreadable = |error| CliError::usage(format!("--config: {shown} cannot be read: {error}"));
        let mut text = String::new();
        let file = fs::File::open(path).map_err(unreadable)?;
        file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).map_err(unreadable)?;
        if text.len() as u64 > MAX_FILE_BYTES {
            return Err(CliError::usage(format!("--config: {shown} has more than {MAX_FILE_BYTES} bytes")));
        }
        Self::parse(&shown.to_string(), &text).map_err(CliError::usage)
    }

    /// Takes the file's text; the error names `file`, line and column.
    pub(crate) fn parse(file: &str, text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| located(file, text, &error))?;
        let senseless = |place: &str, limits: &LimitsRequest| {
            limits.validate().map_err(|error| format!("{file}: {}", error.within(place)))
        };
        senseless("limits", &config.limits)?;
        config
            .tenants
            .iter()
            .try_for_each(|(name, section)| senseless(&format!("tenants.{name}.limits"), &section.limits))?;
        Ok(config)
    }

    /// The ceiling of every call.
    pub(crate) fn limits(&self) -> Limits {
        let (mut limits, asked) = (Limits::default(), &self.limits);
        limits.timeout = asked.timeout_ms.map_or(limits.timeout, Duration::from_millis);
        macro_rules! take {
            ($($field:ident)*) => { $(limits.$field = asked.$field.unwrap_or(limits.$field);)* };
        }
        take!(max_operations max_call_depth max_expr_depth max_memory_bytes max_string_bytes max_array_len max_map_len
            max_variables max_source_bytes max_argument_bytes max_output_bytes max_nesting max_log_bytes max_host_calls
            max_call_chain);
        limits
    }

    /// Which plugins run in which tier.
    pub(crate) fn tiers(&self) -> TierPolicy {
        let usual = TierPolicy::default();
        let named = |(name, section): (&PluginName, &PluginSection)| Some((name.clone(), section.isolation?));
        let of_tenant = |(tenant, section): (&TenantId, &TenantSection)| Some((tenant.clone(), section.isolation?));
        TierPolicy {
            global: self.isolation.global.unwrap_or(usual.global),
            tenants: self.isolation.tenants.unwrap_or(usual.tenants),
            plugins: self.plugins.iter().filter_map(named).collect(),
            tenant: self.tenants.iter().filter_map(of_tenant).collect(),
        }
    }

    /// When plugins' code is compiled. `lazy` is the command line's word, which goes before the file's for all plugins that
    /// the file does not name.
    pub(crate) fn loading(&self, lazy: bool) -> Loading {
        let code = match self.loading.code {
            _ if lazy => CodeLoading::AtFirstUse,
            WhenCompiled::AsDeclared => CodeLoading::AsDeclared,
            WhenCompiled::AtOnce => CodeLoading::AtOnce,
            WhenCompiled::AtFirstUse => CodeLoading::AtFirstUse,
        };
        let named = |(name, section): (&PluginName, &PluginSection)| Some((name.clone(), section.auto_load?));
        Loading { code, plugins: self.plugins.iter().filter_map(named).collect() }
    }

    /// Whether to go on without worker processes where the system cannot have them.
    pub(crate) fn allows_in_process(&self) -> bool {
        self.isolation.allow_in_process
    }

    /// What one run of an agent may use, and what models cost.
    pub(crate) fn spending(&self) -> Result<(Bounds, Prices), CliError> {
        let usage = |problem: String| CliError::usage(format!("--config: {problem}"));
        let bounds = self.budget.bounds(Bounds::default()).map_err(|problem| usage(format!("budget.{problem}")))?;
        Ok((bounds, spending::prices(&self.prices).map_err(|problem| usage(format!("prices.{problem}")))?))
    }

    /// Where traces go.
    pub(crate) fn telemetry(&self) -> &TelemetrySection {
        &self.telemetry
    }

    /// What the programs of models may do, where they write any. `enabled` is the command line's word.
    pub(crate) fn code_mode(&self, enabled: bool) -> Result<Option<CodeSettings>, CliError> {
        let settings = self.code_mode.settings(enabled);
        settings.map_err(|problem| CliError::usage(format!("--config: code_mode.{problem}")))
    }

    /// Which calls need approval, with `destructive` where the file does not say.
    pub(crate) fn approval(&self, destructive: bool) -> Result<ApprovalPolicy, CliError> {
        let policy = self.approval.policy(destructive);
        policy.map_err(|problem| CliError::usage(format!("--config: approval.{problem}")))
    }

    /// What a tenant may use in a day, and how calls are made again.
    pub(crate) fn over_runs(&self) -> Result<(Option<DayBudget>, Option<ToolRetries>), CliError> {
        let day = self.budget.day().map_err(|problem| CliError::usage(format!("--config: budget.{problem}")))?;
        Ok((day, self.retries.retries()))
    }

    /// Hands everything but the limits to `builder`.
    pub(crate) fn apply_to(&self, builder: ToolbayBuilder) -> Result<ToolbayBuilder, CliError> {
        let (default, breaker) = (Quota::default(), Breaker::default());
        let mut builder = builder
            .breaker(Breaker {
                failures: self.breaker.failures.unwrap_or(breaker.failures),
                open_for: self.breaker.open_for_ms.map_or(breaker.open_for, Duration::from_millis),
                failed_checks: self.breaker.failed_checks.unwrap_or(breaker.failed_checks),
            })
            .quota(Quota {
                max_concurrent_calls: self.quota.max_concurrent_calls.unwrap_or(default.max_concurrent_calls),
                max_calls_per_minute: self.quota.max_calls_per_minute.unwrap_or(default.max_calls_per_minute),
            })
            .approval(self.approval(false)?)
            .grants(self.grants.host.clone().unwrap_or_else(PermissionSet::standard))
            .http(self.http.client().map_err(|problem| CliError::usage(format!("--config: http.{problem}")))?);
        builder = builder.trace_content(self.telemetry.content);
        #[cfg(feature = "otel")]
        if self.telemetry.endpoint.is_some() {
            builder = builder.trace_link(std::sync::Arc::new(toolbay::otel::OtelLink));
        }
        if let Some(provider) = self.secrets()? {
            builder = builder.secrets(provider);
        }
        if let Some(timeout) = self.callbacks.timeout_ms {
            builder = builder.callback_timeout(Duration::from_millis(timeout));
        }
        let table = |place: String, table: &toml::Table| {
            let problem = |problem| CliError::usage(format!("--config: {place}.config: {problem}"));
            json(&toml::Value::Table(table.clone())).map_err(problem)
        };
        for (name, section) in &self.abilities {
            let mut operations = BTreeMap::new();
            for (operation, section) in &section.operations {
                let place =
                    |problem| CliError::usage(format!("--config: abilities.{name}.operations.{operation}.{problem}"));
                operations.insert(operation.clone(), section.operation().map_err(place)?);
            }
            let description = section.description.clone();
            builder = builder.ability(Ability { name: name.clone(), description, operations });
        }
        for (name, section) in &self.plugins {
            if let Some(enabled) = section.enabled {
                builder = builder.enabled_by_default(name.clone(), enabled);
            }
            if let Some(grants) = &section.grants {
                builder = builder.plugin_grants(name.clone(), grants.clone());
            }
            if let Some(config) = &section.config {
                builder = builder.plugin_config(name.clone(), table(format!("plugins.{name}"), config)?);
            }
        }
        for (name, section) in &self.tenants {
            if let Some(grants) = &section.grants {
                builder = builder.tenant_grants(name.clone(), grants.clone());
            }
            if let Some(section) = &section.secrets {
                // A section without a place keeps nothing: the tenant then has no secrets.
                let provider = provider(&format!("tenants.{name}.secrets"), section)?.unwrap_or_default();
                builder = builder.tenant_secrets(name.clone(), provider);
            }
            for (plugin, section) in &section.plugins {
                let place = || format!("tenants.{name}.plugins.{plugin}");
                let config = section.config.as_ref().map(|config| table(place(), config)).transpose()?;
                let activation = Activation { enabled: section.enabled, config, priority: section.priority };
                builder = builder.activation(name.clone(), plugin.clone(), activation);
            }
            if section.limits != LimitsRequest::default() {
                builder = builder.tenant_limits(name.clone(), section.limits.clone());
            }
        }
        Ok(builder)
    }

    /// Where MCP servers may be that are called.
    pub(crate) fn mcp_http(&self) -> Result<HttpPolicy, CliError> {
        self.http.mcp().map_err(|problem| CliError::usage(format!("--config: http.{problem}")))
    }

    /// Who reads the tokens that let clients in, where there are any.
    pub(crate) fn oauth(&self) -> Result<Option<JwtIssuer>, CliError> {
        let issuer = self.oauth.as_ref().map(|section| section.issuer(&self.http)).transpose();
        issuer.map_err(|problem| CliError::usage(format!("--config: {problem}")))
    }

    /// The secrets that are for everybody.
    pub(crate) fn secrets(&self) -> Result<Option<SecretChain>, CliError> {
        provider("secrets", &self.secrets)
    }

    /// The plugins that the file speaks of.
    pub(crate) fn plugins(&self) -> impl Iterator<Item = &PluginName> {
        self.plugins.keys()
    }

    /// The tenants that the file speaks of, each with the plugins about which it decides.
    pub(crate) fn tenants(&self) -> impl Iterator<Item = (&TenantId, Vec<&PluginName>)> {
        self.tenants.iter().map(|(tenant, section)| (tenant, section.plugins.keys().collect()))
    }

    /// How often servers ask plugins whether they are well.
    pub(crate) fn health_interval(&self) -> Option<Duration> {
        let interval = self.breaker.check_interval_ms.map_or(HEALTH_INTERVAL, Duration::from_millis);
        Some(interval).filter(|interval| !interval.is_zero())
    }
}

/// A problem with file, line and column, and the line itself.
fn located(file: &str, text: &str, error: &toml::de::Error) -> String {
    let mut problem = LoadError::new(ErrorKind::Config, error.message().trim_end()).in_file(file);
    if let Some(before) = error.span().and_then(|span| text.get(..span.start)) {
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        problem = problem.at(before.matches('\n').count() + 1, column, text);
    }
    problem.to_string()
}

/// A configuration as plugins see it: JSON, where dates are texts.
fn json(value: &toml::Value) -> Result<Value, String> {
    Ok(match value {
        toml::Value::String(text) => Value::from(text.as_str()),
        toml::Value::Integer(number) => Value::from(*number),
        toml::Value::Float(number) => serde_json::Number::from_f64(*number)
            .map(Value::Number)
            .ok_or_else(|| format!("{number} has no JSON form: write an ordinary number"))?,
        toml::Value::Boolean(truth) => Value::from(*truth),
        toml::Value::Datetime(date) => Value::from(date.to_string()),
        toml::Value::Array(items) => Value::Array(items.iter().map(json).collect::<Result<_, _>>()?),
        toml::Value::Table(table) => {
            let entries = table.iter().map(|(key, value)| Ok((key.clone(), json(value)?)));
            Value::Object(entries.collect::<Result<_, String>>()?)
        }
    })
}

fn provider(place: &str, section: &SecretsSection) -> Result<Option<SecretChain>, CliError> {
    section.provider().map_err(|problem| CliError::usage(format!("--config: {place}.{problem}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_of_the_file_becomes_the_ceiling() {
        let text = "[limits]\ntimeout_ms = 1\nmax_operations = 2\nmax_call_depth = 3\nmax_expr_depth = 4\n\
                    max_memory_bytes = 5\nmax_string_bytes = 6\nmax_array_len = 7\nmax_map_len = 8\nmax_variables = 9\n\
                    max_source_bytes = 10\nmax_argument_bytes = 11\nmax_output_bytes = 12\nmax_nesting = 13\n\
                    max_log_bytes = 14\nmax_host_calls = 15\nmax_call_chain = 16\n";
        let limits = toml::from_str::<Config>(text).unwrap().limits();
        let expected = Limits {
            timeout: std::time::Duration::from_millis(1),
            max_operations: 2,
            max_call_depth: 3,
            max_expr_depth: 4,
            max_memory_bytes: 5,
            max_string_bytes: 6,
            max_array_len: 7,
            max_map_len: 8,
            max_variables: 9,
            max_source_bytes: 10,
            max_argument_bytes: 11,
            max_output_bytes: 12,
            max_nesting: 13,
            max_log_bytes: 14,
            max_host_calls: 15,
            max_call_chain: 16,
        };
        assert_eq!(limits, expected);
    }

    #[test]
    fn configuration_becomes_json() {
        let table: toml::Table = toml::from_str("a = [1, 2.5, true]\nb = { c = 2026-01-02 }").unwrap();
        let value = json(&toml::Value::Table(table)).unwrap();
        assert_eq!(value, serde_json::json!({"a": [1, 2.5, true], "b": {"c": "2026-01-02"}}));
        assert!(json(&toml::Value::Float(f64::NAN)).unwrap_err().contains("no JSON form"));
    }
}
