//! Plugins whose code is compiled when it is needed first: what is seen before, what happens then, and who never waits.

use std::{
    collections::HashMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use expect_test::expect;
use serde_json::json;
use tokio::{sync::Semaphore, task::JoinSet};
use toolbay::{
    CodeLoading, CodeState, Declared, ErrorKind, Limits, LoadError, Loading, Manifest, Package, PermissionSet, Plugin,
    PluginContext, PluginInfo, PluginName, ReloadOptions, RhaiRunner, Runner, RuntimeKind, Scope, TenantId, Toolbay,
    ToolbayBuilder, async_trait,
    plugin::NativePlugin,
    worker::{WorkerConfig, WorkerProgram, WorkerRunner},
};

use crate::support::{folder, names, outcome, says, tenant, toolbay_command};

/// A one-file plugin called `name` with one tool `say`, whose code is `code`.
fn waiting(name: &str, code: &str) -> String {
    with(name, "", code)
}

fn with(name: &str, more: &str, code: &str) -> String {
    format!(
        "const PLUGIN = #{{ name: \"{name}\", version: \"1.0.0\", description: \"A test's\", author: \"Acme\", auto_load: false, {more}\n\
         tools: #{{ say: #{{ description: \"Says it\", parameters: #{{ type: \"object\", properties: #{{ n: #{{ type: \"integer\" }} }} }} }} }} }};\n\
         {code}\n"
    )
}

/// A runner that counts what it is asked for.
#[derive(Default)]
struct Counting {
    inner: RhaiRunner,
    declared: AtomicUsize,
    loaded: AtomicUsize,
}

#[async_trait]
impl Runner for Counting {
    fn kind(&self) -> RuntimeKind {
        self.inner.kind()
    }

    fn one_file_extension(&self) -> Option<&'static str> {
        self.inner.one_file_extension()
    }

    async fn load(&self, package: &Package, cx: &PluginContext) -> Result<Arc<dyn Plugin>, LoadError> {
        self.loaded.fetch_add(1, SeqCst);
        self.inner.load(package, cx).await
    }

    async fn declare(&self, package: &Package, cx: &PluginContext) -> Result<Option<Declared>, LoadError> {
        self.declared.fetch_add(1, SeqCst);
        self.inner.declare(package, cx).await
    }
}

fn counted(builder: ToolbayBuilder) -> (Toolbay, Arc<Counting>) {
    let runner = Arc::new(Counting::default());
    let bay = builder.grants(PermissionSet::all()).runner(Arc::clone(&runner)).build().unwrap();
    (bay, runner)
}

fn info(bay: &Toolbay, scope: &Scope, name: &str) -> PluginInfo {
    bay.plugins(scope).into_iter().find(|info| info.metadata.name.as_str() == name).expect("it is registered")
}

fn state(bay: &Toolbay, name: &str) -> &'static str {
    info(bay, &Scope::Global, name).code.name()
}

