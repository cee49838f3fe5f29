//! The provider adapter over a server on loopback that speaks the providers' own wire formats: what goes out, what is
//! read, and how failures are told apart.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};
use toolbay_agent::{
    Agent, Model, ModelError, ModelErrorKind,
    provider::{Provider, ProviderConfig},
};
use toolbay_api::{
    Message, ModelRequest, ToolCall, ToolDefinition,
    message::{FinishReason, Tokens},
};

use crate::support::{bay, session, tool_texts};

const KEY: &str = "sk-a-secret-key";

/// A server with prepared answers, which keeps what it was asked.
#[derive(Clone)]
struct Server(Arc<Inner>);

struct Inner {
    base_url: String,
    answers: Mutex<VecDeque<Answer>>,
    asked: Mutex<Vec<Asked>>,
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    body: String,
}

#[derive(Clone)]
struct Asked {
    path: String,
    headers: HeaderMap,
    body: Value,
}

impl Server {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
        let server = Self(Arc::new(Inner { base_url, answers: Mutex::default(), asked: Mutex::default() }));
        let app = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        server
    }

    /// A server that answers once, with this body and status 200.
    async fn answering(body: Value) -> Self {
        let server = Self::start().await;
        server.answers(200, body.to_string());
        server
    }

    fn answers(&self, status: u16, body: impl Into<String>) {
        self.answers_with(status, vec![("content-type", "application/json")], body);
    }

    fn answers_with(&self, status: u16, headers: Vec<(&'static str, &'static str)>, body: impl Into<String>) {
        self.0.answers.lock().unwrap().push_back(Answer { status, headers, body: body.into() });
    }

    fn asked(&self) -> Vec<Asked> {
        self.0.asked.lock().unwrap().clone()
    }

    fn provider(&self, model: &str) -> Provider {
        let (base_url, api_key) = (Some(self.0.base_url.clone()), Some(KEY.to_owned()));
        Provider::new(ProviderConfig { model: model.into(), base_url, api_key, ..Default::default() }).unwrap()
    }
}

async fn answer(State(server): State<Server>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let body = serde_json::from_slice(&body).unwrap();
    server.0.asked.lock().unwrap().push(Asked { path: uri.path().to_owned(), headers, body });
    let Some(answer) = server.0.answers.lock().unwrap().pop_front() else {
        // No answer prepared: the request hangs, for the tests of time limits.
        return std::future::pending().await;
    };
    let mut response = (StatusCode::from_u16(answer.status).unwrap(), answer.body).into_response();
    response.headers_mut().remove(header::CONTENT_TYPE);
    for (name, value) in answer.headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn call(id: &str, name: &str, arguments: Value) -> ToolCall {
    ToolCall { id: id.into(), name: name.into(), arguments }
}

fn reply(id: &str, text: &str, is_error: bool) -> Message {
    Message::Tool { call_id: id.into(), text: text.into(), is_error }
}

/// A conversation with everything in it: system text, a step of two calls of which one failed, a call without
/// arguments, one with arguments that are none, and a question to follow.
fn conversation() -> ModelRequest {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
        "properties": {"city": {"type": "string"}}, "required": ["city"]
    });
    let calls = vec![call("c1", "weather", json!({"city": "Oslo"})), call("c2", "clock", json!({}))];
    ModelRequest {
        messages: vec![
            Message::system("Be brief."),
            Message::user("Weather and time?"),
            Message::Assistant { text: "One moment.".into(), reasoning: Some("two calls".into()), tool_calls: calls },
            reply("c1", "sunny", false),
            reply("c2", "Script: no clock", true),
            Message::Assistant {
                text: String::new(),
                reasoning: None,
                tool_calls: vec![call("c3", "no.such/tool", json!("{\"city"))],
            },
            reply("c3", "NotFound: no such tool", true),
            Message::user("And?"),
        ],
        tools: vec![
            ToolDefinition::new("weather", "The weather", schema).unwrap(),
            ToolDefinition::new("clock", "The time", json!({"type": "object", "properties": {}})).unwrap(),
        ],
        max_output_tokens: Some(200),
        temperature: Some(0.5),
    }
}

