//! Servers that want a token: the runner gets one from the server's authorization server, with what the operator gave it.

use std::sync::{Arc, Mutex};

use axum::{
    Form, Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::{Value, json};
use toolbay_api::ErrorKind;
use toolbay_mcp_client::{Auth, Pins, ServerFile, ServerValue};

use crate::support::{Fake, a_tool, approved, loaded};

/// An authorization server, and what it was asked.
#[derive(Clone, Default)]
struct Issuer {
    /// Where it is.
    origin: String,
    /// The server that its tokens are for.
    resource: String,
    /// Forms and `Authorization` headers of requests for tokens.
    asked: Arc<Mutex<Vec<(Value, String)>>>,
}

impl Issuer {
    async fn start(resource: &str) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let issuer = Self { origin, resource: resource.to_owned(), asked: Arc::default() };
        let router = Router::new()
            .route("/.well-known/oauth-protected-resource/mcp", get(resource_metadata))
            .route("/.well-known/oauth-authorization-server", get(issuer_metadata))
            .route("/token", post(token))
            // The MCP server stands behind it, since its metadata is at its own origin.
            .route("/mcp", post(forward))
            .with_state(issuer.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        issuer
    }

    fn url(&self) -> String {
        format!("{}/mcp", self.origin)
    }
}

async fn resource_metadata(State(issuer): State<Issuer>) -> Json<Value> {
    Json(json!({ "resource": issuer.url(), "authorization_servers": [issuer.origin] }))
}

async fn issuer_metadata(State(issuer): State<Issuer>) -> Json<Value> {
    let origin = &issuer.origin;
    Json(json!({
        "issuer": origin, "authorization_endpoint": format!("{origin}/authorize"), "token_endpoint": format!("{origin}/token"),
        "response_types_supported": ["code"], "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"]
    }))
}

async fn token(State(issuer): State<Issuer>, headers: HeaderMap, Form(form): Form<Value>) -> Response {
    let basic = headers.get("authorization").map(|it| it.to_str().unwrap().to_owned()).unwrap_or_default();
    issuer.asked.lock().unwrap().push((form.clone(), basic.clone()));
    // "toolbay:KEY-of-acme" and "toolbay:KEY-of-globex"
    let good = ["Basic dG9vbGJheTpLRVktb2YtYWNtZQ==", "Basic dG9vbGJheTpLRVktb2YtZ2xvYmV4"].contains(&basic.as_str())
        || form["client_secret"].as_str().is_some_and(|secret| secret.starts_with("KEY-of-"));
    if !good {
        return (StatusCode::UNAUTHORIZED, Json(json!({ "error": "invalid_client" }))).into_response();
    }
    let token = format!("token-{}", issuer.asked.lock().unwrap().len());
    Json(json!({ "access_token": token, "token_type": "Bearer", "expires_in": 3600, "scope": "read" })).into_response()
}

async fn forward(State(issuer): State<Issuer>, headers: HeaderMap, body: axum::body::Bytes) -> Response {
    let shown = headers.get("authorization").and_then(|it| it.to_str().ok()).unwrap_or_default();
    if !shown.starts_with("Bearer token-") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let sent = toolbay_mcp_client_http(&issuer.resource, shown, body).await;
    (StatusCode::from_u16(sent.0).unwrap(), [("content-type", "application/json")], sent.1).into_response()
}

/// Hands a request on by hand: the tests have no HTTP client of their own.
async fn toolbay_mcp_client_http(url: &str, shown: &str, body: axum::body::Bytes) -> (u16, Vec<u8>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let address = url.trim_start_matches("http://").trim_end_matches("/mcp");
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         authorization: {shown}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&body).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let at = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let status = std::str::from_utf8(&answer[9..12]).unwrap().parse().unwrap();
    (status, answer[at + 4..].to_vec())
}

fn with_credentials(url: String, secret: &str) -> ServerFile {
    let auth = json!({ "clientCredentials": { "clientId": "toolbay", "clientSecret": secret, "scopes": ["read"] } });
    let auth: Auth = serde_json::from_value(auth).unwrap();
    ServerFile { url: Some(url), auth: Some(auth), ..ServerFile::default() }
}

async fn tickets() -> (Fake, Pins, Issuer) {
    let fake = Fake::with_tools(json!([a_tool("look", "Looks")])).await;
    let pins = approved(&fake.file()).await;
    let issuer = Issuer::start(&fake.url).await;
    (fake, pins, issuer)
}

#[tokio::test]
async fn the_runner_signs_in_with_client_credentials_for_this_server_and_each_tenant_with_its_own() {
    let (fake, pins, issuer) = tickets().await;
    let (bay, _folder) = loaded(&with_credentials(issuer.url(), "secret:KEY"), &pins).await;
    for tenant in ["acme", "globex"] {
        let session = bay.session(tenant).unwrap();
        for _ in 0..2 {
            assert_eq!(session.call("remote.look", json!({})).await.result.unwrap().data, "done", "{tenant}");
        }
    }
    let asked = issuer.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 2, "one token for each tenant, and none for each call: {asked:?}");
    for (form, _) in &asked {
        assert_eq!((&form["grant_type"], &form["scope"]), (&json!("client_credentials"), &json!("read")), "{form}");
        assert_eq!(form["resource"], json!(issuer.url()), "a token for this server and no other");
    }
    let shown = fake.shown.lock().unwrap().clone();
    assert!(shown.contains(&"Bearer token-1".to_owned()) && shown.contains(&"Bearer token-2".to_owned()), "{shown:?}");
    assert!(!shown.iter().any(|shown| shown.contains("KEY-of")), "the secret is the issuer's alone: {shown:?}");
}

#[tokio::test]
async fn credentials_that_are_not_good_are_the_operators_to_mend() {
    let (fake, pins, issuer) = tickets().await;
    let calls = fake.count("tools/call");
    let mut file = with_credentials(issuer.url(), "secret:KEY");
    let Some(Auth::ClientCredentials { client_secret, .. }) = &mut file.auth else { panic!("another kind") };
    *client_secret = ServerValue("secret:OTHER".to_owned());
    let (bay, _folder) = loaded(&file, &pins).await;
    let error = bay.session("acme").unwrap().call("remote.look", json!({})).await.result.unwrap_err();
    assert_eq!((error.kind, error.retryable), (ErrorKind::Unavailable, false), "{error}");
    assert!(!error.message.contains("OTHER-of-acme"), "{error}");
    assert_eq!(fake.count("tools/call"), calls);
}
