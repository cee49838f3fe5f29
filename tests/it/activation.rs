//! What a tenant decides about its plugins, and the layers of their configuration.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use expect_test::expect;
use serde_json::{Value, json};
use toolbay::{
    Activation, CallbackContext, ErrorKind, Event, EventContext, Hook, HookPoint, HookRegistration, PermissionSet,
    Plugin, PluginMetadata, PluginName, RegisterOptions, ReloadOptions, Scope, Subscription, TenantId, Tool,
    ToolContext, ToolError, Toolbay, ToolbayBuilder, plugin::NativePlugin, tool,
};

use crate::support::{Nothing, names, outcome, plugin_that_says, tenant};

fn acme() -> TenantId {
    TenantId::new("acme").unwrap()
}

fn plugin(name: &str) -> PluginName {
    PluginName::new(name).unwrap()
}

/// A plugin whose tool tells its configuration and that writes down for whom it is switched.
struct Teller {
    inner: NativePlugin,
    switched: Arc<Mutex<Vec<String>>>,
    refuses: bool,
}

impl Teller {
    fn new() -> Self {
        let config = tool("config", "Tells its configuration", async |_: Nothing, cx: ToolContext| {
            Ok::<_, ToolError>(cx.host().config().clone())
        });
        let schema = json!({ "type": "object", "additionalProperties": false, "properties": {
            "unit": { "type": "string", "enum": ["c", "f"], "default": "c" },
            "size": { "type": "integer" },
            "server": { "type": "object", "properties": { "host-name": { "type": "string" },
                "port": { "type": "integer", "default": 80 } } } } });
        let inner = NativePlugin::new("teller", "1.0.0", "A test's").unwrap().tool(config);
        let inner = inner.with(|metadata| metadata.config_schema = Some(schema));
        Self { inner, switched: Arc::default(), refuses: false }
    }

    fn note(&self, what: &str, cx: &CallbackContext) {
        self.switched.lock().unwrap().push(format!("{what} {}", cx.scope));
    }
}

#[async_trait]
impl Plugin for Teller {
    fn metadata(&self) -> &PluginMetadata {
        self.inner.metadata()
    }

    fn tools(&self) -> Vec<Arc<dyn Tool>> {
        self.inner.tools()
    }

    async fn on_tenant_enabled(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        self.note("on", cx);
        if self.refuses { Err(ToolError::failed("not for you")) } else { Ok(()) }
    }

    async fn on_tenant_disabled(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        self.note("off", cx);
        Err(ToolError::failed("nobody listens"))
    }
}

async fn host(builder: ToolbayBuilder, teller: Teller) -> Toolbay {
    let bay = builder.build().unwrap();
    bay.register(Scope::Global, teller).await.unwrap();
    bay
}

async fn config_of(bay: &Toolbay, tenant: &str) -> Value {
    outcome(&bay.session(tenant).unwrap(), "teller.config", json!({})).await
}

#[tokio::test]
async fn a_plugin_that_a_tenant_switches_off_is_gone_for_it_alone_from_the_next_run_on() {
    let teller = Teller::new();
    let switched = Arc::clone(&teller.switched);
    let bay = host(Toolbay::builder(), teller).await;
    let (acmes, globex) = (bay.session("acme").unwrap(), bay.session("globex").unwrap());
    let begun_before = acmes.run();
    bay.disable(&acme(), &plugin("teller")).await.unwrap();
    bay.disable(&acme(), &plugin("teller")).await.unwrap();
    assert_eq!((names(&acmes).len(), names(&globex).len(), begun_before.tools().len()), (0, 1, 1));
    assert_eq!(
        outcome(&acmes, "teller.config", json!({})).await,
        "NotEnabled: the plugin teller is switched off for this tenant, and its tools with it"
    );
    bay.enable(&acme(), &plugin("teller")).await.unwrap();
    bay.enable(&acme(), &plugin("teller")).await.unwrap();
    assert_eq!(names(&acmes), ["teller.config"]);
    // Each switch is told once, with the tenant; what off says changes nothing.
    assert_eq!(*switched.lock().unwrap(), ["off tenant acme", "on tenant acme"]);
}

