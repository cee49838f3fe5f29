//! What several test modules need: a host with the scripted tools, and short ways to say things.

use std::{path::PathBuf, sync::Arc, time::Duration};

use serde_json::{Value, json};
use toolbay::{
    Limits, PermissionSet, Scope, Session, Tool, ToolContext, Toolbay, ToolbayBuilder, plugin::NativePlugin, tool,
};
use toolbay_testkit::{Transcript, scripted_tools};

/// A host with the scripted tools for everybody.
pub(crate) async fn host(builder: ToolbayBuilder) -> Toolbay {
    let bay = builder.build().expect("the host is sound");
    bay.register(Scope::Global, scripted_tools().expect("fixed names")).await.expect("the scripted tools fit");
    bay
}

/// The tenant `acme` at the tools, with a transcript of what it does.
pub(crate) fn acme(bay: &Toolbay) -> (Session, Arc<Transcript>) {
    let transcript = Arc::new(Transcript::default());
    (bay.session("acme").expect("a tenant").with_observer(transcript.clone()), transcript)
}

pub(crate) fn tenant(name: &str) -> Scope {
    Scope::tenant(name).expect("a tenant")
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
pub(crate) struct Nothing {}

/// A tool that takes nothing and says `text`.
pub(crate) fn says(name: &str, text: &'static str) -> impl Tool + 'static {
    tool(name, "Says something", move |_: Nothing, _: ToolContext| async move { Ok(text) })
}

/// A plugin with one tool `what` that says `text`.
pub(crate) fn plugin_that_says(name: &str, text: &'static str) -> NativePlugin {
    NativePlugin::new(name, "1.0.0", "A test's plugin").expect("a plugin name").tool(says("what", text))
}

/// The names of the tools that a session sees.
pub(crate) fn names(session: &Session) -> Vec<String> {
    session.tools().iter().map(|tool| tool.definition.name.to_string()).collect()
}

/// What a call gives: the data, or `Kind: message` as a string.
pub(crate) async fn outcome(session: &Session, tool: &str, arguments: Value) -> Value {
    match session.call(tool, arguments).await.result {
        Ok(output) => output.data,
        Err(error) => json!(format!("{error}")),
    }
}

/// A folder of the test's own with these files in it.
pub(crate) fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder for the test");
    for (name, content) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder in it");
        std::fs::write(path, content).expect("a file in it");
    }
    folder
}

/// A host whose tools get the standard grants and have all the time that a busy machine takes: for tests of what tools do, not
/// of how long it takes. Everything else is bounded as usual.
pub(crate) fn unhurried() -> ToolbayBuilder {
    let limits = Limits { timeout: Duration::from_secs(120), ..Limits::default() };
    toolbay::builder().grants(PermissionSet::standard()).limits(limits)
}

/// The folder of the whole project.
pub(crate) fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("the tests lie in the project").to_owned()
}

/// The binary `toolbay`: `TOOLBAY_BIN`, or the one beside the test's own.
pub(crate) fn toolbay_command() -> PathBuf {
    let built = || {
        let own = std::env::current_exe().expect("a running test has a path");
        own.ancestors().nth(2).expect("target/PROFILE/deps/it").join("toolbay")
    };
    let path = std::env::var_os("TOOLBAY_BIN").map_or_else(built, PathBuf::from);
    assert!(path.exists(), "{} is missing: run `cargo build -p toolbay-cli` first", path.display());
    path
}
