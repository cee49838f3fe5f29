//! Control over a store: what operators and tenants change is checked, written, and taken over by every process.

mod keys;
mod packages;
mod replicas;

use std::sync::Arc;

use serde_json::{Value, json};
use toolbay::{
    Actor, Control, ControlOptions, ErrorKind, PluginName, Scope, SqlStore, Store, StoreOptions, TenantId, ToolContext,
    ToolError, Toolbay, ToolbayBuilder, plugin::NativePlugin, store::Role, tool,
};

use crate::support::{Nothing, names, outcome, tenant};

/// A database of the test's own.
pub(crate) struct Database {
    folder: tempfile::TempDir,
}

impl Database {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) async fn store(&self) -> Arc<dyn Store> {
        let url = format!("sqlite:{}", self.folder.path().join("toolbay.db").display());
        Arc::new(SqlStore::open(&url, StoreOptions::default()).await.unwrap())
    }

    /// A process of its own on this database: nothing of it is shared with another but the file.
    pub(crate) async fn process(&self, builder: ToolbayBuilder) -> Control {
        let bay = builder.build().unwrap();
        bay.register(Scope::Global, teller()).await.unwrap();
        Control::open(bay, self.store().await, ControlOptions::default()).await.unwrap()
    }

    /// A process with the tenants `acme` and `globex`.
    async fn with_tenants(&self) -> Control {
        let control = self.process(toolbay::builder()).await;
        for name in ["acme", "globex"] {
            control.create_tenant(&admin(), &id(name)).await.unwrap();
        }
        control
    }
}

pub(crate) fn admin() -> Actor {
    Actor::host("test")
}

fn of(name: &str) -> Actor {
    Actor { name: format!("key:{name}"), role: Role::Tenant, tenant: Some(id(name)), once: None }
}

