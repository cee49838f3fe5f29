//! Registry indexes: what is loaded of them, what is refused, and what a host does when they change.

use std::{fs, path::Path};

use expect_test::expect;
use serde_json::{Value, json};
use tempfile::TempDir;
use toolbay::{Index, LoadReport, PermissionSet, ReloadOptions, Scope, Toolbay};

use crate::{
    cli::Desk,
    support::{folder, names, outcome},
};

fn say(name: &str, version: &str, text: &str) -> String {
    format!(
        "const PLUGIN = #{{ name: \"{name}\", version: \"{version}\", description: \"A test's\", author: \"Acme\",\n\
         tools: #{{ say: #{{ description: \"Says it\" }} }} }};\nfn say(args) {{ \"{text}\" }}\n"
    )
}

fn manifest(name: &str, version: &str) -> String {
    format!(
        "name = \"{name}\"\nversion = \"{version}\"\ndescription = \"A test's\"\nauthor = \"Acme\"\n[tools.say]\ndescription = \"Says it\"\n"
    )
}

fn bay() -> Toolbay {
    toolbay::builder().grants(PermissionSet::standard()).build().unwrap()
}

/// Packages in several versions, and their index as the tool writes it.
async fn registry() -> (TempDir, Index) {
    let files = [
        ("one/say-1.0.0.rhai", say("say", "1.0.0", "one")),
        ("one/say-1.2.0.rhai", say("say", "1.2.0", "one two")),
        ("one/say-2.0.0-beta.1.rhai", say("say", "2.0.0-beta.1", "beta")),
        ("pay/1.0.0/pay/plugin.toml", manifest("pay", "1.0.0")),
        ("pay/1.0.0/pay/main.rhai", "fn say(args) { asset_text(\"text.txt\") }".to_owned()),
        ("pay/1.0.0/pay/assets/text.txt", "paid".to_owned()),
        ("pay/1.0.0/pay/README.md", "is not loaded".to_owned()),
    ];
    let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let folder = folder(&files);
    let (index, report) = bay().index_of(folder.path(), folder.path(), None).await.unwrap();
    assert!(report.failed.is_empty() && report.loaded.len() == 4, "{report}");
    (folder, index)
}

/// Writes an index after `change`.
fn written(folder: &Path, index: &Index, change: impl FnOnce(&mut Value)) -> std::path::PathBuf {
    let mut value = serde_json::to_value(index).unwrap();
    change(&mut value);
    let path = folder.join("index.json");
    fs::write(&path, value.to_string()).unwrap();
    path
}

/// The entry of this name and version.
fn entry<'a>(index: &'a mut Value, name: &str, version: &str) -> &'a mut Value {
    let entries = index["plugins"].as_array_mut().unwrap();
    entries.iter_mut().find(|entry| entry["name"] == name && entry["version"] == version).expect("it is there")
}

/// The report with the test's folder and its checksums left out.
fn shown(report: &LoadReport, folder: &Path) -> String {
    let text = report.to_string().replace(&format!("{}/", folder.display()), "");
    let is_sum = |word: &str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let word = |word: &str| if is_sum(word.trim_end_matches([';', ','])) { "SUM".to_owned() } else { word.to_owned() };
    text.lines().map(|line| line.split(' ').map(word).collect::<Vec<_>>().join(" ") + "\n").collect()
}

async fn loaded(change: impl FnOnce(&mut Value)) -> (Toolbay, String) {
    let (folder, index) = registry().await;
    let bay = bay();
    let report = bay.load_from(Scope::Global, written(folder.path(), &index, change)).await;
    let text = shown(&report, folder.path());
    (bay, text)
}

