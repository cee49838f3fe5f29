//! An agent with one native tool. Takes a prompt; with `OPENAI_API_KEY` or `OPENAI_BASE_URL` set it asks the model named by
//! `TOOLBAY_MODEL`, and a scripted one otherwise.
#![allow(clippy::print_stdout, reason = "a program for people to look at")]

use schemars::JsonSchema;
use serde::Deserialize;
use toolbay::{Agent, Model, ScriptedModel, ToolContext, ToolError, provider::Provider};

#[derive(Deserialize, JsonSchema)]
struct Weather {
    /// The city, in English.
    city: String,
}

async fn weather(args: Weather, _cx: ToolContext) -> Result<String, ToolError> {
    Ok(format!("{}: sunny, 21 °C", args.city))
}

fn model() -> Result<Box<dyn Model>, Box<dyn std::error::Error>> {
    match std::env::var("TOOLBAY_MODEL") {
        Ok(model) => Ok(Box::new(Provider::from_env(&model)?)),
        Err(_) => {
            let rome = serde_json::json!({ "city": "Rome" });
            Ok(Box::new(ScriptedModel::new().calls("weather", rome).says("It is sunny in Rome, 21 °C.")))
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let prompt = std::env::args().nth(1).unwrap_or_else(|| "What is the weather in Rome?".to_owned());
    let bay = toolbay::builder().tool(toolbay::tool("weather", "Tells the weather", weather)).build()?;
    let agent = Agent::new(model()?, bay.session("acme")?);
    let reply = agent.run(prompt).await?;
    println!("{}", reply.text);
    println!("({} steps, {} tool calls)", reply.steps, reply.tool_calls);
    Ok(())
}
