//! keys, tenants, enable, disable, config, install, audit: a server's database, looked after from the command line.

use super::{Desk, KIT};

#[test]
fn tenants_and_keys_are_made_listed_and_taken_away() {
    let desk = Desk::new();
    desk.run(&["keys", "list"]).refuses(&["there is no database"]);
    desk.run(&["tenants", "create", "acme"]).refuses(&["there is no database"]);
    desk.run(&["db", "migrate"]).ends(0);
    desk.run(&["tenants", "create", "acme"]).ends(0);
    desk.run(&["tenants", "create", "acme"]).refuses(&["there is a tenant acme already"]);
    desk.run(&["keys", "create"]).refuses(&["say which"]);
    desk.run(&["keys", "create", "--tenant", "nobody"]).refuses(&["no tenant called nobody"]);
    let made = desk.run(&["keys", "create", "--tenant", "acme", "--label", "agent", "--expires-in", "90d"]).ends(0);
    let secret = made.stdout.trim().to_owned();
    assert!(secret.starts_with("tbk_") && secret.lines().count() == 1, "{secret}");
    let listed = desk.run(&["keys", "list"]).ends(0).stdout;
    assert!(listed.contains("acme") && listed.contains("expires") && listed.contains("agent"), "{listed}");
    assert!(!listed.contains(&secret));
    let prefix = secret.split('_').nth(1).unwrap();
    let rotated = desk.run(&["keys", "rotate", prefix, "--grace", "1h"]).ends(0).stdout;
    assert_ne!(rotated.trim(), secret);
    desk.run(&["keys", "revoke", prefix]).ends(0);
    assert!(desk.run(&["keys", "list"]).ends(0).stdout.contains("revoked"));
    desk.run(&["keys", "revoke", "nothing"]).refuses(&["there is no such key"]);
    desk.run(&["tenants", "suspend", "acme"]).ends(0);
    assert!(desk.run(&["tenants", "list"]).ends(0).stdout.contains("suspended"));
    desk.run(&["tenants", "resume", "acme"]).ends(0);
    desk.run(&["tenants", "remove", "acme"]).refuses(&["--yes"]);
    desk.run(&["tenants", "remove", "acme", "--yes"]).ends(0);
    assert!(!desk.run(&["tenants", "list"]).ends(0).stdout.contains("acme"));
    let whole = desk.run(&["audit", "verify"]).ends(0).stdout;
    assert!(whole.starts_with("whole: "), "{whole}");
}

#[test]
fn what_a_tenant_has_of_a_plugin_is_decided_and_recorded() {
    let desk = Desk::with(&[("kit.rhai", KIT)]);
    desk.run(&["db", "migrate"]).ends(0);
    desk.run(&["tenants", "create", "acme"]).ends(0);
    let acme = |args: &[&str]| desk.run(&[args, &["--tenant", "acme", "--data", "toolbay-data"]].concat());
    assert_eq!(acme(&["install", "kit.rhai"]).ends(0).stdout, "installed kit 1.2.3 (tenant acme)\n");
    acme(&["call", "kit.whoami"]).ends(0);
    assert_eq!(acme(&["config", "kit", "--set", "{\"base\": \"here\"}"]).ends(0).stdout, "{\"base\":\"here\"}\n");
    assert_eq!(acme(&["config", "kit"]).ends(0).stdout, "{\"base\":\"here\"}\n");
    acme(&["config", "kit", "--set", "{\"base\": 1}"]).refuses(&["config_schema"]);
    acme(&["config", "kit", "--set", "[]"]).refuses(&["write a JSON object"]);
    assert!(acme(&["call", "kit.base"]).ends(0).stdout.contains("here"));
    assert_eq!(acme(&["disable", "kit"]).ends(0).stdout, "kit is off (tenant acme)\n");
    acme(&["call", "kit.whoami"]).ends(1);
    assert_eq!(acme(&["enable", "kit"]).ends(0).stdout, "kit is on (tenant acme)\n");
    acme(&["enable", "nothing"]).refuses(&["no plugin called nothing"]);
    let lines = desk.run(&["audit", "list", "--tenant", "acme", "--action", "plugin."]).ends(0).stdout;
    let actions: Vec<_> = ["install", "config", "disable", "enable"].map(|action| format!("plugin.{action}")).into();
    let found: Vec<_> = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()).collect();
    assert_eq!(found.iter().map(|line| line["action"].as_str().unwrap()).collect::<Vec<_>>(), actions);
    desk.run(&["audit", "verify", "--tenant", "acme"]).ends(0);
}
