//! `toolbay mcp add|list|inspect|remove`, and a key for each tenant at `toolbay serve`.

use super::Desk;

/// A server of one tool. What it says of the tool is in a file beside it.
const SERVER: &str = r#"
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    method, result, error = message["method"], None, None
    if method == "initialize":
        result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "py", "version": "1"}}
    elif method == "tools/list":
        result = {"tools": [{"name": "look", "description": open("says.txt").read(), "inputSchema": {"type": "object"}}]}
    elif method == "tools/call":
        result = {"content": [{"type": "text", "text": "seen"}]}
    else:
        error = {"code": -32601, "message": "no such method"}
    answer = {"jsonrpc": "2.0", "id": message["id"]}
    answer.update({"result": result} if error is None else {"error": error})
    print(json.dumps(answer), flush=True)
"#;

#[test]
fn a_server_is_added_called_found_changed_accepted_and_removed() {
    let desk = Desk::with(&[("server.py", SERVER), ("says.txt", "Looks."), ("toolbay.toml", "")]);
    let add = ["mcp", "add", "eyes", "--dir", "servers", "--inherit", "PATH", "--", "python3", "server.py"];
    let added = desk.run(&add);
    assert_eq!(added.status, Some(0), "{}", added.stderr);
    assert!(added.stdout.contains("look\n    Looks."), "{}", added.stdout);
    assert!(added.stderr.contains("grants = [\"process:start:python3\"]"), "{}", added.stderr);
    assert_eq!(desk.run(&add).status, Some(2), "nothing is written over");

    let listed = desk.run(&["mcp", "list", "--dir", "servers"]);
    assert!(listed.stdout.contains("eyes") && listed.stdout.contains("python3"), "{}", listed.stdout);

    let call = ["call", "eyes.look", "--tools", "servers/eyes", "--config", "granted.toml"];
    std::fs::write(desk.path("granted.toml"), "[plugins.eyes]\ngrants = [\"process:start:python3\"]\n").unwrap();
    let called = desk.run(&call);
    assert_eq!((called.status, called.stdout.trim()), (Some(0), "seen"), "{}", called.stderr);
    let refused = desk.run(&["call", "eyes.look", "--tools", "servers/eyes"]);
    assert!(refused.stderr.contains("process:start:python3"), "{}", refused.stderr);

    assert_eq!(desk.run(&["mcp", "inspect", "eyes", "--dir", "servers"]).status, Some(0));
    std::fs::write(desk.path("says.txt"), "Looks, and tells.").unwrap();
    let changed = desk.run(&["mcp", "inspect", "eyes", "--dir", "servers"]);
    assert_eq!(changed.status, Some(1), "{}", changed.stderr);
    assert!(changed.stdout.contains("- description: Looks.\n  + description: Looks, and tells."), "{}", changed.stdout);
    let quarantined = desk.run(&call);
    assert_eq!(quarantined.status, Some(1));
    assert!(quarantined.stderr.contains("operator"), "{}", quarantined.stderr);
    assert_eq!(desk.run(&["mcp", "inspect", "eyes", "--dir", "servers", "--accept"]).status, Some(0));
    assert_eq!(desk.run(&call).status, Some(0));

    assert_eq!(desk.run(&["mcp", "remove", "eyes", "--dir", "servers"]).status, Some(0));
    assert!(!desk.path("servers/eyes").exists());
    assert_eq!(desk.run(&["mcp", "remove", "..", "--dir", "servers"]).status, Some(2), "nothing else is removed");
}

#[test]
fn a_file_of_keys_that_cannot_be_taken_says_why_without_the_keys() {
    for (text, says) in [
        ("[[keys]]\ntenant = \"acme\"\nkey = \"short-hunter2\"\n", "16 bytes"),
        ("[[keys]]\ntenant = \"no such name!\"\nkey = \"hunter2-0123456789\"\n", "tenant"),
        ("[[keys]]\nkey = \"hunter2-0123456789\"\n", "tenant"),
    ] {
        let desk = Desk::with(&[("keys.toml", text)]);
        let ran = desk.run(&["serve", "--port", "0", "--tools", "kit.rhai", "--keys", "keys.toml"]);
        assert_eq!(ran.status, Some(2), "{}", ran.stderr);
        assert!(ran.stderr.contains(says) && !ran.stderr.contains("hunter2"), "{}", ran.stderr);
    }
}
