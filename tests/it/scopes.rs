//! Who sees what: tenants, shadowing, protection, names.

use expect_test::expect;
use serde_json::json;
use toolbay::{
    HookPoint, PermissionSet, PluginName, RegisterOptions, Scope, ToolContext, Toolbay, plugin::NativePlugin, tool,
};
use toolbay_testkit::{Answer, ScriptedHook};

use crate::support::{Nothing, host, names, outcome, plugin_that_says, says, tenant};

#[tokio::test]
async fn a_tenant_tool_is_invisible_to_another_tenant() {
    let bay = Toolbay::builder().tool(says("hello", "hi")).build().unwrap();
    bay.register(tenant("acme"), plugin_that_says("payroll", "acme's")).await.unwrap();
    let (acme, globex) = (bay.session("acme").unwrap(), bay.session("globex").unwrap());
    assert_eq!(names(&acme), ["hello", "payroll.what"]);
    assert_eq!(names(&globex), ["hello"]);
    assert!(globex.tool("payroll.what").is_none());
    assert_eq!(outcome(&acme, "payroll.what", json!({})).await, json!("acme's"));
    // Neither the error's kind nor its text tells that there is such a tool, nor does a near miss suggest it.
    let refused = outcome(&globex, "payroll.what", json!({})).await;
    let nonsense = outcome(&globex, "nonsense.what", json!({})).await;
    let text =
        |value: &serde_json::Value| value.as_str().unwrap().replace("payroll.what", "X").replace("nonsense.what", "X");
    assert_eq!(text(&refused), text(&nonsense));
    assert!(!outcome(&globex, "payroll.wha", json!({})).await.to_string().contains("payroll.what"));
}

#[tokio::test]
async fn a_tenants_hook_sees_its_own_tenants_calls_only() {
    let bay = host(Toolbay::builder()).await;
    let hook = ScriptedHook::at(HookPoint::BeforeToolCall, Answer::Deny("acme is closed".into()));
    let asked = hook.asked();
    let plugin = NativePlugin::new("closing", "1.0.0", "Closes").unwrap().hook(hook.everywhere("closing"));
    bay.register(tenant("acme"), plugin).await.unwrap();
    assert_eq!(outcome(&bay.session("globex").unwrap(), "test.echo", json!({})).await, json!({}));
    assert!(asked.lock().unwrap().is_empty());
    let acme = outcome(&bay.session("acme").unwrap(), "test.echo", json!({})).await;
    assert_eq!(acme, json!("DeniedByHook: closing: acme is closed"));
}

