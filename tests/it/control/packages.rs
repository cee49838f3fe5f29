//! Packages: uploaded, installed, replaced, taken back; and what nobody should be able to get in.

use std::{io::Write as _, sync::Arc};

use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use tar::{Builder, EntryType, Header};
use toolbay::{Control, ControlOptions, ErrorKind, Install, Scope, ToolError, Upload, Uploaded};

use super::{Database, admin, of, plugin};
use crate::support::{names, outcome, tenant};

/// A one-file plugin `fx` of a version whose tool `rate` says `says` and takes what `properties` say.
fn fx(version: &str, says: &str, properties: &str) -> String {
    format!(
        r#"const PLUGIN = #{{ name: "fx", version: "{version}", description: "Rates", author: "Acme", tools: #{{
            rate: #{{ description: "A rate", parameters: #{{ type: "object", properties: #{{ {properties} }} }} }} }} }};
        fn rate(args, cx) {{ "{says}" }}"#
    )
}

async fn upload(control: &Control, scope: &Scope, content: impl AsRef<[u8]>) -> Result<Uploaded, ToolError> {
    let upload = Upload { file_name: "fx.rhai".into(), content: content.as_ref().into() };
    control.upload(&admin(), scope, upload).await
}

fn version(text: &str) -> Install {
    Install { version: Some(text.parse().unwrap()), ..Install::default() }
}

async fn says(control: &Control, tenant: &str) -> serde_json::Value {
    outcome(&control.toolbay().session(tenant).unwrap(), "fx.rate", json!({})).await
}

