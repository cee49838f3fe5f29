//! A process that is killed in the middle of its writes: nothing that it was told is written is lost, nothing is half there.
//!
//! The writer is this test binary once more: it writes one thing after another and says the number of each that was
//! acknowledged on its standard output before it goes on. `TOOLBAY_CRASH_ROUNDS` says how often; `scripts/crash` is the long
//! form.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::json;
use toolbay_api::Scope;
use toolbay_runtime::{
    kv::{KvQuota, KvStore as _},
    store::{Expected, Once, PackageDigest, Registration, Step, Store as _},
};
use toolbay_store::{Bounds, SqlStore, StoreOptions};
use uuid::Uuid;

use crate::support::*;

/// Set for the process that is to be killed: the round and the database.
const AS_WRITER: &str = "TOOLBAY_CRASH_WRITER";

/// Writes that a writer makes, unless it is killed before.
const WRITES: u64 = 1_000;

/// What is written under each number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tenant,
    Upload,
    Configure,
    Value,
    Event,
    Run,
    Audit,
}

fn kind_of(n: u64) -> Kind {
    [Kind::Tenant, Kind::Upload, Kind::Configure, Kind::Value, Kind::Value, Kind::Event, Kind::Run, Kind::Audit]
        [(n % 8) as usize]
}

fn random() -> u64 {
    Uuid::new_v4().as_u64_pair().1 >> 2
}

fn owner() -> Uuid {
    Uuid::from_u128(77)
}

fn id(round: u64, n: u64) -> Uuid {
    Uuid::from_u64_pair(round + 1, n)
}

fn unbounded() -> StoreOptions {
    let bounds = Bounds {
        registrations: u32::MAX,
        versions: u32::MAX,
        answers: u32::MAX,
        events: u32::MAX,
        runs: u32::MAX,
        ..Bounds::default()
    };
    StoreOptions { bounds, ..StoreOptions::default() }
}

async fn write(store: &SqlStore, round: u64, n: u64) {
    let what = format!("r{round}-{n}");
    let audited = |scope: Scope, steps: Vec<Step>| {
        let mut change = change(steps);
        change.audit.push(entry(scope, "write", &what));
        let answer = json!(what);
        change.once = Some(Once { owner: owner(), key: what.clone(), request: [1; 32], answer, expires_ms: i64::MAX });
        change
    };
    match kind_of(n) {
        Kind::Tenant => {
            store.commit(audited(Scope::Global, vec![Step::AddTenant(tenant_row(&what))])).await.unwrap();
        }
        Kind::Upload => {
            let mut row = registration(scope("acme"), &what);
            row.package = Some(PackageDigest::of(what.as_bytes()));
            let steps = vec![put(row), package(scope("acme"), &what, "1.2.3", what.as_bytes())];
            store.commit(audited(scope("acme"), steps)).await.unwrap();
        }
        Kind::Configure => {
            let seen = store.registration(&Scope::Global, &plugin("fx")).await.unwrap().unwrap();
            let expected = Expected::Revision(seen.revision);
            let row = Registration { revision: seen.revision + 1, config: Some(json!({ "last": what })), ..seen };
            store.commit(audited(Scope::Global, vec![Step::PutRegistration { row, expected }])).await.unwrap();
        }
        Kind::Value => {
            store.set(&space("acme", "fx"), &what, json!({ "of": what }).into(), quota(), 0).await.unwrap();
        }
        Kind::Event => {
            let one = toolbay_runtime::store::OutboxEvent {
                id: id(round, n),
                ..event(scope("acme"), &format!("k{}", n % 5), n as i64)
            };
            store.post(vec![one]).await.unwrap();
        }
        Kind::Run => {
            let one = toolbay_runtime::store::RunRow { id: id(round, n), ..run("acme", n as i64) };
            store.put_run(one, Expected::Absent).await.unwrap();
        }
        Kind::Audit => store.record(vec![entry(scope("acme"), "call", &what)]).await.unwrap(),
    }
}

