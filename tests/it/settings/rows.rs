//! What is tried for each field: two values, where they stand, and what one of them shows.

use serde_json::{Value, json};

use super::Setup;

/// How something is looked at.
#[derive(Debug, Clone)]
pub(super) enum Look {
    /// A call of this tool with these arguments.
    Call(&'static str, Value),
    /// The tools as an MCP client sees them.
    Tools,
    /// `toolbay check --json`.
    Check,
}

/// A field of a manifest.
pub(super) struct Row {
    pub(super) field: &'static str,
    /// Where it stands in the manifest of the setup.
    pub(super) place: &'static str,
    pub(super) one: Value,
    pub(super) other: Value,
    pub(super) script: &'static str,
    pub(super) config: &'static str,
    pub(super) look: Look,
    /// What is seen with `one` and not with `other`.
    pub(super) says: &'static str,
}

/// A limit: too low for the script, and high enough or at least another figure.
#[derive(Clone)]
pub(super) struct Limit {
    pub(super) field: &'static str,
    pub(super) low: u64,
    pub(super) high: u64,
    pub(super) script: String,
    pub(super) args: Value,
    pub(super) says: String,
}

/// A plugin that others can require.
pub(super) const BANK: &str = r#"const PLUGIN = #{ name: "bank", version: "1.5.0", description: "A bank.", author: "The tests",
    tools: #{ balance: #{ description: "Tells the balance." } } };
fn balance(args) { 7 }"#;

/// A plugin with a hook of priority 50 that answers calls of `probe.hooked`.
pub(super) const GUARD: &str = r#"const PLUGIN = #{ name: "guard", version: "1.0.0", description: "A guard.", author: "The tests",
    hooks: #{ before_tool_call: #{ priority: 50, tools: ["probe.hooked"] } } };
fn before_tool_call(input) { #{ deny: "the guard was first" } }"#;

const ONE: &str = "fn run(args) { 1 }";
const HOOKED: &str = "fn hooked(args) { 1 }\nfn before_tool_call(input) { #{ deny: \"the probe was first\" } }";

fn row(field: &'static str, one: Value, other: Value, look: Look, says: &'static str) -> Row {
    Row { field, place: field, one, other, script: ONE, config: "", look, says }
}

impl Row {
    fn at(self, place: &'static str) -> Self {
        Self { place, ..self }
    }

    fn script(self, script: &'static str) -> Self {
        Self { script, ..self }
    }

    fn config(self, config: &'static str) -> Self {
        Self { config, ..self }
    }
}

/// What a field needs around it to show itself.
pub(super) fn before(field: &str, setup: Setup) -> Setup {
    let bank = json!([{ "name": "bank", "version": "^1" }]);
    let tool = json!({ "description": "Hooked.", "parameters": { "type": "object" } });
    if field.starts_with("requires") {
        return setup.set("requires", &bank);
    }
    if field.starts_with("hooks.") || field == "provides.hooks" {
        return setup
            .set("tools", &json!({ "hooked": tool }))
            .set("hooks.before_tool_call", &json!({ "priority": 10 }));
    }
    setup
}

/// The fields of a manifest but for limits.
pub(super) fn manifest() -> Vec<Row> {
    let call = || Look::Call("probe.run", json!({}));
    let hooked = || Look::Call("probe.hooked", json!({}));
    let info = |field, one: &str, other: &str, says| row(field, json!(one), json!(other), Look::Check, says);
    let hook = |field, place, one, other, says| row(field, one, other, hooked(), says).at(place).script(HOOKED);
    let hint = |field, place, says| row(field, json!(true), json!(false), Look::Tools, says).at(place);
    vec![
        row("name", json!("probe"), json!("other"), Look::Tools, "probe.run"),
        info("version", "1.0.0", "2.0.0", "\"version\": \"1.0.0\""),
        info("description", "First.", "Second.", "First."),
        info("author", "Ada", "Bob", "Ada"),
        info("license", "MIT", "Apache-2.0", "MIT"),
        info("homepage", "https://a.example", "https://b.example", "https://a.example"),
        info("repository", "https://a.example", "https://b.example", "https://a.example"),
        row("keywords", json!(["a-word"]), json!(["b-word"]), Look::Check, "a-word"),
        row("runtime", json!("wasm"), json!("rhai"), Look::Check, "no runner for the runtime wasm"),
        row("entry", json!("other.rhai"), json!("main.rhai"), call(), "the other file"),
        row(
            "provides.tools",
            json!(["walk"]),
            json!(["run"]),
            Look::Check,
            "names \\\"walk\\\", which is not declared",
        ),
        row("provides.hooks", json!(["on_error"]), json!(["before_tool_call"]), Look::Check, "names \\\"on_error\\\"")
            .script(HOOKED),
        row("provides.abilities", json!(["chain"]), json!(["model"]), Look::Check, "chain.balance has no tool")
            .config("[abilities.chain]\ndescription = \"d\"\noperations.balance = { description = \"d\" }\n"),
        row("provides.events", json!(["paid"]), json!(["sold"]), Look::Check, "paid"),
        row("requires.*.name", json!("gone"), json!("bank"), Look::Check, "needs the plugin gone")
            .at("requires.0.name"),
        row("requires.*.version", json!("^9"), json!("^1"), call(), "needs the plugin bank ^9")
            .at("requires.0.version"),
        row("framework", json!("^9"), json!("*"), Look::Check, "asks for ^9"),
        row("auto_load", json!(false), json!(true), Look::Tools, "probe.run").script("fn run(args) { let x = ; }"),
        row("permissions", json!([]), json!(["kv:read"]), Look::Check, "needs a permission")
            .script("fn run(args) { kv_get(\"a\") }"),
        row(
            "config_schema",
            json!({ "properties": { "base": { "type": "string" } } }),
            json!({}),
            call(),
            "does not fit config_schema",
        )
        .config("[plugins.probe]\nconfig = { base = 1 }\n"),
        row("tools.*.description", json!("First."), json!("Second."), Look::Tools, "First.")
            .at("tools.run.description"),
        row(
            "tools.*.parameters",
            json!({ "type": "object", "required": ["n"] }),
            json!({ "type": "object" }),
            call(),
            "InvalidArguments",
        )
        .at("tools.run.parameters"),
        row(
            "tools.*.output",
            json!({ "type": "string" }),
            json!({ "type": "integer" }),
            call(),
            "expected the type string",
        )
        .at("tools.run.output"),
        row("tools.*.required_permissions", json!(["billing:write"]), json!([]), call(), "\"error\":{")
            .at("tools.run.required_permissions"),
        row("tools.*.timeout_ms", json!(1_000), json!(4_000), call(), "\"data\":false")
            .at("tools.run.timeout_ms")
            .script("fn run(args, cx) { cx.deadline_ms > 2_000 }"),
        hint("tools.*.annotations.read_only", "tools.run.annotations.read_only", "\"readOnlyHint\": true"),
        hint("tools.*.annotations.destructive", "tools.run.annotations.destructive", "\"destructiveHint\": true"),
        hint("tools.*.annotations.idempotent", "tools.run.annotations.idempotent", "\"idempotentHint\": true"),
        hint("tools.*.annotations.open_world", "tools.run.annotations.open_world", "\"openWorldHint\": true"),
        hook("hooks.*.priority", "hooks.before_tool_call.priority", json!(10), json!(90), "the probe was first"),
        hook(
            "hooks.*.tools",
            "hooks.before_tool_call.tools",
            json!(["probe.*"]),
            json!(["todo.*"]),
            "the probe was first",
        ),
        hook("hooks.*.timeout_ms", "hooks.before_tool_call.timeout_ms", json!(1_000), json!(4_000), "a short time")
            .script("fn hooked(args) { 1 }\nfn before_tool_call(input, cx) { if cx.deadline_ms < 2_000 { #{ deny: \"a short time\" } } }"),
        hook("hooks.*.on_failure", "hooks.before_tool_call.on_failure", json!("closed"), json!("open"), "HookFailed")
            .script("fn hooked(args) { 1 }\nfn before_tool_call(input) { throw \"oh\" }"),
    ]
}

/// The limits.
pub(super) fn limits() -> Vec<Limit> {
    let limit = |field, low, high, body: &str, args: Value, says: &str| Limit {
        field,
        low,
        high,
        script: format!("fn run(args) {{ {body} }}"),
        args,
        says: says.to_owned(),
    };
    let none = || json!({});
    let over = |name: &str| format!("\"limit\":\"{name}\"");
    let deep = format!("{}1{}", "1 + (".repeat(20), ")".repeat(20));
    let variables: String = (0..20).map(|n| format!("let v{n} = {n}; ")).collect();
    let nested = json!({ "a": { "a": { "a": { "a": { "a": { "a": 1 } } } } } });
    vec![
        // What is left of it is seen without waiting for its end, which other tests do.
        Limit {
            script: "fn run(args, cx) { cx.deadline_ms > 2_000 }".to_owned(),
            ..limit("timeout_ms", 1_000, 4_000, "", none(), "\"data\":false")
        },
        limit("max_operations", 1_000, 2_000, "loop {}", none(), "\"allowed\":1000"),
        Limit {
            script: "fn run(args) { f(20) }\nfn f(n) { if n == 0 { 0 } else { 1 + f(n - 1) } }".to_owned(),
            ..limit("max_call_depth", 5, 50, "", none(), &over("call_depth"))
        },
        limit("max_expr_depth", 8, 64, &deep, none(), "xpression"),
        limit(
            "max_memory_bytes",
            200_000,
            10_000_000,
            "let a = []; a.pad(50_000, 1); a.len()",
            none(),
            &over("memory"),
        ),
        limit("max_string_bytes", 100, 1_000, "let s = \"\"; s.pad(500, \"x\"); s.len()", none(), &over("string_size")),
        limit("max_array_len", 10, 1_000, "let a = []; a.pad(100, 1); a.len()", none(), &over("array_size")),
        limit(
            "max_map_len",
            10,
            1_000,
            "let m = #{}; for i in 0..50 { m[\"k\" + i] = i; } m.len()",
            none(),
            &over("map_size"),
        ),
        limit("max_variables", 5, 50, &format!("{variables}v1"), none(), &over("variables")),
        limit("max_source_bytes", 100, 1_000, &format!("/* {} */ 1", "x".repeat(200)), none(), "100"),
        limit("max_argument_bytes", 20, 1_000, "1", json!({ "x": "x".repeat(50) }), &over("arguments")),
        limit("max_output_bytes", 20, 1_000, &format!("\"{}\"", "x".repeat(50)), none(), &over("output")),
        limit("max_nesting", 3, 64, "1", nested, &over("nesting")),
        limit("max_log_bytes", 10, 1_000, "log(\"0123456789abcdef\"); 1", none(), "has logged its 10 bytes"),
        limit("max_host_calls", 2, 100, "for i in 0..5 { kv_get(\"a\"); } 1", none(), &over("host_calls")),
        limit(
            "max_call_chain",
            1,
            4,
            "if args.n == 0 { 0 } else { call_tool(\"probe.run\", #{ n: args.n - 1 }) }",
            json!({ "n": 3 }),
            &over("call_chain"),
        ),
    ]
}

/// Keys of the configuration file: one text, another, what is seen with the one, and whether the plugin is the tenant's.
pub(super) const CONFIG: &[(&str, &str, &str, &str, bool)] = &[
    (
        "isolation.global",
        "[isolation]\nglobal = \"process\"\n",
        "[isolation]\nglobal = \"in-process\"\n",
        "\"isolation\":\"process\"",
        false,
    ),
    (
        "isolation.tenants",
        "[isolation]\ntenants = \"process\"\n",
        "[isolation]\ntenants = \"in-process\"\n",
        "\"isolation\":\"process\"",
        true,
    ),
    (
        "plugins.*.isolation",
        "[plugins.probe]\nisolation = \"process\"\n",
        "[plugins.probe]\nisolation = \"in-process\"\n",
        "\"isolation\":\"process\"",
        false,
    ),
    (
        "tenants.*.isolation",
        "[tenants.acme]\nisolation = \"in-process\"\n",
        "[tenants.acme]\nisolation = \"process\"\n",
        "\"isolation\":\"in-process\"",
        true,
    ),
];

const ABILITY: &str = "each_key_of_an_ability_in_the_configuration_file_is_seen";
const OAUTH: &str = "each_key_of_oauth_says_whose_tokens_let_whom_in";
const TELEMETRY: &str = "each_key_of_telemetry_is_heeded";
const APPROVAL: &str = "each_key_of_approval_in_the_configuration_file_counts";
const CODE_MODE: &str = "each_key_of_code_mode_says_what_programs_may_do";
const BUDGET: &str = "each_budget_of_the_configuration_file_binds_and_says_what_ran_out";
const DAY: &str = "each_budget_of_a_day_binds_over_commands_at_one_database";
const RETRIES: &str = "each_setting_of_retries_says_whether_and_when_a_call_is_made_again";

/// Fields whose tests stand elsewhere: of what, which, and the test's name.
pub(super) const NAMED: &[(&str, &str, &str)] = &[
    // The one key that changes nothing: it is for editors.
    ("manifest", "$schema", "a_manifest_with_every_key_is_the_same_in_three_formats"),
    ("manifest", "events", "each_field_of_a_scripts_declaration_of_events_changes_what_happens"),
    ("manifest", "requires_services", "what_a_plugin_requires_must_be_lent_to_it_and_its_lender_stays"),
    ("manifest", "tools.*.allowed_callers", "a_plugin_that_a_tool_does_not_list_cannot_call_it_and_the_audit_knows"),
    ("manifest", "prompts.*.description", "each_field_of_a_prompt_and_of_a_resource_changes_what_is_shown"),
    ("manifest", "prompts.*.arguments.*.name", "each_field_of_a_prompt_and_of_a_resource_changes_what_is_shown"),
    ("manifest", "prompts.*.arguments.*.description", "each_field_of_a_prompt_and_of_a_resource_changes_what_is_shown"),
    ("manifest", "prompts.*.arguments.*.required", "each_field_of_a_prompt_and_of_a_resource_changes_what_is_shown"),
    ("manifest", "prompts.*.arguments.*.values", "each_field_of_a_prompt_and_of_a_resource_changes_what_is_shown"),
    ("manifest", "prompts.*.messages.*.role", "each_field_of_a_prompt_and_of_a_resource_changes_what_is_shown"),
    ("manifest", "prompts.*.messages.*.text", "each_field_of_a_prompt_and_of_a_resource_changes_what_is_shown"),
    ("manifest", "prompts.*.tool", "each_field_of_a_prompt_and_of_a_resource_changes_what_is_shown"),
    ("manifest", "resources.*.uri", "each_field_of_a_prompt_and_of_a_resource_changes_what_is_shown"),
    ("manifest", "resources.*.description", "each_field_of_a_prompt_and_of_a_resource_changes_what_is_shown"),
    ("manifest", "resources.*.mime_type", "each_field_of_a_prompt_and_of_a_resource_changes_what_is_shown"),
    ("manifest", "resources.*.asset", "each_field_of_a_prompt_and_of_a_resource_changes_what_is_shown"),
    ("manifest", "resources.*.tool", "each_field_of_a_prompt_and_of_a_resource_changes_what_is_shown"),
    ("config", "breaker.failures", "the_file_says_how_long_callbacks_may_take_and_when_a_breaker_opens"),
    ("config", "breaker.open_for_ms", "the_file_says_how_long_callbacks_may_take_and_when_a_breaker_opens"),
    ("config", "breaker.failed_checks", "the_file_says_how_often_plugins_are_asked_and_when_they_are_down"),
    ("config", "breaker.check_interval_ms", "the_file_says_how_often_plugins_are_asked_and_when_they_are_down"),
    ("config", "loading.code", "the_file_and_the_command_line_say_when_code_is_compiled"),
    ("config", "plugins.*.auto_load", "the_file_and_the_command_line_say_when_code_is_compiled"),
    ("config", "approval.destructive", APPROVAL),
    ("config", "approval.ask", APPROVAL),
    ("config", "approval.except", APPROVAL),
    ("config", "approval.inside_tools", APPROVAL),
    ("config", "approval.expires_after_ms", APPROVAL),
    ("config", "code_mode.enabled", CODE_MODE),
    ("config", "code_mode.max_calls", CODE_MODE),
    ("config", "code_mode.max_parallel", CODE_MODE),
    ("config", "code_mode.max_printed_bytes", CODE_MODE),
    ("config", "code_mode.max_listing_bytes", CODE_MODE),
    ("config", "code_mode.beside", CODE_MODE),
    ("config", "code_mode.exclusive", CODE_MODE),
    ("config", "code_mode.max_journal_bytes", CODE_MODE),
    ("config", "budget.max_steps", BUDGET),
    ("config", "budget.max_tool_calls", BUDGET),
    ("config", "budget.max_calls_per_tool", BUDGET),
    ("config", "budget.max_tokens", BUDGET),
    ("config", "budget.max_input_tokens", BUDGET),
    ("config", "budget.max_output_tokens", BUDGET),
    ("config", "budget.max_cost", BUDGET),
    ("config", "budget.max_wall_time_ms", BUDGET),
    ("config", "budget.day.max_steps", DAY),
    ("config", "budget.day.max_tool_calls", DAY),
    ("config", "budget.day.max_calls_per_tool", DAY),
    ("config", "budget.day.max_input_tokens", DAY),
    ("config", "budget.day.max_output_tokens", DAY),
    ("config", "budget.day.max_cost", DAY),
    ("config", "budget.day.max_wall_time_ms", DAY),
    ("config", "retries.max", RETRIES),
    ("config", "retries.first_wait_ms", RETRIES),
    ("config", "retries.max_wait_ms", RETRIES),
    ("config", "prices", BUDGET),
    ("config", "telemetry.endpoint", TELEMETRY),
    ("config", "telemetry.service_name", TELEMETRY),
    ("config", "telemetry.sampled", TELEMETRY),
    ("config", "telemetry.content", TELEMETRY),
    ("config", "telemetry.timeout_ms", TELEMETRY),
    ("config", "callbacks.timeout_ms", "the_file_says_how_long_callbacks_may_take_and_when_a_breaker_opens"),
    ("config", "plugins.*.enabled", "the_file_says_which_plugins_tenants_have_and_how_they_are_configured"),
    ("config", "tenants.*.plugins.*.enabled", "the_file_says_which_plugins_tenants_have_and_how_they_are_configured"),
    ("config", "tenants.*.plugins.*.config", "the_file_says_which_plugins_tenants_have_and_how_they_are_configured"),
    ("config", "tenants.*.plugins.*.priority", "the_file_says_which_plugins_tenants_have_and_how_they_are_configured"),
    ("config", "quota.max_concurrent_calls", "quota_bounds_a_tenant"),
    ("config", "quota.max_calls_per_minute", "quota_bounds_a_tenant"),
    ("config", "grants.host", "grants_of_host_plugin_and_tenant_are_all_needed"),
    ("config", "plugins.*.grants", "grants_of_host_plugin_and_tenant_are_all_needed"),
    ("config", "tenants.*.grants", "grants_of_host_plugin_and_tenant_are_all_needed"),
    ("config", "plugins.*.config", "a_plugin_gets_its_configuration_once_it_fits"),
    ("config", "abilities.*.description", ABILITY),
    ("config", "abilities.*.operations.*.description", ABILITY),
    ("config", "abilities.*.operations.*.parameters", ABILITY),
    ("config", "abilities.*.operations.*.output", ABILITY),
    ("config", "abilities.*.operations.*.annotations.read_only", ABILITY),
    ("config", "abilities.*.operations.*.annotations.destructive", ABILITY),
    ("config", "abilities.*.operations.*.annotations.idempotent", ABILITY),
    ("config", "abilities.*.operations.*.annotations.open_world", ABILITY),
    ("config", "http.allow_plain_http", "each_key_of_http_opens_or_bounds_something"),
    ("config", "http.allow_networks", "each_key_of_http_opens_or_bounds_something"),
    ("config", "http.max_response_bytes", "each_key_of_http_opens_or_bounds_something"),
    ("config", "http.timeout_ms", "each_key_of_http_opens_or_bounds_something"),
    ("config", "oauth.issuer", OAUTH),
    ("config", "oauth.resource", OAUTH),
    ("config", "oauth.jwks_uri", OAUTH),
    ("config", "oauth.tenant_claim", OAUTH),
    ("config", "oauth.required_scope", OAUTH),
    ("config", "secrets.environment", "each_key_of_secrets_is_a_place_and_a_tenants_own_goes_before"),
    ("config", "secrets.directory", "each_key_of_secrets_is_a_place_and_a_tenants_own_goes_before"),
    ("config", "tenants.*.secrets.environment", "each_key_of_secrets_is_a_place_and_a_tenants_own_goes_before"),
    ("config", "tenants.*.secrets.directory", "each_key_of_secrets_is_a_place_and_a_tenants_own_goes_before"),
    (
        "config",
        "isolation.allow_in_process",
        "allow_in_process_decides_what_happens_where_workers_cannot_be_locked_down",
    ),
    ("quotas", "Quota.max_concurrent_calls", "a_tenant_over_its_concurrency_is_told_to_come_back_and_others_are_not"),
    ("quotas", "Quota.max_calls_per_minute", "a_tenant_over_its_rate_is_told_both_figures_whatever_session_it_uses"),
    ("quotas", "KvQuota.max_keys", "each_quota_of_the_store_binds"),
    ("quotas", "KvQuota.max_bytes", "each_quota_of_the_store_binds"),
    ("quotas", "KvQuota.max_value_bytes", "each_quota_of_the_store_binds"),
    ("quotas", "Quarantine.breaches", "a_plugin_that_keeps_breaching_is_put_away_for_its_tenant_alone"),
    ("quotas", "Quarantine.window", "breaches_far_apart_and_a_quarantine_that_is_over_do_not_count"),
    ("quotas", "Quarantine.duration", "breaches_far_apart_and_a_quarantine_that_is_over_do_not_count"),
];
