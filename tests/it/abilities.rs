//! Abilities: what the host declares, plugins provide and callers ask for without knowing who serves it.

use std::sync::Arc;

use expect_test::expect;
use serde_json::{Value, json};
use toolbay::{
    Ability, AbilityName, Annotations, Breaker, ErrorKind, HookRegistration, Operation, PermissionSet, PluginName,
    ReloadOptions, Scope, Session, TenantId, ToolError, Toolbay, ToolbayBuilder, hook::ToolMatcher,
    plugin::NativePlugin, tool,
};
use toolbay_testkit::{Answer, RecordingAudit, ScriptedHook, Transcript};

use crate::{
    cli::Desk,
    support::{Nothing, names, outcome, plugin_that_says, project, tenant},
};

fn plugin(name: &str) -> PluginName {
    PluginName::new(name).unwrap()
}

fn acme() -> TenantId {
    TenantId::new("acme").unwrap()
}

/// `chain` with two operations: `balance` of an address, and the `height`.
fn chain() -> Ability {
    let address = json!({ "type": "object", "additionalProperties": false, "required": ["address"],
        "properties": { "address": { "type": "string", "minLength": 1 } } });
    let amount = json!({ "type": "object", "required": ["amount"],
        "properties": { "amount": { "type": "integer" }, "by": { "type": "string" } } });
    let balance = Operation::new("What an address holds", address).output(amount).read_only();
    let height = Operation::without_parameters("How many blocks there are").output(json!({ "type": "integer" }));
    let chain = Ability::new("chain", "A block chain").unwrap();
    chain.operation("balance", balance).unwrap().operation("height", height).unwrap()
}

fn builder() -> ToolbayBuilder {
    toolbay::builder().grants(PermissionSet::standard()).ability(chain())
}

/// A script that provides `chain` and tells who it is. `balance` is what its tool of that name has beside a description.
fn script(name: &str, balance: &str, body: &str) -> String {
    format!(
        r#"const PLUGIN = #{{ name: "{name}", version: "1.0.0", description: "d", author: "The tests",
            permissions: ["tool:call:chain.*"], provides: #{{ abilities: ["chain"] }},
            tools: #{{ balance: #{{ description: "The script's own words", {balance} }}, height: #{{ description: "d" }} }} }};
        fn balance(args) {{ {body} }}
        fn height(args) {{ 7 }}"#
    )
}

const TAKES_ADDRESS: &str =
    r#"parameters: #{ type: "object", properties: #{ address: #{ type: "string" } }, required: ["address"] }"#;

