//! Events: who hears what, by which grants, within which bounds, and what it takes to hear the lives of plugins.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use expect_test::{Expect, expect};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use toolbay::{
    DeliveryOutcome, ErrorKind, Event, EventBounds, EventContext, EventPattern, Heard, HostServices as _, Limit,
    LimitsRequest, PermissionSet, PluginName, Quarantine, Quota, Scope, Secret, SecretName, SecretProvider, Session,
    Subscription, TenantId, ToolContext, ToolError, Toolbay, ToolbayBuilder, manifest::Provides, plugin::NativePlugin,
    tool,
};
use toolbay_testkit::{AuditedEvent, RecordingAudit};

use crate::support::{Nothing, folder, outcome, says, tenant};

const SOON: Duration = Duration::from_secs(5);

/// What handlers were called with, one line each.
struct Heardings(mpsc::UnboundedReceiver<String>);

impl Heardings {
    fn new() -> (mpsc::UnboundedSender<String>, Self) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (sender, Self(receiver))
    }

    /// The next so many lines, in alphabetical order, since plugins hear side by side.
    async fn next(&mut self, lines: usize) -> Vec<String> {
        let mut heard = Vec::new();
        for _ in 0..lines {
            let line = tokio::time::timeout(SOON, self.0.recv()).await;
            heard.push(line.unwrap_or_else(|_| panic!("nothing more was heard after {heard:?}")).unwrap());
        }
        heard.sort();
        heard
    }

    fn nothing_more(&mut self) {
        assert_eq!(self.0.try_recv(), Err(mpsc::error::TryRecvError::Empty));
    }
}

fn all() -> ToolbayBuilder {
    Toolbay::builder().grants(PermissionSet::all())
}

fn set(permissions: &[&str]) -> PermissionSet {
    PermissionSet::parse(permissions).unwrap()
}

fn asking(name: &str, permissions: &[&str]) -> NativePlugin {
    let permissions = set(permissions);
    NativePlugin::new(name, "1.0.0", "A test's").unwrap().with(|metadata| metadata.permissions = permissions)
}

/// A plugin that writes down what it hears.
fn listener(name: &'static str, pattern: &str, heard: &mpsc::UnboundedSender<String>) -> NativePlugin {
    let heard = heard.clone();
    let subscription = Subscription::new(pattern, move |event: Arc<Event>, _: EventContext| {
        let heard = heard.clone();
        async move {
            let tenant = event.tenant().map_or("nobody", TenantId::as_str);
            let _ = heard.send(format!("{name}: {} {} for {tenant}", event.name, event.payload));
            Ok(json!(name))
        }
    });
    asking(name, &["event:listen:*"]).subscription(subscription.unwrap())
}

/// A plugin whose handler waits for a permit of `gate` for each event.
fn slow(name: &str, gate: &Arc<Semaphore>, change: impl Fn(Subscription) -> Subscription) -> NativePlugin {
    let gate = Arc::clone(gate);
    let subscription = Subscription::new("*", move |event: Arc<Event>, _: EventContext| {
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire_owned().await.unwrap().forget();
            Ok(event.payload.clone())
        }
    });
    asking(name, &["event:listen:*"]).subscription(change(subscription.unwrap()))
}

/// A plugin with a tool `emit` that tells of what its arguments say.
fn teller(name: &str, permissions: &[&str]) -> NativePlugin {
    #[derive(serde::Deserialize, schemars::JsonSchema)]
    struct Told {
        name: String,
        #[serde(default)]
        payload: Value,
    }
    asking(name, permissions).tool(tool("emit", "Tells", async |told: Told, cx: ToolContext| {
        cx.host().emit(&told.name, told.payload).await.map(|()| "told")
    }))
}

fn plugin(name: &str) -> PluginName {
    PluginName::new(name).unwrap()
}

/// What became of an event of `acme`, one line for each handler.
async fn deliveries(session: &Session, name: &str, within: Duration) -> String {
    let deliveries = session.publish_and_wait(name, json!(1), within).await.unwrap();
    let line = |delivery: &toolbay::Delivery| match &delivery.outcome {
        DeliveryOutcome::Handled(value) => format!("{} handled {value}\n", delivery.plugin),
        DeliveryOutcome::Failed(error) => format!("{} failed {error}\n", delivery.plugin),
        DeliveryOutcome::Dropped => format!("{} dropped\n", delivery.plugin),
        DeliveryOutcome::Late => format!("{} late\n", delivery.plugin),
    };
    deliveries.iter().map(line).collect()
}

fn counters(bay: &Toolbay, name: &str) -> (u64, u64, u64, usize) {
    let counters = bay.event_counters(&Scope::Global)[name];
    (counters.delivered, counters.failed, counters.dropped, counters.waiting)
}

#[tokio::test]
async fn an_event_says_what_happened_to_whom_and_who_told_it() {
    let bay = all().build().unwrap();
    bay.register(tenant("acme"), teller("shop", &["event:emit:order.placed"])).await.unwrap();
    let mut stream = bay.events().matching(EventPattern::new("order.*").unwrap());
    let acme = bay.session("acme").unwrap();
    assert_eq!(outcome(&acme, "shop.emit", json!({ "name": "order.placed", "payload": [1] })).await, "told");
    let Some(Heard::Event(event)) = stream.next().await else { panic!("nothing was heard") };
    let mut shown = serde_json::to_value(&*event).unwrap();
    assert!(shown["at_ms"].as_i64().unwrap() > 1_700_000_000_000);
    shown.as_object_mut().unwrap().retain(|key, _| key != "id" && key != "at_ms");
    let expected = json!({
        "name": "order.placed", "scope": { "tenant": "acme" }, "payload": [1], "depth": 0, "cause": null,
        "source": { "plugin": { "name": "shop", "scope": { "tenant": "acme" } } },
    });
    assert_eq!(shown, expected);
}

