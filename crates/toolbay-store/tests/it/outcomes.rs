//! What became of calls: the ledger alike in memory and in both databases, and runs that are taken up after a kill.
//!
//! The process that is killed is this test binary once more.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use toolbay_api::{
    Annotations, CallId, ErrorKind, RunId, Tool, ToolCall, ToolContext, ToolDefinition, ToolError, ToolOutput,
    async_trait,
};
use toolbay_runtime::{
    MemoryOutcomes, OutcomeLedger, Outcomes, Reply, Toolbay,
    outcomes::{Begun, CallKey, KeptReply, KnownCall, LedgerCall, Outcome},
    store::{Expected, Step},
};
use toolbay_store::{Bounds, SqlStore, StoreOptions};

use crate::support::*;

fn the_run() -> RunId {
    RunId::from_bytes([7; 16])
}

fn call(owner: &str, id: &str, expires_ms: i64) -> LedgerCall {
    let owner = tenant(owner);
    let key = CallKey::of(&owner, the_run(), &CallId::new(id));
    LedgerCall { tenant: owner, run: the_run(), key, tool: "pay.pay".to_owned(), arguments: [1; 32], expires_ms }
}

fn known(attempts: u32, outcome: Outcome) -> Begun {
    Begun::Known(KnownCall { attempts, arguments: [1; 32], outcome })
}

/// The same story for each ledger.
async fn tells_what_became_of_calls(ledger: &dyn OutcomeLedger) {
    let (one, other) = (call("acme", "1", 1_000), call("globex", "1", 1_000));
    assert_eq!(ledger.begin(&one, 0).await.unwrap(), Begun::First);
    assert_eq!(ledger.begin(&one, 1).await.unwrap(), known(1, Outcome::Started));
    assert_eq!(ledger.begin(&other, 1).await.unwrap(), Begun::First, "another tenant's call of the same id");

    let failed = Outcome::Failed(json!({ "kind": "Unavailable", "message": "away" }));
    ledger.settle(&one, 1, &failed, 2).await.unwrap();
    assert_eq!(ledger.begin(&one, 3).await.unwrap(), known(1, failed.clone()));
    assert!(!ledger.again(&one, 2, 3).await.unwrap(), "a start that nobody saw");
    assert!(ledger.again(&one, 1, 3).await.unwrap());
    assert!(!ledger.again(&one, 1, 3).await.unwrap(), "somebody else has started it since");
    assert_eq!(ledger.begin(&one, 4).await.unwrap(), known(2, Outcome::Started));
    ledger.settle(&one, 1, &Outcome::Unknown, 4).await.unwrap();
    assert_eq!(ledger.begin(&one, 4).await.unwrap(), known(2, Outcome::Started), "the word of an older start");
    ledger.settle(&one, 2, &Outcome::Unknown, 4).await.unwrap();
    assert_eq!(ledger.begin(&one, 4).await.unwrap(), known(2, Outcome::Unknown));
    assert!(ledger.again(&one, 2, 5).await.unwrap());

    let reply = Outcome::Committed(KeptReply::Whole(json!({ "data": { "z": 1, "a": 2.5 } })));
    ledger.settle(&one, 3, &reply, 6).await.unwrap();
    ledger.settle(&one, 3, &Outcome::Unknown, 7).await.unwrap();
    assert_eq!(ledger.begin(&one, 8).await.unwrap(), known(3, reply), "what is settled stays");
    assert!(!ledger.again(&one, 3, 8).await.unwrap(), "what is committed is not started again");
    let digest = Outcome::Committed(KeptReply::Digest { sha256: [9; 32], bytes: 1 << 40 });
    ledger.settle(&other, 1, &digest, 8).await.unwrap();
    assert_eq!(ledger.begin(&other, 8).await.unwrap(), known(1, digest));

    assert_eq!(ledger.begin(&one, 1_000).await.unwrap(), Begun::First, "what is over is not there");
    ledger.begin(&call("acme", "2", 2_000), 1_000).await.unwrap();
    ledger.forget(&tenant("acme"), the_run()).await.unwrap();
    assert_eq!(ledger.begin(&one, 1_000).await.unwrap(), Begun::First, "a run that is over is forgotten");
    assert_eq!(
        ledger.begin(&other, 999).await.unwrap(),
        known(1, Outcome::Committed(KeptReply::Digest { sha256: [9; 32], bytes: 1 << 40 }))
    );
}

async fn is_bounded(ledger: &dyn OutcomeLedger) {
    for n in 0..3 {
        assert_eq!(ledger.begin(&call("acme", &n.to_string(), 100), 0).await.unwrap(), Begun::First);
    }
    let fourth = call("acme", "3", 300);
    assert!(matches!(kind(ledger.begin(&fourth, 1).await), ErrorKind::LimitExceeded { .. }));
    assert_eq!(ledger.begin(&call("acme", "2", 100), 1).await.unwrap(), known(1, Outcome::Started), "a known one may");
    assert_eq!(ledger.begin(&call("globex", "3", 100), 1).await.unwrap(), Begun::First, "another tenant has its own");
    assert_eq!(ledger.begin(&fourth, 100).await.unwrap(), Begun::First, "those that are over make room");
}