#[tokio::test]
async fn of_each_plugin_of_an_index_the_newest_release_is_loaded() {
    let (bay, report) = loaded(|_| ()).await;
    expect![[r#"
        loaded  pay 1.0.0 (global): 1 tool, 0 hooks
        loaded  say 1.2.0 (global): 1 tool, 0 hooks
    "#]]
    .assert_eq(&report);
    let acme = bay.session("acme").unwrap();
    assert_eq!(outcome(&acme, "say", json!({})).await, json!("one two"));
    assert_eq!(outcome(&acme, "pay.say", json!({})).await, json!("paid"));
}

#[tokio::test]
async fn what_is_yanked_or_asks_for_another_toolbay_gives_way_to_what_is_not() {
    let (bay, report) = loaded(|index| {
        entry(index, "say", "1.2.0")["yanked"] = json!(true);
        entry(index, "pay", "1.0.0")["framework"] = json!("^9");
    })
    .await;
    expect![[r#"
        loaded  say 1.0.0 (global): 1 tool, 0 hooks
        skipped pay/1.0.0/pay: pay 1.0.0 asks for Toolbay ^9, and this is 0.1.0
        skipped one/say-1.2.0.rhai: say 1.2.0 is yanked in the index
    "#]]
    .assert_eq(&report);
    assert_eq!(outcome(&bay.session("acme").unwrap(), "say", json!({})).await, json!("one"));
    // What comes before a release is taken where there is no release.
    let (_, report) = loaded(|index| {
        entry(index, "say", "1.2.0")["yanked"] = json!(true);
        entry(index, "say", "1.0.0")["yanked"] = json!(true);
    })
    .await;
    assert!(report.contains("loaded  say 2.0.0-beta.1"), "{report}");
}

#[tokio::test]
async fn content_that_is_not_what_the_index_says_is_not_loaded_and_no_older_one_is_taken_in_its_place() {
    for (file, content) in [
        ("one/say-1.2.0.rhai", say("say", "1.2.0", "evil")),
        ("pay/1.0.0/pay/main.rhai", "fn say(args) { \"evil\" }".to_owned()),
        ("pay/1.0.0/pay/plugin.toml", format!("license = \"MIT\"\n{}", manifest("pay", "1.0.0"))),
        ("pay/1.0.0/pay/plugin.toml", manifest("pay", "1.0.0") + "# a comment\n"),
        ("pay/1.0.0/pay/assets/text.txt", "evil".to_owned()),
        ("pay/1.0.0/pay/assets/more.txt", "evil".to_owned()),
        ("pay/1.0.0/pay/more.rhai", "fn more() {}".to_owned()),
    ] {
        let (folder, index) = registry().await;
        fs::write(folder.path().join(file), content).unwrap();
        let bay = bay();
        let report = bay.load_from(Scope::Global, written(folder.path(), &index, |_| ())).await;
        assert_eq!((report.loaded.len(), report.failed.len()), (1, 1), "{file}: {report}");
        let error = report.failed[0].error.to_string();
        assert!(error.contains("is not what the index says: its content has the sha256"), "{error}");
    }
}

#[tokio::test]
async fn each_wrong_entry_is_told_and_stops_no_other() {
    let (bay, report) = loaded(|index| {
        let good = entry(index, "say", "1.0.0").clone();
        let mut add = |change: Value| {
            let mut entry = good.clone();
            entry["name"] = json!("other");
            for (key, value) in change.as_object().unwrap() {
                entry[key] = value.clone();
            }
            index["plugins"].as_array_mut().unwrap().push(entry);
        };
        add(json!({ "version": "1.0.1", "path": "../one/say-1.0.0.rhai" }));
        add(json!({ "version": "1.0.2", "path": "/etc/passwd" }));
        add(json!({ "version": "1.0.3", "path": "one/./say-1.0.0.rhai" }));
        add(json!({ "version": "1.0.4", "path": "one\\..\\say-1.0.0.rhai" }));
        add(json!({ "version": "1.0.5", "path": "C:one/say-1.0.0.rhai" }));
        add(json!({ "version": "1.0.6", "path": "" }));
        add(json!({ "version": "1.0.7", "sha256": "00" }));
        add(json!({ "version": "1.0.8", "colour": "red" }));
        add(json!({ "version": "one" }));
        add(json!({ "name": "Other!" }));
        add(json!({ "name": "say", "version": "1.0.0" }));
        add(json!({ "name": "gone", "path": "one/gone.rhai" }));
        add(json!({ "name": "liar" }));
        add(json!({ "name": "self", "path": "index.json" }));
        index["plugins"].as_array_mut().unwrap().push(json!(["listed", "1.0.0", "x", "0".repeat(64)]));
    })
    .await;
    expect![[r#"
        loaded  pay 1.0.0 (global): 1 tool, 0 hooks
        loaded  say 1.2.0 (global): 1 tool, 0 hooks
        failed  index.json (global): Config: index.json: plugins[4] (other): path: "../one/say-1.0.0.rhai" must lead to something below the index's folder, with / between the steps
        failed  index.json (global): Config: index.json: plugins[5] (other): path: "/etc/passwd" must lead to something below the index's folder, with / between the steps
        failed  index.json (global): Config: index.json: plugins[6] (other): path: "one/./say-1.0.0.rhai" must lead to something below the index's folder, with / between the steps
        failed  index.json (global): Config: index.json: plugins[7] (other): path: "one\\..\\say-1.0.0.rhai" must lead to something below the index's folder, with / between the steps
        failed  index.json (global): Config: index.json: plugins[8] (other): path: "C:one/say-1.0.0.rhai" must lead to something below the index's folder, with / between the steps
        failed  index.json (global): Config: index.json: plugins[9] (other): path: "" must lead to something below the index's folder, with / between the steps
        failed  index.json (global): Config: index.json: plugins[10] (other): sha256: must be 64 digits of 0-9 a-f
        failed  index.json (global): Config: index.json: plugins[11] (other): unknown field `colour`, expected one of `name`, `version`, `path`, `sha256`, `framework`, `description`, `yanked`
    "#]]
    .assert_eq(&report.lines().take(10).map(|line| format!("{line}\n")).collect::<String>());
    for words in [
        "plugins[12] (other): unexpected character 'o' while parsing major version number",
        "plugins[18]: must be an object",
        "plugins[13]: the plugin name \"Other!\" is not allowed",
        "plugins[14] (say): version: say 1.0.0 stands there twice",
        "failed  one/gone.rhai (global): NotFound",
        "the index calls it liar 1.0.0, and it calls itself say 1.0.0: mend the index",
        "failed  index.json (global): Config: index.json: not a plugin",
    ] {
        assert!(report.contains(words), "{words:?} is not in {report}");
    }
    assert_eq!(names(&bay.session("acme").unwrap()), ["pay.say", "say"]);
}

#[cfg(unix)]
#[tokio::test]
async fn a_package_behind_a_link_is_not_followed() {
    let outside = folder(&[("say.rhai", &say("say", "1.0.0", "from outside"))]);
    for link in ["one", "one/say.rhai"] {
        let inside = folder(&[("other/x", "x")]);
        let (index, _) = bay().index_of(outside.path(), outside.path(), None).await.unwrap();
        if link == "one" {
            std::os::unix::fs::symlink(outside.path(), inside.path().join("one")).unwrap();
        } else {
            fs::create_dir(inside.path().join("one")).unwrap();
            std::os::unix::fs::symlink(outside.path().join("say.rhai"), inside.path().join(link)).unwrap();
        }
        let path = written(inside.path(), &index, |index| entry(index, "say", "1.0.0")["path"] = json!("one/say.rhai"));
        let report = bay().load_from(Scope::Global, path).await;
        let error = report.failed[0].error.to_string();
        assert!(report.loaded.is_empty() && error.contains("goes by a link"), "{link}: {error}");
    }
}

#[tokio::test]
async fn what_is_no_index_is_told_with_its_place() {
    let mut text = String::new();
    for content in [
        "{ \"version\": 1,\n  \"plugins\": [ }",
        "[]",
        "{ \"version\": 2, \"plugins\": [] }",
        "{ \"version\": 1, \"plugins\": [], \"more\": 1 }",
        "{ \"plugins\": [] }",
    ] {
        let folder = folder(&[("index.json", content)]);
        let report = bay().load_from(Scope::Global, folder.path().join("index.json")).await;
        text.push_str(&format!("{}\n", report.failed[0].error));
    }
    expect![[r#"
        Config: index.json:2:16: is no registry index: expected value
          2 |   "plugins": [ }
            |                ^
        Config: index.json: is no registry index: write { "version": 1, "plugins": [] }
        Config: index.json: version: 2 is another form of index than 1, which is read here
        Config: index.json:1:37: is no registry index: unknown field `more`, expected `version` or `plugins`
          1 | { "version": 1, "plugins": [], "more": 1 }
            |                                     ^
        Config: index.json:1:17: is no registry index: missing field `version`
          1 | { "plugins": [] }
            |                 ^
    "#]]
    .assert_eq(&text);
    let folder = folder(&[("index.json", &format!("{{ \"version\": 1, \"plugins\": [{}] }}", "1,".repeat(9 << 20)))]);
    let report = bay().load_from(Scope::Global, folder.path().join("index.json")).await;
    assert!(report.failed[0].error.message.contains("has more than 16777216 bytes"), "{report}");
}

#[tokio::test]
async fn strictly_an_index_is_loaded_whole_or_not_at_all() {
    let (folder, index) = registry().await;
    let path = written(folder.path(), &index, |index| entry(index, "pay", "1.0.0")["framework"] = json!("^9"));
    let bay = bay();
    let report = bay.load_from_or_nothing(Scope::Global, &path).await;
    assert_eq!(
        (report.loaded.len(), report.skipped.len(), report.failed.len()),
        (1, 1, 0),
        "what is left alone is no failure"
    );
    let strict = toolbay::builder().build().unwrap();
    let path = written(folder.path(), &index, |index| entry(index, "pay", "1.0.0")["sha256"] = json!("0".repeat(64)));
    let report = strict.load_from_or_nothing(Scope::Global, &path).await;
    assert_eq!((report.loaded.len(), report.failed.len()), (0, 2), "{report}");
    assert!(strict.plugins(&Scope::Global).is_empty());
}

#[tokio::test]
async fn an_index_that_changes_is_followed() {
    let (folder, index) = registry().await;
    let path = written(folder.path(), &index, |index| entry(index, "say", "1.2.0")["yanked"] = json!(true));
    let bay = bay();
    bay.load_from(Scope::Global, &path).await;
    let sync = || bay.sync(Scope::Global, &path, ReloadOptions::default());
    assert_eq!(sync().await.unchanged, 2);
    written(folder.path(), &index, |_| ());
    let report = sync().await;
    assert_eq!(report.to_string(), "reloaded say 1.0.0 → 1.2.0 (global)\n");
    assert_eq!(outcome(&bay.session("acme").unwrap(), "say", json!({})).await, json!("one two"));
    // What cannot be told stays, what is not named any more goes.
    written(folder.path(), &index, |index| {
        entry(index, "say", "1.2.0")["sha256"] = json!("0".repeat(64));
        index["plugins"].as_array_mut().unwrap().retain(|entry| entry["name"] != "pay");
    });
    let report = sync().await;
    assert!(report.failed.len() == 1 && report.removed.len() == 1 && report.reloaded.is_empty(), "{report}");
    assert_eq!(names(&bay.session("acme").unwrap()), ["say"]);
    // A yanked version goes, though nothing takes its place.
    written(folder.path(), &index, |index| {
        for entry in index["plugins"].as_array_mut().unwrap() {
            entry["yanked"] = json!(true);
        }
    });
    assert_eq!(sync().await.removed.len(), 1);
    // A folder that is watched beside it is no concern of the index's.
    fs::create_dir(folder.path().join("beside")).unwrap();
    fs::write(folder.path().join("beside/own.rhai"), say("own", "1.0.0", "own")).unwrap();
    bay.load_from(Scope::Global, folder.path().join("beside")).await;
    assert!(sync().await.is_quiet());
    assert_eq!(names(&bay.session("acme").unwrap()), ["own.say"]);
}

#[test]
fn the_command_writes_an_index_that_hosts_load_from_and_keeps_what_is_yanked() {
    let desk = Desk::with(&[
        ("all/1/say.rhai", &say("say", "1.0.0", "one")),
        ("all/2/say.rhai", &say("say", "1.1.0", "two")),
        ("all/2/cases/say.jsonl", "{}"),
    ]);
    let ran = desk.run(&["index", "all"]);
    assert_eq!((ran.status, ran.stdout.as_str()), (Some(0), "all/index.json: 2 packages\n"), "{}", ran.stderr);
    let said = |desk: &Desk| desk.run(&["call", "say", "--tools", "all/index.json"]).stdout;
    assert_eq!(said(&desk), "two\n");
    let path = desk.path("all/index.json");
    let mut index: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(index["plugins"][1]["path"], json!("2/say.rhai"));
    assert_eq!(index["plugins"][1]["sha256"].as_str().unwrap().len(), 64);
    index["plugins"][1]["yanked"] = json!(true);
    fs::write(&path, index.to_string()).unwrap();
    let ran = desk.run(&["index", "all"]);
    assert_eq!(ran.stdout, "all/index.json: 2 packages, 1 of them yanked\n");
    assert_eq!(said(&desk), "one\n");
    // Elsewhere around the folder, but not outside of it.
    assert_eq!(desk.run(&["index", "all/2", "--out", "all/two.json"]).status, Some(0));
    assert!(desk.run(&["index", "all/2", "--out", "all/1/two.json"]).stderr.contains("is not within"));
    // A file that is something else is left alone, and so is an index for which a plugin does not load.
    fs::write(desk.path("all/notes.json"), "{}").unwrap();
    assert!(
        desk.run(&["index", "all", "--out", "all/notes.json"])
            .stderr
            .contains("is no registry index, so it is left alone")
    );
    fs::write(desk.path("all/2/say.rhai"), say("say", "1.1.0", "\" + ;")).unwrap();
    let before = fs::read_to_string(&path).unwrap();
    let ran = desk.run(&["index", "all"]);
    assert!(ran.status == Some(2) && ran.stderr.contains("all/2/say.rhai:3:"), "{}", ran.stderr);
    assert_eq!(fs::read_to_string(&path).unwrap(), before);
}

#[test]
fn the_schema_of_indexes_takes_what_the_reader_takes() {
    let desk = Desk::with(&[("all/say.rhai", &say("say", "1.0.0", "one"))]);
    let schema = desk.run(&["schema", "index"]).json();
    let schema = toolbay::schema::Schema::compile(&schema).expect("a sound schema");
    desk.run(&["index", "all"]);
    let index: Value = serde_json::from_str(&fs::read_to_string(desk.path("all/index.json")).unwrap()).unwrap();
    assert_eq!(schema.problems(&index), []);
    for (pointer, value) in [("/version", json!(2)), ("/plugins/0/sha256", json!("x")), ("/plugins/0/more", json!(1))] {
        let mut wrong = index.clone();
        match wrong.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => wrong["plugins"][0]["more"] = value,
        }
        assert!(!schema.accepts(&wrong), "{pointer}");
    }
}