#[tokio::test]
async fn a_plugin_that_is_off_by_default_is_unknown_to_tenants_until_it_is_switched_on() {
    let by_option = RegisterOptions { enabled_by_default: Some(false), ..RegisterOptions::default() };
    let by_host = Toolbay::builder().enabled_by_default(plugin("teller"), false);
    for (builder, options) in [(Toolbay::builder(), by_option), (by_host, RegisterOptions::default())] {
        let bay = builder.build().unwrap();
        bay.register_with(Scope::Global, Arc::new(Teller::new()), options).await.unwrap();
        let session = bay.session("acme").unwrap();
        assert!(config_of(&bay, "acme").await.as_str().unwrap().starts_with("NotFound"));
        bay.enable(&acme(), &plugin("teller")).await.unwrap();
        assert_eq!(names(&session), ["teller.config"]);
        assert!(config_of(&bay, "globex").await.as_str().unwrap().starts_with("NotFound"));
    }
}

#[tokio::test]
async fn a_plugin_that_refuses_a_tenant_stays_off_for_it() {
    let teller = Teller { refuses: true, ..Teller::new() };
    let bay = host(Toolbay::builder().enabled_by_default(plugin("teller"), false), teller).await;
    let error = bay.enable(&acme(), &plugin("teller")).await.unwrap_err();
    assert_eq!(error.to_string(), "Script: on_tenant_enabled: not for you");
    assert!(names(&bay.session("acme").unwrap()).is_empty());
}

#[tokio::test]
async fn a_protected_plugin_is_on_for_every_tenant() {
    let bay = Toolbay::builder().build().unwrap();
    let options = RegisterOptions { protected: Some(true), enabled_by_default: Some(false), ..Default::default() };
    bay.register_with(Scope::Global, Arc::new(plugin_that_says("guard", "on")), options).await.unwrap();
    let error = bay.disable(&acme(), &plugin("guard")).await.unwrap_err();
    assert_eq!(error.to_string(), "PermissionDenied: the plugin guard is protected: it is on for every tenant");
    assert_eq!(names(&bay.session("acme").unwrap()), ["guard.what"]);
}

#[tokio::test]
async fn a_tenants_own_plugin_that_is_off_uncovers_nothing() {
    let bay = Toolbay::builder().build().unwrap();
    bay.register(Scope::Global, plugin_that_says("p", "everybody's")).await.unwrap();
    bay.register(tenant("acme"), plugin_that_says("p", "acme's")).await.unwrap();
    bay.disable(&acme(), &plugin("p")).await.unwrap();
    assert!(names(&bay.session("acme").unwrap()).is_empty());
    assert_eq!(outcome(&bay.session("globex").unwrap(), "p.what", json!({})).await, json!("everybody's"));
}

#[tokio::test]
async fn a_plugin_that_is_off_hears_no_events_of_the_tenant() {
    let bay = Toolbay::builder().grants(PermissionSet::all()).build().unwrap();
    let listens = Subscription::new("order.*", async |_: Arc<Event>, _: EventContext| Ok(json!("heard"))).unwrap();
    let plugin_that_listens = NativePlugin::new("p", "1.0.0", "A test's").unwrap().subscription(listens);
    let plugin_that_listens = plugin_that_listens.with(|metadata| metadata.permissions = PermissionSet::all());
    let options = RegisterOptions { protected: Some(false), ..RegisterOptions::default() };
    bay.register_with(Scope::Global, Arc::new(plugin_that_listens), options).await.unwrap();
    bay.disable(&acme(), &plugin("p")).await.unwrap();
    for (tenant, handlers) in [("acme", 0), ("globex", 1)] {
        let session = bay.session(tenant).unwrap();
        let heard =
            session.publish_and_wait("order.placed", json!(1), std::time::Duration::from_secs(5)).await.unwrap();
        assert_eq!(heard.len(), handlers, "{tenant}");
    }
}

