//! Services of native plugins: by name and type, by who may have them, and what must be there for whom.

use std::sync::Arc;

use expect_test::expect;
use serde_json::{Value, json};
use toolbay::{
    Host, HostServices as _, LoadError, Package, PermissionSet, Plugin, PluginContext, PluginName, Runner, RuntimeKind,
    Scope, ServiceName, ServiceRegistration, TenantId, ToolContext, ToolError, Toolbay, async_trait,
    manifest::Requirement, plugin::NativePlugin, service, tool,
};

use crate::support::{Nothing, folder, outcome, tenant};

/// What is lent in these tests.
struct Database(&'static str);

/// An interface, lent behind an `Arc`.
trait Mailer: Send + Sync {
    fn address(&self) -> String;
}

struct Postman;

impl Mailer for Postman {
    fn address(&self) -> String {
        "post@example.com".to_owned()
    }
}

fn db(content: &'static str) -> ServiceRegistration {
    service("db", Database(content)).unwrap()
}

fn plugin(name: &str, permissions: &[&str]) -> NativePlugin {
    let permissions = PermissionSet::parse(permissions).unwrap();
    NativePlugin::new(name, "1.0.0", "A test's").unwrap().with(|metadata| metadata.permissions = permissions)
}

fn said(result: Result<Arc<Database>, ToolError>) -> Result<Value, ToolError> {
    result.map(|database| json!(database.0))
}

/// With tools that ask for `db` by its name, by its type, and as something else.
fn asks(plugin: NativePlugin) -> NativePlugin {
    plugin
        .tool(tool("by_name", "Asks", async |_: Nothing, cx: ToolContext| said(cx.host().service("db"))))
        .tool(tool("by_type", "Asks", async |_: Nothing, cx: ToolContext| said(cx.host().service_of())))
        .tool(tool("wrongly", "Asks", async |_: Nothing, cx: ToolContext| {
            cx.host().service::<String>("db").map(|text| json!(*text))
        }))
}

fn requiring(plugin: NativePlugin, other: &str) -> NativePlugin {
    let requirement = Requirement { name: PluginName::new(other).unwrap(), version: "*".parse().unwrap() };
    plugin.with(|metadata| metadata.requires.push(requirement))
}

fn needing(plugin: NativePlugin, service: &str) -> NativePlugin {
    plugin.with(|metadata| metadata.requires_services.push(ServiceName::new(service).unwrap()))
}

fn host() -> Toolbay {
    Toolbay::builder().grants(PermissionSet::all()).build().unwrap()
}

async fn refused(bay: &Toolbay, scope: Scope, plugin: NativePlugin) -> LoadError {
    bay.register(scope, plugin).await.expect_err("it is to be refused")
}

#[tokio::test]
async fn who_may_have_a_service_is_up_to_its_scope() {
    let mut text = String::new();
    for (scope, service) in [("private", db("it")), ("protected", db("it").protected()), ("public", db("it").public())]
    {
        let bay = host();
        bay.register(Scope::Global, asks(plugin("store", &[])).service(service)).await.unwrap();
        bay.register(Scope::Global, asks(plugin("stranger", &[]))).await.unwrap();
        bay.register(Scope::Global, asks(plugin("granted", &["service:db"]))).await.unwrap();
        bay.register(Scope::Global, asks(requiring(plugin("dependant", &[]), "store"))).await.unwrap();
        for asker in ["store", "stranger", "granted", "dependant"] {
            for how in ["by_name", "by_type"] {
                let got = outcome(&bay.session("acme").unwrap(), &format!("{asker}.{how}"), json!({})).await;
                text.push_str(&format!("{scope} {asker} {how}: {}\n", got.as_str().unwrap()));
            }
        }
    }
    expect![[r#"
        private store by_name: it
        private store by_type: it
        private stranger by_name: PermissionDenied: the service db is for the plugin store alone
        private stranger by_type: NotFound: there is no service of the type it::services::Database that this plugin may have
        private granted by_name: PermissionDenied: the service db is for the plugin store alone
        private granted by_type: NotFound: there is no service of the type it::services::Database that this plugin may have
        private dependant by_name: PermissionDenied: the service db is for the plugin store alone
        private dependant by_type: NotFound: there is no service of the type it::services::Database that this plugin may have
        protected store by_name: it
        protected store by_type: it
        protected stranger by_name: PermissionDenied: the service db is for plugins that require store: add it to `requires`
        protected stranger by_type: NotFound: there is no service of the type it::services::Database that this plugin may have
        protected granted by_name: PermissionDenied: the service db is for plugins that require store: add it to `requires`
        protected granted by_type: NotFound: there is no service of the type it::services::Database that this plugin may have
        protected dependant by_name: it
        protected dependant by_type: it
        public store by_name: it
        public store by_type: it
        public stranger by_name: PermissionDenied: the permission `service:db` is needed and the plugin's manifest does not ask for it: add it to `permissions`
        public stranger by_type: NotFound: there is no service of the type it::services::Database that this plugin may have
        public granted by_name: it
        public granted by_type: it
        public dependant by_name: PermissionDenied: the permission `service:db` is needed and the plugin's manifest does not ask for it: add it to `permissions`
        public dependant by_type: NotFound: there is no service of the type it::services::Database that this plugin may have
    "#]].assert_eq(&text);
}

#[tokio::test]
async fn a_service_asked_for_as_another_type_names_both() {
    let bay = host();
    bay.register(Scope::Global, asks(plugin("store", &[])).service(db("it"))).await.unwrap();
    let got = outcome(&bay.session("acme").unwrap(), "store.wrongly", json!({})).await;
    expect!["Config: the service db is a it::services::Database, and was asked for as a alloc::string::String: ask for the former"].assert_eq(got.as_str().unwrap());
}

#[tokio::test]
async fn an_interface_is_lent_behind_an_arc_and_the_only_one_of_its_type_needs_no_name() {
    let bay = host();
    let postman: Arc<dyn Mailer> = Arc::new(Postman);
    let lender = plugin("post", &[]).service(service("mail", postman).unwrap().public());
    bay.register(Scope::Global, lender.service(service("n", 1_u8).unwrap()).service(service("m", 2_u8).unwrap()))
        .await
        .unwrap();
    let asker = plugin("asker", &["service:mail"])
        .tool(tool("mail", "Asks", async |_: Nothing, cx: ToolContext| {
            Ok(cx.host().service_of::<Arc<dyn Mailer>>()?.address())
        }))
        .tool(tool("none", "Asks", async |_: Nothing, cx: ToolContext| Ok(*cx.host().service_of::<u8>()?)));
    bay.register(Scope::Global, asker).await.unwrap();
    let acme = bay.session("acme").unwrap();
    assert_eq!(outcome(&acme, "asker.mail", json!({})).await, "post@example.com");
    assert_eq!(
        outcome(&acme, "asker.none", json!({})).await,
        "NotFound: there is no service of the type u8 that this plugin may have"
    );
}

#[tokio::test]
async fn several_services_of_one_type_must_be_asked_for_by_name() {
    let bay = host();
    let store = plugin("store", &[]).service(db("one").public());
    bay.register(Scope::Global, store.service(service("archive", Database("two")).unwrap().public())).await.unwrap();
    bay.register(Scope::Global, asks(plugin("asker", &["service:*"]))).await.unwrap();
    let acme = bay.session("acme").unwrap();
    assert_eq!(outcome(&acme, "asker.by_name", json!({})).await, "one");
    let got = outcome(&acme, "asker.by_type", json!({})).await;
    assert!(got.as_str().unwrap().ends_with("Database: archive, db; ask by name"), "{got}");
}

#[tokio::test]
async fn two_services_of_one_name_that_somebody_could_see_are_a_conflict_that_names_both_plugins() {
    let bay = host();
    let lender = |name: &str| plugin(name, &[]).service(db("it"));
    bay.register(Scope::Global, lender("one")).await.unwrap();
    let mut text = String::new();
    for (scope, other) in [
        (Scope::Global, lender("two")),
        (tenant("acme"), lender("two")),
        (Scope::Global, plugin("double", &[]).service(service("x", 1).unwrap()).service(service("x", 2).unwrap())),
    ] {
        text.push_str(&format!("{}\n", refused(&bay, scope, other).await));
    }
    bay.unregister(&Scope::Global, &PluginName::new("one").unwrap()).await.unwrap();
    bay.register(tenant("acme"), lender("two")).await.unwrap();
    text.push_str(&format!("{}\n", refused(&bay, Scope::Global, lender("one")).await));
    // Two tenants never see each other's.
    bay.register(tenant("globex"), lender("three")).await.unwrap();
    expect![[r#"
        Conflict: the plugins two (global) and one (global) both lend a service called db: rename one
        Conflict: the plugins two (tenant acme) and one (global) both lend a service called db: rename one
        Conflict: the plugins double (global) and double (global) both lend a service called x: rename one
        Conflict: the plugins one (global) and two (tenant acme) both lend a service called db: rename one
    "#]]
    .assert_eq(&text);
}

#[tokio::test]
async fn a_tenants_service_is_there_for_that_tenant_alone() {
    let bay = host();
    bay.register(tenant("acme"), plugin("store", &[]).service(db("acme's").public())).await.unwrap();
    bay.register(Scope::Global, asks(plugin("asker", &["service:db"]))).await.unwrap();
    assert_eq!(outcome(&bay.session("acme").unwrap(), "asker.by_name", json!({})).await, "acme's");
    let other = outcome(&bay.session("globex").unwrap(), "asker.by_name", json!({})).await;
    assert!(other.as_str().unwrap().starts_with("NotFound: there is no service called \"db\""), "{other}");
}

#[tokio::test]
async fn a_public_service_needs_the_tenants_yes_too() {
    let acme = TenantId::new("acme").unwrap();
    let grants = PermissionSet::parse(["kv:*"]).unwrap();
    let bay = Toolbay::builder().grants(PermissionSet::all()).tenant_grants(acme, grants).build().unwrap();
    bay.register(Scope::Global, plugin("store", &[]).service(db("it").public())).await.unwrap();
    bay.register(Scope::Global, asks(plugin("asker", &["service:db"]))).await.unwrap();
    for how in ["by_name", "by_type"] {
        let tool = format!("asker.{how}");
        assert_eq!(outcome(&bay.session("globex").unwrap(), &tool, json!({})).await, "it");
        let got = outcome(&bay.session("acme").unwrap(), &tool, json!({})).await;
        assert_ne!(got, "it", "{how}");
    }
}

#[tokio::test]
async fn what_a_plugin_requires_must_be_lent_to_it_and_its_lender_stays() {
    let bay = host();
    let needs = || needing(needing(plugin("app", &["service:*"]), "db"), "mail");
    let mut text = format!("{}\n", refused(&bay, Scope::Global, needs()).await);
    bay.register(Scope::Global, plugin("post", &[]).service(service("mail", 1).unwrap())).await.unwrap();
    let store = PluginName::new("store").unwrap();
    bay.register(Scope::Global, plugin("store", &[]).service(db("it").protected())).await.unwrap();
    text.push_str(&format!("{}\n", refused(&bay, Scope::Global, needs()).await));
    let app = || needing(requiring(plugin("app", &[]), "store"), "db");
    bay.register(tenant("acme"), app()).await.unwrap();
    bay.register(tenant("acme"), needing(plugin("selfish", &[]).service(service("own", 1).unwrap()), "own"))
        .await
        .unwrap();
    text.push_str(&format!("{}\n", bay.unregister(&Scope::Global, &store).await.unwrap_err()));
    bay.unregister(&tenant("acme"), &PluginName::new("selfish").unwrap()).await.unwrap();
    bay.unregister(&tenant("acme"), &PluginName::new("app").unwrap()).await.unwrap();
    // By the service alone, without `requires`.
    bay.unregister(&Scope::Global, &store).await.unwrap();
    bay.register(Scope::Global, plugin("store", &[]).service(db("it").public())).await.unwrap();
    bay.register(tenant("acme"), needing(plugin("app", &["service:db"]), "db")).await.unwrap();
    text.push_str(&format!("{}\n", bay.unregister(&Scope::Global, &store).await.unwrap_err()));
    let gone = bay.unregister_with_dependants(&Scope::Global, &store).await.unwrap();
    assert_eq!(gone.len(), 2);
    expect![[r#"
        Dependency: needs the service db, and no plugin lends it; needs the service mail, and no plugin lends it
        Dependency: the service db is for plugins that require store: add it to `requires`; the service mail is for the plugin post alone
        Dependency: the plugin store is required by app (tenant acme): unregister those first, or all together
        Dependency: the plugin store is required by app (tenant acme): unregister those first, or all together
    "#]].assert_eq(&text);
}

#[tokio::test]
async fn a_tenant_cannot_take_the_place_of_a_lender_by_its_name() {
    let bay = host();
    bay.register(Scope::Global, plugin("store", &[]).service(db("the host's").public())).await.unwrap();
    let error = refused(&bay, tenant("acme"), plugin("store", &[]).service(db("acme's").public())).await;
    assert!(error.message.contains("is protected"), "{error}");
}

struct AtStart(NativePlugin, &'static str);

#[async_trait]
impl Plugin for AtStart {
    fn metadata(&self) -> &toolbay::PluginMetadata {
        self.0.metadata()
    }

    fn tools(&self) -> Vec<Arc<dyn toolbay::Tool>> {
        Vec::new()
    }

    fn services(&self) -> Vec<ServiceRegistration> {
        self.0.services()
    }

    async fn on_load(&self, cx: &toolbay::CallbackContext) -> Result<(), ToolError> {
        let host: &dyn Host = &*cx.host;
        match host.service::<Database>("db")?.0 {
            found if found == self.1 => Ok(()),
            found => Err(ToolError::failed(found)),
        }
    }
}

#[tokio::test]
async fn callbacks_have_services_too_their_own_included() {
    for scope in [Scope::Global, tenant("acme")] {
        let bay = host();
        bay.register(scope.clone(), AtStart(plugin("own", &[]).service(db("own")), "own")).await.unwrap();
        bay.unregister(&scope, &PluginName::new("own").unwrap()).await.unwrap();
        bay.register(Scope::Global, plugin("store", &[]).service(db("other").public())).await.unwrap();
        bay.register(scope.clone(), AtStart(plugin("app", &["service:db"]), "other")).await.unwrap();
        let error = bay.register(scope, AtStart(plugin("poor", &[]), "other")).await.unwrap_err();
        assert_eq!(error.kind, toolbay::ErrorKind::PermissionDenied);
    }
}

#[tokio::test]
async fn scripts_neither_lend_nor_require_services() {
    let bay = toolbay::builder().grants(PermissionSet::all()).build().unwrap();
    let source = "const PLUGIN = #{ name: \"p\", version: \"1.0.0\", description: \"d\", requires_services: [\"db\"],\n\
                  tools: #{ p: #{ description: \"d\" } } };\nfn p(args) {}";
    let error = bay.load_source(Scope::Global, "p.rhai", source).await.unwrap_err();
    assert!(error.message.contains("services are for native plugins, and this one's runtime is rhai"), "{error}");
    let foreign = plugin("p", &[]).with(|metadata| metadata.runtime = RuntimeKind::Wasm);
    let error = refused(&bay, Scope::Global, foreign.service(db("it"))).await;
    assert_eq!(error.to_string(), "Config: only native plugins lend services");
    let foreign = asks(plugin("q", &["*"])).with(|metadata| metadata.runtime = RuntimeKind::Wasm);
    bay.register(Scope::Global, foreign).await.unwrap();
    bay.register(Scope::Global, plugin("store", &[]).service(db("it").public())).await.unwrap();
    let got = outcome(&bay.session("acme").unwrap(), "q.by_name", json!({})).await;
    assert_eq!(got, "PermissionDenied: services are lent to native plugins only");
}

/// Loads native plugins from files that say what they lend, need and require: `lends:db needs:mail requires:store`.
struct Folders;

#[async_trait]
impl Runner for Folders {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Native
    }

    fn one_file_extension(&self) -> Option<&'static str> {
        Some("native")
    }

    async fn load(&self, package: &Package, _: &PluginContext) -> Result<Arc<dyn Plugin>, LoadError> {
        let mut made = plugin(package.origin.file_stem().unwrap().to_str().unwrap(), &["service:*"]);
        for word in package.files.values().next().unwrap().split_whitespace() {
            made = match word.split_once(':').unwrap() {
                ("lends", name) => made.service(service(name, 1).unwrap().public()),
                ("needs", name) => needing(made, name),
                (_, name) => requiring(made, name),
            };
        }
        Ok(Arc::new(made))
    }
}

#[tokio::test]
async fn a_folder_is_loaded_in_the_order_of_services_too() {
    let files = folder(&[
        ("app.native", "needs:db needs:mail"),
        ("lost.native", "needs:none"),
        ("post.native", "needs:db lends:mail"),
        ("store.native", "lends:db"),
        ("unlucky.native", "requires:lost"),
    ]);
    let bay = Toolbay::builder().runner(Folders).grants(PermissionSet::all()).build().unwrap();
    let report = bay.load_folder(Scope::Global, files.path()).await.to_string();
    expect![[r#"
        loaded  store 1.0.0 (global): 0 tools, 0 hooks
        loaded  post 1.0.0 (global): 0 tools, 0 hooks
        loaded  app 1.0.0 (global): 0 tools, 0 hooks
        failed  lost.native (global): Dependency: needs the service none, and no plugin lends it
        failed  unlucky.native (global): Dependency: needs the plugin lost *, which needs the service none, and no plugin lends it
    "#]].assert_eq(&report.replace(&format!("{}/", files.path().display()), ""));
}

#[tokio::test]
async fn a_plugin_that_is_switched_off_lends_nothing() {
    let bay = host();
    bay.register(tenant("acme"), plugin("store", &[]).service(db("it").public())).await.unwrap();
    bay.register(tenant("acme"), asks(plugin("granted", &["service:db"]))).await.unwrap();
    let session = bay.session("acme").unwrap();
    assert_eq!(outcome(&session, "granted.by_name", json!({})).await, "it");
    bay.disable(session.tenant(), &PluginName::new("store").unwrap()).await.unwrap();
    assert_eq!(
        outcome(&session, "granted.by_name", json!({})).await,
        "NotEnabled: the service \"db\" is of the plugin store, which is switched off for this tenant"
    );
    let by_type = outcome(&session, "granted.by_type", json!({})).await;
    assert!(by_type.as_str().unwrap().starts_with("NotFound"), "{by_type}");
}