#[tokio::test]
async fn the_ledger_in_memory_tells_what_became_of_calls_and_is_bounded() {
    tells_what_became_of_calls(&*MemoryOutcomes::new(100)).await;
    is_bounded(&*MemoryOutcomes::new(3)).await;
}

on_both! {
    async fn the_ledger_tells_what_became_of_calls(db: &Fixture) {
        db.tenants(&["acme", "globex"]).await;
        tells_what_became_of_calls(&db.store).await;
        assert_eq!(kind(db.store.begin(&call("nobody", "1", 10), 0).await), ErrorKind::NotFound);
    }

    async fn the_ledger_is_bounded_for_each_tenant(db: &Fixture) {
        db.tenants(&["acme", "globex"]).await;
        is_bounded(&db.bounded(Bounds { outcomes: 3, ..Bounds::default() }).await).await;
    }

    async fn of_several_that_begin_a_call_one_is_the_first(db: &Fixture) {
        db.tenants(&["acme"]).await;
        let stores = [db.another().await, db.another().await, db.another().await];
        for round in 0..20 {
            let call = call("acme", &round.to_string(), 1_000);
            let begun = futures::future::join_all(stores.iter().map(|store| store.begin(&call, 0))).await;
            let begun: Vec<_> = begun.into_iter().map(Result::unwrap).collect();
            assert_eq!(begun.iter().filter(|begun| **begun == Begun::First).count(), 1, "{begun:?}");
            let again = futures::future::join_all(stores.iter().map(|store| store.again(&call, 1, 0))).await;
            assert_eq!(again.into_iter().filter(|again| *again.as_ref().unwrap()).count(), 1);
        }
    }

    async fn the_calls_of_a_tenant_go_with_it(db: &Fixture) {
        db.tenants(&["acme"]).await;
        db.store.begin(&call("acme", "1", 1_000), 0).await.unwrap();
        db.step(Step::RemoveTenant { tenant: tenant("acme"), expected: Expected::Revision(1) }).await.unwrap();
        assert_eq!(db.number("SELECT COUNT(*) FROM outcomes").await, 0);
    }

    async fn a_run_that_is_taken_up_after_a_kill_makes_no_call_twice_that_must_not_be(db: &Fixture) {
        db.tenants(&["acme"]).await;
        let mut unknown = 0;
        // Killed in the tool, and at some moment between two calls.
        for (round, in_the_tool) in [(0, true), (1, false), (2, false), (3, false)] {
            unknown += killed_and_taken_up(db, round, in_the_tool).await;
        }
        assert!(unknown >= 1, "no kill came between start and end");
    }
}

/// Calls of a run, by turns of a tool that must not be called twice and of one that may.
const CALLS: u64 = 40;

fn name_of(n: u64) -> &'static str {
    if n.is_multiple_of(2) { "pay" } else { "put" }
}

/// Writes each of its calls down with its key; then it answers, or waits to be killed.
struct Effect {
    definition: ToolDefinition,
    file: PathBuf,
    hangs_at: Option<u64>,
}

#[async_trait]
impl Tool for Effect {
    fn definition(&self) -> &ToolDefinition {
        &self.definition
    }

    async fn call(&self, arguments: Value, cx: &ToolContext) -> Result<ToolOutput, ToolError> {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(&self.file).unwrap();
        writeln!(file, "{} {}", arguments["n"], cx.idempotency_key().unwrap()).unwrap();
        file.sync_all().unwrap();
        if self.hangs_at.is_some_and(|n| arguments["n"] == n) {
            said("hangs");
            std::future::pending::<()>().await;
        }
        Ok(json!({ "done": arguments["n"] }).into())
    }
}

fn said(what: &str) {
    let mut stdout = std::io::stdout();
    // The test runner has begun this line.
    writeln!(stdout, "\n{what}").unwrap();
    stdout.flush().unwrap();
}

fn bay(ledger: Arc<dyn OutcomeLedger>, file: &Path, hangs_at: Option<u64>) -> Toolbay {
    let tool = |name: &str| {
        let mut definition = ToolDefinition::new(name, "Has an effect", json!({ "type": "object" })).unwrap();
        definition.timeout = Some(Duration::from_secs(60));
        definition.annotations = Annotations { idempotent: Some(name == "put"), ..Annotations::default() };
        Effect { definition, file: file.to_owned(), hangs_at }
    };
    let limits = toolbay_api::Limits { timeout: Duration::from_secs(60), ..Default::default() };
    Toolbay::builder()
        .limits(limits)
        .without_audit()
        .outcomes(Outcomes::new(ledger))
        .tool(tool("pay"))
        .tool(tool("put"))
        .build()
        .unwrap()
}

