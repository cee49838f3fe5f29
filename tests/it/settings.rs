//! Every field that an author or an operator can write does something. The fields are listed from the types, so that a new
//! one without a row or a test here fails; each row tries two values and must see two different things happen.
//!
//! `rows` holds what is tried for each field of a manifest and of the configuration file; the fields of limits are tried
//! in all the places where they can stand.

mod rows;

use std::{
    collections::BTreeSet,
    fs,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};
use toolbay::{KvQuota, Limits, PermissionSet, Quarantine, Quota, Scope};

use crate::{
    cli::{Desk, Ran, binary},
    support::project,
};
use rows::{Limit, Look, Row};

/// A plugin's folder and a configuration file.
#[derive(Debug, Clone)]
struct Setup {
    manifest: Value,
    script: String,
    config: String,
    /// Whether the plugin is the tenant's own.
    of_tenant: bool,
}

impl Setup {
    fn new(script: &str) -> Self {
        let manifest = json!({
            "name": "probe", "version": "1.0.0", "description": "Tries things.", "author": "The tests",
            "permissions": ["kv:*", "tool:call:*"],
            "tools": { "run": { "description": "Runs.", "parameters": { "type": "object" } } },
        });
        Self { manifest, script: script.to_owned(), config: String::new(), of_tenant: false }
    }

    /// Sets the field with this dotted path; tables that are not there are made.
    fn set(mut self, path: &str, value: &Value) -> Self {
        let mut place = &mut self.manifest;
        for step in path.split('.') {
            place = match step.parse::<usize>() {
                Ok(index) => {
                    if !place.is_array() {
                        *place = json!([{}]);
                    }
                    &mut place[index]
                }
                Err(_) => &mut place[step],
            };
        }
        *place = value.clone();
        self
    }

    /// What is seen of it: the command's result, without the figures that differ from run to run.
    fn look(&self, look: &Look) -> String {
        let name = self.manifest["name"].as_str().expect("a name");
        let desk = Desk::with(&[
            (&format!("plugins/{name}/plugin.json"), &self.manifest.to_string()),
            (&format!("plugins/{name}/main.rhai"), &self.script),
            (&format!("plugins/{name}/other.rhai"), "fn run(args) { \"the other file\" }"),
            ("plugins/bank.rhai", rows::BANK),
            ("plugins/guard.rhai", rows::GUARD),
            ("toolbay.toml", &self.config),
        ]);
        let own = format!("plugins/{name}");
        let tenant_own = format!("acme={own}");
        let mut arguments = vec!["--config", "toolbay.toml"];
        let isolated = self.config.contains("isolation");
        if !isolated && !matches!(look, Look::Check) {
            // Here it is not the question where a script runs, and in this process it starts sooner.
            arguments.extend(["--isolation", "in-process"]);
        }
        let from: &[&str] = if self.of_tenant {
            &["--tenant-tools", &tenant_own, "--tools", "plugins/bank.rhai", "--tenant", "acme"]
        } else {
            &["--tools", "plugins", "--tenant", "acme"]
        };
        match look {
            Look::Call(tool, args) => {
                let args = args.to_string();
                let ran = desk.run(&[&["call", "--json", "-v", tool, "--args", &args], from, &arguments].concat());
                let place = serde_json::from_str::<Value>(&ran.stdout).unwrap_or_default();
                let shown = json!({ "isolation": place["metadata"]["isolation"], "data": place["data"], "error": place["error"] });
                format!("{shown}\n{}", plugin_lines(&ran))
            }
            Look::Tools => desk.run(&[&["tools", "--format", "mcp"], from, &arguments].concat()).stdout,
            Look::Check => desk.run(&[&["check", "--json", &own], &arguments[..]].concat()).stdout,
        }
    }
}

/// What a plugin logged, and what was said of plugins that did not load; the rest of the log has times and ids in it.
fn plugin_lines(ran: &Ran) -> String {
    let mut shown = String::new();
    for line in ran.stderr.lines() {
        let is_log = line.starts_with("20") && line.contains(" toolbay::");
        let said = match line.split_once(" toolbay::plugin: ") {
            Some((_, said)) => said,
            None if is_log => continue,
            None => line,
        };
        shown.push_str(said);
        shown.push('\n');
    }
    shown
}

/// Looks at both setups; the fault where they cannot be told apart, or the first lacks what it should say.
fn differ(field: &str, one: &Setup, other: &Setup, look: &Look, says: &str) -> Result<(), String> {
    let (first, second) = (one.look(look), other.look(look));
    if first == second {
        return Err(format!("{field}: both values make no difference: {first}"));
    }
    if !first.contains(says) {
        return Err(format!("{field}: {says:?} is not in {first}\n   other: {second}"));
    }
    if second.contains(says) {
        return Err(format!("{field}: {says:?} is in the other one too: {second}"));
    }
    Ok(())
}

/// Does the jobs, two at a time, and fails with all of their faults.
fn all(jobs: Vec<Box<dyn Fn() -> Result<(), String> + Send + Sync>>) {
    let (next, faults) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Err(fault) = job() {
                        faults.lock().unwrap().push(fault);
                    }
                }
            });
        }
    });
    let faults = faults.into_inner().unwrap();
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), jobs.len(), faults.join("\n"));
}

