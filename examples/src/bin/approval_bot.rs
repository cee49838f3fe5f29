//! A support bot that may refund, but not by itself: the run is suspended, put away as text, and goes on when somebody at the
//! desk has decided. Takes a prompt; with `TOOLBAY_MODEL` set (and the key of its provider) it asks that model, and a scripted
//! one otherwise. With `--ask` it asks you; without it the desk approves up to 50 and makes more of it 50.
#![allow(clippy::print_stdout, reason = "a program for people to look at")]

use std::io::BufRead;

use futures::StreamExt;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use toolbay::{
    Agent, AgentReply, Decision, Decisions, Model, PendingApproval, RunEvent, RunStream, ScriptedModel, StreamOptions,
    SuspendedRun, ToolContext, ToolError, provider::Provider, tool,
};

#[derive(Deserialize, JsonSchema)]
struct Order {
    /// The order's number.
    order: u64,
}

#[derive(Deserialize, JsonSchema)]
struct Refund {
    /// The order's number.
    order: u64,
    /// The amount in euros.
    amount: u64,
}

async fn look_up(args: Order, _: ToolContext) -> Result<serde_json::Value, ToolError> {
    Ok(json!({ "order": args.order, "paid": 80, "state": "arrived broken" }))
}

async fn refund(args: Refund, _: ToolContext) -> Result<String, ToolError> {
    Ok(format!("refunded {} euros for order {}", args.amount, args.order))
}

fn model() -> Result<Box<dyn Model>, Box<dyn std::error::Error>> {
    if let Ok(model) = std::env::var("TOOLBAY_MODEL") {
        return Ok(Box::new(Provider::from_env(&model)?));
    }
    let order = json!({ "order": 17 });
    Ok(Box::new(
        ScriptedModel::new()
            .calls("look_up", order.clone())
            .calls_all([("look_up", order), ("refund", json!({ "order": 17, "amount": 80 }))])
            .says("I have refunded 50 euros for order 17. The rest is with a colleague."),
    ))
}

/// Shows a run as it happens.
async fn show(mut run: RunStream) -> Result<AgentReply, Box<dyn std::error::Error>> {
    while let Some(event) = run.next().await {
        match event {
            RunEvent::TextDelta { text, .. } => print!("{text}"),
            RunEvent::ToolCallStarted { tool, arguments, .. } => println!("calls {tool} {arguments}"),
            RunEvent::ApprovalAsked { pending } => println!("waits: {} {}", pending.tool, pending.arguments),
            RunEvent::RunFinished { .. } => println!(),
            _ => {}
        }
    }
    Ok(run.reply().await?)
}

/// What the desk decides.
fn decide(pending: &PendingApproval, ask: bool) -> Decision {
    if ask {
        println!("{} {}: {} (y/n)", pending.tool, pending.arguments, pending.reason);
        let answer = std::io::stdin().lock().lines().next().and_then(Result::ok).unwrap_or_default();
        return match answer.trim() {
            "y" => Decision::Approve,
            _ => Decision::Reject { reason: "the desk said no".to_owned() },
        };
    }
    let amount = pending.arguments.get("amount").and_then(serde_json::Value::as_u64).unwrap_or_default();
    if amount <= 50 {
        return Decision::Approve;
    }
    let mut arguments = pending.arguments.clone();
    if let Some(fields) = arguments.as_object_mut() {
        fields.insert("amount".to_owned(), json!(50));
    }
    Decision::Edit { arguments }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let ask = args.iter().any(|arg| arg == "--ask");
    args.retain(|arg| arg != "--ask");
    let prompt = args.pop().unwrap_or_else(|| "My order 17 arrived broken.".to_owned());

    let refund =
        tool("refund", "Refunds an order", refund).with(|definition| definition.annotations.destructive = Some(true));
    let bay = toolbay::builder().tool(tool("look_up", "Looks an order up", look_up)).tool(refund).build()?;
    let agent = Agent::new(model()?, bay.session("acme")?.with_user("customer-9"))
        .system("You help customers. Look orders up before you refund them.");

    let mut reply = show(agent.stream(prompt)).await?;
    while let Some(suspended) = reply.suspended.take() {
        // Here the process could end: the text is all there is to keep, and another process goes on with it.
        let kept = suspended.to_json().to_string();
        let suspended = SuspendedRun::from_json(serde_json::from_str(&kept)?)?;
        let decided = |all: Decisions, pending: &PendingApproval| all.decide(pending.id, decide(pending, ask));
        let decisions = suspended.pending.iter().fold(Decisions::by("desk"), decided);
        reply = show(agent.resume_stream(suspended, decisions, StreamOptions::default())).await?;
    }
    Ok(())
}
