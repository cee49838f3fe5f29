//! The sandbox under attack: every hostile program in a process of its own, all of them in one process, and programs
//! made up at random. The full run, at four deadlines and in a release build, is `scripts/hostile`.

use std::{
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use toolbay_tests::hostile::{Fault, Program, Promise, Range, corpus};

use crate::support::toolbay_command;

/// What a debug build on a busy machine is forgiven beyond the deadline.
const OVERRUN: Duration = Duration::from_millis(250);
const TIMEOUT: Duration = Duration::from_millis(50);

/// The sandbox within the process; the worker tier is held to the same by `scripts/hostile --isolation process`.
fn range() -> Range {
    Range::new(toolbay_command(), vec!["--isolation".to_owned(), "in-process".to_owned()])
}

fn promise(range: &Range) -> Promise {
    Promise { timeout: TIMEOUT, overrun: OVERRUN, baseline: range.baseline(TIMEOUT), spare_bytes: 64 << 20 }
}

/// The programs against which every promise is kept so far; the others are listed with what is wrong.
fn kept() -> Vec<Program> {
    let open = std::fs::read_to_string(crate::support::project().join("tests/hostile/OPEN")).unwrap();
    let open: Vec<&str> =
        open.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(' ').next()).collect();
    let programs = corpus();
    for title in &open {
        assert!(programs.iter().any(|program| program.title() == *title), "OPEN names {title:?}, which there is not");
    }
    programs.into_iter().filter(|program| !open.contains(&program.title().as_str())).collect()
}

/// The faults of one program. What was only too slow is tried again: the machine may have been busy elsewhere.
fn faults(range: &Range, promise: &Promise, program: &Program) -> Vec<Fault> {
    let mut found = Vec::new();
    for _ in 0..3 {
        found = promise.faults(program, &range.run(program, TIMEOUT), range.folder());
        let may_be_load = |fault: &Fault| matches!(fault, Fault::Overrun(_) | Fault::Slow(_) | Fault::Kind(..));
        if found.is_empty() || !found.iter().all(may_be_load) {
            break;
        }
    }
    found
}

#[test]
fn every_hostile_program_ends_as_it_must_and_takes_nothing_along() {
    let range = range();
    let promise = promise(&range);
    let (programs, next, wrong) = (kept(), AtomicUsize::new(0), Mutex::new(Vec::new()));
    assert!(programs.len() >= 150, "{} programs", programs.len());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(program) = programs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    for fault in faults(&range, &promise, program) {
                        wrong.lock().unwrap().push((fault, program.title()));
                    }
                }
            });
        }
    });
    let mut wrong = wrong.into_inner().unwrap();
    wrong.sort();
    let lines: Vec<String> = wrong.iter().map(|(fault, title)| format!("{title}: {fault}")).collect();
    assert!(lines.is_empty(), "{} faults of {} programs:\n{}", lines.len(), programs.len(), lines.join("\n"));
}

#[test]
fn the_same_program_gives_the_same_result_and_the_same_number_of_operations() {
    let range = range();
    // A deadline that does not strike: when it does is no matter of the program's.
    let timeout = Duration::from_secs(20);
    for program in kept().iter().filter(|program| program.class == "determinism") {
        let [first, second] = [range.run(program, timeout), range.run(program, timeout)];
        assert_eq!(first.wire["data"], second.wire["data"], "{}", program.title());
        assert_eq!(first.wire["error"], second.wire["error"], "{}", program.title());
        let operations = |wire: &serde_json::Value| wire["metadata"]["operations"].clone();
        assert_eq!(operations(&first.wire), operations(&second.wire), "{}", program.title());
    }
}

#[test]
fn made_up_programs_break_nothing() {
    let run = Command::new(env!("CARGO_BIN_EXE_generate"))
        .args(["--seed", "1", "--seconds", "5"])
        .stdin(Stdio::null())
        .output()
        .expect("the program starts");
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stdout));
}
