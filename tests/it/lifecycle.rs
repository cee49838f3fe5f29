//! The life of plugins: callbacks and their limits, states, waves of requirements, what is undone, and the end of a host.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use expect_test::{Expect, expect};
use serde_json::json;
use tokio::sync::Semaphore;
use toolbay::{
    Callback, CallbackContext, ErrorKind, HookRegistration, LoadError, Package, PermissionSet, Plugin, PluginContext,
    PluginMetadata, PluginName, Runner, RuntimeKind, Scope, Tool, ToolCall, ToolContext, ToolError, Toolbay,
    ToolbayBuilder, manifest::Requirement, plugin::NativePlugin, tool,
};

use crate::support::{Nothing, folder, outcome, says, tenant};

/// What plugins did, one line each.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn note(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    fn text(&self) -> String {
        self.0.lock().unwrap().iter().map(|line| format!("{line}\n")).collect()
    }
}

/// What a plugin does in one of its callbacks, beside writing it down.
#[derive(Clone, Copy, PartialEq)]
enum Act {
    Fail,
    Panic,
    Hang,
    TakeASecond,
}

/// A plugin that writes its life down.
struct Diarist {
    inner: NativePlugin,
    log: Log,
    acts: Vec<(Callback, Act)>,
    /// Where another of its name is registered while this one starts.
    rival_in: Option<Toolbay>,
}

impl Diarist {
    fn new(log: &Log, name: &str) -> Self {
        let inner = NativePlugin::new(name, "1.0.0", "A test's").unwrap().tool(says("what", "here"));
        Self { inner, log: log.clone(), acts: Vec::new(), rival_in: None }
    }

    fn does(mut self, callback: Callback, act: Act) -> Self {
        self.acts.push((callback, act));
        self
    }

    fn needs(mut self, name: &str, range: &str) -> Self {
        let requirement = Requirement { name: plugin(name), version: range.parse().unwrap() };
        self.inner = self.inner.with(|metadata| metadata.requires.push(requirement));
        self
    }

    fn tool(mut self, tool: impl Tool + 'static) -> Self {
        self.inner = self.inner.tool(tool);
        self
    }

