//! Calls that need approval: the user behind the client is asked, and only the user's answer counts.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rmcp::{
    ClientHandler, RoleClient, ServiceExt,
    model::{
        CallToolResponse, CallToolResult, ClientCapabilities, ClientConfig, ElicitRequestParams, ElicitResult,
        ElicitationAction, ElicitationCapability, ErrorData, Implementation, InputRequiredResult,
    },
    service::{ClientServiceExt, RequestContext, RunningService, ServiceError},
    transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use toolbay_api::{Scope, ToolContext, plugin::NativePlugin, tool};
use toolbay_mcp::{HttpOptions, http_router, serve_http};
use toolbay_runtime::{ApprovalPolicy, Clock, Toolbay};

use crate::support::{discover, params, pipe_to, text, with_cryptography};

#[derive(Deserialize, JsonSchema)]
struct Amount {
    amount: i64,
    /// What a model might try.
    #[serde(default)]
    #[allow(dead_code, reason = "it is part of the schema")]
    decision: String,
}

/// A clock that a test sets.
#[derive(Clone, Default)]
struct Hand(Arc<AtomicU64>);

impl Clock for Hand {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000 + self.0.load(Ordering::SeqCst))
    }
}

/// A bank whose `pay` and `lend` need approval, with the amounts that were paid.
struct Bank {
    bay: Toolbay,
    paid: Arc<Mutex<Vec<i64>>>,
    clock: Hand,
}

impl Bank {
    async fn open() -> Self {
        let clock = Hand::default();
        let policy = ApprovalPolicy { expires_after: Duration::from_secs(60), ..ApprovalPolicy::destructive() };
        let bay = Toolbay::builder().clock(clock.clone()).approval(policy).build().unwrap();
        let paid = Arc::new(Mutex::new(Vec::new()));
        let pays = |name| {
            let paid = Arc::clone(&paid);
            tool(name, "Pays", move |wanted: Amount, _: ToolContext| {
                paid.lock().unwrap().push(wanted.amount);
                async move { Ok("paid") }
            })
            .with(|definition| definition.annotations.destructive = Some(true))
        };
        let plugin = NativePlugin::new("bank", "1.0.0", "A bank").unwrap().tool(pays("pay")).tool(pays("lend"));
        bay.register(Scope::Global, plugin).await.unwrap();
        Self { bay, paid, clock }
    }

    fn paid(&self) -> Vec<i64> {
        self.paid.lock().unwrap().clone()
    }
}

/// A client whose user answers forms like this.
struct User {
    answer: ElicitResult,
    seen: Arc<Mutex<Vec<String>>>,
    asked: Arc<AtomicUsize>,
}

impl User {
    fn who(answer: ElicitResult) -> Self {
        Self { answer, seen: Arc::default(), asked: Arc::default() }
    }
}

fn accept(content: Value) -> ElicitResult {
    ElicitResult::new(ElicitationAction::Accept).with_content(content)
}

impl ClientHandler for User {
    fn get_info(&self) -> ClientConfig {
        let mut capabilities = ClientCapabilities::default();
        capabilities.elicitation = Some(ElicitationCapability::default());
        ClientConfig::new(capabilities, Implementation::new("test", "1"))
    }

    async fn create_elicitation(
        &self,
        asked: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let asked = serde_json::to_value(asked).unwrap();
        self.seen.lock().unwrap().push(asked["message"].as_str().unwrap().to_owned());
        Ok(self.answer.clone())
    }
}

type Client = RunningService<RoleClient, User>;

async fn client(bank: &Bank, user: User, newer: bool) -> Client {
    let pipe = pipe_to(bank.bay.session("acme").unwrap());
    if newer { user.serve_with_lifecycle(pipe, discover()).await.unwrap() } else { user.serve(pipe).await.unwrap() }
}

