//! Tool search: when the model gets it, what it finds, that it finds nothing that the user may not see, and that a run's
//! catalogue stays what it was.

use serde_json::{Value, json};
use toolbay_agent::{Agent, AgentConfig, RunOutcome, ScriptedModel, ToolSearch, search};
use toolbay_api::{
    Hook, HookContext, HookPoint, HookRegistration, PermissionSet, Scope, ToolContext, async_trait,
    hook::{BeforeToolCall, BeforeToolCallOutcome, HookResult, ToolMatcher},
    plugin::NativePlugin,
    tool,
};
use toolbay_runtime::{Session, Toolbay, ToolbayBuilder};

use crate::support::Empty;

/// Tools of an office, none of which says "search".
const OFFICE: [(&str, &str); 8] = [
    ("create_invoice", "Writes a bill to a customer"),
    ("list_invoices", "Shows the bills of a month"),
    ("book_room", "Reserves a meeting room for an hour"),
    ("send_mail", "Sends an e-mail to somebody"),
    ("translate", "Translates a text into another language"),
    ("exchange_rate", "Tells how many euros a dollar is worth"),
    ("vacation_days", "Tells how many days off somebody has left"),
    ("weather", "Tells whether it will rain in a city"),
];

/// A bay with the office's tools, the search, and `others` tools that have nothing to do with it.
fn office(others: usize) -> ToolbayBuilder {
    let (search, describe) = search::tools();
    let mut builder = Toolbay::builder().without_audit().tool(search).tool(describe);
    for (name, description) in OFFICE {
        builder = builder.tool(tool(name, description, async |_: Empty, _: ToolContext| Ok("done")));
    }
    for n in 0..others {
        let name = format!("gadget{n}");
        builder = builder.tool(tool(&name, "Turns a knob of the machine", async |_: Empty, _: ToolContext| Ok("done")));
    }
    builder
}

fn acme(bay: &Toolbay) -> Session {
    bay.session("acme").unwrap()
}

