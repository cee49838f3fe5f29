//! Results that are too long: what the model is shown of them, that it can read the whole, and that nobody else can.

use std::sync::{Arc, OnceLock};

use serde_json::{Value, json};
use toolbay_agent::{
    Agent, AgentConfig, ResultBounds, ScriptedModel,
    results::{Results, results},
};
use toolbay_api::{Message, ToolContext, tool};
use toolbay_runtime::{Toolbay, ToolbayBuilder};

use crate::support::Empty;

/// 300 orders with a long note each, some 60 KiB.
fn orders() -> Value {
    let order = |n: usize| json!({ "id": n, "note": format!("{n} {}", "é".repeat(80)), "lines": [n, n + 1] });
    json!({ "orders": (0..300).map(order).collect::<Vec<_>>(), "total": 300 })
}

fn office(bounds: ResultBounds) -> (Results, ToolbayBuilder) {
    let (results, read) = results(bounds);
    let orders = tool("orders", "Lists orders", async |_: Empty, _: ToolContext| Ok(orders()));
    let short = tool("short", "Says little", async |_: Empty, _: ToolContext| Ok("little"));
    let text = tool("text", "Says much", async |_: Empty, _: ToolContext| Ok("\"word\"\n".repeat(5_000)));
    (results, Toolbay::builder().without_audit().tool(read).tool(orders).tool(short).tool(text))
}

fn bounds(max_shown_bytes: usize, max_kept_bytes: usize) -> ResultBounds {
    ResultBounds { max_shown_bytes, max_kept_bytes }
}

fn agent(model: &ScriptedModel, bay: &Toolbay, results: &Results) -> Agent {
    let config = AgentConfig { results: Some(results.clone()), ..AgentConfig::default() };
    Agent::new(model.clone(), bay.session("acme").unwrap()).config(config)
}

/// What the tools said, in order.
fn said(messages: &[Message]) -> Vec<String> {
    let texts = messages.iter().filter_map(|message| match message {
        Message::Tool { text, .. } => Some(text.clone()),
        _ => None,
    });
    texts.collect()
}

fn given(model: &ScriptedModel, request: usize) -> Vec<String> {
    model.requests()[request].tools.iter().map(|tool| tool.name.to_string()).collect()
}

#[tokio::test]
async fn a_long_result_is_cut_with_its_structure_kept_and_the_model_is_told() {
    for most in [400, 2_000, 16_000] {
        let (results, bay) = office(bounds(most, 1 << 20));
        let model = ScriptedModel::new().calls("short", json!({})).calls("orders", json!({})).says("done");
        let reply = agent(&model, &bay.build().unwrap(), &results).run("go").await.unwrap();
        let said = said(&reply.messages);
        assert_eq!(said[0], "little");
        let (cut, told) = said[1].split_once('\n').unwrap();
        assert!(cut.len() <= most, "{} of {most}", cut.len());
        let cut: Value = serde_json::from_str(cut).unwrap();
        assert_eq!(cut["total"], 300);
        assert!(cut["orders"].as_array().is_some_and(|orders| orders[0]["id"] == 0), "{cut}");
        assert!(told.starts_with("[cut from ") && told.contains("read_result with the handle \"result-1\""), "{told}");
        assert_eq!(given(&model, 0), ["orders", "short", "text"], "there is nothing to read yet");
        assert_eq!(given(&model, 1), ["orders", "short", "text"]);
        assert_eq!(given(&model, 2), ["orders", "short", "text", "read_result"]);
    }
}