fn chat_completion(message: Value, finish: &str) -> Value {
    json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 0, "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "message": message, "logprobs": null, "finish_reason": finish}],
        "usage": {"prompt_tokens": 90, "completion_tokens": 42, "total_tokens": 132}
    })
}

fn openai_call(id: &str, name: &str, arguments: &str) -> Value {
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
}

#[tokio::test]
async fn a_request_is_written_as_chat_completions() {
    let server = Server::answering(chat_completion(json!({"role": "assistant", "content": "Fine."}), "stop")).await;
    let response = server.provider("gpt-4o-mini").respond(conversation()).await.unwrap();
    assert_eq!((response.text.as_str(), response.finish), ("Fine.", FinishReason::Stop));
    assert_eq!(response.tokens, Tokens { input: 90, output: 42 });

    let asked = server.asked().remove(0);
    assert_eq!(asked.path, "/v1/chat/completions");
    assert_eq!(asked.headers["authorization"], format!("Bearer {KEY}").as_str());
    let body = &asked.body;
    assert_eq!((&body["model"], &body["stream"]), (&json!("gpt-4o-mini"), &json!(false)));
    assert_eq!((&body["max_tokens"], &body["temperature"]), (&json!(200), &json!(0.5)));
    let weather = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    assert_eq!(
        body["tools"],
        json!([
            {"type": "function", "function":
                {"name": "weather", "description": "The weather", "parameters": weather, "strict": false}},
            {"type": "function", "function":
                {"name": "clock", "description": "The time", "parameters": {"type": "object", "properties": {}},
                 "strict": false}},
        ])
    );
    assert_eq!(
        body["messages"],
        json!([
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Weather and time?"},
            {"role": "assistant", "content": "One moment.", "tool_calls": [
                {"type": "function", "id": "c1", "function": {"name": "weather", "arguments": "{\"city\":\"Oslo\"}"}},
                {"type": "function", "id": "c2", "function": {"name": "clock", "arguments": "{}"}},
            ]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
            {"role": "tool", "tool_call_id": "c2", "content": "Script: no clock"},
            {"role": "assistant", "content": "", "tool_calls": [
                {"type": "function", "id": "c3", "function":
                    {"name": "no_such_tool", "arguments": "{\"malformed_arguments\":\"{\\\"city\"}"}},
            ]},
            {"role": "tool", "tool_call_id": "c3", "content": "NotFound: no such tool"},
            {"role": "user", "content": "And?"},
        ])
    );
}

#[tokio::test]
async fn in_strict_mode_tools_are_lowered_and_arguments_brought_back() {
    let parameters = json!({"type": "object", "required": ["to"],
        "properties": {"to": {"type": "string"}, "note": {"type": "string"}}});
    let open = json!({"type": "object", "properties": {"any": {}}});
    let tools = [("send", parameters), ("open", open)];
    let tools = tools.map(|(name, parameters)| ToolDefinition::new(name, "d", parameters).unwrap());
    for strict_tools in [true, false] {
        let call = openai_call("a", "send", r#"{"to": "Rome", "note": null}"#);
        let message = json!({"role": "assistant", "content": null, "tool_calls": [call]});
        let server = Server::answering(chat_completion(message, "tool_calls")).await;
        let (base_url, api_key) = (Some(server.0.base_url.clone()), Some(KEY.to_owned()));
        let config = ProviderConfig { model: "m".into(), base_url, api_key, strict_tools, ..Default::default() };
        let request = ModelRequest { messages: vec![Message::user("go")], tools: tools.to_vec(), ..Default::default() };
        let response = Provider::new(config).unwrap().respond(request).await.unwrap();
        let sent = &server.asked()[0].body["tools"];
        assert_eq!(sent[0]["function"]["strict"], strict_tools);
        assert_eq!(sent[1]["function"]["strict"], false, "strict mode has no words for any value");
        let note = &sent[0]["function"]["parameters"]["properties"]["note"]["type"];
        let expected = if strict_tools { json!(["string", "null"]) } else { json!("string") };
        assert_eq!(*note, expected);
        let expected = if strict_tools { json!({"to": "Rome"}) } else { json!({"to": "Rome", "note": null}) };
        assert_eq!(response.tool_calls[0].arguments, expected);
    }
}

#[tokio::test]
async fn no_tools_and_no_settings_leave_no_trace() {
    let server = Server::answering(chat_completion(json!({"role": "assistant", "content": "Hi"}), "stop")).await;
    let request = ModelRequest { messages: vec![Message::user("Hello")], ..ModelRequest::default() };
    server.provider("gpt-4o-mini").respond(request).await.unwrap();
    let body = server.asked().remove(0).body;
    let keys: Vec<_> = body.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["model", "stream", "messages"]);
}

#[tokio::test]
async fn parallel_calls_are_read() {
    let message = json!({"role": "assistant", "content": null, "refusal": null, "tool_calls": [
        openai_call("call_1", "alpha", "{\"value\": \"red\"}"),
        openai_call("call_2", "beta", "{}"),
    ]});
    let server = Server::answering(chat_completion(message, "tool_calls")).await;
    let response = server.provider("gpt-4o-mini").respond(conversation()).await.unwrap();
    assert_eq!((response.text.as_str(), response.finish), ("", FinishReason::ToolCalls));
    let expected = [call("call_1", "alpha", json!({"value": "red"})), call("call_2", "beta", json!({}))];
    assert_eq!(response.tool_calls, expected);
}

#[tokio::test]
async fn arguments_that_are_no_json_are_kept_for_the_model_to_repair() {
    let message = json!({"role": "assistant", "content": "so", "reasoning_content": "hm", "tool_calls": [
        openai_call("call_1", "alpha", "{\"value\": "),
        openai_call("call_2", "beta", ""),
        openai_call("call_3", "gamma", "{\"ok\": true}"),
        {"function": {"name": "delta"}},
    ]});
    let server = Server::answering(chat_completion(message, "length")).await;
    let response = server.provider("gpt-4o-mini").respond(conversation()).await.unwrap();
    assert_eq!((response.text.as_str(), response.reasoning.as_deref()), ("so", Some("hm")));
    assert_eq!((response.finish, response.tokens.input), (FinishReason::Length, 90));
    let expected = [
        call("call_1", "alpha", json!("{\"value\": ")),
        call("call_2", "beta", json!("")),
        call("call_3", "gamma", json!({"ok": true})),
        call("", "delta", json!({})),
    ];
    assert_eq!(response.tool_calls, expected);
}

#[tokio::test]
async fn reasoning_is_read_in_each_of_its_forms() {
    for message in [
        json!({"role": "assistant", "content": "4", "reasoning_content": "2 and 2"}),
        json!({"role": "assistant", "content": "4", "reasoning": "2 and 2"}),
        json!({"role": "assistant", "content": "<think>2 and 2</think>4"}),
    ] {
        let server = Server::answering(chat_completion(message, "stop")).await;
        let response = server.provider("openai:some-model").respond(conversation()).await.unwrap();
        assert_eq!((response.text.as_str(), response.reasoning.as_deref()), ("4", Some("2 and 2")));
    }
}

#[tokio::test]
async fn each_end_of_a_reply_has_its_reason() {
    let text = json!({"role": "assistant", "content": "x"});
    let ends = [
        ("stop", FinishReason::Stop),
        ("length", FinishReason::Length),
        ("content_filter", FinishReason::ContentFilter),
        ("tired", FinishReason::Other),
    ];
    for (wire, expected) in ends {
        let server = Server::answering(chat_completion(text.clone(), wire)).await;
        assert_eq!(server.provider("gpt-4o").respond(conversation()).await.unwrap().finish, expected);
    }
    let refusal = json!({"role": "assistant", "content": null, "refusal": "I cannot help with that."});
    let server = Server::answering(chat_completion(refusal, "stop")).await;
    let response = server.provider("gpt-4o").respond(conversation()).await.unwrap();
    assert_eq!((response.text.as_str(), response.finish), ("I cannot help with that.", FinishReason::ContentFilter));
}

async fn failure(status: u16, headers: Vec<(&'static str, &'static str)>, body: &str) -> ModelError {
    let server = Server::start().await;
    server.answers_with(status, headers, body);
    let error = server.provider("gpt-4o-mini").respond(conversation()).await.unwrap_err();
    let all = format!("{error} {error:?}");
    assert!(!all.contains(KEY), "the key is shown: {all}");
    error
}

#[tokio::test]
async fn failures_are_told_apart_by_status() {
    let json_type = || vec![("content-type", "application/json")];
    let body = json!({"error": {"message": format!("Something with {KEY} in it"), "type": "t", "code": "c"}});
    let body = body.to_string();
    let kinds = [
        (
            400,
            ModelErrorKind::BadRequest,
            false,
            "the model gpt-4o-mini did not accept the request (400): Something with [key] in it",
        ),
        (
            401,
            ModelErrorKind::Auth,
            false,
            "the key was not accepted for the model gpt-4o-mini (401): check OPENAI_API_KEY",
        ),
        (
            403,
            ModelErrorKind::Auth,
            false,
            "the key was not accepted for the model gpt-4o-mini (403): check OPENAI_API_KEY",
        ),
        (404, ModelErrorKind::UnknownModel, false, "the provider has no model gpt-4o-mini: Something with [key] in it"),
        (408, ModelErrorKind::TimedOut, true, "the model gpt-4o-mini took too long to answer (408): try again"),
        (
            422,
            ModelErrorKind::BadRequest,
            false,
            "the model gpt-4o-mini did not accept the request (422): Something with [key] in it",
        ),
        (500, ModelErrorKind::Overloaded, true, "the provider of the model gpt-4o-mini has a fault (500): try again"),
        (529, ModelErrorKind::Overloaded, true, "the provider of the model gpt-4o-mini has a fault (529): try again"),
    ];
    for (status, kind, retryable, message) in kinds {
        let error = failure(status, json_type(), &body).await;
        assert_eq!((error.kind, error.retryable, error.message.as_str()), (kind, retryable, message));
    }
}

#[tokio::test]
async fn a_rate_limit_says_how_long_to_wait() {
    let wait = |error: &ModelError| match error.kind {
        ModelErrorKind::RateLimited { retry_after } => retry_after,
        other => panic!("not a rate limit: {other:?}"),
    };
    let error = failure(429, vec![("retry-after", "7")], "{}").await;
    assert_eq!(wait(&error), Some(Duration::from_secs(7)));
    assert_eq!(error.message, "too many requests to the model gpt-4o-mini: try again in 7 s");
    let error = failure(429, vec![("retry-after-ms", "1500"), ("retry-after", "2")], "slow down").await;
    assert_eq!(wait(&error), Some(Duration::from_millis(1500)));
    assert_eq!(wait(&failure(429, vec![("retry-after", "1e30")], "").await), None);
    assert_eq!(wait(&failure(429, vec![("retry-after", "99999999")], "").await), Some(Duration::from_secs(3_600)));
    assert_eq!(wait(&failure(429, vec![("retry-after", "-1")], "").await), None);
    assert_eq!(wait(&failure(429, vec![], "").await), None);
}

#[tokio::test]
async fn garbage_is_a_protocol_error_and_nothing_worse() {
    let json_type = || vec![("content-type", "application/json")];
    for body in ["", "not json", "{", "[]", "{}", "null", "{\"choices\": []}", "{\"choices\": [{\"message\": 5}]}"] {
        let error = failure(200, json_type(), body).await;
        assert_eq!((error.kind, error.retryable), (ModelErrorKind::Protocol, false), "{body}");
    }
    let page = failure(200, vec![("content-type", "text/html")], "<html>a login page</html>").await;
    assert_eq!(page.message, "the model gpt-4o-mini gave an answer that is no JSON: check the base URL");
    let wrong = json!({"choices": [{"message": {"tool_calls": [{"id": 1, "function": {"name": 5}}]}}]});
    assert_eq!(failure(200, json_type(), &wrong.to_string()).await.kind, ModelErrorKind::Protocol);
}

#[tokio::test]
async fn a_failure_with_status_200_is_a_failure() {
    let body = json!({"error": {"code": 429, "message": "upstream is busy"}}).to_string();
    let error = failure(200, vec![("content-type", "application/json")], &body).await;
    assert_eq!(error.kind, ModelErrorKind::RateLimited { retry_after: None });
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_network_error() {
    // Bound and let go again: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = ProviderConfig {
        model: "some-model".into(),
        base_url: Some(format!("http://127.0.0.1:{port}/v1")),
        api_key: Some(KEY.into()),
        ..Default::default()
    };
    let error = Provider::new(config).unwrap().respond(conversation()).await.unwrap_err();
    assert_eq!((error.kind, error.retryable), (ModelErrorKind::Network, true));
    assert!(error.message.contains("check the address"), "{error}");
}

#[tokio::test]
async fn a_server_that_is_silent_runs_into_the_time_limit() {
    let server = Server::start().await;
    let config = ProviderConfig {
        model: "some-model".into(),
        base_url: Some(server.0.base_url.clone()),
        api_key: Some(KEY.into()),
        timeout: Duration::from_millis(100),
        ..Default::default()
    };
    let error = Provider::new(config).unwrap().respond(conversation()).await.unwrap_err();
    assert_eq!(error.kind, ModelErrorKind::TimedOut);
}

#[test]
fn a_provider_shows_no_key_and_asks_for_one() {
    let config = ProviderConfig { model: "gpt-4o".into(), ..Default::default() };
    assert!(Provider::new(config.clone()).unwrap_err().message.contains("set OPENAI_API_KEY"));
    let provider = Provider::new(ProviderConfig { api_key: Some(KEY.into()), ..config }).unwrap();
    assert_eq!(provider.id(), "gpt-4o");
    assert!(!format!("{provider:?}").contains(KEY));
}

fn anthropic_message(content: Value, stop_reason: &str) -> Value {
    json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "content": content,
        "stop_reason": stop_reason, "stop_sequence": null, "usage": {"input_tokens": 700, "output_tokens": 70}
    })
}

