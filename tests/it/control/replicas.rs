//! Several processes on one store, and a store that is away.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use toolbay::{
    Control, ControlOptions, ErrorKind, Event, EventContext, PermissionSet, PluginName, Scope, StoreAudit, StoreRelay,
    Subscription, TenantId, ToolError, Toolbay, plugin::NativePlugin, store::*,
};

use uuid::Uuid;

use super::{Database, admin, config_of, id, of, plugin};
use crate::support::{names, outcome, tenant};

const SOON: Duration = Duration::from_secs(10);

/// Waits until `is_so`, looking whenever `control` may have taken something over.
async fn until(mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, waiting).await.expect("it came to be so");
}

#[tokio::test]
async fn who_follows_the_store_takes_over_what_others_change() {
    let database = Database::new();
    let control = database.with_tenants().await;
    let other = database.process(toolbay::builder()).await;
    let following = other.follow();
    control.disable(&of("acme"), &tenant("acme"), &plugin("teller"), None).await.unwrap();
    until(|| names(&other.toolbay().session("acme").unwrap()).is_empty()).await;
    drop(following);
    // Nobody follows any more.
    control.enable(&of("acme"), &tenant("acme"), &plugin("teller"), None).await.unwrap();
    assert!(names(&other.toolbay().session("acme").unwrap()).is_empty());
}

/// A store that can be cut off.
struct Cut {
    inner: Arc<dyn Store>,
    is_away: AtomicBool,
}

macro_rules! pass {
    ($($name:ident($($arg:ident: $type:ty),*) -> $out:ty;)*) => {
        #[async_trait::async_trait]
        impl Store for Cut {
            fn changes(&self) -> futures::stream::BoxStream<'static, ()> {
                self.inner.changes()
            }

            $(async fn $name(&self, $($arg: $type),*) -> Result<$out, ToolError> {
                if self.is_away.load(Ordering::SeqCst) {
                    return Err(ToolError::new(ErrorKind::Unavailable, "the database is away"));
                }
                self.inner.$name($($arg),*).await
            })*
        }
    };
}

pass! {
    snapshot(seen: Option<Position>) -> Snapshot;
    commit(change: Change) -> Position;
    ping() -> ();
    tenants(page: Page) -> Listed<TenantRow>;
    tenant(name: &TenantId) -> Option<TenantRow>;
    registration(scope: &Scope, plugin: &PluginName) -> Option<Registration>;
    versions(scope: &Scope, plugin: &PluginName) -> Vec<PackageVersion>;
    package(digest: &PackageDigest) -> Option<Arc<[u8]>>;
    keys(tenant: Option<&TenantId>, page: Page) -> Listed<KeyRow>;
    secrets(scope: &Scope, page: Page) -> Listed<SecretReference>;
    answered(owner: Uuid, key: &str, now_ms: i64) -> Option<(ChainHash, Value)>;
    record(entries: Vec<AuditEntry>) -> ();
    audit(scope: &Scope, query: &AuditQuery) -> Listed<AuditLine>;
    put_run(run: RunRow, expected: Expected) -> ();
    run(tenant: &TenantId, id: Uuid) -> Option<RunRow>;
    runs(tenant: &TenantId, page: Page) -> Listed<RunRow>;
    post(events: Vec<OutboxEvent>) -> ();
    claim(limit: u32, lease_ms: i64, now_ms: i64) -> Vec<OutboxEvent>;
    delivered(id: Uuid, attempts: u32) -> ();
    undelivered(id: Uuid, attempts: u32, problem: &str, retry_ms: Option<i64>, now_ms: i64) -> ();
    dead_events(page: Page) -> Listed<DeadEvent>;
    revive(id: Uuid, now_ms: i64) -> bool;
}