#[test]
fn each_field_of_a_manifest_changes_what_happens() {
    let job = |row: Row| {
        let one = Setup { config: row.config.to_owned(), ..Setup::new(row.script) };
        Box::new(move || {
            let setup = |value: &Value| {
                let setup = rows::before(row.field, one.clone());
                setup.set(row.place, value)
            };
            differ(row.field, &setup(&row.one), &setup(&row.other), &row.look, row.says)
        }) as _
    };
    all(rows::manifest().into_iter().map(job).collect());
}

#[test]
fn each_limit_binds_from_manifest_host_and_tenant() {
    let mut jobs: Vec<Box<dyn Fn() -> Result<(), String> + Send + Sync>> = Vec::new();
    for limit in rows::limits() {
        for place in ["manifest", "host", "tenant", "worker"] {
            let limit = limit.clone();
            jobs.push(Box::new(move || limit.try_at(place)));
        }
    }
    all(jobs);
}

impl Limit {
    fn try_at(&self, place: &str) -> Result<(), String> {
        let setup = |value: u64| {
            let setup = Setup { config: "[limits]\n".to_owned(), ..Setup::new(&self.script) };
            let line = format!("{} = {value}\n", self.field);
            match place {
                "manifest" => setup.set(&format!("limits.{}", self.field), &json!(value)),
                "host" => Setup { config: format!("{}{line}", setup.config), ..setup },
                // The tenant's, in the process of this command or in one of its workers.
                _ => {
                    let isolation = if place == "worker" { "[isolation]\ntenants = \"process\"\n" } else { "" };
                    let config = format!("{}{isolation}[tenants.acme.limits]\n{line}", setup.config);
                    Setup { config, of_tenant: true, ..setup }
                }
            }
        };
        let look = Look::Call("probe.run", self.args.clone());
        differ(&format!("{} ({place})", self.field), &setup(self.low), &setup(self.high), &look, &self.says)
    }
}

#[test]
fn each_key_of_the_configuration_file_that_has_no_test_of_its_own_changes_what_happens() {
    let job = |(field, one, other, says, of_tenant): (&'static str, &'static str, &'static str, &'static str, bool)| {
        Box::new(move || {
            let setup =
                |config: &str| Setup { config: config.to_owned(), of_tenant, ..Setup::new("fn run(args) { 1 }") };
            differ(field, &setup(one), &setup(other), &Look::Call("probe.run", json!({})), says)
        }) as _
    };
    all(rows::CONFIG.iter().copied().map(job).collect());
}

/// Starts the program behind a filter that says of Landlock what an old kernel says.
const WITHOUT_LANDLOCK: &str = r"
import ctypes, os, struct, sys
load, equal, answer = 0x20, 0x15, 0x06
program = b''.join(struct.pack('HBBI', *line) for line in [
    (load, 0, 0, 0), (equal, 0, 1, 444), (answer, 0, 0, 0x00050000 | 38), (answer, 0, 0, 0x7fff0000)])
class Filter(ctypes.Structure):
    _fields_ = [('length', ctypes.c_ushort), ('lines', ctypes.c_char_p)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.byref(Filter(4, program)), 0, 0) == 0
os.execv(sys.argv[1], sys.argv[1:])
";

#[test]
fn allow_in_process_decides_what_happens_where_workers_cannot_be_locked_down() {
    let run = |allow: bool| {
        let desk = Desk::with(&[("toolbay.toml", &format!("[isolation]\nallow_in_process = {allow}\n"))]);
        let command = desk.command(&[]);
        let mut python = std::process::Command::new("python3");
        python.args(["-c", WITHOUT_LANDLOCK]).arg(binary());
        python.args([
            "call",
            "kit.whoami",
            "--tenant-tools",
            "acme=kit.rhai",
            "--tenant",
            "acme",
            "--config",
            "toolbay.toml",
        ]);
        python.args(["--tools", "kit.rhai"]).current_dir(command.get_current_dir().unwrap());
        Ran::of(python.output().expect("python3, which scripts/test needs too"))
    };
    let (without, with) = (run(false), run(true));
    assert!(
        without.stderr.contains("this plugin is to run in a worker process, and this host has none"),
        "{}",
        without.stderr
    );
    assert!(with.stderr.contains("warning: scripts of tenants run in this process"), "{}", with.stderr);
    assert_eq!((without.status, with.status), (Some(0), Some(0)), "{}", without.stderr);
}

