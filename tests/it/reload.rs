//! Hot reload: what callers of the old version keep, what refuses the new one, and folders taken over anew.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use expect_test::{Expect, expect};
use serde_json::{Value, json};
use toolbay::{
    CallbackContext, ErrorKind, Hook, HookContext, HookPoint, HookRegistration, LoadError, Package, PermissionSet,
    Plugin, PluginContext, PluginMetadata, PluginName, Quota, RegisterOptions, ReloadOptions, Runner, RuntimeKind,
    Scope, Session, Tool, ToolCall, ToolContext, ToolDefinition, ToolError, ToolOutput, Toolbay,
    hook::{AfterToolCall, AfterToolCallOutcome, HookResult},
    plugin::NativePlugin,
    tool,
};

use crate::support::{Nothing, folder, names, outcome, tenant};

const STRICT: ReloadOptions = ReloadOptions { allow_breaking: false };
const FORCED: ReloadOptions = ReloadOptions { allow_breaking: true };

/// A one-file plugin with a tool `say` that says `text`; `more` stands in its PLUGIN constant.
fn script(name: &str, version: &str, text: &str, more: &str) -> String {
    format!(
        r#"const PLUGIN = #{{ name: "{name}", version: "{version}", description: "A test's", author: "Acme", {more}
               tools: #{{ say: #{{ description: "Says it", parameters: #{{ type: "object" }} }} }} }};
           fn say(args) {{ "{text}" }}"#
    )
}

fn bay() -> Toolbay {
    toolbay::builder().grants(PermissionSet::standard()).build().unwrap()
}

fn write(folder: &Path, file: &str, content: &str) {
    fs::write(folder.join(file), content).unwrap();
}

/// Takes `folder` over and gives the report, with the test's folder left out.
async fn sync(bay: &Toolbay, folder: &Path) -> String {
    let report = bay.sync(Scope::Global, folder, STRICT).await;
    let unchanged = report.unchanged;
    format!("{report}unchanged: {unchanged}\n").replace(&format!("{}/", folder.display()), "")
}

#[tokio::test]
async fn a_file_that_is_saved_anew_takes_the_place_of_the_old_one() {
    let (bay, folder) = (bay(), folder(&[("a.rhai", &script("a", "1.0.0", "one", ""))]));
    let path = folder.path().join("a.rhai");
    bay.load(Scope::Global, &path).await.unwrap();
    let session = bay.session("acme").unwrap();
    assert_eq!(outcome(&session, "a.say", json!({})).await, json!("one"));
    write(folder.path(), "a.rhai", &script("a", "1.1.0", "two", ""));
    let reloaded = bay.reload(Scope::Global, &path, STRICT).await.unwrap();
    assert_eq!((reloaded.generation, reloaded.upgrade.to_string().as_str()), (2, "a 1.0.0 → 1.1.0 (global)"));
    assert_eq!(outcome(&session, "a.say", json!({})).await, json!("two"));
    // The same file again is no new generation.
    assert_eq!(bay.reload(Scope::Global, &path, STRICT).await.unwrap().generation, 2);
    assert_eq!(bay.plugins(&Scope::Global)[0].generation, 2);
}

