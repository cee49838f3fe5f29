//! The agent loop in your own hands: the stepper says what comes next, you do it however you like.
#![allow(clippy::print_stdout, reason = "a program for people to look at")]

use serde_json::json;
use toolbay::{
    ErrorKind, Message, Model, Next, ScriptedModel, Stepper, StepperConfig, ToolContext, ToolDefinition, ToolReply,
    tool,
};

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Sum {
    a: i64,
    b: i64,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let add = tool("add", "Adds two numbers", async |args: Sum, _: ToolContext| Ok(args.a + args.b));
    let bay = toolbay::builder().tool(add).build()?;
    let run = bay.session("acme")?.run();
    let model = ScriptedModel::new()
        .calls_all([("add", json!({ "a": 2, "b": 3 })), ("add", json!({ "a": "two", "b": 3 }))])
        .says("The sum is 5.");

    let definitions = run.tools().iter().map(|tool| ToolDefinition::clone(&tool.definition)).collect();
    let mut stepper = Stepper::new(StepperConfig::default(), vec![Message::user("What is 2 + 3?")], definitions);
    let end = loop {
        match stepper.next() {
            Next::CallModel { step, request } => {
                println!("step {step}: asking with {} messages", request.messages.len());
                stepper.model_replied(model.respond(request).await?)?;
            }
            Next::RunTools { step, calls } => {
                for call in calls {
                    let reply = run.call(step, call).await;
                    println!("step {step}: {} -> {}", reply.tool, reply.model_text());
                    let (text, is_error) = (reply.model_text(), reply.is_error());
                    let needs_repair = reply.result.as_ref().is_err_and(|e| e.kind == ErrorKind::InvalidArguments);
                    stepper.tool_replied(ToolReply {
                        call_id: reply.call.to_string(),
                        text,
                        is_error,
                        needs_repair,
                    })?;
                }
            }
            Next::Done(end) => break end,
        }
    };
    println!("{}", end.text);
    Ok(())
}