/// A gzipped tar archive of these entries.
fn archive(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
    let mut archive = Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (path, kind, content) in entries {
        let mut header = Header::new_gnu();
        // Past the checks of the crate, which would not write what an attacker does.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        if kind.is_symlink() || kind.is_hard_link() {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        archive.append(&header, *content).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap()
}

const MANIFEST: &[u8] = br#"name = "fx"
version = "1.0.0"
description = "Rates"
author = "Acme"
runtime = "rhai"
entry = "main.rhai"
[tools.rate]
description = "A rate"
parameters = { type = "object" }
"#;
const MAIN: &[u8] = b"fn rate(args, cx) { asset_text(\"rate.txt\") }";

const FILE: EntryType = EntryType::Regular;

#[tokio::test]
async fn a_version_is_uploaded_installed_replaced_and_taken_back() {
    let database = Database::new();
    let (control, acme, fx_name) = (database.with_tenants().await, tenant("acme"), plugin("fx"));
    let one = upload(&control, &acme, fx("1.0.0", "one", "")).await.unwrap();
    assert!(!one.known);
    // Uploaded is not installed.
    assert_eq!(names(&control.toolbay().session("acme").unwrap()), ["teller.config"]);
    let row = control.install(&of("acme"), &acme, &fx_name, Install::default()).await.unwrap();
    assert_eq!((row.version.to_string(), row.package), ("1.0.0".to_owned(), Some(one.version.digest)));
    assert_eq!(says(&control, "acme").await, "one");
    let none = says(&control, "globex").await;
    assert!(none.as_str().unwrap().starts_with("NotFound: there is no tool called"), "{none}");

    // The same bytes again are the same version; other bytes under its number are not.
    assert!(upload(&control, &acme, fx("1.0.0", "one", "")).await.unwrap().known);
    let other = upload(&control, &acme, fx("1.0.0", "changed", "")).await.unwrap_err();
    assert_eq!(
        other.to_string(),
        "Conflict: version 1.0.0 of fx was uploaded with other content: a version never changes; give this one another number"
    );

    upload(&control, &acme, fx("1.1.0", "two", "day: #{ type: \"string\" }")).await.unwrap();
    assert_eq!(says(&control, "acme").await, "one");
    control.install(&of("acme"), &acme, &fx_name, Install::default()).await.unwrap();
    assert_eq!(says(&control, "acme").await, "two");
    // Back, which would take a field from callers, so it has to be said.
    let breaking = control.rollback(&of("acme"), &acme, &fx_name, Install::default()).await.unwrap_err();
    assert_eq!(breaking.kind, ErrorKind::Conflict, "{breaking}");
    let allowed = Install { allow_breaking: true, ..Install::default() };
    let row = control.rollback(&of("acme"), &acme, &fx_name, allowed).await.unwrap();
    assert_eq!((row.version.to_string(), row.previous.unwrap().to_string()), ("1.0.0".into(), "1.1.0".into()));
    assert_eq!(says(&control, "acme").await, "one");

    let listed = control.versions(&of("acme"), &acme, &fx_name).await.unwrap();
    assert_eq!(listed.iter().map(|row| row.version.to_string()).collect::<Vec<_>>(), ["1.1.0", "1.0.0"]);
    control.remove(&of("acme"), &acme, &fx_name, None, true).await.unwrap();
    assert_eq!(names(&control.toolbay().session("acme").unwrap()), ["teller.config"]);
    assert_eq!(control.versions(&of("acme"), &acme, &fx_name).await.unwrap(), []);
    let gone = control.remove(&of("acme"), &acme, &fx_name, None, true).await.unwrap_err();
    assert_eq!(gone.to_string(), "NotFound: nothing is installed or decided there about a plugin called fx");
}

#[tokio::test]
async fn what_is_installed_is_there_after_a_restart_and_in_every_process() {
    let database = Database::new();
    let (control, acme, fx_name) = (database.with_tenants().await, tenant("acme"), plugin("fx"));
    let other = database.process(toolbay::builder()).await;
    upload(&control, &Scope::Global, fx("1.0.0", "for everybody", "")).await.unwrap();
    control.install(&admin(), &Scope::Global, &fx_name, Install::default()).await.unwrap();
    upload(&control, &acme, fx("2.0.0", "for acme", "")).await.unwrap();
    control.install(&admin(), &acme, &fx_name, Install::default()).await.unwrap();
    other.sync().await.unwrap();
    let after = database.process(toolbay::builder()).await;
    for control in [&control, &other, &after] {
        assert_eq!(says(control, "acme").await, "for acme");
        assert_eq!(says(control, "globex").await, "for everybody");
    }
    control.remove(&admin(), &acme, &fx_name, None, false).await.unwrap();
    other.sync().await.unwrap();
    assert_eq!(says(&other, "acme").await, "for everybody");
    // Its versions are there still.
    control.install(&admin(), &acme, &fx_name, version("2.0.0")).await.unwrap();
    assert_eq!(says(&control, "acme").await, "for acme");
}

#[tokio::test]
async fn what_would_not_work_is_refused_before_it_is_written() {
    let database = Database::new();
    let (control, acme, fx_name) = (database.with_tenants().await, tenant("acme"), plugin("fx"));
    let broken = upload(&control, &acme, "const PLUGIN = #{ name: \"fx\" \n fn rate( {").await.unwrap_err();
    assert_eq!(broken.kind, ErrorKind::Compile);
    assert_eq!(broken.details["line"], 2, "{broken:?}");
    let none = control.install(&of("acme"), &acme, &fx_name, Install::default()).await.unwrap_err();
    assert_eq!(none.to_string(), "NotFound: no version of fx is uploaded there");
    upload(&control, &acme, fx("1.0.0", "one", "")).await.unwrap();
    let none = control.install(&of("acme"), &acme, &fx_name, version("9.9.9")).await.unwrap_err();
    assert_eq!(none.to_string(), "NotFound: no version 9.9.9 of fx is uploaded there");
    let none = control.rollback(&of("acme"), &acme, &fx_name, Install::default()).await.unwrap_err();
    assert_eq!(none.to_string(), "NotFound: no version of fx was installed before this one");

    // What requires another plugin waits for it, and keeps it.
    let needs = fx("1.0.0", "n", "")
        .replace("name: \"fx\",", "name: \"needs\", requires: [#{ name: \"fx\", version: \"1\" }],");
    upload(&control, &acme, &needs).await.unwrap();
    let missing = control.install(&of("acme"), &acme, &plugin("needs"), Install::default()).await.unwrap_err();
    assert_eq!(missing.kind, ErrorKind::Dependency);
    control.install(&of("acme"), &acme, &fx_name, Install::default()).await.unwrap();
    control.install(&of("acme"), &acme, &plugin("needs"), Install::default()).await.unwrap();
    let needed = control.remove(&of("acme"), &acme, &fx_name, None, false).await.unwrap_err();
    assert_eq!(needed.kind, ErrorKind::Dependency);
    upload(&control, &acme, fx("2.0.0", "two", "")).await.unwrap();
    let needed = control.install(&of("acme"), &acme, &fx_name, Install::default()).await.unwrap_err();
    assert_eq!(needed.kind, ErrorKind::Dependency, "{needed}");
    assert_eq!(says(&control, "acme").await, "one");

    // A plugin that came from elsewhere is not replaced by an uploaded one.
    let teller = fx("1.0.0", "t", "").replace("\"fx\"", "\"teller\"");
    upload(&control, &Scope::Global, &teller).await.unwrap();
    let taken = control.install(&admin(), &Scope::Global, &plugin("teller"), Install::default()).await.unwrap_err();
    assert_eq!(taken.kind, ErrorKind::Conflict);
}

#[tokio::test]
async fn bounds_on_what_tenants_upload_hold() {
    let database = Database::new();
    drop(database.with_tenants().await);
    let options =
        ControlOptions { max_versions: 2, max_plugins: 1, max_package_bytes: 2_000, ..ControlOptions::default() };
    let open = async |options: &ControlOptions| {
        Control::open(toolbay::builder().build().unwrap(), database.store().await, options.clone()).await.unwrap()
    };
    let control = open(&options).await;
    let (acme, by) = (tenant("acme"), of("acme"));
    let put = async |control: &Control, content: String| {
        let upload = Upload { file_name: "fx.rhai".into(), content: content.into_bytes().into() };
        control.upload(&by, &acme, upload).await.map_err(|error| error.to_string())
    };
    let long = put(&control, fx("1.0.0", &"x".repeat(2_000), "")).await.unwrap_err();
    assert!(long.starts_with("LimitExceeded: the package has 2"), "{long}");
    put(&control, fx("1.0.0", "1", "")).await.unwrap();
    put(&control, fx("1.0.1", "1", "")).await.unwrap();
    let third = put(&control, fx("1.0.2", "1", "")).await.unwrap_err();
    assert!(third.starts_with("LimitExceeded: 2 versions of fx are uploaded"), "{third}");
    control.install(&by, &acme, &plugin("fx"), Install::default()).await.unwrap();
    let second = put(&control, fx("1.0.0", "1", "").replace("\"fx\"", "\"gx\"")).await.unwrap_err();
    assert!(second.starts_with("LimitExceeded: 1 plugins are uploaded there"), "{second}");
    let closed = open(&ControlOptions { tenants_upload: false, ..options }).await;
    let refused = put(&closed, fx("1.0.3", "1", "")).await.unwrap_err();
    assert_eq!(refused, "PermissionDenied: tenants upload no plugins here: ask the operator");
}

#[tokio::test]
async fn a_folder_comes_as_an_archive() {
    let database = Database::new();
    let (control, acme, fx_name) = (database.with_tenants().await, tenant("acme"), plugin("fx"));
    let flat = archive(&[("plugin.toml", FILE, MANIFEST), ("main.rhai", FILE, MAIN), ("assets/rate.txt", FILE, b"7")]);
    upload(&control, &acme, &flat).await.unwrap();
    control.install(&of("acme"), &acme, &fx_name, Install::default()).await.unwrap();
    assert_eq!(says(&control, "acme").await, "7");
    let within = archive(&[
        ("fx/", EntryType::Directory, b""),
        ("fx/plugin.toml", FILE, MANIFEST),
        ("fx/main.rhai", FILE, MAIN),
        ("fx/assets/rate.txt", FILE, b"8"),
    ]);
    upload(&control, &tenant("globex"), &within).await.unwrap();
    control.install(&of("globex"), &tenant("globex"), &fx_name, Install::default()).await.unwrap();
    assert_eq!(says(&control, "globex").await, "8");
}

#[tokio::test]
async fn archives_that_try_something_are_refused() {
    let database = Database::new();
    let control = database.with_tenants().await;
    let (manifest, main) = (("plugin.toml", FILE, MANIFEST), ("main.rhai", FILE, MAIN));
    let bomb = {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
        let mut header = Header::new_gnu();
        header.set_path("assets/zeros").unwrap();
        header.set_size(200 << 20);
        header.set_cksum();
        gzip.write_all(header.as_bytes()).unwrap();
        for _ in 0..200 {
            gzip.write_all(&vec![0; 1 << 20]).unwrap();
        }
        gzip.finish().unwrap()
    };
    assert!(bomb.len() < 1 << 20, "it has {} bytes", bomb.len());
    let many: Vec<_> = (0..1_001).map(|n| format!("assets/{n}")).collect();
    let many: Vec<_> = many.iter().map(|path| (path.as_str(), FILE, &b""[..])).collect();
    let wrong: Vec<(Vec<u8>, &str)> = vec![
        (archive(&[manifest, main, ("../evil", FILE, b"x")]), "does not stay within"),
        (archive(&[manifest, main, ("assets/../../evil", FILE, b"x")]), "does not stay within"),
        (archive(&[manifest, main, ("/etc/evil", FILE, b"x")]), "does not stay within"),
        (archive(&[manifest, main, ("assets\\evil", FILE, b"x")]), "has characters that paths of plugins do not have"),
        (archive(&[manifest, main, ("assets/link", EntryType::Symlink, b"")]), "is a link"),
        (archive(&[manifest, main, ("assets/link", EntryType::Link, b"")]), "is a link"),
        (archive(&[manifest, main, ("assets/pipe", EntryType::Fifo, b"")]), "is neither a file nor a folder"),
        (archive(&[manifest, main, ("assets/device", EntryType::Char, b"")]), "is neither a file nor a folder"),
        (archive(&[manifest, main, main]), "is in the archive twice"),
        (archive(&[manifest, ("plugin.json", FILE, b"{}"), main]), "keep one of them"),
        (archive(&[("other/plugin.toml", FILE, MANIFEST), ("other/main.rhai", FILE, MAIN)]), "the folder is called"),
        (archive(&[("a/plugin.toml", FILE, MANIFEST), ("b/main.rhai", FILE, MAIN)]), "no plugin.toml"),
        (archive(&[main]), "no plugin.toml"),
        (archive(&[]), "no plugin.toml"),
        (archive(&many), "more than 1000 entries"),
        (bomb, "bytes unpacked"),
        (vec![0x1f, 0x8b, 8, 0, 0], "cannot be read"),
        (vec![0xff, 0xfe, 0x00], "is not UTF-8"),
    ];
    for (content, told) in wrong {
        let content: Arc<[u8]> = content.into();
        let error = control
            .upload(&of("acme"), &tenant("acme"), Upload { file_name: "fx.rhai".into(), content })
            .await
            .map(|uploaded| uploaded.version.plugin)
            .unwrap_err();
        assert!(error.message.contains(told), "{told}: {error}");
    }
    for name in ["../fx.rhai", "a/fx.rhai", "/fx.rhai", "", ".rhai", "fx.exe", "fx\0.rhai"] {
        let content: Arc<[u8]> = fx("1.0.0", "x", "").into_bytes().into();
        let refused =
            control.upload(&of("acme"), &tenant("acme"), Upload { file_name: name.into(), content }).await.unwrap_err();
        assert_eq!(refused.kind, ErrorKind::Config, "{name:?}");
    }
    assert!(control.store().versions(&tenant("acme"), &plugin("fx")).await.unwrap().is_empty());
}