#[tokio::test]
async fn a_plugin_that_waits_shows_all_that_it_has_before_its_code_is_compiled() {
    let manifest = "name = \"pay\"\nversion = \"1.0.0\"\ndescription = \"Pays\"\nauthor = \"Acme\"\nauto_load = false\n\
                    permissions = [\"kv:read\"]\n[tools.pay]\ndescription = \"Pays\"\n[events.\"paid.*\"]\n";
    let files = [
        ("pay/plugin.toml", manifest),
        ("pay/main.rhai", "fn pay(args) { kv_get(\"a\") }\nfn on_event(event) {}"),
        ("say.rhai", &waiting("say", "fn say(args) { args.n }")),
        ("now.rhai", &waiting("now", "fn say(args) { 2 }").replace("auto_load: false,", "")),
    ];
    let (bay, runner) = counted(Toolbay::builder());
    let folder = folder(&files);
    let report = bay.load_folder(Scope::Global, folder.path()).await;
    expect![[r#"
        loaded  now 1.0.0 (global): 1 tool, 0 hooks
        loaded  pay 1.0.0 (global): 1 tool, 0 hooks, compiled at first use
        loaded  say 1.0.0 (global): 1 tool, 0 hooks, compiled at first use
    "#]]
    .assert_eq(&report.to_string());
    assert_eq!((runner.loaded.load(SeqCst), state(&bay, "pay"), state(&bay, "now")), (1, "at-first-use", "ready"));
    let pay = info(&bay, &Scope::Global, "pay");
    assert_eq!(pay.subscriptions.len(), 1);
    assert!(
        pay.metadata.permissions.covers("kv:read") && pay.protected,
        "what listens is protected from the beginning"
    );
    let acme = bay.session("acme").unwrap();
    assert_eq!(names(&acme), ["now.say", "pay", "say"]);
    assert_eq!(acme.tools()[2].definition.parameters["properties"]["n"]["type"], json!("integer"));
    // The arguments are checked before anything is compiled.
    assert_eq!(acme.call("say", json!({ "n": "x" })).await.result.unwrap_err().kind, ErrorKind::InvalidArguments);
    assert_eq!((runner.loaded.load(SeqCst), state(&bay, "say")), (1, "at-first-use"));
    assert_eq!(outcome(&acme, "say", json!({ "n": 7 })).await, json!(7));
    assert_eq!(outcome(&acme, "say", json!({ "n": 8 })).await, json!(8));
    assert_eq!((runner.loaded.load(SeqCst), state(&bay, "say"), state(&bay, "pay")), (2, "ready", "at-first-use"));
    // A name that is taken is taken.
    let other = NativePlugin::new("say", "1.0.0", "Another").unwrap().tool(says("say", "x"));
    assert_eq!(bay.register(Scope::Global, other).await.unwrap_err().kind, ErrorKind::Conflict);
}

#[tokio::test]
async fn a_tool_called_like_its_plugin_and_a_declaration_behind_other_statements_are_found() {
    let source = "//! Says it.\nimport \"x\" as x;\nfn before() { let PLUGIN = `};${ #{ a: [1, (2)] } }`; PLUGIN }\nconst NAME = \"sa\" + `y`;\n\
                  const PLUGIN = #{ name: NAME, version: \"1.0.0\", auto_load: false,\n tools: #{ say: #{ description: \"};\" } } };\nthis is no script";
    let (bay, _) = counted(Toolbay::builder());
    let folder = folder(&[("say.rhai", source)]);
    let report = bay.load_folder(Scope::Global, folder.path()).await;
    assert!(report.failed.is_empty(), "{report}");
    let say = info(&bay, &Scope::Global, "say");
    assert_eq!((say.metadata.description.as_str(), say.metadata.version.to_string()), ("Says it.", "1.0.0".to_owned()));
}

/// A runner of the tests' own, whose plugins wait: each load takes what `turns` has of permits, and fails as `failing` says.
struct Slow {
    turns: Semaphore,
    loads: AtomicUsize,
    failing: AtomicUsize,
    kind: ErrorKind,
}

impl Slow {
    fn new(turns: usize, failing: usize, kind: ErrorKind) -> Arc<Self> {
        let (turns, failing) = (Semaphore::new(turns), AtomicUsize::new(failing));
        Arc::new(Self { turns, loads: AtomicUsize::new(0), failing, kind })
    }

    fn manifest() -> Manifest {
        let manifest = json!({ "name": "slow", "version": "1.0.0", "description": "Waits", "author": "x", "auto_load": false,
            "tools": { "say": { "description": "Says it" } } });
        Manifest::from_json(manifest).unwrap()
    }

    async fn bay(self: &Arc<Self>, limits: Limits) -> Toolbay {
        let all = Loading { code: CodeLoading::AtFirstUse, ..Loading::default() };
        let bay = Toolbay::builder().limits(limits).loading(all).runner(Arc::clone(self)).build().unwrap();
        let folder = folder(&[("slow.slow", "any")]);
        bay.load(Scope::Global, folder.path().join("slow.slow")).await.unwrap();
        bay
    }
}

#[async_trait]
impl Runner for Slow {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Wasm
    }

    fn one_file_extension(&self) -> Option<&'static str> {
        Some("slow")
    }

    async fn load(&self, _: &Package, _: &PluginContext) -> Result<Arc<dyn Plugin>, LoadError> {
        self.loads.fetch_add(1, SeqCst);
        self.turns.acquire().await.unwrap().forget();
        if self.failing.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() {
            return Err(LoadError::new(self.kind, "a detail that is the operator's")
                .in_file("slow.slow")
                .at(1, 1, "any"));
        }
        let plugin = NativePlugin::new("slow", "1.0.0", "Waits").unwrap().tool(says("say", "at last"));
        Ok(Arc::new(plugin.with(|metadata| *metadata = Self::manifest())))
    }

    async fn declare(&self, _: &Package, _: &PluginContext) -> Result<Option<Declared>, LoadError> {
        Ok(Some(Declared { manifest: Self::manifest(), callbacks: Vec::new() }))
    }
}

