//! What one client sees of one tenant's session, whatever it is connected by.

use rmcp::{
    model::{CacheScope, CallToolRequest, ClientRequest, ErrorCode, PaginatedRequestParams},
    service::{PeerRequestOptions, ServiceError},
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use toolbay_api::{PermissionSet, Scope, ToolContext, plugin::NativePlugin, tool};

use crate::support::{
    Nothing, Slow, Two, call, give_secret, names, newer_client, older_client, params, pipe_to, refused, text, toolbay,
};

#[tokio::test]
async fn the_server_says_who_it_is_and_what_it_can_do() {
    let client = older_client(toolbay().await.session("acme").unwrap()).await;
    let server = client.peer_info().unwrap();
    assert_eq!(server.protocol_version.as_str(), "2025-11-25");
    assert_eq!(server.server_info.as_ref().unwrap().name, "toolbay");
    assert!(server.instructions.as_ref().unwrap().contains("InvalidArguments"));
    let tools = server.capabilities.tools.as_ref().unwrap();
    assert_eq!(tools.list_changed, Some(true));
}

#[tokio::test]
async fn tools_are_listed_by_qualified_name_with_schemas_and_annotations() {
    let client = older_client(toolbay().await.session("acme").unwrap()).await;
    let tools = client.list_all_tools().await.unwrap();
    assert_eq!(names(&tools), ["calculator.add", "calculator.divide", "calculator.greet"]);
    let add = &tools[0];
    assert_eq!(add.description.as_deref(), Some("Adds two numbers"));
    assert_eq!(add.input_schema["type"], "object");
    assert!(add.input_schema["properties"]["a"].is_object());
    assert_eq!(add.output_schema.as_ref().unwrap()["type"], "object");
    let annotations = add.annotations.as_ref().unwrap();
    assert_eq!(annotations.read_only_hint, Some(true));
    assert_eq!(annotations.idempotent_hint, Some(true));
    assert_eq!(annotations.destructive_hint, None);
    assert_eq!(tools[2].annotations, None);
}

#[tokio::test]
async fn an_object_comes_back_as_text_and_as_structure() {
    let client = older_client(toolbay().await.session("acme").unwrap()).await;
    let result = call(&client, "calculator.add", json!({"a": 2, "b": 3})).await.unwrap();
    assert_eq!(result.is_error, Some(false));
    assert_eq!(text(&result), r#"{"sum":5.0}"#);
    assert_eq!(result.structured_content, Some(json!({"sum": 5.0})));
    let metadata = &result.meta.unwrap().0["toolbay/metadata"];
    assert!(metadata["duration_ms"].is_number(), "{metadata}");
}

#[tokio::test]
async fn a_string_comes_back_as_it_is() {
    let client = older_client(toolbay().await.session("acme").unwrap()).await;
    let result = call(&client, "calculator.greet", json!({})).await.unwrap();
    assert_eq!(text(&result), "Hello!");
    assert_eq!(result.structured_content, None);
}

#[tokio::test]
async fn a_tool_is_also_found_by_the_name_that_model_providers_get() {
    let session = toolbay().await.session("acme").unwrap();
    let provider_name = session.tools()[0].provider_name.to_string();
    assert!(!provider_name.contains('.'));
    let client = older_client(session).await;
    let result = call(&client, &provider_name, json!({"a": 1, "b": 1})).await.unwrap();
    assert_eq!(text(&result), r#"{"sum":2.0}"#);
}

#[tokio::test]
async fn arguments_may_be_left_out() {
    let client = older_client(toolbay().await.session("acme").unwrap()).await;
    let result = client.call_tool(rmcp::model::CallToolRequestParams::new("calculator.greet")).await.unwrap();
    assert_eq!(text(&result), "Hello!");
}

#[tokio::test]
async fn a_tools_error_is_a_result_that_says_what_to_do() {
    let client = older_client(toolbay().await.session("acme").unwrap()).await;
    let result = call(&client, "calculator.divide", json!({"a": 1, "b": 0})).await.unwrap();
    assert_eq!(result.is_error, Some(true));
    assert_eq!(text(&result), "Script: division by zero: give another divisor\ndetails: {\"pointer\":\"/b\"}");
    assert_eq!(result.structured_content, None);
    let error = &result.meta.unwrap().0["toolbay/error"];
    assert_eq!(error["kind"], "Script");
    assert_eq!(error["retryable"], false);
}

#[tokio::test]
async fn arguments_that_do_not_fit_are_a_result_that_a_model_can_repair_from() {
    let client = older_client(toolbay().await.session("acme").unwrap()).await;
    let result = call(&client, "calculator.add", json!({"a": "two"})).await.unwrap();
    assert_eq!(result.is_error, Some(true));
    let text = text(&result);
    assert!(text.starts_with("InvalidArguments: "), "{text}");
    assert!(text.contains("/a") && text.contains('b'), "{text}");
}

#[tokio::test]
async fn an_unknown_tool_is_an_error_of_the_protocol() {
    for client in [
        older_client(toolbay().await.session("acme").unwrap()).await,
        newer_client(toolbay().await.session("acme").unwrap()).await,
    ] {
        let error = refused(&client, "nothing.here", json!({})).await;
        assert_eq!(error.code, ErrorCode::INVALID_PARAMS);
        assert!(error.message.starts_with("Unknown tool: nothing.here"), "{}", error.message);
    }
}

#[tokio::test]
async fn a_name_of_megabytes_is_not_given_back_whole() {
    let client = older_client(toolbay().await.session("acme").unwrap()).await;
    let error = refused(&client, &"x".repeat(1 << 20), json!({})).await;
    assert!(error.message.len() < 300);
}

#[tokio::test]
async fn another_tenants_tool_is_neither_listed_nor_told_from_one_that_does_not_exist() {
    let toolbay = toolbay().await;
    give_secret(&toolbay, "acme").await;
    let acme = older_client(toolbay.session("acme").unwrap()).await;
    let globex = older_client(toolbay.session("globex").unwrap()).await;
    assert!(names(&acme.list_all_tools().await.unwrap()).contains(&"secret.tell"));
    assert_eq!(text(&call(&acme, "secret.tell", json!({})).await.unwrap()), "42");

    assert!(!names(&globex.list_all_tools().await.unwrap()).contains(&"secret.tell"));
    let hidden = refused(&globex, "secret.tell", json!({})).await;
    let absent = refused(&globex, "secret.none", json!({})).await;
    assert_eq!(hidden.code, absent.code);
    assert_eq!(hidden.message.replace("secret.tell", "X"), absent.message.replace("secret.none", "X"));
}

#[tokio::test]
async fn a_tool_that_the_user_may_not_see_shows_its_parameters_in_no_error() {
    let toolbay = toolbay().await;
    let refund = tool("refund", "Pays back", async |_: Two, _: ToolContext| Ok("paid"))
        .with(|tool| tool.required_permissions = PermissionSet::parse(["shop:refund"]).unwrap());
    toolbay.register(Scope::Global, NativePlugin::new("shop", "1.0.0", "Sells").unwrap().tool(refund)).await.unwrap();
    let clerk = older_client(toolbay.session("acme").unwrap()).await;
    for arguments in [json!({"a": "one"}), json!({"a": "x".repeat(2_000_000)}), json!({"a": 1, "b": 2})] {
        let hidden = refused(&clerk, "shop.refund", arguments).await;
        assert_eq!(hidden.message, "Unknown tool: shop.refund; tools/list has those that there are");
    }
}

#[tokio::test]
async fn a_tool_that_comes_while_a_client_is_connected_is_seen_by_it() {
    let toolbay = toolbay().await;
    let client = older_client(toolbay.session("acme").unwrap()).await;
    assert_eq!(client.list_all_tools().await.unwrap().len(), 3);
    give_secret(&toolbay, "acme").await;
    assert_eq!(client.list_all_tools().await.unwrap().len(), 4);
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let toolbay = toolbay().await;
    let mut plugin = NativePlugin::new("many", "1.0.0", "Many tools").unwrap();
    for number in 0..450 {
        plugin = plugin.tool(tool(&format!("t{number}"), "One of many", async |_: Nothing, _: ToolContext| Ok(())));
    }
    toolbay.register(Scope::tenant("acme").unwrap(), plugin).await.unwrap();
    let client = older_client(toolbay.session("acme").unwrap()).await;

    let mut sizes = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    let mut cursor = None;
    loop {
        let page = client.list_tools(Some(PaginatedRequestParams::default().with_cursor(cursor))).await.unwrap();
        sizes.push(page.tools.len());
        seen.extend(page.tools.into_iter().map(|tool| tool.name));
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(sizes, [200, 200, 53]);
    assert_eq!(seen.len(), 453);
}

#[tokio::test]
async fn a_cursor_that_the_server_never_gave_is_refused() {
    let client = older_client(toolbay().await.session("acme").unwrap()).await;
    let params = PaginatedRequestParams::default().with_cursor(Some("garbage".to_owned()));
    match client.list_tools(Some(params)).await {
        Err(ServiceError::McpError(error)) => assert_eq!(error.code, ErrorCode::INVALID_PARAMS),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn cancelling_a_request_drops_the_call() {
    let toolbay = toolbay().await;
    let slow = Slow::register(&toolbay).await;
    let client = older_client(toolbay.session("acme").unwrap()).await;
    let request = ClientRequest::CallToolRequest(CallToolRequest::new(params("slow.wait", json!({}))));
    let running = client.send_cancellable_request(request, PeerRequestOptions::no_options()).await.unwrap();
    slow.started.notified().await;
    running.cancel(Some("enough".to_owned())).await.unwrap();
    slow.over.notified().await;
    let after = call(&client, "calculator.greet", json!({})).await.unwrap();
    assert_eq!(text(&after), "Hello!");
}

#[tokio::test]
async fn parameters_of_another_form_are_invalid_and_not_an_unknown_method() {
    let mut pipe = BufReader::new(pipe_to(toolbay().await.session("acme").unwrap()));
    let mut ask = async |message: Value| {
        pipe.write_all(format!("{message}\n").as_bytes()).await.unwrap();
        let mut line = String::new();
        pipe.read_line(&mut line).await.unwrap();
        serde_json::from_str::<Value>(&line).unwrap()
    };
    let hello = ask(json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}}))
    .await;
    assert_eq!(hello["result"]["serverInfo"]["name"], "toolbay");
    let call = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "x", "arguments": [1]}});
    assert_eq!(ask(call).await["error"]["code"], -32602);
    let other = json!({"jsonrpc": "2.0", "id": 3, "method": "no/such", "params": {}});
    assert_eq!(ask(other).await["error"]["code"], -32601);
}

