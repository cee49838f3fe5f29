//! The scripted model and its file form.

use serde_json::json;
use toolbay_agent::{Model, ModelError, ModelErrorKind, ScriptedModel};
use toolbay_api::{Message, ModelRequest, message::FinishReason};

fn request(text: &str) -> ModelRequest {
    ModelRequest { messages: vec![Message::user(text)], ..ModelRequest::default() }
}

#[tokio::test]
async fn replies_come_in_order_and_requests_are_kept() {
    let model = ScriptedModel::new()
        .calls_all([("a", json!({"x": 1})), ("b", json!({}))])
        .thinking("both at once")
        .using(7, 3)
        .raw_calls("a", "{oops")
        .fails(ModelError::new(ModelErrorKind::Overloaded, "busy"))
        .says("done");
    let clone = model.clone();

    let first = model.respond(request("1")).await.unwrap();
    let ids: Vec<_> = first.tool_calls.iter().map(|call| call.id.as_str()).collect();
    assert_eq!(ids, ["call_1", "call_2"]);
    assert_eq!((first.finish, first.tokens.input, first.tokens.output), (FinishReason::ToolCalls, 7, 3));
    assert_eq!(first.reasoning.as_deref(), Some("both at once"));
    assert_eq!(model.respond(request("2")).await.unwrap().tool_calls[0].arguments, json!("{oops"));
    assert_eq!(model.respond(request("3")).await.unwrap_err().kind, ModelErrorKind::Overloaded);
    assert_eq!(model.respond(request("4")).await.unwrap().text, "done");

    let ended = model.respond(request("5")).await.unwrap_err();
    assert_eq!(ended.kind, ModelErrorKind::ScriptEnded);
    assert_eq!(ended.message, "the scripted model has 4 replies and was asked 5 times: add a reply");
    assert_eq!(clone.requests().len(), 5);
    assert_eq!(clone.requests()[1], request("2"));
}

#[tokio::test]
async fn a_script_is_read_from_json_lines() {
    let model = ScriptedModel::from_json_lines(
        r##"
        # a comment
        {"tool_calls": [{"name": "fx", "arguments": {"a": 1}}, {"id": "mine", "name": "now"}], "text": "one moment"}

        {"tool_calls": [{"name": "fx", "arguments": "{broken"}], "reasoning": "hm"}
        {"error": "the provider is away"}
        {"text": "done", "finish": "length", "tokens": {"input": 4, "output": 2}}
        "##,
    )
    .unwrap();
    assert_eq!(model.replies_left(), 4);
    let first = model.respond(request("1")).await.unwrap();
    assert_eq!(first.text, "one moment");
    assert_eq!((first.tool_calls[0].id.as_str(), &first.tool_calls[0].arguments), ("call_1", &json!({"a": 1})));
    assert_eq!((first.tool_calls[1].id.as_str(), &first.tool_calls[1].arguments), ("mine", &json!({})));
    let second = model.respond(request("2")).await.unwrap();
    assert_eq!((second.reasoning.as_deref(), &second.tool_calls[0].arguments), (Some("hm"), &json!("{broken")));
    let error = model.respond(request("3")).await.unwrap_err();
    assert_eq!((error.message.as_str(), error.retryable), ("the provider is away", false));
    let last = model.respond(request("4")).await.unwrap();
    assert_eq!((last.text.as_str(), last.finish, last.tokens.input), ("done", FinishReason::Length, 4));
}

#[test]
fn a_bad_line_is_named_with_its_number() {
    let error = |text: &str| ScriptedModel::from_json_lines(text).err().unwrap().to_string();
    let bad = error("{\"text\": \"a\"}\n\n{\"text\": }");
    assert!(bad.starts_with("line 3 of the script: expected value at column 10"), "{bad}");
    assert!(error("{\"txt\": \"a\"}").contains("unknown field `txt`"));
    assert!(error("{\"reasoning\": \"a\"}").contains("give \"text\", \"tool_calls\" or \"error\""));
    assert!(error("{\"error\": \"a\", \"text\": \"b\"}").contains("\"error\" stands alone"));
    assert!(error("{\"tool_calls\": [{\"arguments\": {}}]}").contains("missing field `name`"));
    assert!(error("[]").starts_with("line 1"));
}