#[tokio::test]
async fn each_quota_of_the_store_binds() {
    let source = r#"const PLUGIN = #{ name: "keep", version: "1.0.0", description: "Keeps.", author: "The tests", permissions: ["kv:*"],
        tools: #{ keep: #{ description: "Keeps.", parameters: #{ type: "object" } } } };
        fn keep(args) { for n in 0..args.keys { kv_set("k" + n, args.value); } args.keys }"#;
    let enough = KvQuota { max_keys: 10, max_bytes: 1_000, max_value_bytes: 100 };
    let long = "x".repeat(50);
    for (quota, args, allowed) in [
        (KvQuota { max_keys: 2, ..enough }, json!({ "keys": 3, "value": "x" }), 2),
        (KvQuota { max_bytes: 100, ..enough }, json!({ "keys": 3, "value": long }), 100),
        (KvQuota { max_value_bytes: 20, ..enough }, json!({ "keys": 1, "value": long }), 20),
    ] {
        for (quota, is_enough) in [(quota, false), (enough, true)] {
            let bay = toolbay::builder().grants(PermissionSet::standard()).kv_quota(quota).build().unwrap();
            bay.load_source(Scope::Global, "keep.rhai", source).await.unwrap();
            let result = bay.session("acme").unwrap().call("keep", args.clone()).await.result;
            let bound =
                result.as_ref().err().map(|error| (error.details["limit"].clone(), error.details["allowed"].clone()));
            assert_eq!(bound, (!is_enough).then(|| (json!("storage"), json!(allowed))), "{quota:?} {result:?}");
        }
    }
}

/// The names of a struct's fields, by its own word.
fn fields(value: &impl std::fmt::Debug) -> BTreeSet<String> {
    let text = format!("{value:?}");
    let inside = text.split_once('{').expect("a struct").1;
    inside.split(", ").filter_map(|field| Some(field.split_once(": ")?.0.trim().to_owned())).collect()
}

/// The dotted paths of everything in a schema that holds a value.
fn leaves(root: &Value, schema: &Value, path: &str, into: &mut BTreeSet<String>) {
    let option = schema["anyOf"].as_array().map_or(schema, |options| &options[0]);
    let schema = option["$ref"].as_str().map_or(option, |text| root.pointer(&text[1..]).expect("it is defined"));
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    let mut inner = false;
    for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
        // The points of hooks are one kind of thing.
        let key = if toolbay::HookPoint::parse(key).is_some() && path == "hooks" { "*" } else { key };
        leaves(root, schema, &join(key), into);
        inner = true;
    }
    for schema in schema["patternProperties"].as_object().into_iter().flat_map(|patterns| patterns.values()) {
        leaves(root, schema, &join("*"), into);
        inner = true;
    }
    if let Some(items) = schema.get("items").filter(|items| items.get("$ref").is_some()) {
        leaves(root, items, &join("*"), into);
        inner = true;
    }
    if !inner {
        into.insert(path.to_owned());
    }
}

fn leaves_of(schema: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    leaves(schema, schema, "", &mut found);
    found
}

fn limit_fields() -> BTreeSet<String> {
    rows::limits().iter().map(|limit| limit.field.to_owned()).collect()
}

#[track_caller]
fn same(what: &str, of_the_type: &BTreeSet<String>, tried: &BTreeSet<String>) {
    let missing: Vec<_> = of_the_type.difference(tried).collect();
    let strange: Vec<_> = tried.difference(of_the_type).collect();
    assert!(missing.is_empty() && strange.is_empty(), "{what}: without a test {missing:?}; not there {strange:?}");
}

#[test]
fn every_field_of_a_manifest_is_tried() {
    let mut tried: BTreeSet<_> = rows::manifest().iter().map(|row| row.field.to_owned()).collect();
    tried.extend(limit_fields().iter().map(|field| format!("limits.{field}")));
    tried.extend(named("manifest"));
    same("manifest", &leaves_of(&toolbay::manifest::schema::json_schema()), &tried);
}

#[test]
fn every_key_of_the_configuration_file_is_tried() {
    let schema = Desk::new().run(&["schema", "config"]).json();
    let mut tried: BTreeSet<_> = rows::CONFIG.iter().map(|row| row.0.to_owned()).collect();
    for field in limit_fields() {
        tried.extend([format!("limits.{field}"), format!("tenants.*.limits.{field}")]);
    }
    tried.extend(named("config"));
    same("configuration", &leaves_of(&schema), &tried);
}

#[test]
fn every_limit_and_quota_is_tried() {
    let of_host = |field: String| if field == "timeout" { "timeout_ms".to_owned() } else { field };
    same("limits", &fields(&Limits::default()).into_iter().map(of_host).collect(), &limit_fields());
    let mut quotas = BTreeSet::new();
    for (name, of_one) in [
        ("Quota", fields(&Quota::default())),
        ("KvQuota", fields(&KvQuota::default())),
        ("Quarantine", fields(&Quarantine::default())),
    ] {
        quotas.extend(of_one.iter().map(|field| format!("{name}.{field}")));
    }
    same("quotas", &quotas, &named("quotas"));
}

/// The fields whose tests stand elsewhere. Each of these tests must be there.
fn named(group: &str) -> BTreeSet<String> {
    let mut sources = String::new();
    let mut folders = vec![project().join("tests/it")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources += &fs::read_to_string(path).expect("text");
            }
        }
    }
    let of_group = rows::NAMED.iter().filter(|(of, ..)| *of == group);
    let there = |(_, field, test): &(&str, &str, &str)| {
        assert!(sources.contains(&format!("fn {test}()")), "{field}: there is no test {test}");
        (*field).to_owned()
    };
    of_group.map(there).collect()
}
