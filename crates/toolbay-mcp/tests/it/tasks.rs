//! Calls that go on as tasks: when they do, whose they are, what they ask, and how they end.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use rmcp::{
    ClientHandler, RoleClient, ServiceExt,
    model::{
        CallToolResponse, CancelTaskParams, ClientCapabilities, ClientConfig, DetailedTask, ElicitationCapability,
        ErrorCode, ErrorData, GetTaskParams, Implementation, TaskPayload, TaskStatus, UpdateTaskParams,
    },
    service::{ClientServiceExt, RunningService, ServiceError, serve_server},
    transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::oneshot};
use toolbay_api::{
    FormAnswer, Permission, PermissionSet, Question, Questions, Scope, TenantId, ToolContext, plugin::NativePlugin,
    tool,
};
use toolbay_mcp::{
    HttpOptions, McpServer, Principal, ServerOptions, StaticKeys, TaskOptions, keyed_http_router, serve_http,
};
use toolbay_runtime::{AuditRecord, AuditSink, Toolbay};

use crate::support::{Nothing, Slow, discover, params, text, with_cryptography};

/// A client that knows tasks, and answers no questions by itself.
pub(crate) struct Knowing;

impl ClientHandler for Knowing {
    fn get_info(&self) -> ClientConfig {
        let mut capabilities = ClientCapabilities::builder().enable_tasks().build();
        capabilities.elicitation = Some(ElicitationCapability::default());
        ClientConfig::new(capabilities, Implementation::new("test", "1"))
    }
}

type Client = RunningService<RoleClient, Knowing>;

/// A call becomes a task as soon as it does not end at once.
fn at_once() -> TaskOptions {
    TaskOptions { after: Duration::ZERO, ..TaskOptions::default() }
}

/// Whoever has one of these keys: `ada` and `bob` of `acme`, `ada` with a right more, and somebody of `globex`.
fn keys() -> StaticKeys {
    let of = |tenant: &str, user: &str, rights: &[&str]| {
        let rights: PermissionSet = rights.iter().map(|right| Permission::new(*right).unwrap()).collect();
        Principal { tenant: TenantId::new(tenant).unwrap(), user: Some(user.into()), rights }
    };
    StaticKeys::default()
        .with("ada-key-0123456789", of("acme", "ada", &[]))
        .unwrap()
        .with("bob-key-0123456789", of("acme", "bob", &[]))
        .unwrap()
        .with("ada-more-0123456789", of("acme", "ada", &["more"]))
        .unwrap()
        .with("eve-key-0123456789", of("globex", "ada", &[]))
        .unwrap()
}

struct Server {
    address: String,
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(bay: &Toolbay, options: HttpOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let known = bay.clone();
        let sessions = move |principal: &Principal| known.session(principal.tenant.as_str()).ok();
        let router = keyed_http_router(Arc::new(keys()), sessions, options);
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            serve_http(listener, router, stopped).await.unwrap();
        });
        Self { address, stop, ended }
    }

    async fn with_tasks(bay: &Toolbay, tasks: TaskOptions) -> Self {
        Self::start(bay, HttpOptions { tasks, ..HttpOptions::default() }).await
    }

    fn transport(
        &self,
        key: &str,
    ) -> StreamableHttpClientTransport<impl rmcp::transport::streamable_http_client::StreamableHttpClient> {
        with_cryptography();
        let mut config = StreamableHttpClientTransportConfig::with_uri(format!("http://{}/mcp", self.address));
        config.auth_header = Some(key.to_owned());
        StreamableHttpClientTransport::from_config(config)
    }

    async fn client(&self, key: &str) -> Client {
        Knowing.serve_with_lifecycle(self.transport(key), discover()).await.unwrap()
    }

    async fn ada(&self) -> Client {
        self.client("ada-key-0123456789").await
    }
}

/// A client that has a server for itself, as on stdio.
async fn alone(bay: &Toolbay, tasks: TaskOptions) -> Client {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let server =
        McpServer::with_options(bay.session("acme").unwrap(), ServerOptions { tasks, ..ServerOptions::default() });
    tokio::spawn(async move {
        let running = serve_server(server, theirs).await.unwrap();
        running.waiting().await.unwrap();
    });
    Knowing.serve_with_lifecycle(ours, discover()).await.unwrap()
}