#[tokio::test]
async fn a_request_is_written_as_anthropic_messages() {
    let server = Server::answering(anthropic_message(json!([{"type": "text", "text": "Fine."}]), "end_turn")).await;
    let response = server.provider("claude-sonnet-4-5").respond(conversation()).await.unwrap();
    assert_eq!((response.text.as_str(), response.finish), ("Fine.", FinishReason::Stop));
    assert_eq!(response.tokens, Tokens { input: 700, output: 70 });

    let asked = server.asked().remove(0);
    assert_eq!(asked.path, "/v1/messages");
    assert_eq!(
        (&asked.headers["x-api-key"], &asked.headers["anthropic-version"]),
        (&HeaderValue::from_static(KEY), &HeaderValue::from_static("2023-06-01"))
    );
    let body = &asked.body;
    assert_eq!((&body["system"], &body["max_tokens"]), (&json!("Be brief."), &json!(200)));
    assert_eq!(body["tools"][0]["name"], "weather");
    assert_eq!(body["tools"][1]["input_schema"], json!({"type": "object", "properties": {}}));
    assert!(body["tools"][0]["input_schema"].get("$schema").is_none());
    assert_eq!(
        body["messages"],
        json!([
            {"role": "user", "content": "Weather and time?"},
            {"role": "assistant", "content": [
                {"type": "text", "text": "One moment."},
                {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Oslo"}},
                {"type": "tool_use", "id": "c2", "name": "clock", "input": {}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c1", "content": "sunny"},
                {"type": "tool_result", "tool_use_id": "c2", "content": "Script: no clock", "is_error": true},
            ]},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "c3", "name": "no_such_tool", "input": {"malformed_arguments": "{\"city"}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c3", "content": "NotFound: no such tool", "is_error": true},
            ]},
            {"role": "user", "content": "And?"},
        ])
    );
}

