//! agent --approve and --resume, runs: who approves calls, and runs that outlive their process.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use serde_json::{Value, json};

use super::{Desk, Ran};

/// A tool that may destroy something and keeps what it did, and a callback that never lets its process end by itself.
const BANK: &str = r#"
const PLUGIN = #{ name: "bank", version: "1.0.0", description: "d", author: "A", permissions: ["kv:*"],
    tools: #{ pay: #{ description: "Pays.", annotations: #{ destructive: true },
            parameters: #{ type: "object", required: ["amount"], properties: #{ amount: #{ type: "integer" } } } },
        paid: #{ description: "Tells what was paid." } } };
fn pay(args) { kv_set("paid", args.amount); "paid " + args.amount }
fn paid(args) { kv_get("paid") }
"#;

const LINGERS: &str = r#"
const PLUGIN = #{ name: "lingers", version: "1.0.0", description: "d", author: "A" };
fn on_stop() { loop {} }
"#;

const BEGINS: &str = r#"{"text": "I pay.", "tool_calls": [{"name": "bank.pay", "arguments": {"amount": 5}}]}"#;

fn desk() -> Desk {
    let whole = format!("{BEGINS}\n{{\"text\": \"Done.\"}}\n");
    let files = [("bank.rhai", BANK), ("lingers.rhai", LINGERS), ("script.jsonl", whole.as_str())];
    Desk::with(&[&files[..], &[("begins.jsonl", BEGINS), ("ends.jsonl", "{\"text\": \"Done.\"}\n")]].concat())
}

const AGENT: [&str; 6] = ["agent", "Pay 5", "--script", "script.jsonl", "--tools", "bank.rhai"];

fn paying(desk: &Desk, args: &[&str]) -> Ran {
    desk.run(&[&AGENT[..], &["--isolation", "in-process"], args].concat())
}

/// The reply of the tool, from the events.
fn reply(ran: &Ran) -> Value {
    let mut events = ran.lines();
    events.retain(|event| event["event"] == "tool_call_finished");
    events.last().map(|event| event["result"]["data"].clone()).unwrap_or_default()
}

