//! Tools that ask, tell and show, prompts, resources, and changes: what one client gets of it.

use std::sync::Arc;

use rmcp::{
    ClientHandler, RoleClient, ServiceExt,
    model::{
        CallToolResponse, ClientCapabilities, ClientConfig, ElicitRequestParams, ElicitResult, ElicitationAction,
        ElicitationCapability, ErrorCode, ErrorData, GetPromptRequestParams, Implementation, ReadResourceRequestParams,
        SubscriptionFilter,
    },
    service::{ClientServiceExt, NotificationContext, RequestContext, RunningService, ServiceError},
};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use toolbay_api::{
    Asset, Assets, FormAnswer, Scope, ToolContext, ToolName,
    manifest::{PromptArgument, PromptDeclaration, PromptMessage, ResourceDeclaration},
    peer::Speaker,
    plugin::NativePlugin,
    tool,
};
use toolbay_runtime::{Session, Toolbay};

use crate::support::{Nothing, Two, discover, params, pipe_to, text, with_cryptography};

/// A client with a user who says yes and gives his name.
struct User(mpsc::UnboundedSender<&'static str>);

impl ClientHandler for User {
    fn get_info(&self) -> ClientConfig {
        let mut capabilities = ClientCapabilities::default();
        capabilities.elicitation = Some(ElicitationCapability::default());
        ClientConfig::new(capabilities, Implementation::new("test", "1"))
    }

    async fn create_elicitation(
        &self,
        _: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let _ = self.0.send("asked");
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(json!({ "name": "Ada" })))
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        let _ = self.0.send("tools changed");
    }
}

type Client = RunningService<RoleClient, User>;

async fn client(session: Session, newer: bool) -> (Client, mpsc::UnboundedReceiver<&'static str>) {
    let (told, heard) = mpsc::unbounded_channel();
    let client = if newer {
        User(told).serve_with_lifecycle(pipe_to(session), discover()).await.unwrap()
    } else {
        User(told).serve(pipe_to(session)).await.unwrap()
    };
    (client, heard)
}

/// A host with `greeter`: a tool that asks for a name, a prompt and a resource.
async fn greeter() -> Toolbay {
    let bay = Toolbay::builder().build().unwrap();
    let form = || json!({ "type": "object", "properties": { "name": { "type": "string" } }, "required": ["name"] });
    let greet = tool("greet", "Greets", move |_: Nothing, cx: ToolContext| {
        let form = form();
        async move {
            Ok(match cx.ask_form("name", "Your name?", form).await? {
                FormAnswer::Accepted(fields) => format!("Hello, {}!", fields["name"].as_str().unwrap_or_default()),
                _ => "Hello!".to_owned(),
            })
        }
    });
    let greet_both = tool("greet_both", "Greets twice", move |_: Two, cx: ToolContext| {
        let form = form();
        async move { cx.ask_form("name", "Your name?", form).await.map(|_| "hello twice") }
    });
    let argument = PromptArgument {
        name: "who".into(),
        values: vec!["Ada".into(), "Bob".into()],
        required: true,
        description: None,
    };
    let prompt = PromptDeclaration {
        description: "Says hello".into(),
        arguments: vec![argument],
        messages: vec![PromptMessage { role: Speaker::User, text: "Say hello to {who}, {unknown}".into() }],
        tool: None,
    };
    let guide = ResourceDeclaration {
        uri: "docs://greeter/guide".into(),
        description: "How to greet".into(),
        asset: Some("guide.md".into()),
        ..ResourceDeclaration::default()
    };
    let assets: Assets = [("guide.md".to_owned(), Asset::new(b"# Greet".to_vec()))].into_iter().collect();
    let plugin =
        NativePlugin::new("greeter", "1.0.0", "Greets").unwrap().tool(greet).tool(greet_both).assets(assets).with(
            |manifest| {
                manifest.prompts.insert(ToolName::new("hello").unwrap(), prompt);
                manifest.resources.insert(ToolName::new("guide").unwrap(), guide);
            },
        );
    bay.register(Scope::Global, plugin).await.unwrap();
    bay
}

