//! Events told and heard by scripts, the same in process and in workers: by grant, bounded, for one tenant at a time.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use toolbay_api::{ErrorKind, EventPattern, Isolation, Limit, Limits, PermissionSet, Scope, TenantId, ToolError};
use toolbay_rhai::RhaiRunner;
use toolbay_runtime::{DeliveryOutcome, EventBounds, Heard, Toolbay, ToolbayBuilder};
use toolbay_worker::WorkerRunner;

use crate::support::{config, limits};

/// The plugin `p` with the tool `p.t` and a handler of `go`, loaded for everybody in both tiers, each with its own host.
async fn tiers(
    asked: &[&str],
    code: &str,
    build: impl Fn(ToolbayBuilder) -> ToolbayBuilder,
) -> [(Toolbay, Option<WorkerRunner>); 2] {
    let source = format!(
        "const PLUGIN = #{{ name: \"p\", version: \"1.0.0\", description: \"d\", permissions: {}, \
         tools: #{{ t: #{{ description: \"d\", parameters: #{{ type: \"object\" }} }} }}, events: #{{ \"go\": #{{}} }} }};\n{code}",
        json!(asked)
    );
    let base = || build(Toolbay::builder().limits(limits()).grants(PermissionSet::all()));
    let workers = WorkerRunner::new(config()).unwrap();
    let bays = [
        (base().runner(RhaiRunner::default()).build().unwrap(), None),
        (base().runner(workers.clone()).build().unwrap(), Some(workers)),
    ];
    for (bay, _) in &bays {
        bay.load_source(Scope::Global, "p.rhai", &source).await.unwrap_or_else(|error| panic!("{error}"));
    }
    bays
}

async fn call(bay: &Toolbay, arguments: Value) -> Result<Value, ToolError> {
    bay.session("acme").unwrap().call("p.t", arguments).await.result.map(|output| output.data)
}

async fn go(bay: &Toolbay, scope: &Scope, payload: Value) -> Result<Value, ToolError> {
    let mut deliveries =
        bay.publish_and_wait(scope, "go", payload, Duration::from_secs(30)).await.expect("the host is open");
    match deliveries.pop().map(|delivery| delivery.outcome) {
        Some(DeliveryOutcome::Handled(value)) => Ok(value),
        Some(DeliveryOutcome::Failed(error)) => Err(error),
        other => panic!("{other:?}"),
    }
}

fn acme() -> Scope {
    Scope::tenant("acme").unwrap()
}

