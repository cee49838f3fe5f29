//! mcp and serve: the protocol itself is tested with its crate; here it is what the commands add.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use super::{BROKEN, Desk, Ran};

pub(super) fn initialize() -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "test", "version": "1" } } })
}

#[test]
fn mcp_keeps_standard_output_for_the_protocol() {
    let desk = Desk::with(&[("all/broken.rhai", BROKEN), ("all/kit.rhai", super::KIT)]);
    let mut child = desk
        .command(&["mcp", "--tools", "all", "--tenant", "acme", "-v"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("the binary starts");
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut answer = |message: Value| -> Value {
        writeln!(input, "{message}").unwrap();
        if message.get("id").is_none() {
            return Value::Null;
        }
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).expect("nothing but the protocol")
    };
    assert_eq!(answer(initialize())["result"]["serverInfo"]["name"], json!("toolbay"));
    answer(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
    let call = json!({ "name": "kit.whoami", "arguments": {} });
    let called = answer(json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call }));
    assert_eq!(called["result"]["content"][0]["text"], json!("acme"));
    drop(input);
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");
    let ran = Ran::of(child.wait_with_output().unwrap()).ends(0);
    assert!(ran.stderr.contains("loaded  kit 1.2.3 (global): 7 tools, 0 hooks"), "{}", ran.stderr);
    assert!(ran.stderr.contains("all/broken.rhai:3:3: "), "{}", ran.stderr);
}

#[test]
fn mcp_that_nobody_speaks_to_ends_in_peace() {
    Desk::new().run(&["mcp", "--tools", "kit.rhai"]).ends(0);
}

/// A server that is stopped whatever becomes of the test.
pub(super) struct Server {
    child: Child,
    pub(super) said: String,
    address: SocketAddr,
}

impl Server {
    /// One without keys.
    fn start(desk: &Desk, args: &[&str]) -> Self {
        Self::launch(desk, &[&["--keyless"], args].concat())
    }