pub(crate) fn id(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

pub(crate) fn plugin(name: &str) -> PluginName {
    PluginName::new(name).unwrap()
}

/// A plugin for everybody whose tool tells its configuration.
fn teller() -> NativePlugin {
    let config = tool("config", "Tells its configuration", async |_: Nothing, cx: ToolContext| {
        Ok::<_, ToolError>(cx.host().config().clone())
    });
    let schema = json!({ "type": "object", "additionalProperties": false, "properties": {
        "unit": { "type": "string", "enum": ["c", "f"], "default": "c" },
        "size": { "type": "integer" },
        "password": { "type": "string", "writeOnly": true } } });
    let inner = NativePlugin::new("teller", "1.0.0", "A test's").unwrap().tool(config);
    inner.with(|metadata| metadata.config_schema = Some(schema))
}

pub(crate) async fn config_of(bay: &Toolbay, tenant: &str) -> Value {
    outcome(&bay.session(tenant).unwrap(), "teller.config", json!({})).await
}

#[tokio::test]
async fn what_a_tenant_decides_is_there_after_a_restart() {
    let database = Database::new();
    let (acme, teller) = (tenant("acme"), plugin("teller"));
    {
        let control = database.with_tenants().await;
        let row = control.put_config(&of("acme"), &acme, &teller, Some(json!({ "unit": "f" })), None).await.unwrap();
        assert_eq!((row.revision, row.enabled, row.package), (1, true, None));
        let row = control.disable(&of("acme"), &acme, &teller, Some(1)).await.unwrap();
        assert_eq!((row.revision, row.enabled), (2, false));
        assert_eq!(names(&control.toolbay().session("acme").unwrap()), Vec::<String>::new());
        assert_eq!(names(&control.toolbay().session("globex").unwrap()), ["teller.config"]);
    }
    let control = database.process(toolbay::builder()).await;
    assert_eq!(names(&control.toolbay().session("acme").unwrap()), Vec::<String>::new());
    // Switched off, it keeps its configuration.
    control.enable(&of("acme"), &acme, &teller, None).await.unwrap();
    assert_eq!(config_of(control.toolbay(), "acme").await, json!({ "unit": "f" }));
    assert_eq!(config_of(control.toolbay(), "globex").await, json!({ "unit": "c" }));
}

#[tokio::test]
async fn what_is_decided_for_all_is_beneath_what_a_tenant_decides() {
    let database = Database::new();
    let control = database.with_tenants().await;
    let (acme, teller, bay) = (tenant("acme"), plugin("teller"), control.toolbay());
    control.put_config(&admin(), &Scope::Global, &teller, Some(json!({ "unit": "f", "size": 1 })), None).await.unwrap();
    control.put_config(&admin(), &acme, &teller, Some(json!({ "size": 2 })), None).await.unwrap();
    assert_eq!(config_of(bay, "acme").await, json!({ "unit": "f", "size": 2 }));
    assert_eq!(config_of(bay, "globex").await, json!({ "unit": "f", "size": 1 }));
    // Off for all but for who wants it; the tenant's row says that it has it.
    control.disable(&admin(), &Scope::Global, &teller, None).await.unwrap();
    assert_eq!(names(&bay.session("globex").unwrap()), Vec::<String>::new());
    assert_eq!(names(&bay.session("acme").unwrap()), ["teller.config"]);
    assert_eq!(names(&bay.session("a-new-one").unwrap()), Vec::<String>::new());
    control.enable(&of("globex"), &tenant("globex"), &teller, None).await.unwrap();
    assert_eq!(config_of(bay, "globex").await, json!({ "unit": "f", "size": 1 }));
    // Taken away, it is as if nobody had said anything.
    control.remove(&admin(), &Scope::Global, &teller, None, false).await.unwrap();
    assert_eq!(config_of(bay, "a-new-one").await, json!({ "unit": "c" }));
}

#[tokio::test]
async fn a_change_of_what_somebody_else_changed_is_refused() {
    let database = Database::new();
    let control = database.with_tenants().await;
    let (acme, teller) = (tenant("acme"), plugin("teller"));
    let put = async |size: i64, seen| {
        control.put_config(&of("acme"), &acme, &teller, Some(json!({ "size": size })), seen).await
    };
    let stale = put(1, Some(1)).await.unwrap_err();
    assert_eq!(
        stale.to_string(),
        "Conflict: it was changed by somebody else: it is not there, and you saw 1; look again"
    );
    assert_eq!(put(1, None).await.unwrap().revision, 1);
    assert_eq!(put(2, Some(1)).await.unwrap().revision, 2);
    let stale = put(3, Some(1)).await.unwrap_err();
    assert_eq!(
        stale.to_string(),
        "Conflict: it was changed by somebody else: it has the revision 2, and you saw 1; look again"
    );
    assert_eq!(config_of(control.toolbay(), "acme").await, json!({ "unit": "c", "size": 2 }));
}

#[tokio::test]
async fn of_changes_at_the_same_time_each_is_made_whole_or_refused() {
    let database = Database::new();
    let one = database.with_tenants().await;
    let other = database.process(toolbay::builder()).await;
    let (acme, teller, by) = (tenant("acme"), plugin("teller"), of("acme"));
    let put = |control: &Control, size: i64| {
        let (control, acme, teller, by) = (control.clone(), acme.clone(), teller.clone(), by.clone());
        async move { control.put_config(&by, &acme, &teller, Some(json!({ "size": size })), None).await }
    };
    let all = (0..20).map(|size| put(if size % 2 == 0 { &one } else { &other }, size));
    let done: Vec<_> = futures::future::join_all(all).await;
    let made: Vec<_> = done.iter().filter_map(|done| done.as_ref().ok()).collect();
    assert!(
        done.iter().all(|done| done.as_ref().err().is_none_or(|error| error.kind == ErrorKind::Conflict)),
        "{done:?}"
    );
    let mut revisions: Vec<_> = made.iter().map(|row| row.revision).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=i64::try_from(made.len()).unwrap()).collect::<Vec<_>>());
    let last = made.iter().max_by_key(|row| row.revision).unwrap().config.clone().unwrap();
    for control in [&one, &other] {
        control.sync().await.unwrap();
        assert_eq!(config_of(control.toolbay(), "acme").await["size"], last["size"]);
    }
}