#[tokio::test]
async fn anthropics_calls_and_thoughts_are_read_and_the_signed_thought_goes_back() {
    let server = Server::start().await;
    let thought = json!({"type": "thinking", "thinking": "I should look.", "signature": "sig-1"});
    let content = json!([
        thought,
        {"type": "text", "text": "Looking."},
        {"type": "tool_use", "id": "toolu_1", "name": "add", "input": {"a": 1, "b": 2}},
    ]);
    server.answers(200, anthropic_message(content, "tool_use").to_string());
    server.answers(200, anthropic_message(json!([{"type": "text", "text": "3"}]), "end_turn").to_string());
    let provider = Arc::new(server.provider("claude-sonnet-4-5"));
    let reply = Agent::new(Arc::clone(&provider), session(bay())).system("Be brief.").run("1 + 2?").await.unwrap();
    assert_eq!((reply.text.as_str(), reply.tokens.input), ("3", 1400));
    assert_eq!(tool_texts(&reply.messages), ["3"]);
    assert!(matches!(&reply.messages[1], Message::Assistant { reasoning: Some(text), .. } if text == "I should look."));

    let asked = server.asked();
    assert_eq!(asked[1].body["messages"][1]["content"][0], thought);
    assert_eq!(asked[1].body["messages"][2]["content"][0]["tool_use_id"], "toolu_1");

    // Another conversation that only looks alike is given nothing of it.
    server.answers(200, anthropic_message(json!([{"type": "text", "text": "3"}]), "end_turn").to_string());
    let mut elsewhere = reply.messages.clone();
    elsewhere[0] = Message::user("2 + 1?");
    elsewhere.insert(0, Message::system("Be brief."));
    let request = ModelRequest { messages: elsewhere, ..ModelRequest::default() };
    provider.respond(request).await.unwrap();
    assert!(!server.asked()[2].body.to_string().contains("sig-1"));
}