#[tokio::test]
async fn many_first_callers_at_once_have_the_code_compiled_once() {
    let runner = Slow::new(0, 0, ErrorKind::Compile);
    let bay = runner.bay(Limits::default()).await;
    let mut all = JoinSet::new();
    for number in 0..50 {
        let session = bay.session(format!("tenant-{number}")).unwrap();
        all.spawn(async move { outcome(&session, "slow.say", json!({})).await });
    }
    while bay.health(&Scope::Global)[0].calls_in_flight < 50 {
        tokio::task::yield_now().await;
    }
    runner.turns.add_permits(50);
    let all = all.join_all().await;
    assert!(all.iter().all(|said| *said == json!("at last")), "{all:?}");
    assert_eq!(runner.loads.load(SeqCst), 1);
}

#[tokio::test]
async fn a_first_caller_whose_time_is_up_leaves_the_compiling_to_the_next() {
    let runner = Slow::new(0, 0, ErrorKind::Compile);
    let bay = runner.bay(Limits { timeout: Duration::from_millis(20), ..Limits::default() }).await;
    let acme = bay.session("acme").unwrap();
    assert_eq!(acme.call("slow.say", json!({})).await.result.unwrap_err().kind, ErrorKind::TimedOut);
    runner.turns.add_permits(1);
    while state(&bay, "slow") != "ready" {
        tokio::task::yield_now().await;
    }
    assert_eq!(outcome(&acme, "slow.say", json!({})).await, json!("at last"));
    assert_eq!(runner.loads.load(SeqCst), 1);
}

#[tokio::test]
async fn code_that_could_not_be_had_for_now_is_tried_again_later_and_later() {
    let runner = Slow::new(100, 3, ErrorKind::Unavailable);
    let bay = runner.bay(Limits::default()).await;
    let acme = bay.session("acme").unwrap();
    let mut tries = Vec::new();
    tokio::time::pause();
    for wait in [0, 100, 899, 2, 1_000, 997, 10, 3_980, 20] {
        tokio::time::advance(Duration::from_millis(wait)).await;
        let result = acme.call("slow.say", json!({})).await.result;
        if let Err(error) = &result {
            assert_eq!((error.kind, error.retryable), (ErrorKind::Unavailable, true));
        }
        tries.push((runner.loads.load(SeqCst), result.is_ok()));
    }
    // After one second, then two, then four.
    let expected =
        [(1, false), (1, false), (1, false), (2, false), (2, false), (2, false), (3, false), (3, false), (4, true)];
    assert_eq!(tries, expected);
}