async fn call_of(bay: &Toolbay, run: RunId, n: u64) -> Reply {
    let run = bay.session("acme").unwrap().run_as(run);
    let call = ToolCall { id: format!("call_{n}"), name: name_of(n).to_owned(), arguments: json!({ "n": n }) };
    run.call(1, call).await
}

fn run_of(round: u64) -> RunId {
    RunId::from_bytes([u8::try_from(round).unwrap(); 16])
}

fn caller(db: &Fixture, round: u64, file: &Path, hangs_at: Option<u64>) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "outcomes::each_call_of_a_run_has_its_effect_once", "--nocapture", "--test-threads=1"])
        .env(AS_CALLER, json!([db.url_of("outcomes_caller"), round, file, hangs_at]).to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Set for the process that is to be killed: the database, the round, the file of effects and where it hangs.
const AS_CALLER: &str = "TOOLBAY_OUTCOMES";

/// Kills a process in the middle of its run and takes the run up. Gives how many calls nobody knows the end of.
async fn killed_and_taken_up(db: &Fixture, round: u64, in_the_tool: bool) -> u64 {
    let file = db.folder.path().join(format!("effects-{round}"));
    // An even number: a tool that must not be called twice.
    let stops_at = 10 + 2 * round;
    let mut process = caller(db, round, &file, in_the_tool.then_some(stops_at));
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
    let wanted = if in_the_tool { "hangs".to_owned() } else { format!("done {stops_at}") };
    assert!(lines.any(|line| line == wanted), "the process ended before its time");
    process.kill().unwrap();
    let told: Vec<_> = lines.collect();
    process.wait().unwrap();
    let told = told.iter().filter_map(|line| line.strip_prefix("done ")?.parse::<u64>().ok()).max();
    let last = told.unwrap_or(if in_the_tool { stops_at - 1 } else { stops_at });
    db.lets_go_of("outcomes_caller").await;

    let bay = bay(Arc::new(db.another().await), &file, None);
    let mut unknown = 0;
    for n in 0..CALLS {
        let reply = call_of(&bay, run_of(round), n).await;
        match &reply.result {
            Ok(output) => assert_eq!(output.data, json!({ "done": n })),
            Err(error) => {
                assert_eq!(
                    (error.kind, &error.details["outcome"]),
                    (ErrorKind::Cancelled, &json!("unknown")),
                    "{n}: {error}"
                );
                assert!(reply.model_text().contains("it may have had an effect or none"), "{}", reply.model_text());
                assert!(name_of(n) == "pay" && n == last + 1, "call {n} was not on its way at the kill");
                unknown += 1;
            }
        }
    }
    assert!(unknown <= 1 && (unknown == 1 || !in_the_tool), "{unknown} calls were on their way");
    let effects = fs::read_to_string(&file).unwrap();
    for n in 0..CALLS {
        let own: Vec<_> = effects.lines().filter_map(|line| line.strip_prefix(&format!("{n} "))).collect();
        let key = CallKey::of(&tenant("acme"), run_of(round), &CallId::new(format!("call_{n}"))).to_string();
        assert!(own.iter().all(|line| *line == key), "call {n} had another key");
        let may_be = match name_of(n) {
            // The one that was on its way: not made again, or made again under its key.
            "pay" if n == last + 1 => 0..=1,
            "put" if n == last + 1 => 1..=2,
            _ => 1..=1,
        };
        assert!(may_be.contains(&own.len()), "call {n} of {last}: {} effects", own.len());
    }
    unknown
}

/// By itself it looks at one run from its beginning to its end; as the process that the tests above kill, it makes such a run
/// until it is killed.
#[tokio::test]
async fn each_call_of_a_run_has_its_effect_once() {
    let made = async |store: SqlStore, round, file: &Path, hangs_at| {
        let bay = bay(Arc::new(store), file, hangs_at);
        for n in 0..CALLS {
            call_of(&bay, run_of(round), n).await.result.unwrap();
            said(&format!("done {n}"));
        }
    };
    if let Ok(told) = std::env::var(AS_CALLER) {
        let (url, round, file, hangs_at): (String, u64, PathBuf, Option<u64>) = serde_json::from_str(&told).unwrap();
        return made(SqlStore::open(&url, StoreOptions::default()).await.unwrap(), round, &file, hangs_at).await;
    }
    let db = Fixture::sqlite().await;
    db.tenants(&["acme"]).await;
    let file = db.folder.path().join("effects");
    for _ in 0..2 {
        made(db.another().await, 0, &file, None).await;
        assert_eq!(fs::read_to_string(&file).unwrap().lines().count() as u64, CALLS);
    }
}