#[tokio::test]
async fn a_new_version_that_does_not_come_up_leaves_the_old_one_at_work() {
    let bay = bay();
    bay.load_source(Scope::Global, "a.rhai", &script("a", "1.0.0", "one", "")).await.unwrap();
    let session = bay.session("acme").unwrap();
    let on_load = format!("{}\nfn on_load(cx) {{ throw \"no\"; }}", script("a", "2.0.0", "two", ""));
    let on_start = format!("{}\nfn on_start(cx) {{ throw \"no\"; }}", script("a", "2.0.0", "two", ""));
    let cases = [
        ("broken", "const PLUGIN = #{".to_owned()),
        ("on_load", on_load),
        ("on_start", on_start),
        ("needs", script("a", "2.0.0", "two", r#"requires: [#{ name: "b", version: "1" }],"#)),
        ("stranger", script("other", "1.0.0", "two", "")),
    ];
    let mut text = String::new();
    for (what, source) in cases {
        let error = bay.reload_source(Scope::Global, "a.rhai", &source, STRICT).await.unwrap_err();
        let first = error.to_string().lines().next().unwrap_or_default().to_owned();
        let _ = writeln!(text, "{what}: {first}");
        assert_eq!(outcome(&session, "a.say", json!({})).await, json!("one"), "{what}");
    }
    expect![[r#"
        broken: Compile: a.rhai:1:18: the script does not compile: Expecting '}' to end this object map literal
        on_load: Script: a.rhai: on_load: no: a.rhai:4:18: threw "no"
        on_start: Script: a.rhai: on_start: no: a.rhai:4:19: threw "no"
        needs: Dependency: a.rhai: needs the plugin b ^1, and it is not registered
        stranger: NotFound: a.rhai: no plugin called other is registered in global: load it first
    "#]]
    .assert_eq(&text);
    assert_eq!(bay.plugins(&Scope::Global)[0].generation, 1);
}

/// A plugin that writes its life down and whose tools and hook say which version they are of.
struct Versioned {
    inner: NativePlugin,
    life: Arc<Mutex<Vec<String>>>,
}

impl Versioned {
    fn new(version: usize, life: &Arc<Mutex<Vec<String>>>) -> Arc<Self> {
        let says =
            |name: &str| tool(name, "Says the version", move |_: Nothing, _: ToolContext| async move { Ok(version) });
        let inner = NativePlugin::new("v", &format!("{version}.0.0"), "A test's")
            .unwrap()
            .tool(says("first"))
            .tool(says("second"))
            .hook(HookRegistration::new("stamp", [HookPoint::AfterToolCall], Stamp(version)));
        Arc::new(Self { inner, life: Arc::clone(life) })
    }

    fn note(&self, what: &str) {
        self.life.lock().unwrap().push(format!("{what} {}", self.inner.metadata().version.major));
    }
}

#[async_trait]
impl Plugin for Versioned {
    fn metadata(&self) -> &PluginMetadata {
        self.inner.metadata()
    }

    fn tools(&self) -> Vec<Arc<dyn Tool>> {
        self.inner.tools()
    }

    fn hooks(&self) -> Vec<HookRegistration> {
        self.inner.hooks()
    }

    async fn on_start(&self, _: &CallbackContext) -> Result<(), ToolError> {
        self.note("start");
        Ok(())
    }

    async fn on_stop(&self, _: &CallbackContext) -> Result<(), ToolError> {
        self.note("stop");
        Ok(())
    }
}

/// Puts the version beside every result.
struct Stamp(usize);

#[async_trait]
impl Hook for Stamp {
    async fn after_tool_call(&self, input: &AfterToolCall, _: &HookContext<'_>) -> HookResult<AfterToolCallOutcome> {
        let stamped = input.result.clone().map(|output| ToolOutput::new(json!([output.data, self.0])));
        Ok(AfterToolCallOutcome::Replace(stamped))
    }
}

async fn say(run: &toolbay::Run, name: &str) -> Value {
    let call = ToolCall { id: "1".into(), name: name.to_owned(), arguments: json!({}) };
    run.call(0, call).await.result.map_or_else(|error| json!(error.to_string()), |output| output.data)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_calls_through_a_hundred_reloads_lose_none_and_see_no_mixture() {
    const RELOADS: usize = 100;
    let life = Arc::new(Mutex::new(Vec::new()));
    let bay = Toolbay::builder().quota(Quota { max_calls_per_minute: u32::MAX, ..Quota::default() }).build().unwrap();
    bay.register_with(Scope::Global, Versioned::new(1, &life), RegisterOptions::default()).await.unwrap();
    let (over, runs) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (session, over, runs) = (bay.session("acme").unwrap(), Arc::clone(&over), Arc::clone(&runs));
            tokio::spawn(async move {
                let mut seen = Vec::new();
                loop {
                    let is_last = over.load(Ordering::SeqCst) && runs.load(Ordering::SeqCst) >= 1_000;
                    let run = session.run();
                    let first = say(&run, "v.first").await;
                    // So that a run lies on both sides of reloads.
                    tokio::task::yield_now().await;
                    let second = say(&run, "v.second").await;
                    // Tool, hook and both calls are of one version, and none failed.
                    let version = first[0].as_u64().unwrap_or_else(|| panic!("a call was lost: {first}"));
                    assert_eq!((&first, &second), (&json!([version, version]), &json!([version, version])));
                    seen.push(version);
                    runs.fetch_add(1, Ordering::SeqCst);
                    if is_last {
                        return seen;
                    }
                }
            })
        })
        .collect();
    for version in 2..=RELOADS + 1 {
        let next = Versioned::new(version, &life);
        let reloaded = bay.replace(Scope::Global, next, RegisterOptions::default(), STRICT).await.unwrap();
        assert_eq!(reloaded.generation, version as u64);
        tokio::task::yield_now().await;
    }
    over.store(true, Ordering::SeqCst);
    let mut versions = Vec::new();
    for caller in callers {
        let seen = caller.await.unwrap();
        assert!(seen.is_sorted(), "a later run saw an earlier version");
        versions.extend(seen);
    }
    assert!(versions.len() >= 1_000);
    assert!(versions.contains(&(RELOADS as u64 + 1)));
    bay.shutdown(std::time::Duration::from_secs(10)).await;
    // Every version started once, and stopped once after that.
    let life = life.lock().unwrap();
    for version in 1..=RELOADS + 1 {
        let of = |what: &str| life.iter().filter(|line| **line == format!("{what} {version}")).count();
        assert_eq!((of("start"), of("stop")), (1, 1), "version {version}");
    }
}

#[tokio::test]
async fn the_old_version_is_stopped_when_the_last_run_that_began_with_it_ends() {
    let life = Arc::new(Mutex::new(Vec::new()));
    let bay = Toolbay::builder().build().unwrap();
    bay.register_with(Scope::Global, Versioned::new(1, &life), RegisterOptions::default()).await.unwrap();
    let run = bay.session("acme").unwrap().run();
    bay.replace(Scope::Global, Versioned::new(2, &life), RegisterOptions::default(), STRICT).await.unwrap();
    assert_eq!(say(&run, "v.first").await, json!([1, 1]));
    assert_eq!(*life.lock().unwrap(), ["start 1", "start 2"]);
    drop(run);
    while !life.lock().unwrap().contains(&"stop 1".to_owned()) {
        tokio::task::yield_now().await;
    }
    assert_eq!(outcome(&bay.session("acme").unwrap(), "v.first", json!({})).await, json!([2, 2]));
}

/// What replacing a tool with these parameters and result by another is told to change.
async fn upgrade(old: (Value, Option<Value>), new: (Value, Option<Value>), expected: Expect) {
    let plugin = |version: &str, (parameters, output): (Value, Option<Value>)| {
        let mut definition = ToolDefinition::new("t", "A test's", parameters).unwrap();
        definition.output = output;
        Arc::new(NativePlugin::new("p", version, "A test's").unwrap().tool(Fixed(definition)))
    };
    let bay = Toolbay::builder().build().unwrap();
    bay.register_with(Scope::Global, plugin("1.0.0", old), RegisterOptions::default()).await.unwrap();
    let new = plugin("2.0.0", new);
    let options = RegisterOptions::default();
    let refused = bay.replace(Scope::Global, new.clone(), options.clone(), STRICT).await.err();
    let forced = if refused.is_some() { bay.replace(Scope::Global, new, options, FORCED).await.ok() } else { None };
    let refused = refused.map_or_else(|| "taken".to_owned(), |error| error.to_string());
    let forced = forced.map_or_else(String::new, |reloaded| format!("\n{}", reloaded.upgrade));
    expected.assert_eq(&format!("{refused}{forced}"));
}

struct Fixed(ToolDefinition);

#[async_trait]
impl Tool for Fixed {
    fn definition(&self) -> &ToolDefinition {
        &self.0
    }

    async fn call(&self, _: Value, _: &ToolContext) -> Result<ToolOutput, ToolError> {
        Ok(ToolOutput::new(json!({})))
    }
}

#[tokio::test]
async fn what_would_break_callers_is_refused_by_name_unless_it_is_forced() {
    let object = |properties: Value, required: Value| json!({ "type": "object", "properties": properties, "required": required });
    upgrade(
        (
            object(json!({ "a": { "type": "string" }, "b": { "type": "integer" }, "gone": {} }), json!(["a"])),
            Some(object(json!({ "x": { "type": "string" }, "y": {} }), json!(["x", "y"]))),
        ),
        (
            object(
                json!({ "a": { "type": "integer" }, "b": { "type": "number", "maximum": 9 }, "new": {} }),
                json!(["a", "new"]),
            ),
            Some(object(json!({ "x": { "type": ["string", "null"] } }), json!([]))),
        ),
        expect![[r#"
            Conflict: would break those who call its tools: p.t: /a of the arguments was string and is integer; p.t: `maximum` of /b of the arguments differs; p.t: /gone of the arguments is gone; p.t: /new of the arguments must be given; p.t: /x of the result was string and is null or string (and 2 more); keep what they rely on, or allow it
            p 1.0.0 → 2.0.0 (global)
              breaking: p.t: /a of the arguments was string and is integer
              p.t: /b of the arguments was integer and is number
              breaking: p.t: `maximum` of /b of the arguments differs
              breaking: p.t: /gone of the arguments is gone
              p.t: /new of the arguments is new
              breaking: p.t: /new of the arguments must be given
              breaking: p.t: /x of the result was string and is null or string
              breaking: p.t: /y of the result is gone
              breaking: p.t: /x of the result may be missing"#]],
    )
    .await;
}

#[tokio::test]
async fn what_breaks_nobody_is_taken() {
    let old = json!({ "type": "object", "required": ["unit", "n"], "additionalProperties": false, "properties": {
        "unit": { "enum": ["c", "f"] }, "n": { "type": "integer", "minimum": 0, "maxLength": 3 },
        "list": { "type": "array", "items": { "type": "object", "properties": { "id": { "type": "string" } } } } } });
    let new = json!({ "type": "object", "required": ["unit"], "properties": {
        "unit": { "enum": ["c", "f", "k"], "description": "The unit" }, "n": { "type": "number", "minimum": -5 },
        "list": { "type": "array", "items": { "type": "object", "properties": { "id": { "type": "string" },
            "more": { "type": "string" } } } } } });
    upgrade((old, None), (new, Some(json!({ "type": "object" }))), expect!["taken"]).await;
}

#[tokio::test]
async fn a_schema_that_refers_to_itself_is_compared_to_its_end() {
    let tree = |leaf: &str| {
        json!({ "type": "object", "$defs": { "node": { "type": "object", "properties": {
            "children": { "type": "array", "items": { "$ref": "#/$defs/node" } }, "value": { "type": leaf } } } },
            "properties": { "root": { "$ref": "#/$defs/node" } } })
    };
    upgrade((tree("string"), None), (tree("string"), None), expect!["taken"]).await;
    upgrade((tree("string"), None), (tree("integer"), None), expect![[r#"
        Conflict: would break those who call its tools: p.t: /root/value of the arguments was string and is integer; keep what they rely on, or allow it
        p 1.0.0 → 2.0.0 (global)
          breaking: p.t: /root/value of the arguments was string and is integer"#]])
    .await;
}

#[tokio::test]
async fn an_upgrade_tells_what_it_asks_for_beyond_the_old_version_before_anything_of_it_is_called() {
    let bay = bay();
    bay.load_source(Scope::Global, "a.rhai", &script("a", "1.0.0", "one", r#"permissions: ["kv:*"],"#)).await.unwrap();
    let new = script("a", "2.0.0", "two", r#"permissions: ["kv:read", "http:GET:api.example.com"],"#);
    let folder = folder(&[("a.rhai", &format!("{new}\nfn on_load(cx) {{ throw \"called\"; }}"))]);
    let upgrade = bay.compare(Scope::Global, folder.path().join("a.rhai")).await.unwrap();
    assert_eq!(upgrade.to_string(), "a 1.0.0 → 2.0.0 (global)\n  asks for more: http:GET:api.example.com");
}

#[tokio::test]
async fn a_version_that_others_do_not_take_is_refused_unless_they_change_with_it() {
    let requires = |range: &str| format!("requires: [#{{ name: \"a\", version: \"{range}\" }}],");
    let (bay, folder) = (
        bay(),
        folder(&[
            ("a.rhai", &script("a", "1.0.0", "a1", "")),
            ("b.rhai", &script("b", "1.0.0", "b1", &requires("^1"))),
        ]),
    );
    expect![[r#"
        loaded  a 1.0.0 (global): 1 tool, 0 hooks
        loaded  b 1.0.0 (global): 1 tool, 0 hooks
        unchanged: 0
    "#]]
    .assert_eq(&sync(&bay, folder.path()).await);
    write(folder.path(), "a.rhai", &script("a", "2.0.0", "a2", ""));
    expect![[r#"
        failed  a.rhai (global): Dependency: a.rhai: the plugin b (global) needs ^1 of it, and this is 2.0.0
        unchanged: 1
    "#]]
    .assert_eq(&sync(&bay, folder.path()).await);
    write(folder.path(), "b.rhai", &script("b", "2.0.0", "b2", &requires("^2")));
    expect![[r#"
        reloaded a 1.0.0 → 2.0.0 (global)
        reloaded b 1.0.0 → 2.0.0 (global)
        unchanged: 0
    "#]]
    .assert_eq(&sync(&bay, folder.path()).await);
    let session = bay.session("acme").unwrap();
    assert_eq!(outcome(&session, "b.say", json!({})).await, json!("b2"));
}

#[tokio::test]
async fn a_service_that_others_need_is_lent_by_the_new_version_too() {
    let lender = |lends: bool| {
        let plugin = NativePlugin::new("lender", "1.0.0", "A test's").unwrap();
        let service = toolbay::service("db", 7_u32).unwrap().public();
        Arc::new(if lends { plugin.service(service) } else { plugin })
    };
    let bay = Toolbay::builder().grants(PermissionSet::all()).build().unwrap();
    let options = RegisterOptions::default;
    bay.register_with(Scope::Global, lender(true), options()).await.unwrap();
    let needs = NativePlugin::new("needs", "1.0.0", "A test's").unwrap();
    let needs = needs.with(|metadata| metadata.requires_services.push(toolbay::ServiceName::new("db").unwrap()));
    bay.register(Scope::Global, needs).await.unwrap();
    let error = bay.replace(Scope::Global, lender(false), options(), FORCED).await.unwrap_err();
    assert_eq!(error.to_string(), "Dependency: the plugin needs (global) needs the service db, and no plugin lends it");
    assert_eq!(bay.replace(Scope::Global, lender(true), options(), STRICT).await.unwrap().generation, 2);
}

#[tokio::test]
async fn a_folder_taken_over_anew_is_what_lies_there() {
    let (bay, folder) = (
        bay(),
        folder(&[
            ("gone.rhai", &script("gone", "1.0.0", "gone", "")),
            ("kept.rhai", &script("kept", "1.0.0", "kept", "")),
            ("moved.rhai", &script("moved", "1.0.0", "moved", "")),
            ("broken.rhai", &script("broken", "1.0.0", "works", "")),
            ("renamed.rhai", &script("before", "1.0.0", "before", "")),
        ]),
    );
    // What the host registers by itself is none of the folder's.
    bay.register(Scope::Global, NativePlugin::new("native", "1.0.0", "A test's").unwrap()).await.unwrap();
    sync(&bay, folder.path()).await;
    fs::remove_file(folder.path().join("gone.rhai")).unwrap();
    fs::rename(folder.path().join("moved.rhai"), folder.path().join("there.rhai")).unwrap();
    write(folder.path(), "broken.rhai", "const PLUGIN = #{");
    write(folder.path(), "renamed.rhai", &script("after", "1.0.0", "after", ""));
    write(folder.path(), "new.rhai", &script("new", "1.0.0", "new", ""));
    expect![[r#"
        reloaded moved 1.0.0 → 1.0.0 (global)
        removed before
        removed gone
        loaded  after 1.0.0 (global): 1 tool, 0 hooks
        loaded  new 1.0.0 (global): 1 tool, 0 hooks
        failed  broken.rhai (global): Compile: broken.rhai:1:18: the script does not compile: Expecting '}' to end this object map literal
          1 | const PLUGIN = #{
            |                  ^
        unchanged: 1
    "#]]
    .assert_eq(&sync(&bay, folder.path()).await);
    let session = bay.session("acme").unwrap();
    assert_eq!(names(&session), ["after.say", "broken.say", "kept.say", "moved.say", "new.say"]);
    assert_eq!(outcome(&session, "broken.say", json!({})).await, json!("works"));
}

#[tokio::test]
async fn what_others_require_stays_though_its_file_is_gone_and_goes_with_them() {
    let (bay, folder) = (
        bay(),
        folder(&[
            ("a.rhai", &script("a", "1.0.0", "a", "")),
            ("b.rhai", &script("b", "1.0.0", "b", r#"requires: [#{ name: "a", version: "1" }],"#)),
        ]),
    );
    sync(&bay, folder.path()).await;
    fs::remove_file(folder.path().join("a.rhai")).unwrap();
    expect![[r#"
        failed  a (global): Dependency: its file is gone, and it stays: the plugin a is required by b (global): unregister those first, or all together
        unchanged: 1
    "#]]
    .assert_eq(&sync(&bay, folder.path()).await);
    fs::remove_file(folder.path().join("b.rhai")).unwrap();
    expect![[r#"
        removed b
        removed a
        unchanged: 0
    "#]]
    .assert_eq(&sync(&bay, folder.path()).await);
}

#[tokio::test]
async fn a_tenants_reload_touches_no_other_tenants_plugin_of_the_name() {
    let bay = bay();
    for scope in [tenant("acme"), tenant("globex")] {
        bay.load_source(scope, "a.rhai", &script("a", "1.0.0", "one", "")).await.unwrap();
    }
    let sessions: Vec<Session> = ["acme", "globex"].map(|name| bay.session(name).unwrap()).into();
    bay.reload_source(tenant("acme"), "a.rhai", &script("a", "2.0.0", "two", ""), STRICT).await.unwrap();
    assert_eq!(outcome(&sessions[0], "a.say", json!({})).await, json!("two"));
    assert_eq!(outcome(&sessions[1], "a.say", json!({})).await, json!("one"));
    let nobodys = bay.reload_source(Scope::Global, "a.rhai", &script("a", "2.0.0", "two", ""), STRICT).await;
    assert_eq!(nobodys.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn plugins_that_would_come_to_require_each_other_stay_as_they_are() {
    let requires = |name: &str| format!("requires: [#{{ name: \"{name}\", version: \"1\" }}],");
    let bay = bay();
    bay.load_source(Scope::Global, "b.rhai", &script("b", "1.0.0", "b", "")).await.unwrap();
    bay.load_source(Scope::Global, "a.rhai", &script("a", "1.0.0", "a", &requires("b"))).await.unwrap();
    let new = script("b", "1.1.0", "b", &requires("a"));
    let error = bay.reload_source(Scope::Global, "b.rhai", &new, STRICT).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "Dependency: b.rhai: plugins would require each other: a, b; take one of the requirements away"
    );
    // Each can still go, after those that require it.
    let gone = bay.unregister_with_dependants(&Scope::Global, &"b".parse().unwrap()).await.unwrap();
    assert_eq!(gone.iter().map(|(_, name)| name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test]
async fn a_tenant_that_has_a_plugin_of_its_own_in_the_place_of_another_does_not_hold_that_one_back() {
    let bay = bay();
    bay.load_source(Scope::Global, "fx.rhai", &script("fx", "1.0.0", "one", "")).await.unwrap();
    let needs = script("p", "1.0.0", "p", r#"requires: [#{ name: "fx", version: "1" }],"#);
    bay.load_source(tenant("acme"), "p.rhai", &needs).await.unwrap();
    bay.load_source(tenant("acme"), "fx.rhai", &script("fx", "2.0.0", "acme's", "")).await.unwrap();
    bay.reload_source(Scope::Global, "fx.rhai", &script("fx", "1.1.0", "two", ""), STRICT).await.unwrap();
    assert_eq!(outcome(&bay.session("globex").unwrap(), "fx.say", json!({})).await, json!("two"));
}

#[tokio::test]
async fn what_stands_behind_a_reference_counts_wherever_the_reference_stands() {
    let behind = |kind: &str, word: &str| {
        json!({ "type": "object", "$defs": { "unit": { "type": kind } },
            "properties": { "u": { word: [{ "$ref": "#/$defs/unit" }, { "type": "null" }] } } })
    };
    upgrade((behind("string", "anyOf"), None), (behind("string", "anyOf"), None), expect!["taken"]).await;
    upgrade((behind("string", "anyOf"), None), (behind("integer", "anyOf"), None), expect![[r#"
        Conflict: would break those who call its tools: p.t: `anyOf` of /u of the arguments differs; keep what they rely on, or allow it
        p 1.0.0 → 2.0.0 (global)
          breaking: p.t: `anyOf` of /u of the arguments differs"#]])
    .await;
    // By an anchor instead of a path, and with words beside the reference.
    let anchored = |kind: &str| {
        json!({ "type": "object", "$defs": { "unit": { "$anchor": "unit", "type": kind } },
            "properties": { "u": { "$ref": "#unit" } } })
    };
    upgrade((anchored("string"), None), (anchored("integer"), None), expect![[r#"
        Conflict: would break those who call its tools: p.t: `$ref` of /u of the arguments differs; keep what they rely on, or allow it
        p 1.0.0 → 2.0.0 (global)
          breaking: p.t: `$ref` of /u of the arguments differs"#]])
    .await;
    let beside = |max: u32| {
        json!({ "type": "object", "$defs": { "unit": { "type": "string" } },
            "properties": { "u": { "$ref": "#/$defs/unit", "description": format!("at most {max}"), "maxLength": max } } })
    };
    upgrade((beside(9), None), (beside(9), None), expect!["taken"]).await;
    upgrade((beside(9), None), (beside(3), None), expect![[r#"
        Conflict: would break those who call its tools: p.t: `maxLength` of /u of the arguments differs; keep what they rely on, or allow it
        p 1.0.0 → 2.0.0 (global)
          breaking: p.t: `maxLength` of /u of the arguments differs"#]])
    .await;
}

#[tokio::test]
async fn the_fields_that_a_result_does_not_name_have_a_type_too() {
    let rates = |kind: &str| Some(json!({ "type": "object", "additionalProperties": { "type": kind } }));
    let none = || json!({ "type": "object" });
    upgrade((none(), rates("number")), (none(), rates("string")), expect![[r#"
        Conflict: would break those who call its tools: p.t: /* of the result was number and is string; keep what they rely on, or allow it
        p 1.0.0 → 2.0.0 (global)
          breaking: p.t: /* of the result was number and is string"#]])
    .await;
    upgrade((none(), rates("number")), (none(), Some(none())), expect![[r#"
        Conflict: would break those who call its tools: p.t: other fields of / of the result are not as before; keep what they rely on, or allow it
        p 1.0.0 → 2.0.0 (global)
          breaking: p.t: other fields of / of the result are not as before"#]])
    .await;
    upgrade((none(), rates("number")), (none(), rates("integer")), expect!["taken"]).await;
}

#[tokio::test]
async fn long_lists_of_values_are_compared_in_time() {
    let list = |last: &str| {
        let values: Vec<_> = (0..40_000).map(|n| json!(n)).chain([json!(last)]).collect();
        json!({ "type": "object", "properties": { "v": { "enum": values } } })
    };
    let begun = std::time::Instant::now();
    upgrade((list("a"), None), (list("b"), None), expect![[r#"
        Conflict: would break those who call its tools: p.t: the values of /v of the arguments are others; keep what they rely on, or allow it
        p 1.0.0 → 2.0.0 (global)
          breaking: p.t: the values of /v of the arguments are others"#]])
    .await;
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn nothing_of_a_new_version_is_called_once_the_host_has_shut_down() {
    let (bay, life) = (Toolbay::builder().build().unwrap(), Arc::default());
    let options = RegisterOptions::default;
    bay.register_with(Scope::Global, Versioned::new(1, &life), options()).await.unwrap();
    bay.shutdown(std::time::Duration::from_secs(1)).await;
    let error = bay.replace(Scope::Global, Versioned::new(2, &life), options(), FORCED).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert_eq!(*life.lock().unwrap(), ["start 1", "stop 1"]);
}

/// Loads plugins from files; those of tenants never come to an end.
struct Slow;

#[async_trait]
impl Runner for Slow {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Native
    }

    fn one_file_extension(&self) -> Option<&'static str> {
        Some("native")
    }

    async fn load(&self, package: &Package, cx: &PluginContext) -> Result<Arc<dyn Plugin>, LoadError> {
        if cx.scope != Scope::Global {
            std::future::pending::<()>().await;
        }
        let name = package.origin.file_stem().unwrap().to_str().unwrap();
        Ok(Arc::new(NativePlugin::new(name, "1.0.0", "A test's").unwrap()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_tenants_folder_that_takes_its_time_keeps_nobody_elses_waiting() {
    let (bay, folder) = (Toolbay::builder().runner(Slow).build().unwrap(), folder(&[("a.native", "")]));
    let path = folder.path().to_owned();
    let tenants = tokio::spawn({
        let (bay, path) = (bay.clone(), path.clone());
        async move { bay.sync(tenant("acme"), path, STRICT).await }
    });
    tokio::task::yield_now().await;
    let begun = tokio::time::Instant::now();
    assert_eq!(bay.sync(Scope::Global, path, STRICT).await.loaded.len(), 1);
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(tenants.await.unwrap().failed.len(), 1);
}

#[tokio::test]
async fn a_plugin_that_calls_itself_otherwise_takes_the_old_ones_place_or_leaves_it_there() {
    let failing = format!("{}\nfn on_start(cx) {{ throw \"not today\"; }}", script("b", "1.0.0", "b", ""));
    let user = script("user", "1.0.0", "u", "requires: [#{ name: \"a\", version: \"^1\" }],");
    let (bay, folder) = (bay(), folder(&[("a.rhai", &script("a", "1.0.0", "a", ""))]));
    bay.load_folder(Scope::Global, folder.path()).await;
    write(folder.path(), "a.rhai", &failing);
    expect![[r#"
        failed  a.rhai (global): Script: a.rhai: on_start: not today: a.rhai:4:19: threw "not today"
          4 | fn on_start(cx) { throw "not today"; }
            |                   ^
        unchanged: 0
    "#]]
    .assert_eq(&sync(&bay, folder.path()).await);
    assert_eq!(names(&bay.session("acme").unwrap()), ["a.say"], "the old one goes on");
    write(folder.path(), "a.rhai", &script("b", "1.0.0", "b", ""));
    expect![[r#"
        removed a
        loaded  b 1.0.0 (global): 1 tool, 0 hooks
        unchanged: 0
    "#]]
    .assert_eq(&sync(&bay, folder.path()).await);
    assert_eq!(names(&bay.session("acme").unwrap()), ["b.say"]);
    // Those that require the old name keep it.
    write(folder.path(), "a.rhai", &script("a", "1.0.0", "a", ""));
    sync(&bay, folder.path()).await;
    write(folder.path(), "user.rhai", &user);
    sync(&bay, folder.path()).await;
    write(folder.path(), "a.rhai", &script("b", "1.0.0", "b", ""));
    expect![[r#"
        failed  a.rhai (global): Dependency: a.rhai: the plugin user (global) needs a, and this one is called otherwise
        unchanged: 1
    "#]]
    .assert_eq(&sync(&bay, folder.path()).await);
    assert_eq!(names(&bay.session("acme").unwrap()), ["a.say", "user.say"]);
}

#[tokio::test]
async fn assets_that_the_operator_puts_in_the_place_of_a_plugins_own_are_a_change_of_it() {
    let source = script("a", "1.0.0", "", "").replace("{ \"\" }", "{ asset_text(\"text.txt\") }");
    let (plugins, assets) = (folder(&[("a.rhai", &source)]), folder(&[("text.txt", "one")]));
    let bay = toolbay::builder().assets(PluginName::new("a").unwrap(), assets.path()).build().unwrap();
    bay.load_folder(Scope::Global, plugins.path()).await;
    let session = bay.session("acme").unwrap();
    assert_eq!(outcome(&session, "a.say", json!({})).await, json!("one"));
    assert_eq!(sync(&bay, plugins.path()).await, "unchanged: 1\n");
    write(assets.path(), "text.txt", "two");
    assert_eq!(sync(&bay, plugins.path()).await, "reloaded a 1.0.0 → 1.0.0 (global)\nunchanged: 0\n");
    assert_eq!(outcome(&session, "a.say", json!({})).await, json!("two"));
    assert_eq!(sync(&bay, plugins.path()).await, "unchanged: 1\n");
    write(assets.path(), "more.txt", "");
    let path = plugins.path().join("a.rhai");
    assert_eq!(bay.reload(Scope::Global, &path, STRICT).await.unwrap().generation, 3);
    assert_eq!(bay.reload(Scope::Global, &path, STRICT).await.unwrap().generation, 3);
}

#[tokio::test]
async fn a_right_that_users_must_have_now_and_a_schema_that_takes_all_or_nothing_are_told_apart_by_whom_they_break() {
    let object = |a: Value| json!({ "type": "object", "properties": { "a": a } });
    let mut told = Vec::new();
    for (of_result, (old, new)) in [
        (false, (json!(true), json!(false))),
        (false, (json!(false), json!({ "type": "string" }))),
        (true, (json!(false), json!(true))),
        (true, (json!({ "type": "string" }), json!(true))),
    ] {
        let definition = |a: Value| {
            let mut definition = ToolDefinition::new("t", "A test's", object(json!({}))).unwrap();
            *(if of_result { definition.output.insert(json!({})) } else { &mut definition.parameters }) = object(a);
            definition
        };
        told.push(breaks(definition(old), definition(new)).await);
    }
    assert_eq!(told, [true, false, true, true]);
    let plain = ToolDefinition::new("t", "A test's", object(json!({}))).unwrap();
    let mut guarded = plain.clone();
    guarded.required_permissions = PermissionSet::parse(["billing:write"]).unwrap();
    assert!(breaks(plain.clone(), guarded.clone()).await, "who lacks the right called it before");
    assert!(!breaks(guarded, plain).await);
}

/// Whether a plugin with the tool `new` is refused in the place of one with `old`.
async fn breaks(old: ToolDefinition, new: ToolDefinition) -> bool {
    let plugin = |version: &str, definition: ToolDefinition| {
        Arc::new(NativePlugin::new("p", version, "A test's").unwrap().tool(Fixed(definition)))
    };
    let bay = Toolbay::builder().build().unwrap();
    bay.register_with(Scope::Global, plugin("1.0.0", old), RegisterOptions::default()).await.unwrap();
    let replaced = bay.replace(Scope::Global, plugin("1.1.0", new), RegisterOptions::default(), STRICT).await;
    replaced.is_err_and(|error| error.kind == ErrorKind::Conflict)
}
