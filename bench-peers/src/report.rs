//! The figures as Markdown, with their ratios to Toolbay's.

use std::{collections::BTreeMap, fs};

use serde_json::Value;

use crate::{
    measure::{IN_FLIGHT, Kind, PLUGINS},
    peer::{ENTRIES, Entry},
    workload::Tool,
};

/// Every figure that was measured, by kind, peer and name; several where there were several rounds.
#[derive(Default)]
pub struct Report {
    figures: BTreeMap<(&'static str, &'static str, String), Vec<f64>>,
    failures: Vec<String>,
}

/// A column: the figure's name, its heading, and how it is written.
struct Column {
    figure: &'static str,
    heading: &'static str,
    write: fn(f64) -> String,
}

impl Report {
    /// Takes over what a child process measured.
    pub fn add(&mut self, kind: Kind, entry: &Entry, figures: &Value) {
        for (name, figure) in figures.as_object().into_iter().flatten() {
            let key = (kind.name(), entry.name, name.clone());
            self.figures.entry(key).or_default().extend(figure.as_f64());
        }
    }

    /// Notes that a peer could not be measured.
    pub fn fail(&mut self, kind: Kind, entry: &Entry, reason: &str) {
        self.failures.push(format!("{}, {}: {reason}", entry.title, kind.name()));
    }

    /// The tables.
    pub fn markdown(&self, load_before: &str) -> String {
        let computing =
            Tool::COMPUTING.map(|tool| Column { figure: tool.name(), heading: tool.heading(), write: time });
        let waiting = [
            Column { figure: "at_once", heading: "waiting at once", write: count },
            Column { figure: "calls_per_second", heading: "calls/s", write: count },
            Column { figure: "bytes", heading: "memory per waiting call", write: bytes },
        ];
        let loaded = [
            Column { figure: "bytes", heading: "memory per plugin", write: bytes },
            Column { figure: "nanoseconds", heading: "time to load one", write: time },
        ];
        let mut text = format!(
            "{}; {} cores; load average {load_before} before, {} after.\n\
             In brackets: the figure divided by Toolbay's of the same run.\n\n",
            versions(),
            std::thread::available_parallelism().map_or(0, usize::from),
            load_average(),
        );
        text += "### A call, one after the other on one core, from JSON value to JSON value\n\n";
        text += &self.table(Kind::Computing, &computing);
        text += &format!("\n### {IN_FLIGHT} calls in flight, each waiting 1 ms for the host, two threads\n\n");
        text += &self.table(Kind::Waiting, &waiting);
        text += &format!("\n### {PLUGINS} different small plugins loaded\n\n");
        text += &self.table(Kind::Loaded, &loaded);
        for failure in &self.failures {
            text += &format!("\nNot measured: {failure}\n");
        }
        text
    }

    fn table(&self, kind: Kind, columns: &[Column]) -> String {
        let headings: Vec<_> = columns.iter().map(|column| column.heading).collect();
        let mut text = format!("| peer | how | {} |\n", headings.join(" | "));
        text += &format!("| --- | --- |{}\n", " ---: |".repeat(columns.len()));
        for entry in ENTRIES {
            let cells: Option<Vec<_>> = columns.iter().map(|column| self.cell(kind, entry, column)).collect();
            if let Some(cells) = cells {
                text += &format!("| {} | {} | {} |\n", entry.title, kind.manner(entry), cells.join(" | "));
            }
        }
        text
    }

    fn cell(&self, kind: Kind, entry: &Entry, column: &Column) -> Option<String> {
        let figure = |name| {
            let figures = self.figures.get(&(kind.name(), name, column.figure.to_owned()))?;
            // The quietest round: other work on the machine can only make a call slower.
            figures.iter().copied().min_by(f64::total_cmp)
        };
        let own = figure(entry.name)?;
        let written = (column.write)(own);
        match figure(ENTRIES.first()?.name) {
            Some(toolbay) => Some(format!("{written} ({})", ratio(own / toolbay))),
            None => Some(written),
        }
    }
}

/// The load average of one, five and fifteen minutes.
pub fn load_average() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// The peers' versions, from the lock file.
fn versions() -> String {
    let lock = include_str!("../Cargo.lock");
    let version = |name: &str| {
        let (_, rest) = lock.split_once(&format!("name = \"{name}\"\nversion = \""))?;
        Some(format!("{name} {}", rest.split('"').next()?))
    };
    ["rhai", "mlua", "luau0-src", "rquickjs", "wasmtime"].into_iter().filter_map(version).collect::<Vec<_>>().join(", ")
}

fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        ns if ns < 1e4 => format!("{:.2} µs", ns / 1e3),
        ns if ns < 1e6 => format!("{:.1} µs", ns / 1e3),
        ns => format!("{:.2} ms", ns / 1e6),
    }
}

fn bytes(bytes: f64) -> String {
    if bytes < 1e6 { format!("{:.1} KB", bytes / 1e3) } else { format!("{:.1} MB", bytes / 1e6) }
}

fn count(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn ratio(ratio: f64) -> String {
    match ratio {
        small if small < 0.1 => format!("{small:.4}×"),
        ratio if ratio < 10.0 => format!("{ratio:.2}×"),
        large => format!("{large:.0}×"),
    }
}