fn quota() -> KvQuota {
    KvQuota { max_keys: usize::MAX, max_bytes: usize::MAX, ..KvQuota::default() }
}

/// How often something written is there; each part of it must say the same.
async fn is_there(store: &SqlStore, round: u64, n: u64, audited: &BTreeSet<String>) -> bool {
    let what = format!("r{round}-{n}");
    let both = |audit: bool, answer: bool, row: bool| {
        assert!(audit == answer && answer == row, "{what} is half there: audit {audit}, answer {answer}, row {row}");
        row
    };
    let answer = async || store.answered(owner(), &what, 0).await.unwrap().is_some();
    match kind_of(n) {
        Kind::Tenant => {
            let row = store.tenant(&tenant(&what)).await.unwrap().is_some();
            both(audited.contains(&what), answer().await, row)
        }
        Kind::Upload => {
            let row = store.registration(&scope("acme"), &plugin(&what)).await.unwrap();
            let versions = store.versions(&scope("acme"), &plugin(&what)).await.unwrap().len();
            let content = store.package(&PackageDigest::of(what.as_bytes())).await.unwrap();
            assert!(row.is_some() == (versions == 1) && row.is_some() == content.is_some(), "{what} is half there");
            both(audited.contains(&what), answer().await, row.is_some())
        }
        // Each is written over by the next, so the audit tells.
        Kind::Configure => both(audited.contains(&what), answer().await, audited.contains(&what)),
        Kind::Value => store.get(&space("acme", "fx"), &what, 0).await.unwrap() == Some(json!({ "of": what })),
        Kind::Run => store.run(&tenant("acme"), id(round, n)).await.unwrap().is_some(),
        Kind::Audit => audited.contains(&what),
        // Looked at together.
        Kind::Event => true,
    }
}