#[tokio::test]
async fn a_tenant_decides_only_about_plugins_that_it_has() {
    let bay = Toolbay::builder().build().unwrap();
    bay.register(tenant("globex"), plugin_that_says("p", "globex's")).await.unwrap();
    let (acme, p) = (acme(), plugin("p"));
    let errors = [
        bay.enable(&acme, &p).await.unwrap_err(),
        bay.disable(&acme, &p).await.unwrap_err(),
        bay.put_config(&acme, &p, Some(json!({}))).unwrap_err(),
        bay.put_priority(&acme, &p, Some(1)).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.to_string(), "NotFound: the tenant has no plugin called p");
    }
}

#[tokio::test]
async fn configuration_comes_from_defaults_file_environment_and_tenant_in_this_order() {
    let variables = [
        ("BAY_TELLER__SERVER__PORT", "8080"),
        ("BAY_TELLER__SERVER__HOST_NAME", "env.example.com"),
        ("TELLER__SIZE", "99"),
        ("BAY_OTHER__SIZE", "98"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let file = json!({ "size": 1, "server": { "host-name": "file.example.com", "port": 81 } });
    let builder = Toolbay::builder().plugin_config(plugin("teller"), file).plugin_environment("BAY_", variables);
    let bay = host(builder, Teller::new()).await;
    let of_host = json!({ "unit": "c", "size": 1, "server": { "host-name": "env.example.com", "port": 8080 } });
    assert_eq!(config_of(&bay, "acme").await, of_host);
    let own = json!({ "unit": "f", "server": { "port": 1 } });
    bay.put_config(&acme(), &plugin("teller"), Some(own)).unwrap();
    let of_acme = json!({ "unit": "f", "size": 1, "server": { "host-name": "env.example.com", "port": 1 } });
    assert_eq!(config_of(&bay, "acme").await, of_acme);
    assert_eq!(config_of(&bay, "globex").await, of_host);
    bay.put_config(&acme(), &plugin("teller"), None).unwrap();
    assert_eq!(config_of(&bay, "acme").await, of_host);
}

#[tokio::test]
async fn defaults_alone_are_a_configuration() {
    let bay = host(Toolbay::builder(), Teller::new()).await;
    assert_eq!(config_of(&bay, "acme").await, json!({ "unit": "c", "server": { "port": 80 } }));
}

#[tokio::test]
async fn a_variable_that_fits_no_field_keeps_the_plugin_from_loading_and_is_not_quoted() {
    let mut text = String::new();
    for (name, value) in [("TELLER__PORT", "hunter2"), ("TELLER__SERVER__PORT", "hunter2"), ("TELLER__UNIT", "k")] {
        let bay = Toolbay::builder().plugin_environment("", [(name.to_owned(), value.to_owned())]).build().unwrap();
        let error = bay.register(Scope::Global, Teller::new()).await.unwrap_err();
        text.push_str(&format!("{error}\n"));
    }
    expect![[r#"
        Config: the environment variable …TELLER__PORT names no field of the plugin's config_schema: mend its name or take it away
        Config: the environment variable …TELLER__SERVER__PORT is no JSON, and its field is no text
        Config: the configuration does not fit config_schema: /unit: expected one of ["c","f"], found the string "k"
    "#]]
    .assert_eq(&text);
}

#[tokio::test]
async fn a_tenants_configuration_that_does_not_fit_is_refused_and_changes_nothing() {
    let bay = host(Toolbay::builder(), Teller::new()).await;
    let (acme, teller) = (acme(), plugin("teller"));
    bay.put_config(&acme, &teller, Some(json!({ "size": 1 }))).unwrap();
    let deep = (0..40).fold(json!({}), |inner, _| json!({ "a": inner }));
    let mut text = String::new();
    for config in
        [json!({ "size": "x" }), json!({ "colour": 1 }), json!([]), json!({ "unit": "c".repeat(70_000) }), deep]
    {
        let error = bay.put_config(&acme, &teller, Some(config)).unwrap_err();
        text.push_str(&format!("{error}\n"));
    }
    expect![[r#"
        Config: the configuration does not fit config_schema: /size: expected the type integer, found the string "x"
        Config: the configuration does not fit config_schema: the whole: expected no other properties than unit, size, server, found the unknown colour
        Config: a configuration is an object
        LimitExceeded: the call was stopped at its limit of 65536 bytes of arguments (used 70011); ask for less at once
        LimitExceeded: the call was stopped at its limit of 16 levels of nesting (used 17); ask for less at once
    "#]]
    .assert_eq(&text);
    assert_eq!(config_of(&bay, "acme").await["size"], 1);
}

#[tokio::test]
async fn what_the_host_says_a_tenant_decided_holds_from_the_start_and_a_bad_configuration_keeps_a_plugin_off() {
    let bad = Activation { config: Some(json!({ "size": "x" })), ..Activation::default() };
    let off = Activation { enabled: Some(false), ..Activation::default() };
    let globex = TenantId::new("globex").unwrap();
    let builder =
        Toolbay::builder().activation(acme(), plugin("teller"), bad).activation(globex.clone(), plugin("teller"), off);
    let bay = host(builder, Teller::new()).await;
    let told = |tenant: &TenantId| bay.tenant_plugins(tenant).into_iter().next().unwrap();
    assert!(!told(&acme()).enabled && !told(&globex).enabled);
    assert!(told(&acme()).problem.unwrap().contains("/size"));
    assert_eq!(told(&globex).problem, None);
    bay.put_config(&acme(), &plugin("teller"), Some(json!({ "size": 7 }))).unwrap();
    assert_eq!(config_of(&bay, "acme").await["size"], 7);
}

#[tokio::test]
async fn a_configuration_outlives_being_off_and_priority_is_told() {
    let bay = host(Toolbay::builder(), Teller::new()).await;
    let (acme, teller) = (acme(), plugin("teller"));
    bay.put_config(&acme, &teller, Some(json!({ "size": 5 }))).unwrap();
    bay.put_priority(&acme, &teller, Some(-3)).unwrap();
    bay.disable(&acme, &teller).await.unwrap();
    let told = bay.tenant_plugins(&acme).remove(0);
    assert_eq!((told.enabled, &told.config["size"], told.priority), (false, &json!(5), -3));
    bay.enable(&acme, &teller).await.unwrap();
    assert_eq!(config_of(&bay, "acme").await["size"], 5);
}

#[tokio::test]
async fn a_new_version_whose_schema_a_tenants_configuration_does_not_fit_is_refused_unless_forced() {
    let bay = host(Toolbay::builder(), Teller::new()).await;
    bay.put_config(&acme(), &plugin("teller"), Some(json!({ "size": 5 }))).unwrap();
    let stricter = || {
        let schema = json!({ "type": "object", "properties": { "size": { "type": "integer", "maximum": 4 } } });
        let mut teller = Teller::new();
        teller.inner = teller.inner.with(|metadata| metadata.config_schema = Some(schema));
        Arc::new(teller)
    };
    let replace = |allow_breaking| {
        bay.replace(Scope::Global, stricter(), RegisterOptions::default(), ReloadOptions { allow_breaking })
    };
    let error = replace(false).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Config: the configuration of the tenant acme does not fit config_schema: /size: expected maximum 4, found the number 5; mend it \
         first, or allow it, which keeps the plugin off for the tenant"
    );
    assert_eq!(error.kind, ErrorKind::Config);
    replace(true).await.unwrap();
    assert!(!bay.tenant_plugins(&acme()).remove(0).enabled);
    assert_eq!(config_of(&bay, "globex").await, json!({}));
}

/// What the operator says of a plugin by its name.
fn spoken_of() -> ToolbayBuilder {
    let kv = PermissionSet::parse(["kv:read", "kv:write"]).unwrap();
    Toolbay::builder()
        .grants(PermissionSet::parse(["kv:read"]).unwrap())
        .plugin_grants(plugin("teller"), kv)
        .plugin_config(plugin("teller"), json!({ "size": 1 }))
        .plugin_environment("", [("TELLER__SERVER__HOST_NAME".to_owned(), "inside.example.com".to_owned())])
}

#[tokio::test]
async fn what_the_operator_says_of_a_plugin_by_its_name_is_not_for_a_tenants_plugin_that_is_called_so() {
    let bay = spoken_of().build().unwrap();
    let wants = Teller::new();
    let inner = wants.inner.with(|metadata| metadata.permissions = PermissionSet::all());
    bay.register(tenant("acme"), Teller { inner, ..Teller::new() }).await.unwrap();
    assert_eq!(config_of(&bay, "acme").await, json!({ "unit": "c", "server": { "port": 80 } }));
    let granted = &bay.plugins(&tenant("acme"))[0].host_grants;
    assert!(granted.covers("kv:read") && !granted.covers("kv:write"));
    // The one for everybody has it all.
    let bay = host(spoken_of(), Teller::new()).await;
    let all = json!({ "unit": "c", "size": 1, "server": { "port": 80, "host-name": "inside.example.com" } });
    assert_eq!(config_of(&bay, "globex").await, all);
    assert!(bay.plugins(&Scope::Global)[0].host_grants.covers("kv:write"));
}

#[tokio::test]
async fn a_variable_for_a_field_goes_before_one_for_the_object_around_it() {
    // In whatever order a process has them.
    for _ in 0..20 {
        let variables = [("TELLER__SERVER", r#"{"port":1,"host-name":"a"}"#), ("TELLER__SERVER__PORT", "2")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let bay = host(Toolbay::builder().plugin_environment("", variables), Teller::new()).await;
        assert_eq!(config_of(&bay, "acme").await["server"], json!({ "port": 2, "host-name": "a" }));
    }
}

/// A plugin whose configuration has the fields `fields` by default, and that tells it when it starts and when it stops.
struct Configured {
    inner: NativePlugin,
    told: Arc<Mutex<Vec<Value>>>,
}

impl Configured {
    fn new(fields: &[&str], told: &Arc<Mutex<Vec<Value>>>) -> Arc<Self> {
        let fields: serde_json::Map<_, _> =
            fields.iter().map(|field| ((*field).to_owned(), json!({ "type": "integer", "default": 1 }))).collect();
        let inner = NativePlugin::new("teller", "1.0.0", "A test's").unwrap();
        let inner = inner.with(|metadata| metadata.config_schema = Some(json!({ "properties": fields })));
        Arc::new(Self { inner, told: Arc::clone(told) })
    }
}

#[async_trait]
impl Plugin for Configured {
    fn metadata(&self) -> &PluginMetadata {
        self.inner.metadata()
    }

    fn tools(&self) -> Vec<Arc<dyn Tool>> {
        Vec::new()
    }

    async fn on_start(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        self.told.lock().unwrap().push(json!({ "start": cx.host.config() }));
        Ok(())
    }

    async fn on_stop(&self, cx: &CallbackContext) -> Result<(), ToolError> {
        self.told.lock().unwrap().push(json!({ "stop": cx.host.config() }));
        Ok(())
    }
}

#[tokio::test]
async fn each_version_has_its_own_configuration_also_while_another_has_its_place() {
    let (bay, told) = (Toolbay::builder().build().unwrap(), Arc::default());
    let options = RegisterOptions::default;
    bay.register_with(tenant("acme"), Configured::new(&["a"], &told), options()).await.unwrap();
    bay.put_config(&acme(), &plugin("teller"), Some(json!({ "a": 5 }))).unwrap();
    let new = Configured::new(&["a", "b"], &told);
    bay.replace(tenant("acme"), new, options(), ReloadOptions::default()).await.unwrap();
    let expected =
        [json!({ "start": { "a": 1 } }), json!({ "start": { "a": 5, "b": 1 } }), json!({ "stop": { "a": 5 } })];
    assert_eq!(*told.lock().unwrap(), expected);
}

#[tokio::test]
async fn a_plugin_that_was_stopped_is_told_of_no_tenant_any_more() {
    let teller = Teller::new();
    let switched = Arc::clone(&teller.switched);
    let bay = host(Toolbay::builder().enabled_by_default(plugin("teller"), false), teller).await;
    bay.shutdown(std::time::Duration::from_secs(1)).await;
    assert_eq!(bay.enable(&acme(), &plugin("teller")).await.unwrap_err().kind, ErrorKind::Unavailable);
    assert!(switched.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_plugin_that_is_switched_off_hears_nothing_more_of_what_waits_for_it() {
    let bay = Toolbay::builder().grants(PermissionSet::all()).build().unwrap();
    let (begun, gate) = (Arc::new(tokio::sync::Semaphore::new(0)), Arc::new(tokio::sync::Semaphore::new(0)));
    let (begins, opens) = (Arc::clone(&begun), Arc::clone(&gate));
    let listens = Subscription::new("order.*", move |_: Arc<Event>, _: EventContext| {
        let (begins, opens) = (Arc::clone(&begins), Arc::clone(&opens));
        async move {
            begins.add_permits(1);
            opens.acquire().await.unwrap().forget();
            Ok(json!("heard"))
        }
    });
    let listener = NativePlugin::new("p", "1.0.0", "A test's").unwrap().subscription(listens.unwrap());
    let listener = listener.with(|metadata| metadata.permissions = PermissionSet::all());
    bay.register(tenant("acme"), listener).await.unwrap();
    let session = bay.session("acme").unwrap();
    session.publish("order.first", json!(1)).unwrap();
    begun.acquire().await.unwrap().forget();
    session.publish("order.second", json!(2)).unwrap();
    bay.disable(&acme(), &plugin("p")).await.unwrap();
    gate.add_permits(2);
    while bay.event_counters(&tenant("acme"))[&plugin("p")].waiting > 0 {
        tokio::task::yield_now().await;
    }
    let counters = bay.event_counters(&tenant("acme"))[&plugin("p")];
    assert_eq!((counters.delivered, counters.failed), (1, 1));
}

#[tokio::test]
async fn what_a_tenant_decided_can_be_taken_back_when_the_plugin_is_gone() {
    let bay = Toolbay::builder().build().unwrap();
    let decided = |number: usize| plugin(&format!("p{number}"));
    for number in 0..=1_000 {
        bay.register(tenant("acme"), plugin_that_says(decided(number).as_str(), "it")).await.unwrap();
        let put = bay.put_priority(&acme(), &decided(number), Some(1));
        bay.unregister(&tenant("acme"), &decided(number)).await.unwrap();
        assert_eq!(put.is_ok(), number < 1_000);
    }
    bay.put_priority(&acme(), &decided(0), None).unwrap();
    bay.register(tenant("acme"), plugin_that_says("another", "it")).await.unwrap();
    bay.put_priority(&acme(), &plugin("another"), Some(1)).unwrap();
}

#[tokio::test]
async fn a_tenants_own_plugin_keeps_the_configuration_that_it_cannot_do_without() {
    let decided = Activation { config: Some(json!({ "size": 1 })), ..Activation::default() };
    let bay = Toolbay::builder().activation(acme(), plugin("teller"), decided).build().unwrap();
    let needs = json!({ "type": "object", "required": ["size"], "properties": { "size": { "type": "integer" } } });
    let inner = Teller::new().inner.with(|metadata| metadata.config_schema = Some(needs));
    bay.register(tenant("acme"), Teller { inner, ..Teller::new() }).await.unwrap();
    let error = bay.put_config(&acme(), &plugin("teller"), None).unwrap_err();
    assert!(error.to_string().contains("/size"), "{error}");
    assert_eq!(config_of(&bay, "acme").await, json!({ "size": 1 }));
}

/// The teller with a hook, so that it is protected for what it does.
struct Guard(Teller);

#[async_trait]
impl Plugin for Guard {
    fn metadata(&self) -> &PluginMetadata {
        self.0.metadata()
    }

    fn tools(&self) -> Vec<Arc<dyn Tool>> {
        self.0.tools()
    }

    fn hooks(&self) -> Vec<HookRegistration> {
        vec![HookRegistration::new("guard", [HookPoint::BeforeToolCall], Passes)]
    }
}

struct Passes;

impl Hook for Passes {}

#[tokio::test]
async fn a_tenant_configures_no_plugin_that_guards_unless_the_operator_lets_it() {
    let size = || Some(json!({ "size": 5 }));
    let decided = Activation { config: Some(json!({ "size": 3 })), ..Activation::default() };
    let bay = Toolbay::builder().activation(acme(), plugin("teller"), decided).build().unwrap();
    bay.register(Scope::Global, Guard(Teller::new())).await.unwrap();
    let error = bay.put_config(&acme(), &plugin("teller"), size()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::PermissionDenied);
    assert_eq!(config_of(&bay, "acme").await["size"], json!(3), "what the operator says for the tenant holds");
    // To take something away is to go back to what the operator says.
    bay.put_config(&acme(), &plugin("teller"), None).unwrap();
    assert_eq!(config_of(&bay, "acme").await["size"], Value::Null);

    let mut allowed = Vec::new();
    for (of_builder, protected, of_options, guards) in [
        (None, None, None, true),
        (None, None, None, false),
        (None, Some(true), None, false),
        (None, Some(false), None, true),
        (Some(true), None, None, true),
        (Some(false), None, None, false),
        (Some(false), None, Some(true), true),
        (Some(true), None, Some(false), false),
    ] {
        let builder = Toolbay::builder();
        let builder = match of_builder {
            Some(yes) => builder.tenants_configure(plugin("teller"), yes),
            None => builder,
        };
        let bay = builder.build().unwrap();
        let options = RegisterOptions { protected, tenants_configure: of_options, ..RegisterOptions::default() };
        let registered: Arc<dyn Plugin> = if guards { Arc::new(Guard(Teller::new())) } else { Arc::new(Teller::new()) };
        bay.register_with(Scope::Global, registered, options).await.unwrap();
        allowed.push(bay.put_config(&acme(), &plugin("teller"), size()).is_ok());
    }
    assert_eq!(allowed, [false, true, false, true, true, false, true, false]);
    // Protected by nothing but that the operator speaks of it: tenants configure it as any other.
    let bay = host(Toolbay::builder().plugin_config(plugin("teller"), json!({ "size": 1 })), Teller::new()).await;
    assert!(bay.plugins(&Scope::Global)[0].protected);
    bay.put_config(&acme(), &plugin("teller"), size()).unwrap();
    // A tenant's own guard is its own.
    let bay = Toolbay::builder().build().unwrap();
    bay.register(tenant("acme"), Guard(Teller::new())).await.unwrap();
    bay.put_config(&acme(), &plugin("teller"), size()).unwrap();
}

#[tokio::test]
async fn a_variable_speaks_to_a_field_with_a_dot_and_to_one_without_a_type_as_text() {
    let schema = json!({ "type": "object", "properties": { "host.name": { "type": "integer" }, "any": {} } });
    let inner = Teller::new().inner.with(|metadata| metadata.config_schema = Some(schema));
    let variables = [("TELLER__HOST_NAME", "7"), ("TELLER__ANY", "7")].map(|(name, value)| (name.into(), value.into()));
    let builder = Toolbay::builder().plugin_environment("", variables);
    let bay = host(builder, Teller { inner, ..Teller::new() }).await;
    assert_eq!(config_of(&bay, "acme").await, json!({ "host.name": 7, "any": "7" }));
}