fn provider(name: &str) -> String {
    script(name, TAKES_ADDRESS, &format!(r#"#{{ amount: 5, by: "{name}" }}"#))
}

async fn load(bay: &Toolbay, scope: Scope, name: &str) {
    bay.load_source(scope, &format!("{name}.rhai"), &provider(name)).await.unwrap();
}

async fn served_by(session: &Session) -> Value {
    let told = outcome(session, "chain.balance", json!({ "address": "a" })).await;
    told.get("by").cloned().unwrap_or(told)
}

#[tokio::test]
async fn a_caller_sees_the_abilitys_own_tool_whoever_serves_it() {
    let bay = builder().build().unwrap();
    load(&bay, Scope::Global, "ledger").await;
    let session = bay.session("acme").unwrap();
    assert_eq!(names(&session), ["chain.balance", "chain.height", "ledger.balance", "ledger.height"]);
    let tool = session.tool("chain.balance").unwrap();
    assert_eq!(tool.definition.description, "What an address holds");
    assert_eq!(tool.definition.parameters, chain().operations["balance"].parameters);
    assert_eq!(tool.definition.annotations.read_only, Some(true));
    assert_eq!((tool.plugin.as_str(), tool.served_by.unwrap().as_str()), ("ledger", "ledger.balance"));
    assert_eq!(&*tool.provider_name, "chain__balance");
    for name in ["chain.balance", "chain__balance", "ledger.balance"] {
        let told = outcome(&session, name, json!({ "address": "a" })).await;
        assert_eq!(told, json!({ "amount": 5, "by": "ledger" }), "{name}");
    }
    assert_eq!(session.tool("ledger.balance").unwrap().definition.description, "The script's own words");
    assert_eq!(bay.abilities().iter().map(|ability| ability.name.as_str()).collect::<Vec<_>>(), ["chain"]);
    assert_eq!(bay.plugins(&Scope::Global)[0].abilities, [AbilityName::new("chain").unwrap()]);
}

#[tokio::test]
async fn priority_decides_then_the_tenants_own_then_the_order_of_registration() {
    let bay = builder().build().unwrap();
    for name in ["second-name", "first-name"] {
        load(&bay, Scope::Global, name).await;
    }
    let (acmes, globex) = (bay.session("acme").unwrap(), bay.session("globex").unwrap());
    assert_eq!(served_by(&acmes).await, "second-name");
    load(&bay, tenant("acme"), "own").await;
    assert_eq!(served_by(&acmes).await, "own");
    bay.put_priority(&acme(), &plugin("first-name"), Some(-1)).unwrap();
    assert_eq!(served_by(&acmes).await, "first-name");
    let ability = AbilityName::new("chain").unwrap();
    assert_eq!(bay.providers(&acme(), &ability), [plugin("first-name"), plugin("own"), plugin("second-name")]);
    bay.put_priority(&acme(), &plugin("own"), Some(-2)).unwrap();
    assert_eq!(served_by(&acmes).await, "own");
    bay.put_priority(&acme(), &plugin("own"), Some(1)).unwrap();
    bay.put_priority(&acme(), &plugin("first-name"), None).unwrap();
    assert_eq!(served_by(&acmes).await, "second-name");
    assert_eq!(served_by(&globex).await, "second-name");
}

#[tokio::test]
async fn a_tenants_own_provider_does_not_take_the_place_of_a_protected_one() {
    let settled = Toolbay::builder().plugin_config(plugin("ledger"), json!({}));
    let bay = settled.ability(chain()).runner(toolbay::RhaiRunner::default()).build().unwrap();
    let configured = provider("ledger").replace("tools:", "config_schema: #{ type: \"object\" }, tools:");
    bay.load_source(Scope::Global, "ledger.rhai", &configured).await.unwrap();
    for name in ["other", "own"] {
        load(&bay, if name == "own" { tenant("acme") } else { Scope::Global }, name).await;
    }
    let session = bay.session("acme").unwrap();
    bay.put_priority(&acme(), &plugin("own"), Some(-9)).unwrap();
    assert_eq!(served_by(&session).await, "ledger");
    assert_eq!(outcome(&session, "own.balance", json!({ "address": "a" })).await["by"], "own");
    // Among those of the host the tenant chooses as ever.
    bay.put_priority(&acme(), &plugin("other"), Some(-1)).unwrap();
    assert_eq!(served_by(&session).await, "other");
}

#[tokio::test]
async fn a_tenants_provider_never_serves_another_tenant() {
    let bay = builder().build().unwrap();
    load(&bay, tenant("acme"), "own").await;
    let (acmes, globex) = (bay.session("acme").unwrap(), bay.session("globex").unwrap());
    assert_eq!(served_by(&acmes).await, "own");
    assert!(names(&globex).is_empty());
    assert!(served_by(&globex).await.as_str().unwrap().starts_with("NotFound"));
    load(&bay, tenant("globex"), "theirs").await;
    load(&bay, Scope::Global, "everybodys").await;
    let initech = bay.session("initech").unwrap();
    for (session, by) in [(&acmes, "own"), (&globex, "theirs"), (&initech, "everybodys"), (&acmes, "own")] {
        assert_eq!(served_by(session).await, by);
        assert_eq!(session.tool("chain.balance").unwrap().plugin.as_str(), by);
    }
}

#[tokio::test]
async fn what_a_tenant_has_no_provider_of_is_not_there() {
    let bay = builder().build().unwrap();
    load(&bay, Scope::Global, "ledger").await;
    let (acmes, globex) = (bay.session("acme").unwrap(), bay.session("globex").unwrap());
    let begun_before = acmes.run();
    bay.disable(&acme(), &plugin("ledger")).await.unwrap();
    assert!(names(&acmes).is_empty());
    let told = served_by(&acmes).await;
    assert_eq!(told, "NotFound: there is no tool called \"chain.balance\"; list the tools to see what there is");
    assert_eq!((names(&globex).len(), begun_before.tools().len()), (4, 4));
    bay.enable(&acme(), &plugin("ledger")).await.unwrap();
    assert_eq!(served_by(&acmes).await, "ledger");
    drop(begun_before);
    bay.unregister(&Scope::Global, &plugin("ledger")).await.unwrap();
    assert!(names(&globex).is_empty() && served_by(&globex).await.as_str().unwrap().starts_with("NotFound"));
}

#[tokio::test]
async fn a_provider_that_does_not_keep_the_ability_is_refused_with_operation_and_reason() {
    let bay = builder().build().unwrap();
    let parameters = |schema: &str| script("p", &format!("parameters: {schema}"), "1");
    let output = |schema: &str| script("p", &format!("{TAKES_ADDRESS}, output: {schema}"), "1");
    let amount = r##"properties: #{ amount: #{ type: "integer" } }, required: ["amount"]"##;
    let mut text = String::new();
    for source in [
        provider("p").replace("[\"chain\"]", "[\"chian\"]"),
        provider("p").replace("[\"chain\"]", "[\"model\"]"),
        provider("p").replace("[\"chain\"]", "[\"Chain\"]"),
        provider("p").replace("[\"chain\"]", "[\"chain\", \"chain\"]"),
        provider("p").replace(", height: #{ description: \"d\" }", ""),
        parameters(r#"#{ type: "object", properties: #{ address: #{ type: "integer" } }, required: ["address"] }"#),
        parameters(r#"#{ type: "object", additionalProperties: false }"#),
        parameters(
            r#"#{ type: "object", properties: #{ address: #{ type: "string", maxLength: 9, pattern: "^0x" } } }"#,
        ),
        parameters(
            r#"#{ type: "object", properties: #{ address: #{ type: "string", enum: ["a"] } }, required: ["key"] }"#,
        ),
        parameters(r#"#{ type: "object", properties: #{ address: #{ type: "string" } }, minProperties: 2 }"#),
        parameters(r#"#{ type: "object", properties: #{ address: #{ anyOf: [#{ type: "string" }] } } }"#),
        output(r#"#{ type: "object" }"#),
        output(r#"#{ type: "object", properties: #{ amount: #{ type: ["integer", "null"] } }, required: ["amount"] }"#),
        output(r#"#{ type: "object", properties: #{ amount: #{ type: "integer" } } }"#),
        output(&format!("#{{ type: \"object\", {amount} }}, annotations: #{{ read_only: false }}")),
    ] {
        let error = bay.load_source(Scope::Global, "p.rhai", &source).await.unwrap_err();
        text.push_str(&format!("{}: {}\n", error.kind, error.message));
    }
    expect![[r#"
        Config: provides.abilities: this host has no ability called chian; did you mean chain?
        Config: provides.abilities: this host has no ability called model; it has chain
        Config: PLUGIN.provides.abilities[0]: the ability name "Chain" is not allowed: use 1 to 64 of a-z 0-9 _ - and begin with a letter
        Config: PLUGIN.provides.abilities[1]: "chain" stands there already
        Config: provides.abilities: chain.height has no tool: declare one called height, or take the ability out of the list
        Config: provides.abilities: the tool balance does not fit chain.balance: /address of the arguments is string in the ability and integer in the tool
        Config: provides.abilities: the tool balance does not fit chain.balance: /address of the arguments is not among the tool's parameters
        Config: provides.abilities: the tool balance does not fit chain.balance: `maxLength` of /address of the arguments does not fit the ability's; `pattern` of /address of the arguments does not fit the ability's
        Config: provides.abilities: the tool balance does not fit chain.balance: the tool does not take all values of /address of the arguments that the ability allows; /key of the arguments is required by the tool and not by the ability
        Config: provides.abilities: the tool balance does not fit chain.balance: `minProperties` of / of the arguments does not fit the ability's
        Config: provides.abilities: the tool balance does not fit chain.balance: `anyOf` of /address of the arguments does not fit the ability's
        Config: provides.abilities: the tool balance does not fit chain.balance: /amount of the result is required by the ability and not in the tool's output
        Config: provides.abilities: the tool balance does not fit chain.balance: /amount of the result is integer in the ability and integer or null in the tool
        Config: provides.abilities: the tool balance does not fit chain.balance: /amount of the result is required by the ability and may be missing from the tool's
        Config: provides.abilities: the tool balance does not fit chain.balance: its annotation `read_only` is not what the ability promises
    "#]].assert_eq(&text);
    assert!(bay.plugins(&Scope::Global).is_empty());
}

#[tokio::test]
async fn a_provider_may_take_more_and_give_less_than_the_ability_says() {
    let bay = builder().build().unwrap();
    let takes = r#"parameters: #{ type: "object", properties: #{ address: #{ type: ["string", "integer"] }, at: #{ type: "integer" } } },
        output: #{ type: "object", additionalProperties: false, properties: #{ amount: #{ type: "integer", minimum: 0 } }, required: ["amount"] }"#;
    bay.load_source(Scope::Global, "p.rhai", &script("p", takes, "#{ amount: 3 }")).await.unwrap();
    let open = script("q", r#"parameters: #{ type: "object" }"#, "#{ amount: 4 }");
    bay.load_source(Scope::Global, "q.rhai", &open).await.unwrap();
    let session = bay.session("acme").unwrap();
    assert_eq!(outcome(&session, "chain.balance", json!({ "address": "a" })).await, json!({ "amount": 3 }));
    // What only the tool takes is refused by way of the ability.
    let refused = outcome(&session, "chain.balance", json!({ "address": 1 })).await.to_string();
    assert!(refused.contains("InvalidArguments") && refused.contains("/address"), "{refused}");
    assert_eq!(outcome(&session, "p.balance", json!({ "address": 1 })).await, json!({ "amount": 3 }));
}

#[tokio::test]
async fn a_plugin_or_tool_of_an_abilitys_name_is_a_conflict_that_names_both_whether_there_is_a_provider_or_not() {
    let bay = builder().build().unwrap();
    let mut text = String::new();
    for scope in [Scope::Global, tenant("acme")] {
        for name in ["chain", "chain__height"] {
            let plugin = NativePlugin::new(name, "1.0.0", "d").unwrap();
            let plugin = plugin.tool(tool(name, "d", async |_: Nothing, _| Ok::<_, ToolError>(1)));
            let error = bay.register(scope.clone(), plugin).await.unwrap_err();
            text.push_str(&format!("{error}\n"));
        }
    }
    let error = builder().tool(tool("chain", "d", async |_: Nothing, _| Ok::<_, ToolError>(1))).build().unwrap_err();
    text.push_str(&format!("{error}\n"));
    expect![[r#"
        Conflict: the plugin chain (global) and the ability chain of this host have one name, and their tools would too: rename the plugin
        Conflict: the tool chain__height and the operation chain.height of an ability would both be called chain__height where dots are not allowed: rename the tool
        Conflict: the plugin chain (tenant acme) and the ability chain of this host have one name, and their tools would too: rename the plugin
        Conflict: the tool chain__height and the operation chain.height of an ability would both be called chain__height where dots are not allowed: rename the tool
        Conflict: the plugin chain (global) and the ability chain of this host have one name, and their tools would too: rename the plugin
    "#]].assert_eq(&text);
}

#[tokio::test]
async fn arguments_and_results_are_held_to_both_schemas() {
    let bay = builder().build().unwrap();
    let loose = script("loose", TAKES_ADDRESS, r#"if args.address == "b" { #{ amount: "much" } } else { 1 }"#);
    bay.load_source(Scope::Global, "loose.rhai", &loose).await.unwrap();
    let session = bay.session("acme").unwrap();
    let mut text = String::new();
    for (name, arguments) in [
        ("chain.balance", json!({})),
        ("chain.balance", json!({ "address": "" })),
        ("chain.balance", json!({ "address": "a", "more": 1 })),
        ("loose.balance", json!({ "address": "b" })),
        ("chain.balance", json!({ "address": "a" })),
        ("chain.balance", json!({ "address": "b" })),
    ] {
        text.push_str(&format!("{}\n", outcome(&session, name, arguments).await));
    }
    expect![[r#"
        "InvalidArguments: the arguments do not fit the tool's parameters; mend these and call again: /address: expected a value: this property is required, found nothing"
        "InvalidArguments: the arguments do not fit the tool's parameters; mend these and call again: /address: expected minLength 1, found the string \"\""
        "InvalidArguments: the arguments do not fit the tool's parameters; mend these and call again: the whole: expected no other properties than address, found the unknown more"
        {"amount":"much"}
        "Script: the tool's result does not fit the ability's output schema: the whole: expected the type object, found the number 1"
        "Script: the tool's result does not fit the ability's output schema: /amount: expected the type integer, found the string \"much\""
    "#]].assert_eq(&text);
    let own = script(
        "own",
        &format!(
            r#"{TAKES_ADDRESS}, output: #{{ type: "object", required: ["amount"],
        properties: #{{ amount: #{{ type: "integer", maximum: 3 }} }} }}"#
        ),
        "#{ amount: 4 }",
    );
    bay.load_source(tenant("acme"), "own.rhai", &own).await.unwrap();
    let told = outcome(&session, "chain.balance", json!({ "address": "a" })).await.to_string();
    assert!(told.contains("its own output schema: /amount: expected maximum 3"), "{told}");
}

#[tokio::test]
async fn what_an_ability_leaves_open_a_provider_may_still_refuse() {
    let open = Operation::new("d", json!({ "type": "object" }));
    let bay = toolbay::builder().ability(Ability::new("chain", "d").unwrap().operation("balance", open).unwrap());
    let bay = bay.build().unwrap();
    let strict = r#"parameters: #{ type: "object", properties: #{ at: #{ type: "integer" } } }"#;
    bay.load_source(Scope::Global, "p.rhai", &script("p", strict, "1")).await.unwrap();
    let session = bay.session("acme").unwrap();
    assert_eq!(outcome(&session, "chain.balance", json!({ "at": 2, "more": true })).await, 1);
    let refused = outcome(&session, "chain.balance", json!({ "at": "now" })).await.to_string();
    assert!(refused.contains("InvalidArguments") && refused.contains("/at: expected the type integer"), "{refused}");
}

#[tokio::test]
async fn hooks_stand_before_the_ability_by_its_name_and_by_the_tool_that_serves_it() {
    for (globs, says) in
        [("chain.*", "guard: no"), ("ledger.*", "guard: no"), ("other.*", "amount"), ("chain.height", "amount")]
    {
        let deny = ScriptedHook::at(toolbay::HookPoint::BeforeToolCall, Answer::Deny("no".into()));
        let guard = deny.everywhere("guard").with_tools(ToolMatcher::new([globs]).unwrap());
        let bay = builder().hook(guard).build().unwrap();
        load(&bay, Scope::Global, "ledger").await;
        let told = outcome(&bay.session("acme").unwrap(), "chain.balance", json!({ "address": "a" })).await.to_string();
        assert!(told.contains(says), "{globs}: {told}");
    }
}

#[tokio::test]
async fn audit_and_transcript_tell_the_ability_the_plugin_and_the_tool_that_served() {
    let audit = Arc::new(RecordingAudit::default());
    let passing: HookRegistration = ScriptedHook::passive().everywhere("looks");
    let bay = builder().audit(audit.clone()).hook(passing).build().unwrap();
    load(&bay, tenant("acme"), "ledger").await;
    let transcript = Arc::new(Transcript::default());
    let session = bay.session("acme").unwrap().with_observer(transcript.clone());
    session.call("chain__balance", json!({ "address": "a" })).await.result.unwrap();
    expect![[r#"
        lookup  acme/chain.balance by ledger.balance
        hook    looks before_tool_call -> continue
        call    chain.balance {"address":"a"}
        hook    looks after_tool_call -> keep
        reply   {"amount":5,"by":"ledger"}
    "#]]
    .assert_eq(&transcript.to_string());
    let record = audit.records().remove(0);
    let told = (record.tool.as_str(), record.plugin.as_deref(), record.served_by.as_deref());
    assert_eq!(told, ("chain.balance", Some("ledger"), Some("ledger.balance")));
    session.call("ledger.balance", json!({ "address": "a" })).await.result.unwrap();
    assert_eq!(audit.records().remove(1).served_by, None);
}

/// A script whose tool `ask` calls the tool that it is told, with these permissions.
fn caller(name: &str, permissions: &str) -> String {
    format!(
        r#"const PLUGIN = #{{ name: "{name}", version: "1.0.0", description: "d", author: "The tests", permissions: [{permissions}],
            tools: #{{ ask: #{{ description: "d", parameters: #{{ type: "object" }} }} }} }};
        fn ask(args) {{ call_tool(args.tool, #{{ address: "a" }}) }}"#
    )
}

#[tokio::test]
async fn a_script_calls_an_ability_by_the_permission_of_its_name() {
    let bay = builder().build().unwrap();
    load(&bay, Scope::Global, "ledger").await;
    for (name, permissions) in [("by-ability", "\"tool:call:chain.balance\""), ("by-tool", "\"tool:call:ledger.*\"")] {
        bay.load_source(Scope::Global, &format!("{name}.rhai"), &caller(name, permissions)).await.unwrap();
    }
    let session = bay.session("acme").unwrap();
    for (by, tool, may) in [
        ("by-ability", "chain.balance", true),
        ("by-ability", "chain__balance", true),
        ("by-ability", "ledger.balance", false),
        ("by-tool", "chain.balance", false),
        ("by-tool", "ledger.balance", true),
    ] {
        let told = outcome(&session, &format!("{by}.ask"), json!({ "tool": tool })).await;
        assert_eq!(told.get("by").is_some(), may, "{by} {tool}: {told}");
        assert!(may || told.to_string().contains("PermissionDenied"), "{told}");
    }
}

#[tokio::test]
async fn whom_the_providers_tool_lets_call_it_and_which_rights_it_wants_holds_by_way_of_the_ability() {
    let bay = builder().build().unwrap();
    let closed =
        script("closed", &format!(r#"allowed_callers: ["shop"], {TAKES_ADDRESS}"#), r#"#{ amount: 5, by: "closed" }"#);
    bay.load_source(Scope::Global, "closed.rhai", &closed).await.unwrap();
    for name in ["shop", "other"] {
        bay.load_source(Scope::Global, &format!("{name}.rhai"), &caller(name, "\"tool:call:*\"")).await.unwrap();
    }
    let session = bay.session("acme").unwrap();
    assert_eq!(names(&session), ["chain.height", "closed.height", "other.ask", "shop.ask"]);
    let ask = async |by: &str| outcome(&session, &format!("{by}.ask"), json!({ "tool": "chain.balance" })).await;
    assert_eq!(ask("shop").await["by"], "closed");
    assert!(ask("other").await.to_string().contains("PermissionDenied"));
    assert!(served_by(&session).await.as_str().unwrap().starts_with("PermissionDenied"));

    let rights = script(
        "rights",
        &format!(r#"required_permissions: ["books:read"], {TAKES_ADDRESS}"#),
        r#"#{ amount: 5, by: "rights" }"#,
    );
    bay.load_source(tenant("acme"), "rights.rhai", &rights).await.unwrap();
    assert!(session.tool("chain.balance").is_none());
    assert!(served_by(&session).await.as_str().unwrap().contains("books:read"));
    let with = bay.session("acme").unwrap().with_rights(PermissionSet::parse(["books:read"]).unwrap());
    assert_eq!(served_by(&with).await, "rights");
}

#[tokio::test]
async fn a_provider_that_calls_its_own_ability_ends_at_the_bound_of_the_chain() {
    let bay = builder().build().unwrap();
    let turning = script("turning", TAKES_ADDRESS, r#"call_tool("chain.balance", args)"#);
    bay.load_source(Scope::Global, "turning.rhai", &turning).await.unwrap();
    let error = bay.session("acme").unwrap().call("chain.balance", json!({ "address": "a" })).await.result.unwrap_err();
    assert!(error.to_string().contains("call_chain") || error.to_string().contains("LimitExceeded"), "{error}");
}

#[tokio::test]
async fn failures_count_for_the_provider_and_the_next_one_does_not_stand_in() {
    let breaker = Breaker { failures: 2, ..Breaker::default() };
    let bay = builder().breaker(breaker).build().unwrap();
    let down = tool("balance", "d", async |_: Of, _| Err::<Held, _>(ToolError::new(ErrorKind::Unavailable, "is down")));
    let failing = NativePlugin::new("failing", "1.0.0", "d").unwrap().provides(AbilityName::new("chain").unwrap());
    let failing = failing.tool(down).tool(tool("height", "d", async |_: Nothing, _| Ok(7)));
    bay.register(Scope::Global, failing).await.unwrap();
    load(&bay, Scope::Global, "next").await;
    let session = bay.session("acme").unwrap();
    for _ in 0..2 {
        assert!(served_by(&session).await.as_str().unwrap().contains("is down"));
    }
    for name in ["chain.balance", "chain.height", "failing.height"] {
        let arguments = if name == "chain.balance" { json!({ "address": "a" }) } else { json!({}) };
        let told = outcome(&session, name, arguments).await.to_string();
        assert!(told.contains("Unavailable"), "{name}: {told}");
    }
    bay.put_priority(&acme(), &plugin("next"), Some(-1)).unwrap();
    assert_eq!(served_by(&session).await, "next");
}

#[tokio::test]
async fn a_new_version_of_a_provider_serves_the_next_run_and_one_that_drops_the_ability_would_break_callers() {
    let bay = builder().build().unwrap();
    load(&bay, Scope::Global, "ledger").await;
    let session = bay.session("acme").unwrap();
    let begun_before = session.run();
    let next = provider("ledger").replace("by: \"ledger\"", "by: \"new\"").replace("1.0.0", "2.0.0");
    let reload = async |source: &str, allow_breaking| {
        bay.reload_source(Scope::Global, "ledger.rhai", source, ReloadOptions { allow_breaking }).await
    };
    reload(&next, false).await.unwrap();
    assert_eq!(served_by(&session).await, "new");
    let call = toolbay::ToolCall { id: "1".into(), name: "chain.balance".into(), arguments: json!({ "address": "a" }) };
    assert_eq!(begun_before.call(0, call).await.result.unwrap().data["by"], "ledger");
    drop(begun_before);
    let without = next.replace("provides: #{ abilities: [\"chain\"] },", "").replace("2.0.0", "3.0.0");
    let error = reload(&without, false).await.unwrap_err();
    assert!(error.message.contains("chain.balance is gone"), "{error}");
    reload(&without, true).await.unwrap();
    assert_eq!(names(&session), ["ledger.balance", "ledger.height"]);
    // The new one keeps the old one's place among the providers.
    reload(&next.replace("2.0.0", "4.0.0"), false).await.unwrap();
    load(&bay, Scope::Global, "later").await;
    reload(&next.replace("2.0.0", "5.0.0"), false).await.unwrap();
    assert_eq!(served_by(&session).await, "new");
}

#[tokio::test]
async fn a_program_calls_an_abilitys_tool_as_a_function() {
    let bay = builder().build().unwrap();
    load(&bay, Scope::Global, "ledger").await;
    let program = r#"let held = chain.balance(#{ address: "a" }); held.amount + chain__height()"#;
    bay.load_program(tenant("acme"), "sum.rhai", program).await.unwrap();
    assert_eq!(outcome(&bay.session("acme").unwrap(), "code", json!({})).await, 12);
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Of {
    /// The address.
    #[allow(dead_code, reason = "the test's tool tells the same of every address")]
    address: String,
    /// The block up to which it is counted; all where it is left out.
    #[allow(dead_code, reason = "the same")]
    at: Option<u64>,
}

#[derive(serde::Serialize, schemars::JsonSchema)]
struct Held {
    amount: i64,
}

#[tokio::test]
async fn a_host_derives_an_abilitys_schemas_from_rust_types_and_a_native_plugin_keeps_it_with_the_same_ones() {
    let balance = Operation::typed::<Of, Held>("What an address holds");
    let ability = Ability::new("coins", "Coins").unwrap().operation("balance", balance).unwrap();
    let bay = Toolbay::builder().ability(ability).build().unwrap();
    let native = NativePlugin::new("native", "1.0.0", "d").unwrap().provides(AbilityName::new("coins").unwrap());
    let native = native.tool(tool("balance", "d", async |_: Of, _| Ok(Held { amount: 9 })));
    bay.register(Scope::Global, native).await.unwrap();
    let session = bay.session("acme").unwrap();
    assert_eq!(outcome(&session, "coins.balance", json!({ "address": "a" })).await, json!({ "amount": 9 }));
    assert!(outcome(&session, "coins.balance", json!({ "at": 1 })).await.to_string().contains("/address"));
}

#[test]
fn an_ability_that_says_too_little_or_has_another_ones_name_is_refused_when_the_host_is_put_together() {
    let one = |name: &str, operation: &str, change: fn(&mut Operation)| {
        let mut declared = Operation::without_parameters("d");
        change(&mut declared);
        Ability::new(name, "d").unwrap().operation(operation, declared).unwrap()
    };
    let nothing = |_: &mut Operation| {};
    let mut text = String::new();
    for all in [
        vec![Ability::new("a", "d").unwrap()],
        vec![Ability { description: " ".into(), ..one("a", "b", nothing) }],
        vec![one("a", "b", |operation| operation.description.clear())],
        vec![one("a", "b", |operation| operation.parameters = json!({ "type": "string" }))],
        vec![one("a", "b", |operation| operation.output = Some(json!({ "type": "text" })))],
        vec![one("a", "b", nothing), one("a", "c", nothing)],
        vec![one("a", "b.c", nothing), one("a__b", "c", nothing)],
    ] {
        let builder = all.into_iter().fold(Toolbay::builder(), ToolbayBuilder::ability);
        text.push_str(&format!("{}\n", builder.build().unwrap_err()));
    }
    text.push_str(&format!("{}\n", Ability::new("A", "d").unwrap_err()));
    let long = Ability::new("a".repeat(64), "d").unwrap().operation("b".repeat(64), Operation::without_parameters("d"));
    text.push_str(&format!("{}\n", long.unwrap_err()));
    expect![[r#"
        Config: abilities.a.operations: an ability has one operation or more
        Config: abilities.a.description: must not be empty
        Config: abilities.a.operations.b.description: must not be empty
        Config: abilities.a.operations.b.parameters: /type: the parameters of a tool are an object: write "type": "object" instead of "string"
        Config: abilities.a.operations.b.output: /type: "text" is no type of JSON Schema: use string, number, integer, boolean, object, array or null
        Conflict: the ability a is declared twice: take one away
        Conflict: the operations a__b.c and a.b.c would both be called a__b__c where dots are not allowed: rename one
        the ability name "A" is not allowed: use 1 to 64 of a-z 0-9 _ - and begin with a letter
        the tool name "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.bbbbbbbbbbbbbbb" is not allowed: use 1 to 128 of A-Z a-z 0-9 _ . -
    "#]].assert_eq(&text);
}

#[test]
fn two_operations_of_one_name_where_names_are_cut_are_told_apart() {
    let declared = |last: &str| {
        let operation = format!("{}{last}", "x".repeat(60));
        Ability::new("long", "d").unwrap().operation(operation, Operation::without_parameters("d")).unwrap()
    };
    let mut both = declared("a");
    both.operations.extend(declared("b").operations);
    assert!(Toolbay::builder().ability(both).build().is_ok());
}

#[tokio::test]
async fn a_tool_that_says_worse_of_itself_than_the_ability_promises_cannot_provide_it() {
    let good = Annotations {
        read_only: Some(true),
        destructive: Some(false),
        idempotent: Some(true),
        open_world: Some(false),
    };
    let mut operation = Operation::without_parameters("d");
    operation.annotations = good;
    let ability = Ability::new("a", "d").unwrap().operation("b", operation).unwrap();
    let bay = Toolbay::builder().ability(ability).build().unwrap();
    for (own, refused) in [
        (Annotations { read_only: Some(false), ..good }, Some("read_only")),
        (Annotations { destructive: Some(true), ..good }, Some("destructive")),
        (Annotations { idempotent: Some(false), ..good }, Some("idempotent")),
        (Annotations { open_world: Some(true), ..good }, Some("open_world")),
        (Annotations::default(), None),
    ] {
        let tool = tool("b", "d", async |_: Nothing, _| Ok(1)).with(|definition| definition.annotations = own);
        let native = NativePlugin::new("p", "1.0.0", "d").unwrap().tool(tool);
        let native = native.provides(AbilityName::new("a").unwrap());
        match (bay.register(Scope::Global, native).await, refused) {
            (Err(error), Some(word)) => assert!(error.message.contains(word), "{error}"),
            (Ok(_), None) => {}
            (other, _) => panic!("{own:?}: {other:?}"),
        }
    }
}

/// Two plugins that provide `chain` and a configuration file that declares it.
fn desk(config: &str) -> Desk {
    Desk::with(&[
        ("plugins/ledger.rhai", &provider("ledger")),
        ("plugins/other.rhai", &provider("other")),
        ("toolbay.toml", config),
    ])
}

const DECLARED: &str = r#"[abilities.chain]
description = "A block chain."

[abilities.chain.operations.balance]
description = "What an address holds."
parameters = { type = "object", properties = { address = { type = "string" } }, required = ["address"] }
output = { type = "object", required = ["amount"] }
annotations = { read_only = true, destructive = false, idempotent = true, open_world = false }

[abilities.chain.operations.height]
description = "How many blocks there are."
"#;

#[test]
fn each_key_of_an_ability_in_the_configuration_file_is_seen() {
    let run = |config: &str, args: &[&str]| {
        let ran =
            desk(config).run(&[args, &["--tools", "plugins", "--tenant", "acme", "--config", "toolbay.toml"]].concat());
        (ran.status, ran.stdout, ran.stderr)
    };
    let (status, stdout, stderr) = run(DECLARED, &["tools"]);
    assert_eq!(status, Some(0), "{stderr}");
    expect![[r#"
        TOOL            PLUGIN        SCOPE   DESCRIPTION
        chain.balance   ledger 1.0.0  global  What an address holds.
        chain.height    ledger 1.0.0  global  How many blocks there are.
        ledger.balance  ledger 1.0.0  global  The script's own words
        ledger.height   ledger 1.0.0  global  d
        other.balance   other 1.0.0   global  The script's own words
        other.height    other 1.0.0   global  d
    "#]]
    .assert_eq(&stdout);
    let mcp = serde_json::from_str::<Value>(&run(DECLARED, &["tools", "--format", "mcp"]).1).unwrap();
    let first = &mcp[0];
    assert_eq!(first["name"], "chain.balance");
    assert_eq!(first["inputSchema"]["required"], json!(["address"]));
    assert_eq!(first["outputSchema"]["required"], json!(["amount"]));
    let hints =
        json!({ "readOnlyHint": true, "destructiveHint": false, "idempotentHint": true, "openWorldHint": false });
    assert_eq!(first["annotations"], hints);
    assert_eq!(mcp[1]["inputSchema"]["additionalProperties"], json!(false));

    expect![[r#"
        PLUGIN  VERSION  SCOPE   STATE   GEN  CALLS  HEALTH
        ledger  1.0.0    global  Active  1    0      well
        other   1.0.0    global  Active  1    0      well
        ability chain: by ledger (also other)
    "#]]
    .assert_eq(&run(DECLARED, &["plugins"]).1);
    let preferring = format!("{DECLARED}\n[tenants.acme.plugins.other]\npriority = -1\n");
    expect![[r#"
        {
          "amount": 5,
          "by": "other"
        }
    "#]]
    .assert_eq(&run(&preferring, &["call", "chain.balance", "--args", "{\"address\":\"a\"}"]).1);
    let described = run(&preferring, &["describe", "ledger"]).1;
    assert!(described.contains("  provides:\n    chain  (other serves acme)\n"), "{described}");
    let described = run(&preferring, &["describe", "other"]).1;
    assert!(described.contains("  provides:\n    chain  (serves acme)\n"), "{described}");
    let plugins = serde_json::from_str::<Value>(&run(&preferring, &["plugins", "--json"]).1).unwrap();
    expect![[r#"[{"name":"chain","description":"A block chain.","operations":["balance","height"],"providers":["other","ledger"]}]"#]].assert_eq(&plugins["abilities"].to_string());

    let mut text = String::new();
    for (from, to) in [
        ("description = \"A block chain.\"\n", ""),
        ("description = \"A block chain.\"", "description = \"\""),
        ("type = \"object\", properties", "type = \"array\", properties"),
        ("required = [\"amount\"]", "required = 7"),
        ("required = [\"amount\"]", "minimum = nan"),
        ("output = ", "result = "),
        ("[abilities.chain.operations.height]", "[abilities.chain.operations.\"hei ght\"]"),
        ("read_only = true", "readonly = true"),
    ] {
        let (status, _, stderr) = run(&DECLARED.replace(from, to), &["tools"]);
        assert_eq!(status, Some(2), "{to}: {stderr}");
        text.push_str(&format!("{}\n", stderr.trim_end()));
    }
    expect![[r#"
        error: Config: toolbay.toml:1:1: missing field `description`
          1 | [abilities.chain]
            | ^
        error: Config: abilities.chain.description: must not be empty
        error: Config: abilities.chain.operations.balance.parameters: /type: the parameters of a tool are an object: write "type": "object" instead of "array"
        error: Config: abilities.chain.operations.balance.output: /required: 7 is not of type "array"
        error: --config: abilities.chain.operations.balance.output: NaN has no JSON form: write an ordinary number
        error: Config: toolbay.toml:7:1: unknown field `result`, expected one of `description`, `parameters`, `output`, `annotations`
          7 | result = { type = "object", required = ["amount"] }
            | ^
        error: Config: toolbay.toml:10:29: the tool name "hei ght" is not allowed: use 1 to 128 of A-Z a-z 0-9 _ . -
          10 | [abilities.chain.operations."hei ght"]
             |                             ^
        error: Config: toolbay.toml:8:17: unknown field `readonly`, expected one of `read_only`, `destructive`, `idempotent`, `open_world`
          8 | annotations = { readonly = true, destructive = false, idempotent = true, open_world = false }
            |                 ^
    "#]].assert_eq(&text);
}

#[test]
fn a_tenants_own_provider_serves_from_its_worker_process() {
    let own =
        ["--tenant-tools", "acme=plugins/ledger.rhai", "--tools", "plugins/other.rhai", "--config", "toolbay.toml"];
    let call = ["call", "chain.balance", "--args", "{\"address\":\"a\"}", "--json"];
    for (tenant, by, isolation) in [("acme", "ledger", "process"), ("globex", "other", "in-process")] {
        let ran = desk(DECLARED).run(&[&call[..], &own, &["--tenant", tenant]].concat());
        let told = serde_json::from_str::<Value>(&ran.stdout).unwrap();
        assert_eq!(
            (&told["data"]["by"], &told["metadata"]["isolation"]),
            (&json!(by), &json!(isolation)),
            "{}",
            ran.stderr
        );
    }
}

#[tokio::test]
async fn a_plugin_that_says_something_else_beside_an_ability_is_as_it_was() {
    let bay = builder().build().unwrap();
    bay.register(Scope::Global, plugin_that_says("plain", "hello")).await.unwrap();
    let session = bay.session("acme").unwrap();
    assert_eq!(names(&session), ["plain.what"]);
    assert!(bay.providers(&acme(), &AbilityName::new("chain").unwrap()).is_empty());
}

#[test]
fn the_examples_keep_what_their_configuration_file_declares() {
    let folder = project().join("examples/abilities");
    let (plugins, config) = (folder.join("plugins"), folder.join("toolbay.toml"));
    let common = ["--tenant", "globex", "--tools", plugins.to_str().unwrap(), "--config", config.to_str().unwrap()];
    let desk = Desk::new();
    for (call, args, says) in [
        ("chain.balance", json!({ "address": "ada" }), "3000"),
        ("chain.events", json!({ "from": 2, "limit": 3 }), "d1"),
        ("model.predict", json!({ "features": [3, 70] }), "980"),
        ("model.info", json!({}), "rules of thumb"),
    ] {
        let ran = desk.run(&[&["call", call, "--args", &args.to_string()], &common[..]].concat());
        assert!(ran.status == Some(0) && ran.stdout.contains(says), "{call}: {} {}", ran.stdout, ran.stderr);
    }
}
