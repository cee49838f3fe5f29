//! Prompts and resources of plugins, as a session sees them. How clients get them is tested with the MCP server.

use serde_json::{Value, json};
use toolbay::{Scope, Session, Toolbay};

use crate::support::folder;

/// A folder with the plugin `fx`, whose manifest has what `change` put in.
async fn session_with(change: impl FnOnce(&mut Value)) -> Result<Session, String> {
    let mut manifest = json!({
        "name": "fx", "version": "1.0.0", "description": "Rates.", "author": "The tests",
        "tools": { "write": { "description": "Writes." } },
        "prompts": { "ask": {
            "description": "Asks.",
            "arguments": [{ "name": "pair", "description": "Which?", "required": true, "values": ["EURUSD"] }],
            "messages": [{ "role": "user", "text": "What is {pair}?" }],
        } },
        "resources": { "guide": {
            "uri": "docs://fx/guide", "description": "How.", "mime_type": "text/markdown", "asset": "guide.md",
        } },
    });
    change(&mut manifest);
    let files = folder(&[
        ("fx/plugin.json", &manifest.to_string()),
        ("fx/main.rhai", "fn write(args) { \"written\" }"),
        ("fx/assets/guide.md", "# Rates"),
        ("fx/assets/other.md", "# Others"),
    ]);
    let bay: Toolbay = toolbay::builder().build().unwrap();
    bay.load(Scope::Global, files.path().join("fx")).await.map_err(|error| error.message)?;
    Ok(bay.session("acme").unwrap())
}

/// What the session shows of both, as one text.
fn shown(session: &Session) -> String {
    let files: Vec<_> = session
        .resources()
        .iter()
        .map(|resource| resource.file().map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
        .collect();
    let declared: Vec<_> = session.resources().into_iter().map(|info| (info.declaration, info.tool)).collect();
    format!("{:?} {declared:?} {files:?}", session.prompts())
}

#[tokio::test]
async fn each_field_of_a_prompt_and_of_a_resource_changes_what_is_shown() {
    let as_it_is = shown(&session_with(|_| {}).await.unwrap());
    let changes: [(&str, Value); 10] = [
        ("/prompts/ask/description", json!("Asks well.")),
        ("/prompts/ask/arguments/0/name", json!("what")),
        ("/prompts/ask/arguments/0/description", json!("Which one?")),
        ("/prompts/ask/arguments/0/required", json!(false)),
        ("/prompts/ask/arguments/0/values", json!(["USDJPY"])),
        ("/prompts/ask/messages/0/role", json!("assistant")),
        ("/prompts/ask/messages/0/text", json!("Tell me {pair}.")),
        ("/resources/guide/uri", json!("docs://fx/manual")),
        ("/resources/guide/mime_type", json!("text/plain")),
        ("/resources/guide/asset", json!("other.md")),
    ];
    for (pointer, value) in changes {
        let changed = session_with(|manifest| *manifest.pointer_mut(pointer).unwrap() = value).await.unwrap();
        assert_ne!(shown(&changed), as_it_is, "{pointer}");
    }
    let described = session_with(|manifest| manifest["resources"]["guide"]["description"] = json!("How not.")).await;
    assert_ne!(shown(&described.unwrap()), as_it_is);
    let by_tool = session_with(|manifest| {
        manifest["prompts"]["ask"] = json!({ "description": "Asks.", "tool": "write" });
        manifest["resources"]["guide"] = json!({ "uri": "docs://fx/{page}", "description": "How.", "tool": "write" });
    })
    .await
    .unwrap();
    assert_eq!(by_tool.prompts()[0].tool.as_ref().map(|tool| tool.as_str()), Some("fx.write"));
    assert_eq!(by_tool.resources()[0].tool.as_ref().map(|tool| tool.as_str()), Some("fx.write"));
}

#[tokio::test]
async fn what_a_prompt_or_a_resource_needs_must_be_there() {
    let cases: [(&str, Value, &str); 6] = [
        ("/prompts/ask", json!({ "description": "Asks.", "tool": "gone" }), "no tool gone"),
        ("/prompts/ask", json!({ "description": "Asks." }), "either messages or the tool"),
        ("/resources/guide/asset", json!("gone.md"), "no asset \"gone.md\""),
        ("/resources/guide/asset", json!("../main.rhai"), "asset"),
        ("/resources/guide/uri", json!("guide"), "address with a scheme"),
        ("/resources/guide/uri", json!("docs://fx/{page}"), "one file has one address"),
    ];
    for (pointer, value, says) in cases {
        let refused = session_with(|manifest| *manifest.pointer_mut(pointer).unwrap() = value.clone()).await;
        let error = refused.expect_err(pointer);
        assert!(error.contains(says), "{pointer} {value}: {error}");
    }
}