#[tokio::test]
async fn broken_code_is_told_to_the_operator_with_its_line_and_not_to_the_caller_nor_tried_again() {
    let (bay, runner) = counted(Toolbay::builder());
    let source = waiting("say", "fn say(args) { let password = ; }");
    let folder = folder(&[("say.rhai", &source)]);
    bay.load(Scope::Global, folder.path().join("say.rhai")).await.unwrap();
    let acme = bay.session("acme").unwrap();
    for _ in 0..5 {
        let error = acme.call("say", json!({})).await.result.unwrap_err();
        expect![
            "Unavailable: the plugin say could not be made ready for its first use; tell the operator, who can see why"
        ]
        .assert_eq(&error.to_string());
        assert!(!error.retryable);
        let detail = error.operator_detail().expect("the operator learns more").to_string();
        assert!(detail.starts_with("Compile: say.rhai:3:31: the script does not compile"), "{detail}");
    }
    assert_eq!(runner.loaded.load(SeqCst), 1, "what cannot succeed is not tried again");
    let CodeState::Failed(error) = info(&bay, &Scope::Global, "say").code else { panic!("it failed") };
    assert_eq!(error.position, Some((3, 31)));
    let health = bay.health(&Scope::Global).remove(0);
    assert!(!health.is_well(), "an operator who looks at the health sees it");
    // Mended, it is there.
    fs::write(folder.path().join("say.rhai"), waiting("say", "fn say(args) { 5 }")).unwrap();
    bay.reload(Scope::Global, folder.path().join("say.rhai"), ReloadOptions::default()).await.unwrap();
    assert_eq!(outcome(&bay.session("acme").unwrap(), "say", json!({})).await, json!(5));
}

#[tokio::test]
async fn one_broken_text_is_compiled_once_whosever_plugins_are_made_of_it() {
    let (bay, runner) = counted(Toolbay::builder());
    let folder = folder(&[("say.rhai", &waiting("say", "fn say(args) { let x = ; }"))]);
    for name in ["acme", "globex", "initech"] {
        bay.load(tenant(name), folder.path().join("say.rhai")).await.unwrap();
        let error = bay.session(name).unwrap().call("say", json!({})).await.result.unwrap_err();
        assert!(error.operator_detail().unwrap().to_string().contains("say.rhai:3:24"), "{error}");
    }
    assert_eq!(runner.loaded.load(SeqCst), 1);
}

#[tokio::test]
async fn plugins_of_one_text_share_one_compiled_script_whosever_they_are_and_however_they_load() {
    let runner = Arc::new(RhaiRunner::default());
    let bay = Toolbay::builder().runner(Arc::clone(&runner)).build().unwrap();
    let (lazy, other) = (waiting("say", "fn say(args) { 5 }"), waiting("say", "fn say(args) { 6 }"));
    let folder = folder(&[("say.rhai", &lazy), ("other/say.rhai", &other)]);
    let path = folder.path().join("say.rhai");
    for number in 0..20 {
        bay.load(tenant(&format!("lazy-{number}")), &path).await.unwrap();
        // From text, it is compiled when it is loaded.
        bay.load_source(tenant(&format!("eager-{number}")), "say.rhai", &lazy).await.unwrap();
    }
    assert_eq!((runner.scripts(), runner.compilations()), (1, 1));
    bay.load(Scope::Global, folder.path().join("other/say.rhai")).await.unwrap();
    for name in ["lazy-0", "lazy-1", "lazy-2", "eager-7"] {
        assert_eq!(outcome(&bay.session(name).unwrap(), "say", json!({})).await, json!(5));
    }
    assert_eq!((runner.scripts(), runner.compilations()), (1, 1), "one text, one script");
    assert_eq!(outcome(&bay.session("another").unwrap(), "say", json!({})).await, json!(6));
    assert_eq!((runner.scripts(), runner.compilations()), (2, 2));
    bay.unregister(&Scope::Global, &PluginName::new("say").unwrap()).await.unwrap();
    assert_eq!(runner.scripts(), 1, "and it lasts as long as a plugin holds it");
}

