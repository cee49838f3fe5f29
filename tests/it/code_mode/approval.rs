//! Approval inside a program: the run is suspended, and the program goes on by running again with the answers that it had.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use expect_test::expect;
use serde_json::{Value, json};
use toolbay::{
    Agent, AgentReply, ApprovalPolicy, Decisions, PermissionSet, RhaiRunner, RunOutcome, Scope, ScriptedModel,
    SuspendedRun, ToolContext, Toolbay,
    code::{CodeMode, CodeSettings, JournalBounds},
    hook::ToolMatcher,
    plugin::NativePlugin,
    tool,
};

use super::{Nothing, Order, bay_with, config, read};

/// A till: looking is counted, and paying is counted and needs approval.
#[derive(Clone, Default)]
struct Till {
    looked: Arc<AtomicUsize>,
    paid: Arc<AtomicUsize>,
}

impl Till {
    fn plugin(&self) -> NativePlugin {
        let Self { looked, paid } = self.clone();
        let look = tool("look", "Looks", move |_: Nothing, _: ToolContext| {
            let count = looked.fetch_add(1, Ordering::SeqCst) + 1;
            async move { Ok(count) }
        });
        let pay = tool("pay", "Pays", move |order: Order, _: ToolContext| {
            paid.fetch_add(1, Ordering::SeqCst);
            async move { Ok(format!("paid {}", order.id)) }
        });
        NativePlugin::new("till", "1.0.0", "A till").unwrap().tool(look).tool(pay)
    }

    fn counts(&self) -> (usize, usize) {
        (self.looked.load(Ordering::SeqCst), self.paid.load(Ordering::SeqCst))
    }
}

async fn bay(till: &Till, settings: CodeSettings) -> (Toolbay, CodeMode) {
    let builder = Toolbay::builder().runner(RhaiRunner::default()).grants(PermissionSet::standard());
    let (bay, mode) = bay_with(builder, settings).await;
    bay.register(Scope::Global, till.plugin()).await.unwrap();
    (bay, mode)
}

fn agent(bay: &Toolbay, mode: &CodeMode, model: ScriptedModel) -> Agent {
    let approval = ApprovalPolicy { ask: Some(ToolMatcher::new(["till.pay"]).unwrap()), ..ApprovalPolicy::default() };
    let config = toolbay::AgentConfig { approval, ..config(mode) };
    Agent::new(model, bay.session("acme").unwrap()).config(config)
}

fn writes(code: &str) -> ScriptedModel {
    ScriptedModel::new().calls("run_code", json!({ "code": code })).says("done")
}

fn decided(suspended: &SuspendedRun, mut decide: impl FnMut(Decisions, uuid::Uuid) -> Decisions) -> Decisions {
    suspended.pending.iter().fold(Decisions::by("ada"), |decisions, pending| decide(decisions, pending.id))
}

/// What is kept of a run, as it is kept.
fn kept(reply: AgentReply) -> SuspendedRun {
    assert_eq!(reply.outcome, RunOutcome::Suspended, "{}", read(&reply));
    let json = serde_json::to_value(reply.suspended.unwrap()).unwrap();
    SuspendedRun::from_json(json).unwrap()
}

const PAYS: &str = "
    let before = till::look();
    let time = now();
    let draw = [uuid(), random(), random_int(1, 1000000)];
    let paid = till::pay(before);
    [before, paid, till::look(), time <= now(), draw == draw]";