/// Reads pages as a model would, each with what the page before said, and puts them together.
async fn read_through(tool: &str, pointer: &str, key: &str) -> (Vec<Value>, usize) {
    let (results, bay) = office(bounds(4_000, 1 << 20));
    let bay = bay.build().unwrap();
    let (mut whole, mut offset, mut pages) = (Vec::new(), 0, 0);
    loop {
        // Each run has its own results, so the model calls the tool again first.
        let read = json!({"handle": "result-1", "pointer": pointer, "offset": offset});
        let model = ScriptedModel::new().calls(tool, json!({})).calls("read_result", read).says("done");
        let reply = agent(&model, &bay, &results).run("go").await.unwrap();
        let page = said(&reply.messages).remove(1);
        assert!(page.len() <= 4_500, "a page of {}", page.len());
        let page: Value = serde_json::from_str(&page).unwrap();
        whole.push(page[key].clone());
        pages += 1;
        match page["next_offset"].as_u64() {
            Some(next) => offset = next,
            None => return (whole, pages),
        }
    }
}

#[tokio::test]
async fn the_whole_is_read_page_by_page() {
    let (pages, count) = read_through("orders", "/orders", "items").await;
    let items: Vec<_> = pages.iter().flat_map(|page| page.as_array().unwrap().clone()).collect();
    assert_eq!(json!(items), orders()["orders"]);
    assert!(count > 5, "{count}");
    let (pages, _) = read_through("text", "", "text").await;
    assert_eq!(pages.iter().map(|page| page.as_str().unwrap()).collect::<String>(), "\"word\"\n".repeat(5_000));
    let (pages, _) = read_through("orders", "/orders/7", "entries").await;
    assert_eq!(pages, [orders()["orders"][7].clone()]);
}

#[tokio::test]
async fn another_run_reads_nothing_of_it_while_it_goes_on() {
    let (results, builder) = office(bounds(400, 1 << 20));
    let other: Arc<OnceLock<Agent>> = Arc::default();
    let peek = tool("peek", "Lets another run look", {
        let other = Arc::clone(&other);
        move |_: Empty, _: ToolContext| {
            let other = Arc::clone(&other);
            async move {
                let reply = other.get().unwrap().run("look").await.unwrap();
                Ok(said(&reply.messages).remove(0))
            }
        }
    });
    let bay = builder.tool(peek).build().unwrap();
    let read = || json!({"handle": "result-1"});
    let model = ScriptedModel::new().calls("read_result", read()).says("done");
    assert!(other.set(agent(&model, &bay, &results)).is_ok());
    let model = ScriptedModel::new().calls("orders", json!({})).calls("peek", json!({})).calls("read_result", read());
    let reply = agent(&model.says("done"), &bay, &results).run("go").await.unwrap();
    let said = said(&reply.messages);
    assert!(said[1].contains("NotFound: no result is kept under this handle"), "{}", said[1]);
    assert!(said[2].contains("total_keys"), "{}", said[2]);
}

#[tokio::test]
async fn what_is_kept_is_bounded_and_gone_with_the_run() {
    let (results, bay) = office(bounds(400, 150_000));
    let bay = bay.build().unwrap();
    // Two results of some 65 KiB fit, and a third takes the first one's place.
    let read = |n: usize| json!({"handle": format!("result-{n}")});
    let model = (0..3).fold(ScriptedModel::new(), |model, _| model.calls("orders", json!({})));
    let model =
        model.calls_all([("read_result", read(1)), ("read_result", read(2)), ("read_result", read(3))]).says("done");
    let reply = agent(&model, &bay, &results).run("go").await.unwrap();
    let pages = said(&reply.messages).split_off(3);
    assert!(pages[0].starts_with("NotFound: no result is kept under this handle"), "{}", pages[0]);
    assert!(pages[1].contains("total_keys") && pages[2].contains("total_keys"), "{pages:?}");
    assert!(format!("{results:?}").contains("kept: Mutex { data: {}"), "nothing is left: {results:?}");

    let (results, bay) = office(bounds(400, 1_000));
    let model = ScriptedModel::new().calls("orders", json!({})).says("done");
    let reply = agent(&model, &bay.build().unwrap(), &results).run("go").await.unwrap();
    assert!(said(&reply.messages)[0].ends_with("the whole is too long to be kept: ask for less at once]"));
    assert_eq!(given(&model, 1), ["orders", "short", "text"], "there is nothing to read");
}
