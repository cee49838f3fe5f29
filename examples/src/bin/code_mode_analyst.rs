//! An analyst in code mode: the model writes one program that asks twenty stores for their sales and gives back the best.
//! With `TOOLBAY_MODEL` set, such as `gpt-4o-mini` with `OPENAI_API_KEY`, a real model writes it, and a scripted one otherwise.
#![allow(clippy::print_stdout, reason = "a program for people to look at")]

use toolbay::{
    Agent, AgentConfig, Message, Model, Scope, ScriptedModel,
    code::{CodeSettings, code_mode},
    provider::Provider,
};
use toolbay_examples::sales::{ANSWER, PROGRAM, QUESTION, sales};

fn model() -> Result<Box<dyn Model>, Box<dyn std::error::Error>> {
    match std::env::var("TOOLBAY_MODEL") {
        Ok(model) => Ok(Box::new(Provider::from_env(&model)?)),
        Err(_) => {
            let program = serde_json::json!({ "code": PROGRAM });
            Ok(Box::new(ScriptedModel::new().calls("run_code", program).says(ANSWER)))
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let question = std::env::args().nth(1).unwrap_or_else(|| QUESTION.to_owned());
    let (code, run_code) = code_mode(CodeSettings::default());
    let bay = toolbay::builder().tool(run_code).build()?;
    bay.register(Scope::Global, sales()?).await?;

    let config = AgentConfig { code: Some(code), ..AgentConfig::default() };
    let reply = Agent::new(model()?, bay.session("acme")?).config(config).run(question).await?;
    for message in &reply.messages {
        match message {
            Message::Assistant { tool_calls, .. } => {
                for call in tool_calls {
                    println!("{}", call.arguments.get("code").and_then(|code| code.as_str()).unwrap_or_default());
                }
            }
            Message::Tool { text, .. } => println!("-> {text}"),
            _ => {}
        }
    }
    println!("{}", reply.text);
    println!("({} steps, {} tool calls)", reply.steps, reply.tool_calls);
    Ok(())
}