#[tokio::test]
async fn a_tool_asks_its_client_in_either_revision() {
    let bay = greeter().await;
    for newer in [false, true] {
        let (client, mut heard) = client(bay.session("acme").unwrap(), newer).await;
        let result = client.call_tool(params("greeter.greet", json!({}))).await.unwrap();
        assert_eq!(text(&result), "Hello, Ada!", "{newer}");
        assert_eq!(heard.recv().await, Some("asked"));
    }
}

#[tokio::test]
async fn a_client_that_cannot_be_asked_is_told_what_it_lacks() {
    let bay = greeter().await;
    let newer = crate::support::newer_client(bay.session("acme").unwrap()).await;
    let error = crate::support::refused(&newer, "greeter.greet", json!({})).await;
    assert_eq!(error.code, ErrorCode::MISSING_REQUIRED_CLIENT_CAPABILITY);
    assert!(error.data.unwrap()["requiredCapabilities"]["elicitation"].is_object());
    let older = crate::support::older_client(bay.session("acme").unwrap()).await;
    let result = crate::support::call(&older, "greeter.greet", json!({})).await.unwrap();
    assert!(text(&result).starts_with("InputRequired: "), "{result:?}");
}

/// The state of a call that waits for an answer.
async fn state_of(client: &Client, tool: &str, arguments: Value) -> String {
    match client.call_tool_once(params(tool, arguments)).await.unwrap() {
        CallToolResponse::InputRequired(asks) => asks.request_state.unwrap(),
        other => panic!("{other:?}"),
    }
}

async fn answered(
    client: &Client,
    tool: &str,
    arguments: Value,
    state: &str,
) -> Result<CallToolResponse, ServiceError> {
    let answer = json!({ "action": "accept", "content": { "name": "Eve" } });
    let params = params(tool, arguments)
        .with_input_responses([("name".to_owned(), answer)].into_iter().collect())
        .with_request_state(state);
    client.call_tool_once(params).await
}

#[tokio::test]
async fn the_state_of_a_call_is_good_for_that_call_of_that_user_alone() {
    // One process and so one key: what tells them apart is what the state is sealed for.
    let bay = greeter().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let known = bay.clone();
    let router = toolbay_mcp::http_router(
        bay.session("acme").unwrap(),
        move |name| known.session(name).ok(),
        toolbay_mcp::HttpOptions::default(),
    );
    tokio::spawn(toolbay_mcp::serve_http(listener, router, std::future::pending()));
    with_cryptography();
    let at = async |path: &str| {
        let config = rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig::with_uri(format!(
            "http://{address}{path}"
        ));
        let transport = rmcp::transport::StreamableHttpClientTransport::from_config(config);
        User(mpsc::unbounded_channel().0).serve_with_lifecycle(transport, discover()).await.unwrap()
    };
    let (acme, globex) = (at("/tenants/acme/mcp").await, at("/tenants/globex/mcp").await);
    let two = json!({ "a": 1.0, "b": 2.0 });
    let state = state_of(&acme, "greeter.greet_both", two.clone()).await;
    let refused = |result: Result<CallToolResponse, ServiceError>| match result {
        Err(ServiceError::McpError(error)) => error.message.contains("requestState"),
        _ => false,
    };
    assert!(refused(answered(&globex, "greeter.greet_both", two.clone(), &state).await), "another tenant");
    let other = json!({ "a": 1.0, "b": 3.0 });
    assert!(refused(answered(&acme, "greeter.greet_both", other, &state).await), "other arguments");
    assert!(refused(answered(&acme, "greeter.greet", json!({}), &state).await), "another tool");
    assert!(refused(answered(&acme, "greeter.greet_both", two.clone(), &format!("{state}x")).await), "tampered with");
    assert!(answered(&acme, "greeter.greet_both", two, &state).await.is_ok());
}