#[tokio::test]
async fn a_guard_and_what_begins_with_the_host_never_wait() {
    let (bay, runner) = counted(Toolbay::builder());
    let guard = with(
        "guard",
        "hooks: #{ before_tool_call: #{} },",
        "fn say(args) { 1 }\nfn before_tool_call(input) { #{ deny: \"no\" } }",
    );
    let broken = with(
        "blind",
        "hooks: #{ before_tool_call: #{} },",
        "fn say(args) { 1 }\nfn before_tool_call(input) { let x = ; }",
    );
    let begins = waiting("begins", "fn say(args) { 1 }\nfn on_start(cx) { throw \"not today\"; }");
    let folder = folder(&[("guard.rhai", &guard), ("blind.rhai", &broken), ("begins.rhai", &begins)]);
    let report = bay.load_folder(Scope::Global, folder.path()).await;
    assert_eq!(state(&bay, "guard"), "ready");
    let failed: Vec<_> = report.failed.iter().map(|failed| failed.error.to_string()).collect();
    assert!(failed[0].contains("blind.rhai:4:38") && failed[1].contains("on_start: not today"), "{failed:?}");
    assert_eq!(runner.loaded.load(SeqCst), 3);
    let error = bay.session("acme").unwrap().call("guard.say", json!({})).await.result.unwrap_err();
    assert_eq!(error.kind, ErrorKind::DeniedByHook);
}

#[tokio::test]
async fn what_is_declared_once_compiled_must_be_what_was_shown() {
    let (bay, _) = counted(Toolbay::builder());
    let hidden = with("say", "hooks: #{ before_tool_call: #{} },", "fn before_tool_call(input) {}");
    let source = format!("{}{}", waiting("say", "fn say(args) { 1 }"), hidden);
    let folder = folder(&[("say.rhai", &source)]);
    bay.load(Scope::Global, folder.path().join("say.rhai")).await.unwrap();
    let error = bay.session("acme").unwrap().call("say", json!({})).await.result.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    let detail = error.operator_detail().unwrap().to_string();
    assert!(detail.contains("declares something else than what was read of it"), "{detail}");
}

#[tokio::test]
async fn the_operator_has_the_last_word_on_what_waits() {
    let (waits, not) = (waiting("waits", "fn say(args) { 1 }"), waiting("not", "fn say(args) { 1 }"));
    let folder = folder(&[("waits.rhai", &waits), ("not.rhai", &not.replace("auto_load: false,", ""))]);
    let named = |name: &str, at_once| HashMap::from([(PluginName::new(name).unwrap(), at_once)]);
    for (code, plugins, expected) in [
        (CodeLoading::AsDeclared, HashMap::new(), ["ready", "at-first-use"]),
        (CodeLoading::AtOnce, HashMap::new(), ["ready", "ready"]),
        (CodeLoading::AtFirstUse, HashMap::new(), ["at-first-use", "at-first-use"]),
        (CodeLoading::AtFirstUse, named("not", true), ["ready", "at-first-use"]),
        (CodeLoading::AtOnce, named("not", false), ["at-first-use", "ready"]),
        (CodeLoading::AsDeclared, named("waits", true), ["ready", "ready"]),
        (CodeLoading::AsDeclared, named("not", false), ["at-first-use", "at-first-use"]),
    ] {
        let (bay, _) = counted(Toolbay::builder().loading(Loading { code, plugins: plugins.clone() }));
        bay.load_folder(Scope::Global, folder.path()).await;
        assert_eq!(["not", "waits"].map(|name| state(&bay, name)), expected, "{code:?} {plugins:?}");
        // Tenants choose the names of theirs.
        bay.load_folder(tenant("acme"), folder.path()).await;
        let own = ["not", "waits"].map(|name| info(&bay, &tenant("acme"), name).code.name());
        let general = match code {
            CodeLoading::AsDeclared => ["ready", "at-first-use"],
            CodeLoading::AtOnce => ["ready", "ready"],
            CodeLoading::AtFirstUse => ["at-first-use", "at-first-use"],
        };
        assert_eq!(own, general, "{code:?} {plugins:?}");
    }
}

