//! A tenant's tools over MCP on standard input and output, from a program of your own.

use toolbay::{ToolContext, tool};

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Name {
    name: String,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let greet =
        tool("greet", "Greets somebody", async |args: Name, _: ToolContext| Ok(format!("Hello, {}!", args.name)));
    let bay = toolbay::builder().tool(greet).build()?;
    toolbay::mcp::serve_stdio(bay.session("acme")?).await?;
    Ok(())
}
