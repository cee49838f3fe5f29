//! Present hooks and present tools over old recordings.

use std::sync::atomic::{AtomicUsize, Ordering};

use toolbay::{
    hook::{AfterAgentRun, AfterAgentRunOutcome, BeforeModelCall, BeforeModelCallOutcome},
    replay::Difference,
};

use super::*;

fn busy() -> ScriptedModel {
    ScriptedModel::new()
        .calls_all([("add", json!({ "a": 1, "b": 2 })), ("fails", json!({}))])
        .calls("add", json!({ "a": 20, "b": 2 }))
        .says("It is 22.")
}

async fn trial(recording: &str, builder: ToolbayBuilder) -> Vec<Difference> {
    let session = builder.build().unwrap().session("acme").unwrap();
    replay::with_hooks(&read(recording).unwrap(), &session).await.unwrap()
}

fn worded(differences: &[Difference]) -> Vec<String> {
    differences.iter().map(ToString::to_string).collect()
}

/// A bay whose `add` counts its calls.
fn counting() -> (ToolbayBuilder, Arc<AtomicUsize>) {
    let calls = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&calls);
    let add = tool("add", "Adds", move |args: Add, _: ToolContext| {
        counted.fetch_add(1, Ordering::Relaxed);
        async move { Ok(args.a + args.b) }
    });
    let fails =
        tool("fails", "Fails", async |_: Nothing, _: ToolContext| Err::<(), _>(ToolError::failed("no such order")));
    (Toolbay::builder().without_audit().tool(add).tool(fails), calls)
}

#[tokio::test]
async fn the_same_hooks_decide_alike_and_no_tool_is_called() {
    for hooks in [None, Some(("add", "closed")), Some(("fails", "closed"))] {
        let with = |builder: ToolbayBuilder| match hooks {
            Some((denies, reason)) => builder.hook(guard(denies, reason)),
            None => builder,
        };
        let text = recorded(with(bay()), busy()).await;
        let (builder, calls) = counting();
        assert_eq!(worded(&trial(&text, with(builder)).await), Vec::<String>::new(), "{hooks:?}");
        assert_eq!(calls.load(Ordering::Relaxed), 0);
    }
}

#[tokio::test]
async fn decisions_that_would_differ_are_listed_with_who_decides() {
    let text = recorded(bay().hook(guard("add", "closed")), busy()).await;
    let calls_at = |step: u64| {
        let lines = lines(&text);
        lines.iter().position(|line| line["kind"] == "calls" && line["step"] == step).unwrap() + 1
    };
    // Another reason, for both calls of `add`.
    let differences = trial(&text, bay().hook(guard("add", "on holiday"))).await;
    let denials: Vec<_> = differences.iter().filter(|one| one.what.starts_with("before_tool_call")).collect();
    assert_eq!(denials.len(), 2, "{:?}", worded(&differences));
    assert_eq!(denials[0].line, calls_at(1));
    assert_eq!(
        (denials[1].line, denials[1].recorded.as_str(), denials[1].now.as_str()),
        (calls_at(2), "guard \"deny: closed\"", "guard \"deny: on holiday\"")
    );
    // No guard any more.
    let differences = trial(&text, bay()).await;
    let denial = differences.iter().find(|one| one.what.starts_with("before_tool_call of add")).unwrap();
    assert_eq!((denial.recorded.as_str(), denial.now.as_str()), ("guard \"deny: closed\"", "no objection"));
    // One that denies something else: what it denied is not denied, and something else is.
    let differences = trial(&text, bay().hook(guard("fails", "closed"))).await;
    let of =
        |tool: &str| differences.iter().filter(|one| one.what.contains(&format!("before_tool_call of {tool}"))).count();
    assert_eq!((of("add"), of("fails")), (2, 1), "{:?}", worded(&differences));
}

/// Looks at requests and at the end.
struct Censor(&'static str);

#[async_trait]
impl Hook for Censor {
    async fn before_model_call(
        &self,
        call: &BeforeModelCall,
        _: &HookContext<'_>,
    ) -> HookResult<BeforeModelCallOutcome> {
        let text = serde_json::to_string(&call.request.messages).unwrap();
        Ok(if text.contains(self.0) {
            BeforeModelCallOutcome::Stop("a bad word".into())
        } else {
            BeforeModelCallOutcome::Continue
        })
    }

    async fn after_agent_run(&self, end: &AfterAgentRun, _: &HookContext<'_>) -> HookResult<AfterAgentRunOutcome> {
        Ok(if end.text.contains(self.0) {
            AfterAgentRunOutcome::Stop("a bad word".into())
        } else {
            AfterAgentRunOutcome::Continue
        })
    }
}

fn censor(word: &'static str) -> HookRegistration {
    HookRegistration::new("censor", [HookPoint::BeforeModelCall, HookPoint::AfterAgentRun], Censor(word))
}

#[tokio::test]
async fn hooks_around_requests_and_the_run_see_the_conversation_as_it_was() {
    let text = recorded(bay(), busy()).await;
    assert_eq!(worded(&trial(&text, bay().hook(censor("nobody said this"))).await), Vec::<String>::new());
    let what = |differences: Vec<Difference>| differences.into_iter().map(|one| one.what).collect::<Vec<_>>();
    // The result of the second step is in the request of the third.
    assert_eq!(what(trial(&text, bay().hook(censor("\"text\":\"22\""))).await), ["before_model_call in step 3"]);
    assert_eq!(what(trial(&text, bay().hook(censor("It is 22"))).await), ["after_agent_run"]);
}

#[tokio::test]
async fn results_of_a_present_tool_that_would_differ_are_listed() {
    let text = recorded(bay(), busy()).await;
    let recording = read(&text).unwrap();
    let (builder, calls) = counting();
    let session = |builder: ToolbayBuilder| builder.build().unwrap().session("acme").unwrap();
    let found = replay::with_tools(&recording, &session(builder), |tool| tool == "add").await.unwrap();
    assert_eq!((found, calls.load(Ordering::Relaxed)), (Vec::new(), 2));

    let wrong = tool("add", "Adds", async |args: Add, _: ToolContext| Ok(args.a + args.b + i64::from(args.a > 9)));
    let wrong = session(Toolbay::builder().without_audit().tool(wrong));
    let found = replay::with_tools(&recording, &wrong, |tool| tool == "add").await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].recorded.as_str(), found[0].now.as_str()), ("22", "23"));

    let gone = session(Toolbay::builder().without_audit());
    let found = replay::with_tools(&recording, &gone, |tool| tool == "add").await.unwrap();
    assert!(found.len() == 2 && found[0].now.contains("NotFound"), "{:?}", worded(&found));
}