#[tokio::test]
async fn a_tenants_event_reaches_its_plugins_and_global_ones_for_it_and_no_other_tenant() {
    let (heard, mut heardings) = Heardings::new();
    let bay = all().build().unwrap();
    bay.register(Scope::Global, listener("everywhere", "order.*", &heard)).await.unwrap();
    bay.register(Scope::Global, listener("elsewhere", "payment.*", &heard)).await.unwrap();
    bay.register(tenant("acme"), listener("own", "order.placed", &heard)).await.unwrap();
    bay.register(tenant("globex"), listener("rival", "*", &heard)).await.unwrap();
    bay.register(Scope::Global, teller("shop", &["event:emit:*"])).await.unwrap();
    let acme = bay.session("acme").unwrap();
    outcome(&acme, "shop.emit", json!({ "name": "order.placed", "payload": 7 })).await;
    assert_eq!(heardings.next(2).await, ["everywhere: order.placed 7 for acme", "own: order.placed 7 for acme"]);
    bay.session("globex").unwrap().publish("order.sent", json!(8)).unwrap();
    assert_eq!(heardings.next(2).await, ["everywhere: order.sent 8 for globex", "rival: order.sent 8 for globex"]);
    bay.publish(&Scope::Global, "order.day", json!(9)).unwrap();
    assert_eq!(heardings.next(1).await, ["everywhere: order.day 9 for nobody"]);
    // What has no wall would have come by now: each lane was served after these.
    acme.publish_and_wait("order.placed", json!(0), SOON).await.unwrap();
    assert_eq!(heardings.next(2).await, ["everywhere: order.placed 0 for acme", "own: order.placed 0 for acme"]);
    heardings.nothing_more();
}

#[tokio::test]
async fn a_handler_of_a_global_plugin_acts_for_the_events_tenant() {
    let keep = Subscription::new("keep", async |event: Arc<Event>, cx: EventContext| {
        cx.host.kv_set("last", event.payload.clone()).await?;
        Ok(cx.host.kv_get("last").await?.into())
    });
    let read = async |_: Nothing, cx: ToolContext| Ok(json!(cx.host().kv_get("last").await?));
    let keeper = asking("keeper", &["event:listen:*", "kv:*"]).subscription(keep.unwrap());
    let bay = all().build().unwrap();
    bay.register(Scope::Global, keeper.tool(tool("read", "Reads", read))).await.unwrap();
    for name in ["acme", "globex"] {
        bay.session(name).unwrap().publish_and_wait("keep", json!(name), SOON).await.unwrap();
    }
    for name in ["acme", "globex"] {
        assert_eq!(outcome(&bay.session(name).unwrap(), "keeper.read", json!({})).await, name);
    }
    // For nobody it has no keys.
    let deliveries = bay.publish_and_wait(&Scope::Global, "keep", json!(1), SOON).await.unwrap();
    let DeliveryOutcome::Failed(error) = &deliveries[0].outcome else { panic!("{deliveries:?}") };
    assert!(error.message.contains("acts for no tenant"), "{error}");
}

#[tokio::test]
async fn who_publishes_waits_for_nobody_and_each_plugin_hears_a_tenants_events_in_order_one_by_one() {
    let gate = Arc::new(Semaphore::new(0));
    let order = Arc::new(Mutex::new(Vec::new()));
    let (seen, at) = (Arc::clone(&order), Arc::clone(&gate));
    let handler = move |event: Arc<Event>, _: EventContext| {
        let (order, gate) = (Arc::clone(&seen), Arc::clone(&at));
        async move {
            order.lock().unwrap().push(format!("{} begins", event.payload));
            gate.acquire_owned().await.unwrap().forget();
            order.lock().unwrap().push(format!("{} ends", event.payload));
            Ok(Value::Null)
        }
    };
    let plugin = asking("slow", &["event:listen:*"]).subscription(Subscription::new("n", handler).unwrap());
    let bay = all().build().unwrap();
    bay.register(Scope::Global, plugin).await.unwrap();
    let acme = bay.session("acme").unwrap();
    for number in 1..=3 {
        acme.publish("n", json!(number)).unwrap();
    }
    assert_eq!(counters(&bay, "slow"), (0, 0, 0, 3));
    // Another tenant's lane does not wait for this one's.
    let globex = bay.session("globex").unwrap();
    let other = tokio::spawn(async move { globex.publish_and_wait("n", json!("globex"), SOON).await });
    while order.lock().unwrap().len() < 2 {
        tokio::task::yield_now().await;
    }
    gate.add_permits(4);
    other.await.unwrap().unwrap();
    while counters(&bay, "slow").3 > 0 {
        tokio::task::yield_now().await;
    }
    let order = order.lock().unwrap();
    let of_acme: Vec<_> = order.iter().filter(|line| !line.contains("globex")).cloned().collect();
    assert_eq!(of_acme, ["1 begins", "1 ends", "2 begins", "2 ends", "3 begins", "3 ends"]);
    assert!(order[..2].contains(&"\"globex\" begins".to_owned()), "{order:?}");
}