#[tokio::test]
async fn an_agent_repairs_a_call_over_the_wire() {
    let server = Server::start().await;
    let calls = |calls: Value| json!({"role": "assistant", "content": null, "tool_calls": calls});
    let broken = calls(json!([openai_call("1", "add", "{\"a\": 1,")]));
    let whole = calls(json!([openai_call("1", "add", "{\"a\": 1, \"b\": 2}")]));
    server.answers(200, chat_completion(broken, "tool_calls").to_string());
    server.answers(200, chat_completion(whole, "tool_calls").to_string());
    server.answers(200, chat_completion(json!({"role": "assistant", "content": "3"}), "stop").to_string());
    let reply = Agent::new(server.provider("gpt-4o-mini"), session(bay())).run("1 + 2?").await.unwrap();
    assert_eq!((reply.text.as_str(), reply.steps), ("3", 3));
    let texts = tool_texts(&reply.messages);
    assert!(texts[0].starts_with("InvalidArguments: ") && texts[1] == "3", "{texts:?}");
    // The server used the same id twice; the conversation that it gets back has two.
    let last = &server.asked()[2].body["messages"];
    assert_eq!(last[1]["tool_calls"][0]["id"], last[2]["tool_call_id"]);
    assert_eq!(last[3]["tool_calls"][0]["id"], last[4]["tool_call_id"]);
    assert_ne!(last[2]["tool_call_id"], last[4]["tool_call_id"]);
}