async fn begun(client: &Client, tool: &str, arguments: Value) -> String {
    match client.call_tool_once(params(tool, arguments)).await.unwrap() {
        CallToolResponse::Task(created) => {
            assert_eq!(created.task.status, TaskStatus::Working);
            created.task.task_id
        }
        other => panic!("no task: {other:?}"),
    }
}

async fn get(client: &Client, id: &str) -> Result<DetailedTask, ErrorData> {
    match client.get_task(GetTaskParams::new(id)).await {
        Ok(result) => Ok(result.task),
        Err(ServiceError::McpError(error)) => Err(error),
        Err(other) => panic!("{other:?}"),
    }
}

/// Asks until the task is in a state.
async fn until(client: &Client, id: &str, is_there: impl Fn(&DetailedTask) -> bool) -> DetailedTask {
    for _ in 0..2_000 {
        let task = get(client, id).await.unwrap();
        if is_there(&task) {
            return task;
        }
        assert!(!task.status().is_terminal(), "{task:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("it did not come so far");
}

fn result(task: DetailedTask) -> Value {
    match task.payload {
        TaskPayload::Completed { result } => Value::Object(result),
        other => panic!("not completed: {other:?}"),
    }
}

async fn slow() -> (Toolbay, Slow) {
    let bay = crate::support::toolbay().await;
    let slow = Slow::register(&bay).await;
    (bay, slow)
}

#[tokio::test]
async fn a_call_that_takes_longer_than_it_may_becomes_a_task_with_its_result_at_the_end() {
    let (bay, slow) = slow().await;
    let server = Server::with_tasks(&bay, at_once()).await;
    for client in [server.ada().await, alone(&bay, at_once()).await] {
        let id = begun(&client, "slow.wait", json!({})).await;
        let running = get(&client, &id).await.unwrap();
        assert_eq!(running.status(), TaskStatus::Working);
        assert!(running.task.ttl_ms.unwrap() >= 300_000, "{running:?}");
        assert_eq!(running.task.poll_interval_ms, Some(1_000));
        slow.release.notify_one();
        let ended = until(&client, &id, |task| task.status().is_terminal()).await;
        assert_eq!(result(ended)["content"][0]["text"], "done");
        // It is there for as long as was said.
        assert_eq!(get(&client, &id).await.unwrap().status(), TaskStatus::Completed);
    }
}

#[tokio::test]
async fn how_long_a_call_may_take_before_is_an_option() {
    let (bay, slow) = slow().await;
    let patient = TaskOptions { after: Duration::from_secs(3_600), ..TaskOptions::default() };
    for (tasks, becomes) in [(at_once(), true), (patient, false)] {
        let server = Server::with_tasks(&bay, tasks).await;
        let client = server.ada().await;
        let answered =
            tokio::spawn(async move { client.call_tool_once(params("slow.wait", json!({}))).await.unwrap() });
        slow.started.notified().await;
        // One that may take its time is answered when it ends, and one that may not before it does.
        if !becomes {
            slow.release.notify_one();
        }
        let is_task = matches!(answered.await.unwrap(), CallToolResponse::Task(_));
        assert_eq!(is_task, becomes);
        if becomes {
            slow.release.notify_one();
        }
        slow.over.notified().await;
    }
}

#[tokio::test]
async fn a_client_that_does_not_know_tasks_sees_no_difference() {
    let (bay, slow) = slow().await;
    let server = Server::with_tasks(&bay, at_once()).await;
    let newer = ().serve_with_lifecycle(server.transport("ada-key-0123456789"), discover()).await.unwrap();
    let older = ().serve(server.transport("ada-key-0123456789")).await.unwrap();
    let older_info = older.peer_info().unwrap();
    assert!(older_info.capabilities.extensions.is_none(), "{older_info:?}");
    // One of an older revision that names the extension speaks of something else.
    let odd = Knowing.serve(server.transport("ada-key-0123456789")).await.unwrap();
    for peer in [newer.peer(), older.peer(), odd.peer()] {
        let called = peer.call_tool_once(params("slow.wait", json!({})));
        let (called, ()) = tokio::join!(called, async {
            slow.started.notified().await;
            slow.release.notify_one();
        });
        match called.unwrap() {
            CallToolResponse::Complete(result) => assert_eq!(text(&result), "done"),
            other => panic!("{other:?}"),
        }
    }
    let refused = newer.get_task(GetTaskParams::new("any")).await.unwrap_err();
    let ServiceError::McpError(error) = refused else { panic!("{refused:?}") };
    assert_eq!(error.code, ErrorCode::MISSING_REQUIRED_CLIENT_CAPABILITY);
}

#[tokio::test]
async fn a_tool_can_be_for_clients_alone_that_know_tasks() {
    let (bay, _) = slow().await;
    let required = ["calculator.greet".to_owned()].into();
    let server = Server::with_tasks(&bay, TaskOptions { required, ..TaskOptions::default() }).await;
    let newer = ().serve_with_lifecycle(server.transport("ada-key-0123456789"), discover()).await.unwrap();
    let error = newer.call_tool(params("calculator.greet", json!({}))).await.unwrap_err();
    let ServiceError::McpError(error) = error else { panic!("{error:?}") };
    assert_eq!(error.code, ErrorCode::MISSING_REQUIRED_CLIENT_CAPABILITY);
    assert!(error.data.unwrap()["requiredCapabilities"]["extensions"]["io.modelcontextprotocol/tasks"].is_object());
    let answered = server.ada().await.call_tool_once(params("calculator.greet", json!({}))).await.unwrap();
    assert!(matches!(answered, CallToolResponse::Complete(_)), "it may end before it is a task: {answered:?}");
}

#[tokio::test]
async fn to_anybody_else_a_task_does_not_exist() {
    let (bay, slow) = slow().await;
    let server = Server::with_tasks(&bay, at_once()).await;
    let ada = server.ada().await;
    let id = begun(&ada, "slow.wait", json!({})).await;
    for key in ["bob-key-0123456789", "ada-more-0123456789", "eve-key-0123456789"] {
        let other = server.client(key).await;
        let unknown = get(&other, "0123456789abcdef0123456789abcdef").await.unwrap_err();
        assert_eq!(unknown.code, ErrorCode::INVALID_PARAMS);
        assert_eq!(get(&other, &id).await.unwrap_err(), unknown, "{key}");
        for result in [
            other.cancel_task(CancelTaskParams::new(&id)).await,
            other.update_task(UpdateTaskParams::new(&id, [("a".to_owned(), json!({}))].into())).await,
        ] {
            assert!(matches!(result, Err(ServiceError::McpError(error)) if error == unknown), "{key}");
        }
    }
    // Another client with the same credential is the same principal.
    assert_eq!(get(&server.ada().await, &id).await.unwrap().status(), TaskStatus::Working, "nobody cancelled it");
    slow.release.notify_one();
    until(&ada, &id, |task| task.status() == TaskStatus::Completed).await;
}

/// What became of each call.
#[derive(Clone, Default)]
struct Ends(Arc<Mutex<Vec<String>>>);

impl AuditSink for Ends {
    fn record(&self, record: &AuditRecord<'_>) {
        let how = record.reply.as_ref().map_or_else(|error| format!("{:?}", error.kind), |_| "fine".to_owned());
        self.0.lock().unwrap().push(format!("{} {how}", record.tool));
    }
}

#[tokio::test]
async fn a_task_that_is_cancelled_ends_its_call_and_the_audit_says_so() {
    let ends = Ends::default();
    let bay = Toolbay::builder().audit(Arc::new(ends.clone())).build().unwrap();
    let slow = Slow::register(&bay).await;
    let server = Server::with_tasks(&bay, at_once()).await;
    let client = server.ada().await;
    let id = begun(&client, "slow.wait", json!({})).await;
    slow.started.notified().await;
    client.cancel_task(CancelTaskParams::new(&id)).await.unwrap();
    until(&client, &id, |task| task.status() == TaskStatus::Cancelled).await;
    slow.over.notified().await;
    assert_eq!(*ends.0.lock().unwrap(), ["slow.wait Cancelled"]);
    client.cancel_task(CancelTaskParams::new(&id)).await.unwrap();
    assert_eq!(get(&client, &id).await.unwrap().status(), TaskStatus::Cancelled, "once is enough");
}

/// A host with `asker.ask`, which asks two things when a test lets it.
async fn asker() -> (Toolbay, Arc<tokio::sync::Notify>) {
    let bay = Toolbay::builder().build().unwrap();
    let gate = Arc::new(tokio::sync::Notify::new());
    let opened = Arc::clone(&gate);
    let ask = tool("ask", "Asks", move |_: Nothing, cx: ToolContext| {
        let gate = Arc::clone(&opened);
        async move {
            cx.progress(1.0, Some(3.0), Some("waiting for the gate"));
            gate.notified().await;
            let form = |field: &str| Question::Form {
                message: format!("Your {field}?"),
                schema: json!({ "type": "object", "properties": { field: { "type": "string" } }, "required": [field] }),
            };
            let both = [("name", form("name")), ("color", form("color"))];
            let answers = cx.ask(Questions::from(both.map(|(name, form)| (name.to_owned(), form)))).await?;
            let said = |answer: &toolbay_api::Answer| match answer {
                toolbay_api::Answer::Form(FormAnswer::Accepted(fields)) => json!(fields),
                other => json!(format!("{other:?}")),
            };
            // Whoever asks the same again is not asked twice.
            cx.ask_form("name", "Your name?", json!({ "type": "object", "properties": { "name": {} } })).await?;
            Ok(json!(answers.values().map(said).collect::<Vec<_>>()))
        }
    });
    let opened = Arc::clone(&gate);
    let roots = tool("roots", "Asks what nobody answers", move |_: Nothing, cx: ToolContext| {
        let gate = Arc::clone(&opened);
        async move {
            gate.notified().await;
            cx.ask(Questions::from([("roots".to_owned(), Question::Roots)])).await.map(|_| "never")
        }
    });
    let plugin = NativePlugin::new("asker", "1.0.0", "Asks").unwrap().tool(ask).tool(roots);
    bay.register(Scope::Global, plugin).await.unwrap();
    (bay, gate)
}

fn open(task: &DetailedTask) -> Vec<String> {
    match &task.payload {
        TaskPayload::InputRequired { input_requests } => input_requests.keys().cloned().collect(),
        _ => Vec::new(),
    }
}

#[tokio::test]
async fn questions_inside_a_task_are_answered_one_by_one_by_updates() {
    let (bay, gate) = asker().await;
    let server = Server::with_tasks(&bay, at_once()).await;
    for client in [server.ada().await, alone(&bay, at_once()).await] {
        let id = begun(&client, "asker.ask", json!({})).await;
        gate.notify_one();
        let asks = until(&client, &id, |task| task.status() == TaskStatus::InputRequired).await;
        let [color, name] = &open(&asks)[..] else { panic!("{asks:?}") };
        let update = async |key: &str, answer: Value| {
            client.update_task(UpdateTaskParams::new(&id, [(key.to_owned(), answer)].into())).await.unwrap();
        };
        let accept = |field: &str, value: Value| json!({ "action": "accept", "content": { field: value } });
        update("unknown", json!({ "ignored": true })).await;
        update(name, accept("name", json!("Ada"))).await;
        assert_eq!(open(&get(&client, &id).await.unwrap()), std::slice::from_ref(color), "the other is open still");
        // What does not fit is no answer; the question comes again under another name.
        update(color, accept("color", json!(7))).await;
        let asks = until(&client, &id, |task| open(task).iter().any(|key| key != color)).await;
        update(&open(&asks)[0], accept("color", json!("blue"))).await;
        let ended = until(&client, &id, |task| task.status().is_terminal()).await;
        assert_eq!(result(ended)["content"][0]["text"], r#"[{"color":"blue"},{"name":"Ada"}]"#);
    }
}

#[tokio::test]
async fn a_task_whose_question_its_client_cannot_answer_fails_with_what_is_missing() {
    let (bay, gate) = asker().await;
    let server = Server::with_tasks(&bay, at_once()).await;
    let client = server.ada().await;
    let id = begun(&client, "asker.roots", json!({})).await;
    gate.notify_one();
    let ended = until(&client, &id, |task| task.status() == TaskStatus::Failed).await;
    let TaskPayload::Failed { error } = ended.payload else { panic!("{ended:?}") };
    assert_eq!(error["code"], ErrorCode::MISSING_REQUIRED_CLIENT_CAPABILITY.0);
}

#[tokio::test]
async fn a_tool_that_asks_before_it_is_a_task_is_asked_in_rounds() {
    let (bay, gate) = asker().await;
    gate.notify_one();
    let patient = TaskOptions { after: Duration::from_secs(3_600), ..TaskOptions::default() };
    let server = Server::with_tasks(&bay, patient).await;
    let client = server.ada().await;
    let answered = client.call_tool_once(params("asker.ask", json!({}))).await.unwrap();
    assert!(matches!(answered, CallToolResponse::InputRequired(_)), "{answered:?}");
}

#[tokio::test]
async fn a_tenant_has_so_many_tasks_and_no_more_and_takes_none_from_another() {
    let (bay, slow) = slow().await;
    let server = Server::with_tasks(&bay, TaskOptions { max_per_tenant: 1, ..at_once() }).await;
    let client = server.ada().await;
    let first = begun(&client, "slow.wait", json!({})).await;
    slow.started.notified().await;
    let second = async { client.call_tool_once(params("slow.wait", json!({}))).await.unwrap() };
    let (second, ()) = tokio::join!(second, async {
        slow.started.notified().await;
        let globex = server.client("eve-key-0123456789").await;
        let others = begun(&globex, "slow.wait", json!({})).await;
        globex.cancel_task(CancelTaskParams::new(&others)).await.unwrap();
        client.cancel_task(CancelTaskParams::new(&first)).await.unwrap();
        until(&client, &first, |task| task.status().is_terminal()).await;
        slow.release.notify_one();
    });
    match second {
        CallToolResponse::Complete(result) => assert_eq!(text(&result), "done", "it was answered when it ended"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_task_is_forgotten_when_its_time_is_over_and_makes_room() {
    let (bay, slow) = slow().await;
    let forgetful = TaskOptions { keep: Duration::ZERO, max_per_tenant: 1, ..at_once() };
    let server = Server::with_tasks(&bay, forgetful).await;
    let client = server.ada().await;
    for _ in 0..2 {
        let id = begun(&client, "slow.wait", json!({})).await;
        slow.started.notified().await;
        client.cancel_task(CancelTaskParams::new(&id)).await.unwrap();
        slow.over.notified().await;
        while get(&client, &id).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_result_that_finds_no_room_is_lost_and_its_task_says_so() {
    let (bay, slow) = slow().await;
    let narrow = TaskOptions { max_kept_bytes: 10, ..at_once() };
    let server = Server::with_tasks(&bay, narrow).await;
    let client = server.ada().await;
    let id = begun(&client, "slow.wait", json!({})).await;
    slow.release.notify_one();
    let ended = until(&client, &id, |task| task.status() == TaskStatus::Failed).await;
    assert!(format!("{ended:?}").contains("too large to be kept"), "{ended:?}");
}

#[tokio::test]
async fn the_end_of_the_server_waits_for_tasks_and_then_cancels_them() {
    let ends = Ends::default();
    let bay = Toolbay::builder().audit(Arc::new(ends.clone())).build().unwrap();
    let slow = Slow::register(&bay).await;
    for (drain, lets, end) in [(60, true, "slow.wait fine"), (0, false, "slow.wait Cancelled")] {
        let options = HttpOptions { tasks: at_once(), drain: Duration::from_secs(drain), ..HttpOptions::default() };
        let server = Server::start(&bay, options).await;
        let client = server.ada().await;
        begun(&client, "slow.wait", json!({})).await;
        slow.started.notified().await;
        server.stop.send(()).unwrap();
        if lets {
            slow.release.notify_one();
        }
        server.ended.await.unwrap();
        assert_eq!(ends.0.lock().unwrap().pop().as_deref(), Some(end));
    }
}

#[tokio::test]
async fn a_client_that_leaves_its_own_server_takes_its_tasks_along() {
    let (bay, slow) = slow().await;
    let client = alone(&bay, at_once()).await;
    begun(&client, "slow.wait", json!({})).await;
    slow.started.notified().await;
    client.cancel().await.unwrap();
    slow.over.notified().await;
}