#[tokio::test]
async fn whoever_looks_for_mistakes_sees_them_at_once() {
    let all = Loading { code: CodeLoading::AtFirstUse, ..Loading::default() };
    let (bay, _) = counted(Toolbay::builder().loading(all));
    let broken = waiting("say", "fn say(args) { let x = ; }");
    let folder = folder(&[("say.rhai", &broken)]);
    let path = folder.path().join("say.rhai");
    assert_eq!(bay.check(Scope::Global, &path).await.unwrap_err().kind, ErrorKind::Compile);
    let report = bay.sync(Scope::Global, folder.path(), ReloadOptions::default()).await;
    assert_eq!(report.failed[0].error.kind, ErrorKind::Compile, "{report}");
    fs::write(&path, waiting("say", "fn say(args) { 5 }")).unwrap();
    bay.load(Scope::Global, &path).await.unwrap();
    assert_eq!(state(&bay, "say"), "at-first-use");
    let report = bay.sync(Scope::Global, folder.path(), ReloadOptions::default()).await;
    assert_eq!((report.unchanged, state(&bay, "say")), (1, "at-first-use"), "to look is not to need");
    fs::write(&path, &broken).unwrap();
    assert_eq!(bay.reload(Scope::Global, &path, ReloadOptions::default()).await.unwrap_err().kind, ErrorKind::Compile);
    assert_eq!(outcome(&bay.session("acme").unwrap(), "say", json!({})).await, json!(5), "the old one goes on");
}

#[tokio::test]
async fn what_can_be_told_without_the_code_is_refused_when_it_is_found() {
    let all = Loading { code: CodeLoading::AtFirstUse, ..Loading::default() };
    let builder = Toolbay::builder().loading(all).limits(Limits { max_source_bytes: 4_000, ..Limits::default() });
    let (bay, runner) = counted(builder);
    let good = waiting("say", "fn say(args) { 1 }");
    let deep = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    for (text, kind, words) in [
        (good.replace("type: \"integer\"", "type: \"nubmer\""), ErrorKind::Config, "is no type of JSON Schema"),
        (good.replace("description: \"Says it\",", "description: \"\","), ErrorKind::Config, "must not be empty"),
        (good.replace("say: #{", "\"say it\": #{"), ErrorKind::Config, "not allowed"),
        (good.replace("auto_load", "autoload"), ErrorKind::Config, "did you mean auto_load?"),
        (good.replace("name: \"say\"", "name: \"say\" + f()"), ErrorKind::Config, "is computed"),
        (good.replace("name: \"say\"", &format!("name: {deep}")), ErrorKind::Compile, "exceeds"),
        (good.replace("const PLUGIN", "const PLUGUN"), ErrorKind::Config, "does not declare its plugin"),
        (good.replace("};\n", ""), ErrorKind::Compile, "does not compile"),
    ] {
        let folder = folder(&[("say.rhai", &text)]);
        let error = bay.load(Scope::Global, folder.path().join("say.rhai")).await.expect_err(&text);
        assert!(error.kind == kind && error.to_string().contains(words), "{error}\n{text}");
    }
    let long = format!("{good}/* {} */", "x".repeat(4_000));
    let folder = folder(&[("say.rhai", &long)]);
    let error = bay.load(Scope::Global, folder.path().join("say.rhai")).await.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::LimitExceeded { .. }), "{error}");
    assert_eq!(runner.loaded.load(SeqCst), 0);
}