async fn found(session: &Session, query: &str) -> Vec<String> {
    let reply = session.call("search_tools", json!({ "query": query, "limit": 3 })).await;
    let data = reply.result.unwrap().data;
    data["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
}

fn config(over: usize, pinned: &[&str]) -> AgentConfig {
    let search = ToolSearch { over, pinned: ToolMatcher::new(pinned).unwrap() };
    AgentConfig { search: Some(search), ..AgentConfig::default() }
}

fn given(model: &ScriptedModel, request: usize) -> Vec<String> {
    model.requests()[request].tools.iter().map(|tool| tool.name.to_string()).collect()
}

#[tokio::test]
async fn what_is_looked_for_is_found_first_by_name_and_by_description() {
    let session = acme(&office(200).build().unwrap());
    for (query, tool) in [
        ("write an invoice", "create_invoice"),
        ("bill a customer", "create_invoice"),
        ("list all invoices", "list_invoices"),
        ("meeting rooms", "book_room"),
        ("how much is a dollar in euro", "exchange_rate"),
        ("will it rain tomorrow?", "weather"),
        ("vacation", "vacation_days"),
        ("languages", "translate"),
    ] {
        assert_eq!(found(&session, query).await.first().map(String::as_str), Some(tool), "{query}");
    }
    assert!(found(&session, "zebra").await.is_empty());
    let again = found(&session, "machine knob").await;
    assert_eq!(again, ["gadget0", "gadget1", "gadget10"], "equals come in the order of names");
}

#[tokio::test]
async fn with_more_tools_than_n_the_model_gets_the_search_and_what_is_pinned() {
    let bay = office(0).build().unwrap();
    for (over, expected) in [(9, vec!["describe_tool", "search_tools", "weather"]), (10, vec![])] {
        let model = ScriptedModel::new().says("hi");
        Agent::new(model.clone(), acme(&bay)).config(config(over, &["wea*"])).run("go").await.unwrap();
        if expected.is_empty() {
            assert_eq!(given(&model, 0).len(), OFFICE.len() + 2);
        } else {
            assert_eq!(given(&model, 0), expected);
        }
    }
    // Without the tools that search there is nothing to put in the place of the others.
    let without = Toolbay::builder().tool(tool("a", "A", async |_: Empty, _: ToolContext| Ok(1))).build().unwrap();
    let model = ScriptedModel::new().says("hi");
    Agent::new(model.clone(), acme(&without)).config(config(0, &[])).run("go").await.unwrap();
    assert_eq!(given(&model, 0), ["a"]);
}

#[tokio::test]
async fn a_tool_is_found_described_and_called_in_one_run() {
    let bay = office(100).build().unwrap();
    let model = ScriptedModel::new()
        .calls("search_tools", json!({"query": "reserve a room"}))
        .calls("describe_tool", json!({"name": "book_room"}))
        .calls("book_room", json!({}))
        .says("booked");
    let reply = Agent::new(model.clone(), acme(&bay)).config(config(40, &[])).run("go").await.unwrap();
    assert_eq!((reply.outcome, reply.text.as_str()), (RunOutcome::Completed, "booked"));
    assert_eq!(given(&model, 1), ["describe_tool", "search_tools"], "found is not described yet");
    assert_eq!(given(&model, 2), ["describe_tool", "search_tools", "book_room"], "what is new comes last");
    assert_eq!(given(&model, 3), given(&model, 2));
}

#[tokio::test]
async fn nothing_is_found_that_the_user_may_not_see() {
    let secret = tool("payroll", "Shows what everybody earns", async |_: Empty, _: ToolContext| Ok("a lot"));
    let secret = secret.with(|tool| tool.required_permissions = PermissionSet::parse(["payroll:read"]).unwrap());
    let bay = office(0).tool(secret).build().unwrap();
    let own = tool("own", "Shows what everybody earns at globex", async |_: Empty, _: ToolContext| Ok("more"));
    let own = NativePlugin::new("own", "1.0.0", "Globex's own").unwrap().tool(own);
    bay.register(Scope::tenant("globex").unwrap(), own).await.unwrap();
    assert!(found(&acme(&bay), "what everybody earns").await.is_empty());
    let described = acme(&bay).call("describe_tool", json!({"name": "payroll"})).await;
    assert_eq!(described.result.unwrap_err().kind, toolbay_api::ErrorKind::NotFound);
    let entitled = acme(&bay).with_rights(PermissionSet::parse(["payroll:read"]).unwrap());
    assert_eq!(found(&entitled, "what everybody earns").await, ["payroll"]);
    assert_eq!(found(&bay.session("globex").unwrap(), "what everybody earns").await, ["own"]);
}

#[tokio::test]
async fn a_runs_catalogue_does_not_change_under_it() {
    let bay = office(0).build().unwrap();
    let run = acme(&bay).run();
    let call = async |id: &str| {
        let arguments = json!({"query": "brews coffee"});
        let call = toolbay_api::ToolCall { id: id.into(), name: "search_tools".into(), arguments };
        run.call(1, call).await.result.unwrap().data["tools"].clone()
    };
    assert_eq!(call("before").await, json!([]));
    let coffee = tool("coffee", "Brews coffee", async |_: Empty, _: ToolContext| Ok("hot"));
    let coffee = NativePlugin::new("coffee", "1.0.0", "Coffee").unwrap().tool(coffee);
    bay.register(Scope::Global, coffee).await.unwrap();
    assert_eq!(call("after").await, json!([]), "the run began before");
    assert_eq!(found(&acme(&bay), "brews coffee").await, ["coffee"]);
}

struct NoSearch;

#[async_trait]
impl Hook for NoSearch {
    async fn before_tool_call(&self, call: &BeforeToolCall, _: &HookContext<'_>) -> HookResult<BeforeToolCallOutcome> {
        Ok(match call.arguments["query"] == json!("secrets") {
            true => BeforeToolCallOutcome::deny("not that"),
            false => BeforeToolCallOutcome::Continue,
        })
    }
}

#[tokio::test]
async fn the_search_takes_the_road_like_every_tool() {
    let bay =
        office(0).hook(HookRegistration::new("no_search", [HookPoint::BeforeToolCall], NoSearch)).build().unwrap();
    let session = acme(&bay);
    let denied = session.call("search_tools", json!({"query": "secrets"})).await.result.unwrap_err();
    assert_eq!(denied.to_string(), "DeniedByHook: no_search: not that");
    for arguments in
        [json!({}), json!({"query": ""}), json!({"query": "x".repeat(501)}), json!({"query": "x", "limit": 51})]
    {
        let error = session.call("search_tools", arguments).await.result.unwrap_err();
        assert_eq!(error.kind, toolbay_api::ErrorKind::InvalidArguments, "{error}");
    }
    let described: Value = session.call("describe_tool", json!({"name": "weather"})).await.result.unwrap().data;
    assert_eq!(described["parameters"]["type"], "object");
}
