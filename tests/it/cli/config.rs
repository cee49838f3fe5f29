//! The configuration file: each key has an effect, and what is none of them is an error.

use serde_json::{Value, json};

use super::{Desk, Ran, kind};

const CALL: [&str; 6] = ["call", "--json", "--tools", "kit.rhai", "--config", "toolbay.toml"];

fn run(config: &str, args: &[&str]) -> Ran {
    Desk::with(&[("toolbay.toml", config)]).run(&[&CALL[..], args].concat())
}

/// The wire result of a call under this configuration.
fn call(config: &str, args: &[&str]) -> Value {
    run(config, args).json()
}

#[test]
fn limits_set_the_ceiling_and_flags_go_before_them() {
    let limited = "[limits]\ntimeout_ms = 50\nmax_operations = 1_000_000_000_000\nmax_output_bytes = 20\n";
    assert_eq!(kind(&call(limited, &["kit.spin"])), "TimedOut");
    let long = ["kit.fill", "--args", r#"{"length": 100}"#];
    assert_eq!(kind(&call(limited, &long)), "LimitExceeded");
    assert_eq!(kind(&call(limited, &[&long[..], &["--max-output", "1KiB"]].concat())), "ok");
    assert_eq!(kind(&call(limited, &["kit.spin", "--max-operations", "1000"])), "LimitExceeded");
}

#[test]
fn quota_bounds_a_tenant() {
    let lines =
        "{\"tool\": \"kit.whoami\"}\n{\"tool\": \"kit.whoami\"}\n{\"tool\": \"kit.whoami\", \"tenant\": \"b\"}\n";
    let desk = Desk::with(&[("toolbay.toml", "[quota]\nmax_calls_per_minute = 1\n"), ("batch.jsonl", lines)]);
    let ran = desk.run(&[&CALL[..], &["--batch", "batch.jsonl"]].concat()).ends(0);
    assert_eq!(ran.lines().iter().map(kind).collect::<Vec<_>>(), ["ok", "RateLimited", "ok"]);
    let none_at_once = call("[quota]\nmax_concurrent_calls = 0\n", &["kit.whoami"]);
    assert_eq!(
        (kind(&none_at_once), &none_at_once["error"]["details"]["limit"]),
        ("RateLimited", &json!("concurrency"))
    );
}

#[test]
fn grants_of_host_plugin_and_tenant_are_all_needed() {
    let count = |config: &str| kind(&call(config, &["kit.count"])).to_owned();
    assert_eq!(count(""), "ok");
    assert_eq!(count("[grants]\nhost = []\n"), "PermissionDenied");
    assert_eq!(count("[grants]\nhost = [\"kv:read\"]\n"), "PermissionDenied");
    assert_eq!(count("[grants]\nhost = []\n[plugins.kit]\ngrants = [\"kv:*\"]\n"), "ok");
    assert_eq!(count("[plugins.kit]\ngrants = []\n"), "PermissionDenied");
    let tenant = "[tenants.acme]\ngrants = [\"kv:read\"]\n";
    assert_eq!(count(tenant), "ok");
    assert_eq!(kind(&call(tenant, &["kit.count", "--tenant", "acme"])), "PermissionDenied");
}

#[test]
fn a_plugin_gets_its_configuration_once_it_fits() {
    assert_eq!(call("[plugins.kit]\nconfig = { base = \"EUR\" }\n", &["kit.base"])["data"], json!("EUR"));
    let ran = run("[plugins.kit]\nconfig = { base = 1 }\n", &["kit.base"]).ends(2);
    assert!(ran.stderr.contains("the configuration does not fit config_schema"), "{}", ran.stderr);
    // It may be the plugin that keeps others in check: nothing goes on without it.
    assert!(ran.stderr.contains("speaks of the plugin kit, and it did not load"), "{}", ran.stderr);
    run("[plugins.kit]\nconfig = { base = nan }\n", &["kit.base"]).refuses(&["plugins.kit.config", "no JSON form"]);
}

#[test]
fn a_tenants_limits_bind_that_tenant_only() {
    let config = "[tenants.acme]\nlimits = { max_operations = 1000 }\n[limits]\nmax_operations = 20000\n";
    let allowed = |tenant: &str| call(config, &["kit.spin", "--tenant", tenant])["error"]["details"]["allowed"].clone();
    assert_eq!((allowed("acme"), allowed("other")), (json!(1000), json!(20000)));
}

#[test]
fn an_error_names_file_line_and_what_would_do() {
    run("[limits]\ntimeout = 5\n", &["kit.base"])
        .refuses(&["toolbay.toml:2:1: unknown field `timeout`", "2 | timeout = 5"]);
    run("[grants]\nhosts = []\n", &["kit.base"]).refuses(&["toolbay.toml:2:1: unknown field `hosts`"]);
    run("[surprise]\n", &["kit.base"]).refuses(&["toolbay.toml:1:2: unknown field `surprise`"]);
    run("[plugins.kit]\nconfigs = {}\n", &["kit.base"]).refuses(&["toolbay.toml:2:1: unknown field `configs`"]);
    run("[tenants.a]\nquota = {}\n", &["kit.base"]).refuses(&["toolbay.toml:2:1: unknown field `quota`"]);
    run("[quota]\nmax_calls_per_minute = -1\n", &["kit.base"]).refuses(&["toolbay.toml:2:24: invalid value"]);
    run("[grants]\nhost = [\"k v\"]\n", &["kit.base"])
        .refuses(&["toolbay.toml:2:", "permission \"k v\" is not allowed"]);
    run("[plugins.Kit]\n", &["kit.base"]).refuses(&["toolbay.toml:1:", "plugin name \"Kit\" is not allowed"]);
    run("[limits\n", &["kit.base"]).refuses(&["toolbay.toml:1:8: "]);
    let desk = Desk::new();
    desk.run(&CALL[..].iter().copied().chain(["kit.base"]).collect::<Vec<_>>())
        .refuses(&["--config: toolbay.toml cannot be read"]);
}

#[test]
fn a_plugin_that_is_configured_but_not_there_is_noted() {
    let ran = run("[plugins.kitt]\ngrants = []\n", &["kit.whoami"]).ends(0);
    assert!(ran.stderr.contains("warning: no plugin called kitt is loaded"), "{}", ran.stderr);
}