#[tokio::test]
async fn the_first_event_and_the_first_callback_have_the_code_compiled_too() {
    let code = "fn say(args) { 1 }\nfn heard(event) { \"heard \" + event.name }\n\
                fn on_tenant_enabled(cx) { if cx.tenant == \"banned\" { throw \"not you\"; } }\n\
                fn on_stop(cx) { throw \"it is over\"; }";
    let (bay, runner) = counted(Toolbay::builder());
    let source = with(
        "say",
        "permissions: [\"event:listen:order.paid\"], events: #{ \"order.paid\": #{ function: \"heard\" } },",
        code,
    );
    let folder = folder(&[
        ("say.rhai", &source),
        ("quiet.rhai", &waiting("quiet", "fn say(args) { 1 }\nfn on_stop(cx) { throw \"oh\"; }")),
    ]);
    let report = bay.load_folder(tenant("acme"), folder.path()).await;
    assert!(report.failed.is_empty(), "{report}");
    bay.check_health().await;
    assert_eq!(runner.loaded.load(SeqCst), 0, "nobody needs the code of a plugin that has no such callback");
    let acme = TenantId::new("acme").unwrap();
    let heard =
        bay.publish_and_wait(&Scope::Tenant(acme), "order.paid", json!({}), Duration::from_secs(5)).await.unwrap();
    let expect = expect![[
        r#"[Delivery { plugin: "say", scope: Tenant("acme"), outcome: Handled(String("heard order.paid")) }]"#
    ]];
    expect.assert_eq(&format!("{heard:?}"));
    assert_eq!(runner.loaded.load(SeqCst), 1);
    let report = bay.shutdown(Duration::from_secs(5)).await.to_string();
    assert!(report.contains("it is over"), "a plugin that ran is stopped: {report}");
    assert!(!report.contains("oh") && runner.loaded.load(SeqCst) == 1, "nothing of the other one ever ran: {report}");
}

#[tokio::test]
async fn a_plugin_that_a_tenant_switches_on_is_compiled_for_its_callback_or_stays_off() {
    let (bay, runner) = counted(Toolbay::builder().enabled_by_default(PluginName::new("say").unwrap(), false));
    let folder = folder(&[("say.rhai", &waiting("say", "fn say(args) { 1 }\nfn on_tenant_enabled(cx) { let x = ; }"))]);
    bay.load_folder(Scope::Global, folder.path()).await;
    let (acme, say) = (TenantId::new("acme").unwrap(), PluginName::new("say").unwrap());
    assert_eq!(bay.enable(&acme, &say).await.unwrap_err().kind, ErrorKind::Unavailable);
    assert!(bay.session("acme").unwrap().tools().is_empty());
    assert_eq!(runner.loaded.load(SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_worker_processes_the_declaration_is_read_there_and_the_code_waits_alike() {
    let program = WorkerProgram::Path(toolbay_command());
    let workers = WorkerRunner::new(WorkerConfig { program, ..WorkerConfig::default() }).expect("workers");
    let bay = Toolbay::builder().runner(workers.clone()).build().unwrap();
    let manifest = "name = \"pay\"\nversion = \"1.0.0\"\ndescription = \"Pays\"\nauthor = \"Acme\"\nauto_load = false\n[tools.pay]\ndescription = \"Pays\"\n";
    let files = [
        ("folders/pay/plugin.toml", manifest),
        ("folders/pay/main.rhai", "fn pay(args) { 3 }"),
        ("files/say.rhai", &waiting("say", "fn say(args) { args.n }")),
        ("files/broken.rhai", &waiting("broken", "fn say(args) { let x = ; }")),
        ("files/never.rhai", "const PLUGIN = #{ name: f(), auto_load: false };"),
    ];
    let folder = folder(&files);
    let report = bay.load_folder(tenant("acme"), folder.path().join("folders")).await;
    assert!(
        report.failed.is_empty() && workers.workers().is_empty(),
        "a manifest that says all needs no worker: {report}"
    );
    let report = bay.load_folder(tenant("acme"), folder.path().join("files")).await;
    let failed: Vec<_> = report.failed.iter().map(|failed| failed.error.to_string()).collect();
    assert!(failed.len() == 1 && failed[0].contains("is computed"), "{failed:?}");
    let acme = bay.session("acme").unwrap();
    assert_eq!(names(&acme), ["broken.say", "pay", "say"]);
    assert_eq!(outcome(&acme, "say", json!({ "n": 4 })).await, json!(4));
    assert_eq!(outcome(&acme, "pay", json!({})).await, json!(3));
    let error = acme.call("broken.say", json!({})).await.result.unwrap_err();
    assert!(error.operator_detail().unwrap().to_string().contains("broken.rhai:3:24"), "{error:?}");
}