    pub(super) fn launch(desk: &Desk, args: &[&str]) -> Self {
        let child = desk.command(&[&["serve", "--port", "0"], args].concat()).spawn().expect("the binary starts");
        let mut server = Self { child, said: String::new(), address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let mut lines = BufReader::new(server.child.stderr.take().expect("a pipe"));
        loop {
            let before = server.said.len();
            let read = lines.read_line(&mut server.said).expect("text");
            assert!(read > 0, "it ended before it listened: {}", server.said);
            if let Some(url) = server.said[before..].strip_prefix("listening on http://") {
                server.address = url.trim().trim_end_matches("/mcp").parse().expect("an address");
                server.child.stderr = Some(lines.into_inner());
                return server;
            }
        }
    }

    /// The status and the body of what is answered at `path`.
    fn post(&self, path: &str, message: &Value) -> (u16, String) {
        self.send(path, None, message)
    }

    /// The same for whoever shows `key`. Null is no message.
    pub(super) fn send(&self, path: &str, key: Option<&str>, message: &Value) -> (u16, String) {
        let key = key.map(|key| format!("Authorization: Bearer {key}\r\n")).unwrap_or_default();
        let body = if message.is_null() { String::new() } else { message.to_string() };
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: {}\r\n{key}Content-Type: application/json\r\nConnection: close\r\n\
             Accept: application/json, text/event-stream\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        let mut reader = BufReader::new(stream);
        reader.read_line(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        reader.read_to_string(&mut answer).unwrap();
        (status, answer)
    }

    /// Sends a signal and waits for the end.
    #[cfg(unix)]
    fn end_by(mut self, signal: &str) -> Option<i32> {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The keys that a server shows at its first start: the admin's and the tenant's.
pub(super) fn shown_keys(said: &str) -> Vec<String> {
    said.lines().filter(|line| line.starts_with("tbk_")).map(ToOwned::to_owned).collect()
}

#[cfg(unix)]
#[test]
fn serve_makes_its_keys_once_and_serves_whoever_shows_one() {
    let desk = Desk::with(&[("all/kit.rhai", super::KIT)]);
    let start = || Server::launch(&desk, &["--tools", "all", "--tenant", "acme", "--data", "data"]);
    let server = start();
    let keys = shown_keys(&server.said);
    let [admin, tenant] = &keys[..] else { panic!("two keys are shown:\n{}", server.said) };
    assert!(server.said.contains(&format!("\"Authorization\": \"Bearer {tenant}\"")), "{}", server.said);
    let whoami = "/api/v1/tools/kit.whoami/call";
    let called = server.send(whoami, Some(tenant), &json!({ "arguments": {} }));
    assert!(called.0 == 200 && called.1.contains("\"data\":\"acme\""), "{called:?}");
    assert_eq!(server.send(whoami, None, &json!({ "arguments": {} })).0, 401);
    assert_eq!(server.send("/api/v1/tenants", Some(tenant), &json!({ "name": "globex" })).0, 403);
    assert_eq!(server.send("/api/v1/tenants", Some(admin), &json!({ "name": "globex" })).0, 201);
    for (key, status) in [(Some(tenant), 200), (Some(admin), 403), (None, 401)] {
        assert_eq!(server.send("/mcp", key.map(|key| &**key), &initialize()).0, status, "{key:?}");
    }
    assert_eq!(server.end_by("-TERM"), Some(0));

    // The keys are shown no second time, and are good still.
    let server = start();
    assert_eq!(shown_keys(&server.said), Vec::<String>::new());
    let called = server.send(whoami, Some(tenant), &json!({ "arguments": {} }));
    assert!(called.1.contains("\"data\":\"acme\""), "{called:?}");
    assert_eq!(server.end_by("-TERM"), Some(0));

    // Every call is in the tenant's audit, whose chain is whole.
    let audit = desk.run(&["audit", "list", "--data", "data", "--tenant", "acme"]).ends(0).stdout;
    assert_eq!(audit.matches("\"tool.call\"").count(), 2, "{audit}");
    desk.run(&["audit", "verify", "--data", "data", "--tenant", "acme"]).ends(0);
}

#[cfg(unix)]
#[test]
fn a_command_works_at_a_servers_database_where_it_is_told_so() {
    let desk = Desk::with(&[("kit.rhai", super::KIT)]);
    let server = Server::launch(&desk, &["--tools", "kit.rhai", "--tenant", "acme", "--data", "data"]);
    assert_eq!(server.end_by("-TERM"), Some(0));
    let whoami = ["call", "kit.whoami", "--tools", "kit.rhai", "--data", "data"];
    let ran = desk.run(&[&whoami[..], &["--tenant", "acme"]].concat()).ends(0);
    assert_eq!(ran.stdout.trim(), "acme");
    // A tenant that nobody made has nothing there.
    desk.run(&[&whoami[..], &["--tenant", "globex"]].concat()).refuses(&["there is no tenant called globex"]);
    desk.run(&["call", "kit.whoami", "--data", "data", "--database", "sqlite:x"]).refuses(&["cannot be used with"]);
    desk.run(&["serve", "--keyless", "--data", "data"]).refuses(&["cannot be used with"]);
}

#[cfg(unix)]
#[test]
fn serve_says_how_to_connect_serves_each_tenant_and_ends_when_asked() {
    let desk = Desk::with(&[("all/broken.rhai", BROKEN), ("all/kit.rhai", super::KIT)]);
    let server = Server::start(&desk, &["--tools", "all", "--tenant-tools", "acme=kit.rhai"]);
    let (said, address) = (&server.said, server.address);
    assert!(address.ip().is_loopback());
    for part in [
        "loaded  kit 1.2.3 (global): 7 tools, 0 hooks",
        "all/broken.rhai:3:3: ",
        "\"mcpServers\"",
        &format!("\"url\": \"http://{address}/mcp\""),
        &format!("http://{address}/mcp has the 7 tools of tenant default"),
        &format!("http://{address}/tenants/acme/mcp has the 7 tools of tenant acme"),
    ] {
        assert!(said.contains(part), "{part:?} is not in:\n{said}");
    }
    for path in ["/mcp", "/tenants/acme/mcp"] {
        let (status, answer) = server.post(path, &initialize());
        assert!(status == 200 && answer.contains("\"toolbay\""), "{path}: {status} {answer}");
    }
    assert_eq!(server.post("/tenants/nobody/mcp", &initialize()).0, 404);
    assert_eq!(server.end_by("-TERM"), Some(0));
    assert_eq!(Server::start(&desk, &["--tools", "all", "--host", "localhost"]).end_by("-INT"), Some(0));
}

#[test]
fn serve_refuses_to_be_reached_from_elsewhere() {
    let desk = Desk::new();
    for host in ["0.0.0.0", "192.0.2.1", "::"] {
        desk.run(&["serve", "--keyless", "--host", host, "--port", "0"])
            .refuses(&["--host: refusing to serve on", "127.0.0.1"]);
    }
    desk.run(&["serve", "--host", "example.com"]).refuses(&["write an address such as 127.0.0.1"]);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    Desk::new().run(&["serve", "--port", &port]).refuses(&["cannot listen on 127.0.0.1", "choose another --port"]);
}

/// A plugin that ends as `on_stop` says.
fn ending(on_stop: &str) -> String {
    format!("{}\nfn on_stop(cx) {{ {on_stop} }}", super::KIT)
}

#[cfg(unix)]
#[test]
fn serve_stops_the_plugins_and_says_which_did_not() {
    let desk = Desk::with(&[("good.rhai", &ending("log(\"bye\")")), ("bad.rhai", &ending("throw \"still busy\""))]);
    let problem = "unstopped kit (global): Script: on_stop: still busy";
    for (plugin, signal, says) in
        [("good.rhai", "-TERM", false), ("bad.rhai", "-TERM", true), ("bad.rhai", "-INT", true)]
    {
        let mut server = Server::start(&desk, &["--tools", plugin]);
        let mut rest = server.child.stderr.take().unwrap();
        assert_eq!(server.end_by(signal), Some(0));
        let mut said = String::new();
        rest.read_to_string(&mut said).unwrap();
        assert_eq!(said.contains(problem), says, "{plugin} {signal}: {said}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_scripts_callbacks_are_called_in_a_worker_process_as_in_the_hosts() {
    let refuses = format!("{}\nfn on_load(cx) {{ throw \"not for \" + cx.tenant; }}", super::KIT);
    let desk = Desk::with(&[("good.rhai", &ending("log(\"bye\")")), ("bad.rhai", &refuses)]);
    for isolation in ["process", "in-process"] {
        let tools = |plugin: &str| {
            let given = format!("acme={plugin}");
            desk.run(&["tools", "--tenant-tools", &given, "--tenant", "acme", "--isolation", isolation])
        };
        let (good, bad) = (tools("good.rhai"), tools("bad.rhai"));
        assert!(good.stdout.contains("kit.echo"), "{isolation}: {} {}", good.stdout, good.stderr);
        assert!(bad.stderr.contains("on_load: not for acme"), "{isolation}: {} {}", bad.stdout, bad.stderr);
    }
}

#[cfg(unix)]
#[test]
fn mcp_stops_the_plugins_when_its_input_ends_and_when_it_is_asked_to() {
    let desk = Desk::with(&[("bad.rhai", &ending("throw \"still busy\""))]);
    for signal in [None, Some("-TERM"), Some("-INT")] {
        let mut child = desk.command(&["mcp", "--tools", "bad.rhai"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        writeln!(input, "{}", initialize()).unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        match signal {
            None => drop(input),
            Some(signal) => {
                let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
                assert!(sent.success());
            }
        }
        let ran = Ran::of(child.wait_with_output().unwrap()).ends(0);
        let problem = "unstopped kit (global): Script: on_stop: still busy";
        assert_eq!(ran.stderr.matches(problem).count(), 1, "{signal:?}: {}", ran.stderr);
    }
}
