//! Watching: what an author does to files, and what is served after it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::{fs, path::Path, time::Duration};

use serde_json::json;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use toolbay_api::{ErrorKind, Scope};
use toolbay_rhai::RhaiRunner;
use toolbay_runtime::{ReloadOptions, SyncReport, Toolbay};
use toolbay_watch::{Watch, WatchOptions};

/// Nothing here takes so long; it only keeps a failing test from waiting for ever.
const PATIENCE: Duration = Duration::from_secs(30);

const QUICK: WatchOptions = WatchOptions {
    quiet: Duration::from_millis(20),
    patience: Duration::from_millis(500),
    rescan: Duration::from_secs(3_600),
    reload: ReloadOptions { allow_breaking: false },
};

fn script(name: &str, text: &str) -> String {
    format!(
        r#"const PLUGIN = #{{ name: "{name}", version: "1.0.0", description: "A test's", author: "Acme",
               tools: #{{ say: #{{ description: "Says it", parameters: #{{ type: "object" }} }} }} }};
           fn say(args) {{ "{text}" }}"#
    )
}

struct Watched {
    bay: Toolbay,
    reports: UnboundedReceiver<SyncReport>,
    _watch: Watch,
}

impl Watched {
    async fn new(path: &Path, options: WatchOptions) -> Self {
        let bay = Toolbay::builder().runner(RhaiRunner::default()).build().unwrap();
        bay.sync(Scope::Global, path, options.reload).await;
        let (sender, reports) = unbounded_channel();
        let _watch = Watch::begin(bay.clone(), Scope::Global, path, options, move |report| {
            let _ = sender.send(report);
        })
        .unwrap();
        Self { bay, reports, _watch }
    }

    async fn report(&mut self) -> SyncReport {
        tokio::time::timeout(PATIENCE, self.reports.recv()).await.expect("a report comes").unwrap()
    }

    async fn say(&self, plugin: &str) -> String {
        let reply = self.bay.session("acme").unwrap().call(&format!("{plugin}.say"), json!({})).await;
        reply.result.map_or_else(|error| error.kind.to_string(), |output| output.data.as_str().unwrap().to_owned())
    }
}

#[tokio::test]
async fn a_file_that_is_saved_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("a.rhai"), script("a", "one")).unwrap();
    let mut watched = Watched::new(folder.path(), QUICK).await;
    fs::write(at("a.rhai"), script("a", "two")).unwrap();
    assert_eq!(watched.report().await.reloaded.len(), 1);
    assert_eq!(watched.say("a").await, "two");
    // As editors do it: another file, which takes the name of the first.
    fs::write(at(".a.rhai.swp"), script("a", "three")).unwrap();
    fs::rename(at("a.rhai"), at("a.rhai~")).unwrap();
    fs::rename(at(".a.rhai.swp"), at("a.rhai")).unwrap();
    fs::remove_file(at("a.rhai~")).unwrap();
    assert_eq!(watched.report().await.reloaded.len(), 1);
    assert_eq!(watched.say("a").await, "three");
    fs::write(at("b.rhai"), script("b", "new")).unwrap();
    assert_eq!(watched.report().await.loaded.len(), 1);
    fs::remove_file(at("b.rhai")).unwrap();
    assert_eq!(watched.report().await.removed.len(), 1);
    assert_eq!(watched.say("b").await, "NotFound");
}

#[tokio::test]
async fn a_file_that_is_broken_is_told_and_the_last_good_one_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.rhai");
    fs::write(&path, script("a", "one")).unwrap();
    let mut watched = Watched::new(folder.path(), QUICK).await;
    fs::write(&path, "const PLUGIN = #{").unwrap();
    let report = watched.report().await;
    assert_eq!(report.failed.first().unwrap().error.kind, ErrorKind::Compile);
    assert_eq!(watched.say("a").await, "one");
    fs::write(&path, script("a", "two")).unwrap();
    watched.report().await;
    assert_eq!(watched.say("a").await, "two");
}

#[tokio::test]
async fn a_plugin_in_a_folder_of_its_own_changes_with_its_assets() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("shop");
    fs::create_dir_all(own.join("assets")).unwrap();
    fs::write(own.join("assets/rate.json"), "1").unwrap();
    let manifest = "name = \"shop\"\nversion = \"1.0.0\"\ndescription = \"A test's\"\nauthor = \"Acme\"\n\
                    entry = \"main.rhai\"\n[tools.say]\ndescription = \"Says it\"\n";
    fs::write(own.join("plugin.toml"), manifest).unwrap();
    fs::write(own.join("main.rhai"), r#"fn say(args) { asset_text("rate.json") }"#).unwrap();
    let mut watched = Watched::new(folder.path(), QUICK).await;
    assert_eq!(watched.say("shop").await, "1");
    fs::write(own.join("assets/rate.json"), "2").unwrap();
    assert_eq!(watched.report().await.reloaded.len(), 1);
    assert_eq!(watched.say("shop").await, "2");
}

#[tokio::test]
async fn one_plugin_can_be_watched_alone_and_may_go() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.rhai");
    fs::write(&path, script("a", "one")).unwrap();
    let mut watched = Watched::new(&path, QUICK).await;
    // A neighbour is none of its business.
    fs::write(folder.path().join("b.rhai"), script("b", "new")).unwrap();
    fs::write(&path, script("a", "two")).unwrap();
    watched.report().await;
    assert_eq!((watched.say("a").await.as_str(), watched.say("b").await.as_str()), ("two", "NotFound"));
    fs::remove_file(&path).unwrap();
    assert_eq!(watched.report().await.removed.len(), 1);
}

#[tokio::test]
async fn a_lost_event_is_made_good_by_the_next_look() {
    let folder = tempfile::tempdir().unwrap();
    let inner = folder.path().join("tools");
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("a.rhai"), script("a", "one")).unwrap();
    let options = WatchOptions { rescan: Duration::from_millis(50), ..QUICK };
    let mut watched = Watched::new(&inner, options).await;
    // The folder that was watched is gone for good, and another one comes into its place.
    fs::rename(&inner, folder.path().join("old")).unwrap();
    fs::create_dir(&inner).unwrap();
    fs::write(inner.join("a.rhai"), script("a", "two")).unwrap();
    loop {
        if !watched.report().await.reloaded.is_empty() {
            break;
        }
    }
    assert_eq!(watched.say("a").await, "two");
}

#[tokio::test]
async fn whether_a_breaking_change_is_taken_is_the_watchs_setting() {
    for allow_breaking in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.rhai");
        fs::write(&path, script("a", "one")).unwrap();
        let options = WatchOptions { reload: ReloadOptions { allow_breaking }, ..QUICK };
        let mut watched = Watched::new(folder.path(), options).await;
        fs::write(&path, script("a", "two").replace("say:", "tell:").replace("fn say", "fn tell")).unwrap();
        let report = watched.report().await;
        assert_eq!((report.reloaded.len(), report.failed.len()), if allow_breaking { (1, 0) } else { (0, 1) });
    }
}

#[tokio::test]
async fn what_is_not_there_cannot_be_watched() {
    let bay = Toolbay::builder().build().unwrap();
    let error = Watch::begin(bay, Scope::Global, "no/such/folder", QUICK, |_| {}).unwrap_err();
    assert!(error.to_string().starts_with("no/such/folder cannot be watched: "), "{error}");
}