async fn pay(client: &Client, amount: i64) -> CallToolResult {
    client.call_tool(params("bank.pay", json!({ "amount": amount }))).await.unwrap()
}

#[tokio::test]
async fn the_user_is_shown_the_call_and_approves_it_in_either_revision() {
    let bank = Bank::open().await;
    for newer in [false, true] {
        let user = User::who(accept(json!({ "decision": "approve" })));
        let (seen, asked) = (Arc::clone(&user.seen), Arc::clone(&user.asked));
        let client = client(&bank, user, newer).await;
        let result = pay(&client, 7).await;
        assert_eq!(text(&result), "paid", "{newer}");
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        let shown = seen.lock().unwrap()[0].clone();
        assert!(shown.contains("Tool: bank.pay\nArguments: {\"amount\":7}\nWhy you are asked: "), "{shown}");
        // The next call is another one.
        assert_eq!(text(&pay(&client, 7).await), "paid");
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }
    assert_eq!(bank.paid(), [7; 4]);
}

#[tokio::test]
async fn whatever_else_the_user_does_is_a_no() {
    let bank = Bank::open().await;
    let answers = [
        (accept(json!({ "decision": "reject", "reason": "too much" })), "too much"),
        (accept(json!({ "decision": "reject" })), "rejected"),
        (ElicitResult::new(ElicitationAction::Decline), "declined"),
        (ElicitResult::new(ElicitationAction::Cancel), "closed"),
    ];
    for newer in [false, true] {
        for (answer, said) in answers.clone() {
            let result = pay(&client(&bank, User::who(answer), newer).await, 7).await;
            assert!(text(&result).starts_with("DeniedByHook: ") && text(&result).contains(said), "{result:?}");
        }
    }
    assert_eq!(bank.paid(), [0; 0]);
}

#[tokio::test]
async fn a_client_that_cannot_ask_its_user_is_refused_and_told_why() {
    let bank = Bank::open().await;
    let session = || bank.bay.session("acme").unwrap();
    for client in [crate::support::newer_client(session()).await, crate::support::older_client(session()).await] {
        // An argument is the model's, and decides nothing.
        let said = json!({ "amount": 7, "decision": "approve" });
        let result = crate::support::call(&client, "bank.pay", said).await.unwrap();
        assert!(text(&result).starts_with("ApprovalRequired: "), "{result:?}");
    }
    assert_eq!(bank.paid(), [0; 0]);
}

async fn asked(client: &Client, tool: &str, arguments: Value) -> InputRequiredResult {
    match client.call_tool_once(params(tool, arguments)).await.unwrap() {
        CallToolResponse::InputRequired(asks) => asks,
        other => panic!("not asked: {other:?}"),
    }
}

fn name_of(asks: &InputRequiredResult) -> String {
    asks.input_requests.as_ref().unwrap().keys().next().unwrap().clone()
}

async fn answered(
    client: &Client,
    (tool, arguments): (&str, Value),
    (name, state): (&str, &str),
) -> Result<CallToolResponse, ServiceError> {
    let yes = json!({ "action": "accept", "content": { "decision": "approve" } });
    let params =
        params(tool, arguments).with_input_responses([(name.to_owned(), yes)].into()).with_request_state(state);
    client.call_tool_once(params).await
}

fn is_refused(result: &Result<CallToolResponse, ServiceError>) -> bool {
    matches!(result, Err(ServiceError::McpError(error)) if error.message.contains("requestState"))
}

fn is_asked_anew(result: &Result<CallToolResponse, ServiceError>) -> bool {
    matches!(result, Ok(CallToolResponse::InputRequired(_)))
}

