//! Servers that do not keep to the protocol, or say more than anybody can read.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use serde_json::json;
use toolbay_api::ErrorKind;
use toolbay_mcp_client::{LinkError, Pins};

use crate::support::{Does, Fake, a_tool, approved, link, loaded, said};

#[tokio::test]
async fn endless_pages_come_to_an_end() {
    let page = AtomicUsize::new(0);
    let fake = Fake::start(move |_, _| {
        let number = page.fetch_add(1, Ordering::SeqCst);
        Does::Answers(json!({ "tools": [a_tool(&format!("t{number}"), "")], "nextCursor": format!("{number}") }))
    })
    .await;
    let error = link(&fake.file()).await.tools().await.unwrap_err();
    assert!(matches!(&error, LinkError::Broken(why) if why.contains("pages")), "{error}");
    assert!(fake.count("tools/list") <= 51);
}

#[tokio::test]
async fn a_page_with_too_many_tools_is_refused() {
    let tools: Vec<_> = (0..1_001).map(|number| a_tool(&format!("t{number}"), "")).collect();
    let error = link(&Fake::with_tools(json!(tools)).await.file()).await.tools().await.unwrap_err();
    assert!(matches!(&error, LinkError::Broken(why) if why.contains("1000")), "{error}");
}

#[tokio::test]
async fn a_huge_definition_is_refused() {
    let tools = json!([a_tool("t", &"x".repeat(200_000))]);
    let error = link(&Fake::with_tools(tools).await.file()).await.tools().await.unwrap_err();
    assert!(matches!(&error, LinkError::Broken(why) if why.contains("bytes")), "{error}");
}

#[tokio::test]
async fn two_tools_of_one_name_are_refused() {
    let tools = json!([a_tool("t", "One"), a_tool("t", "Other")]);
    let error = link(&Fake::with_tools(tools).await.file()).await.tools().await.unwrap_err();
    assert!(matches!(&error, LinkError::Broken(why) if why.contains("one name")), "{error}");
}

#[tokio::test]
async fn a_server_that_never_answers_costs_the_call_its_time_and_no_more_and_hears_that_it_is_over() {
    let fake = Fake::start(|method, _| match method {
        "tools/list" => Does::Answers(json!({ "tools": [a_tool("wait", "Waits"), a_tool("look", "Looks")] })),
        _ => Does::Never,
    })
    .await;
    let (bay, _folder) = loaded(&fake.file(), &approved(&fake.file()).await).await;
    let began = Instant::now();
    let error = bay.session("acme").unwrap().call("remote.wait", json!({})).await.result.unwrap_err();
    assert_eq!(error.kind, ErrorKind::TimedOut, "{error}");
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let heard = async {
        while fake.count("notifications/cancelled") == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), heard).await.expect("the server hears of it");
}

#[tokio::test]
async fn an_answer_to_another_request_is_none() {
    let fake = Fake::start(|method, _| match method {
        "tools/list" => Does::Answers(json!({ "tools": [a_tool("look", "Looks")] })),
        _ => Does::AnswersAs(json!(987_654), said("not for you")),
    })
    .await;
    let (bay, _folder) = loaded(&fake.file(), &approved(&fake.file()).await).await;
    let result = bay.session("acme").unwrap().call("remote.look", json!({})).await.result;
    assert!(result.is_err(), "{result:?}");
}

#[tokio::test]
async fn a_result_beyond_the_limit_is_refused() {
    let fake = Fake::start(|method, _| match method {
        "tools/list" => Does::Answers(json!({ "tools": [a_tool("look", "Looks")] })),
        _ => Does::Answers(said(&"x".repeat(600_000))),
    })
    .await;
    let (bay, _folder) = loaded(&fake.file(), &approved(&fake.file()).await).await;
    let error = bay.session("acme").unwrap().call("remote.look", json!({})).await.result.unwrap_err();
    assert!(matches!(error.kind, ErrorKind::LimitExceeded { .. }), "{error}");
}

#[tokio::test]
async fn a_failed_tool_is_an_answer_with_the_servers_words_cut() {
    let fake = Fake::start(|method, _| match method {
        "tools/list" => Does::Answers(json!({ "tools": [a_tool("look", "Looks")] })),
        _ => Does::Answers(json!({ "isError": true, "content": [{ "type": "text", "text": "no ".repeat(5_000) }] })),
    })
    .await;
    let (bay, _folder) = loaded(&fake.file(), &approved(&fake.file()).await).await;
    let error = bay.session("acme").unwrap().call("remote.look", json!({})).await.result.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Script);
    assert!(error.message.len() <= 4_000);
}

#[tokio::test]
async fn a_server_that_has_an_approved_tool_no_more_is_called_for_the_others() {
    let both = Fake::with_tools(json!([a_tool("look", "Looks"), a_tool("gone", "Goes")])).await;
    let pins: Pins = approved(&both.file()).await;
    let fake = Fake::with_tools(json!([a_tool("look", "Looks")])).await;
    let (bay, _folder) = loaded(&fake.file(), &pins).await;
    assert!(bay.session("acme").unwrap().call("remote.look", json!({})).await.result.is_ok());
}