#[tokio::test]
async fn geminis_calls_are_written_and_read() {
    let content = json!({"role": "model", "parts": [{"functionCall": {"name": "clock", "args": {}}}]});
    let server = Server::answering(json!({
        "candidates": [{"content": content, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}
    }))
    .await;
    let response = server.provider("gemini-2.5-flash").respond(conversation()).await.unwrap();
    assert_eq!(response.finish, FinishReason::ToolCalls, "Gemini says STOP beside calls");
    assert_eq!((response.tool_calls[0].name.as_str(), &response.tool_calls[0].arguments), ("clock", &json!({})));
    let body = server.asked().remove(0).body;
    let names = &body["tools"][0]["functionDeclarations"];
    assert_eq!((&names[0]["name"], &names[1]["name"]), (&json!("weather"), &json!("clock")));
    assert!(body.to_string().contains("\"functionResponse\":{\"name\":\"weather\""), "{body}");
}

/// One exchange of a cassette.
#[derive(Deserialize)]
struct Exchange {
    when: When,
    then: Then,
}

#[derive(Deserialize)]
struct When {
    body: String,
}

#[derive(Deserialize)]
struct Then {
    status: u16,
    body: String,
}

/// The exchanges of a recorded conversation, or `None`, said aloud, where the data is not there.
fn cassette(name: &str) -> Option<Vec<Exchange>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let data = std::env::var_os("TOOLBAY_DATA").map_or_else(|| root.join("../shared/data"), PathBuf::from);
    let path = data.join("cassettes").join(format!("{name}.yaml"));
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("skipped: there is no {}; set TOOLBAY_DATA to the folder with the data", path.display());
        return None;
    };
    Some(serde_saphyr::from_multiple(&text).unwrap())
}