#[tokio::test(start_paused = true)]
async fn who_waits_gets_each_handlers_result_and_what_went_wrong() {
    let does = |name, what: &'static str| {
        let handler = move |_: Arc<Event>, _: EventContext| async move {
            match what {
                "fail" => Err(ToolError::failed("told to fail")),
                "panic" => panic!("told to panic"),
                "hang" => std::future::pending().await,
                "flood" => Ok(json!("x".repeat(1 << 20))),
                _ => Ok(json!(what)),
            }
        };
        asking(name, &["event:listen:go"]).subscription(Subscription::new("go", handler).unwrap())
    };
    let bay = all().build().unwrap();
    for (name, what) in [("a", "fine"), ("b", "fail"), ("c", "panic"), ("d", "flood"), ("e", "hang")] {
        bay.register(Scope::Global, does(name, what)).await.unwrap();
    }
    bay.register(Scope::Global, does("f", "deaf").with(|metadata| metadata.permissions = set(&["kv:*"])))
        .await
        .unwrap();
    let short = bay.session("acme").unwrap();
    expect![[r#"
        a handled "fine"
        b failed Script: told to fail
        c failed Panic: the handler broke down; tell the operator
        d failed LimitExceeded: the call was stopped at its limit of 262144 bytes of output (used 1048578); ask for less at once
        e late
        f failed PermissionDenied: the permission `event:listen:go` is needed and the plugin's manifest does not ask for it: add it to `permissions`
    "#]]
    .assert_eq(&deliveries(&short, "go", Duration::from_secs(1)).await);
    let long = deliveries(&bay.session("globex").unwrap(), "go", Duration::from_secs(60)).await;
    assert!(long.contains("e failed TimedOut: the handler took longer than the 5s"), "{long}");
    assert_eq!(counters(&bay, "a"), (2, 0, 0, 0));
    assert_eq!(counters(&bay, "b"), (0, 2, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_subscription_may_have_less_time_than_its_plugin_and_never_more() {
    for (own, expected) in [(1, "1s"), (60, "5s")] {
        let gate = Arc::new(Semaphore::new(0));
        let bay = all().build().unwrap();
        let timed = |subscription: Subscription| subscription.with_timeout(Duration::from_secs(own));
        bay.register(Scope::Global, slow("slow", &gate, timed)).await.unwrap();
        let said = deliveries(&bay.session("acme").unwrap(), "go", Duration::from_secs(100)).await;
        assert!(said.contains(&format!("longer than the {expected} ")), "{said}");
    }
}

#[tokio::test]
async fn a_queue_is_bounded_and_what_does_not_fit_is_counted() {
    for (own, host, expected) in [(None, 3, 3), (Some(2), 3, 2), (Some(50), 3, 3)] {
        let gate = Arc::new(Semaphore::new(0));
        let bounds = EventBounds { waiting_per_tenant: host, ..EventBounds::default() };
        let bay = all().event_bounds(bounds).build().unwrap();
        let bounded = |one: Subscription| own.map_or(one.clone(), |own| one.with_queue(own));
        bay.register(Scope::Global, slow("slow", &gate, bounded)).await.unwrap();
        let acme = bay.session("acme").unwrap();
        for number in 0..10 {
            acme.publish("go", json!(number)).unwrap();
        }
        assert_eq!(counters(&bay, "slow"), (0, 0, 10 - expected, expected as usize), "{own:?} of {host}");
        let refused = deliveries(&acme, "go", SOON).await;
        assert_eq!(refused, "slow dropped\n");
        gate.add_permits(10);
        while counters(&bay, "slow").3 > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(counters(&bay, "slow"), (expected, 0, 11 - expected, 0));
    }
}

#[tokio::test]
async fn a_noisy_tenant_leaves_the_others_their_room_in_a_global_plugin() {
    let gate = Arc::new(Semaphore::new(0));
    let bounds = EventBounds { waiting_per_tenant: 4, waiting_per_plugin: 8, ..EventBounds::default() };
    let bay = all().event_bounds(bounds).build().unwrap();
    bay.register(Scope::Global, slow("slow", &gate, |one| one)).await.unwrap();
    for number in 0..1_000 {
        bay.session("noisy").unwrap().publish("go", json!(number)).unwrap();
    }
    assert_eq!(counters(&bay, "slow"), (0, 0, 996, 4));
    let quiet = bay.session("quiet").unwrap();
    let waits = tokio::spawn(async move { deliveries(&quiet, "go", SOON).await });
    while counters(&bay, "slow").3 < 5 {
        tokio::task::yield_now().await;
    }
    // All together are bounded too, by as many tenants as there may be.
    for tenant in 0..100 {
        bay.session(format!("t{tenant}").as_str()).unwrap().publish("go", json!(0)).unwrap();
    }
    assert_eq!(counters(&bay, "slow"), (0, 0, 996 + 97, 8));
    gate.add_permits(100);
    assert_eq!(waits.await.unwrap(), "slow handled 1\n");
}

/// A plugin that answers each event `ping` with another one.
fn echo(name: &str, depths: &Arc<Mutex<Vec<u32>>>, through: Option<&'static str>) -> NativePlugin {
    let depths = Arc::clone(depths);
    let handler = move |event: Arc<Event>, cx: EventContext| {
        depths.lock().unwrap().push(event.depth);
        async move {
            match through {
                None => cx.host.emit("ping", Value::Null).await?,
                Some(tool) => _ = cx.host.call_tool(tool, json!({ "name": "ping" })).await?,
            }
            Ok(Value::Null)
        }
    };
    asking(name, &["*"]).subscription(Subscription::new("ping", handler).unwrap())
}

#[tokio::test]
async fn handlers_that_answer_each_other_come_to_an_end_also_by_way_of_tools() {
    for through in [None, Some("shop.emit")] {
        let depths = Arc::default();
        let bounds = EventBounds { max_depth: 3, ..EventBounds::default() };
        let bay = all().event_bounds(bounds).build().unwrap();
        bay.register(Scope::Global, teller("shop", &["event:emit:*"])).await.unwrap();
        bay.register(Scope::Global, echo("echo", &depths, through)).await.unwrap();
        bay.session("acme").unwrap().publish("ping", Value::Null).unwrap();
        while counters(&bay, "echo").3 > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(*depths.lock().unwrap(), [0, 1, 2, 3], "through {through:?}");
        // The last one was refused, with a limit's error.
        assert_eq!(counters(&bay, "echo"), (3, 1, 0, 0));
    }
}

#[tokio::test]
async fn an_event_too_deep_is_refused_with_its_figures() {
    let (sent, mut errors) = mpsc::unbounded_channel();
    let handler = move |_: Arc<Event>, cx: EventContext| {
        let sent = sent.clone();
        async move {
            let _ = sent.send(cx.host.emit("pong", Value::Null).await.unwrap_err());
            Ok(Value::Null)
        }
    };
    let bounds = EventBounds { max_depth: 0, ..EventBounds::default() };
    let bay = all().event_bounds(bounds).build().unwrap();
    let plugin = asking("p", &["*"]).subscription(Subscription::new("ping", handler).unwrap());
    bay.register(Scope::Global, plugin).await.unwrap();
    bay.session("acme").unwrap().publish("ping", Value::Null).unwrap();
    let error = errors.recv().await.unwrap();
    assert_eq!(error.kind, ErrorKind::LimitExceeded { limit: Limit::EventDepth, allowed: 0, used: 1 });
    assert_eq!(
        error.message,
        "the event pong follows from 1 others, and 0 are allowed: handlers seem to answer each other without end"
    );
}

#[tokio::test]
async fn to_emit_and_to_listen_each_need_the_manifests_the_hosts_and_the_tenants_yes() {
    let acme = TenantId::new("acme").unwrap();
    // What manifest, host and tenant say to the action in question; everything else is granted.
    let cases = [("yes", "yes", "yes"), ("no", "yes", "yes"), ("yes", "no", "yes"), ("yes", "yes", "no")];
    let mut said = String::new();
    for action in ["event:emit:a.b", "event:listen:a.b"] {
        for (manifest, host, own) in cases {
            let (heard, mut heardings) = Heardings::new();
            let grants = |answer: &str| if answer == "yes" { set(&[action]) } else { set(&["event:*:other", "kv:*"]) };
            let (emits, listens) = (action.contains("emit"), action.contains("listen"));
            let teller_asks = if emits { grants(manifest) } else { PermissionSet::all() };
            let listener_asks = if listens { grants(manifest) } else { PermissionSet::all() };
            let open = |answer: &str| {
                let other = if emits { "event:listen:*" } else { "event:emit:*" };
                grants(answer).iter().cloned().chain(set(&[other]).iter().cloned()).collect::<PermissionSet>()
            };
            let bay = Toolbay::builder().grants(open(host)).tenant_grants(acme.clone(), open(own)).build().unwrap();
            let teller = teller("shop", &[]).with(|metadata| metadata.permissions = teller_asks);
            bay.register(Scope::Global, teller).await.unwrap();
            let listener = listener("l", "a.*", &heard).with(|metadata| metadata.permissions = listener_asks);
            bay.register(Scope::Global, listener).await.unwrap();
            let told = outcome(&bay.session("acme").unwrap(), "shop.emit", json!({ "name": "a.b" })).await;
            while counters(&bay, "l").3 > 0 {
                tokio::task::yield_now().await;
            }
            let heard = heardings.0.try_recv().is_ok();
            said.push_str(&format!("{action} {manifest}/{host}/{own}: {} heard {heard}\n", told.as_str().unwrap()));
        }
    }
    expect![[r#"
        event:emit:a.b yes/yes/yes: told heard true
        event:emit:a.b no/yes/yes: PermissionDenied: the permission `event:emit:a.b` is needed and the plugin's manifest does not ask for it: add it to `permissions` heard false
        event:emit:a.b yes/no/yes: PermissionDenied: the permission `event:emit:a.b` is needed and the host does not grant it to this plugin: an operator can heard false
        event:emit:a.b yes/yes/no: PermissionDenied: the permission `event:emit:a.b` is needed and the tenant does not grant it to its plugins: the tenant's administrator can heard false
        event:listen:a.b yes/yes/yes: told heard true
        event:listen:a.b no/yes/yes: told heard false
        event:listen:a.b yes/no/yes: told heard false
        event:listen:a.b yes/yes/no: told heard false
    "#]].assert_eq(&said);
}

#[tokio::test]
async fn a_plugin_tells_only_of_what_it_provides_under_a_name_of_its_own_and_within_bounds() {
    let bay = all().build().unwrap();
    let provides = Provides { tools: Vec::new(), events: vec!["order.placed".into()], ..Provides::default() };
    let shop = teller("shop", &["event:emit:*"]).with(|metadata| metadata.provides = Some(provides));
    bay.register(Scope::Global, shop).await.unwrap();
    bay.register(Scope::Global, teller("free", &["event:emit:*"])).await.unwrap();
    let acme = bay.session("acme").unwrap();
    let told = async |tool: &str, name: &str, payload: Value| {
        outcome(&acme, tool, json!({ "name": name, "payload": payload })).await.as_str().unwrap().to_owned()
    };
    let mut said = String::new();
    for (tool, name) in [
        ("shop.emit", "order.placed"),
        ("shop.emit", "order.sent"),
        ("free.emit", "order.sent"),
        ("free.emit", "plugin.loaded"),
        ("free.emit", "host.started"),
        ("free.emit", "a..b"),
        ("free.emit", "a b"),
        ("free.emit", ""),
    ] {
        said.push_str(&format!("{tool} {name}: {}\n", told(tool, name, Value::Null).await));
    }
    said.push_str(&format!("large: {}\n", told("free.emit", "order.sent", json!("x".repeat(70_000))).await));
    let nested = |levels| (0..levels).fold(json!(1), |inner, _| json!([inner]));
    said.push_str(&format!("deep: {}\n", acme.publish("order.sent", nested(64)).unwrap_err()));
    assert!(acme.publish("order.sent", nested(63)).is_ok());
    expect![[r#"
        shop.emit order.placed: told
        shop.emit order.sent: PermissionDenied: the event order.sent is not in `provides.events` of the manifest: add it there
        free.emit order.sent: told
        free.emit plugin.loaded: InvalidArguments: plugin.loaded is an event of the host: use a name that begins with neither plugin. nor host.
        free.emit host.started: InvalidArguments: host.started is an event of the host: use a name that begins with neither plugin. nor host.
        free.emit a..b: InvalidArguments: the event name "a..b" is not allowed: use 1 to 128 of A-Z a-z 0-9 _ - in words with single dots between them
        free.emit a b: InvalidArguments: the event name "a b" is not allowed: use 1 to 128 of A-Z a-z 0-9 _ - in words with single dots between them
        free.emit : InvalidArguments: the event name "" is not allowed: use 1 to 128 of A-Z a-z 0-9 _ - in words with single dots between them
        large: LimitExceeded: the call was stopped at its limit of 65536 bytes of arguments (used 70002); ask for less at once
        deep: LimitExceeded: the call was stopped at its limit of 63 levels of nesting (used 64); ask for less at once
    "#]].assert_eq(&said);
    assert_eq!(acme.publish("plugin.loaded", json!(1)).unwrap_err().kind, ErrorKind::InvalidArguments);
    assert!(acme.publish("host.started", json!(1)).is_ok());
}

#[tokio::test]
async fn handlers_are_on_the_tenants_meter_and_limits() {
    let (heard, _heardings) = Heardings::new();
    let quota = Quota { max_calls_per_minute: 2, ..Quota::default() };
    let acme = TenantId::new("acme").unwrap();
    let limits = LimitsRequest { max_output_bytes: Some(3), ..LimitsRequest::default() };
    let bay = all().tenant_quota(acme.clone(), quota).tenant_limits(acme, limits).build().unwrap();
    bay.register(Scope::Global, listener("l", "*", &heard)).await.unwrap();
    bay.register(Scope::Global, listener("longname", "*", &heard)).await.unwrap();
    let session = bay.session("acme").unwrap();
    let first = deliveries(&session, "go", SOON).await;
    assert!(first.starts_with("l handled \"l\"\nlongname failed LimitExceeded"), "{first}");
    let second = deliveries(&session, "go", SOON).await;
    assert!(second.starts_with("l failed RateLimited"), "{second}");
    let other = deliveries(&bay.session("globex").unwrap(), "go", SOON).await;
    assert_eq!(other, "l handled \"l\"\nlongname handled \"longname\"\n");
}

#[tokio::test]
async fn a_handler_that_keeps_breaching_is_put_away_for_the_tenant_and_the_host_tells_of_it() {
    let handler = async |event: Arc<Event>, _: EventContext| {
        if event.payload == json!("panic") { panic!("told to") } else { Ok(json!("fine")) }
    };
    let rule = Quarantine { breaches: 2, ..Quarantine::default() };
    let bay = all().quarantine(rule).build().unwrap();
    let plugin = asking("p", &["event:listen:*"]).subscription(Subscription::new("go", handler).unwrap());
    bay.register(Scope::Global, plugin).await.unwrap();
    let acme = bay.session("acme").unwrap();
    let mut stream = acme.events().matching(EventPattern::new("plugin.quarantined").unwrap());
    let mut elsewhere = bay.events().of(tenant("globex")).matching(EventPattern::new("plugin.*").unwrap());
    for _ in 0..2 {
        acme.publish_and_wait("go", json!("panic"), SOON).await.unwrap();
    }
    let said = deliveries(&acme, "go", SOON).await;
    assert!(said.starts_with("p failed Unavailable: the plugin p is in quarantine"), "{said}");
    assert_eq!(deliveries(&bay.session("globex").unwrap(), "go", SOON).await, "p handled \"fine\"\n");
    let Some(Heard::Event(event)) = stream.next().await else { panic!("nothing was heard") };
    assert_eq!(event.payload["name"], "p");
    assert_eq!(event.payload["error"], "Panic: the handler broke down; tell the operator");
    drop(bay);
    drop(acme);
    assert_eq!(elsewhere.next().await, None);
}

#[tokio::test]
async fn a_plugin_that_is_stopped_handles_what_it_has_and_hears_nothing_more() {
    let gate = Arc::new(Semaphore::new(0));
    let bay = all().build().unwrap();
    bay.register(Scope::Global, slow("slow", &gate, |one| one)).await.unwrap();
    let acme = bay.session("acme").unwrap();
    let waits: Vec<_> = (0..3)
        .map(|_| {
            let acme = acme.clone();
            tokio::spawn(async move { deliveries(&acme, "go", SOON).await })
        })
        .collect();
    while counters(&bay, "slow").3 < 3 {
        tokio::task::yield_now().await;
    }
    let stopping = {
        let bay = bay.clone();
        tokio::spawn(async move { bay.unregister(&Scope::Global, &plugin("slow")).await })
    };
    while !bay.plugins(&Scope::Global).is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(deliveries(&acme, "go", SOON).await, "");
    gate.add_permits(3);
    stopping.await.unwrap().unwrap();
    for wait in waits {
        assert_eq!(wait.await.unwrap(), "slow handled 1\n");
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_longer_than_a_stop_does_is_dropped() {
    let gate = Arc::new(Semaphore::new(0));
    let limits = toolbay::Limits { timeout: Duration::from_secs(600), ..toolbay::Limits::default() };
    let bay = all().limits(limits).callback_timeout(Duration::from_secs(3)).build().unwrap();
    bay.register(Scope::Global, slow("slow", &gate, |one| one)).await.unwrap();
    let acme = bay.session("acme").unwrap();
    let mut waits = Vec::new();
    for waiting in 1..=3 {
        let acme = acme.clone();
        waits.push(tokio::spawn(async move { deliveries(&acme, "go", Duration::from_secs(60)).await }));
        while counters(&bay, "slow").3 < waiting {
            tokio::task::yield_now().await;
        }
    }
    bay.unregister(&Scope::Global, &plugin("slow")).await.unwrap();
    // The first began before, so the plugin is stopped when it has ended; the second then takes longer than the stop waits.
    gate.add_permits(1);
    let [first, second, third] = waits.try_into().unwrap();
    assert_eq!(first.await.unwrap(), "slow handled 1\n");
    assert_eq!(third.await.unwrap(), "slow dropped\n");
    gate.add_permits(1);
    assert_eq!(second.await.unwrap(), "slow handled 1\n");
}

#[tokio::test]
async fn a_shutdown_waits_for_handlers_and_takes_no_more_events() {
    let gate = Arc::new(Semaphore::new(0));
    let bay = all().build().unwrap();
    bay.register(Scope::Global, slow("slow", &gate, |one| one)).await.unwrap();
    let acme = bay.session("acme").unwrap();
    acme.publish("go", json!(1)).unwrap();
    let end = tokio::spawn({
        let bay = bay.clone();
        async move { bay.shutdown(SOON).await }
    });
    while acme.publish("go", json!(2)).is_ok() {
        tokio::task::yield_now().await;
    }
    gate.add_permits(1_000);
    let report = end.await.unwrap();
    assert!(report.unstopped.is_empty(), "{report}");
    assert_eq!(acme.publish("go", json!(3)).unwrap_err().kind, ErrorKind::Unavailable);
}

/// The lines of a stream of lives, until `last` is among them.
async fn lives(stream: &mut toolbay::EventStream, last: &str) -> String {
    let mut text = String::new();
    while !text.contains(last) {
        let heard = tokio::time::timeout(SOON, stream.next()).await;
        let Ok(Some(Heard::Event(event))) = heard else { panic!("after\n{text}: {heard:?}") };
        let Event { name, scope, payload, .. } = &*event;
        let error = payload["error"].as_str().map(|error| format!(" ({error})")).unwrap_or_default();
        text.push_str(&format!("{scope}: {name} {} {}{error}\n", payload["name"], payload["version"]));
    }
    text
}

struct Sour(NativePlugin);

#[async_trait]
impl toolbay::Plugin for Sour {
    fn metadata(&self) -> &toolbay::PluginMetadata {
        self.0.metadata()
    }

    fn tools(&self) -> Vec<Arc<dyn toolbay::Tool>> {
        self.0.tools()
    }

    async fn on_start(&self, _: &toolbay::CallbackContext) -> Result<(), ToolError> {
        Err(ToolError::failed("no").with_source("the operator's alone"))
    }
}

#[tokio::test]
async fn every_change_in_a_plugins_life_is_an_event_of_its_owner() {
    let (heard, mut heardings) = Heardings::new();
    let bay = all().build().unwrap();
    bay.register(tenant("globex"), listener("rival", "*", &heard)).await.unwrap();
    let mut stream = bay.events().matching(EventPattern::new("plugin.*").unwrap());
    bay.register(tenant("acme"), listener("watch", "plugin.*", &heard)).await.unwrap();
    bay.register(tenant("acme"), asking("p", &[]).tool(says("what", "here"))).await.unwrap();
    bay.register(Scope::Global, Sour(asking("sour", &[]))).await.unwrap_err();
    bay.unregister(&tenant("acme"), &plugin("p")).await.unwrap();
    expect![[r#"
        tenant acme: plugin.loading "watch" "1.0.0"
        tenant acme: plugin.loaded "watch" "1.0.0"
        tenant acme: plugin.active "watch" "1.0.0"
        tenant acme: plugin.loading "p" "1.0.0"
        tenant acme: plugin.loaded "p" "1.0.0"
        tenant acme: plugin.active "p" "1.0.0"
        global: plugin.loading "sour" "1.0.0"
        global: plugin.loaded "sour" "1.0.0"
        global: plugin.failed "sour" "1.0.0" (Script: on_start: no)
        tenant acme: plugin.stopping "p" "1.0.0"
        tenant acme: plugin.stopped "p" "1.0.0"
        tenant acme: plugin.unloaded "p" "1.0.0"
    "#]]
    .assert_eq(&lives(&mut stream, "unloaded").await);
    let heard = heardings.next(6).await;
    assert!(heard.iter().all(|line| line.starts_with("watch: plugin.") && line.ends_with("for acme")), "{heard:?}");
    bay.session("globex").unwrap().publish_and_wait("end", json!(1), SOON).await.unwrap();
    assert_eq!(heardings.next(1).await, ["rival: end 1 for globex"]);
    heardings.nothing_more();
}

#[tokio::test]
async fn a_reader_that_lags_loses_the_oldest_and_is_told_how_many() {
    let bay = all().build().unwrap();
    let (mut acme, mut orders) =
        (bay.session("acme").unwrap().events(), bay.events().matching(EventPattern::new("order.*").unwrap()));
    for number in 0..1_030 {
        bay.session("acme").unwrap().publish("noise", json!(number)).unwrap();
    }
    bay.session("globex").unwrap().publish("order.placed", json!("kept")).unwrap();
    assert_eq!(acme.next().await, Some(Heard::Lost(6)));
    let Some(Heard::Event(event)) = acme.next().await else { panic!("nothing was heard") };
    assert_eq!(event.payload, 6);
    // What a reader did not ask for takes no room of what it did.
    let Some(Heard::Event(event)) = orders.next().await else { panic!("something was lost") };
    assert_eq!(event.payload, "kept");
}

#[tokio::test]
async fn a_tenant_cannot_keep_a_global_plugin_from_hearing_by_taking_its_name() {
    let (heard, mut heardings) = Heardings::new();
    let bay = all().build().unwrap();
    bay.register(Scope::Global, listener("guard", "*", &heard)).await.unwrap();
    let error = bay.register(tenant("acme"), asking("guard", &[])).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    bay.session("acme").unwrap().publish("go", json!(1)).unwrap();
    assert_eq!(heardings.next(1).await, ["guard: go 1 for acme"]);
}

struct OneSecret;

#[async_trait]
impl SecretProvider for OneSecret {
    async fn secret(&self, _: &TenantId, _: &SecretName) -> Result<Option<Secret>, ToolError> {
        Ok(Some(Secret::new("hunter2-hunter2")))
    }
}

#[tokio::test]
async fn a_secret_that_a_call_read_goes_out_in_no_event_and_in_no_handlers_result() {
    let (heard, mut heardings) = Heardings::new();
    let leak = async |_: Nothing, cx: ToolContext| {
        let secret = cx.host().secret("KEY").await?;
        cx.host().emit("leak", json!({ "it": secret })).await.map(|()| "told")
    };
    let name = async |_: Nothing, cx: ToolContext| {
        let secret = cx.host().secret("KEY").await?;
        cx.host().emit(&format!("leak.{secret}"), Value::Null).await.map(|()| "told")
    };
    let handler = async |_: Arc<Event>, cx: EventContext| Ok(json!(cx.host.secret("KEY").await?));
    let bay = all().secrets(OneSecret).build().unwrap();
    let leaky = asking("leaky", &["*"]).tool(tool("tell", "Leaks", leak)).tool(tool("name", "Leaks", name));
    bay.register(Scope::Global, leaky.subscription(Subscription::new("ask", handler).unwrap())).await.unwrap();
    bay.register(Scope::Global, listener("l", "leak", &heard)).await.unwrap();
    let acme = bay.session("acme").unwrap();
    assert_eq!(outcome(&acme, "leaky.tell", json!({})).await, "told");
    assert_eq!(heardings.next(1).await, ["l: leak {\"it\":\"***\"} for acme"]);
    let named = outcome(&acme, "leaky.name", json!({})).await;
    assert!(named.as_str().unwrap().starts_with("InvalidArguments: the event's name holds a secret"), "{named}");
    assert_eq!(deliveries(&acme, "ask", SOON).await, "leaky handled \"***\"\n");
}

#[tokio::test]
async fn each_event_that_was_handled_is_in_the_audit() {
    let audit = Arc::new(RecordingAudit::default());
    let (heard, _heardings) = Heardings::new();
    let bay = all().audit(audit.clone()).build().unwrap();
    bay.register(Scope::Global, listener("l", "*", &heard)).await.unwrap();
    bay.session("acme").unwrap().publish_and_wait("go", json!(1), SOON).await.unwrap();
    bay.publish_and_wait(&Scope::Global, "day", json!(1), SOON).await.unwrap();
    let line = |one: &AuditedEvent| format!("{} {} {} {} {}", one.scope, one.event, one.plugin, one.depth, one.outcome);
    let lines: Vec<_> = audit.events().iter().map(line).collect();
    assert_eq!(lines, ["tenant acme go l 0 ok", "global day l 0 ok"]);
}

#[tokio::test]
async fn a_global_plugins_callback_tells_the_whole_host_and_no_tenant() {
    struct Morning(NativePlugin);
    #[async_trait]
    impl toolbay::Plugin for Morning {
        fn metadata(&self) -> &toolbay::PluginMetadata {
            self.0.metadata()
        }
        fn tools(&self) -> Vec<Arc<dyn toolbay::Tool>> {
            self.0.tools()
        }
        async fn on_start(&self, cx: &toolbay::CallbackContext) -> Result<(), ToolError> {
            assert!(cx.host.service_of::<u8>().is_err());
            cx.host.emit("morning", json!(1)).await
        }
    }
    let (heard, mut heardings) = Heardings::new();
    let bay = all().build().unwrap();
    bay.register(Scope::Global, listener("l", "*", &heard)).await.unwrap();
    bay.register(tenant("acme"), listener("own", "*", &heard)).await.unwrap();
    bay.register(Scope::Global, Morning(asking("sun", &["event:emit:morning"]))).await.unwrap();
    let heard = heardings.next(3 + 3 + 1).await;
    assert!(heard.contains(&"l: morning 1 for nobody".to_owned()), "{heard:?}");
    assert!(!heard.iter().any(|line| line.starts_with("own: morning")), "{heard:?}");
    let error = bay.register(Scope::Global, Morning(asking("moon", &["kv:*"]))).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::PermissionDenied);
}

const ORDERS: &str = r#"//! Counts orders and answers each.
const PLUGIN = #{ name: "orders", version: "1.0.0", permissions: ["event:listen:order.*", "event:emit:answer", "kv:*"],
    tools: #{ count: #{ description: "How many" } },
    events: #{ "order.*": #{ timeout_ms: 1000, queue: 5, function: "on_order" } } };

fn count(args) { kv_get("n") ?? 0 }

fn on_order(event, cx) {
    kv_set("n", (kv_get("n") ?? 0) + event.payload.amount);
    emit("answer", #{ to: event.name, from: event.source, tenant: cx.tenant, depth: event.depth });
    event.payload.amount
}
"#;

#[tokio::test]
async fn a_script_listens_and_tells() {
    let (heard, mut heardings) = Heardings::new();
    let bay = toolbay::builder().grants(PermissionSet::all()).build().unwrap();
    bay.load_source(tenant("acme"), "orders.rhai", ORDERS).await.unwrap();
    bay.register(Scope::Global, listener("l", "answer", &heard)).await.unwrap();
    let acme = bay.session("acme").unwrap();
    let handled = acme.publish_and_wait("order.placed", json!({ "amount": 5 }), SOON).await.unwrap();
    assert!(matches!(&handled[0].outcome, DeliveryOutcome::Handled(value) if *value == json!(5)), "{handled:?}");
    assert_eq!(outcome(&acme, "orders.count", json!({})).await, 5);
    let answer = r#"l: answer {"depth":0,"from":"host","tenant":"acme","to":"order.placed"} for acme"#;
    assert_eq!(heardings.next(1).await, [answer]);
    assert_eq!(bay.plugins(&tenant("acme"))[0].subscriptions[0].as_str(), "order.*");
}

#[tokio::test]
async fn a_folder_declares_its_handlers_in_the_manifest_or_in_the_script() {
    let manifest = "name = \"orders\"\nversion = \"1.0.0\"\ndescription = \"d\"\nauthor = \"a\"\n\
                    permissions = [\"event:listen:*\"]\n";
    let table = "[events.\"order.*\"]\nqueue = 3\n";
    let script = "fn on_event(event) { event.payload }";
    let declared = format!("const PLUGIN = #{{ events: #{{ \"order.*\": #{{}} }} }};\n{script}");
    for (manifest, script) in [(format!("{manifest}{table}"), script.to_owned()), (manifest.to_owned(), declared)] {
        let files = folder(&[("orders/plugin.toml", &manifest), ("orders/main.rhai", &script)]);
        let bay = toolbay::builder().grants(PermissionSet::all()).build().unwrap();
        bay.load(Scope::Global, files.path().join("orders")).await.unwrap();
        assert_eq!(deliveries(&bay.session("acme").unwrap(), "order.placed", SOON).await, "orders handled 1\n");
    }
}

#[tokio::test]
async fn each_field_of_a_scripts_declaration_of_events_changes_what_happens() {
    let script = |declared: &str| {
        format!(
            "const PLUGIN = #{{ name: \"p\", version: \"1.0.0\", description: \"d\", permissions: [\"event:listen:*\"],\n\
             events: #{{ \"order.*\": #{{ {declared} }} }} }};\n\
             fn on_event(event) {{ \"usual\" }}\nfn other(event) {{ \"other\" }}\nfn slow(event) {{ loop {{ }} }}"
        )
    };
    let host = async |declared: &str| {
        let limits = toolbay::Limits {
            timeout: Duration::from_millis(300),
            max_operations: u64::MAX,
            ..toolbay::Limits::default()
        };
        let bay = toolbay::builder().grants(PermissionSet::all()).limits(limits).build().unwrap();
        bay.load_source(Scope::Global, "p.rhai", &script(declared)).await.unwrap();
        bay
    };
    for (declared, said) in [("", "p handled \"usual\"\n"), ("function: \"other\"", "p handled \"other\"\n")] {
        let bay = host(declared).await;
        assert_eq!(deliveries(&bay.session("acme").unwrap(), "order.placed", SOON).await, said, "{declared}");
    }
    // Script and host each look at the time, and either may be first to see that it is over.
    for (declared, times) in [("", ["300ms", "300 ms", "299 ms"]), ("timeout_ms: 20,", ["20ms", "20 ms", "19 ms"])] {
        let bay = host(&format!("{declared} function: \"slow\"")).await;
        let heard = deliveries(&bay.session("acme").unwrap(), "order.placed", SOON).await;
        let told = times.iter().any(|time| heard.contains(time));
        assert!(heard.starts_with("p failed TimedOut: ") && told, "{declared}: {heard}");
    }
    for (queue, dropped) in [("queue: 1,", 2), ("queue: 3,", 0)] {
        let bay = host(&format!("{queue} function: \"slow\", timeout_ms: 100")).await;
        let acme = bay.session("acme").unwrap();
        for _ in 0..3 {
            acme.publish("order.placed", json!(1)).unwrap();
        }
        assert_eq!(counters(&bay, "p").2, dropped, "{queue}");
    }
}

async fn refusal(rest: &str, expected: Expect) {
    let bay = toolbay::builder().grants(PermissionSet::all()).build().unwrap();
    let source = format!("const PLUGIN = #{{ name: \"p\", version: \"1.0.0\", description: \"d\", {rest}");
    let error = bay.load_source(Scope::Global, "p.rhai", &source).await.unwrap_err();
    expected.assert_eq(error.to_string().lines().next().unwrap());
}

#[tokio::test]
async fn a_script_whose_events_do_not_fit_is_refused_with_what_to_do() {
    refusal(
        "events: #{ \"a.*\": #{} } };",
        expect![[
            r#"Config: p.rhai:1:1: the handler of "a.*" has no function: write `fn on_event(event, cx) { ... }`"#
        ]],
    )
    .await;
    refusal("events: #{ \"a b\": #{} } };", expect![[r#"Config: p.rhai:1:1: PLUGIN.events.a b: the event pattern "a b" is not allowed: use the letters of event names and * ? [ ] ! { } ,"#]]).await;
    refusal("events: #{ a: #{ when: 1 } } };", expect!["Config: p.rhai:1:1: PLUGIN.events.a.when: unknown field `when`, expected one of `timeout_ms`, `queue`, `function`"]).await;
    refusal("events: #{ a: #{ function: \"on_stop\" } } };\nfn on_stop(x) {}", expect![[r#"Conflict: p.rhai:1:1: the function `on_stop` of the handler of "a" would also be the callback on_stop: give it another name"#]]).await;
    refusal(
        "tools: #{ a: #{ description: \"d\" } } };\nfn a(args) { emit(\"x.y\") }",
        expect![[r#"PermissionDenied: p.rhai:2:14: `emit` needs a permission: add "event:emit:x.y" to permissions"#]],
    )
    .await;
    refusal(
        "permissions: [\"event:emit:*\"], provides: #{ tools: [\"a\"], events: [\"x.z\"] }, tools: #{ a: #{ description: \"d\" } } };\nfn a(args) { emit(\"x.y\", 1) }",
        expect![[r#"PermissionDenied: p.rhai:2:14: the event "x.y" is not in provides.events of the manifest: add it there"#]],
    )
    .await;
    refusal("provides: #{ events: [\"plugin.x\"] }, events: #{ a: #{} } };\nfn on_event(event) {}", expect![[r#"Config: p.rhai:1:1: PLUGIN.provides.events: "plugin.x" is an event of the host: plugins use other first words"#]]).await;
}

#[tokio::test]
async fn a_plugin_with_too_many_subscriptions_is_refused() {
    let (heard, _heardings) = Heardings::new();
    let mut plugin = listener("l", "a", &heard);
    for number in 0..64 {
        let handler = async |_: Arc<Event>, _: EventContext| Ok(Value::Null);
        plugin = plugin.subscription(Subscription::new(&format!("e{number}"), handler).unwrap());
    }
    assert_eq!(all().build().unwrap().register(Scope::Global, plugin).await.unwrap_err().kind, ErrorKind::Config);
}

#[test]
fn patterns_are_names_or_globs() {
    let cases: HashMap<&str, [bool; 3]> = HashMap::from([
        ("order.placed", [true, false, false]),
        ("order.*", [true, true, false]),
        ("*", [true, true, true]),
        ("{order,payment}.*", [true, true, true]),
        ("order.[a-p]*", [true, false, false]),
        ("order.????", [false, true, false]),
    ]);
    for (pattern, expected) in cases {
        let pattern = EventPattern::new(pattern).unwrap();
        assert_eq!(
            ["order.placed", "order.sent", "payment.made"].map(|name| pattern.matches(name)),
            expected,
            "{pattern}"
        );
    }
    for bad in ["", "a b", "a..b", ".a", "[", "{a", "a/b", &"x".repeat(129), &format!("{}*", "x".repeat(128))] {
        assert!(EventPattern::new(bad).is_err(), "{bad}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_load_every_event_is_handled_or_dropped_each_tenants_in_order_and_no_task_is_left() {
    const TENANTS: [&str; 4] = ["a", "b", "c", "d"];
    const EVENTS: u64 = 1_000;
    let seen: Arc<Mutex<HashMap<String, Vec<u64>>>> = Arc::default();
    let log = Arc::clone(&seen);
    let handler = move |event: Arc<Event>, _: EventContext| {
        let log = Arc::clone(&log);
        async move {
            tokio::task::yield_now().await;
            let tenant = event.tenant().unwrap().to_string();
            log.lock().unwrap().entry(tenant).or_default().push(event.payload.as_u64().unwrap());
            Ok(Value::Null)
        }
    };
    let bay = all().build().unwrap();
    let busy = asking("busy", &["event:listen:*"]).subscription(Subscription::new("go", handler).unwrap());
    bay.register(Scope::Global, busy).await.unwrap();
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = alive();
    let publishing = TENANTS.map(|tenant| {
        let session = bay.session(tenant).unwrap();
        tokio::spawn(async move {
            for number in 0..EVENTS {
                session.publish("go", json!(number)).unwrap();
                if number % 16 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        })
    });
    for task in publishing {
        task.await.unwrap();
    }
    let counters = || bay.event_counters(&Scope::Global)["busy"];
    tokio::time::timeout(SOON, async {
        while counters().waiting > 0 || alive() > before {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("the queues run empty and their tasks end");
    let told = EVENTS * TENANTS.len() as u64;
    assert_eq!(counters().delivered + counters().dropped, told, "{:?}", counters());
    let seen = seen.lock().unwrap();
    assert!(seen.values().all(|numbers| numbers.is_sorted()), "{seen:?}");
    assert_eq!(seen.values().map(Vec::len).sum::<usize>() as u64, counters().delivered);
}

#[test]
fn a_host_that_outlives_a_runtime_is_heard_in_the_next() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let gate = Arc::new(Semaphore::new(0));
    let bay = all().build().unwrap();
    let acme = bay.session("acme").unwrap();
    runtime().block_on(async {
        bay.register(Scope::Global, slow("slow", &gate, |one| one)).await.unwrap();
        acme.publish("go", json!(1)).unwrap();
        acme.publish("go", json!(2)).unwrap();
        tokio::task::yield_now().await;
        assert_eq!(counters(&bay, "slow"), (0, 0, 0, 2));
    });
    // One was being handled when its runtime went; the other had not begun.
    assert_eq!(counters(&bay, "slow"), (0, 0, 2, 0));
    // Where there is no runtime at all, nobody can handle it.
    acme.publish("go", json!(3)).unwrap();
    assert_eq!(counters(&bay, "slow"), (0, 0, 3, 0));
    gate.add_permits(1);
    assert_eq!(runtime().block_on(deliveries(&acme, "go", SOON)), "slow handled 1\n");
}

#[tokio::test]
async fn what_a_call_in_flight_tells_while_the_host_closes_is_heard_before_the_end() {
    let (heard, mut heardings) = Heardings::new();
    let gate = Arc::new(Semaphore::new(0));
    let at = Arc::clone(&gate);
    let last_words = move |_: Nothing, cx: ToolContext| {
        let gate = Arc::clone(&at);
        async move {
            gate.acquire_owned().await.unwrap().forget();
            cx.host().emit("last.words", json!("bye")).await.map(|()| "told")
        }
    };
    let bay = all().build().unwrap();
    bay.register(Scope::Global, listener("l", "last.*", &heard)).await.unwrap();
    bay.register(Scope::Global, asking("p", &["event:emit:*"]).tool(tool("p", "Tells", last_words))).await.unwrap();
    let acme = bay.session("acme").unwrap();
    let call = tokio::spawn({
        let acme = acme.clone();
        async move { outcome(&acme, "p", json!({})).await }
    });
    while acme.calls_in_flight() == 0 {
        tokio::task::yield_now().await;
    }
    let end = tokio::spawn({
        let bay = bay.clone();
        async move { bay.shutdown(SOON).await }
    });
    while acme.publish("other", json!(2)).is_ok() {
        tokio::task::yield_now().await;
    }
    gate.add_permits(1);
    assert_eq!(call.await.unwrap(), "told");
    assert_eq!(heardings.next(1).await, ["l: last.words \"bye\" for acme"]);
    let report = end.await.unwrap();
    assert!(report.unstopped.is_empty(), "{report}");
}