#[tokio::test]
async fn what_does_not_fit_is_not_written() {
    let database = Database::new();
    let control = database.with_tenants().await;
    let (acme, teller) = (tenant("acme"), plugin("teller"));
    let refused = async |config: Value| {
        control.put_config(&of("acme"), &acme, &teller, Some(config), None).await.unwrap_err().to_string()
    };
    assert_eq!(
        refused(json!({ "unit": "k" })).await,
        "Config: the configuration does not fit config_schema: /unit: expected one of [\"c\",\"f\"], found the string \"k\""
    );
    assert_eq!(refused(json!([])).await, "Config: a configuration is an object");
    let unknown = control.enable(&of("acme"), &acme, &plugin("nobody"), None).await.unwrap_err();
    assert_eq!(unknown.to_string(), "NotFound: the tenant has no plugin called nobody");
    assert_eq!(control.registration(&of("acme"), &acme, &teller).await.unwrap(), None);
}

#[tokio::test]
async fn a_tenant_reaches_its_own_and_learns_nothing_of_others() {
    let database = Database::new();
    let control = database.with_tenants().await;
    let (by, teller) = (of("acme"), plugin("teller"));
    control.enable(&of("globex"), &tenant("globex"), &teller, None).await.unwrap();
    for name in ["globex", "nobody-there"] {
        let (other, told) = (tenant(name), format!("NotFound: there is no tenant called {name}"));
        let refusals = [
            control.enable(&by, &other, &teller, None).await.map(|_| ()),
            control.disable(&by, &other, &teller, None).await.map(|_| ()),
            control.put_config(&by, &other, &teller, None, None).await.map(|_| ()),
            control.put_priority(&by, &other, &teller, Some(1), None).await.map(|_| ()),
            control.registration(&by, &other, &teller).await.map(|_| ()),
            control.versions(&by, &other, &teller).await.map(|_| ()),
            control.remove(&by, &other, &teller, None, true).await,
            control.reload(&by, &other, &teller).await,
            control.tenant(&by, &id(name)).await.map(|_| ()),
            control.verify_audit(&by, &other).await.map(|_| ()),
            control.runs(&by, &id(name), toolbay::store::Page { after: None, limit: 1 }).await.map(|_| ()),
            control.put_secret(&by, &other, "KEY", None).await,
        ];
        for refusal in refusals {
            assert_eq!(refusal.unwrap_err().to_string(), told);
        }
    }
    let refusals = [
        control.enable(&by, &Scope::Global, &teller, None).await.map(|_| ()),
        control.create_tenant(&by, &id("mine")).await.map(|_| ()),
        control.remove_tenant(&by, &id("acme"), None).await,
        control.suspend_tenant(&by, &id("acme"), true, None).await.map(|_| ()),
        control.keys(&by, Some(&id("acme")), toolbay::store::Page { after: None, limit: 1 }).await.map(|_| ()),
        control.put_secret(&by, &tenant("acme"), "KEY", Some("HOST_KEY".into())).await,
        control.verify_audit(&by, &Scope::Global).await.map(|_| ()),
    ];
    for refusal in refusals {
        assert_eq!(refusal.unwrap_err().to_string(), "PermissionDenied: a key of the role tenant may not do this");
    }
    // An operator decides about tenants, not about what is for everybody.
    let operator = Actor { role: Role::Operator, ..admin() };
    control.enable(&operator, &tenant("globex"), &teller, None).await.unwrap();
    let refused = control.enable(&operator, &Scope::Global, &teller, None).await.unwrap_err();
    assert_eq!(refused.to_string(), "PermissionDenied: a key of the role operator may not do this");
}