#[tokio::test]
async fn while_the_store_is_away_calls_go_on_and_writes_say_so() {
    let database = Database::new();
    let other = database.with_tenants().await;
    let cut = Arc::new(Cut { inner: database.store().await, is_away: AtomicBool::new(false) });
    let bay = toolbay::builder().build().unwrap();
    bay.register(Scope::Global, super::teller()).await.unwrap();
    let control = Control::open(bay, cut.clone(), ControlOptions::default()).await.unwrap();
    let key = {
        let wanted = toolbay::KeyWanted {
            role: Role::Tenant,
            tenant: Some(id("acme")),
            label: String::new(),
            expires_at: None,
            rate: None,
        };
        control.create_key(&admin(), wanted).await.unwrap().secret
    };
    let _following = control.follow();
    cut.is_away.store(true, Ordering::SeqCst);
    until(|| control.status().problem.is_some()).await;
    let (acme, teller) = (tenant("acme"), plugin("teller"));
    assert_eq!(config_of(control.toolbay(), "acme").await, json!({ "unit": "c" }));
    assert!(control.authenticate(&key).is_some());
    let error = control.put_config(&of("acme"), &acme, &teller, Some(json!({})), None).await.unwrap_err();
    assert_eq!((error.kind, error.retryable), (ErrorKind::Unavailable, true));
    // Meanwhile others go on, and it catches up by itself.
    other.put_config(&of("acme"), &acme, &teller, Some(json!({ "size": 9 })), None).await.unwrap();
    cut.is_away.store(false, Ordering::SeqCst);
    until(|| control.status().problem.is_none()).await;
    assert_eq!(config_of(control.toolbay(), "acme").await["size"], 9);
}

/// A process whose plugin `listener` hears `order.*`, fails as often as `failures` says, and writes down what it heard.
async fn listening(
    database: &Database,
    name: &'static str,
    failures: Arc<Mutex<u32>>,
    heard: Arc<Mutex<Vec<String>>>,
) -> Control {
    let store = database.store().await;
    let listener = NativePlugin::new("listener", "1.0.0", "A test's").unwrap();
    let handler = Subscription::new("order.*", move |event: Arc<Event>, _: EventContext| {
        let mut failures = failures.lock().unwrap();
        let outcome = if *failures > 0 {
            *failures -= 1;
            Err(ToolError::failed("not now"))
        } else {
            heard.lock().unwrap().push(format!("{name} {} {}", event.name, event.payload));
            Ok(Value::Null)
        };
        async move { outcome }
    });
    let listener = listener
        .subscription(handler.unwrap())
        .with(|metadata| metadata.permissions = PermissionSet::parse(["event:listen:*"]).unwrap());
    let bay = Toolbay::builder()
        .grants(PermissionSet::all())
        .event_relay(Arc::new(StoreRelay::new(store.clone())))
        .build()
        .unwrap();
    bay.register(Scope::Global, listener).await.unwrap();
    Control::open(bay, store, ControlOptions::default()).await.unwrap()
}

#[tokio::test]
async fn an_event_is_handled_by_one_process_in_order_though_it_fails_at_first() {
    let database = Database::new();
    drop(database.with_tenants().await);
    let (failures, heard) = (Arc::new(Mutex::new(2)), Arc::new(Mutex::new(Vec::new())));
    let one = listening(&database, "one", failures.clone(), heard.clone()).await;
    let other = listening(&database, "other", failures, heard.clone()).await;
    let _following = (one.follow(), other.follow());
    for number in 0..5 {
        one.toolbay().post(&tenant("acme"), "order.paid", json!(number)).await.unwrap();
    }
    until(|| heard.lock().unwrap().len() >= 5).await;
    let told: Vec<_> = heard.lock().unwrap().iter().map(|line| line.rsplit_once(' ').unwrap().1.to_owned()).collect();
    assert_eq!(told, ["0", "1", "2", "3", "4"]);
}

#[tokio::test]
async fn calls_are_in_the_audit_of_their_tenant() {
    let database = Database::new();
    let control = database.with_tenants().await;
    let audit = Arc::new(StoreAudit::new(control.store().clone()));
    let bay = toolbay::builder().audit(audit.clone()).build().unwrap();
    bay.register(Scope::Global, super::teller()).await.unwrap();
    let session = bay.session("acme").unwrap();
    for _ in 0..3 {
        outcome(&session, "teller.config", json!({})).await;
    }
    outcome(&session, "no.such", json!({})).await;
    outcome(&bay.session("globex").unwrap(), "teller.config", json!({})).await;
    assert!(audit.flush(SOON).await);
    let page = Page { after: None, limit: 10 };
    let query = AuditQuery { action: Some("tool.call".into()), since_ms: None, newest_first: false, page };
    let lines = control.audit(&of("acme"), &tenant("acme"), &query).await.unwrap().items;
    let told: Vec<_> = lines.iter().map(|line| format!("{} {}", line.entry.target, line.entry.outcome)).collect();
    assert_eq!(told, ["teller.config ok", "teller.config ok", "teller.config ok", "no.such NotFound"]);
    assert_eq!(control.verify_audit(&of("acme"), &tenant("acme")).await.unwrap().broken_at, None);
    assert_eq!(control.audit(&of("globex"), &tenant("globex"), &query).await.unwrap().items.len(), 1);
}
