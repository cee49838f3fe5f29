//! The idempotency key of a call, which a server gets beside the arguments.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use toolbay_api::{RunId, ToolCall};
use toolbay_runtime::outcomes::CallKey;

use crate::support::{Does, Fake, a_tool, approved, loaded, said};

#[tokio::test]
async fn a_server_finds_the_key_of_a_call_in_the_requests_meta_and_none_where_a_call_has_none() {
    let seen = Arc::<Mutex<Vec<Value>>>::default();
    let calls = Arc::clone(&seen);
    let fake = Fake::start(move |method, params| match method {
        "tools/list" => Does::Answers(json!({ "tools": [a_tool("look", "Looks")] })),
        "tools/call" => {
            calls.lock().unwrap().push(params.clone());
            Does::Answers(said("done"))
        }
        _ => Does::Answers(json!({})),
    })
    .await;
    let (bay, _folder) = loaded(&fake.file(), &approved(&fake.file()).await).await;
    let session = bay.session("acme").unwrap();
    let run = session.run_as(RunId::from_bytes([3; 16]));
    let call = ToolCall { id: "call_1".into(), name: "remote.look".into(), arguments: json!({}) };
    for _ in 0..2 {
        run.call(1, call.clone()).await.result.unwrap();
    }
    session.call("remote.look", json!({})).await.result.unwrap();
    let seen = seen.lock().unwrap();
    let key = CallKey::of(session.tenant(), run.id(), &toolbay_api::CallId::new("call_1")).to_string();
    let keys: Vec<_> = seen.iter().map(|params| params["_meta"]["toolbay/idempotency-key"].clone()).collect();
    assert_eq!(keys, [json!(key), json!(key), Value::Null]);
    assert!(seen.iter().all(|params| params["arguments"] == json!({})));
}