    async fn at(&self, callback: Callback) -> Result<(), ToolError> {
        self.log.note(format!("{callback} {}", self.inner.metadata().name));
        for (_, act) in self.acts.iter().filter(|(at, _)| *at == callback) {
            match act {
                Act::Fail => return Err(ToolError::failed("told to fail")),
                Act::Panic => panic!("told to panic"),
                Act::Hang => std::future::pending().await,
                Act::TakeASecond => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Plugin for Diarist {
    fn metadata(&self) -> &PluginMetadata {
        self.inner.metadata()
    }

    fn tools(&self) -> Vec<Arc<dyn Tool>> {
        self.inner.tools()
    }

    fn hooks(&self) -> Vec<HookRegistration> {
        self.inner.hooks()
    }

    async fn on_load(&self, _: &CallbackContext) -> Result<(), ToolError> {
        self.at(Callback::Load).await
    }

    async fn on_start(&self, _: &CallbackContext) -> Result<(), ToolError> {
        if let Some(bay) = &self.rival_in {
            let rival = NativePlugin::new(self.inner.metadata().name.as_str(), "2.0.0", "A rival").unwrap();
            bay.register(Scope::Global, rival).await.unwrap();
        }
        self.at(Callback::Start).await
    }

    async fn on_stop(&self, _: &CallbackContext) -> Result<(), ToolError> {
        self.at(Callback::Stop).await
    }

    async fn on_unload(&self, _: &CallbackContext) -> Result<(), ToolError> {
        self.at(Callback::Unload).await
    }
}

/// Makes a diarist of each file `NAME.diary`; its words: `VERSION`, `needs:NAME:RANGE`, `fails:CALLBACK`, `as:NAME`.
struct Diaries(Log);

#[async_trait]
impl Runner for Diaries {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::Wasm
    }

    fn one_file_extension(&self) -> Option<&'static str> {
        Some("diary")
    }

    async fn load(&self, package: &Package, _: &PluginContext) -> Result<Arc<dyn Plugin>, LoadError> {
        let stem = package.origin.file_stem().unwrap().to_str().unwrap();
        let words = package.files.values().next().unwrap().split_whitespace();
        let parts: Vec<Vec<&str>> = words.map(|word| word.split(':').collect()).collect();
        let name = parts.iter().find(|part| part[0] == "as").map_or(stem, |part| part[1]);
        let mut made = Diarist::new(&self.0, name);
        for part in &parts {
            made = match part.as_slice() {
                ["needs", name, range] => made.needs(name, range),
                ["fails", at] => {
                    let callback = Callback::ALL.into_iter().find(|callback| callback.name() == *at).unwrap();
                    made.does(callback, Act::Fail)
                }
                ["as", _] => made,
                [version] => {
                    made.inner = made.inner.with(|metadata| metadata.version = version.parse().unwrap());
                    made
                }
                other => panic!("{other:?}"),
            };
        }
        Ok(Arc::new(made))
    }
}

fn plugin(name: &str) -> PluginName {
    PluginName::new(name).unwrap()
}

fn states(bay: &Toolbay, scope: &Scope) -> String {
    bay.statuses(scope).iter().map(|status| format!("{} {}\n", status.name, status.state)).collect()
}

/// The report of loading these diaries, the states after it, and what they did until the host was shut down.
async fn diaries(files: &[(&str, &str)], expected: Expect) {
    let log = Log::default();
    let bay = Toolbay::builder().runner(Diaries(log.clone())).build().unwrap();
    let folder = folder(files);
    let report = bay.load_folder(Scope::Global, folder.path()).await.to_string();
    let report = report.replace(&format!("{}/", folder.path().display()), "");
    let states = states(&bay, &Scope::Global);
    log.note("---".into());
    bay.shutdown(Duration::from_secs(5)).await;
    expected.assert_eq(&format!("{report}---\n{states}---\n{}", log.text()));
}

#[tokio::test]
async fn each_callback_is_called_once_and_in_order_also_where_two_shut_down() {
    let log = Log::default();
    let bay = Toolbay::builder().build().unwrap();
    bay.register(Scope::Global, Diarist::new(&log, "first")).await.unwrap();
    bay.register(tenant("acme"), Diarist::new(&log, "second")).await.unwrap();
    assert_eq!(states(&bay, &Scope::Global), "first Active\n");
    let time = Duration::from_secs(5);
    let (one, other) = tokio::join!(bay.shutdown(time), bay.shutdown(time));
    let third = bay.shutdown(time).await;
    for report in [one, other, third] {
        assert_eq!(report.stopped, [(tenant("acme"), plugin("second")), (Scope::Global, plugin("first"))]);
        assert!(report.unstopped.is_empty(), "{report}");
    }
    assert_eq!(states(&bay, &Scope::Global), "first Unloaded\n");
    expect![[r#"
        on_load first
        on_start first
        on_load second
        on_start second
        on_stop second
        on_unload second
        on_stop first
        on_unload first
    "#]]
    .assert_eq(&log.text());
}

#[tokio::test(start_paused = true)]
async fn what_goes_wrong_in_a_callback_is_told_and_leads_to_failed() {
    let mut text = String::new();
    for callback in Callback::ONCE {
        for act in [Act::Fail, Act::Panic, Act::Hang] {
            let log = Log::default();
            let bay = Toolbay::builder().callback_timeout(Duration::from_secs(3)).build().unwrap();
            let registered = bay.register(Scope::Global, Diarist::new(&log, "p").does(callback, act)).await;
            match registered {
                Err(error) => text.push_str(&format!("{error}\n")),
                Ok(name) => bay.unregister(&Scope::Global, &name).await.unwrap(),
            }
            let calls = log.text().replace('\n', ", ");
            let states = states(&bay, &Scope::Global);
            text.push_str(&format!("  {calls}{}\n", if states.is_empty() { "gone" } else { states.trim_end() }));
        }
    }
    expect![[r#"
        Script: on_load: told to fail
          on_load p, p Failed (load: Script: on_load: told to fail)
        Panic: on_load: the plugin broke down: told to panic
          on_load p, p Failed (load: Panic: on_load: the plugin broke down: told to panic)
        TimedOut: on_load: took longer than the 3s that it had; do less in it, or give it more time
          on_load p, p Failed (load: TimedOut: on_load: took longer than the 3s that it had; do less in it, or give it more time)
        Script: on_start: told to fail
          on_load p, on_start p, on_unload p, p Failed (start: Script: on_start: told to fail)
        Panic: on_start: the plugin broke down: told to panic
          on_load p, on_start p, on_unload p, p Failed (start: Panic: on_start: the plugin broke down: told to panic)
        TimedOut: on_start: took longer than the 3s that it had; do less in it, or give it more time
          on_load p, on_start p, on_unload p, p Failed (start: TimedOut: on_start: took longer than the 3s that it had; do less in it, or give it more time)
          on_load p, on_start p, on_stop p, on_unload p, p Failed (stop: Script: on_stop: told to fail)
          on_load p, on_start p, on_stop p, on_unload p, p Failed (stop: Panic: on_stop: the plugin broke down: told to panic)
          on_load p, on_start p, on_stop p, on_unload p, p Failed (stop: TimedOut: on_stop: took longer than the 3s that it had; do less in it, or give it more time)
          on_load p, on_start p, on_stop p, on_unload p, gone
          on_load p, on_start p, on_stop p, on_unload p, gone
          on_load p, on_start p, on_stop p, on_unload p, gone
    "#]].assert_eq(&text);
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_callback_is_the_hosts_setting() {
    for (time, expected) in [(500, "TimedOut"), (2_000, "ok")] {
        for callback in [Callback::Load, Callback::Start] {
            let bay = Toolbay::builder().callback_timeout(Duration::from_millis(time)).build().unwrap();
            let slow = Diarist::new(&Log::default(), "slow").does(callback, Act::TakeASecond);
            let said = bay.register(Scope::Global, slow).await.map_or_else(|error| error.kind.name(), |_| "ok");
            assert_eq!(said, expected, "{callback} within {time} ms");
        }
    }
}

#[tokio::test]
async fn what_failed_is_remembered_until_it_is_reset_or_loaded() {
    let (log, global) = (Log::default(), Scope::Global);
    let bay = Toolbay::builder().build().unwrap();
    let bad = || Diarist::new(&log, "p").does(Callback::Start, Act::Fail);
    bay.register(Scope::Global, bad()).await.unwrap_err();
    assert_eq!(states(&bay, &global), "p Failed (start: Script: on_start: told to fail)\n");
    bay.reset(&global, &plugin("p")).unwrap();
    assert_eq!(states(&bay, &global), "");
    assert_eq!(bay.reset(&global, &plugin("p")).unwrap_err().kind, ErrorKind::NotFound);
    bay.register(Scope::Global, bad()).await.unwrap_err();
    bay.register(Scope::Global, Diarist::new(&log, "p")).await.unwrap();
    assert_eq!(states(&bay, &global), "p Active\n");
    assert_eq!(
        bay.reset(&global, &plugin("p")).unwrap_err().to_string(),
        "Conflict: the plugin p cannot go from Active to Unloaded: only one that failed can be reset"
    );
}

#[tokio::test]
async fn a_plugin_whose_name_is_taken_while_it_starts_is_stopped_and_unloaded() {
    let log = Log::default();
    let bay = Toolbay::builder().build().unwrap();
    let late = Diarist { rival_in: Some(bay.clone()), ..Diarist::new(&log, "p") };
    let error = bay.register(Scope::Global, late).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    assert_eq!(log.text(), "on_load p\non_start p\non_stop p\non_unload p\n");
    assert!(states(&bay, &Scope::Global).contains("p Active\np Failed (register: Conflict"));
}

#[tokio::test]
async fn all_of_a_wave_are_loaded_before_one_of_it_starts_and_the_end_is_in_reverse() {
    diaries(
        &[
            ("app.diary", "1.0.0 needs:cache:^1 needs:base:^2"),
            ("base.diary", "2.3.0"),
            ("cache.diary", "1.0.0 needs:base:*"),
            ("other.diary", "1.0.0"),
        ],
        expect![[r#"
            loaded  base 2.3.0 (global): 1 tool, 0 hooks
            loaded  other 1.0.0 (global): 1 tool, 0 hooks
            loaded  cache 1.0.0 (global): 1 tool, 0 hooks
            loaded  app 1.0.0 (global): 1 tool, 0 hooks
            ---
            app Active
            base Active
            cache Active
            other Active
            ---
            on_load base
            on_load other
            on_start base
            on_start other
            on_load cache
            on_start cache
            on_load app
            on_start app
            ---
            on_stop app
            on_unload app
            on_stop cache
            on_unload cache
            on_stop other
            on_unload other
            on_stop base
            on_unload base
        "#]],
    )
    .await;
}

#[tokio::test]
async fn a_failed_start_is_undone_and_leaves_out_only_what_requires_it() {
    diaries(
        &[
            ("app.diary", "1.0.0 needs:cache:^1"),
            ("base.diary", "1.0.0"),
            ("cache.diary", "1.0.0 needs:shaky:*"),
            ("shaky.diary", "1.0.0 fails:on_start"),
            ("unready.diary", "1.0.0 fails:on_load"),
        ],
        expect![[r#"
            loaded  base 1.0.0 (global): 1 tool, 0 hooks
            failed  unready.diary (global): Script: unready.diary: on_load: told to fail
            failed  shaky.diary (global): Script: shaky.diary: on_start: told to fail
            failed  app.diary (global): Dependency: needs the plugin cache ^1, which needs the plugin shaky *, which did not load: Script: on_start: told to fail
            failed  cache.diary (global): Dependency: needs the plugin shaky *, which did not load: Script: on_start: told to fail
            ---
            base Active
            shaky Failed (start: Script: on_start: told to fail)
            unready Failed (load: Script: on_load: told to fail)
            ---
            on_load base
            on_load shaky
            on_load unready
            on_start base
            on_start shaky
            on_unload shaky
            ---
            on_stop base
            on_unload base
        "#]],
    )
    .await;
}

#[tokio::test]
async fn a_chain_of_requirements_is_named_to_its_end_and_a_cycle_whole() {
    diaries(
        &[
            ("a.diary", "1.0.0 needs:b:*"),
            ("b.diary", "1.0.0 needs:c:*"),
            ("c.diary", "1.0.0 needs:a:*"),
            ("into.diary", "1.0.0 needs:a:*"),
            ("far.diary", "1.0.0 needs:near:*"),
            ("near.diary", "1.0.0 needs:gone:^3"),
            ("self.diary", "1.0.0 needs:self:*"),
            ("old.diary", "1.0.0 needs:near:^2"),
        ],
        expect![[r#"
            failed  self.diary (global): Config: self.diary: requires[0].name: a plugin cannot require itself: take self out
            failed  a.diary (global): Dependency: needs the plugin b *, which needs the plugin c *, which needs the plugin a * again: a → b → c → a is a cycle; take one of the requirements away
            failed  b.diary (global): Dependency: needs the plugin c *, which needs the plugin a *, which needs the plugin b * again: b → c → a → b is a cycle; take one of the requirements away
            failed  c.diary (global): Dependency: needs the plugin a *, which needs the plugin b *, which needs the plugin c * again: c → a → b → c is a cycle; take one of the requirements away
            failed  far.diary (global): Dependency: needs the plugin near *, which needs the plugin gone ^3, and it is not registered
            failed  into.diary (global): Dependency: needs the plugin a *, which needs the plugin b *, which needs the plugin c *, which needs the plugin a * again: into → a → b → c → a is a cycle; take one of the requirements away
            failed  near.diary (global): Dependency: needs the plugin gone ^3, and it is not registered
            failed  old.diary (global): Dependency: needs the plugin near ^2, and version 1.0.0 is there
            ---
            ---
            ---
        "#]],
    )
    .await;
}

#[tokio::test]
async fn a_plugin_whose_name_is_taken_is_never_called_and_what_requires_its_version_stays_out() {
    diaries(
        &[
            ("one.diary", "1.0.0 as:same"),
            ("two.diary", "2.0.0 as:same"),
            ("wants-one.diary", "1.0.0 needs:same:^1"),
            ("wants-two.diary", "1.0.0 needs:same:^2"),
        ],
        expect![[r#"
            loaded  same 1.0.0 (global): 1 tool, 0 hooks
            loaded  wants-one 1.0.0 (global): 1 tool, 0 hooks
            failed  two.diary (global): Conflict: a plugin called same (version 1.0.0) is registered there already: unregister it first or rename this one
            failed  wants-two.diary (global): Dependency: needs the plugin same ^2, and version 1.0.0 is there
            ---
            same Active
            wants-one Active
            ---
            on_load same
            on_start same
            on_load wants-one
            on_start wants-one
            ---
            on_stop wants-one
            on_unload wants-one
            on_stop same
            on_unload same
        "#]],
    )
    .await;
}

#[tokio::test]
async fn all_or_nothing_takes_everything_back_in_reverse_order() {
    let log = Log::default();
    let bay = Toolbay::builder().runner(Diaries(log.clone())).build().unwrap();
    let files = [("a.diary", "1.0.0"), ("b.diary", "1.0.0 needs:a:*"), ("c.diary", "1.0.0 needs:b:* fails:on_start")];
    let folder = folder(&files);
    let report = bay.load_folder_or_nothing(Scope::Global, folder.path()).await;
    assert!(report.loaded.is_empty() && bay.plugins(&Scope::Global).is_empty());
    let failed: Vec<_> = report.failed.iter().map(|failed| failed.origin.file_stem().unwrap().to_owned()).collect();
    assert_eq!(failed, ["c", "b", "a"]);
    expect![[r#"
        on_load a
        on_start a
        on_load b
        on_start b
        on_load c
        on_start c
        on_unload c
        on_stop b
        on_unload b
        on_stop a
        on_unload a
    "#]]
    .assert_eq(&log.text());
}

#[tokio::test]
async fn a_plugin_stays_while_others_require_it_and_goes_after_them_when_asked() {
    let log = Log::default();
    let bay = Toolbay::builder().build().unwrap();
    bay.register(Scope::Global, Diarist::new(&log, "base")).await.unwrap();
    bay.register(Scope::Global, Diarist::new(&log, "middle").needs("base", "*")).await.unwrap();
    bay.register(tenant("acme"), Diarist::new(&log, "top").needs("middle", "*").needs("base", "^1")).await.unwrap();
    let error = bay.unregister(&Scope::Global, &plugin("base")).await.unwrap_err();
    expect!["Dependency: the plugin base is required by middle (global), top (tenant acme): unregister those first, or all together"]
        .assert_eq(&error.to_string());
    let gone = bay.unregister_with_dependants(&Scope::Global, &plugin("base")).await.unwrap();
    let gone: Vec<_> = gone.iter().map(|(_, name)| name.as_str()).collect();
    assert_eq!(gone, ["top", "middle", "base"]);
    let stops = log.text().lines().filter(|line| line.starts_with("on_stop")).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(stops, ["on_stop top", "on_stop middle", "on_stop base"]);
}

#[tokio::test]
async fn a_plugin_that_was_taken_out_is_stopped_when_the_last_run_that_sees_it_has_ended() {
    let log = Log::default();
    let bay = Toolbay::builder().build().unwrap();
    bay.register(tenant("acme"), Diarist::new(&log, "p")).await.unwrap();
    let session = bay.session("acme").unwrap();
    let (first, second) = (session.run(), session.run());
    bay.unregister(&tenant("acme"), &plugin("p")).await.unwrap();
    drop(first);
    let call = ToolCall { id: "1".into(), name: "p.what".into(), arguments: json!({}) };
    assert_eq!(second.call(1, call).await.result.unwrap().data, json!("here"));
    assert_eq!(states(&bay, &tenant("acme")), "p Active\n");
    drop(second);
    while !bay.statuses(&tenant("acme")).is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(log.text().ends_with("on_stop p\non_unload p\n"), "{}", log.text());
}

/// A tool that says that it began, and ends when it is let.
fn waits(log: &Log, gate: &Arc<Semaphore>) -> impl Tool + 'static {
    let (log, gate) = (log.clone(), Arc::clone(gate));
    tool("wait", "Waits", move |_: Nothing, cx: ToolContext| {
        let (log, gate) = (log.clone(), Arc::clone(&gate));
        async move {
            log.note("call begins".into());
            gate.acquire().await.unwrap().forget();
            let nested = cx.host().call_tool("helper.what", json!({})).await?;
            log.note(format!("call ends, {}", nested.data));
            Ok(json!(null))
        }
    })
}

/// A host with a call in flight, which another tool is called from when the gate opens.
async fn busy_host(log: &Log, gate: &Arc<Semaphore>) -> (Toolbay, tokio::task::JoinHandle<serde_json::Value>) {
    let grants = PermissionSet::parse(["tool:call:*"]).unwrap();
    let limits = toolbay::Limits { timeout: Duration::from_secs(3_600), ..toolbay::Limits::default() };
    let bay = Toolbay::builder().grants(grants.clone()).limits(limits).build().unwrap();
    bay.register(Scope::Global, Diarist::new(log, "helper")).await.unwrap();
    let mut busy = Diarist::new(log, "busy").tool(waits(log, gate));
    busy.inner = busy.inner.with(|metadata| metadata.permissions = grants);
    bay.register(Scope::Global, busy).await.unwrap();
    let session = bay.session("acme").unwrap();
    let call = tokio::spawn(async move { outcome(&session, "busy.wait", json!({})).await });
    while !log.text().contains("call begins") {
        tokio::task::yield_now().await;
    }
    (bay, call)
}

/// Waits until the host takes no calls any more, and gives what it says.
async fn refusal(bay: &Toolbay) -> String {
    let session = bay.session("globex").unwrap();
    loop {
        match session.call("helper.what", json!({})).await.result {
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => return error.to_string(),
        }
    }
}

#[tokio::test]
async fn a_shutdown_waits_for_calls_in_flight_and_for_what_they_call_and_takes_no_new_ones() {
    let (log, gate) = (Log::default(), Arc::new(Semaphore::new(0)));
    let (bay, call) = busy_host(&log, &gate).await;
    let shutdown = tokio::spawn({
        let bay = bay.clone();
        async move { bay.shutdown(Duration::from_secs(60)).await }
    });
    expect!["Unavailable: the host is shutting down and takes no more calls; try again when it is back"]
        .assert_eq(&refusal(&bay).await);
    let late = bay.register(Scope::Global, Diarist::new(&log, "late")).await.unwrap_err();
    assert_eq!(late.to_string(), "Unavailable: the host is shutting down and takes no more plugins");
    let kept = bay.unregister(&Scope::Global, &plugin("helper")).await.unwrap_err();
    assert_eq!(kept.kind, ErrorKind::Unavailable);
    assert!(!log.text().contains("on_stop"), "{}", log.text());
    gate.add_permits(1);
    assert_eq!(call.await.unwrap(), json!(null));
    let report = shutdown.await.unwrap();
    assert!(report.unstopped.is_empty(), "{report}");
    let life = log.text();
    let (_, end) = life.split_once("call begins\n").unwrap();
    expect![[r#"
        call ends, "here"
        on_stop busy
        on_unload busy
        on_stop helper
        on_unload helper
    "#]]
    .assert_eq(end);
    assert!(refusal(&bay).await.starts_with("Unavailable"));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_keeps_its_bound_and_reports_what_did_not_stop() {
    let (log, gate) = (Log::default(), Arc::new(Semaphore::new(0)));
    let (bay, call) = busy_host(&log, &gate).await;
    for (name, act) in [("hangs", Act::Hang), ("panics", Act::Panic), ("slow", Act::TakeASecond)] {
        bay.register(Scope::Global, Diarist::new(&log, name).does(Callback::Stop, act)).await.unwrap();
    }
    let begun = tokio::time::Instant::now();
    let report = bay.shutdown(Duration::from_secs(10)).await;
    assert!(begun.elapsed() <= Duration::from_millis(10_050), "{:?}", begun.elapsed());
    expect![[r#"
        unstopped panics (global): Panic: on_stop: the plugin broke down: told to panic
        unstopped hangs (global): TimedOut: on_stop: took longer than the 1s that it had; do less in it, or give it more time
        unstopped busy (global): TimedOut: calls that had not ended when it was stopped: 1
    "#]].assert_eq(&report.to_string());
    let stops: Vec<_> = log.text().lines().filter(|line| line.starts_with("on_stop")).map(str::to_owned).collect();
    assert_eq!(stops, ["on_stop slow", "on_stop panics", "on_stop hangs", "on_stop busy", "on_stop helper"]);
    call.abort();
}

#[tokio::test]
async fn a_shutdown_goes_on_though_nobody_waits_for_it() {
    let log = Log::default();
    let bay = Toolbay::builder().build().unwrap();
    bay.register(Scope::Global, Diarist::new(&log, "p")).await.unwrap();
    poll_once(bay.shutdown(Duration::from_secs(5)));
    assert_eq!(bay.shutdown(Duration::from_secs(5)).await.stopped.len(), 1);
    assert_eq!(log.text(), "on_load p\non_start p\non_stop p\non_unload p\n");
}

/// Polls a future once and drops it.
fn poll_once(future: impl Future) {
    let mut future = std::pin::pin!(future);
    let _ = future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
}

fn script(callbacks: &str) -> String {
    format!(
        r#"const PLUGIN = #{{ name: "life", version: "1.0.0", description: "A test's", author: "Acme",
               permissions: ["kv:read", "kv:write", "tool:call:*"],
               tools: #{{ seen: #{{ description: "What was seen" }} }} }};
           fn seen(args) {{ kv_get("seen") }}
           {callbacks}"#
    )
}

fn standard() -> ToolbayBuilder {
    let mut grants: Vec<String> = PermissionSet::standard().iter().map(ToString::to_string).collect();
    grants.push("tool:call:*".into());
    toolbay::builder().grants(PermissionSet::parse(grants).unwrap())
}

#[tokio::test]
async fn a_scripts_callbacks_run_for_its_tenant_with_its_grants() {
    let source = script(
        r#"fn on_load(cx) { kv_set("seen", [cx.plugin + " " + cx.version + " for " + cx.tenant]); }
           fn on_start(cx) { kv_set("seen", kv_get("seen") + [call_tool("greeter.what", #{})]); }
           fn on_stop(cx) { kv_set("seen", kv_get("seen") + ["stopped"]); }"#,
    );
    let bay = standard().build().unwrap();
    bay.register(Scope::Global, Diarist::new(&Log::default(), "greeter")).await.unwrap();
    bay.load_source(tenant("acme"), "life.rhai", &source).await.unwrap();
    let acme = bay.session("acme").unwrap();
    assert_eq!(outcome(&acme, "life.seen", json!({})).await, json!(["life 1.0.0 for acme", "here"]));
    bay.unregister(&tenant("acme"), &plugin("life")).await.unwrap();
    bay.load_source(tenant("acme"), "life.rhai", &script("")).await.unwrap();
    assert_eq!(outcome(&acme, "life.seen", json!({})).await, json!(["life 1.0.0 for acme", "here", "stopped"]));
}

#[tokio::test]
async fn a_scripts_callback_that_fails_is_told_with_its_line() {
    let mut text = String::new();
    for (scope, callbacks) in [
        (tenant("acme"), "fn on_load(cx) { throw \"not today\"; }"),
        (tenant("acme"), "fn on_start(cx) { let x = 1 / 0; }"),
        (tenant("acme"), "fn on_start(cx) { loop { } }"),
        (Scope::Global, "fn on_load(cx) { kv_set(\"a\", 1); }"),
        (Scope::Global, "fn on_load(cx) { if cx.tenant != () { throw \"whose?\"; } log(\"hello\"); }"),
        (tenant("acme"), "fn on_load() { }"),
        (tenant("acme"), "fn on_load(a, b) { }"),
    ] {
        let limits = toolbay::Limits { max_operations: u64::MAX, ..toolbay::Limits::default() };
        let bay = standard().limits(limits).callback_timeout(Duration::from_millis(100)).build().unwrap();
        match bay.load_source(scope, "life.rhai", &script(callbacks)).await {
            Ok(_) => text.push_str("loaded\n"),
            Err(error) => text.push_str(&format!("{error}\n")),
        }
    }
    // Script and host keep the same deadline, and either may be first to say so.
    let late = "TimedOut: life.rhai: on_start:";
    let shown =
        text.lines().map(|line| if line.starts_with(late) { late } else { line }).collect::<Vec<_>>().join("\n");
    expect![[r#"
        Script: life.rhai: on_load: not today: life.rhai:5:29: threw "not today"
          5 |            fn on_load(cx) { throw "not today"; }
            |                             ^
        Script: life.rhai: on_start: the tool failed because of an error in its script: division by zero (line 5): life.rhai:5:40: division by zero
          5 |            fn on_start(cx) { let x = 1 / 0; }
            |                                        ^
        TimedOut: life.rhai: on_start:
        PermissionDenied: life.rhai: on_load: on_load of a plugin for everybody acts for no tenant, so it has no keys, calls no tools and reads no secrets; do it in a tool, or register the plugin for a tenant: life.rhai:5:29: threw a map
          5 |            fn on_load(cx) { kv_set("a", 1); }
            |                             ^
        loaded
        Config: life.rhai:1:1: the callback on_load takes one parameter: write `fn on_load(cx) { ... }`
          1 | const PLUGIN = #{ name: "life", version: "1.0.0", description: "A test's", author: "Acme",
            | ^
        Config: life.rhai:1:1: the callback on_load takes one parameter: write `fn on_load(cx) { ... }`
          1 | const PLUGIN = #{ name: "life", version: "1.0.0", description: "A test's", author: "Acme",
            | ^"#]].assert_eq(&shown);
}

#[tokio::test]
async fn a_tool_is_no_callback() {
    let source =
        script("fn on_load(args) { 1 }").replace("tools: #{", "tools: #{ on_load: #{ description: \"Loads\" },");
    let bay = standard().build().unwrap();
    let error = bay.load_source(tenant("acme"), "life.rhai", &source).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Conflict);
    assert!(error.message.contains("rename it"), "{error}");
}

#[tokio::test]
async fn checking_a_plugin_calls_nothing_of_it() {
    let log = Log::default();
    let bay = Toolbay::builder().runner(Diaries(log.clone())).build().unwrap();
    let folder = folder(&[("p.diary", "1.0.0")]);
    let path: PathBuf = folder.path().join("p.diary");
    bay.check(Scope::Global, path).await.unwrap();
    assert_eq!(log.text(), "");
}

#[tokio::test]
async fn the_test_kit_finds_what_is_wrong_with_a_plugins_life() {
    let log = Log::default();
    toolbay_testkit::check_lifecycle!(Diarist::new(&log, "p")).await.unwrap();
    let mut text = String::new();
    for callback in Callback::ONCE {
        let checked = toolbay_testkit::check_lifecycle!(Diarist::new(&log, "p").does(callback, Act::Fail)).await;
        text.push_str(&format!("{}\n", checked.unwrap_err()));
    }
    expect![[r#"
        global: it does not load: Script: on_load: told to fail
        global: it does not load: Script: on_start: told to fail
        global: it is Failed (stop: Script: on_stop: told to fail)
        global: it does not stop: unstopped p (global): Script: on_unload: told to fail
    "#]]
    .assert_eq(&text);
}

#[tokio::test]
async fn a_context_that_outlives_its_call_keeps_no_plugin_from_being_stopped_and_calls_no_more_tools() {
    // As a script does that is left where it stands, and a thread that never comes back.
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = {
        let kept = Arc::clone(&kept);
        tool("keep", "Keeps its context", move |_: Nothing, cx: ToolContext| {
            kept.lock().unwrap().push(cx);
            async { Ok(1) }
        })
    };
    let log = Log::default();
    let bay = Toolbay::builder().grants(PermissionSet::all()).tool(keep).build().unwrap();
    bay.register(Scope::Global, Diarist::new(&log, "other")).await.unwrap();
    let acme = bay.session("acme").unwrap();
    assert_eq!(outcome(&acme, "keep", json!({})).await, json!(1));
    let cx = kept.lock().unwrap().remove(0);
    assert_eq!(cx.host().call_tool("other.what", json!({})).await.unwrap().data, json!("here"));
    bay.unregister(&Scope::Global, &plugin("other")).await.unwrap();
    assert_eq!(log.text(), "on_load other\non_start other\non_stop other\non_unload other\n");
    let error = cx.host().call_tool("other.what", json!({})).await.unwrap_err();
    assert_eq!(error.to_string(), "Cancelled: the run that this belongs to has ended");
}

#[tokio::test]
async fn a_tenant_whose_plugins_fail_makes_no_other_tenants_failure_unknown() {
    let bay = toolbay::builder().build().unwrap();
    let fail = async |scope: &Scope, name: &str| {
        let source = format!(
            "const PLUGIN = #{{ name: \"{name}\", version: \"1.0.0\", description: \"Fails\", tools: #{{ say: #{{ description: \"Says\" }} }} }};\n\
             fn say(args) {{ 1 }}\nfn on_start(cx) {{ throw \"no\"; }}"
        );
        bay.load_source(scope.clone(), &format!("{name}.rhai"), &source).await.unwrap_err();
    };
    let (acme, globex) = (Scope::tenant("acme").unwrap(), Scope::tenant("globex").unwrap());
    fail(&globex, "only").await;
    for number in 0..1_100 {
        fail(&acme, &format!("p{number}")).await;
    }
    assert_eq!(bay.statuses(&globex).len(), 1);
    let of_acme = bay.statuses(&acme);
    assert_eq!(of_acme.len(), 100, "its own last ones");
    assert!(of_acme.iter().any(|status| status.name.as_str() == "p1099"));
}
