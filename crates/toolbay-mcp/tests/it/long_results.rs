//! Results that are too long for a client: what it is shown, and who may read the whole.

use std::{sync::Arc, time::Duration};

use rmcp::{
    ServiceExt,
    model::{CallToolResult, ReadResourceRequestParams, ResourceContents},
    service::{ClientServiceExt, ServiceError, serve_server},
    transport::{StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig},
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use toolbay_api::{Scope, TenantId, ToolContext, plugin::NativePlugin, tool};
use toolbay_mcp::{
    HttpOptions, McpServer, Principal, ResultOptions, ServerOptions, StaticKeys, keyed_http_router, serve_http,
};
use toolbay_runtime::Toolbay;

use crate::support::{Client, call, discover, with_cryptography};

#[derive(Deserialize, JsonSchema)]
struct Count {
    count: usize,
}

fn orders(count: usize) -> Value {
    json!({ "orders": (0..count).map(|id| json!({ "id": id, "note": "nothing special about it" })).collect::<Vec<_>>() })
}

/// A host with `shop.orders`, and `shop.described`, which declares what it gives.
async fn shop() -> Toolbay {
    let bay = Toolbay::builder().build().unwrap();
    let list = |name| tool(name, "Lists orders", async |wanted: Count, _: ToolContext| Ok(orders(wanted.count)));
    let described = list("described").with(|definition| {
        definition.output = Some(
            json!({ "type": "object", "properties": { "orders": { "type": "array", "items": { "type": "object" } } } }),
        );
    });
    let plugin = NativePlugin::new("shop", "1.0.0", "A shop").unwrap().tool(list("orders")).tool(described);
    bay.register(Scope::Global, plugin).await.unwrap();
    bay
}

fn short() -> ResultOptions {
    ResultOptions { max_shown_bytes: 2_000, ..ResultOptions::default() }
}

/// A client with a server of its own, as on stdio.
async fn alone(bay: &Toolbay, results: ResultOptions, newer: bool) -> Client {
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let options = ServerOptions { results, ..ServerOptions::default() };
    let server = McpServer::with_options(bay.session("acme").unwrap(), options);
    tokio::spawn(async move {
        let running = serve_server(server, theirs).await.unwrap();
        running.waiting().await.unwrap();
    });
    if newer { ().serve_with_lifecycle(ours, discover()).await.unwrap() } else { ().serve(ours).await.unwrap() }
}

fn link(result: &CallToolResult) -> String {
    let link = result.content.iter().find_map(|block| block.as_resource_link());
    link.unwrap_or_else(|| panic!("no link: {result:?}")).uri.clone()
}

async fn read(client: &Client, uri: &str) -> Result<Value, ServiceError> {
    let read = client.read_resource(ReadResourceRequestParams::new(uri)).await?;
    match &read.contents[..] {
        [ResourceContents::TextResourceContents { text, mime_type, .. }] => {
            assert_eq!(mime_type.as_deref(), Some("application/json"));
            assert!(text.len() < 2_600, "a page keeps to the bound: {}", text.len());
            Ok(serde_json::from_str(text).unwrap())
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_long_result_is_cut_with_its_structure_and_the_whole_is_read_by_pages() {
    let bay = shop().await;
    for newer in [false, true] {
        let client = alone(&bay, short(), newer).await;
        let result = call(&client, "shop.orders", json!({ "count": 500 })).await.unwrap();
        let text = &result.content[0].as_text().unwrap().text;
        assert!(text.starts_with(r#"{"orders":[{"id":0,"#) && text.len() < 2_400, "{text}");
        assert_eq!(result.structured_content.as_ref().unwrap()["orders"][0]["id"], 0);
        let uri = link(&result);
        assert!(text.contains(&uri), "{text}");
        let mut next = Some(format!("{uri}?pointer=/orders"));
        let mut ids = Vec::new();
        while let Some(uri) = next {
            let page = read(&client, &uri).await.unwrap();
            assert_eq!(page["total_items"], 500);
            ids.extend(page["items"].as_array().unwrap().iter().map(|order| order["id"].as_u64().unwrap()));
            next = page["next"].as_str().map(str::to_owned);
        }
        assert_eq!(ids, (0..500).collect::<Vec<_>>());
        let short = call(&client, "shop.orders", json!({ "count": 2 })).await.unwrap();
        assert_eq!(short.structured_content, Some(orders(2)), "what is short stays as it is");
        assert_eq!(short.content.len(), 1);
    }
}

#[tokio::test]
async fn what_a_schema_describes_stays_whole_beside_the_cut_text() {
    let bay = shop().await;
    let client = alone(&bay, short(), true).await;
    let result = call(&client, "shop.described", json!({ "count": 500 })).await.unwrap();
    assert!(result.content[0].as_text().unwrap().text.len() < 2_400);
    assert_eq!(result.structured_content, Some(orders(500)));
}

#[tokio::test]
async fn how_much_is_shown_is_an_option() {
    let bay = shop().await;
    let client = alone(&bay, ResultOptions::default(), true).await;
    let result = call(&client, "shop.orders", json!({ "count": 500 })).await.unwrap();
    assert_eq!(result.structured_content, Some(orders(500)));
}

#[tokio::test]
async fn to_anybody_else_a_kept_result_does_not_exist() {
    let bay = shop().await;
    let user = |tenant: &str, user: &str| Principal {
        user: Some(user.into()),
        ..Principal::new(TenantId::new(tenant).unwrap())
    };
    let keys = StaticKeys::default()
        .with("ada-key-0123456789", user("acme", "ada"))
        .unwrap()
        .with("bob-key-0123456789", user("acme", "bob"))
        .unwrap()
        .with("eve-key-0123456789", user("globex", "ada"))
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let known = bay.clone();
    let sessions = move |principal: &Principal| known.session(principal.tenant.as_str()).ok();
    let options = HttpOptions { results: short(), ..HttpOptions::default() };
    tokio::spawn(serve_http(listener, keyed_http_router(Arc::new(keys), sessions, options), std::future::pending()));
    with_cryptography();
    let client = async |key: &str| {
        let mut config = StreamableHttpClientTransportConfig::with_uri(format!("http://{address}/mcp"));
        config.auth_header = Some(key.to_owned());
        ().serve_with_lifecycle(StreamableHttpClientTransport::from_config(config), discover()).await.unwrap()
    };
    let ada = client("ada-key-0123456789").await;
    let uri = link(&call(&ada, "shop.orders", json!({ "count": 500 })).await.unwrap());
    assert!(
        read(&client("ada-key-0123456789").await, &uri).await.is_ok(),
        "it is the principal's, not the connection's"
    );
    let missing = uri.replace("results/", "results/0");
    for key in ["bob-key-0123456789", "eve-key-0123456789"] {
        let other = client(key).await;
        let (unknown, others) = (read(&other, &missing).await.unwrap_err(), read(&other, &uri).await.unwrap_err());
        let (ServiceError::McpError(unknown), ServiceError::McpError(others)) = (unknown, others) else {
            panic!("{key}")
        };
        assert_eq!((unknown.code, unknown.message), (others.code, others.message), "{key}");
    }
}

#[tokio::test]
async fn kept_results_are_bounded_in_number_in_bytes_and_in_time() {
    let bay = shop().await;
    let result = async |client: &Client| call(client, "shop.orders", json!({ "count": 500 })).await.unwrap();
    let two = alone(&bay, ResultOptions { max_kept: 2, ..short() }, true).await;
    let uris = [link(&result(&two).await), link(&result(&two).await), link(&result(&two).await)];
    assert!(read(&two, &uris[0]).await.is_err(), "the oldest went");
    assert!(read(&two, &uris[1]).await.is_ok() && read(&two, &uris[2]).await.is_ok());
    let one = alone(&bay, ResultOptions { max_kept_bytes: 30_000, ..short() }, true).await;
    let uris = [link(&result(&one).await), link(&result(&one).await)];
    assert!(read(&one, &uris[0]).await.is_err() && read(&one, &uris[1]).await.is_ok());
    for full in [ResultOptions { max_kept_bytes: 100, ..short() }, ResultOptions { max_total_bytes: 100, ..short() }] {
        let cut = result(&alone(&bay, full, true).await).await;
        assert!(cut.content[0].as_text().unwrap().text.contains("could not be kept"), "{cut:?}");
        assert_eq!(cut.content.len(), 1);
    }
    let forgetful = alone(&bay, ResultOptions { keep: Duration::ZERO, ..short() }, true).await;
    let uri = link(&result(&forgetful).await);
    assert!(read(&forgetful, &uri).await.is_err());
}
