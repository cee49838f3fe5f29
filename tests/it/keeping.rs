//! What plugins keep: both stores do the same, quotas hold, spaces are apart.

use std::sync::Arc;

use serde_json::json;
use toolbay::{
    ErrorKind, FileKv, KvQuota, KvSpace, KvStore, MemoryKv, PermissionSet, PluginName, Scope, TenantId, ToolContext,
    ToolError, Toolbay, plugin::NativePlugin, tool,
};

use toolbay_testkit::check_kv;

use crate::support::{outcome, tenant};

fn space(tenant: &str, plugin: &str) -> KvSpace {
    KvSpace { tenant: TenantId::new(tenant).unwrap(), plugin: PluginName::new(plugin).unwrap(), own: false }
}

#[tokio::test]
async fn the_store_in_memory_behaves() {
    check_kv(Arc::new(MemoryKv::default())).await;
}

#[tokio::test]
async fn the_store_in_files_behaves() {
    let folder = tempfile::tempdir().unwrap();
    check_kv(Arc::new(FileKv::open(folder.path()).unwrap())).await;
}

#[tokio::test]
async fn what_one_process_wrote_another_reads_and_neither_loses_writes() {
    let folder = tempfile::tempdir().unwrap();
    let stores = [FileKv::open(folder.path()).unwrap(), FileKv::open(folder.path()).unwrap()];
    let mine = space("acme", "todo");
    let mut writers = Vec::new();
    for (number, store) in stores.iter().cloned().enumerate() {
        let mine = mine.clone();
        writers.push(tokio::spawn(async move {
            for n in 0..50 {
                store.set(&mine, &format!("{number}-{n}"), json!(n).into(), KvQuota::default(), 0).await.unwrap();
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    for store in &stores {
        assert_eq!(store.list(&mine, "", "", 1000, 0).await.unwrap().len(), 100);
    }
}

#[tokio::test]
async fn a_broken_state_file_is_unavailable_and_not_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileKv::open(folder.path()).unwrap();
    std::fs::create_dir(folder.path().join("acme")).unwrap();
    let file = folder.path().join("acme/todo.json");
    std::fs::write(&file, "{broken").unwrap();
    let error = store.set(&space("acme", "todo"), "a", json!(1).into(), KvQuota::default(), 0).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable);
    assert!(!error.message.contains("acme"), "a path reached the model: {error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "{broken");
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Text {
    text: Option<String>,
}

/// A plugin with a tool that keeps a text and gives back the one before.
fn keeper(permissions: &[&str]) -> NativePlugin {
    let keep = tool("keep", "Keeps a text", async |args: Text, cx: ToolContext| -> Result<_, ToolError> {
        let before = cx.host().kv_get("text").await?;
        cx.host().kv_set("text", json!(args.text)).await?;
        Ok(before)
    });
    let asked = PermissionSet::parse(permissions).unwrap();
    NativePlugin::new("keep", "1.0.0", "Keeps").unwrap().with(|metadata| metadata.permissions = asked).tool(keep)
}

#[tokio::test]
async fn tenants_that_use_one_global_plugin_do_not_see_each_others_values() {
    let bay = Toolbay::builder().grants(PermissionSet::standard()).build().unwrap();
    bay.register(Scope::Global, keeper(&["kv:*"])).await.unwrap();
    let (acme, globex) = (bay.session("acme").unwrap(), bay.session("globex").unwrap());
    assert_eq!(outcome(&acme, "keep", json!({ "text": "acme's" })).await, json!(null));
    assert_eq!(outcome(&globex, "keep", json!({ "text": "globex's" })).await, json!(null));
    assert_eq!(outcome(&acme, "keep", json!({})).await, json!("acme's"));
}

#[tokio::test]
async fn what_is_not_asked_granted_by_the_host_and_granted_by_the_tenant_is_denied() {
    let kv = || PermissionSet::parse(["kv:*"]).unwrap();
    let acme = || TenantId::new("acme").unwrap();
    let builder = Toolbay::builder;
    let name = PluginName::new("keep").unwrap();
    for (what, builder, asked) in [
        ("manifest does not ask", builder().grants(kv()), &["clock"][..]),
        ("host does not grant", builder(), &["kv:read"][..]),
        ("host does not grant", builder().grants(kv()).plugin_grants(name, PermissionSet::default()), &["kv:read"][..]),
        (
            "tenant does not grant",
            builder().grants(kv()).tenant_grants(acme(), PermissionSet::default()),
            &["kv:*"][..],
        ),
    ] {
        let bay = builder.kv(Arc::new(MemoryKv::default())).build().unwrap();
        bay.register(tenant("acme"), keeper(asked)).await.unwrap();
        let reply = outcome(&bay.session("acme").unwrap(), "keep", json!({})).await.to_string();
        assert!(
            reply.contains("PermissionDenied: the permission `kv:read` is needed") && reply.contains(what),
            "{reply}"
        );
    }
}

#[tokio::test]
async fn a_store_in_files_holds_no_more_than_what_is_used_of_late_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let store = FileKv::open(folder.path()).unwrap();
    let space = |number: usize| KvSpace {
        tenant: TenantId::new(format!("tenant-{number}")).unwrap(),
        plugin: PluginName::new("todo").unwrap(),
        own: false,
    };
    let quota = KvQuota::default();
    for number in 0..600 {
        store.set(&space(number), "n", json!(number).into(), quota, 0).await.unwrap();
        assert!(store.held() <= 256, "{}", store.held());
    }
    for number in (0..600).rev() {
        assert_eq!(store.get(&space(number), "n", 0).await.unwrap(), Some(json!(number)));
    }
    assert!(store.held() <= 256, "{}", store.held());
    // Work at one space from all sides while others push it out loses nothing.
    let mut all = tokio::task::JoinSet::new();
    for number in 0..400 {
        let (store, one, other) = (store.clone(), space(1_000), space(number));
        all.spawn(async move {
            store.set(&one, &format!("k{number}"), json!(number).into(), quota, 0).await.unwrap();
            store.get(&other, "n", 0).await.unwrap();
        });
    }
    all.join_all().await;
    assert_eq!(store.list(&space(1_000), "", "", 1_000, 0).await.unwrap().len(), 400);
}
