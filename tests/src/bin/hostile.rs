//! Runs the whole corpus against the binary at several deadlines and prints a table: `scripts/hostile`.
//!
//! With `--alone MS ROUNDS [PART OF A TITLE...]` it runs the corpus through the library in this very process instead, for the test that
//! watches it from outside.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for developers, whose output is its purpose"
)]

use std::{collections::BTreeMap, env, path::PathBuf, process::ExitCode, time::Duration};

use toolbay_tests::hostile::{Fault, Program, Promise, Range, alone, corpus};

#[global_allocator]
static ALLOCATOR: alone::Counting = alone::Counting;

/// The deadlines in milliseconds.
const DEADLINES: [u64; 4] = [10, 50, 250, 1_000];

/// A row of the table.
#[derive(Default)]
struct Row {
    programs: usize,
    deaths: usize,
    overruns: usize,
    slow: usize,
    worst_overrun: Duration,
    worst_memory: u64,
    over_memory: usize,
    wrong: usize,
}

fn main() -> ExitCode {
    let mut args: Vec<String> = env::args().skip(1).collect();
    if args.first().is_some_and(|first| first == "--alone") {
        let number = |place: usize, default| args.get(place).map_or(default, |text| text.parse().expect("a number"));
        return alone::run(Duration::from_millis(number(1, 10)), number(2, 2), args.get(3..).unwrap_or_default());
    }
    let overrun = take(&mut args, "--overrun").map_or(25, |text| text.parse().expect("milliseconds"));
    let only = take(&mut args, "--only").unwrap_or_default();
    let deadlines = match take(&mut args, "--deadlines") {
        Some(text) => text.split(',').map(|ms| ms.parse().expect("milliseconds")).collect(),
        None => DEADLINES.to_vec(),
    };
    let binary = PathBuf::from(env::var("TOOLBAY_BIN").expect("TOOLBAY_BIN names the binary to attack"));
    let programs: Vec<Program> = corpus().into_iter().filter(|program| program.title().contains(&only)).collect();
    let range = Range::new(binary, args);
    let mut all = Vec::new();
    for ms in deadlines {
        let timeout = Duration::from_millis(ms);
        let promise = promise(&range, timeout, Duration::from_millis(overrun));
        println!("\nDeadline {ms} ms; a trivial program: {} MiB, {:.1} ms in all", promise.baseline.0 >> 20, {
            promise.baseline.1.as_secs_f64() * 1e3
        });
        let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
        let mut overruns = Vec::new();
        for program in &programs {
            let outcome = range.run(program, timeout);
            let row = rows.entry(&program.class).or_default();
            row.programs += 1;
            row.worst_memory = row.worst_memory.max(outcome.resident);
            row.worst_overrun = row.worst_overrun.max(promise.overrun_of(program, &outcome));
            overruns.push(promise.overrun_of(program, &outcome));
            for fault in promise.faults(program, &outcome, range.folder()) {
                match &fault {
                    Fault::Death(_) => row.deaths += 1,
                    Fault::Memory(_) => row.over_memory += 1,
                    Fault::Overrun(_) => row.overruns += 1,
                    Fault::Slow(_) => row.slow += 1,
                    Fault::Kind(..) | Fault::Leaked(_) => row.wrong += 1,
                }
                all.push((fault, ms, program.title()));
            }
        }
        print(&rows, &mut overruns);
    }
    all.sort();
    println!("\n{} faults", all.len());
    for (fault, ms, title) in &all {
        println!("  {title} at {ms} ms: {fault}");
    }
    if all.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Takes an option of ours with its value out of what goes to the binary.
fn take(args: &mut Vec<String>, name: &str) -> Option<String> {
    let place = args.iter().position(|arg| arg == name)?;
    args.remove(place);
    Some(args.remove(place))
}

/// What is promised at `timeout`, measured against a program that does nothing.
fn promise(range: &Range, timeout: Duration, overrun: Duration) -> Promise {
    Promise { timeout, overrun, baseline: range.baseline(timeout), spare_bytes: 64 << 20 }
}

fn print(rows: &BTreeMap<&str, Row>, overruns: &mut [Duration]) {
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    println!("class          programs  deaths  overruns  slow  worst overrun  over memory  worst RSS  wrong");
    for (class, row) in rows {
        println!(
            "{class:<14} {:>8}  {:>6}  {:>8}  {:>4}  {:>10.1} ms  {:>11}  {:>5} MiB  {:>5}",
            row.programs,
            row.deaths,
            row.overruns,
            row.slow,
            ms(row.worst_overrun),
            row.over_memory,
            row.worst_memory >> 20,
            row.wrong
        );
    }
    overruns.sort();
    let at = |share: usize| overruns.get((overruns.len() * share / 100).min(overruns.len() - 1)).copied();
    println!(
        "overrun: median {:.1} ms, p99 {:.1} ms, most {:.1} ms",
        ms(at(50).unwrap_or_default()),
        ms(at(99).unwrap_or_default()),
        ms(at(100).unwrap_or_default())
    );
}
