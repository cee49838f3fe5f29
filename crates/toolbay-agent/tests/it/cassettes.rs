//! Recorded conversations with real providers, played to the adapter over loopback: what it sends carries what the recorded
//! request carried, and what it reads is what the recording says, in whatever pieces a reply comes in.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode},
    response::Response,
};
use futures::stream;
use serde::Deserialize;
use serde_json::{Value, json};
use toolbay_agent::{
    Model, ModelError, ModelErrorKind,
    provider::{Provider, ProviderConfig, ReplyDelta},
};
use toolbay_api::{Message, ModelRequest, ModelResponse, message::FinishReason};

use crate::recordings::{Wire, call, meaning, recorded_reply};

/// The recordings that there are; a new one must be read too.
const RECORDINGS: usize = 12;

/// Ways in which each streamed reply is cut.
const CUTS: u64 = 12;

#[derive(Deserialize)]
struct Exchange {
    when: When,
    then: Then,
}

#[derive(Deserialize)]
struct When {
    path: String,
    body: String,
}

#[derive(Deserialize)]
struct Then {
    status: u16,
    #[serde(default)]
    header: Vec<Header>,
    body: String,
}

#[derive(Deserialize)]
struct Header {
    name: String,
    value: String,
}

/// All recordings by name, or `None`, said aloud, where the data is not there.
fn recordings() -> Option<BTreeMap<String, Vec<Exchange>>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let data = std::env::var_os("TOOLBAY_DATA").map_or_else(|| root.join("../shared/data"), PathBuf::from);
    let Ok(folder) = std::fs::read_dir(data.join("cassettes")) else {
        println!("skipped: the recordings are not here (TOOLBAY_DATA, or shared/data beside the project)");
        return None;
    };
    let paths =
        folder.map(|entry| entry.unwrap().path()).filter(|path| path.extension().is_some_and(|end| end == "yaml"));
    let read = |path: PathBuf| {
        let exchanges = serde_saphyr::from_multiple(&std::fs::read_to_string(&path).unwrap()).unwrap();
        (path.file_stem().unwrap().to_string_lossy().into_owned(), exchanges)
    };
    Some(paths.map(read).collect())
}

/// A server that gives one answer, in pieces, and keeps what it was asked.
#[derive(Clone)]
struct Player {
    status: StatusCode,
    headers: Vec<(String, String)>,
    pieces: Arc<Vec<Bytes>>,
    asked: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Player {
    fn new(status: u16, body: &str, cut: Option<u64>) -> Self {
        let pieces =
            cut.map_or_else(|| vec![Bytes::copy_from_slice(body.as_bytes())], |seed| cut_at_random(body, seed));
        let status = StatusCode::from_u16(status).unwrap();
        Self { status, headers: Vec::new(), pieces: Arc::new(pieces), asked: Arc::default() }
    }

    fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    async fn provider(&self, model: &str) -> Provider {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = Some(format!("http://{}/v1", listener.local_addr().unwrap()));
        let app = Router::new().fallback(play).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let config =
            ProviderConfig { model: model.into(), base_url, api_key: Some("sk-test".into()), ..Default::default() };
        Provider::new(config).unwrap()
    }

    fn asked(&self) -> (String, Value) {
        self.asked.lock().unwrap().last().cloned().unwrap()
    }
}

async fn play(State(player): State<Player>, uri: axum::http::Uri, _: HeaderMap, body: Bytes) -> Response {
    player.asked.lock().unwrap().push((uri.path().to_owned(), serde_json::from_slice(&body).unwrap()));
    let pieces: Vec<_> = player.pieces.iter().cloned().map(Ok::<_, std::io::Error>).collect();
    let mut response = Response::new(Body::from_stream(stream::iter(pieces)));
    *response.status_mut() = player.status;
    for (name, value) in &player.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        response.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
    }
    response
}

/// Pieces of 1 to 64 bytes, without regard to lines, events and characters; of one byte each for the first seed.
fn cut_at_random(body: &str, seed: u64) -> Vec<Bytes> {
    let (mut rest, mut state, mut pieces) = (body.as_bytes(), seed, Vec::new());
    while !rest.is_empty() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let length = if seed == 0 { 1 } else { 1 + (state >> 33) as usize % 64 };
        let (piece, after) = rest.split_at(length.min(rest.len()));
        pieces.push(Bytes::copy_from_slice(piece));
        rest = after;
    }
    pieces
}