#[tokio::test]
async fn every_change_and_every_refusal_is_in_the_audit() {
    let database = Database::new();
    let control = database.with_tenants().await;
    let (acme, teller) = (tenant("acme"), plugin("teller"));
    let secret = json!({ "password": "hunter2", "size": 3 });
    control.put_config(&of("acme"), &acme, &teller, Some(secret), None).await.unwrap();
    control.create_tenant(&of("acme"), &id("mine")).await.unwrap_err();
    let lines = async |scope: &Scope| {
        let page = toolbay::store::Page { after: None, limit: 100 };
        let query = toolbay::store::AuditQuery { action: None, since_ms: None, newest_first: false, page };
        let lines = control.audit(&admin(), scope, &query).await.unwrap().items;
        lines.into_iter().map(|line| line.entry).collect::<Vec<_>>()
    };
    let own = lines(&acme).await;
    assert_eq!(own.len(), 1);
    assert_eq!(
        (&*own[0].actor, &*own[0].action, &*own[0].target, &*own[0].outcome),
        ("key:acme", "plugin.config", "teller", "ok")
    );
    assert_eq!(own[0].detail["config"], json!({ "password": "***", "size": 3 }));
    let global: Vec<_> = lines(&Scope::Global)
        .await
        .iter()
        .map(|entry| format!("{} {} {}", entry.actor, entry.action, entry.outcome))
        .collect();
    assert_eq!(global, ["test tenant.create ok", "test tenant.create ok", "key:acme tenant.create PermissionDenied"]);
    for scope in [acme, Scope::Global] {
        assert_eq!(control.verify_audit(&admin(), &scope).await.unwrap().broken_at, None);
    }
    // Shown hidden and written back so, it stays what it was.
    let hidden = json!({ "password": "***", "size": 4 });
    control.put_config(&admin(), &tenant("acme"), &teller, Some(hidden), None).await.unwrap();
    assert_eq!(config_of(control.toolbay(), "acme").await, json!({ "unit": "c", "password": "hunter2", "size": 4 }));
}

#[tokio::test]
async fn a_tenant_that_is_removed_leaves_nothing_to_the_next_of_its_name() {
    let database = Database::new();
    let control = database.with_tenants().await;
    let other = database.process(toolbay::builder()).await;
    let (acme, teller) = (tenant("acme"), plugin("teller"));
    control.put_config(&of("acme"), &acme, &teller, Some(json!({ "size": 7 })), None).await.unwrap();
    other.sync().await.unwrap();
    assert_eq!(config_of(other.toolbay(), "acme").await["size"], 7);
    control.remove_tenant(&admin(), &id("acme"), None).await.unwrap();
    let gone = control.enable(&admin(), &acme, &teller, None).await.unwrap_err();
    assert_eq!(gone.to_string(), "NotFound: there is no tenant called acme");
    control.create_tenant(&admin(), &id("acme")).await.unwrap();
    other.sync().await.unwrap();
    for control in [&control, &other] {
        assert_eq!(control.registration(&of("acme"), &acme, &teller).await.unwrap(), None);
        assert_eq!(config_of(control.toolbay(), "acme").await, json!({ "unit": "c" }));
    }
}

#[tokio::test]
async fn a_request_that_comes_again_is_answered_and_not_done_again() {
    let database = Database::new();
    let control = database.with_tenants().await;
    let once = |key: &str, request: u8| {
        let owner = uuid::Uuid::from_u128(7);
        Actor { once: Some(toolbay::OnceKey { owner, key: key.into(), request: [request; 32] }), ..of("acme") }
    };
    let (acme, teller) = (tenant("acme"), plugin("teller"));
    let put =
        async |by: Actor, size: i64| control.put_config(&by, &acme, &teller, Some(json!({ "size": size })), None).await;
    let first = put(once("a", 1), 1).await.unwrap();
    assert_eq!(put(once("a", 1), 1).await.unwrap(), first);
    let other = put(once("a", 2), 2).await.unwrap_err();
    assert_eq!(
        other.to_string(),
        "InvalidArguments: the idempotency key was used for another request: take a new one for each"
    );
    assert_eq!(put(once("b", 2), 2).await.unwrap().revision, 2);
    assert_eq!(control.verify_audit(&admin(), &acme).await.unwrap().lines, 2);
}
