//! The rules that a compiler does not hold: floors, the code map, files that say what they are for.

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use serde_json::Value;

use crate::support::project;

/// The floors of ARCHITECTURE.md: a crate may use those on lower floors only.
const FLOORS: [(&str, u32); 21] = [
    ("toolbay-api", 0),
    ("toolbay-http", 1),
    ("toolbay-keyring", 1),
    ("toolbay-listen", 1),
    ("toolbay-runtime", 1),
    ("toolbay-rhai", 1),
    ("toolbay-agent", 2),
    ("toolbay-contract", 2),
    ("toolbay-mcp", 2),
    ("toolbay-otel", 2),
    ("toolbay-rig", 2),
    ("toolbay-server", 2),
    ("toolbay-store", 2),
    ("toolbay-mcp-client", 2),
    ("toolbay-testkit", 2),
    ("toolbay-watch", 2),
    ("toolbay-worker", 2),
    ("toolbay", 3),
    ("toolbay-cli", 4),
    ("toolbay-examples", 4),
    ("toolbay-example-author", 4),
];

fn metadata() -> Value {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(project())
        .output()
        .expect("cargo runs");
    serde_json::from_slice(&output.stdout).expect("cargo's metadata is JSON")
}

#[test]
fn no_dependency_goes_up_or_sideways() {
    let floors: BTreeMap<_, _> = FLOORS.into_iter().collect();
    let mut wrong = Vec::new();
    for package in metadata()["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        if name == "toolbay-tests" {
            continue;
        }
        let floor =
            floors.get(name).unwrap_or_else(|| panic!("{name} has no floor: add it here and to ARCHITECTURE.md"));
        for dependency in package["dependencies"].as_array().unwrap() {
            let other = dependency["name"].as_str().unwrap();
            let is_for_tests = dependency["kind"] == "dev";
            if let Some(lower) = floors.get(other)
                && lower >= floor
                && !is_for_tests
            {
                wrong.push(format!("{name} (floor {floor}) uses {other} (floor {lower})"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_vocabulary_knows_no_runtime_and_does_no_io() {
    let packages = metadata();
    let api = packages["packages"].as_array().unwrap().iter().find(|package| package["name"] == "toolbay-api").unwrap();
    let uses = |name: &str| {
        let dependencies = api["dependencies"].as_array().unwrap();
        dependencies.iter().any(|dependency| dependency["name"] == name && dependency["kind"].is_null())
    };
    for heavy in ["tokio", "reqwest", "axum", "rhai", "rmcp", "sqlx"] {
        assert!(!uses(heavy), "toolbay-api uses {heavy}");
    }
}

#[test]
fn every_crate_is_named_in_the_code_map() {
    let map = fs::read_to_string(project().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md is there");
    for (name, _) in FLOORS.iter().filter(|(name, _)| !name.starts_with("toolbay-example")) {
        assert!(map.contains(&format!("`{name}`")), "ARCHITECTURE.md does not name `{name}`");
    }
}

#[test]
fn every_source_file_says_what_it_is_for() {
    let mut silent = Vec::new();
    for folder in ["crates", "tests", "examples"] {
        rust_files(&project().join(folder), &mut |path, text| {
            if !text.starts_with("//!") {
                silent.push(path.display().to_string());
            }
        });
    }
    assert!(silent.is_empty(), "these files do not begin with //!: {silent:#?}");
}

#[test]
fn no_module_is_called_mod_rs() {
    rust_files(&project().join("crates"), &mut |path, _| {
        assert!(path.file_name().is_some_and(|name| name != "mod.rs"), "{}", path.display());
    });
}

fn rust_files(folder: &Path, look: &mut impl FnMut(&Path, &str)) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                rust_files(&path, look);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            look(&path, &fs::read_to_string(&path).expect("text"));
        }
    }
}