/// What the pieces of a reply come to.
fn put_together(deltas: &[ReplyDelta]) -> (String, Vec<(String, String, String)>) {
    let (mut text, mut calls) = (String::new(), Vec::<(String, String, String)>::new());
    for delta in deltas {
        match delta {
            ReplyDelta::Text(more) => text.push_str(more),
            ReplyDelta::ToolCall { id, name, arguments, .. } => match calls.iter_mut().find(|call| call.0 == *id) {
                Some(call) => call.2.push_str(arguments),
                None => calls.push((id.clone(), name.clone(), arguments.clone())),
            },
            _ => {}
        }
    }
    (text, calls)
}

async fn streamed(provider: &Provider, request: ModelRequest) -> (Result<ModelResponse, ModelError>, Vec<ReplyDelta>) {
    let mut deltas = Vec::new();
    let mut told = |delta| deltas.push(delta);
    let reply = provider.respond_streaming(request, &mut told).await;
    (reply, deltas)
}

#[tokio::test]
async fn every_recording_is_sent_and_read_by_its_meaning() {
    let Some(recordings) = recordings() else { return };
    assert_eq!(recordings.len(), RECORDINGS, "{:?}", recordings.keys());
    let (mut exchanges, mut plays) = (0, 0);
    for (name, recording) in &recordings {
        for Exchange { when, then } in recording {
            exchanges += 1;
            let wire = Wire::of(&when.path);
            let recorded: Value = serde_json::from_str(&when.body).unwrap();
            let request = meaning(wire, &recorded);
            let model = format!("{}:{}", wire.provider(), recorded["model"].as_str().unwrap());
            let streams = recorded["stream"] == true;
            let ways: Vec<_> = if streams { (0..CUTS).map(Some).collect() } else { vec![None] };
            for cut in ways {
                plays += 1;
                let mut player = Player::new(then.status, &then.body, cut);
                for header in &then.header {
                    player = player.header(&header.name, &header.value);
                }
                let provider = player.provider(&model).await;
                let (reply, deltas) = match streams {
                    true => streamed(&provider, request.clone()).await,
                    false => (provider.respond(request.clone()).await, Vec::new()),
                };
                let (path, sent) = player.asked();
                assert_eq!(path, when.path, "{name}");
                assert_eq!((&sent["model"], sent["stream"] == true), (&recorded["model"], streams), "{name}");
                assert_eq!(meaning(wire, &sent), request, "{name}: {sent:#}");
                if then.status == 200 {
                    let expected = recorded_reply(wire, &then.body);
                    assert_eq!(reply.unwrap(), expected, "{name} cut by {cut:?}");
                    if streams {
                        let (text, calls) = put_together(&deltas);
                        let ids: Vec<_> = calls.iter().map(|call| call.0.clone()).collect();
                        let expected_ids: Vec<_> = expected.tool_calls.iter().map(|call| call.id.clone()).collect();
                        assert_eq!((text, ids), (expected.text, expected_ids), "{name}: the pieces are not the whole");
                    }
                } else {
                    let (error, body) = (reply.unwrap_err(), serde_json::from_str::<Value>(&then.body).unwrap());
                    assert!(
                        matches!(error.kind, ModelErrorKind::UnknownModel | ModelErrorKind::BadRequest),
                        "{error:?}"
                    );
                    assert!(error.message.ends_with(body["error"]["message"].as_str().unwrap()), "{name}: {error}");
                }
            }
        }
    }
    println!("{} recordings, {exchanges} exchanges, {plays} plays", recordings.len());
    assert_eq!(exchanges, 17);
}

fn ask() -> ModelRequest {
    ModelRequest { messages: vec![Message::user("go")], ..ModelRequest::default() }
}

/// What a stream of these events comes to.
async fn stream_of(model: &str, events: &[&str]) -> (Result<ModelResponse, ModelError>, Vec<ReplyDelta>) {
    let body: String = events.iter().map(|event| format!("{event}\n\n")).collect();
    let player = Player::new(200, &body, Some(7)).header("content-type", "text/event-stream");
    streamed(&player.provider(model).await, ask()).await
}

const REFUSES: &str =
    r#"data: {"choices":[{"index":0,"delta":{"role":"assistant","refusal":"I cannot."},"finish_reason":null}]}"#;
const STOPS: &str = r#"data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;

