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
    let hurried = "[limits]\ntimeout_ms = 50\nmax_operations = 1_000_000_000_000\n";
    assert_eq!(kind(&call(hurried, &["kit.spin"])), "TimedOut");
    let limited = "[limits]\ntimeout_ms = 60_000\nmax_operations = 1_000_000_000_000\nmax_output_bytes = 20\n";
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

/// A plugin that reads a secret and asks a server on loopback, which lives as long as the test.
const OUTSIDE: &str = r#"
const PLUGIN = #{ name: "outside", version: "1.0.0", description: "Goes out.", author: "The tests",
    permissions: ["http-plain:GET:*", "secret:read:*"],
    tools: #{ get: #{ description: "Asks.", parameters: #{ type: "object" } }, read: #{ description: "Reads.", parameters: #{ type: "object" } } } };
fn get(args) { http_get(args.url).body.len }
fn read(args) { secret(args.name).len }
"#;

fn outside(config: &str, tool: &str, args: &Value, tenant: &str) -> Ran {
    let config = format!("[grants]\nhost = [\"http-plain:GET:127.0.0.1:*\", \"secret:read:*\"]\n{config}");
    let files =
        [("outside.rhai", OUTSIDE), ("toolbay.toml", &config), ("mine/KEY", "12345"), ("theirs/KEY", "1234567")];
    let desk = Desk::with(&files);
    let args = args.to_string();
    let command = ["call", "--json", "--tools", "outside.rhai", "--config", "toolbay.toml", tool, "--args", &args];
    let mut command = desk.command(&[&command[..], &["--tenant", tenant]].concat());
    Ran::of(command.env("TEST_SECRET_KEY", "123").output().expect("the binary starts"))
}

/// A server that answers with 100 bytes, or not at all, and its address.
fn server(answers: bool) -> String {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for mut socket in listener.incoming().flatten() {
            let _ = socket.read(&mut [0; 4096]);
            if answers {
                let _ = write!(socket, "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}", "x".repeat(100));
            }
            kept.push(socket);
        }
    });
    format!("http://{address}/")
}

#[test]
fn each_key_of_http_opens_or_bounds_something() {
    let open = "[http]\nallow_plain_http = true\nallow_networks = [\"127.0.0.0/8\"]\n";
    let get = |config: &str, answers: bool| {
        outside(config, "outside.get", &json!({ "url": server(answers) }), "local").json()
    };
    assert_eq!(get(open, true)["data"], json!(100));
    assert_eq!(kind(&get("", true)), "PermissionDenied");
    assert_eq!(kind(&get("[http]\nallow_plain_http = true\n", true)), "PermissionDenied");
    assert_eq!(kind(&get("[http]\nallow_networks = [\"127.0.0.0/8\"]\n", true)), "PermissionDenied");
    assert_eq!(get(&format!("{open}max_response_bytes = 99\n"), true)["error"]["details"]["allowed"], json!(99));
    let late = get(&format!("{open}timeout_ms = 50\n"), false);
    assert!(late["error"]["message"].as_str().is_some_and(|text| text.contains("was not answered in time")), "{late}");
    run("[http]\nallow_networks = [\"all\"]\n", &["kit.whoami"]).refuses(&["http.allow_networks", "10.0.0.0/8"]);
    run("[http]\nproxy = \"x\"\n", &["kit.whoami"]).refuses(&["unknown field `proxy`"]);
}

#[test]
fn each_key_of_secrets_is_a_place_and_a_tenants_own_goes_before() {
    let read = |config: &str, tenant: &str| outside(config, "outside.read", &json!({ "name": "KEY" }), tenant).json();
    assert_eq!(kind(&read("", "local")), "Unavailable");
    assert_eq!(read("[secrets]\nenvironment = \"TEST_SECRET_\"\n", "local")["data"], json!(3));
    let mine = "[secrets]\ndirectory = \"mine\"\n";
    assert_eq!(read(mine, "local")["data"], json!(5));
    let theirs = format!("{mine}[tenants.acme]\nsecrets = {{ directory = \"theirs\" }}\n");
    assert_eq!((&read(&theirs, "acme")["data"], &read(&theirs, "local")["data"]), (&json!(7), &json!(5)));
    let none = format!("{mine}[tenants.acme]\nsecrets = {{}}\n");
    assert_eq!(kind(&read(&none, "acme")), "NotFound");
    run("[secrets]\ndirectory = \"nowhere\"\n", &["kit.whoami"]).refuses(&["secrets.directory", "no folder"]);
    run("[secrets]\nenvironment = \"\"\n", &["kit.whoami"]).refuses(&["secrets.environment"]);
    run("[secrets]\nfile = \"x\"\n", &["kit.whoami"]).refuses(&["unknown field `file`"]);
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