#[test]
fn what_needs_approval_is_made_or_not_as_the_option_says() {
    let desk = desk();
    let ran = paying(&desk, &[]).ends(0);
    assert!(ran.stderr.contains("ask    bank.pay (annotation: the tool may destroy something)"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("reply  bank.pay ok"), "{}", ran.stderr);
    assert_eq!(reply(&paying(&desk, &["--approve", "never", "--json"]).ends(0)), Value::Null);
    assert_eq!(reply(&paying(&desk, &["--approve", "auto", "--json"]).ends(0)), json!("paid 5"));
    paying(&desk, &["--approve", "suspend"]).refuses(&["--database"]);
    paying(&desk, &["--resume", "00000000-0000-0000-0000-000000000000"]).refuses(&["cannot be used with"]);
}

#[test]
fn whoever_sits_at_the_terminal_is_asked() {
    let desk = desk();
    let asked = |input: &str| {
        let args = [&AGENT[..], &["--isolation", "in-process", "--json", "--approve", "ask"]].concat();
        desk.run_with_input(&args, input).ends(0)
    };
    for (input, expected) in [
        ("a\n", json!("paid 5")),
        ("perhaps\na\n", json!("paid 5")),
        ("e\n{\"amount\": \ne\n{\"amount\": 3}\n", json!("paid 3")),
        ("r\nnot today\n", Value::Null),
        ("", Value::Null),
    ] {
        assert_eq!(reply(&asked(input)), expected, "{input:?}");
    }
    let ran = asked("r\nnot today\n");
    assert!(ran.stderr.contains("approve? bank.pay {\"amount\":5} (annotation: the tool"), "{}", ran.stderr);
}

#[test]
fn text_is_printed_as_it_comes() {
    let ran = paying(&desk(), &["--stream", "--approve", "auto"]).ends(0);
    assert_eq!(ran.stdout, "I pay.\nDone.\n");
    let ran = paying(&desk(), &["--stream", "--json", "--approve", "auto"]).ends(0);
    let deltas = ran.lines().into_iter().filter(|event| event["event"] == "text_delta");
    let deltas: Vec<_> = deltas.map(|event| event["text"].as_str().unwrap().to_owned()).collect();
    assert_eq!(deltas, ["I ", "pay.", "Done."]);
}

#[test]
fn each_key_of_approval_in_the_configuration_file_counts() {
    let run = |config: &str, args: &[&str]| {
        let desk = desk();
        std::fs::write(desk.path("toolbay.toml"), format!("[approval]\n{config}\n")).unwrap();
        let ran = paying(&desk, &[&["--config", "toolbay.toml", "--json", "--approve", "never"], args].concat());
        if ran.status == Some(0) { reply(&ran) } else { json!(ran.stderr) }
    };
    assert_eq!(run("destructive = true", &[]), Value::Null);
    assert_eq!(run("destructive = false", &[]), json!("paid 5"));
    assert_eq!(run("destructive = false\nask = [\"bank.*\"]", &[]), Value::Null);
    assert_eq!(run("ask = [\"bank.*\"]\nexcept = [\"bank.pay\"]", &[]), json!("paid 5"));
    assert!(run("ask = [\"[\"]", &[]).as_str().unwrap().contains("approval.ask"));
    assert!(run("expires_after_ms = 0", &[]).as_str().unwrap().contains("approval.expires_after_ms"));
    // Direct calls go by what the file says alone.
    let call = |config: &str| {
        let desk = desk();
        std::fs::write(desk.path("toolbay.toml"), format!("[approval]\n{config}\n")).unwrap();
        let args =
            ["call", "bank.pay", "--args", "{\"amount\": 5}", "--tools", "bank.rhai", "--config", "toolbay.toml"];
        desk.run(&[&args[..], &["--isolation", "in-process"]].concat())
    };
    call("expires_after_ms = 5").ends(0);
    assert!(call("destructive = true").ends(1).stderr.contains("ApprovalRequired"));
    let nested = |config: &str| {
        let helper = r#"const PLUGIN = #{ name: "helper", version: "1.0.0", description: "d", author: "A", permissions: ["tool:call:*"],
            tools: #{ help: #{ description: "d" } } };
            fn help(args) { call_tool("bank.pay", #{ amount: 5 }) }"#;
        let desk = desk();
        std::fs::write(desk.path("helper.rhai"), helper).unwrap();
        std::fs::write(desk.path("toolbay.toml"), format!("[approval]\ndestructive = true\n{config}\n")).unwrap();
        let tools = ["--tools", "bank.rhai", "--tools", "helper.rhai", "--isolation", "in-process"];
        desk.run(&[&["call", "helper.help", "--config", "toolbay.toml"][..], &tools].concat()).status
    };
    assert_eq!((nested("inside_tools = true"), nested("inside_tools = false")), (Some(1), Some(0)));
}

/// A run is suspended, its process killed, and others go on with it.
fn a_run_outlives_its_process(database: &str) {
    let desk = desk();
    // The database may be one that others use too.
    let [acme, globex] = ["acme", "globex"].map(|name| format!("{name}-{}", uuid::Uuid::new_v4().simple()));
    let at = ["--tenant", &acme, "--tools", "bank.rhai", "--isolation", "in-process", "--database", database];
    desk.run(&["db", "migrate", "--database", database]).ends(0);
    for tenant in [&acme, &globex] {
        desk.run(&["tenants", "create", tenant, "--database", database]).ends(0);
    }

    let begins = ["agent", "Pay 5", "--script", "begins.jsonl", "--tools", "lingers.rhai"];
    let mut child = desk.command(&[&begins[..], &at].concat()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let run = lines.find_map(|line| Some(line.split_once("--resume ")?.1.to_owned())).expect("the run waits");
    // Its plugin keeps it from ending by itself.
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));

    let runs = |args: &[&str]| desk.run(&[args, &["--tenant", &acme, "--database", database]].concat());
    let listed = runs(&["runs", "list"]).ends(0).stdout;
    assert!(listed.contains(&run) && listed.contains("bank.pay {\"amount\":5}"), "{listed}");
    let shown = runs(&["runs", "show", &run, "--json"]).ends(0).json();
    let pending = shown["pending"][0]["id"].as_str().unwrap().to_owned();
    assert!(runs(&["runs", "show", &run]).ends(0).stdout.starts_with(&pending));

    let resume =
        |args: &[&str]| desk.run(&[&["agent", "--resume", &run, "--script", "ends.jsonl"], &at[..], args].concat());
    resume(&["--approve", "suspend"]).refuses(&["nothing is decided about bank.pay"]);
    let other = ["agent", "--resume", &run, "--script", "ends.jsonl", "--database", database, "--tenant", &globex];
    desk.run(&[&other[..], &["--approve", "auto"]].concat()).refuses(&["no run"]);
    // Several processes go on with it at once: one does.
    let decide = format!("{pending}=edit:{{\"amount\": 4}}");
    let ended: Vec<_> = std::thread::scope(|scope| {
        let resume = || resume(&["--decide", &decide]);
        let all: Vec<_> = (0..3).map(|_| scope.spawn(resume)).collect();
        all.into_iter().map(|ran| ran.join().unwrap()).collect()
    });
    let mut statuses: Vec<_> = ended.iter().map(|ran| ran.status).collect();
    statuses.sort_unstable();
    let told: Vec<_> = ended.iter().map(|ran| ran.stderr.as_str()).collect();
    assert_eq!(statuses, [Some(0), Some(2), Some(2)], "{told:?}");
    assert!(ended.iter().any(|ran| ran.stdout == "Done.\n"));
    resume(&["--approve", "auto"]).refuses(&["no run", "waits there"]);
    let paid = desk.run(&[&["call", "bank.paid"], &at[..]].concat()).ends(0);
    assert_eq!(paid.stdout, "4\n");

    // One that nobody wants any more.
    let ran = desk.run(&[&["agent", "Pay 5", "--script", "begins.jsonl"], &at[..]].concat()).ends(3);
    let run = ran.stderr.lines().find_map(|line| Some(line.split_once("--resume ")?.1.to_owned())).unwrap();
    runs(&["runs", "remove", &run]).ends(0);
    runs(&["runs", "remove", &run]).refuses(&["no run"]);
    let audit = runs(&["audit", "list", "--action", "approval."]).ends(0).stdout;
    assert!(audit.contains("approval.ask") && audit.contains("approval.edit"), "{audit}");
}

#[test]
fn a_run_that_waits_outlives_its_process_on_sqlite() {
    a_run_outlives_its_process("sqlite:bay.db");
}

#[test]
fn a_run_that_waits_outlives_its_process_on_postgresql() {
    let Ok(cluster) = std::env::var("TOOLBAY_TEST_POSTGRES") else {
        println!("left out: no PostgreSQL in TOOLBAY_TEST_POSTGRES; see scripts/postgres");
        return;
    };
    a_run_outlives_its_process(&cluster);
}