/// The tools of a recorded request in our form.
fn recorded_tools(request: &Value) -> Vec<ToolDefinition> {
    let tools = request["tools"].as_array().unwrap().iter().map(|tool| {
        let tool = tool.get("function").unwrap_or(tool);
        let schema = tool.get("parameters").or(tool.get("input_schema")).unwrap().clone();
        ToolDefinition::new(tool["name"].as_str().unwrap(), tool["description"].as_str().unwrap(), schema).unwrap()
    });
    tools.collect()
}

#[tokio::test]
async fn recorded_chat_completions_are_read_and_the_request_has_their_form() {
    let Some(exchanges) = cassette("openai_chat_tool_lifecycle_matrix_blocking_gpt41_parallel_model") else { return };
    let recorded: Value = serde_json::from_str(&exchanges[0].when.body).unwrap();
    let server = Server::start().await;
    server.answers(exchanges[0].then.status, &*exchanges[0].then.body);
    let request = ModelRequest {
        messages: vec![Message::user(recorded["messages"][1]["content"].as_str().unwrap())],
        tools: recorded_tools(&recorded),
        ..ModelRequest::default()
    };
    let response = server.provider("gpt-4.1-mini").respond(request).await.unwrap();
    let calls: Vec<_> = response.tool_calls.iter().map(|call| (call.name.as_str(), &call.arguments)).collect();
    assert_eq!(calls, [("alpha", &json!({"value": "red"})), ("beta", &json!({"value": "blue"}))]);
    assert_eq!(response.tokens, Tokens { input: 90, output: 42 });

    let mut sent = server.asked().remove(0).body;
    assert_eq!(sent["messages"][0], recorded["messages"][1]);
    for tool in sent["tools"].as_array_mut().unwrap() {
        tool["function"].as_object_mut().unwrap().remove("strict");
    }
    assert_eq!(sent["tools"], recorded["tools"]);
}

#[tokio::test]
async fn a_recorded_anthropic_conversation_is_led_to_its_end() {
    let Some(exchanges) = cassette("anthropic_messages_sessions_parallel_tool_use_single_turn_nonstreaming") else {
        return;
    };
    let recorded: Vec<Value> =
        exchanges.iter().map(|exchange| serde_json::from_str(&exchange.when.body).unwrap()).collect();
    let server = Server::start().await;
    exchanges.iter().for_each(|exchange| server.answers(exchange.then.status, &*exchange.then.body));
    let provider = server.provider("claude-sonnet-4-6");

    let prompt = recorded[0]["messages"][0]["content"][0]["text"].as_str().unwrap();
    let mut messages = vec![Message::user(prompt)];
    let request = |messages: &[Message]| ModelRequest {
        messages: messages.to_vec(),
        tools: recorded_tools(&recorded[0]),
        ..ModelRequest::default()
    };
    let first = provider.respond(request(&messages)).await.unwrap();
    let names: Vec<_> = first.tool_calls.iter().map(|call| call.name.as_str()).collect();
    assert_eq!(names, ["lookup_harbor_label", "lookup_orchard_label"]);
    assert_eq!(first.finish, FinishReason::ToolCalls);
    let ids: Vec<_> = first.tool_calls.iter().map(|call| call.id.clone()).collect();
    messages.push(Message::Assistant { text: first.text, reasoning: None, tool_calls: first.tool_calls });
    messages.extend([reply(&ids[0], "crimson-harbor", false), reply(&ids[1], "silver-orchard", false)]);
    let last = provider.respond(request(&messages)).await.unwrap();
    assert!(last.text.contains("crimson-harbor") && last.text.contains("silver-orchard"));

    // Blocks of text may be written in short; beside that, what goes out is what was recorded.
    let sent = server.asked().remove(1).body;
    assert_eq!(sent["messages"][1], recorded[1]["messages"][1]);
    assert_eq!(sent["tools"], recorded[1]["tools"]);
    let results = |body: &Value| -> Vec<Value> {
        body["messages"][2]["content"].as_array().unwrap().iter().map(|block| block["tool_use_id"].clone()).collect()
    };
    assert_eq!(results(&sent), results(&recorded[1]));
}