#[tokio::test]
async fn a_program_that_waits_goes_on_elsewhere_and_calls_nothing_twice() {
    let till = Till::default();
    let (here, mode) = bay(&till, CodeSettings::default()).await;
    let suspended = kept(agent(&here, &mode, writes(PAYS)).run("go").await.unwrap());
    assert_eq!(till.counts(), (1, 0));
    let pending = &suspended.pending[0];
    assert_eq!((pending.tool.as_str(), &pending.arguments), ("till.pay", &json!({ "id": 1 })));

    // Another process.
    let (there, mode) = bay(&till, CodeSettings::default()).await;
    let decisions = decided(&suspended, Decisions::approve);
    let reply = agent(&there, &mode, ScriptedModel::new().says("done")).resume(suspended, decisions).await.unwrap();
    assert_eq!(read(&reply), r#"{"result":[1,"paid 1",2,true,true]}"#);
    assert_eq!(till.counts(), (2, 1));
    // run_code and the three calls of its program, each once.
    assert_eq!((reply.outcome, reply.tool_calls), (RunOutcome::Completed, 4));
}

#[tokio::test]
async fn the_clock_and_chance_are_asked_once_however_often_a_program_runs() {
    let till = Till::default();
    let (bay, mode) = bay(&till, CodeSettings::default()).await;
    let code = "let drawn = `${now()} ${uuid()} ${random()}`; print(drawn); till::pay(1); drawn";
    let suspended = kept(agent(&bay, &mode, writes(code)).run("go").await.unwrap());
    let json = serde_json::to_value(&suspended).unwrap();
    let known = json["journals"]["call_1"]["entries"].clone();
    let drawn = ["1", "2", "3"].map(|number| known[number]["answer"]["ok"].to_string().trim_matches('"').to_owned());
    let decisions = decided(&suspended, Decisions::approve);
    let reply = agent(&bay, &mode, ScriptedModel::new().says("done")).resume(suspended, decisions).await.unwrap();
    assert!(read(&reply).contains(&format!("{} {}", drawn[0], drawn[1])), "{}\n{drawn:?}", read(&reply));
}

#[tokio::test]
async fn a_no_is_an_error_that_the_program_can_catch() {
    let till = Till::default();
    let (bay, mode) = bay(&till, CodeSettings::default()).await;
    let code = "let r = (); try { r = till::pay(till::look()); } catch (e) { r = `${e.kind}: ${e.message}`; } r";
    let suspended = kept(agent(&bay, &mode, writes(code)).run("go").await.unwrap());
    let decisions = decided(&suspended, |decisions, id| decisions.reject(id, "too dear"));
    let reply = agent(&bay, &mode, ScriptedModel::new().says("done")).resume(suspended, decisions).await.unwrap();
    assert_eq!(read(&reply), r#"{"result":"DeniedByHook: this call was not approved: too dear"}"#);
    assert_eq!(till.counts(), (1, 0));
}

#[tokio::test]
async fn that_a_call_waits_cannot_be_caught() {
    let till = Till::default();
    let (bay, mode) = bay(&till, CodeSettings::default()).await;
    let code = "try { till::pay(1) } catch { } till::look()";
    let suspended = kept(agent(&bay, &mode, writes(code)).run("go").await.unwrap());
    assert_eq!((suspended.pending.len(), till.counts()), (1, (0, 0)));
}

#[tokio::test]
async fn of_several_calls_at_once_those_that_need_no_approval_are_made_and_the_others_wait_together() {
    let till = Till::default();
    let (bay, mode) = bay(&till, CodeSettings::default()).await;
    let code = r#"parallel([#{ tool: "till::pay", args: #{ id: 1 } }, #{ tool: "till::look" }, #{ tool: "till::pay", args: #{ id: 3 } }])"#;
    let suspended = kept(agent(&bay, &mode, writes(code)).run("go").await.unwrap());
    assert_eq!((suspended.pending.len(), till.counts()), (2, (1, 0)));
    let dear = suspended.pending.iter().find(|pending| pending.arguments["id"] == 3).unwrap().id;
    let decisions = decided(&suspended, |decisions, id| match id == dear {
        true => decisions.reject(id, "too dear"),
        false => decisions.approve(id),
    });
    let reply = agent(&bay, &mode, ScriptedModel::new().says("done")).resume(suspended, decisions).await.unwrap();
    let text = read(&reply);
    assert!(text.starts_with(r#"{"result":[{"ok":"paid 1"},{"ok":1},{"error":{"#), "{text}");
    assert_eq!(till.counts(), (1, 1));
}

#[tokio::test]
async fn one_approval_after_the_other_replays_the_first_and_asks_for_the_next() {
    let till = Till::default();
    let (bay, mode) = bay(&till, CodeSettings::default()).await;
    let mut suspended =
        kept(agent(&bay, &mode, writes("[till::pay(1), till::pay(2), till::pay(3)]")).run("go").await.unwrap());
    for paid in 1..3 {
        let decisions = decided(&suspended, Decisions::approve);
        let agent = agent(&bay, &mode, ScriptedModel::new().says("done"));
        suspended = kept(agent.resume(suspended, decisions).await.unwrap());
        assert_eq!(till.counts().1, paid);
    }
    let decisions = decided(&suspended, Decisions::approve);
    let reply = agent(&bay, &mode, ScriptedModel::new().says("done")).resume(suspended, decisions).await.unwrap();
    assert_eq!(read(&reply), r#"{"result":["paid 1","paid 2","paid 3"]}"#);
    assert_eq!((till.counts().1, reply.tool_calls), (3, 4));
}

#[tokio::test]
async fn a_program_that_does_not_ask_the_same_again_is_ended_and_nothing_is_called() {
    let till = Till::default();
    let (bay, mode) = bay(&till, CodeSettings::default()).await;
    let suspended = kept(agent(&bay, &mode, writes("till::pay(till::look())")).run("go").await.unwrap());
    let decisions = decided(&suspended, Decisions::approve);
    // What it was answered is not what it was asked any more, as after a change of the tools' names.
    let mut json = serde_json::to_value(&suspended).unwrap();
    json["journals"]["call_1"]["entries"]["1"]["what"] = json!("till.peek");
    let suspended = SuspendedRun::from_json(json).unwrap();
    let reply = agent(&bay, &mode, ScriptedModel::new().says("done")).resume(suspended, decisions).await.unwrap();
    assert!(read(&reply).starts_with("Conflict: the program was run again"), "{}", read(&reply));
    assert_eq!(till.counts(), (1, 0));
}

#[tokio::test]
async fn a_program_that_did_too_much_to_be_kept_is_told_so_and_does_not_wait() {
    let till = Till::default();
    let journal = JournalBounds { max_entries: 2, ..JournalBounds::default() };
    let (bay, mode) = bay(&till, CodeSettings { journal, ..CodeSettings::default() }).await;
    let code = "for i in 0..3 { till::look(); } till::pay(1)";
    let reply = agent(&bay, &mode, writes(code)).run("go").await.unwrap();
    assert_eq!(reply.outcome, RunOutcome::Completed);
    let text = read(&reply);
    assert!(text.starts_with("DeniedByHook: a call needs approval, and the program has done too much"), "{text}");
    assert!(text.contains(r#""calls":["till.look: ok","till.look: ok","till.look: ok"]"#), "{text}");
    assert_eq!(till.counts(), (3, 0));
}

#[tokio::test]
async fn what_is_kept_of_a_program_is_its_answers_with_what_was_asked() {
    let till = Till::default();
    let (bay, mode) = bay(&till, CodeSettings::default()).await;
    let suspended = kept(agent(&bay, &mode, writes("till::look(); till::pay(1)")).run("go").await.unwrap());
    let json: Value = serde_json::to_value(&suspended).unwrap();
    expect![[r#"
        {
          "call_1": {
            "entries": {
              "1": {
                "what": "till.look",
                "asked": "867ede765c807e8aac63f45b7a5b507857085ddb05d3baf0e2ba94edb0d3d43b",
                "answer": {
                  "ok": 1
                }
              }
            },
            "bytes": 114,
            "is_cut": false
          }
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&json["journals"]).unwrap());
}
