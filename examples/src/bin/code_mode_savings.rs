//! What code mode saves: the same task of twenty calls one by one, all in one reply, and as a program, by a scripted model.
//! Prints requests to the model and the bytes of all requests together, as JSON. The figures of BENCHMARKS.md are from here.
#![allow(clippy::print_stdout, reason = "a program for people to look at")]

use serde_json::json;
use toolbay::{
    Agent, AgentConfig, Scope, ScriptedModel,
    code::{CodeSettings, code_mode},
};
use toolbay_examples::sales::{ANSWER, PROGRAM, QUESTION, sales, stores};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let day = |store: String| ("sales__day", json!({ "store": store }));
    let one_by_one = stores().into_iter().fold(ScriptedModel::new(), |model, store| {
        let (tool, arguments) = day(store);
        model.calls(tool, arguments)
    });
    let at_once = ScriptedModel::new().calls_all(stores().into_iter().map(day));
    let program = ScriptedModel::new().calls("run_code", json!({ "code": PROGRAM }));

    println!("{:<24} {:>8} {:>12} {:>10}", "", "requests", "bytes", "tool calls");
    for (what, model, in_code) in [
        ("calls one by one", one_by_one, false),
        ("calls in one reply", at_once, false),
        ("one program", program, true),
    ] {
        let model = model.says(ANSWER);
        let (code, run_code) = code_mode(CodeSettings::default());
        let bay = toolbay::builder().tool(run_code).build()?;
        bay.register(Scope::Global, sales()?).await?;
        let config = AgentConfig { code: in_code.then_some(code), ..AgentConfig::default() };
        let reply = Agent::new(model.clone(), bay.session("acme")?).config(config).run(QUESTION).await?;
        let requests = model.requests();
        let bytes = requests.iter().map(|request| serde_json::to_string(request).map(|text| text.len()));
        let bytes: usize = bytes.collect::<Result<Vec<_>, _>>()?.iter().sum();
        println!("{what:<24} {:>8} {bytes:>12} {:>10}", requests.len(), reply.tool_calls);
    }
    Ok(())
}