/// Kills a writer at some moment, and looks what is there.
async fn round(db: &Fixture, round: u64, seed: u64) -> (u64, bool) {
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::what_is_acknowledged_is_there", "--nocapture", "--test-threads=1"])
        .env(AS_WRITER, format!("{round} {}", db.url_of("crash_writer")))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(writer.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut acknowledged = Vec::new();
    let mut number =
        |line: String| line.strip_prefix("written ").map(|n| acknowledged.push(n.parse::<u64>().unwrap())).is_some();
    let (last, pause) = (seed % WRITES, Duration::from_micros(seed / WRITES % 5_000));
    let mut count = 0;
    for line in said.by_ref() {
        count += u64::from(number(line));
        if count >= last {
            break;
        }
    }
    // Somewhere within the writes that come next.
    let until = Instant::now() + pause;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
    writer.kill().unwrap();
    for line in said {
        number(line);
    }
    let was_killed = !writer.wait().unwrap().success();
    let count = acknowledged.len() as u64;
    assert_eq!(acknowledged, (0..count).collect::<Vec<_>>());

    db.lets_go_of("crash_writer").await;
    let store = db.with(unbounded()).await;
    assert_eq!(store.verify_audit().await.unwrap(), [], "the audit is not whole");
    let mut audited = BTreeSet::new();
    for scope in [scope("acme"), Scope::Global] {
        let mut query = all();
        query.newest_first = true;
        // A round has written no more than this since the one before.
        audited.extend(store.audit(&scope, &query).await.unwrap().items.into_iter().map(|line| line.entry.target));
    }
    for n in 0..count {
        assert!(is_there(&store, round, n, &audited).await, "the acknowledged write {n} ({:?}) is lost", kind_of(n));
    }
    // The one that it was at may be there, and nothing after it.
    is_there(&store, round, count, &audited).await;
    if kind_of(count + 1) != Kind::Event {
        assert!(!is_there(&store, round, count + 1, &audited).await);
    }
    if let Some(last) = (0..count).rev().find(|n| kind_of(*n) == Kind::Configure) {
        let config = store.registration(&Scope::Global, &plugin("fx")).await.unwrap().unwrap().config.unwrap();
        let may_be = [last, count].map(|n| json!({ "last": format!("r{round}-{n}") }));
        assert!(may_be.contains(&config), "{config}");
    }
    let events = (0..count).filter(|n| kind_of(*n) == Kind::Event).count() as i64;
    let there = db.number("SELECT COUNT(*) FROM outbox").await;
    assert!(there == events || (there == events + 1 && kind_of(count) == Kind::Event), "{there} events of {events}");
    let wrong = "SELECT (SELECT COUNT(*) FROM outbox_scopes s WHERE entries <> (SELECT COUNT(*) FROM outbox o WHERE o.tenant_id = s.tenant_id))
        + (SELECT COUNT(*) FROM (SELECT key FROM outbox GROUP BY tenant_id, key HAVING COUNT(CASE WHEN head THEN 1 END) <> 1) AS h)
        + (SELECT COUNT(*) FROM kv_spaces WHERE keys <> (SELECT COUNT(*) FROM kv) OR bytes <> (SELECT SUM(bytes) FROM kv))
        + (SELECT COUNT(*) FROM packages WHERE digest NOT IN (SELECT digest FROM package_versions))";
    assert!(store.status().await.unwrap().is_current(), "the schema is not whole");
    assert_eq!(db.number(wrong).await, 0, "counters, heads or packages do not fit what is there");
    db.sql("DELETE FROM outbox; DELETE FROM outbox_scopes").await.unwrap();
    (count, was_killed)
}

on_both! {
    async fn what_was_acknowledged_outlives_a_kill_and_nothing_is_half_there(db: &Fixture) {
        let rounds: u64 = std::env::var("TOOLBAY_CRASH_ROUNDS").map_or(2, |rounds| rounds.parse().unwrap());
        db.tenants(&["acme"]).await;
        db.step(put(registration(Scope::Global, "fx"))).await.unwrap();
        let (mut writes, mut kills) = (0, 0);
        for n in 0..rounds {
            let (count, was_killed) = round(db, n, random()).await;
            writes += count;
            kills += u64::from(was_killed);
        }
        let database = if db.is_postgres() { "postgres" } else { "sqlite" };
        println!("{database}: {rounds} rounds, {kills} kills, {writes} acknowledged writes: none lost, none half there");
    }
}

/// By itself it writes each kind once; as the process that the test above kills, it writes until it is killed.
#[tokio::test]
async fn what_is_acknowledged_is_there() {
    if let Ok(told) = std::env::var(AS_WRITER) {
        let (round, url) = told.split_once(' ').unwrap();
        return write_on(&SqlStore::open(url, unbounded()).await.unwrap(), round.parse().unwrap()).await;
    }
    let db = Fixture::sqlite().await;
    db.tenants(&["acme"]).await;
    db.step(put(registration(Scope::Global, "fx"))).await.unwrap();
    let audited = async || {
        let mut targets = BTreeSet::new();
        for scope in [scope("acme"), Scope::Global] {
            let lines = db.store.audit(&scope, &all()).await.unwrap().items;
            targets.extend(lines.into_iter().map(|line| line.entry.target));
        }
        targets
    };
    for n in 0..8 {
        assert!(kind_of(n) == Kind::Event || !is_there(&db.store, 0, n, &audited().await).await);
        write(&db.store, 0, n).await;
        assert!(is_there(&db.store, 0, n, &audited().await).await, "{:?}", kind_of(n));
    }
    assert_eq!(db.number("SELECT COUNT(*) FROM outbox").await, 1);
}

async fn write_on(store: &SqlStore, round: u64) {
    let mut stdout = std::io::stdout();
    // The test runner has begun this line.
    writeln!(stdout).unwrap();
    for n in 0..WRITES {
        write(store, round, n).await;
        writeln!(stdout, "written {n}").unwrap();
        stdout.flush().unwrap();
    }
}
