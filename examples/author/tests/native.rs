//! Unit tests of the native tool and the hook: no host, no network, no waiting.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails, and says where")]

use std::time::Duration;

use serde_json::{Value, json};
use toolbay::{
    CallId, ErrorKind, Hook, PermissionSet, Tool, ToolDefinition, ToolName,
    hook::{BeforeToolCall, BeforeToolCallOutcome},
    tool,
};
use toolbay_example_author::{NoTestCustomers, customer, plugin};
use toolbay_testkit::{FakeAnswer, FakeHttp, HostCall, TestHost, VirtualClock, check_lifecycle};

const CUSTOMERS: &str = "https://api.example.com/customers";

fn the_tool() -> impl Tool {
    tool("customer", "Finds a customer", customer)
}

fn ada() -> Value {
    json!({ "id": 107, "name": "Ada Lovelace" })
}

#[tokio::test]
async fn a_customer_is_asked_for_once_a_minute() {
    let (http, clock) =
        (FakeHttp::new().on("GET", CUSTOMERS, FakeAnswer::json(ada())).unwrap(), VirtualClock::default());
    let host = TestHost::new().with_http(http.clone()).with_clock(clock.clone()).with_secret("CRM_KEY", "s3cret");
    let query = json!({ "email": "ada@example.com" });
    assert_eq!(host.call(&the_tool(), query.clone()).await.unwrap(), ada());
    clock.advance(Duration::from_secs(59));
    assert_eq!(host.call(&the_tool(), query.clone()).await.unwrap(), ada());
    assert_eq!(http.requests().len(), 1, "the second answer was to be remembered");
    clock.advance(Duration::from_secs(1));
    host.call(&the_tool(), query).await.unwrap();
    assert_eq!(http.requests().len(), 2);

    let sent = &http.requests()[0].request;
    assert_eq!(sent["query"], json!({ "email": "ada@example.com" }));
    assert_eq!(sent["headers"]["authorization"], "Bearer s3cret");
    assert_eq!(host.calls()[1], HostCall::Secret { name: "CRM_KEY".to_owned() });
}

#[tokio::test]
async fn what_the_list_answers_becomes_an_error_to_act_on() {
    let answers = [
        (FakeAnswer::status(404), ErrorKind::NotFound),
        (FakeAnswer::status(500), ErrorKind::Unavailable),
        (FakeAnswer::text("<html>"), ErrorKind::Unavailable),
        (FakeAnswer::json(json!({ "id": "x" })), ErrorKind::Unavailable),
    ];
    for (answer, kind) in answers {
        let http = FakeHttp::new().on("GET", CUSTOMERS, answer).unwrap();
        let host = TestHost::new().with_http(http).with_secret("CRM_KEY", "k");
        let error = host.call(&the_tool(), json!({ "email": "ada@example.com" })).await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
    }
}

#[tokio::test]
async fn nothing_is_asked_that_the_plugin_does_not_ask_to_be_allowed() {
    let asked = plugin().unwrap();
    let asked = toolbay::Plugin::metadata(&asked).permissions.clone();
    let http = FakeHttp::new().on("GET", CUSTOMERS, FakeAnswer::json(ada())).unwrap();
    let host = TestHost::new().with_grants(asked).with_http(http).with_secret("CRM_KEY", "k");
    host.call(&the_tool(), json!({ "email": "ada@example.com" })).await.unwrap();

    let poor = TestHost::new().with_grants(PermissionSet::parse(["kv:*"]).unwrap());
    let error = poor.call(&the_tool(), json!({ "email": "ada@example.com" })).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn test_customers_are_not_paid() {
    let pay = |customer: u64| {
        let definition = ToolDefinition::new("pay", "Pays", json!({ "type": "object" })).unwrap();
        BeforeToolCall {
            call: CallId::new("1"),
            tool: ToolName::new("pay").unwrap(),
            arguments: json!({ "customer": customer }),
            definition: definition.into(),
        }
    };
    let host = TestHost::new();
    let asked = NoTestCustomers.before_tool_call(&pay(99), &host.hook_context()).await.unwrap();
    assert_eq!(asked, BeforeToolCallOutcome::deny("customer 99 is a test customer"));
    let asked = NoTestCustomers.before_tool_call(&pay(100), &host.hook_context()).await.unwrap();
    assert_eq!(asked, BeforeToolCallOutcome::Continue);
}

#[tokio::test]
async fn the_plugin_lives_and_dies_in_order() {
    check_lifecycle!(plugin().unwrap()).await.unwrap();
}