#[tokio::test]
async fn an_approval_is_good_for_the_call_that_was_shown_once_and_for_its_tenant_alone() {
    let bank = Bank::open().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let known = bank.bay.clone();
    let router =
        http_router(bank.bay.session("acme").unwrap(), move |name| known.session(name).ok(), HttpOptions::default());
    tokio::spawn(serve_http(listener, router, std::future::pending()));
    with_cryptography();
    let at = async |tenant: &str| {
        let uri = format!("http://{address}/tenants/{tenant}/mcp");
        let config = StreamableHttpClientTransportConfig::with_uri(uri);
        let user = User::who(ElicitResult::new(ElicitationAction::Cancel));
        user.serve_with_lifecycle(StreamableHttpClientTransport::from_config(config), discover()).await.unwrap()
    };
    let (acme, globex) = (at("acme").await, at("globex").await);
    let seven = || json!({ "amount": 7 });
    let asks = asked(&acme, "bank.pay", seven()).await;
    let (name, state) = (name_of(&asks), asks.request_state.unwrap());

    assert!(
        is_refused(&answered(&acme, ("bank.pay", json!({ "amount": 8 })), (&name, &state)).await),
        "other arguments"
    );
    assert!(is_refused(&answered(&acme, ("bank.lend", seven()), (&name, &state)).await), "another tool");
    assert!(is_refused(&answered(&globex, ("bank.pay", seven()), (&name, &state)).await), "another tenant");
    assert!(is_refused(&answered(&acme, ("bank.pay", seven()), (&name, &format!("{state}x"))).await), "another state");
    let elsewhere = answered(&acme, ("bank.pay", seven()), ("approval", &state)).await;
    assert!(is_asked_anew(&elsewhere), "an answer to nothing that was asked: {elsewhere:?}");
    let no_state = params("bank.pay", seven()).with_input_responses(
        [(name.clone(), json!({ "action": "accept", "content": { "decision": "approve" } }))].into(),
    );
    assert!(is_asked_anew(&acme.call_tool_once(no_state).await), "an answer without what was asked");
    assert_eq!(bank.paid(), [0; 0]);

    let paid = answered(&acme, ("bank.pay", seven()), (&name, &state)).await.unwrap();
    assert!(matches!(&paid, CallToolResponse::Complete(result) if text(result) == "paid"), "{paid:?}");
    assert_eq!(bank.paid(), [7]);
    match answered(&acme, ("bank.pay", seven()), (&name, &state)).await.unwrap() {
        CallToolResponse::Complete(result) => {
            assert!(text(&result).starts_with("ApprovalRequired: "), "replayed: {result:?}");
        }
        other => panic!("replayed: {other:?}"),
    }
    assert_eq!(bank.paid(), [7]);

    let asks = asked(&acme, "bank.pay", seven()).await;
    bank.clock.0.store(61, Ordering::SeqCst);
    let late = answered(&acme, ("bank.pay", seven()), (&name_of(&asks), &asks.request_state.unwrap())).await;
    assert!(is_asked_anew(&late), "expired: {late:?}");
    assert_eq!(bank.paid(), [7]);
}

#[tokio::test]
async fn a_call_that_is_too_long_to_be_shown_is_refused() {
    let bay = Toolbay::builder().approval(ApprovalPolicy::destructive()).build().unwrap();
    #[derive(Deserialize, JsonSchema)]
    struct Letter {
        #[allow(dead_code, reason = "it is part of the schema")]
        text: String,
    }
    let burn = tool("burn", "Burns", async |_: Letter, _: ToolContext| Ok("burnt"))
        .with(|definition| definition.annotations.destructive = Some(true));
    bay.register(Scope::Global, NativePlugin::new("fire", "1.0.0", "Burns").unwrap().tool(burn)).await.unwrap();
    let user = User::who(accept(json!({ "decision": "approve" })));
    let asked = Arc::clone(&user.asked);
    let client = user.serve_with_lifecycle(pipe_to(bay.session("acme").unwrap()), discover()).await.unwrap();
    let result = client.call_tool(params("fire.burn", json!({ "text": "a".repeat(17_000) }))).await.unwrap();
    assert!(text(&result).starts_with("ApprovalRequired: "), "{result:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}