#[tokio::test]
async fn a_prompt_is_listed_filled_in_and_completed() {
    let bay = greeter().await;
    let client = crate::support::older_client(bay.session("acme").unwrap()).await;
    let prompts = client.list_all_prompts().await.unwrap();
    assert_eq!(prompts[0].name, "greeter.hello");
    let with = |who: &str| {
        let mut params = GetPromptRequestParams::new("greeter.hello");
        params.arguments = json!({ "who": who }).as_object().cloned();
        params
    };
    let said = client.get_prompt(with("{who}")).await.unwrap();
    let shown = serde_json::to_value(&said.messages[0]).unwrap();
    assert_eq!(shown["content"]["text"], "Say hello to {who}, {unknown}", "what stands in a value is left as it is");
    let missing = client.get_prompt(GetPromptRequestParams::new("greeter.hello")).await.unwrap_err();
    assert!(matches!(missing, ServiceError::McpError(error) if error.message.contains("who")));
    assert!(client.get_prompt(GetPromptRequestParams::new("greeter.gone")).await.is_err());
    let values = client.complete_prompt_simple("greeter.hello", "who", "a").await.unwrap();
    assert_eq!(values, ["Ada"]);
}

#[tokio::test]
async fn a_resource_is_listed_and_read_and_another_tenants_is_not_there() {
    let bay = greeter().await;
    let own = ResourceDeclaration {
        uri: "docs://acme/own".into(),
        description: "Own".into(),
        asset: Some("own.txt".into()),
        ..ResourceDeclaration::default()
    };
    let assets: Assets = [("own.txt".to_owned(), Asset::new(b"own".to_vec()))].into_iter().collect();
    let plugin = NativePlugin::new("own", "1.0.0", "Own").unwrap().assets(assets).with(|manifest| {
        manifest.resources.insert(ToolName::new("own").unwrap(), own);
    });
    bay.register(Scope::tenant("acme").unwrap(), plugin).await.unwrap();
    let acme = crate::support::older_client(bay.session("acme").unwrap()).await;
    let globex = crate::support::older_client(bay.session("globex").unwrap()).await;
    assert_eq!(acme.list_all_resources().await.unwrap().len(), 2);
    assert_eq!(globex.list_all_resources().await.unwrap().len(), 1);
    let read = |uri: &str| ReadResourceRequestParams::new(uri);
    let guide = globex.read_resource(read("docs://greeter/guide")).await.unwrap();
    assert_eq!(serde_json::to_value(&guide.contents[0]).unwrap()["text"], "# Greet");
    assert!(acme.read_resource(read("docs://acme/own")).await.is_ok());
    assert!(globex.read_resource(read("docs://acme/own")).await.is_err());
}

/// Registers a plugin with one tool for `tenant`.
async fn add_tool(bay: &Toolbay, tenant: &str) {
    let plugin = NativePlugin::new("extra", "1.0.0", "Extra").unwrap();
    let plugin = plugin.tool(tool("more", "More", async |_: Nothing, _: ToolContext| Ok("more")));
    bay.register(Scope::tenant(tenant).unwrap(), plugin).await.unwrap();
}

#[tokio::test]
async fn a_client_hears_of_its_own_tenants_changes_and_of_no_others() {
    let bay = greeter().await;
    for (newer, own, other) in [(false, "acme", "globex"), (true, "initech", "umbrella")] {
        let (client, mut heard) = client(bay.session(own).unwrap(), newer).await;
        let client = Arc::new(client);
        if newer {
            let filter = SubscriptionFilter::builder().tools_list_changed().build();
            let mut subscription = client.listen(filter).await.unwrap();
            add_tool(&bay, other).await;
            add_tool(&bay, own).await;
            let first = tokio::time::timeout(std::time::Duration::from_secs(10), subscription.next()).await;
            let first = first.expect("it is told").unwrap();
            assert!(format!("{first:?}").contains("ToolListChanged"), "{first:?}");
            continue;
        }
        add_tool(&bay, other).await;
        add_tool(&bay, own).await;
        let told = tokio::time::timeout(std::time::Duration::from_secs(10), heard.recv()).await;
        assert_eq!(told.expect("it is told"), Some("tools changed"));
        assert!(heard.try_recv().is_err(), "once, and not for the other tenant");
        drop(client);
    }
}
