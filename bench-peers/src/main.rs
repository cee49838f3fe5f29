//! Measures Toolbay beside what a user would pick instead, and prints Markdown tables.
//!
//! Without arguments all peers are measured; with the names of peers, only those and Toolbay. Each measurement is a
//! process of its own; those of computing come in rounds, so that a noisy minute of the machine hits all peers alike.
//!
//! # Layout
//!
//! - `workload`: tools, arguments, answers, and the host function that waits.
//! - `peer`, `peers`: the engines, each used as its user would.
//! - `measure`: one measurement. `report`: the tables.

mod measure;
mod peer;
mod peers;
mod report;
mod workload;

use std::{env, process::Command};

use crate::{
    measure::Kind,
    peer::{ENTRIES, Entry, Fallible, entry},
    report::{Report, load_average},
};

/// As the `toolbay` binary has it: without it Toolbay could not bound a call's memory. The peers written in Rust run
/// on it too.
#[global_allocator]
static ALLOCATOR: toolbay::rhai::MeteredAllocator = toolbay::rhai::MeteredAllocator;

/// How often computing is measured.
const ROUNDS: usize = 3;

/// Set for the processes that measure.
const CHILD: &str = "--child";

fn main() -> Fallible<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let [CHILD, kind, name] = arguments[..] {
        let kind = Kind::ALL.into_iter().find(|known| known.name() == kind).ok_or("no such measurement")?;
        println!("{}", kind.measure(entry(name)?)?);
        // Without taking apart what was built: ten thousand plugins are the system's to clean away.
        std::process::exit(0);
    }
    for name in &arguments {
        entry(name)?;
    }
    let load_before = load_average();
    let mut report = Report::default();
    let wanted = |index: usize, entry: &Entry| index == 0 || arguments.is_empty() || arguments.contains(&entry.name);
    for kind in Kind::ALL {
        for round in 0..if matches!(kind, Kind::Computing) { ROUNDS } else { 1 } {
            for (index, entry) in ENTRIES.iter().enumerate() {
                if !wanted(index, entry) || kind.manner(entry).is_empty() {
                    continue;
                }
                eprintln!("{}, {}, round {}", kind.name(), entry.name, round + 1);
                match in_child(kind, entry) {
                    Ok(figures) => report.add(kind, entry, &figures),
                    Err(error) => report.fail(kind, entry, &error.to_string()),
                }
            }
        }
    }
    println!("{}", report.markdown(&load_before));
    Ok(())
}

fn in_child(kind: Kind, entry: &Entry) -> Fallible<serde_json::Value> {
    let output = Command::new(env::current_exe()?).args([CHILD, kind.name(), entry.name]).output()?;
    if !output.status.success() {
        return Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}