#[tokio::test]
async fn a_recorded_conversation_over_the_responses_api_is_read() {
    let Some(exchanges) = cassette("openai_responses_sessions_parallel_tool_calls_single_turn_nonstreaming") else {
        return;
    };
    let server = Server::start().await;
    exchanges.iter().for_each(|exchange| server.answers(exchange.then.status, &*exchange.then.body));
    let provider = server.provider("openai_resp:gpt-4o");
    let request = || ModelRequest { messages: vec![Message::user("go")], ..ModelRequest::default() };
    let first = provider.respond(request()).await.unwrap();
    let calls: Vec<_> = first.tool_calls.iter().map(|call| (call.name.as_str(), &call.arguments)).collect();
    assert_eq!(calls, [("lookup_harbor_label", &json!({})), ("lookup_orchard_label", &json!({}))]);
    assert_eq!(first.finish, FinishReason::ToolCalls);
    let last = provider.respond(request()).await.unwrap();
    assert!(last.text.contains("crimson-harbor") && last.finish == FinishReason::Stop, "{last:?}");
    assert_eq!(server.asked()[0].path, "/v1/responses");
}

#[tokio::test]
async fn the_responses_api_has_its_malformed_arguments_and_refusals_too() {
    let server = Server::start().await;
    let body = |output: Value| {
        json!({
            "id": "resp_1", "object": "response", "created_at": 0, "model": "gpt-5", "status": "completed",
            "output": output, "usage": {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}
        })
        .to_string()
    };
    let summary = json!([{"type": "summary_text", "text": "hm"}]);
    server.answers(
        200,
        body(json!([
            {"type": "reasoning", "id": "rs_1", "summary": summary},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "so"}]},
            {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "alpha", "arguments": "{\"value\": "},
        ])),
    );
    let refusal = json!([{"type": "refusal", "refusal": "I cannot help with that."}]);
    server.answers(200, body(json!([{"type": "message", "role": "assistant", "content": refusal}])));
    let provider = server.provider("openai_resp:gpt-5");
    let first = provider.respond(conversation()).await.unwrap();
    assert_eq!((first.text.as_str(), first.reasoning.as_deref()), ("so", Some("hm")));
    assert_eq!(first.tool_calls, [call("call_1", "alpha", json!("{\"value\": "))]);
    assert_eq!((first.finish, first.tokens.input), (FinishReason::ToolCalls, 7));
    let second = provider.respond(conversation()).await.unwrap();
    assert_eq!((second.text.as_str(), second.finish), ("I cannot help with that.", FinishReason::ContentFilter));
}

#[tokio::test]
async fn ollamas_own_protocol_is_spoken() {
    let server = Server::answering(json!({
        "model": "llama3", "created_at": "2025-01-01T00:00:00Z", "done": true, "done_reason": "stop",
        "message": {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "clock", "arguments": {}}}]},
        "prompt_eval_count": 4, "eval_count": 2
    }))
    .await;
    let base_url = Some(server.0.base_url.replace("/v1", ""));
    let config = ProviderConfig { model: "ollama:llama3:8b".into(), base_url, ..Default::default() };
    let response = Provider::new(config).unwrap().respond(conversation()).await.unwrap();
    assert_eq!((response.tool_calls[0].name.as_str(), response.finish), ("clock", FinishReason::ToolCalls));
    let asked = server.asked().remove(0);
    assert_eq!((asked.path.as_str(), &asked.body["model"]), ("/api/chat", &json!("llama3:8b")));
    assert_eq!(asked.body["tools"][1]["function"]["name"], "clock");
}

#[tokio::test]
async fn recorded_errors_are_told_apart() {
    let cases = [
        ("openai_error_envelope_nonexistent_model_streaming_error_preserves_status_and_body", "gpt-4o"),
        ("anthropic_error_identity_edge_streaming_connect_4xx_matches_blocking_richness", "claude-sonnet-4-5"),
    ];
    for (name, model) in cases {
        let Some(exchanges) = cassette(name) else { return };
        let server = Server::start().await;
        server.answers(exchanges[0].then.status, &*exchanges[0].then.body);
        let error = server.provider(model).respond(conversation()).await.unwrap_err();
        let body: Value = serde_json::from_str(&exchanges[0].then.body).unwrap();
        assert!(matches!(error.kind, ModelErrorKind::UnknownModel | ModelErrorKind::BadRequest), "{error:?}");
        let said = body["error"]["message"].as_str().unwrap();
        assert!(error.message.ends_with(said), "{error} does not say {said}");
    }
}