#[tokio::test]
async fn a_client_of_2026_gets_structure_for_every_value_that_has_a_schema() {
    let session = toolbay().await.session("acme").unwrap();
    let newer = newer_client(session.clone()).await;
    let older = older_client(session).await;
    assert_eq!(newer.peer_info().unwrap().protocol_version.as_str(), "2026-07-28");

    let by_newer = newer.list_all_tools().await.unwrap();
    assert_eq!(by_newer[1].output_schema.as_ref().unwrap()["type"], "number");
    let by_older = older.list_all_tools().await.unwrap();
    assert_eq!(by_older[1].output_schema, None, "the older revision knows schemas of objects only");

    let half = json!({"a": 1, "b": 2});
    let to_newer = call(&newer, "calculator.divide", half.clone()).await.unwrap();
    assert_eq!((text(&to_newer), to_newer.structured_content.clone()), ("0.5", Some(json!(0.5))));
    let to_older = call(&older, "calculator.divide", half).await.unwrap();
    assert_eq!((text(&to_older), to_older.structured_content.clone()), ("0.5", None));
}

#[tokio::test]
async fn a_client_of_2026_may_keep_a_list_for_itself_and_for_a_short_time() {
    let session = toolbay().await.session("acme").unwrap();
    let newer = newer_client(session.clone()).await.list_tools(None).await.unwrap();
    assert_eq!((newer.ttl_ms, newer.cache_scope), (Some(5_000), Some(CacheScope::Private)));
    let older = older_client(session).await.list_tools(None).await.unwrap();
    assert_eq!((older.ttl_ms, older.cache_scope), (None, None));
}