#[tokio::test]
async fn a_streamed_refusal_is_no_answer() {
    let (reply, _) = stream_of("openai:gpt-4o", &[REFUSES, STOPS, "data: [DONE]"]).await;
    let reply = reply.unwrap();
    assert_eq!((reply.text.as_str(), reply.finish), ("I cannot.", FinishReason::ContentFilter));
    let completed = r#"data: {"type":"response.completed","response":{"id":"r","object":"response","created_at":0,"model":"m","status":"completed","output":[]}}"#;
    let refused = r#"data: {"type":"response.refusal.delta","delta":"I cannot."}"#;
    let (reply, _) = stream_of("openai_resp:gpt-5", &[refused, completed]).await;
    let reply = reply.unwrap();
    assert_eq!((reply.text.as_str(), reply.finish), ("I cannot.", FinishReason::ContentFilter));
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_a_failure_that_can_pass() {
    let begins = r#"data: {"choices":[{"index":0,"delta":{"content":"Once"},"finish_reason":null}]}"#;
    let (reply, deltas) = stream_of("openai:gpt-4o", &[begins]).await;
    let error = reply.unwrap_err();
    assert_eq!((error.kind, error.retryable), (ModelErrorKind::Network, true));
    assert_eq!(deltas, [ReplyDelta::Text("Once".into())], "what was told was told");
    // A server that says why it stopped and leaves out that it did.
    assert_eq!(stream_of("openai:gpt-4o", &[begins, STOPS]).await.0.unwrap().text, "Once");
}

#[tokio::test]
async fn failures_in_the_middle_of_a_stream_keep_their_kind() {
    let begins =
        "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":1}}}";
    let error = |of: &str| {
        format!("event: error\ndata: {{\"type\":\"error\",\"error\":{{\"type\":\"{of}\",\"message\":\"so\"}}}}")
    };
    for (of, kind) in [
        ("overloaded_error", ModelErrorKind::Overloaded),
        ("rate_limit_error", ModelErrorKind::RateLimited { retry_after: None }),
        ("invalid_request_error", ModelErrorKind::BadRequest),
    ] {
        let (reply, _) = stream_of("anthropic:claude-x", &[begins, &error(of)]).await;
        assert_eq!(reply.unwrap_err().kind, kind, "{of}");
    }
    let (reply, _) = stream_of("openai:gpt-4o", &[r#"data: {"error":{"message":"so","type":"server_error"}}"#]).await;
    assert_eq!(reply.unwrap_err().kind, ModelErrorKind::Overloaded);
    let failed = r#"data: {"type":"response.failed","response":{"id":"r","object":"response","created_at":0,"model":"m","status":"failed","output":[],"error":{"code":"rate_limit_exceeded","message":"so"}}}"#;
    let (reply, _) = stream_of("openai_resp:gpt-5", &[failed]).await;
    assert_eq!(reply.unwrap_err().kind, ModelErrorKind::RateLimited { retry_after: None });
}

#[tokio::test]
async fn a_rate_limit_says_how_long_to_wait_also_where_it_was_to_stream() {
    let body = r#"{"error":{"message":"slow down","type":"tokens"}}"#;
    let player = Player::new(429, body, None).header("retry-after", "7").header("content-type", "application/json");
    for model in ["openai:gpt-4o", "anthropic:claude-x", "openai_resp:gpt-5"] {
        let provider = player.provider(model).await;
        for error in [streamed(&provider, ask()).await.0.unwrap_err(), provider.respond(ask()).await.unwrap_err()] {
            assert_eq!(error.retry_after(), Some(std::time::Duration::from_secs(7)), "{model}: {error:?}");
            assert!(error.retryable);
        }
    }
    // Others say so too, and whether to come back at all.
    let player = Player::new(503, "{}", None).header("retry-after", "3").header("x-should-retry", "false");
    let error = player.provider("openai:gpt-4o").await.respond(ask()).await.unwrap_err();
    assert_eq!((error.retry_after(), error.retryable), (Some(std::time::Duration::from_secs(3)), false));
}

#[tokio::test]
async fn a_server_cannot_make_us_take_room_by_a_number() {
    let far = r#"data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":4294967295,"id":"c","function":{"name":"a","arguments":"{}"}}]},"finish_reason":null}]}"#;
    let (reply, _) = stream_of("openai:gpt-4o", &[far, STOPS, "data: [DONE]"]).await;
    assert_eq!(reply.unwrap().tool_calls, [call(&json!("c"), &json!("a"), &json!({}))]);
}

#[tokio::test]
async fn a_reply_without_end_is_given_up() {
    let line =
        format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{}\"}}}}]}}\n\n", "x".repeat(60_000));
    let player = Player::new(200, &line.repeat(300), None).header("content-type", "text/event-stream");
    let (reply, deltas) = streamed(&player.provider("openai:gpt-4o").await, ask()).await;
    assert_eq!(reply.unwrap_err().kind, ModelErrorKind::Protocol);
    assert!(deltas.len() < 290, "{}", deltas.len());
}