#[tokio::test]
async fn a_handler_sees_the_event_and_acts_for_its_tenant() {
    let code = "fn t(args) { kv_get(\"last\") }
        fn on_event(event, cx) {
            if cx.tenant != () { kv_set(\"last\", event.payload.n); }
            [event.name, event.tenant, event.source, event.payload, event.depth, event.cause, cx.tenant, event.id.len,
             event.at_ms > 1700000000000, cx.deadline_ms > 0]
        }";
    for (bay, workers) in tiers(&["event:listen:go", "kv:*"], code, |bay| bay).await {
        let payload = json!({ "n": 5, "list": [1.5, null, "ü"] });
        let seen = go(&bay, &acme(), payload.clone()).await.unwrap();
        assert_eq!(seen, json!(["go", "acme", "host", payload, 0, null, "acme", 36, true, true]));
        assert_eq!(call(&bay, json!({})).await.unwrap(), 5);
        let globex = bay.session("globex").unwrap().call("p.t", json!({})).await.result.unwrap();
        assert_eq!(globex.data, Value::Null);
        let seen = go(&bay, &Scope::Global, payload.clone()).await.unwrap();
        assert_eq!(seen, json!(["go", null, "host", payload, 0, null, null, 36, true, true]));
        if let Some(workers) = workers {
            let mut owners: Vec<_> = workers.workers().iter().map(|worker| worker.tenant.clone()).collect();
            owners.sort();
            owners.dedup();
            let tenants = ["acme", "globex"].map(|name| Some(TenantId::new(name).unwrap()));
            // The whole host's event ran in the host's own worker, no tenant's.
            assert_eq!(owners, [vec![None], tenants.to_vec()].concat());
        }
    }
}

#[tokio::test]
async fn a_script_tells_of_events_as_far_as_it_is_granted() {
    let code = "fn t(args) { emit(args.name, #{ n: args.n }); emit(args.name); \"told\" }
        fn on_event(event) {}";
    let acme = TenantId::new("acme").unwrap();
    let own = || PermissionSet::parse(["event:emit:order.*"]).unwrap();
    for (bay, workers) in tiers(&["event:emit:*", "kv:*"], code, |bay| bay.tenant_grants(acme.clone(), own())).await {
        let mut stream = bay.events().matching(EventPattern::new("{order,payment}.*").unwrap());
        let told = call(&bay, json!({ "name": "order.placed", "n": 7 })).await.unwrap();
        assert_eq!(told, "told");
        for payload in [json!({ "n": 7 }), Value::Null] {
            let Some(Heard::Event(event)) = stream.next().await else { panic!("nothing was heard") };
            assert_eq!((event.payload.clone(), event.tenant()), (payload, Some(&acme)));
        }
        for (name, kind) in [
            // The tenant's grants are the host's to check, whatever a worker does.
            ("payment.made", ErrorKind::PermissionDenied),
            ("plugin.loaded", ErrorKind::InvalidArguments),
            ("a b", ErrorKind::InvalidArguments),
        ] {
            assert_eq!(call(&bay, json!({ "name": name, "n": 1 })).await.unwrap_err().kind, kind, "{name}");
        }
        let large = call(&bay, json!({ "name": "order.placed", "n": "x".repeat(70_000) })).await.unwrap_err();
        let over = matches!(large.kind, ErrorKind::LimitExceeded { limit: Limit::Arguments, allowed: 65_536, .. });
        assert!(over, "{large}");
        let reply = bay.session("acme").unwrap().call("p.t", json!({ "name": "order.placed", "n": 1 })).await;
        assert_eq!(reply.metadata.host_calls, 2);
        let isolation = if workers.is_some() { Isolation::Process } else { Isolation::InProcess };
        assert_eq!(reply.metadata.isolation, isolation);
    }
}

#[tokio::test]
async fn a_handler_that_answers_itself_comes_to_an_end_and_can_see_why() {
    let code = "fn t(args) { kv_get(\"end\") }
        fn on_event(event) { try { emit(\"go\", #{}); } catch (e) { kv_set(\"end\", [event.depth, e.kind]); } event.cause != () }";
    let bounds = EventBounds { max_depth: 3, ..EventBounds::default() };
    for (bay, _) in tiers(&["event:*", "kv:*"], code, |bay| bay.event_bounds(bounds)).await {
        assert_eq!(go(&bay, &acme(), Value::Null).await.unwrap(), false);
        let counters = || bay.event_counters(&Scope::Global)["p"];
        while counters().waiting > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(counters().delivered, 4);
        assert_eq!(call(&bay, json!({})).await.unwrap(), json!([3, "LimitExceeded"]));
    }
}

#[tokio::test]
async fn a_handler_is_held_by_the_limits_of_a_tool() {
    let code = "fn t(args) {}
        fn on_event(event) {
            switch event.payload {
                \"spin\" => loop {},
                \"grow\" => { let a = []; loop { a.push(1) } },
                \"flood\" => { let s = \"x\"; s.pad(300000, \"y\"); s },
                \"throw\" => throw \"its own words\",
                _ => { for i in 0..1000 { log(\"x\") } }
            }
        }";
    let lower = Limits { timeout: Duration::from_millis(500), max_array_len: 100, max_host_calls: 10, ..limits() };
    for (bay, _) in tiers(&["event:listen:go"], code, |bay| bay.limits(lower.clone())).await {
        let mut kinds = Vec::new();
        for what in ["spin", "grow", "flood", "throw", "ask"] {
            let error = go(&bay, &acme(), json!(what)).await.unwrap_err();
            kinds.push(match error.kind {
                ErrorKind::LimitExceeded { limit, .. } => format!("{limit:?}"),
                kind => format!("{kind}: {}", error.message.split(' ').take(3).collect::<Vec<_>>().join(" ")),
            });
        }
        assert!(kinds[0].starts_with("TimedOut") || kinds[0] == "Operations", "{kinds:?}");
        assert_eq!(kinds[1..], ["ArraySize", "Output", "Script: its own words", "HostCalls"]);
    }
}

#[tokio::test]
async fn handlers_of_one_tenant_run_one_by_one_in_order() {
    let code = "fn t(args) { kv_get(\"seen\") }
        fn on_event(event) { kv_set(\"seen\", (kv_get(\"seen\") ?? []) + [event.payload]); }";
    for (bay, _) in tiers(&["event:listen:go", "kv:*"], code, |bay| bay).await {
        let session = Arc::new(bay.session("acme").unwrap());
        for number in 0..20 {
            session.publish("go", json!(number)).unwrap();
        }
        go(&bay, &acme(), json!("last")).await.unwrap();
        let mut expected: Vec<_> = (0..20).map(|number| json!(number)).collect();
        expected.push(json!("last"));
        assert_eq!(call(&bay, json!({})).await.unwrap(), json!(expected));
    }
}
