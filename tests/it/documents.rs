//! The documents' samples do what the documents say: Rhai plugins load, commands run with the output shown.
//! (Rust samples are doctests of this package's library.)

use std::{fs, path::PathBuf, process::Command};

use toolbay::{PermissionSet, PluginName, Scope};

use crate::support::{project, toolbay_command};

/// The documents, each with its path from the project's folder.
fn documents() -> Vec<(String, String)> {
    let mut paths = vec![PathBuf::from("README.md")];
    let docs = fs::read_dir(project().join("docs")).expect("docs/ is there");
    paths.extend(docs.map(|entry| PathBuf::from("docs").join(entry.expect("an entry").file_name())));
    paths.sort();
    let read = |path: PathBuf| (path.display().to_string(), fs::read_to_string(project().join(&path)).expect("text"));
    paths.into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "md")).map(read).collect()
}

/// The fenced blocks of `kind` in `text`, each with its first line's number.
fn blocks(text: &str, kind: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        if line.trim() == format!("```{kind}") {
            let body: Vec<_> = lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != "```").collect();
            found.push((number + 2, body.join("\n")));
        }
    }
    found
}

#[tokio::test]
async fn every_rhai_sample_is_a_plugin_that_loads() {
    let mut seen = 0;
    for (name, text) in documents() {
        for (line, source) in blocks(&text, "rhai") {
            let bay = toolbay::builder().grants(PermissionSet::all()).build().unwrap();
            let loaded: Result<PluginName, _> = bay.load_source(Scope::Global, "sample.rhai", &source).await;
            assert!(loaded.is_ok(), "{name}:{line}: {}", loaded.unwrap_err());
            seen += 1;
        }
    }
    assert!(seen > 0, "there are no samples: is the fence still called rhai?");
}

#[test]
fn every_json_sample_is_json_and_every_server_file_can_be_read() {
    let mut servers = 0;
    for (name, text) in documents() {
        for (line, block) in blocks(&text, "json") {
            let parsed: Result<serde_json::Value, _> = serde_json::from_str(&block);
            let value = parsed.unwrap_or_else(|error| panic!("{name}:{line}: {error}"));
            // The others are configurations of other programs.
            if name.ends_with("mcp.md") && (value.get("command").is_some() || value.get("url").is_some()) {
                let read = toolbay::mcp_client::ServerFile::parse(block.as_bytes());
                assert!(read.is_ok(), "{name}:{line}: {}", read.unwrap_err());
                servers += 1;
            }
        }
    }
    assert_eq!(servers, 3);
}

/// A console block: lines `$ toolbay ...`, below each the output that it must print (nothing: any) or `? STATUS`.
#[test]
fn every_console_sample_prints_what_it_shows() {
    let mut seen = 0;
    for (name, text) in documents() {
        let scratch = tempfile::tempdir().unwrap();
        // The samples speak of `tools/` as a clone of the project has it.
        std::os::unix::fs::symlink(project().join("tools"), scratch.path().join("tools")).unwrap();
        for (line, block) in blocks(&text, "console") {
            let mut lines = block.lines().peekable();
            while let Some(command) = lines.next() {
                let command =
                    command.strip_prefix("$ ").unwrap_or_else(|| panic!("{name}:{line}: {command:?} is no command"));
                let mut shown = Vec::new();
                while let Some(output) = lines.next_if(|next| !next.starts_with("$ ")) {
                    shown.push(output);
                }
                check(&format!("{name}:{line}"), command, &shown, &scratch);
                seen += 1;
            }
        }
    }
    assert!(seen > 0, "there are no samples: is the fence still called console?");
}

fn check(place: &str, command: &str, shown: &[&str], scratch: &tempfile::TempDir) {
    let toolbay = toolbay_command();
    let folder = toolbay.parent().expect("the binary lies in a folder");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("sh")
        .args(["-c", command])
        .current_dir(scratch.path())
        .env("PATH", path)
        .env("HOME", scratch.path())
        .output()
        .expect("a shell");
    let status = output.status.code().unwrap_or(-1).to_string();
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let wanted_status = shown.iter().find_map(|line| line.strip_prefix("? ")).unwrap_or("0");
    assert_eq!(status, wanted_status, "{place}: {command}\n{stdout}\n{stderr}");
    let wanted: Vec<_> = shown.iter().filter(|line| !line.starts_with("? ")).copied().collect();
    if !wanted.is_empty() {
        assert_eq!(stdout.trim_end(), wanted.join("\n"), "{place}: {command}\n{stderr}");
    }
}