#[tokio::test]
async fn global_hooks_go_before_a_tenants_of_the_same_priority() {
    let bay = host(Toolbay::builder()).await;
    let plugin =
        |name: &str| NativePlugin::new(name, "1.0.0", "Looks").unwrap().hook(ScriptedHook::passive().everywhere(name));
    bay.register(tenant("acme"), plugin("own")).await.unwrap();
    bay.register(Scope::Global, plugin("global")).await.unwrap();
    let (session, transcript) = crate::support::acme(&bay);
    session.call("test.echo", json!({})).await;
    expect![[r#"
        lookup  global/test.echo
        hook    global before_tool_call -> continue
        hook    own before_tool_call -> continue
        call    test.echo {}
        hook    own after_tool_call -> keep
        hook    global after_tool_call -> keep
        reply   {}
    "#]]
    .assert_eq(&transcript.to_string());
}

#[tokio::test]
async fn a_tenants_plugin_stands_in_the_place_of_the_global_one_of_its_name() {
    let bay = Toolbay::builder().build().unwrap();
    bay.register(Scope::Global, plugin_that_says("fx", "global").tool(says("more", "global"))).await.unwrap();
    bay.register(tenant("acme"), plugin_that_says("fx", "own")).await.unwrap();
    let (acme, globex) = (bay.session("acme").unwrap(), bay.session("globex").unwrap());
    assert_eq!(outcome(&acme, "fx.what", json!({})).await, json!("own"));
    assert_eq!(outcome(&globex, "fx.what", json!({})).await, json!("global"));
    // The whole plugin is shadowed: a tool that only the global one has is gone too, in list and call alike.
    assert_eq!(names(&acme), ["fx.what"]);
    assert!(outcome(&acme, "fx.more", json!({})).await.to_string().contains("NotFound"));
    bay.unregister(&tenant("acme"), &PluginName::new("fx").unwrap()).await.unwrap();
    assert_eq!(outcome(&acme, "fx.what", json!({})).await, json!("global"));
}

#[tokio::test]
async fn a_protected_plugin_cannot_be_shadowed_whichever_came_first() {
    let protected = || RegisterOptions { protected: Some(true), ..RegisterOptions::default() };
    let bay = Toolbay::builder().build().unwrap();
    let global = std::sync::Arc::new(plugin_that_says("fx", "global"));
    bay.register_with(Scope::Global, global, protected()).await.unwrap();
    let error = bay.register(tenant("acme"), plugin_that_says("fx", "own")).await.unwrap_err();
    expect![
        "Conflict: the global plugin fx is protected: a tenant cannot put one of its own in its place; rename this one"
    ]
    .assert_eq(&error.to_string());

    let bay = Toolbay::builder().build().unwrap();
    bay.register(tenant("acme"), plugin_that_says("fx", "own")).await.unwrap();
    let global = std::sync::Arc::new(plugin_that_says("fx", "global"));
    bay.register_with(Scope::Global, global, protected()).await.unwrap();
    let acme = bay.session("acme").unwrap();
    assert_eq!(outcome(&acme, "fx.what", json!({})).await, json!("global"));
    assert_eq!(names(&acme), ["fx.what"]);
}

#[tokio::test]
async fn a_global_plugin_with_hooks_is_protected_unless_the_host_says_otherwise() {
    let guard = || {
        NativePlugin::new("guard", "1.0.0", "Guards")
            .unwrap()
            .hook(ScriptedHook::at(HookPoint::BeforeToolCall, Answer::Deny("no".into())).everywhere("guard"))
    };
    let bay = host(Toolbay::builder()).await;
    bay.register(Scope::Global, guard()).await.unwrap();
    let error = bay.register(tenant("acme"), plugin_that_says("guard", "mine")).await.unwrap_err();
    assert!(error.to_string().contains("protected"), "{error}");

    let bay = host(Toolbay::builder()).await;
    let options = RegisterOptions { protected: Some(false), ..RegisterOptions::default() };
    bay.register_with(Scope::Global, std::sync::Arc::new(guard()), options).await.unwrap();
    bay.register(tenant("acme"), plugin_that_says("guard", "mine")).await.unwrap();
    assert_eq!(outcome(&bay.session("acme").unwrap(), "test.echo", json!({})).await, json!({}));
}

#[tokio::test]
async fn two_plugins_of_one_name_in_one_scope_are_a_conflict() {
    let bay = Toolbay::builder().build().unwrap();
    bay.register(tenant("acme"), plugin_that_says("fx", "one")).await.unwrap();
    let error = bay.register(tenant("acme"), plugin_that_says("fx", "two")).await.unwrap_err();
    expect!["Conflict: a plugin called fx (version 1.0.0) is registered there already: unregister it first or rename this one"]
        .assert_eq(&error.to_string());
    bay.register(tenant("globex"), plugin_that_says("fx", "theirs")).await.unwrap();
}

#[tokio::test]
async fn a_tool_is_called_by_its_qualified_name_and_by_the_one_that_providers_take() {
    let bay = Toolbay::builder().build().unwrap();
    let long = "a".repeat(60);
    let plugin = NativePlugin::new("shop", "1.0.0", "Sells").unwrap();
    let plugin = plugin.tool(says("order.get-it", "short")).tool(says(&long, "long")).tool(says("shop", "itself"));
    bay.register(Scope::Global, plugin).await.unwrap();
    let session = bay.session("acme").unwrap();
    let listed = session.tools();
    for tool in &listed {
        let name = &tool.provider_name;
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        assert!(name.len() <= 64 && name.chars().all(fits), "{name}");
        let by_either = [tool.definition.name.as_str(), name];
        for name in by_either {
            assert!(session.call(name, json!({})).await.result.is_ok(), "{name}");
        }
    }
    assert_eq!(names(&session), [format!("shop.{long}"), "shop".into(), "shop.order.get-it".into()].tap_sorted());
}

trait TapSorted {
    fn tap_sorted(self) -> Vec<String>;
}

impl<const N: usize> TapSorted for [String; N] {
    fn tap_sorted(self) -> Vec<String> {
        let mut list = self.to_vec();
        list.sort();
        list
    }
}

#[tokio::test]
async fn tools_that_providers_could_not_tell_apart_are_refused_at_registration() {
    let bay = Toolbay::builder().build().unwrap();
    let one = |name: &str, tool: &str| NativePlugin::new(name, "1.0.0", "x").unwrap().tool(says(tool, "x"));
    bay.register(tenant("acme"), one("a", "_b")).await.unwrap();
    let expected =
        "Conflict: the tools a_.b and a._b would both be called a___b where dots are not allowed: rename one";
    for scope in [tenant("acme"), Scope::Global] {
        let error = bay.register(scope, one("a_", "b")).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    bay.register(tenant("globex"), one("a_", "b")).await.unwrap();
}

#[tokio::test]
async fn a_tool_that_requires_a_right_is_absent_without_it() {
    let bay = Toolbay::builder().build().unwrap();
    let refund = tool("refund", "Pays back", async |_: Nothing, _: ToolContext| Ok("paid"))
        .with(|tool| tool.required_permissions = PermissionSet::parse(["shop:refund"]).unwrap());
    bay.register(Scope::Global, NativePlugin::new("shop", "1.0.0", "Sells").unwrap().tool(refund)).await.unwrap();
    let clerk = bay.session("acme").unwrap();
    assert!(names(&clerk).is_empty());
    assert_eq!(
        outcome(&clerk, "shop.refund", json!({})).await,
        json!(
            "PermissionDenied: the user lacks the right `shop:refund`, which this tool requires; an operator can give it"
        )
    );
    let manager = clerk.with_rights(PermissionSet::parse(["shop:*"]).unwrap());
    assert_eq!(names(&manager), ["shop.refund"]);
    assert_eq!(outcome(&manager, "shop.refund", json!({})).await, json!("paid"));
}

#[tokio::test]
async fn a_run_keeps_the_tools_that_it_began_with() {
    let bay = Toolbay::builder().build().unwrap();
    bay.register(tenant("acme"), plugin_that_says("fx", "old")).await.unwrap();
    let session = bay.session("acme").unwrap();
    let run = session.run();
    bay.unregister(&tenant("acme"), &PluginName::new("fx").unwrap()).await.unwrap();
    let call = toolbay::ToolCall { id: "1".into(), name: "fx.what".into(), arguments: json!({}) };
    assert_eq!(run.call(1, call).await.result.unwrap().data, json!("old"));
    assert!(outcome(&session, "fx.what", json!({})).await.to_string().contains("NotFound"));
}

#[test]
fn names_that_could_be_a_path_or_fill_memory_are_no_tenants() {
    for name in ["", ".", "..", "../acme", "a/b", "-a", "a b", "ä", &"a".repeat(65)] {
        assert!(toolbay::TenantId::new(name).is_err(), "{name:?}");
    }
    for name in ["a", "task-17", "Acme_1.b", "0"] {
        assert!(toolbay::TenantId::new(name).is_ok(), "{name:?}");
    }
}
